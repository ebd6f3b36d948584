//! Keys of clients, which live in files: for clients, the demo client and tests.
//!
//! The signer never uses this module for its own keys. A [`ClientKey`] keeps its PKCS#8 document
//! beside the key; a [`SigningKey`] alone cannot be exported.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::signing::Pair;
use crate::{Algorithm, Error, RsaBits, SigningKey};

/// Bytes of a PEM file: an RSA-4096 key takes about 3300; the rest is room for line ends.
pub const MAX_PEM_BYTES: usize = 8 * 1024;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Characters in a line of PEM (RFC 7468, section 2).
const LINE_CHARS: usize = 64;

/// The order in which a file's algorithm is guessed. Each reader refuses the others' keys; an RSA
/// key fits two algorithms and is taken for RS256.
const GUESSES: [Algorithm; 7] = [
    Algorithm::Es256,
    Algorithm::Ed25519,
    Algorithm::Es384,
    Algorithm::Rs256,
    Algorithm::MlDsa44,
    Algorithm::MlDsa65,
    Algorithm::MlDsa87,
];

/// A client's private key together with the document that a file holds.
pub struct ClientKey {
    key: SigningKey,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl ClientKey {
    /// Generates a key; RSA keys have 2048 bits.
    ///
    /// # Errors
    /// [`Error::Generate`] if the library cannot.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        let pair = Pair::generate(algorithm, RsaBits::B2048)?;
        let pkcs8 = export(&pair).ok_or(Error::Generate(algorithm))?;
        Ok(Self { key: SigningKey::from_pair(algorithm, pair)?, pkcs8 })
    }

    /// Reads an unencrypted PKCS#8 PEM file and finds the algorithm out; RSA means RS256.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Pem`], [`Error::Pkcs8`], and for RSA keys of a refused size or
    /// exponent [`Error::RsaModulus`] and [`Error::RsaExponent`].
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, Error> {
        Self::read(pem, &GUESSES)
    }

    /// Reads an unencrypted PKCS#8 PEM file that must hold a key for `algorithm`.
    ///
    /// # Errors
    /// Those of [`ClientKey::from_pkcs8_pem`].
    pub fn from_pkcs8_pem_as(pem: &str, algorithm: Algorithm) -> Result<Self, Error> {
        Self::read(pem, &[algorithm])
    }

    fn read(pem: &str, candidates: &[Algorithm]) -> Result<Self, Error> {
        let pkcs8 = decode_pem(pem)?;
        let (algorithm, pair) = candidates
            .iter()
            .find_map(|algorithm| Some((*algorithm, Pair::from_pkcs8(*algorithm, &pkcs8)?)))
            .ok_or(Error::Pkcs8)?;
        Ok(Self { key: SigningKey::from_pair(algorithm, pair)?, pkcs8 })
    }

    /// The key as PKCS#8 PEM, which OpenSSL and other tools read. The text is wiped when dropped;
    /// write it to a file that only its owner can read.
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        encode_pem(&self.pkcs8)
    }

    /// The key to sign with.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientKey({})", self.key.public().kid())
    }
}

/// The pair as PKCS#8, version 1, which is what older readers of Ed25519 keys know.
fn export(pair: &Pair) -> Option<Zeroizing<Vec<u8>>> {
    let document = match pair {
        Pair::Ecdsa(pair) => pair.to_pkcs8v1().ok()?.as_ref().to_vec(),
        Pair::Ed25519(pair) => pair.to_pkcs8v1().ok()?.as_ref().to_vec(),
        Pair::MlDsa(pair) => pair.to_pkcs8v1().ok()?.as_ref().to_vec(),
        Pair::Rsa { pair, .. } => {
            AsDer::<Pkcs8V1Der<'static>>::as_der(pair).ok()?.as_ref().to_vec()
        }
    };
    Some(Zeroizing::new(document))
}

fn encode_pem(der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Room for everything, so that no reallocation leaves a copy behind.
    let lines = body.len().div_ceil(LINE_CHARS).saturating_add(2);
    let room =
        [body.len(), lines, BEGIN.len(), END.len()].into_iter().fold(0, usize::saturating_add);
    let mut pem = Zeroizing::new(String::with_capacity(room));
    pem.push_str(BEGIN);
    for (at, character) in body.chars().enumerate() {
        if at.is_multiple_of(LINE_CHARS) {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push('\n');
    pem.push_str(END);
    pem.push('\n');
    pem
}

/// The contents of the one PEM block in `pem`. Nothing but whitespace may surround it, so that a
/// file with two keys is not read as either.
fn decode_pem(pem: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(Error::TooLarge { what: "pem file", limit: MAX_PEM_BYTES });
    }
    let block =
        pem.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(Error::Pem)?;
    let mut body = Zeroizing::new(String::with_capacity(block.len()));
    body.extend(block.chars().filter(|character| !matches!(character, '\n' | '\r')));
    STANDARD.decode(body.as_bytes()).map(Zeroizing::new).map_err(|_| Error::Pem)
}

#[cfg(test)]
mod tests;
