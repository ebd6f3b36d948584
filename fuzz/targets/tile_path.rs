//! Tile paths: each tile has one path.

#![no_main]

use chancery_tlog::TilePath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(tile) = TilePath::parse(text) else { return };
    assert_eq!(tile.path(), text);
    if let TilePath::Hashes(hashes) = tile {
        assert!(hashes.byte_len() > 0);
        assert!(hashes.full().is_full());
    }
});
