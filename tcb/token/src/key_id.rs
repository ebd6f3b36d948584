//! Key ids: RFC 7638 thumbprints.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::shown;
use crate::{Error, b64};

/// The RFC 7638 thumbprint (SHA-256) of a public key: the `kid` of every key that Chancery makes.
///
/// Its text, also for serde, is 43 characters of canonical base64url. It names key material, not a
/// use: an RSA key has the same thumbprint under RS256 and PS256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 32]);

impl KeyId {
    /// A key id from the octets of a thumbprint that is known already.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The thumbprint of a canonical JWK (RFC 7638, section 3).
    pub(crate) fn of_canonical_jwk(json: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, json.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&b64::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = Error;

    /// # Errors
    /// [`Error::KeyId`] for anything but 43 characters of canonical base64url.
    fn from_str(text: &str) -> Result<Self, Error> {
        b64::decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| Error::KeyId(shown(text)))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_round_trips(bytes in any::<[u8; 32]>()) {
            let kid = KeyId::from_bytes(bytes);
            let text = kid.to_string();
            prop_assert_eq!(text.len(), 43);
            prop_assert_eq!(text.parse::<KeyId>(), Ok(kid));
            prop_assert_eq!(kid.as_bytes(), &bytes);
            let json = serde_json::to_string(&kid).unwrap();
            prop_assert_eq!(serde_json::from_str::<KeyId>(&json).unwrap(), kid);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let good = KeyId::from_bytes([7; 32]).to_string();
        let short = good.get(..42).unwrap();
        for text in [
            "",
            short,
            &format!("{good}A"),
            &format!("{good}="),
            &format!("{short}B"),
            &format!(" {short}"),
        ] {
            assert_eq!(text.parse::<KeyId>(), Err(Error::KeyId(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn debug_is_the_text() {
        assert_eq!(
            format!("{:?}", KeyId::from_bytes([0; 32])),
            format!("KeyId({})", "A".repeat(43))
        );
    }
}
