//! Lists of exceptions with reasons: the few lines of TOML that they need.
//!
//! A list is lines `key = "reason"`, in sections or not, with comments. Nothing else of TOML is
//! understood, and what is not understood is an error, so that no line is silently ignored.

use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// A parsed list, which remembers which of its lines were needed.
#[derive(Debug, Default)]
pub struct List {
    reasons: BTreeMap<(String, String), String>,
    used: BTreeSet<(String, String)>,
}

impl List {
    /// Parses `text`; errors name the line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut list = Self::default();
        let mut section = String::new();
        for (number, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
                continue;
            }
            let Some((key, reason)) = line.split_once(" = ") else {
                bail!("line {number} is not `key = \"reason\"`: `{line}`");
            };
            let key = unquoted(key).unwrap_or(key).to_owned();
            let Some(reason) = unquoted(reason).filter(|reason| !reason.trim().is_empty()) else {
                bail!("line {number} gives no reason in quotation marks: `{line}`");
            };
            if list.reasons.insert((section.clone(), key), reason.to_owned()).is_some() {
                bail!("line {number} repeats a key: `{line}`");
            }
        }
        Ok(list)
    }

    /// Whether `section` names `key`; asking marks it as needed.
    pub fn allows(&mut self, section: &str, key: &str) -> bool {
        let entry = (section.to_owned(), key.to_owned());
        let known = self.reasons.contains_key(&entry);
        if known {
            self.used.insert(entry);
        }
        known
    }

    /// The keys outside any section.
    pub fn names(&self) -> BTreeSet<&str> {
        self.reasons.keys().map(|(_, key)| key.as_str()).collect()
    }

    /// The keys that nobody asked for.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.reasons.keys().filter(|key| !self.used.contains(key)).map(|(_, key)| key.as_str())
    }
}

/// The inside of a basic string without escapes.
fn unquoted(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!inside.contains(['"', '\\'])).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_their_section_and_unused_ones_are_told() {
        let text = "# c\na = \"r\"\n\n[s]\n\"b::c\" = \"r, with = sign\"\nd = \"r\"\n";
        let mut list = List::parse(text).unwrap();
        assert!(list.allows("s", "b::c"));
        assert!(!list.allows("", "b::c"));
        assert!(list.allows("", "a"));
        assert_eq!(list.unused().collect::<Vec<_>>(), ["d"]);
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_the_line() {
        for (text, said) in [
            ("a", "line 1 is not"),
            ("a = 1", "line 1 gives no reason"),
            ("a = \"\"", "line 1 gives no reason"),
            ("a = \"r\" # why", "line 1 gives no reason"),
            ("a = \"r\"\n\"a\" = \"s\"", "line 2 repeats"),
        ] {
            let error = List::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
