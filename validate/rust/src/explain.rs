//! Recording what a judgement looked at, without a second implementation of it.

use serde::Serialize;

use crate::{Rejection, Validated};

/// One check of a judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The check's stable name, in snake case; `docs/rejections.md` lists them.
    #[serde(rename = "check")]
    pub name: &'static str,
    /// Whether it was passed. The first step that counts and was not passed is the last one.
    pub passed: bool,
    /// Whether it decides; what was only asked to be reported does not.
    #[serde(skip_serializing_if = "is_true")]
    pub counts: bool,
    /// What was looked at, for a person; strangers' text in it is escaped and cut.
    pub value: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_true(flag: &bool) -> bool {
    *flag
}

/// A judgement step by step. It ends at the first failure.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The checks in the order in which they were made.
    pub steps: Vec<Step>,
    /// The verdict; the same that [`crate::Validator::validate`] gives.
    pub verdict: Result<Validated, Rejection>,
}

/// Hears of each check as it is made.
pub(crate) trait Recorder {
    /// Notes a check with what was `seen`, and hands its outcome on unchanged.
    fn check<T>(
        &mut self,
        name: &'static str,
        seen: impl FnOnce() -> String,
        outcome: Result<T, Rejection>,
    ) -> Result<T, Rejection>;
}

/// Records nothing and costs nothing.
pub(crate) struct Silent;

impl Recorder for Silent {
    fn check<T>(
        &mut self,
        _: &'static str,
        _: impl FnOnce() -> String,
        outcome: Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        outcome
    }
}

/// Records every check.
#[derive(Default)]
pub(crate) struct Steps(pub(crate) Vec<Step>);

impl Recorder for Steps {
    fn check<T>(
        &mut self,
        name: &'static str,
        seen: impl FnOnce() -> String,
        outcome: Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        self.0.push(Step { name, passed: outcome.is_ok(), counts: true, value: seen() });
        outcome
    }
}

/// A stranger's text as it may be repeated: escaped, and cut.
pub(crate) fn shown(text: &str) -> String {
    /// URLs and scopes in use are shorter; an attacker's text must not flood a log line.
    const MAX_SHOWN_CHARS: usize = 120;
    let mut out: String = text.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_text_is_escaped_and_cut() {
        assert_eq!(shown("https://a.example/ü"), "https://a.example/ü");
        assert_eq!(shown("a\nb\u{1b}[2J\0"), "a\\nb\\u{1b}[2J\\0");
        assert_eq!(shown(&"x".repeat(120)), "x".repeat(120));
        assert_eq!(shown(&"x".repeat(121)), format!("{}...", "x".repeat(120)));
    }
}
