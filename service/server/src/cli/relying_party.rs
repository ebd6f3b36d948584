//! The options of commands that judge tokens as a relying party does: `validate` and `authz`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chancery_relying_party::{Builder, RelyingParty};
use chancery_validate::anchor::Anchor;
use chancery_validate::log::LogPolicy;
use chancery_validate::{Attestation, Profile, ValidatorConfig};
use clap::{Args, ValueEnum};

/// Largest file that is read: a key set or a bundle of certificates.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Whose tokens are accepted, and what is demanded of them.
#[derive(Debug, Args)]
pub struct RelyingPartyArgs {
    /// An issuer to accept, exactly as it spells itself; may be repeated
    #[arg(long, required = true, value_name = "URL")]
    pub issuer: Vec<String>,
    /// An audience of which the token must name one; may be repeated
    #[arg(long, required = true)]
    pub audience: Vec<String>,
    /// Rules (docs/rejections.md): strict, oidc or entra
    #[arg(long, default_value = "strict")]
    pub profile: Profile,
    /// With profile entra: a tenant to accept (default: any); may be repeated
    #[arg(long)]
    pub tenant: Vec<String>,
    /// Seconds of tolerance between clocks (default: 30)
    #[arg(long, value_name = "SECONDS")]
    pub leeway: Option<u64>,
    /// Whether to look tokens up in their log
    #[arg(long, value_enum, default_value = "off")]
    pub log: Mode,
    /// Whether to demand the signer's evidence
    #[arg(long, value_enum, default_value = "off")]
    pub attestation: Mode,
    /// Trust only keys that a log of this file announces: one verifier key a line
    #[arg(long, value_name = "FILE")]
    pub anchor: Option<PathBuf>,
    /// Key set file, then none is fetched; with several issuers one for each, in their order
    #[arg(long, value_name = "FILE")]
    pub jwks: Vec<PathBuf>,
    /// Accept these certificate authorities for https instead of the system's: PEM
    #[arg(long, value_name = "FILE")]
    pub root_certificates: Option<PathBuf>,
    /// Fetch key sets without TLS from other machines too; whoever is on the way can replace them
    #[arg(long)]
    pub allow_plain_http: bool,
}

/// How much a further source of truth decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Do not ask.
    Off,
    /// Ask and say, but reject nothing for it.
    Report,
    /// Accept only what it confirms.
    Require,
}

impl From<Mode> for LogPolicy {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Report => Self::Report,
            Mode::Require => Self::Require,
        }
    }
}

impl From<Mode> for Attestation {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Report => Self::Report,
            Mode::Require => Self::Require,
        }
    }
}

impl RelyingPartyArgs {
    /// The validator's rules.
    ///
    /// # Errors
    /// What is wrong with the options together.
    pub fn config(&self) -> anyhow::Result<ValidatorConfig> {
        let mut config = ValidatorConfig::of_profile(self.profile, "", "");
        config.issuers.clone_from(&self.issuer);
        config.audiences.clone_from(&self.audience);
        config.tenants.clone_from(&self.tenant);
        if let Some(leeway_s) = self.leeway {
            config.leeway_s = leeway_s;
        }
        config.check()?;
        Ok(config)
    }

    /// A relying party that can be built, with every file read.
    ///
    /// # Errors
    /// Options that do not go together, files that cannot be read.
    pub fn builder(&self) -> anyhow::Result<Builder> {
        let mut builder = RelyingParty::builder(self.config()?)
            .log(self.log.into())
            .attestation(self.attestation.into())
            .allow_plain_http(self.allow_plain_http);
        if !self.jwks.is_empty() {
            if self.jwks.len() != self.issuer.len() {
                let (files, issuers) = (self.jwks.len(), self.issuer.len());
                bail!("--jwks names {files} files for {issuers} issuers; name one for each");
            }
            for (issuer, file) in self.issuer.iter().zip(&self.jwks) {
                builder = builder.jwks(issuer, &read_file("key set", file)?);
            }
        }
        if let Some(file) = &self.anchor {
            let text = String::from_utf8(read_file("anchor", file)?)
                .map_err(|_| anyhow::anyhow!("anchor `{}` is not text", file.display()))?;
            let anchor = Anchor::parse(&text)
                .with_context(|| format!("anchor `{}` is not usable", file.display()))?;
            builder = builder.anchor(anchor);
        }
        if let Some(file) = &self.root_certificates {
            builder = builder.root_certificates(&read_file("root certificates", file)?);
        }
        Ok(builder)
    }
}

/// A file of bounded size.
fn read_file(what: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file)
        .and_then(|open| open.take(MAX_FILE_BYTES.saturating_add(1)).read_to_end(&mut bytes));
    read.with_context(|| format!("{what} `{}`", file.display()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        bail!("{what} `{}` is longer than {MAX_FILE_BYTES} bytes", file.display());
    }
    Ok(bytes)
}
