//! Starts by a summary of the ledger, as processes: what is served is what a whole reading gives, and
//! keys that fell stay away (INVARIANT I9).

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::collections::BTreeSet;
use std::fs;

use chancery_testkit::{Judge, Lab};
use serde_json::{Value, json};

const AUDIENCE: &str = "https://api.example";

fn served(lab: &Lab, realm: &str) -> BTreeSet<String> {
    let set = lab.web.get(&format!("{}/jwks.json", lab.issuer(realm))).json();
    let keys = set.get("keys").and_then(Value::as_array).unwrap().iter();
    keys.map(|k| k.get("kid").and_then(Value::as_str).unwrap().to_owned()).collect()
}

/// Keys that the control socket knows as alive in a realm.
fn alive(lab: &Lab, realm: &str) -> BTreeSet<String> {
    let listed = lab.run(&["keys", "list", "--json"]);
    let document: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let keys = document.get("keys").and_then(Value::as_array).unwrap().iter();
    let of_realm = keys.filter(|k| k.get("realm").and_then(Value::as_str) == Some(realm));
    of_realm.map(|k| k.get("kid").and_then(Value::as_str).unwrap().to_owned()).collect()
}

/// Service and signer end; the next start knows the log from the store alone.
fn end(lab: &mut Lab) {
    assert_eq!(lab.stop().code, Some(0));
    lab.kill_signer();
}

#[test]
fn a_start_by_a_summary_serves_what_a_whole_reading_serves() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let client = lab.demo();
    let log = lab.log_id();
    let kept = lab.token(&client, "organizations", AUDIENCE);
    for _ in 0..2 {
        let many = lab.issue(&client, "consumers", vec![json!({"aud": AUDIENCE}); 150]);
        assert_eq!(many.status, 200, "{}", many.text());
    }
    let fallen = alive(&lab, "consumers");
    let named = fallen.first().unwrap();
    let compromise = lab.run(&["keys", "compromise", named, "--reason", "a test"]);
    assert!(compromise.status.success(), "{compromise:?}");
    let after = lab.token(&client, "consumers", AUDIENCE);
    let summary = lab.data().join("store/log").join(&log).join("ledger-summary");
    let check = |lab: &Lab| {
        assert!(served(lab, "consumers").is_disjoint(&fallen), "a fallen key came back");
        Judge::new(lab, "organizations", AUDIENCE).must_hold(&kept);
        Judge::new(lab, "consumers", AUDIENCE).must_hold(&after);
    };
    assert_eq!(lab.stop().code, Some(0));
    assert!(summary.is_file(), "an orderly end leaves a summary");

    // Its signer lives on, and so does its log: summary, store and write-ahead log together.
    lab.start();
    assert_eq!(lab.log_id(), log);
    let later = lab.token(&client, "organizations", AUDIENCE);
    lab.kill_service();
    lab.kill_signer();
    lab.start();
    check(&lab);
    Judge::new(&lab, "organizations", AUDIENCE).must_hold(&later);
    end(&mut lab);
    lab.start();
    assert!(!lab.log().contains("read whole"), "the summary is used:\n{}", lab.log());
    check(&lab);

    // Nothing, garbage, and a summary whose list of fallen keys was emptied.
    let text = fs::read_to_string(&summary).unwrap();
    let (lists, _) = text.rsplit_once("\"compromised\":[").unwrap();
    let emptied = format!("{lists}\"compromised\":[]}}");
    assert_ne!(emptied, text);
    for bad in [None, Some("garbage".to_owned()), Some(emptied)] {
        end(&mut lab);
        match &bad {
            None => fs::remove_file(&summary).unwrap(),
            Some(bad) => fs::write(&summary, bad).unwrap(),
        }
        let before = lab.log().len();
        lab.start();
        let said = lab.log();
        let lines = said.get(before..).unwrap_or_default().lines();
        let lines: Vec<_> =
            lines.filter(|l| l.contains("read whole") && l.contains(&log)).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        check(&lab);
    }
}
