//! Claims, read from a verified payload only.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use chancery_token::json::{self, Node};
use chancery_token::jws::{self, Compact, Header};
use chancery_token::{Algorithm, Error, KeyId, PublicKey};
use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer};
use serde_json::Value;

use crate::explain::shown;
use crate::rejection::of_form;
use crate::{Rejection, RejectionCode};

/// The claims that RFC 9068, section 2.2 names, with their types checked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Claims<'v> {
    /// Who issued the token.
    pub iss: &'v str,
    /// Whom it speaks about.
    pub sub: &'v str,
    /// For whom it is meant: one or more names, none empty.
    pub aud: Audiences<'v>,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// Before when it is not to be accepted, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The token's own name: its address in its log, if its key was announced in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'v str>,
    /// Who asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<&'v str>,
    /// What it allows: scope tokens separated by single spaces (RFC 6749, section 3.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<&'v str>,
}

/// The values of `aud`: one or more, none empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audiences<'v> {
    payload: &'v str,
    values: &'v [Text],
}

impl<'v> Audiences<'v> {
    /// The values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'v str> + use<'v> {
        let payload = self.payload;
        self.values.iter().map(move |value| value.of(payload))
    }

    /// Whether `audience` is one of them, octet by octet.
    #[must_use]
    pub fn contains(&self, audience: &str) -> bool {
        self.iter().any(|value| value == audience)
    }
}

impl Serialize for Audiences<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.values.len()))?;
        self.iter().try_for_each(|value| list.serialize_element(value))?;
        list.end()
    }
}

/// What a verified signature covers. It is made by that verification only, so that no claim can be
/// read, let alone believed, before.
#[derive(Debug, PartialEq)]
pub struct Signed {
    pub header: Arc<Header>,
    pub algorithm: Algorithm,
    pub thumbprint: KeyId,
    /// Header and payload as they were signed.
    pub signing_input: String,
    /// The payload's JSON text.
    pub payload: String,
    known: Known,
}

/// The claims with a meaning here, as places in the payload. Those that every profile requires are
/// there.
#[derive(Debug, PartialEq)]
struct Known {
    iss: Text,
    sub: Text,
    aud: Vec<Text>,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    jti: Option<Text>,
    client_id: Option<Text>,
    scope: Option<Text>,
    tid: Option<Text>,
    /// What is wrong with an optional claim that is not among these, therefore.
    fault: Option<Rejection>,
    is_event: bool,
}

/// A string of the payload: its place, or itself if it was written with escapes.
#[derive(Debug, PartialEq)]
enum Text {
    At { start: usize, end: usize },
    Own(String),
}

impl Text {
    fn of<'p>(&'p self, payload: &'p str) -> &'p str {
        match self {
            Self::At { start, end } => payload.get(*start..*end).unwrap_or_default(),
            Self::Own(text) => text,
        }
    }
}

/// A token whose signature by this key was verified, and whose payload nobody has read yet.
pub struct Verified<'k, 't> {
    key: &'k PublicKey,
    token: Compact<'t>,
}

impl<'k, 't> Verified<'k, 't> {
    /// Verifies that `key` signed `token`.
    pub fn by(key: &'k PublicKey, token: Compact<'t>) -> Result<Self, Rejection> {
        match key.verify(token.signing_input.as_bytes(), &token.signature) {
            Ok(()) => Ok(Self { key, token }),
            Err(error) => Err(Rejection::new(RejectionCode::BadSignature, error.to_string())),
        }
    }

    /// Its claims.
    pub fn read(self) -> Result<Arc<Signed>, Rejection> {
        let Self { key, token } = self;
        let payload = String::from_utf8(token.payload).map_err(|_| of_form(&Error::NotUtf8))?;
        let known = json::pick(&payload, place_of)
            .map_err(|error| of_form(&error))
            .and_then(|picked| Known::of(picked, &payload))?;
        Ok(Arc::new(Signed {
            header: token.header,
            algorithm: key.algorithm(),
            thumbprint: key.kid(),
            signing_input: token.signing_input.to_owned(),
            payload,
            known,
        }))
    }
}

impl Signed {
    /// The claims.
    pub fn claims(&self) -> Claims<'_> {
        let Known { iss, sub, aud, exp, iat, nbf, jti, client_id, scope, .. } = &self.known;
        Claims {
            iss: iss.of(&self.payload),
            sub: sub.of(&self.payload),
            aud: Audiences { payload: &self.payload, values: aud },
            exp: *exp,
            iat: *iat,
            nbf: *nbf,
            jti: self.text(jti),
            client_id: self.text(client_id),
            scope: self.text(scope),
        }
    }

    /// The claim `tid` of profile `entra`.
    pub fn tenant(&self) -> Option<&str> {
        self.text(&self.known.tid)
    }

    /// The first optional claim that has the wrong type or form, and was therefore passed over.
    pub fn optional_fault(&self) -> Result<(), Rejection> {
        self.known.fault.clone().map_or(Ok(()), Err)
    }

    /// Whether the token says that it is a security event token (RFC 8417, section 2.2).
    pub fn is_event(&self) -> bool {
        self.known.is_event
    }

    fn text<'s>(&'s self, text: &'s Option<Text>) -> Option<&'s str> {
        text.as_ref().map(|text| text.of(&self.payload))
    }
}

/// What a token says about its issuer and tenant, *not verified*: good for choosing whose keys to
/// judge it by, and for nothing else.
pub fn claimed(token: &Compact<'_>) -> Result<(String, Option<String>), Rejection> {
    let text = json::text(&token.payload).map_err(|error| of_form(&error))?;
    let mut members = json::parse_members(text).map_err(|error| of_form(&error))?;
    let has_iss = members.iter().any(|(member, _)| member == "iss");
    let mut string = |name: &str| {
        let member = members.iter_mut().find(|(member, _)| member == name);
        match member.map(|(_, node)| std::mem::replace(node, Node::Null)) {
            Some(Node::String(text)) => Some(text.into_owned()),
            _ => None,
        }
    };
    match string("iss") {
        Some(iss) if !iss.is_empty() => Ok((iss, string("tid"))),
        _ if has_iss => Err(bad("iss", "is not a non-empty string")),
        _ => Err(missing("iss")),
    }
}

pub fn missing(claim: &str) -> Rejection {
    Rejection::new(RejectionCode::MissingClaim, format!("`{claim}` is missing"))
}

pub fn bad(claim: &str, why: &str) -> Rejection {
    Rejection::new(RejectionCode::BadClaim, format!("`{claim}` {why}"))
}

impl Known {
    fn of(picked: [Option<Node<'_>>; READ], payload: &str) -> Result<Self, Rejection> {
        let [iss, sub, aud, exp, iat, nbf, jti, client_id, scope, tid, events, cnf] = picked;
        let mut fault = None;
        let mut optional = |claim: Option<Result<Text, Rejection>>| match claim? {
            Ok(text) => Some(text),
            Err(rejection) => {
                fault.get_or_insert(rejection);
                None
            }
        };
        let required = |claim: Option<Node<'_>>, name| {
            claim.map(|node| name_of(node, name, payload)).transpose()
        };
        let iss = required(iss, "iss")?;
        let sub = required(sub, "sub")?;
        let aud = aud.map(|node| audience(node, payload)).transpose()?;
        let seconds =
            |claim: Option<Node<'_>>, name| claim.map(|node| seconds(node, name)).transpose();
        let (exp, iat) = (seconds(exp, "exp")?, seconds(iat, "iat")?);
        let nbf = seconds(nbf, "nbf")?;
        if cnf.is_some_and(|node| !matches!(node, Node::Object(_))) {
            return Err(bad("cnf", "is not an object"));
        }
        Ok(Self {
            jti: optional(jti.map(|node| name_of(node, "jti", payload))),
            client_id: optional(client_id.map(|node| name_of(node, "client_id", payload))),
            scope: optional(scope.map(|node| scope_of(node, payload))),
            tid: tid.and_then(|node| string(node, payload)),
            is_event: events.is_some(),
            iss: iss.ok_or_else(|| missing("iss"))?,
            sub: sub.ok_or_else(|| missing("sub"))?,
            aud: aud.ok_or_else(|| missing("aud"))?,
            exp: exp.ok_or_else(|| missing("exp"))?,
            iat: iat.ok_or_else(|| missing("iat"))?,
            nbf,
            fault,
        })
    }
}

/// The claims that are read here.
const READ: usize = 12;

/// The place of a claim in what [`Known::of`] takes.
fn place_of(claim: &str) -> Option<usize> {
    Some(match claim {
        "iss" => 0,
        "sub" => 1,
        "aud" => 2,
        "exp" => 3,
        "iat" => 4,
        "nbf" => 5,
        "jti" => 6,
        "client_id" => 7,
        "scope" => 8,
        "tid" => 9,
        "events" => 10,
        "cnf" => 11,
        _ => return None,
    })
}

/// A required string. An empty one names nobody, and would equal a setting that was left empty.
fn name_of(node: Node<'_>, claim: &str, payload: &str) -> Result<Text, Rejection> {
    match node {
        Node::String(text) if !text.is_empty() => Ok(place(text, payload)),
        _ => Err(bad(claim, "is not a non-empty string")),
    }
}

fn string(node: Node<'_>, payload: &str) -> Option<Text> {
    match node {
        Node::String(text) => Some(place(text, payload)),
        _ => None,
    }
}

/// Where a string stands. One that was borrowed from the payload lies within it.
fn place(text: Cow<'_, str>, payload: &str) -> Text {
    let start = text.as_ptr().addr().checked_sub(payload.as_ptr().addr());
    let end = start.and_then(|start| start.checked_add(text.len()));
    match (text, start, end) {
        (Cow::Borrowed(_), Some(start), Some(end)) if end <= payload.len() => {
            Text::At { start, end }
        }
        (text, ..) => Text::Own(text.into_owned()),
    }
}

fn seconds(node: Node<'_>, claim: &'static str) -> Result<u64, Rejection> {
    json::seconds(claim, &Value::from(node))
        .map_err(|error| Rejection::new(RejectionCode::BadClaim, error.to_string()))
}

/// RFC 7519, section 4.1.3: a string, or an array of strings.
fn audience(node: Node<'_>, payload: &str) -> Result<Vec<Text>, Rejection> {
    let nodes = match node {
        Node::Array(nodes) if nodes.is_empty() => return Err(bad("aud", "is an empty list")),
        Node::Array(nodes) => nodes,
        node => vec![node],
    };
    let name = |node| match node {
        Node::String(name) if !name.is_empty() => Ok(place(name, payload)),
        _ => Err(bad("aud", "is neither a non-empty string nor a list of them")),
    };
    nodes.into_iter().map(name).collect()
}

/// RFC 8693, section 4.2: a string of scope tokens. Two readers that split odd spacing or odd
/// characters differently would grant differently, so the grammar is enforced.
fn scope_of(node: Node<'_>, payload: &str) -> Result<Text, Rejection> {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    let is_scope_token = |token: &str| !token.is_empty() && token.bytes().all(allowed);
    match node {
        Node::String(scope) if scope.split(' ').all(is_scope_token) => Ok(place(scope, payload)),
        Node::String(scope) => Err(bad(
            "scope",
            &format!("`{}` is not scope tokens, each one space apart", shown(&scope)),
        )),
        _ => Err(bad("scope", "is not a string")),
    }
}

/// Headers that were read before, by their encoded text.
pub type Headers = HashMap<String, Arc<Header>>;

/// Takes a token apart, believing nothing.
pub fn take_apart<'t>(token: &'t str, headers: &Headers) -> Result<Compact<'t>, Rejection> {
    let known = |encoded: &str| headers.get(encoded).cloned();
    jws::parse_with(token, jws::MAX_TOKEN_BYTES, known, decode).map_err(|error| of_form(&error))
}

/// As [`chancery_token::b64::decode`], vectorized: an ML-DSA signature of 4,400 characters takes
/// three quarters less.
fn decode(text: &str) -> Result<Vec<u8>, Error> {
    base64_simd::URL_SAFE_NO_PAD.decode_to_vec(text).map_err(|_| Error::Base64)
}

#[cfg(test)]
mod tests {
    use chancery_token::b64;
    use proptest::prelude::*;

    use super::*;

    /// Both decoders, which must never differ: a spelling that only one of them takes would make
    /// two tokens of one.
    fn agree(text: &str) -> Result<(), TestCaseError> {
        prop_assert_eq!(decode(text).ok(), b64::decode(text).ok());
        Ok(())
    }

    proptest! {
        #[test]
        fn decodes_as_the_canonical_decoder_does(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            agree(&b64::encode(&bytes))?;
        }

        #[test]
        fn refuses_what_it_refuses(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            with in prop_oneof![
                any::<char>(),
                prop::sample::select(vec!['=', '+', '/', '-', '_', '.', '\n', ' ', '\0', 'A', 'B']),
            ],
            instead in any::<bool>(),
        ) {
            let mut text: Vec<char> = b64::encode(&bytes).chars().collect();
            let at = at.index(text.len() + 1);
            match text.get_mut(at) {
                Some(character) if instead => *character = with,
                _ => text.insert(at, with),
            }
            agree(&text.into_iter().collect::<String>())?;
        }

        #[test]
        fn agrees_on_every_end(text in "([A-Za-z0-9_-]{4}){0,20}[A-Za-z0-9_-]{0,4}=?") {
            agree(&text)?;
        }
    }
}
