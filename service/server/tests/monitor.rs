//! `chancery monitor` on a real service: through growth, rotation of signers and a compromise without
//! an alarm, and on copies of it that lie, each with its own.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use chancery_testkit::{Lab, wait_until};
use serde_json::{Value, json};

const AUDIENCE: &str = "https://api.example";

struct Watch<'a> {
    lab: &'a Lab,
    place: String,
    more: Vec<String>,
}

impl Watch<'_> {
    fn look(&self) -> (Option<i32>, Vec<Value>) {
        let mut arguments = vec!["monitor", "--once", "--json", "--follow", &self.place];
        arguments.extend(self.more.iter().map(String::as_str));
        let output = self.lab.run_plain(&arguments);
        let lines = String::from_utf8(output.stdout).unwrap();
        let said = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        (output.status.code(), said.collect())
    }

    fn is_clean(&self) -> Vec<Value> {
        let (code, said) = self.look();
        assert_eq!(code, Some(0), "{said:#?}");
        assert_eq!(said.last().unwrap()["event"], "ok");
        said
    }

    /// The codes of what one look finds.
    fn finds(&self) -> Vec<String> {
        let (code, said) = self.look();
        let violations = said.iter().filter(|line| line["event"] == "violation");
        let codes: Vec<String> =
            violations.map(|line| line["code"].as_str().unwrap().to_owned()).collect();
        assert_eq!(code, Some(i32::from(!codes.is_empty())), "{said:#?}");
        codes
    }
}

fn grown(said: &[Value]) -> usize {
    said.iter().filter(|line| line["event"] == "log").count()
}

#[test]
fn an_honest_service_is_followed_through_whatever_it_does() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let client = lab.demo();
    let state = lab.folder().join("state").display().to_string();
    let look = |lab: &Lab| {
        let more = vec!["--state".to_owned(), state.clone()];
        Watch { lab, place: lab.url(), more }.is_clean()
    };
    look(&lab);
    let many = lab.issue(&client, "consumers", vec![json!({"aud": AUDIENCE}); 200]);
    assert_eq!(many.status, 200);
    let first = lab.log_id();
    wait_until("the log to be published", Duration::from_secs(20), || grown(&look(&lab)) > 0);
    for realm in ["consumers", "organizations"] {
        assert!(lab.run(&["keys", "rotate", realm]).status.success());
        look(&lab);
    }
    lab.kill_signer();
    wait_until("another signer", Duration::from_secs(60), || {
        lab.has_other_signer(&first) && lab.is_ready()
    });
    let _ = lab.token(&client, "consumers", AUDIENCE);
    look(&lab);
    let set = lab.web.get(&format!("{}/jwks.json", lab.issuer("consumers"))).json();
    let kid = set["keys"][0]["kid"].as_str().unwrap();
    let fell = lab.run(&["keys", "compromise", kid, "--reason", "a test"]);
    assert!(fell.status.success(), "{fell:?}");
    look(&lab);
    let _ = lab.token(&client, "consumers", AUDIENCE);
    assert_eq!(lab.stop().code, Some(0));
    lab.start();
    look(&lab);
    assert_eq!(lab.stop().code, Some(0));
    let nobody = Watch { lab: &lab, place: lab.url(), more: vec!["--state".into(), state] };
    let (code, said) = nobody.look();
    assert_eq!(code, Some(2), "{said:#?}");
    assert!(said.iter().all(|line| line["event"] == "unreadable"), "{said:#?}");
}

/// A copy of everything that a service shows.
fn copy(lab: &Lab, to: &Path) {
    let fetch = |path: &str| lab.web.get(&format!("{}/{path}", lab.url()));
    let save = |path: &str, bytes: &[u8]| {
        let file = to.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    };
    save("signers", &fetch("signers").body);
    for realm in ["consumers", "organizations"] {
        let path = format!("{realm}/jwks.json");
        save(&path, &fetch(&path).body);
    }
    copy_folder(&lab.data().join("store/directory"), &to.join("directory"));
    save("directory/vkey", &fetch("directory/vkey").body);
    for log in lab.stored_logs() {
        let from = lab.data().join("store/log").join(&log);
        copy_folder(&from, &to.join("log").join(&log));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).unwrap() ^= 1;
    fs::write(file, bytes).unwrap();
}

fn edit_set(copy: &Path, edit: impl FnOnce(&mut Vec<Value>)) {
    let file = copy.join("consumers/jwks.json");
    let mut set: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    edit(set.get_mut("keys").and_then(Value::as_array_mut).unwrap());
    fs::write(file, set.to_string()).unwrap();
}

#[test]
fn a_copy_that_lies_is_found_out() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let client = lab.demo();
    let many = lab.issue(&client, "consumers", vec![json!({"aud": AUDIENCE}); 200]);
    assert_eq!(many.status, 200);
    // An orderly end publishes everything; until then this service goes on signing entries.
    let honest = lab.folder().join("honest");
    assert_eq!(lab.stop().code, Some(0));
    lab.start();
    copy(&lab, &honest);
    let log = lab.log_id();
    let state = lab.folder().join("state").display().to_string();
    let remembering = vec!["--state".to_owned(), state];
    let key = fs::read_to_string(honest.join("log").join(&log).join("vkey")).unwrap();
    let stranger = lab.folder().join("stranger.vkey");

    let place = lab.folder().join("copy");
    let lie = |more: Vec<String>, change: &dyn Fn(&Path)| -> Vec<String> {
        let _ = fs::remove_dir_all(&place);
        copy_folder(&honest, &place);
        change(&place);
        Watch { lab: &lab, place: place.display().to_string(), more }.finds()
    };
    assert!(lie(Vec::new(), &|_| ()).is_empty());
    assert!(lie(remembering.clone(), &|_| ()).is_empty());

    // Its bytes.
    let own = |copy: &Path| copy.join("log").join(&log);
    let names = ["checkpoint", "tile/entries", "tile/0", "tile/1"];
    for name in names {
        let changed = |copy: &Path| {
            let path = own(copy).join(name);
            let file = if path.is_dir() { files_below(&path).remove(0) } else { path };
            flip(&file);
        };
        if own(&honest).join(name).exists() {
            assert_eq!(lie(Vec::new(), &changed), ["log_disagrees"], "{name}");
        }
    }
    assert_eq!(lie(Vec::new(), &|copy| flip(&own(copy).join("keys.jwt"))), ["signed_set"]);
    let in_directory = |copy: &Path| flip(&files_below(&copy.join("directory/tile/0")).remove(0));
    assert_eq!(lie(Vec::new(), &in_directory), ["log_disagrees"]);
    let without = |copy: &Path| fs::remove_dir_all(copy.join("directory")).unwrap();
    assert_eq!(lie(remembering.clone(), &without), ["directory_vanished"]);
    assert!(lie(Vec::new(), &without).is_empty());
    let other_key = |copy: &Path| fs::write(copy.join("directory/vkey"), directory_key()).unwrap();
    assert_eq!(lie(remembering.clone(), &other_key), ["directory_replaced"]);
    let gone = |copy: &Path| fs::remove_file(own(copy).join("checkpoint")).unwrap();
    assert_eq!(lie(remembering, &gone), ["log_vanished"]);

    // Its key sets.
    let set = |edit: &dyn Fn(&mut Vec<Value>)| lie(Vec::new(), &|copy| edit_set(copy, edit));
    let first = |keys: &mut Vec<Value>, name: &str, value: Value| {
        *keys.first_mut().unwrap().get_mut(name).unwrap() = value;
    };
    let wider = |keys: &mut Vec<Value>| {
        let until = keys.first().unwrap()["signs_until"].as_u64().unwrap();
        first(keys, "signs_until", (until + 1).into());
    };
    assert_eq!(set(&wider), ["served_window"]);
    let elsewhere = |keys: &mut Vec<Value>| first(keys, "issuer", "https://evil.example".into());
    assert_eq!(set(&elsewhere), ["served_elsewhere"]);
    let unannounced = |keys: &mut Vec<Value>| {
        let key = chancery_testkit::TestClient::new("evil", chancery_token::Algorithm::Es256);
        let mut jwk = keys.first().unwrap().clone();
        for (name, value) in key.jwk() {
            jwk[name] = value;
        }
        keys.push(jwk);
    };
    assert_eq!(set(&unannounced), ["served_unannounced"]);

    // A log that the anchor does not name.
    let output: Output = lab.run_plain(&["monitor", "--follow", "x", "--anchor", "none"]);
    assert_eq!(output.status.code(), Some(2));
    fs::write(&stranger, foreign_key()).unwrap();
    let anchored = vec!["--anchor".to_owned(), stranger.display().to_string()];
    let mut found = lie(anchored, &|_| ());
    found.sort();
    assert_eq!(found, ["log_not_named", "log_vanished"]);
    for key in [key, fs::read_to_string(honest.join("directory/vkey")).unwrap()] {
        fs::write(&stranger, key).unwrap();
        let anchored = vec!["--anchor".to_owned(), stranger.display().to_string()];
        assert!(lie(anchored, &|_| ()).is_empty());
    }
}

/// A verifier key of another directory.
fn directory_key() -> String {
    chancery_tlog::note::VerifierKey::new_ed25519("x.example/directory", &[7; 32])
        .unwrap()
        .to_string()
}

/// A verifier key of another log.
fn foreign_key() -> String {
    let public = [7; 32];
    let id = chancery_tlog::LogId::of(&public);
    let key =
        chancery_tlog::note::VerifierKey::new_ed25519(&format!("x.example/log/{id}"), &public);
    key.unwrap().to_string()
}

#[test]
fn without_once_it_goes_on_until_a_violation() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let _ = lab.token(&lab.demo(), "consumers", AUDIENCE);
    assert_eq!(lab.stop().code, Some(0));
    let copied = lab.folder().join("copy");
    lab.start();
    copy(&lab, &copied);
    let mut monitor = std::process::Command::new(env!("CARGO_BIN_EXE_chancery"))
        .args(["monitor", "--interval", "1", "--follow"])
        .arg(&copied)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(monitor.try_wait().unwrap().is_none(), "it ended without a reason");
    fs::remove_file(copied.join("log").join(lab.log_id()).join("checkpoint")).unwrap();
    wait_until("the violation", Duration::from_secs(20), || monitor.try_wait().unwrap().is_some());
    let output = monitor.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("VIOLATION log_vanished: log "), "{said}");
}
