//! The hash functions of the tree (RFC 6962 section 2.1).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, digest};

use crate::error::Error;
use crate::text;

/// Bytes of a [`struct@Hash`]: SHA-256.
pub const HASH_BYTES: usize = 32;

/// The largest tree: sizes are signed 64-bit integers in the reference implementations, and with one
/// bit to spare no sum of sizes in this crate can overflow.
pub const MAX_TREE_SIZE: u64 = i64::MAX as u64;

/// Domain separation of leaves and inner nodes (RFC 6962 section 2.1).
const LEAF_PREFIX: u8 = 0x00;
const NODE_PREFIX: u8 = 0x01;

/// Entries up to here are hashed in one call from the stack, which is quicker than a hash context.
/// Entries that describe tokens have some 150 bytes.
const ONE_SHOT_ENTRY_BYTES: usize = 511;

/// A SHA-256 value: a leaf, an inner node or a root. `Display` and `FromStr` use standard base64 in
/// its one canonical spelling, as checkpoints and proofs do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

/// The hash of a leaf: `SHA-256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut buffer = [LEAF_PREFIX; 1 + ONE_SHOT_ENTRY_BYTES];
    if let Some([_, message @ ..]) = buffer.get_mut(..=entry.len()) {
        message.copy_from_slice(entry);
    }
    match buffer.get(..=entry.len()) {
        Some(message) => sha256(message),
        None => {
            let mut context = Context::new(&SHA256);
            context.update(&[LEAF_PREFIX]);
            context.update(entry);
            from_digest(context.finish().as_ref())
        }
    }
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut message = [NODE_PREFIX; 1 + 2 * HASH_BYTES];
    let [_, children @ ..] = &mut message;
    let (l, r) = children.split_at_mut(HASH_BYTES);
    l.copy_from_slice(&left.0);
    r.copy_from_slice(&right.0);
    sha256(&message)
}

/// The root of the tree without leaves: `SHA-256("")`.
pub fn empty_root() -> Hash {
    sha256(b"")
}

pub(crate) fn sha256(message: &[u8]) -> Hash {
    from_digest(digest(&SHA256, message).as_ref())
}

/// SHA-256 digests have 32 bytes, so the copy cannot fail.
fn from_digest(bytes: &[u8]) -> Hash {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(bytes);
    Hash(hash)
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; HASH_BYTES]> for Hash {
    fn from(bytes: [u8; HASH_BYTES]) -> Hash {
        Hash(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::to_base64(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = Error;

    /// Fails with [`Error::Proof`] when the text is not 32 bytes of canonical base64.
    fn from_str(s: &str) -> Result<Hash, Error> {
        text::hash_from_base64(s).ok_or(Error::Proof("a hash is not 32 bytes of canonical base64"))
    }
}
