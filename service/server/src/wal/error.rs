//! What can go wrong with the write-ahead log, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::{MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, SEGMENT_BYTES_MULTIPLE};

/// Errors of the write-ahead log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The operating system refused an operation on a file or the folder. Retryable: a failed
    /// append may be repeated.
    #[error("cannot {operation} `{}`: {source}; check the disk and the kernel's messages", path.display())]
    Io {
        /// What was tried: `write`, `sync`, `read`, `open` and so on.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The folder or a segment cannot be written: permissions, or a read-only file system.
    #[error("the write-ahead log `{}` cannot be written: {source}; give the service's user write permission, or use a data folder on a writable file system", path.display())]
    NotWritable {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The disk or quota has no room for preallocating the segments.
    #[error("no space for the write-ahead log at `{}`: {needed_bytes} bytes are needed; free that much, or configure smaller segments", path.display())]
    NoSpace {
        /// The segment that could not be made.
        path: PathBuf,
        /// Bytes for all the segments that were still missing.
        needed_bytes: u64,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Another process has the log open.
    #[error("the write-ahead log segment `{}` is in use by another process; stop the other service first", path.display())]
    Locked {
        /// The locked segment.
        path: PathBuf,
    },
    /// The configured segment size is outside the limits.
    #[error(
        "a write-ahead log segment cannot have `{given}` bytes; use a multiple of {SEGMENT_BYTES_MULTIPLE} from {MIN_SEGMENT_BYTES} to {MAX_SEGMENT_BYTES}"
    )]
    SegmentBytes {
        /// The size that was asked for.
        given: u64,
    },
    /// A segment file is longer or shorter than its own header says: cut off or overwritten by
    /// something else.
    #[error("the write-ahead log segment `{}` has {found} bytes instead of {expected}; it was changed from outside: restore it from a copy, or, after accepting the loss of what it held, move the folder away", path.display())]
    WrongSize {
        /// The segment.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length in its header (or the configured one, if it is too short for a header).
        expected: u64,
    },
    /// The log was made with segments of another size.
    #[error("the write-ahead log segment `{}` was made with {found} bytes, but {configured} are configured; set it back, or, when everything in it has been published, move the folder away", path.display())]
    OtherSize {
        /// The segment.
        path: PathBuf,
        /// The size that the log was made with.
        found: u64,
        /// The size that is configured now.
        configured: u64,
    },
    /// Something in the folder does not belong to this log.
    #[error("`{}` does not belong to this write-ahead log ({reason}); move it out of the folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        reason: &'static str,
    },
    /// A segment is missing although others hold records.
    #[error("the write-ahead log segment `{}` is missing while others hold records; restore it from a copy, or, after accepting the loss of what it held, move the folder away", path.display())]
    MissingSegment {
        /// The segment that should be there.
        path: PathBuf,
    },
    /// A segment or record has a format that this version does not know.
    #[error("the write-ahead log `{}` has at byte {offset} format {format}, which this version cannot read; start the version that wrote it", path.display())]
    Unsupported {
        /// The segment.
        path: PathBuf,
        /// Where in the segment.
        offset: u64,
        /// The format version found; for an unknown kind of record, the kind.
        format: u16,
    },
    /// A record that had been acknowledged cannot be read: bit rot or a foreign hand, not a torn
    /// last write. Nothing was changed.
    #[error("the write-ahead log `{}` is damaged at byte {offset}: {detail}; copy the folder away, check the disk, and restore it, or, after accepting the loss of that record and all later ones, move the folder away", path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where in the segment.
        offset: u64,
        /// What is missing there.
        detail: String,
    },
    /// Every segment holds records that are not in the store yet. Retryable.
    #[error(
        "the write-ahead log is full: {waiting} records wait for the store; retry when the store has caught up"
    )]
    Full {
        /// Number of records that are not released.
        waiting: u64,
    },
    /// A record does not fit into a segment.
    #[error(
        "a write-ahead log record of {bytes} bytes exceeds {limit}; make smaller batches, or configure larger segments"
    )]
    TooLarge {
        /// The payload's size in bytes.
        bytes: usize,
        /// The largest possible payload.
        limit: usize,
    },
    /// The sequence numbers are used up, which 2^64 records cannot bring about: a number on
    /// disk was made up.
    #[error("the write-ahead log has run out of sequence numbers; move the folder away")]
    Exhausted,
}

impl WalError {
    /// Whether the same append may succeed later without anybody's help or after the store has
    /// caught up.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Full { .. })
    }

    /// Names a failed operation, and tells missing permission from other failures.
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                if operation != "write" && operation != "sync" =>
            {
                Self::NotWritable { path, source }
            }
            _ => Self::Io { operation, path, source },
        }
    }

    /// Like [`WalError::io`] for preallocation, where the disk can be full.
    pub(super) fn preallocate(path: &Path, needed_bytes: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_path_buf(), needed_bytes, source }
            }
            _ => Self::io("preallocate", path, source),
        }
    }
}
