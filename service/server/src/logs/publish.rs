//! Steps 2 to 5 of the order of durability: what is committed goes to the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use chancery_tlog::{EntriesTileId, TILE_WIDTH};

use super::{Log, LogError, Tail, read, write};

/// The most partial objects that wait for their deletion. A store that refuses every deletion (by a
/// retention rule, say) keeps the others as garbage of a few kilobytes each.
const MAX_STALE: usize = 1_024;

/// What is in the store for sure, and what may be.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Size of the last checkpoint that is durable with everything that it covers.
    size: u64,
    keys_jwt: Option<Arc<str>>,
    named: bool,
    /// Full tiles and bundles that were written since then; a retry need not write them again.
    written: BTreeSet<String>,
    /// Partial objects that may be there: those of the last checkpoint, and of attempts that failed.
    partials: BTreeSet<String>,
}

impl Published {
    /// As a log was opened at its published checkpoint.
    pub(super) fn at(size: u64, keys_jwt: Option<Arc<str>>) -> Self {
        let partials = partial_paths(size).collect();
        Self { size, keys_jwt, named: true, written: BTreeSet::new(), partials }
    }
}

/// Everything committed at one moment.
struct Snapshot {
    size: u64,
    checkpoint: Arc<str>,
    staged: Vec<(String, Bytes)>,
    partials: Vec<(String, Bytes)>,
    keys_jwt: Option<Arc<str>>,
}

impl Log {
    /// Everything committed so far goes to the store, durably. Returns whether there was anything to
    /// do. Every write may be repeated after a failure, and is one that changes nothing then.
    ///
    /// # Errors
    /// [`LogError::Store`]; the next call goes on where this one failed.
    pub async fn publish(&self) -> Result<bool, LogError> {
        let mut published = self.publishing.lock().await;
        let snapshot = read(&self.tail).snapshot();
        let grew = snapshot.size != published.size;
        let keys_jwt =
            snapshot.keys_jwt.as_ref().filter(|k| Some(*k) != published.keys_jwt.as_ref());
        if !grew && keys_jwt.is_none() {
            self.delete_stale(&mut published).await;
            return Ok(false);
        }
        if grew {
            self.store_tiles(&mut published, &snapshot).await?;
            let checkpoint = Bytes::from(snapshot.checkpoint.to_string());
            self.store.put_durably(&self.path_of("checkpoint"), checkpoint).await?;
        }
        if let Some(keys) = keys_jwt {
            let keys = Bytes::from(keys.to_string());
            self.store.put_durably(&self.path_of("keys.jwt"), keys).await?;
        }
        // From here on nothing of the snapshot is needed in memory or in the write-ahead log.
        published.size = snapshot.size;
        published.keys_jwt = snapshot.keys_jwt;
        let written = std::mem::take(&mut published.written);
        write(&self.tail).staged.retain(|path, _| !written.contains(path));
        self.delete_stale(&mut published).await;
        Ok(true)
    }

    /// Step 2: what the next checkpoint covers, durably.
    async fn store_tiles(
        &self,
        published: &mut Published,
        snapshot: &Snapshot,
    ) -> Result<(), LogError> {
        if !published.named {
            let vkey = Bytes::from(format!("{}\n", self.vkey));
            self.store.put_durably(&self.path_of("vkey"), vkey).await?;
            published.named = true;
        }
        for (path, bytes) in &snapshot.staged {
            if !published.written.contains(path) {
                self.store.put(&self.path_of(path), bytes.clone()).await?;
                published.written.insert(path.clone());
            }
        }
        for (path, bytes) in &snapshot.partials {
            // Noted first: a write that fails may have been carried out.
            published.partials.insert(path.clone());
            self.store.put(&self.path_of(path), bytes.clone()).await?;
        }
        let durable = self.store.make_durable().await;
        if durable.is_err() {
            // The kernel may have dropped what it could not write and call the rest clean: only
            // writing everything again proves anything.
            published.written.clear();
        }
        Ok(durable?)
    }

    /// Step 5: partial objects that no published checkpoint needs. What cannot be deleted now is
    /// tried again later: garbage must not keep the write-ahead log from being released.
    async fn delete_stale(&self, published: &mut Published) {
        let current: BTreeSet<String> = partial_paths(published.size).collect();
        let stale: Vec<String> = published.partials.difference(&current).cloned().collect();
        for (waiting, path) in (1..=stale.len()).rev().zip(&stale) {
            match self.store.delete(&self.path_of(path)).await {
                Ok(()) => drop(published.partials.remove(path)),
                Err(_) if waiting > MAX_STALE => drop(published.partials.remove(path)),
                Err(e) => {
                    tracing::debug!("{e}; deleted later");
                    return;
                }
            }
        }
    }

    fn path_of(&self, object: &str) -> String {
        format!("log/{}/{object}", self.id_text)
    }
}

impl Tail {
    fn snapshot(&self) -> Snapshot {
        let mut partials: Vec<(String, Bytes)> = self
            .builder
            .edge()
            .filter(|(id, _)| !id.is_full())
            .map(|(id, bytes)| (id.path(), Bytes::copy_from_slice(bytes)))
            .collect();
        if let Some(id) = EntriesTileId::at(self.size / TILE_WIDTH, self.size) {
            partials.push((id.path(), Bytes::copy_from_slice(&self.bundle)));
        }
        Snapshot {
            size: self.size,
            checkpoint: self.checkpoint.clone(),
            staged: self.staged.iter().map(|(p, b)| (p.clone(), b.clone())).collect(),
            partials,
            keys_jwt: self.keys_jwt.clone(),
        }
    }
}

/// Partial objects that belong to the checkpoint of this size.
fn partial_paths(size: u64) -> impl Iterator<Item = String> {
    let tiles = chancery_tlog::tiles_for_size(size).into_iter().filter(|t| !t.is_full());
    let bundle = EntriesTileId::at(size / TILE_WIDTH, size);
    tiles.map(|t| t.path()).chain(bundle.map(|b| b.path()))
}
