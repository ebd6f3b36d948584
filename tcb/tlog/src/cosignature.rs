//! Cosignatures: a key's statement about a checkpoint, made at a time (c2sp.org/tlog-cosignature).
//!
//! Witnesses cosign other people's checkpoints; a log may sign its own ones in this form, too. Two
//! types of keys do so, and what they cover differs:
//!
//! | | Ed25519 (0x04) | ML-DSA-44 (0x06) |
//! |---|---|---|
//! | time, origin, size, root | covered | covered |
//! | name of the cosigner | not covered: one key, one cosigner | covered, at most 255 bytes |
//! | extension lines of the checkpoint | covered | not covered: nothing is said about them |
//! | length of the origin | any | at most 255 bytes |
//! | timestamp 0 | read, never made here | no statement about the time |
//!
//! A cosignature at a time says that the cosigner had seen no larger tree of this log by then. One by
//! ML-DSA-44 at time 0 only says that the tree is consistent with all that the cosigner has seen.
//! Witnesses must not answer with time 0 ([`crate::witness`] checks it).
//!
//! The type for subtrees that do not begin at 0 is not read: no checkpoint represents them.

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::hash::Hash;
use crate::note::{KeyType, Signature, VerifierKey};

/// The largest timestamp that the specification allows, in seconds since 1970.
pub const MAX_TIMESTAMP: u64 = i64::MAX as u64;

/// Bytes of the time that stands before the signature.
pub(crate) const TIMESTAMP_BYTES: usize = 8;

/// The first bytes of what ML-DSA-44 signs (`label` of `cosigned_message`).
const SUBTREE_LABEL: &[u8; 12] = b"subtree/v1\n\0";

/// The bytes that `key` signs to cosign, at `timestamp`, the checkpoint whose note text is `text`.
///
/// Fails with [`Error::KeyType`] unless `key` is a cosigner's, [`Error::Timestamp`],
/// [`Error::Checkpoint`] or [`Error::TreeSize`] when `text` is no checkpoint, and, for ML-DSA-44,
/// [`Error::CosignedLength`] when the origin is longer than 255 bytes.
pub fn message(key: &VerifierKey, timestamp: u64, text: &str) -> Result<Vec<u8>, Error> {
    if timestamp > MAX_TIMESTAMP {
        return Err(Error::Timestamp(timestamp));
    }
    let checkpoint = Checkpoint::parse_claim(text)?;
    match key.key_type() {
        KeyType::Ed25519 => Err(Error::KeyType(key.key_type().byte())),
        KeyType::Ed25519Cosignature => {
            Ok(format!("cosignature/v1\ntime {timestamp}\n{text}").into_bytes())
        }
        KeyType::MlDsa44Cosignature => {
            let leaves = (0, checkpoint.size);
            subtree_message(key.name(), timestamp, &checkpoint.origin, leaves, &checkpoint.root)
        }
    }
}

/// Cosigns the checkpoint with the note text `text`; [`Note::insert`](crate::note::Note::insert) takes
/// the result. `sign` gets [`message`] and returns the signature: 64 bytes for Ed25519, 2,420 for
/// ML-DSA-44 with an empty context.
///
/// Fails as [`message`] does, with [`Error::NoTimestamp`] for an Ed25519 cosignature at time 0, or
/// with [`Error::SignatureBytes`].
pub fn sign(
    key: &VerifierKey,
    timestamp: u64,
    text: &str,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<Signature, Error> {
    let message = message(key, timestamp, text)?;
    if timestamp == 0 && key.key_type() == KeyType::Ed25519Cosignature {
        return Err(Error::NoTimestamp { name: key.name().to_owned() });
    }
    let raw = sign(&message);
    let want = key.raw_signature_bytes();
    if raw.len() != want {
        return Err(Error::SignatureBytes { name: key.name().to_owned(), want, got: raw.len() });
    }
    let bytes = [timestamp.to_be_bytes().as_slice(), &raw].concat();
    Ok(Signature { name: key.name().to_owned(), key_id: key.key_id(), bytes })
}

/// Checks that `signature` (the bytes after the key id) is a cosignature by `key` of the checkpoint
/// with the note text `text`, and answers its timestamp in seconds since 1970.
///
/// Fails as [`message`] does, or with [`Error::BadSignature`].
pub fn verify(key: &VerifierKey, text: &str, signature: &[u8]) -> Result<u64, Error> {
    let bad = || Error::BadSignature { name: key.name().to_owned() };
    let (time, raw) = signature.split_first_chunk::<TIMESTAMP_BYTES>().ok_or_else(bad)?;
    let timestamp = u64::from_be_bytes(*time);
    let message = message(key, timestamp, text)?;
    let signed = raw.len() == key.raw_signature_bytes() && key.signed(&message, raw);
    if signed { Ok(timestamp) } else { Err(bad()) }
}

/// The time that a cosignature claims; true only once it has been verified. 0 for signatures that are
/// too short to have one.
pub(crate) fn timestamp(signature: &Signature) -> u64 {
    let time = signature.bytes.first_chunk::<TIMESTAMP_BYTES>();
    time.map_or(0, |time| u64::from_be_bytes(*time))
}

/// `cosigned_message` for the leaves from `leaves.0` up to, not including, `leaves.1`.
pub(crate) fn subtree_message(
    cosigner: &str,
    timestamp: u64,
    origin: &str,
    leaves: (u64, u64),
    root: &Hash,
) -> Result<Vec<u8>, Error> {
    let mut message = SUBTREE_LABEL.to_vec();
    message.push(check_covered("the cosigner's name", cosigner)?);
    message.extend_from_slice(cosigner.as_bytes());
    message.extend_from_slice(&timestamp.to_be_bytes());
    message.push(check_covered("the checkpoint's origin", origin)?);
    message.extend_from_slice(origin.as_bytes());
    message.extend_from_slice(&leaves.0.to_be_bytes());
    message.extend_from_slice(&leaves.1.to_be_bytes());
    message.extend_from_slice(&root.0);
    Ok(message)
}

/// The length of a name as one byte, the prefix that the message gives it.
pub(crate) fn check_covered(what: &'static str, name: &str) -> Result<u8, Error> {
    u8::try_from(name.len()).map_err(|_| Error::CosignedLength { what, bytes: name.len() })
}
