//! May this client have this token?

use chancery_token::Algorithm;
use serde_json::{Map, Value};

use crate::document::{GrantDocument, RESERVED_CLAIMS};
use crate::{Client, Realm, Refusal, RefusalCode};

/// The most requests in one signed issuance request: a frame's share, and a proof's worth of work.
pub const MAX_BATCH: usize = 256;
/// The longest subject, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 1_024;
/// The most scope values of one request: grants list a few dozen, and each value is compared with
/// those before it.
pub const MAX_SCOPE_VALUES: usize = 128;
/// Further claims of one token, as JSON, in bytes: with them a token stays far below 16 KiB.
pub const MAX_CLAIMS_BYTES: usize = 4 * 1_024;

/// JSON writes a control character as six bytes, for example `\u0001` (RFC 8259 section 7).
const MAX_ESCAPE_BYTES: usize = 6;

/// What is asked for; absent members take the grant's defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// `sub`; the client itself by default.
    pub subject: Option<String>,
    /// `aud`; the grant's first by default.
    pub audiences: Vec<String>,
    /// Scope values, separate.
    pub scopes: Vec<String>,
    /// Further claims.
    pub claims: Map<String, Value>,
    /// Seconds; the grant's maximum by default.
    pub lifetime_s: Option<u64>,
    /// RFC 7638 thumbprint of the client key that the token is bound to (RFC 9449 section 6.1).
    pub cnf_jkt: Option<String>,
    /// Algorithm; the grant's or realm's first by default.
    pub algorithm: Option<Algorithm>,
}

/// A decision for the client. Only [`decide`] makes one.
#[expect(
    clippy::manual_non_exhaustive,
    reason = "the private member keeps the rest of this crate from making one too"
)]
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// `sub`.
    pub subject: String,
    /// `aud`, at least one.
    pub audiences: Vec<String>,
    /// `scope`, separate values.
    pub scopes: Vec<String>,
    /// Further claims.
    pub claims: Map<String, Value>,
    /// Seconds.
    pub lifetime_s: u64,
    /// `cnf.jkt`.
    pub cnf_jkt: Option<String>,
    /// Algorithm to sign with.
    pub algorithm: Algorithm,
    /// Name of the grant that allowed it.
    pub grant: String,
    _only_decide_makes_one: (),
}

impl Granted {
    /// A bound on the bytes that this decision adds to the payload of its token, for sharing out
    /// frames: every string as JSON escapes it at worst, the claims as they are.
    #[must_use]
    pub fn payload_bound(&self) -> usize {
        let texts = self.audiences.iter().chain(&self.scopes).chain([&self.subject]);
        let claims = if self.claims.is_empty() { 0 } else { json_bytes(&self.claims) };
        texts.map(|t| t.len().saturating_mul(MAX_ESCAPE_BYTES)).fold(claims, usize::saturating_add)
    }
}

impl Ask {
    /// Reads one request object of a signed issuance request. Members: `sub`, `aud` (string or
    /// array), `scope` (RFC 6749 section 3.3), `claims`, `lifetime` (seconds), `cnf` (`jkt`), `alg`.
    ///
    /// # Errors
    /// [`RefusalCode::MalformedRequest`] for anything else: what is not understood is not granted.
    pub fn parse(value: Value) -> Result<Self, Refusal> {
        let Value::Object(members) = value else {
            return Err(malformed("a request must be an object"));
        };
        let mut ask = Self::default();
        for (name, value) in members {
            match (name.as_str(), value) {
                ("sub", Value::String(s)) => ask.subject = Some(s),
                ("aud", Value::String(s)) => ask.audiences = vec![s],
                ("aud", Value::Array(list)) => ask.audiences = strings(list)?,
                ("scope", Value::String(s)) => ask.scopes = split_scope(&s)?,
                ("claims", Value::Object(claims)) => ask.claims = claims,
                ("lifetime", value) => {
                    let seconds = chancery_token::json::seconds("lifetime", &value)
                        .map_err(|e| malformed(e.to_string()))?;
                    ask.lifetime_s = Some(seconds);
                }
                ("cnf", Value::Object(cnf)) => ask.cnf_jkt = Some(parse_cnf(cnf)?),
                ("alg", Value::String(alg)) => ask.algorithm = Some(parse_algorithm(&alg)?),
                (name, _) => {
                    return Err(malformed(format!(
                        "member `{}` is unknown or of the wrong type",
                        name.escape_debug()
                    )));
                }
            }
        }
        Ok(ask)
    }
}

/// Splits a `scope` value (RFC 6749 section 3.3).
///
/// # Errors
/// [`RefusalCode::MalformedRequest`] for empty values or characters outside the grammar.
pub fn split_scope(scope: &str) -> Result<Vec<String>, Refusal> {
    if scope.is_empty() {
        return Ok(Vec::new());
    }
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    let mut values = Vec::new();
    for value in scope.split(' ') {
        if value.is_empty() || !value.bytes().all(plain) {
            return Err(malformed("`scope` must be scope tokens, each separated by one space"));
        }
        if !values.iter().any(|v| v == value) {
            if values.len() >= MAX_SCOPE_VALUES {
                return Err(malformed(format!("more than `{MAX_SCOPE_VALUES}` scope values")));
            }
            values.push(value.to_owned());
        }
    }
    Ok(values)
}

/// Parses an algorithm name that a client asks for.
///
/// # Errors
/// [`RefusalCode::AlgorithmNotGranted`]: an unknown algorithm is never granted.
pub fn parse_algorithm(name: &str) -> Result<Algorithm, Refusal> {
    name.parse().map_err(|_| {
        Refusal::new(
            RefusalCode::AlgorithmNotGranted,
            format!("algorithm `{}` is not known", name.escape_debug()),
        )
    })
}

fn strings(list: Vec<Value>) -> Result<Vec<String>, Refusal> {
    list.into_iter()
        .map(|v| match v {
            Value::String(s) => Ok(s),
            _ => Err(malformed("`aud` must be a string or an array of strings")),
        })
        .collect()
}

fn parse_cnf(cnf: Map<String, Value>) -> Result<String, Refusal> {
    match (cnf.len(), cnf.get("jkt")) {
        (1, Some(Value::String(jkt))) if jkt.parse::<chancery_token::KeyId>().is_ok() => {
            Ok(jkt.clone())
        }
        _ => Err(malformed("`cnf` must hold exactly `jkt`, an RFC 7638 SHA-256 thumbprint")),
    }
}

/// Decides what an authenticated client may have.
///
/// The first grant that allows everything asked for decides; when none does, the refusal is that
/// of the grant that got furthest.
///
/// # Errors
/// A [`Refusal`] with the reason.
pub fn decide(realm: &Realm, client: &Client, ask: Ask) -> Result<Granted, Refusal> {
    check_claims(&ask)?;
    let mut furthest = Refusal::new(
        RefusalCode::AudienceNotGranted,
        format!("client `{}` has no grants in this realm", client.id),
    );
    let mut furthest_step = 0;
    for grant in &client.grants {
        match allows(realm, client, grant, &ask) {
            Ok(terms) => return Ok(grant_with(client, grant, ask, terms)),
            Err((step, refusal)) if step > furthest_step => {
                furthest_step = step;
                furthest = refusal;
            }
            Err(_) => {}
        }
    }
    Err(furthest)
}

struct Terms {
    lifetime_s: u64,
    algorithm: Algorithm,
}

/// Checks one grant; a refusal comes with how far the request got.
fn allows(
    realm: &Realm,
    client: &Client,
    grant: &GrantDocument,
    ask: &Ask,
) -> Result<Terms, (u8, Refusal)> {
    let no = |step, code, detail: String| Err((step, Refusal::new(code, detail)));
    if let Some(aud) = ask.audiences.iter().find(|a| !grant.audiences.contains(a)) {
        let detail = format!("audience `{}` is not granted", aud.escape_debug());
        return no(1, RefusalCode::AudienceNotGranted, detail);
    }
    if ask.audiences.len() > usize::from(grant.max_audiences) {
        let detail =
            format!("a token may have `{}` audiences; ask once for each", grant.max_audiences);
        return no(2, RefusalCode::AudienceNotGranted, detail);
    }
    if let Some(subject) = &ask.subject
        && !subject_is_granted(client, grant, subject)
    {
        let detail = format!("subject `{}` is not granted", subject.escape_debug());
        return no(3, RefusalCode::SubjectNotGranted, detail);
    }
    if ask.subject.is_none() && !subject_is_granted(client, grant, &client.id) {
        return no(
            3,
            RefusalCode::SubjectNotGranted,
            "name a subject: the client itself is not granted".into(),
        );
    }
    if let Some(scope) = ask.scopes.iter().find(|s| !grant.scopes.contains(s)) {
        return no(4, RefusalCode::ScopeNotGranted, format!("scope `{scope}` is not granted"));
    }
    if let Some(claim) = ask.claims.keys().find(|c| !grant.claims.contains(c)) {
        let detail = format!("claim `{}` is not granted", claim.escape_debug());
        return no(5, RefusalCode::ClaimNotGranted, detail);
    }
    let longest = grant
        .max_lifetime_s
        .map_or(realm.schedule.max_lifetime_s, |g| g.min(realm.schedule.max_lifetime_s));
    let lifetime_s = ask.lifetime_s.unwrap_or(longest);
    if lifetime_s == 0 || lifetime_s > longest {
        let detail = format!("lifetime `{lifetime_s}` is not within 1 to {longest} s");
        return no(6, RefusalCode::LifetimeNotGranted, detail);
    }
    let allowed = grant.algorithms.as_ref().unwrap_or(&realm.algorithms);
    let algorithm = ask.algorithm.or_else(|| allowed.first().copied());
    let Some(algorithm) = algorithm.filter(|a| allowed.contains(a) && realm.algorithms.contains(a))
    else {
        let names: Vec<_> = allowed.iter().map(|a| a.as_str()).collect();
        let detail = format!("the algorithm is not granted; allowed: `{}`", names.join(", "));
        return no(7, RefusalCode::AlgorithmNotGranted, detail);
    };
    if grant.require_cnf && ask.cnf_jkt.is_none() {
        let detail = "this grant needs `cnf.jkt`; use a signed issuance request".to_owned();
        return no(8, RefusalCode::ConfirmationRequired, detail);
    }
    Ok(Terms { lifetime_s, algorithm })
}

fn grant_with(client: &Client, grant: &GrantDocument, ask: Ask, terms: Terms) -> Granted {
    let audiences = if ask.audiences.is_empty() {
        grant.audiences.iter().take(1).cloned().collect()
    } else {
        ask.audiences
    };
    Granted {
        subject: ask.subject.unwrap_or_else(|| client.id.clone()),
        audiences,
        scopes: ask.scopes,
        claims: ask.claims,
        lifetime_s: terms.lifetime_s,
        cnf_jkt: ask.cnf_jkt,
        algorithm: terms.algorithm,
        grant: grant.name.clone(),
        _only_decide_makes_one: (),
    }
}

fn subject_is_granted(client: &Client, grant: &GrantDocument, subject: &str) -> bool {
    if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
        return false;
    }
    if grant.subjects.is_empty() {
        return subject == client.id;
    }
    grant.subjects.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => subject.starts_with(prefix),
        None => subject == pattern,
    })
}

fn check_claims(ask: &Ask) -> Result<(), Refusal> {
    if let Some(name) = ask.claims.keys().find(|c| RESERVED_CLAIMS.contains(&c.as_str())) {
        return Err(Refusal::new(
            RefusalCode::ReservedClaim,
            format!("claim `{name}` is set by the signer alone"),
        ));
    }
    if ask.claims.is_empty() {
        return Ok(());
    }
    let size = json_bytes(&ask.claims);
    if size > MAX_CLAIMS_BYTES {
        return Err(malformed(format!("claims of `{size}` bytes exceed {MAX_CLAIMS_BYTES}")));
    }
    Ok(())
}

fn json_bytes(claims: &Map<String, Value>) -> usize {
    serde_json::to_vec(claims).map_or(usize::MAX, |v| v.len())
}

fn malformed(what: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::MalformedRequest, what)
}

#[cfg(test)]
mod tests;
