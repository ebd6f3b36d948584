//! Counts, grouped by what repeats.

use std::collections::HashMap;

use parquet::file::statistics::Statistics;

use super::columns::{Texts, index, longs, mask, present, times};
use super::{Filter, Segments, in_parallel, may_match, read, time_range};
use crate::segment::{Segment, join};
use crate::{Error, Record};

/// The most groups of one answer: a million subjects. More take more memory than a question should.
pub const MAX_GROUPS: usize = 1_000_000;
/// Combinations that are counted in a table of their own; more of them in a hash map.
const MAX_DENSE: usize = 1 << 20;

/// What can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column(&'static str);

impl Column {
    /// Names of all of them.
    pub const NAMES: [&'static str; 11] = [
        "outcome",
        "code",
        "realm",
        "client",
        "subject",
        "audience",
        "scope",
        "grant_name",
        "kid",
        "address",
        "user_agent",
    ];

    /// The column with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|n| *n == name).map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }

    fn of(self, record: &Record) -> String {
        let token = record.token.as_ref();
        match self.0 {
            "outcome" => record.outcome.as_str().to_owned(),
            "code" => record.code.clone(),
            "realm" => record.realm.clone(),
            "client" => record.client.clone(),
            "subject" => record.subject.clone(),
            "audience" => join(&record.audiences),
            "scope" => record.scope.clone(),
            "grant_name" => record.grant.clone(),
            "kid" => token.map(|t| chancery_token::b64::encode(&t.kid)).unwrap_or_default(),
            "address" => record.address.clone(),
            _ => record.user_agent.clone(),
        }
    }
}

/// Records that have something in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The texts that they share, in the order of the columns.
    pub texts: Vec<String>,
    /// How many decisions.
    pub count: u64,
    /// Time of the first one, Unix milliseconds.
    pub first_ms: u64,
    /// Time of the last one.
    pub last_ms: u64,
    /// When the last of their tokens expires, Unix milliseconds; 0 where none was granted.
    pub until_ms: u64,
}

#[derive(Clone, Copy)]
struct Sum {
    count: u64,
    first_ms: u64,
    last_ms: u64,
    until_ms: u64,
}

impl Sum {
    const NONE: Self = Self { count: 0, first_ms: u64::MAX, last_ms: 0, until_ms: 0 };

    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.until_ms = self.until_ms.max(other.until_ms);
    }
}

type Sums = HashMap<Vec<String>, Sum>;

/// Counts what a filter lets through, grouped; the largest groups first. `fresh` are records that
/// are in no segment yet.
///
/// # Errors
/// [`Error`] of any segment, or for more than [`MAX_GROUPS`] groups.
pub fn count(
    segments: &impl Segments,
    fresh: &[Record],
    filter: &Filter,
    by: &[Column],
) -> Result<Vec<Group>, Error> {
    let sums = std::sync::Mutex::new(Sums::new());
    in_parallel(segments.count(), |at| {
        let part = of_segment(&segments.open(at)?, filter, by)?;
        let mut sums = sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (texts, sum) in part {
            sums.entry(texts).or_insert(Sum::NONE).add(sum);
        }
        check_groups(sums.len())
    })?;
    let mut sums = sums.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for record in fresh.iter().filter(|record| filter.matches(record)) {
        let texts = by.iter().map(|column| column.of(record)).collect();
        let time_ms = record.time_ms;
        let until_ms = record.token.as_ref().map_or(0, |t| t.exp.saturating_mul(1_000));
        let sum = Sum { count: record.count, first_ms: time_ms, last_ms: time_ms, until_ms };
        sums.entry(texts).or_insert(Sum::NONE).add(sum);
        check_groups(sums.len())?;
    }
    let group = |(texts, sum): (Vec<String>, Sum)| Group {
        texts,
        count: sum.count,
        first_ms: sum.first_ms,
        last_ms: sum.last_ms,
        until_ms: sum.until_ms,
    };
    let mut groups: Vec<Group> = sums.into_iter().map(group).collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.texts.cmp(&b.texts)));
    Ok(groups)
}

fn check_groups(groups: usize) -> Result<(), Error> {
    if groups > MAX_GROUPS {
        let why = format!("more than {MAX_GROUPS} groups; ask for a window, or for less at a time");
        return Err(Error::malformed("question", why));
    }
    Ok(())
}

fn of_segment(segment: &Segment, filter: &Filter, by: &[Column]) -> Result<Sums, Error> {
    let mut sums = Sums::new();
    for group in 0..segment.metadata().metadata().num_row_groups() {
        if may_match(segment, group, filter) {
            of_row_group(segment, group, filter, by, &mut sums)?;
            check_groups(sums.len())?;
        }
    }
    Ok(sums)
}

fn of_row_group(
    segment: &Segment,
    group: usize,
    filter: &Filter,
    by: &[Column],
    sums: &mut Sums,
) -> Result<(), Error> {
    let conditions = filter.columns(time_range(segment, group));
    let mut names = vec!["time", "expires"];
    names.extend(by.iter().map(|column| column.0));
    names.extend(&conditions);
    let counted = !each_counts_once(segment, group);
    if counted {
        names.push("count");
    }
    let Some(batch) = read(segment, group, &names, None)? else { return Ok(()) };
    let mask = if conditions.is_empty() { None } else { Some(mask(&batch, filter)?) };
    let time = times(&batch, "time")?;
    let (until, has_until) = (times(&batch, "expires")?, present(&batch, "expires"));
    let counts = if counted { Some(longs(&batch, "count")?) } else { None };
    let texts: Vec<Texts<'_>> =
        by.iter().map(|column| Texts::of(&batch, column.0)).collect::<Result<_, _>>()?;
    let mut table = Table::new(&texts);
    for row in 0..batch.num_rows() {
        if mask.as_ref().is_some_and(|mask| !mask.get(row).copied().unwrap_or(false)) {
            continue;
        }
        let number = |column: &[i64]| {
            column.get(row).copied().and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
        };
        let time_ms = number(time);
        let count = counts.map_or(1, number);
        let until_ms = if has_until(row) { number(until) } else { 0 };
        let sum = Sum { count, first_ms: time_ms, last_ms: time_ms, until_ms };
        table.add(row, sum);
    }
    table.drain_into(sums);
    Ok(())
}

/// Whether every record of a row group stands for itself alone: nearly always so.
fn each_counts_once(segment: &Segment, group: usize) -> bool {
    let once = || {
        let metadata = segment.metadata().metadata().row_groups().get(group)?;
        let column = metadata.columns().get(index("count")?)?;
        let Statistics::Int64(counts) = column.statistics()? else { return None };
        Some(*counts.min_opt()? == 1 && *counts.max_opt()? == 1)
    };
    once().unwrap_or(false)
}

/// Sums of one row group, by the places of the texts in their dictionaries.
struct Table<'a> {
    texts: &'a [Texts<'a>],
    dense: Vec<Sum>,
    sparse: HashMap<Vec<usize>, Sum>,
}

impl<'a> Table<'a> {
    fn new(texts: &'a [Texts<'a>]) -> Self {
        let sizes = texts.iter().map(|t| t.values_len());
        let all = sizes.fold(1_usize, usize::saturating_mul);
        let dense = if all <= MAX_DENSE { vec![Sum::NONE; all] } else { Vec::new() };
        Self { texts, dense, sparse: HashMap::new() }
    }

    fn add(&mut self, row: usize, sum: Sum) {
        if self.dense.is_empty() {
            let places = self.texts.iter().map(|t| t.place(row)).collect();
            self.sparse.entry(places).or_insert(Sum::NONE).add(sum);
            return;
        }
        let at = self.texts.iter().fold(0, |at, t| at * t.values_len() + t.place(row));
        if let Some(known) = self.dense.get_mut(at) {
            known.add(sum);
        }
    }

    fn drain_into(self, sums: &mut Sums) {
        let Self { texts, dense, sparse } = self;
        let mut add = |places: &mut dyn Iterator<Item = (&Texts<'_>, usize)>, sum: Sum| {
            let key = places.map(|(texts, place)| texts.at(place).to_owned()).collect();
            sums.entry(key).or_insert(Sum::NONE).add(sum);
        };
        for (at, sum) in dense.into_iter().enumerate().filter(|(_, sum)| sum.count > 0) {
            let mut rest = at;
            let mut places = Vec::with_capacity(texts.len());
            for text in texts.iter().rev() {
                places.push((text, rest % text.values_len()));
                rest /= text.values_len();
            }
            add(&mut places.into_iter().rev(), sum);
        }
        for (places, sum) in sparse {
            add(&mut texts.iter().zip(places), sum);
        }
    }
}

impl Texts<'_> {
    /// Values, and one more for none.
    fn values_len(&self) -> usize {
        use arrow_array::Array;
        self.values.len().saturating_add(1)
    }
}
