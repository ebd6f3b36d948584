//! Signed notes have one spelling; so have verifier keys, but for the case of the key id's digits.

#![no_main]

use chancery_tlog::note::{self, Note, VerifierKey};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The key whose signature stands in the seeds.
static KEYS: LazyLock<Vec<VerifierKey>> = LazyLock::new(|| {
    vec![VerifierKey::parse(include_str!("../seeds/vkey").trim_end()).expect("the seeds' key")]
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data)
        && let Ok(key) = VerifierKey::parse(text)
    {
        assert!(key.to_string().eq_ignore_ascii_case(text));
        assert_eq!(VerifierKey::parse(&key.to_string()), Ok(key));
    }
    let Ok(parsed) = Note::parse(data) else { return };
    assert_eq!(parsed.encode().as_bytes(), data);
    if let Ok(signers) = note::verify(&parsed, &KEYS) {
        assert_eq!(signers, [0]);
    }
});
