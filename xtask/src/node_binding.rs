//! `cargo xtask npm` and the second half of `cargo xtask node`: the package `chancery` for Node.
//!
//! The addon is an ordinary cdylib of this workspace, so cargo builds it and npm packs it; no other
//! tool is needed. Its tests run on the packed package, installed as any program would install it.

use crate::interop::{copy_files, skipped};
use crate::recipes::{Outcome, flag};
use crate::run::{cargo, output, run, works};
use crate::service::{Binaries, Service, TempFolder};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const CRATE: &str = "chancery-node";
const SOURCES: &str = "validate/node";
/// The oldest Node that the package says it runs on.
const NODE: &str = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
/// Folders of [`SOURCES`] whose scripts run beside the installed package. `.` has the benchmark, and
/// a package.json that is replaced by that of `test`, which comes last.
const SCRIPTS: [&str; 3] = [".", "examples", "test"];
const NOT_INSTALLED: &str =
    "the packages of validate/node/test/package-lock.json cannot be installed";

/// Builds the addon and packs the package, for this kind of machine. With `--bench` also installs
/// it beside its peers and measures them.
pub fn npm(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let bench = flag(arguments, "--bench")?;
    if let Some(missing) = missing() {
        return skipped(missing);
    }
    let tarball = pack(root)?;
    println!("{}", tarball.display());
    if bench {
        let Some(folder) = install(root, &tarball)? else { return skipped(NOT_INSTALLED) };
        run(Command::new("node").arg("bench.js").current_dir(folder))?;
    }
    Ok(Outcome::Passed)
}

/// Builds, lints, packs, installs and tests the package.
pub fn test(root: &Path) -> Result<Outcome> {
    if let Some(missing) = missing() {
        return skipped(missing);
    }
    let lint = ["clippy", "-p", CRATE, "--no-deps", "--all-targets", "--", "-D", "warnings"];
    run(&mut cargo(root, &lint))?;
    let tarball = pack(root)?;
    let Some(folder) = install(root, &tarball)? else { return skipped(NOT_INSTALLED) };
    run(Command::new(folder.join("node_modules/.bin/tsc")).args(["-p", "."]).current_dir(&folder))?;
    let mut tests = Command::new("node");
    tests.env("CHANCERY_VECTORS", root.join("validate/vectors"));
    run(tests.arg("--test").current_dir(&folder))?;
    examples(root, &folder)?;
    Ok(Outcome::Passed)
}

/// What is not there.
fn missing() -> Option<&'static str> {
    if !works(Command::new("node").args(["-e", NODE])) {
        return Some("node (20 or later) is not installed");
    }
    (!works(Command::new("npm").arg("--version"))).then_some("npm is not installed")
}

/// Builds and packs; answers the tarball.
fn pack(root: &Path) -> Result<PathBuf> {
    run(&mut cargo(root, &["build", "--release", "-p", CRATE]))?;
    let sources = root.join(SOURCES);
    // Nothing is built among sources.
    let packed = root.join("target/npm");
    let folder = packed.join("chancery");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    copy_files(&sources.join("lib"), &folder.join("lib"))?;
    for (from, name) in
        [(&sources, "package.json"), (&sources, "README.md"), (&root.into(), "LICENSE")]
    {
        copy(&from.join(name), &folder.join(name))?;
    }
    // The package knows by which name it looks for its addon.
    let name = output(Command::new("node").arg(sources.join("lib/addon.cjs")))?;
    copy(&library(root)?, &folder.join("lib").join(name.trim()))?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--json", "--loglevel=error", "--pack-destination"]).arg(&packed);
    let told: Value = serde_json::from_str(&output(pack.current_dir(&folder))?)?;
    let file = told.pointer("/0/filename").and_then(Value::as_str);
    Ok(packed.join(file.context("npm pack names no file")?))
}

/// Installs the package beside what its tests need; answers the folder, or nothing if these packages
/// cannot be had.
fn install(root: &Path, tarball: &Path) -> Result<Option<PathBuf>> {
    let folder = root.join("target/ci/node-binding");
    for scripts in SCRIPTS {
        copy_files(&root.join(SOURCES).join(scripts), &folder)?;
    }
    let npm = |arguments: &[&str]| {
        let mut npm = Command::new("npm");
        npm.args(arguments).args(["--no-audit", "--no-fund", "--loglevel=error"]);
        npm.current_dir(&folder);
        npm
    };
    if run(&mut npm(&["ci"])).is_err() {
        return Ok(None);
    }
    run(npm(&["install", "--no-save", "--prefer-offline"]).arg(tarball))?;
    Ok(Some(folder))
}

/// The shared library that cargo built.
fn library(root: &Path) -> Result<PathBuf> {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let metadata = output(&mut cargo(root, &["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let target = metadata.get("target_directory").and_then(Value::as_str);
    let folder = Path::new(target.context("cargo metadata names no target folder")?);
    let name = CRATE.replace('-', "_");
    Ok(folder.join("release").join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")))
}

/// The programs of the documentation, against a running service.
fn examples(root: &Path, folder: &Path) -> Result<()> {
    let binaries = Binaries::build(root)?;
    let data = TempFolder::new("node-binding")?;
    let service = Service::development(&binaries, data.path())?;
    let mut check = Command::new("node");
    check.arg("examples.js").arg(service.url()).arg(service.data()).arg(&binaries.chancery);
    run(check.current_dir(folder))
        .with_context(|| format!("the service's log ends:\n{}", service.log_tail()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(path: &str) -> Value {
        let path = crate::repository().join(SOURCES).join(path);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn the_package_has_the_version_of_the_workspace_and_no_dependencies() {
        let package = json("package.json");
        assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(package["license"], "Apache-2.0");
        for kind in ["dependencies", "devDependencies", "scripts"] {
            assert!(package.get(kind).is_none(), "{kind}");
        }
    }

    #[test]
    fn the_lock_file_of_the_tests_names_no_registry_and_pins_everything() {
        let lock = json("test/package-lock.json");
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.len() > 1);
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string(), "{name}");
            assert!(package.get("resolved").is_none(), "{name}");
        }
        let wanted = json("test/package.json");
        assert_eq!(wanted["dependencies"], packages[""]["dependencies"]);
    }
}
