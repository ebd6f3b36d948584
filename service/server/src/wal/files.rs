//! The folder of the write-ahead log: making the segments, opening and locking them.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::format::{self, SECTOR, SegmentHeader};
use super::recover::{check_header, holds_records, segment_name};
use super::{SEGMENT_COUNT, WalError};

/// Zeros are written in pieces of this size: large enough for the disk's full speed.
const ZERO_CHUNK_BYTES: usize = 1024 * 1024;

/// End of the name of a segment that is being made.
const UNFINISHED: &str = ".new";

/// What the log asks of a file: the place where tests inject faults.
pub(super) trait SegmentFile: Send {
    /// Writes some of `bytes` at `offset`; returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes everything written so far durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Fills `bytes` from `offset`.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

/// Writes all of `bytes`, however many calls that takes.
pub(super) fn write_all_at(
    file: &dyn SegmentFile,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset = offset.saturating_add(written as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Segment files in ring order, with the paths that error messages name.
pub(super) type Files = Vec<(PathBuf, Box<dyn SegmentFile>)>;

/// Opens the segments in `dir`, making the folder and the missing segments as needed; returns
/// the log's identity and the segments in ring order.
pub(super) fn open_folder(dir: &Path, segment_bytes: u64) -> Result<([u8; 16], Files), WalError> {
    make_folder(dir)?;
    remove_unfinished(dir)?;
    let count = usize::from(SEGMENT_COUNT);
    let paths: Vec<PathBuf> = (0..count).map(|i| dir.join(segment_name(i))).collect();

    let mut id = None;
    let mut files = Vec::with_capacity(count);
    for (ordinal, path) in paths.iter().enumerate() {
        let file = open_segment(path)?;
        if let Some(file) = &file {
            let header = read_header(path, file, ordinal, id, segment_bytes)?;
            id = Some(header.id);
        }
        files.push(file);
    }
    check_complete(id, &paths, &files, segment_bytes)?;
    let id = match id {
        Some(id) => id,
        None => random_id(dir)?,
    };

    let missing = files.iter().filter(|file| file.is_none()).count() as u64;
    let mut needed_bytes = segment_bytes.saturating_mul(missing);
    let mut segments: Files = Vec::with_capacity(count);
    for ((ordinal, path), file) in (0..SEGMENT_COUNT).zip(paths).zip(files) {
        let file = if let Some(file) = file {
            file
        } else {
            let header = SegmentHeader { id, ordinal, count: SEGMENT_COUNT, segment_bytes };
            let file = make_segment(&path, &header, needed_bytes)?;
            needed_bytes = needed_bytes.saturating_sub(segment_bytes);
            file
        };
        segments.push((path, Box::new(file)));
    }
    if missing > 0 {
        sync_folder(dir)?;
    }
    Ok((id, segments))
}

/// The segments in `dir` as they are, neither locked nor changed; `None` where there are none.
pub(super) fn peek_folder(dir: &Path) -> Result<Option<([u8; 16], Files, u64)>, WalError> {
    let mut segments: Files = Vec::new();
    let mut known: Option<SegmentHeader> = None;
    for ordinal in 0..usize::from(SEGMENT_COUNT) {
        let path = dir.join(segment_name(ordinal));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(WalError::io("open", &path, source)),
        };
        let found = file.metadata().map_err(|source| WalError::io("read", &path, source))?.len();
        let configured = known.as_ref().map_or(found, |header| header.segment_bytes);
        let id = known.as_ref().map(|header| header.id);
        known = Some(read_header(&path, &file, ordinal, id, configured)?);
        segments.push((path, Box::new(file)));
    }
    Ok(known.map(|header| (header.id, segments, header.segment_bytes)))
}

/// Makes the folder, readable by its owner only, and makes that durable.
fn make_folder(dir: &Path) -> Result<(), WalError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| WalError::io("create folder", dir, source))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

fn sync_folder(dir: &Path) -> Result<(), WalError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| WalError::io("sync folder", dir, source))
}

/// Removes segments whose making was interrupted; refuses files that are not ours.
fn remove_unfinished(dir: &Path) -> Result<(), WalError> {
    let listed = |source| WalError::io("list folder", dir, source);
    for entry in dir.read_dir().map_err(listed)? {
        let entry = entry.map_err(listed)?;
        let name = entry.file_name();
        let is = |suffix: &str| {
            (0..usize::from(SEGMENT_COUNT))
                .any(|i| name == OsStr::new(&format!("{}{suffix}", segment_name(i))))
        };
        if is(UNFINISHED) {
            std::fs::remove_file(entry.path())
                .map_err(|source| WalError::io("remove", &entry.path(), source))?;
        } else if !is("") && name != OsStr::new("lost+found") {
            // A mount point of its own has `lost+found`. Anything else may be a segment of
            // another version or a copy that somebody needs, so it is not guessed about.
            return Err(WalError::Foreign {
                path: entry.path(),
                reason: "its name is not a segment's",
            });
        }
    }
    Ok(())
}

/// Opens and locks a segment; `None` if there is none.
fn open_segment(path: &Path) -> Result<Option<File>, WalError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => {
            lock(&file, path)?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WalError::io("open", path, source)),
    }
}

fn lock(file: &File, path: &Path) -> Result<(), WalError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => WalError::Locked { path: path.to_path_buf() },
        TryLockError::Error(source) => WalError::io("lock", path, source),
    })
}

/// Checks a segment's header and size.
fn read_header(
    path: &Path,
    file: &File,
    ordinal: usize,
    id: Option<[u8; 16]>,
    configured: u64,
) -> Result<SegmentHeader, WalError> {
    let found = file.metadata().map_err(|source| WalError::io("read", path, source))?.len();
    let wrong_size = |expected| WalError::WrongSize { path: path.to_path_buf(), found, expected };
    if found < SECTOR {
        return Err(wrong_size(configured));
    }
    let mut sector = [0; SECTOR as usize];
    FileExt::read_exact_at(file, &mut sector, 0)
        .map_err(|source| WalError::io("read", path, source))?;
    let header = check_header(path, &sector, ordinal, usize::from(SEGMENT_COUNT), id)?;
    if header.segment_bytes != found {
        return Err(wrong_size(header.segment_bytes));
    }
    if header.segment_bytes != configured {
        return Err(WalError::OtherSize { path: path.to_path_buf(), found, configured });
    }
    Ok(header)
}

/// Some segments may be missing only if making them was interrupted: then no record exists yet.
fn check_complete(
    id: Option<[u8; 16]>,
    paths: &[PathBuf],
    files: &[Option<File>],
    segment_bytes: u64,
) -> Result<(), WalError> {
    let missing = paths.iter().zip(files).find(|(_, file)| file.is_none());
    let (Some(id), Some((missing, _))) = (id, missing) else {
        return Ok(());
    };
    for (path, file) in paths.iter().zip(files) {
        let Some(file) = file else { continue };
        let mut bytes = vec![0; usize::try_from(segment_bytes).unwrap_or_default()];
        FileExt::read_exact_at(file, &mut bytes, 0)
            .map_err(|source| WalError::io("read", path, source))?;
        if holds_records(&id, path, &bytes)? {
            return Err(WalError::MissingSegment { path: missing.clone() });
        }
    }
    Ok(())
}

fn random_id(dir: &Path) -> Result<[u8; 16], WalError> {
    let mut id = [0; 16];
    let length = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| WalError::io("draw an identity for", dir, error.into()))?;
    // The kernel fills requests of up to 256 bytes whole (getrandom(2)).
    if length == id.len() {
        Ok(id)
    } else {
        let source = io::ErrorKind::UnexpectedEof.into();
        Err(WalError::io("draw an identity for", dir, source))
    }
}

/// Makes a segment: really written, because the first write into blocks that were only reserved
/// changes metadata and would make later syncs slower; then named, so that a segment with its
/// name is always whole.
fn make_segment(path: &Path, header: &SegmentHeader, needed_bytes: u64) -> Result<File, WalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    let unfinished = PathBuf::from(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(|source| WalError::preallocate(path, needed_bytes, source))?;
    let made = lock(&file, path).and_then(|()| {
        fill_segment(&file, header)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&unfinished, path))
            .map_err(|source| WalError::preallocate(path, needed_bytes, source))
    });
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            // The error at hand says more than a failure to tidy up would; the next start
            // removes what is left.
            let _ = std::fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

/// Writes the header and zeros up to the segment's size.
pub(super) fn fill_segment(file: &dyn SegmentFile, header: &SegmentHeader) -> io::Result<()> {
    write_all_at(file, &format::encode_segment_header(header), 0)?;
    let zeros = vec![0; ZERO_CHUNK_BYTES];
    let mut offset = SECTOR;
    while offset < header.segment_bytes {
        let left = header.segment_bytes.saturating_sub(offset);
        let length = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
        write_all_at(file, zeros.get(..length).unwrap_or_default(), offset)?;
        offset = offset.saturating_add(length as u64);
    }
    Ok(())
}
