//! Objects: one interface for a local folder and for buckets (crate `object_store`).
//!
//! Every object has one writer, and is of one of two kinds. Immutable ones are created: writing the
//! same bytes again changes nothing, other bytes are an error that stops the service
//! ([`StoreError::Conflict`]). Mutable ones are replaced, in a bucket only where they are still what
//! this writer left there ([`Mutable`]): a write that was given up and arrives late can undo nothing.
//!
//! A bucket's writes are durable when they return. In a local folder most objects are not synced one
//! by one, which would cost two syncs per tile beside the write-ahead log's own:
//! [`Store::make_durable`] syncs its file system once for all of them. The few objects that others
//! build on are written through to the disk.
//!
//! No call takes longer than [`CALL_WITHIN`] in a bucket, the client's own few attempts included.
//! Nothing here waits for a store that is away: callers try again, a second later.

mod location;
mod mutable;
mod probe;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use rustix::fs::{FlockOperation, flock};

pub use location::{Location, LocationError};
pub use mutable::Mutable;

/// The longest that one call to a bucket may take. Clients of the service give up after as long.
pub const CALL_WITHIN: Duration = Duration::from_secs(10);

/// Writes that are under way at a time in a bucket: enough to hide its latency at full load (some
/// hundred objects a second), few enough not to be throttled.
const PARALLEL_WRITES: usize = 16;

/// Why an object could not be read or written. Every variant names it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("store folder `{path}`: {why}; check that it exists and is writable")]
    Folder {
        /// The folder.
        path: String,
        /// The operating system's word.
        why: String,
    },
    /// Another service writes to the folder.
    #[error(
        "store folder `{0}` is in use by another service; a store has one writer, stop it first"
    )]
    InUse(String),
    /// The bucket cannot be used as it is configured.
    #[error("storage.url `{url}`: {why}; docs/storage.md says what each store needs")]
    Bucket {
        /// The URL from the configuration.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The object is not there.
    #[error("object `{0}` is not in the store")]
    Missing(String),
    /// The store failed; the same call may work later.
    #[error("object `{object}`: {why}")]
    Failed {
        /// The object.
        object: String,
        /// The store's word.
        why: String,
    },
    /// The object is there and is not what this writer wrote, or writes.
    #[error(
        "STORE CONFLICT: object `{object}` {what}; nothing was overwritten. Look for a second \
         writer or a restored copy: docs/storage.md says what to do"
    )]
    Conflict {
        /// The object.
        object: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether somebody else wrote to the store: no further attempt can mend that.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, StoreError::Conflict { .. })
    }
}

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The same objects; a write is durable when it returns.
    durable: Arc<dyn ObjectStore>,
    kind: Kind,
}

/// What a store's writes are like.
#[derive(Clone, Debug)]
enum Kind {
    /// One machine's folder: no conditions, and durable when it was flushed.
    Folder(Arc<dyn Flush>),
    /// Conditional writes, durable when they return; each call is given up after this time.
    Bucket(Duration),
}

/// Makes durable what was written to a store whose writes are not.
pub trait Flush: std::fmt::Debug + Send + Sync + 'static {
    /// Returns when everything written so far survives a power failure.
    ///
    /// # Errors
    /// The operating system's; how much of it is durable is unknown then.
    fn flush(&self) -> std::io::Result<()>;
}

/// The file system that holds a folder; locks the folder for one writer as long as it lives.
#[derive(Debug)]
struct FileSystem(File);

impl Flush for FileSystem {
    fn flush(&self) -> std::io::Result<()> {
        rustix::fs::syncfs(&self.0).map_err(Into::into)
    }
}

impl Store {
    /// The store that the configuration names, ready for its one writer.
    ///
    /// # Errors
    /// [`StoreError::Folder`], [`StoreError::InUse`], or [`StoreError::Bucket`] for a bucket that
    /// cannot be reached or does not keep the conditions that the logs rely on.
    pub async fn open(location: &Location) -> Result<Self, StoreError> {
        match location.client()? {
            None => Self::local(location.folder()),
            Some(client) => {
                let store = Self::new(client);
                let refused = |why| StoreError::Bucket { url: location.to_string(), why };
                store.probe().await.map_err(refused)?;
                Ok(store)
            }
        }
    }

    /// A local folder, made if absent.
    ///
    /// # Errors
    /// [`StoreError::Folder`] or [`StoreError::InUse`].
    pub fn local(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.display().to_string();
        let failed = |why: String| StoreError::Folder { path: path.clone(), why };
        std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        let objects =
            LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(e.to_string()))?;
        let handle = File::open(folder).map_err(|e| failed(e.to_string()))?;
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::InUse(path)),
            Err(e) => return Err(failed(e.to_string())),
        }
        Ok(Self {
            durable: Arc::new(objects.clone().with_fsync(true)),
            objects: Arc::new(objects),
            kind: Kind::Folder(Arc::new(FileSystem(handle))),
        })
    }

    /// A store with conditional writes, each durable when it returns, as those in the cloud are.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { durable: objects.clone(), objects, kind: Kind::Bucket(CALL_WITHIN) }
    }

    /// How many writes may be under way at a time.
    #[must_use]
    pub fn parallel_writes(&self) -> usize {
        match self.kind {
            Kind::Folder(_) => 1,
            Kind::Bucket(_) => PARALLEL_WRITES,
        }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::Failed`].
    pub async fn get(&self, object: &str) -> Result<Bytes, StoreError> {
        let read = async { self.read(object).await?.bytes().await };
        self.within(object, read).await
    }

    async fn read(&self, object: &str) -> object_store::Result<GetResult> {
        self.objects.get(&Key::from(object)).await
    }

    /// Creates an immutable object, which is durable after the next [`Store::make_durable`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is there with other bytes; [`StoreError::Failed`]: whether
    /// it was persisted is unknown then, and creating it again is right in both cases.
    pub async fn create(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.kind {
            Kind::Folder(_) => self.create_file(object, bytes, &self.objects).await,
            Kind::Bucket(_) => self.create_object(object, bytes).await,
        }
    }

    /// Creates an immutable object that survives a power failure once this returns.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub async fn create_durably(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.kind {
            Kind::Folder(_) => self.create_file(object, bytes, &self.durable).await,
            Kind::Bucket(_) => self.create_object(object, bytes).await,
        }
    }

    /// The folder has one writer, which holds its lock, so that looking first is enough. A file
    /// with the right bytes is written again all the same: it may have been read from memory that
    /// an earlier process could not carry to the disk.
    async fn create_file(
        &self,
        object: &str,
        bytes: Bytes,
        objects: &Arc<dyn ObjectStore>,
    ) -> Result<(), StoreError> {
        match self.get(object).await {
            Err(StoreError::Missing(_)) => {}
            Ok(there) if is_torn(&there, &bytes) => {}
            Ok(_) => return Err(holds_other_bytes(object)),
            Err(e) => return Err(e),
        }
        let key = Key::from(object);
        self.within(object, objects.put(&key, bytes.into())).await.map(drop)
    }

    async fn create_object(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        let (key, options) = (Key::from(object), PutOptions::from(PutMode::Create));
        let put = self.objects.put_opts(&key, bytes.clone().into(), options);
        match self.limited(put).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => match self.get(object).await {
                Ok(there) if there == bytes => Ok(()),
                Ok(_) => Err(holds_other_bytes(object)),
                // Deleted in between, or read from a place that lags behind: tried again later.
                Err(e) => Err(StoreError::Failed { object: object.into(), why: e.to_string() }),
            },
            Err(e) => Err(failed(object, e)),
        }
    }

    /// Writes an object, replacing an older one.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; whether it was persisted is unknown then, and writing it again is
    /// right in both cases.
    pub async fn put(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        let key = Key::from(object);
        self.within(object, self.objects.put(&key, bytes.into())).await.map(drop)
    }

    /// Writes an object that survives a power failure once this returns.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_durably(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        let key = Key::from(object);
        self.within(object, self.durable.put(&key, bytes.into())).await.map(drop)
    }

    /// Deletes an object; one that is absent already is no error.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn delete(&self, object: &str) -> Result<(), StoreError> {
        let key = Key::from(object);
        match self.within(object, self.objects.delete(&key)).await {
            Ok(()) | Err(StoreError::Missing(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Names of the folders directly under `prefix`.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let listed = self.list(prefix).await?;
        Ok(listed.common_prefixes.iter().filter_map(|p| p.filename()).map(str::to_owned).collect())
    }

    /// Names of the objects directly under `prefix`.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let listed = self.list(prefix).await?;
        let names = listed.objects.iter().filter_map(|o| o.location.filename());
        Ok(names.map(str::to_owned).collect())
    }

    async fn list(&self, prefix: &str) -> Result<object_store::ListResult, StoreError> {
        let key = Key::from(prefix);
        self.within(prefix, self.objects.list_with_delimiter(Some(&key))).await
    }

    /// Returns when everything written so far survives a power failure. An object store in the
    /// cloud promises that with each write. After a failure only what is written again can be made
    /// durable: the kernel may have dropped the rest.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn make_durable(&self) -> Result<(), StoreError> {
        let Kind::Folder(flush) = self.kind.clone() else { return Ok(()) };
        let synced = tokio::task::spawn_blocking(move || flush.flush()).await;
        let why = match synced {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        Err(StoreError::Failed { object: "(whole folder)".into(), why })
    }

    async fn within<T>(
        &self,
        object: &str,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        self.limited(call).await.map_err(|e| failed(object, e))
    }

    /// A call, given up in time where that is possible: a system call on a file is not.
    async fn limited<T>(
        &self,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let Kind::Bucket(limit) = self.kind else { return call.await };
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result,
            Err(_) => Err(object_store::Error::Generic {
                store: "bucket",
                source: format!("no answer within {limit:?}").into(),
            }),
        }
    }
}

/// Whether a file may be what a loss of power left of a write of these bytes (the same, a part of
/// them, or zeros where they never reached the disk).
fn is_torn(there: &Bytes, bytes: &Bytes) -> bool {
    there.len() <= bytes.len() && there.iter().zip(bytes).all(|(a, b)| a == b || *a == 0)
}

fn holds_other_bytes(object: &str) -> StoreError {
    let what = "holds other bytes than are to be written, and must never change";
    StoreError::Conflict { object: object.to_owned(), what }
}

fn failed(object: &str, e: object_store::Error) -> StoreError {
    match e {
        object_store::Error::NotFound { .. } => StoreError::Missing(object.to_owned()),
        e => StoreError::Failed { object: object.to_owned(), why: e.to_string() },
    }
}

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;
