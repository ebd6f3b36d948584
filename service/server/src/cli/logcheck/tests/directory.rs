//! The walk over a directory, and over the logs that it names.

use bytes::Bytes;

use super::*;
use crate::directory::tests::{Folder, empty_store, heads, open, successor};
use crate::store::faulty::Objects as Stored;

/// A store with a directory and its two logs; the first is closed.
pub(super) struct Deployment {
    pub first: TestLog,
    second: TestLog,
    pub objects: Stored,
}

/// Steps of the first log, so that the directory crosses a tile.
pub(super) const STEPS: usize = 260;

pub(super) async fn deployment() -> Deployment {
    let (folder, faulty) = (Folder::new(), empty_store().await);
    let first = TestLog::of_entries(7, &entries(700));
    let second = successor(2, &first, STEPS);
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    for size in 1..=STEPS {
        directory.follow(&heads(&[(&first, size)], Some(&first))).await.unwrap();
    }
    let both = [(&first, STEPS), (&second, 9)];
    directory.follow(&heads(&both, Some(&second))).await.unwrap();
    let mut objects = faulty.visible();
    objects.extend(first.objects(STEPS));
    objects.extend(second.objects(12));
    Deployment { first, second, objects }
}

/// These objects as a folder, and what a check of its directory says: the exit code.
pub(super) fn check_folder(objects: &Stored, logs: bool) -> anyhow::Result<ExitCode> {
    let folder = Folder::new();
    for (path, bytes) in objects {
        let file = folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let log = folder.path().join("directory").display().to_string();
    check(&CheckArgs { log, resume: None, logs, pruned: false, json: true })
}

fn memory(objects: &Stored) -> Memory {
    let own = objects.iter().filter_map(|(path, bytes)| {
        Some((path.strip_prefix("directory/")?.to_owned(), bytes.to_vec()))
    });
    let help = ["next", "index.json"];
    Memory::of(own.filter(|(path, _)| !help.contains(&path.as_str())).collect())
}

/// Why the logs that the directory names are not what it says.
fn found_in_logs(objects: &Stored) -> String {
    let folder = Folder::new();
    for (path, bytes) in objects {
        let file = folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let begin = Begin { collects: true, ..Begin::default() };
    let agreement = walk(&memory(objects), begin, &AtomicBool::new(false)).unwrap();
    let place = folder.path().join("directory").display().to_string();
    match named::walk_all(&place, &agreement, true, &AtomicBool::new(false)) {
        Err(CheckError::Disagrees { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_directory_is_walked_and_its_logs() {
    let deployment = deployment().await;
    let mut memory = memory(&deployment.objects);
    let found = check_files(&memory).unwrap();
    let reads = memory.reads.lock().unwrap().clone();
    assert!(reads.values().all(|count| *count == 1) && reads.len() == memory.files.len());
    let directory = &found.story.directory;
    assert_eq!(found.checkpoint.size, directory.size());
    assert_eq!(directory.successor(deployment.first.id()), Some(deployment.second.id()));
    assert!(directory.log(deployment.first.id()).unwrap().closing().is_some());
    let places: Vec<(String, usize)> =
        memory.files.iter().map(|(path, bytes)| (path.clone(), bytes.len())).collect();
    for (path, length) in places {
        for at in [0, length / 2, length - 1] {
            assert!(finds(&mut memory, &path, at, 4), "{path} at {at}");
        }
    }
    for logs in [false, true] {
        let code = check_folder(&deployment.objects, logs).unwrap();
        assert_eq!(code, ExitCode::SUCCESS);
    }
}

#[tokio::test]
async fn a_check_of_a_directory_goes_on_where_it_was() {
    let deployment = deployment().await;
    let folder = Folder::new();
    let file = folder.path().join("checked");
    let memory = memory(&deployment.objects);
    let resumed = || {
        let begin = Begin { resume: Some(Resume::File(file.clone())), ..Begin::default() };
        walk(&memory, begin, &AtomicBool::new(false)).unwrap()
    };
    let whole = resumed();
    assert_eq!(whole.before, 0);
    let again = resumed();
    assert_eq!(again.before, 256);
    assert_eq!(again.story, whole.story);
}

#[tokio::test]
async fn logs_that_are_not_what_the_directory_says_are_found() {
    let Deployment { first, second, objects } = deployment().await;
    let with = |change: &dyn Fn(&mut Stored)| {
        let mut objects = objects.clone();
        change(&mut objects);
        objects
    };
    let replaced = |log: &TestLog, by: Stored| {
        with(&|objects| {
            objects.retain(|path, _| !path.starts_with(&log.path("")));
            objects.extend(by.clone());
        })
    };
    // The same key signed another history.
    let fork = TestLog::of_entries(7, &entries(700));
    let why = found_in_logs(&replaced(&first, fork.objects(STEPS)));
    assert!(why.contains("in the directory its checkpoint of size"), "{why}");
    // An older copy, and a closed log that grew.
    let why = found_in_logs(&replaced(&second, second.objects(4)));
    assert!(why.contains("lost entries"), "{why}");
    let why = found_in_logs(&replaced(&first, first.objects(STEPS + 1)));
    assert!(why.contains("closed it at 260"), "{why}");
    // A log that is gone is not found good.
    let gone = with(&|objects| objects.retain(|path, _| !path.starts_with(&second.path(""))));
    let error = check_folder(&gone, true).unwrap_err();
    assert!(format!("{error:#}").contains(&second.id().to_string()), "{error:#}");
    let bad = with(&|objects| {
        objects.insert(first.path("tile/entries/000"), Bytes::from_static(b"x"));
    });
    assert_eq!(check_folder(&bad, true).unwrap(), ExitCode::from(1));
    assert_eq!(check_folder(&bad, false).unwrap(), ExitCode::SUCCESS);
}
