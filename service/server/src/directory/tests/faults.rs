//! Each write in turn as "failed" and as "failed but persisted", a loss of power after each, and a
//! start over from what is left: the directory goes on, and never says anything else of what it said
//! (INVARIANT I9).

use super::*;
use crate::store::faulty::Fault;

#[derive(Clone, Copy, Debug)]
enum As {
    Folder,
    Bucket,
}

impl As {
    fn store(self, faulty: &FaultyStore) -> Store {
        match self {
            As::Folder => faulty.store(),
            As::Bucket => faulty.bucket(),
        }
    }

    fn faults(self) -> Vec<Fault> {
        match self {
            As::Folder => vec![Fault::Failed, Fault::Persisted],
            As::Bucket => vec![Fault::Failed, Fault::Persisted, Fault::Throttled, Fault::Late],
        }
    }
}

const BOTH: [As; 2] = [As::Folder, As::Bucket];

/// More failures in a row than one fault can cause.
const PATIENCE: usize = 4;

/// The logs of the story: one signer after another, and a crowd that lets the directory's entries
/// cross the boundary of a tile in one batch.
struct Story {
    first: TestLog,
    second: TestLog,
    crowd: Vec<TestLog>,
}

impl Story {
    fn new() -> Self {
        let first = TestLog::with_seed(1, 40);
        let second = successor(2, &first, 30);
        let crowd = (20..110).map(|seed| TestLog::with_seed(seed, 2)).collect();
        Self { first, second, crowd }
    }

    fn stages(&self) -> Vec<Heads> {
        let (first, second) = (&self.first, &self.second);
        let mut crowded: Vec<(&TestLog, usize)> = self.crowd.iter().map(|log| (log, 2)).collect();
        crowded.push((first, 30));
        vec![
            heads(&[(first, 3)], None),
            heads(&[(first, 8)], Some(first)),
            heads(&crowded, Some(first)),
            heads(&[(first, 30), (second, 2)], Some(second)),
            heads(&[(second, 9)], Some(second)),
        ]
    }
}

async fn run(directory: &Directory, stages: &[Heads]) {
    for stage in stages {
        follow(directory, stage).await;
    }
}

async fn follow(directory: &Directory, stage: &Heads) {
    for _ in 0..PATIENCE {
        if directory.follow(stage).await.is_ok() {
            return;
        }
    }
    panic!("one fault fails one round: {:?}", directory.follow(stage).await);
}

/// Every root of the store's directory, by size.
async fn roots(store: Store) -> Vec<Hash> {
    let vkey = store.get("directory/vkey").await.unwrap();
    let vkey = VerifierKey::parse(String::from_utf8_lossy(&vkey).trim_end()).unwrap();
    let log = Log::open_directory(store, vkey).await.unwrap();
    let mut frontier = Frontier::new();
    let mut roots = vec![frontier.root()];
    for index in 0..log.size().div_ceil(256) {
        let id = EntriesTileId::at(index, log.size()).unwrap();
        let bundle = log.entries(id).await.unwrap();
        for entry in decode_entries(&bundle, usize::from(id.width)).unwrap() {
            frontier.append(leaf_hash(&entry));
            roots.push(frontier.root());
        }
    }
    roots
}

/// What was visible as the directory's checkpoint at some moment; everything that it covers must be
/// there.
async fn check_visible(objects: &Objects, vkey: &VerifierKey) -> Option<(u64, Hash)> {
    let note = objects.get("directory/checkpoint")?;
    let (checkpoint, _) = Checkpoint::open(note, std::slice::from_ref(vkey)).unwrap();
    let copy = FaultyStore::with(objects).await;
    as_a_stranger(copy.bucket()).await;
    Some((checkpoint.size, checkpoint.root))
}

/// A start over: what was published stands, and the rest of the story is told.
async fn check_recovery(
    story: &Story,
    folder: &Folder,
    objects: &Objects,
    kind: As,
    published: Option<(u64, Hash)>,
    what: &str,
) {
    let faulty = FaultyStore::with(objects).await;
    let directory = open(kind.store(&faulty), folder).await;
    let directory = directory.unwrap_or_else(|e| panic!("{kind:?}, {what}: {e}"));
    let all: Vec<(&TestLog, usize)> = story.crowd.iter().map(|log| (log, 2)).collect();
    let all = [all, vec![(&story.first, 30), (&story.second, 9)]].concat();
    directory.follow(&heads(&all, Some(&story.second))).await.unwrap();
    let reading = as_a_stranger(kind.store(&faulty)).await;
    assert_eq!(reading, *directory.reading(), "{what}");
    assert_eq!(reading.logs().count(), story.crowd.len() + 2, "{what}");
    let first = reading.log(story.first.id()).unwrap();
    assert_eq!(first.closing().unwrap().1.size, 30, "{what}");
    assert_eq!(reading.log(story.second.id()).unwrap().latest().unwrap().1.size, 9, "{what}");
    if let Some((size, root)) = published {
        let roots = roots(kind.store(&faulty)).await;
        assert_eq!(roots[size as usize], root, "{kind:?}, {what}: history changed");
    }
}

#[tokio::test]
async fn a_loss_of_power_at_any_moment_changes_nothing_that_was_said() {
    let story = Story::new();
    for kind in BOTH {
        let (folder, faulty) = (Folder::new(), empty_store().await);
        let directory = open(kind.store(&faulty), &folder).await.unwrap();
        run(&directory, &story.stages()).await;
        let vkey = directory.vkey().clone();
        assert!(directory.reading().size() > 270);
        for moment in faulty.moments() {
            let published = check_visible(&moment.visible, &vkey).await;
            let what = &moment.what;
            let fresh = Folder::with_key_of(&folder);
            check_recovery(&story, &fresh, &moment.visible, kind, published, what).await;
            // What was published is durable: the checkpoint is written through.
            let nothing = moment.after_power_loss(|_| false);
            let durable = check_visible(&nothing, &vkey).await;
            let what = format!("unsynced writes lost after {what}");
            let fresh = Folder::with_key_of(&folder);
            check_recovery(&story, &fresh, &nothing, kind, durable, &what).await;
        }
    }
}

#[tokio::test]
async fn every_write_may_fail_or_fail_after_it_persisted() {
    let story = Story::new();
    let stages = story.stages();
    for kind in BOTH {
        let (folder, quiet) = (Folder::new(), empty_store().await);
        run(&open(kind.store(&quiet), &folder).await.unwrap(), &stages).await;
        for fault in kind.faults() {
            for nth in 0..quiet.calls() {
                let (folder, faulty) = (Folder::with_key_of(&folder), empty_store().await);
                let directory = open(kind.store(&faulty), &folder).await.unwrap();
                faulty.fail(nth, fault);
                run(&directory, &stages).await;
                faulty.arrive().await;
                directory.follow(&stages[4]).await.unwrap();
                let what = format!("{fault:?} at {nth}");
                let reading = as_a_stranger(kind.store(&faulty)).await;
                assert_eq!(reading, *directory.reading(), "{kind:?}, {what}");
                // Each checkpoint that anybody saw is one of this history.
                let roots = roots(kind.store(&faulty)).await;
                for moment in &faulty.moments()[nth.saturating_sub(1)..] {
                    let Some(note) = moment.visible.get("directory/checkpoint") else { continue };
                    let keys = std::slice::from_ref(directory.vkey());
                    let (seen, _) = Checkpoint::open(note, keys).unwrap();
                    assert_eq!(roots[seen.size as usize], seen.root, "{kind:?}, {what}");
                }
                let hit = &faulty.moments()[nth];
                let fresh = Folder::with_key_of(&folder);
                check_recovery(&story, &fresh, &hit.visible, kind, None, &what).await;
                // The data folder's memory agrees with what the store has.
                drop(directory);
                let again = open(kind.store(&faulty), &folder).await.unwrap();
                assert_eq!(*again.reading(), reading, "{kind:?}, {what}");
            }
        }
    }
}

#[tokio::test]
async fn every_read_of_a_start_may_fail_and_changes_nothing() {
    let story = Story::new();
    let (folder, faulty) = (Folder::new(), empty_store().await);
    run(&open(faulty.bucket(), &folder).await.unwrap(), &story.stages()).await;
    let (before, calls) = (faulty.visible(), faulty.calls());
    let fresh = Folder::with_key_of(&folder);
    let reads = faulty.reads();
    open(faulty.bucket(), &fresh).await.unwrap();
    for nth in 0..faulty.reads() - reads {
        faulty.fail_read(faulty.reads() + nth);
        let failed = open(faulty.bucket(), &fresh).await.unwrap_err();
        assert!(!failed.is_final(), "{failed}");
    }
    assert_eq!((faulty.visible(), faulty.calls()), (before, calls));
}
