//! The writer's side of tiles: the right edge of a growing tree.

use std::mem;

use crate::error::Error;
use crate::frontier::{Frontier, fold_right};
use crate::hash::{Hash, MAX_TREE_SIZE, empty_root};
use crate::source::{ProofError, TileSource, tile_hashes};
use crate::tile::{
    FULL_TILE_BYTES, FULL_WIDTH, TileId, hashes_at, levels_for_size, tiles_for_size,
};

/// Builds the tiles of a growing tree and holds nothing but its right edge: one partial tile for each
/// level, so at most 64 KiB for the largest tree.
///
/// An append costs one SHA-256 on average, like that of a [`Frontier`].
#[derive(Clone, Debug, Default)]
pub struct TileBuilder {
    size: u64,
    levels: Vec<Level>,
}

/// A partial tile, and the frontier of the tree that its hashes are the leaves of. When the tile is
/// full, the root of that tree is the tile's hash in the level above.
#[derive(Clone, Debug, Default)]
struct Level {
    bytes: Vec<u8>,
    frontier: Frontier,
}

impl Level {
    fn append(&mut self, hash: Hash) {
        self.bytes.extend_from_slice(&hash.0);
        self.frontier.append(hash);
    }
}

impl TileBuilder {
    /// The builder of a tree without leaves.
    pub fn new() -> TileBuilder {
        TileBuilder::default()
    }

    /// Takes up a tree of `size` leaves. `tiles` are its right-edge partial tiles, one for each of its
    /// [`levels`](Self::levels) from level 0 up, empty where a level's last tile is full; each is
    /// exactly its width long, or is the full tile that begins with it.
    ///
    /// Fails with [`Error::TreeSize`], [`Error::EdgeLevels`] or [`Error::TileBytes`]. Whether the
    /// hashes are right can only be told by comparing [`root`](Self::root) with a root that one trusts.
    pub fn from_edge(size: u64, tiles: Vec<Vec<u8>>) -> Result<TileBuilder, Error> {
        if size > MAX_TREE_SIZE {
            return Err(Error::TreeSize(size));
        }
        let (want, got) = (levels_for_size(size), tiles.len());
        if want != got {
            return Err(Error::EdgeLevels { size, want, got });
        }
        let mut levels = Vec::with_capacity(want);
        for (number, bytes) in (0_u8..).zip(&tiles) {
            let mut level = Level::default();
            let index = hashes_at(number + 1, size);
            match TileId::at(number, index, size) {
                Some(id) => {
                    for hash in tile_hashes(id, bytes)? {
                        level.append(Hash(*hash));
                    }
                }
                None if bytes.is_empty() => {}
                None => {
                    let tile = TileId { level: number, index, width: 0 }.path();
                    return Err(Error::TileBytes { tile, want: 0, got: bytes.len() });
                }
            }
            levels.push(level);
        }
        Ok(TileBuilder { size, levels })
    }

    /// Takes up a tree of `size` leaves whose right-edge tiles `source` holds.
    pub fn load<S: TileSource>(source: &S, size: u64) -> Result<TileBuilder, ProofError<S::Error>> {
        let mut edge = vec![Vec::new(); levels_for_size(size)];
        for id in tiles_for_size(size) {
            if let Some(tile) = edge.get_mut(usize::from(id.level)) {
                *tile = source.tile(id).map_err(ProofError::Source)?;
            }
        }
        Ok(TileBuilder::from_edge(size, edge)?)
    }

    /// Adds a leaf. Answers the tiles that it made full, each with its 8,192 bytes, lowest level
    /// first; mostly none.
    pub fn append(&mut self, leaf: Hash) -> Vec<(TileId, Vec<u8>)> {
        let mut full = Vec::new();
        let mut hash = leaf;
        self.size += 1;
        for number in 0_u8.. {
            if self.levels.len() == usize::from(number) {
                self.levels.push(Level::default());
            }
            let Some(level) = self.levels.get_mut(usize::from(number)) else { break };
            level.append(hash);
            if level.bytes.len() < FULL_TILE_BYTES {
                break;
            }
            let index = hashes_at(number + 1, self.size).saturating_sub(1);
            let bytes = mem::replace(&mut level.bytes, Vec::with_capacity(FULL_TILE_BYTES));
            full.push((TileId { level: number, index, width: FULL_WIDTH }, bytes));
            hash = level.frontier.root();
            level.frontier.clear();
        }
        full
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree (RFC 6962 section 2.1).
    pub fn root(&self) -> Hash {
        let high_to_low = self.levels.iter().rev();
        let subtrees: Vec<Hash> =
            high_to_low.flat_map(|level| level.frontier.hashes()).copied().collect();
        fold_right(&subtrees).unwrap_or_else(empty_root)
    }

    /// How many levels of tiles the tree has; the highest is [`levels`](Self::levels) - 1.
    pub fn levels(&self) -> u8 {
        // A size of 64 bits has at most eight levels.
        self.levels.len() as u8
    }

    /// The bytes of the right-edge partial tile of a level: 1 to 255 hashes, or `None` where it would
    /// be empty.
    pub fn partial(&self, level: u8) -> Option<&[u8]> {
        let level = self.levels.get(usize::from(level))?;
        (!level.bytes.is_empty()).then_some(level.bytes.as_slice())
    }

    /// The right-edge partial tiles with their bytes, lowest level first: what must be stored beside
    /// the full tiles so that [`load`](Self::load) can go on from here.
    pub fn edge(&self) -> impl Iterator<Item = (TileId, &[u8])> {
        tiles_for_size(self.size).into_iter().filter_map(|id| Some((id, self.partial(id.level)?)))
    }
}
