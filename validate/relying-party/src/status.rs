//! What a relying party knows about itself, for health checks and metrics.

use serde::Serialize;

/// A relying party's state. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Each configured issuer, in that order.
    pub issuers: Vec<IssuerStatus>,
    /// Its lookups in logs.
    pub logs: LogStatus,
}

/// One issuer's key set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IssuerStatus {
    /// The issuer as it is configured.
    pub issuer: String,
    /// What the key set is good for.
    pub state: KeyState,
    /// Keys that are believed now.
    pub keys: usize,
    /// How long ago the request for this set began.
    pub age_ms: Option<u64>,
    /// Fetches that ended.
    pub fetches: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// What the last fetch died of, if it failed.
    pub last_error: Option<String>,
    /// Within what time a key is distrusted after its publisher took it out of the set, while the
    /// publisher answers: the set's age and the time of one fetch. `None` for a set that was given.
    pub distrusts_within_ms: Option<u64>,
    /// The same while the publisher cannot be reached: it can be no longer than this.
    pub distrusts_at_most_ms: Option<u64>,
}

/// What a key set is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It was given, and is never fetched.
    Given,
    /// There was never one.
    None,
    /// It is as new as its publisher wants it.
    Fresh,
    /// It should have been replaced, and is still used.
    Stale,
    /// It was too old, and is not used any more.
    Expired,
}

/// Lookups in logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogStatus {
    /// Requests for objects of logs.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Bytes that are kept.
    pub bytes: usize,
    /// Tokens that were not looked up, because too many were waiting.
    pub dropped_lookups: u64,
    /// Findings that were not told: there is no callback, it panicked, or too many were waiting.
    pub dropped_findings: u64,
}
