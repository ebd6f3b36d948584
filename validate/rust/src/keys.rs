//! The keys of one issuer, as far as they are believed.

use std::collections::HashMap;
use std::sync::Arc;

use chancery_token::jwks::{KeySet, Member};

use crate::explain::shown;
use crate::{Profile, Rejection, RejectionCode};

/// The keys of one issuer, as far as they are believed. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// `None` if there is none at hand.
    set: Option<Arc<KeySet>>,
    /// Keys of the set that are not believed for want of an announcement, and why.
    unannounced: Arc<HashMap<String, String>>,
}

impl Keys {
    /// Reads a JWK Set as it was served, at most
    /// [`MAX_SET_BYTES`](chancery_token::jwks::MAX_SET_BYTES) long. Under the profiles `oidc` and
    /// `entra` an RSA key without `alg` is one for RS256.
    ///
    /// # Errors
    /// [`RejectionCode::KeySetRefused`]; the detail says why.
    pub fn parse(profile: Profile, jwks: &[u8]) -> Result<Self, Rejection> {
        let set = match profile.rsa_without_alg() {
            Some(algorithm) => KeySet::parse_as(jwks, algorithm),
            None => KeySet::parse(jwks),
        };
        set.map(Self::from)
            .map_err(|error| Rejection::new(RejectionCode::KeySetRefused, error.to_string()))
    }

    /// No key set at hand: every token of the issuer is rejected, as retryable.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::default()
    }

    /// A set of which those keys are not believed that `unannounced` names by `kid`, with why.
    pub(crate) fn announced(set: Arc<KeySet>, unannounced: HashMap<String, String>) -> Self {
        Self { set: Some(set), unannounced: Arc::new(unannounced) }
    }

    /// The set as it was served, the keys that are not believed among them; `None` if there is none
    /// at hand.
    #[must_use]
    pub fn set(&self) -> Option<&KeySet> {
        self.set.as_deref()
    }

    /// The `kid` of each key that is believed.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        let members = self.set.iter().flat_map(|set| set.members());
        members.map(|member| member.kid.as_str()).filter(|kid| !self.unannounced.contains_key(*kid))
    }

    /// Whether the set holds a key of this name, believed, unannounced or malformed: fetching the
    /// set again would not help to find it.
    #[must_use]
    pub fn names(&self, kid: &str) -> bool {
        self.set.as_ref().is_some_and(|set| {
            set.get(kid).is_some()
                || set.refused.iter().any(|(refused, _)| refused.as_deref() == Some(kid))
        })
    }

    pub(crate) fn find(&self, kid: &str) -> Result<&Member, Rejection> {
        let set = self.set.as_ref().ok_or_else(not_at_hand)?;
        if let Some(why) = self.unannounced.get(kid) {
            let text = format!("key `{}` is not believed: {why}", shown(kid));
            return Err(Rejection::new(RejectionCode::KeyNotAnnounced, text));
        }
        if let Some(key) = set.get(kid) {
            return Ok(key);
        }
        let mut refused = set.refused.iter();
        Err(match refused.find(|(refused, _)| refused.as_deref() == Some(kid)) {
            Some((_, error)) => {
                let text = format!("key `{}` of the set is not usable: {error}", shown(kid));
                Rejection::new(RejectionCode::KeyMalformed, text)
            }
            None => {
                let text = format!("no key of the set has kid `{}`", shown(kid));
                Rejection::new(RejectionCode::UnknownKey, text)
            }
        })
    }
}

pub(crate) fn not_at_hand() -> Rejection {
    Rejection::new(RejectionCode::KeysUnavailable, "the issuer's key set is not at hand")
}

impl From<KeySet> for Keys {
    fn from(set: KeySet) -> Self {
        Self { set: Some(Arc::new(set)), unannounced: Arc::default() }
    }
}
