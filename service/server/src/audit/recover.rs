//! What a crash left: sections in the write-ahead log, or in the store where that comes first.

use std::time::Instant;

use bytes::Bytes;
use chancery_audit::{Error, Opener, SealedSection};
use chancery_signer_api::AuditSegment;
use chancery_tlog::LogId;

use super::flush::{Flight, UNSTATED};
use super::{Audit, AuditError, Pending, Place, lock};
use crate::logs::Logs;
use crate::store::Store;
use crate::wal::{Record, RecordKind};

/// Where sections lie while they are in no segment, under `durability = "store"`.
pub const PENDING: &str = "audit/pending";

/// A section and a batch, as they stand in a write-ahead record.
pub type Parts<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// A write-ahead record's section and batch; one of them at least is there.
///
/// # Errors
/// A sentence.
pub fn split_payload(record: &Record) -> Result<Parts<'_>, String> {
    if record.kind == RecordKind::Batch {
        return Ok((None, Some(&record.payload)));
    }
    let (length, rest) = record.payload.split_first_chunk::<4>().ok_or("record has no length")?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (section, batch) = rest.split_at_checked(length).ok_or("record ends within its audit")?;
    Ok((Some(section), (!batch.is_empty()).then_some(batch)))
}

/// A write-ahead record's payload.
#[must_use]
pub fn join_payload(section: &[u8], batch: &[u8]) -> Vec<u8> {
    let length = u32::try_from(section.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), section, batch].concat()
}

/// The name of a section's object. A batch that is handed over twice has the same one both times.
pub(super) fn pending_object(log: &LogId, first: u64) -> String {
    format!("{PENDING}/{log}/{first:020}")
}

/// What a crash left in the store.
#[derive(Debug, Default)]
pub struct Left {
    /// Sections, by the objects that hold them.
    pub sections: Vec<(String, Vec<u8>)>,
    /// Segments that may have to be stated.
    pub unstated: Vec<AuditSegment>,
}

/// Looks for what a crash left in the store.
///
/// # Errors
/// [`AuditError::Store`].
pub async fn load_left(store: &Store, logs: &Logs) -> Result<Left, AuditError> {
    let mut left = Left::default();
    for folder in store.folders(PENDING).await? {
        let Ok(id) = folder.parse::<LogId>() else { continue };
        let size = logs.open(id).await.map_or(0, |log| log.size_and_root().0);
        for (object, bytes) in objects(store, &format!("{PENDING}/{folder}")).await? {
            let Some((at, section)) = bytes.split_first_chunk::<8>() else { continue };
            // Otherwise its batch never became part of the log, so nothing of it was acknowledged.
            // Should the signer hand it over again, it is recorded again, under the same name.
            if u64::from_be_bytes(*at) <= size {
                left.sections.push((object, section.to_vec()));
            }
        }
    }
    for folder in store.folders(UNSTATED).await? {
        for (object, bytes) in objects(store, &format!("{UNSTATED}/{folder}")).await? {
            match minicbor::decode(&bytes) {
                Ok(segment) => left.unstated.push(segment),
                Err(e) => tracing::error!("object `{object}`: {e}; its segment is not stated"),
            }
        }
    }
    Ok(left)
}

/// The objects of a folder, by name.
async fn objects(store: &Store, folder: &str) -> Result<Vec<(String, Bytes)>, AuditError> {
    let mut names = store.names(folder).await?;
    names.sort_unstable();
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let object = format!("{folder}/{name}");
        let bytes = store.get(&object).await?;
        found.push((object, bytes));
    }
    Ok(found)
}

impl Audit {
    /// Takes segments up again that are stored and may not be logged. Before [`Audit::recover`].
    pub fn recover_flights(&self, unstated: Vec<AuditSegment>) {
        let mut state = lock(&self.state);
        for segment in unstated {
            let end = segment.first.saturating_add(segment.records);
            let next = state.next.entry(*segment.log).or_default();
            *next = (*next).max(end);
            state.flights.push_back(Flight { segment, stated: None });
        }
    }

    /// Takes sections up again that are in no segment.
    ///
    /// # Errors
    /// [`AuditError::Data`] when one was altered. One that no key at hand opens is kept as it is.
    pub fn recover<'a>(
        &self,
        sections: impl Iterator<Item = (Place, &'a [u8])>,
        logs: &Logs,
    ) -> Result<(), AuditError> {
        let mut state = lock(&self.state);
        let mut opener = Opener::new(&self.identities);
        let mut is_closed = false;
        for (place, bytes) in sections {
            let sealed = SealedSection::read(bytes)?;
            let logged = logs.audited(&sealed.log).records;
            let next = state.next.entry(sealed.log).or_insert(logged);
            *next = (*next).max(logged);
            // In a segment, or read twice: a record is written again after a failure.
            if sealed.end() <= *next {
                continue;
            }
            *next = sealed.end();
            let (opens, last_ms) = match sealed.open(&mut opener) {
                Ok(section) => (true, section.records.last().map_or(0, |record| record.time_ms)),
                Err(e @ Error::NoKey(_)) => {
                    if !is_closed {
                        tracing::warn!("{e}; they go to the store as they are");
                    }
                    is_closed = true;
                    (false, sealed.hour.saturating_mul(3_600_000))
                }
                Err(e) => return Err(e.into()),
            };
            state.last_ms = state.last_ms.max(last_ms);
            state.pending.push_back(Pending {
                log: sealed.log,
                first: sealed.first,
                count: u64::from(sealed.count),
                hour: sealed.hour,
                opens,
                sealed: bytes.to_vec().into(),
                place,
                since: Instant::now(),
            });
        }
        let waiting = state.pending.len();
        if waiting > 0 {
            tracing::info!(sections = waiting, "audit records were recovered");
        }
        Ok(())
    }

    /// What a log's next record is numbered, once its ledger is known.
    pub fn continue_log(&self, log: [u8; 16], logs: &Logs) {
        let logged = logs.audited(&log).records;
        let mut state = lock(&self.state);
        let next = state.next.entry(log).or_insert(logged);
        *next = (*next).max(logged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_split_where_they_were_joined() {
        let record =
            |kind, payload| Record { sequence: 1, kind, log: [0; 16], first_index: 0, payload };
        for (section, batch) in [(&b"abc"[..], &b"de"[..]), (b"abc", b""), (b"", b"de")] {
            let record = record(RecordKind::Audited, join_payload(section, batch));
            let expected = (Some(section), (!batch.is_empty()).then_some(batch));
            assert_eq!(split_payload(&record), Ok(expected));
        }
        let plain = record(RecordKind::Batch, b"xyz".to_vec());
        assert_eq!(split_payload(&plain), Ok((None, Some(&b"xyz"[..]))));
        for short in [&b""[..], &[0, 0, 0], &[0, 0, 0, 2, 1], &[0xff; 4]] {
            assert!(split_payload(&record(RecordKind::Audited, short.to_vec())).is_err());
        }
    }
}
