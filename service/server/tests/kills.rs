//! `kill -9` of service and signer under load, at random moments.
//!
//! What must hold however they end (INVARIANT I2, I9): every token that a client received is in a
//! log under a signed checkpoint and validates until it expires; every log passes
//! `chancery log check`, in the folder and over HTTP.
//!
//! The same under `durability = "store"`, with a third of the kills, and the write-ahead log thrown
//! away each time: it must not be needed.
//!
//! `CHANCERY_KILLS` says how often (30 by default, 200 in a recipe), `CHANCERY_SEED` repeats a run.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_testkit::{
    ClientText, Judge, Lab, Load, RealmText, Received, TestClient, grant, wait_until,
};
use chancery_token::Algorithm;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";

/// Issuing goes on within a second after a signer's death; a debug build on a machine that
/// compiles beside it gets ten times that. The measured time is printed.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);

/// xorshift64*: which moments are tried need not be secret, only repeatable.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |v| v.parse().expect(name))
}

#[test]
fn every_received_token_survives_kills() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let client = Arc::new(lab.demo());
    survive(&mut lab, client, "consumers", number("CHANCERY_KILLS", 30), |_| {});
}

#[test]
fn where_the_store_comes_first_the_write_ahead_log_is_not_needed() {
    let mut lab = Lab::new(CHANCERY);
    let client = TestClient::new("c", Algorithm::Es256);
    let clients = vec![ClientText::new(&client, "", &[grant("api", &[AUDIENCE], "")])];
    let realm = RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients };
    lab.configure("wal_segment_mib = 1\n[storage]\ndurability = \"store\"", &[realm]);
    lab.start();
    let kills = number("CHANCERY_KILLS", 30).div_ceil(3);
    survive(&mut lab, Arc::new(client), "r", kills, |lab| {
        match std::fs::remove_dir_all(lab.data().join("wal")) {
            Ok(()) => {}
            // Killed before it made a new one.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => panic!("the write-ahead log: {e}"),
        }
    });
}

#[test]
fn records_in_flight_to_segments_survive_kills() {
    let mut lab = Lab::new(CHANCERY);
    let client = TestClient::new("c", Algorithm::Es256);
    let clients = vec![ClientText::new(&client, "", &[grant("api", &[AUDIENCE], "")])];
    let realm = RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients };
    lab.configure("[audit]\nflush_every_s = 1", &[realm]);
    lab.start();
    let kills = number("CHANCERY_KILLS", 30).div_ceil(2);
    survive(&mut lab, Arc::new(client), "r", kills, |_| {});
    let output = lab.run(&["audit", "verify", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    println!("{said}");
    assert!(said["segments"].as_u64() > Some(1), "{said}");
}

/// Every token that was received is in the audit once, and every segment is as the logs say.
fn audit_must_hold(lab: &Lab, received: &[Received]) {
    let find = ["audit", "find", "--outcome", "granted", "--json", "--limit", "1000000"];
    let output = lab.run(&find);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "audit find: {words}");
    let mut found: HashMap<String, usize> = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        *found.entry(record["digest"].as_str().expect("digest").to_owned()).or_default() += 1;
    }
    for token in received {
        let (input, _) = token.token.rsplit_once('.').expect("a JWS");
        let digest = chancery_entry::sha256(input.as_bytes());
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found.get(&digest), Some(&1), "in the audit: {}", token.token);
    }
    wait_until("`audit verify`", Duration::from_secs(20), || {
        let output = lab.run(&["audit", "verify"]);
        print!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    });
}

/// Kills under load; `after` is done each time the service is dead.
fn survive(lab: &mut Lab, client: Arc<TestClient>, realm: &str, kills: u64, after: fn(&Lab)) {
    let seed = number("CHANCERY_SEED", u64::from(std::process::id()) << 20 | 0x5eed);
    println!("CHANCERY_SEED={seed} CHANCERY_KILLS={kills}");
    let mut moments = Moments(seed.max(1));
    let load = Load::start(lab, client, realm, AUDIENCE, 4);
    let (mut services, mut signers) = (0, 0);
    for _ in 0..kills {
        // Sometimes the next kill finds the recovery from the last one under way.
        if moments.next(4) > 0 {
            load.wait_for(1);
        }
        std::thread::sleep(Duration::from_millis(moments.next(250)));
        let which = moments.next(3);
        // Killing the signer twice means that a successor is there already.
        if which != 0 && lab.signer_pid().is_some() {
            lab.kill_signer();
            signers += 1;
        }
        if which != 1 {
            lab.kill_service();
            after(lab);
            lab.spawn();
            services += 1;
        }
    }
    lab.wait_ready();
    load.wait_for(1);
    let (received, other) = load.finish();
    println!("{services} kills of the service, {signers} of the signer");
    println!("{} tokens received; otherwise {other:?}", received.len());
    for what in other.keys() {
        // What a client may see of all that; anything else would be a wrong answer.
        let expected = what == "no answer"
            || what.starts_with("503 ")
            || what == "401 wrong_log"
            || what == "401 proof_before_start";
        assert!(expected, "{what}: {other:?}");
    }
    audit_must_hold(lab, &received);
    let mut judge = Judge::new(lab, realm, AUDIENCE);
    for token in &received {
        judge.must_hold(&token.token);
    }
    let logs = lab.check_logs();
    println!("{logs} logs agree with their checkpoints");
    assert!(logs > 1);
}

#[test]
fn issuing_goes_on_after_a_signers_death() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let load = Load::start(&lab, Arc::new(lab.demo()), "consumers", AUDIENCE, 2);
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        load.wait_for(3);
        let log = lab.log_id();
        lab.kill_signer();
        let killed = Instant::now();
        let mut first = None;
        wait_until("a token in a new log", GOES_ON_WITHIN, || {
            first = load.first_outside(&log, killed);
            first.is_some()
        });
        longest = longest.max(first.expect("a token").saturating_duration_since(killed));
    }
    let (received, _) = load.finish();
    println!("from a signer's death to the next token: at most {longest:?} in 5 deaths");
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    for token in &received {
        judge.must_hold(&token.token);
    }
}
