//! The data folder: who may use it, and what lies where.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made or opened.
    #[error("data folder `{path}`: {why}; choose another with --data, or make it writable")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The operating system's word.
        why: String,
    },
    /// Another service uses it.
    #[error("data folder `{0}` is in use by another `chancery serve`; stop it first")]
    InUse(PathBuf),
    /// A socket path would be longer than the operating system allows.
    #[error("data folder path `{0}` is too long for a Unix socket in it (107 bytes in all)")]
    TooLong(PathBuf),
}

/// A data folder, locked as long as this lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Paths inside a data folder.
#[derive(Clone, Debug)]
pub struct Paths(PathBuf);

impl Paths {
    /// Paths below `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The signer's socket.
    #[must_use]
    pub fn signer_socket(&self) -> PathBuf {
        self.0.join("signer.sock")
    }

    /// The signer's last words.
    #[must_use]
    pub fn signer_log(&self) -> PathBuf {
        self.0.join("signer.log")
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The write-ahead log's folder.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.0.join("wal")
    }

    /// The local store's folder.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// The key that makes ledger summaries in the store this service's own.
    #[must_use]
    pub fn summary_key(&self) -> PathBuf {
        self.0.join("summary.key")
    }

    /// The directory's key, and what is remembered of the directory.
    #[must_use]
    pub fn directory(&self) -> crate::directory::Files {
        crate::directory::Files {
            key: self.0.join("directory.key"),
            seen: self.0.join("directory.seen"),
            state: self.0.join("directory.state"),
        }
    }

    /// Indexes of leaf hashes, a folder for each log. They may be deleted at any time.
    #[must_use]
    pub fn digests(&self) -> PathBuf {
        self.0.join("digests")
    }

    /// How far logs were published.
    #[must_use]
    pub fn logs_seen(&self) -> PathBuf {
        self.0.join("logs.seen")
    }

    /// The key that opens the audit.
    #[must_use]
    pub fn audit_key(&self) -> PathBuf {
        self.0.join("audit.key")
    }

    /// Cursors of exports, a file for each.
    #[must_use]
    pub fn exports(&self) -> PathBuf {
        self.0.join("exports")
    }

    /// The demo client's private key, development mode only.
    #[must_use]
    pub fn demo_key(&self) -> PathBuf {
        self.0.join("demo-client.pem")
    }
}

impl DataFolder {
    /// Opens and locks a data folder, making it with mode 0700 if absent.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |why: std::io::Error| FolderError::Unusable {
            path: path.to_owned(),
            why: why.to_string(),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let path = std::fs::canonicalize(path).map_err(unusable)?;
        // sockaddr_un holds 108 bytes, the last of them NUL.
        if path.join("control.sock").as_os_str().len() > 107 {
            return Err(FolderError::TooLong(path));
        }
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600);
        let lock = lock
            .open(path.join("lock"))
            .map_err(|why| FolderError::Unusable { path: path.clone(), why: why.to_string() })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::InUse(path)),
            Err(e) => Err(FolderError::Unusable { path, why: e.to_string() }),
        }
    }

    /// Paths in it.
    #[must_use]
    pub fn paths(&self) -> Paths {
        Paths::new(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_service_at_a_time() {
        let path = std::env::temp_dir().join(format!("chancery-folder-{}", std::process::id()));
        let first = DataFolder::open(&path).unwrap();
        assert!(matches!(DataFolder::open(&path), Err(FolderError::InUse(_))));
        drop(first);
        DataFolder::open(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn unusable_and_too_long_folders_say_so() {
        let error = DataFolder::open(Path::new("/proc/none")).unwrap_err();
        assert!(matches!(error, FolderError::Unusable { .. }), "{error}");
        let long = std::env::temp_dir().join("x".repeat(100));
        assert!(matches!(DataFolder::open(&long), Err(FolderError::TooLong(_))));
        std::fs::remove_dir_all(&long).unwrap();
    }
}
