//! Cosigned notes: verifying any of them ends, and what verifies has a time that may be signed.

#![no_main]

use chancery_tlog::cosignature::{self, MAX_TIMESTAMP};
use chancery_tlog::note::{self, Note, VerifierKey};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The keys whose signatures stand in the seeds: the log's, and of each type one of a cosigner.
static KEYS: LazyLock<Vec<VerifierKey>> = LazyLock::new(|| {
    let lines = include_str!("../seeds/witness_vkeys").lines();
    lines.map(|line| VerifierKey::parse(line).expect("the seeds' keys")).collect()
});

fuzz_target!(|data: &[u8]| {
    let Ok(parsed) = Note::parse(data) else { return };
    for key in KEYS.iter() {
        let message = cosignature::message(key, 1, &parsed.text);
        assert!(message.is_err() || key.key_type().is_cosignature());
        for signature in &parsed.signatures {
            if let Ok(timestamp) = cosignature::verify(key, &parsed.text, &signature.bytes) {
                assert!(timestamp <= MAX_TIMESTAMP && message.is_ok());
            }
        }
    }
    for signer in note::signers(&parsed, &KEYS).unwrap_or_default() {
        let is_cosigner = KEYS[signer.key].key_type().is_cosignature();
        assert_eq!(signer.timestamp.is_some(), is_cosigner);
    }
});
