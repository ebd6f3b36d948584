//! The audit from outside: what was decided is found, before and after it is in segments, and what is
//! done to segments is found out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_testkit::{ClientText, Lab, RealmText, TestClient, grant, wait_until};
use chancery_token::Algorithm;
use serde_json::{Value, json};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const API: &str = "https://api.example";
const OTHER: &str = "https://other.example";

/// A service with one client, whose records become segments after so many seconds.
fn lab(flush_every_s: u64) -> (Lab, TestClient) {
    let mut lab = Lab::new(CHANCERY);
    let client = TestClient::new("orders", Algorithm::Es256);
    let grants = [grant("api", &[API], ""), grant("other", &[OTHER], "scopes = [\"read\"]")];
    let clients = vec![ClientText::new(&client, "", &grants)];
    let realm = RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients };
    let top = format!("[audit]\nflush_every_s = {flush_every_s}");
    lab.configure(&top, &[realm]);
    lab.start();
    (lab, client)
}

/// One document a line; none when nothing is found.
fn find(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["audit", "find", "--json"], arguments].concat();
    let output = lab.run(&arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {words}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit code and words of `audit verify`.
fn verify(lab: &Lab) -> (Option<i32>, String) {
    let output = lab.run(&["audit", "verify"]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|e| e == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn wait_for_segments(lab: &Lab, at_least: usize) -> Vec<PathBuf> {
    let folder = lab.data().join("store/audit");
    wait_until("segments that the log names", Duration::from_secs(30), || {
        let output = lab.run(&["audit", "verify", "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        said["ok"] == true && said["segments"].as_u64() >= Some(at_least as u64)
    });
    segments(&folder)
}

#[test]
fn every_decision_is_found_before_and_after_it_is_in_a_segment() {
    let (mut lab, client) = lab(3_600);
    let token = lab.token(&client, "r", API);
    for _ in 0..3 {
        let _ = lab.token(&client, "r", OTHER);
    }
    let refused = lab.issue(&client, "r", vec![json!({"aud": OTHER, "scope": "write"})]);
    assert_eq!(refused.status, 403, "{}", String::from_utf8_lossy(&refused.body));
    let check = |lab: &Lab| {
        let granted = find(lab, &["--client", "orders", "--outcome", "granted"]);
        assert_eq!(granted.len(), 4, "{granted:?}");
        let one = &find(lab, &["--token", &token])[0];
        assert_eq!(one["audience"], json!([API]));
        assert_eq!((&one["realm"], &one["grant_name"]), (&json!("r"), &json!("api")));
        assert_eq!(one["address"], "127.0.0.1");
        assert_eq!(one["request_id"].as_str().unwrap().len(), 22);
        for name in ["jti", "digest"] {
            let found = find(lab, &[&format!("--{name}"), one[name].as_str().unwrap()]);
            assert_eq!(found, std::slice::from_ref(one));
        }
        let refused = &find(lab, &["--outcome", "refused", "--client", "orders"])[0];
        assert_eq!(refused["code"], "scope_not_granted");
        let counts = find(lab, &["--count-by", "audience", "--outcome", "granted"]);
        let counts: Vec<_> = counts.iter().map(|g| (&g["audience"], &g["count"])).collect();
        assert_eq!(counts, [(&json!(OTHER), &json!(3)), (&json!(API), &json!(1))]);
        let kid = one["kid"].as_str().unwrap();
        let blast = &find(lab, &["--blast-radius", kid])[0];
        assert_eq!((&blast["tokens"], &blast["still_valid"]), (&json!(4), &json!(true)));
        assert_eq!(blast["by_audience"].as_array().unwrap().len(), 2);
        assert!(find(lab, &["--client", "nobody"]).is_empty());
        // Base64url may begin like an option.
        for name in ["--kid", "--blast-radius", "--jti", "--request-id"] {
            assert!(find(lab, &[name, "-x"]).iter().all(|found| found["tokens"] == 0), "{name}");
        }
        assert!(find(lab, &["--to", "2020-01-01"]).is_empty());
        assert_eq!(find(lab, &["--first-seen", "client,audience", "--last", "1h"]).len(), 3);
    };
    check(&lab);
    // A restart that finds them in the write-ahead log, and makes segments of them at once.
    lab.kill_service();
    let config = std::fs::read_to_string(lab.config_file()).unwrap();
    lab.write_config(&config.replace("flush_every_s = 3600", "flush_every_s = 1"));
    lab.start();
    check(&lab);
    wait_for_segments(&lab, 1);
    check(&lab);
    lab.kill_signer();
    wait_until("a successor", Duration::from_secs(30), || lab.is_ready());
    check(&lab);
    let _ = lab.stop();
    check(&lab);
    assert_eq!(verify(&lab).0, Some(0));
}

#[test]
fn strangers_are_counted_together_and_operators_named() {
    let (lab, _) = lab(3_600);
    let stranger = TestClient::new("nobody", Algorithm::Es256);
    for _ in 0..7 {
        let refused = lab.issue(&stranger, "r", vec![json!({"aud": API})]);
        assert_eq!(refused.status, 401);
    }
    assert!(lab.run(&["keys", "rotate", "r"]).status.success());
    wait_until("counts of strangers", Duration::from_secs(40), || {
        let found = find(&lab, &["--outcome", "refused"]);
        found.iter().map(|r| r["count"].as_u64().unwrap()).sum::<u64>() == 7
    });
    let refused = find(&lab, &["--outcome", "refused"]);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["code"], "unknown_client");
    let changed = find(&lab, &["--outcome", "changed"]);
    assert_eq!((&changed[0]["code"], &changed[0]["realm"]), (&json!("rotate"), &json!("r")));
    assert!(changed[0]["client"].as_str().unwrap().starts_with("uid:"), "{changed:?}");
}

#[test]
fn a_missing_altered_or_exchanged_segment_is_proven() {
    let (mut lab, client) = lab(1);
    for at in 1..=3 {
        let _ = lab.token(&client, "r", API);
        wait_for_segments(&lab, at);
    }
    let _ = lab.stop();
    let files = segments(&lab.data().join("store/audit"));
    assert!(files.len() >= 3, "{files:?}");
    assert_eq!(verify(&lab).0, Some(0));
    let (one, two) = (std::fs::read(&files[0]).unwrap(), std::fs::read(&files[1]).unwrap());
    let name = files[0].file_name().unwrap().to_str().unwrap().to_owned();

    for at in [0, one.len() / 2, one.len() - 1] {
        let mut altered = one.clone();
        altered[at] ^= 1;
        std::fs::write(&files[0], &altered).unwrap();
        let (code, words) = verify(&lab);
        assert!(code == Some(1) && words.contains("altered") && words.contains(&name), "{words}");
    }
    std::fs::write(&files[0], &two).unwrap();
    std::fs::write(&files[1], &one).unwrap();
    let (code, words) = verify(&lab);
    assert!(code == Some(1) && words.matches("altered").count() == 2, "{words}");
    std::fs::write(&files[1], &two).unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    let (code, words) = verify(&lab);
    assert!(code == Some(1) && words.contains("missing"), "{words}");
    // A question over a damaged archive is no answer, and says which object it is.
    std::fs::write(&files[0], &one[..one.len() / 2]).unwrap();
    let output = lab.run(&["audit", "find"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && words.contains(&name), "{words}");
    std::fs::write(&files[0], &one).unwrap();
    assert_eq!(verify(&lab).0, Some(0));

    // Without the key the segments are still checked, and not opened.
    let key = lab.data().join("audit.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert_eq!(verify(&lab).0, Some(0));
    let output = lab.run(&["audit", "find"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--key"));
    std::fs::write(lab.folder().join("elsewhere.key"), kept).unwrap();
    let elsewhere = lab.folder().join("elsewhere.key").display().to_string();
    assert_eq!(find(&lab, &["--key", &elsewhere, "--outcome", "granted"]).len(), 3);
}

#[test]
fn nonsense_is_refused_in_words() {
    let (lab, _) = lab(3_600);
    for (arguments, word) in [
        (&["--from", "yesterday"][..], "2026-11-23"),
        (&["--count-by", "jti"], "columns are"),
        (&["--digest", "00"], "64 hexadecimal"),
        (&["--outcome", "perhaps"], "granted"),
        (&["--token", "nonsense"], "three parts"),
        (&["--last", "99999999999999999999d"], "24h"),
        (&["--format", "parquet", "--last", "1h"], "--out"),
    ] {
        let output = lab.run(&[&["audit", "find"], arguments].concat());
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && words.contains(word), "{arguments:?}: {words}");
    }
    let missing = lab.folder().join("nowhere").display().to_string();
    let output = lab.run_plain(&["audit", "find", "--data", &missing]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no store at"));
    let output = lab.run(&["audit", "sql", "SELECT 1", "--duckdb", "/nowhere/duckdb"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn records_whose_key_is_gone_are_kept_as_they_are() {
    let (mut lab, client) = lab(3_600);
    let token = lab.token(&client, "r", API);
    lab.kill_service();
    // The machine's key is lost; a copy lies elsewhere.
    let (key, copy) = (lab.data().join("audit.key"), lab.folder().join("copy.key"));
    std::fs::rename(&key, &copy).unwrap();
    let config = std::fs::read_to_string(lab.config_file()).unwrap();
    lab.write_config(&config.replace("flush_every_s = 3600", "flush_every_s = 1"));
    lab.start();
    assert!(lab.log().contains("go to the store as they are"), "{}", lab.log());
    wait_for_segments(&lab, 1);
    let _ = lab.token(&client, "r", OTHER);
    wait_for_segments(&lab, 2);
    let (key, copy) = (key.display().to_string(), copy.display().to_string());
    let output = lab.run(&["audit", "find"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && words.contains(".sealed"), "{words}");
    let found = find(&lab, &["--key", &key, "--key", &copy, "--outcome", "granted"]);
    assert_eq!(found.len(), 2);
    let found = find(&lab, &["--key", &copy, "--key", &key, "--token", &token]);
    assert_eq!(found[0]["audience"], json!([API]));
    assert_eq!(verify(&lab).0, Some(0));
}
