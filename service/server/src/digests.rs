//! Finding an entry by its leaf hash: for tokens whose `jti` comes from somebody else and names no
//! place in a log, as those that Kubernetes' API server composes.
//!
//! An index is a cache in the data folder, never a source of truth: it is made from the log's own
//! tiles, can be deleted at any time, and is made again. A file of it counts only while the log still
//! has the root that it had when the file was made; its records are compared with the log's tiles, some
//! when it is opened and all of them in time; every hit is compared with the leaf in the log's tile, and
//! an answer says up to which size it looked. Whoever asks verifies an inclusion proof.
//!
//! | file | what it is |
//! |---|---|
//! | `digests/run.rs` | one sorted file |
//! | `digests/index.rs` | the files of one log, and its last leaves in memory |
//! | `digests/compare.rs` | whether a file says what the log's tiles say |

mod compare;
mod index;
mod run;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use chancery_tlog::{HASH_BYTES, Hash, LogId, TILE_WIDTH, TileId};

use self::index::{Index, open_files, remove};
use self::run::{Key, MAX_CANDIDATES};
use crate::logs::{Log, LogError};
use crate::service::Service;

pub use self::index::FLUSH_LEAVES;
pub use self::run::RunError;

/// How often indexes follow their logs. A lookup that finds one a little behind does it at once.
const KEEP_UP_EVERY: Duration = Duration::from_secs(1);
/// Leaves that a lookup waits for: 64 tiles.
const LOOKUP_CATCHES_UP: u64 = FLUSH_LEAVES;
/// Leaves of one log before it is the next one's turn.
const LEAVES_A_TURN: u64 = 16 * FLUSH_LEAVES;
/// Why an index cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// No index is kept here.
    #[error(
        "this service keeps no index of leaf hashes: no realm of it is looked up by digest; set \
         `storage.digest_index`"
    )]
    Off,
    /// No key of the log counts any more, so no index of it is kept.
    #[error("no index is kept of a log none of whose keys counts any more")]
    Past,
    /// The log cannot be read, or contradicts itself.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index' files cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Many leaves begin as this one does, and the first of them are others.
    #[error("too many entries were made to have leaf hashes that begin as this one does")]
    Crowded,
}

/// What an index says of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where the leaf stands; the lowest place if there are several. `None`: among those searched it
    /// is not.
    pub index: Option<u64>,
    /// Leaves, from the log's first on, that were searched.
    pub searched: u64,
}

/// The indexes of all logs that are looked up by digest.
#[derive(Debug)]
pub struct Digests {
    folder: PathBuf,
    on: AtomicBool,
    /// Each has up to a megabyte of leaves and 24 files; there are as many as logs whose keys count.
    open: Open,
    /// Files that were found damaged.
    damaged: Counter,
    /// Held by whoever opens one: two could each take the other's files for leftovers.
    opening: tokio::sync::Mutex<()>,
}

type Open = Arc<Mutex<HashMap<LogId, Arc<Kept>>>>;

/// One open index.
#[derive(Debug)]
struct Kept {
    index: Index,
    /// Held by whoever adds leaves.
    growing: tokio::sync::Mutex<()>,
    /// The tile that is compared with the log next.
    compared: AtomicU64,
}

impl Digests {
    /// Indexes below this folder; none is open yet.
    #[must_use]
    pub fn new(folder: PathBuf, on: bool) -> Self {
        Self {
            folder,
            on: AtomicBool::new(on),
            open: Open::default(),
            damaged: Counter::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Counts files that are found damaged here.
    #[must_use]
    pub fn counting(self, damaged: Counter) -> Self {
        Self { damaged, ..self }
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<LogId, Arc<Kept>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Throws the index away that has a damaged file, and the file: the next call begins to make it
    /// again. Lookups meanwhile say how far they looked.
    fn note_damage(&self, log: LogId, kept: &Arc<Kept>, error: &DigestError) {
        if let DigestError::Run(error) = error {
            discard(&self.open, &self.damaged, log, kept, error);
        }
    }

    /// Looks a leaf up.
    ///
    /// # Errors
    /// [`DigestError`]. After a damaged file the next call begins to make the index again.
    pub async fn find(&self, log: &Log, leaf: Hash) -> Result<Answer, DigestError> {
        if !self.on.load(Ordering::Relaxed) {
            return Err(DigestError::Off);
        }
        // Strangers ask: old logs would be read whole for them, and their indexes kept.
        if !log.has_ledger() {
            return Err(DigestError::Past);
        }
        let kept = self.kept(log).await?;
        let behind = log.size_and_root().0.saturating_sub(kept.index.covered());
        if behind <= LOOKUP_CATCHES_UP {
            // What is covered can be searched, and the answer says how far that reaches.
            match self.grow(log, &kept, behind).await {
                Err(DigestError::Run(e @ RunError::Io { .. })) => {
                    tracing::warn!("index of leaf hashes: {e}; it is behind");
                }
                grown => grown?,
            }
        }
        let found = search(log, &kept.index, leaf).await;
        if let Err(error) = &found {
            self.note_damage(log.id(), &kept, error);
        }
        found
    }

    /// Bytes on the disk and files of an open index.
    #[must_use]
    pub fn files(&self, log: LogId) -> Option<(u64, usize)> {
        self.opened().get(&log).map(|kept| kept.index.files())
    }

    async fn kept(&self, log: &Log) -> Result<Arc<Kept>, DigestError> {
        let known = || self.opened().get(&log.id()).cloned();
        if let Some(kept) = known() {
            return Ok(kept);
        }
        let _opening = self.opening.lock().await;
        if let Some(kept) = known() {
            return Ok(kept);
        }
        let folder = self.folder.join(log.id_text());
        let (of, id) = (folder.clone(), log.id());
        let mut runs = blocking(move || open_files(&of, id)).await?;
        let size = log.size_and_root().0;
        let mut holds: usize = 0;
        for run in &runs {
            let stretch = run.stretch();
            if stretch.to > size || log.tree_at(stretch.to).await?.root() != stretch.root {
                tracing::warn!(log = log.id_text(), "an index of another history; made again");
                break;
            }
            match compare::sample(log, run).await {
                Ok(()) => holds = holds.saturating_add(1),
                Err(DigestError::Run(e @ RunError::Damaged { .. })) => {
                    tracing::error!("index of leaf hashes: {e}");
                    self.damaged.inc();
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        for run in runs.drain(holds.min(runs.len())..) {
            remove(run.path());
        }
        let end = runs.last().map_or(0, |run| run.stretch().to);
        let index = Index::new(&folder, id, runs, log.tree_at(end).await?);
        let kept = Arc::new(Kept {
            index,
            growing: tokio::sync::Mutex::default(),
            compared: AtomicU64::default(),
        });
        self.opened().insert(id, Arc::clone(&kept));
        Ok(kept)
    }

    /// Adds up to `most` further leaves of the log, tile by tile.
    async fn grow(&self, log: &Log, kept: &Arc<Kept>, most: u64) -> Result<(), DigestError> {
        let _growing = kept.growing.lock().await;
        let (size, _) = log.size_and_root();
        let index = &kept.index;
        let goal = size.min(index.covered().saturating_add(most));
        while index.covered() < goal {
            let room = index.room();
            if room == 0 {
                self.flush(log, kept).await?;
                continue;
            }
            let from = index.covered();
            let Some(id) = TileId::at(0, from / TILE_WIDTH, size) else { break };
            let tile = log.tile(id).await?;
            let begin = usize::try_from(from % TILE_WIDTH).unwrap_or(0);
            let room = usize::try_from(room.min(goal.saturating_sub(from))).unwrap_or(0);
            index.extend(leaves(&tile).skip(begin).take(room));
        }
        Ok(())
    }

    /// Makes the leaves in memory a file, if they are the log's.
    async fn flush(&self, log: &Log, kept: &Arc<Kept>) -> Result<(), DigestError> {
        let index = &kept.index;
        if log.tree_at(index.covered()).await?.root() != index.root() {
            // Such a tile would hide entries. Whoever reads it from the store notices; here the index
            // is thrown away and made again.
            self.opened().remove(&log.id());
            let what = "its tiles do not hash to the tiles above them".to_owned();
            return Err(LogError::Damaged { log: log.id_text().to_owned(), what }.into());
        }
        // Some milliseconds of writing, once in 16,384 leaves.
        let kept = Arc::clone(kept);
        Ok(blocking(move || kept.index.flush()).await?)
    }

    /// Lets indexes follow their logs, as long as the service lives.
    pub async fn keep_up(service: Arc<Service>) {
        let mut failing = false;
        loop {
            let digests = &service.digests;
            digests.on.store(service.wants_digests(), Ordering::Relaxed);
            let mut behind = false;
            if digests.on.load(Ordering::Relaxed) {
                let result = digests.turn(&service).await;
                if let (Err(e), false) = (&result, failing) {
                    tracing::warn!("index of leaf hashes: {e}; trying again");
                }
                failing = result.is_err();
                behind = result.unwrap_or(false);
            }
            if !behind {
                tokio::time::sleep(KEEP_UP_EVERY).await;
            }
        }
    }

    /// One turn for every log whose keys still count. Says whether one of them is still behind; the last
    /// failure, after the others had their turn.
    async fn turn(&self, service: &Service) -> Result<bool, DigestError> {
        let logs = service.logs.all_open();
        self.opened().retain(|id, _| logs.iter().any(|log| log.id() == *id));
        // Not before every log that counts was opened.
        if service.issuer.is_ready() {
            let counting = logs.iter().map(|log| log.id_text().to_owned()).collect();
            let folder = self.folder.clone();
            let past = tokio::task::spawn_blocking(move || remove_past(&folder, &counting));
            let _ = past.await;
        }
        let mut result = Ok(false);
        for log in logs {
            match self.turn_of(&log).await {
                Ok(behind) => result = result.map(|others| others || behind),
                Err(e) => {
                    self.opened().remove(&log.id());
                    result = Err(e);
                }
            }
        }
        result
    }

    /// Compares the next tile that is in files with the log's own; all of them in time.
    async fn compare_next(log: &Log, kept: &Kept) -> Result<(), DigestError> {
        let runs = kept.index.runs();
        let end = runs.last().map_or(0, |run| run.stretch().to);
        let tile = kept.compared.load(Ordering::Relaxed);
        let tile = if tile.saturating_mul(TILE_WIDTH) < end { tile } else { 0 };
        kept.compared.store(tile.saturating_add(1), Ordering::Relaxed);
        compare::tile_agrees(log, &runs, tile).await
    }

    async fn turn_of(&self, log: &Log) -> Result<bool, DigestError> {
        let kept = self.kept(log).await?;
        let followed = self.follow(log, &kept).await;
        if let Err(error) = &followed {
            self.note_damage(log.id(), &kept, error);
        }
        let behind = followed?;
        // Joining files of gigabytes must not keep the others waiting.
        let (open, damaged, id) = (Arc::clone(&self.open), self.damaged.clone(), log.id());
        tokio::task::spawn_blocking(move || {
            if let Err(e) = kept.index.merge() {
                tracing::warn!("index of leaf hashes: {e}");
                discard(&open, &damaged, id, &kept, &e);
            }
        });
        Ok(behind)
    }

    /// Adds leaves, or where there are none compares some; says whether there are more.
    async fn follow(&self, log: &Log, kept: &Arc<Kept>) -> Result<bool, DigestError> {
        self.grow(log, kept, LEAVES_A_TURN).await?;
        let behind = kept.index.covered() < log.size_and_root().0;
        if !behind {
            Self::compare_next(log, kept).await?;
        }
        Ok(behind)
    }
}

/// Removes the indexes of logs whose keys are gone: nobody is answered from them any more.
fn remove_past(folder: &Path, counting: &HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.parse::<LogId>().is_ok()) else {
            continue;
        };
        if !counting.contains(name)
            && let Err(e) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!("index of leaf hashes: cannot remove `{}`: {e}", entry.path().display());
        }
    }
}

/// Takes a damaged file away, and the index that has it: what is left is opened again, and the rest
/// made again from the log. An index that was thrown away already says nothing of the files that were
/// made since under the same names.
fn discard(open: &Open, damaged: &Counter, log: LogId, kept: &Arc<Kept>, error: &RunError) {
    let RunError::Damaged { path, .. } = error else { return };
    let mut opened = open.lock().unwrap_or_else(PoisonError::into_inner);
    if opened.get(&log).is_some_and(|known| Arc::ptr_eq(known, kept)) {
        tracing::error!("index of leaf hashes: {error}");
        damaged.inc();
        remove(path);
        opened.remove(&log);
    }
}

/// The leaf hashes of a tile.
fn leaves(tile: &[u8]) -> impl Iterator<Item = Hash> {
    tile.chunks_exact(HASH_BYTES).filter_map(|hash| Some(Hash(hash.try_into().ok()?)))
}

async fn search(log: &Log, index: &Index, leaf: Hash) -> Result<Answer, DigestError> {
    let key = Key::of(&leaf);
    let candidates = index.candidates(key);
    let searched = candidates.searched;
    let runs = candidates.runs;
    let found = move || runs.iter().map(|run| run.find(key)).collect::<Result<Vec<_>, _>>();
    // Files first: they hold the lower places.
    let mut found = blocking(found).await?;
    found.push(candidates.recent);
    // Those behind the first ones were not compared, so that the leaf is not there would be a lie.
    let crowded = found.iter().any(|places| places.len() >= MAX_CANDIDATES);
    for at in found.into_iter().flatten() {
        if leaf_at(log, at).await? == Some(leaf) {
            return Ok(Answer { index: Some(at), searched });
        }
    }
    if crowded {
        return Err(DigestError::Crowded);
    }
    Ok(Answer { index: None, searched })
}

async fn leaf_at(log: &Log, index: u64) -> Result<Option<Hash>, DigestError> {
    let Some(id) = TileId::at(0, index / TILE_WIDTH, log.size_and_root().0) else {
        return Ok(None);
    };
    let tile = log.tile(id).await?;
    let within = usize::try_from(index % TILE_WIDTH).unwrap_or(0);
    Ok(leaves(&tile).nth(within))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    let failed = |e: tokio::task::JoinError| RunError::Io {
        path: PathBuf::new(),
        why: format!("the reading thread ended: {e}"),
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(failed(e)))
}

#[cfg(test)]
pub(crate) mod tests;
