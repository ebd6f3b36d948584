//! Entry bundles: the entries behind a level 0 tile (c2sp.org/tlog-tiles, "Log entries").

use crate::error::Error;
use crate::tile::TILE_WIDTH;

/// The longest entry: its length is written as 16 bits.
pub const MAX_ENTRY_BYTES: usize = u16::MAX as usize;

/// Appends one entry to a bundle: its length as big-endian 16 bits, then its bytes.
///
/// Fails with [`Error::EntryLength`] above [`MAX_ENTRY_BYTES`]; then `out` is unchanged.
pub fn encode_entry(out: &mut Vec<u8>, entry: &[u8]) -> Result<(), Error> {
    let length = u16::try_from(entry.len()).map_err(|_| Error::EntryLength(entry.len()))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle that holds exactly `width` (1 to 256) of them.
///
/// Fails with [`Error::Bundle`] when there are fewer or more, or when the last is cut off. Whether
/// they are the log's is told by their leaf hashes in the level 0 tile.
pub fn decode_entries(bytes: &[u8], width: usize) -> Result<Vec<Vec<u8>>, Error> {
    let bad = |reason| Error::Bundle { width, reason };
    if width == 0 || width as u64 > TILE_WIDTH {
        return Err(bad("a bundle holds 1 to 256 entries"));
    }
    let mut entries = Vec::with_capacity(width);
    let mut rest = bytes;
    while entries.len() < width {
        let (length, after) = rest.split_first_chunk().ok_or_else(|| bad("it holds fewer"))?;
        let (entry, after) = after
            .split_at_checked(u16::from_be_bytes(*length).into())
            .ok_or_else(|| bad("its last entry is cut off"))?;
        entries.push(entry.to_vec());
        rest = after;
    }
    if !rest.is_empty() {
        return Err(bad("bytes follow its last entry"));
    }
    Ok(entries)
}
