//! Segments of the write-ahead log as a crash or a hostile disk may leave them. The first byte says
//! how many segments the rest is cut into, 1 to 3.

#![no_main]

use chancery::wal::recover_bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((count, bytes)) = data.split_first() else { return };
    let count = usize::from(*count % 3) + 1;
    let segments: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(count).max(1)).collect();
    let Ok(records) = recover_bytes(&segments) else { return };
    let sequences: Vec<u64> = records.iter().map(|r| r.sequence).collect();
    assert!(sequences.windows(2).all(|w| w[0] + 1 == w[1]), "no hole: {sequences:?}");
    let payloads: usize = records.iter().map(|r| r.payload.len()).sum();
    assert!(payloads <= bytes.len());
});
