//! Entry bundles: the first byte is the expected number of entries less one, the rest the bundle.

#![no_main]

use chancery_tlog::{decode_entries, encode_entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((width, bundle)) = data.split_first() else { return };
    let width = usize::from(*width) + 1;
    let Ok(entries) = decode_entries(bundle, width) else { return };
    assert_eq!(entries.len(), width);
    let mut again = Vec::new();
    for entry in &entries {
        encode_entry(&mut again, entry).expect("its length was 16 bits");
    }
    assert_eq!(again, bundle);
});
