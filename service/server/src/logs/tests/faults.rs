//! Each write in turn as "failed" and as "failed but persisted", a loss of power after each write,
//! and a start over from what is left and the write-ahead log: nothing is lost, nothing is damaged,
//! and the end is the same, byte for byte (INVARIANT I9).

use super::support::TestLog;
use super::*;
use crate::store::faulty::{Fault, FaultyStore, Moment, Objects};

/// What kind of store the service takes it for.
#[derive(Clone, Copy, Debug)]
enum As {
    Folder,
    Bucket,
}

const BOTH: [As; 2] = [As::Folder, As::Bucket];
const FAULTS: [Fault; 4] = [Fault::Failed, Fault::Persisted, Fault::Throttled, Fault::Late];

impl As {
    /// A file is written or not when the call returns.
    fn faults(self) -> impl Iterator<Item = Fault> {
        FAULTS.into_iter().filter(move |f| matches!(self, As::Bucket) || *f != Fault::Late)
    }

    fn store(self, faulty: &FaultyStore) -> Store {
        match self {
            As::Folder => faulty.store(),
            As::Bucket => faulty.bucket(),
        }
    }
}

/// Where batches end; they cross the boundaries of tiles, end on them, and come several at a time.
const ENDS: &[&[usize]] = &[&[2], &[3, 200], &[255], &[256], &[257, 300, 515], &[516], &[]];

/// More failures in a row than one fault can cause.
const PATIENCE: usize = 3;

fn last_end() -> usize {
    ENDS.iter().flat_map(|round| round.iter()).copied().max().unwrap()
}

/// Applies every batch, publishing after each round until it works, as the service does.
async fn run(test: &TestLog, faulty: &FaultyStore, kind: As) -> Log {
    let log = test.empty(kind.store(faulty));
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

/// The same where the store comes first: a batch counts once the store has acknowledged it.
async fn run_store_first(test: &TestLog, faulty: &FaultyStore, kind: As) -> Log {
    let log = test.empty(kind.store(faulty));
    let mut applied = 0;
    for round in ENDS {
        for end in *round {
            faulty.note([applied, *end]);
            let extension = log.check(&test.batch(applied, *end)).unwrap();
            for attempt in 1.. {
                assert_eq!(log.size_and_root().0, applied as u64, "visible before it is stored");
                if log.store_ahead(&extension).await.is_ok() {
                    break;
                }
                assert!(attempt < PATIENCE, "one fault fails one attempt");
            }
            log.extend(extension).unwrap();
            log.set_keys_jwt(&TestLog::keys_jwt(*end));
            applied = *end;
            faulty.note([applied, applied]);
        }
        publish(&log).await;
        assert!(read(&log.tail).staged.is_empty());
    }
    log
}

/// A start over: the log from the store, the batches that were not released from the write-ahead
/// log, and on to the end.
async fn check_recovery(test: &TestLog, moment: &Moment, objects: &Objects, kind: As, what: &str) {
    let what = format!("{kind:?}, {what}, after {}", moment.what);
    let [released, applied] = moment.note;
    let faulty = FaultyStore::with(objects).await;
    let logs = Logs::new(kind.store(&faulty));
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
    check_end(test, &faulty, applied, &what).await;
}

async fn check_end(test: &TestLog, faulty: &FaultyStore, applied: usize, what: &str) {
    let visible = faulty.visible();
    for (path, bytes) in test.objects(applied) {
        assert_eq!(visible.get(&path), Some(&bytes), "{what}: {path}");
    }
    let log = Log::open(faulty.store(), test.id(), true, None).await.unwrap();
    assert_eq!(log.size_and_root(), (applied as u64, test.root(applied)), "{what}");
}

/// A start over without a write-ahead log: everything acknowledged is there, and the signer's open
/// batch may be, or comes again.
async fn check_store_alone(
    test: &TestLog,
    moment: &Moment,
    objects: &Objects,
    kind: As,
    what: &str,
) {
    let what = format!("{kind:?}, store first, {what}, after {}", moment.what);
    let [acknowledged, open] = moment.note;
    let faulty = FaultyStore::with(objects).await;
    let logs = Logs::new(kind.store(&faulty));
    let log = logs.open_or_new(test.id(), test.vkey().clone()).await;
    let log = log.unwrap_or_else(|e| panic!("{what}: {e}"));
    let size = log.size_and_root().0 as usize;
    assert!(size == acknowledged || size == open, "{what}: {size}");
    let extension = log.check(&test.batch(acknowledged, open)).unwrap();
    log.store_ahead(&extension).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    log.extend(extension).unwrap();
    log.set_keys_jwt(&TestLog::keys_jwt(open));
    publish(&log).await;
    check_end(test, &faulty, open, &what).await;
}

#[tokio::test]
async fn without_faults_the_store_holds_exactly_the_log() {
    let test = TestLog::of(600);
    for kind in BOTH {
        for store_first in [false, true] {
            let faulty = FaultyStore::with(&Objects::new()).await;
            let log = match store_first {
                false => run(&test, &faulty, kind).await,
                true => run_store_first(&test, &faulty, kind).await,
            };
            assert_eq!(faulty.visible(), test.objects(last_end()));
            assert!(!log.publish().await.unwrap(), "there is nothing left to do");
            for moment in faulty.moments() {
                check_what_is_visible(&test, &moment);
            }
        }
    }
}

#[tokio::test]
async fn after_a_loss_of_power_at_any_moment_nothing_is_lost_or_damaged() {
    let test = TestLog::of(600);
    for kind in BOTH {
        let faulty = FaultyStore::with(&Objects::new()).await;
        run(&test, &faulty, kind).await;
        let moments = faulty.moments();
        let waited = moments.iter().any(|m| m.waiting.len() > 5);
        assert_eq!(waited, matches!(kind, As::Folder), "a bucket keeps nothing waiting");
        for moment in &moments {
            check_recovery(&test, moment, &moment.visible, kind, "nothing lost").await;
            let nothing = moment.after_power_loss(|_| false);
            check_recovery(&test, moment, &nothing, kind, "all unsynced writes lost").await;
            for one in 0..moment.waiting.len() {
                let only = moment.after_power_loss(|i| i == one);
                check_recovery(&test, moment, &only, kind, "one unsynced write kept").await;
            }
        }
    }
}

#[tokio::test]
async fn where_the_store_comes_first_it_alone_holds_what_was_acknowledged() {
    let test = TestLog::of(600);
    for kind in BOTH {
        let quiet = FaultyStore::with(&Objects::new()).await;
        run_store_first(&test, &quiet, kind).await;
        for moment in &quiet.moments() {
            let nothing = moment.after_power_loss(|_| false);
            check_store_alone(&test, moment, &nothing, kind, "power lost").await;
        }
        for fault in kind.faults() {
            for nth in 0..quiet.calls() {
                let faulty = FaultyStore::with(&Objects::new()).await;
                faulty.fail(nth, fault);
                run_store_first(&test, &faulty, kind).await;
                let moments = faulty.moments();
                for moment in &moments[nth..] {
                    check_what_is_visible(&test, moment);
                }
                for moment in moments[nth..].iter().take(3) {
                    let durable = &moment.durable;
                    check_store_alone(&test, moment, durable, kind, "power lost").await;
                }
                faulty.arrive().await;
                let last = moments[moments.len() - 1].clone();
                let last = Moment { note: [last_end(); 2], ..last };
                check_store_alone(&test, &last, &faulty.visible(), kind, "the end").await;
            }
        }
    }
}

#[tokio::test]
async fn every_write_may_fail_or_fail_after_it_persisted() {
    let test = TestLog::of(600);
    for kind in BOTH {
        let quiet = FaultyStore::with(&Objects::new()).await;
        run(&test, &quiet, kind).await;
        for fault in kind.faults() {
            for nth in 0..quiet.calls() {
                check_one_fault(&test, kind, nth, fault).await;
            }
        }
    }
}

async fn check_one_fault(test: &TestLog, kind: As, nth: usize, fault: Fault) {
    let faulty = FaultyStore::with(&Objects::new()).await;
    faulty.fail(nth, fault);
    let log = run(test, &faulty, kind).await;
    let moments = faulty.moments();
    let (hit, after) = (&moments[nth], &moments[nth + 1..]);
    assert!(hit.what.contains(&format!("{fault:?}")), "{}", hit.what);
    for moment in &moments[nth..] {
        check_what_is_visible(test, moment);
    }
    check_recovery(test, hit, &hit.visible, kind, "the fault itself").await;
    // What a failed flush lost must have been written again before it is relied on.
    for moment in after.iter().filter(|m| m.what.contains("checkpoint")).take(2) {
        check_recovery(test, moment, &moment.durable, kind, "power lost after a fault").await;
    }
    // A deletion that failed is made up for; what arrives late is garbage at most.
    faulty.arrive().await;
    log.publish().await.unwrap();
    let mut visible = faulty.visible();
    if fault == Fault::Late {
        visible
            .retain(|path, _| !path.contains(".p/") || test.objects(last_end()).contains_key(path));
    }
    assert_eq!(visible, test.objects(last_end()), "{kind:?} write {nth}: {}", hit.what);
    let last = Moment { note: [last_end(); 2], ..moments[moments.len() - 1].clone() };
    check_recovery(test, &last, &last.durable, kind, "power lost at the end").await;
}

#[tokio::test]
async fn every_read_of_a_start_may_fail_and_changes_nothing() {
    let test = TestLog::of(600);
    for kind in BOTH {
        let faulty = FaultyStore::with(&test.objects(515)).await;
        let open = async || {
            let logs = Logs::new(kind.store(&faulty));
            logs.open_or_new(test.id(), test.vkey().clone()).await
        };
        open().await.unwrap();
        for nth in 0..faulty.reads() {
            faulty.fail_read(faulty.reads() + nth);
            let failed = open().await.unwrap_err();
            assert!(matches!(failed, LogError::Store(StoreError::Failed { .. })), "{failed}");
        }
        assert_eq!(open().await.unwrap().size_and_root(), (515, test.root(515)));
        assert_eq!((faulty.visible(), faulty.calls()), (test.objects(515), 0));
    }
}

#[tokio::test]
async fn other_bytes_under_a_name_that_must_not_change_stop_the_log() {
    let test = TestLog::of(600);
    for kind in BOTH {
        let others = ["tile/0/000", "tile/entries/000", "vkey", "tile/0/001.p/3"];
        for path in others {
            let path = test.path(path);
            let objects = Objects::from([(path.clone(), Bytes::from_static(b"theirs"))]);
            let faulty = FaultyStore::with(&objects).await;
            let log = test.empty(kind.store(&faulty));
            log.apply(&test.batch(0, 259)).unwrap();
            for _ in 0..2 {
                let error = log.publish().await.unwrap_err();
                assert!(error.to_string().contains(&path), "{error}");
                assert!(matches!(error, LogError::Store(StoreError::Conflict { .. })), "{error}");
            }
            assert_eq!(faulty.visible()[&path], "theirs");
            assert!(!faulty.visible().contains_key(&test.path("checkpoint")), "nothing published");
        }
    }
}

#[tokio::test]
async fn a_bucket_whose_checkpoint_somebody_replaced_stops_the_log() {
    let test = TestLog::of(600);
    for rolled_back in [false, true] {
        let faulty = FaultyStore::with(&Objects::new()).await;
        let log = test.empty(faulty.bucket());
        log.apply(&test.batch(0, 300)).unwrap();
        log.publish().await.unwrap();
        log.apply(&test.batch(300, 400)).unwrap();
        let path = test.path("checkpoint");
        let meanwhile = if rolled_back { test.checkpoint(200) } else { test.checkpoint(350) };
        faulty.bucket().put(&path, Bytes::from(meanwhile.to_string())).await.unwrap();
        let error = log.publish().await.unwrap_err();
        assert!(matches!(error, LogError::Store(StoreError::Conflict { .. })), "{error}");
        assert_eq!(faulty.visible()[&path], meanwhile.as_bytes());
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
