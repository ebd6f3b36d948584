//! Audit records: who asked for which token, from where, and what was decided.
//!
//! A [`Record`] is one decision. Records travel in two forms, both encrypted under data keys that are
//! wrapped to recipients ([`keys`]):
//!
//! - a [`Section`] of the write-ahead log: what one batch decided, durable before a token leaves;
//! - a segment ([`segment`]): a Parquet file with Parquet's own encryption, so that any engine that
//!   is given the data key can read it. Its SHA-256 and range stand in the signer's log.
//!
//! Records of one signer's log are numbered from 0 without gaps, in the order in which they were
//! made; segments and sections cover ranges of these numbers. Their times never go back either, so a
//! segment is sorted by both.
//!
//! [`scan`] answers an investigator's questions over segments. Nothing here touches a network, and of
//! files only those that a caller names.

mod error;
pub mod export;
pub mod footer;
pub mod keys;
pub mod output;
mod path;
mod record;
pub mod scan;
mod section;
pub mod segment;

pub use error::Error;
pub use path::{SegmentName, hour_of, parse_time};
pub use record::{MAX_AUDIENCES, MAX_TEXT_BYTES, Outcome, Record, Token};
pub use section::{
    MAX_SECTION_BYTES, MAX_SECTION_RECORDS, Opener, SealedSection, Section, SectionSealer,
    decode_records,
};
