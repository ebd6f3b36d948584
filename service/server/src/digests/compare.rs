//! Whether a file of an index says what the log's own tiles say.
//!
//! Its CRCs show that its bytes are those that were written, its root that it was made of this history.
//! That what was written was right is compared here: of each file some tiles when it is opened, and all
//! others one by one while the service runs.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use chancery_tlog::{TILE_WIDTH, TileId};

use super::run::{Key, Run, Stretch};
use super::{DigestError, blocking, leaves};
use crate::logs::Log;

/// Tiles of a file that are compared when it is opened, beside its first and its last: a file of other
/// leaves is found at the first one, and each costs a read of the store.
const SAMPLES: u64 = 2;

/// Compares some tiles of a file with the log.
pub(super) async fn sample(log: &Log, run: &Arc<Run>) -> Result<(), DigestError> {
    for tile in sampled(run.stretch()) {
        tile_agrees(log, std::slice::from_ref(run), tile).await?;
    }
    Ok(())
}

/// The first tile, the last, and some that nobody can know before.
fn sampled(stretch: &Stretch) -> Vec<u64> {
    let (first, last) = (stretch.from / TILE_WIDTH, stretch.to.saturating_sub(1) / TILE_WIDTH);
    let tiles = last.saturating_sub(first).saturating_add(1);
    let chance = RandomState::new();
    let drawn = |number: u64| {
        let offset = chance.hash_one(number).checked_rem(tiles).unwrap_or(0);
        first.saturating_add(offset)
    };
    [first, last].into_iter().chain((0..SAMPLES).map(drawn)).collect()
}

/// Whether each leaf of a tile of the log is where these files say, as far as they cover it.
pub(super) async fn tile_agrees(
    log: &Log,
    runs: &[Arc<Run>],
    tile: u64,
) -> Result<(), DigestError> {
    let size = log.size_and_root().0;
    let Some(id) = TileId::at(0, tile, size) else { return Ok(()) };
    let bytes = log.tile(id).await?;
    let begin = tile.saturating_mul(TILE_WIDTH);
    let keys: Vec<(u64, Key)> = (begin..).zip(leaves(&bytes).map(|leaf| Key::of(&leaf))).collect();
    let runs: Vec<Arc<Run>> = runs.to_vec();
    let compare = move || {
        for run in &runs {
            let covered = run.stretch().from..run.stretch().to;
            for (index, key) in keys.iter().filter(|(index, _)| covered.contains(index)) {
                run.must_hold(*key, *index)?;
            }
        }
        Ok(())
    };
    Ok(blocking(compare).await?)
}
