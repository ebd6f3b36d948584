//! Reading a log's entries when it is opened: all of them for the ledger, or those after a summary of
//! it that holds.

use std::collections::VecDeque;

use bytes::Bytes;
use chancery_entry::Entry;
use chancery_tlog::{
    Checkpoint, EntriesTileId, Hash, TILE_WIDTH, TileBuilder, decode_entries, leaf_hash,
};
use tokio::task::JoinHandle;

use super::publish::SUMMARY_AT_END;
use super::{Log, LogError, encode_bundle};
use crate::ledger::{Ledger, Summary};
use crate::store::{Store, StoreError};

/// Below the log, beside its checkpoint.
pub(super) const SUMMARY: &str = "ledger-summary";
/// Bundles that are read ahead: a bucket answers each within some 20 ms, and a bundle of tokens has
/// 25 kB.
const READ_AHEAD: usize = 16;

/// Where reading begins.
struct Start {
    /// What is known of the entries before `apply_from`.
    ledger: Ledger,
    apply_from: u64,
    /// The tree before the first bundle that is read.
    builder: TileBuilder,
    /// The root that the log's key signed for another size; the entries must lead through it.
    claim: Option<(u64, Hash)>,
}

impl Log {
    /// Reads bundles: for the ledger all of them, or those after its summary; without, the right-edge
    /// one for what comes next.
    pub(super) async fn load_entries(
        &mut self,
        checkpoint: &Checkpoint,
        with_ledger: bool,
    ) -> Result<(), LogError> {
        self.has_ledger = with_ledger;
        if !with_ledger {
            return self.load_edge(checkpoint.size).await;
        }
        let claim = match self.find_summary(checkpoint).await {
            Some(summary) => {
                let claim = (summary.checkpoint.size, summary.checkpoint.root);
                match self.load_after(checkpoint, summary).await {
                    Ok(()) => return Ok(()),
                    // Whether it is the log that is damaged shows when it is read whole.
                    Err(e) => tracing::warn!("{e}; the summary is not used, the log is read whole"),
                }
                Some(claim)
            }
            None => None,
        };
        let start =
            Start { ledger: Ledger::default(), apply_from: 0, builder: TileBuilder::new(), claim };
        match self.load_from(checkpoint, start).await {
            // Nothing of what it said is needed any more, or it would not have been pruned.
            Err(LogError::Store(StoreError::Missing(_)))
                if self.minimum_index().await?.is_some() =>
            {
                self.has_ledger = false;
                self.load_edge(checkpoint.size).await
            }
            other => other,
        }
    }

    /// The summary, if there is one that this service wrote for this log and that is not ahead of it.
    async fn find_summary(&self, checkpoint: &Checkpoint) -> Option<Summary> {
        let key = self.summaries.as_ref()?;
        let log = self.id_text.as_str();
        let entries = checkpoint.size;
        let bytes = match self.get_object(SUMMARY).await {
            Ok(bytes) => bytes,
            Err(LogError::Store(StoreError::Missing(_))) if entries < SUMMARY_AT_END => {
                return None;
            }
            Err(LogError::Store(StoreError::Missing(_))) => {
                tracing::info!(log, entries, "no ledger summary; the log is read whole");
                return None;
            }
            Err(e) => {
                tracing::warn!(log, entries, "ledger summary: {e}; the log is read whole");
                return None;
            }
        };
        match Summary::decode(&bytes, key, &self.vkey) {
            Ok(summary) if summary.checkpoint.size <= entries => Some(summary),
            Ok(summary) => {
                // Not an error here: what is missing may be in the write-ahead log.
                let known = summary.checkpoint.size;
                tracing::error!(
                    log,
                    entries,
                    known,
                    "the store holds an older log than its ledger summary knows; it is read whole"
                );
                None
            }
            Err(why) => {
                tracing::warn!(log, entries, "ledger summary: {why}; the log is read whole");
                None
            }
        }
    }

    /// The entries after a summary. That they, on top of the tree under the summary's checkpoint, hash
    /// to the present one's root is the proof that the log's later checkpoint extends the earlier.
    async fn load_after(&mut self, checkpoint: &Checkpoint, from: Summary) -> Result<(), LogError> {
        let known = from.checkpoint.size;
        // The bundle in which it ends is read whole: its beginning may be needed in memory.
        let boundary = known.saturating_sub(known % TILE_WIDTH);
        let builder =
            self.with_tiles(checkpoint.size, |tiles| TileBuilder::load(tiles, boundary)).await?;
        let claim = Some((known, from.checkpoint.root));
        let start = Start { ledger: from.ledger, apply_from: known, builder, claim };
        self.load_from(checkpoint, start).await?;
        self.publishing.get_mut().summarised(known);
        Ok(())
    }

    async fn load_from(&mut self, checkpoint: &Checkpoint, start: Start) -> Result<(), LogError> {
        let Start { mut ledger, apply_from, mut builder, claim } = start;
        let size = checkpoint.size;
        let mut edge = (Vec::new(), Vec::new());
        let mut contradicted = false;
        let mut check = |builder: &TileBuilder| {
            let due = claim.filter(|(at, _)| *at == builder.size());
            contradicted |= due.is_some_and(|(_, root)| builder.root() != root);
        };
        check(&builder);
        let mut bundles = Bundles::new(self, builder.size() / TILE_WIDTH, size);
        while let Some((id, bytes)) = bundles.next().await {
            let entries = decode_entries(&bytes?, usize::from(id.width))
                .map_err(|e| self.damaged(format!("{}: {e}", id.path())))?;
            for entry in &entries {
                let index = builder.size();
                builder.append(leaf_hash(entry));
                check(&builder);
                let entry = Entry::decode(entry)
                    .map_err(|e| self.damaged(format!("entry {index}: {e}")))?;
                if index >= apply_from {
                    ledger.apply(index, entry);
                }
            }
            if u64::from(id.width) < TILE_WIDTH {
                edge = encode_bundle(&entries).map_err(|e| self.damaged(e))?;
            }
        }
        // What the ledger says decides which keys are served: every entry must be the signed one.
        if builder.root() != checkpoint.root {
            return Err(self.damaged("entries do not hash to the checkpoint's root".into()));
        }
        if let (true, Some((known, _))) = (contradicted, claim) {
            let what = format!(
                "its key signed two histories: the checkpoint of size {known} in `{SUMMARY}` and \
                 this one of size {size}"
            );
            return Err(self.damaged(what));
        }
        self.take_up(ledger, edge);
        Ok(())
    }

    /// The bundle at the right edge, for a log that is only served.
    async fn load_edge(&mut self, size: u64) -> Result<(), LogError> {
        let Some(id) = EntriesTileId::at(size / TILE_WIDTH, size) else { return Ok(()) };
        let bytes = self.get_object(&id.path()).await?;
        let entries = decode_entries(&bytes, usize::from(id.width))
            .map_err(|e| self.damaged(format!("{}: {e}", id.path())))?;
        let edge = encode_bundle(&entries).map_err(|e| self.damaged(e))?;
        self.take_up(Ledger::default(), edge);
        Ok(())
    }

    fn take_up(&mut self, ledger: Ledger, edge: (Vec<u8>, Vec<usize>)) {
        let tail = self.tail.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        tail.ledger = ledger;
        (tail.bundle, tail.bundle_ends) = edge;
    }
}

/// The bundles of a log from some one on, in order, some of them read ahead.
struct Bundles {
    store: Store,
    prefix: String,
    next: u64,
    size: u64,
    reading: VecDeque<(EntriesTileId, JoinHandle<Result<Bytes, StoreError>>)>,
}

impl Bundles {
    fn new(log: &Log, first: u64, size: u64) -> Self {
        let prefix = log.prefix.clone();
        Self { store: log.store.clone(), prefix, next: first, size, reading: VecDeque::new() }
    }

    async fn next(&mut self) -> Option<(EntriesTileId, Result<Bytes, LogError>)> {
        while self.reading.len() < READ_AHEAD
            && let Some(id) = EntriesTileId::at(self.next, self.size)
        {
            self.next = self.next.saturating_add(1);
            let (store, object) = (self.store.clone(), format!("{}/{}", self.prefix, id.path()));
            let read = tokio::spawn(async move { store.get(&object).await });
            self.reading.push_back((id, read));
        }
        let (id, read) = self.reading.pop_front()?;
        let bytes = match read.await {
            Ok(bytes) => bytes.map_err(LogError::from),
            Err(e) => {
                let object = format!("{}/{}", self.prefix, id.path());
                Err(StoreError::Failed { object, why: e.to_string() }.into())
            }
        };
        Some((id, bytes))
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        for (_, read) in &self.reading {
            read.abort();
        }
    }
}
