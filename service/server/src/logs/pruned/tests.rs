use bytes::Bytes;
use chancery_tlog::{EntriesTileId, TileId};

use super::*;
use crate::logs::Logs;
use crate::logs::tests::support::TestLog;
use crate::store::faulty::{Fault, FaultyStore, Objects};

/// Three full bundles and some.
const SIZE: usize = 800;

async fn stored(log: &TestLog) -> FaultyStore {
    FaultyStore::with(&log.objects(SIZE)).await
}

/// What must hold of a store in which pruning may have begun: every hash is there, no entry is gone
/// that the marker does not name, and the log opens.
async fn holds(log: &TestLog, objects: &Objects, whole: &Objects) {
    let minimum = objects.get(&log.path(MARKER)).map(|bytes| parse_marker(bytes).unwrap());
    for path in whole.keys() {
        let index = (0..3).find(|index| log.path(&bundle(*index)) == *path);
        let may_be_gone = minimum.is_some() && index.is_some();
        assert!(may_be_gone || objects.get(path) == whole.get(path), "{path}");
    }
    let store = FaultyStore::with(objects).await.bucket();
    let logs = Logs::new(store);
    let served = logs.open(log.id()).await.unwrap();
    assert_eq!(served.size_and_root(), (SIZE as u64, log.root(SIZE)));
    assert!(served.proof(3).await.is_ok());
    let edge = EntriesTileId { index: 3, width: 32 };
    assert_eq!(served.entries(edge).await.unwrap(), log.bundle(edge));
    for index in 0..3 {
        let tile = TileId { level: 0, index, width: 256 };
        assert_eq!(served.tile(tile).await.unwrap(), log.tile(tile));
        let id = EntriesTileId { index, width: 256 };
        match served.entries(id).await {
            Ok(bytes) => assert_eq!(bytes, log.bundle(id)),
            Err(e) => assert!(matches!(e, LogError::Pruned(768)), "{e}"),
        }
    }
}

#[tokio::test]
async fn pruning_that_ends_at_any_write_leaves_a_log_and_goes_on() {
    let log = TestLog::of(SIZE as u64);
    let whole = log.objects(SIZE);
    let undisturbed = stored(&log).await;
    let before = undisturbed.calls();
    assert!(prune_entries(&undisturbed.bucket(), log.id(), 768).await.unwrap());
    let writes = undisturbed.calls() - before;
    assert!(writes >= 4, "{writes}");
    let pruned = undisturbed.visible();
    assert!((0..3).all(|index| !pruned.contains_key(&log.path(&bundle(index)))));
    // A folder's writes, in order: any of them may be the last.
    for moment in undisturbed.moments() {
        holds(&log, &moment.visible, &whole).await;
    }
    let folder = stored(&log).await;
    prune_entries(&folder.store(), log.id(), 768).await.unwrap();
    for moment in folder.moments() {
        for kept in [false, true] {
            holds(&log, &moment.after_power_loss(|_| kept), &whole).await;
        }
    }
    // A folder's flushes count, too.
    for nth in 0..writes + 4 {
        for fault in [Fault::Failed, Fault::Persisted, Fault::Throttled] {
            for in_folder in [false, true] {
                let faulty = stored(&log).await;
                let store = if in_folder { faulty.store() } else { faulty.bucket() };
                faulty.fail(faulty.calls() + nth, fault);
                let result = prune_entries(&store, log.id(), 768).await;
                holds(&log, &faulty.visible(), &whole).await;
                // A write that this run did not come to goes well in the next.
                faulty.fail(usize::MAX, fault);
                if result.is_err() {
                    // One that was carried out and not acknowledged may have been the last.
                    prune_entries(&store, log.id(), 768).await.unwrap();
                }
                assert_eq!(faulty.visible(), pruned, "{fault:?} at {nth}");
                assert!(!prune_entries(&store, log.id(), 768).await.unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_log_is_not_pruned_to_another_index() {
    let log = TestLog::of(SIZE as u64);
    let faulty = stored(&log).await;
    prune_entries(&faulty.bucket(), log.id(), 256).await.unwrap();
    let before = faulty.visible();
    let refused = prune_entries(&faulty.bucket(), log.id(), 768).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
    assert_eq!(faulty.visible(), before);
}

#[tokio::test]
async fn a_missing_bundle_that_no_marker_names_is_missing() {
    let log = TestLog::of(SIZE as u64);
    let mut objects = log.objects(SIZE);
    objects.remove(&log.path(&bundle(2)));
    objects.insert(log.path(MARKER), Bytes::from_static(b"512\n"));
    let logs = Logs::new(FaultyStore::with(&objects).await.bucket());
    let served = logs.open(log.id()).await.unwrap();
    let gone = served.entries(EntriesTileId { index: 2, width: 256 }).await.unwrap_err();
    assert!(matches!(gone, LogError::Store(StoreError::Missing(_))), "{gone}");
}

#[tokio::test]
async fn a_pruned_log_opens_without_a_ledger() {
    let log = TestLog::of(SIZE as u64);
    let faulty = stored(&log).await;
    prune_entries(&faulty.bucket(), log.id(), 768).await.unwrap();
    let opened = Logs::new(faulty.bucket()).open_with_ledger(log.id()).await.unwrap();
    assert!(!opened.has_ledger());
    assert_eq!(opened.size(), SIZE as u64);
    // Without the marker it is damage, and no log is taken for another.
    let mut objects = faulty.visible();
    objects.remove(&log.path(MARKER));
    let logs = Logs::new(FaultyStore::with(&objects).await.bucket());
    assert!(logs.open_with_ledger(log.id()).await.is_err());
}

#[test]
fn a_marker_is_read_one_way() {
    assert_eq!(parse_marker(b"256\n"), Some(256));
    for other in
        ["", "256", "0\n", "257\n", "0256\n", "+256\n", "256\n\n", "99999999999999999999\n"]
    {
        assert_eq!(parse_marker(other.as_bytes()), None, "{other:?}");
    }
}
