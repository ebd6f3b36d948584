//! The files of a witness, replaced whole and durably.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chancery_tlog::note::MAX_NOTE_BYTES;

/// Where a witness keeps its records, in one or two copies.
pub trait Disk: Send + Sync {
    /// How many copies there are.
    fn copies(&self) -> usize;

    /// Where a record's copy lies, for messages.
    fn path(&self, copy: usize, name: &str) -> PathBuf;

    /// A copy of a record; `None` if there is none.
    ///
    /// # Errors
    /// What the operating system says.
    fn read(&self, copy: usize, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a record, in all copies, the first one first, and returns once all are durable.
    ///
    /// # Errors
    /// What the operating system says; then each copy is the old or the new one, whole.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Keeps something for people to look at, unless it is there, or there are `most` of the same
    /// log, whose names begin alike up to the first `-`.
    ///
    /// # Errors
    /// What the operating system says.
    fn add_evidence(&self, name: &str, bytes: &[u8], most: usize) -> io::Result<()>;
}

/// Real folders.
#[derive(Debug)]
pub struct Folder {
    copies: Vec<PathBuf>,
    evidence: PathBuf,
}

impl Folder {
    /// Records below `data`, and a second copy of them in `second`; folders are made where absent.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(data: &Path, second: Option<&Path>) -> io::Result<Self> {
        let mut copies = vec![data.join("logs")];
        copies.extend(second.map(Path::to_owned));
        let evidence = data.join("evidence");
        for folder in copies.iter().chain([&evidence]) {
            make_folder(folder)?;
        }
        Ok(Self { copies, evidence })
    }

    /// Whether any record is there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn has_records(&self) -> io::Result<bool> {
        for folder in &self.copies {
            for entry in std::fs::read_dir(folder)? {
                if entry?.path().extension().is_some_and(|e| e == "checkpoint") {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Disk for Folder {
    fn copies(&self) -> usize {
        self.copies.len()
    }

    fn path(&self, copy: usize, name: &str) -> PathBuf {
        self.copies.get(copy).map(|folder| folder.join(name)).unwrap_or_default()
    }

    fn read(&self, copy: usize, name: &str) -> io::Result<Option<Vec<u8>>> {
        read(&self.path(copy, name))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        for folder in &self.copies {
            replace(&folder.join(name), bytes)?;
        }
        Ok(())
    }

    fn add_evidence(&self, name: &str, bytes: &[u8], most: usize) -> io::Result<()> {
        let file = self.evidence.join(name);
        let log = name.split('-').next().unwrap_or(name);
        let mut kept = 0_usize;
        for entry in std::fs::read_dir(&self.evidence)? {
            let other = entry?.file_name();
            kept = kept.saturating_add(usize::from(other.to_string_lossy().starts_with(log)));
        }
        if kept >= most || file.exists() {
            return Ok(());
        }
        replace(&file, bytes)
    }
}

/// Makes a folder that only its owner reads.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Reads a small file; `None` if there is none.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // No file of a witness is longer; one byte more shows that this one is.
    let limit = u64::try_from(MAX_NOTE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts a file, readable by its owner only, in the place of another, durably: whoever reads sees the
/// old one or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The rename is durable when the folder is.
    File::open(folder)?.sync_all()
}
