//! Strict JSON for everything that is signed or decides something.
//!
//! RFC 8259 leaves open what duplicate members mean; two parsers that choose differently read two
//! different tokens from the same signed bytes. Here a duplicate is an error, at any depth.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
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

/// Parses one JSON text.
///
/// Numbers keep their kind: an integer that fits 64 bits stays one, everything else (`1.0`, `1e3`)
/// becomes a float, so that [`seconds`] can refuse it.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::ByteOrderMark`], [`Error::NotUtf8`], [`Error::DuplicateMember`],
/// [`Error::TooDeep`], and [`Error::Json`] for everything that is not JSON, trailing data included.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge { what: "json text", limit: MAX_BYTES });
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Error::ByteOrderMark);
    }
    let text = str::from_utf8(bytes).map_err(|_| Error::NotUtf8)?;
    // serde_json's error type cannot carry ours, so a precise fault travels beside it.
    let fault = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    Strict { depth: 0, fault: &fault }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| fault.take().unwrap_or_else(|| Error::Json(shown(&error.to_string()))))
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
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a json value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.enter()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let place = match map.entry(name) {
                Entry::Vacant(place) => place,
                Entry::Occupied(taken) => {
                    return Err(self.fail(Error::DuplicateMember(shown(taken.key()))));
                }
            };
            place.insert(members.next_value_seed(inner)?);
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.enter()?;
        let mut list = Vec::new();
        while let Some(value) = elements.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests;
