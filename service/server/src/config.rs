//! The configuration: one TOML file, one structure. `docs/configuration.md` is its reference; a
//! test parses every sample there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chancery_audit::keys::{MAX_RECIPIENTS, Recipient};
use chancery_policy::document::{ClientDocument, GrantDocument};
use chancery_policy::{PolicyDocument, RealmDocument, Schedule};
use chancery_token::Algorithm;
use chancery_token::client::ClientKey;
use serde::Deserialize;

use crate::directory::DirectorySettings;
use crate::evidence::{Appraiser, AttestationSettings};
use crate::kubernetes::Settings;
use crate::listen::{Network, TlsOptions};
use crate::store::Location;
use crate::witnesses::{GroupDocument, WitnessDocument, WitnessSettings};

/// The id of the demo client of development mode.
pub const DEMO_CLIENT: &str = "demo";

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Public URL of the service, without a final slash. Log origins derive from it, and nothing is
    /// ever derived from a Host header.
    pub base_url: String,
    /// Address of the public listener.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Address of the admin listener: health and metrics only.
    #[serde(default = "default_admin")]
    pub admin_listen: SocketAddr,
    /// The data folder.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// TLS for the public listener.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// Proxies whose `Forwarded` and `X-Forwarded-For` headers count.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// How many unverifiable proofs a second one source address may send (a /64 for IPv6).
    #[serde(default = "default_unverified")]
    pub unverified_per_s: u32,
    /// Size of each of the three write-ahead segments, in MiB.
    #[serde(default = "default_segment")]
    pub wal_segment_mib: u64,
    /// Where the logs are kept, and when they are durable.
    #[serde(default)]
    pub storage: Storage,
    /// What must be before a token leaves.
    #[serde(default)]
    pub release: Release,
    /// The witness or group that must have cosigned the directory, or `none`.
    #[serde(default)]
    pub quorum: Option<String>,
    /// Witnesses to whom the directory's checkpoints are shown.
    #[serde(default, rename = "witness")]
    pub witnesses: Vec<WitnessDocument>,
    /// Groups of them.
    #[serde(default, rename = "witness_group")]
    pub witness_groups: Vec<GroupDocument>,
    /// The tlog-policy of `release = "witnessed"`, with the directory's key, which is no setting.
    #[serde(skip)]
    pub witnessed: Option<String>,
    /// Protections that the signer's process must have, of those that `/signers` lists.
    #[serde(default)]
    pub protections: Vec<String>,
    /// The directory log, which names all signers' logs.
    #[serde(default)]
    pub directory: DirectorySettings,
    /// The audit of every decision.
    #[serde(default)]
    pub audit: AuditSettings,
    /// How signers' evidence is appraised.
    #[serde(default)]
    pub attestation: AttestationSettings,
    /// How the log of the service itself looks.
    #[serde(default)]
    pub logging: Logging,
    /// The socket for kube-apiserver.
    #[serde(default)]
    pub kubernetes: Option<Settings>,
    /// The realms.
    pub realms: Vec<RealmDocument>,
    /// Made up by development mode, not read from a file.
    #[serde(skip)]
    pub development: bool,
}

/// Where the logs are kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// `file:/path`, `s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`; without
    /// it, the folder `store` of the data folder.
    pub url: Option<String>,
    /// Where the bucket's provider is, instead of its own address: other makers' stores, emulators.
    pub endpoint: Option<String>,
    /// When a batch is durable, and its tokens may leave.
    pub durability: Durability,
    /// Whether entries can be found by their leaf hash. By default where a realm needs it: tokens of
    /// Kubernetes do not name their place in the log. It takes some 10 MB a million entries, in the
    /// data folder.
    pub digest_index: Option<bool>,
}

/// What must hold a batch before its tokens leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The write-ahead log on this machine; the store follows about a second later.
    #[default]
    Local,
    /// The store itself.
    Store,
}

/// What must be before a token leaves (INVARIANT I2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// Its entry is durable: holds against crashes.
    #[default]
    Committed,
    /// And the signer saw witnesses cosign a directory that covers it: holds against the host.
    Witnessed,
}

impl Storage {
    /// Whether the store must hold a batch before its tokens leave.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.durability == Durability::Store
    }

    /// Where the store is; `folder` is the one to use where the configuration names none.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn location(&self, folder: &Path) -> Result<Location, ConfigError> {
        let wrong = |e: crate::store::LocationError| ConfigError::Value(e.to_string());
        match (&self.url, &self.endpoint) {
            (Some(url), endpoint) => Location::parse(url, endpoint.as_deref()).map_err(wrong),
            (None, None) => Ok(Location::of_folder(folder.to_owned())),
            (None, Some(_)) => {
                Err(ConfigError::Value("storage.endpoint means nothing without storage.url".into()))
            }
        }
    }
}

/// The audit of every decision.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// Records are in the write-ahead log at most for so long before they become a segment.
    pub flush_every_s: u64,
    /// Who can read what is written from now on, besides the key in the data folder.
    pub recipients: Vec<String>,
    /// Segments are kept for so many days beyond the longest life of a key of the policy.
    pub keep_days: u64,
    /// Other systems that are sent what is recorded.
    pub export: Vec<crate::audit::export::ExportSettings>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        // Two years, of which one may be a leap year.
        Self { flush_every_s: 300, recipients: Vec::new(), keep_days: 731, export: Vec::new() }
    }
}

impl AuditSettings {
    /// The recipients.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn recipients(&self) -> Result<Vec<Recipient>, ConfigError> {
        let wrong = |e: chancery_audit::Error| ConfigError::Value(format!("audit.recipients: {e}"));
        if self.recipients.len() >= MAX_RECIPIENTS {
            let why = format!("audit.recipients: at most {} of them", MAX_RECIPIENTS - 1);
            return Err(ConfigError::Value(why));
        }
        self.recipients.iter().map(|text| Recipient::parse(text).map_err(wrong)).collect()
    }
}

/// The service's own log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    /// `human` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, or a filter as `tracing` reads it.
    pub level: Option<String>,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8420))
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8421))
}

fn default_data() -> PathBuf {
    PathBuf::from("chancery-data")
}

fn default_unverified() -> u32 {
    20
}

fn default_segment() -> u64 {
    64
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration `{path}`: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        why: String,
    },
    /// The file is not a configuration.
    #[error("configuration `{path}`: {why}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Where and what, from the TOML parser.
        why: String,
    },
    /// A value is out of bounds.
    #[error("configuration: {0}")]
    Value(String),
    /// The demo client's key cannot be kept.
    #[error("demo client key: {0}")]
    Demo(String),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError::Unreadable { path: path.to_owned(), why: e.to_string() })?;
        let mut config = Self::parse(&text).map_err(|e| match e {
            ConfigError::Shape { why, .. } => ConfigError::Shape { path: path.to_owned(), why },
            other => other,
        })?;
        Appraiser::open(&config.attestation).map_err(ConfigError::Value)?;
        if let Some(kubernetes) = &config.kubernetes {
            kubernetes.read_imports(&mut config.realms).map_err(ConfigError::Value)?;
            config.check()?;
        }
        Ok(config)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// [`ConfigError`], naming the place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|e| ConfigError::Shape { path: PathBuf::new(), why: e.to_string() })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let rest = self
            .base_url
            .strip_prefix("https://")
            .or_else(|| self.base_url.strip_prefix("http://"));
        let plain = |b: u8| b.is_ascii_graphic() && !b"?#\"\\<>".contains(&b);
        if rest.is_none_or(|r| r.is_empty() || r.starts_with('/') || !r.bytes().all(plain))
            || self.base_url.ends_with('/')
        {
            return Err(ConfigError::Value(format!(
                "base_url `{}` must be an http(s) URL without query, fragment or final slash",
                self.base_url
            )));
        }
        if !(1..=1_024).contains(&self.wal_segment_mib) {
            return Err(ConfigError::Value("wal_segment_mib must be within 1 to 1024".into()));
        }
        if self.unverified_per_s == 0 {
            return Err(ConfigError::Value("unverified_per_s must be at least 1".into()));
        }
        if !(1..=3_600).contains(&self.audit.flush_every_s) {
            return Err(ConfigError::Value("audit.flush_every_s must be within 1 to 3600".into()));
        }
        if !(1..=36_500).contains(&self.audit.keep_days) {
            return Err(ConfigError::Value("audit.keep_days must be within 1 to 36500".into()));
        }
        self.audit.recipients()?;
        crate::audit::export::ExportSettings::check(&self.audit.export)
            .map_err(ConfigError::Value)?;
        self.storage.location(Path::new(""))?;
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.check(&self.realms).map_err(ConfigError::Value)?;
        }
        self.directory.check().map_err(ConfigError::Value)?;
        self.check_witnesses().map_err(ConfigError::Value)?;
        self.policy(1).check().map_err(|e| ConfigError::Value(e.to_string()))
    }

    fn check_witnesses(&self) -> Result<(), String> {
        self.witness_settings().check()?;
        let nobody = self.quorum.as_deref().is_none_or(|quorum| quorum == "none");
        if self.release == Release::Witnessed && (nobody || !self.directory.write) {
            return Err(
                "release = \"witnessed\" needs [[witness]], a `quorum` that is not `none`, \
                        and a service that writes the directory"
                    .into(),
            );
        }
        if !self.witnesses.is_empty() && !self.directory.write {
            return Err("[[witness]] is for the service that writes the directory".into());
        }
        Ok(())
    }

    /// The witnesses, their groups and the quorum.
    #[must_use]
    pub fn witness_settings(&self) -> WitnessSettings {
        WitnessSettings {
            witnesses: self.witnesses.clone(),
            groups: self.witness_groups.clone(),
            quorum: self.quorum.clone(),
        }
    }

    /// Prefix of log origins: the public URL without its scheme.
    #[must_use]
    pub fn log_prefix(&self) -> String {
        let rest = self.base_url.split_once("://").map_or(self.base_url.as_str(), |(_, r)| r);
        format!("{rest}/log")
    }

    /// What a new directory is called where `directory.origin` does not say: the public URL's part.
    #[must_use]
    pub fn default_directory(&self) -> String {
        let rest = self.base_url.split_once("://").map_or(self.base_url.as_str(), |(_, r)| r);
        format!("{rest}/directory")
    }

    /// The policy that this configuration means, as one version.
    #[must_use]
    pub fn policy(&self, version: u64) -> PolicyDocument {
        PolicyDocument {
            version,
            log_prefix: self.log_prefix(),
            realms: self.realms.clone(),
            witnessed: self.witnessed.clone(),
            protections: self.protections.clone(),
        }
    }

    /// Whether entries are to be found by their leaf hash under this policy.
    #[must_use]
    pub fn wants_digests(&self, policy: &PolicyDocument) -> bool {
        let needed = || policy.realms.iter().any(|realm| realm.kubernetes.is_some());
        self.storage.digest_index.unwrap_or_else(|| self.development || needed())
    }

    /// What is allowed and yet worth a warning.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            warnings.push(format!(
                "`{}` is not loopback and has no TLS: put a TLS proxy in front, or set [tls]",
                self.listen
            ));
        }
        if !self.admin_listen.ip().is_loopback() {
            warnings.push(format!("admin_listen `{}` is not loopback", self.admin_listen));
        }
        if self.storage.location(Path::new("")).is_ok_and(|l| l.is_in_the_clear()) {
            warnings.push(
                "storage.endpoint is not https and not loopback: credentials and \
                           objects can be read on the way"
                    .into(),
            );
        }
        for realm in &self.realms {
            let expected = format!("{}/{}", self.base_url, realm.name);
            // The API server serves the discovery documents of its realm, and is its only client.
            let cluster = realm.kubernetes.is_some();
            if realm.issuer != expected && !cluster {
                warnings.push(format!(
                    "realm `{}`: issuer `{}` is not `{expected}`; its discovery documents must be \
                     served under the issuer's URL by other means",
                    realm.name, realm.issuer
                ));
            }
            if realm.issuer.starts_with("http://") && !self.development {
                warnings.push(format!("realm `{}`: the issuer is not https", realm.name));
            }
            if realm.clients.is_empty() && !cluster {
                warnings.push(format!("realm `{}` has no clients", realm.name));
            }
        }
        warnings
    }

    /// Development mode: loopback, two realms, a demo client whose key is kept at `demo_key`.
    ///
    /// # Errors
    /// [`ConfigError::Demo`].
    pub fn development(
        listen: SocketAddr,
        admin_listen: SocketAddr,
        data: PathBuf,
        demo_key: &Path,
    ) -> Result<Self, ConfigError> {
        let key = demo_client_key(demo_key)?;
        let base_url = format!("http://{listen}");
        let realm = |name: &str, algorithms: &[Algorithm]| RealmDocument {
            name: name.to_owned(),
            issuer: format!("{base_url}/{name}"),
            algorithms: algorithms.to_vec(),
            rsa_bits: 2048,
            kubernetes: None,
            schedule: Schedule::default(),
            clients: vec![demo_client(&key)],
        };
        use Algorithm as A;
        let realms = vec![
            realm("consumers", &[A::Es256, A::Rs256, A::Ps256, A::Ed25519]),
            realm("organizations", &[A::Ed25519, A::Es384, A::MlDsa44, A::MlDsa65, A::MlDsa87]),
        ];
        let config = Self {
            base_url,
            listen,
            admin_listen,
            data,
            tls: None,
            trusted_proxies: Vec::new(),
            unverified_per_s: default_unverified(),
            wal_segment_mib: 16,
            storage: Storage::default(),
            release: Release::default(),
            quorum: None,
            witnesses: Vec::new(),
            witness_groups: Vec::new(),
            witnessed: None,
            protections: Vec::new(),
            directory: DirectorySettings::default(),
            audit: AuditSettings::default(),
            attestation: AttestationSettings::default(),
            logging: Logging::default(),
            kubernetes: None,
            realms,
            development: true,
        };
        config.check()?;
        Ok(config)
    }
}

fn demo_client(key: &ClientKey) -> ClientDocument {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    ClientDocument {
        id: DEMO_CLIENT.to_owned(),
        keys: vec![key.signing_key().public().jwk()],
        grants: vec![GrantDocument {
            name: "demo".to_owned(),
            audiences: texts(&["https://api.example", "https://orders.example"]),
            subjects: texts(&[DEMO_CLIENT, "user:*"]),
            scopes: texts(&["read", "write"]),
            claims: texts(&["tier", "roles"]),
            max_lifetime_s: None,
            algorithms: None,
            require_cnf: false,
            max_audiences: 1,
        }],
        max_tokens_per_s: None,
        replay_capacity: 100_000,
        accept_eddsa: true,
    }
}

/// The demo client's key: read from its file, or made and written with mode 0600.
fn demo_client_key(path: &Path) -> Result<ClientKey, ConfigError> {
    let failed = |e: String| ConfigError::Demo(format!("`{}`: {e}", path.display()));
    match std::fs::read_to_string(path) {
        Ok(pem) => ClientKey::from_pkcs8_pem(&pem).map_err(|e| failed(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key = ClientKey::generate(Algorithm::Es256).map_err(|e| failed(e.to_string()))?;
            write_private(path, &key.to_pkcs8_pem()).map_err(|e| failed(e.to_string()))?;
            Ok(key)
        }
        Err(e) => Err(failed(e.to_string())),
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests;
