//! Frontier, inclusion and consistency against RFC 6962 itself.

use proptest::prelude::*;

use super::*;

/// The test tree of the Certificate Transparency reference implementation.
#[test]
fn roots_are_those_of_the_ct_test_vectors() {
    let entries: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let hex = |hash: Hash| hash.0.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut frontier = Frontier::new();
    assert_eq!(
        hex(frontier.root()),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    for (entry, root) in entries.iter().zip(roots) {
        frontier.append(leaf_hash(entry));
        assert_eq!(hex(frontier.root()), root);
    }
}

#[test]
fn leaf_hash_is_the_same_for_short_and_long_entries() {
    for length in [0, 1, 510, 511, 512, 513, 70_000] {
        let entry = vec![7; length];
        let message = [&[0], entry.as_slice()].concat();
        assert_eq!(leaf_hash(&entry), hash::sha256(&message), "{length}");
    }
}

#[test]
fn frontier_root_is_the_merkle_tree_hash_at_every_size() {
    let all = leaves(600);
    let mut frontier = Frontier::new();
    for (size, next) in all.iter().enumerate() {
        assert_eq!(frontier.size(), size as u64);
        assert_eq!(frontier.root(), mth(&all[..size]), "{size}");
        let hashes = frontier.hashes().to_vec();
        assert_eq!(Frontier::from_hashes(size as u64, hashes).unwrap(), frontier);
        frontier.append(*next);
    }
}

#[test]
fn frontier_refuses_sizes_and_hashes_that_do_not_belong_together() {
    let hashes = leaves(2);
    assert_eq!(
        Frontier::from_hashes(7, hashes.clone()),
        Err(Error::FrontierHashes { size: 7, want: 3, got: 2 })
    );
    assert_eq!(Frontier::from_hashes(1 << 63, vec![leaf(0)]), Err(Error::TreeSize(1 << 63)));
    assert!(Frontier::from_hashes(MAX_TREE_SIZE, leaves(63)).is_ok());
}

#[test]
fn inclusion_proofs_are_rfc_6962_paths_for_every_leaf_of_small_trees() {
    let all = leaves(70);
    let tiles = MemoryTiles::of_size(70);
    for size in 1..=70 {
        let tree = &all[..size];
        let root = mth(tree);
        for index in 0..size {
            let proof = inclusion_proof(&tiles, index as u64, size as u64).unwrap();
            assert_eq!(proof, rfc_path(index, tree), "{index} of {size}");
            let verify = |i: usize, s: usize, p: &[Hash]| {
                verify_inclusion(&tree[index], i as u64, s as u64, p, &root)
            };
            assert_eq!(verify(index, size, &proof), Ok(()));
            for other in (0..size).filter(|i| *i != index) {
                assert!(verify(other, size, &proof).is_err(), "{index} as {other} of {size}");
            }
            assert_eq!(
                verify(size, size, &proof),
                Err(Error::IndexBeyondSize { index: size as u64, size: size as u64 })
            );
            let longer = [proof.as_slice(), &[root]].concat();
            let bad = |got| Err(Error::ProofLength { got, size: size as u64 });
            assert_eq!(verify(index, size, &longer), bad(longer.len()));
            if let Some((_, shorter)) = proof.split_last() {
                assert_eq!(verify(index, size, shorter), bad(shorter.len()));
            }
        }
    }
}

#[test]
fn consistency_proofs_are_rfc_6962_proofs_for_every_pair_of_small_sizes() {
    let all = leaves(70);
    let roots: Vec<Hash> = (0..=70).map(|size| mth(&all[..size])).collect();
    let tiles = MemoryTiles::of_size(70);
    let verify = |old: usize, old_root: &Hash, new: usize, new_root: &Hash, proof: &[Hash]| {
        verify_consistency(old as u64, old_root, new as u64, new_root, proof)
    };
    for new in 0..=70 {
        for old in 0..=new {
            let proof = consistency_proof(&tiles, old as u64, new as u64).unwrap();
            if old > 0 {
                assert_eq!(proof, rfc_subproof(old, &all[..new], true), "{old} to {new}");
            } else {
                assert_eq!(proof, []);
            }
            assert_eq!(verify(old, &roots[old], new, &roots[new], &proof), Ok(()));

            let length = |got| Err(Error::ProofLength { got, size: new as u64 });
            let longer = [proof.as_slice(), &[roots[new]]].concat();
            assert_eq!(verify(old, &roots[old], new, &roots[new], &longer), length(longer.len()));
            if let Some((_, shorter)) = proof.split_last() {
                let refused = verify(old, &roots[old], new, &roots[new], shorter);
                assert_eq!(refused, length(shorter.len()));
            }
            let wrong = leaf(1_000);
            assert_eq!(
                verify(old, &roots[old], new, &wrong, &proof).is_ok(),
                old == 0 && new != 0,
                "a grown tree may have any root only where nothing preceded it"
            );
            assert!(verify(old, &wrong, new, &roots[new], &proof).is_err());
        }
    }
}

#[test]
fn consistency_says_which_root_differs() {
    let all = leaves(7);
    let proof = rfc_subproof(3, &all, true);
    let (old, new) = (mth(&all[..3]), mth(&all));
    let wrong = leaf(1_000);
    assert_eq!(
        verify_consistency(3, &wrong, 7, &new, &proof),
        Err(Error::RootMismatch { size: 3 })
    );
    assert_eq!(
        verify_consistency(3, &old, 7, &wrong, &proof),
        Err(Error::RootMismatch { size: 7 })
    );
    assert_eq!(verify_consistency(0, &wrong, 7, &new, &[]), Err(Error::RootMismatch { size: 0 }));
    assert_eq!(verify_consistency(7, &new, 7, &wrong, &[]), Err(Error::RootMismatch { size: 7 }));
    assert_eq!(
        verify_consistency(7, &new, 3, &old, &proof),
        Err(Error::SizesReversed { old: 7, new: 3 })
    );
}

#[test]
fn trees_beyond_the_largest_size_are_refused_everywhere() {
    let (size, tiles, hash) = (1 << 63, MemoryTiles::default(), leaf(0));
    let refused = Error::TreeSize(size);
    assert_eq!(verify_inclusion(&hash, 0, size, &[], &hash), Err(refused.clone()));
    assert_eq!(verify_consistency(1, &hash, size, &hash, &[]), Err(refused.clone()));
    assert_eq!(inclusion_proof(&tiles, 0, size), Err(refused.clone().into()));
    assert_eq!(consistency_proof(&tiles, 1, size), Err(refused.clone().into()));
    assert_eq!(root_from_tiles(&tiles, size), Err(refused.clone().into()));
    assert_eq!(TileBuilder::from_edge(size, Vec::new()).unwrap_err(), refused);
}

/// The largest tree cannot be built, but proofs about it can be checked: the leftmost leaf has the
/// longest path, the last one the shortest.
#[test]
fn proofs_in_the_largest_tree_have_bounded_length() {
    let hash = leaf(0);
    let path = vec![hash; MAX_PROOF_HASHES];
    let root = path.iter().fold(hash, |node, sibling| node_hash(&node, sibling));
    assert_eq!(verify_inclusion(&hash, 0, MAX_TREE_SIZE, &path, &root), Ok(()));
    let last = vec![hash; 62];
    let root = last.iter().fold(hash, |node, sibling| node_hash(sibling, &node));
    let index = MAX_TREE_SIZE - 1;
    assert_eq!(verify_inclusion(&hash, index, MAX_TREE_SIZE, &last, &root), Ok(()));
}

#[test]
fn hashes_have_one_spelling() {
    let hash = leaf(0);
    assert_eq!(hash.to_string().parse(), Ok(hash));
    assert_eq!(format!("{hash:?}"), format!("Hash({hash})"));
    let refused = Err(Error::Proof("a hash is not 32 bytes of canonical base64"));
    let text = hash.to_string();
    for bad in [text.trim_end_matches('='), &text[4..], "", &format!("{text}\n"), " "] {
        assert_eq!(bad.parse::<Hash>(), refused, "{bad:?}");
    }
    // 43 characters carry 258 bits: the last two must be zero.
    let zeroes = Hash([0; 32]).to_string();
    assert_eq!(zeroes, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert_eq!(zeroes.replace("A=", "B=").parse::<Hash>(), refused);
}

proptest! {
    #[test]
    fn a_flipped_bit_in_an_inclusion_proof_is_refused(
        size in 2_u64..700, index in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
    ) {
        let index = index.index(size as usize) as u64;
        let tiles = large();
        let root = root_from_tiles(&tiles, size).unwrap();
        let mut proof = inclusion_proof(&tiles, index, size).unwrap();
        let bit = bit.index(proof.len() * 256);
        proof[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(
            verify_inclusion(&leaf(index), index, size, &proof, &root),
            Err(Error::RootMismatch { size })
        );
    }

    #[test]
    fn a_flipped_bit_in_a_consistency_proof_is_refused(
        new in 2_u64..700, old in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
    ) {
        let old = 1 + old.index(new as usize - 1) as u64;
        let tiles = large();
        let (old_root, new_root) =
            (root_from_tiles(&tiles, old).unwrap(), root_from_tiles(&tiles, new).unwrap());
        let mut proof = consistency_proof(&tiles, old, new).unwrap();
        let bit = bit.index(proof.len() * 256);
        proof[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
        let refused = verify_consistency(old, &old_root, new, &new_root, &proof);
        prop_assert!(matches!(refused, Err(Error::RootMismatch { .. })), "{:?}", refused);
    }

    #[test]
    fn proofs_of_strangers_never_panic(
        index in any::<u64>(), size in any::<u64>(), new in any::<u64>(), length in 0_usize..70,
    ) {
        let proof = leaves(length as u64);
        let hash = leaf(0);
        prop_assert!(verify_inclusion(&hash, index, size, &proof, &hash).is_err());
        let _ = verify_consistency(size, &hash, new, &hash, &proof);
    }
}
