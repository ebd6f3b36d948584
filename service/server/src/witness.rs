//! A witness for other people's logs (c2sp.org/tlog-witness): it remembers the latest checkpoint that
//! it cosigned of each log that it was told about, and cosigns only what extends it.
//!
//! [`chancery_tlog::witness`] judges. What is added here is memory, keys and a clock, and one rule of
//! order: a cosignature leaves only after the checkpoint under it is on the disk. For each log one
//! request at a time goes through
//!
//! 1. finish what an earlier request began to store and could not,
//! 2. judge against the latest checkpoint,
//! 3. cosign, in memory,
//! 4. store the cosigned checkpoint in place of the latest one, and wait for the disk,
//! 5. answer.
//!
//! A crash before 4 leaves the old checkpoint, and nobody has seen a cosignature; a crash after it
//! leaves the new one, and the client, which got no answer, learns of it by a 409.

mod config;
mod disk;
mod http;
mod keys;
mod metrics;
mod records;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use chancery_tlog::cosignature;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::witness::{
    AddCheckpoint, Approved, Latest, Refusal, checkpoint_path, encode_signatures, judge,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use config::{WatchedDocument, WitnessConfig};
pub use disk::{Disk, Folder};
pub use http::{admin, public};
pub use keys::{Cosigner, load_or_make};
pub use metrics::Metrics;
pub use records::Known;

/// How far the wall clock may stand behind the last cosignature of a log. Within it the new one gets
/// the last one's time, so that times never run backwards; beyond it the clock is wrong.
const CLOCK_SLACK_S: u64 = 60;

/// Requests with a log's signature and a proof that does not hold are kept as evidence, so many for
/// each log: the first ones tell the story, and whoever repeats them must not fill the disk.
const MAX_EVIDENCE: usize = 16;

/// Why a witness cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The configuration is wrong.
    #[error("witness configuration: {0}")]
    Config(String),
    /// A file or folder cannot be used.
    #[error("`{path}`: {why}")]
    File {
        /// Where.
        path: PathBuf,
        /// The operating system's word.
        why: String,
    },
    /// A key file is not what it should be.
    #[error("key file `{path}`: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A record is damaged.
    #[error(
        "record `{path}`: {why}; put there the last checkpoint of the log that carries this \
         witness's cosignature (the log publishes it), or restore the data folder from a copy"
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The records are older than what this witness cosigned.
    #[error("ROLLED BACK: {0}")]
    RolledBack(String),
}

/// Why a request gets no cosignature.
#[derive(Debug, PartialEq, Eq)]
pub enum No {
    /// The protocol says so.
    Refused(Refusal),
    /// The disk does not take the checkpoint.
    Storage,
    /// The wall clock stands before the last cosignature.
    Clock,
    /// A key does not sign: ours.
    Signing,
}

/// A running witness.
pub struct Witness {
    cosigners: Vec<Cosigner>,
    /// By origin.
    logs: HashMap<String, Arc<Watched>>,
    /// By [`checkpoint_path`].
    paths: HashMap<String, Arc<Watched>>,
    disk: Arc<dyn Disk>,
    metrics: Arc<Metrics>,
    clock: fn() -> u64,
}

/// A log that is witnessed.
struct Watched {
    origin: String,
    keys: Vec<VerifierKey>,
    /// One request at a time; the lock goes with the work, so that a client that hangs up cannot
    /// leave it half done.
    state: Arc<Mutex<State>>,
    /// The latest cosigned checkpoint, for monitors.
    shown: RwLock<Option<Arc<str>>>,
}

#[derive(Default)]
struct State {
    latest: Option<Known>,
    /// A checkpoint that may or may not be on the disk, because storing it failed. Its cosignature
    /// has left to nobody; it is stored before anything else is judged, so that what is on the disk
    /// is always what is in memory.
    begun: Option<Known>,
}

impl Witness {
    /// A witness that remembers, for each log, what `records` says.
    ///
    /// # Errors
    /// [`WitnessError`] when a record cannot be read or is older than its second copy.
    pub fn new(
        cosigners: Vec<Cosigner>,
        logs: Vec<(String, Vec<VerifierKey>)>,
        disk: Arc<dyn Disk>,
        clock: fn() -> u64,
    ) -> Result<Arc<Self>, WitnessError> {
        let own: Vec<VerifierKey> = cosigners.iter().map(|c| c.vkey().clone()).collect();
        let metrics = Arc::new(Metrics::new());
        let mut watched = HashMap::new();
        let mut paths = HashMap::new();
        for (origin, keys) in logs {
            let latest = records::load(disk.as_ref(), &origin, &own)?;
            if let Some(known) = &latest {
                metrics.latest(&origin, known);
            }
            let shown = RwLock::new(latest.as_ref().map(|known| known.note.clone()));
            let state = Arc::new(Mutex::new(State { latest, begun: None }));
            let log = Arc::new(Watched { origin: origin.clone(), keys, state, shown });
            paths.insert(checkpoint_path(&origin), log.clone());
            watched.insert(origin, log);
        }
        Ok(Arc::new(Self { cosigners, logs: watched, paths, disk, metrics, clock }))
    }

    /// The keys that cosign.
    pub fn vkeys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.cosigners.iter().map(Cosigner::vkey)
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The latest cosigned checkpoint at `path` ([`checkpoint_path`]).
    #[must_use]
    pub fn checkpoint(&self, path: &str) -> Option<Arc<str>> {
        let log = self.paths.get(path)?;
        log.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What `add-checkpoint` does; answers the cosignatures, one a line.
    ///
    /// # Errors
    /// [`No`].
    pub async fn add_checkpoint(self: &Arc<Self>, body: &[u8]) -> Result<String, No> {
        let result = self.judged(body).await;
        self.metrics.answered(&result);
        result
    }

    async fn judged(self: &Arc<Self>, body: &[u8]) -> Result<String, No> {
        let refused = |e| No::Refused(Refusal::Malformed(e));
        let request = AddCheckpoint::parse(body).map_err(refused)?;
        let log = self.logs.get(request.origin()).cloned();
        let log = log.ok_or(No::Refused(Refusal::UnknownOrigin))?;
        let state = log.state.clone().lock_owned().await;
        let witness = self.clone();
        // The disk's work must not hold up other requests; a client that hangs up does not stop it.
        let work = move || witness.cosign(&log, state, &request);
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(No::Storage))
    }

    /// The five steps; `state` is locked until the end.
    fn cosign(
        &self,
        log: &Watched,
        mut state: OwnedMutexGuard<State>,
        request: &AddCheckpoint,
    ) -> Result<String, No> {
        self.finish(log, &mut state)?;

        let latest = state.latest.as_ref().map(|k| Latest { size: k.size, root: k.root });
        let approved = judge(request, &log.keys, latest.as_ref()).map_err(|refusal| {
            if matches!(refusal, Refusal::Inconsistent(_)) {
                self.keep_evidence(log, request);
            }
            No::Refused(refusal)
        })?;

        let at = self.time_after(state.latest.as_ref())?;
        let (known, lines) = self.sign(approved, at)?;

        // The point of no return: from here on the disk may hold it.
        state.begun = Some(known);
        self.finish(log, &mut state)?;
        Ok(lines)
    }

    /// Stores what was begun, if anything; then, and only then, it is the latest.
    fn finish(&self, log: &Watched, state: &mut State) -> Result<(), No> {
        let Some(known) = state.begun.take() else { return Ok(()) };
        let name = records::name(&log.origin);
        if let Err(e) = self.disk.replace(&name, known.note.as_bytes()) {
            tracing::error!(origin = log.origin, "cannot store a checkpoint: {e}");
            self.metrics.storage_failed();
            state.begun = Some(known);
            return Err(No::Storage);
        }
        self.metrics.latest(&log.origin, &known);
        let note = known.note.clone();
        *log.shown.write().unwrap_or_else(PoisonError::into_inner) = Some(note);
        state.latest = Some(known);
        Ok(())
    }

    /// The cosignature's time: never before the last one's.
    fn time_after(&self, latest: Option<&Known>) -> Result<u64, No> {
        let now = (self.clock)();
        let last = latest.map_or(0, |known| known.at);
        if last.saturating_sub(now) > CLOCK_SLACK_S || now == 0 {
            tracing::error!(now, last, "the wall clock stands before the last cosignature");
            return Err(No::Clock);
        }
        Ok(now.max(last))
    }

    fn sign(&self, approved: Approved, at: u64) -> Result<(Known, String), No> {
        let Approved { checkpoint, mut note } = approved;
        let failed = |e: chancery_tlog::Error| {
            tracing::error!("cosigning: {e}");
            No::Signing
        };
        let mut made = Vec::with_capacity(self.cosigners.len());
        for cosigner in &self.cosigners {
            // An empty signature is refused by its length.
            let sign = |message: &[u8]| cosigner.sign(message).unwrap_or_default();
            let line = cosignature::sign(cosigner.vkey(), at, &note.text, sign).map_err(failed)?;
            made.push(line.clone());
            note.insert(line).map_err(failed)?;
        }
        let lines = encode_signatures(&made).map_err(failed)?;
        let note: Arc<str> = note.encode().into();
        Ok((Known { size: checkpoint.size, root: checkpoint.root, at, note }, lines))
    }

    /// The log signed a tree that is not shown to extend its last one: that may be the only proof.
    fn keep_evidence(&self, log: &Watched, request: &AddCheckpoint) {
        let size = request.checkpoint().size;
        tracing::error!(origin = log.origin, size, "INCONSISTENT: the tree does not extend ours");
        let name = records::evidence_name(&log.origin, &request.note().text);
        if let Err(e) = self.disk.add_evidence(&name, request.encode().as_bytes(), MAX_EVIDENCE) {
            tracing::error!("cannot keep the evidence `{name}`: {e}");
        }
    }
}
