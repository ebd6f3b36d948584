//! base64url without padding (RFC 4648, section 5; RFC 7515, section 2), canonical spelling only.
//!
//! One byte string has one spelling. A decoder that tolerates padding, whitespace or non-zero
//! trailing bits gives a signed token several spellings, and everything that is keyed by a token's
//! text (caches, replay memory, the log) then sees several tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Error;

/// The base64url text of `bytes`, without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Appends the base64url text of `bytes` to `text`.
pub fn append(bytes: &[u8], text: &mut String) {
    URL_SAFE_NO_PAD.encode_string(bytes, text);
}

/// The bytes of canonical base64url `text`.
///
/// # Errors
/// [`Error::Base64`] for padding, whitespace, characters outside the URL alphabet, an impossible
/// length, or trailing bits that are not zero.
pub fn decode(text: &str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Base64)
}

/// The `N` bytes of canonical base64url `text`.
///
/// # Errors
/// [`Error::Base64`] as for [`decode`], and for any other number of bytes.
pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(length) if length == N => Ok(bytes),
        _ => Err(Error::Base64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vectors_of_rfc_7515() {
        // RFC 7515, appendix C.
        assert_eq!(encode(&[3, 236, 255, 224, 193]), "A-z_4ME");
        assert_eq!(decode("A-z_4ME"), Ok(vec![3, 236, 255, 224, 193]));
        assert_eq!(decode(""), Ok(vec![]));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "A-z_4ME=",
            "A-z_4ME\n",
            " A-z_4ME",
            "A-z_ 4ME",
            "A+z/4ME",
            "A-z_4MF",
            "A",
            "AAAAA",
            "AB",
            "A=",
            "====",
            "A-z?4ME",
            "Ä-z_4ME",
            "AA\0A",
        ] {
            assert_eq!(decode(text), Err(Error::Base64), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }

        #[test]
        fn arrays_decode_as_texts_do(text in "[A-Za-z0-9_-]{20,24}=?") {
            let bytes = decode(&text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            prop_assert_eq!(decode_array::<16>(&text).ok(), bytes);
        }

        #[test]
        fn whatever_decodes_is_the_one_spelling(text in "[A-Za-z0-9_-]{0,12}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
