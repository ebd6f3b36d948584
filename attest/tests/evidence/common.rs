//! Where the evidence is, and how a test says what it expects.

use std::path::PathBuf;

use base64::Engine as _;
use chancery_attest::{AttestationResult, Base64, Error, Evidence, Policy, appraise};

/// The bytes of a file of the vectors; `None`, said aloud, where there are none.
pub fn vector(path: &str) -> Option<Vec<u8>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = std::env::var_os("CHANCERY_VECTORS").map_or_else(beside, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: vectors not present");
        return None;
    }
    let file = folder.join(path);
    Some(std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())))
}

/// The DER of the first certificate of a PEM or DER file.
pub fn certificate(bytes: &[u8]) -> Base64 {
    certificates(bytes).remove(0)
}

/// The DER of every certificate of a PEM file, or of a DER file.
pub fn certificates(bytes: &[u8]) -> Vec<Base64> {
    if !bytes.starts_with(b"-----BEGIN") {
        return vec![Base64(bytes.to_vec())];
    }
    let text = std::str::from_utf8(bytes).unwrap();
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let decode = |block: &str| {
        let body: String = block.split("-----END").next().unwrap().split_whitespace().collect();
        Base64(base64::engine::general_purpose::STANDARD.decode(body).unwrap())
    };
    blocks.map(decode).collect()
}

/// The result, or a test that fails.
pub fn judged(
    evidence: &Evidence,
    policy: &str,
    at: u64,
    data: Option<&[u8]>,
) -> AttestationResult {
    let policy = Policy::parse(policy).expect("the test's policy");
    appraise(evidence, &policy, at, data).expect("a judgement")
}

/// The names of the checks that failed; `malformed` or `missing` where nothing could be judged.
pub fn failed(evidence: &Evidence, policy: &str, at: u64, data: Option<&[u8]>) -> Vec<String> {
    let policy = Policy::parse(policy).expect("the test's policy");
    match appraise(evidence, &policy, at, data) {
        Ok(result) => {
            let names: Vec<String> = result.failures().map(|c| c.name.to_owned()).collect();
            assert_eq!(result.accepted, names.is_empty());
            names
        }
        Err(Error::Malformed { .. }) => vec!["malformed".to_owned()],
        Err(Error::Missing { .. }) => vec!["missing".to_owned()],
        Err(other) => panic!("{other}"),
    }
}

/// Asserts that it is accepted, showing what failed otherwise.
pub fn assert_accepted(result: &AttestationResult) {
    let failures: Vec<_> = result.failures().collect();
    assert!(result.accepted && failures.is_empty(), "{failures:#?}");
}

/// Flips one bit.
pub fn flipped(bytes: &[u8], at: usize, bit: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes
}
