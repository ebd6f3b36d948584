//! A token that passed every check.

use std::sync::Arc;

use chancery_token::{Algorithm, KeyId, json};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::claims::Signed;
use crate::{Claims, LogAddress};

/// A token that passed every check. There is no other way to make one.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    signed: Arc<Signed>,
    key_log: Option<LogAddress>,
    address: Option<LogAddress>,
}

/// The claims with a meaning here; the others are in [`Validated::extra`].
const KNOWN: [&str; 9] = ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope"];

impl Validated {
    pub(crate) fn new(
        signed: Arc<Signed>,
        key_log: Option<LogAddress>,
        address: Option<LogAddress>,
    ) -> Self {
        Self { signed, key_log, address }
    }

    /// The claims with a meaning here.
    #[must_use]
    pub fn claims(&self) -> Claims<'_> {
        self.signed.claims()
    }

    /// The JSON text of all claims, as it was signed: a strict object without repeated members.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.signed.payload
    }

    /// All claims.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        json::parse_members(&self.signed.payload).map(json::to_map).unwrap_or_default()
    }

    /// All claims but those of [`Validated::claims`].
    #[must_use]
    pub fn extra(&self) -> Map<String, Value> {
        let mut claims = self.to_map();
        claims.retain(|name, _| !KNOWN.contains(&name.as_str()));
        claims
    }

    /// The claims as the caller's own type.
    ///
    /// # Errors
    /// What serde finds missing or of another type.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.signed.payload)
    }

    /// The key that the token's user must prove to hold (RFC 7800). Who accepts the token without
    /// that proof treats it as a bearer token.
    #[must_use]
    pub fn confirmation(&self) -> Option<Map<String, Value>> {
        match self.to_map().remove("cnf") {
            Some(Value::Object(confirmation)) => Some(confirmation),
            _ => None,
        }
    }

    /// The algorithm, which is the key's.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.signed.algorithm
    }

    /// The media type of the header, `typ`.
    #[must_use]
    pub fn typ(&self) -> Option<&str> {
        self.signed.header.typ.as_deref()
    }

    /// The `kid` by which token and key set name the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        // Without it no key was found.
        self.signed.header.kid.as_deref().unwrap_or_default()
    }

    /// The key's RFC 7638 thumbprint, by which logs name it.
    #[must_use]
    pub fn key_thumbprint(&self) -> KeyId {
        self.signed.thumbprint
    }

    /// The key's member `log`, where it was announced. Profile `strict` demands it.
    #[must_use]
    pub fn key_log(&self) -> Option<LogAddress> {
        self.key_log
    }

    /// Where the token's entry stands, from its `jti`, if the key was announced in a log; it is the
    /// same log.
    #[must_use]
    pub fn log_address(&self) -> Option<LogAddress> {
        self.address
    }

    /// The text that was signed (RFC 7515, section 5.1).
    #[must_use]
    pub fn signing_input(&self) -> &str {
        &self.signed.signing_input
    }
}
