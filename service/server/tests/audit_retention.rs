//! Retention from outside: what is too old goes and the log says so, what is held stays, and whoever
//! checks the audit knows one from the other.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chancery_audit::keys::Identity;
use chancery_audit::{Outcome, Record, segment};
use chancery_signer_api::AuditSegment;
use chancery_testkit::{Lab, wait_until};
use serde_json::{Value, json};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
/// A log of a signer that died long ago.
const LOG: [u8; 16] = [42; 16];
const DAY_H: u64 = 24;

fn now_hour() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600
}

/// Leaves a segment of an hour as a service leaves it that died before it was logged.
fn plant(lab: &Lab, number: u64, first: u64, hour: u64) -> PathBuf {
    let key = std::fs::read_to_string(lab.data().join("audit.key")).unwrap();
    let recipients = [Identity::parse(&key).unwrap().recipient().clone()];
    let records: Vec<Record> = (0..3)
        .map(|at| {
            let mut record = Record::new(hour * 3_600_000 + at, Outcome::Refused);
            record.code = "planted".into();
            record
        })
        .collect();
    let (range, file) = segment::write(&LOG, number, first, &records, &recipients).unwrap();
    let store = lab.data().join("store");
    let path = store.join(range.name.object());
    write(&path, &file);
    let statement = AuditSegment {
        log: LOG.into(),
        number,
        first,
        records: 3,
        hour,
        digest: chancery_entry::sha256(&file).into(),
    };
    let object = format!("audit/unstated/{}/{number:020}", range.name.log);
    write(&store.join(object), &minicbor::to_vec(&statement).unwrap());
    path
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The answer of a command of which there must be one.
fn answer(lab: &Lab, arguments: &[&str]) -> Value {
    let output = lab.run(&[&["audit"], arguments, &["--json"]].concat());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn count(answer: &Value, name: &str) -> usize {
    answer[name].as_array().unwrap().len()
}

/// Changes are recorded with the next batch.
fn wait_for_change(lab: &Lab, code: &str) {
    wait_until("the record of a change", Duration::from_secs(60), || {
        lab.run(&["audit", "find", "--code", code]).status.success()
    });
}

/// Exit code and document of `audit verify`.
fn verify(lab: &Lab, more: &[&str]) -> (Option<i32>, Value) {
    let output = lab.run(&[&["audit", "verify", "--json"], more].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Four segments: three from three years ago, an hour apart, and one of a month ago.
fn with_history() -> (Lab, Vec<PathBuf>, u64) {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let _ = lab.stop();
    let old = now_hour() - 3 * 365 * DAY_H;
    let hours = [old, old + 1, old + 2, now_hour() - 30 * DAY_H];
    let files = (0_u64..).zip(hours).map(|(n, hour)| plant(&lab, n, 3 * n, hour)).collect();
    lab.start();
    wait_until("the segments in the log", Duration::from_secs(60), || {
        let (code, said) = verify(&lab, &[]);
        code == Some(0) && said["segments"].as_u64() >= Some(4) && said["not_stated_yet"] == 0
    });
    (lab, files, old)
}

#[test]
fn what_is_too_old_goes_provably_and_what_is_held_stays() {
    let (mut lab, files, old) = with_history();
    let there = || files.iter().map(|file| file.exists()).collect::<Vec<_>>();
    let (from, to) = (((old + 1) * 3_600).to_string(), ((old + 1) * 3_600 + 60).to_string());
    let add = ["hold", "add", "case-17", "--from", &from, "--to", &to, "--reason", "counsel"];
    assert_eq!(answer(&lab, &add)["held"]["name"], "case-17");
    assert!(!lab.run(&[&["audit"], &add[..]].concat()).status.success(), "twice");
    assert_eq!(count(&answer(&lab, &["hold", "list"]), "holds"), 1);

    let dry = answer(&lab, &["prune", "--dry-run"]);
    assert_eq!((count(&dry, "removed"), &dry["held"]), (2, &json!(1)), "{dry}");
    assert_eq!(there(), [true; 4]);
    let run = answer(&lab, &["prune"]);
    assert_eq!((count(&run, "removed"), &run["held"]), (2, &json!(1)), "{run}");
    assert_eq!(there(), [false, true, false, true]);
    let (code, said) = verify(&lab, &[]);
    assert_eq!((code, &said["removed"]), (Some(0), &json!(2)), "{said}");

    // The hold ends, the service restarts, and the rest of what is too old goes.
    assert_eq!(answer(&lab, &["hold", "release", "case-17"])["released"]["reason"], "counsel");
    wait_for_change(&lab, "hold");
    // A note goes with the next batch; a service that ends before takes it along.
    wait_for_change(&lab, "release_hold");
    let _ = lab.stop();
    lab.start();
    assert_eq!(count(&answer(&lab, &["prune"]), "removed"), 1);
    assert_eq!(there(), [false, false, false, true]);
    assert_eq!(count(&answer(&lab, &["prune"]), "removed"), 0);
    let (code, said) = verify(&lab, &[]);
    assert_eq!((code, &said["removed"]), (Some(0), &json!(3)), "{said}");
    // An auditor's own rule: nothing younger than two years may have gone, or than four.
    assert_eq!(verify(&lab, &["--keep-days", "730"]).0, Some(0));
    let (code, said) = verify(&lab, &["--keep-days", "1460"]);
    assert_eq!((code, count(&said, "violations")), (Some(1), 3), "{said}");

    // Who deletes by hand is found out all the same.
    std::fs::remove_file(&files[3]).unwrap();
    let (code, said) = verify(&lab, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said["violations"][0].as_str().unwrap().contains("missing"), "{said}");
    wait_for_change(&lab, "remove_segments");
}

#[test]
fn nothing_goes_while_a_hold_cannot_be_read_or_no_signer_logs_it() {
    let (lab, files, _) = with_history();
    let hold = lab.data().join("store/audit/holds/damaged.json");
    write(&hold, b"{");
    let output = lab.run(&["audit", "prune"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("holds/damaged.json"), "{words}");
    assert!(files.iter().all(|file| file.exists()));
    std::fs::remove_file(&hold).unwrap();
    for (arguments, word) in [
        (["hold", "add", "Case 17", "--from", "1", "--to", "2", "--reason", "r"], "a-z"),
        (["hold", "add", "case", "--from", "2", "--to", "2", "--reason", "r"], "end after"),
        (["hold", "add", "case", "--from", "1", "--to", "2", "--reason", ""], "reason"),
    ] {
        let output = lab.run(&[&["audit"], &arguments[..]].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(word), "{arguments:?}: {words}");
    }
    // A damaged copy that was put back beside what is removed is a violation, a whole one is none.
    let kept = std::fs::read(&files[0]).unwrap();
    assert_eq!(count(&answer(&lab, &["prune"]), "removed"), 3);
    write(&files[0], &kept);
    assert_eq!(verify(&lab, &[]).0, Some(0));
    write(&files[0], &kept[..kept.len() / 2]);
    assert_eq!(verify(&lab, &[]).0, Some(1));
    assert_eq!(count(&answer(&lab, &["prune"]), "removed"), 1);
    assert_eq!(verify(&lab, &[]).0, Some(0));
}
