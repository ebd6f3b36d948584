//! `cargo xtask python` and `cargo xtask node`: ordinary JWT libraries against a running service.
//!
//! The scripts in `interop/` are the ones that docs/clients.md and docs/relying-parties.md show.

use crate::recipes::{Outcome, no_arguments};
use crate::run::{output, run, works};
use crate::service::{Binaries, Service, TempFolder, free_addresses};
use crate::{node_binding, python_binding};
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Keys of this schedule sign for 2 s, after 4 s in the key set; a token lives for 20 s.
const SCHEDULE: &str = "rotate_every_s = 2\npublish_lead_s = 4\nmax_lifetime_s = 20\nskew_s = 5";
/// Seconds of watching rotations: seven of them.
const WATCH_SECONDS: &str = "15";
const CLIENT: &str = "rotation";
const AUDIENCE: &str = "https://api.example";
const PYTHON_PACKAGES: &str = "interop/python/requirements.txt";
/// The oldest Node that the pinned libraries run on.
const NODE: &str = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";

/// PyJWT and jwcrypto, then our own package.
pub fn python(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    let interpreter = match python_binding::environment(root)
        .and_then(|python| python_binding::install(&python, root, PYTHON_PACKAGES))
    {
        Err(reason) => return skipped(&reason),
        Ok(interpreter) => interpreter,
    };
    let folder = root.join("interop/python");
    try_scripts(root, &Toolkit { interpreter, folder, suffix: "py" })?;
    python_binding::test(root)
}

/// npm's jose, then our own package.
pub fn node(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    if !works(Command::new("node").args(["-e", NODE])) {
        return skipped("node (20 or later) is not installed");
    }
    if !works(Command::new("npm").arg("--version")) {
        return skipped("npm is not installed");
    }
    // Node finds packages beside the scripts only, and nothing is installed among sources.
    let folder = root.join("target/ci/node");
    copy_files(&root.join("interop/node"), &folder)?;
    let mut install = Command::new("npm");
    install.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
    if run(&mut install).is_err() {
        return skipped("the packages of interop/node/package-lock.json cannot be installed");
    }
    try_scripts(root, &Toolkit { interpreter: "node".into(), folder, suffix: "js" })?;
    node_binding::test(root)
}

/// What a recipe answers that could not run.
pub fn skipped(reason: &str) -> Result<Outcome> {
    Ok(Outcome::Skipped(reason.to_owned()))
}

/// An interpreter with its libraries, and the folder of its scripts.
struct Toolkit {
    interpreter: PathBuf,
    folder: PathBuf,
    suffix: &'static str,
}

impl Toolkit {
    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        // Nothing is written among sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(self.folder.join(name).with_extension(self.suffix));
        command
    }
}

fn try_scripts(root: &Path, toolkit: &Toolkit) -> Result<Outcome> {
    let binaries = Binaries::build(root)?;
    validation(&binaries, toolkit)?;
    rotation(&binaries, toolkit)?;
    Ok(Outcome::Passed)
}

/// Every realm and algorithm of development mode.
fn validation(binaries: &Binaries, toolkit: &Toolkit) -> Result<()> {
    let folder = TempFolder::new("interop")?;
    let service = Service::development(binaries, folder.path())?;
    let mut check = toolkit.script("check");
    check.arg(service.url()).arg(service.data()).arg(&binaries.chancery);
    run(&mut check).with_context(|| format!("the service's log ends:\n{}", service.log_tail()))
}

/// A realm with short windows, and a client that the toolkit registers.
fn rotation(binaries: &Binaries, toolkit: &Toolkit) -> Result<()> {
    let folder = TempFolder::new("rotation")?;
    let key = folder.path().join("client.pem");
    let entry = output(toolkit.script("register").arg(&key).args([CLIENT, AUDIENCE]))?;
    let addresses = free_addresses()?;
    let config = folder.path().join("chancery.toml");
    std::fs::write(&config, configuration(addresses.0, &entry))
        .with_context(|| format!("cannot write {}", config.display()))?;
    run(Command::new(&binaries.chancery).args(["config", "check"]).arg(&config))?;
    let service = Service::configured(binaries, folder.path(), addresses, &config)?;
    let mut watch = toolkit.script("rotation");
    watch.arg(format!("{}/consumers", service.url())).arg(CLIENT).arg(&key);
    run(watch.args([AUDIENCE, WATCH_SECONDS]))
        .with_context(|| format!("the service's log ends:\n{}", service.log_tail()))
}

fn configuration(listen: SocketAddr, client: &str) -> String {
    format!(
        "base_url = \"http://{listen}\"\nwal_segment_mib = 1\n\n\
         [[realms]]\nname = \"consumers\"\nissuer = \"http://{listen}/consumers\"\n\
         algorithms = [\"ES256\"]\n\n[realms.schedule]\n{SCHEDULE}\n{client}"
    )
}

/// Copies the files of a folder, not its folders.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_no_registry_and_pins_everything() {
        let lock = crate::repository().join("interop/node/package-lock.json");
        let text = std::fs::read_to_string(lock).unwrap();
        let lock: serde_json::Value = serde_json::from_str(&text).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.len() > 1);
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string(), "{name}");
            assert!(package.get("resolved").is_none(), "{name}");
        }
        let requirements = crate::repository().join("interop/python/requirements.txt");
        let text = std::fs::read_to_string(requirements).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("=="), "{line}");
        }
    }

    #[test]
    fn files_are_copied_and_folders_are_not() {
        let folder = TempFolder::new("copy-test").unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("a/b"));
        std::fs::create_dir_all(from.join("folder")).unwrap();
        std::fs::write(from.join("file"), "x").unwrap();
        copy_files(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("file")).unwrap(), "x");
        assert!(!to.join("folder").exists());
        let error = copy_files(&folder.path().join("none"), &to).unwrap_err().to_string();
        assert!(error.starts_with("cannot copy "), "{error}");
    }
}
