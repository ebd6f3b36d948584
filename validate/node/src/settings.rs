//! The settings of a validator, as `lib/options.cjs` hands them over: JSON with the names that the
//! package's types document.

use std::time::Duration;

use chancery_relying_party::{
    Anchor, Attestation, Bounds, Finding, LogPolicy, Profile, RelyingParty, ValidatorConfig,
};
use chancery_token::Algorithm;
use serde::{Deserialize, Deserializer};
use tokio::runtime::Handle;

/// What one validator is made of. Absent members have the defaults of the profile and of the front.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    issuer: Vec<String>,
    audience: Vec<String>,
    profile: Option<String>,
    /// Pairs of issuer and JWK Set.
    #[serde(default)]
    jwks: Vec<(String, String)>,
    /// Pairs of issuer and URL.
    #[serde(default)]
    jwks_uri: Vec<(String, String)>,
    /// Pairs of issuer and URL.
    #[serde(default)]
    metadata_uri: Vec<(String, String)>,
    leeway: Option<u64>,
    /// Null for no bound.
    #[serde(default, deserialize_with = "present")]
    max_lifetime: Option<Option<u64>>,
    accepted_typ: Option<Vec<String>>,
    allow_missing_typ: Option<bool>,
    #[serde(default)]
    algorithms: Vec<String>,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    accept_eddsa: bool,
    #[serde(default)]
    log: Policy,
    log_lookup: Option<String>,
    log_at: Option<String>,
    #[serde(default)]
    attestation: Policy,
    anchor: Option<String>,
    /// Entries of the cache of verified tokens.
    #[serde(default)]
    pub cache: usize,
    #[serde(default)]
    allow_plain_http: bool,
    root_certificates: Option<String>,
    #[serde(default)]
    bounds: GivenBounds,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    #[default]
    Off,
    Report,
    Require,
}

/// [`Bounds`], with times in seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GivenBounds {
    min_age: Option<f64>,
    max_age: Option<f64>,
    default_age: Option<f64>,
    cool_down: Option<f64>,
    keep: Option<f64>,
    retry_at_most: Option<f64>,
    fetch_timeout: Option<f64>,
    connect_timeout: Option<f64>,
    waiting: Option<usize>,
    publish_within: Option<u64>,
    checkpoint_age: Option<f64>,
    log_bytes: Option<usize>,
    reports: Option<usize>,
}

/// A member that is there, null included.
fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(reader).map(Some)
}

/// Why there is no relying party.
#[derive(Debug, thiserror::Error)]
pub enum NotBuilt {
    /// A member's value is not one of those that are known.
    #[error("{0}")]
    Setting(String),
    /// The settings contradict each other or cannot be met.
    #[error(transparent)]
    Front(#[from] chancery_relying_party::BuildError),
}

impl Settings {
    /// Builds the relying party, which begins to fetch on `runtime`.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn build(
        self,
        runtime: &Handle,
        on_finding: impl Fn(&Finding) + Send + Sync + 'static,
    ) -> Result<RelyingParty, NotBuilt> {
        let config = self.config()?;
        let mut builder = RelyingParty::builder(config)
            .runtime(runtime.clone())
            .on_finding(on_finding)
            .log(self.log.into())
            .attestation(self.attestation.into())
            .cache(self.cache)
            .allow_plain_http(self.allow_plain_http)
            .bounds(self.bounds.whole()?);
        for (issuer, jwks) in &self.jwks {
            builder = builder.jwks(issuer, jwks.as_bytes());
        }
        for (issuer, url) in &self.jwks_uri {
            builder = builder.jwks_uri(issuer, url);
        }
        for (issuer, url) in &self.metadata_uri {
            builder = builder.metadata_uri(issuer, url);
        }
        if let Some(text) = &self.anchor {
            let anchor = Anchor::parse(text).map_err(|error| setting(&error))?;
            builder = builder.anchor(anchor);
        }
        if let Some(place) = &self.log_at {
            builder = builder.log_at(place);
        }
        if let Some(pem) = &self.root_certificates {
            builder = builder.root_certificates(pem.as_bytes());
        }
        Ok(builder.build()?)
    }

    fn config(&self) -> Result<ValidatorConfig, NotBuilt> {
        let profile = self.profile.as_deref().unwrap_or(Profile::default().as_str());
        let profile: Profile = profile.parse().map_err(|error| setting(&error))?;
        let mut config = ValidatorConfig::of_profile(profile, "", "");
        config.issuers.clone_from(&self.issuer);
        config.audiences.clone_from(&self.audience);
        config.tenants.clone_from(&self.tenants);
        config.accept_eddsa = self.accept_eddsa;
        let algorithm = |name: &String| name.parse::<Algorithm>().map_err(|error| setting(&error));
        config.algorithms = self.algorithms.iter().map(algorithm).collect::<Result<_, _>>()?;
        config.leeway_s = self.leeway.unwrap_or(config.leeway_s);
        config.max_lifetime_s = self.max_lifetime.unwrap_or(config.max_lifetime_s);
        config.allow_missing_typ = self.allow_missing_typ.unwrap_or(config.allow_missing_typ);
        if let Some(way) = &self.log_lookup {
            config.log_lookup = way.parse().map_err(|error| setting(&error))?;
        }
        if let Some(typ) = &self.accepted_typ {
            config.accepted_typ.clone_from(typ);
        }
        Ok(config)
    }
}

impl GivenBounds {
    fn whole(&self) -> Result<Bounds, NotBuilt> {
        let seconds = |name: &str, given: Option<f64>, usual: Duration| {
            let Some(given) = given else { return Ok(usual) };
            Duration::try_from_secs_f64(given)
                .map_err(|_| NotBuilt::Setting(format!("`{name}` is `{given}`, which is no time")))
        };
        let usual = Bounds::default();
        Ok(Bounds {
            min_age: seconds("minAge", self.min_age, usual.min_age)?,
            max_age: seconds("maxAge", self.max_age, usual.max_age)?,
            default_age: seconds("defaultAge", self.default_age, usual.default_age)?,
            cool_down: seconds("coolDown", self.cool_down, usual.cool_down)?,
            keep: seconds("keep", self.keep, usual.keep)?,
            retry_at_most: seconds("retryAtMost", self.retry_at_most, usual.retry_at_most)?,
            fetch_timeout: seconds("fetchTimeout", self.fetch_timeout, usual.fetch_timeout)?,
            connect_timeout: seconds(
                "connectTimeout",
                self.connect_timeout,
                usual.connect_timeout,
            )?,
            checkpoint_age: seconds("checkpointAge", self.checkpoint_age, usual.checkpoint_age)?,
            waiting: self.waiting.unwrap_or(usual.waiting),
            publish_within_s: self.publish_within.unwrap_or(usual.publish_within_s),
            log_bytes: self.log_bytes.unwrap_or(usual.log_bytes),
            reports: self.reports.unwrap_or(usual.reports),
        })
    }
}

impl From<Policy> for LogPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Off => Self::Off,
            Policy::Report => Self::Report,
            Policy::Require => Self::Require,
        }
    }
}

impl From<Policy> for Attestation {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Off => Self::Off,
            Policy::Report => Self::Report,
            Policy::Require => Self::Require,
        }
    }
}

fn setting(error: &impl ToString) -> NotBuilt {
    NotBuilt::Setting(error.to_string())
}
