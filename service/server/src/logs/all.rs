//! All logs that the service knows: the living signer's, those of dead ones whose keys count, and
//! those that somebody reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_signer_api::AuditRemoval;
use chancery_tlog::LogId;
use chancery_tlog::note::VerifierKey;

use super::{Log, LogError};
use crate::ledger::{Audited, SummaryKey};
use crate::store::Store;

/// Logs of dead signers that are kept open at a time; others are opened again when asked for.
pub(super) const MAX_OPEN_LOGS: usize = 64;

/// All logs that the service knows.
#[derive(Debug)]
pub struct Logs {
    store: Store,
    summaries: Option<SummaryKey>,
    open: Mutex<HashMap<LogId, Arc<Log>>>,
}

impl Logs {
    /// No log opened yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self::with_summaries(store, None)
    }

    /// No log opened yet; those that are keep summaries of their ledgers.
    #[must_use]
    pub fn with_summaries(store: Store, summaries: Option<SummaryKey>) -> Self {
        Self { store, summaries, open: Mutex::default() }
    }

    /// A log without entries, not known yet.
    #[must_use]
    pub fn fresh(&self, id: LogId, vkey: VerifierKey) -> Log {
        Log::empty(self.store.clone(), id, vkey).with_summaries(self.summaries.clone())
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Arc<Log>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a log known, opened or new.
    pub fn insert(&self, log: Arc<Log>) {
        self.opened().insert(log.id(), log);
    }

    /// A log that is open.
    #[must_use]
    pub fn get(&self, id: LogId) -> Option<Arc<Log>> {
        self.opened().get(&id).cloned()
    }

    /// A log to read from, opened from the store if need be.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub async fn open(&self, id: LogId) -> Result<Arc<Log>, LogError> {
        match self.get(id) {
            Some(log) => Ok(log),
            None => self.open_as(id, false).await,
        }
    }

    /// A log whose ledger is known.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub async fn open_with_ledger(&self, id: LogId) -> Result<Arc<Log>, LogError> {
        match self.get(id) {
            Some(log) if log.has_ledger => Ok(log),
            _ => self.open_as(id, true).await,
        }
    }

    async fn open_as(&self, id: LogId, with_ledger: bool) -> Result<Arc<Log>, LogError> {
        let log = Log::open(self.store.clone(), id, with_ledger, self.summaries.as_ref()).await?;
        let log = Arc::new(log);
        let mut open = self.opened();
        if open.len() >= MAX_OPEN_LOGS {
            // Those opened only to be served go first; they can be opened again.
            open.retain(|_, log| log.has_ledger);
        }
        match open.get(&id) {
            Some(other) if other.has_ledger || !with_ledger => Ok(other.clone()),
            _ => {
                open.insert(id, log.clone());
                Ok(log)
            }
        }
    }

    /// A log to append to: opened from the store, or new under this key.
    ///
    /// # Errors
    /// As [`Log::open`], except for unknown logs.
    pub async fn open_or_new(&self, id: LogId, vkey: VerifierKey) -> Result<Arc<Log>, LogError> {
        match self.open_with_ledger(id).await {
            Err(LogError::Unknown(_)) => {
                let log = Arc::new(self.fresh(id, vkey));
                self.insert(log.clone());
                Ok(log)
            }
            other => other,
        }
    }

    /// How far the audit of a log is in segments that any log names.
    #[must_use]
    pub fn audited(&self, log: &[u8; 16]) -> Audited {
        let logs = self.all_open();
        logs.iter().map(|l| l.audited(log)).fold(Audited::default(), Audited::max)
    }

    /// Whether any log says that these segments are deleted.
    #[must_use]
    pub fn is_removal_logged(&self, removal: &AuditRemoval) -> bool {
        self.all_open().iter().any(|log| log.has_removed(removal))
    }

    /// Every open log whose ledger is known: the living signer's and those whose keys still count.
    #[must_use]
    pub fn all_open(&self) -> Vec<Arc<Log>> {
        self.opened().values().filter(|l| l.has_ledger).cloned().collect()
    }
}
