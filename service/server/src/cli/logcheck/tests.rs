//! The walk over small logs in memory: every object once, every byte, and logs that change meanwhile.

mod cosigned;
mod directory;
mod prune;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use chancery_entry::{
    Announcement, Compromise, Entry, Genesis, Narrowing, Start, TokenEntry, Void, VoidReason,
};
use chancery_token::{Algorithm, RsaBits, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::logs::tests::support::TestLog;

type Files = BTreeMap<String, Vec<u8>>;

/// A log in memory, read by one thread or more.
struct Memory {
    files: Files,
    reads: Mutex<BTreeMap<String, usize>>,
    readers: usize,
}

impl Memory {
    fn of(files: Files) -> Self {
        Self { files, reads: Mutex::default(), readers: 1 }
    }
}

impl Objects for Memory {
    fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.files.get(path).cloned();
        if found.is_some() {
            *self.reads.lock().unwrap().entry(path.to_owned()).or_default() += 1;
        }
        Ok(found)
    }

    fn readers(&self) -> usize {
        self.readers
    }
}

/// Entries whose story holds together.
fn entries(size: u64) -> Vec<Entry> {
    let key = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
    let kid = *key.public().kid().as_bytes();
    let announcement = Announcement {
        realm: "r".into(),
        issuer: "https://test.example/r".into(),
        jwk: serde_json::Value::Object(key.public().jwk()).to_string(),
        kid,
        algorithm: "Ed25519".into(),
        nbf: 0,
        signs_until: 1 << 40,
        max_lifetime_s: 600,
        start: Start::First,
    };
    let entry = |index: u64| match index {
        0 => Entry::Genesis(Genesis {
            software: "test".into(),
            started_at: 1_000,
            policy_digest: [1; 32],
            evidence_digest: None,
            predecessor: None,
            cosigning_key: None,
        }),
        1 => Entry::Announcement(announcement.clone()),
        i if i % 90 == 89 => Entry::Narrowing(Narrowing { kid, signs_until: (1 << 40) - i }),
        i if i % 90 == 88 => Entry::Void(Void { index: i - 1, reason: VoidReason::SigningFailed }),
        i if i % 90 == 87 => Entry::Compromise(Compromise {
            kid: chancery_entry::sha256(&i.to_be_bytes()),
            at: i,
            reason: "test".into(),
        }),
        i => Entry::Token(TokenEntry::of(kid, i, i + 60, &i.to_be_bytes())),
    };
    (0..size).map(entry).collect()
}

fn log_of(size: u64) -> TestLog {
    TestLog::of_entries(7, &entries(size))
}

/// What a folder holds of the log at this size.
fn files(log: &TestLog, size: usize) -> Files {
    let prefix = log.path("");
    let objects = log.objects(size).into_iter();
    let own = objects.map(|(path, bytes)| (path[prefix.len()..].to_owned(), bytes.to_vec()));
    own.filter(|(path, _)| path != "keys.jwt").collect()
}

fn check_files(objects: &dyn Objects) -> Result<Agreement, CheckError> {
    walk(objects, Begin::default(), &AtomicBool::new(false))
}

fn disagreement(result: Result<Agreement, CheckError>) -> String {
    match result.map(|a| a.checkpoint) {
        Err(CheckError::Disagrees { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn unknown(result: Result<Agreement, CheckError>) -> String {
    match result.map(|a| a.checkpoint) {
        Err(CheckError::Unknown(why)) => format!("{why:#}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_object_is_read_once_and_the_story_is_told() {
    let log = log_of(66_000);
    for size in [0, 1, 2, 255, 256, 257, 511, 512, 1_000, 65_535, 65_536, 65_537, 66_000] {
        let mut memory = Memory::of(files(&log, size));
        memory.readers = 3;
        let found = check_files(&memory).unwrap_or_else(|e| panic!("{size}: {e}"));
        assert_eq!(found.checkpoint.root, log.root(size));
        assert_eq!(found.checkpoint.size, size as u64);
        let reads = memory.reads.lock().unwrap();
        let expected: BTreeMap<String, usize> =
            memory.files.keys().map(|path| (path.clone(), 1)).collect();
        assert_eq!(*reads, expected, "{size}");
        let every_90th = |at: usize| (size + 89 - at) / 90;
        let story = &found.story;
        let others = [every_90th(87), every_90th(88), every_90th(89)];
        assert_eq!(story.fallen().len(), others[0], "{size}");
        assert_eq!(story.voids, others[1] as u64, "{size}");
        let tokens = size.saturating_sub(2 + others.iter().sum::<usize>());
        assert_eq!(story.tokens, tokens as u64, "{size}");
        assert_eq!(story.keys().len(), usize::from(size > 1));
    }
}

/// Whether a change in one byte is found; nothing else is a pass.
fn finds(memory: &mut Memory, path: &str, at: usize, mask: u8) -> bool {
    let bytes = memory.files.get_mut(path).unwrap();
    bytes[at] ^= mask;
    let found = matches!(check_files(memory), Err(CheckError::Disagrees { .. }));
    memory.files.get_mut(path).unwrap()[at] ^= mask;
    found
}

#[test]
fn every_flipped_byte_of_a_small_log_is_found() {
    let mut memory = Memory::of(files(&log_of(20), 20));
    check_files(&memory).map(|_| ()).unwrap();
    for path in memory.files.keys().cloned().collect::<Vec<_>>() {
        for at in 0..memory.files[&path].len() {
            for mask in [1, 0x20, 0x80] {
                assert!(finds(&mut memory, &path, at, mask), "{path}: byte {at}, bits {mask:#x}");
            }
        }
    }
    check_files(&memory).map(|_| ()).unwrap();
}

#[test]
fn every_flipped_byte_of_what_is_above_and_right_of_full_tiles_is_found() {
    let mut memory = Memory::of(files(&log_of(515), 515));
    for path in ["tile/1/000.p/2", "tile/0/002.p/3", "tile/entries/002.p/3", "checkpoint", "vkey"] {
        for at in 0..memory.files[path].len() {
            assert!(finds(&mut memory, path, at, 1), "{path}: byte {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_changed_byte_anywhere_is_found(
        object in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        mask in 1..=255_u8,
    ) {
        thread_local!(static LOG: Files = files(&log_of(515), 515));
        let mut memory = Memory::of(LOG.with(Clone::clone));
        let paths: Vec<String> = memory.files.keys().cloned().collect();
        let path = object.get(&paths);
        let at = at.index(memory.files[path].len());
        prop_assert!(finds(&mut memory, path, at, mask), "{path}: byte {at}, bits {mask:#x}");
    }
}

#[test]
fn a_full_tile_above_level_0_is_compared_and_what_is_missing_is_named() {
    let log = log_of(65_600);
    let good = files(&log, 65_600);
    let level_1 = "tile/1/000";
    for at in [0, 4_000, 8_191] {
        let mut memory = Memory::of(good.clone());
        memory.files.get_mut(level_1).unwrap()[at] ^= 1;
        let why = disagreement(check_files(&memory));
        assert!(why.starts_with(level_1), "{why}");
    }
    let edge = ["tile/2/000.p/1", "tile/0/256.p/64", "tile/entries/256.p/64"];
    let full = [level_1, "tile/0/000", "tile/0/255", "tile/entries/000", "tile/entries/255"];
    for path in edge.iter().chain(&full) {
        let mut memory = Memory::of(good.clone());
        memory.files.remove(*path).unwrap();
        let why = disagreement(check_files(&memory));
        assert!(why.contains(path) && why.contains("not there"), "{path}: {why}");
    }
    for path in ["vkey", "checkpoint"] {
        let mut memory = Memory::of(good.clone());
        memory.files.remove(path);
        let why = unknown(check_files(&memory));
        assert!(why.contains(path), "{why}");
    }
}

#[test]
fn longer_and_shorter_objects_are_found() {
    let good = files(&log_of(515), 515);
    for (path, bytes) in &good {
        for changed in [[bytes.as_slice(), b"\n"].concat(), bytes[..bytes.len() / 2].to_vec()] {
            let mut memory = Memory::of(good.clone());
            memory.files.insert(path.clone(), changed);
            disagreement(check_files(&memory));
        }
    }
}

#[test]
fn a_story_that_contradicts_itself_is_found_though_every_hash_agrees() {
    let good = entries(300);
    let Entry::Token(token) = good[10].clone() else { panic!("{:?}", good[10]) };
    let Entry::Announcement(said) = good[1].clone() else { panic!("{:?}", good[1]) };
    let empty = Announcement { nbf: said.signs_until, ..said };
    let compromised = Compromise { kid: token.kid, at: 20, reason: "test".into() };
    let cases: Vec<(usize, Entry, &str)> = vec![
        (0, good[5].clone(), "genesis is the first"),
        (260, good[0].clone(), "genesis is the first"),
        (260, good[1].clone(), "announced before"),
        (7, Entry::Token(TokenEntry { kid: [9; 32], ..token.clone() }), "not announced"),
        (290, Entry::Token(TokenEntry { exp: token.iat + 601, ..token.clone() }), "outside"),
        (290, Entry::Token(TokenEntry { iat: 1 << 40, ..token.clone() }), "outside"),
        (8, Entry::Void(Void { index: 8, reason: VoidReason::TooLate }), "not before it"),
        (270, Entry::Narrowing(Narrowing { kid: token.kid, signs_until: 1 << 41 }), "narrowed"),
        (20, Entry::Compromise(compromised), "compromised"),
        (1, Entry::Announcement(empty), "ends before it begins"),
    ];
    for (at, entry, expected) in cases {
        let mut bad = good.clone();
        bad[at] = entry;
        let why = disagreement(check_files(&Memory::of(files(&TestLog::of_entries(7, &bad), 300))));
        let at = if expected == "compromised" { at + 1 } else { at };
        assert!(why.contains(&format!("entry {at}:")) && why.contains(expected), "{why}");
    }
}

#[test]
fn the_place_names_the_log() {
    let log = log_of(3);
    let memory = Memory::of(files(&log, 3));
    let go = |id| {
        let begin = Begin { named: Some(id), ..Begin::default() };
        walk(&memory, begin, &AtomicBool::new(false))
    };
    go(log.id()).map(|_| ()).unwrap();
    let other = TestLog::with_seed(9, 1);
    let why = disagreement(go(other.id()));
    assert!(why.contains("verifier key there is that of"), "{why}");
}

/// A folder whose log grows while it is read: after so many reads the next size is published, and
/// its predecessor's partial tiles are deleted.
struct Live {
    states: Vec<Files>,
    every: usize,
    reads: AtomicUsize,
}

impl Objects for Live {
    fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let state = self.reads.fetch_add(1, Ordering::Relaxed) / self.every;
        let state = self.states.get(state).or(self.states.last()).unwrap();
        Ok(state.get(path).cloned())
    }

    fn readers(&self) -> usize {
        1
    }
}

#[test]
fn a_log_that_grows_meanwhile_is_followed_to_a_checkpoint_that_is_whole() {
    let log = log_of(1_100);
    let sizes = [3, 200, 256, 257, 400, 1_100];
    let states: Vec<Files> = sizes.iter().map(|size| files(&log, *size)).collect();
    for every in 1..40 {
        for first in 0..sizes.len() {
            let states = states[first..].to_vec();
            let live = Live { states, every, reads: AtomicUsize::new(0) };
            let found = check_files(&live).unwrap_or_else(|e| panic!("{every}, {first}: {e}"));
            let size = usize::try_from(found.checkpoint.size).unwrap();
            assert!(sizes[first..].contains(&size), "{size}");
            assert_eq!(found.checkpoint.root, log.root(size));
        }
    }
}

#[test]
fn a_log_that_is_rewritten_meanwhile_is_found() {
    let good = entries(1_100);
    for changed in [10, 270, 300] {
        let mut bad = good.clone();
        let Entry::Token(token) = &good[10] else { panic!("{:?}", good[10]) };
        bad[changed] = Entry::Token(TokenEntry { digest: [changed as u8; 32], ..token.clone() });
        let (first, second) = (TestLog::of_entries(7, &good), TestLog::of_entries(7, &bad));
        for later in [305, 400, 513, 1_100] {
            // The first bundle is read from the first history; then its edge is gone.
            let states = vec![files(&first, 304), files(&second, later)];
            let live = Live { states, every: 5, reads: AtomicUsize::new(0) };
            disagreement(check_files(&live));
        }
        let states = vec![files(&first, 304), {
            let mut same_size = files(&second, 304);
            same_size.remove("tile/entries/001.p/48");
            same_size
        }];
        let live = Live { states, every: 5, reads: AtomicUsize::new(0) };
        let why = disagreement(check_files(&live));
        assert!(why.contains("two checkpoints of size 304"), "{why}");
    }
}

#[test]
fn a_partial_tile_may_be_replaced_by_the_full_one() {
    let log = log_of(600);
    // A mirror that keeps an old checkpoint and new tiles (c2sp.org/tlog-tiles, "Partial Tiles").
    let mut files = files(&log, 600);
    files.insert("checkpoint".into(), log.checkpoint(300).into_bytes());
    files.insert("tile/1/000.p/1".into(), files["tile/1/000.p/2"][..32].to_vec());
    let mut memory = Memory::of(files);
    assert_eq!(check_files(&memory).map(|a| a.checkpoint.size).unwrap(), 300);
    // Its beginning is what counts, and it must be whole.
    for path in ["tile/entries/001", "tile/0/001"] {
        assert!(finds(&mut memory, path, 40, 1), "{path}");
        let whole = memory.files[path].clone();
        memory.files.insert(path.to_owned(), whole[..whole.len() - 32].to_vec());
        disagreement(check_files(&memory));
        memory.files.insert(path.to_owned(), whole);
    }
}

/// Fails or interrupts at chosen reads.
struct Troubled<'a> {
    memory: &'a Memory,
    reads: AtomicUsize,
    /// These reads fail.
    fails: std::ops::Range<usize>,
    interrupts_at: usize,
    interrupted: &'a AtomicBool,
}

impl Objects for Troubled<'_> {
    fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        if read == self.interrupts_at {
            self.interrupted.store(true, Ordering::Relaxed);
        }
        if self.fails.contains(&read) {
            anyhow::bail!("{path}: the network is down");
        }
        self.memory.get(path)
    }

    fn readers(&self) -> usize {
        self.memory.readers
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("chancery-logcheck-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("checked")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn resumed(objects: &dyn Objects, file: &Path) -> Result<Agreement, CheckError> {
    let begin = Begin { resume: Some(Resume::File(file.to_owned())), ..Begin::default() };
    walk(objects, begin, &AtomicBool::new(false))
}

#[test]
fn a_failing_network_is_tried_again_and_is_not_the_logs_fault() {
    let memory = Memory::of(files(&log_of(600), 600));
    let quiet = AtomicBool::new(false);
    let troubled = |fails| Troubled {
        memory: &memory,
        reads: AtomicUsize::new(0),
        fails,
        interrupts_at: usize::MAX,
        interrupted: &quiet,
    };
    check_files(&troubled(3..6)).map(|_| ()).unwrap();
    let why = unknown(check_files(&troubled(3..usize::MAX)));
    assert!(why.contains("network is down"), "{why}");
    let why = unknown(check_files(&troubled(0..1)));
    assert!(why.contains("network is down"), "whoever mistyped an address need not wait: {why}");
}

#[test]
fn an_interrupted_or_failed_check_goes_on_where_it_was() {
    let log = log_of(66_000);
    let folder = Folder::new("goes-on");
    for size in [600, 1_000, 66_000] {
        let memory = Memory::of(files(&log, size));
        for at in [2, 3, 5, 6, 7, 300, 516] {
            for fails in [false, true] {
                let _ = std::fs::remove_file(folder.file());
                let interrupted = AtomicBool::new(false);
                let troubled = Troubled {
                    memory: &memory,
                    reads: AtomicUsize::new(0),
                    fails: if fails { at..usize::MAX } else { 0..0 },
                    interrupts_at: if fails { usize::MAX } else { at },
                    interrupted: &interrupted,
                };
                let file = Some(Resume::File(folder.file()));
                let begin = Begin { resume: file, ..Begin::default() };
                let before = match walk(&troubled, begin, &interrupted) {
                    Err(CheckError::Interrupted { at, of }) => (!fails).then_some((at, of)),
                    Err(CheckError::Unknown(_)) => None,
                    // It was told to end when nothing was left to do.
                    Ok(_) => continue,
                    Err(e) => panic!("{e}"),
                };
                memory.reads.lock().unwrap().clear();
                let found = resumed(&memory, &folder.file()).unwrap();
                assert_eq!(found.checkpoint.root, log.root(size));
                assert_eq!(found.story, check_files(&memory).unwrap().story);
                if let Some((at, of)) = before {
                    assert_eq!((found.before, size as u64), (at, of));
                }
            }
        }
    }
}

#[test]
fn a_finished_check_goes_on_when_the_log_has_grown_and_reads_what_is_new_once() {
    let log = log_of(1_100);
    let folder = Folder::new("grown");
    let mut before = 0;
    for size in [0, 3, 255, 256, 300, 600, 768, 1_100, 1_100] {
        let memory = Memory::of(files(&log, size));
        let found = resumed(&memory, &folder.file()).unwrap_or_else(|e| panic!("{size}: {e}"));
        assert_eq!(found.before, before);
        assert_eq!(found.story, check_files(&Memory::of(files(&log, size))).unwrap().story);
        let reads = memory.reads.lock().unwrap();
        assert!(reads.values().all(|n| *n == 1), "{size}: {reads:?}");
        let skipped = (0..before / 256).map(|i| format!("tile/entries/{i:03}"));
        assert!(skipped.into_iter().all(|path| !reads.contains_key(&path)), "{size}: {reads:?}");
        before = size as u64 / 256 * 256;
    }
}

#[test]
fn a_resume_file_of_another_log_or_history_says_which() {
    let good = entries(700);
    let log = TestLog::of_entries(7, &good);
    let folder = Folder::new("others");
    let file = folder.file();
    resumed(&Memory::of(files(&log, 600)), &file).map(|_| ()).unwrap();
    let saved = std::fs::read(&file).unwrap();

    let other = TestLog::of_entries(8, &good);
    let why = unknown(resumed(&Memory::of(files(&other, 600)), &file));
    assert!(why.contains("it is about the log") && why.contains(other.vkey().name()), "{why}");
    for changed in [100, 599] {
        let mut bad = good.clone();
        let Entry::Token(token) = &good[10] else { panic!("{:?}", good[10]) };
        bad[changed] = Entry::Token(TokenEntry { digest: [9; 32], ..token.clone() });
        let fork = TestLog::of_entries(7, &bad);
        for size in [600, 601, 700] {
            let why = disagreement(resumed(&Memory::of(files(&fork, size)), &file));
            assert!(why.contains("is not a prefix of"), "{why}");
        }
    }
    for size in [0, 500, 513, 599] {
        let why = disagreement(resumed(&Memory::of(files(&log, size)), &file));
        assert!(why.contains("is not a prefix") && why.contains(&format!("only {size}")), "{why}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), saved, "a refused file stays as it is");
    assert_eq!(resumed(&Memory::of(files(&log, 700)), &file).unwrap().before, 512);
}

#[test]
fn a_damaged_resume_file_is_refused_and_not_overwritten() {
    let log = log_of(600);
    let memory = Memory::of(files(&log, 600));
    let folder = Folder::new("damaged");
    let file = folder.file();
    resumed(&memory, &file).map(|_| ()).unwrap();
    let saved = std::fs::read(&file).unwrap();
    for at in (0..saved.len()).step_by(11) {
        let mut bytes = saved.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let why = unknown(resumed(&memory, &file));
        assert!(why.contains("resume file `"), "{why}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
    for bytes in [&b""[..], b"anything", &saved[..saved.len() - 1]] {
        std::fs::write(&file, bytes).unwrap();
        unknown(resumed(&memory, &file));
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
    let why = unknown(resumed(&memory, &folder.0.join("none/checked")));
    assert!(why.contains("none/checked"), "{why}");
}

#[test]
fn a_disagreement_is_not_saved_as_checked() {
    let log = log_of(1_100);
    let folder = Folder::new("disagrees");
    let mut memory = Memory::of(files(&log, 1_100));
    memory.files.get_mut("tile/entries/002").unwrap()[50] ^= 1;
    for _ in 0..2 {
        disagreement(resumed(&memory, &folder.file()));
    }
    memory.files.get_mut("tile/entries/002").unwrap()[50] ^= 1;
    let found = resumed(&memory, &folder.file()).unwrap();
    assert_eq!(found.checkpoint.size, 1_100);
}
