use super::faulty::{Fault, FaultyStore, Objects};
use super::*;

fn folder(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("chancery-store-{name}-{}", std::process::id()))
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn objects_are_written_read_listed_and_deleted() {
    let folder = folder("all");
    let store = Store::local(&folder).unwrap();
    store.put("log/a/checkpoint", bytes("one")).await.unwrap();
    store.put("log/a/checkpoint", bytes("two")).await.unwrap();
    store.put_durably("policy/1", bytes("p")).await.unwrap();
    assert_eq!(store.get("log/a/checkpoint").await.unwrap(), "two");
    assert_eq!(store.folders("log").await.unwrap(), ["a"]);
    assert_eq!(store.names("policy").await.unwrap(), ["1"]);
    store.make_durable().await.unwrap();
    store.delete("policy/1").await.unwrap();
    store.delete("policy/1").await.unwrap();
    assert!(matches!(store.get("policy/1").await, Err(StoreError::Missing(_))));
    assert!(store.folders("nothing").await.unwrap().is_empty());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_says_so() {
    let error = Store::local(Path::new("/proc/nothing/here")).unwrap_err();
    assert!(error.to_string().contains("/proc/nothing/here"), "{error}");
}

#[tokio::test]
async fn a_folder_has_one_writer_at_a_time() {
    let folder = folder("lock");
    let first = Store::local(&folder).unwrap();
    let copy = first.clone();
    drop(first);
    let error = Store::local(&folder).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
    drop(copy);
    Store::local(&folder).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

async fn both(objects: &Objects) -> [(FaultyStore, Store); 2] {
    let (a, b) = (FaultyStore::with(objects).await, FaultyStore::with(objects).await);
    let (folder, bucket) = (a.store(), b.bucket());
    [(a, folder), (b, bucket)]
}

#[tokio::test]
async fn what_must_not_change_is_created_once() {
    for (faulty, store) in both(&Objects::new()).await {
        store.create("tile/0/000", bytes("tile")).await.unwrap();
        store.create("tile/0/000", bytes("tile")).await.unwrap();
        store.create_durably("vkey", bytes("key")).await.unwrap();
        store.create_durably("vkey", bytes("key")).await.unwrap();
        for other in ["elit", "til", "", "t\0le and more"] {
            for durably in [false, true] {
                let conflict = match durably {
                    false => store.create("tile/0/000", bytes(other)).await,
                    true => store.create_durably("tile/0/000", bytes(other)).await,
                };
                let error = conflict.unwrap_err();
                assert!(matches!(error, StoreError::Conflict { .. }), "{other}: {error}");
                let text = error.to_string();
                assert!(
                    text.contains("`tile/0/000`") && text.contains("docs/storage.md"),
                    "{text}"
                );
            }
        }
        assert_eq!(faulty.visible()["tile/0/000"], "tile");
    }
}

/// A file system may keep a file's name and not all of its bytes.
#[tokio::test]
async fn a_file_that_a_loss_of_power_tore_is_written_again_and_an_object_is_not() {
    for torn in ["", "ti", "ti\0\0", "\0\0\0\0", "\0\0"] {
        let objects = Objects::from([("tile/0/000".to_owned(), Bytes::from(torn))]);
        let [(file, folder), (object, bucket)] = both(&objects).await;
        folder.create("tile/0/000", bytes("tile")).await.unwrap();
        assert_eq!(file.visible()["tile/0/000"], "tile", "{torn:?}");
        let error = bucket.create("tile/0/000", bytes("tile")).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        assert_eq!(object.visible()["tile/0/000"], torn);
    }
}

#[tokio::test]
async fn creating_again_is_right_after_any_fault() {
    for fault in [Fault::Failed, Fault::Persisted, Fault::Throttled] {
        for (faulty, store) in both(&Objects::new()).await {
            faulty.fail(0, fault);
            let error = store.create("tile/0/000", bytes("tile")).await.unwrap_err();
            assert!(matches!(error, StoreError::Failed { .. }), "{error}");
            store.create("tile/0/000", bytes("tile")).await.unwrap();
            assert_eq!(faulty.visible()["tile/0/000"], "tile");
        }
    }
}

#[tokio::test]
async fn a_mutable_object_is_replaced_only_as_its_writer_knows_it() {
    let faulty = FaultyStore::with(&Objects::new()).await;
    let store = faulty.bucket();
    let mut object = Mutable::new("checkpoint".into());
    assert!(matches!(object.read(&store).await, Err(StoreError::Missing(_))));
    object.write(&store, bytes("one")).await.unwrap();
    object.write(&store, bytes("two")).await.unwrap();
    assert_eq!(object.read(&store).await.unwrap(), "two");
    // Somebody else writes, with the same right to.
    let mut other = Mutable::new("checkpoint".into());
    assert_eq!(other.read(&store).await.unwrap(), "two");
    other.write(&store, bytes("theirs")).await.unwrap();
    for _ in 0..2 {
        let error = object.write(&store, bytes("three")).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        assert!(error.to_string().contains("somebody else"), "{error}");
    }
    assert_eq!(faulty.visible()["checkpoint"], "theirs");
    // Deleted is changed, too.
    store.delete("checkpoint").await.unwrap();
    let error = object.write(&store, bytes("three")).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert!(!faulty.visible().contains_key("checkpoint"));
}

#[tokio::test]
async fn after_an_outage_a_mutable_object_may_hold_any_attempt_and_goes_on_from_there() {
    const TEXTS: [&str; 5] = ["one", "two", "three", "four", "five"];
    // Each attempt as none, failed, persisted, throttled; all combinations.
    let kinds = [None, Some(Fault::Failed), Some(Fault::Persisted), Some(Fault::Throttled)];
    for case in 0..4_usize.pow(4) {
        let faulty = FaultyStore::with(&Objects::new()).await;
        let store = faulty.bucket();
        let mut object = Mutable::new("checkpoint".into());
        for (nth, text) in TEXTS[..4].iter().copied().enumerate() {
            if let Some(fault) = kinds[case / 4_usize.pow(nth as u32) % 4] {
                faulty.fail(faulty.calls(), fault);
            }
            let written = object.write(&store, bytes(text)).await;
            assert!(!matches!(written, Err(StoreError::Conflict { .. })), "{case} {written:?}");
        }
        object.write(&store, bytes(TEXTS[4])).await.unwrap();
        assert_eq!(faulty.visible()["checkpoint"], TEXTS[4], "{case}");
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_and_arrives_late_undoes_nothing() {
    let faulty = FaultyStore::with(&Objects::new()).await;
    let store = faulty.bucket();
    let mut object = Mutable::new("checkpoint".into());
    object.write(&store, bytes("one")).await.unwrap();
    faulty.fail(faulty.calls(), Fault::Late);
    object.write(&store, bytes("two")).await.unwrap_err();
    object.write(&store, bytes("three")).await.unwrap();
    faulty.arrive().await;
    assert_eq!(faulty.visible()["checkpoint"], "three");
    object.write(&store, bytes("four")).await.unwrap();
    assert_eq!(faulty.visible()["checkpoint"], "four");
}

#[tokio::test]
async fn no_call_to_a_bucket_lasts_longer_than_its_limit() {
    let faulty = FaultyStore::with(&Objects::new()).await;
    let mut store = faulty.bucket();
    store.kind = Kind::Bucket(Duration::from_millis(30));
    faulty.fail(0, Fault::Slow);
    let error = store.create("tile/0/000", bytes("tile")).await.unwrap_err();
    assert!(error.to_string().contains("no answer within 30ms"), "{error}");
    store.create("tile/0/000", bytes("tile")).await.unwrap();
    let mut object = Mutable::new("checkpoint".into());
    object.write(&store, bytes("one")).await.unwrap();
    faulty.fail(faulty.calls(), Fault::Slow);
    object.write(&store, bytes("two")).await.unwrap_err();
    object.write(&store, bytes("three")).await.unwrap();
    assert_eq!(faulty.visible()["checkpoint"], "three");
}

#[tokio::test]
async fn a_bucket_that_ignores_conditions_is_refused() {
    let good = FaultyStore::with(&Objects::new()).await;
    for _ in 0..3 {
        good.bucket().probe().await.unwrap();
    }
    let bad = FaultyStore::with(&Objects::new()).await;
    bad.ignore_conditions();
    let why = bad.bucket().probe().await.unwrap_err();
    assert!(why.contains("ignores conditions"), "{why}");
    let stale = FaultyStore::with(&Objects::new()).await;
    stale.freeze_lists();
    let why = stale.bucket().probe().await.unwrap_err();
    assert!(why.contains("list"), "{why}");
    for nth in 0..4 {
        let failing = FaultyStore::with(&Objects::new()).await;
        failing.fail(nth, Fault::Failed);
        let probed = failing.bucket().probe().await;
        assert!(probed.is_err_and(|why| why.contains("the test says so")), "{nth}");
    }
}
