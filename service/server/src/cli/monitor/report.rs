//! What a monitor says: lines for people, or one JSON object a line.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cli::say;

/// Every violation by its stable word; `docs/monitor.md` says what each means.
#[cfg(test)]
pub const CODES: [&str; 25] = [
    "directory",
    "directory_replaced",
    "directory_vanished",
    "log_disagrees",
    "log_rewritten",
    "log_vanished",
    "log_not_named",
    "genesis",
    "other_key",
    "empty_window",
    "announced_twice",
    "not_announced",
    "outside_window",
    "after_compromise",
    "widened",
    "void",
    "served_unannounced",
    "served_elsewhere",
    "served_window",
    "served_compromised",
    "served_hidden",
    "imported_own",
    "served_unreadable",
    "signed_set",
    "signed_set_older",
];

/// What only a deployment that lies, or was tampered with, can cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// A stable word; `docs/monitor.md` has all of them.
    pub code: &'static str,
    /// What it is about: `log <log id>` or `realm <name>`.
    pub about: String,
    /// What is wrong.
    pub detail: String,
}

/// Says things, and counts those that matter.
pub struct Report {
    form: Form,
    /// Each is said once in a round, however often it was looked at.
    violations: BTreeSet<Violation>,
    unreadable: BTreeSet<String>,
}

enum Form {
    Text,
    Json,
    /// Kept for the test that asks.
    #[cfg(test)]
    Kept(Vec<Violation>),
}

/// What a round came to.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub violations: usize,
    pub unreadable: usize,
}

impl Report {
    pub fn new(json: bool) -> Self {
        let form = if json { Form::Json } else { Form::Text };
        Self { form, violations: BTreeSet::new(), unreadable: BTreeSet::new() }
    }

    #[cfg(test)]
    pub fn silent() -> Self {
        Self { form: Form::Kept(Vec::new()), ..Self::new(true) }
    }

    #[cfg(test)]
    pub fn said(self) -> Vec<Violation> {
        match self.form {
            Form::Kept(said) => said,
            _ => Vec::new(),
        }
    }

    /// A violation.
    pub fn violation(&mut self, found: &Violation) -> std::io::Result<()> {
        if !self.violations.insert(found.clone()) {
            return Ok(());
        }
        #[cfg(test)]
        if let Form::Kept(said) = &mut self.form {
            said.push(found.clone());
        }
        let Violation { code, about, detail } = found;
        self.line(
            json!({"event": "violation", "code": code, "about": about, "detail": detail}),
            &format!("VIOLATION {code}: {about}: {detail}"),
        )
    }

    /// Something that could not be read now.
    pub fn unreadable(&mut self, about: &str, why: &str) -> std::io::Result<()> {
        if !self.unreadable.insert(about.to_owned()) {
            return Ok(());
        }
        self.line(
            json!({"event": "unreadable", "about": about, "detail": why}),
            &format!("cannot check {about}: {why}"),
        )
    }

    /// Anything else, in both forms.
    pub fn line(&self, mut json: Value, text: &str) -> std::io::Result<()> {
        match self.form {
            Form::Text => say(text),
            Form::Json => {
                if let Value::Object(object) = &mut json {
                    object.insert("at".to_owned(), crate::now().into());
                }
                say(&json.to_string())
            }
            #[cfg(test)]
            Form::Kept(_) => Ok(()),
        }
    }

    /// What was counted since the last time.
    pub fn round(&mut self) -> Round {
        Round {
            violations: std::mem::take(&mut self.violations).len(),
            unreadable: std::mem::take(&mut self.unreadable).len(),
        }
    }
}
