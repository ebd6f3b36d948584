//! `chancery witness` as logs and monitors meet it: every status of c2sp.org/tlog-witness, bad and
//! hostile requests, and `kill -9` at random moments.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery_testkit::{Answer, OwnLog, Port, Web, raw_exchange, wait_until};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::witness::{
    self, AddCheckpoint, MAX_REQUEST_BYTES, checkpoint_path, judge_answer,
};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const ORIGIN: &str = "example.com/log";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running witness.
struct Witness {
    process: Child,
    folder: PathBuf,
    port: Port,
    admin: Port,
    web: Web,
}

impl Witness {
    fn start(name: &str, requests_per_s: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("chancery-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let (port, admin) = (Port::reserve(), Port::reserve());
        let config = format!(
            "name = \"witness.example/w1\"\nlisten = \"{}\"\nadmin_listen = \"{}\"\n\
             data = \"{}\"\nsecond_copy = \"{}\"\nrequests_per_s = {requests_per_s}\n\
             [[log]]\nvkeys = [\"{}\"]\n",
            port.address(),
            admin.address(),
            folder.join("data").display(),
            folder.join("second").display(),
            log().vkey(),
        );
        fs::write(folder.join("witness.toml"), config).unwrap();
        let process = spawn(&folder);
        let witness = Self { process, folder, port, admin, web: Web::new() };
        witness.wait();
        witness
    }

    fn wait(&self) {
        let url = format!("http://{}/healthz", self.admin.address());
        wait_until("the witness", PATIENCE, || {
            self.web.try_send("GET", &url, &[], b"").is_ok_and(|answer| answer.status == 200)
        });
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.port.address())
    }

    fn post(&self, body: &[u8]) -> Answer {
        self.web.send("POST", &self.url("add-checkpoint"), &[], body)
    }

    fn ask(&self, log: &OwnLog, old: u64, new: u64) -> (Answer, AddCheckpoint) {
        let request = log.request(old, new);
        (self.post(request.encode().as_bytes()), request)
    }

    fn keys(&self) -> Vec<VerifierKey> {
        let text = self.web.get(&self.url("")).text();
        text.lines().map(|line| VerifierKey::parse(line).unwrap()).collect()
    }

    fn metrics(&self) -> String {
        self.web.get(&format!("http://{}/metrics", self.admin.address())).text()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = spawn(&self.folder);
        self.wait();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(folder: &Path) -> Child {
    let errors = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(CHANCERY);
    command.arg("witness").arg("--config").arg(folder.join("witness.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap()
}

fn log() -> OwnLog {
    let mut log = OwnLog::new(ORIGIN, 7);
    log.grow(600, "true");
    log
}

fn judged(keys: &[VerifierKey], answer: &Answer, request: &AddCheckpoint) -> witness::Answer {
    let kind = Some(answer.header("content-type"));
    judge_answer(request, keys, answer.status, kind, &answer.body).unwrap()
}

#[test]
fn every_status_of_the_protocol() {
    let (log, witness) = (log(), Witness::start("witness-status", 1_000));
    let keys = witness.keys();
    assert_eq!(keys.len(), 2);
    for (old, new) in [(0, 0), (0, 5), (5, 5), (5, 257), (257, 513)] {
        let (answer, request) = witness.ask(&log, old, new);
        assert_eq!(answer.status, 200, "{answer:?}");
        match judged(&keys, &answer, &request) {
            witness::Answer::Cosigned(cosigned) => assert_eq!(cosigned.len(), 2),
            other => panic!("{other:?}"),
        }
        let shown = witness.web.get(&witness.url(&checkpoint_path(ORIGIN))).text();
        assert!(shown.starts_with(&request.note().text), "{shown}");
    }
    let (answer, request) = witness.ask(&log, 5, 520);
    assert_eq!((answer.status, answer.text().as_str()), (409, "513\n"));
    assert_eq!(answer.header("content-type"), "text/x.tlog.size");
    assert_eq!(judged(&keys, &answer, &request), witness::Answer::Conflict { latest: 513 });

    let mut fork = log.forked_at(500);
    fork.grow(600, "other");
    for size in [513, 600] {
        let (answer, request) = witness.ask(&fork, 513, size);
        assert_eq!(answer.status, 422);
        assert_eq!(judged(&keys, &answer, &request), witness::Answer::Inconsistent);
    }
    assert_eq!(fs::read_dir(witness.folder.join("data/evidence")).unwrap().count(), 2);

    let mut stranger = OwnLog::new("stranger.example/log", 1);
    stranger.grow(2, "x");
    assert_eq!(witness.ask(&stranger, 0, 2).0.status, 404);
    // The origin of a known log, and a key that is not its own.
    let mut thief = OwnLog::new(ORIGIN, 8);
    thief.grow(600, "true");
    assert_eq!(witness.ask(&thief, 513, 600).0.status, 403);
    let too_old = log.request(513, 513).encode().replace("old 513\n", "old 514\n");
    assert_eq!(witness.post(too_old.as_bytes()).status, 400);
    let text = witness.metrics();
    for line in [
        r#"chancery_witness_requests_total{outcome="cosigned"} 5"#,
        r#"chancery_witness_requests_total{outcome="inconsistent"} 2"#,
        r#"chancery_witness_cosigned_size{origin="example.com/log"} 513"#,
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn bad_requests_change_nothing() {
    let (log, witness) = (log(), Witness::start("witness-bad", 1_000));
    assert_eq!(witness.ask(&log, 0, 9).0.status, 200);
    let path = witness.url(&checkpoint_path(ORIGIN));
    let before = witness.web.get(&path).text();
    let good = log.request(9, 20).encode();
    let cut = &good[..good.len() - 3];
    let long = format!("{good}{}", "x".repeat(MAX_REQUEST_BYTES));
    let upper = good.replace("old 9", "OLD 9");
    let crlf = good.replace('\n', "\r\n");
    for bad in [
        b"".as_slice(),
        b"\xff\xfe",
        cut.as_bytes(),
        long.as_bytes(),
        upper.as_bytes(),
        crlf.as_bytes(),
    ] {
        assert_eq!(witness.post(bad).status, 400, "{}", String::from_utf8_lossy(bad));
    }
    // A flipped byte anywhere is never cosigned.
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        assert_ne!(witness.post(&bytes).status, 200, "byte {at}");
    }
    assert_eq!(witness.web.get(&witness.url("add-checkpoint")).status, 405);
    assert_eq!(witness.web.get(&witness.url("00/checkpoint")).status, 404);
    // A body that never comes.
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {}\r\n\r\nold",
        good.len()
    );
    let answer =
        raw_exchange(&witness.port.address(), &[head.as_bytes()], Duration::ZERO, false, PATIENCE);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(witness.web.get(&path).text(), before);
    assert_eq!(witness.post(good.as_bytes()).status, 200);
}

#[test]
fn a_source_that_asks_too_much_waits() {
    let (log, witness) = (log(), Witness::start("witness-rate", 2));
    let statuses: Vec<u16> = (0..20).map(|_| witness.ask(&log, 9, 20).0.status).collect();
    assert!(statuses.contains(&409) && statuses.contains(&429), "{statuses:?}");
}

/// Whatever was cosigned before a kill, nothing that contradicts it is cosigned after it.
#[test]
fn kills_take_nothing_back() {
    let (log, mut witness) = (log(), Witness::start("witness-kill", 100_000));
    let answered = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(Mutex::new(false));
    let client = {
        let (answered, stop, log) = (answered.clone(), stop.clone(), log.clone());
        let url = witness.url("add-checkpoint");
        std::thread::spawn(move || {
            let web = Web::new();
            let mut old = 0;
            while !*stop.lock().unwrap() && old < 600 {
                let new = old + 1;
                let body = log.request(old, new).encode();
                let Ok(answer) = web.try_send("POST", &url, &[], body.as_bytes()) else { continue };
                match answer.status {
                    200 => {
                        answered.store(new, Ordering::SeqCst);
                        old = new;
                    }
                    409 => {
                        let latest = witness::parse_size(&answer.body).unwrap();
                        assert!(latest >= answered.load(Ordering::SeqCst), "taken back: {latest}");
                        // Killed between the disk and the answer: one ahead, never behind.
                        assert_eq!(latest, old + 1);
                        old = latest;
                    }
                    status => assert!(status >= 500, "{status}"),
                }
            }
        })
    };
    for turn in 0..12_u64 {
        std::thread::sleep(Duration::from_millis(20 + turn * 13 % 50));
        witness.kill();
        let sure = answered.load(Ordering::SeqCst);
        witness.restart();
        let mut fork = log.forked_at(sure.saturating_sub(1) as usize);
        fork.grow(600, "other");
        if sure > 0 {
            let status = witness.ask(&fork, sure - 1, 600).0.status;
            assert_eq!(status, 409, "at {sure}");
            let status = witness.ask(&fork, sure, 600).0.status;
            assert!(status == 422 || status == 409, "{status} at {sure}");
        }
    }
    *stop.lock().unwrap() = true;
    client.join().unwrap();
    assert!(answered.load(Ordering::SeqCst) > 10, "{answered:?}");
}

#[test]
fn one_data_folder_has_one_witness_and_keys_can_be_asked_for() {
    let witness = Witness::start("witness-one", 10);
    let config = witness.folder.join("witness.toml");
    let run = |more: &[&str]| {
        Command::new(CHANCERY)
            .args(["witness", "--config"])
            .arg(&config)
            .args(more)
            .output()
            .unwrap()
    };
    let second = run(&[]);
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"), "{second:?}");
    let keys = witness.keys();
    drop(witness);
    let folder = std::env::temp_dir().join(format!("chancery-witness-keys-{}", std::process::id()));
    let data = folder.to_str().unwrap();
    let shown = |_| {
        let args = ["witness", "--name", "w.example/1", "--data", data, "--keys"];
        let output = Command::new(CHANCERY).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (first, again) = (shown(1), shown(2));
    assert_eq!(first, again);
    assert_eq!(first.lines().count(), 2);
    assert_ne!(first.lines().next().unwrap(), keys[0].to_string());
    fs::remove_dir_all(folder).unwrap();
}
