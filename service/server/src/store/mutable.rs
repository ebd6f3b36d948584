//! An object that changes, and that one writer changes.

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{Error, PutMode, PutOptions, UpdateVersion};

use super::{Kind, Store, StoreError, failed};

/// Attempts that are remembered after an outage, and may still turn up: those of a quarter of an
/// hour, one a second. A bucket refuses a later one by itself, the object has changed since.
const MAX_ATTEMPTS: usize = 1_024;

/// One mutable object, as its one writer knows it.
///
/// In a bucket it is replaced on the condition that it is still the version that this writer knows.
/// When an answer is missing, it is read again: it may hold what was there before or what any
/// attempt since then carried. Anything else was put there by somebody else.
#[derive(Debug)]
pub struct Mutable {
    object: String,
    at: At,
    /// SHA-256 of what was there last for sure (if that is known), and of each attempt since.
    ours: Vec<[u8; 32]>,
    /// Whether this writer has ever seen it there: then it must never be missing.
    was_there: bool,
}

#[derive(Clone, Debug)]
enum At {
    Unknown,
    Absent,
    Version(UpdateVersion),
}

impl Mutable {
    /// An object of which nothing is known yet.
    #[must_use]
    pub fn new(object: String) -> Self {
        Self { object, at: At::Unknown, ours: Vec::new(), was_there: false }
    }

    /// What is there; the next write replaces exactly that.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Failed`].
    pub async fn read(&mut self, store: &Store) -> Result<Bytes, StoreError> {
        let read = async {
            let result = store.read(&self.object).await?;
            let (e_tag, version) = (result.meta.e_tag.clone(), result.meta.version.clone());
            Ok((result.bytes().await?, UpdateVersion { e_tag, version }))
        };
        let (bytes, version) = match store.within(&self.object, read).await {
            Ok(there) => there,
            Err(e) => {
                if matches!(e, StoreError::Missing(_)) && !self.was_there {
                    self.at = At::Absent;
                }
                return Err(e);
            }
        };
        self.is_now(version, &bytes);
        Ok(bytes)
    }

    /// Replaces it, durably.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else changed or deleted it; [`StoreError::Failed`]:
    /// whether it was persisted is unknown then, and writing again is right in both cases.
    pub async fn write(&mut self, store: &Store, bytes: Bytes) -> Result<(), StoreError> {
        if matches!(store.kind, Kind::Folder(_)) {
            // A folder knows no conditions; its lock keeps other writers out.
            return store.put_durably(&self.object, bytes).await;
        }
        // The second round follows a refusal: somebody is there, and it may have been ourselves.
        for _ in 0..2 {
            if matches!(self.at, At::Unknown) && self.look(store, &bytes).await? {
                return Ok(());
            }
            let mode = match std::mem::replace(&mut self.at, At::Unknown) {
                At::Version(version) => PutMode::Update(version),
                At::Absent | At::Unknown => PutMode::Create,
            };
            self.note_attempt(&bytes);
            let (key, options) = (Key::from(self.object.as_str()), PutOptions::from(mode));
            match store.limited(store.objects.put_opts(&key, bytes.clone().into(), options)).await {
                Ok(put) => {
                    let version = UpdateVersion { e_tag: put.e_tag, version: put.version };
                    self.is_now(version, &bytes);
                    return Ok(());
                }
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Err(e) => return Err(failed(&self.object, e)),
            }
        }
        let why = "it changes while it is written; is there a second writer?".to_owned();
        Err(StoreError::Failed { object: self.object.clone(), why })
    }

    /// Finds out what is there, and whether it is what is to be written.
    async fn look(&mut self, store: &Store, bytes: &Bytes) -> Result<bool, StoreError> {
        let (ours, known) = (std::mem::take(&mut self.ours), self.was_there);
        let there = self.read(store).await;
        match there {
            Ok(there) if there == *bytes => Ok(true),
            Ok(there) if ours.is_empty() || ours.contains(&digest(&there)) => Ok(false),
            Ok(_) => {
                let what = "was changed by somebody else";
                self.at = At::Unknown;
                self.ours = ours;
                Err(StoreError::Conflict { object: self.object.clone(), what })
            }
            Err(StoreError::Missing(_)) if !known => {
                self.ours = ours;
                Ok(false)
            }
            Err(StoreError::Missing(_)) => {
                self.ours = ours;
                let what = "was deleted by somebody else";
                Err(StoreError::Conflict { object: self.object.clone(), what })
            }
            Err(e) => {
                self.ours = ours;
                Err(e)
            }
        }
    }

    fn is_now(&mut self, version: UpdateVersion, bytes: &Bytes) {
        // A store that names no version is read before each write.
        let named = version.e_tag.is_some() || version.version.is_some();
        self.at = if named { At::Version(version) } else { At::Unknown };
        self.ours = vec![digest(bytes)];
        self.was_there = true;
    }

    fn note_attempt(&mut self, bytes: &Bytes) {
        if self.ours.len() >= MAX_ATTEMPTS {
            // The first is what was there before; attempts are given up oldest first.
            self.ours.remove(1.min(self.ours.len().saturating_sub(1)));
        }
        self.ours.push(digest(bytes));
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    chancery_entry::sha256(bytes)
}
