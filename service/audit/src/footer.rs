//! The end of an encrypted Parquet file, authenticated before the Parquet library sees any of it.
//!
//! The library trusts the shape of what it parses: a hostile footer of 166 bytes kept it busy for many
//! seconds. So the little that is in the clear is read here, strictly as it is written here, and the
//! encrypted footer behind it is opened with the data key first. What does not open never reaches the
//! library. Who can write to a store but knows no recipient's public key cannot make one that opens.
//!
//! ```text
//! file       ... FileCryptoMetaData (Thrift's compact protocol), footer module, length of both
//!            (4, little-endian), `PARE`
//! module     length (4, little-endian), nonce (12), footer sealed with AES-256-GCM
//! ```
//!
//! (Parquet modular encryption, sections 5.1 and 5.4 of its specification.)

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use parquet::file::reader::{ChunkReader, Length};

use crate::Error;
use crate::keys::{DataKey, Identity};
use crate::segment::Source;

/// The largest end of a file: one row group of 21 columns takes a few kilobytes, and which tokens it
/// holds a byte for each.
const MAX_FOOTER_BYTES: u64 = 1024 * 1024;
/// Bytes of the random part of what is authenticated.
const UNIQUE_BYTES: usize = 8;
/// The type of a footer's module.
const FOOTER_MODULE: u8 = 0;
/// How `FileCryptoMetaData` begins: field 1, the union's `AES_GCM_V1`, its field 2 of eight bytes.
const HEAD: [u8; 4] = [0x1c, 0x1c, 0x28, 8];
/// Both structures end; field 2, a binary, follows.
const MIDDLE: [u8; 3] = [0, 0, 0x18];

/// Checks the end of a segment, and returns its data key.
///
/// # Errors
/// [`Error::Malformed`] for anything but what is written here; as [`DataKey::unwrap`];
/// [`Error::Altered`] when the footer does not open with its key.
pub fn authenticate(source: &Source, identities: &[Identity]) -> Result<DataKey, Error> {
    let mut bytes = end_of(source)?;
    let wrong = || Error::malformed("segment", "its end is not one that was written here");
    let (unique, wrapped, module) = split(&bytes).ok_or_else(wrong)?;
    let (length, sealed) = module.split_first_chunk::<4>().ok_or_else(wrong)?;
    if usize::try_from(u32::from_le_bytes(*length)) != Ok(sealed.len()) {
        return Err(wrong());
    }
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
    let data_key = DataKey::unwrap(wrapped, identities)?;
    let key = UnboundKey::new(&AES_256_GCM, data_key.bytes()).map_err(|_| Error::Random)?;
    let aad = [unique, &[FOOTER_MODULE]].concat();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let start = bytes.len().saturating_sub(sealed.len());
    LessSafeKey::new(key)
        .open_in_place(nonce, Aad::from(aad), bytes.get_mut(start..).unwrap_or_default())
        .map_err(|_| Error::Altered("segment's footer"))?;
    Ok(data_key)
}

/// What lies between the last page and the length at the end.
fn end_of(source: &Source) -> Result<Vec<u8>, Error> {
    let wrong = |why: &str| Error::malformed("segment", why);
    let size = source.len();
    let start = size.checked_sub(8).ok_or_else(|| wrong("it is cut off"))?;
    let tail = source.get_bytes(start, 8)?;
    let (length, magic) = tail.split_first_chunk::<4>().ok_or_else(|| wrong("it is cut off"))?;
    if magic != b"PARE" {
        return Err(wrong("it is no encrypted Parquet file, or it is cut off"));
    }
    let length = u64::from(u32::from_le_bytes(*length));
    if length > MAX_FOOTER_BYTES {
        return Err(wrong("its footer is larger than one that was written here"));
    }
    let from = start.checked_sub(length).ok_or_else(|| wrong("it is cut off"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(source.get_bytes(from, length)?.into())
}

/// What is in the clear: the random part of what is authenticated, the wrapped data key, the module.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let rest = bytes.strip_prefix(&HEAD)?;
    let (unique, rest) = rest.split_at_checked(UNIQUE_BYTES)?;
    let rest = rest.strip_prefix(&MIDDLE)?;
    let (length, rest) = varint(rest)?;
    let (wrapped, rest) = rest.split_at_checked(length)?;
    Some((unique, wrapped, rest.strip_prefix(&[0])?))
}

/// A length in at most three groups of seven bits: up to two million.
fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().take(3).enumerate() {
        value |= usize::from(byte & 0x7f).checked_shl(u32::try_from(at).ok()?.checked_mul(7)?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at.checked_add(1)?..)?));
        }
    }
    None
}
