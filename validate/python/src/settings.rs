//! Settings, as `chancery/_validator.py` hands them over.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use chancery_relying_party::{Anchor, Attestation, Bounds, LogPolicy, Profile, ValidatorConfig};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Every setting; `Validator.__new__` documents them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Settings {
    issuers: Vec<String>,
    audiences: Vec<String>,
    profile: String,
    leeway: u64,
    max_lifetime: Option<u64>,
    unbounded_lifetime: bool,
    accepted_typ: Option<Vec<String>>,
    allow_missing_typ: Option<bool>,
    algorithms: Vec<String>,
    tenants: Vec<String>,
    accept_eddsa: bool,
    log: String,
    log_lookup: String,
    attestation: String,
    anchor: Option<String>,
    bounds: BTreeMap<String, f64>,
    pub jwks: Vec<(String, Vec<u8>)>,
    pub jwks_uri: Vec<(String, String)>,
    pub metadata_uri: Vec<(String, String)>,
    pub log_at: Option<String>,
    pub cache: usize,
    pub allow_plain_http: bool,
    pub root_certificates: Option<Vec<u8>>,
}

impl Settings {
    /// What is demanded of tokens.
    ///
    /// # Errors
    /// `ValueError` for whatever cannot be met or does not mean what it seems to.
    pub fn config(&self) -> PyResult<ValidatorConfig> {
        let profile: Profile = self.profile.parse().map_err(value_error)?;
        let mut config = ValidatorConfig::of_profile(profile, "", "");
        config.issuers.clone_from(&self.issuers);
        config.audiences.clone_from(&self.audiences);
        config.leeway_s = self.leeway;
        if self.unbounded_lifetime || self.max_lifetime.is_some() {
            config.max_lifetime_s = self.max_lifetime;
        }
        if let Some(accepted_typ) = &self.accepted_typ {
            config.accepted_typ.clone_from(accepted_typ);
        }
        if let Some(allow_missing_typ) = self.allow_missing_typ {
            config.allow_missing_typ = allow_missing_typ;
        }
        for name in &self.algorithms {
            config.algorithms.push(name.parse().map_err(value_error)?);
        }
        config.tenants.clone_from(&self.tenants);
        config.accept_eddsa = self.accept_eddsa;
        config.log_lookup = self.log_lookup.parse().map_err(value_error)?;
        config.check().map_err(value_error)?;
        Ok(config)
    }

    /// Whether logs are asked about tokens.
    ///
    /// # Errors
    /// `ValueError` for another word than the three.
    pub fn log(&self) -> PyResult<LogPolicy> {
        match self.log.as_str() {
            "off" => Ok(LogPolicy::Off),
            "report" => Ok(LogPolicy::Report),
            "require" => Ok(LogPolicy::Require),
            other => Err(no_policy("log", other)),
        }
    }

    /// Whether evidence is demanded.
    ///
    /// # Errors
    /// As [`Settings::log`].
    pub fn attestation(&self) -> PyResult<Attestation> {
        match self.attestation.as_str() {
            "off" => Ok(Attestation::Off),
            "report" => Ok(Attestation::Report),
            "require" => Ok(Attestation::Require),
            other => Err(no_policy("attestation", other)),
        }
    }

    /// The logs whose announcements are believed.
    ///
    /// # Errors
    /// `ValueError` with the line that cannot be read.
    pub fn anchor(&self) -> PyResult<Option<Anchor>> {
        self.anchor.as_deref().map(|text| Anchor::parse(text).map_err(value_error)).transpose()
    }

    /// Whether anything has to be fetched, ever.
    ///
    /// # Errors
    /// Those of [`Settings::log`].
    pub fn fetches(&self) -> PyResult<bool> {
        let given: HashSet<_> = self.jwks.iter().map(|(issuer, _)| issuer).collect();
        let all_given = self.issuers.iter().all(|issuer| given.contains(issuer));
        Ok(!all_given || self.anchor.is_some() || self.log()? != LogPolicy::Off)
    }

    /// The bounds, those that are not named with their defaults.
    ///
    /// # Errors
    /// `ValueError` for a name that is no bound, and for a number that fits none.
    pub fn bounds(&self) -> PyResult<Bounds> {
        let mut bounds = Bounds::default();
        for (name, value) in &self.bounds {
            let time = || Duration::try_from_secs_f64(*value).map_err(|_| unfit(name, *value));
            match name.as_str() {
                "min_age_s" => bounds.min_age = time()?,
                "max_age_s" => bounds.max_age = time()?,
                "default_age_s" => bounds.default_age = time()?,
                "cool_down_s" => bounds.cool_down = time()?,
                "keep_s" => bounds.keep = time()?,
                "retry_at_most_s" => bounds.retry_at_most = time()?,
                "fetch_timeout_s" => bounds.fetch_timeout = time()?,
                "connect_timeout_s" => bounds.connect_timeout = time()?,
                "checkpoint_age_s" => bounds.checkpoint_age = time()?,
                "publish_within_s" => bounds.publish_within_s = time()?.as_secs(),
                "waiting" => bounds.waiting = count(name, *value)?,
                "log_bytes" => bounds.log_bytes = count(name, *value)?,
                "reports" => bounds.reports = count(name, *value)?,
                _ => {
                    let text =
                        format!("`{name}` is no bound; `Validator.default_bounds()` has all");
                    return Err(PyValueError::new_err(text));
                }
            }
        }
        Ok(bounds)
    }
}

/// As Python shows a validator.
impl fmt::Display for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuers, audiences, profile, log, .. } = self;
        write!(
            formatter,
            "Validator(issuer={issuers:?}, audience={audiences:?}, profile={profile:?}, log={log:?})"
        )
    }
}

/// Every bound by its name, with its default.
pub fn default_bounds() -> [(&'static str, f64); 13] {
    let bounds = Bounds::default();
    [
        ("min_age_s", bounds.min_age.as_secs_f64()),
        ("max_age_s", bounds.max_age.as_secs_f64()),
        ("default_age_s", bounds.default_age.as_secs_f64()),
        ("cool_down_s", bounds.cool_down.as_secs_f64()),
        ("keep_s", bounds.keep.as_secs_f64()),
        ("retry_at_most_s", bounds.retry_at_most.as_secs_f64()),
        ("fetch_timeout_s", bounds.fetch_timeout.as_secs_f64()),
        ("connect_timeout_s", bounds.connect_timeout.as_secs_f64()),
        ("checkpoint_age_s", bounds.checkpoint_age.as_secs_f64()),
        ("publish_within_s", bounds.publish_within_s as f64),
        ("waiting", bounds.waiting as f64),
        ("log_bytes", bounds.log_bytes as f64),
        ("reports", bounds.reports as f64),
    ]
}

/// A whole number from a float: up to 2^32 both are exact.
fn count(name: &str, value: f64) -> PyResult<usize> {
    if value.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&value) {
        return Err(unfit(name, value));
    }
    Ok(value as usize)
}

fn unfit(name: &str, value: f64) -> PyErr {
    PyValueError::new_err(format!("bound `{name}` cannot be {value}"))
}

fn no_policy(setting: &str, word: &str) -> PyErr {
    let text = format!("{setting} is `off`, `report` or `require`, not `{word}`");
    PyValueError::new_err(text)
}

/// `ValueError` with the text of `error`.
pub fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}
