//! A witness beside the measured service, on loopback and on the same disk: what
//! `release = "witnessed"` costs where the network costs nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Serialize;

/// The witness's name in cosignatures.
pub const NAME: &str = "bench.example/witness";
/// Its name in the service's configuration, and the quorum.
pub const QUORUM: &str = "w";

/// `[[witness]]` of the service.
#[derive(Debug, Serialize)]
pub struct Entry {
    name: &'static str,
    vkey: String,
    url: String,
}

/// The witness's configuration: it is asked for every batch.
#[derive(Serialize)]
struct ConfigFile {
    name: &'static str,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    data: PathBuf,
    requests_per_s: u32,
    log: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    vkeys: Vec<String>,
}

/// A witness, before and after it is started.
pub struct Witness {
    data: PathBuf,
    listen: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Witness {
    /// Makes a witness's keys below `folder`; answers what the service's configuration says of it.
    pub fn prepare(
        folder: &Path,
        listen: SocketAddr,
        admin: SocketAddr,
    ) -> anyhow::Result<(Self, Entry)> {
        let data = folder.join("witness");
        let witness = Self { data, listen, admin, child: None };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["witness", "--name", NAME, "--keys", "--data"]).arg(&witness.data);
        let output = command.env_clear().output()?;
        let keys = String::from_utf8(output.stdout)?;
        let vkey = keys.lines().next().ok_or_else(|| anyhow::anyhow!("the witness has no key"))?;
        let url = format!("http://{listen}");
        Ok((witness, Entry { name: QUORUM, vkey: vkey.to_owned(), url }))
    }

    /// Starts it for the directory with this verifier key.
    pub fn start(&mut self, directory: &str) -> anyhow::Result<()> {
        let file = ConfigFile {
            name: NAME,
            listen: self.listen,
            admin_listen: self.admin,
            data: self.data.clone(),
            requests_per_s: 100_000,
            log: vec![Log { vkeys: vec![directory.to_owned()] }],
        };
        let config = self.data.join("witness.toml");
        std::fs::write(&config, toml::to_string(&file)?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["witness", "--config"]).arg(config).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn()?);
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
