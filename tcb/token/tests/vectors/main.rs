//! Published test vectors: what others say is valid or not, against this crate.
//!
//! Those of JOSE are part of the repository (`data/SOURCES.md`). Wycheproof's long files of signatures
//! are not: they are looked for where the environment variable `CHANCERY_VECTORS` says, else beside the
//! workspace; where they are absent each of their tests says so and passes. `cargo xtask vectors` gets
//! them, and CI runs it. `exceptions.txt` lists every case in which this crate disagrees, with the
//! reason; a case that is listed and agrees fails, too, so the list cannot rot.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code stops at the first surprise"
)]
#![expect(clippy::indexing_slicing, reason = "vectors have the shape that their schema says")]

mod jose;
mod primitives;
mod rfc;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// The vectors' folder, if it is there.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("CHANCERY_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors")),
        PathBuf::from,
    );
    if folder.is_dir() {
        Some(folder)
    } else {
        eprintln!("skipped: vectors not present");
        None
    }
}

/// One file of vectors; a missing file in a present folder is a fault.
fn load(file: &str) -> Option<Value> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/data")).join(file);
    let is_own = ["jose/", "mldsa/ML_DSA_"].iter().any(|p| file.starts_with(p));
    let path = if is_own { own } else { folder()?.join(file) };
    let text = std::fs::read(path).expect(file);
    Some(serde_json::from_slice(&text).expect(file))
}

/// The files that [`run`] reads.
const FILES: [&str; 16] = [
    "jose/json_web_crypto_test.json",
    "jose/json_web_key_test.json",
    "jose/json_web_signature_test.json",
    "mldsa/mldsa_44_sign_seed_test.json",
    "mldsa/mldsa_44_verify_test.json",
    "mldsa/mldsa_65_sign_seed_test.json",
    "mldsa/mldsa_65_verify_test.json",
    "mldsa/mldsa_87_sign_seed_test.json",
    "mldsa/mldsa_87_verify_test.json",
    "sig-primitives/ecdsa_secp256r1_sha256_p1363_test.json",
    "sig-primitives/ecdsa_secp384r1_sha384_p1363_test.json",
    "sig-primitives/ed25519_test.json",
    "sig-primitives/rsa_pss_2048_sha256_mgf1_32_test.json",
    "sig-primitives/rsa_pss_3072_sha256_mgf1_32_test.json",
    "sig-primitives/rsa_signature_2048_sha256_test.json",
    "sig-primitives/rsa_signature_3072_sha256_test.json",
];

/// The exceptions for `file`: test number and reason.
fn exceptions(file: &str) -> BTreeMap<u64, &'static str> {
    let mut exceptions = BTreeMap::new();
    for line in include_str!("exceptions.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let mut fields = line.splitn(3, ' ');
        let (name, range, reason) =
            (fields.next().unwrap(), fields.next().expect(line), fields.next().expect(line));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for number in first.parse().expect(line)..=last.parse::<u64>().expect(line) {
            assert!(FILES.contains(&name), "exception for a file that is not run: {line}");
            if name == file {
                assert_eq!(exceptions.insert(number, reason), None, "listed twice: {line}");
            }
        }
    }
    exceptions
}

/// Runs a Wycheproof file: `prepare` makes what the tests of a group share, `accepts` judges one.
fn run<T>(file: &str, prepare: impl Fn(&Value) -> T, accepts: impl Fn(&T, &Value) -> bool) {
    assert!(FILES.contains(&file), "{file} is missing in FILES");
    let Some(vectors) = load(file) else { return };
    let mut exceptions = exceptions(file);
    let mut faults = Vec::new();
    let mut count = 0_u64;
    for group in vectors["testGroups"].as_array().unwrap() {
        let prepared = prepare(group);
        for test in group["tests"].as_array().unwrap() {
            count += 1;
            let number = test["tcId"].as_u64().unwrap();
            // `acceptable` marks what lenient readers take; this crate takes none of it.
            let expected = test["result"] == "valid";
            let accepted = accepts(&prepared, test);
            match (accepted == expected, exceptions.remove(&number)) {
                (true, None) | (false, Some(_)) => {}
                (false, None) => faults
                    .push(format!("{file} {number} accepted: {accepted} ({})", test["comment"])),
                (true, Some(reason)) => {
                    faults.push(format!("{file} {number} stale exception: {reason}"))
                }
            }
        }
    }
    assert_eq!(Some(count), vectors["numberOfTests"].as_u64());
    faults.extend(
        exceptions.keys().map(|number| format!("{file} {number} exception without a test")),
    );
    assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
}

fn hex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
