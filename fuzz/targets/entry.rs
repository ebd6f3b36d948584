//! Log entries: one fact has one encoding, and no entry of a signer's log is one of a directory.

#![no_main]

use chancery_entry::Entry;
use chancery_entry::directory::DirectoryEntry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(entry) = DirectoryEntry::decode(data) {
        assert_eq!(entry.encode().expect("what was read can be written"), data);
        assert!(Entry::decode(data).is_err());
    }
    let Ok(entry) = Entry::decode(data) else { return };
    assert_eq!(entry.encode().expect("what was read can be written"), data);
});
