//! Why the directory cannot be opened or extended.

use std::path::PathBuf;

use chancery_validate::directory::Violation;

use crate::logs::LogError;
use crate::store::StoreError;

/// Why the directory cannot be opened or extended.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory's log, or a log that it is to name, cannot be read or extended.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The key file cannot be used.
    #[error("key of the directory, `{path}`: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is a directory, and its key is not here.
    #[error(
        "the store holds the directory `{origin}`, and its key is not at `{path}`: restore the file \
         from a copy, or set directory.write = false where another service writes it; a new key would \
         be a new directory, which no relying party knows"
    )]
    KeyLost {
        /// The directory's origin.
        origin: String,
        /// Where the key was looked for.
        path: PathBuf,
    },
    /// Somebody else's directory is in the store.
    #[error(
        "the store holds the directory `{found}`, and the key at `{path}` is another one's; this store \
         belongs to another service, or the key was exchanged: restore what belongs together"
    )]
    Foreign {
        /// The verifier key in the store.
        found: String,
        /// The key file.
        path: PathBuf,
    },
    /// The configuration names another origin.
    #[error(
        "directory.origin is `{configured}`, and the directory in the store is `{found}`; an origin is \
         for ever, set it back"
    )]
    Origin {
        /// The one in the configuration.
        configured: String,
        /// The one in the store.
        found: String,
    },
    /// The store holds less than this service has published.
    #[error(
        "STORAGE LOST: this service has published a directory of {known} entries, and the store holds \
         {found}: it is an older copy, or another one. Restore the store that belongs to this data folder"
    )]
    RolledBack {
        /// Entries that were published.
        known: u64,
        /// Entries in the store.
        found: u64,
    },
    /// The store holds other entries than this service has published.
    #[error(
        "STORAGE LOST: the directory in the store is not the one of {known} entries that this service \
         has published: it was rewritten, or is another copy's. Restore the store that belongs to this \
         data folder"
    )]
    Rewritten {
        /// Entries that were published.
        known: u64,
    },
    /// The directory in the store holds an entry that may not stand there.
    #[error("{0}; it was not written by this version of chancery, or is damaged: restore it")]
    Entry(#[from] Violation),
    /// A checkpoint cannot be signed.
    #[error("the directory's checkpoint cannot be signed: {0}")]
    Sign(String),
}

impl DirectoryError {
    /// Whether no further attempt can mend it: a person must look.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            DirectoryError::Store(e) => e.is_conflict(),
            DirectoryError::Log(e) => e.is_final(),
            DirectoryError::Sign(_) => false,
            DirectoryError::Key { .. }
            | DirectoryError::KeyLost { .. }
            | DirectoryError::Foreign { .. }
            | DirectoryError::Origin { .. }
            | DirectoryError::RolledBack { .. }
            | DirectoryError::Rewritten { .. }
            | DirectoryError::Entry(_) => true,
        }
    }
}
