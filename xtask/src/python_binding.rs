//! `cargo xtask wheel` and the second half of `cargo xtask python`: the package `chancery` for Python.
//!
//! Everything runs in one environment below `target/`, with pinned packages. The tests run on the
//! wheel, installed as any program would install it.

use crate::interop::skipped;
use crate::recipes::{Outcome, no_arguments};
use crate::run::{cargo, run, works};
use crate::service::{Binaries, Service, TempFolder};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const CRATE: &str = "chancery-python";
const SOURCES: &str = "validate/python";
/// What the tests, the benchmark and the build need; it includes the packages of `interop/python`.
const REQUIREMENTS: &str = "validate/python/requirements.txt";
/// The oldest Python that the pinned packages run on.
const PYTHON: &str = "import sys; sys.exit(sys.version_info < (3, 11))";

/// Builds the wheel into `target/wheels`.
pub fn wheel(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    match environment(root).and_then(|python| install(&python, root, REQUIREMENTS)) {
        Err(reason) => skipped(&reason),
        Ok(python) => {
            println!("{}", build(root, &python)?.display());
            Ok(Outcome::Passed)
        }
    }
}

/// Lints, builds, installs and tests the package.
pub fn test(root: &Path) -> Result<Outcome> {
    let python = match environment(root).and_then(|python| install(&python, root, REQUIREMENTS)) {
        Err(reason) => return skipped(&reason),
        Ok(python) => python,
    };
    run(&mut cargo(root, &["clippy", "-p", CRATE, "--all-targets", "--", "-D", "warnings"]))?;
    let wheel = build(root, &python)?;
    let mut pip = module(&python, root, "pip");
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]);
    run(pip.arg("--force-reinstall").arg(&wheel))?;
    // The types of the package's own Python, then its stubs against what the wheel really holds.
    run(&mut module(&python, root, "mypy"))?;
    run(module(&python, root, "mypy.stubtest").arg("chancery._native"))?;

    let binaries = Binaries::build(root)?;
    let folder = TempFolder::new("python-binding")?;
    let service = Service::development(&binaries, folder.path())?;
    let mut pytest = module(&python, root, "pytest");
    pytest.args(["--quiet", "-p", "no:cacheprovider"]);
    pytest.env("CHANCERY", &binaries.chancery).env("CHANCERY_DATA", service.data());
    pytest.env("CHANCERY_URL", service.url());
    run(&mut pytest).with_context(|| format!("the service's log ends:\n{}", service.log_tail()))?;
    Ok(Outcome::Passed)
}

/// The interpreter of the recipes' environment, or why there is none.
pub fn environment(root: &Path) -> Result<PathBuf, String> {
    if !works(Command::new("python3").args(["-c", PYTHON])) {
        return Err("python3 (3.11 or later) is not installed".to_owned());
    }
    let folder = root.join("target/ci/venv");
    let python = folder.join("bin/python");
    if !works(Command::new(&python).args(["-m", "pip", "--version"]))
        && !works(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
    {
        return Err("python3 cannot make an environment; install its venv module".to_owned());
    }
    Ok(python)
}

/// Installs what a file of requirements names; says if that cannot be had.
pub fn install(python: &Path, root: &Path, requirements: &str) -> Result<PathBuf, String> {
    let mut pip = module(python, root, "pip");
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(pip.arg(root.join(requirements)))
        .map_err(|_| format!("the packages of {requirements} cannot be installed"))?;
    Ok(python.to_owned())
}

/// Builds the wheel with the release profile, for the stable ABI and this kind of machine.
fn build(root: &Path, python: &Path) -> Result<PathBuf> {
    let folder = root.join("target/wheels");
    for old in wheels(&folder) {
        std::fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    let mut maturin = module(python, root, "maturin");
    maturin.args(["build", "--release", "--locked", "--quiet", "--out"]).arg(&folder);
    run(&mut maturin)?;
    match wheels(&folder).as_slice() {
        [wheel] => Ok(wheel.clone()),
        other => bail!("maturin left {} wheels in {}", other.len(), folder.display()),
    }
}

fn wheels(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.map(|file| file.path()).filter(|path| path.extension() == Some("whl".as_ref())).collect()
}

/// A module run by the environment's interpreter, in the package's folder; it writes nothing there.
fn module(python: &Path, root: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", name]).current_dir(root.join(SOURCES));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("MYPY_CACHE_DIR", root.join("target/ci/mypy"));
    command.env("HYPOTHESIS_STORAGE_DIRECTORY", root.join("target/ci/hypothesis"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> String {
        std::fs::read_to_string(crate::repository().join(path)).unwrap()
    }

    #[test]
    fn every_package_is_pinned() {
        let text = read(REQUIREMENTS);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let (pins, others): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains("=="));
        assert_eq!(others, ["--requirement ../../interop/python/requirements.txt"]);
        assert!(pins.iter().any(|pin| pin.starts_with("maturin==")), "{pins:?}");
    }

    #[test]
    fn the_package_takes_its_version_from_the_crate_and_may_be_used_under_its_license() {
        let project = read("validate/python/pyproject.toml");
        assert!(project.contains("dynamic = [\"version\"]"));
        assert!(project.contains("license = \"Apache-2.0\""));
        assert_eq!(read("validate/python/LICENSE"), read("LICENSE"));
    }

    #[test]
    fn wheels_are_told_from_other_files() {
        let folder = TempFolder::new("wheels-test").unwrap();
        for name in ["a.whl", "b.whl.part", "whl", "c.tar.gz"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(wheels(folder.path()), [folder.path().join("a.whl")]);
        assert!(wheels(&folder.path().join("none")).is_empty());
    }
}
