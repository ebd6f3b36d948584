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
//! With a trust anchor ([`anchor`]) only keys are believed whose announcement stands in a log that the
//! anchor names; [`directory`] reads the log that names a deployment's logs.
//!
//! The crate is pure: no I/O, no clock, no randomness, no async. Time, keys and whatever reads a log
//! are arguments. `chancery-relying-party` is the front that fetches and keeps key sets.

#![forbid(unsafe_code)]

mod address;
pub mod anchor;
mod cache;
mod claims;
mod config;
pub mod directory;
mod explain;
mod judge;
mod keys;
pub mod log;
mod rejection;
mod tenant;
mod validated;
mod validator;

pub use address::LogAddress;
pub use cache::TokenCache;
pub use claims::{Audiences, Claims};
pub use config::{
    ConfigError, DEFAULT_LEEWAY_S, DEFAULT_MAX_LIFETIME_S, DEFAULT_TYP, ENTRA_MAX_LIFETIME_S,
    LogLookup, MAX_LEEWAY_S, Profile, ValidatorConfig,
};
pub use explain::{Explanation, Step};
pub use keys::Keys;
pub use log::Attestation;
pub use rejection::{Rejection, RejectionCode};
pub use validated::Validated;
pub use validator::Validator;
