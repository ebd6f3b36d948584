//! The trust anchor by a directory: logs are learnt from its entries, and nothing counts that it does
//! not hold.

use std::collections::BTreeMap;

use chancery_entry::directory::{DirectoryEntry, LogClosing, LogGenesis};
use chancery_entry::{Compromise, Entry};
use chancery_tlog::note::{Note, VerifierKey};
use chancery_tlog::{
    Checkpoint, EntriesTileId, Hash, LogId, TileBuilder, TileId, cosignature, encode_entry,
    leaf_hash,
};
use chancery_token::jwks::KeySet;
use chancery_token::{Algorithm, RsaBits, SigningKey};
use chancery_validate::RejectionCode;
use chancery_validate::anchor::{Anchor, AnchorError, AnchorReader, DirectoryObject, Recollection};
use chancery_validate::directory::checkpoint_entry;
use serde_json::json;

use crate::anchor::{announced, verdict_of};
use crate::draft::{Draft, NOW, RANDOM, good};

/// A key that signs a log, and the log.
struct Tree {
    identity: SigningKey,
    key: VerifierKey,
    id: LogId,
    entries: Vec<Vec<u8>>,
}

impl Tree {
    fn new(name: impl FnOnce(LogId) -> String) -> Self {
        let identity = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        let public = <[u8; 32]>::try_from(identity.public().raw()).unwrap();
        let id = LogId::of(&public);
        let key = VerifierKey::new_ed25519(&name(id), &public).unwrap();
        Self { identity, key, id, entries: Vec::new() }
    }

    /// A signer's log of three entries; the announcement is the second.
    fn signer() -> Self {
        let mut tree = Self::new(|id| format!("test.example/log/{id}"));
        let filler =
            |at| Entry::Compromise(Compromise { kid: [9; 32], reason: "a test".to_owned(), at });
        for entry in [filler(1), Entry::Announcement(announced()), filler(2)] {
            tree.entries.push(entry.encode().unwrap());
        }
        tree
    }

    fn note_at(&self, size: usize) -> String {
        let root = self.root_at(size);
        let checkpoint = Checkpoint::new(self.key.name(), size as u64, root).unwrap();
        checkpoint.sign(&self.key, |body| self.identity.sign(body).unwrap()).unwrap()
    }

    fn root_at(&self, size: usize) -> Hash {
        let mut builder = TileBuilder::new();
        for entry in &self.entries[..size] {
            builder.append(leaf_hash(entry));
        }
        builder.root()
    }

    fn note(&self) -> String {
        self.note_at(self.entries.len())
    }

    /// All trees here fit one tile.
    fn tile(&self, id: TileId) -> Vec<u8> {
        let leaves = &self.entries[..usize::from(id.width)];
        leaves.iter().flat_map(|entry| leaf_hash(entry).0).collect()
    }

    fn bundle(&self, id: EntriesTileId) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in &self.entries[..usize::from(id.width)] {
            encode_entry(&mut bytes, entry).unwrap();
        }
        bytes
    }
}

/// A directory with one signer's log; fields are changed by tests that lie.
struct Deployment {
    directory: Tree,
    signer: Tree,
    index: String,
    checkpoint: Option<String>,
    withheld: Vec<&'static str>,
}

impl Deployment {
    /// Its directory holds the signer's log up to this size.
    fn up_to(size: usize) -> Self {
        let mut directory = Tree::new(|_| "test.example/directory".to_owned());
        let signer = Tree::signer();
        let genesis = DirectoryEntry::Genesis(LogGenesis {
            log: *signer.id.as_bytes(),
            vkeys: vec![signer.key.to_string()],
            genesis_leaf: leaf_hash(&signer.entries[0]).0,
            predecessor: None,
        });
        directory.entries.push(genesis.encode().unwrap());
        let mut new = Self {
            index: String::new(),
            directory,
            signer,
            checkpoint: None,
            withheld: Vec::new(),
        };
        new.hold(size);
        new
    }

    fn new() -> Self {
        Self::up_to(3)
    }

    /// The directory gets the signer's checkpoint of this size.
    fn hold(&mut self, size: usize) {
        let entry = checkpoint_entry(&self.signer.note_at(size), &self.signer.key).unwrap();
        self.directory.entries.push(DirectoryEntry::Checkpoint(entry).encode().unwrap());
        self.index_at(0, self.directory.entries.len() - 1);
    }

    fn index_at(&mut self, named_at: usize, checkpoint_at: usize) {
        self.index = json!({"size": 9, "logs": [{
            "log": self.signer.id.to_string(), "origin": "x",
            "named_at": named_at, "checkpoint_at": checkpoint_at, "closed_at": null,
        }]})
        .to_string();
    }

    fn anchor(&self) -> Anchor {
        Anchor::parse(&format!("directory {} # ours\n", self.directory.key)).unwrap()
    }

    fn draft(&self) -> Draft {
        let id = self.signer.id;
        good().claim("jti", format!("{id}.2.{RANDOM}")).member("log", format!("{id}.1"))
    }

    fn believes(
        &self,
        anchor: &Anchor,
        known: &mut Recollection,
    ) -> Result<(), (RejectionCode, String)> {
        let draft = self.draft();
        let set = KeySet::parse(draft.keys().as_bytes()).unwrap();
        verdict_of(&draft, anchor.announced(&set, NOW, self, known))
    }

    fn verdict(&self) -> Result<(), (RejectionCode, String)> {
        self.believes(&self.anchor(), &mut Recollection::default())
    }

    fn truth(&self, what: &'static str, bytes: impl Into<Vec<u8>>) -> Result<Vec<u8>, String> {
        if self.withheld.contains(&what) { Err("not found".to_owned()) } else { Ok(bytes.into()) }
    }
}

impl AnchorReader for Deployment {
    type Error = String;

    fn checkpoint(&self, _: LogId) -> Result<Vec<u8>, String> {
        panic!("what the directory does not hold of a log does not count")
    }

    fn tile(&self, log: LogId, id: TileId) -> Result<Vec<u8>, String> {
        assert_eq!(log, self.signer.id);
        self.truth("tile", self.signer.tile(id))
    }

    fn entries(&self, log: LogId, id: EntriesTileId) -> Result<Vec<u8>, String> {
        assert_eq!(log, self.signer.id);
        self.truth("entries", self.signer.bundle(id))
    }

    fn key_set(&self, _: LogId) -> Result<Vec<u8>, String> {
        Err("there is none".to_owned())
    }

    fn directory(&self, object: DirectoryObject) -> Result<Vec<u8>, String> {
        match object {
            DirectoryObject::Index => self.truth("index", self.index.clone()),
            DirectoryObject::Checkpoint => {
                let note = self.checkpoint.clone().unwrap_or_else(|| self.directory.note());
                self.truth("directory", note)
            }
            DirectoryObject::Tile(id) => self.truth("directory tile", self.directory.tile(id)),
            DirectoryObject::Entries(id) => {
                self.truth("directory entries", self.directory.bundle(id))
            }
        }
    }
}

#[track_caller]
fn rejected(outcome: Result<(), (RejectionCode, String)>, code: RejectionCode, why: &str) {
    let (found, detail) = outcome.unwrap_err();
    assert_eq!(found, code, "{detail}");
    assert!(detail.contains(why), "`{detail}` does not say `{why}`");
}

#[test]
fn a_log_that_the_directory_names_is_believed() {
    let deployment = Deployment::new();
    assert_eq!(deployment.verdict(), Ok(()));
    // Beside logs that are pinned, and directories of other deployments.
    let (other, pinned) = (Deployment::new(), Tree::signer());
    let text = format!(
        "{}\ndirectory {}\ndirectory   {}\n",
        pinned.key, other.directory.key, deployment.directory.key
    );
    let anchor = Anchor::parse(&text).unwrap();
    assert_eq!(anchor.directories().len(), 2);
    assert!(anchor.names(pinned.id) && !anchor.names(deployment.signer.id));
    assert_eq!(deployment.believes(&anchor, &mut Recollection::default()), Ok(()));
}

#[test]
fn a_restarted_signer_needs_no_other_anchor() {
    let mut deployment = Deployment::new();
    let (anchor, mut known) = (deployment.anchor(), Recollection::default());
    assert_eq!(deployment.believes(&anchor, &mut known), Ok(()));
    let first = std::mem::replace(&mut deployment.signer, Tree::signer());
    let entries = [
        DirectoryEntry::Genesis(LogGenesis {
            log: *deployment.signer.id.as_bytes(),
            vkeys: vec![deployment.signer.key.to_string()],
            genesis_leaf: [0; 32],
            predecessor: Some(*first.id.as_bytes()),
        }),
        DirectoryEntry::Closing(LogClosing {
            log: *first.id.as_bytes(),
            size: 3,
            root: first.root_at(3).0,
            successor: Some(*deployment.signer.id.as_bytes()),
        }),
    ];
    deployment.directory.entries.extend(entries.map(|entry| entry.encode().unwrap()));
    deployment.hold(3);
    deployment.index_at(2, 4);
    assert_eq!(deployment.believes(&anchor, &mut known), Ok(()));
}

#[test]
fn a_log_that_the_directory_does_not_name_is_refused() {
    let mut deployment = Deployment::new();
    let code = RejectionCode::KeyNotAnnounced;
    deployment.index = json!({"logs": []}).to_string();
    rejected(deployment.verdict(), code, "is not in the directory");
    // An index that points elsewhere makes up nothing.
    for (named_at, checkpoint_at) in [(1, 1), (0, 0)] {
        deployment.index_at(named_at, checkpoint_at);
        rejected(deployment.verdict(), code, "does not say of log");
    }
    let stranger = Deployment::new();
    deployment.signer = stranger.signer;
    deployment.index_at(0, 1);
    rejected(deployment.verdict(), code, "does not say of log");
}

#[test]
fn another_directory_is_refused() {
    let (deployment, other) = (Deployment::new(), Deployment::new());
    let outcome = deployment.believes(&other.anchor(), &mut Recollection::default());
    rejected(outcome, RejectionCode::KeyNotAnnounced, "the checkpoint of the directory");
}

#[test]
fn what_the_directory_does_not_hold_of_a_log_does_not_count() {
    let deployment = Deployment::up_to(1);
    rejected(deployment.verdict(), RejectionCode::KeysUnavailable, "ends before entry 1");
    // Nor a checkpoint that the log did not sign, which the directory's key cannot make good.
    let mut forged = Deployment::new();
    let mut entry = checkpoint_entry(&forged.signer.note(), &forged.signer.key).unwrap();
    forged.signer.entries[1] = forged.signer.entries[0].clone();
    entry.root = forged.signer.root_at(3).0;
    let at = forged.directory.entries.len();
    forged.directory.entries.push(DirectoryEntry::Checkpoint(entry).encode().unwrap());
    forged.index_at(0, at);
    rejected(forged.verdict(), RejectionCode::KeyNotAnnounced, "did not sign entry 2");
    // A place that the index leaves open may come.
    let mut none = Deployment::new();
    none.index = none.index.replace("\"checkpoint_at\":1", "\"checkpoint_at\":null");
    rejected(none.verdict(), RejectionCode::KeysUnavailable, "holds no checkpoint");
}

#[test]
fn a_directory_that_cannot_be_read_is_no_accusation() {
    for what in ["directory", "index", "directory tile", "directory entries", "tile", "entries"] {
        let mut deployment = Deployment::new();
        deployment.withheld.push(what);
        let (code, detail) = deployment.verdict().unwrap_err();
        assert_eq!(code, RejectionCode::KeysUnavailable, "{what}: {detail}");
    }
    for index in ["", "[]", "{}", r#"{"logs":[{}]}"#, r#"{"logs":[{"log":"x","named_at":0}]}"#] {
        let mut deployment = Deployment::new();
        deployment.index = index.to_owned();
        rejected(deployment.verdict(), RejectionCode::KeysUnavailable, "index");
    }
}

#[test]
fn changed_bytes_of_the_directory_are_refused() {
    let whole = Deployment::new();
    for entry in 0..whole.directory.entries.len() {
        for at in (0..whole.directory.entries[entry].len()).step_by(7) {
            let mut deployment = Deployment::new();
            deployment.checkpoint = Some(deployment.directory.note());
            assert_eq!(deployment.verdict(), Ok(()));
            deployment.directory.entries[entry][at] ^= 1;
            let why = "is not under the root of the directory";
            rejected(deployment.verdict(), RejectionCode::KeyNotAnnounced, why);
        }
    }
}

#[test]
fn a_directory_with_two_histories_is_refused() {
    let mut deployment = Deployment::up_to(2);
    let (anchor, mut known) = (deployment.anchor(), Recollection::default());
    assert_eq!(deployment.believes(&anchor, &mut known), Ok(()));
    deployment.hold(3);
    assert_eq!(deployment.believes(&anchor, &mut known), Ok(()));
    // An older copy may be a cache's; it says nothing.
    deployment.checkpoint = Some(deployment.directory.note_at(2));
    let outcome = deployment.believes(&anchor, &mut known);
    rejected(outcome, RejectionCode::KeysUnavailable, "older than one that was seen");
    deployment.checkpoint = None;
    // The same key signs another tree of the same size, and a longer one.
    let genesis = deployment.directory.entries[0].clone();
    deployment.directory.entries = vec![genesis];
    for size in [1, 3] {
        deployment.hold(size);
    }
    for _ in 0..2 {
        let outcome = deployment.believes(&anchor, &mut known);
        rejected(outcome, RejectionCode::KeyNotAnnounced, "does not extend the one of 3");
        let last = deployment.directory.entries.last().unwrap().clone();
        deployment.directory.entries.push(last);
    }
    // Whoever has seen nothing before cannot know; witnesses do.
    assert_eq!(deployment.believes(&anchor, &mut Recollection::default()), Ok(()));
}

#[test]
fn anchors_that_name_directories_are_read_strictly() {
    let deployment = Deployment::new();
    let line = format!("directory {}", deployment.directory.key);
    let twice = Anchor::parse(&format!("{line}\n{line}")).unwrap_err();
    assert_eq!(twice, AnchorError::Repeated { line: 2 });
    for bad in ["directory", "directory ", "directory x", "directories x"] {
        let error = Anchor::parse(bad).unwrap_err();
        assert!(matches!(error, AnchorError::Line { line: 1, .. }), "{bad}: {error}");
    }
    let many: BTreeMap<String, ()> =
        (0..65).map(|_| (format!("directory {}\n", Tree::signer().key), ())).collect();
    let many: String = many.into_keys().collect();
    assert_eq!(Anchor::parse(&many).unwrap_err(), AnchorError::TooMany);
    assert!(AnchorError::Empty.to_string().contains("/directory/vkey"));
}

/// A witness, and its cosignature on a note.
struct Cosigner(SigningKey, VerifierKey);

impl Cosigner {
    fn new(name: &str) -> Self {
        let identity = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        let public = <[u8; 32]>::try_from(identity.public().raw()).unwrap();
        let key = VerifierKey::new_ed25519_cosigner(name, &public).unwrap();
        Self(identity, key)
    }

    fn cosign(&self, note: &str) -> String {
        let mut note = Note::parse(note.as_bytes()).unwrap();
        let sign = |message: &[u8]| self.0.sign(message).unwrap();
        let line = cosignature::sign(&self.1, NOW, &note.text, sign).unwrap();
        note.insert(line).unwrap();
        note.encode()
    }
}

#[test]
fn a_directory_counts_as_far_as_its_witnesses_cosigned_it() {
    let mut deployment = Deployment::new();
    let [first, second] = ["w.example/1", "w.example/2"].map(Cosigner::new);
    let stranger = Cosigner::new("w.example/1");
    let anchor = |quorum: &str| {
        let text = format!(
            "log {} https://test.example/directory\nwitness a {}\nwitness b {}\ngroup both all a b\n\
             group one any both\nquorum {quorum}\n",
            deployment.directory.key, first.1, second.1
        );
        Anchor::parse(&text).unwrap()
    };
    let (both, none) = (anchor("both"), anchor("none"));
    let bare = deployment.directory.note();
    let known = &mut Recollection::default();

    for note in [bare.clone(), first.cosign(&bare), stranger.cosign(&second.cosign(&bare))] {
        deployment.checkpoint = Some(note);
        assert_eq!(deployment.believes(&none, &mut Recollection::default()), Ok(()));
        // Witnesses may be away: that accuses nobody, and nothing is remembered of it.
        let outcome = deployment.believes(&both, known);
        rejected(outcome, RejectionCode::KeysUnavailable, "do not meet the quorum `both`");
    }
    deployment.checkpoint = Some(second.cosign(&first.cosign(&bare)));
    assert_eq!(deployment.believes(&both, known), Ok(()));

    // A cosignature that does not verify is worse than none.
    let forged = first.cosign(&deployment.directory.note_at(1));
    let line = forged.lines().last().unwrap();
    deployment.checkpoint = Some(format!("{bare}{line}\n"));
    rejected(deployment.believes(&none, known), RejectionCode::KeyNotAnnounced, "not believed");
}

#[test]
fn witnesses_are_named_with_a_quorum_and_something_to_witness() {
    let deployment = Deployment::new();
    let witness = format!("witness a {}", Cosigner::new("w.example/1").1);
    let directory = format!("directory {}", deployment.directory.key);
    let fault = |text: &str| Anchor::parse(text).unwrap_err().to_string();
    assert!(fault(&format!("{directory}\n{witness}")).contains("quorum"));
    assert!(fault(&format!("{directory}\n\nquorum a\n{witness}")).contains("line 3"));
    assert_eq!(
        Anchor::parse(&format!("{}\n{witness}\nquorum a", deployment.signer.key)).unwrap_err(),
        AnchorError::NothingToWitness
    );
    assert_eq!(Anchor::parse(&format!("{witness}\nquorum a")).unwrap_err(), AnchorError::Empty);
    Anchor::parse(&format!("{witness}\nquorum a # who must sign\n{directory}")).unwrap();
}
