//! The signer logs as the service keeps them: the growing end in memory, the rest in the store.
//!
//! Order of durability, and what a crash leaves behind at each point. Steps 2 to 5 are the same in a
//! folder and in a bucket (`store.rs` says how each write is made there).
//!
//! 1. A batch is in the write-ahead log. Its tokens are released. A crash here: recovery reads the
//!    record and goes on with step 2, which is the normal path.
//! 2. Full tiles and bundles are created, then the partial ones of the right edge, and made durable.
//!    A crash in between leaves tiles that no published checkpoint covers; they are created again
//!    with the same bytes, which changes nothing. Other bytes under the same name stop the service:
//!    somebody else wrote them.
//! 3. `checkpoint` is replaced, durably, on the condition that it is still the one that this service
//!    put there (in a folder: under its lock). Not before step 2 is durable: after a loss of power
//!    the store could otherwise hold a checkpoint without its tiles. A crash in between, or an
//!    answer that never came, leaves the old checkpoint or the new one; either is read and
//!    continued.
//! 4. Only then does memory drop the full tiles, and the write-ahead log forget the records. A crash
//!    in between: records are applied twice, which changes nothing.
//! 5. Partial tiles of the previous checkpoint are deleted. A crash before that leaves garbage of
//!    a few kilobytes.
//!
//! After step 3, about once a second, `checkpoint.cosigned` is replaced: the latest checkpoint that the
//! signer's second identity key signed too. It is never ahead of `checkpoint`, and nobody waits for it.
//! Without it, or with an older one, readers who demand both signatures see less of the log, until the
//! signer is asked again (`logs/cosigned.rs`).
//!
//! Now and then, after step 3, `ledger-summary` is replaced: what the entries under that checkpoint
//! say of keys. It is never ahead of the checkpoint, and nobody waits for it to be durable: without
//! it, or with an older one, the next start reads more of the log (`ledger/summary.rs`).
//!
//! Under `durability = "store"` there is no step 1. A batch goes through steps 2 and 3
//! ([`Log::store_ahead`]) while nobody can see it, then into memory, and is then acknowledged: its
//! tokens are released. A crash before step 3 leaves tiles without a checkpoint; one after it a
//! checkpoint over entries whose tokens were never released. In both cases the signer, if it lives,
//! hands the same batch over again, and the same bytes are written.

mod all;
mod batch;
mod cosigned;
mod load;
mod pruned;
mod publish;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use chancery_entry::Entry;
use chancery_signer_api::AuditRemoval;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, EntriesTileId, Hash, LogId, ProofError, TILE_WIDTH, TileBuilder, TileId,
    TileSource, decode_entries, encode_entry, leaf_hash,
};

use self::publish::Published;
use crate::ledger::{Audited, Ledger, SummaryKey};
use crate::store::{Store, StoreError};

pub use all::Logs;
pub use batch::Batch;
pub use cosigned::{Uncosigned, key_of};
pub use pruned::{MARKER, parse_marker, prune_entries};

/// Why a log cannot be read or extended.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored bytes are not a log that its key signed.
    #[error("log `{log}`: {what}; restore the store from a copy, nothing was changed")]
    Damaged {
        /// The log id.
        log: String,
        /// What is wrong.
        what: String,
    },
    /// A batch does not continue the log.
    #[error("log `{log}`: {what}")]
    Discontinuous {
        /// The log id.
        log: String,
        /// What is wrong.
        what: String,
    },
    /// There is no such log.
    #[error("log `{0}` is not known here")]
    Unknown(String),
    /// There is no such tile or entry under the latest checkpoint.
    #[error("`{0}` is not in this log")]
    NotThere(String),
    /// Entries below this index were pruned.
    #[error("entries below `{0}` of this log were pruned; its hashes are all there")]
    Pruned(u64),
}

impl LogError {
    /// Whether no further attempt can mend it: a person must look.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            LogError::Damaged { .. } => true,
            LogError::Store(e) => e.is_conflict(),
            _ => false,
        }
    }
}

/// One log.
#[derive(Debug)]
pub struct Log {
    id: LogId,
    id_text: String,
    /// Where it lies in the store.
    prefix: String,
    vkey: VerifierKey,
    /// The key that cosigns its checkpoints, as the store says; for logs whose genesis was not read.
    stored_cosigning_key: Option<VerifierKey>,
    store: Store,
    /// Whether all entries were read: a log that is only served needs no ledger, and the directory,
    /// whose entries are of other kinds, has none.
    has_ledger: bool,
    tail: RwLock<Tail>,
    publishing: tokio::sync::Mutex<Published>,
    /// Makes and accepts ledger summaries; without it there are none.
    summaries: Option<SummaryKey>,
}

/// The growing end.
#[derive(Debug)]
struct Tail {
    builder: TileBuilder,
    /// The latest committed checkpoint, a signed note.
    checkpoint: Arc<str>,
    /// The latest one that both keys of the signer signed, and its size.
    cosigned: Option<(u64, Arc<str>)>,
    size: u64,
    /// Entries of the right-edge bundle, encoded, and where each ends.
    bundle: Vec<u8>,
    bundle_ends: Vec<usize>,
    /// Full tiles and bundles that are not in the store yet, by path below the log.
    staged: BTreeMap<String, Bytes>,
    ledger: Ledger,
    keys_jwt: Option<Arc<str>>,
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// A log that has no entries yet.
    #[must_use]
    pub fn empty(store: Store, id: LogId, vkey: VerifierKey) -> Self {
        let prefix = format!("log/{id}");
        Self::empty_at(store, id, id.to_string(), prefix, vkey)
    }

    fn empty_at(
        store: Store,
        id: LogId,
        id_text: String,
        prefix: String,
        vkey: VerifierKey,
    ) -> Self {
        let tail = Tail {
            builder: TileBuilder::new(),
            checkpoint: Arc::from(""),
            cosigned: None,
            size: 0,
            bundle: Vec::new(),
            bundle_ends: Vec::new(),
            staged: BTreeMap::new(),
            ledger: Ledger::default(),
            keys_jwt: None,
        };
        Self {
            id,
            id_text,
            vkey,
            stored_cosigning_key: None,
            store,
            has_ledger: true,
            tail: RwLock::new(tail),
            publishing: tokio::sync::Mutex::new(Published::nothing(&prefix)),
            summaries: None,
            prefix,
        }
    }

    /// Keeps a summary of the ledger in the store from now on.
    #[must_use]
    pub fn with_summaries(self, summaries: Option<SummaryKey>) -> Self {
        Self { summaries, ..self }
    }

    /// Opens a log from the store at its published checkpoint and, for the ledger, reads all its
    /// entries, or those after a summary by this key; without, only the right edge.
    ///
    /// # Errors
    /// [`LogError::Unknown`], [`LogError::Damaged`] or [`LogError::Store`].
    pub async fn open(
        store: Store,
        id: LogId,
        with_ledger: bool,
        summaries: Option<&SummaryKey>,
    ) -> Result<Self, LogError> {
        let text = id.to_string();
        let vkey = match store.get(&format!("log/{text}/vkey")).await {
            Err(StoreError::Missing(_)) => return Err(LogError::Unknown(text)),
            other => other?,
        };
        let damaged = |what: String| LogError::Damaged { log: text.clone(), what };
        let (vkey, cosigning) = cosigned::parse_vkeys(&vkey, id).map_err(damaged)?;
        let log = Self::empty(store, id, vkey).with_summaries(summaries.cloned());
        Self { stored_cosigning_key: cosigning, ..log }.opened(with_ledger).await
    }

    /// Opens the directory log with this key from the store, at its published checkpoint.
    ///
    /// # Errors
    /// [`LogError::Damaged`] or [`LogError::Store`].
    pub async fn open_directory(store: Store, vkey: VerifierKey) -> Result<Self, LogError> {
        let name = "directory".to_owned();
        let public: Result<[u8; 32], _> = vkey.public_key().try_into();
        let no_key = |_| {
            let what = "its key is not an Ed25519 key".to_owned();
            LogError::Damaged { log: name.clone(), what }
        };
        let id = LogId::of(&public.map_err(no_key)?);
        let log = Self::empty_at(store, id, name.clone(), name.clone(), vkey);
        Self { has_ledger: false, ..log }.opened(false).await
    }

    /// Whether its entries were read, as those of every log are whose keys count.
    pub const fn has_ledger(&self) -> bool {
        self.has_ledger
    }

    /// The log as it is published.
    async fn opened(self, with_ledger: bool) -> Result<Self, LogError> {
        let mut log = self;
        let text = log.id_text.clone();
        let damaged = |what: String| LogError::Damaged { log: text.clone(), what };
        let mut published = Published::nothing(&log.prefix);
        let note = match published.checkpoint.read(&log.store).await {
            // Named, but nothing was published yet: the write-ahead log has the rest.
            Err(StoreError::Missing(_)) => return Ok(log),
            other => other?,
        };
        let (checkpoint, _) = Checkpoint::open(&note, std::slice::from_ref(&log.vkey))
            .map_err(|e| damaged(format!("checkpoint: {e}")))?;
        let builder = log
            .with_tiles(checkpoint.size, |tiles| TileBuilder::load(tiles, checkpoint.size))
            .await?;
        if builder.root() != checkpoint.root {
            return Err(damaged("tiles do not hash to the checkpoint's root".into()));
        }
        let keys_jwt = match published.keys.read(&log.store).await {
            Err(StoreError::Missing(_)) => None,
            other => Some(Arc::from(String::from_utf8_lossy(&other?).as_ref())),
        };
        published.is_at(checkpoint.size, keys_jwt.clone());
        log.publishing = tokio::sync::Mutex::new(published);
        log.load_entries(&checkpoint, with_ledger).await?;
        let tail = log.tail.get_mut().unwrap_or_else(PoisonError::into_inner);
        tail.builder = builder;
        tail.size = checkpoint.size;
        tail.checkpoint = Arc::from(String::from_utf8_lossy(&note).as_ref());
        tail.keys_jwt = keys_jwt;
        log.find_cosigned().await;
        Ok(log)
    }

    /// The log id.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The log id as text.
    #[must_use]
    pub fn id_text(&self) -> &str {
        &self.id_text
    }

    /// The verifier key.
    #[must_use]
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// The latest committed checkpoint, a signed note; empty before the first commit. It has the
    /// signature of the second identity key too if the signer was asked for that.
    #[must_use]
    pub fn checkpoint(&self) -> Arc<str> {
        read(&self.tail).best_checkpoint()
    }

    /// Number of committed entries and their root.
    #[must_use]
    pub fn size_and_root(&self) -> (u64, Hash) {
        let tail = read(&self.tail);
        (tail.size, tail.builder.root())
    }

    /// A copy of the ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        read(&self.tail).ledger.clone()
    }

    /// How far the audit of a log, this one or another, is in segments that this log names.
    #[must_use]
    pub fn audited(&self, log: &[u8; 16]) -> Audited {
        read(&self.tail).ledger.audited.get(log).copied().unwrap_or_default()
    }

    /// Whether it says that these segments are deleted.
    #[must_use]
    pub fn has_removed(&self, removal: &AuditRemoval) -> bool {
        let said = (*removal.log, removal.first, removal.segments);
        read(&self.tail).ledger.removed.contains(&said)
    }

    /// The store that it is published to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The signer's part of the key set.
    #[must_use]
    pub fn keys_jwt(&self) -> Option<Arc<str>> {
        read(&self.tail).keys_jwt.clone()
    }

    /// Takes the signer's new part of the key set; it is published with the next checkpoint.
    pub fn set_keys_jwt(&self, keys_jwt: &str) {
        write(&self.tail).keys_jwt = Some(Arc::from(keys_jwt));
    }

    /// The payload of a batch's write-ahead record.
    ///
    /// # Errors
    /// [`LogError::Discontinuous`] when an entry is too large for a bundle.
    pub fn encode(&self, batch: &Batch) -> Result<Vec<u8>, LogError> {
        batch
            .encode(&self.vkey)
            .map_err(|e| LogError::Discontinuous { log: self.id_text.clone(), what: e.to_string() })
    }

    /// Adds a committed batch. Entries that are there already are skipped, so that a record may be
    /// applied twice.
    ///
    /// # Errors
    /// As [`Log::check`]; the log stays as it is then.
    pub fn apply(&self, batch: &Batch) -> Result<(), LogError> {
        self.extend(self.check(batch)?)
    }

    /// Checks that a batch continues the log and hashes to its signed checkpoint. Nothing changes:
    /// what the log would refuse must not get into the write-ahead log either.
    ///
    /// # Errors
    /// [`LogError::Discontinuous`] when the batch leaves a gap, contradicts the log, or does not hash
    /// to a checkpoint of the log's key (INVARIANT I9).
    pub fn check(&self, batch: &Batch) -> Result<Extension, LogError> {
        let wrong = |what: String| LogError::Discontinuous { log: self.id_text.clone(), what };
        let (checkpoint, _) =
            Checkpoint::open(batch.checkpoint.as_bytes(), std::slice::from_ref(&self.vkey))
                .map_err(|e| wrong(format!("checkpoint of a batch: {e}")))?;
        let count = u64::try_from(batch.entries.len()).unwrap_or(u64::MAX);
        if batch.first_index.checked_add(count) != Some(checkpoint.size) {
            return Err(wrong(format!(
                "the signer's checkpoint of size {} does not end with its batch of {count} entries \
                 from {}",
                checkpoint.size, batch.first_index
            )));
        }
        let tail = read(&self.tail);
        let known = tail.size.checked_sub(batch.first_index).ok_or_else(|| {
            wrong(format!(
                "a batch begins at entry {}, the log ends before entry {}",
                batch.first_index, tail.size
            ))
        })?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let fresh = batch.entries.get(known..).unwrap_or_default();
        let extension = Extension::of(&tail, fresh, &batch.checkpoint, self.has_ledger);
        let extension = extension.map_err(wrong)?;
        // A batch that ends before the log does is an old record; its root is not at hand.
        if checkpoint.size >= tail.size && checkpoint.root != extension.builder.root() {
            return Err(wrong(format!(
                "the entries do not hash to the signer's checkpoint of size {}",
                checkpoint.size
            )));
        }
        Ok(extension)
    }

    /// Takes over what [`Log::check`] found good.
    ///
    /// # Errors
    /// [`LogError::Discontinuous`] when something else was added since.
    pub fn extend(&self, extension: Extension) -> Result<(), LogError> {
        let mut tail = write(&self.tail);
        if tail.size != extension.from {
            let what = format!("two batches were checked against size {}", extension.from);
            return Err(LogError::Discontinuous { log: self.id_text.clone(), what });
        }
        tail.take(extension);
        Ok(())
    }

    /// A hash tile of any width that a checkpoint was made for, exactly that wide.
    ///
    /// # Errors
    /// [`LogError::NotThere`] beyond the log's end, [`LogError::Store`].
    pub async fn tile(&self, id: TileId) -> Result<Bytes, LogError> {
        let bytes = self.tile_at_least(id).await?;
        if bytes.len() < id.byte_len() {
            return Err(LogError::NotThere(id.path()));
        }
        Ok(bytes.slice(..id.byte_len()))
    }

    async fn tile_at_least(&self, id: TileId) -> Result<Bytes, LogError> {
        {
            let tail = read(&self.tail);
            if !id.is_within(tail.size) {
                return Err(LogError::NotThere(id.path()));
            }
            if let Some(full) = tail.staged.get(&id.full().path()) {
                return Ok(full.clone());
            }
            let edge = TileId::at(id.level, id.index, tail.size);
            if edge.is_some_and(|e| !e.is_full())
                && let Some(partial) = tail.builder.partial(id.level)
            {
                return Ok(Bytes::copy_from_slice(partial));
            }
        }
        self.get_object(&id.full().path()).await
    }

    /// An entries bundle, exactly `id.width` entries.
    ///
    /// # Errors
    /// [`LogError::NotThere`] beyond the log's end, [`LogError::Store`].
    pub async fn entries(&self, id: EntriesTileId) -> Result<Bytes, LogError> {
        let width = usize::from(id.width);
        {
            let tail = read(&self.tail);
            if !id.is_within(tail.size) {
                return Err(LogError::NotThere(id.path()));
            }
            if let Some(bytes) = tail.staged.get(&EntriesTileId { width: 256, ..id }.path()) {
                return self.cut(bytes.clone(), width);
            }
            if id.index == tail.size / TILE_WIDTH {
                let end = width.checked_sub(1).and_then(|w| tail.bundle_ends.get(w));
                let bytes = end.and_then(|end| tail.bundle.get(..*end));
                let bytes = bytes.ok_or_else(|| LogError::NotThere(id.path()))?;
                return Ok(Bytes::copy_from_slice(bytes));
            }
        }
        let bytes = self.stored_bundle(id).await?;
        self.cut(bytes, width)
    }

    fn cut(&self, bundle: Bytes, width: usize) -> Result<Bytes, LogError> {
        if width == 256 {
            return Ok(bundle);
        }
        let entries = decode_entries(&bundle, 256).map_err(|e| self.damaged(e.to_string()))?;
        let kept = entries.get(..width).unwrap_or_default();
        let (bytes, _) = encode_bundle(kept).map_err(|e| self.damaged(e))?;
        Ok(bytes.into())
    }

    /// A C2SP tlog-proof for the entry at `index` under the latest committed checkpoint, or an earlier
    /// one that covers it and that both keys signed.
    ///
    /// # Errors
    /// [`LogError::NotThere`] beyond the log's end, [`LogError::Store`], [`LogError::Damaged`].
    pub async fn proof(&self, index: u64) -> Result<String, LogError> {
        let (checkpoint, size) = {
            let tail = read(&self.tail);
            match &tail.cosigned {
                Some((size, note)) if index < *size => (note.clone(), *size),
                _ => (tail.checkpoint.clone(), tail.size),
            }
        };
        if index >= size {
            return Err(LogError::NotThere(format!("entry {index}")));
        }
        let hashes = self
            .with_tiles(size, |tiles| chancery_tlog::inclusion_proof(tiles, index, size))
            .await?;
        let proof = chancery_tlog::TlogProof {
            extra: None,
            index,
            hashes,
            checkpoint: checkpoint.to_string(),
        };
        Ok(proof.encode())
    }

    /// The hashes that prove the entry at `index` in the tree of `size` entries.
    ///
    /// # Errors
    /// [`LogError::NotThere`] beyond that size or the log's end, [`LogError::Store`],
    /// [`LogError::Damaged`].
    pub async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        if index >= size || size > self.size() {
            return Err(LogError::NotThere(format!("entry {index} of {size}")));
        }
        self.with_tiles(size, |tiles| chancery_tlog::inclusion_proof(tiles, index, size)).await
    }

    /// The hashes that prove that the tree of `new` entries extends that of `old`.
    ///
    /// # Errors
    /// As [`Log::inclusion`].
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, LogError> {
        if old > new || new > self.size() {
            return Err(LogError::NotThere(format!("a tree of {new} entries after one of {old}")));
        }
        self.with_tiles(new, |tiles| chancery_tlog::consistency_proof(tiles, old, new)).await
    }

    /// Number of committed entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        read(&self.tail).size
    }

    /// The tree of the log's first `size` leaves, by the tiles that hold them.
    ///
    /// # Errors
    /// [`LogError::NotThere`] beyond the log's end, [`LogError::Store`], [`LogError::Damaged`].
    pub async fn tree_at(&self, size: u64) -> Result<TileBuilder, LogError> {
        self.with_tiles(size, |tiles| TileBuilder::load(tiles, size)).await
    }

    /// Runs a computation over tiles, fetching each tile that it turns out to need.
    async fn with_tiles<T>(
        &self,
        size: u64,
        compute: impl Fn(&Fetched) -> Result<T, ProofError<TileId>>,
    ) -> Result<T, LogError> {
        let mut fetched = Fetched::default();
        loop {
            match compute(&fetched) {
                Ok(value) => return Ok(value),
                Err(ProofError::Log(e)) => return Err(self.damaged(e.to_string())),
                Err(ProofError::Source(id)) => {
                    let bytes = self.fetch(id, size).await?;
                    fetched.0.insert(id, bytes);
                }
            }
        }
    }

    /// A tile for a computation: from memory, or in the store as full or as the partial tile that
    /// the checkpoint of this size was published with.
    async fn fetch(&self, id: TileId, size: u64) -> Result<Bytes, LogError> {
        match self.tile(id).await {
            Err(LogError::NotThere(_) | LogError::Store(StoreError::Missing(_))) => {}
            other => return other,
        }
        let stored = TileId::at(id.level, id.index, size).unwrap_or(id);
        let bytes = self.get_object(&stored.path()).await?;
        // An earlier tree's tile is the beginning of the present one's.
        Ok(bytes.slice(..bytes.len().min(id.byte_len())))
    }

    async fn get_object(&self, path: &str) -> Result<Bytes, LogError> {
        Ok(self.store.get(&self.path_of(path)).await?)
    }

    fn damaged(&self, what: String) -> LogError {
        LogError::Damaged { log: self.id_text.clone(), what }
    }
}

/// A batch that was found to continue a log. Only [`Log::check`] makes one.
#[derive(Debug)]
pub struct Extension {
    /// Size of the log that was checked.
    from: u64,
    builder: TileBuilder,
    /// Full tiles that come with it.
    tiles: Vec<(TileId, Vec<u8>)>,
    /// The entries that are new, decoded for the ledger, and each with its length as in a bundle.
    entries: Vec<(Option<Entry>, Vec<u8>)>,
    checkpoint: Arc<str>,
}

impl Extension {
    /// Full tiles that come with it, by path.
    fn full_tiles(&self) -> impl Iterator<Item = (String, Bytes)> {
        self.tiles.iter().map(|(id, tile)| (id.path(), Bytes::copy_from_slice(tile)))
    }

    /// Size of the log with it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.builder.size()
    }

    /// Bytes of its new entries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bundled().map(<[u8]>::len).fold(0, usize::saturating_add)
    }

    /// Its new entries, as in a bundle.
    fn bundled(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|(_, bundled)| bundled.as_slice())
    }

    fn of(
        tail: &Tail,
        fresh: &[Vec<u8>],
        checkpoint: &str,
        with_ledger: bool,
    ) -> Result<Self, String> {
        let mut builder = tail.builder.clone();
        let mut tiles = Vec::new();
        let mut entries = Vec::with_capacity(fresh.len());
        for (index, bytes) in (tail.size..).zip(fresh) {
            let entry = with_ledger.then(|| Entry::decode(bytes)).transpose();
            let entry = entry.map_err(|e| format!("entry {index}: {e}"))?;
            let mut bundled = Vec::with_capacity(bytes.len().saturating_add(2));
            encode_entry(&mut bundled, bytes).map_err(|e| format!("entry {index}: {e}"))?;
            tiles.extend(builder.append(leaf_hash(bytes)));
            entries.push((entry, bundled));
        }
        let checkpoint = match fresh {
            [] => tail.checkpoint.clone(),
            _ => Arc::from(checkpoint),
        };
        Ok(Self { from: tail.size, builder, tiles, entries, checkpoint })
    }
}

impl Tail {
    fn take(&mut self, extension: Extension) {
        for (id, tile) in extension.tiles {
            self.staged.insert(id.path(), tile.into());
        }
        for (entry, bundled) in extension.entries {
            self.bundle.extend_from_slice(&bundled);
            self.bundle_ends.push(self.bundle.len());
            if let Some(entry) = entry {
                self.ledger.apply(self.size, entry);
            }
            self.size = self.size.saturating_add(1);
            if let Some(id) = filled_bundle(self.size) {
                self.staged.insert(id.path(), std::mem::take(&mut self.bundle).into());
                self.bundle_ends.clear();
            }
        }
        self.builder = extension.builder;
        self.checkpoint = extension.checkpoint;
    }
}

/// The bundle that is full at this size, and was not one entry before.
fn filled_bundle(size: u64) -> Option<EntriesTileId> {
    let index = (size / TILE_WIDTH).checked_sub(1)?;
    size.is_multiple_of(TILE_WIDTH).then_some(EntriesTileId { index, width: 256 })
}

fn encode_bundle(entries: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<usize>), String> {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for entry in entries {
        encode_entry(&mut bytes, entry).map_err(|e| e.to_string())?;
        ends.push(bytes.len());
    }
    Ok((bytes, ends))
}

/// Tiles that a computation asked for so far; a missing one is named in the error.
#[derive(Default)]
struct Fetched(HashMap<TileId, Bytes>);

impl TileSource for Fetched {
    type Error = TileId;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, TileId> {
        self.0.get(&id).map(|b| b.to_vec()).ok_or(id)
    }
}

#[cfg(test)]
pub(crate) mod tests;
