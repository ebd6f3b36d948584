//! Tokens whose signature was verified before.
//!
//! An entry says one thing: this text, octet by octet, carries a signature of this key over this
//! content. That stays true for ever, so an entry is never wrong, only useless. Everything that can
//! change, the time, the key set and the demands, is judged on every call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_entry::sha256;
use chancery_token::jws::MAX_TOKEN_BYTES;

use crate::claims::Signed;

/// Parts with a lock of their own, so that threads seldom wait for each other.
const SHARDS: usize = 16;

type Digest = [u8; 32];

/// A bounded cache of verified tokens, keyed by the SHA-256 of the whole token.
///
/// Only tokens that passed every check are kept, so strangers cannot fill it. An entry takes about
/// three times the token's length: 2 KiB for a token of 700 octets. The longest there are take 50
/// KiB, and twice that if they name thousands of audiences.
/// Each shard keeps two generations: what was used since the last change of generation stays.
#[derive(Debug)]
pub struct TokenCache {
    shards: Vec<Mutex<Shard>>,
    /// Entries of one generation of one shard.
    generation: usize,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Digest, Arc<Signed>>,
    old: HashMap<Digest, Arc<Signed>>,
}

impl TokenCache {
    /// A cache of at most about `entries` tokens, rounded up to 32.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        let generation = entries.div_ceil(SHARDS.saturating_mul(2)).max(1);
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), generation }
    }

    /// Tokens that are kept now.
    #[must_use]
    pub fn len(&self) -> usize {
        let of = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len().saturating_add(shard.old.len())
        };
        self.shards.iter().map(of).sum()
    }

    /// Whether no token is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, token: &str) -> Option<Arc<Signed>> {
        // A longer one was never kept, and is not worth hashing.
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let digest = sha256(token.as_bytes());
        let mut shard = self.shard(&digest)?.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = shard.young.get(&digest) {
            return Some(Arc::clone(signed));
        }
        let signed = shard.old.remove(&digest)?;
        shard.put(digest, Arc::clone(&signed), self.generation);
        Some(signed)
    }

    pub(crate) fn keep(&self, token: &str, signed: &Arc<Signed>) {
        let digest = sha256(token.as_bytes());
        if let Some(shard) = self.shard(&digest) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.put(digest, Arc::clone(signed), self.generation);
        }
    }

    fn shard(&self, digest: &Digest) -> Option<&Mutex<Shard>> {
        let [first, ..] = digest;
        self.shards.get(usize::from(*first) % SHARDS)
    }
}

impl Shard {
    fn put(&mut self, digest: Digest, signed: Arc<Signed>, generation: usize) {
        if self.young.len() >= generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, signed);
    }
}
