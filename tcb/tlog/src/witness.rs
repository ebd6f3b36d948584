//! The witness protocol, both sides of it (c2sp.org/tlog-witness): what is sent, and what to think of
//! it. Sending, keeping and the clock are the caller's.
//!
//! A witness reads a request with [`AddCheckpoint::parse`], looks up what it knows by
//! [`AddCheckpoint::origin`], and asks [`judge`]. To accept, it stores the checkpoint as its latest
//! one, atomically with the check, and only then cosigns it
//! ([`Note::add_cosignature`](crate::note::Note::add_cosignature)) and answers with
//! [`encode_signatures`]. The client passes what it gets to [`judge_answer`].
//!
//! Two checkpoints of one size with different roots: the text of 2026 asks for status 422, earlier
//! ones for 409. [`judge`] answers 422, and [`judge_answer`] understands both.

mod answer;
mod judge;
mod request;

use crate::hash::sha256;

pub use answer::{
    Answer, Cosigned, encode_signatures, encode_size, judge_answer, parse_signatures, parse_size,
};
pub use judge::{Approved, Latest, Refusal, judge};
pub use request::{AddCheckpoint, MAX_REQUEST_BYTES};

/// `Content-Type` of the body that says how far a witness has got, with status 409.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// Where a witness serves the latest checkpoint that it cosigned of the log with this origin, below
/// its monitoring prefix: `<SHA-256 of the origin, hex>/checkpoint`. What stands there has the log's
/// signatures and the witness's cosignatures.
pub fn checkpoint_path(origin: &str) -> String {
    let hash = sha256(origin.as_bytes());
    let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}/checkpoint")
}
