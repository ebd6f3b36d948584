//! What a realm of Kubernetes service accounts signs. Its tokens are asked for by the API server
//! through the service, without a proof of their own: the policy alone bounds what a hostile host
//! can get (INVARIANT I5).

use std::collections::HashSet;

use chancery_token::{Algorithm, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, RealmDocument, Rotation, bad};

/// The most imported keys of a realm: a cluster has one or two, and each is fetched by every
/// relying party.
pub const MAX_IMPORTED_KEYS: usize = 16;
/// The longest `kid` of an imported key, in bytes: what kube-apiserver accepts.
const MAX_KID_BYTES: usize = 1_024;
/// The API server ends at its start when the longest lifetime is below this, in seconds.
const LEAST_MAX_LIFETIME_S: u64 = 600;
/// A window that the API server's polling can follow: the lead must hold two refreshes, which are
/// whole seconds.
const LEAST_PUBLISH_LEAD_S: u64 = 2;
/// What kube-apiserver verifies, as far as it is one of ours.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384];
/// A DNS label (RFC 1123), which a namespace is.
const MAX_NAMESPACE_BYTES: usize = 63;
/// A DNS subdomain (RFC 1123), which a service account's name is.
const MAX_NAME_BYTES: usize = 253;
/// The most audiences, patterns or claim names of a realm: each token is compared with all of them.
const MAX_LISTED: usize = 256;

/// What makes a realm one of Kubernetes service accounts.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct KubernetesDocument {
    /// Audiences that tokens may have, compared exactly.
    pub audiences: Vec<String>,
    /// Service accounts as `namespace:name`; `*` in the place of either stands for every one.
    pub service_accounts: Vec<String>,
    /// Claims that every token must have beside those that all have, by name; `kubernetes.io/pod`
    /// is the member `pod` of the claim `kubernetes.io`.
    #[serde(default)]
    pub required_claims: Vec<String>,
    /// Claims that tokens may have beside those that Kubernetes 1.36 writes, named as in
    /// `required_claims`.
    #[serde(default)]
    pub further_claims: Vec<String>,
    /// Public keys that were made elsewhere, listed so that tokens under them stay valid. They never
    /// sign here.
    #[serde(default)]
    pub imported: Vec<ImportedKeyDocument>,
}

/// A public key that was made elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ImportedKeyDocument {
    /// The `kid` that its tokens name.
    pub kid: String,
    /// The public JWK.
    pub jwk: Map<String, Value>,
    /// Unix seconds from which on it is no longer listed: when the last token under it has expired.
    pub until: u64,
    /// Whether everybody sees it in the realm's key set; otherwise only the API server does.
    #[serde(default)]
    pub in_discovery: bool,
}

impl KubernetesDocument {
    /// Whether the service account is one of those that tokens may be for.
    #[must_use]
    pub fn allows(&self, namespace: &str, name: &str) -> bool {
        let fits = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        self.service_accounts
            .iter()
            .filter_map(|account| account.split_once(':'))
            .any(|(in_namespace, named)| fits(in_namespace, namespace) && fits(named, name))
    }

    pub(super) fn check(&self, at: &str, realm: &RealmDocument) -> Result<(), Error> {
        if !realm.clients.is_empty() {
            return bad(
                at,
                "a realm with `kubernetes` signs for service accounts only: no clients",
            );
        }
        match realm.algorithms.as_slice() {
            [one] if ALGORITHMS.contains(one) => {}
            _ => return bad(at, "a realm with `kubernetes` has one of RS256, ES256 and ES384"),
        }
        let schedule = &realm.schedule;
        if schedule.rotation == Rotation::Manual {
            return bad(
                at,
                "rotation must be automatic: where nobody rotates in time kube-apiserver finds no key \
                 at its start, and exits",
            );
        }
        if schedule.max_lifetime_s < LEAST_MAX_LIFETIME_S {
            let what = format!(
                "max_lifetime_s `{}` is below {LEAST_MAX_LIFETIME_S}: kube-apiserver would exit at \
                 its start",
                schedule.max_lifetime_s
            );
            return bad(at, what);
        }
        if schedule.publish_lead_s < LEAST_PUBLISH_LEAD_S {
            let what = format!(
                "publish_lead_s `{}` is below {LEAST_PUBLISH_LEAD_S}: kube-apiserver could not \
                 fetch a key before it signs",
                schedule.publish_lead_s
            );
            return bad(at, what);
        }
        self.check_lists(at)?;
        check_imported(at, &self.imported)
    }

    fn check_lists(&self, at: &str) -> Result<(), Error> {
        let lists = [
            ("audiences", &self.audiences, 1),
            ("service_accounts", &self.service_accounts, 1),
            ("required_claims", &self.required_claims, 0),
            ("further_claims", &self.further_claims, 0),
        ];
        for (name, list, least) in lists {
            if list.len() < least || list.len() > MAX_LISTED {
                return bad(at, format!("kubernetes.{name} must have {least} to {MAX_LISTED}"));
            }
            if list.iter().any(|text| text.is_empty() || text.len() > 1_024) {
                return bad(at, format!("kubernetes.{name}: each has 1 to 1,024 bytes"));
            }
        }
        let may_be_there = |name: &String| {
            crate::kubernetes::is_written(name) || self.further_claims.contains(name)
        };
        if let Some(name) = self.required_claims.iter().find(|name| !may_be_there(name)) {
            let what = format!(
                "kubernetes.required_claims: no token may have the claim `{name}`; add it to \
                 `further_claims`, or take it out"
            );
            return bad(at, what);
        }
        for account in &self.service_accounts {
            let parts = account.split_once(':');
            let good = parts.is_some_and(|(namespace, name)| {
                (namespace == "*" || is_namespace(namespace)) && (name == "*" || is_name(name))
            });
            if !good {
                let what = format!(
                    "service account `{account}` must be `namespace:name`, with `*` alone in the \
                     place of either"
                );
                return bad(at, what);
            }
        }
        Ok(())
    }
}

fn check_imported(at: &str, imported: &[ImportedKeyDocument]) -> Result<(), Error> {
    if imported.len() > MAX_IMPORTED_KEYS {
        return bad(at, format!("imports more than {MAX_IMPORTED_KEYS} keys"));
    }
    let mut kids = HashSet::new();
    for key in imported {
        let kid = &key.kid;
        if kid.is_empty()
            || kid.len() > MAX_KID_BYTES
            || !kid.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        {
            let what = "an imported key's `kid` is 1 to 1,024 printable ASCII characters without \
                        space, `\"` and `\\`";
            return bad(at, what);
        }
        if !kids.insert(kid) {
            return bad(at, format!("imports `kid` `{kid}` twice"));
        }
        let of_key =
            |e: String| Error::Value { at: format!("{at}, imported key `{kid}`"), what: e };
        let public = PublicKey::from_jwk(&key.jwk).map_err(|e| of_key(e.to_string()))?;
        if !ALGORITHMS.contains(&public.algorithm()) {
            return Err(of_key("kube-apiserver knows no such key; it is not imported".into()));
        }
        if key.until > chancery_token::json::MAX_SECONDS {
            return Err(of_key(format!("until `{}` is not in Unix seconds", key.until)));
        }
    }
    Ok(())
}

/// Whether this is a name of a namespace: a DNS label.
#[must_use]
pub(crate) fn is_namespace(text: &str) -> bool {
    text.len() <= MAX_NAMESPACE_BYTES && is_label(text)
}

/// Whether this is a name of a service account: a DNS subdomain.
#[must_use]
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
