//! The audit: every decision becomes a record that is durable before its token leaves.
//!
//! Order of durability, and what a crash leaves behind at each point:
//!
//! 1. The records of a batch are sealed (`section`) and written with its entries, in one record of the
//!    write-ahead log, under the same `fdatasync`; under `durability = "store"` as an object of their
//!    own, before the batch. What cannot be written is not acknowledged: no token leaves (the audit
//!    fails closed). A crash here: the next start reads the sections again.
//! 2. Now and then a run of sections becomes a segment (`flush`), an immutable object in the store. A
//!    crash here: the segment is found under its name and taken as it is.
//! 3. What is to be stated of it becomes a small object beside it. From here on the write-ahead log may
//!    forget the sections. A crash here: the statement is found, and made.
//! 4. It is stated to the signer, which logs it as the service's word. Once that entry is committed
//!    the small object is deleted. A crash before: it is stated again, which is no contradiction.
//!
//! Refusals of requests whose client is not known are counted together (`strangers`), so that nobody
//! fills the disk; these counts, and notes about what was voided or changed, are in memory until the
//! next batch, at most some seconds.

mod context;
pub mod export;
mod flush;
mod records;
mod recover;
pub mod retention;
mod strangers;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use chancery_audit::keys::{Identity, Recipient};
use chancery_audit::{Outcome, Record, Section, SectionSealer, hour_of};
use chancery_signer_api::{AuditRemoval, Prepared};

pub use context::Context;
pub use recover::{Left, Parts, join_payload, load_left, split_payload};

use strangers::Strangers;

/// Notes that wait for a batch: more are dropped, and said so in the log of the service. An empty
/// frame a second takes them, so that only hundreds of changes a second come near.
const MAX_NOTES: usize = 1_024;

/// Why the audit cannot be kept. Nothing is issued without it.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The key file cannot be read or made.
    #[error(
        "audit key `{path}`: {why}; restore it from a copy: records that are not in segments yet can \
         be read with it only"
    )]
    KeyFile {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A record cannot be sealed or opened.
    #[error(transparent)]
    Data(#[from] chancery_audit::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// The audit of one service.
#[derive(Debug)]
pub struct Audit {
    state: Mutex<State>,
    recipients: Vec<Recipient>,
    identities: std::sync::Arc<[Identity]>,
    /// Held while segments are deleted, and while holds change.
    retention: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    sealer: SectionSealer,
    /// What is not in a stated segment yet, in order.
    pending: VecDeque<Pending>,
    /// Number of each log's next record.
    next: HashMap<[u8; 16], u64>,
    /// Time of the last record: the next is never before it.
    last_ms: u64,
    notes: Vec<Record>,
    strangers: Strangers,
    /// Segments that are stored and not known to be logged, in order.
    flights: VecDeque<flush::Flight>,
    /// Segments that are to be deleted once the log says so, and when that was last asked for.
    removals: Vec<(AuditRemoval, Option<Instant>)>,
}

/// Where a section is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this record of the write-ahead log.
    Wal(u64),
    /// In this object of the store.
    Object(String),
}

/// A section that is durable and in no stated segment.
#[derive(Clone, Debug)]
struct Pending {
    log: [u8; 16],
    first: u64,
    count: u64,
    hour: u64,
    /// Whether the key at hand opens it. Otherwise it goes to the store as it is.
    opens: bool,
    sealed: Bytes,
    place: Place,
    since: Instant,
}

impl Pending {
    fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// A section to be made durable with its batch.
#[derive(Debug)]
pub struct Draft {
    log: [u8; 16],
    first: u64,
    count: u64,
    time_ms: u64,
    /// How many of the notes that wait are in it.
    notes: usize,
    sealed: Vec<u8>,
}

impl Draft {
    /// Its bytes.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// The object that holds it where the store comes first.
    #[must_use]
    pub fn object(&self, log: chancery_tlog::LogId) -> String {
        recover::pending_object(&log, self.first)
    }
}

/// Starts what is done beside the main job: segments, and exports.
pub fn start(service: &std::sync::Arc<crate::service::Service>) {
    tokio::spawn(flush::flush_forever(service.clone()));
    tokio::spawn(retention::retain_forever(service.clone()));
    export::start(service);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Audit {
    /// With the key in this file, which is made if absent, and more recipients who can read what is
    /// written from now on.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn open(key_file: &Path, recipients: &[Recipient]) -> Result<Self, AuditError> {
        let identity = load_or_make(key_file)?;
        let mut all = vec![identity.recipient().clone()];
        all.extend(recipients.iter().filter(|r| *r != identity.recipient()).cloned());
        let state = State {
            sealer: SectionSealer::new(&all)?,
            pending: VecDeque::new(),
            next: HashMap::new(),
            last_ms: 0,
            notes: Vec::new(),
            strangers: Strangers::default(),
            flights: VecDeque::new(),
            removals: Vec::new(),
        };
        let identities = vec![identity].into();
        let (state, retention) = (Mutex::new(state), tokio::sync::Mutex::default());
        Ok(Self { state, recipients: all, identities, retention })
    }

    /// The records of a batch, sealed; `None` when there is nothing to record. `is_known` says that
    /// the batch was made durable before, records included.
    ///
    /// # Errors
    /// [`AuditError::Data`].
    pub fn draft(
        &self,
        log: [u8; 16],
        prepared: &Prepared,
        is_known: bool,
    ) -> Result<Option<Draft>, AuditError> {
        let mut state = lock(&self.state);
        let time_ms = now_ms().max(state.last_ms);
        let mut records = state.strangers.take(Instant::now());
        // Not taken from the state before they are durable.
        let notes = state.notes.len();
        records.extend(state.notes.iter().cloned());
        if !is_known {
            records.extend(records::of_batch(prepared, time_ms, &mut state.strangers));
        }
        if records.is_empty() {
            return Ok(None);
        }
        for record in &mut records {
            record.time_ms = time_ms;
        }
        let records: Vec<Record> = records.into_iter().map(Record::bounded).collect();
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let first = state.next.get(&log).copied().unwrap_or(0);
        let sealed = state.sealer.seal(&Section { log, first, records })?;
        Ok(Some(Draft { log, first, count, time_ms, notes, sealed }))
    }

    /// The section is durable.
    pub fn accept(&self, draft: Draft, place: Place) {
        let mut state = lock(&self.state);
        state.notes.drain(..draft.notes);
        state.last_ms = draft.time_ms;
        state.next.insert(draft.log, draft.first.saturating_add(draft.count));
        state.pending.push_back(Pending {
            log: draft.log,
            first: draft.first,
            count: draft.count,
            hour: hour_of(draft.time_ms),
            opens: true,
            sealed: draft.sealed.into(),
            place,
            since: Instant::now(),
        });
    }

    /// All records of the write-ahead log up to this one may be forgotten as far as the audit goes.
    #[must_use]
    pub fn floor(&self) -> u64 {
        let state = lock(&self.state);
        let first = state.pending.iter().find_map(|pending| match pending.place {
            Place::Wal(sequence) => Some(sequence.saturating_sub(1)),
            Place::Object(_) => None,
        });
        first.unwrap_or(u64::MAX)
    }

    /// Notes something that is no decision on a request; it is recorded with the next batch.
    pub fn note(&self, record: Record) {
        let mut state = lock(&self.state);
        if state.notes.len() < MAX_NOTES {
            state.notes.push(record);
        } else {
            tracing::error!(code = record.code, "too many notes wait for the audit; one is lost");
        }
    }

    /// An operator changed something.
    pub fn note_change(&self, code: &str, realm: &str, detail: String, operator: String) {
        let mut record = Record::new(now_ms(), Outcome::Changed);
        record.code = code.to_owned();
        record.realm = realm.to_owned();
        record.detail = detail;
        record.client = operator;
        self.note(record);
    }

    /// A granted token was never released.
    pub fn note_voided(&self, granted: &chancery_signer_api::GrantedToken, context: &[u8]) {
        self.note(records::voided(granted, context));
    }

    /// Records that are in no stated segment, and sections that hold them.
    #[must_use]
    pub fn waiting(&self) -> (u64, usize) {
        let state = lock(&self.state);
        (state.pending.iter().map(|p| p.count).sum(), state.pending.len())
    }
}

/// Unix milliseconds.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The key file, mode 0600. One that is there and does not parse is an error: making another would
/// lock out what was written under the first.
fn load_or_make(path: &Path) -> Result<Identity, AuditError> {
    let failed = |why: String| AuditError::KeyFile { path: path.display().to_string(), why };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let text = zeroize::Zeroizing::new(text);
            Identity::parse(&text).map_err(|e| failed(e.to_string()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let identity = Identity::generate()?;
            write_key(path, &identity.to_text()).map_err(|e| failed(e.to_string()))?;
            Ok(identity)
        }
        Err(e) => Err(failed(e.to_string())),
    }
}

/// Durable, folder included, before anything is encrypted to it.
fn write_key(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let draft = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
