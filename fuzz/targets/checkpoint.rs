//! Checkpoints, as text and as signed notes: each text has one meaning and one spelling.

#![no_main]

use chancery_tlog::Checkpoint;
use chancery_tlog::note::VerifierKey;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The key whose signature stands in the seeds.
static KEYS: LazyLock<Vec<VerifierKey>> = LazyLock::new(|| {
    vec![VerifierKey::parse(include_str!("../seeds/vkey").trim_end()).expect("the seeds' key")]
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.body(), text);
    }
    if let Ok((checkpoint, note)) = Checkpoint::open(data, &KEYS) {
        assert_eq!(checkpoint.body(), note.text);
        assert_eq!(checkpoint.origin, KEYS[0].name());
    }
});
