//! Objects: one interface for a local folder now and buckets later (crate `object_store`).
//!
//! Every object has one writer. In the local folder most objects are not synced one by one, which
//! would cost two syncs per tile beside the write-ahead log's own: [`Store::make_durable`] syncs its
//! file system once for all of them. The few objects that others build on are written through to the
//! disk ([`Store::put_durably`]).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

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
}

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The same objects; a write is durable when it returns.
    durable: Arc<dyn ObjectStore>,
    flush: Option<Arc<dyn Flush>>,
}

/// Makes durable what was written to a store whose writes are not.
pub trait Flush: std::fmt::Debug + Send + Sync + 'static {
    /// Returns when everything written so far survives a power failure.
    ///
    /// # Errors
    /// The operating system's; how much of it is durable is unknown then.
    fn flush(&self) -> std::io::Result<()>;
}

/// The file system that holds a folder.
#[derive(Debug)]
struct FileSystem(File);

impl Flush for FileSystem {
    fn flush(&self) -> std::io::Result<()> {
        rustix::fs::syncfs(&self.0).map_err(Into::into)
    }
}

impl Store {
    /// A local folder, made if absent.
    ///
    /// # Errors
    /// [`StoreError::Folder`].
    pub fn local(folder: &Path) -> Result<Self, StoreError> {
        let failed = |e: String| StoreError::Folder { path: folder.display().to_string(), why: e };
        std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        let objects =
            LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(e.to_string()))?;
        let flush = File::open(folder).map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            durable: Arc::new(objects.clone().with_fsync(true)),
            objects: Arc::new(objects),
            flush: Some(Arc::new(FileSystem(flush))),
        })
    }

    /// A store whose every write is durable when it returns, as those in the cloud are.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { durable: objects.clone(), objects, flush: None }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::Failed`].
    pub async fn get(&self, object: &str) -> Result<Bytes, StoreError> {
        let result = self.objects.get(&Key::from(object)).await.map_err(|e| failed(object, e))?;
        result.bytes().await.map_err(|e| failed(object, e))
    }

    /// Writes an object, replacing an older one.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; whether it was persisted is unknown then, and writing it again is
    /// right in both cases.
    pub async fn put(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        let put = self.objects.put(&Key::from(object), bytes.into()).await;
        put.map(drop).map_err(|e| failed(object, e))
    }

    /// Writes an object that survives a power failure once this returns.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_durably(&self, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        let put = self.durable.put(&Key::from(object), bytes.into()).await;
        put.map(drop).map_err(|e| failed(object, e))
    }

    /// Deletes an object; one that is absent already is no error.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn delete(&self, object: &str) -> Result<(), StoreError> {
        match self.objects.delete(&Key::from(object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(object, e)),
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
        let listed = self.objects.list_with_delimiter(Some(&Key::from(prefix))).await;
        listed.map_err(|e| failed(prefix, e))
    }

    /// Returns when everything written so far survives a power failure. An object store in the
    /// cloud promises that with each write. After a failure only what is written again can be made
    /// durable: the kernel may have dropped the rest.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn make_durable(&self) -> Result<(), StoreError> {
        let Some(flush) = self.flush.clone() else { return Ok(()) };
        let synced = tokio::task::spawn_blocking(move || flush.flush()).await;
        let why = match synced {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        Err(StoreError::Failed { object: "(whole folder)".into(), why })
    }
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
mod tests {
    use super::*;

    #[tokio::test]
    async fn objects_are_written_read_listed_and_deleted() {
        let folder = std::env::temp_dir().join(format!("chancery-store-{}", std::process::id()));
        let store = Store::local(&folder).unwrap();
        store.put("log/a/checkpoint", Bytes::from_static(b"one")).await.unwrap();
        store.put("log/a/checkpoint", Bytes::from_static(b"two")).await.unwrap();
        store.put_durably("policy/1", Bytes::from_static(b"p")).await.unwrap();
        assert_eq!(store.get("log/a/checkpoint").await.unwrap(), "two");
        assert_eq!(store.folders("log").await.unwrap(), ["a"]);
        assert_eq!(store.names("policy").await.unwrap(), ["1"]);
        store.make_durable().await.unwrap();
        store.delete("policy/1").await.unwrap();
        store.delete("policy/1").await.unwrap();
        assert!(matches!(store.get("policy/1").await, Err(StoreError::Missing(_))));
        assert!(store.folders("nothing").await.unwrap().is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_so() {
        let error = Store::local(Path::new("/proc/nothing/here")).unwrap_err();
        assert!(error.to_string().contains("/proc/nothing/here"), "{error}");
    }
}
