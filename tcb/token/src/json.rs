//! Strict JSON for everything that is signed or decides something.
//!
//! RFC 8259 leaves open what duplicate members mean; two parsers that choose differently read two
//! different tokens from the same signed bytes. Here a duplicate is an error, at any depth.

mod scan;

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
    let mut node = Node::Null;
    let fault = Cell::new(None);
    read(json, &fault, Strict { depth: 0, fault: &fault, into: Some(&mut node) })?;
    Ok(node)
}

/// Reads a whole JSON text by `seed`. serde_json's error type cannot carry ours, so a precise fault
/// travels beside it.
fn read<'a>(
    json: &'a str,
    fault: &Cell<Option<Error>>,
    seed: impl DeserializeSeed<'a, Value = ()>,
) -> Result<(), Error> {
    if json.len() > MAX_BYTES {
        return Err(Error::TooLarge { what: "json text", limit: MAX_BYTES });
    }
    if json.as_bytes().starts_with(BYTE_ORDER_MARK) {
        return Err(Error::ByteOrderMark);
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    seed.deserialize(&mut reader)
        .and_then(|()| reader.end())
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

/// Parses one JSON text that must be an object and keeps the members that are asked for: `place`
/// says where of `N`. The others are checked as strictly, and passed over.
///
/// # Errors
/// Those of [`parse_members`].
pub fn pick<'a, const N: usize>(
    json: &'a str,
    place: impl Fn(&str) -> Option<usize>,
) -> Result<[Option<Node<'a>>; N], Error> {
    if let Some(picked) = scan::pick(json, &place) {
        return Ok(picked);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    if json.bytes().find(|byte| !blank(byte)) != Some(b'{') {
        return Err(parse_members(json).err().unwrap_or(Error::NotAnObject));
    }
    let mut picked = [const { None }; N];
    let fault = Cell::new(None);
    read(json, &fault, Picker { fault: &fault, place, picked: &mut picked })?;
    Ok(picked)
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

/// Checks a value, refuses what [`Value`]'s own implementation lets pass, and writes it into its
/// place if there is one.
///
/// Nodes are written where they stay: one that is handed up by value is copied piece by piece at
/// each level, which took a quarter of the time.
struct Strict<'f, 'o, 'de> {
    /// Containers that are open.
    depth: usize,
    fault: &'f Cell<Option<Error>>,
    into: Option<&'o mut Node<'de>>,
}

impl<'de> Strict<'_, '_, 'de> {
    /// The depth of what is inside.
    fn enter<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            return Err(fail(self.fault, Error::TooDeep));
        }
        Ok(self.depth.saturating_add(1))
    }

    fn keep<E>(self, node: impl FnOnce() -> Node<'de>) -> Result<(), E> {
        if let Some(into) = self.into {
            *into = node();
        }
        Ok(())
    }
}

fn fail<E: serde::de::Error>(fault: &Cell<Option<Error>>, error: Error) -> E {
    let text = error.to_string();
    fault.set(Some(error));
    E::custom(text)
}

impl<'de> DeserializeSeed<'de> for Strict<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a json value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut reader: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let (fault, kept) = (self.fault, self.into.is_some());
        let room = if kept && self.depth == 0 { MEMBERS_AT_FIRST } else { 0 };
        let mut members: Members<'de> = Vec::with_capacity(room);
        let mut names = Names::new();
        let mut name = Cow::Borrowed("");
        while reader.next_key_seed(Name(&mut name))?.is_some() {
            names.insert(name.clone()).map_err(|error| fail(fault, error))?;
            let mut node = Node::Null;
            reader.next_value_seed(Strict { depth, fault, into: kept.then_some(&mut node) })?;
            if kept {
                members.push((std::mem::take(&mut name), node));
            }
        }
        self.keep(|| Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let (fault, kept) = (self.fault, self.into.is_some());
        let mut list = Vec::new();
        let mut node = Node::Null;
        loop {
            let into = kept.then_some(&mut node);
            if elements.next_element_seed(Strict { depth, fault, into })?.is_none() {
                break;
            }
            if kept {
                list.push(std::mem::replace(&mut node, Node::Null));
            }
        }
        self.keep(|| Node::Array(list))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<(), E> {
        self.keep(|| Node::String(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.keep(|| Node::String(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.keep(|| Node::Number(number.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.keep(|| Node::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("number out of range"))?;
        self.keep(|| Node::Number(number))
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        self.keep(|| Node::Bool(flag))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.keep(|| Node::Null)
    }
}

/// Checks an object and keeps some of its members.
struct Picker<'f, 'o, 'de, F> {
    fault: &'f Cell<Option<Error>>,
    place: F,
    picked: &'o mut [Option<Node<'de>>],
}

impl<'de, F: Fn(&str) -> Option<usize>> DeserializeSeed<'de> for Picker<'_, '_, 'de, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Fn(&str) -> Option<usize>> Visitor<'de> for Picker<'_, '_, 'de, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a json object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut reader: A) -> Result<(), A::Error> {
        let Self { fault, place, picked } = self;
        let mut names = Names::new();
        let mut name = Cow::Borrowed("");
        while reader.next_key_seed(Name(&mut name))?.is_some() {
            names.insert(name.clone()).map_err(|error| fail(fault, error))?;
            let into = place(&name).and_then(|place| picked.get_mut(place));
            let into = into.map(|place| place.insert(Node::Null));
            reader.next_value_seed(Strict { depth: 1, fault, into })?;
        }
        Ok(())
    }
}

/// The names of an object so far, so that none comes twice.
struct Names<'a> {
    /// One bit for each kind of name that was seen: most names need no comparison.
    seen: u64,
    /// As many as are compared one by one, without escapes.
    first: [&'a str; MAX_COMPARED_NAMES],
    count: usize,
    others: Option<HashSet<Cow<'a, str>>>,
}

impl<'a> Names<'a> {
    const fn new() -> Self {
        Self { seen: 0, first: [""; MAX_COMPARED_NAMES], count: 0, others: None }
    }

    /// Remembers `name`.
    ///
    /// # Errors
    /// [`Error::DuplicateMember`] if it was there before.
    #[inline]
    fn insert(&mut self, name: Cow<'a, str>) -> Result<(), Error> {
        let bit = bit(&name);
        if self.seen & bit != 0 && self.holds(&name) {
            return Err(Error::DuplicateMember(shown(&name)));
        }
        self.seen |= bit;
        match (name, self.first.get_mut(self.count)) {
            (Cow::Borrowed(name), Some(place)) => {
                *place = name;
                self.count = self.count.saturating_add(1);
            }
            (name, _) => {
                self.others.get_or_insert_default().insert(name);
            }
        }
        Ok(())
    }

    fn holds(&self, name: &str) -> bool {
        self.first.iter().take(self.count).any(|known| *known == name)
            || self.others.as_ref().is_some_and(|others| others.contains(name))
    }
}

/// One of 64 bits, chosen by a name's length, first and last octet.
fn bit(name: &str) -> u64 {
    /// Odd numbers that keep the names of claims (RFC 7519, section 4.1) apart.
    const FACTORS: [usize; 2] = [59, 29];
    let [first, last] = [name.as_bytes().first(), name.as_bytes().last()];
    let ends = [first, last].map(|octet| usize::from(octet.copied().unwrap_or_default()));
    let mixed = ends.into_iter().zip(FACTORS).map(|(octet, factor)| octet.wrapping_mul(factor));
    1 << (mixed.fold(name.len(), usize::wrapping_add) % 64)
}

/// Reads a member's name, borrowed unless it holds escapes; serde's own `Cow` always copies.
struct Name<'o, 'de>(&'o mut Cow<'de, str>);

impl<'de> DeserializeSeed<'de> for Name<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<(), E> {
        *self.0 = Cow::Borrowed(text);
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        *self.0 = Cow::Owned(text.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
