//! A log with an Ed25519 key of its own, all in memory: what witnesses are asked about.

use std::convert::Infallible;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use chancery_tlog::note::{Note, VerifierKey};
use chancery_tlog::witness::AddCheckpoint;
use chancery_tlog::{
    Checkpoint, Frontier, Hash, TileId, TileSource, consistency_proof, leaf_hash, root_from_tiles,
};

/// A log, or one history of it.
#[derive(Clone)]
pub struct OwnLog {
    leaves: Vec<Hash>,
    vkey: VerifierKey,
    seed: [u8; 32],
}

impl OwnLog {
    /// An empty log; the same origin and seed give the same key.
    ///
    /// # Panics
    /// When the origin is not a key name.
    #[must_use]
    pub fn new(origin: &str, seed: u8) -> Self {
        let seed = [seed; 32];
        let public = pair(&seed).public_key().as_ref().try_into().expect("32 bytes");
        let vkey = VerifierKey::new_ed25519(origin, &public).expect("an origin");
        Self { leaves: Vec::new(), vkey, seed }
    }

    /// The log's verifier key.
    #[must_use]
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// Adds entries until the tree has `size` leaves; `story` tells histories apart.
    pub fn grow(&mut self, size: usize, story: &str) {
        for index in self.leaves.len()..size {
            self.leaves.push(leaf_hash(format!("{story} {index}").as_bytes()));
        }
    }

    /// The history that shares only the first `size` leaves with this one.
    #[must_use]
    pub fn forked_at(&self, size: usize) -> Self {
        let leaves = self.leaves.iter().take(size).copied().collect();
        Self { leaves, ..self.clone() }
    }

    /// The root at a size.
    ///
    /// # Panics
    /// When the log is smaller.
    #[must_use]
    pub fn root(&self, size: u64) -> Hash {
        root_from_tiles(self, size).expect("tiles of a log in memory")
    }

    /// The signed checkpoint at a size.
    ///
    /// # Panics
    /// When the log is smaller.
    #[must_use]
    pub fn checkpoint(&self, size: u64) -> Note {
        let checkpoint = Checkpoint::new(self.vkey.name(), size, self.root(size));
        let sign = |message: &[u8]| pair(&self.seed).sign(message).as_ref().to_vec();
        let note = checkpoint.and_then(|c| c.sign(&self.vkey, sign)).expect("a checkpoint");
        Note::parse(note.as_bytes()).expect("a note")
    }

    /// What asks a witness that knows `old` leaves for a cosignature.
    ///
    /// # Panics
    /// When the log is smaller, or `old` larger than `new`.
    #[must_use]
    pub fn request(&self, old: u64, new: u64) -> AddCheckpoint {
        let proof = consistency_proof(self, old, new).expect("tiles of a log in memory");
        AddCheckpoint::new(old, proof, self.checkpoint(new)).expect("a request")
    }
}

fn pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes")
}

impl TileSource for OwnLog {
    type Error = Infallible;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, Infallible> {
        let leaves_each = 256_u64.saturating_pow(u32::from(id.level));
        let first = id.index.saturating_mul(256);
        let mut tile = Vec::new();
        for node in first..first.saturating_add(u64::from(id.width)) {
            let mut subtree = Frontier::new();
            let begin = usize::try_from(node.saturating_mul(leaves_each)).unwrap_or(usize::MAX);
            let count = usize::try_from(leaves_each).unwrap_or(usize::MAX);
            self.leaves.iter().skip(begin).take(count).for_each(|leaf| subtree.append(*leaf));
            tile.extend_from_slice(&subtree.root().0);
        }
        Ok(tile)
    }
}
