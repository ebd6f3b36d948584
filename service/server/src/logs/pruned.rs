//! Logs whose entries are gone, as C2SP tlog-tiles allows ("Pruning"), and whose hashes stay.
//!
//! Only bundles of entries go, never a tile of hashes: every tree that the log ever was can still be
//! computed, every proof made, and whoever holds a token still finds its leaf. Which logs may be pruned,
//! the caller knows (`chancery log prune`): those that ended long ago. Nobody writes to these any more,
//! so that this may run beside a service that shares the bucket.
//!
//! Order, and what a crash leaves behind at each point:
//!
//! 1. [`MARKER`] is created, durably: the log's minimum index. A crash here: the marker says less than
//!    the truth, and the next run goes on.
//! 2. The full bundles below the minimum index are deleted, the last one last. A crash in between: some
//!    are left, and the next run deletes them; that the last one is gone says that all are.

use bytes::Bytes;
use chancery_tlog::{EntriesTileId, LogId, TILE_WIDTH};
use tokio::task::JoinSet;

use super::{Log, LogError};
use crate::store::{Store, StoreError};

/// Below the log, beside its checkpoint: the minimum index in decimal, and a newline.
pub const MARKER: &str = "pruned";

/// What a marker says: how many entries from the first on may be gone, whole bundles.
#[must_use]
pub fn parse_marker(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let minimum: u64 = text.parse().ok()?;
    let is_it = minimum > 0 && minimum.is_multiple_of(TILE_WIDTH) && minimum.to_string() == text;
    is_it.then_some(minimum)
}

/// The full bundle with this index, by path below the log.
fn bundle(index: u64) -> String {
    EntriesTileId { index, width: 256 }.path()
}

/// Deletes the entries of a log below `minimum`, a multiple of 256 that its checkpoint covers. Returns
/// whether there was anything to do. May be repeated after a failure.
///
/// # Errors
/// [`StoreError::Conflict`] when the log was pruned to another index; [`StoreError::Failed`].
pub async fn prune_entries(store: &Store, id: LogId, minimum: u64) -> Result<bool, StoreError> {
    let marker = Bytes::from(format!("{minimum}\n"));
    store.create_durably(&format!("log/{id}/{MARKER}"), marker).await?;
    let Some(last) = (minimum / TILE_WIDTH).checked_sub(1) else { return Ok(false) };
    let last_path = format!("log/{id}/{}", bundle(last));
    match store.get(&last_path).await {
        Err(StoreError::Missing(_)) => return Ok(false),
        other => drop(other?),
    }
    let mut under_way = JoinSet::new();
    for index in 0..last {
        if under_way.len() >= store.parallel_writes() {
            joined(under_way.join_next().await)?;
        }
        let (store, path) = (store.clone(), format!("log/{id}/{}", bundle(index)));
        under_way.spawn(async move { store.delete(&path).await });
    }
    while let Some(deleted) = under_way.join_next().await {
        joined(Some(deleted))?;
    }
    // What follows says that all of this is done: a loss of power must not undo it.
    store.make_durable().await?;
    store.delete(&last_path).await?;
    store.make_durable().await?;
    Ok(true)
}

fn joined(
    deleted: Option<Result<Result<(), StoreError>, tokio::task::JoinError>>,
) -> Result<(), StoreError> {
    match deleted {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(e)) => Err(StoreError::Failed { object: "?".into(), why: e.to_string() }),
    }
}

impl Log {
    /// The log's minimum index: entries below it may be gone. `None` while nothing of it was pruned.
    ///
    /// # Errors
    /// [`LogError::Store`], [`LogError::Damaged`].
    pub async fn minimum_index(&self) -> Result<Option<u64>, LogError> {
        match self.get_object(MARKER).await {
            Ok(bytes) => parse_marker(&bytes)
                .map(Some)
                .ok_or_else(|| self.damaged(format!("`{MARKER}` is not a minimum index"))),
            Err(LogError::Store(StoreError::Missing(_))) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A bundle from the store, or that it was pruned.
    pub(super) async fn stored_bundle(&self, id: EntriesTileId) -> Result<Bytes, LogError> {
        match self.get_object(&bundle(id.index)).await {
            Err(absent @ LogError::Store(StoreError::Missing(_))) => {
                let end = id.index.saturating_add(1).saturating_mul(TILE_WIDTH);
                match self.minimum_index().await? {
                    Some(minimum) if end <= minimum => Err(LogError::Pruned(minimum)),
                    _ => Err(absent),
                }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
