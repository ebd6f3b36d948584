//! Tile names, entry bundles, the builder, and proofs from tiles.

use proptest::prelude::*;

use super::*;

fn tile(level: u8, index: u64, width: u16) -> TileId {
    TileId { level, index, width }
}

#[test]
fn paths_are_those_of_the_specification() {
    for (path, id) in [
        ("tile/0/x001/x234/067", tile(0, 1_234_067, 256)),
        ("tile/0/000", tile(0, 0, 256)),
        ("tile/0/000.p/5", tile(0, 0, 5)),
        ("tile/63/999.p/255", tile(63, 999, 255)),
        ("tile/1/x001/000", tile(1, 1_000, 256)),
        ("tile/7/x018/x446/x744/x073/x709/x551/615", tile(7, u64::MAX, 256)),
    ] {
        assert_eq!(id.path(), path);
        assert_eq!(TileId::parse(path), Ok(id));
        assert_eq!(TilePath::parse(path), Ok(TilePath::Hashes(id)));
        assert!(EntriesTileId::parse(path).is_err(), "{path}");
    }
    let bundle = EntriesTileId { index: 1_234_067, width: 8 };
    let path = "tile/entries/x001/x234/067.p/8";
    assert_eq!(bundle.path(), path);
    assert_eq!(EntriesTileId::parse(path), Ok(bundle));
    assert_eq!(TilePath::parse(path), Ok(TilePath::Entries(bundle)));
    assert_eq!(TileId::parse(path), Err(Error::TilePath(path.to_owned())));
    assert_eq!(bundle.hashes(), tile(0, 1_234_067, 8));
}

#[test]
fn other_spellings_of_paths_are_refused() {
    for path in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile//000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/x001//002",
        "tile/0/x01/002",
        "tile/0/X001/002",
        "tile/0/+01",
        "tile/0/-01",
        "tile/00/000",
        "tile/64/000",
        "tile/256/000",
        "tile/-1/000",
        "tile/8/0/000",
        "tile/data/000",
        "tile/Entries/000",
        "tile/entries",
        "tile/entries/x000/000",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/05",
        "tile/0/000.p/256",
        "tile/0/000.p/65537",
        "tile/0/000.p/+5",
        "tile/0/000.p/5/",
        "tile/0/000.p/5.p/5",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000 ",
        "tile/0/000?x",
        "tile/0/\u{664}\u{664}\u{664}",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x001/x018/x446/x744/x073/x709/x551/615",
    ] {
        assert_eq!(TilePath::parse(path), Err(Error::TilePath(path.to_owned())), "{path}");
    }
    let long = TilePath::parse(&"x\n".repeat(100_000)).unwrap_err().to_string();
    assert!(long.len() < 400 && !long.contains('\n'), "{long}");
}

#[test]
fn a_tree_of_70000_has_the_tiles_of_the_specification() {
    let edge = tiles_for_size(70_000);
    assert_eq!(edge, [tile(0, 273, 112), tile(1, 1, 17), tile(2, 0, 1)]);
    let full: Vec<TileId> = new_full_tiles(0, 70_000).collect();
    let level_0 = (0..273).map(|index| tile(0, index, 256));
    assert_eq!(full, level_0.chain([tile(1, 0, 256)]).collect::<Vec<_>>());

    assert_eq!(tiles_for_size(0), []);
    assert_eq!(tiles_for_size(256), [tile(1, 0, 1)]);
    assert_eq!(new_full_tiles(255, 256).collect::<Vec<_>>(), [tile(0, 0, 256)]);
    assert_eq!(new_full_tiles(256, 511).count(), 0);
    assert_eq!(tiles_for_size(MAX_TREE_SIZE).len(), 8);
}

#[test]
fn tiles_are_within_a_tree_that_has_all_their_hashes() {
    assert_eq!(TileId::at(0, 273, 70_000), Some(tile(0, 273, 112)));
    assert_eq!(TileId::at(0, 272, 70_000), Some(tile(0, 272, 256)));
    assert_eq!(TileId::at(0, 274, 70_000), None);
    assert_eq!(TileId::at(3, 0, 70_000), None);
    assert_eq!(TileId::at(63, u64::MAX, u64::MAX), None);
    assert_eq!(EntriesTileId::at(273, 70_000), Some(EntriesTileId { index: 273, width: 112 }));
    assert!(tile(0, 273, 112).is_within(70_000));
    assert!(!tile(0, 273, 113).is_within(70_000));
    assert!(!tile(1, 0, 256).is_within(65_535));
    assert!(tile(1, 0, 256).is_within(65_536));
    assert!(EntriesTileId { index: 0, width: 1 }.is_within(1));
    assert!(!EntriesTileId { index: 0, width: 1 }.is_within(0));
    assert_eq!(tile(0, 273, 112).full(), tile(0, 273, 256));
    assert_eq!(tile(0, 273, 112).byte_len(), 112 * 32);
}

#[test]
fn bundles_hold_exactly_their_entries() {
    let mut bundle = Vec::new();
    encode_entry(&mut bundle, b"abc").unwrap();
    encode_entry(&mut bundle, b"").unwrap();
    assert_eq!(bundle, b"\x00\x03abc\x00\x00");
    assert_eq!(decode_entries(&bundle, 2), Ok(vec![b"abc".to_vec(), Vec::new()]));
    let bad = |width, reason| Err(Error::Bundle { width, reason });
    assert_eq!(decode_entries(&bundle, 1), bad(1, "bytes follow its last entry"));
    assert_eq!(decode_entries(&bundle, 3), bad(3, "it holds fewer"));
    assert_eq!(decode_entries(&bundle[..4], 1), bad(1, "its last entry is cut off"));
    assert_eq!(decode_entries(&bundle, 0), bad(0, "a bundle holds 1 to 256 entries"));
    assert_eq!(decode_entries(&bundle, 257), bad(257, "a bundle holds 1 to 256 entries"));

    let longest = vec![1; MAX_ENTRY_BYTES];
    let mut bundle = Vec::new();
    encode_entry(&mut bundle, &longest).unwrap();
    assert_eq!(encode_entry(&mut bundle, &vec![1; 65_536]), Err(Error::EntryLength(65_536)));
    assert_eq!(decode_entries(&bundle, 1), Ok(vec![longest]));
}

#[test]
fn builder_and_frontier_agree_and_tiles_hold_the_hashes_they_should() {
    let mut tiles = MemoryTiles::default();
    let mut frontier = Frontier::new();
    for index in 0..LARGE {
        if index % 509 == 0 || EDGES.contains(&index) {
            assert_eq!(tiles.builder.root(), frontier.root(), "{index}");
            let edge: Vec<TileId> = tiles.builder.edge().map(|(id, _)| id).collect();
            assert_eq!(edge, tiles_for_size(index));
            for (id, bytes) in tiles.builder.edge() {
                assert_eq!(bytes.len(), id.byte_len());
            }
            let mut full: Vec<_> = new_full_tiles(0, index).map(|t| (t.level, t.index)).collect();
            full.sort_unstable();
            let mut built: Vec<_> = tiles.full.keys().copied().collect();
            built.sort_unstable();
            assert_eq!(built, full);
        }
        tiles.append(leaf(index));
        frontier.append(leaf(index));
    }
    assert_eq!(tiles.builder.size(), LARGE);
    assert_eq!(tiles.builder.levels(), 3);
    assert_eq!(
        tiles.builder.partial(0).unwrap(),
        leaves(LARGE)[(LARGE - 3) as usize..]
            .iter()
            .map(|h| h.0)
            .collect::<Vec<_>>()
            .as_flattened()
    );
    assert_eq!(tiles.builder.partial(3), None);

    let second = leaves(512)[256..].to_vec();
    let bytes: Vec<u8> = second.iter().flat_map(|h| h.0).collect();
    assert_eq!(*tiles.full[&(0, 1)], bytes);
    assert_eq!(tiles.full[&(1, 0)][32..64], mth(&second).0);
}

#[test]
fn builder_goes_on_from_its_edge() {
    let whole = large();
    for size in EDGES.into_iter().chain([0, 1_000, 65_790]) {
        let mut resumed = MemoryTiles { full: HashMap::new(), ..large() };
        resumed.builder = TileBuilder::load(&whole, size).unwrap();
        assert_eq!(resumed.builder.size(), size);
        assert_eq!(resumed.builder.root(), root_from_tiles(&whole, size).unwrap());
        let until = (size + 600).min(LARGE);
        for index in size..until {
            resumed.append(leaf(index));
        }
        assert_eq!(resumed.builder.root(), root_from_tiles(&whole, until).unwrap(), "{size}");
        assert_eq!(resumed.full.len(), new_full_tiles(size, until).count());
        for (id, bytes) in &resumed.full {
            assert_eq!(bytes, &whole.full[id]);
        }
    }
}

#[test]
fn builder_refuses_an_edge_of_the_wrong_shape() {
    let refused = |size, edge: Vec<Vec<u8>>| TileBuilder::from_edge(size, edge).unwrap_err();
    assert_eq!(refused(300, vec![vec![]]), Error::EdgeLevels { size: 300, want: 2, got: 1 });
    assert_eq!(refused(0, vec![vec![]]), Error::EdgeLevels { size: 0, want: 0, got: 1 });
    let bad = |tile: &str, want, got| Error::TileBytes { tile: tile.to_owned(), want, got };
    let (one, two) = (vec![0; 32], vec![0; 64]);
    assert_eq!(refused(2, vec![one.clone()]), bad("tile/0/000.p/2", 64, 32));
    assert_eq!(refused(1, vec![two.clone()]), bad("tile/0/000.p/1", 32, 64));
    assert_eq!(refused(1, vec![vec![0; 33]]), bad("tile/0/000.p/1", 32, 33));
    assert_eq!(refused(256, vec![one.clone(), one.clone()]), bad("tile/0/001.p/0", 0, 32));
    assert!(TileBuilder::from_edge(257, vec![one.clone(), one]).is_ok());
    assert!(TileBuilder::from_edge(2, vec![vec![0; FULL_TILE_BYTES]]).is_ok());
}

#[test]
fn proofs_read_each_tile_once_and_take_full_tiles_for_partial_ones() {
    let tiles = large();
    let full = MemoryTiles { offer_full: true, ..large() };
    for size in EDGES {
        let root = root_from_tiles(&tiles, size).unwrap();
        assert_eq!(root_from_tiles(&full, size), Ok(root));
        for index in [0, size / 2, size - 1] {
            tiles.reads.set(0);
            let proof = inclusion_proof(&tiles, index, size).unwrap();
            assert!(tiles.reads.get() <= 6, "{} reads at {size}", tiles.reads.get());
            assert_eq!(inclusion_proof(&full, index, size), Ok(proof.clone()));
            let hash = leaf_from_tiles(&tiles, index, size).unwrap();
            assert_eq!(hash, leaf(index));
            assert_eq!(verify_inclusion(&hash, index, size, &proof, &root), Ok(()));
        }
    }
}

#[test]
fn proofs_say_why_they_cannot_be_made() {
    let tiles = large();
    let beyond = |index, size| Err(ProofError::Log(Error::IndexBeyondSize { index, size }));
    assert_eq!(inclusion_proof(&tiles, 5, 5), beyond(5, 5));
    assert_eq!(leaf_from_tiles(&tiles, 5, 5).map(|_| Vec::new()), beyond(5, 5));
    assert_eq!(
        consistency_proof(&tiles, 6, 5),
        Err(ProofError::Log(Error::SizesReversed { old: 6, new: 5 }))
    );
    let missing = inclusion_proof(&tiles, 0, LARGE + 1).unwrap_err();
    assert_eq!(missing, ProofError::Source("no tile/0/257.p/4".to_owned()));
    assert_eq!(missing.to_string(), "could not read a tile: no tile/0/257.p/4");

    struct Short;
    impl TileSource for Short {
        type Error = String;
        fn tile(&self, id: TileId) -> Result<Vec<u8>, String> {
            Ok(vec![0; id.byte_len() - 1])
        }
    }
    let refused = Error::TileBytes { tile: "tile/0/000.p/5".to_owned(), want: 160, got: 159 };
    assert_eq!(inclusion_proof(&&Short, 0, 5), Err(ProofError::Log(refused)));
}

proptest! {
    #[test]
    fn paths_round_trip(level in 0_u8..64, index in any::<u64>(), shift in 0_u32..64, width in 1_u16..=256) {
        let id = tile(level, index >> shift, width);
        prop_assert_eq!(TileId::parse(&id.path()), Ok(id));
        let bundle = EntriesTileId { index: id.index, width };
        prop_assert_eq!(TilePath::parse(&bundle.path()), Ok(TilePath::Entries(bundle)));
    }

    #[test]
    fn a_path_that_is_accepted_is_the_one_that_is_written(
        path in "tile/(entries|[0-9]{1,3})(/x?[0-9]{1,4}){1,3}(\\.p/[0-9]{1,3})?",
    ) {
        if let Ok(id) = TilePath::parse(&path) {
            prop_assert_eq!(id.path(), path);
        }
    }

    #[test]
    fn bundles_round_trip(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..=256)) {
        let mut bundle = Vec::new();
        for entry in &entries {
            encode_entry(&mut bundle, entry).unwrap();
        }
        prop_assert_eq!(decode_entries(&bundle, entries.len()), Ok(entries));
    }

    #[test]
    fn bundles_of_strangers_are_decoded_or_refused(bytes in prop::collection::vec(0_u8..3, 0..600), width in 0_usize..300) {
        if let Ok(entries) = decode_entries(&bytes, width) {
            let mut bundle = Vec::new();
            for entry in &entries {
                encode_entry(&mut bundle, entry).unwrap();
            }
            prop_assert_eq!(bundle, bytes);
        }
    }

    /// Every hash of a leaf's own level 0 tile takes part in the walk from that leaf to the root, and
    /// so does every hash of the tile above, except the one that the walk itself arrives at.
    #[test]
    fn a_flipped_bit_in_a_tile_gives_no_proof(
        size in 1_u64..=LARGE, index in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(), above in any::<bool>(),
    ) {
        let index = index.index(size as usize) as u64;
        let mut tiles = large();
        let root = root_from_tiles(&tiles, size).unwrap();
        let at = if above { TileId::at(1, index / 65_536, size) } else { None };
        let id = at.unwrap_or_else(|| TileId::at(0, index / 256, size).unwrap());
        let bytes = tiles.tile(id).unwrap();
        let bit = bit.index(bytes.len() * 8);
        prop_assume!(id.level == 0 || bit as u64 / 256 != index / 256 % 256);
        tiles.full.insert((id.level, id.index), Arc::new(flip(&bytes, bit)));
        let hash = leaf_from_tiles(&tiles, index, size).unwrap();
        let proof = inclusion_proof(&tiles, index, size).unwrap();
        prop_assert_eq!(
            verify_inclusion(&hash, index, size, &proof, &root),
            Err(Error::RootMismatch { size })
        );
    }
}
