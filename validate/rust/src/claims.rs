//! Claims, read from a verified payload only.

use chancery_token::jws::{self, Compact};
use chancery_token::{Error, PublicKey, json};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::explain::shown;
use crate::rejection::of_form;
use crate::{Rejection, RejectionCode};

/// The claims that RFC 9068, section 2.2 and RFC 7800 name, with their types checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Who issued the token.
    pub iss: String,
    /// Whom it speaks about.
    pub sub: String,
    /// For whom it is meant: one or more names, none empty.
    pub aud: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// Before when it is not to be accepted, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The token's address in its log.
    pub jti: String,
    /// Who asked for it.
    pub client_id: String,
    /// What it allows: scope tokens separated by single spaces (RFC 6749, section 3.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The key that its user must prove to hold (RFC 7800). Who accepts the token without that
    /// proof treats it as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Map<String, Value>>,
}

/// A payload whose signature was verified. It is made by that verification only, so that no claim
/// can be read, let alone believed, before.
pub(crate) struct Verified(Vec<u8>);

impl Verified {
    /// Verifies that `key` signed `token` with the algorithm that the key is bound to.
    pub(crate) fn by(
        key: &PublicKey,
        token: &mut Compact<'_>,
        accept_eddsa: bool,
    ) -> Result<Self, Rejection> {
        jws::verify(token, key, accept_eddsa).map_err(|error| {
            let code = match error {
                Error::AlgorithmMismatch { .. } => RejectionCode::AlgorithmNotOfKey,
                _ => RejectionCode::BadSignature,
            };
            Rejection::new(code, error.to_string())
        })?;
        Ok(Self(std::mem::take(&mut token.payload)))
    }

    /// Octets of the payload.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The claims with a meaning here, and all others.
    pub(crate) fn claims(&self) -> Result<(Claims, Map<String, Value>), Rejection> {
        let mut members = json::parse_object(&self.0).map_err(|error| of_form(&error))?;
        let claims = Claims {
            iss: text(&mut members, "iss")?,
            sub: text(&mut members, "sub")?,
            aud: audience(&mut members)?,
            exp: required(seconds(&mut members, "exp")?, "exp")?,
            iat: required(seconds(&mut members, "iat")?, "iat")?,
            nbf: seconds(&mut members, "nbf")?,
            jti: text(&mut members, "jti")?,
            client_id: text(&mut members, "client_id")?,
            scope: scope(&mut members)?,
            cnf: confirmation(&mut members)?,
        };
        Ok((claims, members))
    }
}

fn bad(claim: &str, why: &str) -> Rejection {
    Rejection::new(RejectionCode::BadClaim, format!("`{claim}` {why}"))
}

fn required<T>(value: Option<T>, claim: &str) -> Result<T, Rejection> {
    value
        .ok_or_else(|| Rejection::new(RejectionCode::MissingClaim, format!("`{claim}` is missing")))
}

/// A required string. An empty one names nobody, and would equal a setting that was left empty.
fn text(members: &mut Map<String, Value>, claim: &str) -> Result<String, Rejection> {
    match required(members.remove(claim), claim)? {
        Value::String(text) if !text.is_empty() => Ok(text),
        _ => Err(bad(claim, "is not a non-empty string")),
    }
}

fn seconds(
    members: &mut Map<String, Value>,
    claim: &'static str,
) -> Result<Option<u64>, Rejection> {
    let Some(value) = members.remove(claim) else { return Ok(None) };
    json::seconds(claim, &value)
        .map(Some)
        .map_err(|error| Rejection::new(RejectionCode::BadClaim, error.to_string()))
}

/// RFC 7519, section 4.1.3: a string, or an array of strings.
fn audience(members: &mut Map<String, Value>) -> Result<Vec<String>, Rejection> {
    let values = match required(members.remove("aud"), "aud")? {
        Value::Array(values) if !values.is_empty() => values,
        Value::Array(_) => return Err(bad("aud", "is an empty list")),
        value => vec![value],
    };
    let name = |value| match value {
        Value::String(name) if !name.is_empty() => Ok(name),
        _ => Err(bad("aud", "is neither a non-empty string nor a list of them")),
    };
    values.into_iter().map(name).collect()
}

/// RFC 8693, section 4.2: a string of scope tokens. Two readers that split odd spacing or odd
/// characters differently would grant differently, so the grammar is enforced.
fn scope(members: &mut Map<String, Value>) -> Result<Option<String>, Rejection> {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    let is_scope_token = |token: &str| !token.is_empty() && token.bytes().all(allowed);
    match members.remove("scope") {
        None => Ok(None),
        Some(Value::String(scope)) if scope.split(' ').all(is_scope_token) => Ok(Some(scope)),
        Some(Value::String(scope)) => Err(bad(
            "scope",
            &format!("`{}` is not scope tokens, each one space apart", shown(&scope)),
        )),
        Some(_) => Err(bad("scope", "is not a string")),
    }
}

fn confirmation(members: &mut Map<String, Value>) -> Result<Option<Map<String, Value>>, Rejection> {
    match members.remove("cnf") {
        None => Ok(None),
        Some(Value::Object(confirmation)) => Ok(Some(confirmation)),
        Some(_) => Err(bad("cnf", "is not an object")),
    }
}
