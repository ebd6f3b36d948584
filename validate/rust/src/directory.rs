//! The directory log, as everyone reads it: which signers' logs there are, how far each got, and how
//! it ended. The service checks by the same code what it is about to write.
//!
//! [`Directory`] takes the directory's entries one after the other and refuses what may not follow:
//!
//! - A log enters once, under keys whose id it has and whose name ends in that id.
//! - Its checkpoints are signed by its own key, and each is larger than the one before. That each
//!   extends the one before is for whoever can read the log to check ([`Named::latest_note`]).
//! - A closing restates the last checkpoint, and nothing of that log follows.
//! - No two logs continue the same one, and a closing names the log that continues it.
//!
//! What is read here must have been found under a checkpoint that the directory's key signed;
//! [`Directory::read`] counts entries, and whoever calls it compares the root.

use std::collections::BTreeMap;

use chancery_entry::directory::{DirectoryEntry, LogCheckpoint, LogClosing, LogGenesis};
use chancery_tlog::note::{KeyType, Note, Signature, VerifierKey};
use chancery_tlog::{Checkpoint, Hash, LogId};

/// The directory up to some entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    size: u64,
    logs: BTreeMap<LogId, Named>,
    /// Which log continues which; the continued one need not be in the directory.
    successors: BTreeMap<LogId, LogId>,
}

/// One log, as the directory names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    key: VerifierKey,
    cosigning_keys: Vec<VerifierKey>,
    named_at: u64,
    genesis: LogGenesis,
    checkpoint: Option<(u64, LogCheckpoint)>,
    closing: Option<(u64, LogClosing)>,
}

/// An entry that may not stand where it stands. Under a checkpoint that the directory's key signed,
/// this and the checkpoint are the proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of the directory: {wrong}")]
pub struct Violation {
    /// Its index.
    pub index: u64,
    /// What is wrong.
    pub wrong: Wrong,
}

/// What is wrong with an entry of the directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is no entry of a directory.
    #[error("it is not understood: {0}")]
    Entry(#[from] chancery_entry::Error),
    /// Entries are told by their index, in order.
    #[error("it comes after entry {0}")]
    Order(u64),
    /// The keys are not those of a log with this id.
    #[error("log `{log}` cannot have these keys: {why}")]
    Keys {
        /// The log.
        log: LogId,
        /// What is wrong with them.
        why: String,
    },
    /// A second genesis of one log.
    #[error("log `{0}` was named before")]
    NamedTwice(LogId),
    /// An entry about a log that has no genesis here.
    #[error("log `{0}` was not named before")]
    NotNamed(LogId),
    /// A log has one successor.
    #[error("log `{log}` continues log `{predecessor}`, which log `{other}` continues already")]
    SecondSuccessor {
        /// The log that enters.
        log: LogId,
        /// The log that both name as their predecessor.
        predecessor: LogId,
        /// The log that entered before.
        other: LogId,
    },
    /// A checkpoint that is not larger than the one before.
    #[error("log `{log}` has a checkpoint of size {size} after one of size {before}")]
    NotGrown {
        /// The log.
        log: LogId,
        /// The checkpoint's size.
        size: u64,
        /// The size before.
        before: u64,
    },
    /// A checkpoint that the log's key did not sign.
    #[error("log `{0}` did not sign that checkpoint")]
    Unsigned(LogId),
    /// An entry about a log that was closed.
    #[error("log `{0}` was closed before")]
    Closed(LogId),
    /// A closing that is not about the log's last checkpoint.
    #[error("log `{0}` is closed at another size or root than its last checkpoint states")]
    OtherEnd(LogId),
    /// A closing that names another successor than the logs themselves do.
    #[error("log `{log}` is closed with another successor than the log that continues it")]
    OtherSuccessor {
        /// The log.
        log: LogId,
    },
}

impl Directory {
    /// The directory without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A log, if the directory names it.
    #[must_use]
    pub fn log(&self, log: LogId) -> Option<&Named> {
        self.logs.get(&log)
    }

    /// All logs that the directory names.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, &Named)> {
        self.logs.iter().map(|(id, named)| (*id, named))
    }

    /// The log that continues a log, if one does.
    #[must_use]
    pub fn successor(&self, log: LogId) -> Option<LogId> {
        self.successors.get(&log).copied()
    }

    /// Takes the next entry, as it stands in a bundle; what is refused changes nothing.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn read(&mut self, entry: &[u8]) -> Result<(), Violation> {
        let index = self.size;
        match DirectoryEntry::decode(entry) {
            Ok(entry) => self.apply(index, entry),
            Err(error) => Err(Violation { index, wrong: error.into() }),
        }
    }

    /// Takes the entry at `index`, which is the next one, or a later one if all in between are known
    /// to change nothing ([`Directory::parts`]); what is refused changes nothing.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn apply(&mut self, index: u64, entry: DirectoryEntry) -> Result<(), Violation> {
        let violation = |wrong| Violation { index, wrong };
        if index < self.size {
            return Err(violation(Wrong::Order(self.size.saturating_sub(1))));
        }
        match entry {
            DirectoryEntry::Genesis(genesis) => self.name(index, genesis),
            DirectoryEntry::Checkpoint(checkpoint) => self.grow(index, checkpoint),
            DirectoryEntry::Closing(closing) => self.close(index, closing),
        }
        .map_err(violation)?;
        self.size = index.saturating_add(1);
        Ok(())
    }

    /// The entries that still say something, with their places, in order: what it takes to come here
    /// again with [`Directory::apply`], beside [`Directory::size`].
    #[must_use]
    pub fn parts(&self) -> Vec<(u64, DirectoryEntry)> {
        let mut parts = Vec::new();
        for named in self.logs.values() {
            parts.push((named.named_at, DirectoryEntry::Genesis(named.genesis.clone())));
            let checkpoint = named.checkpoint.clone();
            parts.extend(checkpoint.map(|(at, entry)| (at, DirectoryEntry::Checkpoint(entry))));
            let closing = named.closing.clone();
            parts.extend(closing.map(|(at, entry)| (at, DirectoryEntry::Closing(entry))));
        }
        parts.sort_by_key(|(at, _)| *at);
        parts
    }

    /// The directory of `size` entries of which these still say something.
    ///
    /// # Errors
    /// [`Violation`]; [`Wrong::Order`] also when one of them lies beyond `size`.
    pub fn from_parts(
        size: u64,
        parts: impl IntoIterator<Item = (u64, DirectoryEntry)>,
    ) -> Result<Self, Violation> {
        let mut directory = Self::new();
        for (index, entry) in parts {
            directory.apply(index, entry)?;
        }
        if size < directory.size {
            let last = directory.size.saturating_sub(1);
            return Err(Violation { index: size, wrong: Wrong::Order(last) });
        }
        directory.size = size;
        Ok(directory)
    }

    fn name(&mut self, at: u64, genesis: LogGenesis) -> Result<(), Wrong> {
        let log = LogId::from_bytes(genesis.log);
        if self.logs.contains_key(&log) {
            return Err(Wrong::NamedTwice(log));
        }
        let (key, cosigning_keys) = keys_of(&genesis)?;
        if let Some(predecessor) = genesis.predecessor.map(LogId::from_bytes) {
            if let Some(other) = self.successor(predecessor) {
                return Err(Wrong::SecondSuccessor { log, predecessor, other });
            }
            // A closing is final: it said which log continues it, or that none does.
            if self.logs.get(&predecessor).is_some_and(|p| p.closing.is_some()) {
                return Err(Wrong::Closed(predecessor));
            }
            self.successors.insert(predecessor, log);
        }
        let named =
            Named { key, cosigning_keys, named_at: at, genesis, checkpoint: None, closing: None };
        self.logs.insert(log, named);
        Ok(())
    }

    fn grow(&mut self, at: u64, checkpoint: LogCheckpoint) -> Result<(), Wrong> {
        let (log, named) = self.open_log(checkpoint.log)?;
        let before = named.latest().map_or(0, |(_, latest)| latest.size);
        if checkpoint.size <= before {
            return Err(Wrong::NotGrown { log, size: checkpoint.size, before });
        }
        let body = named.body(&checkpoint).ok_or(Wrong::Unsigned(log))?;
        if !named.key.verify(body.as_bytes(), &checkpoint.signature) {
            return Err(Wrong::Unsigned(log));
        }
        named.checkpoint = Some((at, checkpoint));
        Ok(())
    }

    fn close(&mut self, at: u64, closing: LogClosing) -> Result<(), Wrong> {
        let successor = self.successor(LogId::from_bytes(closing.log));
        let (log, named) = self.open_log(closing.log)?;
        let last = named.latest().map(|(_, latest)| (latest.size, latest.root));
        if last != Some((closing.size, closing.root)) {
            return Err(Wrong::OtherEnd(log));
        }
        if closing.successor.map(LogId::from_bytes) != successor {
            return Err(Wrong::OtherSuccessor { log });
        }
        named.closing = Some((at, closing));
        Ok(())
    }

    fn open_log(&mut self, log: [u8; 16]) -> Result<(LogId, &mut Named), Wrong> {
        let log = LogId::from_bytes(log);
        let named = self.logs.get_mut(&log).ok_or(Wrong::NotNamed(log))?;
        if named.closing.is_some() {
            return Err(Wrong::Closed(log));
        }
        Ok((log, named))
    }
}

impl Named {
    /// The key that signs the log's checkpoints and key sets; its name is the log's origin.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Further keys of the log, which cosign its checkpoints under the same name.
    #[must_use]
    pub fn cosigning_keys(&self) -> &[VerifierKey] {
        &self.cosigning_keys
    }

    /// Index of the entry that names it.
    #[must_use]
    pub fn named_at(&self) -> u64 {
        self.named_at
    }

    /// What names it.
    #[must_use]
    pub fn genesis(&self) -> &LogGenesis {
        &self.genesis
    }

    /// Its latest checkpoint, and the index of that entry.
    #[must_use]
    pub fn latest(&self) -> Option<(u64, &LogCheckpoint)> {
        self.checkpoint.as_ref().map(|(at, checkpoint)| (*at, checkpoint))
    }

    /// Its latest checkpoint as the log's signed note.
    #[must_use]
    pub fn latest_note(&self) -> Option<String> {
        self.latest().and_then(|(_, checkpoint)| self.note(checkpoint))
    }

    /// A checkpoint of this log as the signed note that it was taken from.
    #[must_use]
    pub fn note(&self, checkpoint: &LogCheckpoint) -> Option<String> {
        let signature = Signature {
            name: self.key.name().to_owned(),
            key_id: self.key.key_id(),
            bytes: checkpoint.signature.to_vec(),
        };
        Some(Note { text: self.body(checkpoint)?, signatures: vec![signature] }.encode())
    }

    /// How it ended, and the index of that entry.
    #[must_use]
    pub fn closing(&self) -> Option<(u64, &LogClosing)> {
        self.closing.as_ref().map(|(at, closing)| (*at, closing))
    }

    fn body(&self, checkpoint: &LogCheckpoint) -> Option<String> {
        let root = Hash(checkpoint.root);
        Checkpoint::new(self.key.name(), checkpoint.size, root).ok().map(|c| c.body())
    }
}

/// The keys of a log that enters: the first is an Ed25519 key that the log's id and the end of its
/// name are made of, all have that name and their one spelling.
///
/// # Errors
/// [`Wrong::Keys`].
pub fn keys_of(genesis: &LogGenesis) -> Result<(VerifierKey, Vec<VerifierKey>), Wrong> {
    let log = LogId::from_bytes(genesis.log);
    let wrong = |why: String| Wrong::Keys { log, why };
    let mut keys = Vec::with_capacity(genesis.vkeys.len());
    for text in &genesis.vkeys {
        let key = VerifierKey::parse(text).map_err(|error| wrong(error.to_string()))?;
        if key.to_string() != *text {
            return Err(wrong("one is not spelt as it should be".to_owned()));
        }
        keys.push(key);
    }
    let mut rest = keys.into_iter();
    let first = rest.next().ok_or_else(|| wrong("there are none".to_owned()))?;
    let others: Vec<VerifierKey> = rest.collect();
    let public = <&[u8; 32]>::try_from(first.public_key()).ok();
    let public = public.filter(|_| first.key_type() == KeyType::Ed25519);
    if public.map(LogId::of) != Some(log) {
        return Err(wrong("the first is not the Ed25519 key that the id is made of".to_owned()));
    }
    if first.name().rsplit('/').next() != Some(log.to_string().as_str()) {
        return Err(wrong(format!("origin `{}` does not end in the log's id", first.name())));
    }
    let fits = |key: &VerifierKey| key.name() == first.name() && key.key_type().is_cosignature();
    if !others.iter().all(fits) {
        return Err(wrong("a further one is not a cosigning key of the same name".to_owned()));
    }
    Ok((first, others))
}

/// The entry for a log's signed checkpoint: `note` as the log publishes it, verified by `key`, the
/// log's.
///
/// # Errors
/// As [`Checkpoint::open`]; cosignatures by other keys are left out.
pub fn checkpoint_entry(
    note: &str,
    key: &VerifierKey,
) -> Result<LogCheckpoint, chancery_tlog::Error> {
    let (checkpoint, note) = Checkpoint::open(note.as_bytes(), std::slice::from_ref(key))?;
    let made = |s: &&Signature| s.key_id == key.key_id() && s.name == key.name();
    let signature = note.signatures.iter().find(made);
    let (Some(signature), Ok(public)) = (signature, <&[u8; 32]>::try_from(key.public_key())) else {
        return Err(chancery_tlog::Error::NoKnownSignature);
    };
    let bytes = <[u8; 64]>::try_from(signature.bytes.as_slice());
    Ok(LogCheckpoint {
        log: *LogId::of(public).as_bytes(),
        size: checkpoint.size,
        root: checkpoint.root.0,
        signature: bytes.map_err(|_| chancery_tlog::Error::NoKnownSignature)?,
    })
}
