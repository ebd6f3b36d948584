//! Offline proofs: one spelling each, and verifying any of them ends.

#![no_main]

use chancery_tlog::note::VerifierKey;
use chancery_tlog::{TlogProof, leaf_hash};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The key whose signature stands in the seeds.
static KEYS: LazyLock<Vec<VerifierKey>> = LazyLock::new(|| {
    vec![VerifierKey::parse(include_str!("../seeds/vkey").trim_end()).expect("the seeds' key")]
});

fuzz_target!(|data: &[u8]| {
    let Ok(proof) = TlogProof::parse(data) else { return };
    assert_eq!(proof.encode().as_bytes(), data);
    if let Ok(checkpoint) = proof.verify(&leaf_hash(b"entry 5"), &KEYS) {
        assert!(proof.index < checkpoint.size);
    }
});
