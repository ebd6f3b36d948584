//! The real folder: making, opening, locking, and everything that can be wrong with it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::*;

const SMALL: u64 = MIN_SEGMENT_BYTES;
const LOG: [u8; 16] = [9; 16];

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chancery-wal-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn wal(&self) -> PathBuf {
        self.0.join("wal")
    }

    fn segment(&self, ordinal: u16) -> PathBuf {
        self.wal().join(format!("segment-{ordinal}"))
    }

    fn open(&self) -> Result<(Wal, Vec<Record>), WalError> {
        Wal::open(&self.wal(), SMALL)
    }

    /// Makes a log with one record.
    fn with_record(self) -> Self {
        let (mut wal, _) = self.open().unwrap();
        wal.append(RecordKind::Batch, LOG, 5, b"payload").unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::set_permissions(self.wal(), fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_log_is_made_whole_and_comes_back() {
    let folder = Folder::new();
    let (mut wal, records) = folder.open().unwrap();
    assert!(records.is_empty());
    assert_eq!(fs::metadata(folder.wal()).unwrap().mode() & 0o777, 0o700);
    for ordinal in 0..SEGMENT_COUNT {
        let metadata = fs::metadata(folder.segment(ordinal)).unwrap();
        assert_eq!(metadata.len(), SMALL);
        assert_eq!(metadata.mode() & 0o777, 0o600);
        // Really written: the blocks exist.
        assert!(metadata.blocks() * 512 >= SMALL);
    }
    assert_eq!(wal.append(RecordKind::Batch, LOG, 5, b"one").unwrap(), 1);
    assert_eq!(wal.append(RecordKind::Audited, [1; 16], 6, b"").unwrap(), 2);
    drop(wal);

    let (mut wal, records) = folder.open().unwrap();
    let expected = [
        Record {
            sequence: 1,
            kind: RecordKind::Batch,
            log: LOG,
            first_index: 5,
            payload: b"one".to_vec(),
        },
        Record {
            sequence: 2,
            kind: RecordKind::Audited,
            log: [1; 16],
            first_index: 6,
            payload: Vec::new(),
        },
    ];
    assert_eq!(records, expected);
    wal.release(2);
    assert_eq!(wal.append(RecordKind::Batch, LOG, 7, b"three").unwrap(), 3);
    drop(wal);
    let (_, records) = folder.open().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].payload, b"three");

    let bytes: Vec<Vec<u8>> =
        (0..SEGMENT_COUNT).map(|i| fs::read(folder.segment(i)).unwrap()).collect();
    let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    assert_eq!(recover_bytes(&slices).unwrap(), records);
}

#[test]
fn two_logs_have_two_identities() {
    let folders = [Folder::new().with_record(), Folder::new().with_record()];
    fs::copy(folders[0].segment(1), folders[1].segment(1)).unwrap();
    let error = folders[1].open().unwrap_err();
    assert!(error.to_string().contains("a segment of another log"), "{error}");
}

#[test]
fn a_second_opener_is_refused() {
    let folder = Folder::new();
    let held = folder.open().unwrap();
    let error = folder.open().unwrap_err();
    assert!(matches!(error, WalError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("stop the other service"));
    drop(held);
    folder.open().unwrap();
}

#[test]
fn a_segment_of_the_wrong_size_is_refused() {
    for (length, expected) in [(0, SMALL), (100, SMALL), (4096, SMALL), (SMALL + 512, SMALL)] {
        let folder = Folder::new().with_record();
        let file = OpenOptions::new().write(true).open(folder.segment(1)).unwrap();
        file.set_len(length).unwrap();
        let error = folder.open().unwrap_err();
        let WalError::WrongSize { path, found, expected: e } = &error else {
            panic!("{error}");
        };
        assert_eq!((path, *found, *e), (&folder.segment(1), length, expected));
        assert!(error.to_string().contains("changed from outside"));
    }
}

#[test]
fn another_configured_size_is_refused() {
    let folder = Folder::new().with_record();
    let error = Wal::open(&folder.wal(), 2 * SMALL).unwrap_err();
    assert!(matches!(error, WalError::OtherSize { found: SMALL, configured: 16384, .. }));
    assert!(error.to_string().contains("set it back"), "{error}");
    assert_eq!(folder.open().unwrap().1.len(), 1);
}

#[test]
fn sizes_outside_the_limits_are_refused() {
    let folder = Folder::new();
    for given in [0, SMALL - 4096, SMALL + 1, MAX_SEGMENT_BYTES + 4096, u64::MAX] {
        let error = Wal::open(&folder.wal(), given).unwrap_err();
        assert!(matches!(error, WalError::SegmentBytes { given: g } if g == given));
        assert!(error.to_string().contains("a multiple of 4096"), "{error}");
    }
    assert!(!folder.wal().exists());
}

#[test]
fn foreign_files_are_refused_and_kept() {
    for name in ["notes.txt", "segment-0.bak", "segment-3", "segment-x"] {
        let folder = Folder::new().with_record();
        let path = folder.wal().join(name);
        fs::write(&path, "mine").unwrap();
        let error = folder.open().unwrap_err();
        assert!(matches!(&error, WalError::Foreign { path: p, .. } if *p == path), "{error}");
        assert!(error.to_string().contains("move it out of the folder"));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
    // A mount point brings this one.
    let folder = Folder::new().with_record();
    fs::create_dir(folder.wal().join("lost+found")).unwrap();
    folder.open().unwrap();
}

#[test]
fn a_foreign_file_in_a_segments_place_is_refused_and_kept() {
    let folder = Folder::new().with_record();
    let text = vec![b'x'; SMALL as usize];
    fs::write(folder.segment(2), &text).unwrap();
    let error = folder.open().unwrap_err();
    assert!(error.to_string().contains("no segment header"), "{error}");
    assert_eq!(fs::read(folder.segment(2)).unwrap(), text);
}

#[test]
fn an_interrupted_making_is_finished() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    for ordinal in [1, 2] {
        fs::remove_file(folder.segment(ordinal)).unwrap();
    }
    fs::write(folder.wal().join("segment-1.new"), "half made").unwrap();
    let (mut wal, records) = folder.open().unwrap();
    assert!(records.is_empty());
    assert!(!folder.wal().join("segment-1.new").exists());
    wal.append(RecordKind::Batch, LOG, 0, b"x").unwrap();
    drop(wal);
    assert_eq!(folder.open().unwrap().1.len(), 1);
}

#[test]
fn a_missing_segment_is_not_replaced_while_others_hold_records() {
    let folder = Folder::new().with_record();
    fs::remove_file(folder.segment(2)).unwrap();
    let error = folder.open().unwrap_err();
    let missing = folder.segment(2);
    assert!(matches!(&error, WalError::MissingSegment { path } if *path == missing), "{error}");
    assert!(error.to_string().contains("restore it from a copy"));
    assert!(!missing.exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    if rustix::process::geteuid().is_root() {
        // Permissions do not bind root; the mapping is tested below.
        let error = WalError::io("open", Path::new("/x"), io::ErrorKind::PermissionDenied.into());
        assert!(matches!(error, WalError::NotWritable { .. }));
    } else {
        let folder = Folder::new();
        fs::create_dir(folder.wal()).unwrap();
        fs::set_permissions(folder.wal(), fs::Permissions::from_mode(0o500)).unwrap();
        let error = folder.open().unwrap_err();
        assert!(matches!(error, WalError::NotWritable { .. }), "{error}");
    }
    let source = io::Error::from_raw_os_error(rustix::io::Errno::ROFS.raw_os_error());
    let error = WalError::preallocate(Path::new("/data/wal/segment-0"), 99, source);
    assert!(matches!(error, WalError::NotWritable { .. }), "{error}");
    assert!(error.to_string().contains("`/data/wal/segment-0` cannot be written"), "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn a_folder_that_is_a_file_is_an_error() {
    let folder = Folder::new();
    fs::write(folder.wal(), "a file").unwrap();
    let error = folder.open().unwrap_err();
    assert!(matches!(error, WalError::Io { operation: "create folder", .. }), "{error}");
    assert!(error.to_string().contains("cannot create folder"));
}

#[test]
fn a_full_disk_names_the_path_and_the_bytes() {
    for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
        let source = io::Error::from_raw_os_error(errno.raw_os_error());
        let error = WalError::preallocate(Path::new("/data/wal/segment-1"), 134_217_728, source);
        assert!(matches!(error, WalError::NoSpace { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("`/data/wal/segment-1`: 134217728 bytes are needed"), "{text}");
    }
}

#[test]
fn io_errors_of_an_open_log_can_be_retried() {
    let error = WalError::io("sync", Path::new("/x"), io::ErrorKind::PermissionDenied.into());
    assert!(matches!(error, WalError::Io { .. }) && error.is_retryable());
    assert!(error.to_string().starts_with("cannot sync `/x`"));
}
