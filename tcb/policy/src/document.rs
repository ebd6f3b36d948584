//! The policy as operators write it, and its strict parsing.
//!
//! The same structures are read from the service's TOML and from the JSON document that the signer
//! gets; the document's SHA-256 over the JSON bytes is the policy digest that stands in the log.

mod kubernetes;

use std::collections::HashSet;

pub use kubernetes::{ImportedKeyDocument, KubernetesDocument, MAX_IMPORTED_KEYS};
pub(crate) use kubernetes::{is_name, is_namespace};

use chancery_token::{Algorithm, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The largest policy document, in bytes: it travels in one frame and is kept in the signer.
pub const MAX_POLICY_BYTES: usize = 4 * 1024 * 1024;
/// Each realm and algorithm costs a key lane that is swept every second.
pub const MAX_REALMS: usize = 256;
/// The most keys that one realm and algorithm may keep live (pending, active and retired): a key
/// set is fetched by every relying party, and each RSA-4096 or ML-DSA-87 member costs kilobytes.
pub const MAX_LIVE_KEYS: u64 = 64;
/// All realms' key sets together, in bytes: the signer signs them as one document, which must fit
/// into one frame beside a batch's tokens, and which relying parties read whole.
pub const MAX_KEY_SETS_BYTES: u64 = 768 * 1024;
/// The most keys of one realm: what relying parties accept in one set.
pub const MAX_REALM_KEYS: u64 = chancery_token::jwks::MAX_KEYS as u64;
/// Realm names that would collide with paths of the service.
pub const RESERVED_REALMS: &[&str] = &["log", "directory", "signers", ".well-known"];
/// Bounds the memory of the proofs remembered for one client: 4 million proofs are about 200 MB.
pub const MAX_REPLAY_CAPACITY: u32 = 4_000_000;
/// The longest window and the longest token lifetime: 400 days, beyond any published practice.
pub const MAX_DURATION_S: u64 = 400 * 86_400;
/// What a signer's process can be demanded to have, as it reports it.
pub const PROTECTIONS: [&str; 7] = [
    "secret_memory",
    "no_new_privs",
    "not_dumpable",
    "no_core_dump",
    "memory_locked",
    "landlock",
    "seccomp",
];
/// Claims that only the signer sets, or whose meaning validators rely on: RFC 7519 section 4.1,
/// RFC 9068 section 2.2, RFC 7800, RFC 8693 and OpenID Connect's session claims.
pub const RESERVED_CLAIMS: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "client_id",
    "scope",
    "cnf",
    "act",
    "may_act",
    "auth_time",
    "acr",
    "amr",
    "azp",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
    "sid",
    "events",
    "status",
    "authorization_details",
];

/// A whole policy, one version of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    /// Strictly increasing.
    pub version: u64,
    /// Prefix of every log's origin, a schemeless URL without a trailing slash
    /// (C2SP tlog-checkpoint), for example `issuer.example/log`.
    pub log_prefix: String,
    /// The realms.
    pub realms: Vec<RealmDocument>,
    /// The C2SP tlog-policy that a directory root must meet before it frees signatures
    /// ([`crate::witnessed`]); without it, what the service acknowledged is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<String>,
    /// Protections of the signer's process, of [`PROTECTIONS`], without which it takes no policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protections: Vec<String>,
}

/// A unit with its own issuer, key set, policy and schedule.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RealmDocument {
    /// Path element of the realm's URLs: lower-case letters, digits, `-` and `_`; at most 64.
    pub name: String,
    /// The URL in `iss`, compared exactly.
    pub issuer: String,
    /// Algorithms that the realm signs with; the first is the default.
    pub algorithms: Vec<Algorithm>,
    /// Size of the realm's RSA keys in bits: 2048, 3072 or 4096.
    #[serde(default = "default_rsa_bits")]
    pub rsa_bits: u16,
    /// When keys are announced, activated and destroyed.
    #[serde(default)]
    pub schedule: Schedule,
    /// Who may ask.
    #[serde(default)]
    pub clients: Vec<ClientDocument>,
    /// Makes it a realm of Kubernetes service accounts, which has no clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesDocument>,
}

fn default_rsa_bits() -> u16 {
    2048
}

/// Who starts the next key.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// The schedule does.
    #[default]
    Automatic,
    /// Only `chancery keys rotate`; the window is `manual_window_s`, after which signing stops.
    Manual,
}

/// The life of a realm's keys.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Who starts the next key.
    pub rotation: Rotation,
    /// Length of a key's window, in seconds.
    pub rotate_every_s: u64,
    /// How long a key is in the key set before it signs, in seconds.
    pub publish_lead_s: u64,
    /// The longest lifetime of a token, in seconds.
    pub max_lifetime_s: u64,
    /// How long a retired key stays in the key set beyond its last token's expiry, in seconds:
    /// the leeway of validators.
    pub skew_s: u64,
    /// Length of a window under manual rotation, in seconds.
    pub manual_window_s: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            rotation: Rotation::Automatic,
            rotate_every_s: 3_600,
            publish_lead_s: 300,
            max_lifetime_s: 3_600,
            skew_s: 30,
            manual_window_s: 30 * 86_400,
        }
    }
}

impl Schedule {
    /// How much earlier than `publish_lead` a successor is announced, in seconds: the commit of an
    /// announcement takes time, and the lead counts from the commit.
    #[must_use]
    pub fn margin_s(&self) -> u64 {
        (self.publish_lead_s / 20).max(2)
    }

    /// Length of a regular window, in seconds.
    #[must_use]
    pub fn window_s(&self) -> u64 {
        match self.rotation {
            Rotation::Automatic => self.rotate_every_s,
            Rotation::Manual => self.manual_window_s,
        }
    }

    /// The most keys of one algorithm that this schedule keeps in the key set at a time, where
    /// successors are announced `early_s` seconds earlier than the lead needs.
    #[must_use]
    pub fn live_keys(&self, early_s: u64) -> u64 {
        let window = self.window_s().max(1);
        let ahead = self.publish_lead_s.saturating_add(self.margin_s()).saturating_add(early_s);
        let pending = ahead.div_ceil(window);
        let retired = (self.max_lifetime_s.saturating_add(self.skew_s)).div_ceil(window);
        // One is active, and one more may be on either side of a boundary at the same moment.
        pending.saturating_add(retired).saturating_add(2)
    }

    /// `max-age` of the key set, in seconds: always shorter than `publish_lead`, so that a relying
    /// party that refreshes on time holds every key before it signs.
    #[must_use]
    pub fn key_set_max_age_s(&self) -> u64 {
        (self.publish_lead_s / 2).min(3_600)
    }
}

/// Somebody who asks for tokens, known by public keys.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ClientDocument {
    /// The client id: 1 to 256 printable ASCII characters without spaces.
    pub id: String,
    /// Public JWKs. A JWK without `kid` is known by its RFC 7638 thumbprint.
    pub keys: Vec<Map<String, Value>>,
    /// What the client may ask for; the first grant that allows a request decides.
    pub grants: Vec<GrantDocument>,
    /// The most tokens a second, over any second and a burst of twice as many; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_s: Option<u32>,
    /// How many unexpired proofs are remembered; when full, further ones are refused.
    #[serde(default = "default_replay_capacity")]
    pub replay_capacity: u32,
    /// Accept the deprecated `alg` name `EdDSA` beside `Ed25519` in proofs (RFC 9864).
    #[serde(default)]
    pub accept_eddsa: bool,
}

fn default_replay_capacity() -> u32 {
    100_000
}

/// One thing that a client may ask for.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct GrantDocument {
    /// Name for the audit.
    pub name: String,
    /// Audiences, compared exactly; the first is the default when a request names none.
    pub audiences: Vec<String>,
    /// Subjects: exact, or a prefix before one final `*`. Empty: the client itself only.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Scope values; a request that names none gets none.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Names of further claims that a signed request may set.
    #[serde(default)]
    pub claims: Vec<String>,
    /// The longest lifetime, in seconds; the realm's maximum when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_s: Option<u64>,
    /// Algorithms; all of the realm's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<Algorithm>>,
    /// Whether a token must be bound to a client key by `cnf`.
    #[serde(default)]
    pub require_cnf: bool,
    /// How many audiences one token may have.
    #[serde(default = "one")]
    pub max_audiences: u8,
}

fn one() -> u8 {
    1
}

/// Why a policy document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The document exceeds [`MAX_POLICY_BYTES`].
    #[error("policy of `{0}` bytes exceeds the limit of {MAX_POLICY_BYTES}")]
    TooLarge(usize),
    /// The document is not JSON of the expected shape.
    #[error("policy is not a policy document: {0}")]
    Shape(String),
    /// A value is out of its bounds; the text names it and says what is allowed.
    #[error("{at}: {what}")]
    Value {
        /// Where, for example `realm `consumers``.
        at: String,
        /// What is wrong and what to do.
        what: String,
    },
}

fn bad<T>(at: &str, what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Value { at: at.to_owned(), what: what.into() })
}

impl PolicyDocument {
    /// Reads a document strictly and checks it whole.
    ///
    /// # Errors
    /// [`Error`], naming the place.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(Error::TooLarge(bytes.len()));
        }
        let value = chancery_token::json::parse(bytes).map_err(|e| Error::Shape(e.to_string()))?;
        let document: Self =
            serde_json::from_value(value).map_err(|e| Error::Shape(e.to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// The document's bytes, over which its digest is taken.
    ///
    /// # Errors
    /// [`Error::Shape`] when it cannot be written, [`Error::TooLarge`].
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::Shape(e.to_string()))?;
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(Error::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Value`] for the first value out of bounds.
    pub fn check(&self) -> Result<(), Error> {
        if self.version == 0 {
            return bad("policy", "version `0` is reserved; start at 1");
        }
        check_origin_prefix(&self.log_prefix)?;
        self.witnessed.as_deref().map(crate::witnessed::parse).transpose()?;
        if let Some(name) = self.protections.iter().find(|p| !PROTECTIONS.contains(&p.as_str())) {
            let known = PROTECTIONS.join("`, `");
            return bad("policy", format!("`{name}` is no protection; there are `{known}`"));
        }
        if self.realms.is_empty() || self.realms.len() > MAX_REALMS {
            return bad(
                "policy",
                format!("`{}` realms; 1 to {MAX_REALMS} are allowed", self.realms.len()),
            );
        }
        let mut names = HashSet::new();
        let mut issuers = HashSet::new();
        for realm in &self.realms {
            realm.check()?;
            if !names.insert(&realm.name) {
                return bad("policy", format!("realm name `{}` appears twice", realm.name));
            }
            // INVARIANT I3: a key speaks for one issuer, so two realms never share one.
            if !issuers.insert(&realm.issuer) {
                return bad("policy", format!("issuer `{}` appears twice", realm.issuer));
            }
        }
        let bytes: u64 = self.realms.iter().map(RealmDocument::key_set_bytes).sum();
        if bytes > MAX_KEY_SETS_BYTES {
            return bad(
                "policy",
                format!(
                    "the key sets of all realms may take `{bytes}` bytes, more than \
                     {MAX_KEY_SETS_BYTES}: use fewer realms, algorithms or live keys"
                ),
            );
        }
        Ok(())
    }
}

fn check_origin_prefix(prefix: &str) -> Result<(), Error> {
    let plain = !prefix.is_empty()
        && prefix.len() <= 512
        && !prefix.contains("://")
        && !prefix.ends_with('/')
        && prefix.bytes().all(|b| b.is_ascii_graphic() && b != b'+');
    if plain {
        return Ok(());
    }
    bad("policy", format!("log_prefix `{prefix}` must be a URL without scheme and final slash"))
}

impl RealmDocument {
    /// The most bytes that the realm's part of the signed key set takes: each member's public key in
    /// base64url, its other members, and the issuer.
    fn key_set_bytes(&self) -> u64 {
        let member = |algorithm: &Algorithm| -> u64 {
            match algorithm {
                Algorithm::MlDsa44 => 1_760,
                Algorithm::MlDsa65 => 2_610,
                Algorithm::MlDsa87 => 3_460,
                Algorithm::Rs256 | Algorithm::Ps256 => u64::from(self.rsa_bits).div_ceil(6) + 20,
                _ => 150,
            }
        };
        let issuer = u64::try_from(self.issuer.len()).unwrap_or(u64::MAX);
        let other = issuer.saturating_add(300);
        let bytes: u64 = self.algorithms.iter().map(|a| member(a).saturating_add(other)).sum();
        bytes.saturating_mul(self.schedule.live_keys(self.early_s()))
    }

    /// How much earlier than a key signs its window begins, and than its lead needs it is announced,
    /// in seconds: where somebody else's clock sets `iat`, that may be behind or ahead.
    #[must_use]
    pub fn early_s(&self) -> u64 {
        if self.kubernetes.is_some() { crate::kubernetes::IAT_TOLERANCE_S } else { 0 }
    }

    /// Checks every value of the realm.
    ///
    /// # Errors
    /// [`Error::Value`] for the first value out of bounds.
    pub fn check(&self) -> Result<(), Error> {
        let at = format!("realm `{}`", self.name);
        check_realm_name(&at, &self.name)?;
        check_issuer(&at, &self.issuer)?;
        if self.algorithms.is_empty() {
            return bad(&at, "names no algorithm");
        }
        let distinct: HashSet<_> = self.algorithms.iter().collect();
        if distinct.len() != self.algorithms.len() {
            return bad(&at, "names an algorithm twice");
        }
        if ![2048, 3072, 4096].contains(&self.rsa_bits) {
            return bad(&at, format!("rsa_bits `{}` is not 2048, 3072 or 4096", self.rsa_bits));
        }
        check_schedule(&at, &self.schedule, self.early_s())?;
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.check(&at, self)?;
        }
        let lanes = u64::try_from(self.algorithms.len()).unwrap_or(u64::MAX);
        let imported = self.kubernetes.as_ref().map_or(0, |k| k.imported.len());
        let imported = u64::try_from(imported).unwrap_or(u64::MAX);
        let live =
            self.schedule.live_keys(self.early_s()).saturating_mul(lanes).saturating_add(imported);
        if live > MAX_REALM_KEYS {
            return bad(
                &at,
                format!(
                    "its algorithms together would keep `{live}` keys live, more than \
                     {MAX_REALM_KEYS}: use fewer algorithms or rotate less often"
                ),
            );
        }
        let mut ids = HashSet::new();
        for client in &self.clients {
            check_client(&at, self, client)?;
            if !ids.insert(&client.id) {
                return bad(&at, format!("client `{}` appears twice", client.id));
            }
        }
        Ok(())
    }
}

fn check_realm_name(at: &str, name: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return bad(at, "a name is 1 to 64 lower-case letters, digits, `-` or `_`");
    }
    if RESERVED_REALMS.contains(&name) {
        return bad(at, format!("`{name}` is reserved for the service's own paths"));
    }
    Ok(())
}

fn check_issuer(at: &str, issuer: &str) -> Result<(), Error> {
    // RFC 8414 section 2: no query, no fragment. Plain http is for loopback; `config check` says so.
    let rest = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://"));
    let plain = rest.is_some_and(|r| !r.is_empty() && !r.starts_with('/'))
        && issuer.len() <= 1_024
        && !issuer.ends_with('/')
        && issuer.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"\\<>".contains(&b));
    if plain {
        return Ok(());
    }
    bad(
        at,
        format!("issuer `{issuer}` must be an http(s) URL without query, fragment or final slash"),
    )
}

fn check_schedule(at: &str, schedule: &Schedule, early_s: u64) -> Result<(), Error> {
    let bounded = [
        ("rotate_every_s", schedule.rotate_every_s, 1),
        ("publish_lead_s", schedule.publish_lead_s, 1),
        ("max_lifetime_s", schedule.max_lifetime_s, 1),
        ("skew_s", schedule.skew_s, 0),
        ("manual_window_s", schedule.manual_window_s, 1),
    ];
    for (name, value, least) in bounded {
        if value < least || value > MAX_DURATION_S {
            return bad(at, format!("{name} `{value}` is not within {least} to {MAX_DURATION_S}"));
        }
    }
    let live = schedule.live_keys(early_s);
    if live > MAX_LIVE_KEYS {
        return bad(
            at,
            format!(
                "the schedule would keep `{live}` keys live, more than {MAX_LIVE_KEYS}: \
                 rotate less often, or shorten publish_lead_s or max_lifetime_s"
            ),
        );
    }
    Ok(())
}

fn check_client(realm: &str, of: &RealmDocument, client: &ClientDocument) -> Result<(), Error> {
    let at = format!("{realm}, client `{}`", client.id);
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\' && b != b'*';
    if client.id.is_empty() || client.id.len() > 256 || !client.id.bytes().all(plain) {
        return bad(
            &at,
            "an id is 1 to 256 printable ASCII characters without space, `\"`, `\\`, `*`",
        );
    }
    if client.keys.is_empty() || client.keys.len() > 16 {
        return bad(&at, "has no key, or more than 16");
    }
    for key in &client.keys {
        if let Err(e) = PublicKey::from_jwk(key) {
            return bad(&at, format!("key: {e}"));
        }
    }
    if client.replay_capacity == 0 || client.replay_capacity > MAX_REPLAY_CAPACITY {
        return bad(&at, format!("replay_capacity is not within 1 to {MAX_REPLAY_CAPACITY}"));
    }
    if client.max_tokens_per_s == Some(0) {
        return bad(&at, "max_tokens_per_s `0` would refuse everything; remove the client instead");
    }
    for grant in &client.grants {
        check_grant(&at, of, grant)?;
    }
    Ok(())
}

fn check_grant(client: &str, realm: &RealmDocument, grant: &GrantDocument) -> Result<(), Error> {
    let at = format!("{client}, grant `{}`", grant.name);
    if grant.name.is_empty() || grant.name.len() > 64 {
        return bad(&at, "a grant's name has 1 to 64 bytes");
    }
    if grant.audiences.is_empty() || grant.audiences.iter().any(|a| a.is_empty() || a.len() > 1_024)
    {
        return bad(&at, "needs audiences of 1 to 1,024 bytes each");
    }
    for subject in &grant.subjects {
        let star = subject.find('*');
        if subject.is_empty() || star.is_some_and(|i| i.checked_add(1) != Some(subject.len())) {
            return bad(&at, format!("subject `{subject}` may have one `*`, at its end"));
        }
    }
    for scope in &grant.scopes {
        // RFC 6749 appendix A.4.
        if scope.is_empty()
            || !scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        {
            return bad(&at, format!("scope `{scope}` is not a scope token of RFC 6749"));
        }
    }
    if let Some(name) = grant.claims.iter().find(|c| RESERVED_CLAIMS.contains(&c.as_str())) {
        return bad(&at, format!("claim `{name}` is set by the signer alone"));
    }
    if let Some(lifetime) = grant.max_lifetime_s
        && (lifetime == 0 || lifetime > realm.schedule.max_lifetime_s)
    {
        return bad(
            &at,
            format!(
                "max_lifetime_s `{lifetime}` is not within 1 and the realm's {}",
                realm.schedule.max_lifetime_s
            ),
        );
    }
    let foreign = grant.algorithms.iter().flatten().find(|a| !realm.algorithms.contains(a));
    if let Some(algorithm) = foreign {
        return bad(&at, format!("algorithm `{algorithm}` is not one of the realm's"));
    }
    if grant.algorithms.as_ref().is_some_and(Vec::is_empty) || grant.max_audiences == 0 {
        return bad(&at, "algorithms must not be empty and max_audiences not 0");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
