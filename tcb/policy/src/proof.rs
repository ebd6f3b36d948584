//! Who is asking: OAuth client assertions and signed issuance requests.
//!
//! Both are JWS by the client's key and travel untouched through the host. An assertion
//! (`private_key_jwt`: RFC 7523 section 2.2, with the audience rule of RFC 7523bis) proves only who
//! asks; what is asked for comes from the host, within the client's grants. A signed issuance
//! request carries the whole request, so that the host cannot alter it (INVARIANT I5).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use chancery_token::{json, jws};
use serde_json::{Map, Value};

use crate::decide::{Ask, MAX_BATCH};
use crate::replay::ProofId;
use crate::{Client, Realm, Refusal, RefusalCode};

/// The longest validity of a proof, in seconds: it bounds the replay memory.
pub const MAX_PROOF_SECONDS: u64 = 120;
/// How far a client's clock may run ahead, in seconds.
pub const FUTURE_LEEWAY_S: u64 = 2;
/// The longest `jti` of a proof, in bytes: a UUID has 36, some clients send more.
pub const MAX_JTI_BYTES: usize = 256;
/// `typ` of a signed issuance request.
pub const SIGNED_REQUEST_TYP: &str = "chancery-request+jwt";
/// `typ` of a client assertion as RFC 7523bis names it; `JWT` and none are accepted too.
pub const ASSERTION_TYP: &str = "client-authentication+jwt";

/// When and where a proof is judged.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Unix seconds.
    pub now: u64,
    /// Unix seconds at which this signer started.
    pub started_at: u64,
    /// This signer's log id, as text.
    pub log: &'a str,
}

/// A proof whose signature and times were checked, not yet whether it was used before.
/// Only this module can make one.
#[derive(Debug)]
pub struct Proven {
    client: Arc<Client>,
    id: ProofId,
    forget_at: u64,
}

impl Proven {
    /// Who asks.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Identifies the proof among the client's.
    #[must_use]
    pub fn id(&self) -> ProofId {
        self.id
    }

    /// Unix seconds from which on the proof is refused as expired anyway.
    #[must_use]
    pub fn forget_at(&self) -> u64 {
        self.forget_at
    }
}

/// Authenticates an OAuth client assertion. `was_used` tells a proof that was used already, before
/// its signature costs anything; [`crate::replay::ClientMemory::admit`] decides for good.
///
/// # Errors
/// A [`Refusal`] that says which check failed.
pub fn assertion(
    realm: &Realm,
    token: &str,
    at: Moment<'_>,
    was_used: impl Fn(&Client, &ProofId) -> bool,
) -> Result<Proven, Refusal> {
    let (proven, _) = verify(realm, token, jws::MAX_TOKEN_BYTES, at, was_used, |typ| {
        matches!(typ, None | Some(ASSERTION_TYP))
            || typ.is_some_and(|t| t.eq_ignore_ascii_case("JWT"))
    })?;
    Ok(proven)
}

/// Authenticates a signed issuance request and reads what it asks for; `was_used` as for
/// [`assertion`].
///
/// # Errors
/// A [`Refusal`] that says which check failed.
pub fn signed_request(
    realm: &Realm,
    token: &str,
    at: Moment<'_>,
    was_used: impl Fn(&Client, &ProofId) -> bool,
) -> Result<(Proven, Vec<Ask>), Refusal> {
    let (proven, mut payload) =
        verify(realm, token, jws::MAX_REQUEST_BYTES, at, was_used, |typ| {
            typ == Some(SIGNED_REQUEST_TYP)
        })?;
    let Some(Value::Array(requests)) = payload.remove("requests") else {
        return Err(malformed("`requests` must be an array of request objects"));
    };
    if let Some(name) = payload.keys().find(|k| !PROOF_MEMBERS.contains(&k.as_str())) {
        return Err(malformed(format!("member `{}` is not known", name.escape_debug())));
    }
    if requests.is_empty() || requests.len() > MAX_BATCH {
        return Err(Refusal::new(
            RefusalCode::TooManyRequests,
            format!("`{}` requests; 1 to {MAX_BATCH} are allowed in one", requests.len()),
        ));
    }
    let asks = requests.into_iter().map(Ask::parse).collect::<Result<_, _>>()?;
    Ok((proven, asks))
}

/// Members of a signed request beside `requests`: nothing is silently ignored there.
const PROOF_MEMBERS: &[&str] = &["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "log"];

fn verify(
    realm: &Realm,
    token: &str,
    max_bytes: usize,
    at: Moment<'_>,
    was_used: impl Fn(&Client, &ProofId) -> bool,
    typ_is_accepted: impl Fn(Option<&str>) -> bool,
) -> Result<(Proven, Map<String, Value>), Refusal> {
    let malformed =
        |e: chancery_token::Error| Refusal::new(RefusalCode::MalformedProof, e.to_string());
    let compact = jws::parse(token, max_bytes).map_err(malformed)?;
    if !typ_is_accepted(compact.header.typ.as_deref()) {
        return Err(Refusal::new(
            RefusalCode::MalformedProof,
            "`typ` is not that of the expected kind of proof",
        ));
    }
    let payload = json::parse_object(&compact.payload).map_err(malformed)?;
    // Unknown clients are refused before any signature is verified: strangers cost little.
    let client = realm.client(text(&payload, "iss")?)?;
    if payload.contains_key("sub") && text(&payload, "sub")? != client.id {
        return Err(Refusal::new(RefusalCode::MalformedProof, "`sub` must equal `iss`"));
    }
    let key = client.key(compact.header.kid.as_deref())?;
    // Whatever can be refused without a signature is: an old proof out of somebody's log file must
    // not make the signer verify it again and again.
    check_audience(realm, &payload)?;
    let exp = check_times(&payload, at)?;
    check_log(&payload, at)?;
    let jti = text(&payload, "jti")?;
    if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
        return Err(Refusal::new(
            RefusalCode::MalformedProof,
            format!("`jti` must have 1 to {MAX_JTI_BYTES} bytes"),
        ));
    }
    let mut id = ProofId::default();
    for (to, from) in id.iter_mut().zip(digest(&SHA256, jti.as_bytes()).as_ref()) {
        *to = *from;
    }
    if was_used(client, &id) {
        return Err(crate::replay::replayed());
    }
    jws::verify(&compact, key, client.accept_eddsa)
        .map_err(|e| Refusal::new(RefusalCode::BadSignature, e.to_string()))?;
    Ok((Proven { client: client.clone(), id, forget_at: exp }, payload))
}

fn check_audience(realm: &Realm, payload: &Map<String, Value>) -> Result<(), Refusal> {
    let sole = match payload.get("aud") {
        Some(Value::String(aud)) => Some(aud.as_str()),
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(aud)] => Some(aud.as_str()),
            _ => None,
        },
        _ => None,
    };
    if sole == Some(realm.issuer.as_str()) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::WrongAudience,
        format!("`aud` must be exactly the issuer `{}`", realm.issuer),
    ))
}

/// Checks `iat`, `nbf` and `exp`; returns `exp`.
fn check_times(payload: &Map<String, Value>, at: Moment<'_>) -> Result<u64, Refusal> {
    let iat = seconds(payload, "iat")?;
    let exp = seconds(payload, "exp")?;
    let nbf = if payload.contains_key("nbf") { seconds(payload, "nbf")? } else { iat };
    let latest = at.now.saturating_add(FUTURE_LEEWAY_S);
    if iat > latest || nbf > latest {
        return Err(Refusal::new(
            RefusalCode::ProofNotYetValid,
            format!("`iat` or `nbf` is after the signer's time `{}`; check your clock", at.now),
        ));
    }
    if exp <= at.now {
        return Err(Refusal::new(
            RefusalCode::ProofExpired,
            format!("`exp` is not after the signer's time `{}`", at.now),
        ));
    }
    if exp.saturating_sub(iat) > MAX_PROOF_SECONDS {
        return Err(Refusal::new(
            RefusalCode::ProofTooLong,
            format!("`exp` may be at most {MAX_PROOF_SECONDS} s after `iat`"),
        ));
    }
    Ok(exp)
}

/// A predecessor of this signer may have accepted a proof made before this signer's start, and its
/// memory died with it. Only proofs certainly made for this signer are accepted.
fn check_log(payload: &Map<String, Value>, at: Moment<'_>) -> Result<(), Refusal> {
    if payload.contains_key("log") {
        if text(payload, "log")? == at.log {
            return Ok(());
        }
        return Err(Refusal::new(
            RefusalCode::WrongLog,
            format!("`log` names another log than `{}`; see /signers", at.log),
        ));
    }
    let safe_from = at.started_at.saturating_add(FUTURE_LEEWAY_S);
    if at.now > safe_from && seconds(payload, "iat")? > safe_from {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::ProofBeforeStart,
        format!(
            "this signer started at `{}`: make a new proof after `{safe_from}`, or one with \
             `log` = `{}`",
            at.started_at, at.log
        ),
    ))
}

fn text<'a>(payload: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, Refusal> {
    payload.get(name).and_then(Value::as_str).ok_or_else(|| {
        Refusal::new(RefusalCode::MalformedProof, format!("`{name}` must be a string"))
    })
}

fn seconds(payload: &Map<String, Value>, name: &'static str) -> Result<u64, Refusal> {
    let value = payload
        .get(name)
        .ok_or_else(|| Refusal::new(RefusalCode::MalformedProof, format!("`{name}` is missing")))?;
    json::seconds(name, value).map_err(|e| Refusal::new(RefusalCode::MalformedProof, e.to_string()))
}

fn malformed(what: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::MalformedRequest, what)
}

#[cfg(test)]
mod tests;
