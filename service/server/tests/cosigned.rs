//! The second signature of a signer's checkpoints, through a running deployment: crashes of service and
//! signer, and what readers say who demand both signatures.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

use std::time::Duration;

use chancery_testkit::{Lab, wait_until};
use chancery_tlog::Checkpoint;
use chancery_tlog::note::VerifierKey;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";
const PATIENCE: Duration = Duration::from_secs(60);

fn keys_of(lab: &Lab, log: &str) -> Vec<VerifierKey> {
    let text = lab.web.get(&format!("{}/log/{log}/vkey", lab.url())).text();
    let keys: Vec<_> = text.lines().map(|line| VerifierKey::parse(line).unwrap()).collect();
    assert_eq!(keys.len(), 2, "{text}");
    keys
}

/// Entries under the latest checkpoint with both signatures; 0 before there is one.
fn cosigned(lab: &Lab, log: &str) -> u64 {
    let answer = lab.web.get(&format!("{}/log/{log}/checkpoint.cosigned", lab.url()));
    match answer.status {
        200 => Checkpoint::open_by_all(&answer.body, &keys_of(lab, log)).unwrap().0.size,
        404 => 0,
        other => panic!("HTTP {other}: {}", answer.text()),
    }
}

fn size(lab: &Lab, log: &str) -> u64 {
    let note = lab.web.get(&format!("{}/log/{log}/checkpoint", lab.url())).body;
    Checkpoint::open(&note, &keys_of(lab, log)[..1]).unwrap().0.size
}

/// Waits until both keys signed this many entries.
fn wait_for(lab: &Lab, log: &str, entries: u64) {
    wait_until("both signatures", PATIENCE, || cosigned(lab, log) >= entries);
}

fn validate(lab: &Lab, anchor: &str, token: &str) -> (Option<i32>, String) {
    let file = lab.folder().join("anchor.txt");
    std::fs::write(&file, anchor).unwrap();
    let issuer = lab.issuer("consumers");
    let arguments = [
        "validate",
        "--issuer",
        &issuer,
        "--audience",
        AUDIENCE,
        "--log",
        "require",
        "--anchor",
        file.to_str().unwrap(),
        "--json",
        token,
    ];
    let output = lab.run_plain(&arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn checkpoints_get_both_signatures_and_keep_them_through_crashes() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = lab.demo();
    let token = lab.token(&client, "consumers", AUDIENCE);
    let log = lab.log_id();
    let keys = keys_of(&lab, &log);
    wait_for(&lab, &log, size(&lab, &log));
    let signers = lab.signers();
    assert_eq!(signers[0]["cosigning_vkey"], keys[1].to_string());
    // In the store, too: what copies and buckets serve.
    let folder = lab.data().join("store/log").join(&log);
    wait_until("it to be published", PATIENCE, || {
        let note = std::fs::read(folder.join("checkpoint.cosigned")).unwrap_or_default();
        Checkpoint::open_by_all(&note, &keys).is_ok_and(|(c, _)| c.size == size(&lab, &log))
    });

    // The service dies; the signer goes on, and is asked about the tree of before.
    lab.kill_service();
    lab.start();
    assert_eq!(lab.log_id(), log);
    let more = lab.token(&client, "consumers", AUDIENCE);
    wait_for(&lab, &log, size(&lab, &log));
    let anchor = lab.web.get(&format!("{}/log/{log}/vkey", lab.url())).text();
    for token in [&token, &more] {
        let (code, said) = validate(&lab, &anchor, token);
        assert_eq!(code, Some(0), "{said}");
    }

    // The signer dies: its log keeps what it has, the next one has a key of its own.
    let before = cosigned(&lab, &log);
    lab.kill_signer();
    wait_until("a successor", PATIENCE, || lab.is_ready() && lab.has_other_signer(&log));
    let next = lab.log_id();
    assert_ne!(keys_of(&lab, &next)[1], keys[1]);
    let _ = lab.token(&client, "consumers", AUDIENCE);
    wait_for(&lab, &next, 1);
    assert!(cosigned(&lab, &log) >= before);
    let (code, said) = validate(&lab, &anchor, &more);
    assert_eq!(code, Some(0), "{said}");
    // The directory names both keys of both logs, and the walk checks what they signed.
    let directory = format!("{}/directory", lab.url());
    let output = lab.run_plain(&["log", "check", "--logs", &directory]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("under both of its keys").count(), 2, "{said}");
    assert_eq!(lab.stop().code, Some(0));
}

/// An anchor with another second key: nothing of the log counts for its holder.
#[test]
fn whoever_demands_another_second_key_believes_nothing() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = lab.demo();
    let token = lab.token(&client, "consumers", AUDIENCE);
    let log = lab.log_id();
    wait_for(&lab, &log, size(&lab, &log));
    let keys = keys_of(&lab, &log);
    let mut public: [u8; 1_312] = keys[1].public_key().try_into().unwrap();
    public[0] ^= 1;
    let other = VerifierKey::new_ml_dsa_44_cosigner(keys[1].name(), &public).unwrap();
    let (code, said) = validate(&lab, &format!("{}\n{other}\n", keys[0]), &token);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("key_not_announced"), "{said}");
    let (code, said) = validate(&lab, &format!("{}\n{}\n", keys[0], keys[1]), &token);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(lab.stop().code, Some(0));
}
