//! A store that is not the one that was here is refused by name, whatever is left of the rest, and the
//! right one is taken again (INVARIANT I9).

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use chancery_testkit::{Judge, Lab, wait_until};

const AUDIENCE: &str = "https://api.example";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &to),
            kind if kind.is_file() => drop(fs::copy(entry.path(), to).unwrap()),
            _ => {}
        }
    }
}

fn put(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    copy(from, to);
}

/// Service and signer end in order, so that the store holds everything.
fn end(lab: &mut Lab) {
    assert_eq!(lab.stop().code, Some(0));
    lab.kill_signer();
}

/// The service refuses what it finds, and says this.
fn refuses(lab: &mut Lab, why: &[&str]) {
    lab.spawn();
    let exit = lab.wait_exit();
    let log = lab.log();
    assert_eq!(exit.code, Some(2), "{log}");
    let last = log.lines().last().unwrap();
    for word in why {
        assert!(last.contains(word), "{word}: {last}");
    }
    assert!(lab.signer_pid().is_none(), "no signer was started for it");
}

#[test]
fn another_store_than_the_one_that_was_here_is_refused() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let client = lab.demo();
    let first = lab.token(&client, "consumers", AUDIENCE);
    let log = lab.log_id();
    let (good, old) = (lab.folder().join("good"), lab.folder().join("old"));
    assert_eq!(lab.stop().code, Some(0));
    copy(lab.data(), &old);
    lab.start();
    assert_eq!(lab.log_id(), log, "the signer lives on");
    let second = lab.token(&client, "consumers", AUDIENCE);
    end(&mut lab);
    copy(lab.data(), &good);
    let restore = |lab: &Lab| {
        put(&good, lab.data());
        // What is left of the write-ahead log would tell as well.
        fs::remove_dir_all(lab.data().join("wal")).unwrap();
    };
    let own = format!("store/log/{log}");
    let lost = ["STORAGE LOST", log.as_str(), "restore the store"];

    restore(&lab);
    fs::remove_dir_all(lab.data().join("store")).unwrap();
    refuses(&mut lab, &["STORAGE LOST"]);
    restore(&lab);
    put(&old.join("store"), &lab.data().join("store"));
    refuses(&mut lab, &["STORAGE LOST"]);
    // One log alone, and whichever of the two that remember is left.
    for forgotten in [&[][..], &["logs.seen"], &["directory.seen", "directory.state"]] {
        restore(&lab);
        forgotten.iter().for_each(|name| fs::remove_file(lab.data().join(name)).unwrap());
        put(&old.join(&own), &lab.data().join(&own));
        refuses(&mut lab, &lost);
        restore(&lab);
        forgotten.iter().for_each(|name| fs::remove_file(lab.data().join(name)).unwrap());
        fs::remove_dir_all(lab.data().join(&own)).unwrap();
        refuses(&mut lab, &lost);
    }

    // The right one is back, though nothing remembers it; garbage is not believed.
    restore(&lab);
    fs::write(lab.data().join("logs.seen"), "{").unwrap();
    fs::remove_file(lab.data().join("directory.seen")).unwrap();
    lab.start();
    assert_ne!(lab.log_id(), log);
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    for token in [&first, &second] {
        judge.must_hold(token);
    }
    let seen = lab.data().join("logs.seen");
    wait_until("the memory to be written", Duration::from_secs(20), || {
        fs::read_to_string(&seen).is_ok_and(|text| text.contains(&lab.log_id()))
    });
}

#[test]
fn a_history_by_the_same_signer_that_another_copy_wrote_is_refused() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let _ = lab.token(&lab.demo(), "consumers", AUDIENCE);
    let log = lab.log_id();
    end(&mut lab);
    let seen = lab.data().join("logs.seen");
    let text = fs::read_to_string(&seen).unwrap();
    let memory: serde_json::Value = serde_json::from_str(&text).unwrap();
    let root = memory.pointer(&format!("/logs/{log}/root")).unwrap().as_str().unwrap();
    let first = if root.starts_with('A') { 'B' } else { 'A' };
    let other = format!("{first}{}", root.get(1..).unwrap());
    fs::write(&seen, text.replace(root, &other)).unwrap();
    refuses(&mut lab, &["STORAGE LOST", &log, "was rewritten"]);
}
