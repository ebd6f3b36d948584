//! Verifier keys (c2sp.org/signed-note, "Verifier keys").

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, ML_DSA_44, UnparsedPublicKey};

use super::{KEY_ID_BYTES, Signature, is_key_name};
use crate::cosignature::{self, TIMESTAMP_BYTES};
use crate::error::{Error, excerpt};
use crate::hash::sha256;
use crate::text::{from_base64, to_base64};

/// The longest verifier key that is read: an ML-DSA-44 key has 1,752 characters of base64, and the
/// rest is room for a name.
const MAX_VKEY_BYTES: usize = 4096;

/// Bytes of an Ed25519 signature (RFC 8032 section 5.1.6).
const ED25519_SIGNATURE_BYTES: usize = 64;

/// Bytes of an ML-DSA-44 signature (FIPS 204 section 4, table 2).
const ML_DSA_44_SIGNATURE_BYTES: usize = 2420;

/// The signature types that are known (c2sp.org/signed-note, "Signature types").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyType {
    /// 0x01: Ed25519 over the note's text.
    Ed25519,
    /// 0x04: Ed25519 over a time and a checkpoint's text, see [`cosignature`].
    Ed25519Cosignature,
    /// 0x06: ML-DSA-44 over a time and a checkpoint's tree, see [`cosignature`].
    MlDsa44Cosignature,
}

impl KeyType {
    /// The type's identifier byte.
    pub fn byte(self) -> u8 {
        match self {
            KeyType::Ed25519 => 0x01,
            KeyType::Ed25519Cosignature => 0x04,
            KeyType::MlDsa44Cosignature => 0x06,
        }
    }

    fn from_byte(byte: u8) -> Option<KeyType> {
        [KeyType::Ed25519, KeyType::Ed25519Cosignature, KeyType::MlDsa44Cosignature]
            .into_iter()
            .find(|t| t.byte() == byte)
    }

    /// Whether keys of this type sign checkpoints at a time, as [`cosignature`] describes.
    pub fn is_cosignature(self) -> bool {
        match self {
            KeyType::Ed25519 => false,
            KeyType::Ed25519Cosignature | KeyType::MlDsa44Cosignature => true,
        }
    }

    fn public_key_bytes(self) -> usize {
        match self {
            KeyType::Ed25519 | KeyType::Ed25519Cosignature => 32,
            KeyType::MlDsa44Cosignature => 1312,
        }
    }
}

/// A named public key. `Display` and `FromStr` use the text form `name+hex key id+base64 of type and
/// public key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_id: [u8; KEY_ID_BYTES],
    key_type: KeyType,
    public_key: Vec<u8>,
}

impl VerifierKey {
    /// The Ed25519 key of type 0x01 with this name; [`Error::KeyName`] when the name is not one.
    pub fn new_ed25519(name: &str, public_key: &[u8; 32]) -> Result<VerifierKey, Error> {
        VerifierKey::new(name, KeyType::Ed25519, public_key)
    }

    /// The Ed25519 cosigner's key of type 0x04 with this name. The name is not signed, so each cosigner
    /// needs a key of its own. Fails with [`Error::KeyName`].
    pub fn new_ed25519_cosigner(name: &str, public_key: &[u8; 32]) -> Result<VerifierKey, Error> {
        VerifierKey::new(name, KeyType::Ed25519Cosignature, public_key)
    }

    /// The ML-DSA-44 cosigner's key of type 0x06 with this name; `public_key` as FIPS 204 encodes it.
    /// Fails with [`Error::KeyName`], or [`Error::CosignedLength`] for names above 255 bytes.
    pub fn new_ml_dsa_44_cosigner(
        name: &str,
        public_key: &[u8; 1312],
    ) -> Result<VerifierKey, Error> {
        VerifierKey::new(name, KeyType::MlDsa44Cosignature, public_key)
    }

    /// Reads a verifier key's text form.
    ///
    /// Fails with [`Error::VerifierKey`], [`Error::KeyName`], [`Error::CosignedLength`], or
    /// [`Error::KeyType`] for types that [`KeyType`] does not list.
    pub fn parse(vkey: &str) -> Result<VerifierKey, Error> {
        if vkey.len() > MAX_VKEY_BYTES {
            return Err(Error::VerifierKey("it is longer than 4096 bytes"));
        }
        // Base64 may hold `+`, names and hex cannot.
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(hex), Some(base64)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::VerifierKey("it has fewer than three parts"));
        };
        let key_id = parse_hex_id(hex).ok_or(Error::VerifierKey("its id is not 8 hex digits"))?;
        let decoded =
            from_base64(base64).ok_or(Error::VerifierKey("its key is not canonical base64"))?;
        let (type_byte, public_key) =
            decoded.split_first().ok_or(Error::VerifierKey("its key is empty"))?;
        let key_type = KeyType::from_byte(*type_byte).ok_or(Error::KeyType(*type_byte))?;
        let key = VerifierKey::new(name, key_type, public_key)?;
        if key.key_id != key_id {
            return Err(Error::VerifierKey("its id is not that of its name and key"));
        }
        Ok(key)
    }

    fn new(name: &str, key_type: KeyType, public_key: &[u8]) -> Result<VerifierKey, Error> {
        if !is_key_name(name) {
            return Err(Error::KeyName(excerpt(name)));
        }
        if public_key.len() != key_type.public_key_bytes() {
            return Err(Error::VerifierKey("its key does not have the length of its type"));
        }
        if key_type == KeyType::MlDsa44Cosignature {
            cosignature::check_covered("the cosigner's name", name)?;
        }
        let identified = [name.as_bytes(), b"\n", &[key_type.byte()], public_key].concat();
        let [a, b, c, d, ..] = sha256(&identified).0;
        Ok(VerifierKey {
            name: name.to_owned(),
            key_id: [a, b, c, d],
            key_type,
            public_key: public_key.to_vec(),
        })
    }

    /// The key's name: for a log's key the checkpoint origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of `SHA-256(name || 0x0A || type || public key)`.
    pub fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// The kind of signature that this key makes.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The public key without its type byte: 32 bytes for Ed25519, 1,312 for ML-DSA-44.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Whether `signature` is this key's over `text`; of a cosigner's key, whether it is a cosignature
    /// of the checkpoint `text`.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        str::from_utf8(text).is_ok_and(|text| self.check(text, signature).is_ok())
    }

    /// Checks this key's signature over a note's text and answers the time of a cosignature.
    pub(super) fn check(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, Error> {
        if self.key_type.is_cosignature() {
            cosignature::verify(self, text, signature).map(Some)
        } else if self.signed(text.as_bytes(), signature) {
            Ok(None)
        } else {
            Err(Error::BadSignature { name: self.name.clone() })
        }
    }

    /// Whether `raw` is a signature by this key, without what its type adds, over exactly `message`.
    pub(crate) fn signed(&self, message: &[u8], raw: &[u8]) -> bool {
        let verified = match self.key_type {
            KeyType::Ed25519 | KeyType::Ed25519Cosignature => {
                UnparsedPublicKey::new(&ED25519, &self.public_key).verify(message, raw)
            }
            KeyType::MlDsa44Cosignature => {
                UnparsedPublicKey::new(&ML_DSA_44, &self.public_key).verify(message, raw)
            }
        };
        verified.is_ok()
    }

    /// Bytes of a signature by this key's algorithm alone.
    pub(crate) fn raw_signature_bytes(&self) -> usize {
        match self.key_type {
            KeyType::Ed25519 | KeyType::Ed25519Cosignature => ED25519_SIGNATURE_BYTES,
            KeyType::MlDsa44Cosignature => ML_DSA_44_SIGNATURE_BYTES,
        }
    }

    /// Bytes of a signature on a note, after the key id: 64, 72 or 2,428.
    pub fn signature_bytes(&self) -> usize {
        let time = if self.key_type.is_cosignature() { TIMESTAMP_BYTES } else { 0 };
        time.saturating_add(self.raw_signature_bytes())
    }

    /// Whether a signature line claims to be by this key.
    pub(crate) fn made(&self, signature: &Signature) -> bool {
        self.key_id == signature.key_id && self.name == signature.name
    }

    /// Whether signature lines cannot tell this key from another one.
    pub(super) fn is_confusable_with(&self, other: &VerifierKey) -> bool {
        self.key_id == other.key_id && self.name == other.name && self != other
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.key_id);
        let key = [&[self.key_type.byte()], self.public_key.as_slice()].concat();
        write!(f, "{}+{id:08x}+{}", self.name, to_base64(&key))
    }
}

impl FromStr for VerifierKey {
    type Err = Error;

    fn from_str(vkey: &str) -> Result<VerifierKey, Error> {
        VerifierKey::parse(vkey)
    }
}

/// Eight hexadecimal digits of either case, as other implementations accept them.
fn parse_hex_id(hex: &str) -> Option<[u8; KEY_ID_BYTES]> {
    if hex.len() != 2 * KEY_ID_BYTES || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(u32::from_str_radix(hex, 16).ok()?.to_be_bytes())
}
