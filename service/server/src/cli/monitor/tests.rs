//! Folders that lie in one way each, and what the monitor says of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chancery_entry::{
    Announcement, Compromise, Entry, Genesis, Imported, Narrowing, Start, TokenEntry,
};
use chancery_token::jwks::{Member, Window, to_json};
use chancery_token::{Algorithm, PublicKey, RsaBits, SigningKey};
use serde_json::json;

use super::follow::Follower;
use super::memory::Memory;
use super::report::{CODES, Report, Violation};
use super::*;
use crate::directory::tests::{Folder, empty_store, heads, open, successor};
use crate::logs::tests::support::TestLog;

const NBF: u64 = 1_000;
const UNTIL: u64 = 5_000;
const MAX_LIFETIME: u64 = 600;

/// A deployment in a folder: one realm, and whatever logs and keys a test puts there.
struct Deployment {
    folder: PathBuf,
    logs: Vec<String>,
}

impl Deployment {
    fn new(name: &str) -> Self {
        let name = format!("chancery-monitor-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, logs: Vec::new() }
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let file = self.folder.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// Publishes a log at a size, and names its signer.
    fn publish(&mut self, log: &TestLog, size: usize) {
        let _ = std::fs::remove_dir_all(self.folder.join(log.path("")));
        for (path, bytes) in log.objects(size) {
            if !path.ends_with("keys.jwt") {
                self.write(&path, &bytes);
            }
        }
        let id = log.id().to_string();
        if !self.logs.contains(&id) {
            self.logs.push(id);
        }
        let signers: Vec<_> = self.logs.iter().map(|id| json!({"log_id": id})).collect();
        self.write("signers", json!({"signers": signers}).to_string().as_bytes());
    }

    fn serve(&self, members: &[Member]) {
        self.write("r/jwks.json", to_json(members).as_bytes());
    }

    fn follower(&self, anchor: Option<&str>, state: Option<&Path>) -> Follower {
        let url = self.folder.display().to_string();
        let memory = Memory::open(state, &url).unwrap();
        let anchor = anchor.map(|text| Anchor::parse(text).unwrap());
        Follower::new(Place::parse(&url), anchor, memory)
    }

    /// Codes of what one look finds.
    fn look(&self) -> BTreeSet<&'static str> {
        look(&mut self.follower(None, None))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn look(follower: &mut Follower) -> BTreeSet<&'static str> {
    let mut report = Report::silent();
    let round = follower.round(&mut report).unwrap();
    assert_eq!(round.unreadable, 0);
    let found: Vec<Violation> = report.said();
    assert_eq!(found.len(), round.violations, "{found:?}");
    assert!(found.iter().all(|v| CODES.contains(&v.code)), "{found:?}");
    found.into_iter().map(|v| v.code).collect()
}

struct Key(PublicKey);

impl Key {
    fn new() -> Self {
        let key = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        Self(key.public().clone())
    }

    fn kid(&self) -> [u8; 32] {
        *self.0.kid().as_bytes()
    }

    fn announcement(&self) -> Announcement {
        Announcement {
            realm: "r".into(),
            issuer: "https://test.example/r".into(),
            jwk: serde_json::Value::Object(self.0.jwk()).to_string(),
            kid: self.kid(),
            algorithm: "Ed25519".into(),
            nbf: NBF,
            signs_until: UNTIL,
            max_lifetime_s: MAX_LIFETIME,
            start: Start::First,
        }
    }

    fn token(&self, iat: u64) -> Entry {
        Entry::Token(TokenEntry::of(self.kid(), iat, iat + 60, &iat.to_be_bytes()))
    }

    /// As a service serves it that was announced at this place.
    fn member(&self, log: &TestLog, index: u64) -> Member {
        Member {
            issuer: Some("https://test.example/r".into()),
            window: Some(Window { nbf: NBF, signs_until: UNTIL }),
            exp: Some(UNTIL + MAX_LIFETIME),
            log: Some(format!("{}.{index}", log.id())),
            ..Member::new(self.0.clone())
        }
    }
}

fn genesis() -> Entry {
    Entry::Genesis(Genesis {
        software: "test".into(),
        started_at: 1_000,
        policy_digest: [1; 32],
        evidence_digest: None,
        predecessor: None,
        cosigning_key: None,
    })
}

/// Genesis, the key, and tokens up to 300 entries.
fn entries(key: &Key) -> Vec<Entry> {
    let mut entries = vec![genesis(), Entry::Announcement(key.announcement())];
    entries.extend((2..300).map(|index| key.token(NBF + index)));
    entries
}

#[test]
fn an_honest_deployment_is_followed_as_it_grows_and_across_runs() {
    let mut deployment = Deployment::new("honest");
    let key = Key::new();
    let log = TestLog::of_entries(7, &entries(&key));
    let state = deployment.folder.join("state");
    deployment.publish(&log, 1);
    deployment.serve(&[]);
    let mut follower = deployment.follower(None, Some(&state));
    for size in [1, 1, 2, 40, 256, 257, 300] {
        deployment.publish(&log, size);
        let members = [key.member(&log, 1)];
        deployment.serve(if size > 1 { &members } else { &[] });
        assert!(look(&mut follower).is_empty(), "{size}");
    }
    drop(follower);
    assert!(look(&mut deployment.follower(None, Some(&state))).is_empty());
    let vkey = log.vkey().to_string();
    assert!(look(&mut deployment.follower(Some(&vkey), None)).is_empty());
}

#[test]
fn a_log_that_contradicts_itself_is_named_by_its_code() {
    let key = Key::new();
    let at = |index: usize, entry: Entry| {
        let mut entries = entries(&key);
        entries[index] = entry;
        entries
    };
    let other = Key::new();
    let cases = [
        ("not_announced", at(290, other.token(NBF + 5))),
        ("not_announced", at(1, key.token(NBF + 5))),
        ("outside_window", at(290, key.token(UNTIL))),
        ("outside_window", at(3, key.token(NBF - 1))),
        (
            "outside_window",
            at(2, Entry::Narrowing(Narrowing { kid: key.kid(), signs_until: 1_100 })),
        ),
        ("widened", at(9, Entry::Narrowing(Narrowing { kid: key.kid(), signs_until: UNTIL + 1 }))),
        ("announced_twice", at(270, Entry::Announcement(key.announcement()))),
        (
            "after_compromise",
            at(200, Entry::Compromise(Compromise { kid: key.kid(), at: 1, reason: "x".into() })),
        ),
        (
            "other_key",
            at(270, Entry::Announcement(Announcement { kid: [1; 32], ..key.announcement() })),
        ),
        (
            "empty_window",
            at(1, Entry::Announcement(Announcement { signs_until: NBF, ..key.announcement() })),
        ),
        ("genesis", at(5, genesis())),
    ];
    for (code, entries) in cases {
        let mut deployment = Deployment::new("story");
        deployment.publish(&TestLog::of_entries(7, &entries), 300);
        assert_eq!(deployment.look(), [code].into(), "{code}");
    }
}

#[test]
fn a_served_key_that_is_not_as_announced_is_a_violation() {
    let key = Key::new();
    let mut entries = entries(&key);
    let (narrowed, fallen, elsewhere) = (Key::new(), Key::new(), Key::new());
    for key in [&narrowed, &fallen] {
        entries.push(Entry::Announcement(key.announcement()));
    }
    entries
        .push(Entry::Announcement(Announcement { realm: "s".into(), ..elsewhere.announcement() }));
    entries.push(Entry::Narrowing(Narrowing { kid: narrowed.kid(), signs_until: 2_000 }));
    entries.push(Entry::Compromise(Compromise { kid: fallen.kid(), at: 1, reason: "x".into() }));
    let imported = Key::new();
    let import = |until| {
        Entry::Imported(Imported {
            realm: "r".into(),
            issuer: "https://test.example/r".into(),
            kid: "made elsewhere".into(),
            jwk: serde_json::Value::Object(imported.0.jwk()).to_string(),
            at: 1,
            until,
            in_discovery: true,
        })
    };
    let hidden = Key::new();
    let hide = |key: &Key, kid: &str| match import(9_000) {
        Entry::Imported(listed) => Entry::Imported(Imported {
            kid: kid.into(),
            jwk: serde_json::Value::Object(key.0.jwk()).to_string(),
            in_discovery: false,
            ..listed
        }),
        other => other,
    };
    entries.push(hide(&hidden, "hidden"));
    let shown = Member {
        kid: "hidden".into(),
        issuer: Some("https://test.example/r".into()),
        exp: Some(9_000),
        ..Member::new(hidden.0.clone())
    };
    entries.push(import(9_000));
    entries.push(import(8_000));
    let elsewhere_made = Member {
        kid: "made elsewhere".into(),
        issuer: Some("https://test.example/r".into()),
        exp: Some(8_000),
        ..Member::new(imported.0.clone())
    };
    let log = TestLog::of_entries(7, &entries);
    let mut deployment = Deployment::new("served");
    deployment.publish(&log, entries.len());
    let good = key.member(&log, 1);
    let window = |nbf, signs_until| Some(Window { nbf, signs_until });
    let cases: Vec<(&[&'static str], Member)> = vec![
        (&[], good.clone()),
        (&[], Member { window: window(NBF + 1, UNTIL - 1), ..good.clone() }),
        (&["served_window"], Member { window: window(NBF - 1, UNTIL), ..good.clone() }),
        (&["served_window"], Member { window: window(NBF, UNTIL + 1), ..good.clone() }),
        (&["served_window"], Member { window: None, ..good.clone() }),
        (&["served_elsewhere"], Member { issuer: Some("https://evil".into()), ..good.clone() }),
        (&["served_elsewhere"], Member { issuer: None, ..good.clone() }),
        (&["served_elsewhere"], Member { log: Some(format!("{}.2", log.id())), ..good.clone() }),
        (&["served_elsewhere"], Member { log: None, ..good.clone() }),
        (&["served_elsewhere"], elsewhere.member(&log, 302)),
        (&["served_unannounced"], Key::new().member(&log, 1)),
        (&["served_window"], narrowed.member(&log, 300)),
        (&[], Member { window: window(NBF, 2_000), ..narrowed.member(&log, 300) }),
        (&[], elsewhere_made.clone()),
        (&["served_window"], Member { exp: Some(8_001), ..elsewhere_made.clone() }),
        (&["served_elsewhere"], Member { issuer: None, ..elsewhere_made.clone() }),
        (&["served_unannounced"], Member { kid: "other".into(), ..elsewhere_made }),
        (&["served_hidden"], shown),
        (&["served_compromised"], fallen.member(&log, 301)),
    ];
    for (codes, member) in cases {
        deployment.serve(std::slice::from_ref(&member));
        assert_eq!(deployment.look(), codes.iter().copied().collect(), "{member:?}");
    }
    deployment.write("r/jwks.json", b"{");
    assert_eq!(deployment.look(), ["served_unreadable"].into());
    deployment.serve(&[good]);
    deployment.write(&log.path("keys.jwt"), b"a.b.c");
    assert_eq!(deployment.look(), ["signed_set"].into());

    let mut entries = self::entries(&key);
    entries.push(hide(&key, "mine"));
    let mut deployment = Deployment::new("imported-own");
    deployment.publish(&TestLog::of_entries(7, &entries), entries.len());
    assert_eq!(deployment.look(), ["imported_own"].into());
}

#[test]
fn a_log_that_is_altered_rewritten_rolled_back_or_gone_is_a_violation() {
    let key = Key::new();
    let mut fork = entries(&key);
    fork[10] = key.token(NBF + 3_000);
    let (log, fork) = (TestLog::of_entries(7, &entries(&key)), TestLog::of_entries(7, &fork));
    let mut deployment = Deployment::new("altered");
    let state = deployment.folder.join("state");
    deployment.publish(&log, 290);
    for (path, at) in [("tile/entries/000", 300), ("tile/0/001.p/34", 5), ("checkpoint", 3)] {
        let file = deployment.folder.join(log.path(path));
        let good = std::fs::read(&file).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        assert_eq!(deployment.look(), ["log_disagrees"].into(), "{path}");
        std::fs::write(&file, &good).unwrap();
    }
    let mut living = deployment.follower(None, None);
    let mut first = deployment.follower(None, Some(&state));
    assert!(look(&mut living).is_empty() && look(&mut first).is_empty());
    drop(first);
    for (log, size) in [(&log, 289), (&fork, 290), (&fork, 300), (&log, 100)] {
        deployment.publish(log, size);
        let mut again = deployment.follower(None, Some(&state));
        assert_eq!(look(&mut again), ["log_rewritten"].into(), "{size}");
        assert_eq!(look(&mut living), ["log_rewritten"].into(), "{size}");
    }
    deployment.publish(&log, 300);
    assert!(look(&mut living).is_empty());
    std::fs::remove_dir_all(deployment.folder.join(log.path(""))).unwrap();
    deployment.write("signers", br#"{"signers":[]}"#);
    assert_eq!(look(&mut living), ["log_vanished"].into());
    assert_eq!(look(&mut deployment.follower(None, Some(&state))), ["log_vanished"].into());
}

#[test]
fn logs_beyond_the_anchor_and_keys_of_two_logs_are_violations() {
    let (key, other) = (Key::new(), Key::new());
    let (one, two) =
        (TestLog::of_entries(7, &entries(&key)), TestLog::of_entries(8, &entries(&other)));
    let mut deployment = Deployment::new("anchor");
    deployment.publish(&one, 300);
    deployment.publish(&two, 300);
    assert!(deployment.look().is_empty());
    let mut anchored = deployment.follower(Some(&one.vkey().to_string()), None);
    assert_eq!(look(&mut anchored), ["log_not_named"].into());
    let both = format!("{}\n{}", one.vkey(), two.vkey());
    assert!(look(&mut deployment.follower(Some(&both), None)).is_empty());
    deployment.publish(&TestLog::of_entries(9, &entries(&key)), 300);
    assert_eq!(deployment.look(), ["announced_twice"].into());
}

#[test]
fn a_state_is_of_one_deployment_and_what_cannot_be_read_is_no_violation() {
    let mut deployment = Deployment::new("state");
    let key = Key::new();
    deployment.publish(&TestLog::of_entries(7, &entries(&key)), 10);
    let state = deployment.folder.join("state");
    look(&mut deployment.follower(None, Some(&state)));
    let why = format!("{:#}", Memory::open(Some(&state), "https://other.example").err().unwrap());
    assert!(why.contains("use a folder for each deployment"), "{why}");
    for signers in ["{", "{}", r#"{"signers":[{}]}"#, r#"{"signers":[{"log_id":"x"}]}"#] {
        deployment.write("signers", signers.as_bytes());
        let round = deployment.follower(None, None).round(&mut Report::silent()).unwrap();
        assert_eq!((round.violations, round.unreadable), (0, 1), "{signers}");
    }
    deployment.write(
        "signers",
        format!(r#"{{"signers":[{{"log_id":"{}"}}]}}"#, "A".repeat(22)).as_bytes(),
    );
    assert_eq!(deployment.look(), ["log_vanished"].into());
}

#[tokio::test]
async fn logs_that_are_not_what_the_directory_says_are_violations() {
    let (store, key) = (empty_store().await, Key::new());
    let folder = Folder::new();
    let first = TestLog::of_entries(7, &entries(&key));
    let second = successor(2, &first, 260);
    let directory = open(store.bucket(), &folder).await.unwrap();
    directory.follow(&heads(&[(&first, 200)], Some(&first))).await.unwrap();
    let both = [(&first, 260), (&second, 9)];
    directory.follow(&heads(&both, Some(&second))).await.unwrap();
    let mut deployment = Deployment::new("directory");
    for (path, bytes) in store.visible() {
        deployment.write(&path, &bytes);
    }
    deployment.write("directory/vkey", directory.vkey().to_string().as_bytes());
    deployment.publish(&first, 260);
    deployment.publish(&second, 12);
    assert!(deployment.look().is_empty());
    let mut living = deployment.follower(None, None);
    assert!(look(&mut living).is_empty());
    let anchor = directory.vkey().to_string();
    assert!(look(&mut deployment.follower(Some(&anchor), None)).is_empty());

    // Another history by the same key, an older copy, growth after the end.
    let fork = TestLog::of_entries(7, &entries(&Key::new()));
    for (log, size) in [(&fork, 260), (&first, 261), (&second, 4)] {
        deployment.publish(log, size);
        assert_eq!(deployment.look(), ["log_rewritten"].into(), "{size}");
        deployment.publish(&first, 260);
        deployment.publish(&second, 12);
    }
    // A log that the directory does not name.
    let key = Key::new();
    deployment.publish(&TestLog::of_entries(9, &entries(&key)), 20);
    assert_eq!(deployment.look(), ["log_not_named"].into());
    assert_eq!(look(&mut deployment.follower(Some(&anchor), None)), ["log_not_named"].into());
    assert_eq!(look(&mut living), ["log_not_named"].into());
}

#[test]
fn every_code_is_explained() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/monitor.md");
    let page = std::fs::read_to_string(page).unwrap();
    for code in CODES {
        assert!(page.contains(&format!("| `{code}` |")), "{code}");
    }
}
