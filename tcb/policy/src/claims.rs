//! The payload of a granted token (RFC 9068 section 2.2).

use serde::ser::{SerializeMap, Serializer};

use crate::Granted;

/// What the signer adds to a decision.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The realm's issuer.
    pub issuer: &'a str,
    /// The client's id.
    pub client: &'a str,
    /// Unix seconds.
    pub iat: u64,
    /// Unix seconds.
    pub exp: u64,
    /// `<log id>.<index>.<128 bits, base64url>`: the token's address in the log.
    pub jti: &'a str,
}

/// The token's claims as compact JSON: `iss`, `sub`, `aud` (a string when single), `client_id`,
/// `iat`, `exp`, `jti`, then `scope`, `cnf` and further claims where granted.
///
/// # Errors
/// Those of serde_json, which cannot occur for these values.
pub fn payload(granted: &Granted, stamp: Stamp<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::new(&mut out);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("iss", stamp.issuer)?;
    map.serialize_entry("sub", &granted.subject)?;
    match granted.audiences.as_slice() {
        [one] => map.serialize_entry("aud", one)?,
        many => map.serialize_entry("aud", many)?,
    }
    map.serialize_entry("client_id", stamp.client)?;
    map.serialize_entry("iat", &stamp.iat)?;
    map.serialize_entry("exp", &stamp.exp)?;
    map.serialize_entry("jti", stamp.jti)?;
    if !granted.scopes.is_empty() {
        map.serialize_entry("scope", &granted.scopes.join(" "))?;
    }
    if let Some(jkt) = &granted.cnf_jkt {
        map.serialize_entry("cnf", &std::collections::BTreeMap::from([("jkt", jkt)]))?;
    }
    for (name, value) in &granted.claims {
        map.serialize_entry(name, value)?;
    }
    map.end()?;
    Ok(out)
}
