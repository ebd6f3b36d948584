//! Lookups by digest against logs in memory.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use chancery_tlog::leaf_hash;

use super::*;
use crate::logs::tests::support::TestLog;
use crate::store::Store;

/// A folder of its own for each test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("chancery-digests-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn store() -> Store {
    Store::new(Arc::new(object_store::memory::InMemory::new()))
}

fn leaf(test: &TestLog, index: u64) -> Hash {
    leaf_hash(&test.entry(usize::try_from(index).unwrap()))
}

async fn find(digests: &Digests, log: &Log, leaf: Hash) -> Answer {
    digests.find(log, leaf).await.unwrap()
}

/// Grows the index as the task does, however large the log is.
async fn grow(digests: &Digests, log: &Log) {
    let kept = digests.kept(log).await.unwrap();
    while kept.index.covered() < log.size_and_root().0 {
        digests.grow(log, &kept, LEAVES_A_TURN).await.unwrap();
    }
    kept.index.merge().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_is_found_as_soon_as_it_is_committed() {
    let (folder, test) = (Folder::new(), TestLog::of(600));
    let log = test.empty(store());
    let digests = Digests::new(folder.path().to_owned(), true);
    let none = find(&digests, &log, leaf(&test, 0)).await;
    assert_eq!(none, Answer { index: None, searched: 0 });
    for (from, to) in [(0, 1), (1, 256), (256, 257), (257, 600)] {
        log.apply(&test.batch(from, to)).unwrap();
        for index in [0, u64::try_from(to - 1).unwrap()] {
            let searched = u64::try_from(to).unwrap();
            let wanted = Answer { index: Some(index), searched };
            assert_eq!(find(&digests, &log, leaf(&test, index)).await, wanted);
        }
        let stranger = find(&digests, &log, leaf_hash(b"nobody's")).await;
        assert_eq!(stranger, Answer { index: None, searched: u64::try_from(to).unwrap() });
        log.publish().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_gone_on_with_and_one_of_another_history_made_again() {
    let size = FLUSH_LEAVES * 5 + 100;
    let (folder, test) = (Folder::new(), TestLog::of(size));
    let log = test.empty(store());
    let end = usize::try_from(size).unwrap();
    log.apply(&test.batch(0, end)).unwrap();
    let digests = Digests::new(folder.path().to_owned(), true);
    // Too far behind for a lookup to wait for: it says how far it looked.
    let early = find(&digests, &log, leaf(&test, size - 1)).await;
    assert_eq!(early, Answer { index: None, searched: 0 });
    grow(&digests, &log).await;
    assert_eq!(digests.files(log.id()).unwrap().1, 2, "four files became one");
    for index in [0, 1, FLUSH_LEAVES, size - 1] {
        let wanted = Answer { index: Some(index), searched: size };
        assert_eq!(find(&digests, &log, leaf(&test, index)).await, wanted);
    }

    // After a restart the files are used: the next lookup has to read a hundred leaves only.
    let digests = Digests::new(folder.path().to_owned(), true);
    assert_eq!(digests.kept(&log).await.unwrap().index.covered(), FLUSH_LEAVES * 5);
    assert_eq!(find(&digests, &log, leaf(&test, 3)).await.index, Some(3));

    // The same log id with another history, as after a restored store.
    let at = FLUSH_LEAVES * 2;
    let fork = TestLog::forked_at(at, size);
    let other = fork.empty(store());
    other.apply(&fork.batch(0, end)).unwrap();
    let digests = Digests::new(folder.path().to_owned(), true);
    assert_eq!(digests.kept(&other).await.unwrap().index.covered(), 0);
    grow(&digests, &other).await;
    assert_eq!(find(&digests, &other, leaf(&fork, size - 1)).await.index, Some(size - 1));
    assert_eq!(find(&digests, &other, leaf(&test, size - 1)).await.index, None);

    // A log that is shorter than its index, as after a loss.
    let short = test.empty(store());
    short.apply(&test.batch(0, 10)).unwrap();
    let digests = Digests::new(folder.path().to_owned(), true);
    let found = find(&digests, &short, leaf(&test, 9)).await;
    assert_eq!(found, Answer { index: Some(9), searched: 10 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_index_is_told_and_made_again() {
    let size = FLUSH_LEAVES + 10;
    let (folder, test) = (Folder::new(), TestLog::of(size));
    let log = test.empty(store());
    log.apply(&test.batch(0, usize::try_from(size).unwrap())).unwrap();
    let digests = Digests::new(folder.path().to_owned(), true);
    grow(&digests, &log).await;
    let files = std::fs::read_dir(folder.path().join(log.id_text())).unwrap();
    let path = files.map(|file| file.unwrap().path()).next().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end / 2..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let last = leaf_hash(b"\xff");
    let mut told = 0;
    for number in 0..200 {
        let leaf = leaf(&test, number);
        match digests.find(&log, leaf).await {
            Ok(answer) if answer.searched == size => assert_eq!(answer.index, Some(number)),
            Ok(answer) => assert_eq!(answer, Answer { index: None, searched: answer.searched }),
            Err(DigestError::Run(RunError::Damaged { .. })) => {
                told += 1;
                grow(&digests, &log).await;
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(told, 1);
    assert_eq!(find(&digests, &log, last).await.searched, size);
}

#[tokio::test]
async fn where_no_realm_needs_it_there_is_no_index() {
    let (folder, test) = (Folder::new(), TestLog::of(3));
    let log = test.empty(store());
    log.apply(&test.batch(0, 3)).unwrap();
    let digests = Digests::new(folder.path().to_owned(), false);
    let error = digests.find(&log, leaf(&test, 0)).await.unwrap_err();
    assert!(matches!(error, DigestError::Off), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Octets of memory that this process really has.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// `cargo test --release -p chancery --lib digests -- --ignored --nocapture`
#[test]
#[ignore = "it measures"]
fn measure_ten_million_leaves() {
    const LEAVES: u64 = 10_000_000;
    let (folder, log) = (Folder::new(), LogId::from_bytes([1; 16]));
    let leaf = |index: u64| leaf_hash(&index.to_be_bytes());
    let before = resident();
    let tree = chancery_tlog::TileBuilder::new();
    let index = Index::new(folder.path(), log, Vec::new(), tree);
    let begun = std::time::Instant::now();
    while index.covered() < LEAVES {
        if index.room() == 0 {
            index.flush().unwrap();
            index.merge().unwrap();
        }
        let from = index.covered();
        index.extend((from..LEAVES.min(from + index.room())).map(leaf));
    }
    let took = begun.elapsed().as_secs_f64();
    let (bytes, files) = index.files();
    let millions = LEAVES as f64 / 1e6;
    println!("{LEAVES} leaves in {took:.1} s, {:.2} million a second", millions / took);
    println!("disk: {:.2} MB a million, {files} files", bytes as f64 / 1e6 / millions);
    let grown = resident().saturating_sub(before) as f64 / 1e6;
    println!("memory: {grown:.2} MB in all, {:.3} MB a million", grown / millions);
    for (what, first) in [("found", 0), ("absent", LEAVES)] {
        let mut times: Vec<_> = (0..100_000_u64)
            .map(|number| {
                let wanted = leaf(first + number.wrapping_mul(7_919_993) % LEAVES);
                let begun = std::time::Instant::now();
                let key = Key::of(&wanted);
                let candidates = index.candidates(key);
                let files = candidates.runs.iter().flat_map(|run| run.find(key).unwrap());
                let found = files.chain(candidates.recent).count();
                assert_eq!(found, usize::from(first == 0));
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
        println!("a lookup, {what}: p50 {:.0} us, p99 {:.0} us", at(50), at(99));
    }
}

/// Files whose bytes are what was written, and what was written is not the log's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_says_something_else_than_the_log_is_found_out() {
    let size = FLUSH_LEAVES * 2;
    let test = TestLog::of(size);
    let log = test.empty(store());
    log.apply(&test.batch(0, usize::try_from(size).unwrap())).unwrap();
    let write = async |folder: &Folder, lie: &dyn Fn(u64) -> bool| {
        let root = log.tree_at(FLUSH_LEAVES).await.unwrap().root();
        let stretch = run::Stretch { log: log.id(), from: 0, to: FLUSH_LEAVES, root };
        let said = |i: u64| if lie(i) { leaf_hash(b"no such entry") } else { leaf(&test, i) };
        let mut records: Vec<_> =
            (0..FLUSH_LEAVES).map(|i| (Key::of(&said(i)), u32::try_from(i).unwrap())).collect();
        records.sort_unstable();
        let of = folder.path().join(log.id_text());
        std::fs::create_dir_all(&of).unwrap();
        run::Run::write(&of, stretch, records.into_iter().map(Ok)).unwrap();
    };
    // All of it: at once. The good one stays.
    for (lies, covered) in [(true, 0), (false, FLUSH_LEAVES)] {
        let folder = Folder::new();
        write(&folder, &|_| lies).await;
        let counter = Counter::default();
        let digests = Digests::new(folder.path().to_owned(), true).counting(counter.clone());
        assert_eq!(digests.kept(&log).await.unwrap().index.covered(), covered);
        assert_eq!(counter.get(), u64::from(lies));
        grow(&digests, &log).await;
        assert_eq!(find(&digests, &log, leaf(&test, 7_000)).await.index, Some(7_000));
    }
    // One leaf of it: in time.
    let folder = Folder::new();
    let hidden = 40 * TILE_WIDTH + 9;
    write(&folder, &|i| i == hidden).await;
    let counter = Counter::default();
    let digests = Digests::new(folder.path().to_owned(), true).counting(counter.clone());
    for _ in 0..=2 * (FLUSH_LEAVES / TILE_WIDTH) {
        let _ = digests.turn_of(&log).await;
    }
    assert_eq!(counter.get(), 1);
    assert_eq!(find(&digests, &log, leaf(&test, hidden)).await.index, Some(hidden));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_merge_finds_is_told_and_made_again() {
    let size = FLUSH_LEAVES * 4 + 1;
    let (folder, test) = (Folder::new(), TestLog::of(size));
    let log = test.empty(store());
    log.apply(&test.batch(0, usize::try_from(size).unwrap())).unwrap();
    let counter = Counter::default();
    let digests = Digests::new(folder.path().to_owned(), true).counting(counter.clone());
    let kept = digests.kept(&log).await.unwrap();
    while kept.index.covered() < size {
        digests.grow(&log, &kept, LEAVES_A_TURN).await.unwrap();
    }
    let path = kept.index.runs()[2].path().to_owned();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    drop(kept);
    // Its own merging runs beside the turns.
    for _ in 0..600 {
        let _ = digests.turn_of(&log).await;
        if digests.files(log.id()).is_some_and(|(_, files)| files == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(counter.get(), 1);
    assert_eq!(digests.files(log.id()).unwrap().1, 1, "merged in the end");
    let last = size - 1;
    assert_eq!(find(&digests, &log, leaf(&test, last)).await.index, Some(last));
    assert_eq!(find(&digests, &log, leaf(&test, 0)).await.index, Some(0));
}

#[test]
fn indexes_of_logs_that_count_no_more_are_removed_and_nothing_else() {
    let folder = Folder::new();
    let (past, counts) = ("AAAAAAAAAAAAAAAAAAAAAA", "AQEBAQEBAQEBAQEBAQEBAQ");
    for name in [past, counts, "lost+found"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("0-1.run"), b"x").unwrap();
    }
    remove_past(folder.path(), &HashSet::from([counts.to_owned()]));
    let left = |name: &str| folder.path().join(name).join("0-1.run").exists();
    assert_eq!([past, counts, "lost+found"].map(left), [false, true, true]);
    remove_past(&folder.path().join("absent"), &HashSet::new());
}
