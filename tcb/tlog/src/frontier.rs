//! The writer's smallest view of a tree: enough to append and to state the root.

use crate::error::Error;
use crate::hash::{Hash, MAX_TREE_SIZE, empty_root, node_hash};

/// The right frontier of a Merkle tree, a compact range: the roots of the perfect subtrees that make
/// up the tree, one for each one-bit of its size, the largest first.
///
/// An append costs one SHA-256 on average, a root at most one for each of the hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    pub fn new() -> Frontier {
        Frontier::default()
    }

    /// Takes up a frontier where [`hashes`](Self::hashes) of a tree of `size` leaves left it.
    ///
    /// Fails with [`Error::TreeSize`] or [`Error::FrontierHashes`]. Whether the hashes are right can
    /// only be told by comparing [`root`](Self::root) with a root that one trusts.
    pub fn from_hashes(size: u64, hashes: Vec<Hash>) -> Result<Frontier, Error> {
        if size > MAX_TREE_SIZE {
            return Err(Error::TreeSize(size));
        }
        let (want, got) = (size.count_ones() as usize, hashes.len());
        if want != got {
            return Err(Error::FrontierHashes { size, want, got });
        }
        Ok(Frontier { size, hashes })
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, the largest (leftmost) first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Adds a leaf. The size starts at no more than 2^63 - 1 and could overflow only after as many
    /// appends again, which nobody lives to see.
    pub fn append(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.hashes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.hashes.push(node);
        self.size += 1;
    }

    /// The root of the tree (RFC 6962 section 2.1).
    pub fn root(&self) -> Hash {
        fold_right(&self.hashes).unwrap_or_else(empty_root)
    }

    /// Empties the tree and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.size = 0;
        self.hashes.clear();
    }
}

/// Joins the roots of neighbouring subtrees, the largest first, into the root of their range; `None`
/// when there are none.
pub(crate) fn fold_right(subtrees: &[Hash]) -> Option<Hash> {
    subtrees.iter().rev().copied().reduce(|right, left| node_hash(&left, &right))
}
