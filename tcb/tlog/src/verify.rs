//! Checking proofs, as RFC 9162 section 2.1 describes it for verifiers.

use crate::error::Error;
use crate::hash::{Hash, MAX_TREE_SIZE, empty_root, node_hash};

/// Checks that `leaf` stands at `index` of the tree with `size` leaves and root `root`
/// (RFC 9162 section 2.1.3.2). `proof` goes from the leaf's sibling up to the root's child.
///
/// Fails with [`Error::TreeSize`], [`Error::IndexBeyondSize`], [`Error::ProofLength`] or
/// [`Error::RootMismatch`].
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), Error> {
    check_size(size)?;
    if index >= size {
        return Err(Error::IndexBeyondSize { index, size });
    }
    let mut place = Place { node: index, last: size - 1 };
    let mut hash = *leaf;
    for sibling in proof {
        hash = match place.climb() {
            Some(Side::Left) => node_hash(sibling, &hash),
            Some(Side::Right) => node_hash(&hash, sibling),
            None => return Err(Error::ProofLength { got: proof.len(), size }),
        };
    }
    if place.last != 0 {
        return Err(Error::ProofLength { got: proof.len(), size });
    }
    if hash != *root {
        return Err(Error::RootMismatch { size });
    }
    Ok(())
}

/// Checks that the tree of `new_size` leaves extends the tree of `old_size` leaves
/// (RFC 9162 section 2.1.4.2). Every tree extends the empty one, and each tree itself, with an empty
/// proof.
///
/// Fails with [`Error::TreeSize`], [`Error::SizesReversed`], [`Error::ProofLength`] or
/// [`Error::RootMismatch`], which names the size of the tree whose root differs.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), Error> {
    check_size(new_size)?;
    if old_size > new_size {
        return Err(Error::SizesReversed { old: old_size, new: new_size });
    }
    let bad_length = Error::ProofLength { got: proof.len(), size: new_size };
    for (size, root) in [(old_size, old_root), (new_size, new_root)] {
        if size == 0 && *root != empty_root() {
            return Err(Error::RootMismatch { size });
        }
    }
    if old_size == 0 || old_size == new_size {
        if !proof.is_empty() {
            return Err(bad_length);
        }
        if old_size == new_size && old_root != new_root {
            return Err(Error::RootMismatch { size: new_size });
        }
        return Ok(());
    }

    // The walk starts at the largest perfect subtree that ends where the old tree ends. When that
    // is the whole old tree, its root is known already and the proof leaves it out.
    let (start, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(bad_length.clone())?
    };
    let height = (old_size - 1).trailing_ones();
    let mut place = Place { node: (old_size - 1) >> height, last: (new_size - 1) >> height };
    let (mut old, mut new) = (*start, *start);
    for sibling in rest {
        match place.climb().ok_or(bad_length.clone())? {
            Side::Left => {
                old = node_hash(sibling, &old);
                new = node_hash(sibling, &new);
            }
            Side::Right => new = node_hash(&new, sibling),
        }
    }
    if place.last != 0 {
        return Err(bad_length);
    }
    if old != *old_root {
        return Err(Error::RootMismatch { size: old_size });
    }
    if new != *new_root {
        return Err(Error::RootMismatch { size: new_size });
    }
    Ok(())
}

/// Where a walk from a leaf to the root stands: the node's index in its level and that of the level's
/// last node (`fn` and `sn` of RFC 9162).
struct Place {
    node: u64,
    last: u64,
}

/// The side on which the next sibling stands.
enum Side {
    Left,
    Right,
}

impl Place {
    /// Climbs to the node's parent and says where the sibling stands that is needed for it; `None` at
    /// the root. The last node of a level may have no sibling: then it stands for its parents too, up
    /// to the first that has one.
    fn climb(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let side = if self.node & 1 == 1 || self.node == self.last {
            // The node is not 0 here, so the shift is less than 64.
            let alone = self.node.trailing_zeros();
            self.node >>= alone;
            self.last >>= alone;
            Side::Left
        } else {
            Side::Right
        };
        self.node >>= 1;
        self.last >>= 1;
        Some(side)
    }
}

fn check_size(size: u64) -> Result<(), Error> {
    if size > MAX_TREE_SIZE { Err(Error::TreeSize(size)) } else { Ok(()) }
}
