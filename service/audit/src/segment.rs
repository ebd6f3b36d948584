//! A segment: a run of records as one Parquet file.
//!
//! Its columns are those of [`schema`]; rows stand in the order of the records' numbers, which is
//! that of their times. Texts that repeat are dictionaries, `jti` and `request_id` are written as
//! what differs from the row before. What tells most segments that a question after one token need not
//! read stands in the footer (`tokens`): Parquet's own Bloom filters would stand in the clear, where
//! the library writes them, and DuckDB, which looks for encrypted ones, cannot read such columns.
//!
//! The file is encrypted by Parquet's own means (modular encryption, AES-256-GCM, footer included)
//! under a data key of its own, which stands wrapped in the footer's key metadata.

mod tokens;

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeBinaryBuilder, Int32Builder, Int64Builder, StringBuilder, StringDictionaryBuilder,
    TimestampMillisecondBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::{Buf, Bytes};
use chancery_token::b64;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnPath;

use self::tokens::Tokens;

use crate::keys::{DataKey, Identity, Recipient};
use crate::{Error, Record, SealedSection, SegmentName, footer, hour_of};

/// The most records of a segment, which is one row group then: small enough to be built in half a
/// second and half a hundred megabytes, large enough to compress well and to be skipped whole.
pub const MAX_ROWS: usize = 131_072;

/// The key of the file's metadata that says which records it holds.
const RANGE_KEY: &str = "chancery.segment";
/// How a sealed segment begins.
const SEALED_MAGIC: &[u8] = b"chancery sealed audit 1\n";
/// Larger dictionaries cost more than they save.
const DICTIONARY_BYTES: usize = 2 * 1024 * 1024;
/// More than any column takes, so that each is one page: DuckDB 1.5 cannot decrypt a column's second
/// one, and a question reads the columns that it needs whole anyhow.
const PAGE_BYTES: usize = 256 * 1024 * 1024;
/// Smaller levels save little time, larger ones little room.
const ZSTD_LEVEL: i32 = 3;

/// The columns, in order.
#[must_use]
pub fn schema() -> SchemaRef {
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let time = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let field = |name: &str, kind| Field::new(name, kind, true);
    let sure = |name: &str, kind| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        sure("time", time()),
        sure("outcome", text()),
        field("code", text()),
        field("detail", text()),
        field("realm", text()),
        field("client", text()),
        field("subject", text()),
        field("audience", text()),
        field("scope", text()),
        field("grant_name", text()),
        sure("policy_version", DataType::Int64),
        field("kid", text()),
        field("jti", DataType::Utf8),
        field("digest", DataType::FixedSizeBinary(32)),
        field("expires", time()),
        field("lifetime_s", DataType::Int32),
        field("address", text()),
        field("user_agent", text()),
        field("request_id", DataType::Utf8),
        sure("latency_ms", DataType::Int32),
        sure("count", DataType::Int64),
    ]))
}

/// Which records a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it lies, and its number.
    pub name: SegmentName,
    /// Number of its first record in its log.
    pub first: u64,
    /// How many records.
    pub records: u64,
}

impl Range {
    /// The number behind the last record's.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.records)
    }

    fn to_text(&self) -> String {
        let SegmentName { hour, log, number, .. } = &self.name;
        format!("1 {log} {number} {hour} {} {}", self.first, self.records)
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        let ["1", log, number, hour, first, records] = parts.as_slice() else { return None };
        let name = SegmentName {
            hour: hour.parse().ok()?,
            log: (*log).into(),
            number: number.parse().ok()?,
            is_sealed: false,
        };
        let range = Self { name, first: first.parse().ok()?, records: records.parse().ok()? };
        (range.to_text() == text).then_some(range)
    }
}

/// Makes the segment with this number of records that begin with number `first`. All were made in
/// one hour, in this order.
///
/// # Errors
/// [`Error::Malformed`] when they do not belong together; [`Error::Key`], [`Error::Parquet`].
pub fn write(
    log: &[u8; 16],
    number: u64,
    first: u64,
    records: &[Record],
    recipients: &[Recipient],
) -> Result<(Range, Bytes), Error> {
    let hour = records.first().map_or(0, |r| hour_of(r.time_ms));
    let together = records.iter().all(|r| hour_of(r.time_ms) == hour)
        && records.is_sorted_by_key(|r| r.time_ms)
        && (1..=MAX_ROWS).contains(&records.len());
    if !together {
        return Err(Error::malformed("segment", "its records are not of one hour, in order"));
    }
    let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
    let name = SegmentName { hour, log: b64::encode(log), number, is_sealed: false };
    let range = Range { name, first, records: count };
    let key = DataKey::generate(recipients)?;
    let encryption = FileEncryptionProperties::builder(key.bytes().to_vec())
        .with_footer_key_metadata(key.wrapped().to_vec())
        .build()?;
    let pairs = vec![
        KeyValue::new(RANGE_KEY.into(), range.to_text()),
        KeyValue::new(tokens::KEY.into(), Tokens::of(records).to_text()),
    ];
    let properties = properties()
        .set_key_value_metadata(Some(pairs))
        .with_file_encryption_properties(encryption)
        .build();
    Ok((range, file(records, properties)?))
}

/// The same columns in the clear: what a question found, for other tools.
///
/// # Errors
/// [`Error::Parquet`].
pub fn write_plain(records: &[Record]) -> Result<Bytes, Error> {
    file(records, properties().build())
}

fn file(records: &[Record], properties: WriterProperties) -> Result<Bytes, Error> {
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties))?;
    for rows in records.chunks(MAX_ROWS) {
        writer.write(&batch(rows)?)?;
    }
    Ok(writer.into_inner()?.into())
}

fn properties() -> WriterPropertiesBuilder {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let path = |name: &str| ColumnPath::from(name);
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("chancery-audit ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(MAX_ROWS))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_data_page_row_count_limit(MAX_ROWS)
        // It would point to one page each.
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: 0,
            descending: false,
            nulls_first: false,
        }]));
    for (name, encoding) in [
        ("time", Encoding::DELTA_BINARY_PACKED),
        ("expires", Encoding::DELTA_BINARY_PACKED),
        ("jti", Encoding::DELTA_BYTE_ARRAY),
        ("request_id", Encoding::DELTA_BYTE_ARRAY),
        ("digest", Encoding::PLAIN),
    ] {
        builder = builder
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), encoding);
    }
    // Random values: the smallest and the largest of them say nothing.
    for name in ["jti", "digest", "request_id"] {
        builder = builder.set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    builder.set_column_compression(path("digest"), Compression::UNCOMPRESSED)
}

/// Columns under construction.
struct Columns {
    time: TimestampMillisecondBuilder,
    texts: [StringDictionaryBuilder<Int32Type>; 12],
    policy_version: Int64Builder,
    jti: StringBuilder,
    digest: FixedSizeBinaryBuilder,
    expires: TimestampMillisecondBuilder,
    lifetime_s: Int32Builder,
    request_id: StringBuilder,
    latency_ms: Int32Builder,
    count: Int64Builder,
}

fn batch(records: &[Record]) -> Result<RecordBatch, Error> {
    let rows = records.len();
    let mut columns = Columns {
        time: TimestampMillisecondBuilder::with_capacity(rows).with_timezone("UTC"),
        texts: std::array::from_fn(|_| StringDictionaryBuilder::new()),
        policy_version: Int64Builder::with_capacity(rows),
        jti: StringBuilder::with_capacity(rows, rows.saturating_mul(56)),
        digest: FixedSizeBinaryBuilder::with_capacity(rows, 32),
        expires: TimestampMillisecondBuilder::with_capacity(rows).with_timezone("UTC"),
        lifetime_s: Int32Builder::with_capacity(rows),
        request_id: StringBuilder::with_capacity(rows, rows.saturating_mul(22)),
        latency_ms: Int32Builder::with_capacity(rows),
        count: Int64Builder::with_capacity(rows),
    };
    for record in records {
        columns.append(record)?;
    }
    columns.finish()
}

impl Columns {
    fn append(&mut self, record: &Record) -> Result<(), Error> {
        let long = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let kid = record.token.as_ref().map(|t| b64::encode(&t.kid)).unwrap_or_default();
        let audience = join(&record.audiences);
        let texts: [&str; 12] = [
            record.outcome.as_str(),
            &record.code,
            &record.detail,
            &record.realm,
            &record.client,
            &record.subject,
            &audience,
            &record.scope,
            &record.grant,
            &kid,
            &record.address,
            &record.user_agent,
        ];
        self.time.append_value(long(record.time_ms));
        for (builder, text) in self.texts.iter_mut().zip(texts) {
            match text {
                "" => builder.append_null(),
                text => drop(builder.append(text)?),
            }
        }
        self.policy_version.append_value(long(record.policy_version));
        match &record.token {
            Some(token) => {
                self.jti.append_value(&token.jti);
                self.digest.append_value(token.digest)?;
                self.expires.append_value(long(token.exp.saturating_mul(1_000)));
                let lifetime = i32::try_from(token.lifetime_s).unwrap_or(i32::MAX);
                self.lifetime_s.append_value(lifetime);
            }
            None => {
                self.jti.append_null();
                self.digest.append_null();
                self.expires.append_null();
                self.lifetime_s.append_null();
            }
        }
        match record.request_id.as_str() {
            "" => self.request_id.append_null(),
            id => self.request_id.append_value(id),
        }
        self.latency_ms.append_value(i32::try_from(record.latency_ms).unwrap_or(i32::MAX));
        self.count.append_value(long(record.count));
        Ok(())
    }

    fn finish(mut self) -> Result<RecordBatch, Error> {
        let [
            outcome,
            code,
            detail,
            realm,
            client,
            subject,
            audience,
            scope,
            grant,
            kid,
            address,
            agent,
        ] = self.texts.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish()),
            outcome,
            code,
            detail,
            realm,
            client,
            subject,
            audience,
            scope,
            grant,
            Arc::new(self.policy_version.finish()),
            kid,
            Arc::new(self.jti.finish()),
            Arc::new(self.digest.finish()),
            Arc::new(self.expires.finish()),
            Arc::new(self.lifetime_s.finish()),
            address,
            agent,
            Arc::new(self.request_id.finish()),
            Arc::new(self.latency_ms.finish()),
            Arc::new(self.count.finish()),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// Audiences in one text, separated by spaces; a space in one of them is written as in a URL.
pub(crate) fn join(audiences: &[String]) -> String {
    let quoted: Vec<_> = audiences.iter().map(|a| a.replace(' ', "%20")).collect();
    quoted.join(" ")
}

/// A segment of sections as they are, for whoever has no key to open them: each with its length.
#[must_use]
pub fn seal(sections: &[&[u8]]) -> Bytes {
    let mut out = SEALED_MAGIC.to_vec();
    for section in sections {
        out.extend_from_slice(&u32::try_from(section.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(section);
    }
    out.into()
}

/// The sections of a sealed segment: one log's, in order, without a gap.
///
/// # Errors
/// [`Error::Malformed`].
pub fn unseal(bytes: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let wrong = |why: &str| Error::malformed("sealed segment", why);
    let mut rest = bytes.strip_prefix(SEALED_MAGIC).ok_or_else(|| wrong("it is none"))?;
    let mut sections = Vec::new();
    let mut end: Option<([u8; 16], u64)> = None;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (section, tail) =
            tail.split_at_checked(length).ok_or_else(|| wrong("it is cut off"))?;
        let read = SealedSection::read(section)?;
        if end.is_some_and(|end| end != (read.log, read.first)) {
            return Err(wrong("its sections do not follow each other"));
        }
        end = Some((read.log, read.end()));
        sections.push(section);
        rest = tail;
    }
    if rest.is_empty() && !sections.is_empty() {
        return Ok(sections);
    }
    Err(wrong("it is cut off"))
}

/// Where a segment's bytes are.
#[derive(Debug)]
pub enum Source {
    /// In a file, of which only what a question needs is read.
    File(File),
    /// In memory.
    Bytes(Bytes),
}

impl Length for Source {
    fn len(&self) -> u64 {
        match self {
            Source::File(file) => Length::len(file),
            Source::Bytes(bytes) => Length::len(bytes),
        }
    }
}

impl ChunkReader for Source {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        match self {
            Source::File(file) => Ok(Box::new(file.get_read(start)?)),
            Source::Bytes(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                Ok(Box::new(bytes.slice(start.min(bytes.len())..).reader()))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Source::File(file) => {
                use std::os::unix::fs::FileExt;
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, start)?;
                Ok(buffer.into())
            }
            Source::Bytes(bytes) => bytes.get_bytes(start, length),
        }
    }
}

impl Source {
    fn try_clone(&self) -> Result<Self, Error> {
        Ok(match self {
            Source::File(file) => Source::File(file.try_clone()?),
            Source::Bytes(bytes) => Source::Bytes(bytes.clone()),
        })
    }
}

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    source: Source,
    metadata: ArrowReaderMetadata,
    range: Range,
}

impl Segment {
    /// Reads a segment's footer.
    ///
    /// # Errors
    /// As [`footer::authenticate`]; [`Error::Parquet`] when it is damaged; [`Error::Malformed`] when it
    /// is one of another version.
    pub fn open(source: Source, identities: &Arc<[Identity]>) -> Result<Self, Error> {
        // Before the library looks at any of it.
        let key = footer::authenticate(&source, identities)?;
        let decryption = FileDecryptionProperties::builder(key.bytes().to_vec()).build()?;
        let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption);
        let metadata = ArrowReaderMetadata::load(&source, options)?;
        let pairs = metadata.metadata().file_metadata().key_value_metadata();
        let pair = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == RANGE_KEY));
        let range = pair.and_then(|pair| Range::parse(pair.value.as_deref()?));
        let wrong = |why: &str| Error::malformed("segment", why);
        let range = range.ok_or_else(|| wrong("it does not say which records it holds"))?;
        let rows = metadata.metadata().file_metadata().num_rows();
        if u64::try_from(rows) != Ok(range.records)
            || metadata.schema().fields() != schema().fields()
        {
            return Err(wrong("it is not of a format that this version knows"));
        }
        Ok(Self { source, metadata, range })
    }

    /// Which records it holds.
    #[must_use]
    pub fn range(&self) -> &Range {
        &self.range
    }

    /// Which tokens it may hold; `None` where it does not say.
    pub(crate) fn tokens(&self) -> Option<tokens::Written<'_>> {
        let pairs = self.metadata.metadata().file_metadata().key_value_metadata()?;
        let pair = pairs.iter().find(|pair| pair.key == tokens::KEY)?;
        tokens::Written::parse(pair.value.as_deref()?)
    }

    pub(crate) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    pub(crate) fn source(&self) -> Result<Source, Error> {
        self.source.try_clone()
    }
}

/// The data key of a segment, for other engines.
///
/// # Errors
/// As [`footer::authenticate`].
pub fn data_key(source: &Source, identities: &[Identity]) -> Result<DataKey, Error> {
    footer::authenticate(source, identities)
}

#[cfg(test)]
mod tests;
