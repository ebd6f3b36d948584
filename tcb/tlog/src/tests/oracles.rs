//! Other people's implementations must agree: `tlog_tiles` and `signed_note` (ports of Go's sumdb)
//! and `ct-merkle`.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use signed_note::{Signer as _, Verifier as _};

use super::*;

/// Sizes up to [`LARGE`], the interesting ones often.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![prop::sample::select(EDGES.as_slice()), 1..2_000_u64, 1..=LARGE]
}

/// The hashes of the large tree in the oracle's own storage order.
struct Stored(Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|at| self.0[*at as usize]).collect())
    }
}

fn stored() -> &'static Stored {
    static STORED: OnceLock<Stored> = OnceLock::new();
    STORED.get_or_init(|| {
        let mut stored = Stored(Vec::new());
        for index in 0..LARGE {
            let new = tlog_tiles::stored_hashes(index, &entry(index), &stored).unwrap();
            stored.0.extend(new);
        }
        stored
    })
}

fn theirs(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(hash.0)
}

fn all_theirs(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(theirs).collect()
}

proptest! {
    #[test]
    fn roots_and_proofs_are_those_of_tlog_tiles(
        size in size(), index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>(),
    ) {
        let (tiles, stored) = (large(), stored());
        let root = root_from_tiles(&tiles, size).unwrap();
        prop_assert_eq!(theirs(&root), tlog_tiles::tree_hash(size, stored).unwrap());

        let index = index.index(size as usize) as u64;
        let proof = inclusion_proof(&tiles, index, size).unwrap();
        prop_assert_eq!(
            all_theirs(&proof),
            tlog_tiles::prove_record(size, index, stored).unwrap()
        );
        let hash = theirs(&leaf(index));
        tlog_tiles::check_record(&all_theirs(&proof), size, theirs(&root), index, hash).unwrap();
        prop_assert_eq!(verify_inclusion(&leaf(index), index, size, &proof, &root), Ok(()));

        let old = 1 + old.index(size as usize) as u64;
        let proof = consistency_proof(&tiles, old, size).unwrap();
        prop_assert_eq!(all_theirs(&proof), tlog_tiles::prove_tree(size, old, stored).unwrap());
        let old_root = root_from_tiles(&tiles, old).unwrap();
        tlog_tiles::check_tree(&all_theirs(&proof), size, theirs(&root), old, theirs(&old_root))
            .unwrap();
        prop_assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()));
    }

    #[test]
    fn tiles_are_those_of_tlog_tiles(old in size(), new in size()) {
        let (old, new) = (old.min(new), old.max(new));
        let tiles = large();
        let mut ours: Vec<TileId> = new_full_tiles(old, new).collect();
        let unchanged = tiles_for_size(old);
        ours.extend(tiles_for_size(new).into_iter().filter(|id| !unchanged.contains(id)));
        ours.sort_unstable_by_key(|id| (id.level, id.index));
        let expected = tlog_tiles::Tile::new_tiles(8, old, new);
        // Their paths say the height, which is always 8 in C2SP's.
        let paths: Vec<String> = ours.iter().map(TileId::path).collect();
        let their_paths: Vec<String> =
            expected.iter().map(|t| t.path().replacen("tile/8/", "tile/", 1)).collect();
        prop_assert_eq!(paths, their_paths);
        if let (Some(id), Some(tile)) = (ours.last(), expected.last()) {
            prop_assert_eq!(tiles.tile(*id).unwrap(), tile.read_data(stored()).unwrap());
        }
        if let (Some(id), Some(tile)) = (ours.first(), expected.first()) {
            prop_assert_eq!(tiles.tile(*id).unwrap(), tile.read_data(stored()).unwrap());
        }
    }

    #[test]
    fn roots_and_proofs_are_those_of_ct_merkle(
        size in 1_u64..600, index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>(),
    ) {
        let mut tree = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
        for index in 0..size {
            tree.push(entry(index));
        }
        let tiles = large();
        let bytes = |hashes: &[Hash]| hashes.iter().flat_map(|h| h.0).collect::<Vec<u8>>();
        let root = root_from_tiles(&tiles, size).unwrap();
        let their_root = tree.root();
        prop_assert_eq!(root.0.as_slice(), their_root.as_bytes().as_slice());
        let index = index.index(size as usize);
        let ours = inclusion_proof(&tiles, index as u64, size).unwrap();
        let proof = tree.prove_inclusion(index);
        prop_assert_eq!(bytes(&ours), proof.as_bytes());
        let old = 1 + old.index(size as usize) as u64;
        let ours = consistency_proof(&tiles, old, size).unwrap();
        let proof = tree.prove_consistency((size - old) as usize);
        prop_assert_eq!(bytes(&ours), proof.as_bytes());
    }

    #[test]
    fn notes_of_either_side_verify_on_the_other(
        text in "[a-zA-Z0-9 \n\u{20ac}\u{2014}+=]{0,200}", name in "[a-z./]{1,40}", seed in any::<u8>(),
    ) {
        let text = format!("{text}\n");
        let ours = Signer::new(&name, seed);
        let id = u32::from_be_bytes(ours.key.key_id());
        let secret = text::to_base64(&[&[1], [seed; 32].as_slice()].concat());
        let skey = format!("PRIVATE+KEY+{name}+{id:08x}+{secret}");
        let their_signer = signed_note::StandardSigner::new(&skey).unwrap();
        let their_key = signed_note::StandardVerifier::new(&ours.key.to_string()).unwrap();
        prop_assert_eq!(their_signer.key_id(), id);

        let note = ours.note(&text);
        let mut their_note = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
        their_note.add_sigs(&[&their_signer]).unwrap();
        prop_assert_eq!(note.as_bytes(), their_note.to_bytes());

        let read = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        prop_assert_eq!(read.text(), text.as_bytes());
        let known = signed_note::VerifierList::new(vec![Box::new(their_key.clone())]);
        read.verify(&known).unwrap();
        let signature = &Note::parse(note.as_bytes()).unwrap().signatures[0].bytes;
        prop_assert!(their_key.verify(text.as_bytes(), signature));
        prop_assert!(ours.key.verify(text.as_bytes(), signature));
    }

    /// What is accepted here is accepted there and means the same; the reverse need not hold.
    #[test]
    fn a_damaged_note_is_read_as_the_other_side_reads_it(
        at in any::<prop::sample::Index>(), with in prop_oneof![any::<u8>(), Just(b'\n'), Just(b' '), Just(b'+')],
    ) {
        let mut bytes = Signer::new("example.com/log", 1).note("some\n\ntext\n").into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(ours) = Note::parse(&bytes) {
            let theirs = signed_note::Note::from_bytes(&bytes).unwrap();
            prop_assert_eq!(ours.text.as_bytes(), theirs.text());
            prop_assert_eq!(ours.encode().into_bytes(), theirs.to_bytes());
            prop_assert_eq!(ours.encode().into_bytes(), bytes);
        }
    }

    #[test]
    fn checkpoints_are_those_of_tlog_tiles(size in 1..=MAX_TREE_SIZE, index in any::<u64>()) {
        let checkpoint = Checkpoint::new("example.com/log", size, leaf(index)).unwrap();
        let read = tlog_tiles::Checkpoint::from_bytes(checkpoint.body().as_bytes()).unwrap();
        prop_assert_eq!(read.origin(), "example.com/log");
        prop_assert_eq!(read.size(), size);
        prop_assert_eq!(*read.hash(), theirs(&checkpoint.root));
        prop_assert_eq!(read.extension(), "");
    }
}
