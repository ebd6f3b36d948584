//! Fuzzing on the stable compiler: libFuzzer with LLVM's own coverage pass, no other tool.
//!
//! `-Cpasses=sancov-module` is a stable codegen option, so neither nightly nor cargo-fuzz is
//! needed, only a C++ compiler for libFuzzer itself. What nightly would add is AddressSanitizer,
//! which says nothing about code without `unsafe`.

use crate::recipes::Outcome;
use crate::run::{cargo, output, run, works};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Instrumentation of every crate: counters at each edge, and the operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// How long a target runs unless told: long enough to leave the seeds behind.
const SECONDS: u64 = 30;
/// One input that takes longer than this hangs: parsers need microseconds.
const INPUT_TIMEOUT_S: u64 = 10;
/// Memory that no parser of inputs of a few kilobytes may need.
const MEMORY_MB: u64 = 2_048;
/// Lines of libFuzzer's report that are shown of a failed run: assertion, input, artifact.
const REPORT_LINES: usize = 30;

/// Builds the targets in `fuzz/` and runs each one named, or all; 0 seconds means the seeds only.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let Plan { targets, seconds } = Plan::parse(arguments)?;
    if !works(Command::new("c++").arg("--version")) {
        return Ok(Outcome::Skipped("libFuzzer needs a C++ compiler; install `c++`".to_owned()));
    }
    let known = known_targets(root)?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        bail!("no fuzz target `{unknown}`; there are: {}", known.join(", "));
    }
    let binaries = build(root)?;
    let mut failed = Vec::new();
    for target in if targets.is_empty() { known } else { targets } {
        match fuzz(root, &binaries, &target, seconds)? {
            Report { passed: true, line, .. } => println!("fuzz {target}: ok, {line}"),
            Report { tail, .. } => {
                println!("{}\nfuzz {target}: FAILED", tail.join("\n"));
                failed.push(target);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}; the inputs are in fuzz/artifacts/", failed.join(", "));
    }
    Ok(Outcome::Passed)
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    targets: Vec<String>,
    seconds: u64,
}

impl Plan {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut plan = Self { targets: Vec::new(), seconds: SECONDS };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--seconds" {
                let number = arguments.next().context("`--seconds` needs a number")?;
                plan.seconds = number
                    .parse()
                    .with_context(|| format!("`{number}` is no number of seconds"))?;
            } else if argument.starts_with('-') {
                bail!("unexpected argument `{argument}`");
            } else {
                plan.targets.push(argument.clone());
            }
        }
        Ok(plan)
    }
}

/// The binaries that `fuzz/Cargo.toml` declares.
fn known_targets(root: &Path) -> Result<Vec<String>> {
    let arguments =
        ["metadata", "--no-deps", "--format-version=1", "--manifest-path", "fuzz/Cargo.toml"];
    let metadata: Value = serde_json::from_str(&output(&mut cargo(root, &arguments))?)?;
    let targets = metadata.pointer("/packages/0/targets").and_then(Value::as_array);
    let names = targets.context("fuzz/Cargo.toml has no targets")?.iter();
    Ok(names.filter_map(|target| target.get("name")?.as_str().map(str::to_owned)).collect())
}

/// Builds every target and returns the folder of the binaries. `--target` keeps the flags away
/// from build scripts and derives.
fn build(root: &Path) -> Result<PathBuf> {
    let version = output(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` names no host")?;
    let arguments = ["build", "--release", "--manifest-path", "fuzz/Cargo.toml"];
    run(cargo(root, &arguments)
        .args(["--target", host, "--target-dir", "fuzz/target"])
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", COVERAGE))?;
    Ok(root.join("fuzz/target").join(host).join("release"))
}

#[derive(Debug, PartialEq, Eq)]
struct Report {
    passed: bool,
    /// Runs and coverage.
    line: String,
    /// The end of what libFuzzer wrote.
    tail: Vec<String>,
}

/// Runs one target: finds go to `fuzz/corpus/`, inputs that fail to `fuzz/artifacts/`.
fn fuzz(root: &Path, binaries: &Path, target: &str, seconds: u64) -> Result<Report> {
    let fuzz = root.join("fuzz");
    let corpus = fuzz.join("corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    let budget =
        if seconds == 0 { "-runs=0".to_owned() } else { format!("-max_total_time={seconds}") };
    let mut child = Command::new(binaries.join(target))
        .args([&corpus, &fuzz.join("seeds").join(target)])
        .args([budget, format!("-timeout={INPUT_TIMEOUT_S}"), format!("-rss_limit_mb={MEMORY_MB}")])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start fuzz target `{target}`"))?;
    let stderr = child.stderr.take().context("the fuzz target has no standard error")?;
    let lines: Vec<String> = BufReader::new(stderr)
        .split(b'\n')
        .map(|line| Ok(String::from_utf8_lossy(&line?).into_owned()))
        .collect::<Result<_>>()?;
    let status = child.wait().context("cannot wait for the fuzz target")?;
    Ok(report(status.success(), lines))
}

/// What libFuzzer's output says. A run without coverage is a failure: it was not instrumented, and
/// would find nothing.
fn report(success: bool, mut lines: Vec<String>) -> Report {
    let figure = |line: &str, label: &str| {
        let rest = line.split_once(label)?.1.trim_start();
        rest.split([' ', '/']).next()?.parse::<u64>().ok()
    };
    let edges = lines.iter().rev().find_map(|line| figure(line, "cov: ")).unwrap_or(0);
    let runs = lines.iter().rev().find_map(|line| figure(line, "Done ")).unwrap_or(0);
    // Lines that begin with `#` tell the progress.
    lines.retain(|line| !line.starts_with('#'));
    lines.drain(..lines.len().saturating_sub(REPORT_LINES));
    if edges == 0 {
        lines.push("no coverage: the target is not instrumented, or has no seeds".to_owned());
    }
    let line = format!("{runs} runs, {edges} edges covered");
    Report { passed: success && edges > 0, line, tail: lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn targets_and_seconds_are_read_in_any_order() {
        let plan = Plan::parse(&strings(&["jws", "--seconds", "5", "note"])).unwrap();
        assert_eq!(plan, Plan { targets: strings(&["jws", "note"]), seconds: 5 });
        assert_eq!(Plan::parse(&[]).unwrap(), Plan { targets: Vec::new(), seconds: SECONDS });
        for wrong in [&["--seconds"][..], &["--seconds", "x"], &["--second", "5"]] {
            assert!(Plan::parse(&strings(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_report_needs_success_and_coverage() {
        let lines = strings(&[
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b",
            "#900\tDONE   cov: 55 ft: 80 corp: 9/90b",
            "Done 900 runs in 2 second(s)",
        ]);
        let good = report(true, lines.clone());
        assert!(good.passed);
        assert_eq!(good.line, "900 runs, 55 edges covered");
        assert!(!report(false, lines).passed);
        let blind = report(true, strings(&["Done 900 runs in 2 second(s)"]));
        assert!(!blind.passed && blind.tail[1].starts_with("no coverage"), "{blind:?}");
    }

    #[test]
    fn every_target_has_a_file_and_seeds() {
        let root = crate::repository();
        let targets = known_targets(root).unwrap();
        assert!(!targets.is_empty());
        for target in &targets {
            let seeds = root.join("fuzz/seeds").join(target);
            let count = std::fs::read_dir(&seeds).map_or(0, Iterator::count);
            assert!(count > 0, "no seeds for `{target}`");
        }
        let sources = std::fs::read_dir(root.join("fuzz/targets")).unwrap().count();
        assert_eq!(sources, targets.len(), "a file in fuzz/targets is not in fuzz/Cargo.toml");
    }
}
