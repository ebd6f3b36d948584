//! What crosses to JavaScript.
//!
//! | text | means |
//! |---|---|
//! | `{"claims":{...},"kid":"...","algorithm":"...","log":null}` | it is accepted; the claims are as signed |
//! | `!{"code":"...","detail":"..."}` | it is not |
//! | any other | a fault, or a mistake in the settings, for a person |
//!
//! One text and one `JSON.parse` cost less than an object that is made member by member. A number in
//! place of a text is that of a content (`contents.rs`).

use chancery_relying_party::{
    Accepted, BuildError, Explained, Finding, IssuerStatus, Rejection, RejectionCode, Status,
    Validated, Verdict,
};
use napi::bindgen_prelude::Either;
use serde_json::{Value, json};

use crate::settings::NotBuilt;

/// Said when a judgement panicked, which is a fault of this program.
pub const PANICKED: &str = "chancery: the judgement panicked; please report this";

/// A content's number, or a text.
pub type Answer = Either<f64, String>;

/// The text of a verdict.
pub fn verdict(verdict: Result<Accepted, Rejection>) -> String {
    match verdict {
        Ok(Accepted { token, log, .. }) => accepted(&token, log.as_ref()),
        Err(rejection) => rejected(&rejection),
    }
}

/// The text of an accepted token.
pub fn accepted(token: &Validated, log: Option<&Verdict>) -> String {
    let (kid, log) = (Value::from(token.kid()), log.map_or(Value::Null, logged));
    let (claims, algorithm) = (token.payload(), token.algorithm());
    format!(r#"{{"claims":{claims},"kid":{kid},"algorithm":"{algorithm}","log":{log}}}"#)
}

/// The text of a rejection.
pub fn rejected(rejection: &Rejection) -> String {
    refused(rejection.code(), rejection.detail())
}

fn refused(code: RejectionCode, detail: &str) -> String {
    format!("!{}", json!({"code": code, "detail": detail}))
}

/// Why there is no relying party: a key set that cannot be believed is a rejection.
pub fn not_built(error: &NotBuilt) -> String {
    match error {
        NotBuilt::Front(BuildError::KeySet { why, .. }) => {
            refused(RejectionCode::KeySetRefused, why)
        }
        error => error.to_string(),
    }
}

/// The text of a finding: that of its token, with what the log says.
pub fn finding(finding: &Finding) -> String {
    accepted(&finding.token, Some(&finding.verdict))
}

/// The text of a relying party's state.
pub fn status(status: &Status) -> String {
    let issuers: Vec<Value> = status.issuers.iter().map(issuer_status).collect();
    let logs = &status.logs;
    json!({
        "issuers": issuers,
        "logs": {
            "requests": logs.requests,
            "failures": logs.failures,
            "bytes": logs.bytes,
            "droppedLookups": logs.dropped_lookups,
            "droppedFindings": logs.dropped_findings,
        },
    })
    .to_string()
}

fn issuer_status(status: &IssuerStatus) -> Value {
    json!({
        "issuer": status.issuer,
        "state": status.state,
        "keys": status.keys,
        "ageMs": status.age_ms,
        "fetches": status.fetches,
        "failures": status.failures,
        "failuresInARow": status.failures_in_a_row,
        "lastError": status.last_error,
        "distrustsWithinMs": status.distrusts_within_ms,
        "distrustsAtMostMs": status.distrusts_at_most_ms,
    })
}

/// The text of a judgement step by step; it ends as `accepted` or `rejection`.
pub fn explained(explained: &Explained) -> String {
    let steps: Vec<Value> = explained
        .steps
        .iter()
        .map(|step| {
            json!({
                "check": step.name,
                "passed": step.passed,
                "counts": step.counts,
                "value": step.value,
            })
        })
        .collect();
    let (accepted, rejection) = match &explained.verdict {
        Ok(Accepted { token, log, .. }) => (accepted(token, log.as_ref()), Value::Null),
        Err(rejection) => ("null".to_owned(), json!(rejection)),
    };
    format!(r#"{{"steps":{},"accepted":{accepted},"rejection":{rejection}}}"#, Value::from(steps))
}

fn logged(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::InLog { index } => json!({"verdict": "in_log", "index": index}),
        Verdict::Pending => json!({"verdict": "pending"}),
        Verdict::Missing => json!({"verdict": "missing"}),
        Verdict::Forged { index, expected, found, vkey, proof } => json!({
            "verdict": "forged",
            "index": index,
            "expected": expected.to_string(),
            "found": found.to_string(),
            "vkey": vkey,
            "proof": proof.encode(),
        }),
        Verdict::Unknown { why } => json!({"verdict": "unknown", "why": why}),
    }
}
