//! Each write in turn as "failed" and as "failed but persisted", a loss of power after each write,
//! and a start over from what is left and the write-ahead log: nothing is lost, nothing is damaged,
//! and the end is the same, byte for byte (INVARIANT I9).

use super::support::TestLog;
use super::*;
use crate::store::faulty::{Fault, FaultyStore, Moment, Objects};

/// Where batches end; they cross the boundaries of tiles, end on them, and come several at a time.
const ENDS: &[&[usize]] = &[&[2], &[3, 200], &[255], &[256], &[257, 300, 515], &[516], &[]];

/// More failures in a row than one fault can cause.
const PATIENCE: usize = 3;

fn last_end() -> usize {
    ENDS.iter().flat_map(|round| round.iter()).copied().max().unwrap()
}

/// Applies every batch, publishing after each round until it works, as the service does.
async fn run(test: &TestLog, faulty: &FaultyStore) -> Log {
    let log = test.empty(faulty.store());
    let (mut applied, mut released) = (0, 0);
    for round in ENDS {
        for end in *round {
            log.apply(&test.batch(applied, *end)).unwrap();
            log.set_keys_jwt(&TestLog::keys_jwt(*end));
            applied = *end;
        }
        faulty.note([released, applied]);
        publish(&log).await;
        released = applied;
        faulty.note([released, applied]);
    }
    log
}

async fn publish(log: &Log) {
    for _ in 0..PATIENCE {
        if log.publish().await.is_ok() {
            return;
        }
    }
    panic!("one fault fails one round");
}

/// What a reader finds at any moment: a checkpoint, and everything that it covers.
fn check_what_is_visible(test: &TestLog, moment: &Moment) {
    let Some(note) = moment.visible.get(&test.path("checkpoint")) else { return };
    let (checkpoint, _) = Checkpoint::open(note, std::slice::from_ref(test.vkey())).unwrap();
    let [released, applied] = moment.note;
    let size = checkpoint.size as usize;
    assert!((released..=applied).contains(&size), "{}: {size}", moment.what);
    for (path, bytes) in test.objects(size) {
        // The key set follows its checkpoint.
        if !path.ends_with("keys.jwt") {
            assert_eq!(moment.visible.get(&path), Some(&bytes), "{}: {path}", moment.what);
        }
    }
}

/// A start over: the log from the store, the batches that were not released from the write-ahead
/// log, and on to the end.
async fn check_recovery(test: &TestLog, moment: &Moment, objects: &Objects, what: &str) {
    let what = format!("{what}, after {}", moment.what);
    let [released, applied] = moment.note;
    let faulty = FaultyStore::with(objects).await;
    let logs = Logs::new(faulty.store());
    let log = logs.open_or_new(test.id(), test.vkey().clone()).await;
    let log = log.unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut from = 0;
    for end in ENDS.iter().flat_map(|round| round.iter()) {
        if *end > released && *end <= applied {
            let applied = log.apply(&test.batch(from, *end));
            applied.unwrap_or_else(|e| panic!("{what}: batch to {end}: {e}"));
        }
        from = *end;
    }
    assert_eq!(log.size_and_root(), (applied as u64, test.root(applied)), "{what}");
    // The signer hands its key set over again when the service comes back.
    log.set_keys_jwt(&TestLog::keys_jwt(applied));
    publish(&log).await;
    let visible = faulty.visible();
    for (path, bytes) in test.objects(applied) {
        assert_eq!(visible.get(&path), Some(&bytes), "{what}: {path}");
    }
    let log = Log::open(faulty.store(), test.id(), true).await.unwrap();
    assert_eq!(log.size_and_root(), (applied as u64, test.root(applied)), "{what}");
}

#[tokio::test]
async fn without_faults_the_store_holds_exactly_the_log() {
    let test = TestLog::of(600);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = run(&test, &faulty).await;
    assert_eq!(faulty.visible(), test.objects(last_end()));
    assert!(!log.publish().await.unwrap(), "there is nothing left to do");
    for moment in faulty.moments() {
        check_what_is_visible(&test, &moment);
    }
}

#[tokio::test]
async fn after_a_loss_of_power_at_any_moment_nothing_is_lost_or_damaged() {
    let test = TestLog::of(600);
    let faulty = FaultyStore::with(&Objects::new()).await;
    run(&test, &faulty).await;
    let moments = faulty.moments();
    assert!(moments.iter().any(|m| m.waiting.len() > 5));
    for moment in &moments {
        check_recovery(&test, moment, &moment.visible, "nothing lost").await;
        let nothing = moment.after_power_loss(|_| false);
        check_recovery(&test, moment, &nothing, "all unsynced writes lost").await;
        for one in 0..moment.waiting.len() {
            let only = moment.after_power_loss(|i| i == one);
            check_recovery(&test, moment, &only, "one unsynced write kept").await;
        }
    }
}

#[tokio::test]
async fn every_write_may_fail_or_fail_after_it_persisted() {
    let test = TestLog::of(600);
    let quiet = FaultyStore::with(&Objects::new()).await;
    run(&test, &quiet).await;
    for fault in [Fault::Failed, Fault::Persisted] {
        for nth in 0..quiet.calls() {
            let faulty = FaultyStore::with(&Objects::new()).await;
            faulty.fail(nth, fault);
            let log = run(&test, &faulty).await;
            let moments = faulty.moments();
            let (hit, after) = (&moments[nth], &moments[nth + 1..]);
            assert!(hit.what.contains(&format!("{fault:?}")), "{}", hit.what);
            for moment in &moments[nth..] {
                check_what_is_visible(&test, moment);
            }
            check_recovery(&test, hit, &hit.visible, "the fault itself").await;
            // What a failed flush lost must have been written again before it is relied on.
            for moment in after.iter().filter(|m| m.what.contains("checkpoint")).take(2) {
                check_recovery(&test, moment, &moment.durable, "power lost after a fault").await;
            }
            // A deletion that failed is made up for.
            log.publish().await.unwrap();
            assert_eq!(faulty.visible(), test.objects(last_end()), "write {nth}: {}", hit.what);
            let last = Moment { note: [last_end(); 2], ..moments[moments.len() - 1].clone() };
            check_recovery(&test, &last, &last.durable, "power lost at the end").await;
        }
    }
}

#[tokio::test]
async fn a_long_outage_costs_no_more_than_what_is_missing() {
    let test = TestLog::of(600);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = test.empty(faulty.store());
    log.apply(&test.batch(0, 600)).unwrap();
    // The name and two of the full tiles and bundles get through.
    faulty.fail(3, Fault::Failed);
    log.publish().await.unwrap_err();
    assert_eq!(read(&log.tail).staged.len(), 4, "nothing is dropped before it is stored");
    let before = faulty.moments().len();
    log.publish().await.unwrap();
    let again: Vec<String> = faulty.moments()[before..].iter().map(|m| m.what.clone()).collect();
    let stored = faulty.moments()[..3].iter().map(|m| m.what.clone()).collect::<Vec<_>>();
    assert!(stored.iter().all(|what| !again.contains(what)), "{stored:?} {again:?}");
    assert!(read(&log.tail).staged.is_empty());
}

#[tokio::test]
async fn partial_tiles_of_failed_attempts_do_not_pile_up() {
    let test = TestLog::of(600);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = test.empty(faulty.store());
    log.apply(&test.batch(0, 2)).unwrap();
    log.publish().await.unwrap();
    for end in 3..40 {
        log.apply(&test.batch(end - 1, end)).unwrap();
        // Tile, bundle, flush, and then the checkpoint fails.
        faulty.fail(faulty.calls() + 3, Fault::Failed);
        log.publish().await.unwrap_err();
    }
    log.set_keys_jwt(&TestLog::keys_jwt(39));
    log.publish().await.unwrap();
    assert_eq!(faulty.visible(), test.objects(39));
}

#[tokio::test]
async fn a_store_that_deletes_nothing_still_gets_every_checkpoint() {
    let test = TestLog::of(600);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = test.empty(faulty.store());
    for end in 1..30 {
        log.apply(&test.batch(end - 1, end)).unwrap();
        // Five writes with the name, four without, then deletions.
        faulty.fail(faulty.calls() + if end == 1 { 5 } else { 4 }, Fault::Failed);
        assert!(log.publish().await.unwrap());
        let note = faulty.visible()[&test.path("checkpoint")].clone();
        assert_eq!(note, test.checkpoint(end).as_bytes());
    }
}
