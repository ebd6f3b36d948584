//! Steps 2 to 5 of the order of durability: what is committed goes to the store.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chancery_entry::Genesis;
use chancery_tlog::{EntriesTileId, TILE_WIDTH, TileBuilder};
use tokio::task::JoinSet;

use super::cosigned::{COSIGNED, key_of, lines};
use super::load::SUMMARY;
use super::{Extension, Log, LogError, Tail, read, write};
use crate::ledger::{Ledger, Summary};
use crate::store::{Mutable, Store, StoreError};

/// The most partial objects that wait for their deletion. A store that refuses every deletion (by a
/// retention rule, say) keeps the others as garbage of a few kilobytes each.
const MAX_STALE: usize = 1_024;

/// A start reads about this many entries beyond the summary, 256 bundles: well under a second.
pub(super) const SUMMARY_EVERY: u64 = 65_536;
/// An orderly end leaves no more than this to the next start, one bundle. A shorter log needs none.
pub(super) const SUMMARY_AT_END: u64 = 256;
/// At full load a summary every few seconds would cost more than it saves.
const SUMMARY_PAUSE: Duration = Duration::from_secs(10);

/// What is in the store for sure, and what may be.
#[derive(Debug)]
pub(super) struct Published {
    /// Size of the last checkpoint that is durable with everything that it covers.
    size: u64,
    keys_jwt: Option<Arc<str>>,
    /// The two objects that change.
    pub(super) checkpoint: Mutable,
    pub(super) keys: Mutable,
    /// The size of the stored checkpoint that both keys signed, and whether the latest one is that.
    cosigned: u64,
    latest_is_cosigned: bool,
    named: bool,
    /// Full tiles and bundles that were written since then; a retry need not write them again.
    written: BTreeSet<String>,
    /// Partial objects that may be there: those of the last checkpoint, and of attempts that failed.
    partials: BTreeSet<String>,
    /// Size of the checkpoint that the ledger's summary belongs to, and when it was last tried.
    pub(super) summarised: u64,
    summary_tried: Option<Instant>,
}

impl Published {
    /// As a log was opened by its ledger's summary at this size.
    pub(super) fn summarised(&mut self, size: u64) {
        self.summarised = size;
    }

    fn summary_is_due(&self, size: u64) -> bool {
        size.saturating_sub(self.summarised) >= SUMMARY_EVERY
            && self.summary_tried.is_none_or(|at| at.elapsed() >= SUMMARY_PAUSE)
    }

    /// Of this log nothing is in the store as far as is known.
    pub(super) fn nothing(prefix: &str) -> Self {
        Self {
            size: 0,
            keys_jwt: None,
            checkpoint: Mutable::new(format!("{prefix}/checkpoint")),
            keys: Mutable::new(format!("{prefix}/keys.jwt")),
            cosigned: 0,
            latest_is_cosigned: false,
            named: false,
            written: BTreeSet::new(),
            partials: BTreeSet::new(),
            summarised: 0,
            summary_tried: None,
        }
    }

    /// As a log was opened at its published checkpoint.
    pub(super) fn is_at(&mut self, size: u64, keys_jwt: Option<Arc<str>>) {
        self.size = size;
        self.keys_jwt = keys_jwt;
        self.named = true;
        self.partials = partial_paths(size).collect();
    }
}

/// Everything committed at one moment.
struct Snapshot {
    size: u64,
    checkpoint: Arc<str>,
    staged: Vec<(String, Bytes)>,
    partials: Vec<(String, Bytes)>,
    keys_jwt: Option<Arc<str>>,
    /// The latest checkpoint that both keys signed.
    cosigned: Option<(u64, Arc<str>)>,
    genesis: Option<Genesis>,
    /// The ledger, when its summary is to be written.
    ledger: Option<Ledger>,
}

impl Log {
    /// Everything committed so far goes to the store, durably. Returns whether there was anything to
    /// do. Every write may be repeated after a failure, and is one that changes nothing then.
    ///
    /// # Errors
    /// [`LogError::Store`]; the next call goes on where this one failed.
    pub async fn publish(&self) -> Result<bool, LogError> {
        let mut published = self.publishing.lock().await;
        let snapshot = self.snapshot(&published);
        // What is in the store may be ahead of memory for a moment: see `store_ahead`.
        let grew = snapshot.size > published.size;
        let keys_jwt =
            snapshot.keys_jwt.as_ref().filter(|k| Some(*k) != published.keys_jwt.as_ref()).cloned();
        if !grew && keys_jwt.is_none() {
            self.store_cosigned(&mut published, &snapshot).await?;
            self.store_summary(&mut published, &snapshot).await;
            self.forget_written(&mut published, &snapshot);
            self.delete_stale(&mut published).await;
            return Ok(false);
        }
        if grew {
            self.store_grown(&mut published, &snapshot).await?;
        }
        if let Some(keys_jwt) = keys_jwt {
            let bytes = Bytes::from(keys_jwt.to_string());
            published.keys.write(&self.store, bytes).await?;
            published.keys_jwt = Some(keys_jwt);
        }
        self.store_cosigned(&mut published, &snapshot).await?;
        // From here on nothing of the snapshot is needed in memory or in the write-ahead log.
        self.store_summary(&mut published, &snapshot).await;
        self.forget_written(&mut published, &snapshot);
        self.delete_stale(&mut published).await;
        Ok(true)
    }

    /// At an orderly end, after the last [`Log::publish`]: the next start begins at its checkpoint.
    pub async fn summarise(&self) {
        let mut published = self.publishing.lock().await;
        let snapshot = {
            let tail = read(&self.tail);
            let ledger = self.has_ledger.then(|| tail.ledger.clone());
            Snapshot { ledger, ..tail.snapshot() }
        };
        let due = snapshot.size.saturating_sub(published.summarised) >= SUMMARY_AT_END;
        // A summary must not be ahead of the checkpoint in the store.
        if due && snapshot.size == published.size {
            self.store_summary(&mut published, &snapshot).await;
        }
    }

    fn snapshot(&self, published: &Published) -> Snapshot {
        let tail = read(&self.tail);
        let mut snapshot = tail.snapshot();
        let wanted = self.summaries.is_some() && self.has_ledger;
        if wanted && published.summary_is_due(snapshot.size) {
            snapshot.ledger = Some(tail.ledger.clone());
        }
        snapshot
    }

    /// What the entries up to the published checkpoint say, beside it. Only a shortcut for later
    /// starts: without it, or with an older one, more of the log is read.
    async fn store_summary(&self, published: &mut Published, snapshot: &Snapshot) {
        let (Some(key), Some(ledger)) = (&self.summaries, &snapshot.ledger) else { return };
        published.summary_tried = Some(Instant::now());
        let stored = match Summary::encode(&snapshot.checkpoint, ledger, key) {
            // One object, replaced whole. Not synced: one that a loss of power takes is missing.
            Ok(bytes) => {
                let put = self.store.put(&self.path_of(SUMMARY), bytes.into()).await;
                put.map_err(|e| e.to_string())
            }
            Err(e) => Err(e),
        };
        match stored {
            Ok(()) => published.summarised = snapshot.size,
            Err(e) => tracing::warn!(log = self.id_text, "ledger summary: {e}; tried again later"),
        }
    }

    /// Steps 2 and 3 for a batch that is not in memory yet, where the store comes first
    /// (`durability = "store"`): nothing of the batch is visible or acknowledged before. Deletions
    /// and the key set are left to [`Log::publish`].
    ///
    /// # Errors
    /// [`LogError::Store`]; the next call, of this or of `publish`, goes on where this one failed.
    pub async fn store_ahead(&self, extension: &Extension) -> Result<(), LogError> {
        let mut published = self.publishing.lock().await;
        let snapshot = read(&self.tail).snapshot_with(extension);
        if snapshot.size > published.size {
            self.store_grown(&mut published, &snapshot).await?;
        }
        Ok(())
    }

    /// Step 2 alone, for a batch whose checkpoint is published later by
    /// [`Log::publish_checkpoint`].
    ///
    /// # Errors
    /// As [`Log::store_ahead`].
    pub async fn store_tiles_ahead(&self, extension: &Extension) -> Result<(), LogError> {
        let mut published = self.publishing.lock().await;
        let snapshot = read(&self.tail).snapshot_with(extension);
        if snapshot.size > published.size {
            self.store_tiles(&mut published, &snapshot).await?;
        }
        Ok(())
    }

    /// Step 3 alone: the checkpoint of all that is in memory, which may carry more signatures than
    /// there, by this or an earlier call's.
    ///
    /// # Errors
    /// As [`Log::store_ahead`].
    pub async fn publish_checkpoint(&self, note: &str) -> Result<(), LogError> {
        let mut published = self.publishing.lock().await;
        let size = self.size();
        published.checkpoint.write(&self.store, Bytes::from(note.to_owned())).await?;
        published.size = size;
        Ok(())
    }

    /// Steps 2 and 3: what the checkpoint covers, then the checkpoint.
    async fn store_grown(
        &self,
        published: &mut Published,
        snapshot: &Snapshot,
    ) -> Result<(), LogError> {
        self.store_tiles(published, snapshot).await?;
        let checkpoint = Bytes::from(snapshot.checkpoint.to_string());
        published.checkpoint.write(&self.store, checkpoint).await?;
        published.size = snapshot.size;
        let cosigned = snapshot.cosigned.as_ref().map(|(size, _)| *size);
        published.latest_is_cosigned = cosigned == Some(snapshot.size);
        Ok(())
    }

    /// After step 3: the checkpoint that both keys signed, if there is a later one than in the store,
    /// in place of the same checkpoint with one signature, and beside it.
    async fn store_cosigned(
        &self,
        published: &mut Published,
        snapshot: &Snapshot,
    ) -> Result<(), LogError> {
        let Some((size, note)) = &snapshot.cosigned else { return Ok(()) };
        if *size <= published.cosigned || *size > published.size {
            return Ok(());
        }
        let note = Bytes::from(note.to_string());
        if *size == published.size && !published.latest_is_cosigned {
            published.checkpoint.write(&self.store, note.clone()).await?;
            published.latest_is_cosigned = true;
        }
        self.store.put(&self.path_of(COSIGNED), note).await?;
        published.cosigned = *size;
        Ok(())
    }

    /// Step 4: memory drops what is in the store, once nothing of it is still to be written.
    fn forget_written(&self, published: &mut Published, snapshot: &Snapshot) {
        if snapshot.size == published.size {
            let written = std::mem::take(&mut published.written);
            write(&self.tail).staged.retain(|path, _| !written.contains(path));
        }
    }

    /// Step 2: what the next checkpoint covers, durably.
    async fn store_tiles(
        &self,
        published: &mut Published,
        snapshot: &Snapshot,
    ) -> Result<(), LogError> {
        if !published.named {
            let cosigning = snapshot.genesis.as_ref().and_then(|g| key_of(g, &self.vkey));
            let vkeys = Bytes::from(lines(&self.vkey, cosigning.as_ref()));
            self.store.create_durably(&self.path_of("vkey"), vkeys).await?;
            published.named = true;
        }
        let written = &published.written;
        let full = snapshot.staged.iter().filter(|(path, _)| !written.contains(path));
        let objects = full.chain(&snapshot.partials).cloned().collect();
        // Noted first: a write that fails may have been carried out.
        published.partials.extend(snapshot.partials.iter().map(|(path, _)| path.clone()));
        let (created, result) = self.for_each(objects, create).await;
        let full = created.into_iter().filter(|path| !published.partials.contains(path));
        published.written.extend(full);
        result?;
        let durable = self.store.make_durable().await;
        if durable.is_err() {
            // The kernel may have dropped what it could not write and call the rest clean: only
            // writing everything again proves anything.
            published.written.clear();
        }
        Ok(durable?)
    }

    /// Step 5: partial objects that no published checkpoint needs. What cannot be deleted now is
    /// tried again later: garbage must not keep the write-ahead log from being released.
    async fn delete_stale(&self, published: &mut Published) {
        let current: BTreeSet<String> = partial_paths(published.size).collect();
        let stale = published.partials.difference(&current);
        let stale = stale.map(|path| (path.clone(), Bytes::new())).collect();
        let (deleted, result) = self.for_each(stale, delete).await;
        for path in &deleted {
            published.partials.remove(path);
        }
        if let Err(e) = result {
            tracing::debug!("{e}; deleted later");
        }
        while published.partials.len().saturating_sub(current.len()) > MAX_STALE {
            let oldest = published.partials.difference(&current).next().cloned();
            let Some(oldest) = oldest else { break };
            published.partials.remove(&oldest);
        }
    }

    /// Does one thing with each object, with as many at a time as the store takes. Returns the
    /// paths of those that it worked for, and the first failure, after which no other was begun.
    async fn for_each(
        &self,
        objects: Vec<(String, Bytes)>,
        act: Act,
    ) -> (Vec<String>, Result<(), StoreError>) {
        let mut waiting = objects.into_iter();
        let mut under_way = JoinSet::new();
        let mut done = Vec::new();
        let mut result = Ok(());
        loop {
            while result.is_ok() && under_way.len() < self.store.parallel_writes() {
                let Some((path, bytes)) = waiting.next() else { break };
                let acting = act(self.store.clone(), self.path_of(&path), bytes);
                under_way.spawn(async move { (path, acting.await) });
            }
            let failed = match under_way.join_next().await {
                None => return (done, result),
                Some(Ok((path, Ok(())))) => {
                    done.push(path);
                    continue;
                }
                Some(Ok((_, Err(e)))) => e,
                Some(Err(e)) => StoreError::Failed { object: "?".into(), why: e.to_string() },
            };
            result = result.and(Err(failed));
        }
    }

    pub(super) fn path_of(&self, object: &str) -> String {
        format!("{}/{object}", self.prefix)
    }
}

/// What is done with one object.
type Act = fn(Store, String, Bytes) -> Acting;
type Acting = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

fn create(store: Store, object: String, bytes: Bytes) -> Acting {
    Box::pin(async move { store.create(&object, bytes).await })
}

fn delete(store: Store, object: String, _: Bytes) -> Acting {
    Box::pin(async move { store.delete(&object).await })
}

impl Tail {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            size: self.size,
            checkpoint: self.best_checkpoint(),
            staged: self.staged.iter().map(|(p, b)| (p.clone(), b.clone())).collect(),
            partials: partials(&self.builder, self.size, &self.bundle),
            keys_jwt: self.keys_jwt.clone(),
            cosigned: self.cosigned.clone(),
            genesis: self.ledger.genesis.clone(),
            ledger: None,
        }
    }

    /// As it will be once the batch is in memory.
    fn snapshot_with(&self, extension: &Extension) -> Snapshot {
        let mut snapshot = self.snapshot();
        let (mut bundle, mut size) = (self.bundle.clone(), self.size);
        snapshot.staged.extend(extension.full_tiles());
        for bundled in extension.bundled() {
            bundle.extend_from_slice(bundled);
            size = size.saturating_add(1);
            if let Some(id) = super::filled_bundle(size) {
                snapshot.staged.push((id.path(), std::mem::take(&mut bundle).into()));
            }
        }
        snapshot.size = size;
        snapshot.checkpoint = extension.checkpoint.clone();
        snapshot.genesis = self.genesis_with(extension);
        snapshot.partials = partials(&extension.builder, size, &bundle);
        snapshot
    }
}

/// The partial tiles and the partial bundle of the right edge.
fn partials(builder: &TileBuilder, size: u64, bundle: &[u8]) -> Vec<(String, Bytes)> {
    let edge = builder.edge().filter(|(id, _)| !id.is_full());
    let mut partials: Vec<(String, Bytes)> =
        edge.map(|(id, bytes)| (id.path(), Bytes::copy_from_slice(bytes))).collect();
    if let Some(id) = EntriesTileId::at(size / TILE_WIDTH, size) {
        partials.push((id.path(), Bytes::copy_from_slice(bundle)));
    }
    partials
}

/// Partial objects that belong to the checkpoint of this size.
fn partial_paths(size: u64) -> impl Iterator<Item = String> {
    let tiles = chancery_tlog::tiles_for_size(size).into_iter().filter(|t| !t.is_full());
    let bundle = EntriesTileId::at(size / TILE_WIDTH, size);
    tiles.map(|t| t.path()).chain(bundle.map(|b| b.path()))
}
