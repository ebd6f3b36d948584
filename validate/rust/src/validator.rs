//! The front of the crate: a configuration and a key set, ready to judge tokens.

use chancery_token::jwks::KeySet;

use crate::explain::{Silent, Steps};
use crate::judge::judge;
use crate::{Explanation, Rejection, RejectionCode, Validated, ValidatorConfig};

/// Judges tokens of one issuer for one audience by one key set.
///
/// It holds no state between calls and is shared between threads freely. A new key set makes a new
/// validator ([`Validator::with_keys`]), so a judgement never sees half a change.
#[derive(Clone, Debug)]
pub struct Validator {
    config: ValidatorConfig,
    keys: KeySet,
}

impl Validator {
    /// A validator that believes `keys`, as far as they may speak for `config.issuer`.
    #[must_use]
    pub fn new(config: ValidatorConfig, keys: KeySet) -> Self {
        Self { config, keys }
    }

    /// A validator for a JWK Set as it was served, at most
    /// [`MAX_SET_BYTES`](chancery_token::jwks::MAX_SET_BYTES) long.
    ///
    /// # Errors
    /// [`RejectionCode::KeySetRefused`]; the detail says why.
    pub fn from_jwks(config: ValidatorConfig, jwks: &[u8]) -> Result<Self, Rejection> {
        let keys = KeySet::parse(jwks)
            .map_err(|error| Rejection::new(RejectionCode::KeySetRefused, error.to_string()))?;
        Ok(Self::new(config, keys))
    }

    /// The same demands with other keys.
    #[must_use]
    pub fn with_keys(&self, keys: KeySet) -> Self {
        Self::new(self.config.clone(), keys)
    }

    /// What this validator demands.
    #[must_use]
    pub fn config(&self) -> &ValidatorConfig {
        &self.config
    }

    /// The keys that it believes.
    #[must_use]
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Judges a token at the time `now`, in seconds since 1970.
    ///
    /// # Errors
    /// The first check that the token fails, in the order of `docs/rejections.md`.
    pub fn validate(&self, token: &str, now: u64) -> Result<Validated, Rejection> {
        judge(&self.config, &self.keys, token, now, &mut Silent)
    }

    /// Judges a token as [`Validator::validate`] does, and tells each check.
    #[must_use]
    pub fn explain(&self, token: &str, now: u64) -> Explanation {
        let mut steps = Steps::default();
        let verdict = judge(&self.config, &self.keys, token, now, &mut steps);
        Explanation { steps: steps.0, verdict }
    }
}
