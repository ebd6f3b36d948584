//! The options of commands that judge tokens as a relying party does: `validate` and `authz`.

mod sources;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use chancery_relying_party::{Builder, RelyingParty};
use chancery_token::Algorithm;
use chancery_validate::anchor::Anchor;
use chancery_validate::log::LogPolicy;
use chancery_validate::{Attestation, LogLookup, Profile, ValidatorConfig};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

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
    /// Longest time from `iat` to `exp` (default: a day; with profile entra 28 hours)
    #[arg(long, value_name = "SECONDS|none")]
    pub max_lifetime: Option<Lifetime>,
    /// A `typ` to accept instead of the profile's (strict: at+jwt); may be repeated
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub typ: Vec<String>,
    /// Whether a token may have no `typ` (default: not with profile strict)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub allow_missing_typ: Option<bool>,
    /// An algorithm to accept (default: all eight); may be repeated
    #[arg(long, value_name = "ALG")]
    pub algorithm: Vec<Algorithm>,
    /// Accept the deprecated name EdDSA for Ed25519 keys
    #[arg(long)]
    pub accept_eddsa: bool,
    /// Whether to look tokens up in their log
    #[arg(long, value_enum, default_value = "off")]
    pub log: Mode,
    /// How tokens are found in their log: by the address in `jti`, or by digest, for tokens of
    /// Kubernetes (with profile oidc)
    #[arg(long, default_value = "address", value_name = "address|digest")]
    pub log_lookup: LogLookup,
    /// Where logs are, a URL or folder that ends before `checkpoint`; `{log}` in it stands for the
    /// log's id (default: from discovery)
    #[arg(long, value_name = "PLACE")]
    pub log_at: Option<String>,
    /// Whether to demand the signer's evidence
    #[arg(long, value_enum, default_value = "off")]
    pub attestation: Mode,
    /// Trust only keys that a log of this file announces: one verifier key a line
    #[arg(long, value_name = "FILE")]
    pub anchor: Option<PathBuf>,
    /// Key set file, then none is fetched; one for each issuer in their order, or ISSUER=FILE
    #[arg(long, value_name = "FILE")]
    pub jwks: Vec<String>,
    /// Where the key set is, then no metadata is read; one for each issuer in their order, or
    /// ISSUER=URL
    #[arg(long, value_name = "URL")]
    pub jwks_uri: Vec<String>,
    /// Where the metadata is, if not where the standards say; one for each issuer in their order,
    /// or ISSUER=URL
    #[arg(long, value_name = "URL")]
    pub metadata_uri: Vec<String>,
    /// Accept these certificate authorities for https instead of the system's: PEM
    #[arg(long, value_name = "FILE")]
    pub root_certificates: Option<PathBuf>,
    /// Fetch key sets without TLS from other machines too; whoever is on the way can replace them
    #[arg(long)]
    pub allow_plain_http: bool,
}

/// The longest accepted lifetime in seconds, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(Option<u64>);

impl FromStr for Lifetime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            text => match text.parse() {
                Ok(seconds) => Ok(Self(Some(seconds))),
                Err(_) => Err("a lifetime is a number of seconds, or `none`"),
            },
        }
    }
}

/// In an issuer, what a tenant's id stands for.
const TENANT: &str = "{tenantid}";

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
        if let Some(Lifetime(seconds)) = self.max_lifetime {
            config.max_lifetime_s = seconds;
        }
        if !self.typ.is_empty() {
            config.accepted_typ.clone_from(&self.typ);
        }
        if let Some(allow) = self.allow_missing_typ {
            config.allow_missing_typ = allow;
        }
        config.algorithms.clone_from(&self.algorithm);
        config.accept_eddsa = self.accept_eddsa;
        config.log_lookup = self.log_lookup;
        config.check()?;
        Ok(config)
    }

    /// Whether a subject means something only together with its issuer.
    pub fn has_several_issuers(&self) -> bool {
        self.issuer.len() > 1 || self.issuer.iter().any(|issuer| issuer.contains(TENANT))
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
        let sources = sources::of(&self.issuer, &self.jwks, &self.jwks_uri, &self.metadata_uri)?;
        self.check_logs(sources::without_metadata(&self.issuer, &sources))?;
        builder = sources::apply(builder, &sources)?;
        if let Some(place) = &self.log_at {
            builder = builder.log_at(place);
        }
        if let Some(file) = &self.anchor {
            let text = String::from_utf8(sources::read_file("anchor", file)?)
                .map_err(|_| anyhow::anyhow!("anchor `{}` is not text", file.display()))?;
            let anchor = Anchor::parse(&text)
                .with_context(|| format!("anchor `{}` is not usable", file.display()))?;
            builder = builder.anchor(anchor);
        }
        if let Some(file) = &self.root_certificates {
            builder = builder.root_certificates(&sources::read_file("root certificates", file)?);
        }
        Ok(builder)
    }

    /// Whether what is asked of logs can ever be answered with yes. `unread` is an issuer whose
    /// metadata is not read.
    fn check_logs(&self, unread: Option<&str>) -> anyhow::Result<()> {
        let option = match (self.log, &self.anchor) {
            (Mode::Require, _) => "--log require",
            (Mode::Report, _) => "--log report",
            (Mode::Off, Some(_)) => "--anchor",
            (Mode::Off, None) => return Ok(()),
        };
        let by_digest = self.log_lookup == LogLookup::Digest;
        if self.profile != Profile::Strict && !(self.profile == Profile::Oidc && by_digest) {
            bail!(
                "{option} does not go with --profile {}: keys of other issuers name no log; with \
                 Chancery's own issuers use --profile strict, for tokens of Kubernetes --profile \
                 oidc with --log-lookup digest",
                self.profile
            );
        }
        if let (Some(issuer), None) = (unread, &self.log_at) {
            bail!(
                "{option} needs --log-at: the metadata of issuer `{issuer}` is not read, because its \
                 key set is named, and so nothing says where its logs are; name the URL or folder \
                 that ends before `checkpoint`, with `{{log}}` for the log's id"
            );
        }
        Ok(())
    }
}
