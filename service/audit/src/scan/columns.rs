//! Columns, and rows as records again.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, Int32Array, RecordBatch, StringArray};
use chancery_token::b64;

use super::Filter;
use crate::{Error, Outcome, Record, Token};

/// Every column, in order.
pub const ALL: [&str; 21] = [
    "time",
    "outcome",
    "code",
    "detail",
    "realm",
    "client",
    "subject",
    "audience",
    "scope",
    "grant_name",
    "policy_version",
    "kid",
    "jti",
    "digest",
    "expires",
    "lifetime_s",
    "address",
    "user_agent",
    "request_id",
    "latency_ms",
    "count",
];

/// A column's place.
pub fn index(name: &str) -> Option<usize> {
    ALL.iter().position(|column| *column == name)
}

/// Whether a row group with these times has rows on both sides of a window's edge.
pub fn overlaps_partly(times: Option<(u64, u64)>, from_ms: u64, to_ms: u64) -> bool {
    !times.is_some_and(|(first, last)| from_ms <= first && last < to_ms)
        && (from_ms, to_ms) != (0, u64::MAX)
}

/// A column of texts that repeat.
pub struct Texts<'a> {
    pub keys: &'a Int32Array,
    pub values: &'a StringArray,
}

impl<'a> Texts<'a> {
    pub fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, Error> {
        let column = batch.column_by_name(name);
        let column = column.and_then(|c| c.as_dictionary_opt::<Int32Type>());
        let texts = column.and_then(|c| {
            Some(Self { keys: c.keys(), values: c.values().as_string_opt::<i32>()? })
        });
        texts.ok_or_else(|| missing(name))
    }

    /// The place of a row's text among the values; that of no text is behind them.
    pub fn place(&self, row: usize) -> usize {
        let none = self.values.len();
        if self.keys.is_null(row) {
            return none;
        }
        let key = self.keys.values().get(row).copied().unwrap_or(-1);
        usize::try_from(key).map_or(none, |key| key.min(none))
    }

    /// The text at a place.
    pub fn at(&self, place: usize) -> &'a str {
        if place < self.values.len() { self.values.value(place) } else { "" }
    }

    fn row(&self, row: usize) -> String {
        self.at(self.place(row)).to_owned()
    }
}

fn missing(name: &str) -> Error {
    Error::Parquet(format!("column `{name}` is not what it should be"))
}

/// A column of numbers; 0 where there is none.
pub fn times<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a [i64], Error> {
    let column = batch.column_by_name(name);
    let column = column.and_then(|c| c.as_primitive_opt::<TimestampMillisecondType>());
    Ok(column.ok_or_else(|| missing(name))?.values())
}

/// Whether a row has a value in a column.
pub fn present<'a>(batch: &'a RecordBatch, name: &str) -> impl Fn(usize) -> bool + use<'a> {
    let nulls = batch.column_by_name(name).and_then(|column| column.nulls());
    move |row| nulls.is_none_or(|nulls| nulls.is_valid(row))
}

pub fn longs<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a [i64], Error> {
    let column = batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
    Ok(column.ok_or_else(|| missing(name))?.values())
}

fn ints<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a [i32], Error> {
    let column = batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int32Type>());
    Ok(column.ok_or_else(|| missing(name))?.values())
}

fn plain<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, Error> {
    let column = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
    column.ok_or_else(|| missing(name))
}

/// Which rows a filter lets through. Conditions on columns that were not read hold for all rows.
pub fn mask(batch: &RecordBatch, filter: &Filter) -> Result<Vec<bool>, Error> {
    let mut mask = vec![true; batch.num_rows()];
    let has = |name: &str| batch.column_by_name(name).is_some();
    if has("time") {
        for (keep, time) in mask.iter_mut().zip(times(batch, "time")?) {
            let time = u64::try_from(*time).unwrap_or(0);
            *keep = (filter.from_ms..filter.to_ms).contains(&time);
        }
    }
    for (name, wanted) in filter.texts().filter(|(name, _)| has(name)) {
        keep_texts(&mut mask, &Texts::of(batch, name)?, |text| text == wanted);
    }
    if let Some(wanted) = filter.spelt_audience() {
        let texts = Texts::of(batch, "audience")?;
        keep_texts(&mut mask, &texts, |text| text.split(' ').any(|audience| audience == wanted));
    }
    for (name, wanted) in filter.plain() {
        let column = plain(batch, name)?;
        for (row, keep) in mask.iter_mut().enumerate().filter(|(_, keep)| **keep) {
            *keep = !column.is_null(row) && column.value(row) == wanted;
        }
    }
    if let Some(wanted) = &filter.digest {
        let column = batch.column_by_name("digest").and_then(|c| c.as_fixed_size_binary_opt());
        let column = column.ok_or_else(|| missing("digest"))?;
        for (row, keep) in mask.iter_mut().enumerate().filter(|(_, keep)| **keep) {
            *keep = !column.is_null(row) && column.value(row) == wanted;
        }
    }
    Ok(mask)
}

/// Asks once for each value, not for each row.
fn keep_texts(mask: &mut [bool], texts: &Texts<'_>, is_wanted: impl Fn(&str) -> bool) {
    let places = 0..=texts.values.len();
    let wanted: Vec<bool> = places.map(|place| is_wanted(texts.at(place))).collect();
    if !wanted.contains(&true) {
        mask.fill(false);
        return;
    }
    for (row, keep) in mask.iter_mut().enumerate() {
        *keep &= wanted.get(texts.place(row)).copied().unwrap_or(false);
    }
}

/// Rows of all columns as records.
pub fn records_of(batch: &RecordBatch) -> Result<Vec<Record>, Error> {
    let text = |name: &str| Texts::of(batch, name);
    let (outcome, code, detail) = (text("outcome")?, text("code")?, text("detail")?);
    let (realm, client, subject) = (text("realm")?, text("client")?, text("subject")?);
    let (audience, scope, grant) = (text("audience")?, text("scope")?, text("grant_name")?);
    let (kid, address, user_agent) = (text("kid")?, text("address")?, text("user_agent")?);
    let (time, expires) = (times(batch, "time")?, times(batch, "expires")?);
    let (policy_version, count) = (longs(batch, "policy_version")?, longs(batch, "count")?);
    let (lifetime_s, latency_ms) = (ints(batch, "lifetime_s")?, ints(batch, "latency_ms")?);
    let (jti, request_id) = (plain(batch, "jti")?, plain(batch, "request_id")?);
    let digest = batch.column_by_name("digest").and_then(|c| c.as_fixed_size_binary_opt());
    let digest = digest.ok_or_else(|| missing("digest"))?;
    let number = |column: &[i64], row: usize| {
        column.get(row).copied().and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
    };
    let small = |column: &[i32], row: usize| {
        column.get(row).copied().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    };
    let plain_at = |column: &StringArray, row: usize| {
        if column.is_null(row) { String::new() } else { column.value(row).to_owned() }
    };
    let token = |row: usize| -> Result<Option<Token>, Error> {
        if jti.is_null(row) {
            return Ok(None);
        }
        let kid = b64::decode_array(&kid.row(row)).map_err(|_| missing("kid"))?;
        let digest = digest.value(row).try_into().map_err(|_| missing("digest"))?;
        Ok(Some(Token {
            jti: plain_at(jti, row),
            digest,
            kid,
            exp: number(expires, row) / 1_000,
            lifetime_s: u64::from(small(lifetime_s, row)),
        }))
    };
    let record = |row: usize| -> Result<Record, Error> {
        let audiences = audience.row(row);
        Ok(Record {
            time_ms: number(time, row),
            outcome: Outcome::parse(&outcome.row(row)).ok_or_else(|| missing("outcome"))?,
            code: code.row(row),
            detail: detail.row(row),
            realm: realm.row(row),
            client: client.row(row),
            subject: subject.row(row),
            audiences: audiences.split(' ').filter(|a| !a.is_empty()).map(Into::into).collect(),
            scope: scope.row(row),
            grant: grant.row(row),
            policy_version: number(policy_version, row),
            token: token(row)?,
            address: address.row(row),
            user_agent: user_agent.row(row),
            request_id: plain_at(request_id, row),
            latency_ms: small(latency_ms, row),
            count: number(count, row),
        })
    };
    (0..batch.num_rows()).map(record).collect()
}
