//! Full disks, read-only stores, stores that vanish, damaged files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chancery_testkit::{Answer, Judge, Lab, TestClient, wait_until};
use serde_json::{Value, json};

use super::{AUDIENCE, CHANCERY, client, configure};

const PATIENCE: Duration = Duration::from_secs(60);
/// The signer drops what is not committed within 30 s.
const BEYOND_COMMIT_TIME: Duration = Duration::from_secs(33);

/// A small file system of its own; needs the right to mount.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("skipped: only root can mount a small file system");
        None
    }

    fn remount(&self, how: &str) {
        let option = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &option]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// Uses up all space.
    fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).unwrap();
        for size in [256 * 1024, 4096, 1] {
            let chunk = vec![0; size];
            while file.write_all(&chunk).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the lab's processes may end after this.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn batch(lab: &Lab, client: &TestClient) -> Answer {
    lab.issue(client, "r", vec![json!({"aud": AUDIENCE}); 256])
}

fn tokens_in(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let tokens = body["tokens"].as_array().unwrap();
    tokens.iter().map(|t| t["access_token"].as_str().unwrap().to_owned()).collect()
}

fn metric(lab: &Lab, name: &str) -> f64 {
    let text = lab.web.get(&format!("{}/metrics", lab.admin_url())).text();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or("0 0").to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_full_disk_stops_issuing_and_a_freed_one_starts_it_again() {
    let mut lab = Lab::new(CHANCERY);
    let at = lab.folder().join("disk");
    let Some(disk) = Disk::new(&at, 12) else { return };
    let client = client("c");
    lab.set_data(&at.join("data"));
    configure(&mut lab, "wal_segment_mib = 1", "", &[&client]);
    lab.start();
    let mut received = tokens_in(&batch(&lab, &client));
    disk.fill();

    // The store fails at once; what the write-ahead log still takes is durable and is released.
    let deadline = Instant::now() + 2 * PATIENCE;
    let refused = loop {
        let answer = batch(&lab, &client);
        if answer.status != 200 {
            break answer;
        }
        received.extend(tokens_in(&answer));
        assert!(Instant::now() < deadline, "the log never fills: {} tokens", received.len());
    };
    let full_since = Instant::now();
    println!("{} tokens before the disk stopped them", received.len());
    for answer in [refused, batch(&lab, &client)] {
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
        assert_eq!(answer.json()["code"], "temporarily_unavailable");
    }
    assert!(!lab.is_ready());
    assert!(metric(&lab, "chancery_publish_failures_total") > 0.0);
    // Long enough for the signer to give up what waits for its commit.
    while full_since.elapsed() < BEYOND_COMMIT_TIME {
        assert_eq!(batch(&lab, &client).status, 503);
        std::thread::sleep(Duration::from_millis(500));
    }

    disk.free();
    lab.wait_ready();
    wait_until("issuing again", PATIENCE, || {
        let answer = batch(&lab, &client);
        if answer.status == 200 {
            received.extend(tokens_in(&answer));
        }
        answer.status == 200
    });
    let mut judge = Judge::new(&lab, "r", AUDIENCE);
    for token in &received {
        judge.must_hold(token);
    }
    assert_eq!(lab.check_logs(), 1);
    // Nobody had to restart anything, and a restart finds the same.
    lab.kill_service();
    lab.start();
    let mut judge = Judge::new(&lab, "r", AUDIENCE);
    judge.must_hold(received.last().unwrap());
    assert_eq!(lab.check_logs(), 1);
}

#[test]
fn a_compromise_that_cannot_be_stored_is_an_error_and_changes_nothing() {
    let mut lab = Lab::new(CHANCERY);
    let at = lab.folder().join("disk");
    let Some(disk) = Disk::new(&at, 8) else { return };
    let client = client("c");
    lab.set_data(&at.join("data"));
    configure(&mut lab, "wal_segment_mib = 1", "", &[&client]);
    lab.start();
    let token = lab.token(&client, "r", AUDIENCE);
    let kid = Judge::new(&lab, "r", AUDIENCE).must_hold(&token).kid().to_owned();
    disk.fill();
    let failed = lab.run(&["keys", "compromise", &kid, "--reason", "a drill"]);
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("compromise/"), "{failed:?}");
    assert!(Judge::new(&lab, "r", AUDIENCE).validate(&token).is_ok());
    disk.free();
    let done = lab.run(&["keys", "compromise", &kid, "--reason", "a drill"]);
    assert!(done.status.success(), "{done:?}");
    assert!(Judge::new(&lab, "r", AUDIENCE).validate(&token).is_err());
}

#[test]
fn a_disk_without_room_for_the_write_ahead_log_is_refused_at_start() {
    let mut lab = Lab::new(CHANCERY);
    let at = lab.folder().join("disk");
    let Some(disk) = Disk::new(&at, 2) else { return };
    lab.set_data(&at.join("data"));
    configure(&mut lab, "wal_segment_mib = 1", "", &[&client("c")]);
    lab.spawn();
    assert_eq!(lab.wait_exit().code, Some(2));
    let wal = at.join("data/wal").display().to_string();
    assert!(lab.log().contains(&wal) && lab.log().contains("no space"), "{}", lab.log());
    assert!(lab.signer_pid().is_none());
    drop(disk);
}

#[test]
fn a_read_only_store_holds_up_publishing_and_nothing_else() {
    let mut lab = Lab::new(CHANCERY);
    let store = lab.data().join("store");
    let Some(disk) = Disk::new(&store, 16) else { return };
    let client = client("c");
    configure(&mut lab, "wal_segment_mib = 1", "", &[&client]);
    lab.start();
    let mut received = vec![lab.token(&client, "r", AUDIENCE)];
    disk.remount("ro");
    received.extend(tokens_in(&batch(&lab, &client)));
    wait_until("a failure to publish", PATIENCE, || {
        metric(&lab, "chancery_publish_failures_total") > 0.0
    });
    // The write-ahead log holds them, and they are served from memory.
    received.extend(tokens_in(&batch(&lab, &client)));
    let mut judge = Judge::new(&lab, "r", AUDIENCE);
    for token in &received {
        judge.must_hold(token);
    }

    // A start needs the store: it says which object it could not write.
    lab.kill_service();
    lab.spawn();
    assert_eq!(lab.wait_exit().code, Some(2));
    assert!(lab.log().contains("Read-only file system"), "{}", lab.log());

    disk.remount("rw");
    lab.start();
    let mut judge = Judge::new(&lab, "r", AUDIENCE);
    for token in &received {
        judge.must_hold(token);
    }
    let log = lab.log_id();
    disk.remount("ro");
    received.push(lab.token(&client, "r", AUDIENCE));
    disk.remount("rw");
    assert_eq!(lab.check_logs(), 1);
    assert_eq!(lab.log_id(), log, "the signer lived through all of it");
    // `check_logs` waited for the folder to agree; the last token is in it.
    wait_until("the last token in the folder", PATIENCE, || {
        let folder = store.join("log").join(&log).display().to_string();
        let output = lab.run_plain(&["log", "check", &folder, "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        report["tokens"].as_u64() == Some(received.len() as u64)
    });
}

#[test]
fn a_store_that_vanished_is_not_taken_for_an_empty_one() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    configure(&mut lab, "", "", &[&client]);
    lab.start();
    let mut received = Vec::new();
    for _ in 0..3 {
        received.extend(tokens_in(&batch(&lab, &client)));
        // Published, so that the write-ahead log keeps only what came later.
        let published = || metric(&lab, "chancery_published_entries") > received.len() as f64;
        wait_until("publishing", PATIENCE, published);
    }
    let log = lab.log_id();
    assert_eq!(lab.check_logs(), 1);
    let (store, aside) = (lab.data().join("store"), lab.folder().join("aside"));
    lab.kill_service();
    fs::rename(&store, &aside).unwrap();
    lab.spawn();
    assert_eq!(lab.wait_exit().code, Some(2), "{}", lab.log());
    assert!(lab.log().contains("STORAGE LOST"), "{}", lab.log());
    assert!(lab.log().contains("restore the store"), "{}", lab.log());

    let _ = fs::remove_dir_all(&store);
    fs::rename(&aside, &store).unwrap();
    lab.start();
    assert_eq!(lab.log_id(), log);
    let mut judge = Judge::new(&lab, "r", AUDIENCE);
    for token in &received {
        judge.must_hold(token);
    }
    let _ = lab.token(&client, "r", AUDIENCE);
    assert_eq!(lab.check_logs(), 1);
}

#[test]
fn a_damaged_write_ahead_log_is_refused_by_name() {
    let mut lab = Lab::new(CHANCERY);
    let client = client("c");
    configure(&mut lab, "wal_segment_mib = 1", "", &[&client]);
    lab.start();
    let token = lab.token(&client, "r", AUDIENCE);
    lab.kill_service();
    let segments: Vec<PathBuf> =
        fs::read_dir(lab.data().join("wal")).unwrap().flatten().map(|e| e.path()).collect();
    let segment = segments.iter().min().unwrap();
    let good = fs::read(segment).unwrap();
    let mut bad_header = good.clone();
    bad_header[..64].fill(0xa5);
    for damaged in [good[..good.len() / 2].to_vec(), bad_header] {
        fs::write(segment, damaged).unwrap();
        let before = lab.log().len();
        lab.spawn();
        assert_eq!(lab.wait_exit().code, Some(2));
        let words = lab.log()[before..].to_owned();
        assert!(words.contains(&segment.display().to_string()), "{words}");
        assert!(words.contains("error: write-ahead log"), "{words}");
    }
    fs::write(segment, good).unwrap();
    lab.start();
    Judge::new(&lab, "r", AUDIENCE).must_hold(&token);
    assert_eq!(lab.check_logs(), 1);
}
