//! The logs under every fault of their store.

pub(crate) mod cosigned;
mod faults;
mod reads;
mod summaries;
pub(crate) mod support;

use super::all::MAX_OPEN_LOGS;
use chancery_tlog::note::VerifierKey;
use proptest::prelude::*;

use self::support::{LOG_ID, TestLog};
use super::*;

fn discontinuous(result: Result<(), LogError>) -> String {
    match result {
        Err(e @ LogError::Discontinuous { .. }) => e.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_is_taken_over_once_and_only_where_it_belongs() {
    let test = TestLog::of(600);
    let log = test.empty(Store::new(Arc::new(object_store::memory::InMemory::new())));
    let gap = discontinuous(log.apply(&test.batch(5, 9)));
    assert!(gap.contains("begins at entry 5, the log ends before entry 0"), "{gap}");
    assert_eq!((log.size_and_root(), &*log.checkpoint()), ((0, test.root(0)), ""));

    log.apply(&test.batch(0, 300)).unwrap();
    log.apply(&test.batch(0, 300)).unwrap();
    log.apply(&test.batch(100, 200)).unwrap();
    assert_eq!(log.size_and_root(), (300, test.root(300)));
    assert_eq!(&*log.checkpoint(), test.checkpoint(300));
    // One that overlaps adds what is new.
    log.apply(&test.batch(250, 515)).unwrap();
    assert_eq!(log.size_and_root(), (515, test.root(515)));
    assert_eq!(log.ledger().genesis, TestLog::ledger(515).genesis);
}

#[test]
fn a_batch_that_does_not_hash_to_its_checkpoint_changes_nothing() {
    let test = TestLog::of(600);
    let log = test.empty(Store::new(Arc::new(object_store::memory::InMemory::new())));
    log.apply(&test.batch(0, 255)).unwrap();
    let good = test.batch(255, 260);
    let altered = |alter: &dyn Fn(&mut Batch)| {
        let mut batch = good.clone();
        alter(&mut batch);
        batch
    };
    let swapped = altered(&|b| b.entries.swap(0, 1));
    assert!(discontinuous(log.apply(&swapped)).contains("do not hash"));
    let longer = altered(&|b| b.entries.push(test.entry(260)));
    assert!(discontinuous(log.apply(&longer)).contains("does not end with its batch"));
    let garbage = altered(&|b| b.entries[2] = vec![1, 2, 3]);
    assert!(discontinuous(log.apply(&garbage)).contains("entry 257"));
    let unsigned = altered(&|b| b.checkpoint = "nothing".into());
    assert!(discontinuous(log.apply(&unsigned)).contains("checkpoint of a batch"));
    let foreign = altered(&|b| b.checkpoint = TestLog::with_seed(9, 260).checkpoint(260));
    assert!(discontinuous(log.apply(&foreign)).contains("checkpoint of a batch"));
    let overflowing = altered(&|b| b.first_index = u64::MAX);
    discontinuous(log.apply(&overflowing));
    // The same size, signed by the same key, and another history.
    let fork = TestLog::forked_at(254, 255);
    assert!(discontinuous(log.apply(&fork.batch(250, 255))).contains("do not hash"));

    assert_eq!(log.size_and_root(), (255, test.root(255)));
    assert_eq!(&*log.checkpoint(), test.checkpoint(255));
    log.apply(&good).unwrap();
    assert_eq!(log.size_and_root(), (260, test.root(260)));
}

#[test]
fn what_was_checked_is_taken_over_at_once_or_not_at_all() {
    let test = TestLog::of(20);
    let log = test.empty(Store::new(Arc::new(object_store::memory::InMemory::new())));
    let first = log.check(&test.batch(0, 5)).unwrap();
    let second = log.check(&test.batch(0, 7)).unwrap();
    assert_eq!(log.size_and_root().0, 0);
    log.extend(second).unwrap();
    assert!(discontinuous(log.extend(first)).contains("checked against size 0"));
    assert_eq!(log.size_and_root(), (7, test.root(7)));
}

#[test]
fn a_record_gives_its_batch_back() {
    let test = TestLog::of(20);
    let log = test.empty(Store::new(Arc::new(object_store::memory::InMemory::new())));
    let batch = test.batch(3, 17);
    let payload = log.encode(&batch).unwrap();
    assert_eq!(Batch::decode(3, &payload), Ok((batch.clone(), test.vkey().clone())));
    for length in 0..payload.len() - batch.checkpoint.len() {
        Batch::decode(3, &payload[..length]).unwrap_err();
    }
    let huge = Batch { entries: vec![vec![0; 65_536]], ..batch };
    discontinuous(log.encode(&huge).map(drop));
}

proptest! {
    #[test]
    fn arbitrary_records_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok((batch, vkey)) = Batch::decode(7, &bytes) {
            prop_assert_eq!(batch.encode(&vkey).unwrap(), bytes);
        }
    }

    #[test]
    fn altered_records_are_read_or_refused(at in 0_usize..500, to in any::<u8>()) {
        let test = TestLog::of(5);
        let mut bytes = test.batch(0, 5).encode(test.vkey()).unwrap();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok((batch, vkey)) = Batch::decode(0, &bytes) {
            // The text of a key may say the same in other letters.
            let again = Batch::decode(0, &batch.encode(&vkey).unwrap());
            prop_assert_eq!(again, Ok((batch, vkey)));
        }
    }
}

#[tokio::test]
async fn logs_are_opened_once_and_again_with_their_ledger() {
    let test = TestLog::of(300);
    let store = Store::new(Arc::new(object_store::memory::InMemory::new()));
    let id: LogId = LOG_ID.parse().unwrap();
    let logs = Logs::new(store.clone());
    assert!(matches!(logs.open(id).await, Err(LogError::Unknown(text)) if text == LOG_ID));
    let log = logs.open_or_new(id, test.vkey().clone()).await.unwrap();
    log.apply(&test.batch(0, 300)).unwrap();
    log.publish().await.unwrap();

    let others = Logs::new(store);
    let read_only = others.open(id).await.unwrap();
    assert!(others.all_open().is_empty(), "without its ledger it is not one to publish");
    assert_eq!(read_only.size_and_root(), (300, test.root(300)));
    let with_ledger = others.open_with_ledger(id).await.unwrap();
    assert!(with_ledger.ledger().announced(&TestLog::kid()));
    assert!(Arc::ptr_eq(&with_ledger, &others.open(id).await.unwrap()));
    assert!(Arc::ptr_eq(&with_ledger, &others.open_or_new(id, test.vkey().clone()).await.unwrap()));
}

#[tokio::test]
async fn a_crowd_of_dead_logs_does_not_stay_open() {
    let store = Store::new(Arc::new(object_store::memory::InMemory::new()));
    let logs = Logs::new(store.clone());
    let mut ids = Vec::new();
    for seed in 0..=MAX_OPEN_LOGS {
        let test = TestLog::with_seed(u8::try_from(seed).unwrap(), 1);
        let log = test.empty(store.clone());
        log.apply(&test.batch(0, 1)).unwrap();
        log.publish().await.unwrap();
        logs.open(log.id()).await.unwrap();
        ids.push(log.id());
    }
    assert_eq!(ids.iter().filter(|id| logs.get(**id).is_some()).count(), 1);
    assert_eq!(logs.open(ids[0]).await.unwrap().size_and_root().0, 1);
}

#[tokio::test]
async fn damage_in_the_store_is_named() {
    let test = TestLog::of(515);
    let faulty = crate::store::faulty::FaultyStore::with(&test.objects(515)).await;
    let store = faulty.store();
    let open = || Log::open(store.clone(), test.id(), true, None);
    assert_eq!(open().await.unwrap().size_and_root(), (515, test.root(515)));
    let truncated = |bytes: &Bytes| bytes.slice(..bytes.len() - 1);
    let flipped = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Bytes::from(bytes)
    };
    for (path, good) in test.objects(515) {
        for bad in [truncated(&good), flipped(&good), Bytes::new(), Bytes::from_static(b"\xff")] {
            // A full hash tile left of the right edge is not needed to go on; a proof reads it.
            if path.ends_with("tile/0/000") || path.ends_with("tile/0/001") {
                continue;
            }
            // The verifier key may lack its newline, and the key set is what its readers verify.
            if path.ends_with("keys.jwt") || (path.ends_with("vkey") && bad.len() + 1 == good.len())
            {
                continue;
            }
            store.put(&path, bad).await.unwrap();
            match open().await {
                Err(e @ LogError::Damaged { .. }) => {
                    let text = e.to_string();
                    assert!(text.contains(LOG_ID) && text.contains("restore the store"), "{text}");
                }
                other => panic!("{path}: {other:?}"),
            }
        }
        store.put(&path, good).await.unwrap();
    }
    let other = TestLog::with_seed(9, 1);
    store.put(&test.path("vkey"), format!("{}\n", other.vkey()).into()).await.unwrap();
    assert!(open().await.unwrap_err().to_string().contains("not the key of this log id"));
}

#[tokio::test]
async fn a_damaged_tile_makes_no_proof_that_verifies() {
    let test = TestLog::of(515);
    let faulty = crate::store::faulty::FaultyStore::with(&test.objects(515)).await;
    let store = faulty.store();
    let log = Log::open(store.clone(), test.id(), true, None).await.unwrap();
    let path = test.path("tile/0/000");
    let good = test.objects(515)[&path].clone();
    store.put(&path, good.slice(..100)).await.unwrap();
    assert!(matches!(log.proof(3).await, Err(LogError::Damaged { .. })));
    let mut bytes = good.to_vec();
    bytes[2 * 32] ^= 1;
    store.put(&path, bytes.into()).await.unwrap();
    let proof = chancery_tlog::TlogProof::parse(log.proof(3).await.unwrap()).unwrap();
    let keys: &[VerifierKey] = std::slice::from_ref(test.vkey());
    proof.verify(&leaf_hash(&test.entry(3)), keys).unwrap_err();
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_not_called_damaged_or_empty() {
    let test = TestLog::of(300);
    let faulty = crate::store::faulty::FaultyStore::with(&test.objects(300)).await;
    faulty.fail_reads(true);
    let opened = Log::open(faulty.store(), test.id(), true, None).await;
    assert!(matches!(opened, Err(LogError::Store(StoreError::Failed { .. }))), "{opened:?}");
    faulty.fail_reads(false);
    let log = Log::open(faulty.store(), test.id(), true, None).await.unwrap();
    faulty.fail_reads(true);
    let full = TileId { level: 0, index: 0, width: 256 };
    assert!(matches!(log.tile(full).await, Err(LogError::Store(_))));
    assert!(matches!(log.proof(3).await, Err(LogError::Store(_))));
}
