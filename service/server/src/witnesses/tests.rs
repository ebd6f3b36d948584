//! Submission against real witnesses in this process, and against hostile ones.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chancery_testkit::OwnLog;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{TileSource, consistency_proof};
use chancery_token::Algorithm;

use super::*;
use crate::listen::{self, ListenOptions};
use crate::witness::{Cosigner, Disk, Witness, public};

const ORIGIN: &str = "example.com/directory";

impl Proofs for OwnLog {
    fn consistency(
        &self,
        old: u64,
        new: u64,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Hash>, String>> + Send + '_>> {
        Box::pin(async move { consistency_proof(self, old, new).map_err(|e| e.to_string()) })
    }
}

/// A witness's memory that goes with the test.
#[derive(Default)]
struct NoDisk;

impl Disk for NoDisk {
    fn copies(&self) -> usize {
        1
    }
    fn path(&self, _copy: usize, name: &str) -> std::path::PathBuf {
        name.into()
    }
    fn read(&self, _copy: usize, _name: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn replace(&self, _name: &str, _bytes: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn add_evidence(&self, _name: &str, _bytes: &[u8], _most: usize) -> std::io::Result<()> {
        Ok(())
    }
}

/// A server that ends with its test's runtime.
async fn serve(router: Router) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(listen::serve(socket, router, ListenOptions::default(), std::future::pending()));
    url
}

struct Real {
    url: String,
    vkey: VerifierKey,
    witness: Arc<Witness>,
}

async fn real(name: &str, log: &OwnLog) -> Real {
    let cosigners = vec![Cosigner::generate(name, Algorithm::Ed25519).unwrap()];
    let vkey = cosigners[0].vkey().clone();
    let logs = vec![(ORIGIN.to_owned(), vec![log.vkey().clone()])];
    let witness = Witness::new(cosigners, logs, Arc::new(NoDisk), crate::now).unwrap();
    let url = serve(public(witness.clone(), 10_000, &[])).await;
    Real { url, vkey, witness }
}

fn log() -> OwnLog {
    let mut log = OwnLog::new(ORIGIN, 3);
    log.grow(300, "true");
    log
}

fn settings(witnesses: &[(&str, &VerifierKey, &str)], threshold: &str) -> WitnessSettings {
    let document = |(name, vkey, url): &(&str, &VerifierKey, &str)| WitnessDocument {
        name: (*name).to_owned(),
        vkey: vkey.to_string(),
        url: (*url).to_owned(),
    };
    let members = witnesses.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let group = GroupDocument { name: "g".into(), threshold: threshold.into(), members };
    WitnessSettings {
        witnesses: witnesses.iter().map(document).collect(),
        groups: vec![group],
        quorum: Some("g".into()),
    }
}

fn asker(settings: &WitnessSettings, patience_ms: u64) -> Arc<Witnesses> {
    let made = Witnesses::new(settings, Counts::default()).unwrap().unwrap();
    let mut made = Arc::into_inner(made).unwrap();
    made.patience = Duration::from_millis(patience_ms);
    Arc::new(made)
}

async fn ask(witnesses: &Witnesses, log: &OwnLog, size: u64) -> Cosigned {
    witnesses.ask(&log.checkpoint(size).encode(), log).await
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_millis(10));
}

#[test]
fn cosignatures_meet_the_quorum_and_the_policy_accepts_the_checkpoint() {
    run(async {
        let log = log();
        let (a, b) = (real("w.example/a", &log).await, real("w.example/b", &log).await);
        let settings = settings(&[("a", &a.vkey, &a.url), ("b", &b.vkey, &b.url)], "all");
        let witnesses = asker(&settings, 5_000);
        for size in [1, 2, 40, 257, 257, 300] {
            let cosigned = ask(&witnesses, &log, size).await;
            assert!(cosigned.meets_quorum, "{size}");
            let mut note = log.checkpoint(size);
            cosigned.signatures.iter().for_each(|line| note.insert(line.clone()).unwrap());
            let policy = settings.policy(Some(log.vkey())).unwrap();
            let accepted = policy.open(note.encode().as_bytes(), &[]).unwrap();
            assert_eq!((accepted.checkpoint.size, accepted.witnesses.len()), (size, 2));
        }
        assert!(witnesses.is_settled(300) && witnesses.alarms().is_empty());
    });
}

#[test]
fn a_service_that_does_not_know_how_far_a_witness_is_learns_it() {
    run(async {
        let log = log();
        let real = real("w.example/a", &log).await;
        let settings = settings(&[("a", &real.vkey, &real.url)], "any");
        assert!(ask(&asker(&settings, 5_000), &log, 100).await.meets_quorum);
        // Restarted: the first request asks from nothing, and gets a 409.
        assert!(ask(&asker(&settings, 5_000), &log, 200).await.meets_quorum);
    });
}

#[test]
fn a_rolled_back_or_forked_directory_is_an_alarm_and_gets_nothing() {
    run(async {
        let log = log();
        let real = real("w.example/a", &log).await;
        let settings = settings(&[("a", &real.vkey, &real.url)], "any");
        assert!(ask(&asker(&settings, 5_000), &log, 100).await.meets_quorum);

        let rolled_back = asker(&settings, 5_000);
        let cosigned = ask(&rolled_back, &log, 60).await;
        assert_eq!(cosigned, Cosigned { signatures: vec![], meets_quorum: false });
        let ahead = Alarm::Ahead { witness: 100, ours: 60 };
        assert_eq!(rolled_back.alarms(), [("a".to_owned(), ahead)]);

        let mut fork = log.forked_at(60);
        fork.grow(200, "other");
        let forked = asker(&settings, 5_000);
        assert!(!ask(&forked, &fork, 150).await.meets_quorum);
        assert_eq!(forked.alarms(), [("a".to_owned(), Alarm::Inconsistent { ours: 150 })]);
        let shown = real.witness.checkpoint(&chancery_tlog::witness::checkpoint_path(ORIGIN));
        assert_eq!(shown.unwrap().lines().nth(1), Some("100"));
    });
}

#[test]
fn a_witness_that_lost_its_memory_is_an_alarm_that_stays() {
    run(async {
        let log = log();
        let (first, second) = (real("w.example/a", &log).await, real("w.example/a", &log).await);
        // One address, behind which the witness is replaced by one that knows less.
        let behind = Arc::new(Mutex::new(first.witness.clone()));
        let front = behind.clone();
        let url = serve(Router::new().route(
            "/add-checkpoint",
            post(move |body: Bytes| {
                let witness = front.lock().unwrap().clone();
                async move {
                    match witness.add_checkpoint(&body).await {
                        Ok(lines) => lines.into_response(),
                        Err(crate::witness::No::Refused(refusal)) => {
                            let status = StatusCode::from_u16(refusal.status()).unwrap();
                            let (kind, text) = refusal.body();
                            (status, [("content-type", kind)], text).into_response()
                        }
                        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    }
                }
            }),
        ))
        .await;
        let mut settings = settings(&[("a", &first.vkey, &url)], "any");
        settings.witnesses.push(WitnessDocument {
            name: "again".into(),
            vkey: second.vkey.to_string(),
            url: url.clone(),
        });
        let witnesses = asker(&settings, 5_000);
        assert!(ask(&witnesses, &log, 100).await.meets_quorum);
        *behind.lock().unwrap() = second.witness.clone();
        ask(&witnesses, &log, 120).await;
        ask(&witnesses, &log, 140).await;
        let forgot = Alarm::Forgot { witness: 0, cosigned: 100 };
        assert_eq!(witnesses.alarms(), [("a".to_owned(), forgot)]);
    });
}

/// What comes of asking one witness that answers like this.
async fn asked(router: Router, patience_ms: u64) -> (Cosigned, Vec<(String, Alarm)>, Duration) {
    let log = log();
    let known = Cosigner::generate("w.example/a", Algorithm::Ed25519).unwrap();
    let url = serve(router).await;
    let witnesses = asker(&settings(&[("a", known.vkey(), &url)], "any"), patience_ms);
    let started = Instant::now();
    let cosigned = ask(&witnesses, &log, 9).await;
    (cosigned, witnesses.alarms(), started.elapsed())
}

fn answering(answer: impl Fn(&[u8]) -> Response + Clone + Send + Sync + 'static) -> Router {
    Router::new()
        .route("/add-checkpoint", post(move |body: Bytes| std::future::ready(answer(&body))))
}

#[test]
fn hostile_answers_change_nothing() {
    run(async {
        let log = log();
        let thief = real("w.example/a", &log).await;
        let long = "— w.example/a AAAA\n".repeat(100_000);
        let sized = |status: u16, text: &'static str| {
            let status = StatusCode::from_u16(status).unwrap();
            answering(move |_| {
                (status, [("content-type", "text/x.tlog.size")], text).into_response()
            })
        };
        let plain = |status: u16, text: String| {
            let status = StatusCode::from_u16(status).unwrap();
            answering(move |_| (status, text.clone()).into_response())
        };
        let routers = vec![
            // The right name, another key.
            public(thief.witness.clone(), 100, &[]),
            plain(200, long),
            plain(200, "garbage".into()),
            plain(200, String::new()),
            plain(200, "\u{2014} w.example/a !!!!\n".into()),
            plain(204, String::new()),
            plain(301, String::new()),
            plain(404, String::new()),
            plain(403, String::new()),
            plain(500, "x".repeat(1_000_000)),
            plain(409, "no size".into()),
            sized(409, "-1\n"),
            sized(409, "99999999999999999999\n"),
            // Again and again another size, of trees that exist.
            sized(409, "5\n"),
        ];
        for (turn, router) in routers.into_iter().enumerate() {
            let (cosigned, alarms, took) = asked(router, 4_000).await;
            let nothing = Cosigned { signatures: vec![], meets_quorum: false };
            assert_eq!(cosigned, nothing, "turn {turn}");
            let ok = alarms.is_empty() || matches!(alarms[0].1, Alarm::Inconsistent { .. });
            assert!(ok, "turn {turn}: {alarms:?}");
            assert!(took < Duration::from_secs(4), "turn {turn}: {took:?}");
        }
    });
}

#[test]
fn a_witness_that_never_answers_is_waited_for_once() {
    run(async {
        let log = log();
        let real = real("w.example/a", &log).await;
        let known = Cosigner::generate("w.example/b", Algorithm::Ed25519).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let silent = serve(Router::new().route(
            "/add-checkpoint",
            post(move || {
                count.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<Result<(), Infallible>>().then_status()
            }),
        ))
        .await;
        let both = [("a", &real.vkey, real.url.as_str()), ("b", known.vkey(), silent.as_str())];
        let witnesses = asker(&settings(&both, "all"), 300);
        let mut took = Vec::new();
        for size in 10..40 {
            let started = Instant::now();
            let cosigned = ask(&witnesses, &log, size).await;
            assert_eq!((cosigned.signatures.len(), cosigned.meets_quorum), (1, false));
            took.push(started.elapsed());
        }
        assert!(took[0] >= Duration::from_millis(300), "{took:?}");
        let slow = took.iter().filter(|t| **t >= Duration::from_millis(300)).count();
        assert!(slow <= 2, "{took:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "one request at a time");
    });
}

trait ThenStatus {
    fn then_status(self) -> impl Future<Output = StatusCode> + Send;
}

impl<F: Future<Output = Result<(), Infallible>> + Send> ThenStatus for F {
    async fn then_status(self) -> StatusCode {
        let _ = self.await;
        StatusCode::OK
    }
}

#[test]
fn late_cosignatures_are_kept_for_the_latest_checkpoint() {
    run(async {
        let log = log();
        let real = real("w.example/a", &log).await;
        let witness = real.witness.clone();
        let slow = serve(Router::new().route(
            "/add-checkpoint",
            post(move |body: Bytes| {
                let witness = witness.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    witness.add_checkpoint(&body).await.unwrap()
                }
            }),
        ))
        .await;
        let witnesses = asker(&settings(&[("a", &real.vkey, &slow)], "any"), 50);
        assert!(!ask(&witnesses, &log, 9).await.meets_quorum);
        tokio::time::sleep(Duration::from_millis(800)).await;
        let late = witnesses.take_late();
        assert_eq!((late.len(), late[0].size), (1, 9));
        let mut note = log.checkpoint(9);
        note.insert(late[0].signatures[0].clone()).unwrap();
        assert!(witnesses.is_met(&note));
        assert!(witnesses.take_late().is_empty());
    });
}

#[test]
fn a_witness_that_is_back_is_asked_again() {
    run(async {
        let log = log();
        let real = real("w.example/a", &log).await;
        let (witness, turn) = (real.witness.clone(), Arc::new(AtomicUsize::new(0)));
        let router = Router::new().route(
            "/add-checkpoint",
            post(move |body: Bytes| {
                let (witness, turn) = (witness.clone(), turn.fetch_add(1, Ordering::SeqCst));
                async move {
                    match turn {
                        0 => StatusCode::BAD_GATEWAY.into_response(),
                        _ => witness.add_checkpoint(&body).await.unwrap().into_response(),
                    }
                }
            }),
        );
        let url = serve(router).await;
        let witnesses = asker(&settings(&[("a", &real.vkey, &url)], "any"), 2_000);
        assert!(!ask(&witnesses, &log, 9).await.meets_quorum);
        assert!(witnesses.is_settled(9), "it is not its time");
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(!witnesses.is_settled(9));
        // It failed last, so nobody waits for it: what it says comes late.
        ask(&witnesses, &log, 9).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(witnesses.is_settled(9) || !witnesses.take_late().is_empty());
        assert!(ask(&witnesses, &log, 12).await.meets_quorum);
    });
}

#[test]
fn settings_are_checked() {
    let key = Cosigner::generate("w.example/a", Algorithm::Ed25519).unwrap();
    let good = settings(&[("a", key.vkey(), "https://w.example/sub/")], "all");
    good.check().unwrap();
    assert_eq!(good.remotes().unwrap()[0].url(), "https://w.example/sub");
    let policy = good.policy(Some(log().vkey())).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (1, 1));
    let changed = |change: fn(&mut WitnessSettings)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad.check().unwrap_err()
    };
    for (error, why) in [
        (changed(|s| s.witnesses[0].url = "w.example".into()), "must be an http(s) URL"),
        (changed(|s| s.witnesses[0].url = "https://w.example/?a".into()), "without query"),
        (changed(|s| s.witnesses[0].vkey = "x".into()), "verifier key"),
        (changed(|s| s.quorum = Some("h".into())), "no earlier line defines"),
        (changed(|s| s.quorum = Some("g\nquorum none".into())), "is not one word"),
        (changed(|s| s.groups[0].threshold = "2".into()), "number from 1 to 1"),
        (changed(|s| s.groups[0].members.clear()), "write `group"),
        (
            changed(|s| {
                let one = s.witnesses[0].clone();
                s.witnesses.push(WitnessDocument { name: "b".into(), ..one });
            }),
            "same public key",
        ),
    ] {
        assert!(error.contains(why), "{why}: {error}");
    }
    assert!(Witnesses::new(&WitnessSettings::default(), Counts::default()).unwrap().is_none());
}

#[test]
fn the_largest_late_checkpoint_wins() {
    let late = Mutex::default();
    for size in [3, 9, 5, 9] {
        keep(&late, Late { size, signatures: vec![] });
    }
    let sizes: Vec<u64> = late.lock().unwrap().iter().map(|late| late.size).collect();
    assert_eq!(sizes, [9, 9]);
    let _: Vec<u8> = log().tile(chancery_tlog::TileId { level: 0, index: 0, width: 1 }).unwrap();
}
