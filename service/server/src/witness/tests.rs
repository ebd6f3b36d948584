//! A witness in memory: its order of steps under every failure of the disk, its clock, its files.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chancery_testkit::OwnLog;
use chancery_tlog::note::{self, Note};
use chancery_tlog::witness::{Answer, judge_answer};
use chancery_token::Algorithm;

use super::*;

const ORIGIN: &str = "example.com/log";
const NAME: &str = "witness.example/w1";

static NOW: AtomicU64 = AtomicU64::new(1_700_000_000);

fn fixed() -> u64 {
    1_700_000_000
}

/// A disk that can fail before or after the bytes are there.
#[derive(Default)]
struct TestDisk {
    files: Mutex<HashMap<String, Vec<u8>>>,
    evidence: Mutex<Vec<String>>,
    /// 0: works; 1: fails; 2: fails, but the bytes are there.
    fault: AtomicUsize,
}

impl Disk for TestDisk {
    fn copies(&self) -> usize {
        1
    }

    fn path(&self, _copy: usize, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn read(&self, _copy: usize, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().unwrap().get(name).cloned())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fault = self.fault.load(Ordering::SeqCst);
        if fault != 1 {
            self.files.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        }
        if fault == 0 { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }

    fn add_evidence(&self, name: &str, _bytes: &[u8], _most: usize) -> io::Result<()> {
        self.evidence.lock().unwrap().push(name.to_owned());
        Ok(())
    }
}

fn log() -> OwnLog {
    let mut log = OwnLog::new(ORIGIN, 7);
    log.grow(40, "true");
    log
}

fn cosigners() -> Vec<Cosigner> {
    let make = |algorithm| Cosigner::generate(NAME, algorithm).unwrap();
    vec![make(Algorithm::Ed25519), make(Algorithm::MlDsa44)]
}

fn witness(disk: Arc<TestDisk>, clock: fn() -> u64) -> Arc<Witness> {
    let logs = vec![(ORIGIN.to_owned(), vec![log().vkey().clone()])];
    Witness::new(cosigners(), logs, disk, clock).unwrap()
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(work)
}

async fn ask(witness: &Arc<Witness>, log: &OwnLog, old: u64, new: u64) -> Result<String, No> {
    witness.add_checkpoint(log.request(old, new).encode().as_bytes()).await
}

fn conflict(latest: u64) -> Result<String, No> {
    Err(No::Refused(Refusal::Conflict { latest }))
}

#[test]
fn it_cosigns_with_all_keys_what_extends_the_latest_and_shows_it() {
    block(async {
        let (log, witness) = (log(), witness(Arc::default(), fixed));
        let path = checkpoint_path(ORIGIN);
        assert_eq!(witness.checkpoint(&path), None);
        for (old, new) in [(0, 3), (3, 3), (3, 17), (17, 40)] {
            let lines = ask(&witness, &log, old, new).await.unwrap();
            let keys: Vec<_> = witness.vkeys().cloned().collect();
            let request = log.request(old, new);
            let answer = judge_answer(&request, &keys, 200, None, lines.as_bytes()).unwrap();
            let Answer::Cosigned(cosigned) = answer else { panic!("{answer:?}") };
            assert_eq!(cosigned.iter().map(|c| c.key).collect::<Vec<_>>(), [0, 1]);
            // Monitors get the log's signature and both cosignatures.
            let shown = Note::parse(witness.checkpoint(&path).unwrap().as_bytes()).unwrap();
            assert_eq!(shown.text, request.note().text);
            assert_eq!(note::verify(&shown, &keys).unwrap().len(), 2);
            assert_eq!(note::verify(&shown, &[log.vkey().clone()]).unwrap(), [0]);
        }
        assert_eq!(ask(&witness, &log, 17, 40).await, conflict(40));
    });
}

#[test]
fn a_fork_gets_nothing_and_is_kept_as_evidence() {
    block(async {
        let disk = Arc::new(TestDisk::default());
        let (log, witness) = (log(), witness(disk.clone(), fixed));
        ask(&witness, &log, 0, 20).await.unwrap();
        let mut fork = log.forked_at(10);
        fork.grow(40, "other");
        for size in [20, 21, 40] {
            let refused = ask(&witness, &fork, 20, size).await.unwrap_err();
            assert!(matches!(refused, No::Refused(Refusal::Inconsistent(_))), "{refused:?}");
        }
        assert_eq!(disk.evidence.lock().unwrap().len(), 3);
        // A smaller tree, of either history, does not take anything back.
        assert_eq!(ask(&witness, &fork, 0, 12).await, conflict(20));
        assert_eq!(ask(&witness, &log, 0, 12).await, conflict(20));
        ask(&witness, &log, 20, 40).await.unwrap();
    });
}

#[test]
fn no_cosignature_leaves_before_the_disk_has_it() {
    for fault in [1, 2] {
        block(async {
            let disk = Arc::new(TestDisk::default());
            let (log, witness) = (log(), witness(disk.clone(), fixed));
            ask(&witness, &log, 0, 5).await.unwrap();
            disk.fault.store(fault, Ordering::SeqCst);
            let path = checkpoint_path(ORIGIN);
            let before = witness.checkpoint(&path);
            assert_eq!(ask(&witness, &log, 5, 20).await, Err(No::Storage));
            assert_eq!(witness.checkpoint(&path), before, "shown before it is stored");
            // What was begun may be on the disk: no other history may come before it now.
            let mut fork = log.forked_at(5);
            fork.grow(30, "other");
            assert_eq!(ask(&witness, &fork, 5, 30).await, Err(No::Storage));
            disk.fault.store(0, Ordering::SeqCst);
            assert_eq!(ask(&witness, &fork, 5, 30).await, conflict(20));
            assert_eq!(ask(&witness, &log, 5, 20).await, conflict(20));
            ask(&witness, &log, 20, 20).await.unwrap();
        });
    }
}

#[test]
fn requests_at_the_same_time_never_take_leaves_back() {
    block(async {
        let (log, witness) = (log(), witness(Arc::default(), fixed));
        let mut tasks = Vec::new();
        for turn in 0..64_u64 {
            let (witness, log) = (witness.clone(), log.clone());
            tasks.push(tokio::spawn(async move {
                let mut old = 0;
                let mut last = 0;
                for size in [1 + turn % 7, 9 + turn % 11, 21 + turn % 19] {
                    let result = match ask(&witness, &log, old.min(size), size).await {
                        Err(No::Refused(Refusal::Conflict { latest })) if latest <= size => {
                            old = latest;
                            ask(&witness, &log, old, size).await
                        }
                        other => other,
                    };
                    if result.is_ok() {
                        assert!(size >= last);
                        (old, last) = (size, size);
                    }
                }
                last
            }));
        }
        let mut most = 0;
        for task in tasks {
            most = most.max(task.await.unwrap());
        }
        let shown = witness.checkpoint(&checkpoint_path(ORIGIN)).unwrap();
        assert_eq!(shown.lines().nth(1), Some(most.to_string().as_str()));
    });
}

#[test]
fn times_never_run_backwards() {
    block(async {
        let (log, witness) = (log(), witness(Arc::default(), || NOW.load(Ordering::SeqCst)));
        let at = |lines: &str, request: &AddCheckpoint| {
            let keys: Vec<_> = witness.vkeys().cloned().collect();
            match judge_answer(request, &keys, 200, None, lines.as_bytes()).unwrap() {
                Answer::Cosigned(cosigned) => cosigned[0].timestamp,
                other => panic!("{other:?}"),
            }
        };
        let first = ask(&witness, &log, 0, 1).await.unwrap();
        assert_eq!(at(&first, &log.request(0, 1)), 1_700_000_000);
        NOW.fetch_sub(CLOCK_SLACK_S, Ordering::SeqCst);
        let second = ask(&witness, &log, 1, 2).await.unwrap();
        assert_eq!(at(&second, &log.request(1, 2)), 1_700_000_000);
        NOW.fetch_sub(1, Ordering::SeqCst);
        assert_eq!(ask(&witness, &log, 2, 3).await, Err(No::Clock));
    });
}

/// A folder that goes with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chancery-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What `chancery witness` does at its start.
fn start(at: &Path, second: Option<&Path>, unbound: bool) -> Result<Arc<Witness>, WitnessError> {
    let disk = Folder::open(at, second).unwrap();
    let cosigners = load_or_make(NAME, &at.join("keys"), at, &disk, true, unbound)?;
    let logs = vec![(ORIGIN.to_owned(), vec![log().vkey().clone()])];
    Witness::new(cosigners, logs, Arc::new(disk), fixed)
}

fn record(folder: &Path) -> PathBuf {
    folder.join(records::name(ORIGIN))
}

#[test]
fn a_restarted_witness_has_its_keys_and_its_memory() {
    let scratch = Scratch::new("witness-restart");
    let at = &scratch.0;
    let first = start(at, None, false).unwrap();
    block(ask(&first, &log(), 0, 9)).unwrap();
    let again = start(at, None, false).unwrap();
    assert!(first.vkeys().eq(again.vkeys()));
    assert_eq!(block(ask(&again, &log(), 0, 9)), conflict(9));
    for (file, mode) in [("keys/ed25519.pem", 0o600), ("keys", 0o700), ("logs", 0o700)] {
        let found = std::fs::metadata(at.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
}

#[test]
fn records_that_were_rolled_back_or_lost_are_refused() {
    let scratch = Scratch::new("witness-rollback");
    let (at, second) = (scratch.0.join("data"), scratch.0.join("second"));
    let witness = start(&at, Some(&second), false).unwrap();
    block(ask(&witness, &log(), 0, 9)).unwrap();
    let (main, copy) = (record(&at.join("logs")), record(&second));
    let old = std::fs::read(&main).unwrap();
    block(ask(&witness, &log(), 9, 30)).unwrap();
    let new = std::fs::read(&main).unwrap();
    let opened =
        || start(&at, Some(&second), false).map(|w| w.checkpoint(&checkpoint_path(ORIGIN)));

    // A crash between the two copies: the second one follows.
    std::fs::write(&copy, &old).unwrap();
    assert!(opened().unwrap().unwrap().contains("\n30\n"));
    assert_eq!(std::fs::read(&copy).unwrap(), new);
    // The data folder comes from an old copy, or its record is gone.
    std::fs::write(&main, &old).unwrap();
    assert!(matches!(opened(), Err(WitnessError::RolledBack(_))));
    std::fs::remove_file(&main).unwrap();
    assert!(matches!(opened(), Err(WitnessError::RolledBack(_))));
    // Without its records, the key is not used; nor is a record that it did not sign.
    std::fs::remove_dir_all(&second).unwrap();
    std::fs::remove_file(at.join("cosigners")).unwrap();
    assert!(matches!(start(&at, None, false), Err(WitnessError::RolledBack(_))));
    assert!(start(&at, None, true).is_ok());
    std::fs::write(&main, log().checkpoint(30).encode()).unwrap();
    assert!(matches!(start(&at, None, false), Err(WitnessError::Record { .. })));
    let mut damaged = new.clone();
    damaged[ORIGIN.len() + 1] = b'4';
    std::fs::write(&main, damaged).unwrap();
    assert!(matches!(start(&at, None, false), Err(WitnessError::Record { .. })));
    // The last cosigned checkpoint, wherever it comes from, is the way out.
    std::fs::write(&main, new).unwrap();
    assert!(opened().unwrap().unwrap().contains("\n30\n"));
}

#[test]
fn keys_that_others_read_or_that_are_missing_are_refused() {
    let scratch = Scratch::new("witness-keys");
    let at = &scratch.0;
    let witness = start(at, None, false).unwrap();
    let key = at.join("keys/ed25519.pem");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let error = start(at, None, false).err().unwrap().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    // Lost before anything was cosigned: a new one is made.
    std::fs::remove_file(&key).unwrap();
    let second = start(at, None, false).unwrap();
    assert!(!witness.vkeys().eq(second.vkeys()));
    block(ask(&second, &log(), 0, 2)).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(start(at, None, false), Err(WitnessError::Key { .. })));
}

#[test]
fn evidence_does_not_fill_the_disk() {
    let scratch = Scratch::new("witness-evidence");
    let folder = Folder::open(&scratch.0, None).unwrap();
    for turn in 0..40 {
        folder
            .add_evidence(&format!("{:016}-{:016}.request", turn % 2, turn / 4), b"x", 4)
            .unwrap();
    }
    assert_eq!(std::fs::read_dir(scratch.0.join("evidence")).unwrap().count(), 8);
}

#[test]
fn configurations_are_checked() {
    let vkey = log().vkey().to_string();
    let of = |logs: &str| WitnessConfig::parse(&format!("name = \"{NAME}\"\n{logs}"));
    let one = format!("[[log]]\nvkeys = [\"{vkey}\"]\n");
    assert_eq!(of(&one).unwrap().logs().unwrap()[0].0, ORIGIN);
    let own = OwnLog::new(NAME, 1).vkey().to_string();
    let other = OwnLog::new("other.example/log", 1).vkey().to_string();
    for (bad, why) in [
        (format!("{one}{one}"), "listed twice"),
        ("[[log]]\nvkeys = []\n".to_owned(), "at least one"),
        ("[[log]]\nvkeys = [\"x\"]\n".to_owned(), "not a verifier key"),
        (format!("[[log]]\nvkeys = [\"{own}\"]\n"), "is the witness itself"),
        (format!("[[log]]\nvkeys = [\"{vkey}\", \"{other}\"]\n"), "several names"),
        ("requests_per_s = 0\n".to_owned(), "requests_per_s"),
        ("unknown = 1\n".to_owned(), "unknown field"),
    ] {
        let error = of(&bad).unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn every_sample_of_the_documentation_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/witness.md");
    let document = std::fs::read_to_string(path).unwrap();
    let samples: Vec<&str> = document
        .split("```toml\n# witness")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!samples.is_empty());
    for sample in samples {
        WitnessConfig::parse(&format!("# witness{sample}")).unwrap();
    }
}
