//! JWK Sets (RFC 7517, section 5) with the members that Chancery adds.
//!
//! Each key carries for whom it may speak (`issuer`), when it may sign (`nbf`, `signs_until`), when
//! it leaves the set (`exp`) and where it was announced (`log`). INVARIANT I3 rests on a validator
//! that reads them; other validators ignore them.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::error::shown;
use crate::json::{self, optional_str, required_str, seconds};
use crate::{Algorithm, Error, KeyId, PublicKey, jwk};

/// Keys of one set. A signer keeps at most 64 live; this is a fleet of four at that limit.
pub const MAX_KEYS: usize = 256;

/// Bytes of one set: [`MAX_KEYS`] ML-DSA-87 keys of 3.8 KiB.
pub const MAX_SET_BYTES: usize = 1024 * 1024;

/// When a key may sign, in whole seconds since 1970, half-open: `nbf <= iat < signs_until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first second in which the key signs.
    pub nbf: u64,
    /// The first second in which it no longer does.
    pub signs_until: u64,
}

impl Window {
    /// Whether a token issued at `iat` falls into the window.
    #[must_use]
    pub const fn contains(&self, iat: u64) -> bool {
        self.nbf <= iat && iat < self.signs_until
    }
}

/// One usable key of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key's id in this set. Chancery's are thumbprints, other publishers' need not be.
    pub kid: String,
    /// The key, bound to its algorithm.
    pub key: PublicKey,
    /// The only issuer that the key may speak for, compared as a string with `iss`.
    pub issuer: Option<String>,
    /// When the key may sign; `None` if the publisher does not say.
    pub window: Option<Window>,
    /// When the key leaves the set, in seconds since 1970.
    pub exp: Option<u64>,
    /// Where the key was announced: `<log id>.<index>`. Not interpreted here.
    pub log: Option<String>,
}

impl Member {
    /// A member for `key` with its thumbprint as `kid` and nothing else said.
    #[must_use]
    pub fn new(key: PublicKey) -> Self {
        Self { kid: key.kid().to_string(), key, issuer: None, window: None, exp: None, log: None }
    }

    /// The public JWK with Chancery's members.
    #[must_use]
    pub fn jwk(&self) -> Map<String, Value> {
        let mut jwk = self.key.jwk();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                jwk.insert(name.to_owned(), value);
            }
        };
        set("kid", Some(self.kid.as_str().into()));
        set("issuer", self.issuer.as_deref().map(Value::from));
        set("nbf", self.window.map(|window| window.nbf.into()));
        set("signs_until", self.window.map(|window| window.signs_until.into()));
        set("exp", self.exp.map(Value::from));
        set("log", self.log.as_deref().map(Value::from));
        jwk
    }

    /// Reads one member of a set.
    ///
    /// # Errors
    /// Those of [`PublicKey::from_jwk`]; [`Error::MissingMember`] without `kid`;
    /// [`Error::MemberType`], [`Error::Seconds`] and [`Error::Window`] for Chancery's members.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Error> {
        Self::from_jwk_as(jwk, None)
    }

    /// Reads one member of a set; an RSA key without `alg` is one for `rsa`, if that is given.
    fn from_jwk_as(jwk: &Map<String, Value>, rsa: Option<Algorithm>) -> Result<Self, Error> {
        let unnamed = jwk.get("kty").is_some_and(|kty| kty == "RSA") && !jwk.contains_key("alg");
        let key = PublicKey::from_jwk_as(jwk, rsa.filter(|_| unnamed))?;
        Ok(Self {
            kid: required_str(jwk, "kid")?.to_owned(),
            key,
            issuer: optional_str(jwk, "issuer")?.map(str::to_owned),
            window: if rsa.is_some() { read_foreign_window(jwk)? } else { read_window(jwk)? },
            exp: optional_seconds(jwk, "exp")?,
            log: optional_str(jwk, "log")?.map(str::to_owned),
        })
    }
}

/// A key whose private half its publisher has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// What the set calls it.
    pub kid: Option<String>,
    /// The thumbprint of its public half (RFC 7638), if that can be read: the key under any name.
    pub thumbprint: Option<KeyId>,
}

impl Exposed {
    fn of(jwk: &Map<String, Value>) -> Self {
        let kid = jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
        let public = jwk.iter().filter(|(name, _)| jwk::PUBLIC_MEMBERS.contains(&name.as_str()));
        let public = public.map(|(name, value)| (name.clone(), value.clone())).collect();
        // Which of RSA's algorithms it is for is no part of an RSA key's thumbprint.
        let key = PublicKey::from_jwk(&public)
            .or_else(|_| PublicKey::from_jwk_as(&public, Some(Algorithm::Rs256)));
        Self { kid, thumbprint: key.ok().map(|key| key.kid()) }
    }

    /// Whether this member has the key, or its name.
    #[must_use]
    pub fn is(&self, member: &Member) -> bool {
        self.kid.as_deref() == Some(&member.kid) || self.thumbprint == Some(member.key.kid())
    }
}

/// A key set: the usable keys by `kid`, and what was refused.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    members: Vec<Member>,
    by_kid: HashMap<String, usize>,
    /// Members that are not usable, with their `kid` (if they have one) and the reason. A key that
    /// a validator misses is explained here.
    pub refused: Vec<(Option<String>, Error)>,
}

impl KeySet {
    /// Reads a JWK Set of at most [`MAX_SET_BYTES`].
    ///
    /// # Errors
    /// [`Error::TooLarge`], those of [`json::parse_object`] and of [`KeySet::from_object`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_SET_BYTES {
            return Err(Error::TooLarge { what: "key set", limit: MAX_SET_BYTES });
        }
        Self::from_object(&json::parse_object(bytes)?)
    }

    /// Reads the `keys` of an object that was parsed strictly, such as the payload of a signed set.
    /// Its other members are ignored (RFC 7517, section 5).
    ///
    /// A member that this crate cannot use is put aside in [`KeySet::refused`], as RFC 7517 asks.
    /// What makes the set as a whole untrustworthy refuses all of it.
    ///
    /// # Errors
    /// [`Error::MissingMember`] or [`Error::MemberType`] unless `keys` is a list of objects;
    /// [`Error::TooManyKeys`]; [`Error::PrivateMember`] and [`Error::SymmetricKey`] if any member
    /// is secret; [`Error::DuplicateKid`] if two members share a `kid`, usable or not.
    pub fn from_object(set: &Map<String, Value>) -> Result<Self, Error> {
        Self::from_object_as(set, None)
    }

    /// Reads a JWK Set in which RSA keys need not say `alg`: RFC 7517, section 4.4 makes the member
    /// optional, and large publishers leave it out. Each such key is bound to `rsa`, and to nothing
    /// else. Some publishers write `nbf` for when a key was made; only with `signs_until` it is a
    /// window.
    ///
    /// # Errors
    /// Those of [`KeySet::parse`].
    pub fn parse_as(bytes: &[u8], rsa: Algorithm) -> Result<Self, Error> {
        if bytes.len() > MAX_SET_BYTES {
            return Err(Error::TooLarge { what: "key set", limit: MAX_SET_BYTES });
        }
        Self::from_object_as(&json::parse_object(bytes)?, Some(rsa))
    }

    fn from_object_as(set: &Map<String, Value>, rsa: Option<Algorithm>) -> Result<Self, Error> {
        let keys = set.get("keys").ok_or(Error::MissingMember("keys"))?;
        let keys = keys.as_array().ok_or(Error::MemberType("keys"))?;
        if keys.len() > MAX_KEYS {
            return Err(Error::TooManyKeys);
        }
        let mut jwks = Vec::with_capacity(keys.len());
        let mut kids = HashSet::new();
        for key in keys {
            let jwk = key.as_object().ok_or(Error::MemberType("keys"))?;
            jwk::refuse_secrets(jwk)?;
            let kid = jwk.get("kid").and_then(Value::as_str);
            if let Some(kid) = kid
                && !kids.insert(kid)
            {
                return Err(Error::DuplicateKid(shown(kid)));
            }
            jwks.push((kid, jwk));
        }
        let mut result = Self::default();
        for (kid, jwk) in jwks {
            match Member::from_jwk_as(jwk, rsa) {
                Ok(member) => result.add(member),
                Err(error) => result.refused.push((kid.map(str::to_owned), error)),
            }
        }
        Ok(result)
    }

    /// The members of a set that show a private or symmetric key. Such a set is refused as a whole;
    /// this says which keys nobody should trust any more, whoever published them before.
    #[must_use]
    pub fn exposed(bytes: &[u8]) -> Vec<Exposed> {
        let Ok(set) = json::parse_object(bytes) else { return Vec::new() };
        let keys = set.get("keys").and_then(Value::as_array).into_iter().flatten();
        let members = keys.filter_map(Value::as_object).take(MAX_KEYS);
        members.filter(|jwk| jwk::refuse_secrets(jwk).is_err()).map(Exposed::of).collect()
    }

    /// Makes a set of members that are at hand.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`] and [`Error::DuplicateKid`].
    pub fn from_members(members: Vec<Member>) -> Result<Self, Error> {
        if members.len() > MAX_KEYS {
            return Err(Error::TooManyKeys);
        }
        let mut result = Self::default();
        for member in members {
            if result.get(&member.kid).is_some() {
                return Err(Error::DuplicateKid(shown(&member.kid)));
            }
            result.add(member);
        }
        Ok(result)
    }

    fn add(&mut self, member: Member) {
        self.by_kid.insert(member.kid.clone(), self.members.len());
        self.members.push(member);
    }

    /// The key with this `kid`, compared octet by octet.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<&Member> {
        self.members.get(*self.by_kid.get(kid)?)
    }

    /// The usable keys, in the order of the set.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

/// Reads a JWK Set; the same as [`KeySet::parse`].
///
/// # Errors
/// Those of [`KeySet::parse`].
pub fn parse(bytes: &[u8]) -> Result<KeySet, Error> {
    KeySet::parse(bytes)
}

/// The JWK Set of `members`, in their order.
#[must_use]
pub fn to_json(members: &[Member]) -> String {
    let keys: Vec<Value> = members.iter().map(|member| Value::Object(member.jwk())).collect();
    Value::Object(Map::from_iter([("keys".to_owned(), Value::Array(keys))])).to_string()
}

/// INVARIANT I3: half a window is no window, and an empty one belongs to no key.
fn read_window(jwk: &Map<String, Value>) -> Result<Option<Window>, Error> {
    match (optional_seconds(jwk, "nbf")?, optional_seconds(jwk, "signs_until")?) {
        (None, None) => Ok(None),
        (Some(nbf), Some(signs_until)) if nbf < signs_until => {
            Ok(Some(Window { nbf, signs_until }))
        }
        _ => Err(Error::Window),
    }
}

/// A window in a set of others: `nbf` alone is none.
fn read_foreign_window(jwk: &Map<String, Value>) -> Result<Option<Window>, Error> {
    if jwk.contains_key("signs_until") { read_window(jwk) } else { Ok(None) }
}

fn optional_seconds(jwk: &Map<String, Value>, member: &'static str) -> Result<Option<u64>, Error> {
    jwk.get(member).map(|value| seconds(member, value)).transpose()
}

#[cfg(test)]
mod tests;
