//! The second signature of a log's checkpoints, by the signer's ML-DSA-44 identity key, so that the
//! history outlives quantum attacks on the first one's.
//!
//! The signer makes it when it is asked, about once a second ([`crate::service::Service`] asks before it
//! publishes), because each costs as much as several tokens. So most checkpoints of a busy log have one
//! signature, and the latest with both stays at hand beside them, for readers who demand both:
//! `checkpoint.cosigned`. A signer that dies leaves the entries of its last second under its first
//! signature alone; the next signer's genesis holds that checkpoint, under both signatures of its own.

use std::sync::Arc;

use chancery_entry::{COSIGNING_KEY_BYTES, Entry, Genesis};
use chancery_tlog::note::{KeyType, Note, Signature, VerifierKey};
use chancery_tlog::{Checkpoint, Hash, LogId};

use super::{Extension, Log, LogError, Tail, read, write};

/// Below the log, beside its checkpoint.
pub(super) const COSIGNED: &str = "checkpoint.cosigned";

/// A committed checkpoint that lacks its second signature.
#[derive(Clone, Debug)]
pub struct Uncosigned {
    /// Entries of the tree.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    note: Arc<str>,
}

impl Log {
    /// The key that cosigns its checkpoints, as its genesis states it; of a log that is only served,
    /// as the store does.
    #[must_use]
    pub fn cosigning_key(&self) -> Option<VerifierKey> {
        let tail = read(&self.tail);
        let stated = tail.ledger.genesis.as_ref().and_then(|genesis| key_of(genesis, &self.vkey));
        stated.or_else(|| self.stored_cosigning_key.clone())
    }

    /// Its verifier keys as they are served, one a line: the one that its id is made of first.
    #[must_use]
    pub fn vkeys(&self) -> String {
        lines(&self.vkey, self.cosigning_key().as_ref())
    }

    /// The latest checkpoint that both keys signed, if there is one.
    #[must_use]
    pub fn cosigned(&self) -> Option<Arc<str>> {
        read(&self.tail).cosigned.as_ref().map(|(_, note)| note.clone())
    }

    /// The latest committed checkpoint, if only its second signature is missing.
    #[must_use]
    pub fn uncosigned(&self) -> Option<Uncosigned> {
        let tail = read(&self.tail);
        let done = tail.cosigned.as_ref().map_or(0, |(size, _)| *size);
        (tail.size > done).then(|| Uncosigned {
            size: tail.size,
            root: tail.builder.root(),
            note: tail.checkpoint.clone(),
        })
    }

    /// Takes the second signature of a checkpoint, as it stands in its line behind the key id; it is
    /// published with the next one.
    ///
    /// # Errors
    /// [`LogError::Discontinuous`] when it is not by the key that the genesis states: nothing changes.
    pub fn take_cosignature(&self, of: &Uncosigned, bytes: Vec<u8>) -> Result<(), LogError> {
        let wrong = |what: String| LogError::Discontinuous { log: self.id_text.clone(), what };
        let key = self.cosigning_key();
        let key = key.ok_or_else(|| wrong("its genesis states no second key".into()))?;
        let note = Note::parse(of.note.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let mut cosigned = note;
        let signature = Signature { name: key.name().to_owned(), key_id: key.key_id(), bytes };
        cosigned.insert(signature).map_err(|e| wrong(e.to_string()))?;
        let cosigned = cosigned.encode();
        Checkpoint::open(cosigned.as_bytes(), std::slice::from_ref(&key))
            .map_err(|e| wrong(format!("the signer's second signature: {e}")))?;
        let mut tail = write(&self.tail);
        if tail.cosigned.as_ref().is_none_or(|(size, _)| *size < of.size) {
            tail.cosigned = Some((of.size, Arc::from(cosigned)));
        }
        Ok(())
    }

    /// As a log is opened: the latest checkpoint in the store that both keys signed. One that is not
    /// what it should be is left out: readers would refuse it.
    pub(super) async fn find_cosigned(&self) {
        let Some(key) = self.cosigning_key() else { return };
        let keys = [self.vkey.clone(), key];
        let published = self.checkpoint();
        let mut found = opened(published.as_bytes(), &keys);
        if found.is_none()
            && let Ok(note) = self.get_object(COSIGNED).await
        {
            found = opened(&note, &keys);
        }
        let size = self.size();
        let mut tail = write(&self.tail);
        tail.cosigned = found.filter(|(cosigned, _)| *cosigned <= size);
    }
}

impl Tail {
    /// The latest committed checkpoint, with both signatures if it has them.
    pub(super) fn best_checkpoint(&self) -> Arc<str> {
        match &self.cosigned {
            Some((size, note)) if *size == self.size => note.clone(),
            _ => self.checkpoint.clone(),
        }
    }

    /// What its genesis says, or that of what is to be added.
    pub(super) fn genesis_with(&self, extension: &Extension) -> Option<Genesis> {
        let first = extension.entries.first().and_then(|(entry, _)| entry.as_ref());
        match first {
            Some(Entry::Genesis(genesis)) => Some(genesis.clone()),
            _ => self.ledger.genesis.clone(),
        }
    }
}

/// The key that a genesis states, under the name of the log's key.
pub fn key_of(genesis: &Genesis, vkey: &VerifierKey) -> Option<VerifierKey> {
    let public = genesis.cosigning_key.as_deref()?;
    let public = <&[u8; COSIGNING_KEY_BYTES]>::try_from(public).ok()?;
    VerifierKey::new_ml_dsa_44_cosigner(vkey.name(), public).ok()
}

/// Verifier keys, one a line.
pub(super) fn lines(vkey: &VerifierKey, cosigning: Option<&VerifierKey>) -> String {
    match cosigning {
        Some(key) => format!("{vkey}\n{key}\n"),
        None => format!("{vkey}\n"),
    }
}

/// A log's stored keys: the one that its id is made of, and the one that cosigns.
pub(super) fn parse_vkeys(
    bytes: &[u8],
    id: LogId,
) -> Result<(VerifierKey, Option<VerifierKey>), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("vkey: {e}"))?;
    let mut keys = text.trim_end().lines().map(VerifierKey::parse);
    let mut next = || keys.next().transpose().map_err(|e| format!("vkey: {e}"));
    let vkey = next()?.ok_or("vkey is empty")?;
    let cosigning = next()?;
    let public: Result<[u8; 32], _> = vkey.public_key().try_into();
    if !public.is_ok_and(|public| LogId::of(&public) == id) {
        return Err("vkey is not the key of this log id".into());
    }
    let fits = |key: &VerifierKey| {
        key.name() == vkey.name() && key.key_type() == KeyType::MlDsa44Cosignature
    };
    if !cosigning.as_ref().is_none_or(fits) || keys.next().is_some() {
        return Err("vkey: after the first there is at most one ML-DSA-44 key of its name".into());
    }
    Ok((vkey, cosigning))
}

/// A checkpoint that both keys signed, with its size.
fn opened(note: &[u8], keys: &[VerifierKey; 2]) -> Option<(u64, Arc<str>)> {
    let (checkpoint, note) = Checkpoint::open_by_all(note, keys).ok()?;
    Some((checkpoint.size, Arc::from(note.encode())))
}
