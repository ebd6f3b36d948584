//! The configuration of a witness: one TOML file. `docs/witness.md` is its reference; a test parses
//! every sample there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chancery_tlog::note::VerifierKey;
use serde::Deserialize;

use super::WitnessError;
use crate::config::Logging;
use crate::listen::{Network, TlsOptions};

/// The most logs: each costs a note in memory, at most 128 KiB, and a file.
pub const MAX_LOGS: usize = 1_024;

/// The most keys of one log: old and new ones of each type, while it changes them.
pub const MAX_KEYS: usize = 8;

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Name of the witness in its cosignatures: a URL without scheme, under the operator's control.
    pub name: String,
    /// Address of the listener that logs and monitors use.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Address of health and metrics.
    #[serde(default = "default_admin")]
    pub admin_listen: SocketAddr,
    /// Folder of the records.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// Folder of the private keys; without it, `keys` in the data folder.
    #[serde(default)]
    pub keys: Option<PathBuf>,
    /// Folder of a second copy of the records, best on another disk: at a start it shows that the
    /// data folder was rolled back.
    #[serde(default)]
    pub second_copy: Option<PathBuf>,
    /// Whether an ML-DSA-44 key cosigns beside the Ed25519 key.
    #[serde(default = "yes")]
    pub ml_dsa_44: bool,
    /// How many requests a second one source address may send (a /64 for IPv6).
    #[serde(default = "default_rate")]
    pub requests_per_s: u32,
    /// Proxies whose `Forwarded` and `X-Forwarded-For` headers count.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// TLS for the listener.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// How the log of the process itself looks.
    #[serde(default)]
    pub logging: Logging,
    /// The logs that are witnessed.
    #[serde(default, rename = "log")]
    pub logs: Vec<WatchedDocument>,
}

/// A log that is witnessed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchedDocument {
    /// The origin of its checkpoints; without it, the name of its keys.
    #[serde(default)]
    pub origin: Option<String>,
    /// Its verifier keys (C2SP signed-note); one signature by any of them is enough.
    pub vkeys: Vec<String>,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8440))
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8441))
}

fn default_data() -> PathBuf {
    PathBuf::from("witness-data")
}

fn default_rate() -> u32 {
    20
}

fn yes() -> bool {
    true
}

impl WitnessConfig {
    /// A witness of this name for these logs, with the defaults for everything else.
    #[must_use]
    pub fn new(name: &str, vkeys: &[String]) -> Self {
        let mut logs: Vec<WatchedDocument> = Vec::new();
        for vkey in vkeys {
            let origin = vkey.split('+').next().map(str::to_owned);
            match logs.iter_mut().find(|log| log.origin == origin) {
                Some(log) => log.vkeys.push(vkey.clone()),
                None => logs.push(WatchedDocument { origin, vkeys: vec![vkey.clone()] }),
            }
        }
        Self {
            name: name.to_owned(),
            listen: default_listen(),
            admin_listen: default_admin(),
            data: default_data(),
            keys: None,
            second_copy: None,
            ml_dsa_44: true,
            requests_per_s: default_rate(),
            trusted_proxies: Vec::new(),
            tls: None,
            logging: Logging::default(),
            logs,
        }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`WitnessError::File`] and [`WitnessError::Config`].
    pub fn load(path: &Path) -> Result<Self, WitnessError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| WitnessError::File { path: path.to_owned(), why: e.to_string() })?;
        Self::parse(&text)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// [`WitnessError::Config`].
    pub fn parse(text: &str) -> Result<Self, WitnessError> {
        let config: Self = toml::from_str(text).map_err(|e| WitnessError::Config(e.to_string()))?;
        config.logs()?;
        if config.requests_per_s == 0 {
            return Err(WitnessError::Config("requests_per_s must be at least 1".into()));
        }
        Ok(config)
    }

    /// Folder of the private keys.
    #[must_use]
    pub fn key_folder(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| self.data.join("keys"))
    }

    /// The logs, each with its origin and keys.
    ///
    /// # Errors
    /// [`WitnessError::Config`].
    pub fn logs(&self) -> Result<Vec<(String, Vec<VerifierKey>)>, WitnessError> {
        if self.logs.len() > MAX_LOGS {
            return Err(WitnessError::Config(format!("at most {MAX_LOGS} logs are witnessed")));
        }
        let mut logs: HashMap<String, Vec<VerifierKey>> = HashMap::new();
        for document in &self.logs {
            let (origin, keys) = document.read(&self.name).map_err(WitnessError::Config)?;
            if logs.insert(origin.clone(), keys).is_some() {
                let why =
                    format!("log `{origin}` is listed twice; list all its vkeys in one place");
                return Err(WitnessError::Config(why));
            }
        }
        Ok(logs.into_iter().collect())
    }

    /// What is allowed and yet worth a warning.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.logs.is_empty() {
            warnings.push("no [[log]] is configured: every request is answered with 404".into());
        }
        if !self.admin_listen.ip().is_loopback() {
            warnings.push(format!("admin_listen `{}` is not loopback", self.admin_listen));
        }
        if self.second_copy.is_none() {
            warnings.push(
                "no second_copy is configured: if the data folder is restored from an old copy, \
                 nothing on this machine can tell"
                    .into(),
            );
        }
        warnings
    }
}

impl WatchedDocument {
    fn read(&self, witness: &str) -> Result<(String, Vec<VerifierKey>), String> {
        let mut keys: Vec<VerifierKey> = Vec::new();
        for vkey in &self.vkeys {
            let key = VerifierKey::parse(vkey)
                .map_err(|e| format!("vkey `{}`: {e}", vkey.escape_debug()))?;
            if keys.contains(&key) {
                return Err(format!("vkey `{vkey}` is listed twice"));
            }
            // Its own cosignature would make a checkpoint count as signed by the log.
            if key.name() == witness {
                return Err(format!("`{witness}` is the witness itself and no log"));
            }
            keys.push(key);
        }
        let Some(first) = keys.first() else {
            return Err("a [[log]] needs at least one of `vkeys`".into());
        };
        if keys.len() > MAX_KEYS {
            return Err(format!("a log has at most {MAX_KEYS} vkeys"));
        }
        let origin = self.origin.clone().unwrap_or_else(|| first.name().to_owned());
        if self.origin.is_none() && keys.iter().any(|key| key.name() != origin) {
            return Err(format!("the vkeys of `{origin}` have several names; set its `origin`"));
        }
        Ok((origin, keys))
    }
}
