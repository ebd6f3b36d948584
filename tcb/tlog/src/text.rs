//! The spellings that all C2SP texts share: canonical standard base64 and plain decimals.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::hash::Hash;

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Standard base64 (RFC 4648 section 4) with padding. The engine refuses other alphabets, missing
/// padding and set trailing bits, so that every value has exactly one spelling.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(crate) fn hash_from_base64(text: &str) -> Option<Hash> {
    from_base64(text)?.try_into().ok().map(Hash)
}

/// An ASCII decimal without sign and without leading zeroes, unless it is `0`.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if !digits || padded { None } else { text.parse().ok() }
}

/// Control characters below U+0020 other than the newline, which no note may hold.
pub(crate) fn has_controls(text: &str) -> bool {
    text.bytes().any(|b| b < 0x20 && b != b'\n')
}
