//! `cargo xtask bindings`: the validation in Rust, Python and Node against one service.
//!
//! The quick starts of docs/relying-parties.md, then two minutes in which keys change every two
//! seconds while all three validate without a pause, then a compromise.

use crate::recipes::Outcome;
use crate::run::{cargo, output, run, works};
use crate::service::{Binaries, Service, TempFolder};
use crate::{node_binding, python_binding};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds of rotation, unless told.
const SECONDS: &str = "120";
const AUDIENCE: &str = "https://api.example";

/// `cargo xtask bindings [SECONDS]`
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let seconds = match arguments {
        [] => SECONDS,
        [seconds] if seconds.parse::<u32>().is_ok() => seconds,
        _ => bail!("usage: cargo xtask bindings [SECONDS]"),
    };
    let python = match python(root)? {
        Ok(python) => python,
        Err(reason) => return Ok(Outcome::Skipped(reason)),
    };
    let node = match node(root)? {
        Ok(folder) => folder,
        Err(reason) => return Ok(Outcome::Skipped(reason)),
    };
    quick_starts(root, &python, &node)?;

    let command = |words: &[&Path]| -> OsString {
        let words: Vec<_> = words.iter().map(|word| word.as_os_str()).collect();
        words.join(std::ffi::OsStr::new("\n"))
    };
    let rotate = root.join("validate/python/rotate.py");
    let watch = node.join("watch.js");
    let mut test = cargo(root, &["test", "-p", "chancery", "--test", "faults"]);
    test.args(["bindings", "--", "--nocapture"])
        .env("CHANCERY_WATCH_SECONDS", seconds)
        .env("CHANCERY_WATCH_PYTHON", command(&[&python, &rotate]))
        .env("CHANCERY_WATCH_NODE", command(&[Path::new("node"), &watch]));
    run(&mut test)?;
    Ok(Outcome::Passed)
}

/// The interpreter that has the package, or why there is none. Testing the package installs it.
fn python(root: &Path) -> Result<Result<PathBuf, String>> {
    let python = root.join("target/ci/venv/bin/python");
    if !works(Command::new(&python).args(["-c", "import chancery"]))
        && let Outcome::Skipped(reason) = python_binding::test(root)?
    {
        return Ok(Err(reason));
    }
    Ok(Ok(python))
}

/// The folder in which the package is installed, or why there is none.
fn node(root: &Path) -> Result<Result<PathBuf, String>> {
    let folder = root.join("target/ci/node-binding");
    let mut import = Command::new("node");
    import.args(["--input-type=module", "-e", "import 'chancery'"]);
    if (!folder.exists() || !works(import.current_dir(&folder)))
        && let Outcome::Skipped(reason) = node_binding::test(root)?
    {
        return Ok(Err(reason));
    }
    Ok(Ok(folder))
}

/// Each quick start accepts a good token, and rejects one for another audience.
fn quick_starts(root: &Path, python: &Path, node: &Path) -> Result<()> {
    let binaries = Binaries::build(root)?;
    let folder = TempFolder::new("bindings")?;
    let service = Service::development(&binaries, folder.path())?;
    let issuer = format!("{}/consumers", service.url());
    let mut ask = Command::new(&binaries.chancery);
    ask.args(["token", "--realm", "consumers", "--audience", AUDIENCE]);
    let token = output(ask.arg("--data").arg(service.data()))?;
    let words = |command: Command, audience: &str| {
        let mut command = command;
        command.args([&issuer, audience, token.trim()]);
        command
    };
    let rust = || {
        let example = ["run", "-q", "-p", "chancery-relying-party", "--example", "quickstart"];
        let mut command = cargo(root, &example);
        command.arg("--");
        command
    };
    let with_python = || {
        let mut command = Command::new(python);
        command.arg(root.join("validate/python/examples/quickstart.py"));
        command
    };
    let with_node = || {
        let mut command = Command::new("node");
        command.arg(node.join("quickstart.js"));
        command
    };
    let all: [(&str, &dyn Fn() -> Command); 3] =
        [("Rust", &rust), ("Python", &with_python), ("Node", &with_node)];
    for (name, start) in all {
        let said = output(&mut words(start(), AUDIENCE))?;
        println!("{name}: {}", said.lines().next().unwrap_or_default());
        if !said.starts_with("valid") {
            bail!("the quick start in {name} says `{}`", said.trim());
        }
        let other = words(start(), "https://orders.example").output();
        let other = other.with_context(|| format!("the quick start in {name}"))?;
        let said = String::from_utf8_lossy(&other.stderr);
        if other.status.success() || !said.contains("wrong_audience") {
            bail!("the quick start in {name} takes a token for another audience: {said}");
        }
    }
    Ok(())
}
