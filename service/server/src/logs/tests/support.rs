//! A log that a test signs itself, and what a store must hold of it at each size.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use chancery_entry::{Announcement, Entry, Genesis, Start, TokenEntry};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, EntriesTileId, Hash, LogId, TILE_WIDTH, TileBuilder, TileId, encode_entry,
    leaf_hash,
};

use crate::ledger::Ledger;
use crate::logs::{Batch, Log};
use crate::store::Store;
use crate::store::faulty::Objects;

/// Id of the log with seed 7.
pub const LOG_ID: &str = "_oEsEvOrTOasXbaaw1L5Bg";

/// All sizes of one log, made without the code under test.
pub struct TestLog {
    key: Ed25519KeyPair,
    vkey: VerifierKey,
    id: LogId,
    entries: Vec<Vec<u8>>,
    roots: Vec<Hash>,
    /// Full hash tiles, by path.
    tiles: Vec<(TileId, Vec<u8>)>,
}

impl TestLog {
    /// A log of this many entries.
    pub fn of(size: u64) -> Self {
        Self::with_seed(7, size)
    }

    /// One of another key.
    pub fn with_seed(seed: u8, size: u64) -> Self {
        Self::build(seed, (0..size).map(|i| entry(i, 0)).collect())
    }

    /// One of the same key that differs from `index` on.
    pub fn forked_at(index: u64, size: u64) -> Self {
        Self::build(7, (0..size).map(|i| entry(i, u64::from(i >= index))).collect())
    }

    /// One of these entries.
    pub fn of_entries(seed: u8, entries: &[Entry]) -> Self {
        Self::build(seed, entries.iter().map(|e| e.encode().unwrap()).collect())
    }

    fn build(seed: u8, entries: Vec<Vec<u8>>) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        let id = LogId::of(&public);
        let vkey = VerifierKey::new_ed25519(&format!("test.example/log/{id}"), &public).unwrap();
        let mut test = Self { key, vkey, id, entries, roots: Vec::new(), tiles: Vec::new() };
        let mut builder = TileBuilder::new();
        test.roots.push(builder.root());
        for entry in test.entries.clone() {
            test.tiles.extend(builder.append(leaf_hash(&entry)));
            test.roots.push(builder.root());
        }
        test
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// The one key that it announces.
    pub fn kid() -> [u8; 32] {
        [3; 32]
    }

    pub fn entry(&self, index: usize) -> Vec<u8> {
        self.entries[index].clone()
    }

    pub fn root(&self, size: usize) -> Hash {
        self.roots[size]
    }

    /// The signed note of this size; Ed25519 signatures are deterministic.
    pub fn checkpoint(&self, size: usize) -> String {
        let checkpoint = Checkpoint::new(self.vkey.name(), size as u64, self.roots[size]).unwrap();
        checkpoint.sign(&self.vkey, |m| self.key.sign(m).as_ref().to_vec()).unwrap()
    }

    /// What the key set is called after the batch that ends at `size`.
    pub fn keys_jwt(size: usize) -> String {
        format!("keys of {}", size / 200)
    }

    pub fn batch(&self, from: usize, to: usize) -> Batch {
        Batch {
            first_index: from as u64,
            entries: self.entries[from..to].to_vec(),
            checkpoint: self.checkpoint(to),
        }
    }

    /// The log without entries.
    pub fn empty(&self, store: Store) -> Log {
        Log::empty(store, self.id, self.vkey.clone())
    }

    /// The ledger of the first entries.
    pub fn ledger(size: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for index in 0..size {
            ledger.apply(index, Entry::decode(&entry(index, 0)).unwrap());
        }
        ledger
    }

    pub fn path(&self, object: &str) -> String {
        format!("log/{}/{object}", self.id)
    }

    /// A hash tile.
    pub fn tile(&self, id: TileId) -> Vec<u8> {
        let full = self.tiles.iter().find(|(tile, _)| *tile == id.full());
        if let Some((_, bytes)) = full {
            return bytes[..id.byte_len()].to_vec();
        }
        assert_eq!(id.level, 0, "the test logs have partial tiles of level 0 and 1 only");
        let first = (id.index * TILE_WIDTH) as usize;
        let leaves = &self.entries[first..first + usize::from(id.width)];
        leaves.iter().flat_map(|e| leaf_hash(e).0).collect()
    }

    /// A bundle.
    pub fn bundle(&self, id: EntriesTileId) -> Vec<u8> {
        let first = (id.index * TILE_WIDTH) as usize;
        let mut bytes = Vec::new();
        for entry in &self.entries[first..first + usize::from(id.width)] {
            encode_entry(&mut bytes, entry).unwrap();
        }
        bytes
    }

    /// Exactly what a store holds of the log when a checkpoint of this size was published.
    pub fn objects(&self, size: usize) -> Objects {
        let mut builder = TileBuilder::new();
        let mut objects = Objects::new();
        let mut put = |path: &str, bytes: Vec<u8>| {
            objects.insert(self.path(path), Bytes::from(bytes));
        };
        put("vkey", format!("{}\n", self.vkey).into_bytes());
        put("checkpoint", self.checkpoint(size).into_bytes());
        put("keys.jwt", Self::keys_jwt(size).into_bytes());
        for entry in &self.entries[..size] {
            for (id, bytes) in builder.append(leaf_hash(entry)) {
                put(&id.path(), bytes);
            }
        }
        for (id, bytes) in builder.edge() {
            put(&id.path(), bytes.to_vec());
        }
        for bundle in 0..(size as u64).div_ceil(TILE_WIDTH) {
            let id = EntriesTileId::at(bundle, size as u64).unwrap();
            put(&id.path(), self.bundle(id));
        }
        objects
    }
}

fn entry(index: u64, fork: u64) -> Vec<u8> {
    let entry = match index {
        0 => Entry::Genesis(Genesis {
            software: "test".into(),
            started_at: 1_000,
            policy_digest: [1; 32],
            evidence_digest: None,
            predecessor: None,
            cosigning_key: None,
        }),
        1 => Entry::Announcement(Announcement {
            realm: "r".into(),
            issuer: "https://test.example/r".into(),
            jwk: "{}".into(),
            kid: TestLog::kid(),
            algorithm: "Ed25519".into(),
            nbf: 1_000,
            signs_until: 9_000,
            max_lifetime_s: 600,
            start: Start::First,
        }),
        _ => {
            let iat = 1_000 + index;
            let input = (index, fork);
            Entry::Token(TokenEntry::of(
                TestLog::kid(),
                iat,
                iat + 60,
                format!("{input:?}").as_bytes(),
            ))
        }
    };
    entry.encode().unwrap()
}
