//! `cargo xtask deploy`: the files under `deploy/systemd/` are what docs/deploy.md says.
//!
//! systemd itself reads the units (`systemd-analyze verify`, in a root folder of their own, where the
//! programs are said to be), scores them without running them, and the page must show these scores.
//! Then the commands of the units run, as two users that are not each other, and nobody else gets in.

mod users;

use crate::recipes::Outcome;
use crate::run::{output, works};
use crate::service::TempFolder;
use anyhow::{Context as _, Result, bail, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const UNITS: [&str; 2] = ["chancery.service", "chancery-signer.service"];
/// Where systemd's own units are, which ours name.
const SYSTEM_UNITS: &str = "/lib/systemd/system";
/// The page that shows the scores, and the version of systemd whose scores they are: every version
/// weighs differently.
const PAGE: &str = "docs/deploy.md";
const SCORED_BY: &str = "systemd 252 ";
/// What no version may exceed, in tenths.
const EXPOSURE_AT_MOST: &str = "25";

/// Checks the files, then runs what they say where that is possible.
pub fn recipe(root: &Path, _: &[String]) -> Result<Outcome> {
    if !works(Command::new("systemd-analyze").arg("--version")) {
        return Ok(Outcome::Skipped(
            "systemd-analyze is not installed; `apt-get install systemd` installs it".into(),
        ));
    }
    let folder = TempFolder::new("deploy")?;
    verify(root, folder.path())?;
    scores(root)?;
    users::try_as_two_users(root)
}

/// The path of a unit in the repository.
fn unit(root: &Path, name: &str) -> std::path::PathBuf {
    root.join("deploy/systemd").join(name)
}

/// systemd reads the units and says nothing. Unknown settings are only warnings to it.
fn verify(root: &Path, folder: &Path) -> Result<()> {
    let installed = folder.join("etc/systemd/system");
    let system = folder.join("lib/systemd/system");
    for path in [&installed, &system, &folder.join("usr/local/bin"), &folder.join("bin")] {
        std::fs::create_dir_all(path).with_context(|| format!("cannot create {path:?}"))?;
    }
    for program in ["usr/local/bin/chancery", "usr/local/bin/chancery-signer", "bin/kill"] {
        let path = folder.join(program);
        std::fs::write(&path, "").context("cannot write")?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).context("mode")?;
    }
    for entry in std::fs::read_dir(SYSTEM_UNITS).context("systemd's own units")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "target") && path.is_file() {
            std::fs::copy(&path, system.join(path.file_name().unwrap_or_default()))?;
        }
    }
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg("--root").arg(folder);
    for name in UNITS {
        std::fs::copy(unit(root, name), installed.join(name)).context(name)?;
        command.arg(Path::new("/etc/systemd/system").join(name));
    }
    let said = command.output().context("cannot start systemd-analyze")?;
    let text = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success() && text.trim().is_empty(), "systemd-analyze verify:\n{text}");
    println!("deploy: systemd reads both units without a word");
    Ok(())
}

/// The scores, below the bound, and those that the page shows.
fn scores(root: &Path) -> Result<()> {
    let version = output(Command::new("systemd-analyze").arg("--version"))?;
    let page = std::fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    for name in UNITS {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--no-pager", "--offline=true", "--threshold", EXPOSURE_AT_MOST]);
        let said = output(command.arg(unit(root, name)))?;
        let line = said.lines().last().unwrap_or_default();
        let Some(score) = score(line, name) else { bail!("no score of {name} in: {line}") };
        println!("deploy: {name}: exposure {score} of 10");
        let shown = format!("Overall exposure level for {name}: {score} ");
        ensure!(
            !version.starts_with(SCORED_BY) || page.contains(&shown),
            "{PAGE} shows another score than `{shown}`"
        );
    }
    Ok(())
}

/// The number in `→ Overall exposure level for NAME: 0.6 SAFE`.
fn score<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once("Overall exposure level for ")?;
    let (score, _) = rest.strip_prefix(name)?.strip_prefix(": ")?.split_once(' ')?;
    score.parse::<f64>().is_ok().then_some(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_number_of_its_own_unit() {
        let line = "→ Overall exposure level for chancery.service: 1.6 OK 🙂";
        assert_eq!(score(line, "chancery.service"), Some("1.6"));
        assert_eq!(score(line, "chancery-signer.service"), None);
        assert_eq!(score("Overall exposure level for a: high x", "a"), None);
    }
}
