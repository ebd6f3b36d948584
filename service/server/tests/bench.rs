//! The benchmarks run to their ends and say what they promise. Their figures are not judged here: a
//! debug build on a busy machine has none worth the name.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::path::Path;

use chancery_testkit::Lab;
use serde_json::Value;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");

/// Runs a benchmark with `--json` and, for `issue`, in a folder of its own.
fn bench(arguments: &[&str], folder: Option<&Path>) -> Value {
    let lab = Lab::new(CHANCERY);
    let mut all = vec!["bench"];
    all.extend(arguments);
    all.push("--json");
    if let Some(folder) = folder {
        all.extend(["--data", folder.to_str().unwrap()]);
    }
    let output = lab.run_plain(&all);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("chancery-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[track_caller]
fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    assert!(found.is_some(), "no number at {path} in {value}");
    found.unwrap()
}

#[test]
fn issuing_is_measured_with_a_witness_too() {
    let place = folder("bench-witnessed");
    let arguments =
        ["issue", "--seconds", "1", "--connections", "4", "--batch", "4", "--witnessed"];
    let report = bench(&arguments, Some(&place));
    assert!(number(&report, "/figures/0/tokens") > 0.0);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "the folder is removed");
    fs::remove_dir(place).unwrap();
}

#[test]
fn issuing_is_measured_beside_the_raw_costs() {
    for (batch, ratios) in [("4", 2), ("1", 3)] {
        let place = folder("bench-issue");
        let arguments = ["issue", "--seconds", "1", "--connections", "4", "--batch", batch];
        let report = bench(&arguments, Some(&place));
        for path in [
            "/quiet/sign_us",
            "/quiet/verify_us",
            "/quiet/sync/p99_us",
            "/figures/0/tokens",
            "/figures/0/tokens_per_s",
            "/figures/0/latency/p99_ms",
            "/figures/0/cpu/service_us",
            "/figures/0/cpu/signer_us",
            "/figures/0/disk/logged_bytes_per_token",
            "/figures/0/disk/stored_bytes_per_token",
            "/figures/0/raw/sign_us",
            "/figures/0/raw/sync/p50_us",
            "/figures/0/half/tokens_per_s",
            "/figures/0/half/latency/p50_ms",
        ] {
            assert!(number(&report, path) > 0.0, "{path}: {report}");
        }
        let compared = report.pointer("/figures/0/ratios").unwrap().as_array().unwrap();
        assert_eq!(compared.len(), ratios, "{report}");
        // An entry has some 80 bytes, a leaf hash 32: whatever else it is, it is not less.
        assert!(number(&report, "/figures/0/disk/logged_bytes_per_token") >= 80.0);
        assert!(number(&report, "/figures/0/disk/stored_bytes_per_token") >= 110.0);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "the bench leaves nothing behind");
        fs::remove_dir(&place).unwrap();
    }
}

#[test]
fn no_token_is_refused_because_of_rotation_under_load() {
    let place = folder("bench-rotation");
    let arguments =
        ["issue", "--seconds", "4", "--connections", "8", "--batch", "4", "--rotate-every", "1"];
    let report = bench(&arguments, Some(&place));
    assert!(number(&report, "/rotations/0/validated") > 0.0, "{report}");
    assert!(number(&report, "/rotations/0/failed") == 0.0, "{report}");
    assert!(number(&report, "/rotations/0/keys") >= 4.0, "{report}");
    fs::remove_dir(&place).unwrap();
}

#[test]
fn validation_is_measured_beside_the_raw_verification() {
    let arguments = ["validate", "--seconds", "1", "--algorithm", "Ed25519"];
    let report = bench(&arguments, None);
    assert_eq!(report.pointer("/0/algorithm"), Some(&Value::from("Ed25519")));
    let ratio = number(&report, "/0/ratio");
    assert!(ratio > 0.0 && ratio <= 1.2, "a validation includes a verification: {report}");
}
