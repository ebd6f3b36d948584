//! Compact JWS (RFC 7515, section 7.1): strict parsing, verifying, writing.
//!
//! [`parse`] takes a token apart without believing it, [`verify`] ties it to one key of one
//! algorithm. The key is always the caller's: nothing in a header can bring or fetch one.

use std::sync::Arc;

use serde_json::Value;

use crate::error::shown;
use crate::json::{self, Members, Node};
use crate::jwk::EDDSA;
use crate::{Algorithm, Error, KeyId, PublicKey, b64};

/// Bytes of a token. HTTP servers cap header lines at 8 to 16 KiB; an ML-DSA-87 signature alone
/// takes 6170 characters, which leaves 10 KiB for claims.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Bytes of a signed issuance request: a few hundred requests of about 1.5 KiB each.
pub const MAX_REQUEST_BYTES: usize = 512 * 1024;

/// Characters of the encoded header. Those in use take 60 to 300; what is longer carries keys or
/// certificates, which are refused anyway.
pub const MAX_HEADER_BYTES: usize = 2 * 1024;

/// Room that a text to sign keeps for its signature, so that [`assemble`] need not move it: the 86
/// characters of ECDSA on P-256 and of Ed25519. Longer ones take so long that a move does not count.
const SIGNATURE_CHARS: usize = 86;

/// Header members that are never accepted, whatever their value: extensions that must be
/// understood (`crit`), that change what was signed (`b64`, RFC 7797) or how it is read (`zip`),
/// and those that bring a key or say where to fetch one (RFC 8725, section 3.10).
const REFUSED_MEMBERS: [&str; 7] = ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c"];

/// The header members that this crate reads. Others are ignored (RFC 7515, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm's name as it was written; [`verify`] compares it with the key's.
    pub alg: String,
    /// The media type, as written.
    pub typ: Option<String>,
    /// The key's id, as written; other issuers' ids need not be thumbprints.
    pub kid: Option<String>,
}

impl Header {
    /// Reads an encoded header, the part of a token before its first dot.
    ///
    /// # Errors
    /// Those of [`parse`] for a header.
    pub fn parse(encoded: &str) -> Result<Self, Error> {
        if encoded.len() > MAX_HEADER_BYTES {
            return Err(Error::TooLarge { what: "jws header", limit: MAX_HEADER_BYTES });
        }
        read_header(&decode_part("header", encoded, b64::decode)?)
    }
}

/// A compact JWS taken apart; nothing in it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compact<'a> {
    /// The protected header.
    pub header: Arc<Header>,
    /// Header and payload as they were signed: the text before the last dot.
    pub signing_input: &'a str,
    /// The decoded payload, never empty.
    pub payload: Vec<u8>,
    /// The decoded signature, never empty.
    pub signature: Vec<u8>,
}

/// Takes a compact JWS of at most `max_bytes` apart.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Parts`], [`Error::EmptyPart`], [`Error::PartEncoding`]; for the
/// header those of [`json::parse_object`], [`Error::RefusedHeader`], [`Error::MissingMember`]
/// without `alg`, [`Error::AlgorithmNone`], and [`Error::MemberType`] if `alg`, `typ` or `kid` is
/// not a string.
pub fn parse(token: &str, max_bytes: usize) -> Result<Compact<'_>, Error> {
    parse_with(token, max_bytes, |_| None, b64::decode)
}

/// Takes a compact JWS apart as [`parse`] does. All tokens of a key and type begin with the same
/// encoded header, so `known` may answer what [`Header::parse`] made of it before; `decode` takes
/// exactly what [`b64::decode`] takes, perhaps sooner.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_with(
    token: &str,
    max_bytes: usize,
    known: impl Fn(&str) -> Option<Arc<Header>>,
    decode: impl Fn(&str) -> Result<Vec<u8>, Error>,
) -> Result<Compact<'_>, Error> {
    if token.len() > max_bytes {
        return Err(Error::TooLarge { what: "jws", limit: max_bytes });
    }
    let (header, rest) = split(token).ok_or(Error::Parts)?;
    let (payload, signature) = split(rest).ok_or(Error::Parts)?;
    let signed = header.len().saturating_add(1).saturating_add(payload.len());
    let signing_input = token.get(..signed).ok_or(Error::Parts)?;
    let compact = || {
        Ok(Compact {
            header: match known(header) {
                Some(header) => header,
                None => Arc::new(Header::parse(header)?),
            },
            signing_input,
            payload: decode_part("payload", payload, &decode)?,
            signature: decode_part("signature", signature, &decode)?,
        })
    };
    // A dot is no character of base64url: more parts than three fail in any case, and the long
    // signature need not be looked through for dots first.
    compact().map_err(|error| if signature.contains('.') { Error::Parts } else { error })
}

/// Verifies that `key` signed `c`, with the algorithm that the key is bound to.
///
/// # Errors
/// Those of [`check_algorithm`] and of [`PublicKey::verify`].
pub fn verify(c: &Compact<'_>, key: &PublicKey, accept_eddsa: bool) -> Result<(), Error> {
    check_algorithm(&c.header, key, accept_eddsa)?;
    key.verify(c.signing_input.as_bytes(), &c.signature)
}

/// The header must name exactly the algorithm that the key is bound to. `EdDSA` counts as `Ed25519`
/// if `accept_eddsa` is set or the key itself was published under that name.
///
/// # Errors
/// [`Error::AlgorithmMismatch`].
pub fn check_algorithm(header: &Header, key: &PublicKey, accept_eddsa: bool) -> Result<(), Error> {
    let expected = key.algorithm();
    let named = header.alg.as_str();
    let alias =
        named == EDDSA && expected == Algorithm::Ed25519 && (accept_eddsa || key.eddsa_alias());
    if named == expected.as_str() || alias {
        Ok(())
    } else {
        Err(Error::AlgorithmMismatch { expected, found: shown(named) })
    }
}

/// The text to sign: a header of exactly `alg`, `typ`, `kid`, in that order, and the payload.
#[must_use]
pub fn signing_input(alg: Algorithm, typ: &str, kid: &KeyId, payload_json: &[u8]) -> String {
    signing_input_with(&encode_header(alg, typ, kid), payload_json)
}

/// The encoded header `{"alg":..,"typ":..,"kid":..}`: the same for every token of a key and type,
/// so it can be kept.
#[must_use]
pub fn encode_header(alg: Algorithm, typ: &str, kid: &KeyId) -> String {
    let typ = Value::from(typ);
    b64::encode(format!(r#"{{"alg":"{alg}","typ":{typ},"kid":"{kid}"}}"#).as_bytes())
}

/// The text to sign from a header of [`encode_header`] and a payload.
#[must_use]
pub fn signing_input_with(header_b64: &str, payload: &[u8]) -> String {
    // base64url makes four characters of three bytes.
    let body = payload.len().div_ceil(3).saturating_mul(4);
    let room = [header_b64.len(), body, SIGNATURE_CHARS].into_iter().fold(2, usize::saturating_add);
    let mut text = String::with_capacity(room);
    text.push_str(header_b64);
    text.push('.');
    b64::append(payload, &mut text);
    text
}

/// The compact JWS from the text that was signed and its signature.
#[must_use]
pub fn assemble(signing_input: String, signature: &[u8]) -> String {
    let mut token = signing_input;
    token.push('.');
    b64::append(signature, &mut token);
    token
}

/// What stands before the first dot, and what stands after it.
fn split(text: &str) -> Option<(&str, &str)> {
    let (before, rest) = text.split_at_checked(memchr::memchr(b'.', text.as_bytes())?)?;
    Some((before, rest.strip_prefix('.')?))
}

fn decode_part(
    part: &'static str,
    text: &str,
    decode: impl Fn(&str) -> Result<Vec<u8>, Error>,
) -> Result<Vec<u8>, Error> {
    if text.is_empty() {
        return Err(Error::EmptyPart(part));
    }
    decode(text).map_err(|_| Error::PartEncoding(part))
}

fn read_header(bytes: &[u8]) -> Result<Header, Error> {
    let mut members = json::parse_members(json::text(bytes)?)?;
    let refused = REFUSED_MEMBERS.into_iter().find(|refused| has(&members, refused));
    if let Some(member) = refused {
        return Err(Error::RefusedHeader(member));
    }
    let alg = take_str(&mut members, "alg")?.ok_or(Error::MissingMember("alg"))?;
    // Libraries have been fooled by `None` and `nOnE`; the intent is refused, not the spelling.
    if alg.trim().eq_ignore_ascii_case("none") {
        return Err(Error::AlgorithmNone);
    }
    Ok(Header { alg, typ: take_str(&mut members, "typ")?, kid: take_str(&mut members, "kid")? })
}

fn has(members: &Members<'_>, name: &str) -> bool {
    members.iter().any(|(member, _)| member == name)
}

fn take_str(members: &mut Members<'_>, name: &'static str) -> Result<Option<String>, Error> {
    let member = members.iter_mut().find(|(member, _)| member == name);
    match member.map(|(_, node)| std::mem::replace(node, Node::Null)) {
        None => Ok(None),
        Some(Node::String(text)) => Ok(Some(text.into_owned())),
        Some(_) => Err(Error::MemberType(name)),
    }
}

#[cfg(test)]
mod tests;
