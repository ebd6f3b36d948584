//! Transparency logs as C2SP specifies them, byte for byte: the Merkle tree of RFC 6962, tiles,
//! signed notes, checkpoints, cosignatures of witnesses, policies and offline proofs.
//!
//! | module | specification |
//! |---|---|
//! | [`struct@Hash`], [`Frontier`], [`verify_inclusion`], [`verify_consistency`] | RFC 6962 section 2.1, RFC 9162 section 2.1 |
//! | [`TileId`], [`TileBuilder`], [`inclusion_proof`], [`decode_entries`] | c2sp.org/tlog-tiles |
//! | [`note`] | c2sp.org/signed-note |
//! | [`Checkpoint`] | c2sp.org/tlog-checkpoint |
//! | [`cosignature`] | c2sp.org/tlog-cosignature |
//! | [`witness`] | c2sp.org/tlog-witness |
//! | [`policy`] | c2sp.org/tlog-policy |
//! | [`TlogProof`] | c2sp.org/tlog-proof |
//!
//! The crate is pure: no I/O, no clock, no randomness. Private keys stay with the caller, who
//! passes a closure that signs. Every parser takes bytes from strangers: it caps their size, accepts
//! exactly one spelling of each value, and never panics.

#![forbid(unsafe_code)]

mod builder;
mod checkpoint;
pub mod cosignature;
mod entries;
mod error;
mod frontier;
mod hash;
mod log_id;
pub mod note;
pub mod policy;
mod proof;
mod source;
mod text;
mod tile;
mod verify;
pub mod witness;

#[cfg(test)]
mod tests;

pub use builder::TileBuilder;
pub use checkpoint::Checkpoint;
pub use entries::{MAX_ENTRY_BYTES, decode_entries, encode_entry};
pub use error::Error;
pub use frontier::Frontier;
pub use hash::{HASH_BYTES, Hash, MAX_TREE_SIZE, empty_root, leaf_hash, node_hash};
pub use log_id::LogId;
pub use proof::{MAX_PROOF_BYTES, MAX_PROOF_HASHES, TlogProof};
pub use source::{
    ProofError, TileSource, consistency_proof, inclusion_proof, leaf_from_tiles, root_from_tiles,
};
pub use tile::{
    EntriesTileId, FULL_TILE_BYTES, MAX_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileId, TilePath,
    new_full_tiles, tiles_for_size,
};
pub use verify::{verify_consistency, verify_inclusion};
