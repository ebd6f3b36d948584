//! Rotation that nobody notices, compromises that nobody forgets.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_entry::Entry;
use chancery_testkit::{Judge, Lab, Load, WebLog, now, wait_until};
use chancery_token::KeyId;
use chancery_validate::{RejectionCode, Validator, ValidatorConfig};
use serde_json::{Value, json};

use super::{AUDIENCE, CHANCERY, client, configure};

const PATIENCE: Duration = Duration::from_secs(30);

/// A relying party that fetches the key set when its `max-age` is over, and not before.
struct RelyingParty<'a> {
    lab: &'a Lab,
    validator: Option<(Validator, Instant)>,
}

impl RelyingParty<'_> {
    fn validate(&mut self, token: &str) {
        let fresh = self.validator.take().filter(|(_, until)| Instant::now() < *until);
        let (validator, until) = fresh.unwrap_or_else(|| {
            // The age counts from before the request: the answer may have waited on the way.
            let asked = Instant::now();
            let answer = self.lab.web.get(&format!("{}/r/jwks.json", self.lab.url()));
            let max_age = Duration::from_secs(answer.max_age().unwrap());
            let config = ValidatorConfig::new(self.lab.issuer("r"), AUDIENCE);
            (Validator::from_jwks(config, &answer.body).unwrap(), asked + max_age)
        });
        let verdict = validator.validate(token, now());
        assert!(
            verdict.is_ok(),
            "{verdict:?}\n{:?}\n{token}",
            validator.keys_of(&self.lab.issuer("r"))
        );
        self.validator = Some((validator, until));
    }
}

#[test]
fn rotation_every_two_seconds_rejects_no_token() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    let schedule = "rotate_every_s = 2\npublish_lead_s = 4\nmax_lifetime_s = 6\nskew_s = 1";
    configure(&mut lab, "", schedule, &[&client]);
    lab.start();
    let mut party = RelyingParty { lab: &lab, validator: None };
    let mut waiting: VecDeque<(Instant, String)> = VecDeque::new();
    let mut kids = BTreeSet::new();
    let mut count = 0_u32;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let token = lab.token(&client, "r", AUDIENCE);
        party.validate(&token);
        kids.insert(token.split('.').next().unwrap().to_owned());
        count += 1;
        // Looked at again near its end: a retired key stays as long as its tokens live.
        waiting.push_back((Instant::now() + Duration::from_secs(5), token));
        while waiting.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            party.validate(&waiting.pop_front().unwrap().1);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{count} tokens of {} keys, none rejected", kids.len());
    assert!(kids.len() >= 8, "{} keys in 20 s", kids.len());
    assert_eq!(lab.check_logs(), 1);
}

#[test]
fn an_explicit_rotation_says_when_and_keeps_its_word() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    let schedule = "rotate_every_s = 600\npublish_lead_s = 4\nmax_lifetime_s = 600\nskew_s = 1";
    configure(&mut lab, "", schedule, &[&client]);
    lab.start();
    let mut party = RelyingParty { lab: &lab, validator: None };
    let first = lab.token(&client, "r", AUDIENCE);
    party.validate(&first);
    let rotate = lab.run(&["keys", "rotate", "r", "--json"]);
    assert!(rotate.status.success(), "{rotate:?}");
    let answer: Value = serde_json::from_slice(&rotate.stdout).unwrap();
    let from = answer["rotating"][0]["active_from"].as_u64().unwrap();
    assert!((now() + 3..=now() + 20).contains(&from), "{answer}, now {}", now());
    let kid = |token: &str| token.split('.').next().unwrap().to_owned();
    loop {
        let token = lab.token(&client, "r", AUDIENCE);
        party.validate(&token);
        let payload = chancery_token::b64::decode(token.split('.').nth(1).unwrap()).unwrap();
        let iat = serde_json::from_slice::<Value>(&payload).unwrap()["iat"].as_u64().unwrap();
        assert_eq!(kid(&token) == kid(&first), iat < from, "iat {iat}, from {from}");
        if iat >= from {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    party.validate(&first);
    let unknown = lab.run(&["keys", "rotate", "nowhere"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}

/// Kids that a log declares compromised.
fn declared(lab: &Lab, log: &str) -> BTreeSet<String> {
    let log = WebLog::new(&lab.web, format!("{}/log/{log}", lab.url()));
    let entries = log.entries();
    let decoded = entries.iter().map(|e| Entry::decode(e).unwrap());
    decoded
        .filter_map(|entry| match entry {
            Entry::Compromise(c) => Some(KeyId::from_bytes(c.kid).to_string()),
            _ => None,
        })
        .collect()
}

fn kid_of(lab: &Lab, token: &str) -> String {
    Judge::new(lab, "r", AUDIENCE).must_hold(token).kid().to_owned()
}

fn compromise(lab: &Lab, kid: &str) -> Value {
    let done = lab.run(&["keys", "compromise", kid, "--reason", "a drill", "--json"]);
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

fn assert_rejected(lab: &Lab, token: &str) {
    let rejection = Judge::new(lab, "r", AUDIENCE).validate(token).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::UnknownKey);
}

#[test]
fn a_compromised_key_is_gone_at_once_and_for_good() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    configure(&mut lab, "", "", &[&client]);
    lab.start();
    let stolen = lab.token(&client, "r", AUDIENCE);
    let kid = kid_of(&lab, &stolen);
    let answer = compromise(&lab, &kid);
    assert_eq!(answer["stored"], true);
    let gone: Vec<&str> =
        answer["gone"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    assert!(gone.contains(&kid.as_str()), "{answer}");
    assert_rejected(&lab, &stolen);
    let fresh = lab.token(&client, "r", AUDIENCE);
    let fresh_kid = kid_of(&lab, &fresh);
    assert_ne!(fresh_kid, kid);
    let log = lab.log_id();
    assert_eq!(declared(&lab, &log), gone.iter().map(|k| (*k).to_owned()).collect());

    // No rebuild brings it back, and none takes its innocent successor along.
    let mut tokens = vec![fresh];
    for both in [false, true, true] {
        lab.kill_service();
        if both {
            lab.kill_signer();
        }
        lab.start();
        assert_rejected(&lab, &stolen);
        tokens.push(lab.token(&client, "r", AUDIENCE));
        let mut judge = Judge::new(&lab, "r", AUDIENCE);
        for token in &tokens {
            judge.must_hold(token);
        }
    }
    let later = declared(&lab, &lab.log_id());
    assert!(!later.contains(&fresh_kid), "{later:?}");
}

#[test]
fn a_compromise_survives_the_death_of_both_right_after_the_answer() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    configure(&mut lab, "", "", &[&client]);
    lab.start();
    for _ in 0..3 {
        let stolen = lab.token(&client, "r", AUDIENCE);
        let kid = kid_of(&lab, &stolen);
        let log = lab.log_id();
        let _ = compromise(&lab, &kid);
        lab.kill_signer();
        lab.kill_service();
        lab.start();
        assert_rejected(&lab, &stolen);
        kid_of(&lab, &lab.token(&client, "r", AUDIENCE));
        let mut known = declared(&lab, &log);
        known.extend(declared(&lab, &lab.log_id()));
        assert!(known.contains(&kid), "some log declares `{kid}`: {known:?}");
    }
}

#[test]
fn a_compromise_that_the_living_signer_was_not_told_is_told_at_the_next_start() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    configure(&mut lab, "", "", &[&client]);
    lab.start();
    let stolen = lab.token(&client, "r", AUDIENCE);
    let kid = kid_of(&lab, &stolen);
    let log = lab.log_id();
    lab.kill_service();
    // The service died between storing the fact and telling the signer.
    let fact = json!({"kid": kid, "reason": "a drill", "at": now(), "include_retired": false});
    let folder = lab.data().join("store/compromise");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{kid}.json")), fact.to_string()).unwrap();
    lab.start();
    assert_eq!(lab.log_id(), log);
    assert_rejected(&lab, &stolen);
    let token = lab.token(&client, "r", AUDIENCE);
    assert_ne!(kid_of(&lab, &token), kid);
    wait_until("the entry", PATIENCE, || declared(&lab, &log).contains(&kid));
}

#[test]
fn a_compromise_under_load_releases_nothing_of_the_stolen_key_afterwards() {
    let mut lab = Lab::new(CHANCERY);
    let client = Arc::new(client("c"));
    configure(&mut lab, "", "", &[&client]);
    lab.start();
    let load = Load::start(&lab, client, "r", AUDIENCE, 4);
    for _ in 0..5 {
        load.wait_for(5);
        let listed = lab.run(&["keys", "list", "--json"]);
        let keys: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let keys = keys["keys"].as_array().unwrap();
        let active = keys.iter().find(|k| k["state"] == "active").unwrap();
        let kid = active["kid"].as_str().unwrap();
        let _ = compromise(&lab, kid);
        let answered = Instant::now();
        load.wait_for(5);
        let header = |token: &str| {
            let header = chancery_token::b64::decode(token.split('.').next().unwrap()).unwrap();
            serde_json::from_slice::<Value>(&header).unwrap()["kid"].clone()
        };
        let late = load.received().into_iter().filter(|r| r.at > answered + PAUSE_OF_A_RESPONSE);
        for received in late {
            assert_ne!(header(&received.token), kid);
        }
    }
    let (_, other) = load.finish();
    assert!(other.keys().all(|what| what.contains("voided")), "{other:?}");
    assert_eq!(lab.check_logs(), 1);
}

/// A response that was released before the answer may arrive after it.
const PAUSE_OF_A_RESPONSE: Duration = Duration::from_millis(500);

#[test]
fn a_key_that_nobody_announced_is_no_key_to_compromise() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("shop");
    configure(&mut lab, "", "", &[&client]);
    lab.start();
    let stranger = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    let refused = lab.run(&["keys", "compromise", stranger, "--reason", "a typing error"]);
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("no log that still counts announced"), "{text}");
}
