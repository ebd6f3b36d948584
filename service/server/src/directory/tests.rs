//! The directory: what it says of logs that come, grow and end, under every fault of its store, and
//! against stores, keys and memories that do not belong together.

mod faults;
mod foreign;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use chancery_entry::{Genesis as LogGenesis, Predecessor};
use chancery_tlog::note::KeyType;
use chancery_tlog::verify_consistency;

use super::*;
use crate::logs::tests::support::TestLog;
use crate::store::faulty::{FaultyStore, Objects};

pub const ORIGIN: &str = "test.example/directory";

/// A data folder.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("chancery-directory-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// One that has this one's key and remembers nothing.
    pub fn with_key_of(other: &Folder) -> Self {
        let new = Self::new();
        std::fs::copy(&other.files().key, &new.files().key).unwrap();
        new
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub fn files(&self) -> Files {
        crate::folder::Paths::new(&self.0).directory()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub async fn open(store: Store, folder: &Folder) -> Result<Directory, DirectoryError> {
    Directory::open(store, folder.files(), None, ORIGIN).await
}

/// The heads of these logs at these sizes.
pub fn heads(logs: &[(&TestLog, usize)], living: Option<&TestLog>) -> Heads {
    let memory = || Store::new(Arc::new(object_store::memory::InMemory::new()));
    let head = |(test, size): &(&TestLog, usize)| {
        let log = test.empty(memory());
        log.apply(&test.batch(0, *size)).unwrap();
        (test.id(), (Arc::new(log), Arc::from(test.checkpoint(*size))))
    };
    Heads { living: living.map(TestLog::id), logs: logs.iter().map(head).collect() }
}

/// A log whose signer continued another one's.
pub fn successor(seed: u8, of: &TestLog, at: usize) -> TestLog {
    let predecessor = Predecessor { vkey: of.vkey().to_string(), checkpoint: of.checkpoint(at) };
    let genesis = Entry::Genesis(LogGenesis {
        software: "test".into(),
        started_at: 2_000,
        policy_digest: [1; 32],
        evidence_digest: None,
        predecessor: Some(predecessor),
        cosigning_key: None,
    });
    let fall = |i: u64| {
        let reason = "a test".to_owned();
        Entry::Compromise(chancery_entry::Compromise { kid: [3; 32], at: i, reason })
    };
    let entries: Vec<Entry> = std::iter::once(genesis).chain((0..20).map(fall)).collect();
    TestLog::of_entries(seed, &entries)
}

pub async fn empty_store() -> FaultyStore {
    FaultyStore::with(&Objects::new()).await
}

/// Reads the store's directory as a stranger does: every entry, under the signed checkpoint.
pub async fn as_a_stranger(store: Store) -> Reading {
    let vkey = store.get("directory/vkey").await.unwrap();
    let vkey = VerifierKey::parse(String::from_utf8_lossy(&vkey).trim_end()).unwrap();
    let log = Log::open_directory(store, vkey).await.unwrap();
    let (size, root) = log.size_and_root();
    let (mut reading, mut frontier) = (Reading::new(), Frontier::new());
    for index in 0..size.div_ceil(256) {
        let id = EntriesTileId::at(index, size).unwrap();
        let bundle = log.entries(id).await.unwrap();
        for entry in decode_entries(&bundle, usize::from(id.width)).unwrap() {
            reading.read(&entry).unwrap();
            frontier.append(leaf_hash(&entry));
        }
    }
    assert_eq!(frontier.root(), root);
    reading
}

#[tokio::test]
async fn logs_are_named_followed_and_closed() {
    let (folder, faulty) = (Folder::new(), empty_store().await);
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    assert_eq!(&*directory.checkpoint(), "");
    assert_eq!(directory.vkey().name(), ORIGIN);
    let first = TestLog::with_seed(1, 40);
    let second = successor(2, &first, 30);
    directory.follow(&heads(&[], None)).await.unwrap();
    assert_eq!(faulty.calls(), 0, "nothing to say, nothing is written");

    directory.follow(&heads(&[(&first, 3)], Some(&first))).await.unwrap();
    directory.follow(&heads(&[(&first, 3)], Some(&first))).await.unwrap();
    assert_eq!(directory.reading().size(), 2, "a log that did not grow is not told again");
    directory.follow(&heads(&[(&first, 30)], Some(&first))).await.unwrap();
    // The successor is known and its signer not attached yet: nothing is closed.
    directory.follow(&heads(&[(&first, 30), (&second, 2)], None)).await.unwrap();
    assert!(directory.reading().log(first.id()).unwrap().closing().is_none());
    assert!(directory.has_ended(first.id()) && !directory.has_ended(second.id()));
    directory.follow(&heads(&[(&first, 30), (&second, 9)], Some(&second))).await.unwrap();

    let reading = as_a_stranger(faulty.bucket()).await;
    assert_eq!(reading, *directory.reading());
    let ended = reading.log(first.id()).unwrap();
    assert_eq!(ended.genesis().genesis_leaf, leaf_hash(&first.entry(0)).0);
    assert_eq!(ended.latest_note().unwrap(), first.checkpoint(30));
    let (_, closing) = ended.closing().unwrap();
    assert_eq!((closing.size, closing.root), (30, first.root(30).0));
    assert_eq!(closing.successor, Some(*second.id().as_bytes()));
    let alive = reading.log(second.id()).unwrap();
    assert_eq!(alive.latest_note().unwrap(), second.checkpoint(9));
    assert!(alive.closing().is_none());
    let index: serde_json::Value = serde_json::from_str(&directory.index()).unwrap();
    assert_eq!(index["logs"][0]["closed_at"], 6);
    assert_eq!(index["logs"][1]["log"], second.id().to_string());
    let stored = faulty.bucket().get(INDEX).await.unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["logs"][0]["successor"], second.id().to_string());
}

#[tokio::test]
async fn a_directory_that_begins_late_catches_up() {
    let (folder, faulty) = (Folder::new(), empty_store().await);
    let first = TestLog::with_seed(1, 40);
    let second = successor(2, &first, 30);
    let third = successor(3, &second, 5);
    for (log, size) in [(&first, 30), (&second, 5), (&third, 2)] {
        let stored = log.empty(faulty.bucket());
        stored.apply(&log.batch(0, size)).unwrap();
        stored.publish().await.unwrap();
    }
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    let logs = Logs::new(faulty.bucket());
    directory.catch_up(&logs).await.unwrap();
    directory.set_living(third.id());
    directory.follow(&directory.heads(&logs)).await.unwrap();
    let reading = as_a_stranger(faulty.bucket()).await;
    assert_eq!(reading.size(), 8, "three names, three checkpoints, two ends");
    assert_eq!(reading.successor(first.id()), Some(second.id()));
    assert_eq!(reading.successor(second.id()), Some(third.id()));
    assert!(reading.log(second.id()).unwrap().closing().is_some());
    assert!(directory.behind.lock().unwrap().iter().all(|log| log.id() == third.id()));
    // Closed logs are not opened again.
    directory.catch_up(&Logs::new(faulty.bucket())).await.unwrap();
    assert_eq!(directory.behind.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_may_not_be_written_is_not_and_the_rest_goes_on() {
    let (folder, faulty) = (Folder::new(), empty_store().await);
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    let first = TestLog::with_seed(1, 40);
    let (second, rival) = (successor(2, &first, 5), successor(3, &first, 5));
    let all = [(&first, 5), (&second, 1)];
    directory.follow(&heads(&all, Some(&second))).await.unwrap();
    let all = [(&first, 5), (&second, 4), (&rival, 4)];
    directory.follow(&heads(&all, Some(&second))).await.unwrap();
    let reading = as_a_stranger(faulty.bucket()).await;
    assert!(reading.log(rival.id()).is_none(), "a log has one successor");
    assert_eq!(reading.log(second.id()).unwrap().latest().unwrap().1.size, 4);
    // A closed log does not grow, and one whose checkpoint is another's is not followed.
    let all = [(&first, 9), (&second, 4)];
    let mut forged = heads(&all, Some(&second));
    forged.logs.get_mut(&second.id()).unwrap().1 = Arc::from(first.checkpoint(9));
    directory.follow(&forged).await.unwrap();
    assert_eq!(as_a_stranger(faulty.bucket()).await, reading);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_keeps_out_no_other() {
    let (folder, faulty) = (Folder::new(), empty_store().await);
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    let (first, pruned) = (TestLog::with_seed(1, 40), TestLog::with_seed(2, 600));
    let mut heads = heads(&[(&first, 5)], Some(&first));
    // Its first bundle is gone.
    let mut objects = pruned.objects(600);
    objects.remove(&pruned.path("tile/entries/000"));
    let rest = FaultyStore::with(&objects).await;
    let log = Logs::new(rest.bucket()).open(pruned.id()).await.unwrap();
    heads.logs.insert(pruned.id(), (log, Arc::from(pruned.checkpoint(600))));
    directory.follow(&heads).await.unwrap();
    let reading = as_a_stranger(faulty.bucket()).await;
    assert!(reading.log(first.id()).is_some());
    assert!(reading.log(pruned.id()).is_none());
}

#[tokio::test]
async fn what_a_witness_needs_is_there() {
    let (folder, faulty) = (Folder::new(), empty_store().await);
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    let log = TestLog::with_seed(1, 400);
    let mut roots = vec![(0, chancery_tlog::empty_root())];
    for size in 1..300 {
        directory.follow(&heads(&[(&log, size)], Some(&log))).await.unwrap();
        roots.push(directory.log().size_and_root());
    }
    let (size, root) = directory.log().size_and_root();
    assert_eq!(size, 300);
    for (old, old_root) in roots.iter().step_by(17) {
        let proof = directory.log().consistency(*old, size).await.unwrap();
        verify_consistency(*old, old_root, size, &root, &proof).unwrap();
    }
    let held = directory.held(log.id()).unwrap();
    assert_eq!((held.size, held.root), (299, log.root(299)));
    let proof = directory.log().inclusion(held.index, size).await.unwrap();
    verify_inclusion(&leaf_hash(&held.entry), held.index, size, &proof, &root).unwrap();
    assert!(directory.held(TestLog::with_seed(9, 2).id()).is_none());
    for (old, new) in [(3, 301), (9, 3)] {
        let beyond = directory.log().consistency(old, new).await.unwrap_err();
        assert!(matches!(beyond, LogError::NotThere(_)), "{beyond}");
    }
    let beyond = directory.log().inclusion(5, 5).await.unwrap_err();
    assert!(matches!(beyond, LogError::NotThere(_)), "{beyond}");
}

/// A witness that cosigns everything, at a time.
#[derive(Debug)]
struct Witness {
    key: VerifierKey,
    pair: aws_lc_rs::signature::Ed25519KeyPair,
}

impl Witness {
    fn new() -> Self {
        use aws_lc_rs::signature::KeyPair as _;
        let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        Self { key: VerifierKey::new_ed25519_cosigner("witness.example", &public).unwrap(), pair }
    }

    fn sign(&self, note: &str, time: u64) -> Signature {
        let text = Note::parse(note.as_bytes()).unwrap().text;
        let sign = |message: &[u8]| self.pair.sign(message).as_ref().to_vec();
        chancery_tlog::cosignature::sign(&self.key, time, &text, sign).unwrap()
    }
}

impl Cosigner for Witness {
    fn cosign<'a>(
        &'a self,
        log: &'a Log,
        note: &'a str,
    ) -> Pin<Box<dyn Future<Output = Vec<Signature>> + Send + 'a>> {
        Box::pin(async move {
            // Everything up to the new size can be proven already.
            let (checkpoint, _) =
                Checkpoint::open(note.as_bytes(), std::slice::from_ref(log.vkey())).unwrap();
            let proof = log.consistency(1, checkpoint.size).await.unwrap();
            assert_eq!(proof.is_empty(), checkpoint.size == 1);
            vec![self.sign(note, 7)]
        })
    }
}

#[tokio::test]
async fn cosignatures_are_published_with_the_checkpoint_and_kept() {
    let (folder, faulty) = (Folder::new(), empty_store().await);
    let directory = open(faulty.bucket(), &folder).await.unwrap();
    let witness = Arc::new(Witness::new());
    directory.set_cosigner(witness.clone());
    let log = TestLog::with_seed(1, 40);
    directory.follow(&heads(&[(&log, 3)], Some(&log))).await.unwrap();
    let keys = [directory.vkey().clone(), witness.key.clone()];
    let signers = |note: &str| {
        let note = Note::parse(note.as_bytes()).unwrap();
        note::signers(&note, &keys).unwrap()
    };
    let served = directory.checkpoint();
    let signed = signers(&served);
    assert_eq!(signed.len(), 2);
    assert_eq!(signed[1].timestamp, Some(7));
    assert_eq!(keys[1].key_type(), KeyType::Ed25519Cosignature);
    for moment in faulty.moments() {
        if let Some(note) = moment.visible.get("directory/checkpoint") {
            assert_eq!(note, served.as_bytes(), "it was never published without");
        }
    }
    // A later one takes its place; one for an older checkpoint is too late.
    let later = witness.sign(&served, 9);
    assert!(directory.add_cosignatures(2, std::slice::from_ref(&later)).await.unwrap());
    assert!(!directory.add_cosignatures(1, std::slice::from_ref(&later)).await.unwrap());
    assert_eq!(signers(&directory.checkpoint())[1].timestamp, Some(9));
    let stored = faulty.bucket().get("directory/checkpoint").await.unwrap();
    assert_eq!(stored, directory.checkpoint().as_bytes());
    // They are there after a start.
    drop(directory);
    let again = open(faulty.bucket(), &folder).await.unwrap();
    assert_eq!(again.checkpoint().as_bytes(), stored);
    again.follow(&heads(&[(&log, 4)], Some(&log))).await.unwrap();
    assert_eq!(signers(&again.checkpoint()).len(), 1, "without witnesses nobody cosigns");
}
