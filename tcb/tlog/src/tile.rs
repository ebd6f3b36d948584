//! Naming tiles: which exist for a tree of some size, and their paths (c2sp.org/tlog-tiles).

use crate::error::{Error, excerpt};
use crate::hash::HASH_BYTES;
use crate::text::decimal;

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;

/// Levels of the tree in one level of tiles: 2^8 is [`TILE_WIDTH`].
pub const TILE_HEIGHT: u32 = 8;

/// Bytes of a full tile.
pub const FULL_TILE_BYTES: usize = FULL_WIDTH as usize * HASH_BYTES;

/// The highest tile level that a path may name (c2sp.org/tlog-tiles, "Merkle Tree"). Trees that fit
/// [`MAX_TREE_SIZE`](crate::MAX_TREE_SIZE) have tiles at levels 0 to 7.
pub const MAX_LEVEL: u8 = 63;

pub(crate) const FULL_WIDTH: u16 = 256;

/// Tile levels that a tree whose size has 64 bits can have.
const LEVELS: u8 = 8;

/// A tile of hashes. At level 0 they are leaf hashes, at level n + 1 the roots of full level n tiles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TileId {
    /// Tile level, 0 to [`MAX_LEVEL`].
    pub level: u8,
    /// Zero-based index of the tile in its level.
    pub index: u64,
    /// Hashes in the tile: 256 when it is full, 1 to 255 when it is partial.
    pub width: u16,
}

/// A bundle of entries: those whose hashes the level 0 tile with the same index and width holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntriesTileId {
    /// Zero-based index of the bundle.
    pub index: u64,
    /// Entries in the bundle: 256 when it is full, 1 to 255 when it is partial.
    pub width: u16,
}

/// What a path below a log's prefix names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TilePath {
    /// `tile/<level>/<index>[.p/<width>]`
    Hashes(TileId),
    /// `tile/entries/<index>[.p/<width>]`
    Entries(EntriesTileId),
}

impl TileId {
    /// The tile with this place, as it stands in a tree of `size` leaves: full, partial at the right
    /// edge, or `None` where the tree has nothing yet.
    pub fn at(level: u8, index: u64, size: u64) -> Option<TileId> {
        let width = hashes_at(level, size).checked_sub(index.checked_mul(TILE_WIDTH)?)?;
        let width = u16::try_from(width.min(TILE_WIDTH)).ok()?;
        (width > 0).then_some(TileId { level, index, width })
    }

    /// Whether a tree of `size` leaves has all hashes of this tile, so that it may be served.
    pub fn is_within(&self, size: u64) -> bool {
        TileId::at(self.level, self.index, size).is_some_and(|t| self.width <= t.width)
    }

    /// Whether the tile has 256 hashes.
    pub fn is_full(&self) -> bool {
        self.width == FULL_WIDTH
    }

    /// The full tile at the same place, which holds this one as its beginning.
    pub fn full(&self) -> TileId {
        TileId { width: FULL_WIDTH, ..*self }
    }

    /// Bytes of the tile.
    pub fn byte_len(&self) -> usize {
        usize::from(self.width) * HASH_BYTES
    }

    /// The path below the log's prefix, `tile/0/x001/x234/067` or `tile/0/000.p/5`.
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, place(self.index, self.width))
    }

    /// Reads exactly what [`path`](Self::path) writes; anything else is [`Error::TilePath`].
    pub fn parse(path: &str) -> Result<TileId, Error> {
        match TilePath::parse(path)? {
            TilePath::Hashes(tile) => Ok(tile),
            TilePath::Entries(_) => Err(Error::TilePath(excerpt(path))),
        }
    }
}

impl EntriesTileId {
    /// The bundle with this index, as it stands in a tree of `size` leaves.
    pub fn at(index: u64, size: u64) -> Option<EntriesTileId> {
        TileId::at(0, index, size).map(|t| EntriesTileId { index, width: t.width })
    }

    /// The level 0 tile that holds the leaf hashes of these entries.
    pub fn hashes(&self) -> TileId {
        TileId { level: 0, index: self.index, width: self.width }
    }

    /// Whether a tree of `size` leaves has all entries of this bundle.
    pub fn is_within(&self, size: u64) -> bool {
        self.hashes().is_within(size)
    }

    /// The path below the log's prefix, `tile/entries/x001/x234/067` or `tile/entries/000.p/5`.
    pub fn path(&self) -> String {
        format!("tile/entries/{}", place(self.index, self.width))
    }

    /// Reads exactly what [`path`](Self::path) writes; anything else is [`Error::TilePath`].
    pub fn parse(path: &str) -> Result<EntriesTileId, Error> {
        match TilePath::parse(path)? {
            TilePath::Entries(bundle) => Ok(bundle),
            TilePath::Hashes(_) => Err(Error::TilePath(excerpt(path))),
        }
    }
}

impl TilePath {
    /// Reads exactly what [`path`](Self::path) writes; anything else is [`Error::TilePath`].
    pub fn parse(path: &str) -> Result<TilePath, Error> {
        TilePath::parse_strict(path).ok_or_else(|| Error::TilePath(excerpt(path)))
    }

    /// The path below the log's prefix.
    pub fn path(&self) -> String {
        match self {
            TilePath::Hashes(tile) => tile.path(),
            TilePath::Entries(bundle) => bundle.path(),
        }
    }

    fn parse_strict(path: &str) -> Option<TilePath> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (index, width) = parse_place(rest)?;
        if level == "entries" {
            return Some(TilePath::Entries(EntriesTileId { index, width }));
        }
        let level = u8::try_from(decimal(level)?).ok().filter(|l| *l <= MAX_LEVEL)?;
        Some(TilePath::Hashes(TileId { level, index, width }))
    }
}

/// The partial tiles at the right edge of a tree of `size` leaves, lowest level first: with the full
/// tiles these are all that describe it. Levels whose partial tile would be empty have none.
pub fn tiles_for_size(size: u64) -> Vec<TileId> {
    (0..LEVELS).filter_map(|level| TileId::at(level, hashes_at(level + 1, size), size)).collect()
}

/// The tiles that become full while a tree grows from `old_size` to `new_size` leaves, lowest level
/// first, in order within each level. Those of level 0 are also the entry bundles that become full.
pub fn new_full_tiles(old_size: u64, new_size: u64) -> impl Iterator<Item = TileId> {
    (0..LEVELS).flat_map(move |level| {
        (hashes_at(level + 1, old_size)..hashes_at(level + 1, new_size)).map(move |index| TileId {
            level,
            index,
            width: FULL_WIDTH,
        })
    })
}

/// How many levels of tiles a tree of `size` leaves has.
pub(crate) fn levels_for_size(size: u64) -> usize {
    (0..LEVELS).filter(|level| hashes_at(*level, size) > 0).count()
}

/// How many hashes all tiles of a level hold together: `floor(size / 256^level)`. It is also the
/// number of full tiles in the level below.
pub(crate) fn hashes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * TILE_HEIGHT).unwrap_or(0)
}

/// `<N>[.p/<W>]`
fn place(index: u64, width: u16) -> String {
    let mut path = String::new();
    push_groups(&mut path, index / GROUP);
    path.push_str(&format!("{:03}", index % GROUP));
    if width != FULL_WIDTH {
        path.push_str(&format!(".p/{width}"));
    }
    path
}

/// Three decimal digits make one element of a path.
const GROUP: u64 = 1000;

/// All but the last element of an index carry an `x`, so that no file needs the name of a folder.
fn push_groups(path: &mut String, groups: u64) {
    if groups > 0 {
        push_groups(path, groups / GROUP);
        path.push_str(&format!("x{:03}/", groups % GROUP));
    }
}

fn parse_place(text: &str) -> Option<(u64, u16)> {
    let (index, width) = match text.split_once(".p/") {
        Some((index, width)) => (index, u16::try_from(decimal(width)?).ok()?),
        None => (text, FULL_WIDTH),
    };
    let partial = index.len() < text.len();
    if partial && !(1..FULL_WIDTH).contains(&width) {
        return None;
    }
    let (groups, last) = match index.rsplit_once('/') {
        Some((groups, last)) => (Some(groups), last),
        None => (None, index),
    };
    let mut value = 0_u64;
    for group in groups.into_iter().flat_map(|g| g.split('/')) {
        value = value.checked_mul(GROUP)?.checked_add(three_digits(group.strip_prefix('x')?)?)?;
        // A leading group of zeroes would be a second spelling of the same index.
        if value == 0 {
            return None;
        }
    }
    Some((value.checked_mul(GROUP)?.checked_add(three_digits(last)?)?, width))
}

fn three_digits(text: &str) -> Option<u64> {
    let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}
