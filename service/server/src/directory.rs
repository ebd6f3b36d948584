//! The directory log: one for the deployment, with an origin and a key that stay while signers and
//! their logs come and go. It names every signer's log, holds about one checkpoint a second of each
//! that grows, and says how each ended (`chancery_entry::directory`).
//!
//! Nothing here stands in the path of a token: the publisher calls [`Directory::follow`] after it has
//! published the signers' logs, with what these were before, so that the directory never names a
//! checkpoint that the store does not hold.
//!
//! Order of durability, and what a crash leaves behind at each point. Entries are derived from the
//! state of the logs, so a directory that is behind catches up by itself; what must not happen is that
//! two checkpoints of one size are signed.
//!
//! 1. `directory/next` is replaced, durably: the new entries and the signed checkpoint over them. The
//!    point of no return: from here on exactly this batch continues the directory. A crash before it
//!    leaves nothing; one after it leaves a batch that the next start carries out, which is the normal
//!    path from here.
//! 2. Tiles and bundles are created and made durable. Writing them again changes nothing.
//! 3. Memory takes the batch: tiles and proofs are served. The checkpoint that is served is still the
//!    old one.
//! 4. Where there are witnesses, they are asked for cosignatures ([`Cosigner`]).
//! 5. `directory/checkpoint` is replaced, with the cosignatures, and served. A crash before it leaves
//!    tiles that no checkpoint covers, and `next` says how to go on.
//! 6. The data folder remembers the checkpoint: a store that holds less, or other entries, is refused
//!    from now on ([`DirectoryError::RolledBack`], [`DirectoryError::Rewritten`]).
//!
//! Both objects that change are replaced on the condition that this service left them as they are: a
//! second writer is found out, not merged with.

mod error;
mod key;
mod memory;
mod open;
mod plan;
pub mod settings;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use chancery_entry::Entry;
use chancery_entry::directory::DirectoryEntry;
use chancery_tlog::note::{Note, Signature, VerifierKey};
use chancery_tlog::{
    Checkpoint, EntriesTileId, Frontier, Hash, LogId, TileId, decode_entries, leaf_hash, note,
    verify_inclusion,
};
use chancery_token::client::ClientKey;
use chancery_validate::directory::Directory as Reading;
use serde_json::json;

use self::memory::Memory;
use self::plan::{Genesis, Plan, Seen};
use crate::logs::{Batch, Log, LogError, Logs, key_of};
use crate::store::{Mutable, Store};

pub use error::DirectoryError;
pub use memory::{decode_state, encode_state};
pub use open::Files;
pub use settings::DirectorySettings;

/// Logs that the index lists beside the open ones, the newest: those whose tokens live are among them,
/// and half a megabyte is not too much for a relying party to read.
const MAX_INDEXED: usize = 2_000;

/// The object that says where a directory's entries are: a help for finding them, each of which
/// proves itself.
const INDEX: &str = "directory/index.json";

/// Asks witnesses for cosignatures on a checkpoint before it is published.
pub trait Cosigner: Debug + Send + Sync {
    /// Cosignatures of the checkpoint in `note`, the directory's signed one, verified; as many as
    /// there are within a bounded time, none if there are none. Tiles and proofs up to its size are
    /// at hand in `log`; the directory itself waits for the answer.
    fn cosign<'a>(
        &'a self,
        log: &'a Log,
        note: &'a str,
    ) -> Pin<Box<dyn Future<Output = Vec<Signature>> + Send + 'a>>;
}

/// The directory.
#[derive(Debug)]
pub struct Directory {
    log: Log,
    key: ClientKey,
    store: Store,
    reading: RwLock<Arc<Reading>>,
    /// The published checkpoint, with its cosignatures; empty before the first.
    served: RwLock<Arc<str>>,
    /// The log of the signer that the service is attached to, or was last.
    living: Mutex<Option<LogId>>,
    /// Logs of dead signers that nothing else keeps open, until they are closed here.
    behind: Mutex<Vec<Arc<Log>>>,
    cosigner: OnceLock<Arc<dyn Cosigner>>,
    writer: tokio::sync::Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    next: Mutable,
    /// What `next` holds, while it is not published.
    pending: Option<Pending>,
    /// The tree of all entries that are published.
    frontier: Frontier,
    memory: Memory,
    /// What a log's first entry says, until it is named.
    genesis: HashMap<LogId, Genesis>,
    /// What an operator was told that the directory does not take.
    told: Vec<String>,
}

impl Writer {
    /// Tells what the directory does not say, once: it is tried again every second.
    fn tell(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            tracing::error!("directory: {problem}");
        }
        self.told = problems;
    }
}

/// A batch that is signed, and what the directory is with it.
#[derive(Debug)]
struct Pending {
    batch: Batch,
    reading: Arc<Reading>,
    frontier: Frontier,
}

/// The signers' logs at one moment.
#[derive(Debug, Default)]
pub struct Heads {
    living: Option<LogId>,
    logs: BTreeMap<LogId, (Arc<Log>, Arc<str>)>,
}

/// Where the directory holds a log's latest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Index of the entry.
    pub index: u64,
    /// The entry's bytes.
    pub entry: Vec<u8>,
    /// The log's size by it.
    pub size: u64,
    /// The log's root by it.
    pub root: Hash,
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Directory {
    /// The verifier key; its name is the directory's origin.
    #[must_use]
    pub fn vkey(&self) -> &VerifierKey {
        self.log.vkey()
    }

    /// The published checkpoint, with cosignatures; empty before the first.
    #[must_use]
    pub fn checkpoint(&self) -> Arc<str> {
        read(&self.served)
    }

    /// The log itself: tiles, bundles, proofs. For a moment it is ahead of
    /// [`Directory::checkpoint`].
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What the published entries say.
    #[must_use]
    pub fn reading(&self) -> Arc<Reading> {
        read(&self.reading)
    }

    /// The entry of a log's latest checkpoint that is published; [`Log::inclusion`] proves it.
    #[must_use]
    pub fn held(&self, log: LogId) -> Option<Held> {
        let reading = self.reading();
        let (index, checkpoint) = reading.log(log)?.latest()?;
        let entry = DirectoryEntry::Checkpoint(checkpoint.clone()).encode().ok()?;
        Some(Held { index, entry, size: checkpoint.size, root: Hash(checkpoint.root) })
    }

    /// Whether a signer's log may not be continued, or got a successor already.
    #[must_use]
    pub fn has_ended(&self, log: LogId) -> bool {
        let reading = self.reading();
        let is_closed = reading.log(log).is_some_and(|named| named.closing().is_some());
        is_closed || reading.successor(log).is_some()
    }

    /// Where each log's entries are, as JSON: a help for finding them.
    #[must_use]
    pub fn index(&self) -> String {
        index_of(&self.reading())
    }

    /// The service is attached to this log's signer: all others are dead.
    pub fn set_living(&self, log: LogId) {
        *self.living.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    /// Has every later checkpoint shown to witnesses before it is published. Only the first call
    /// counts.
    pub fn set_cosigner(&self, cosigner: Arc<dyn Cosigner>) {
        let _ = self.cosigner.set(cosigner);
    }

    /// Looks for logs in the store that the directory has not got, or not to their end, and that
    /// nothing else keeps open. Those that cannot be read are left out and named in a warning.
    ///
    /// # Errors
    /// [`DirectoryError::Store`] when the store cannot be listed.
    pub async fn catch_up(&self, logs: &Logs) -> Result<(), DirectoryError> {
        let reading = self.reading();
        let mut behind = Vec::new();
        for name in self.store.folders("log").await? {
            let Ok(id) = name.parse::<LogId>() else { continue };
            let is_closed = reading.log(id).is_some_and(|named| named.closing().is_some());
            if is_closed || logs.get(id).is_some() {
                continue;
            }
            match logs.open(id).await {
                Ok(log) => behind.push(log),
                Err(e) => tracing::warn!("{e}; the directory does without it"),
            }
        }
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = behind;
        Ok(())
    }

    /// The logs as they are now, to be handed to [`Directory::follow`] once they are published.
    #[must_use]
    pub fn heads(&self, logs: &Logs) -> Heads {
        // First: what another signer's attachment ended does not grow after it.
        let living = *self.living.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = logs.all_open().into_iter().chain(behind);
        let heads = all.map(|log| {
            let note = log.checkpoint();
            (log.id(), (log, note))
        });
        Heads { living, logs: heads.collect() }
    }

    /// Enters what the logs' heads say that the directory does not say yet, and publishes it.
    ///
    /// # Errors
    /// [`DirectoryError`]; the next call goes on where this one failed.
    pub async fn follow(&self, heads: &Heads) -> Result<(), DirectoryError> {
        let mut writer = self.writer.lock().await;
        if writer.pending.is_some() {
            self.carry_out(&mut writer).await?;
        }
        let plan = self.plan(&mut writer, heads).await;
        if !plan.entries.is_empty() {
            writer.pending = Some(self.sign(&writer, plan)?);
            self.carry_out(&mut writer).await?;
        }
        // Steps 4 and 5 of the logs' order: memory and store drop what is no longer needed.
        Ok(self.log.publish().await.map(drop)?)
    }

    /// Adds cosignatures that came later to the published checkpoint, if it is still the one of this
    /// size; answers whether it is. They must have been verified.
    ///
    /// # Errors
    /// [`DirectoryError`]; the checkpoint is published as it was, or with them.
    pub async fn add_cosignatures(
        &self,
        size: u64,
        signatures: &[Signature],
    ) -> Result<bool, DirectoryError> {
        let writer = self.writer.lock().await;
        let served = self.checkpoint();
        if writer.pending.is_some() || writer.frontier.size() != size || served.is_empty() {
            return Ok(false);
        }
        let note = with_signatures(&served, signatures);
        if *note != *served {
            self.log.publish_checkpoint(&note).await?;
            self.serve(note);
        }
        Ok(true)
    }

    /// At an orderly end: the next start reads no entry twice. Of a directory without entries there is
    /// nothing to remember, and a memory would say that one was published.
    pub async fn remember(&self) {
        let writer = self.writer.lock().await;
        if writer.frontier.size() == 0 {
            return;
        }
        writer.memory.keep_state(self.vkey().name(), &self.reading(), &writer.frontier);
    }

    async fn plan(&self, writer: &mut Writer, heads: &Heads) -> Plan {
        let reading = self.reading();
        let (mut seen, mut unread) = (Vec::with_capacity(heads.logs.len()), Vec::new());
        for (id, (log, note)) in &heads.logs {
            let named = reading.log(*id);
            if note.is_empty() || named.is_some_and(|named| named.closing().is_some()) {
                continue;
            }
            let genesis = match (named, writer.genesis.get(id)) {
                (Some(_), _) => None,
                (None, Some(genesis)) => Some(genesis.clone()),
                (None, None) => match genesis_of(log).await {
                    Ok(genesis) => {
                        writer.genesis.insert(*id, genesis.clone());
                        Some(genesis)
                    }
                    // One log that cannot be read must not keep out the others.
                    Err(e) => {
                        unread.push(format!("log `{id}` is not named: {e}"));
                        continue;
                    }
                },
            };
            seen.push(Seen { id: *id, key: log.vkey().clone(), genesis, note: note.clone() });
        }
        let plan = plan::plan(&reading, &seen, heads.living);
        unread.extend(plan.problems.iter().map(|wrong| format!("an entry is not taken: {wrong}")));
        writer.tell(unread);
        plan
    }

    fn sign(&self, writer: &Writer, plan: Plan) -> Result<Pending, DirectoryError> {
        let first_index = writer.frontier.size();
        let mut frontier = writer.frontier.clone();
        for entry in &plan.entries {
            frontier.append(leaf_hash(entry));
        }
        let signed = |why: String| DirectoryError::Sign(why);
        let origin = self.vkey().name();
        let checkpoint = Checkpoint::new(origin, frontier.size(), frontier.root())
            .map_err(|e| signed(e.to_string()))?;
        let body = checkpoint.body();
        let signature =
            self.key.signing_key().sign(body.as_bytes()).map_err(|e| signed(e.to_string()))?;
        let note = note::sign(&body, self.vkey(), |_| signature);
        let checkpoint = note.map_err(|e| signed(e.to_string()))?;
        let batch = Batch { first_index, entries: plan.entries, checkpoint };
        Ok(Pending { batch, reading: Arc::new(plan.after), frontier })
    }

    /// Steps 1 to 6. Every one of them may be repeated.
    async fn carry_out(&self, writer: &mut Writer) -> Result<(), DirectoryError> {
        let Some(pending) = &writer.pending else { return Ok(()) };
        let next = open::encode_next(&pending.batch, self.vkey())?;
        writer.next.write(&self.store, next.into()).await?;
        let extension = self.log.check(&pending.batch)?;
        self.log.store_tiles_ahead(&extension).await?;
        self.log.extend(extension)?;
        let signatures = match self.cosigner.get() {
            Some(cosigner) => cosigner.cosign(&self.log, &pending.batch.checkpoint).await,
            None => Vec::new(),
        };
        let note = with_signatures(&pending.batch.checkpoint, &signatures);
        self.log.publish_checkpoint(&note).await?;

        let Some(pending) = writer.pending.take() else { return Ok(()) };
        let names =
            |e: &Vec<u8>| !matches!(DirectoryEntry::decode(e), Ok(DirectoryEntry::Checkpoint(_)));
        let is_milestone = pending.batch.entries.iter().any(names);
        writer.frontier = pending.frontier;
        *self.reading.write().unwrap_or_else(PoisonError::into_inner) = pending.reading.clone();
        self.serve(note.clone());
        writer.memory.keep_checkpoint(&note);
        if is_milestone || writer.memory.state_is_due(writer.frontier.size()) {
            writer.memory.keep_state(self.vkey().name(), &pending.reading, &writer.frontier);
        }
        if is_milestone {
            self.settle_milestone(writer, &pending.reading).await;
        }
        Ok(())
    }

    /// What is done when logs were named or closed.
    async fn settle_milestone(&self, writer: &mut Writer, reading: &Reading) {
        writer.genesis.retain(|log, _| reading.log(*log).is_none());
        let is_open =
            |log: &Arc<Log>| reading.log(log.id()).is_none_or(|named| named.closing().is_none());
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).retain(is_open);
        // Only a help: without it, or with an older one, readers look in the entries themselves.
        if let Err(e) = self.store.put(INDEX, index_of(reading).into()).await {
            tracing::warn!("{e}; written again when a log is named or closed");
        }
    }

    fn serve(&self, note: Arc<str>) {
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = note;
    }

    /// A hash tile, for HTTP.
    ///
    /// # Errors
    /// As [`Log::tile`].
    pub async fn tile(&self, id: TileId) -> Result<Bytes, LogError> {
        self.log.tile(id).await
    }

    /// A bundle, for HTTP.
    ///
    /// # Errors
    /// As [`Log::entries`].
    pub async fn entries(&self, id: EntriesTileId) -> Result<Bytes, LogError> {
        self.log.entries(id).await
    }
}

/// A note with more signatures; those that would make it too long are left out.
fn with_signatures(note: &str, signatures: &[Signature]) -> Arc<str> {
    let Ok(mut parsed) = Note::parse(note.as_bytes()) else { return Arc::from(note) };
    for signature in signatures {
        if let Err(e) = parsed.insert(signature.clone()) {
            tracing::warn!("a cosignature by `{}` is left out: {e}", signature.name);
        }
    }
    Arc::from(parsed.encode())
}

/// What a log's first entry says of it, proven to be under its checkpoint.
async fn genesis_of(log: &Log) -> Result<Genesis, LogError> {
    let damaged = |what: String| LogError::Damaged { log: log.id_text().to_owned(), what };
    let (size, root) = log.size_and_root();
    let bundle = log.entries(EntriesTileId { index: 0, width: 1 }).await?;
    let entries = decode_entries(&bundle, 1).map_err(|e| damaged(e.to_string()))?;
    let entry = entries.first().map(Vec::as_slice).unwrap_or_default();
    let leaf = leaf_hash(entry);
    let proof = log.inclusion(0, size).await?;
    verify_inclusion(&leaf, 0, size, &proof, &root).map_err(|e| damaged(e.to_string()))?;
    let genesis = match Entry::decode(entry) {
        Ok(Entry::Genesis(genesis)) => genesis,
        _ => return Err(damaged("its first entry is no genesis".into())),
    };
    let cosigning_key = key_of(&genesis, log.vkey());
    let predecessor = match genesis.predecessor {
        None => None,
        Some(named) => {
            let key = VerifierKey::parse(&named.vkey).map_err(|e| damaged(e.to_string()))?;
            let public = <&[u8; 32]>::try_from(key.public_key());
            Some(LogId::of(public.map_err(|e| damaged(e.to_string()))?))
        }
    };
    Ok(Genesis { leaf, predecessor, cosigning_key })
}

/// `{"size": entries, "logs": [{"log", "origin", "named_at", "checkpoint_at", "size", "closed_at",
/// "successor"}]}`, the logs in the order in which they were named; the oldest closed ones are left out.
fn index_of(reading: &Reading) -> String {
    let mut logs: Vec<_> = reading.logs().collect();
    logs.sort_by_key(|(_, named)| named.named_at());
    let old = logs.len().saturating_sub(MAX_INDEXED);
    let logs: Vec<_> = logs
        .into_iter()
        .enumerate()
        .filter(|(place, (_, named))| *place >= old || named.closing().is_none())
        .map(|(_, log)| log)
        .map(|(id, named)| {
            json!({
                "log": id.to_string(),
                "origin": named.key().name(),
                "named_at": named.named_at(),
                "checkpoint_at": named.latest().map(|(at, _)| at),
                "size": named.latest().map(|(_, latest)| latest.size),
                "closed_at": named.closing().map(|(at, _)| at),
                "successor": reading.successor(id).map(|id| id.to_string()),
            })
        })
        .collect();
    format!("{}\n", json!({"size": reading.size(), "logs": logs}))
}

#[cfg(test)]
pub(crate) mod tests;
