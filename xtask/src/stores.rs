//! `cargo xtask stores`: the service's tests on emulators of the cloud's stores.
//!
//! moto's S3 and Azurite keep the conditions of writes that the logs rely on; the service tries that
//! at every start and refuses a store that does not. Both are installed with pinned packages below
//! `target/ci`, listen on loopback only, and end with the recipe.

use crate::interop::{copy_files, skipped};
use crate::recipes::Outcome;
use crate::run::{cargo, run, works};
use crate::service::TempFolder;
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOURCES: &str = "interop/stores";
/// Credentials that moto takes, as any.
const AWS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")];
const AZURE_ACCOUNT: &str = "devstoreaccount1";
/// The one key of every Azurite, printed in its documentation.
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// From start to the first connection: both are interpreted, and may be read from a cold disk.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Runs `cargo test -p chancery --test stores`; further arguments go to the tests.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let moto = match install_moto(root) {
        Err(reason) => return skipped(&reason),
        Ok(moto) => moto,
    };
    let azurite = match install_azurite(root) {
        Err(reason) => return skipped(&reason),
        Ok(azurite) => azurite,
    };
    // The signer is another package's binary: the test would otherwise use an old one.
    run(&mut cargo(root, &["build", "--bin", "chancery-signer"]))?;
    let folder = TempFolder::new("stores")?;
    let s3 = Emulator::start("moto", folder.path(), |port| {
        let mut command = Command::new(moto.join("bin/python"));
        command.args(["-m", "moto.server", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command
    })?;
    let azure = Emulator::start("azurite", folder.path(), |port| {
        let mut command = Command::new(azurite.join("node_modules/.bin/azurite-blob"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location"]);
        command.arg(folder.path().join("azurite"));
        command
    })?;
    let (s3_url, azure_url) = (s3.url(), format!("{}/{AZURE_ACCOUNT}", azure.url()));
    let mut prepare = Command::new(moto.join("bin/python"));
    prepare.arg(root.join(SOURCES).join("prepare.py")).args([&s3_url, &azure_url]);
    run(credentials(&mut prepare)).with_context(|| format!("{s3}{azure}"))?;

    let mut test = cargo(root, &["test", "-p", "chancery", "--test", "stores", "--"]);
    // What the tests measure is part of what they print; one at a time, so that it means something.
    test.args(["--nocapture", "--test-threads", "1"]).args(arguments);
    test.env("CHANCERY_TEST_S3", &s3_url).env("CHANCERY_TEST_AZURE", &azure_url);
    run(credentials(&mut test)).with_context(|| format!("{s3}{azure}"))?;
    Ok(Outcome::Passed)
}

fn credentials(command: &mut Command) -> &mut Command {
    command.env("PYTHONDONTWRITEBYTECODE", "1").envs(AWS);
    command.env("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT);
    command.env("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)
}

/// An environment of its own: moto brings much along, in versions that it chooses.
fn install_moto(root: &Path) -> Result<PathBuf, String> {
    let folder = root.join("target/ci/moto");
    let python = folder.join("bin/python");
    if !works(Command::new(&python).args(["-m", "pip", "--version"]))
        && !works(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
    {
        return Err("python3 (3.10 or later) with its venv module is not installed".to_owned());
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    pip.arg(root.join(SOURCES).join("requirements.txt"));
    run(&mut pip).map_err(|_| format!("the packages of {SOURCES} cannot be installed"))?;
    Ok(folder)
}

fn install_azurite(root: &Path) -> Result<PathBuf, String> {
    if !works(Command::new("npm").arg("--version")) {
        return Err("npm is not installed".to_owned());
    }
    let folder = root.join("target/ci/azurite");
    let lock = |folder: &Path| std::fs::read(folder.join("package-lock.json")).ok();
    let installed = folder.join("node_modules/.package-lock.json").is_file();
    if installed && lock(&folder) == lock(&root.join(SOURCES)) {
        // Hundreds of packages, a minute's work.
        return Ok(folder);
    }
    copy_files(&root.join(SOURCES), &folder).map_err(|e| format!("{e:#}"))?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts"]);
    run(npm.current_dir(&folder))
        .map_err(|_| format!("the packages of {SOURCES}/package-lock.json cannot be installed"))?;
    Ok(folder)
}

/// A running emulator; it ends when this is dropped.
#[derive(Debug)]
struct Emulator {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Emulator {
    fn start(
        name: &'static str,
        folder: &Path,
        command: impl FnOnce(u16) -> Command,
    ) -> Result<Self> {
        // Free a moment ago; nobody else here takes ports of this range in that time.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("cannot listen on 127.0.0.1")?;
        let log = folder.join(name).with_extension("log");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = command(address.port());
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut emulator = Self { name, address, child, log };
        let deadline = Instant::now() + LISTENS_WITHIN;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = emulator.child.try_wait()? {
                bail!("{name} ended with {status}:\n{emulator}");
            }
            if Instant::now() > deadline {
                bail!("{name} does not listen after {LISTENS_WITHIN:?}:\n{emulator}");
            }
            std::thread::sleep(POLL);
        }
        Ok(emulator)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl std::fmt::Display for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.lines().count().saturating_sub(5);
        writeln!(f, "{} said at last:", self.name)?;
        log.lines().skip(from).try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> String {
        std::fs::read_to_string(crate::repository().join(SOURCES).join(name)).unwrap()
    }

    #[test]
    fn every_package_is_pinned_and_no_registry_is_named() {
        let requirements = read("requirements.txt");
        let mut lines = requirements.lines().filter(|line| !line.starts_with('#'));
        assert!(lines.clone().any(|line| line.starts_with("moto==")));
        assert!(lines.all(|line| line.contains("==")));
        let lock: serde_json::Value = serde_json::from_str(&read("package-lock.json")).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.contains_key("node_modules/azurite"));
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string(), "{name}");
            assert!(package.get("resolved").is_none(), "{name}");
        }
    }

    #[test]
    fn an_emulator_that_ends_says_why_and_one_that_listens_is_ended() {
        let folder = TempFolder::new("emulator-test").unwrap();
        let failed = Emulator::start("none", folder.path(), |_| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo no such thing; exit 3"]);
            command
        });
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such thing"), "{error}");
    }
}
