//! A witness as a process, for deployments that are witnessed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Port, Web, wait_until};

/// A start takes well under a second; a machine that compiles something beside gets patience.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// `chancery witness` with a folder of its own, which goes with it.
#[derive(Debug)]
pub struct WitnessProcess {
    chancery: PathBuf,
    folder: PathBuf,
    name: String,
    port: Port,
    admin: Port,
    process: Option<Child>,
    web: Web,
}

impl WitnessProcess {
    /// A witness that is not started yet.
    ///
    /// # Panics
    /// When its folder cannot be made.
    #[must_use]
    pub fn new(chancery: &str, name: &str) -> Self {
        let port = Port::reserve();
        let folder = format!("chancery-w-{}-{}", std::process::id(), port.number());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).expect("witness folder");
        Self {
            chancery: chancery.into(),
            folder,
            name: name.to_owned(),
            port,
            admin: Port::reserve(),
            process: None,
            web: Web::new(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.chancery);
        command.args(["witness", "--name", &self.name, "--data"]).arg(self.folder.join("data"));
        command.stdin(Stdio::null()).current_dir("/");
        command
    }

    /// Its verifier keys: Ed25519, then ML-DSA-44.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn vkeys(&self) -> Vec<String> {
        let output = self.command().arg("--keys").output().expect("chancery witness --keys");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Its submission prefix.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Starts it for the logs with these verifier keys, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(&mut self, logs: &[String]) {
        assert!(self.process.is_none(), "the witness runs already");
        let errors = File::options().create(true).append(true).open(self.folder.join("log"));
        let mut command = self.command();
        command.args(["--listen", &self.port.address(), "--admin", &self.admin.address()]);
        for log in logs {
            command.args(["--log", log]);
        }
        let child = command.stdout(Stdio::null()).stderr(errors.expect("log")).spawn();
        self.process = Some(child.expect("chancery witness"));
        let url = format!("http://{}/healthz", self.admin.address());
        wait_until("the witness", READY_WITHIN, || {
            self.web.try_send("GET", &url, &[], b"").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// `kill -9`, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for WitnessProcess {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
