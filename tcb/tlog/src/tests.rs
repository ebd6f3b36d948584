//! What the tests share: a naive tree after the letter of RFC 6962, tiles in memory, and keys.

mod checkpoints;
mod cosignatures;
mod notes;
mod oracles;
mod policies;
mod tiles;
mod tree;
mod witnesses;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, ML_DSA_44_SIGNING, PqdsaKeyPair};

use crate::note::{Note, VerifierKey};
use crate::*;

/// Leaves of the large tree: two full tiles of level 1 in sight, and a ragged right edge.
const LARGE: u64 = 65_536 + 256 + 3;

/// Sizes at which tiles fill and levels begin.
const EDGES: [u64; 12] = [1, 2, 3, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537];

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn leaf(index: u64) -> Hash {
    leaf_hash(&entry(index))
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(leaf).collect()
}

/// RFC 6962 section 2.1: MTH(D\[n\]) over leaf hashes.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(rfc_split(leaves));
            node_hash(&mth(left), &mth(right))
        }
    }
}

/// RFC 6962 section 2.1.1: PATH(m, D\[n\]).
fn rfc_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = rfc_split(leaves);
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = if index < k {
        (rfc_path(index, left), mth(right))
    } else {
        (rfc_path(index - k, right), mth(left))
    };
    path.push(sibling);
    path
}

/// RFC 6962 section 2.1.2: SUBPROOF(m, D\[n\], b).
fn rfc_subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = rfc_split(leaves);
    let (left, right) = leaves.split_at(k);
    let (mut proof, sibling) = if old <= k {
        (rfc_subproof(old, left, whole), mth(right))
    } else {
        (rfc_subproof(old - k, right, false), mth(left))
    };
    proof.push(sibling);
    proof
}

/// The largest power of two smaller than the number of leaves.
fn rfc_split(leaves: &[Hash]) -> usize {
    leaves.len().next_power_of_two() / 2
}

/// Full tiles by level and index.
type FullTiles = HashMap<(u8, u64), Arc<Vec<u8>>>;

/// A log's tiles in memory. Partial tiles of earlier sizes are cut from what is there.
#[derive(Default, Clone)]
struct MemoryTiles {
    builder: TileBuilder,
    full: FullTiles,
    /// Answer full tiles where partial ones are asked for.
    offer_full: bool,
    reads: Cell<usize>,
}

impl MemoryTiles {
    fn of_size(size: u64) -> MemoryTiles {
        let mut tiles = MemoryTiles::default();
        for index in 0..size {
            tiles.append(leaf(index));
        }
        tiles
    }

    fn append(&mut self, leaf: Hash) {
        for (id, bytes) in self.builder.append(leaf) {
            assert!(id.is_full() && bytes.len() == FULL_TILE_BYTES, "{id:?}");
            assert_eq!(
                self.full.insert((id.level, id.index), Arc::new(bytes)),
                None,
                "{id:?} twice"
            );
        }
    }
}

impl TileSource for MemoryTiles {
    type Error = String;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, String> {
        self.reads.set(self.reads.get() + 1);
        let bytes = match self.full.get(&(id.level, id.index)) {
            Some(full) if self.offer_full => return Ok(full.to_vec()),
            Some(full) => full.as_slice(),
            None => self.builder.partial(id.level).unwrap_or_default(),
        };
        bytes.get(..id.byte_len()).map(<[u8]>::to_vec).ok_or_else(|| format!("no {}", id.path()))
    }
}

/// The tree of [`LARGE`] leaves, built once.
fn large() -> MemoryTiles {
    static TILES: OnceLock<(TileBuilder, FullTiles)> = OnceLock::new();
    let (builder, full) = TILES.get_or_init(|| {
        let tiles = MemoryTiles::of_size(LARGE);
        (tiles.builder, tiles.full)
    });
    MemoryTiles { builder: builder.clone(), full: full.clone(), ..MemoryTiles::default() }
}

/// A signing key from a one-byte seed, and its verifier key.
struct Signer {
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl Signer {
    fn new(name: &str, seed: u8) -> Signer {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public_key = pair.public_key().as_ref().try_into().unwrap();
        Signer { key: VerifierKey::new_ed25519(name, public_key).unwrap(), pair }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.pair.sign(text).as_ref().to_vec()
    }

    fn note(&self, text: &str) -> String {
        note::sign(text, &self.key, |bytes| self.sign(bytes)).unwrap()
    }
}

/// A cosigner's key pair from a one-byte seed, and its verifier key.
struct Cosigner {
    pair: CosignerPair,
    key: VerifierKey,
}

enum CosignerPair {
    Ed25519(Ed25519KeyPair),
    MlDsa44(PqdsaKeyPair),
}

impl Cosigner {
    fn ed25519(name: &str, seed: u8) -> Cosigner {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public_key = pair.public_key().as_ref().try_into().unwrap();
        let key = VerifierKey::new_ed25519_cosigner(name, public_key).unwrap();
        Cosigner { pair: CosignerPair::Ed25519(pair), key }
    }

    fn ml_dsa_44(name: &str, seed: u8) -> Cosigner {
        let pair = PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, &[seed; 32]).unwrap();
        let public_key = pair.public_key().as_ref().try_into().unwrap();
        let key = VerifierKey::new_ml_dsa_44_cosigner(name, public_key).unwrap();
        Cosigner { pair: CosignerPair::MlDsa44(pair), key }
    }

    /// The signature alone, over exactly `message`.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            CosignerPair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            CosignerPair::MlDsa44(pair) => {
                let mut signature = vec![0; 2_420];
                assert_eq!(pair.sign(message, &mut signature), Ok(2_420));
                signature
            }
        }
    }

    fn cosign(&self, note: &mut Note, timestamp: u64) {
        note.add_cosignature(&self.key, timestamp, |message| self.sign(message)).unwrap();
    }
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}
