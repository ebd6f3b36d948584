//! Step 6, the point of no return: a batch and its audit records go to the write-ahead log, then into the log in
//! memory, from where the publisher takes it to the store. Or, under `durability = "store"`, to the
//! store first, and the write-ahead log is not written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chancery_signer_api::Prepared;

use crate::audit::{Audit, Draft, Place, join_payload};
use crate::keyset::KeySets;
use crate::link::LinkError;
use crate::logs::{Batch, Extension, Log, LogError};
use crate::metrics::Metrics;
use crate::wal::{RecordKind, Wal, WalError};

/// How long to wait before a failed write is tried again: long enough not to burn a core on a
/// full disk or a store that refuses, short enough that a freed one is noticed at once.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How far the write-ahead log and the store are, shared with the publisher.
#[derive(Debug, Default)]
pub struct Progress {
    /// Sequence number of the last record whose batch is in the log in memory.
    pub applied: AtomicU64,
    /// All records up to this one are durable in the store.
    pub published: AtomicU64,
}

/// Writes batches of one log.
pub struct Journal<'a> {
    /// The write-ahead log.
    pub wal: &'a mut Wal,
    /// The log that batches extend.
    pub log: Arc<Log>,
    /// Shared with the publisher.
    pub progress: Arc<Progress>,
    /// The served key sets.
    pub keys: Arc<KeySets>,
    /// For what goes wrong.
    pub metrics: Arc<Metrics>,
    /// What every decision is recorded in.
    pub audit: Arc<Audit>,
    /// Where the store must have a batch before it is acknowledged: what runs its calls.
    pub store_first: Option<tokio::runtime::Handle>,
}

impl Journal<'_> {
    /// Makes a batch durable and extends the log. Waits out a full or failing disk: until the
    /// record is written the batch is neither acknowledged nor visible.
    ///
    /// # Errors
    /// [`LinkError`] when the write-ahead log is beyond repair, the batch does not continue the
    /// log, or the service stops while the disk fails.
    pub fn write(
        &mut self,
        prepared: &Prepared,
        trouble: impl Fn(Option<&'static str>),
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), LinkError> {
        let draft = self.draft(prepared)?;
        if prepared.entries.is_empty() {
            return self.write_refusals(prepared.first_index, draft, trouble, is_stopping);
        }
        let batch = Batch {
            first_index: prepared.first_index,
            entries: prepared.entries.iter().map(|e| e.to_vec()).collect(),
            checkpoint: prepared.checkpoint.clone(),
        };
        // Checked first: recovery must find nothing in the write-ahead log that the log refuses.
        let extension = self.log.check(&batch)?;
        if let Some(runtime) = &self.store_first {
            self.store(runtime, Some(&extension), draft.as_ref(), trouble, is_stopping)?;
            self.accept(draft, None);
            return Ok(self.log.extend(extension)?);
        }
        let payload = self.log.encode(&batch)?;
        let (kind, payload) = match &draft {
            None => (RecordKind::Batch, payload),
            Some(draft) => (RecordKind::Audited, join_payload(draft.sealed(), &payload)),
        };
        let sequence = self.append(kind, batch.first_index, &payload, trouble, is_stopping)?;
        // Before the log grows: what is published may be forgotten, up to where the audit waits.
        self.accept(draft, Some(sequence));
        self.log.extend(extension)?;
        self.progress.applied.store(sequence, Ordering::Release);
        Ok(())
    }

    /// The batch's audit records. Those of a batch that is in the log already are durable with it.
    fn draft(&self, prepared: &Prepared) -> Result<Option<Draft>, LinkError> {
        let count = u64::try_from(prepared.entries.len()).unwrap_or(u64::MAX);
        let end = prepared.first_index.saturating_add(count);
        let is_known = count > 0 && end <= self.log.size_and_root().0;
        let log = *self.log.id().as_bytes();
        Ok(self.audit.draft(log, prepared, is_known)?)
    }

    fn accept(&self, draft: Option<Draft>, sequence: Option<u64>) {
        let Some(draft) = draft else { return };
        let place = match sequence {
            Some(sequence) => Place::Wal(sequence),
            None => Place::Object(draft.object(self.log.id())),
        };
        self.audit.accept(draft, place);
    }

    /// Records without entries: refusals, and notes.
    fn write_refusals(
        &mut self,
        index: u64,
        draft: Option<Draft>,
        trouble: impl Fn(Option<&'static str>),
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), LinkError> {
        let Some(draft) = draft else { return Ok(()) };
        if let Some(runtime) = &self.store_first {
            self.store(runtime, None, Some(&draft), trouble, is_stopping)?;
            self.accept(Some(draft), None);
            return Ok(());
        }
        let payload = join_payload(draft.sealed(), &[]);
        let sequence = self.append(RecordKind::Audited, index, &payload, trouble, is_stopping)?;
        self.accept(Some(draft), Some(sequence));
        self.progress.applied.store(sequence, Ordering::Release);
        Ok(())
    }

    /// The batch and its checkpoint are in the store when this returns. Each attempt is bounded; a
    /// store that fails is tried until it works, and one that holds other bytes is an error.
    fn store(
        &self,
        runtime: &tokio::runtime::Handle,
        extension: Option<&Extension>,
        draft: Option<&Draft>,
        trouble: impl Fn(Option<&'static str>),
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), LogError> {
        let bytes = extension.map_or(0, Extension::bytes);
        let mut failures = 0_u64;
        loop {
            let started = std::time::Instant::now();
            let result = runtime.block_on(self.store_once(extension, draft));
            let full = self.wal.utilisation();
            self.metrics.durable_write(started.elapsed(), bytes, result.is_ok(), full);
            match result {
                Ok(()) => {
                    if failures > 0 {
                        tracing::warn!(failures, "the store can be written again");
                        trouble(None);
                    }
                    return Ok(());
                }
                Err(e) if !e.is_final() && !is_stopping() => {
                    if failures == 0 {
                        tracing::error!("{e}; nothing is released until the store works");
                    }
                    failures = failures.saturating_add(1);
                    trouble(Some("the store cannot be written"));
                    std::thread::sleep(RETRY_AFTER);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The records first: a batch without them must never be acknowledged.
    async fn store_once(
        &self,
        extension: Option<&Extension>,
        draft: Option<&Draft>,
    ) -> Result<(), LogError> {
        let size = extension.map_or_else(|| self.log.size_and_root().0, Extension::size);
        if let Some(draft) = draft {
            let bytes = [&size.to_be_bytes(), draft.sealed()].concat();
            self.log.store().put_durably(&draft.object(self.log.id()), bytes.into()).await?;
        }
        match extension {
            Some(extension) => self.log.store_ahead(extension).await,
            None => Ok(()),
        }
    }

    fn append(
        &mut self,
        kind: RecordKind,
        first_index: u64,
        payload: &[u8],
        trouble: impl Fn(Option<&'static str>),
        is_stopping: impl Fn() -> bool,
    ) -> Result<u64, WalError> {
        let mut failures = 0_u64;
        loop {
            let published = self.progress.published.load(Ordering::Acquire);
            self.wal.release(published.min(self.audit.floor()));
            let log = *self.log.id().as_bytes();
            let started = std::time::Instant::now();
            let result = self.wal.append(kind, log, first_index, payload);
            let (took, full) = (started.elapsed(), self.wal.utilisation());
            self.metrics.durable_write(took, payload.len(), result.is_ok(), full);
            match result {
                Ok(sequence) => {
                    if failures > 0 {
                        tracing::warn!(failures, "the write-ahead log can be written again");
                        trouble(None);
                    }
                    return Ok(sequence);
                }
                Err(e) if e.is_retryable() && !is_stopping() => {
                    if failures == 0 {
                        tracing::error!("write-ahead log: {e}; nothing is released until it works");
                    }
                    failures = failures.saturating_add(1);
                    trouble(Some("the write-ahead log cannot be written"));
                    std::thread::sleep(RETRY_AFTER);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Publishes the signer's new part of the key set.
    pub fn publish_keys(&mut self, keys_jwt: &str) {
        self.log.set_keys_jwt(keys_jwt);
        self.keys.set_live(self.log.id_text(), keys_jwt);
    }
}
