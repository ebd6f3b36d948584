//! Strict JSON for everything that is signed or decides something.
//!
//! RFC 8259 leaves open what duplicate members mean; two parsers that choose differently read two
//! different tokens from the same signed bytes. Here a duplicate is an error, at any depth.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::Error;
use crate::error::shown;

/// Containers inside one another, the outermost counted. Claims in use nest three or four deep;
/// 16 leaves room and keeps the stack of a recursive walk small.
pub const MAX_DEPTH: usize = 16;

/// Bytes of one JSON text: the largest legitimate one is a full key set
/// ([`crate::jwks::MAX_SET_BYTES`]).
pub const MAX_BYTES: usize = 1024 * 1024;

/// The last second of the year 9999, the end of the range of RFC 3339 dates. A larger value is a
/// mistake (usually milliseconds), and sums with it would have to be checked everywhere.
pub const MAX_SECONDS: u64 = 253_402_300_799;

/// Members of an object whose names are compared one by one; beyond that they are hashed, so that
/// a long list of names costs no quadratic time.
const MAX_COMPARED_NAMES: usize = 24;

/// Members for which room is made at once: tokens in use have about a dozen claims.
const MEMBERS_AT_FIRST: usize = 12;

/// The members of an object, in their order; no two have the same name.
pub type Members<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

/// One JSON value that borrows from its text: only containers and strings with escapes allocate.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number; an integer that fits 64 bits is kept as one.
    Number(Number),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Node<'a>>),
    /// An object.
    Object(Members<'a>),
}

impl From<Node<'_>> for Value {
    fn from(node: Node<'_>) -> Self {
        match node {
            Node::Null => Self::Null,
            Node::Bool(flag) => Self::Bool(flag),
            Node::Number(number) => Self::Number(number),
            Node::String(text) => Self::String(text.into_owned()),
            Node::Array(list) => Self::Array(list.into_iter().map(Self::from).collect()),
            Node::Object(members) => Self::Object(to_map(members)),
        }
    }
}

/// The members as a map that owns them.
#[must_use]
pub fn to_map(members: Members<'_>) -> Map<String, Value> {
    members.into_iter().map(|(name, node)| (name.into_owned(), node.into())).collect()
}

/// Parses one JSON text.
///
/// # Errors
/// Those of [`parse_node`].
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    Ok(parse_node(text(bytes)?)?.into())
}

/// The text of strict JSON: at most [`MAX_BYTES`], UTF-8, no byte order mark.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::ByteOrderMark`], [`Error::NotUtf8`].
pub fn text(bytes: &[u8]) -> Result<&str, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge { what: "json text", limit: MAX_BYTES });
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err(Error::ByteOrderMark);
    }
    str::from_utf8(bytes).map_err(|_| Error::NotUtf8)
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Parses one JSON text without copying what can be borrowed from it.
///
/// Numbers keep their kind: an integer that fits 64 bits stays one, everything else (`1.0`, `1e3`)
/// becomes a float, so that [`seconds`] can refuse it.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::ByteOrderMark`], [`Error::DuplicateMember`], [`Error::TooDeep`],
/// and [`Error::Json`] for everything that is not JSON, trailing data included.
pub fn parse_node(json: &str) -> Result<Node<'_>, Error> {
    if json.len() > MAX_BYTES {
        return Err(Error::TooLarge { what: "json text", limit: MAX_BYTES });
    }
    if json.as_bytes().starts_with(BYTE_ORDER_MARK) {
        return Err(Error::ByteOrderMark);
    }
    // serde_json's error type cannot carry ours, so a precise fault travels beside it.
    let fault = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(json);
    Strict { depth: 0, fault: &fault }
        .deserialize(&mut reader)
        .and_then(|node| reader.end().map(|()| node))
        .map_err(|error| fault.take().unwrap_or_else(|| Error::Json(shown(&error.to_string()))))
}

/// Parses one JSON text that must be an object, without copying what can be borrowed from it.
///
/// # Errors
/// Those of [`parse_node`], and [`Error::NotAnObject`].
pub fn parse_members(json: &str) -> Result<Members<'_>, Error> {
    match parse_node(json)? {
        Node::Object(members) => Ok(members),
        _ => Err(Error::NotAnObject),
    }
}

/// Parses one JSON text that must be an object.
///
/// # Errors
/// Those of [`parse`], and [`Error::NotAnObject`].
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    match parse(bytes)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::NotAnObject),
    }
}

/// A time or duration in whole seconds (`NumericDate` of RFC 7519, section 2, integers only).
///
/// # Errors
/// [`Error::Seconds`] with `member` for anything but an integer from 0 to [`MAX_SECONDS`]: `1.0`,
/// `1e3`, `"1"` and negative numbers are refused.
pub fn seconds(member: &'static str, value: &Value) -> Result<u64, Error> {
    match value.as_u64() {
        Some(seconds) if seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err(Error::Seconds(member)),
    }
}

/// The string member `member`, if it is there.
///
/// # Errors
/// [`Error::MemberType`] if it is not a string; `null` is not a string.
pub fn optional_str<'m>(
    map: &'m Map<String, Value>,
    member: &'static str,
) -> Result<Option<&'m str>, Error> {
    match map.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::MemberType(member)),
    }
}

/// The string member `member`.
///
/// # Errors
/// [`Error::MissingMember`], and [`Error::MemberType`] if it is not a string.
pub fn required_str<'m>(
    map: &'m Map<String, Value>,
    member: &'static str,
) -> Result<&'m str, Error> {
    optional_str(map, member)?.ok_or(Error::MissingMember(member))
}

/// Builds a [`Value`] and refuses what [`Value`]'s own implementation lets pass.
#[derive(Clone, Copy)]
struct Strict<'f> {
    /// Containers that are open.
    depth: usize,
    fault: &'f Cell<Option<Error>>,
}

impl Strict<'_> {
    fn enter<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fail(Error::TooDeep));
        }
        Ok(Self { depth: self.depth.saturating_add(1), ..self })
    }

    fn fail<E: serde::de::Error>(self, error: Error) -> E {
        let text = error.to_string();
        self.fault.set(Some(error));
        E::custom(text)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Node<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a json value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut reader: A) -> Result<Node<'de>, A::Error> {
        let inner = self.enter()?;
        let room = if self.depth == 0 { MEMBERS_AT_FIRST } else { 0 };
        let mut members: Members<'de> = Vec::with_capacity(room);
        let mut hashed: Option<HashSet<Cow<'de, str>>> = None;
        while let Some(name) = reader.next_key_seed(Name)? {
            let repeated = match &mut hashed {
                None => members.iter().any(|(known, _)| *known == name),
                Some(names) => !names.insert(name.clone()),
            };
            if repeated {
                return Err(self.fail(Error::DuplicateMember(shown(&name))));
            }
            let node = reader.next_value_seed(inner)?;
            members.push((name, node));
            if hashed.is_none() && members.len() == MAX_COMPARED_NAMES {
                hashed = Some(members.iter().map(|(name, _)| name.clone()).collect());
            }
        }
        Ok(Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node<'de>, A::Error> {
        let inner = self.enter()?;
        let mut list = Vec::new();
        while let Some(node) = elements.next_element_seed(inner)? {
            list.push(node);
        }
        Ok(Node::Array(list))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Node<'de>, E> {
        Number::from_f64(number).map(Node::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(flag))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }
}

/// Reads a member's name, borrowed unless it holds escapes; serde's own `Cow` always copies.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Cow<'de, str>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
