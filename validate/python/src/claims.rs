//! JSON text to Python objects in one pass: no tree in between, and no second copy of a string.
//!
//! The texts come from judgements, so they are strict JSON already (`chancery_token::json`). The
//! result is what Python's own `json.loads` makes of them, numbers of any size included.

use std::cell::Cell;
use std::fmt;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// From this size on serde_json may have read an integer as a float: 2^63.
const MAYBE_INTEGER_FROM: f64 = 9_223_372_036_854_775_808.0;

/// The Python object that `json` describes.
///
/// # Errors
/// What Python raised, which is `MemoryError` in practice; `ValueError` if `json` is not JSON.
pub fn to_python<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyAny>> {
    let fault = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(json);
    let seed = Seed { py, fault: &fault };
    let read = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.or_else(|_| match fault.take() {
        Some(Fault::Raised(error)) => Err(error),
        // Python reads what is beyond serde_json's numbers, and says best what is not JSON.
        Some(Fault::Inexact) | None => loads(py, json),
    })
}

/// The claims of a token as a `dict`.
///
/// # Errors
/// Those of [`to_python`].
pub fn to_dict<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyDict>> {
    Ok(to_python(py, json)?.cast_into::<PyDict>()?)
}

fn loads<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "json", "loads")?.call1((json,))
}

/// Why the one pass was given up.
enum Fault {
    /// Python raised something.
    Raised(PyErr),
    /// A number may be an integer that a float does not hold.
    Inexact,
}

#[derive(Clone, Copy)]
struct Seed<'py, 'f> {
    py: Python<'py>,
    fault: &'f Cell<Option<Fault>>,
}

impl<'py> Seed<'py, '_> {
    fn raised<T, E: serde::de::Error>(&self, result: PyResult<T>) -> Result<T, E> {
        result.map_err(|error| {
            self.fault.set(Some(Fault::Raised(error)));
            E::custom("python raised an error")
        })
    }

    fn int<E: serde::de::Error>(
        &self,
        value: impl IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>, Error: Into<PyErr>>,
    ) -> Result<Bound<'py, PyAny>, E> {
        self.raised(value.into_pyobject(self.py).map_err(Into::into)).map(Bound::into_any)
    }
}

impl<'de, 'py> DeserializeSeed<'de> for Seed<'py, '_> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de, 'py> Visitor<'de> for Seed<'py, '_> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.py.None().into_bound(self.py))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(PyBool::new(self.py, value).to_owned().into_any())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.int(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.int(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        // Integers beyond 64 bits arrive here, and `-0`, which Python reads as the integer 0.
        if value.abs() >= MAYBE_INTEGER_FROM || (value == 0.0 && value.is_sign_negative()) {
            self.fault.set(Some(Fault::Inexact));
            return Err(E::custom("a number that only python reads exactly"));
        }
        Ok(PyFloat::new(self.py, value).into_any())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(PyString::new(self.py, value).into_any())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let list = PyList::empty(self.py);
        while let Some(item) = items.next_element_seed(self)? {
            self.raised(list.append(item))?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let dict = PyDict::new(self.py);
        while let Some(name) = members.next_key_seed(Name(self.py))? {
            let value = members.next_value_seed(self)?;
            self.raised(dict.set_item(name, value))?;
        }
        Ok(dict.into_any())
    }
}

/// A member's name. Those of RFC 7519, RFC 9068, OpenID Connect and Chancery are made once and
/// shared; others are not kept, or whoever invents names would fill the memory with them.
struct Name<'py>(Python<'py>);

impl<'de, 'py> DeserializeSeed<'de> for Name<'py> {
    type Value = Bound<'py, PyString>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

macro_rules! shared {
    ($py:expr, $name:expr, [$($known:literal),+ $(,)?]) => {
        match $name {
            $($known => intern!($py, $known).clone(),)+
            other => PyString::new($py, other),
        }
    };
}

impl<'de, 'py> Visitor<'de> for Name<'py> {
    type Value = Bound<'py, PyString>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(shared!(
            self.0,
            name,
            [
                "acr",
                "act",
                "amr",
                "appid",
                "appidacr",
                "aud",
                "auth_time",
                "azp",
                "azpacr",
                "client_id",
                "cnf",
                "email",
                "email_verified",
                "entitlements",
                "exp",
                "groups",
                "iat",
                "idtyp",
                "iss",
                "jkt",
                "jti",
                "name",
                "nbf",
                "nonce",
                "oid",
                "preferred_username",
                "roles",
                "scope",
                "scp",
                "sid",
                "sub",
                "tid",
                "upn",
                "uti",
                "ver",
            ]
        ))
    }
}
