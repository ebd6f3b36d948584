//! Log entries: one fact has one encoding.

#![no_main]

use chancery_entry::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = Entry::decode(data) else { return };
    assert_eq!(entry.encode().expect("what was read can be written"), data);
});
