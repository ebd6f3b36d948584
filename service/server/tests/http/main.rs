//! Every public path, as strangers use and misuse it, on the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

mod admin;
mod discovery;
mod issue;
mod limits;
mod logs;
mod oauth;

use chancery_testkit::{Answer, Lab, WebLog};
use serde_json::Value;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";

/// A running lab in development mode.
fn lab() -> Lab {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    lab
}

/// An RFC 9457 body with a stable code.
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let body = answer.json();
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["code"], code, "{body}");
    for member in ["type", "title", "detail"] {
        assert!(body[member].as_str().is_some_and(|s| !s.is_empty()), "{member}: {body}");
    }
}

/// A part of a JWS as JSON: 0 the header, 1 the payload.
fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&chancery_token::b64::decode(part).unwrap()).unwrap()
}

/// The log of the attached signer.
fn living_log(lab: &Lab) -> WebLog {
    WebLog::new(&lab.web, format!("{}/log/{}", lab.url(), lab.log_id()))
}
