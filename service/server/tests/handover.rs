//! Restarts: what the service and a signer hand to each other, and what is refused.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chancery_entry::{Entry, Predecessor};
use chancery_testkit::{Judge, Lab, TestClient, start_signer, wait_until, wait_until_gone};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, EntriesTileId, decode_entries};
use chancery_token::jwks::KeySet;
use rustix::process::Signal;
use serde_json::{Value, json};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";

fn key_ids(lab: &Lab, realm: &str) -> BTreeSet<String> {
    let answer = lab.web.get(&format!("{}/{realm}/jwks.json", lab.url()));
    let set = KeySet::parse(&answer.body).expect("key set");
    set.members().iter().map(|m| m.kid.clone()).collect()
}

fn token(lab: &Lab, client: &TestClient) -> String {
    lab.token(client, "consumers", AUDIENCE)
}

/// Kills the signer and waits until its successor issues.
fn lose_signer(lab: &mut Lab) {
    let log = lab.log_id();
    lab.kill_signer();
    wait_until("a successor", Duration::from_secs(30), || {
        lab.is_ready() && lab.signers().iter().any(|s| s["attached"] == true && s["log_id"] != log)
    });
}

#[test]
fn a_killed_service_comes_back_to_its_signer() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = lab.demo();
    // A dead signer in the past, so that keys of both kinds are in the set.
    let old = token(&lab, &client);
    lose_signer(&mut lab);
    let before = token(&lab, &client);
    let (log, pid, keys) = (lab.log_id(), lab.signer_pid(), key_ids(&lab, "consumers"));
    for _ in 0..3 {
        lab.kill_service();
        lab.start();
        assert_eq!(lab.log_id(), log);
        assert_eq!(lab.signer_pid(), pid);
        // Pending keys too: a relying party that asks now must know the next key in time.
        assert_eq!(key_ids(&lab, "consumers"), keys);
    }
    let after = token(&lab, &client);
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    for token in [&old, &before, &after] {
        judge.must_hold(token);
    }
    assert_eq!(lab.check_logs(), 2);
}

#[test]
fn sigterm_drains() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = lab.demo();
    let request = client.request(
        &lab.issuer("consumers"),
        Some(&lab.log_id()),
        vec![json!({"aud": AUDIENCE})],
    );
    let head = format!(
        "POST /consumers/issue HTTP/1.1\r\nhost: {}\r\ncontent-type: application/jwt\r\n\
         content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        lab.address(),
        request.len()
    );
    let (first, second) = request.split_at(request.len() / 2);
    let mut stream = TcpStream::connect(lab.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    // It is answered when the request is being handled, which is then drained.
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(first.as_bytes()).unwrap();
    let known = token(&lab, &client);
    lab.signal(Signal::TERM);
    wait_until("the listener to close", Duration::from_secs(20), || {
        TcpStream::connect(lab.address()).is_err()
    });
    stream.write_all(second.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let drained = body.pointer("/tokens/0/access_token").unwrap().as_str().unwrap().to_owned();
    assert_eq!(lab.wait_exit().code, Some(0));
    let log = lab.data().join("store/log").join(lab.stored_logs().pop().unwrap());
    let check = lab.run_plain(&["log", "check", &log.display().to_string()]);
    assert!(check.status.success(), "everything is published at the end: {check:?}");

    lab.start();
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    judge.must_hold(&known);
    judge.must_hold(&drained);
}

#[test]
fn a_signer_may_run_by_itself_and_ends_alone() {
    let mut lab = Lab::new(CHANCERY);
    let socket = lab.folder().join("apart.sock");
    let mut signer = start_signer(CHANCERY, &socket, 3);
    let name = format!("unix:{}", socket.display());
    lab.set_arguments(&["--signer", &name]);
    lab.start();
    let client = lab.demo();
    let (log, first) = (lab.log_id(), token(&lab, &client));
    lab.kill_service();
    lab.start();
    assert_eq!(lab.log_id(), log);
    let second = token(&lab, &client);
    assert!(lab.signer_pid().is_none(), "no signer of its own beside the given one");
    assert!(signer.try_wait().unwrap().is_none(), "it stays while the service is there");
    assert_eq!(lab.stop().code, Some(0));
    wait_until("the end of a signer alone", Duration::from_secs(30), || {
        signer.try_wait().unwrap().is_some_and(|status| status.success())
    });

    // Its socket may be left behind; the next signer there is a new one with a log of its own.
    let _ = std::fs::remove_file(&socket);
    let mut signer = start_signer(CHANCERY, &socket, 3);
    lab.start();
    assert_ne!(lab.log_id(), log);
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    judge.must_hold(&first);
    judge.must_hold(&second);
    signer.kill().unwrap();
    signer.wait().unwrap();
}

#[test]
fn a_data_folder_has_one_service() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let second = lab.run(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{words}");
    assert!(words.contains("in use by another `chancery serve`"), "{words}");
    let _ = token(&lab, &lab.demo());
}

#[test]
fn an_address_in_use_is_named_before_anything_starts() {
    let mut lab = Lab::new(CHANCERY);
    let _taken = std::net::TcpListener::bind(lab.address()).unwrap();
    lab.spawn();
    assert_eq!(lab.wait_exit().code, Some(2));
    assert!(lab.log().contains(&lab.address()), "{}", lab.log());
    assert!(lab.signer_pid().is_none());
}

/// The first entry of a log in the store.
fn predecessor(lab: &Lab, log: &str) -> Option<Predecessor> {
    let web = &lab.web;
    let url = format!("{}/log/{log}", lab.url());
    let vkeys = web.get(&format!("{url}/vkey")).text();
    let vkey = VerifierKey::parse(vkeys.lines().next().unwrap()).unwrap();
    let note = web.get(&format!("{url}/checkpoint")).body;
    let (checkpoint, _) = Checkpoint::open(&note, &[vkey]).unwrap();
    let id = EntriesTileId::at(0, checkpoint.size).unwrap();
    let bundle = web.get(&format!("{url}/{}", id.path())).body;
    let entries = decode_entries(&bundle, usize::from(id.width)).unwrap();
    match Entry::decode(&entries[0]).unwrap() {
        Entry::Genesis(genesis) => genesis.predecessor,
        other => panic!("not genesis: {other:?}"),
    }
}

#[test]
fn a_new_signer_names_the_checkpoint_that_it_continues() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = lab.demo();
    let mut expected: Option<(String, String)> = None;
    for round in 0..3 {
        let _ = token(&lab, &client);
        let log = lab.log_id();
        let named = predecessor(&lab, &log).map(|p| (p.vkey, p.checkpoint));
        assert_eq!(named, expected, "round {round}");
        if round == 1 {
            // Both at once, so that the checkpoint comes from recovery.
            lab.kill_service();
            lab.kill_signer();
            lab.start();
        } else {
            lose_signer(&mut lab);
        }
        let url = format!("{}/log/{log}", lab.url());
        let vkeys = lab.web.get(&format!("{url}/vkey")).text();
        let vkey = vkeys.lines().next().unwrap().to_owned();
        expected = Some((vkey, lab.web.get(&format!("{url}/checkpoint")).text()));
    }
    assert_eq!(lab.check_logs(), 4);
}

#[test]
fn dead_signers_keys_are_served_as_long_as_tokens_need_them() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = lab.demo();
    let first = token(&lab, &client);
    let held = Judge::new(&lab, "consumers", AUDIENCE).must_hold(&first);
    let used = held.kid().to_owned();
    let all = key_ids(&lab, "consumers");
    let unused: BTreeSet<_> = all.iter().filter(|k| **k != used).cloned().collect();
    assert!(!unused.is_empty());
    lose_signer(&mut lab);
    for restarts in 0..3 {
        let keys = key_ids(&lab, "consumers");
        assert!(keys.contains(&used), "after {restarts} restarts");
        assert!(keys.is_disjoint(&unused), "after {restarts} restarts: a key that never signed");
        let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
        judge.must_hold(&first);
        judge.must_hold(&token(&lab, &client));
        lab.kill_service();
        if restarts == 1 {
            lab.kill_signer();
        }
        lab.start();
    }
    // The dead signer's window is narrowed to what it really signed: a thief of its key cannot
    // date a token after its death.
    let answer = lab.web.get(&format!("{}/consumers/jwks.json", lab.url()));
    let set = KeySet::parse(&answer.body).unwrap();
    let window = set.get(&used).unwrap().window.unwrap();
    assert_eq!(window.signs_until, held.claims().iat + 1);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn storage_that_went_back_in_time_is_refused_while_the_signer_lives() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = lab.demo();
    let _ = token(&lab, &client);
    lab.kill_service();
    let copied = lab.folder().join("copy");
    std::fs::create_dir(&copied).unwrap();
    for name in ["store", "wal"] {
        copy(&lab.data().join(name), &copied.join(name));
    }
    lab.start();
    let lost = token(&lab, &client);
    let log = lab.log_id();
    lab.kill_service();
    for name in ["store", "wal"] {
        std::fs::rename(lab.data().join(name), copied.join(format!("{name}-new"))).unwrap();
        copy(&copied.join(name), &lab.data().join(name));
    }
    lab.spawn();
    let exit = lab.wait_exit();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(lab.log().contains("STORAGE LOST"), "{}", lab.log());
    assert!(lab.signer_pid().is_some(), "it keeps what it knows until somebody decides");

    // The right data folder is back: everything goes on, and nothing is lost.
    for name in ["store", "wal"] {
        std::fs::remove_dir_all(lab.data().join(name)).unwrap();
        std::fs::rename(copied.join(format!("{name}-new")), lab.data().join(name)).unwrap();
    }
    lab.start();
    assert_eq!(lab.log_id(), log);
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    judge.must_hold(&lost);
    judge.must_hold(&token(&lab, &client));
    assert_eq!(lab.check_logs(), 1);
}

#[test]
fn an_operator_can_end_the_signer() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let (log, pid) = (lab.log_id(), lab.signer_pid().unwrap());
    let before = token(&lab, &lab.demo());
    let ended = lab.run(&["signer", "end", "--json"]);
    assert!(ended.status.success(), "{ended:?}");
    let answer: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(answer, json!({"ended": true}));
    wait_until_gone(pid);
    wait_until("a successor", Duration::from_secs(30), || {
        lab.has_other_signer(&log) && lab.is_ready()
    });
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    judge.must_hold(&before);
    let _ = token(&lab, &lab.demo());
}
