//! `chancery attest`, as a person runs it, on evidence that real hardware made.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// 2026-06-01: the VCEK of the sample is valid from February on.
const AT: &str = "1780272000";

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../attest/tests/samples").join(name)
}

fn attest(arguments: &[&str], files: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
    command.arg("attest").args(arguments);
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The TOML of docs/attestation.md, so that it stays what was tried: a whole policy, and the tables
/// with their defaults.
fn documented(which: usize) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/attestation.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let block = text.split("```toml\n").nth(which + 1).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

fn documented_policy() -> String {
    documented(0)
}

/// A folder that goes away with the test.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chancery-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn policy(&self, text: &str) -> PathBuf {
        let path = self.0.join("policy.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn verify_other(&self, name: &str, policy: &str) -> Output {
        let policy = self.policy(policy);
        let files = [("--evidence", &*sample(name)), ("--policy", &*policy)];
        attest(&["verify", "--at", AT], &files)
    }

    fn verify(&self, more: &[&str], policy: &str) -> Output {
        let policy = self.policy(policy);
        let data = report_data();
        let arguments = [&["verify", "--at", AT, "--report-data", &data], more].concat();
        attest(
            &arguments,
            &[
                ("--evidence", &sample("snp_milan_report.bin")),
                ("--certificate", &sample("snp_milan_vcek.pem")),
                ("--policy", &policy),
            ],
        )
    }
}

fn report_data() -> String {
    let report = std::fs::read(sample("snp_milan_report.bin")).unwrap();
    report[0x50..0x90].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn show_says_what_is_there_and_that_nothing_is_verified() {
    let report = sample("snp_milan_report.bin");
    let shown = attest(&["show", report.to_str().unwrap()], &[]);
    assert_eq!(shown.status.code(), Some(0), "{}", err(&shown));
    assert!(out(&shown).starts_with("snp evidence; nothing is verified here\n"), "{}", out(&shown));
    assert!(out(&shown).contains(&report_data()));
    let nitro = sample("nitro.cose");
    let shown = attest(&["show", "--json", nitro.to_str().unwrap()], &[]);
    let document: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&document["kind"], &document["verified"]), (&"nitro".into(), &false.into()));
    assert_eq!(document["fields"]["certificate"].as_array().map(Vec::len), Some(5));
}

#[test]
fn the_documented_policy_accepts_the_sample() {
    let place = Place::new("attest-accepts");
    let accepted = place.verify(&[], &documented_policy());
    assert_eq!(accepted.status.code(), Some(0), "{}{}", out(&accepted), err(&accepted));
    assert!(out(&accepted).ends_with("accepted: snp evidence of the recorded sample\n"));
    let json = place.verify(&["--json"], &documented_policy());
    let document: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["accepted"], true);
    assert_eq!(document["backing"], "confidential-hardware");
    assert_eq!(document["checks"][0]["name"], "snp_report_signature");
}

#[test]
fn a_refusal_is_an_answer_with_its_reason() {
    let place = Place::new("attest-refuses");
    let stricter = documented_policy().replace("microcode = 219", "microcode = 220");
    let refused = place.verify(&[], &stricter);
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).contains("FAILED snp_minimum_tcb"), "{}", out(&refused));
    assert!(out(&refused).ends_with("refused: 1 of 18 checks failed\n"), "{}", out(&refused));
}

#[test]
fn what_cannot_be_judged_is_neither() {
    let place = Place::new("attest-cannot");
    let wrong = documented_policy().replace("kinds =", "kinds_ =");
    let unread = place.verify(&[], &wrong);
    assert_eq!(unread.status.code(), Some(2));
    assert!(err(&unread).contains("policy.toml`: line "), "{}", err(&unread));

    let policy = place.policy(&documented_policy());
    let report = sample("snp_milan_report.bin");
    let verify = ["verify", "--at", AT];
    let bare = attest(&verify, &[("--evidence", &report), ("--policy", &policy)]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(err(&bare).contains("certificate of the signing key"), "{}", err(&bare));
    let other = attest(&verify, &[("--evidence", &policy), ("--policy", &policy)]);
    assert_eq!(other.status.code(), Some(2));
    assert!(err(&other).contains("no evidence that is known here"), "{}", err(&other));
    let wrong = [("--evidence", &*report), ("--policy", &*policy), ("--collateral", &*policy)];
    let wrong = attest(&verify, &wrong);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("`snp` evidence takes no collateral"), "{}", err(&wrong));
}

#[test]
fn the_documented_defaults_are_read() {
    let place = Place::new("attest-defaults");
    let zeros = "00".repeat(48);
    let policy = format!(
        "version = 1\nkinds = [\"nitro\"]\n{}[[reference]]\nrelease = \"r\"\nkind = \"nitro\"\n\
         registers = {{ pcr0 = \"{zeros}\" }}\n",
        documented(1)
    );
    let refused = place.verify_other("nitro.cose", &policy);
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    assert!(out(&refused).contains("FAILED nitro_age"), "{}", out(&refused));
}
