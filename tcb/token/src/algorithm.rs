//! The signature algorithms and their JOSE names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::error::shown;

/// A signature algorithm (RFC 7518, section 3; RFC 9864; RFC 9964).
///
/// Written and read, also by serde, as its JOSE name; names are case-sensitive (RFC 7515, section
/// 4.1.1). `EdDSA` is not a name of any of them: RFC 9864 deprecates it because it does not say the
/// curve. Where configured, [`crate::jws::verify`] takes it for [`Algorithm::Ed25519`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256, signature `r || s` (RFC 7518, section 3.4).
    Es256,
    /// ECDSA on P-384 with SHA-384, signature `r || s` (RFC 7518, section 3.4).
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    Rs256,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 octets (RFC 7518, section 3.5).
    Ps256,
    /// Ed25519 (RFC 8032; name of RFC 9864).
    Ed25519,
    /// ML-DSA-44 with empty context (FIPS 204; RFC 9964).
    MlDsa44,
    /// ML-DSA-65 with empty context (FIPS 204; RFC 9964).
    MlDsa65,
    /// ML-DSA-87 with empty context (FIPS 204; RFC 9964).
    MlDsa87,
}

impl Algorithm {
    /// Every algorithm, in the order of the enum.
    pub const ALL: [Self; 8] = [
        Self::Es256,
        Self::Es384,
        Self::Rs256,
        Self::Ps256,
        Self::Ed25519,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
    ];

    /// The JOSE name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Ed25519 => "Ed25519",
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }

    /// Whether keys are RSA keys, which are slow to generate and vary in size.
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rs256 | Self::Ps256)
    }

    /// The `kty` of this algorithm's keys (RFC 7518, section 6.1; RFC 8037; RFC 9964).
    #[must_use]
    pub const fn kty(self) -> &'static str {
        match self {
            Self::Es256 | Self::Es384 => "EC",
            Self::Rs256 | Self::Ps256 => "RSA",
            Self::Ed25519 => "OKP",
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => "AKP",
        }
    }

    /// Octets of a JWS signature; `None` for RSA, where the modulus decides.
    #[must_use]
    pub const fn signature_len(self) -> Option<usize> {
        match self {
            Self::Es256 | Self::Ed25519 => Some(64),
            Self::Es384 => Some(96),
            Self::Rs256 | Self::Ps256 => None,
            Self::MlDsa44 => Some(2420),
            Self::MlDsa65 => Some(3309),
            Self::MlDsa87 => Some(4627),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownAlgorithm`] for anything but an exact name from [`Algorithm::ALL`].
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or_else(|| Error::UnknownAlgorithm(shown(name)))
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The size of an RSA modulus to generate, in bits. Serde and configuration see the number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub enum RsaBits {
    /// 2048 bits, what relying parties everywhere expect.
    #[default]
    B2048,
    /// 3072 bits.
    B3072,
    /// 4096 bits.
    B4096,
}

impl RsaBits {
    /// The number of bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        match self {
            Self::B2048 => 2048,
            Self::B3072 => 3072,
            Self::B4096 => 4096,
        }
    }
}

impl Serialize for RsaBits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.bits())
    }
}

impl<'de> Deserialize<'de> for RsaBits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = u16::deserialize(deserializer)?;
        [Self::B2048, Self::B3072, Self::B4096]
            .into_iter()
            .find(|size| size.bits() == bits)
            .ok_or_else(|| {
                serde::de::Error::custom(format_args!(
                    "rsa size `{bits}` is not one of 2048, 3072, 4096"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_registry_and_round_trip() {
        let names: Vec<_> = Algorithm::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["ES256", "ES384", "RS256", "PS256", "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]
        );
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            let json = serde_json::to_string(&algorithm).unwrap();
            assert_eq!(json, format!("\"{algorithm}\""));
            assert_eq!(serde_json::from_str::<Algorithm>(&json).unwrap(), algorithm);
        }
    }

    #[test]
    fn only_exact_names_parse() {
        for name in [
            "EdDSA",
            "es256",
            "ES256 ",
            "",
            "none",
            "HS256",
            "ES512",
            "ed25519",
            "ML-DSA-44-ES256",
            "MLDSA44",
        ] {
            assert_eq!(name.parse::<Algorithm>(), Err(Error::UnknownAlgorithm(name.to_owned())));
            assert!(serde_json::from_str::<Algorithm>(&format!("\"{name}\"")).is_err());
        }
    }

    #[test]
    fn rsa_is_told_apart() {
        let rsa: Vec<_> =
            Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_rsa()).collect();
        assert_eq!(rsa, [Algorithm::Rs256, Algorithm::Ps256]);
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.signature_len().is_none(), algorithm.kty() == "RSA");
        }
    }

    #[test]
    fn rsa_sizes_are_numbers() {
        for size in [RsaBits::B2048, RsaBits::B3072, RsaBits::B4096] {
            let json = serde_json::to_string(&size).unwrap();
            assert_eq!(json, size.bits().to_string());
            assert_eq!(serde_json::from_str::<RsaBits>(&json).unwrap(), size);
        }
        for wrong in ["1024", "2049", "8192", "\"2048\"", "2048.0", "-1"] {
            assert!(serde_json::from_str::<RsaBits>(wrong).is_err(), "{wrong}");
        }
    }
}
