//! Clients and grants reload without losing keys; what is wrong changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use chancery_testkit::{Judge, Lab, wait_until};
use chancery_token::jwks::KeySet;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{AUDIENCE, CHANCERY, client, configure};

const PATIENCE: Duration = Duration::from_secs(30);

fn key_ids(lab: &Lab) -> BTreeSet<String> {
    let answer = lab.web.get(&format!("{}/r/jwks.json", lab.url()));
    KeySet::parse(&answer.body).unwrap().members().iter().map(|m| m.kid.clone()).collect()
}

#[test]
fn clients_come_and_go_without_losing_keys() {
    let mut lab = Lab::new(CHANCERY);
    let (first, second) = (client("first"), client("second"));
    configure(&mut lab, "", "", &[&first]);
    lab.start();
    let old = lab.token(&first, "r", AUDIENCE);
    let (log, keys) = (lab.log_id(), key_ids(&lab));
    let wanted = || vec![json!({"aud": AUDIENCE})];
    assert_eq!(lab.issue(&second, "r", wanted()).json()["code"], "unknown_client");

    configure(&mut lab, "", "", &[&first, &second]);
    let reload = lab.run(&["reload", "--json"]);
    assert!(reload.status.success(), "{reload:?}");
    let answer: Value = serde_json::from_slice(&reload.stdout).unwrap();
    assert_eq!(answer, json!({"policy_version": 2}));
    // A version decides nothing before its entry is committed, which the reload waited for.
    assert_eq!(lab.issue(&second, "r", wanted()).status, 200);
    let _ = lab.token(&first, "r", AUDIENCE);

    configure(&mut lab, "", "", &[&second]);
    lab.signal(Signal::HUP);
    wait_until("the old client to go", PATIENCE, || {
        lab.issue(&first, "r", wanted()).json()["code"] == "unknown_client"
    });
    let _ = lab.token(&second, "r", AUDIENCE);
    assert_eq!((lab.log_id(), key_ids(&lab)), (log, keys));
    Judge::new(&lab, "r", AUDIENCE).must_hold(&old);
    let policy = lab.signers()[0]["policy_version"].clone();
    assert_eq!(policy, 3);
    // The same file again is the same version.
    let again = lab.run(&["reload", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap()["policy_version"], 3);

    // A restart of the service alone keeps version and keys.
    lab.kill_service();
    lab.start();
    assert_eq!(lab.signers()[0]["policy_version"], 3);
    let _ = lab.token(&second, "r", AUDIENCE);
    assert_eq!(lab.check_logs(), 1);
}

#[test]
fn a_bad_configuration_keeps_the_old_policy() {
    let mut lab = Lab::new(CHANCERY);
    let known = client("known");
    configure(&mut lab, "", "", &[&known]);
    lab.start();
    let good = fs::read_to_string(lab.config_file()).unwrap();
    let log = lab.log_id();
    let bad = [
        (good.replace("[realms.schedule]", "[realms.schedul]"), "schedul"),
        (good.replace("name = \"r\"", "name = \"log\""), "reserved"),
        ("not toml at all [".to_owned(), "chancery.toml"),
        (good.replace("[realms.schedule]", "[realms.schedule]\nrotate_every_s = 1"), "keys live"),
        (good.replace("/r\"", "/elsewhere\""), "issuer"),
        (String::new(), "missing field"),
    ];
    for (text, hint) in &bad {
        lab.write_config(text);
        let reload = lab.run(&["reload"]);
        assert_eq!(reload.status.code(), Some(2), "{hint}: {reload:?}");
        let words = String::from_utf8_lossy(&reload.stderr).into_owned();
        assert!(words.contains(hint), "{words}");
        let before = lab.log().len();
        lab.signal(Signal::HUP);
        wait_until("a word about SIGHUP", PATIENCE, || {
            lab.log()[before..].contains("the old policy stays")
        });
        let _ = lab.token(&known, "r", AUDIENCE);
        assert_eq!(lab.signers()[0]["policy_version"], 1, "{hint}");
    }
    lab.write_config(&good);
    let reload = lab.run(&["reload"]);
    assert!(reload.status.success(), "{reload:?}");
    let _ = lab.token(&known, "r", AUDIENCE);
    assert_eq!(lab.log_id(), log);
}

#[test]
fn development_mode_has_nothing_to_reload() {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    let reload = lab.run(&["reload"]);
    assert_eq!(reload.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&reload.stderr).contains("development mode"), "{reload:?}");
}

#[test]
fn a_service_that_dies_right_after_a_reload_starts_again() {
    let mut lab = Lab::new(CHANCERY);
    let (first, second) = (client("first"), client("second"));
    configure(&mut lab, "", "", &[&first]);
    lab.start();
    let (log, keys) = (lab.log_id(), key_ids(&lab));
    // Whether the signer has the new version in force, in an open batch, or only waiting.
    for (round, clients) in
        [[&first, &second], [&second, &first], [&first, &second]].iter().enumerate()
    {
        let wanted: Vec<_> = clients.iter().copied().take(1 + round % 2).collect();
        configure(&mut lab, "", "", &wanted);
        assert!(lab.run(&["reload"]).status.success());
        lab.kill_service();
        lab.start();
        assert_eq!((lab.log_id(), key_ids(&lab)), (log.clone(), keys.clone()));
        // A version decides nothing before its entry is committed.
        wait_until("the new version", PATIENCE, || {
            lab.issue(wanted[0], "r", vec![json!({"aud": AUDIENCE})]).status == 200
        });
    }
}

#[test]
fn a_configuration_that_the_living_signer_cannot_follow_stops_the_start() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("shop");
    configure(&mut lab, "", "", &[&client]);
    lab.start();
    lab.kill_service();
    let text = fs::read_to_string(lab.config_file()).unwrap();
    let issuer = text.lines().find(|line| line.starts_with("issuer = ")).unwrap();
    lab.write_config(&text.replace(issuer, "issuer = \"https://other.example/r\""));
    lab.spawn();
    assert_eq!(lab.wait_exit().code, Some(2));
    assert!(lab.log().contains("refuses the configuration"), "{}", lab.log());
}
