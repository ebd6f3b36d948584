//! What a witness and its clients read of each other: one spelling each, and a verdict on all of it.

#![no_main]

use chancery_tlog::Hash;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::witness::{
    AddCheckpoint, Answer, Latest, Refusal, SIZE_CONTENT_TYPE, encode_signatures, encode_size,
    judge, judge_answer, parse_signatures, parse_size,
};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The keys whose signatures stand in the seeds: the log's, and of each type one of a cosigner.
static KEYS: LazyLock<Vec<VerifierKey>> = LazyLock::new(|| {
    let lines = include_str!("../seeds/witness_vkeys").lines();
    lines.map(|line| VerifierKey::parse(line).expect("the seeds' keys")).collect()
});

/// A request that the answers of the seeds are for.
static REQUEST: LazyLock<AddCheckpoint> = LazyLock::new(|| {
    AddCheckpoint::parse(include_bytes!("../seeds/witness_request/first")).expect("a request")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(lines) = parse_signatures(data) {
        assert_eq!(encode_signatures(&lines).expect("lines that were read").as_bytes(), data);
        if let Ok(Answer::Cosigned(lines)) = judge_answer(&REQUEST, &KEYS[1..], 200, None, data) {
            assert!(!lines.is_empty() && lines.iter().all(|line| line.timestamp > 0));
        }
    }
    if let Ok(size) = parse_size(data) {
        assert_eq!(encode_size(size).as_bytes(), data);
        judge_answer(&REQUEST, &KEYS[1..], 409, Some(SIZE_CONTENT_TYPE), data).expect("a size");
    }
    let Ok(request) = AddCheckpoint::parse(data) else { return };
    assert_eq!(request.encode().as_bytes(), data);
    let seen = Latest { size: request.old_size(), root: Hash([7; 32]) };
    for latest in [None, Some(&seen)] {
        match judge(&request, &KEYS[..1], latest) {
            Ok(approved) => {
                assert_eq!(&approved.checkpoint, request.checkpoint());
                assert_eq!(request.old_size(), latest.map_or(0, |seen| seen.size));
                AddCheckpoint::new(0, Vec::new(), approved.note).expect("a signed checkpoint");
            }
            Err(refusal) => {
                assert!(matches!(refusal.status(), 400 | 403 | 404 | 409 | 422));
                assert!(!matches!(refusal, Refusal::UnknownOrigin | Refusal::Malformed(_)));
            }
        }
    }
});
