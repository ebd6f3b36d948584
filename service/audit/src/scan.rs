//! Questions over segments, by plain scans: segments are skipped by their times and by which tokens they hold,
//! only the columns that a question names are read, and segments are read on all cores.

mod columns;
mod count;
mod filter;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::file::statistics::Statistics;

use self::columns::{mask, records_of};
use crate::segment::{MAX_ROWS, Segment, Source};
use crate::{Error, Record};

pub use count::{Column, Group, MAX_GROUPS, count};
pub use filter::Filter;

/// Names of all columns, in order.
#[must_use]
pub fn columns() -> &'static [&'static str] {
    &columns::ALL
}

/// The most records that one question returns.
pub const MAX_RECORDS: usize = 1_000_000;
/// More threads than that wait for each other only.
const MAX_THREADS: usize = 8;

/// Segments, in the order of their names.
pub trait Segments: Sync {
    /// How many.
    fn count(&self) -> usize;

    /// Opens one of them.
    ///
    /// # Errors
    /// [`Error`], naming it.
    fn open(&self, at: usize) -> Result<Segment, Error>;
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The oldest of the records, in the order of their times.
    pub records: Vec<Record>,
    /// Whether there are more.
    pub more: bool,
}

/// Records that the filter lets through, the oldest first, at most `limit` of them. `fresh` are
/// records that are in no segment yet.
///
/// # Errors
/// The first [`Error`] of any segment: an answer without it would not be one.
pub fn find(
    segments: &impl Segments,
    fresh: &[Record],
    filter: &Filter,
    limit: usize,
) -> Result<Found, Error> {
    let limit = limit.min(MAX_RECORDS);
    let mut found = Found::default();
    let wanted = fresh.iter().filter(|record| filter.matches(record));
    let mut records: Vec<Record> = wanted.cloned().collect();
    let count = segments.count();
    let wave = threads().saturating_mul(4);
    let mut from = 0;
    // In waves, so that a question with millions of answers reads no more than it returns.
    while from < count {
        let upto = from.saturating_add(wave).min(count);
        let parts = in_parallel(upto - from, |at| {
            let segment = segments.open(from.saturating_add(at))?;
            matching(&segment, filter, limit.saturating_add(1))
        })?;
        records.extend(parts.into_iter().flatten());
        from = upto;
        if records.len() > limit {
            break;
        }
    }
    records.sort_by_key(|record| record.time_ms);
    found.more = records.len() > limit || from < count;
    records.truncate(limit);
    found.records = records;
    Ok(found)
}

fn matching(segment: &Segment, filter: &Filter, limit: usize) -> Result<Vec<Record>, Error> {
    let mut out = Vec::new();
    for group in 0..segment.metadata().metadata().num_row_groups() {
        if out.len() >= limit || !may_match(segment, group, filter) {
            continue;
        }
        let wanted = filter.columns(time_range(segment, group));
        let selection = if wanted.is_empty() {
            None
        } else {
            let Some(batch) = read(segment, group, &wanted, None)? else { continue };
            let mask = mask(&batch, filter)?;
            let first = mask.iter().position(|m| *m);
            let Some(first) = first else { continue };
            let last = mask.iter().rposition(|m| *m).unwrap_or(first);
            Some(selection(&mask, first, last, limit))
        };
        let all: Vec<&str> = columns::ALL.to_vec();
        if let Some(batch) = read(segment, group, &all, selection)? {
            out.extend(records_of(&batch)?);
        }
    }
    out.truncate(limit);
    Ok(out)
}

/// The rows that a mask lets through, as ranges.
fn selection(mask: &[bool], first: usize, last: usize, limit: usize) -> RowSelection {
    let mut ranges = Vec::new();
    let mut start = None;
    let mut taken = 0_usize;
    for at in first..=last.saturating_add(1) {
        let is_in = at <= last && mask.get(at).copied().unwrap_or(false) && taken < limit;
        taken = taken.saturating_add(usize::from(is_in));
        match (is_in, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                ranges.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    RowSelection::from_consecutive_ranges(ranges.into_iter(), mask.len())
}

/// First and last time of a row group, where it says so.
fn time_range(segment: &Segment, group: usize) -> Option<(u64, u64)> {
    let metadata = segment.metadata().metadata().row_groups().get(group)?;
    let Statistics::Int64(times) = metadata.columns().first()?.statistics()? else { return None };
    let (min, max) = (times.min_opt()?, times.max_opt()?);
    Some((u64::try_from(*min).ok()?, u64::try_from(*max).ok()?))
}

/// Whether a row group may hold what is asked for, by its times and tokens.
fn may_match(segment: &Segment, group: usize, filter: &Filter) -> bool {
    if let Some((first, last)) = time_range(segment, group)
        && (last < filter.from_ms || first >= filter.to_ms)
    {
        return false;
    }
    if filter.jti.is_none() && filter.digest.is_none() {
        return true;
    }
    segment.tokens().is_none_or(|tokens| {
        filter.jti.as_ref().is_none_or(|jti| tokens.may_hold_jti(jti))
            && filter.digest.as_ref().is_none_or(|digest| tokens.may_hold_digest(digest))
    })
}

fn builder(segment: &Segment) -> Result<ParquetRecordBatchReaderBuilder<Source>, Error> {
    let metadata = segment.metadata().clone();
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(segment.source()?, metadata))
}

/// Some columns of a row group, and of these the selected rows, as one batch.
fn read(
    segment: &Segment,
    group: usize,
    names: &[&str],
    selection: Option<RowSelection>,
) -> Result<Option<arrow_array::RecordBatch>, Error> {
    let leaves = names.iter().filter_map(|name| columns::index(name));
    let builder = builder(segment)?;
    let projection = ProjectionMask::leaves(builder.parquet_schema(), leaves);
    let mut builder =
        builder.with_projection(projection).with_row_groups(vec![group]).with_batch_size(MAX_ROWS);
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    Ok(builder.build()?.next().transpose()?)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// Does something for each of so many, on all cores; results in order, or the first failure.
fn in_parallel<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let run = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            let result = work(at);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            done.push((at, result));
        }
        done
    };
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads().min(count.max(1))).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for other in others {
            all.extend(other.join().unwrap_or_default());
        }
        all
    });
    all.sort_by_key(|(at, _)| *at);
    let failed = all.iter().position(|(_, result)| result.is_err());
    if failed.is_none() && all.len() != count {
        return Err(Error::Parquet("a thread that read segments failed".into()));
    }
    all.into_iter().map(|(_, result)| result).collect()
}

/// Every record of a segment, in order.
///
/// # Errors
/// [`Error`] where it is damaged.
pub fn all(segment: &Segment) -> Result<Vec<Record>, Error> {
    matching(segment, &Filter::default(), usize::MAX)
}

/// Segments in memory or opened before.
#[derive(Debug, Default)]
pub struct Given(pub Vec<bytes::Bytes>, pub Option<Arc<[crate::keys::Identity]>>);

impl Segments for Given {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn open(&self, at: usize) -> Result<Segment, Error> {
        let identities = self.1.clone().unwrap_or_else(|| Vec::new().into());
        Segment::open(Source::Bytes(self.0.get(at).cloned().unwrap_or_default()), &identities)
    }
}

#[cfg(test)]
mod tests;
