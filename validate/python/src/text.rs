//! Tokens from Python: `str` or `bytes`, with whatever may be in them.

use std::borrow::Cow;

use chancery_token::jws::MAX_TOKEN_BYTES;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// The text of `token`. What is not Unicode comes out with replacement characters, so that the
/// judgement rejects it as malformed; what is far too long comes out cut, and still too long.
///
/// # Errors
/// `TypeError` for anything but `str` and `bytes`.
pub fn of<'a>(token: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, str>> {
    if let Ok(text) = token.cast::<PyString>() {
        return Ok(match text.to_str() {
            Ok(text) => Cow::Borrowed(text),
            // Lone surrogates.
            Err(_) => Cow::Owned(text.to_string_lossy().into_owned()),
        });
    }
    if let Ok(bytes) = token.cast::<PyBytes>() {
        let bytes = bytes.as_bytes();
        let bytes = bytes.get(..MAX_TOKEN_BYTES.saturating_add(1)).unwrap_or(bytes);
        return Ok(String::from_utf8_lossy(bytes));
    }
    let name = token.get_type().name()?;
    Err(PyTypeError::new_err(format!("a token is str or bytes, not {name}")))
}
