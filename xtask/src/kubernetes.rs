//! `cargo xtask kubernetes`: what a service-account token costs, and a lookup by digest. Both are built
//! for release and print their figures; `docs/performance.md` has the last ones.

use crate::recipes::Outcome;
use crate::run::{cargo, run};
use anyhow::Result;
use std::path::Path;

/// Builds the signer that the player's service starts, then measures.
const STEPS: [&[&str]; 3] = [
    &["build", "--release", "-p", "chancery-signer"],
    &[
        "test",
        "--release",
        "-p",
        "chancery",
        "--test",
        "kubernetes_conformance",
        "--",
        "--ignored",
        "--nocapture",
    ],
    &["test", "--release", "-p", "chancery", "--lib", "digests", "--", "--ignored", "--nocapture"],
];

/// Runs each step to its end.
pub fn recipe(root: &Path, _arguments: &[String]) -> Result<Outcome> {
    for step in STEPS {
        run(&mut cargo(root, step))?;
    }
    Ok(Outcome::Passed)
}
