//! Policies: what is read is written and read as the same, and evaluating it ends.

#![no_main]

use chancery_tlog::note::Note;
use chancery_tlog::policy::Policy;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// A checkpoint that the log and the witnesses of the seeds signed.
static COSIGNED: LazyLock<Note> = LazyLock::new(|| {
    Note::parse(include_bytes!("../seeds/cosignature/both")).expect("the seeds' checkpoint")
});

fuzz_target!(|data: &[u8]| {
    let Ok(policy) = Policy::parse(data) else { return };
    assert_eq!(Policy::parse(policy.encode()).as_ref(), Ok(&policy));
    let Ok(evaluation) = policy.evaluate(&COSIGNED, &[]) else { return };
    assert!(evaluation.quorum_met || policy.quorum().is_some());
    let accepted = policy.open(COSIGNED.encode().as_bytes(), &[]);
    assert_eq!(accepted.is_ok(), evaluation.quorum_met && !evaluation.logs.is_empty());
});
