//! Verifier keys (c2sp.org/signed-note, "Verifier keys").

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::{KEY_ID_BYTES, Signature, is_key_name};
use crate::error::{Error, excerpt};
use crate::hash::sha256;
use crate::text::{from_base64, to_base64};

/// The longest verifier key that is read: an ML-DSA-44 key has 1,752 characters of base64, and the
/// rest is room for a name.
const MAX_VKEY_BYTES: usize = 4096;

/// Bytes of an Ed25519 signature (RFC 8032 section 5.1.6).
const ED25519_SIGNATURE_BYTES: usize = 64;

/// The signature types that are recognised (c2sp.org/signed-note, "Signature types").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyType {
    /// 0x01: Ed25519 over the note's text.
    Ed25519,
    /// 0x04: an Ed25519 witness cosignature with its time. Recognised; its signatures count as those
    /// of an unknown key.
    Ed25519Cosignature,
    /// 0x06: an ML-DSA-44 cosignature. Recognised; its signatures count as those of an unknown key.
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

    /// Reads a verifier key's text form.
    ///
    /// Fails with [`Error::VerifierKey`], [`Error::KeyName`], or [`Error::KeyType`] for types that
    /// [`KeyType`] does not list.
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

    /// Whether `signature` is this key's over `text`. Always false for types whose signatures this
    /// crate does not verify.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        match self.key_type {
            KeyType::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, &self.public_key).verify(text, signature).is_ok()
            }
            KeyType::Ed25519Cosignature | KeyType::MlDsa44Cosignature => false,
        }
    }

    /// Bytes of a signature by this key, for types that this crate verifies.
    pub(super) fn signature_bytes(&self) -> Option<usize> {
        match self.key_type {
            KeyType::Ed25519 => Some(ED25519_SIGNATURE_BYTES),
            KeyType::Ed25519Cosignature | KeyType::MlDsa44Cosignature => None,
        }
    }

    /// Whether a signature line claims to be by this key.
    pub(super) fn made(&self, signature: &Signature) -> bool {
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
