//! The standardized validation: one strict judgement of a token, the same in every binding.
//!
//! [`Validator::validate`] takes a token, a key set and the time, and answers either a
//! [`Validated`] token or one [`Rejection`] from a closed table (`docs/rejections.md`).
//! [`Validator::explain`] runs the same checks and records them. [`mod@log`] looks a validated token
//! up in the log that it names.
//!
//! The page to open first is `judge.rs`: every check, in order. The rules are the strict reading of
//! RFC 7515, RFC 7519, RFC 8725 and RFC 9068, and those of Chancery's key sets: a key speaks for one
//! issuer, in one window, from one log.
//!
//! The crate is pure: no I/O, no clock, no randomness, no async. Time, keys and whatever reads a log
//! are arguments.

#![forbid(unsafe_code)]

mod address;
mod claims;
mod config;
mod explain;
mod judge;
pub mod log;
mod rejection;
mod validator;

pub use address::LogAddress;
pub use claims::Claims;
pub use config::{DEFAULT_LEEWAY_S, DEFAULT_MAX_LIFETIME_S, DEFAULT_TYP, ValidatorConfig};
pub use explain::{Explanation, Step};
pub use judge::Validated;
pub use rejection::{Rejection, RejectionCode};
pub use validator::Validator;
