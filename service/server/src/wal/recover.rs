//! Recovery: from the bytes of the segments to the records that count.
//!
//! Sequence numbers are unique, so the log is simply the set of whole records that lie anywhere
//! in the segments. Let `released` be the highest released position that any of them (or a mark)
//! carries and `last` the highest sequence number. Then every record in `released + 1 ..= last`
//! must be there. A record beyond `last` that is not whole is the torn end, because only one
//! write is ever under way; an intact header two or more beyond `last` proves that a record
//! in between had been acknowledged and is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::SegmentFile;
use super::format::{
    self, FIRST_RECORD, Found, HeaderFault, Record, RecordHeader, SECTOR, SegmentHeader,
};
use super::{Tail, WalError};

/// Damaged records per segment that are looked at. A log that works has one torn record in all;
/// the bound keeps the checksum work on a hostile or dying disk linear.
const MAX_DAMAGED: usize = 64;

/// Everything that opening a log needs to know.
pub(super) struct Recovery {
    /// The records after the released position, in order.
    pub records: Vec<Record>,
    pub last: u64,
    pub released: u64,
    pub tail: Tail,
    /// Highest sequence number in each segment.
    pub segment_last: Vec<u64>,
    /// The last record's segment, offset and bytes, padding included.
    pub last_record: Option<(usize, u64, Vec<u8>)>,
}

/// Recovers the records from the bytes of all segments of one log, in ring order. Pure: for
/// fuzzing, and for looking at a copy. In errors the segments are named `segment-0` and so on.
///
/// # Errors
///
/// [`WalError::Foreign`], [`WalError::WrongSize`], [`WalError::Unsupported`] and
/// [`WalError::Corrupt`], as for [`super::Wal::open`].
pub fn recover_bytes(segments: &[&[u8]]) -> Result<Vec<Record>, WalError> {
    let mut scans = Vec::with_capacity(segments.len());
    let mut id = None;
    for (ordinal, bytes) in segments.iter().enumerate() {
        let path = PathBuf::from(segment_name(ordinal));
        let header = check_header(&path, bytes, ordinal, segments.len(), id)?;
        let found = bytes.len() as u64;
        if found != header.segment_bytes {
            let expected = header.segment_bytes;
            return Err(WalError::WrongSize { path, found, expected });
        }
        id = Some(header.id);
        scans.push(scan(&header.id, path, bytes)?);
    }
    let plan = plan(&scans)?;
    plan.needed
        .iter()
        .map(|place| {
            let record = segments
                .get(place.segment)
                .and_then(|bytes| bytes.get(place.offset..))
                .unwrap_or_default();
            place.record(&scans, record)
        })
        .collect()
}

/// Recovers from opened segments whose headers have been checked. One segment is in memory at a
/// time; payloads are then read again, from the page cache.
pub(super) fn recover_files(
    id: &[u8; 16],
    files: &[(PathBuf, Box<dyn SegmentFile>)],
    segment_bytes: u64,
) -> Result<Recovery, WalError> {
    let read = |segment: usize, offset: usize, length: usize| {
        let (path, file) = files.get(segment).ok_or(WalError::Exhausted)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset as u64)
            .map_err(|source| WalError::io("read", path, source))?;
        Ok::<_, WalError>(bytes)
    };
    let length = usize::try_from(segment_bytes).map_err(|_| WalError::Exhausted)?;
    let mut scans = Vec::with_capacity(files.len());
    for (segment, (path, _)) in files.iter().enumerate() {
        scans.push(scan(id, path.clone(), &read(segment, 0, length)?)?);
    }
    let plan = plan(&scans)?;
    let mut records = Vec::with_capacity(plan.needed.len());
    for place in &plan.needed {
        let bytes = read(place.segment, place.offset, place.bytes())?;
        records.push(place.record(&scans, &bytes)?);
    }
    let mut tail = Tail { segment: 0, offset: FIRST_RECORD, dirty: false };
    let mut last_record = None;
    if let Some(place) = plan.newest {
        let bytes = read(place.segment, place.offset, place.bytes())?;
        tail.segment = place.segment;
        tail.offset = place.end() as u64;
        last_record = Some((place.segment, place.offset as u64, bytes));
    }
    Ok(Recovery {
        records,
        last: plan.last,
        released: plan.released,
        tail,
        segment_last: scans.iter().map(Scan::last).collect(),
        last_record,
    })
}

/// The file name of a segment.
pub(super) fn segment_name(ordinal: usize) -> String {
    format!("segment-{ordinal}")
}

/// Reads a segment's header and checks that it is the segment with this number in a ring of
/// `count`, of the log `id` if that is known.
pub(super) fn check_header(
    path: &Path,
    bytes: &[u8],
    ordinal: usize,
    count: usize,
    id: Option<[u8; 16]>,
) -> Result<SegmentHeader, WalError> {
    let foreign = |reason| WalError::Foreign { path: path.to_path_buf(), reason };
    let header = format::decode_segment_header(bytes).map_err(|fault| match fault {
        HeaderFault::Foreign(reason) => foreign(reason),
        HeaderFault::Unsupported(format) => {
            WalError::Unsupported { path: path.to_path_buf(), offset: 0, format }
        }
    })?;
    if id.is_some_and(|id| id != header.id) {
        return Err(foreign("it is a segment of another log"));
    }
    if usize::from(header.ordinal) != ordinal {
        return Err(foreign("it is another segment of the log, renamed"));
    }
    if usize::from(header.count) != count {
        return Err(foreign("it belongs to a log with another number of segments"));
    }
    Ok(header)
}

/// Whether a segment holds anything that looks like a record.
pub(super) fn holds_records(id: &[u8; 16], path: &Path, segment: &[u8]) -> Result<bool, WalError> {
    let scan = scan(id, path.to_path_buf(), segment)?;
    Ok(!scan.whole.is_empty() || !scan.damaged.is_empty())
}

/// What one segment holds.
struct Scan {
    path: PathBuf,
    /// Whole records: offset, header, payload length.
    whole: Vec<(usize, RecordHeader, usize)>,
    /// Records of which only the header is intact: offset and sequence number.
    damaged: Vec<(usize, u64)>,
    mark: u64,
}

impl Scan {
    fn last(&self) -> u64 {
        let sequences = self.whole.iter().map(|(_, header, _)| header.sequence);
        sequences.max().unwrap_or(0)
    }
}

/// Where a whole record lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: usize,
    offset: usize,
    header: RecordHeader,
    length: usize,
}

impl Place {
    fn bytes(&self) -> usize {
        format::record_bytes(self.length) as usize
    }

    fn end(&self) -> usize {
        self.offset.saturating_add(self.bytes())
    }

    /// Builds the record from bytes that start at its header.
    fn record(&self, scans: &[Scan], bytes: &[u8]) -> Result<Record, WalError> {
        let payload = format::payload_of(bytes, self.length).ok_or_else(|| {
            let detail = format!("record {} is cut off", self.header.sequence);
            corrupt(scans, self.segment, self.offset, detail)
        })?;
        Ok(Record {
            sequence: self.header.sequence,
            kind: self.header.kind,
            log: self.header.log,
            first_index: self.header.first_index,
            payload: payload.to_vec(),
        })
    }
}

/// Finds all records in a segment, old passes' included.
fn scan(id: &[u8; 16], path: PathBuf, segment: &[u8]) -> Result<Scan, WalError> {
    let mut scan = Scan {
        mark: format::decode_mark(id, segment),
        path,
        whole: Vec::new(),
        damaged: Vec::new(),
    };
    let mut offset = FIRST_RECORD as usize;
    while offset < segment.len() {
        let mut step = SECTOR;
        match format::find_record(id, segment, offset) {
            Found::Nothing => {}
            Found::Whole(header, length) => {
                step = format::record_bytes(length);
                scan.whole.push((offset, header, length));
            }
            Found::Damaged(header) if scan.damaged.len() < MAX_DAMAGED => {
                scan.damaged.push((offset, header.sequence));
            }
            Found::Damaged(_) => {
                return Err(WalError::Corrupt {
                    path: scan.path,
                    offset: offset as u64,
                    detail: format!("more than {MAX_DAMAGED} records are damaged"),
                });
            }
            Found::Unsupported(format) => {
                return Err(WalError::Unsupported {
                    path: scan.path,
                    offset: offset as u64,
                    format,
                });
            }
        }
        offset = offset.saturating_add(step as usize);
    }
    Ok(scan)
}

/// What is to be recovered.
struct Plan {
    needed: Vec<Place>,
    newest: Option<Place>,
    last: u64,
    released: u64,
}

/// Decides which records count, or that one is gone.
fn plan(scans: &[Scan]) -> Result<Plan, WalError> {
    let mut released = scans.iter().map(|scan| scan.mark).max().unwrap_or(0);
    for (_, header, _) in scans.iter().flat_map(|scan| &scan.whole) {
        released = released.max(header.released);
    }
    let places = collect_places(scans, released)?;
    let newest = places.last_key_value().map(|(_, place)| *place);
    let last = newest.map_or(0, |place| place.header.sequence).max(released);

    let needed: Vec<Place> = places
        .into_iter()
        .filter(|(sequence, _)| *sequence > released)
        .map(|(_, place)| place)
        .collect();
    check_no_hole(scans, &needed, released)?;
    check_end(scans, last)?;
    Ok(Plan { needed, newest, last, released })
}

/// All whole records by sequence number, which must be unique among those that count.
fn collect_places(scans: &[Scan], released: u64) -> Result<BTreeMap<u64, Place>, WalError> {
    let mut places = BTreeMap::new();
    for (segment, scan) in scans.iter().enumerate() {
        for (offset, header, length) in &scan.whole {
            let place = Place { segment, offset: *offset, header: *header, length: *length };
            let sequence = header.sequence;
            if places.insert(sequence, place).is_some() && sequence > released {
                let detail = format!("record {sequence} is there twice");
                return Err(corrupt(scans, segment, *offset, detail));
            }
        }
    }
    Ok(places)
}

/// The records that count must follow one another from `released` on.
fn check_no_hole(scans: &[Scan], needed: &[Place], released: u64) -> Result<(), WalError> {
    let mut before: Option<&Place> = None;
    let mut expected = released.checked_add(1).ok_or(WalError::Exhausted)?;
    for place in needed {
        if place.header.sequence != expected {
            let detail = format!(
                "record {expected} cannot be read although record {} can",
                place.header.sequence
            );
            let damaged = scans.iter().enumerate().find_map(|(segment, scan)| {
                let found = scan.damaged.iter().find(|(_, s)| *s == expected)?;
                Some((segment, found.0))
            });
            let (segment, offset) = damaged.unwrap_or(match before {
                Some(before) => (before.segment, before.end()),
                None => (place.segment, FIRST_RECORD as usize),
            });
            return Err(corrupt(scans, segment, offset, detail));
        }
        before = Some(place);
        expected = expected.checked_add(1).ok_or(WalError::Exhausted)?;
    }
    Ok(())
}

/// Nothing beyond the torn record may have been begun.
fn check_end(scans: &[Scan], last: u64) -> Result<(), WalError> {
    let torn = last.checked_add(1).ok_or(WalError::Exhausted)?;
    for (segment, scan) in scans.iter().enumerate() {
        if let Some((offset, sequence)) = scan.damaged.iter().find(|(_, s)| *s > torn) {
            let detail =
                format!("record {sequence} is damaged and record {torn} before it cannot be read");
            return Err(corrupt(scans, segment, *offset, detail));
        }
    }
    Ok(())
}

fn corrupt(scans: &[Scan], segment: usize, offset: usize, detail: String) -> WalError {
    WalError::Corrupt {
        path: scans.get(segment).map(|s| s.path.clone()).unwrap_or_default(),
        offset: offset as u64,
        detail,
    }
}
