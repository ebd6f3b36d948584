//! The front of the crate: a configuration and key sets, ready to judge tokens.

use std::sync::Arc;

use chancery_token::jwks::KeySet;
use chancery_token::jws::{self, Header};

use crate::claims::Headers;
use crate::config::DEFAULT_TYP;
use crate::explain::{Silent, Steps};
use crate::judge::{Court, judge, route};
use crate::{Explanation, Keys, Rejection, TokenCache, Validated, ValidatorConfig};

/// Judges tokens of one or more issuers, each by its own key set.
///
/// It is shared between threads freely. A new key set makes a new validator
/// ([`Validator::with_keys_of`]), so a judgement never sees half a change.
#[derive(Clone, Debug)]
pub struct Validator {
    config: Arc<ValidatorConfig>,
    /// In the order of the configured issuers.
    keys: Vec<Keys>,
    /// What every token of these keys begins with.
    headers: Arc<Headers>,
    cache: Option<Arc<TokenCache>>,
}

impl Validator {
    /// A validator that believes `keys` of the first issuer. Other issuers have no keys until
    /// [`Validator::with_keys_of`] gives them theirs: one issuer's keys never speak for another.
    #[must_use]
    pub fn new(config: ValidatorConfig, keys: impl Into<Keys>) -> Self {
        let mut sets = vec![Keys::default(); config.issuers.len()];
        if let Some(first) = sets.first_mut() {
            *first = keys.into();
        }
        let headers = headers(&sets);
        Self { config: Arc::new(config), keys: sets, headers, cache: None }
    }

    /// A validator for the JWK Set of the first issuer, as it was served.
    ///
    /// # Errors
    /// Those of [`Keys::parse`].
    pub fn from_jwks(config: ValidatorConfig, jwks: &[u8]) -> Result<Self, Rejection> {
        let keys = Keys::parse(config.profile, jwks)?;
        Ok(Self::new(config, keys))
    }

    /// The same with other keys of an issuer, spelled as in the configuration. An issuer that is
    /// not configured changes nothing.
    #[must_use]
    pub fn with_keys_of(&self, issuer: &str, keys: impl Into<Keys>) -> Self {
        let mut changed = self.clone();
        let index = self.config.issuers.iter().position(|configured| configured == issuer);
        if let Some(place) = index.and_then(|index| changed.keys.get_mut(index)) {
            *place = keys.into();
            changed.headers = headers(&changed.keys);
        }
        changed
    }

    /// The same with a cache of verified tokens. Time, keys and demands are judged on every call
    /// all the same, so a cache may be shared by validators and outlive key sets.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<TokenCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// What this validator demands.
    #[must_use]
    pub fn config(&self) -> &ValidatorConfig {
        &self.config
    }

    /// The keys that it believes of an issuer, spelled as in the configuration.
    #[must_use]
    pub fn keys_of(&self, issuer: &str) -> Option<&Keys> {
        self.keys.get(self.config.issuers.iter().position(|configured| configured == issuer)?)
    }

    /// Which configured issuer a token claims to be of. Nothing is verified: this says whose key
    /// set to fetch, never that the token is theirs.
    #[must_use]
    pub fn route(&self, token: &str) -> Option<&str> {
        route(&self.config, &self.headers, token)
    }

    /// Judges a token at the time `now`, in seconds since 1970.
    ///
    /// # Errors
    /// The first check that the token fails, in the order of `docs/rejections.md`.
    pub fn validate(&self, token: &str, now: u64) -> Result<Validated, Rejection> {
        judge(&self.court(self.cache.as_deref()), token, now, &mut Silent)
    }

    /// Judges a token as [`Validator::validate`] does, without the cache, and tells each check.
    #[must_use]
    pub fn explain(&self, token: &str, now: u64) -> Explanation {
        let mut steps = Steps::default();
        let verdict = judge(&self.court(None), token, now, &mut steps);
        Explanation { steps: steps.0, verdict }
    }

    fn court<'v>(&'v self, cache: Option<&'v TokenCache>) -> Court<'v> {
        let Self { config, keys, headers, .. } = self;
        Court { config, keys, headers, cache }
    }
}

/// The headers that Chancery's signers write with these keys, each read once: what a token begins
/// with is compared with them before it is read.
fn headers(sets: &[Keys]) -> Arc<Headers> {
    let members = sets.iter().filter_map(Keys::set).flat_map(KeySet::members);
    let own = members.filter(|member| member.kid == member.key.kid().to_string());
    let encoded = own
        .map(|member| jws::encode_header(member.key.algorithm(), DEFAULT_TYP, &member.key.kid()));
    let read = encoded.filter_map(|text| {
        let header = Header::parse(&text).ok()?;
        Some((text, Arc::new(header)))
    });
    Arc::new(read.collect())
}
