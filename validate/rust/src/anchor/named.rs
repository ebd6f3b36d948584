//! Logs by a directory: their keys and how far they got are learnt from its entries, each proven to be
//! under a checkpoint that the directory's key signed.
//!
//! Where the entries are is read from an index that nobody signs: it can hide a log, whose keys are then
//! not believed, and cannot make one up.

use std::collections::HashMap;

use chancery_entry::directory::DirectoryEntry;
use chancery_tlog::note::{Note, Signature, VerifierKey};
use chancery_tlog::{
    Checkpoint, EntriesTileId, Error, Hash, LogId, ProofError, TileId, TileSource,
    consistency_proof, verify_consistency,
};
use chancery_token::json;
use serde_json::Value;

use super::{Anchor, AnchorReader, Recollection, proven, refuted};
use crate::directory::keys_of;
use crate::explain::shown;
use crate::keys::Doubt;

/// One object of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectoryObject {
    /// `index.json`: where the entries of each log are.
    Index,
    /// The latest checkpoint.
    Checkpoint,
    /// A tile of hashes: the partial tile of that width, or the full tile at its place.
    Tile(TileId),
    /// A bundle of entries: of that width, or the full one at its place.
    Entries(EntriesTileId),
}

/// A log that the directory names: its key, and the latest checkpoint that the directory holds of it.
/// A later one is not believed before the directory holds it, and of a closed log there is none.
#[derive(Clone, Debug)]
pub(super) struct NamedLog {
    pub key: VerifierKey,
    pub checkpoint: Checkpoint,
    /// By the log's key.
    signature: Vec<u8>,
}

/// What is believed of a log that a directory names: nothing else of it counts, whoever signed it. Its
/// own key may have been stolen; whoever has it can sign any history, and cannot put it in the place of
/// the one that the directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLog {
    /// The log's verifier key.
    pub vkey: String,
    /// The latest checkpoint that the directory holds, as a note that the log's key signed.
    pub note: String,
}

/// Why nothing is known of a log from its directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// The index is of a later directory than the checkpoint at hand: read the checkpoint again.
    #[error("the directory's index is ahead of its checkpoint")]
    IndexAhead,
    /// It could not be read, or is not believed; the text is for a person.
    #[error("{0}")]
    Because(String),
}

impl Anchor {
    /// Whether what counts of this log is what a directory holds of it: the anchor names one, and not the
    /// log itself.
    #[must_use]
    pub fn asks_directory(&self, log: LogId) -> bool {
        !self.directories.is_empty() && !self.names(log)
    }

    /// What the directory at hand holds of a log. A directory that is older than one that was seen before
    /// is taken if that one extends it: lookups that run beside each other read one or the other.
    ///
    /// # Errors
    /// [`NotHeld`].
    pub fn held(
        &self,
        log: LogId,
        reader: &impl AnchorReader,
        recollection: &mut Recollection,
    ) -> Result<HeldLog, NotHeld> {
        let because = |doubt: Doubt| NotHeld::Because(doubt.into_text());
        let names = Names::open(self, Older::Taken, reader, recollection).map_err(because)?;
        if names.is_behind(log) {
            return Err(NotHeld::IndexAhead);
        }
        let named = names.log(log, reader, recollection).map_err(because)?;
        let (key, text) = (&named.key, named.checkpoint.body());
        let bytes = named.signature;
        let signatures =
            vec![Signature { name: key.name().to_owned(), key_id: key.key_id(), bytes }];
        Ok(HeldLog { vkey: key.to_string(), note: Note { text, signatures }.encode() })
    }
}

/// What to do about a directory that is older than one that was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Older {
    /// It tells nothing.
    Refused,
    /// It counts, if the later one extends it.
    Taken,
}

/// The directory at one look.
pub(super) struct Names {
    checkpoint: Checkpoint,
    places: HashMap<LogId, Places>,
}

/// Where the index says that a log's entries are.
struct Places {
    named_at: u64,
    checkpoint_at: Option<u64>,
}

impl Names {
    /// Reads the directory that an anchor names, and checks that enough witnesses cosigned it and that it
    /// extends what it was before.
    pub fn open(
        anchor: &Anchor,
        older: Older,
        reader: &impl AnchorReader,
        recollection: &mut Recollection,
    ) -> Result<Self, Doubt> {
        // Both are asked for at once.
        let note = reader.directory(DirectoryObject::Checkpoint);
        let index = reader.directory(DirectoryObject::Index);
        let note = note.map_err(|error| unread("checkpoint", &error))?;
        let index = index.map_err(|error| unread("index", &error))?;
        let checkpoint = believed(anchor, &note)?;
        let places = parse(&index).map_err(|why| Doubt::Unread(format!("the index: {why}")))?;
        recollection.follow(&checkpoint, older, reader)?;
        Ok(Self { checkpoint, places })
    }

    /// Whether the index says that a log's latest entry is beyond the checkpoint at hand.
    fn is_behind(&self, log: LogId) -> bool {
        let places = self.places.get(&log);
        places.and_then(|places| places.checkpoint_at).is_some_and(|at| at >= self.checkpoint.size)
    }

    /// A log, if the directory names it.
    pub fn log(
        &self,
        log: LogId,
        reader: &impl AnchorReader,
        recollection: &mut Recollection,
    ) -> Result<NamedLog, Doubt> {
        let unnamed = || refuted(format!("log `{log}` is not in the directory"));
        let places = self.places.get(&log).ok_or_else(unnamed)?;
        let other = |at: u64| {
            refuted(format!(
                "entry {at} of the directory does not say of log `{log}` what its index says"
            ))
        };
        let key = match recollection.named.get(&log) {
            Some(key) => key.clone(),
            None => {
                let at = places.named_at;
                let DirectoryEntry::Genesis(genesis) = self.entry(at, reader)? else {
                    return Err(other(at));
                };
                let (key, _) = keys_of(&genesis).map_err(|wrong| refuted(wrong.to_string()))?;
                if genesis.log != *log.as_bytes() {
                    return Err(other(at));
                }
                recollection.named.insert(log, key.clone());
                key
            }
        };
        let none =
            || Doubt::Unread(format!("the directory holds no checkpoint of log `{log}` yet"));
        let at = places.checkpoint_at.ok_or_else(none)?;
        let DirectoryEntry::Checkpoint(entry) = self.entry(at, reader)? else {
            return Err(other(at));
        };
        if entry.log != *log.as_bytes() {
            return Err(other(at));
        }
        let checkpoint = Checkpoint::new(key.name(), entry.size, Hash(entry.root))
            .ok()
            .filter(|c| key.verify(c.body().as_bytes(), &entry.signature))
            .ok_or_else(|| {
                refuted(format!("log `{log}` did not sign entry {at} of the directory"))
            })?;
        Ok(NamedLog { key, checkpoint, signature: entry.signature.to_vec() })
    }

    fn entry(&self, at: u64, reader: &impl AnchorReader) -> Result<DirectoryEntry, Doubt> {
        let read = |id| reader.directory(DirectoryObject::Entries(id));
        let bytes = proven("the directory", &self.checkpoint, at, read, &DirectoryTiles(reader))?;
        DirectoryEntry::decode(&bytes).map_err(|error| {
            refuted(format!("entry {at} of the directory is not understood: {error}"))
        })
    }
}

/// The directory's checkpoint, if its key signed it and enough witnesses did. That they have not yet is
/// no proof of anything: they may be away.
fn believed(anchor: &Anchor, note: &[u8]) -> Result<Checkpoint, Doubt> {
    let opened = match &anchor.witnesses {
        Some(policy) => policy.open(note, &anchor.directories).map(|accepted| accepted.checkpoint),
        None => Checkpoint::open(note, &anchor.directories).map(|(checkpoint, _)| checkpoint),
    };
    opened.map_err(|error| match error {
        Error::Quorum(_) => Doubt::Unread(format!("the directory's checkpoint: {error}")),
        error => refuted(format!("the checkpoint of the directory is not believed: {error}")),
    })
}

impl Recollection {
    /// Takes in the directory's checkpoint, if it extends the one that was seen last.
    fn follow(
        &mut self,
        now: &Checkpoint,
        older: Older,
        reader: &impl AnchorReader,
    ) -> Result<(), Doubt> {
        let before = self.directories.get(&now.origin);
        if let Some(before) = before
            && before.size > now.size
        {
            if older == Older::Refused {
                let why = "the directory at hand is older than one that was seen before";
                return Err(Doubt::Unread(why.to_owned()));
            }
            return extends(now, before, reader);
        }
        if let Some(before) = before {
            extends(before, now, reader)?;
        }
        self.directories.insert(now.origin.clone(), now.clone());
        Ok(())
    }
}

/// That a directory is a beginning of another, by the tiles at hand.
fn extends(old: &Checkpoint, new: &Checkpoint, reader: &impl AnchorReader) -> Result<(), Doubt> {
    let proof = consistency_proof(&DirectoryTiles(reader), old.size, new.size);
    let proof = proof.map_err(|error| match error {
        ProofError::Source(error) => unread("tile", &error),
        ProofError::Log(error) => refuted(format!("the directory's tiles: {error}")),
    })?;
    verify_consistency(old.size, &old.root, new.size, &new.root, &proof).map_err(|error| {
        let (old, new) = (old.size, new.size);
        refuted(format!(
            "the directory of {new} entries does not extend the one of {old} that was seen before, \
             and both are signed: {error}"
        ))
    })
}

/// The index: `{"logs": [{"log": id, "named_at": index, "checkpoint_at": index or null}]}`, and members
/// that are not needed here.
fn parse(index: &[u8]) -> Result<HashMap<LogId, Places>, String> {
    let index = json::parse_object(index).map_err(|error| error.to_string())?;
    let logs = index.get("logs").and_then(Value::as_array).ok_or("it lists no logs")?;
    let mut places = HashMap::with_capacity(logs.len());
    for log in logs {
        let text = |name: &str| log.get(name).and_then(Value::as_str);
        let number = |name: &str| log.get(name).and_then(Value::as_u64);
        let id = text("log").and_then(|id| id.parse().ok()).ok_or("a log has no id")?;
        let named_at = number("named_at").ok_or("a log has no `named_at`")?;
        places.insert(id, Places { named_at, checkpoint_at: number("checkpoint_at") });
    }
    Ok(places)
}

/// The directory's tiles.
struct DirectoryTiles<'r, R>(&'r R);

impl<R: AnchorReader> TileSource for DirectoryTiles<'_, R> {
    type Error = R::Error;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, R::Error> {
        self.0.directory(DirectoryObject::Tile(id))
    }
}

fn unread(what: &str, error: &impl std::fmt::Display) -> Doubt {
    let error = shown(&error.to_string());
    Doubt::Unread(format!("the directory's {what} could not be read: {error}"))
}
