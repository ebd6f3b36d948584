//! Reading a log's objects: each once, with patience for a network, and knowing what is not there from
//! what could not be read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chancery_tlog::{TileId, TileSource};

use super::CheckError;
use crate::cli::fetch::Place;

/// A read that failed is tried so often in all: a server that restarts is back within that time.
const ATTEMPTS: u32 = 4;
/// The wait before the second attempt; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });

/// Where objects lie, by their path below the log.
pub(in crate::cli) trait Objects: Sync {
    /// An object's bytes; `None` when there is none.
    fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>>;

    /// How many reads at a time serve it best.
    fn readers(&self) -> usize;
}

/// Answers of a server take their time: more requests at once hide it, and eight are polite.
const WEB_READERS: usize = 8;
/// More threads than that wait for each other's results only.
const MAX_FOLDER_READERS: usize = 8;

impl Objects for Place {
    fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.read_if_there(path)
    }

    fn readers(&self) -> usize {
        match self {
            Place::Web(..) => WEB_READERS,
            Place::Folder(_) => {
                std::thread::available_parallelism().map_or(1, usize::from).min(MAX_FOLDER_READERS)
            }
        }
    }
}

/// Reads objects with a few attempts each, and keeps what was read before its turn came.
pub(in crate::cli) struct Reader<'a> {
    objects: &'a dyn Objects,
    /// Tiles that a proof needed; the walk meets them again.
    kept: Mutex<HashMap<String, Vec<u8>>>,
}

impl<'a> Reader<'a> {
    pub fn new(objects: &'a dyn Objects) -> Self {
        Self { objects, kept: Mutex::default() }
    }

    pub fn readers(&self) -> usize {
        self.objects.readers()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object that tells whether this is a log at all; whoever mistyped its place learns it soon.
    pub fn first(&self, path: &str) -> Result<Vec<u8>, CheckError> {
        let found = self.objects.get(path).map_err(CheckError::Unknown)?;
        let absent = || {
            anyhow::anyhow!("no `{path}` there; name the URL or folder that ends before `{path}`")
        };
        found.ok_or_else(absent).map_err(CheckError::Unknown)
    }

    /// An object that may have been deleted.
    pub fn find(&self, path: &str) -> Result<Option<Vec<u8>>, CheckError> {
        if let Some(bytes) = self.kept().remove(path) {
            return Ok(Some(bytes));
        }
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            match self.objects.get(path) {
                Ok(found) => return Ok(found),
                Err(e) if attempt >= ATTEMPTS => return Err(CheckError::Unknown(e)),
                Err(_) => std::thread::sleep(wait),
            }
            wait = wait.saturating_mul(2);
        }
        Ok(None)
    }

    /// An object that must be there.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, CheckError> {
        self.find(path)?.ok_or_else(|| CheckError::disagrees(format!("{path} is not there")))
    }
}

/// The tiles of the tree with this many leaves, kept for the walk once they were read.
pub(super) struct Tiles<'a, 'b>(pub &'b Reader<'a>);

impl TileSource for Tiles<'_, '_> {
    type Error = CheckError;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, CheckError> {
        let mut path = id.path();
        let mut found = self.0.find(&path)?;
        if found.is_none() && !id.is_full() {
            path = id.full().path();
            found = self.0.find(&path)?;
        }
        let bytes = found.ok_or_else(|| CheckError::Moved(id.path()))?;
        self.0.kept().insert(path, bytes.clone());
        Ok(bytes)
    }
}
