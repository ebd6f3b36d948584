//! The bytes of the write-ahead log. All integers are little-endian.
//!
//! ```text
//! segment   sector 0: segment header   sector 1: mark   sectors 2..: records
//! record    header (80 bytes), payload, zeros up to the next sector
//! ```
//!
//! Records start at 512-byte sectors, the unit that a disk writes whole. The log's identity, 128
//! random bits that never leave the disk, is part of every header: bytes inside a payload, or
//! another log's segment, cannot pass for a record of this one.

use super::{MAX_PAYLOAD_BYTES, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, SEGMENT_BYTES_MULTIPLE};

/// Records start at multiples of this.
pub(super) const SECTOR: u64 = 512;
/// Where the mark of a segment lies.
pub(super) const MARK_OFFSET: u64 = SECTOR;
/// Where the first record of a segment lies.
pub(super) const FIRST_RECORD: u64 = 2 * SECTOR;
/// Length of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 80;
/// The one format that this version writes and reads.
const VERSION: u16 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"chanWALs";
const MARK_MAGIC: [u8; 8] = *b"chanWALm";
const RECORD_MAGIC: [u8; 8] = *b"chanWALr";

/// One record, as recovery returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Rises by one with each record, from 1.
    pub sequence: u64,
    /// What the payload is.
    pub kind: RecordKind,
    /// Identity of the signer log that the payload belongs to.
    pub log: [u8; 16],
    /// Index in that log of the payload's first entry.
    pub first_index: u64,
    /// The caller's bytes.
    pub payload: Vec<u8>,
}

/// What a record's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A batch of entries with its checkpoint.
    Batch = 1,
    /// Audit records, sealed, and behind them a batch if entries came with them.
    Audited = 2,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Batch),
            2 => Some(Self::Audited),
            _ => None,
        }
    }
}

/// First sector of a segment; written once, when the segment is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub id: [u8; 16],
    /// Place in the ring, from 0.
    pub ordinal: u16,
    /// Segments in the ring.
    pub count: u16,
    pub segment_bytes: u64,
}

/// The part of a record's header that its writer chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub kind: RecordKind,
    pub log: [u8; 16],
    pub first_index: u64,
    pub sequence: u64,
    /// All records up to this one were in the store when this one was written.
    pub released: u64,
}

/// What lies at a sector.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No record of this log starts here.
    Nothing,
    /// A record's header is intact, its payload is not: torn or rotten.
    Damaged(RecordHeader),
    /// A whole record; its payload is that many bytes behind the header.
    Whole(RecordHeader, usize),
    /// A record of this log in a format, or of a kind, that this version does not know.
    Unsupported(u16),
}

/// Why a segment's first sector is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Foreign(&'static str),
    Unsupported(u16),
}

/// Bytes that a record with this payload occupies, padding included.
pub(super) fn record_bytes(payload: usize) -> u64 {
    let bytes = payload.saturating_add(RECORD_HEADER_BYTES) as u64;
    bytes.div_ceil(SECTOR).saturating_mul(SECTOR)
}

/// The first sector of a segment.
pub(super) fn encode_segment_header(header: &SegmentHeader) -> Vec<u8> {
    let mut sector = Vec::with_capacity(SECTOR as usize);
    sector.extend_from_slice(&SEGMENT_MAGIC);
    sector.extend_from_slice(&VERSION.to_le_bytes());
    sector.extend_from_slice(&header.ordinal.to_le_bytes());
    sector.extend_from_slice(&header.count.to_le_bytes());
    sector.extend_from_slice(&[0; 2]);
    sector.extend_from_slice(&header.segment_bytes.to_le_bytes());
    sector.extend_from_slice(&header.id);
    seal(sector)
}

/// Reads a segment's first sector.
pub(super) fn decode_segment_header(segment: &[u8]) -> Result<SegmentHeader, HeaderFault> {
    if field::<8>(segment, 0) != Some(SEGMENT_MAGIC) {
        return Err(HeaderFault::Foreign("no segment header"));
    }
    if !is_sealed(segment, 0, 40) {
        return Err(HeaderFault::Foreign("the segment header is damaged"));
    }
    decode_sealed_header(segment)
        .unwrap_or(Err(HeaderFault::Foreign("the segment header is damaged")))
}

fn decode_sealed_header(segment: &[u8]) -> Option<Result<SegmentHeader, HeaderFault>> {
    let version = u16::from_le_bytes(field(segment, 8)?);
    if version != VERSION {
        return Some(Err(HeaderFault::Unsupported(version)));
    }
    let header = SegmentHeader {
        ordinal: u16::from_le_bytes(field(segment, 10)?),
        count: u16::from_le_bytes(field(segment, 12)?),
        segment_bytes: u64::from_le_bytes(field(segment, 16)?),
        id: field(segment, 24)?,
    };
    let sane = header.ordinal < header.count
        && header.count >= 2
        && (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&header.segment_bytes)
        && header.segment_bytes.is_multiple_of(SEGMENT_BYTES_MULTIPLE);
    sane.then_some(Ok(header))
}

/// The sector that says that all records up to `released` are in the store.
pub(super) fn encode_mark(id: &[u8; 16], released: u64) -> Vec<u8> {
    let mut sector = Vec::with_capacity(SECTOR as usize);
    sector.extend_from_slice(&MARK_MAGIC);
    sector.extend_from_slice(&released.to_le_bytes());
    sector.extend_from_slice(&[0; 8]);
    sector.extend_from_slice(id);
    seal(sector)
}

/// The released position in a segment's mark; 0 if there is none. A torn mark counts as none:
/// nothing is overwritten on a mark's word before the mark was synced.
pub(super) fn decode_mark(id: &[u8; 16], segment: &[u8]) -> u64 {
    let at = MARK_OFFSET as usize;
    let genuine = field::<8>(segment, at) == Some(MARK_MAGIC)
        && field::<16>(segment, at + 24).as_ref() == Some(id)
        && is_sealed(segment, at, 40);
    match field(segment, at + 8) {
        Some(released) if genuine => u64::from_le_bytes(released),
        _ => 0,
    }
}

/// Writes a whole record, padded to sectors, into `out` (which is cleared first).
pub(super) fn encode_record(
    id: &[u8; 16],
    header: &RecordHeader,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(header.kind as u8);
    out.push(0);
    // The caller has checked the payload against `MAX_PAYLOAD_BYTES`, far below 2^32.
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(id);
    out.extend_from_slice(&header.log);
    out.extend_from_slice(&header.first_index.to_le_bytes());
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.extend_from_slice(&header.released.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    // This checksum covers the payload's too, so the two together cover the whole record.
    out.extend_from_slice(&crc32c::crc32c(out).to_le_bytes());
    out.extend_from_slice(payload);
    out.resize(record_bytes(payload.len()) as usize, 0);
}

/// Looks for a record at `offset` of a segment.
pub(super) fn find_record(id: &[u8; 16], segment: &[u8], offset: usize) -> Found {
    let header = segment.get(offset..).unwrap_or_default();
    if field::<8>(header, 0) != Some(RECORD_MAGIC) || field::<16>(header, 16).as_ref() != Some(id) {
        return Found::Nothing;
    }
    decode_record(header).unwrap_or(Found::Nothing)
}

fn decode_record(bytes: &[u8]) -> Option<Found> {
    let header_crc = u32::from_le_bytes(field(bytes, 76)?);
    if crc32c::crc32c(bytes.get(..76)?) != header_crc {
        return None;
    }
    let version = u16::from_le_bytes(field(bytes, 8)?);
    if version != VERSION {
        return Some(Found::Unsupported(version));
    }
    let [kind, _] = field::<2>(bytes, 10)?;
    let Some(kind) = RecordKind::from_byte(kind) else {
        return Some(Found::Unsupported(u16::from(kind)));
    };
    let header = RecordHeader {
        kind,
        log: field(bytes, 32)?,
        first_index: u64::from_le_bytes(field(bytes, 48)?),
        sequence: u64::from_le_bytes(field(bytes, 56)?),
        released: u64::from_le_bytes(field(bytes, 64)?),
    };
    if header.released >= header.sequence {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(field(bytes, 12)?)).ok()?;
    let payload_crc = u32::from_le_bytes(field(bytes, 72)?);
    let whole = length <= MAX_PAYLOAD_BYTES
        && payload_of(bytes, length).is_some_and(|p| crc32c::crc32c(p) == payload_crc);
    Some(if whole { Found::Whole(header, length) } else { Found::Damaged(header) })
}

/// The payload of a record whose bytes start at its header.
pub(super) fn payload_of(record: &[u8], length: usize) -> Option<&[u8]> {
    record.get(RECORD_HEADER_BYTES..).and_then(|rest| rest.get(..length))
}

/// Appends a checksum over everything so far and pads to a sector.
fn seal(mut sector: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&sector);
    sector.extend_from_slice(&crc.to_le_bytes());
    sector.resize(SECTOR as usize, 0);
    sector
}

/// Whether the `length` bytes at `at` are followed by their checksum.
fn is_sealed(bytes: &[u8], at: usize, length: usize) -> bool {
    let body =
        bytes.get(at..).and_then(|rest| Some((rest.get(..length)?, field::<4>(rest, length)?)));
    body.is_some_and(|(body, crc)| crc32c::crc32c(body) == u32::from_le_bytes(crc))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
