//! Private keys that cannot leave the process.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING,
    ML_DSA_87_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair, RsaSignatureEncoding,
};

use crate::public::Material;
use crate::{Algorithm, Error, PublicKey, RsaBits};

/// A private key for one algorithm.
///
/// INVARIANT I1: nothing exports it; there is no method, no `Clone` and no serialization, and
/// `Debug` shows the key id only. The library wipes the private half when the value is dropped.
///
/// A signature costs what the library's own costs: the key pair is built once, and so is the
/// handle to the system's random numbers.
pub struct SigningKey {
    public: PublicKey,
    pair: Pair,
    random: SystemRandom,
}

/// The library's key pair, with what the library wants to hear again at each signature.
pub(crate) enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa { pair: RsaKeyPair, encoding: &'static RsaSignatureEncoding, modulus_len: usize },
    MlDsa(PqdsaKeyPair),
}

impl SigningKey {
    /// Generates a key from the system's random numbers. `rsa_bits` counts for RSA only, where the
    /// search for primes takes tens of milliseconds to seconds.
    ///
    /// # Errors
    /// [`Error::Generate`] if the library cannot.
    pub fn generate(algorithm: Algorithm, rsa_bits: RsaBits) -> Result<Self, Error> {
        Self::from_pair(algorithm, Pair::generate(algorithm, rsa_bits)?)
    }

    /// Takes a pair over; its public half passes the same gate as any stranger's key.
    pub(crate) fn from_pair(algorithm: Algorithm, pair: Pair) -> Result<Self, Error> {
        let public = PublicKey::new(algorithm, pair.public_material(algorithm)?, false)?;
        Ok(Self { public, pair, random: SystemRandom::new() })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message`; the signature is in JWS form (`r || s` for ECDSA).
    ///
    /// # Errors
    /// [`Error::Sign`] if the library cannot.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::Sign(self.public.algorithm());
        match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&self.random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(failed),
            Pair::Ed25519(pair) => {
                pair.try_sign(message).map(|signature| signature.as_ref().to_vec()).map_err(failed)
            }
            Pair::Rsa { pair, encoding, modulus_len } => {
                let mut signature = vec![0; *modulus_len];
                pair.sign(*encoding, &self.random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Pair::MlDsa(pair) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                pair.sign(message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.public.kid())
    }
}

impl Pair {
    pub(crate) fn generate(algorithm: Algorithm, rsa_bits: RsaBits) -> Result<Self, Error> {
        match Scheme::of(algorithm) {
            Scheme::Ecdsa(scheme) => EcdsaKeyPair::generate(scheme).map(Self::Ecdsa),
            Scheme::Ed25519 => Ed25519KeyPair::generate().map(Self::Ed25519),
            Scheme::Rsa(encoding) => {
                RsaKeyPair::generate(key_size(rsa_bits)).map(|pair| Self::rsa(pair, encoding))
            }
            Scheme::MlDsa(scheme) => PqdsaKeyPair::generate(scheme).map(Self::MlDsa),
        }
        .map_err(|_| Error::Generate(algorithm))
    }

    /// Reads an unencrypted PKCS#8 document (RFC 5958); `None` if it is not a key for `algorithm`.
    pub(crate) fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Option<Self> {
        match Scheme::of(algorithm) {
            Scheme::Ecdsa(scheme) => EcdsaKeyPair::from_pkcs8(scheme, der).map(Self::Ecdsa),
            Scheme::Ed25519 => Ed25519KeyPair::from_pkcs8(der).map(Self::Ed25519),
            Scheme::Rsa(encoding) => {
                RsaKeyPair::from_pkcs8(der).map(|pair| Self::rsa(pair, encoding))
            }
            Scheme::MlDsa(scheme) => PqdsaKeyPair::from_pkcs8(scheme, der).map(Self::MlDsa),
        }
        .ok()
    }

    fn rsa(pair: RsaKeyPair, encoding: &'static RsaSignatureEncoding) -> Self {
        let modulus_len = pair.public_modulus_len();
        Self::Rsa { pair, encoding, modulus_len }
    }

    fn public_material(&self, algorithm: Algorithm) -> Result<Material, Error> {
        match self {
            Self::Ecdsa(pair) => Material::from_raw(algorithm, pair.public_key().as_ref()),
            Self::Ed25519(pair) => Material::from_raw(algorithm, pair.public_key().as_ref()),
            Self::MlDsa(pair) => Material::from_raw(algorithm, pair.public_key().as_ref()),
            Self::Rsa { pair, .. } => {
                let (n, e) = rsa_components(pair.public_key().as_ref())
                    .ok_or(Error::InvalidKey(algorithm))?;
                Ok(Material::Rsa { n: n.to_vec(), e: e.to_vec() })
            }
        }
    }
}

/// The library's parameters of an algorithm.
enum Scheme {
    Ecdsa(&'static EcdsaSigningAlgorithm),
    Ed25519,
    Rsa(&'static RsaSignatureEncoding),
    MlDsa(&'static PqdsaSigningAlgorithm),
}

impl Scheme {
    fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::Ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => Self::Ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Ed25519 => Self::Ed25519,
            Algorithm::Rs256 => Self::Rsa(&RSA_PKCS1_SHA256),
            Algorithm::Ps256 => Self::Rsa(&RSA_PSS_SHA256),
            Algorithm::MlDsa44 => Self::MlDsa(&ML_DSA_44_SIGNING),
            Algorithm::MlDsa65 => Self::MlDsa(&ML_DSA_65_SIGNING),
            Algorithm::MlDsa87 => Self::MlDsa(&ML_DSA_87_SIGNING),
        }
    }
}

fn key_size(bits: RsaBits) -> KeySize {
    match bits {
        RsaBits::B2048 => KeySize::Rsa2048,
        RsaBits::B3072 => KeySize::Rsa3072,
        RsaBits::B4096 => KeySize::Rsa4096,
    }
}

/// Modulus and exponent of a DER `RSAPublicKey` (RFC 8017, appendix A.1.1), without leading zeros.
///
/// The library hands its own public keys out in no other form; nothing else is ever read here.
fn rsa_components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let (body, []) = der_element(SEQUENCE, der)? else { return None };
    let (n, rest) = der_element(INTEGER, body)?;
    let (e, []) = der_element(INTEGER, rest)? else { return None };
    Some((n.strip_prefix(&[0]).unwrap_or(n), e.strip_prefix(&[0]).unwrap_or(e)))
}

/// The contents of the DER element with `tag` at the start of `input`, and what follows it.
fn der_element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    /// Octets of a long-form length; two reach far beyond the largest RSA key.
    const MAX_LENGTH_OCTETS: usize = 2;
    let (found, rest) = input.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(*first & 0x7f);
        if count == 0 || count > MAX_LENGTH_OCTETS {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit)), rest)
    };
    if *found == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests;
