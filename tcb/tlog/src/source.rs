//! Making proofs from tiles, for anyone who can read a log's tiles: writer, monitor or client.
//!
//! What is read is not trusted here: a proof made from wrong tiles does not verify.

use crate::error::Error;
use crate::frontier::{Frontier, fold_right};
use crate::hash::{HASH_BYTES, Hash, MAX_TREE_SIZE, empty_root};
use crate::tile::{FULL_TILE_BYTES, TILE_HEIGHT, TILE_WIDTH, TileId};

/// Where tiles are read from.
pub trait TileSource {
    /// Why a tile could not be read.
    type Error;

    /// The bytes of a tile: `width` hashes of 32 bytes, or the full tile's 8,192 bytes where the
    /// partial tile has been replaced by it. Only the first `width` hashes are used.
    fn tile(&self, id: TileId) -> Result<Vec<u8>, Self::Error>;
}

impl<T: TileSource + ?Sized> TileSource for &T {
    type Error = T::Error;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, Self::Error> {
        (**self).tile(id)
    }
}

/// Why a proof could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E> {
    /// The source failed to read a tile.
    #[error("could not read a tile: {0}")]
    Source(E),
    /// The question or a tile is malformed: [`Error::TreeSize`], [`Error::IndexBeyondSize`],
    /// [`Error::SizesReversed`] or [`Error::TileBytes`].
    #[error(transparent)]
    Log(#[from] Error),
}

/// The inclusion proof of leaf `index` in the tree of `size` leaves (RFC 6962 section 2.1.1): the
/// hashes from the leaf's sibling up to the root's child. Reads each tile at most once, at most two
/// for each level.
pub fn inclusion_proof<S: TileSource>(
    source: &S,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProofError<S::Error>> {
    let mut tree = Tree::new(source, size)?;
    if index >= size {
        return Err(Error::IndexBeyondSize { index, size }.into());
    }
    let mut proof = Vec::new();
    let (mut low, mut high) = (0, size);
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            proof.push(tree.range(middle, high)?);
            high = middle;
        } else {
            proof.push(tree.range(low, middle)?);
            low = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `new_size` leaves extends that of `old_size` leaves
/// (RFC 6962 section 2.1.2). It is empty when the sizes are equal or the old tree is.
pub fn consistency_proof<S: TileSource>(
    source: &S,
    old_size: u64,
    new_size: u64,
) -> Result<Vec<Hash>, ProofError<S::Error>> {
    let mut tree = Tree::new(source, new_size)?;
    if old_size > new_size {
        return Err(Error::SizesReversed { old: old_size, new: new_size }.into());
    }
    let mut proof = Vec::new();
    let (mut low, mut high) = (0, new_size);
    if old_size == 0 {
        return Ok(proof);
    }
    while old_size < high {
        let middle = low + split(high - low);
        if old_size <= middle {
            proof.push(tree.range(middle, high)?);
            high = middle;
        } else {
            proof.push(tree.range(low, middle)?);
            low = middle;
        }
    }
    // A walk that never turned right ended at the old tree itself, whose root the verifier has.
    if low > 0 {
        proof.push(tree.range(low, high)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The root of the tree of `size` leaves, from its right edge.
pub fn root_from_tiles<S: TileSource>(source: &S, size: u64) -> Result<Hash, ProofError<S::Error>> {
    Tree::new(source, size)?.range(0, size)
}

/// The hash of leaf `index` of a tree of `size` leaves, from its level 0 tile.
pub fn leaf_from_tiles<S: TileSource>(
    source: &S,
    index: u64,
    size: u64,
) -> Result<Hash, ProofError<S::Error>> {
    let mut tree = Tree::new(source, size)?;
    if index >= size {
        return Err(Error::IndexBeyondSize { index, size }.into());
    }
    tree.range(index, index + 1)
}

/// The first `id.width` hashes of a tile's bytes; [`Error::TileBytes`] when they are neither the tile
/// nor the full tile at its place.
pub(crate) fn tile_hashes(id: TileId, bytes: &[u8]) -> Result<&[[u8; HASH_BYTES]], Error> {
    let (hashes, _) = bytes.as_chunks();
    hashes
        .get(..usize::from(id.width))
        .filter(|_| bytes.len() == id.byte_len() || bytes.len() == FULL_TILE_BYTES)
        .ok_or_else(|| Error::TileBytes { tile: id.path(), want: id.byte_len(), got: bytes.len() })
}

/// The largest power of two below `leaves`, which must be more than 1: where RFC 6962 splits a tree.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// A tree of a given size over a source of tiles, with the tiles read so far: a proof asks for the
/// same few of them again and again.
struct Tree<'a, S> {
    source: &'a S,
    size: u64,
    read: Vec<(TileId, Vec<u8>)>,
}

impl<'a, S: TileSource> Tree<'a, S> {
    fn new(source: &'a S, size: u64) -> Result<Tree<'a, S>, Error> {
        if size > MAX_TREE_SIZE {
            return Err(Error::TreeSize(size));
        }
        Ok(Tree { source, size, read: Vec::new() })
    }

    /// The Merkle tree hash of the leaves from `low` to before `high`, where `low` is a multiple of a
    /// power of two that is at least `high - low`, as all ranges in proofs are.
    fn range(&mut self, low: u64, high: u64) -> Result<Hash, ProofError<S::Error>> {
        let mut subtrees = Vec::new();
        let mut next = low;
        while next < high {
            let height = next.trailing_zeros().min((high - next).ilog2());
            subtrees.push(self.subtree(height, next >> height)?);
            next += 1 << height;
        }
        Ok(fold_right(&subtrees).unwrap_or_else(empty_root))
    }

    /// The root of the perfect subtree number `index` among those with 2^`height` leaves: the fold of
    /// one hash or a run of hashes in one tile.
    fn subtree(&mut self, height: u32, index: u64) -> Result<Hash, ProofError<S::Error>> {
        let run = 1_u64 << (height % TILE_HEIGHT);
        let first = index * run;
        let level = height / TILE_HEIGHT;
        let beyond = Error::IndexBeyondSize { index: first, size: self.size };
        let id = u8::try_from(level)
            .ok()
            .and_then(|level| TileId::at(level, first / TILE_WIDTH, self.size))
            .ok_or_else(|| beyond.clone())?;
        let hashes = tile_hashes(id, self.tile(id)?)?;
        let offset = (first % TILE_WIDTH) as usize;
        let run = hashes.get(offset..offset + run as usize).ok_or(beyond)?;
        let mut fold = Frontier::new();
        for hash in run {
            fold.append(Hash(*hash));
        }
        Ok(fold.root())
    }

    fn tile(&mut self, id: TileId) -> Result<&[u8], ProofError<S::Error>> {
        let at = match self.read.iter().position(|(known, _)| *known == id) {
            Some(at) => at,
            None => {
                self.read.push((id, self.source.tile(id).map_err(ProofError::Source)?));
                self.read.len() - 1
            }
        };
        Ok(self.read.get(at).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }
}
