//! May this Kubernetes service account have this token?
//!
//! The API server writes the claims and assembles the token from its own bytes, so the signer signs
//! the text as it came and changes nothing. What it signs it has read strictly, and every member of
//! it is one that the policy knows: there is no proof of who asks beside it, so the policy alone
//! bounds what a hostile host can get (INVARIANT I5).

use chancery_token::{Algorithm, b64, json};
use serde_json::{Map, Value};

use crate::document::{KubernetesDocument, is_name, is_namespace};
use crate::{Realm, Refusal, RefusalCode};

/// The longest claims, in base64url characters: the API server's have about a thousand, and with
/// these a token stays far below 16 KiB.
pub const MAX_CLAIMS_CHARS: usize = 8 * 1_024;
/// How far `iat`, which the API server sets, may be from the signer's time, in seconds. The keys of
/// such a realm announce an `nbf` that much before they become active.
pub const IAT_TOLERANCE_S: u64 = 10;
/// The longest `jti`, in bytes; the API server's are UUIDs of 36.
pub const MAX_JTI_BYTES: usize = 256;
/// Characters of a log id, and of a `jti`'s randomness: 128 bits, base64url.
const ENCODED_CHARS: usize = 22;
/// The most audiences of one token.
pub const MAX_AUDIENCES: usize = 16;
/// `typ` of the header, and the only one that the API server takes.
pub const TYP: &str = "JWT";

/// The claim that says what the token is bound to.
const BINDING: &str = "kubernetes.io";
/// What Kubernetes 1.36 writes.
const CLAIMS: [&str; 8] = ["aud", "exp", "iat", "iss", "jti", "nbf", "sub", BINDING];
/// Objects of the claim `kubernetes.io` that name something by `name` and `uid`.
const REFERENCES: [&str; 4] = ["serviceaccount", "pod", "secret", "node"];
/// When a token that was extended to a year should have been renewed.
const WARN_AFTER: &str = "warnafter";
const NAMESPACE: &str = "namespace";

/// Whether a claim, named as in the policy, is one that Kubernetes 1.36 writes.
pub(crate) fn is_written(name: &str) -> bool {
    match name.strip_prefix(BINDING).and_then(|rest| rest.strip_prefix('/')) {
        Some(member) => [NAMESPACE, WARN_AFTER].contains(&member) || REFERENCES.contains(&member),
        None => CLAIMS.contains(&name),
    }
}

/// Claims that may be signed as they came. Only [`decide`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    subject: String,
    audiences: Vec<String>,
    iat: u64,
    exp: u64,
    jti: String,
    algorithm: Algorithm,
}

impl Approved {
    /// `sub`: `system:serviceaccount:<namespace>:<name>`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `aud`, at least one.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `iat`, Unix seconds.
    #[must_use]
    pub fn iat(&self) -> u64 {
        self.iat
    }

    /// `exp`, Unix seconds.
    #[must_use]
    pub fn exp(&self) -> u64 {
        self.exp
    }

    /// `jti` as the API server chose it: it holds no address in the log.
    #[must_use]
    pub fn jti(&self) -> &str {
        &self.jti
    }

    /// The algorithm to sign with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Reads the second part of a token that is to be, as the API server encoded it, and decides whether
/// the realm signs it at `now` (Unix seconds).
///
/// # Errors
/// A [`Refusal`] with the reason.
pub fn decide(realm: &Realm, claims: &str, now: u64) -> Result<Approved, Refusal> {
    let Some(policy) = &realm.kubernetes else { return Err(wrong_kind(realm)) };
    let algorithm = *realm.algorithms.first().ok_or_else(|| wrong_kind(realm))?;
    let claims = parse(claims)?;
    let binding = match claims.get(BINDING) {
        Some(Value::Object(binding)) => binding,
        _ => return Err(malformed(format!("`{BINDING}` must be an object"))),
    };
    check_members(policy, &claims, binding)?;
    if text(&claims, "iss")? != realm.issuer {
        let detail = format!(
            "`iss` is not `{}`; --service-account-issuer and the realm must name the same issuer",
            realm.issuer
        );
        return Err(Refusal::new(RefusalCode::WrongIssuer, detail));
    }
    let (iat, exp) = check_times(&claims, realm, now)?;
    let subject = check_account(policy, &claims, binding)?;
    let audiences = check_audiences(policy, &claims)?;
    check_required(policy, &claims, binding)?;
    let jti = text(&claims, "jti")?;
    if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
        return Err(malformed(format!("`jti` must have 1 to {MAX_JTI_BYTES} bytes")));
    }
    if has_form_of_address(jti) {
        return Err(malformed(
            "`jti` has the form of a place in a log, which the signer alone says",
        ));
    }
    let jti = jti.to_owned();
    Ok(Approved { subject, audiences, iat, exp, jti, algorithm })
}

/// Whether a `jti` looks like `<log id>.<index>.<randomness>`, in whichever log: a token that named
/// another's leaf as its own would stand as the proof of a forgery by an honest signer.
fn has_form_of_address(jti: &str) -> bool {
    let is_encoded = |part: &str| {
        part.len() == ENCODED_CHARS
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let mut parts = jti.split('.');
    let (Some(log), Some(index), Some(random), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_index = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    is_encoded(log) && is_index && is_encoded(random)
}

/// The refusal of a request that came to a realm of the other kind.
#[must_use]
pub fn wrong_kind(realm: &Realm) -> Refusal {
    let kind = match realm.kubernetes {
        Some(_) => "signs for Kubernetes service accounts only",
        None => "does not sign for Kubernetes service accounts",
    };
    Refusal::new(RefusalCode::WrongRealmKind, format!("realm `{}` {kind}", realm.name))
}

/// The claims, read strictly: one spelling in base64url, no member twice, nothing behind them.
///
/// # Errors
/// [`RefusalCode::MalformedRequest`].
pub fn parse(claims: &str) -> Result<Map<String, Value>, Refusal> {
    if claims.len() > MAX_CLAIMS_CHARS {
        return Err(malformed(format!("claims of more than {MAX_CLAIMS_CHARS} characters")));
    }
    let wrong = |e: chancery_token::Error| malformed(format!("claims: {e}"));
    json::parse_object(&b64::decode(claims).map_err(wrong)?).map_err(wrong)
}

/// Nothing is signed that nobody here understands: a relying party might.
fn check_members(
    policy: &KubernetesDocument,
    claims: &Map<String, Value>,
    binding: &Map<String, Value>,
) -> Result<(), Refusal> {
    let granted = |name: &str| policy.further_claims.iter().any(|known| known == name);
    let refuse = |name: &str| {
        let detail = format!("claim `{}` is not one that the realm signs", name.escape_debug());
        Err(Refusal::new(RefusalCode::ClaimNotGranted, detail))
    };
    if let Some(name) = claims.keys().find(|n| !CLAIMS.contains(&n.as_str()) && !granted(n)) {
        return refuse(name);
    }
    for (name, value) in binding {
        let name = name.as_str();
        match value {
            Value::String(_) if name == NAMESPACE => {}
            Value::Object(of) if REFERENCES.contains(&name) => check_reference(name, of)?,
            value if name == WARN_AFTER => {
                seconds("warnafter", value)?;
            }
            _ if [NAMESPACE].iter().chain(&REFERENCES).any(|known| *known == name) => {
                return Err(malformed(format!("`{name}` of `{BINDING}` has the wrong type")));
            }
            _ if granted(&format!("{BINDING}/{name}")) => {}
            _ => return refuse(&format!("{BINDING}/{name}")),
        }
    }
    Ok(())
}

fn check_reference(what: &str, of: &Map<String, Value>) -> Result<(), Refusal> {
    let plain = |(name, value): (&String, &Value)| {
        matches!(name.as_str(), "name" | "uid") && value.as_str().is_some_and(|v| !v.is_empty())
    };
    if of.contains_key("name") && of.iter().all(plain) {
        return Ok(());
    }
    Err(malformed(format!("`{what}` of `{BINDING}` must hold `name` and `uid`, both strings")))
}

/// `iat` is now, and the lifetime within the ceiling. Returns `iat` and `exp`.
fn check_times(
    claims: &Map<String, Value>,
    realm: &Realm,
    now: u64,
) -> Result<(u64, u64), Refusal> {
    let time = |name: &'static str| {
        let value = claims.get(name).ok_or_else(|| malformed(format!("`{name}` is missing")))?;
        seconds(name, value)
    };
    let (iat, exp) = (time("iat")?, time("exp")?);
    if iat.abs_diff(now) > IAT_TOLERANCE_S {
        let detail = format!(
            "`iat` `{iat}` is more than {IAT_TOLERANCE_S} s from the signer's time `{now}`; check \
             the clocks"
        );
        return Err(Refusal::new(RefusalCode::IssuedAtNotNow, detail));
    }
    if claims.contains_key("nbf") && time("nbf")? > iat {
        return Err(malformed("`nbf` is after `iat`"));
    }
    let longest = realm.schedule.max_lifetime_s;
    let lifetime = exp.saturating_sub(iat);
    if lifetime == 0 || lifetime > longest {
        return Err(lifetime_refused(lifetime, longest));
    }
    Ok((iat, exp))
}

/// The refusal of a lifetime beyond the ceiling.
#[must_use]
pub fn lifetime_refused(lifetime_s: u64, longest_s: u64) -> Refusal {
    let detail = format!("lifetime `{lifetime_s}` is not within 1 to {longest_s} s");
    Refusal::new(RefusalCode::LifetimeNotGranted, detail)
}

/// `sub` and the claim `kubernetes.io` name the same service account, which the policy allows.
fn check_account(
    policy: &KubernetesDocument,
    claims: &Map<String, Value>,
    binding: &Map<String, Value>,
) -> Result<String, Refusal> {
    let subject = text(claims, "sub")?;
    let parts = subject.strip_prefix("system:serviceaccount:").and_then(|s| s.split_once(':'));
    let Some((namespace, name)) = parts.filter(|(s, n)| is_namespace(s) && is_name(n)) else {
        return Err(malformed("`sub` must be `system:serviceaccount:<namespace>:<name>`"));
    };
    let account = binding.get("serviceaccount").and_then(|account| account.get("name"));
    let same = binding.get(NAMESPACE).and_then(Value::as_str) == Some(namespace)
        && account.and_then(Value::as_str) == Some(name);
    if !same {
        return Err(malformed(format!("`sub` and `{BINDING}` name different service accounts")));
    }
    if !policy.allows(namespace, name) {
        let detail = format!("service account `{namespace}:{name}` is not granted");
        return Err(Refusal::new(RefusalCode::SubjectNotGranted, detail));
    }
    Ok(subject.to_owned())
}

fn check_audiences(
    policy: &KubernetesDocument,
    claims: &Map<String, Value>,
) -> Result<Vec<String>, Refusal> {
    let listed = match claims.get("aud") {
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(Value::Array(list)) => list.as_slice(),
        _ => &[],
    };
    if listed.is_empty() || listed.len() > MAX_AUDIENCES {
        return Err(malformed(format!("`aud` must name 1 to {MAX_AUDIENCES} audiences")));
    }
    let audience = |value: &Value| {
        let audience = value.as_str().ok_or_else(|| malformed("`aud` must hold strings"))?;
        if policy.audiences.iter().any(|known| known == audience) {
            return Ok(audience.to_owned());
        }
        let detail = format!("audience `{}` is not granted", audience.escape_debug());
        Err(Refusal::new(RefusalCode::AudienceNotGranted, detail))
    };
    listed.iter().map(audience).collect()
}

fn check_required(
    policy: &KubernetesDocument,
    claims: &Map<String, Value>,
    binding: &Map<String, Value>,
) -> Result<(), Refusal> {
    let is_there = |name: &str| match name.strip_prefix(BINDING).and_then(|n| n.strip_prefix('/')) {
        Some(member) => binding.contains_key(member),
        None => claims.contains_key(name),
    };
    match policy.required_claims.iter().find(|name| !is_there(name)) {
        None => Ok(()),
        Some(name) => {
            let detail = format!("every token of this realm needs the claim `{name}`");
            Err(Refusal::new(RefusalCode::ClaimRequired, detail))
        }
    }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, Refusal> {
    let value = claims.get(name).and_then(Value::as_str);
    value.ok_or_else(|| malformed(format!("`{name}` must be a string")))
}

fn seconds(name: &'static str, value: &Value) -> Result<u64, Refusal> {
    json::seconds(name, value).map_err(|e| malformed(e.to_string()))
}

fn malformed(what: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::MalformedRequest, what)
}

#[cfg(test)]
mod tests;
