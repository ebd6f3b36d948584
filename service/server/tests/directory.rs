//! The directory of a running service, as processes: signers come and go, and a stranger who knows
//! nothing but the directory's key reads which logs there were.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::time::Duration;

use chancery_testkit::{Lab, RealmText, wait_until};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, EntriesTileId, Frontier, LogId, decode_entries, leaf_hash};
use chancery_validate::directory::Directory;

const AUDIENCE: &str = "https://api.example";
const PATIENCE: Duration = Duration::from_secs(20);

fn vkey(lab: &Lab) -> VerifierKey {
    let text = lab.web.get(&format!("{}/directory/vkey", lab.url())).text();
    VerifierKey::parse(text.trim_end()).unwrap()
}

/// Every entry of the served directory, under its signed checkpoint.
fn read(lab: &Lab, key: &VerifierKey) -> (Checkpoint, Directory) {
    let get = |path: &str| {
        let answer = lab.web.get(&format!("{}/directory/{path}", lab.url()));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.body
    };
    let (checkpoint, _) = Checkpoint::open(&get("checkpoint"), std::slice::from_ref(key)).unwrap();
    let (mut directory, mut frontier) = (Directory::new(), Frontier::new());
    for index in 0..checkpoint.size.div_ceil(256) {
        let id = EntriesTileId::at(index, checkpoint.size).unwrap();
        for entry in decode_entries(&get(&id.path()), usize::from(id.width)).unwrap() {
            directory.read(&entry).unwrap();
            frontier.append(leaf_hash(&entry));
        }
    }
    assert_eq!(frontier.root(), checkpoint.root);
    (checkpoint, directory)
}

fn size_of(lab: &Lab, log: LogId) -> u64 {
    let note = lab.web.get(&format!("{}/log/{log}/checkpoint", lab.url())).text();
    note.lines().nth(1).unwrap().parse().unwrap()
}

/// The signer dies, and the service starts another one.
fn next_signer(lab: &Lab, old: LogId) -> LogId {
    lab.kill_signer();
    let living = || lab.signers().iter().any(|s| s.get("attached") == Some(&true.into()));
    wait_until("another signer", PATIENCE, || living() && lab.has_other_signer(&old.to_string()));
    wait_until("readiness", PATIENCE, || lab.is_ready());
    lab.log_id().parse().unwrap()
}

#[test]
fn signers_come_and_go_and_the_directory_says_which() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let client = lab.demo();
    let key = vkey(&lab);
    assert_eq!(key.name(), format!("{}/directory", lab.address()));
    let first: LogId = lab.log_id().parse().unwrap();
    // A service that is ready has named its signer's log.
    let (_, directory) = read(&lab, &key);
    assert!(directory.log(first).is_some());
    drop(lab.token(&client, "consumers", AUDIENCE));
    let second = next_signer(&lab, first);
    let (_, directory) = read(&lab, &key);
    let (_, closing) = directory.log(first).unwrap().closing().unwrap();
    assert_eq!(closing.successor, Some(*second.as_bytes()));
    assert_eq!(closing.size, size_of(&lab, first), "to the last entry");

    let place = format!("{}/directory", lab.url());
    let checked = lab.run_plain(&["log", "check", "--logs", &place]);
    assert!(checked.status.success(), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("1 open and 1 closed logs"), "{said}");
    assert_eq!(said.lines().count(), 3, "{said}");

    // A crash of both, and a third signer.
    drop(lab.token(&client, "consumers", AUDIENCE));
    lab.kill_service();
    lab.kill_signer();
    lab.start();
    let third: LogId = lab.log_id().parse().unwrap();
    assert_eq!(vkey(&lab), key, "the key stays");
    let (before, directory) = read(&lab, &key);
    assert_eq!(directory.successor(second), Some(third));
    let (_, closing) = directory.log(second).unwrap().closing().unwrap();
    assert_eq!(closing.size, size_of(&lab, second));
    assert_eq!(directory.logs().count(), 3);

    // The living log is followed about once a second.
    drop(lab.token(&client, "consumers", AUDIENCE));
    let size = size_of(&lab, third);
    wait_until("the directory", PATIENCE, || {
        let (_, directory) = read(&lab, &key);
        let latest = directory.log(third).and_then(|log| log.latest());
        latest.is_some_and(|(_, latest)| latest.size >= size)
    });
    assert!(read(&lab, &key).0.size > before.size);
    // An orderly end leaves all of it to the next start.
    assert_eq!(lab.stop().code, Some(0));
    lab.start();
    assert_eq!(lab.log_id(), third.to_string());
    let (after, directory) = read(&lab, &key);
    assert!(after.size > before.size);
    assert!(directory.log(third).unwrap().closing().is_none());
    let index = lab.web.get(&format!("{}/directory/index.json", lab.url())).json();
    assert_eq!(index.pointer("/logs/2/log").unwrap(), &third.to_string());
}

#[test]
fn a_service_without_the_directorys_key_or_store_does_not_start() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let key = vkey(&lab);
    assert_eq!(lab.stop().code, Some(0));
    let refused = |lab: &mut Lab, why: &str| {
        let before = lab.log().len();
        lab.spawn();
        assert_ne!(lab.wait_exit().code, Some(0));
        let said = lab.log();
        let said = said.get(before..).unwrap_or_default();
        assert!(said.contains(why), "`{why}` is not in:\n{said}");
    };
    let file = lab.data().join("directory.key");
    let pem = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    refused(&mut lab, "a new key would be a new directory");
    assert!(!file.exists());
    fs::write(&file, &pem).unwrap();
    let (store, away) = (lab.data().join("store/directory"), lab.data().join("away"));
    fs::rename(&store, &away).unwrap();
    refused(&mut lab, "STORAGE LOST");
    fs::rename(&away, &store).unwrap();
    lab.start();
    assert_eq!(vkey(&lab), key);
}

#[test]
fn a_service_that_does_not_write_the_directory_says_so() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    let realm = RealmText { name: "main", algorithms: &["ES256"], schedule: "", clients: vec![] };
    lab.configure("[directory]\nwrite = false\n", &[realm]);
    lab.start();
    let answer = lab.web.get(&format!("{}/directory/checkpoint", lab.url()));
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("no_directory"), "{}", answer.text());
    assert!(!lab.data().join("directory.key").exists());
    assert!(!lab.data().join("store/directory").exists());
}
