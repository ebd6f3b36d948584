//! The write-ahead log: what makes a batch durable before its tokens leave (INVARIANT I2, I9).
//!
//! Records live in a ring of preallocated segment files that are overwritten in place, so that
//! one commit costs one `fdatasync` that changes no metadata. A record is kept until the caller
//! says that the store has it ([`Wal::release`]); a segment is written again when all of its
//! records have been released. The caller does the grouping: one [`Wal::append`] is one commit.
//!
//! What makes recovery safe, and where each rule lives:
//!
//! - Sequence numbers rise by one for ever and never repeat, so an old pass's record can never
//!   pass for a new one. At most one record, the last, can be unacknowledged on disk.
//! - Every record carries the random identity of its log and CRC32C checksums, so payload bytes
//!   that a client chose can never pass for a record (`wal/format.rs`).
//! - Every record also carries the sequence number up to which records were released when it was
//!   written. Everything after the highest such number must be readable; a hole is corruption,
//!   a missing end is a torn write (`wal/recover.rs`). Before a segment is written again, that number
//!   is made durable, in a record or in the segment's own mark.
//! - A failed write or sync leaves the position where it is, and the next append writes the
//!   whole record again: after a failed `fdatasync` the kernel may have dropped the dirty pages
//!   and calls them clean, so syncing again would prove nothing.
//! - Records start at 512-byte sectors. A disk that rewrites larger physical sectors, and tears
//!   them at a loss of power, can damage the record before the one that was being written. A
//!   damaged last record cannot be told from a torn one, so such a disk needs power-loss
//!   protection.
//! - Opening writes the last record again and blanks the places where an unfinished write may
//!   lie, so that what recovery has seen is what the disk holds.

use std::path::{Path, PathBuf};

mod error;
mod files;
mod format;
mod recover;
#[cfg(test)]
mod tests;

pub use error::WalError;
use files::SegmentFile;
use format::{FIRST_RECORD, SECTOR};
pub use format::{Record, RecordKind};
pub use recover::recover_bytes;

/// Default size of a segment in bytes: some ten seconds of full load, so that a store that
/// stalls that long is not noticed, and small enough to be read whole at start.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Smallest segment: a few records, for tests and tiny deployments.
pub const MIN_SEGMENT_BYTES: u64 = 8 * 1024;

/// Largest segment: one segment is read into memory at a time when the log is opened.
pub const MAX_SEGMENT_BYTES: u64 = 1024 * 1024 * 1024;

/// Segment sizes are multiples of this, the page size, so that no page straddles an end.
pub const SEGMENT_BYTES_MULTIPLE: u64 = 4096;

/// Number of segments: two whole ones can wait for the store while a third is written.
pub const SEGMENT_COUNT: u16 = 3;

/// Largest payload of one record in bytes. Far above the largest batch; it bounds the write
/// buffer, and the work that a damaged length can cause in recovery.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// An open write-ahead log. One value, one writer; the segment files are locked.
///
/// Its methods block on the disk: run it on a thread of its own.
pub struct Wal {
    segments: Vec<Segment>,
    segment_bytes: u64,
    /// The log's identity, from the segment headers.
    id: [u8; 16],
    /// Sequence number of the last acknowledged record; 0 before the first.
    last: u64,
    /// All records up to this one are in the store, as the caller said.
    released: u64,
    /// The highest `released` that is certainly on disk.
    durable_released: u64,
    tail: Tail,
    /// One record with its header and padding; kept for its capacity.
    buffer: Vec<u8>,
}

/// One segment of the ring.
struct Segment {
    path: PathBuf,
    file: Box<dyn SegmentFile>,
    /// Highest sequence number in the segment; 0 when it holds none.
    last: u64,
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail {
    segment: usize,
    offset: u64,
    /// A failed write may have left something at this place.
    dirty: bool,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("last", &self.last)
            .field("released", &self.released)
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the log in folder `dir`, or creates it there with segments of `segment_bytes`
    /// bytes, and returns it with the records that may not be in the store yet, in order.
    ///
    /// Released records may be among them, and so may the one whose `append` failed or was
    /// interrupted: the caller applies records idempotently. A returned record counts as
    /// acknowledged from here on.
    ///
    /// # Errors
    ///
    /// Any [`WalError`] except `Full` and `TooLarge`; the log on disk stays as it was, apart
    /// from places that hold no record.
    pub fn open(dir: &Path, segment_bytes: u64) -> Result<(Self, Vec<Record>), WalError> {
        check_segment_bytes(segment_bytes)?;
        let (id, files) = files::open_folder(dir, segment_bytes)?;
        Self::from_files(id, files, segment_bytes)
    }

    /// The records in folder `dir` that may not be in the store yet, in order, read beside a service
    /// that writes them. Nothing is locked or changed. What is written meanwhile may be missing, and
    /// a read that falls into the moment in which a segment is begun anew fails: try again.
    ///
    /// # Errors
    ///
    /// As [`Wal::open`].
    pub fn peek(dir: &Path) -> Result<Vec<Record>, WalError> {
        let Some((id, files, segment_bytes)) = files::peek_folder(dir)? else {
            return Ok(Vec::new());
        };
        Ok(recover::recover_files(&id, &files, segment_bytes)?.records)
    }

    /// Recovers from opened segment files of one size and identity.
    fn from_files(
        id: [u8; 16],
        files: Vec<(PathBuf, Box<dyn SegmentFile>)>,
        segment_bytes: u64,
    ) -> Result<(Self, Vec<Record>), WalError> {
        let recovery = recover::recover_files(&id, &files, segment_bytes)?;
        let segments = files
            .into_iter()
            .zip(recovery.segment_last)
            .map(|((path, file), last)| Segment { path, file, last })
            .collect();
        let mut wal = Self {
            segments,
            segment_bytes,
            id,
            last: recovery.last,
            released: recovery.released,
            durable_released: 0,
            tail: recovery.tail,
            buffer: Vec::new(),
        };
        wal.settle(&recovery.last_record)?;
        Ok((wal, recovery.records))
    }

    /// Makes the disk agree with what recovery read. What was read may have come from pages
    /// that no sync ever carried to the disk; and a place that looked empty may hold, on the
    /// disk, a whole record of a write that failed.
    fn settle(&mut self, last_record: &Option<(usize, u64, Vec<u8>)>) -> Result<(), WalError> {
        if let Some((segment, offset, bytes)) = last_record {
            self.segment(*segment)?.write_and_sync(bytes, *offset)?;
        }
        let next = self.next_segment();
        if self.is_free(next)? {
            // The mark first: blanking below destroys a released record, and the knowledge
            // that it was released must not depend on anything less durable.
            self.write_mark(next)?;
            self.segment(next)?.write_and_sync(&[0; SECTOR as usize], FIRST_RECORD)?;
        }
        self.durable_released = self.released;
        if self.tail.offset < self.segment_bytes {
            self.blank_tail()?;
        }
        Ok(())
    }

    /// Writes one record and makes it durable with one `fdatasync`; returns its sequence number.
    ///
    /// `log` is the signer log's identity, `first_index` the index there of the first entry in
    /// `payload`.
    ///
    /// On any error nothing counts as written, although the record may turn up in recovery; the
    /// next append, of the same record or another one, takes its place and sequence number.
    ///
    /// # Errors
    ///
    /// - [`WalError::Full`]: every other segment holds records that are not released; retry
    ///   after a [`Wal::release`].
    /// - [`WalError::Io`]: the write or sync failed; retry.
    /// - [`WalError::TooLarge`]: the payload exceeds [`Wal::max_payload_bytes`].
    pub fn append(
        &mut self,
        kind: RecordKind,
        log: [u8; 16],
        first_index: u64,
        payload: &[u8],
    ) -> Result<u64, WalError> {
        if payload.len() > self.max_payload_bytes() {
            return Err(WalError::TooLarge {
                bytes: payload.len(),
                limit: self.max_payload_bytes(),
            });
        }
        let sequence = self.last.checked_add(1).ok_or(WalError::Exhausted)?;
        self.make_room(format::record_bytes(payload.len()))?;

        let header =
            format::RecordHeader { kind, log, first_index, sequence, released: self.released };
        format::encode_record(&self.id, &header, payload, &mut self.buffer);
        self.tail.dirty = true;
        self.segment(self.tail.segment)?.write_and_sync(&self.buffer, self.tail.offset)?;

        // From here on the record is acknowledged.
        self.tail.dirty = false;
        self.tail.offset = self.tail.offset.saturating_add(self.buffer.len() as u64);
        self.last = sequence;
        self.durable_released = self.released;
        if let Some(segment) = self.segments.get_mut(self.tail.segment) {
            segment.last = sequence;
        }
        Ok(sequence)
    }

    /// Notes that all records up to and including `through_sequence` are in the store.
    /// Numbers beyond the last record count as the last record; going back changes nothing.
    ///
    /// This is memory only: the number reaches the disk with a later record.
    pub fn release(&mut self, through_sequence: u64) {
        self.released = self.released.max(through_sequence.min(self.last));
    }

    /// Sequence number of the last acknowledged record; 0 before the first.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last
    }

    /// All records up to this sequence number have been released.
    #[must_use]
    pub fn released_through(&self) -> u64 {
        self.released
    }

    /// Bytes that can be written, headers and padding included, before the log is full.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let whole = self
            .segments
            .iter()
            .enumerate()
            .filter(|(i, segment)| *i != self.tail.segment && segment.last <= self.released)
            .count() as u64;
        let room = self.segment_bytes.saturating_sub(FIRST_RECORD);
        let rest = self.segment_bytes.saturating_sub(self.tail.offset);
        whole.saturating_mul(room).saturating_add(rest)
    }

    /// Bytes that the log holds at most, headers and padding included.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        let room = self.segment_bytes.saturating_sub(FIRST_RECORD);
        room.saturating_mul(self.segments.len() as u64)
    }

    /// The part of the log that cannot be written now, from 0 (empty) to 1 (full). The start of
    /// the current segment counts until the segment is left, so an idle log is rarely at 0.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        let capacity = self.capacity_bytes().max(1) as f64;
        1.0 - self.free_bytes() as f64 / capacity
    }

    /// The largest payload that one record of this log can hold, in bytes.
    #[must_use]
    pub fn max_payload_bytes(&self) -> usize {
        let room = self
            .segment_bytes
            .saturating_sub(FIRST_RECORD)
            .saturating_sub(format::RECORD_HEADER_BYTES as u64);
        usize::try_from(room).map_or(MAX_PAYLOAD_BYTES, |room| room.min(MAX_PAYLOAD_BYTES))
    }

    /// Moves on to the next segment when `bytes` do not fit at the tail.
    ///
    /// The order is what matters. A crash after any step leaves a log that recovers: the ghost
    /// of a failed write is gone before its sequence number can appear in another segment, and
    /// the release of the next segment's records is durable before the first is overwritten.
    fn make_room(&mut self, bytes: u64) -> Result<(), WalError> {
        if bytes <= self.segment_bytes.saturating_sub(self.tail.offset) {
            return Ok(());
        }
        let next = self.next_segment();
        if !self.is_free(next)? {
            return Err(WalError::Full { waiting: self.last.saturating_sub(self.released) });
        }
        if self.tail.dirty {
            self.blank_tail()?;
        }
        if self.segment(next)?.last > self.durable_released {
            self.write_mark(next)?;
            self.durable_released = self.released;
        }
        self.tail = Tail { segment: next, offset: FIRST_RECORD, dirty: false };
        Ok(())
    }

    /// Overwrites the header of whatever may lie at the tail.
    fn blank_tail(&mut self) -> Result<(), WalError> {
        self.segment(self.tail.segment)?.write_and_sync(&[0; SECTOR as usize], self.tail.offset)?;
        self.tail.dirty = false;
        Ok(())
    }

    /// Makes the released position durable in a segment that is about to be written again.
    fn write_mark(&self, segment: usize) -> Result<(), WalError> {
        let mark = format::encode_mark(&self.id, self.released);
        self.segment(segment)?.write_and_sync(&mark, format::MARK_OFFSET)
    }

    fn next_segment(&self) -> usize {
        let next = self.tail.segment.saturating_add(1);
        if next < self.segments.len() { next } else { 0 }
    }

    fn is_free(&self, segment: usize) -> Result<bool, WalError> {
        Ok(self.segment(segment)?.last <= self.released)
    }

    /// The segment with this number, which always exists: numbers come from the ring itself.
    fn segment(&self, segment: usize) -> Result<&Segment, WalError> {
        self.segments.get(segment).ok_or(WalError::Exhausted)
    }
}

impl Segment {
    /// Writes all of `bytes` and syncs, as one unit: a retry does both again.
    fn write_and_sync(&self, bytes: &[u8], offset: u64) -> Result<(), WalError> {
        files::write_all_at(self.file.as_ref(), bytes, offset)
            .map_err(|source| WalError::io("write", &self.path, source))?;
        self.file.sync_data().map_err(|source| WalError::io("sync", &self.path, source))
    }
}

/// Refuses segment sizes outside the limits.
fn check_segment_bytes(segment_bytes: u64) -> Result<(), WalError> {
    let fits = (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&segment_bytes)
        && segment_bytes.is_multiple_of(SEGMENT_BYTES_MULTIPLE);
    if fits { Ok(()) } else { Err(WalError::SegmentBytes { given: segment_bytes }) }
}
