//! One immutable, sorted file of an index: which leaves of a stretch of a log begin with which bits.
//!
//! ```text
//! head     magic, log id, first and last leaf, root of the log at its end, bits of a bucket, CRC
//! table    for each bucket the number of the record behind it, and the CRC of its records
//! records  the first 48 bits of a leaf hash, the leaf's place in the stretch (32 bits); sorted
//! ```
//!
//! Leaf hashes are uniform, so a bucket, named by the first bits of a hash, holds some 256 records,
//! whatever the size of the file: a lookup reads 16 bytes of the table and some 2.5 kB of records.
//! Whoever gets tokens logged can make it more, by equal tokens or by ones made to begin alike; so a
//! bucket is read in pieces, and is never too long to be one.
//! Every bucket is checked by its CRC each time it is read, so that a rotten disk is noticed and does
//! not make a logged token look missing.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_tlog::{HASH_BYTES, Hash, LogId};

const MAGIC: &[u8; 16] = b"chancery.digest1";
/// Magic, log id, two leaf indexes, root, bits, CRC.
const HEAD_BYTES: usize = 16 + 16 + 8 + 8 + HASH_BYTES + 4 + 4;
/// The end of a bucket and its CRC.
const BUCKET_BYTES: usize = 8;
/// Key and place.
const RECORD_BYTES: usize = 6 + 4;
/// Bits of a leaf hash that a record holds. Among 2^30 leaves a lookup meets a false candidate once
/// in 260,000 times, and each candidate is compared with the log's own tile.
const KEY_BITS: u32 = 48;
/// Records of a bucket on average, as a power of two: one page of a disk.
const BUCKET_SHIFT: u32 = 8;
/// Records that are read at a time: 40 kB. Buckets are as long as their leaves make them.
const CHUNK_RECORDS: u64 = 4 * 1024;
/// Candidates of one file, or of the leaves in memory, that a lookup compares with the log. The first
/// is the leaf, but among leaves that were made to have the same 48 bits.
pub const MAX_CANDIDATES: usize = 64;
/// The widest stretch: places have 32 bits.
pub const MAX_WIDTH: u64 = 1 << 30;

/// Why a file of an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system failed.
    #[error("`{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        why: String,
    },
    /// The bytes are not those that were written.
    #[error("`{path}` is damaged: {what}; it is made again from the log")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// The first 48 bits of a leaf hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// The key of a leaf.
    #[must_use]
    pub fn of(leaf: &Hash) -> Self {
        let [a, b, c, d, e, f, ..] = leaf.0;
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The bucket of this key among 2^`bits`.
    fn bucket(self, bits: u32) -> u64 {
        self.0.checked_shr(KEY_BITS.saturating_sub(bits)).unwrap_or(0)
    }
}

/// A key and where in the stretch its leaf stands.
pub type Record = (Key, u32);

/// What a file holds: the leaves from `from` to before `to` of a log that had `root` at `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The log.
    pub log: LogId,
    /// The first leaf.
    pub from: u64,
    /// The one behind the last leaf.
    pub to: u64,
    /// The root of the log's first `to` leaves: it ties the file to this history of the log.
    pub root: Hash,
}

impl Stretch {
    /// Leaves in it.
    #[must_use]
    pub fn width(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// About 256 records for each bucket.
    fn bits(&self) -> u32 {
        self.width().checked_ilog2().unwrap_or(0).saturating_sub(BUCKET_SHIFT)
    }

    fn file_name(&self) -> String {
        format!("{:016x}-{:016x}.run", self.from, self.to)
    }
}

/// One file, open.
#[derive(Debug)]
pub struct Run {
    file: File,
    path: PathBuf,
    stretch: Stretch,
}

impl Run {
    /// What it holds.
    #[must_use]
    pub fn stretch(&self) -> &Stretch {
        &self.stretch
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        file_bytes(&self.stretch)
    }

    /// Opens a file and checks its head.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(path: &Path, log: LogId) -> Result<Self, RunError> {
        let file = File::open(path).map_err(|e| io(path, &e))?;
        let damaged = |what| RunError::Damaged { path: path.to_owned(), what };
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0).map_err(|_| damaged("it has no head"))?;
        let stretch = decode_head(&head).ok_or_else(|| damaged("its head is not one"))?;
        if stretch.log != log {
            return Err(damaged("it belongs to another log"));
        }
        let length = file.metadata().map_err(|e| io(path, &e))?.len();
        if length != file_bytes(&stretch) {
            return Err(damaged("it is not as long as its head says"));
        }
        Ok(Self { file, path: path.to_owned(), stretch })
    }

    /// Writes a file of sorted records, durably: it is there whole, or not at all.
    ///
    /// # Errors
    /// [`RunError::Io`], or what `records` fail with.
    pub fn write(
        folder: &Path,
        stretch: Stretch,
        records: impl Iterator<Item = Result<Record, RunError>>,
    ) -> Result<Self, RunError> {
        let path = folder.join(stretch.file_name());
        let unfinished = path.with_extension("new");
        let result = write_file(&unfinished, &stretch, records).and_then(|()| {
            std::fs::rename(&unfinished, &path).map_err(|e| io(&path, &e))?;
            let folder_of = File::open(folder).map_err(|e| io(folder, &e))?;
            folder_of.sync_all().map_err(|e| io(folder, &e))
        });
        if let Err(e) = result {
            // What remains is removed by the next opening, if not by this.
            let _ = std::fs::remove_file(&unfinished);
            return Err(e);
        }
        Self::open(&path, stretch.log)
    }

    /// The leaves of the log that may be the one with this key, lowest first: the first
    /// [`MAX_CANDIDATES`] of them.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn find(&self, key: Key) -> Result<Vec<u64>, RunError> {
        let mut bucket = self.bucket(key.bucket(self.stretch.bits()))?;
        let mut found = Vec::new();
        while let Some(records) = self.next_records(&mut bucket)? {
            let room = MAX_CANDIDATES.saturating_sub(found.len());
            let here = records.iter().filter(|(known, _)| *known == key).take(room);
            found.extend(here.map(|(_, at)| self.stretch.from.saturating_add(u64::from(*at))));
        }
        Ok(found)
    }

    /// Whether it says that this leaf may stand at this place of the log; or so many others that it
    /// tells only of them.
    ///
    /// # Errors
    /// [`RunError`]; damage, where it does not.
    pub fn must_hold(&self, key: Key, index: u64) -> Result<(), RunError> {
        let places = self.find(key)?;
        if places.contains(&index) || places.len() >= MAX_CANDIDATES {
            return Ok(());
        }
        Err(self.damaged("its records are not those of the log"))
    }

    /// All records in order. That a bucket is damaged is told behind its records.
    pub fn records(self: &Arc<Self>) -> impl Iterator<Item = Result<Record, RunError>> + use<> {
        let run = Arc::clone(self);
        let buckets = 1_u64 << self.stretch.bits();
        (0..buckets).flat_map(move |bucket| {
            let run = Arc::clone(&run);
            let mut rest = Some(run.bucket(bucket));
            let pieces = std::iter::from_fn(move || {
                let read = rest.take()?.and_then(|mut bucket| {
                    let records = run.next_records(&mut bucket)?;
                    Ok(records.map(|records| (records, bucket)))
                });
                match read {
                    Ok(None) => None,
                    Ok(Some((records, bucket))) => {
                        rest = Some(Ok(bucket));
                        Some(records.into_iter().map(Ok).collect::<Vec<_>>())
                    }
                    Err(e) => Some(vec![Err(e)]),
                }
            });
            pieces.flatten()
        })
    }

    fn bucket(&self, bucket: u64) -> Result<Bucket, RunError> {
        let (next, end, crc) = self.bounds(bucket)?;
        if next > end || end > self.stretch.width() {
            return Err(self.damaged("its table is not one"));
        }
        Ok(Bucket { next, end, crc, sum: 0 })
    }

    /// The next records of a bucket; `None` behind the last, if they were those that were written.
    fn next_records(&self, bucket: &mut Bucket) -> Result<Option<Vec<Record>>, RunError> {
        let count = bucket.end.saturating_sub(bucket.next).min(CHUNK_RECORDS);
        if count == 0 {
            return match bucket.sum == bucket.crc {
                true => Ok(None),
                false => Err(self.damaged("records are not those that were written")),
            };
        }
        let bytes = usize::try_from(count).unwrap_or(0).saturating_mul(RECORD_BYTES);
        let mut records = vec![0; bytes];
        let at = bucket.next.saturating_mul(RECORD_BYTES as u64);
        self.read(&mut records, at.saturating_add(records_begin(&self.stretch)))?;
        bucket.next = bucket.next.saturating_add(count);
        bucket.sum = crc32c::crc32c_append(bucket.sum, &records);
        Ok(Some(records.chunks_exact(RECORD_BYTES).filter_map(decode_record).collect()))
    }

    /// Where a bucket begins and ends, in records, and its CRC.
    fn bounds(&self, bucket: u64) -> Result<(u64, u64, u32), RunError> {
        let mut entries = [0; 2 * BUCKET_BYTES];
        let at = |bucket: u64| {
            let table = bucket.saturating_mul(BUCKET_BYTES as u64);
            table.saturating_add(HEAD_BYTES as u64)
        };
        let read = match bucket.checked_sub(1) {
            Some(before) => self.read(&mut entries, at(before)),
            None => {
                let [_, _, _, _, _, _, _, _, first @ ..] = &mut entries;
                self.read(first, at(0))
            }
        };
        read?;
        let [a, b, c, d, _, _, _, _, e, f, g, h, i, j, k, l] = entries;
        let start = u64::from(u32::from_be_bytes([a, b, c, d]));
        let end = u64::from(u32::from_be_bytes([e, f, g, h]));
        Ok((start, end, u32::from_be_bytes([i, j, k, l])))
    }

    /// Its length was right when it was opened, so an end that comes early is damage.
    fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), RunError> {
        self.file.read_exact_at(bytes, at).map_err(|e| match damage(&e) {
            Some(what) => self.damaged(what),
            None => io(&self.path, &e),
        })
    }

    fn damaged(&self, what: &'static str) -> RunError {
        RunError::Damaged { path: self.path.clone(), what }
    }
}

/// What a failed read says of the file itself; other failures may pass.
fn damage(error: &std::io::Error) -> Option<&'static str> {
    let is_unreadable = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    match error.kind() {
        ErrorKind::UnexpectedEof => Some("it was cut short"),
        _ if is_unreadable => Some("the disk cannot read it"),
        _ => None,
    }
}

/// A bucket that is being read.
struct Bucket {
    /// The next record, and the one behind the last.
    next: u64,
    end: u64,
    /// The CRC of its records, as written.
    crc: u32,
    /// That of those read so far.
    sum: u32,
}

fn io(path: &Path, e: &std::io::Error) -> RunError {
    RunError::Io { path: path.to_owned(), why: e.to_string() }
}

fn table_bytes(stretch: &Stretch) -> u64 {
    (BUCKET_BYTES as u64) << stretch.bits()
}

fn records_begin(stretch: &Stretch) -> u64 {
    table_bytes(stretch).saturating_add(HEAD_BYTES as u64)
}

fn file_bytes(stretch: &Stretch) -> u64 {
    let records = stretch.width().saturating_mul(RECORD_BYTES as u64);
    records_begin(stretch).saturating_add(records)
}

fn encode_head(stretch: &Stretch) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(stretch.log.as_bytes());
    head.extend_from_slice(&stretch.from.to_be_bytes());
    head.extend_from_slice(&stretch.to.to_be_bytes());
    head.extend_from_slice(&stretch.root.0);
    head.extend_from_slice(&stretch.bits().to_be_bytes());
    head.extend_from_slice(&crc32c::crc32c(&head).to_be_bytes());
    head
}

fn decode_head(head: &[u8; HEAD_BYTES]) -> Option<Stretch> {
    let mut rest = head.as_slice();
    let magic = take::<16>(&mut rest)?;
    let log = LogId::from_bytes(take(&mut rest)?);
    let from = u64::from_be_bytes(take(&mut rest)?);
    let to = u64::from_be_bytes(take(&mut rest)?);
    let root = Hash(take(&mut rest)?);
    let bits = u32::from_be_bytes(take(&mut rest)?);
    let crc = u32::from_be_bytes(take(&mut rest)?);
    let stretch = Stretch { log, from, to, root };
    let summed = head.get(..HEAD_BYTES.saturating_sub(4))?;
    let plausible = from < to && stretch.width() <= MAX_WIDTH && bits == stretch.bits();
    (&magic == MAGIC && plausible && crc32c::crc32c(summed) == crc).then_some(stretch)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*taken)
}

fn encode_record((key, place): Record, out: &mut Vec<u8>) {
    let [_, _, key @ ..] = key.0.to_be_bytes();
    out.extend_from_slice(&key);
    out.extend_from_slice(&place.to_be_bytes());
}

fn decode_record(bytes: &[u8]) -> Option<Record> {
    let mut rest = bytes;
    let [a, b, c, d, e, f] = take::<6>(&mut rest)?;
    let place = u32::from_be_bytes(take(&mut rest)?);
    Some((Key(u64::from_be_bytes([0, 0, a, b, c, d, e, f])), place))
}

/// Head, table and records of a file, synced.
fn write_file(
    path: &Path,
    stretch: &Stretch,
    records: impl Iterator<Item = Result<Record, RunError>>,
) -> Result<(), RunError> {
    let failed = |e: std::io::Error| io(path, &e);
    let file = File::create(path).map_err(failed)?;
    let table = usize::try_from(table_bytes(stretch)).unwrap_or(0);
    let mut writer = Buckets {
        out: BufWriter::with_capacity(1 << 16, &file),
        bits: stretch.bits(),
        table: Vec::with_capacity(table),
        record: Vec::with_capacity(RECORD_BYTES),
        sum: 0,
        number: 0,
        written: 0,
    };
    // The table is known once all records are; its place is kept free.
    writer.out.write_all(&encode_head(stretch)).map_err(failed)?;
    writer.out.write_all(&vec![0; table]).map_err(failed)?;
    for record in records {
        writer.add(record?).map_err(failed)?;
    }
    let (table, written) = writer.finish().map_err(failed)?;
    if written != stretch.width() {
        let what = "the records to write are not as many as its leaves";
        return Err(RunError::Damaged { path: path.to_owned(), what });
    }
    file.write_all_at(&table, HEAD_BYTES as u64).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Writes records bucket by bucket, and notes the table.
struct Buckets<'f> {
    out: BufWriter<&'f File>,
    bits: u32,
    table: Vec<u8>,
    record: Vec<u8>,
    /// The CRC of the bucket that is being filled.
    sum: u32,
    /// Which one that is.
    number: u64,
    /// Records so far.
    written: u64,
}

impl Buckets<'_> {
    fn add(&mut self, record: Record) -> std::io::Result<()> {
        while self.number < record.0.bucket(self.bits) {
            self.close();
        }
        self.record.clear();
        encode_record(record, &mut self.record);
        self.sum = crc32c::crc32c_append(self.sum, &self.record);
        self.written = self.written.saturating_add(1);
        self.out.write_all(&self.record)
    }

    fn close(&mut self) {
        let end = u32::try_from(self.written).unwrap_or(u32::MAX);
        self.table.extend_from_slice(&end.to_be_bytes());
        self.table.extend_from_slice(&self.sum.to_be_bytes());
        self.sum = 0;
        self.number = self.number.saturating_add(1);
    }

    fn finish(mut self) -> std::io::Result<(Vec<u8>, u64)> {
        while self.number < 1_u64 << self.bits {
            self.close();
        }
        self.out.flush()?;
        Ok((self.table, self.written))
    }
}

#[cfg(test)]
mod tests {
    use chancery_tlog::leaf_hash;

    use super::*;
    use crate::digests::tests::Folder;

    fn stretch(from: u64, to: u64) -> Stretch {
        Stretch { log: LogId::from_bytes([5; 16]), from, to, root: leaf_hash(b"root") }
    }

    fn leaf(index: u64) -> Hash {
        leaf_hash(&index.to_be_bytes())
    }

    fn sorted(from: u64, to: u64) -> Vec<Record> {
        let places = from..to;
        let mut records: Vec<_> =
            places.map(|i| (Key::of(&leaf(i)), u32::try_from(i - from).unwrap())).collect();
        records.sort_unstable();
        records
    }

    fn written(folder: &Folder, from: u64, to: u64) -> Arc<Run> {
        let records = sorted(from, to).into_iter().map(Ok);
        Arc::new(Run::write(folder.path(), stretch(from, to), records).unwrap())
    }

    #[test]
    fn what_the_disk_cannot_read_is_damage_and_what_may_pass_is_not() {
        let of = |errno: rustix::io::Errno| damage(&errno.into());
        assert_eq!(of(rustix::io::Errno::IO), Some("the disk cannot read it"));
        assert_eq!(damage(&ErrorKind::UnexpectedEof.into()), Some("it was cut short"));
        for passing in
            [rustix::io::Errno::MFILE, rustix::io::Errno::NOMEM, rustix::io::Errno::ACCESS]
        {
            assert_eq!(of(passing), None);
        }
    }

    #[test]
    fn every_leaf_is_found_where_it_stands_and_no_other() {
        let folder = Folder::new();
        for (from, to) in [(0, 1), (7, 9), (100, 612), (1_000, 6_000)] {
            let run = written(&folder, from, to);
            for index in from..to {
                assert_eq!(run.find(Key::of(&leaf(index))).unwrap(), [index]);
            }
            for index in to..to + 1_000 {
                assert!(run.find(Key::of(&leaf(index))).unwrap().is_empty());
            }
            let all: Result<Vec<_>, _> = run.records().collect();
            assert_eq!(all.unwrap(), sorted(from, to));
            assert_eq!(run.bytes(), std::fs::metadata(run.path()).unwrap().len());
        }
    }

    #[test]
    fn leaves_that_begin_alike_are_all_candidates() {
        let folder = Folder::new();
        let key = Key::of(&leaf(1));
        let records = [(key, 0), (key, 1), (key, 2)];
        let run = Run::write(folder.path(), stretch(10, 13), records.into_iter().map(Ok)).unwrap();
        assert_eq!(run.find(key).unwrap(), [10, 11, 12]);
    }

    /// A file of equal leaves is as good as any other, however many they are.
    #[test]
    fn a_bucket_may_hold_every_leaf() {
        let folder = Folder::new();
        let key = Key::of(&leaf(1));
        let width = 70_000;
        let records = (0..width).map(|place| Ok((key, place)));
        let stretch = stretch(10, 10 + u64::from(width));
        let run = Arc::new(Run::write(folder.path(), stretch, records).unwrap());
        let lowest: Vec<u64> = (10..).take(MAX_CANDIDATES).collect();
        assert_eq!(run.find(key).unwrap(), lowest);
        assert!(run.find(Key(key.0 ^ 1)).unwrap().is_empty());
        let places = run.records().map(|record| record.unwrap().1);
        assert!(places.eq(0..width));
        // Of a bucket in many pieces each byte counts, and so does its end.
        let mut bytes = std::fs::read(run.path()).unwrap();
        let last = bytes.len() - 1;
        bytes[last - 400_000] ^= 1;
        std::fs::write(run.path(), &bytes).unwrap();
        assert!(matches!(run.find(key), Err(RunError::Damaged { .. })));
        assert!(matches!(run.records().last(), Some(Err(RunError::Damaged { .. }))));
        bytes[last - 400_000] ^= 1;
        std::fs::write(run.path(), &bytes[..last]).unwrap();
        let cut = run.find(key).unwrap_err();
        assert!(cut.to_string().contains("cut short"), "{cut}");
    }

    #[test]
    fn the_number_of_records_is_that_of_the_leaves() {
        let folder = Folder::new();
        let few = sorted(0, 9).into_iter().map(Ok);
        let error = Run::write(folder.path(), stretch(0, 10), few).unwrap_err();
        assert!(error.to_string().contains("not as many"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    /// Whatever byte rots: either the answers stay right or the damage is told.
    #[test]
    fn no_rotten_byte_hides_a_leaf() {
        let folder = Folder::new();
        let run = written(&folder, 0, 520);
        let path = run.path().to_owned();
        let good = std::fs::read(&path).unwrap();
        let everywhere = (0..HEAD_BYTES + 2 * BUCKET_BYTES).chain((0..good.len()).step_by(53));
        for at in everywhere {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let Ok(run) = Run::open(&path, LogId::from_bytes([5; 16])) else { continue };
            let mut told = false;
            for index in 0..520 {
                match run.find(Key::of(&leaf(index))) {
                    Ok(found) => assert_eq!(found, [index], "byte {at}"),
                    Err(RunError::Damaged { .. } | RunError::Io { .. }) => told = true,
                }
            }
            assert!(told, "byte {at}");
        }
        for length in [0, 1, HEAD_BYTES - 1, HEAD_BYTES, good.len() - 1] {
            std::fs::write(&path, &good[..length]).unwrap();
            Run::open(&path, LogId::from_bytes([5; 16])).unwrap_err();
        }
        std::fs::write(&path, &good).unwrap();
        Run::open(&path, LogId::from_bytes([5; 16])).unwrap();
        Run::open(&path, LogId::from_bytes([6; 16])).unwrap_err();
    }
}
