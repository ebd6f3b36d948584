//! Stores, keys and data folders that do not belong together are refused, and nothing is changed.

use super::*;

/// A directory of some entries: its store, its data folder, its log.
async fn published(sizes: &[usize]) -> (FaultyStore, Folder, TestLog) {
    let (folder, faulty, log) = (Folder::new(), empty_store().await, TestLog::with_seed(1, 600));
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    for size in sizes {
        directory.follow(&heads(&[(&log, *size)], Some(&log))).await.unwrap();
    }
    (faulty, folder, log)
}

async fn refused(faulty: &FaultyStore, folder: &Folder) -> DirectoryError {
    let (before, calls) = (faulty.visible(), faulty.calls());
    let error = open(faulty.bucket(), folder).await.unwrap_err();
    assert!(error.is_final(), "{error}");
    assert_eq!((faulty.visible(), faulty.calls()), (before, calls), "{error}");
    error
}

#[tokio::test]
async fn a_key_is_made_once_and_never_remade() {
    use std::os::unix::fs::PermissionsExt as _;
    let (faulty, folder, log) = published(&[2]).await;
    let file = folder.files().key;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let vkey = open(faulty.bucket(), &folder).await.unwrap().vkey().clone();
    assert_eq!(open(faulty.bucket(), &folder).await.unwrap().vkey(), &vkey);
    let pem = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = refused(&faulty, &folder).await;
    assert!(matches!(error, DirectoryError::KeyLost { .. }), "{error}");
    assert!(error.to_string().contains("restore the file"), "{error}");
    assert!(!file.exists(), "no other key was made");
    // A new data folder does not take over somebody's directory either.
    let error = refused(&faulty, &Folder::new()).await;
    assert!(matches!(error, DirectoryError::KeyLost { .. }), "{error}");
    std::fs::write(&file, b"garbage").unwrap();
    assert!(matches!(refused(&faulty, &folder).await, DirectoryError::Key { .. }));
    std::fs::write(&file, pem).unwrap();
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    directory.follow(&heads(&[(&log, 9)], Some(&log))).await.unwrap();
}

/// A service that was stopped before its first signer came.
#[tokio::test]
async fn a_directory_that_was_never_published_is_begun_again() {
    let (faulty, folder, log) = published(&[]).await;
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    let vkey = directory.vkey().clone();
    directory.remember().await;
    drop(directory);
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    assert_eq!(directory.vkey(), &vkey);
    directory.follow(&heads(&[(&log, 2)], Some(&log))).await.unwrap();
    // Once it was published an empty store is another one.
    directory.remember().await;
    drop(directory);
    let error = refused(&empty_store().await, &folder).await;
    assert!(matches!(error, DirectoryError::RolledBack { found: 0, .. }), "{error}");
}

#[tokio::test]
async fn another_directory_is_refused() {
    let (theirs, their_folder, _) = published(&[2, 3]).await;
    let (ours, folder, _) = published(&[2]).await;
    let error = refused(&theirs, &folder).await;
    assert!(matches!(error, DirectoryError::Foreign { .. }), "{error}");
    let error = refused(&ours, &their_folder).await;
    assert!(matches!(error, DirectoryError::Foreign { .. }), "{error}");
    let (other, files) = (Some("other.example/directory"), folder.files());
    let error = Directory::open(ours.bucket(), files.clone(), other, ORIGIN).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Origin { .. }), "{error}");
    // A changed base_url alone changes no origin.
    let opened = Directory::open(ours.bucket(), files, None, "other.example/directory").await;
    assert_eq!(opened.unwrap().vkey().name(), ORIGIN);
}

#[tokio::test]
async fn a_store_that_lost_entries_is_refused() {
    let (faulty, folder, log) = published(&[2, 3]).await;
    let older = faulty.visible();
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    directory.follow(&heads(&[(&log, 9)], Some(&log))).await.unwrap();
    drop(directory);
    let rolled_back = FaultyStore::with(&older).await;
    let error = refused(&rolled_back, &folder).await;
    assert!(matches!(error, DirectoryError::RolledBack { known: 4, found: 3 }), "{error}");
    // The memory of the last checkpoint alone finds it, and that of the entries alone.
    let state = std::fs::read(folder.files().state).unwrap();
    std::fs::remove_file(folder.files().state).unwrap();
    let error = refused(&rolled_back, &folder).await;
    assert!(matches!(error, DirectoryError::RolledBack { known: 4, found: 3 }), "{error}");
    let empty = empty_store().await;
    let error = refused(&empty, &folder).await;
    assert!(matches!(error, DirectoryError::RolledBack { known: 4, found: 0 }), "{error}");
    std::fs::remove_file(folder.files().seen).unwrap();
    std::fs::write(folder.files().state, state).unwrap();
    let error = refused(&empty, &folder).await;
    assert!(matches!(error, DirectoryError::Key { .. }), "{error}");
}

#[tokio::test]
async fn a_rewritten_directory_is_refused() {
    let (faulty, folder, log) = published(&[2, 3, 4]).await;
    // The same key, another history of the same length and a longer one.
    for sizes in [vec![2, 3, 5], vec![2, 5, 6, 7, 8]] {
        let fork = empty_store().await;
        let elsewhere = Folder::with_key_of(&folder);
        let directory = open(fork.bucket(), &elsewhere).await.unwrap();
        for size in &sizes {
            directory.follow(&heads(&[(&log, *size)], Some(&log))).await.unwrap();
        }
        drop(directory);
        let error = refused(&fork, &folder).await;
        assert!(matches!(error, DirectoryError::Rewritten { known: 4 }), "{sizes:?}: {error}");
    }
    // A memory that was damaged is no reason to stop.
    std::fs::write(folder.files().state, b"garbage").unwrap();
    std::fs::write(folder.files().seen, b"").unwrap();
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    assert_eq!(directory.reading().size(), 4);
}

#[tokio::test]
async fn a_directory_with_an_entry_that_may_not_stand_there_is_refused() {
    let (faulty, folder, log) = published(&[2]).await;
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    // Its own key signs it all the same.
    let again = DirectoryEntry::decode(&directory.held(log.id()).unwrap().entry).unwrap();
    let plan = Plan {
        entries: vec![again.encode().unwrap()],
        after: (*directory.reading()).clone(),
        problems: Vec::new(),
    };
    let mut writer = directory.writer.lock().await;
    let pending = directory.sign(&writer, plan).unwrap();
    writer.pending = Some(pending);
    directory.carry_out(&mut writer).await.unwrap();
    drop(writer);
    drop(directory);
    let error = refused(&faulty, &Folder::with_key_of(&folder)).await;
    assert!(matches!(error, DirectoryError::Entry(_)), "{error}");
}

#[tokio::test]
async fn a_second_writer_is_found_out() {
    let (faulty, folder, log) = published(&[2]).await;
    let first = open(faulty.bucket(), &folder).await.unwrap();
    let second = open(faulty.bucket(), &Folder::with_key_of(&folder)).await.unwrap();
    first.follow(&heads(&[(&log, 3)], Some(&log))).await.unwrap();
    let error = second.follow(&heads(&[(&log, 4)], Some(&log))).await.unwrap_err();
    assert!(error.is_final() && error.to_string().contains("STORE CONFLICT"), "{error}");
    first.follow(&heads(&[(&log, 5)], Some(&log))).await.unwrap();
    assert_eq!(as_a_stranger(faulty.bucket()).await, *first.reading());
}
