//! The keys of one issuer, as far as they are believed.

use std::collections::HashMap;
use std::sync::Arc;

use chancery_token::jwks::{KeySet, Member};

use crate::explain::shown;
use crate::{Profile, Rejection, RejectionCode};

const EXPOSED: &str = "its publisher has shown its private half";

/// Why a key is not believed that the set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// What would announce it could not be read, so the key may be good.
    Unread(String),
    /// What was read does not announce it.
    Refuted(String),
    /// Its publisher has shown its private half.
    Exposed,
}

impl Doubt {
    /// Why, for a person.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Unread(why) | Self::Refuted(why) => why,
            Self::Exposed => EXPOSED.to_owned(),
        }
    }
}

/// The keys of one issuer, as far as they are believed. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// `None` if there is none at hand.
    set: Option<Arc<KeySet>>,
    /// Keys of the set that are not believed, and why.
    doubts: Arc<HashMap<String, Doubt>>,
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

    /// A set of which those keys are not believed that `doubts` names by `kid`, with why.
    pub(crate) fn announced(set: Arc<KeySet>, doubts: HashMap<String, Doubt>) -> Self {
        Self { set: Some(set), doubts: Arc::new(doubts) }
    }

    /// The same, without belief in keys whose private halves were shown ([`KeySet::exposed`]).
    #[must_use]
    pub fn without(&self, is_exposed: impl Fn(&Member) -> bool) -> Self {
        let members = self.set.iter().flat_map(|set| set.members());
        let exposed: Vec<_> = members.filter(|member| is_exposed(member)).collect();
        if exposed.is_empty() {
            return self.clone();
        }
        let mut doubts = (*self.doubts).clone();
        doubts.extend(exposed.into_iter().map(|key| (key.kid.clone(), Doubt::Exposed)));
        Self { set: self.set.clone(), doubts: Arc::new(doubts) }
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
        members.map(|member| member.kid.as_str()).filter(|kid| !self.doubts.contains_key(*kid))
    }

    pub(crate) fn find(&self, kid: &str) -> Result<&Member, Rejection> {
        let set = self.set.as_ref().ok_or_else(not_at_hand)?;
        if let Some(why) = self.doubts.get(kid) {
            let (code, why) = match why {
                Doubt::Unread(why) => (RejectionCode::KeysUnavailable, why.as_str()),
                Doubt::Refuted(why) => (RejectionCode::KeyNotAnnounced, why.as_str()),
                Doubt::Exposed => (RejectionCode::KeyMalformed, EXPOSED),
            };
            let text = format!("key `{}` is not believed: {why}", shown(kid));
            return Err(Rejection::new(code, text));
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
        Self { set: Some(Arc::new(set)), doubts: Arc::default() }
    }
}
