//! Chancery's service: HTTP, OAuth, the write-ahead log, the store and the commands. It runs on
//! the host and is not trusted: it can refuse, not forge (INVARIANT I5).
//!
//! The page to open first is [`issue`]: the life of a token. [`service`] puts the parts together;
//! [`logs`] says in which order things become durable.

pub mod audit;
pub mod cli;
pub mod config;
pub mod control;
pub mod digests;
pub mod directory;
pub mod evidence;
pub mod folder;
pub mod http;
pub mod inception;
pub mod issue;
pub mod journal;
pub mod keyset;
pub mod kubernetes;
pub mod ledger;
pub mod link;
pub mod listen;
pub mod logs;
pub mod metrics;
pub mod overdue;
pub mod policies;
pub mod service;
pub mod signer_process;
pub mod store;
pub mod wal;
mod web;
pub mod witness;
pub mod witnesses;

/// Name and version, for greetings and `--version`.
pub const SOFTWARE: &str = concat!("chancery ", env!("CARGO_PKG_VERSION"));

/// Unix seconds now, by the host's clock: for serving and for display, never for signing.
#[must_use]
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}
