//! The structure check: what ARCHITECTURE.md promises about the repository, kept true.
//!
//! Every rule is a pure function from text to [`Finding`]s, so that its tests can show it failing;
//! this file only reads the repository and asks Cargo. `cargo xtask structure` prints the
//! findings, and `cargo test` fails on the first one.

mod dependencies;
mod edges;
mod figures;
mod lists;
mod paths;
mod purity;
mod sizes;
mod tree;

use crate::run::{cargo, output};
use anyhow::{Context as _, Result};
use lists::List;
use std::fmt;
use std::path::Path;

/// The one platform whose dependency graph is judged: what the signer runs on.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const ALLOW_LIST: &str = "tcb/signer/dependencies.toml";
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const EXCEPTIONS: &str = "xtask/exceptions.toml";

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file to change, relative to the root.
    file: String,
    /// The rule's name.
    rule: &'static str,
    /// What is wrong, and what to do.
    what: String,
}

impl Finding {
    fn new(file: &str, rule: &'static str, what: String) -> Self {
        Self { file: file.to_owned(), rule, what }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.rule, self.what)
    }
}

/// Every finding in the repository at `root`; empty when all is well.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let read = |file: &str| {
        std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read `{file}`"))
    };
    let files = tree::text_files(root)?;
    let mut exceptions = List::parse(&read(EXCEPTIONS)?).context(EXCEPTIONS)?;
    let allowed = List::parse(&read(ALLOW_LIST)?).context(ALLOW_LIST)?;
    let metadata = ["metadata", "--format-version=1", "--locked", "--filter-platform", PLATFORM];
    let crates = edges::crates(&output(&mut cargo(root, &metadata))?)?;
    let signer = output(&mut cargo(root, &dependencies::TREE_COMMAND))?;

    let mut findings = edges::check(&crates, &read(ARCHITECTURE)?);
    findings.extend(dependencies::check(&signer, &allowed));
    findings.extend(figures::check(&files, &signer, &read(ARCHITECTURE)?));
    findings.extend(sizes::check(&files, &mut exceptions));
    findings.extend(purity::check(&files, &mut exceptions));
    findings.extend(paths::check(&files));
    findings.extend(exceptions.unused().map(|key| {
        Finding::new(EXCEPTIONS, "stale exception", format!("`{key}` is not needed; remove it"))
    }));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_keeps_its_structure() {
        let findings = super::check(crate::repository()).unwrap();
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
    }
}
