//! Making tokens and key sets that are good, or wrong in exactly one way.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chancery_token::jwks::{Member, Window};
use chancery_token::{Algorithm, RsaBits, SigningKey, b64, jws};
use chancery_validate::{Profile, RejectionCode, ValidatorConfig};
use serde_json::{Map, Value, json};

use crate::corpus::{Case, Config};

pub const ISSUER: &str = "https://issuer.example/organizations";
pub const AUDIENCE: &str = "https://api.example";
/// The time of the cases: a moment in 2027.
pub const NOW: u64 = 1_800_000_000;
/// The window of the keys.
pub const WINDOW: Window = Window { nbf: NOW - 600, signs_until: NOW + 3000 };
/// When the keys leave their set.
pub const LEAVES: u64 = NOW + 10_000;
pub const LOG: &str = "AAECAwQFBgcICQoLDA0ODw";
pub const RANDOM: &str = "EBESExQVFhcYGRobHB0eHw";

static KEYS: LazyLock<Vec<SigningKey>> = LazyLock::new(|| {
    let generate = |algorithm| SigningKey::generate(algorithm, RsaBits::B2048).unwrap();
    Algorithm::ALL.into_iter().map(generate).collect()
});

static OTHERS: LazyLock<Vec<SigningKey>> = LazyLock::new(|| {
    [Algorithm::Es256, Algorithm::Ed25519]
        .into_iter()
        .map(|algorithm| SigningKey::generate(algorithm, RsaBits::B2048).unwrap())
        .collect()
});

/// The issuer's key for an algorithm.
pub fn key(algorithm: Algorithm) -> &'static SigningKey {
    KEYS.iter().find(|key| key.public().algorithm() == algorithm).unwrap()
}

/// Somebody else's key, ES256 or Ed25519.
pub fn other(algorithm: Algorithm) -> &'static SigningKey {
    OTHERS.iter().find(|key| key.public().algorithm() == algorithm).unwrap()
}

/// The member of a key set for a key, with everything that `strict` demands.
pub fn member(key: &SigningKey) -> Member {
    Member {
        issuer: Some(ISSUER.to_owned()),
        window: Some(WINDOW),
        exp: Some(LEAVES),
        log: Some(format!("{LOG}.1")),
        ..Member::new(key.public().clone())
    }
}

/// The text of a key set.
pub fn key_set(members: &[Map<String, Value>]) -> String {
    json!({ "keys": members }).to_string()
}

/// Claims that are acceptable at [`NOW`].
pub fn claims() -> Map<String, Value> {
    let claims = json!({
        "iss": ISSUER, "sub": "client-7", "aud": AUDIENCE, "client_id": "client-7",
        "iat": NOW - 60, "exp": NOW + 540, "jti": format!("{LOG}.42.{RANDOM}"),
    });
    claims.as_object().unwrap().clone()
}

/// Signs a header and a payload as they are.
pub fn sign(key: &SigningKey, header: &[u8], payload: &[u8]) -> String {
    let input = format!("{}.{}", b64::encode(header), b64::encode(payload));
    let signature = key.sign(input.as_bytes()).unwrap();
    jws::assemble(input, &signature)
}

/// A token with its key set, configuration and time: good until something is changed.
#[derive(Clone)]
pub struct Draft {
    key: &'static SigningKey,
    header: Map<String, Value>,
    header_text: Option<Vec<u8>>,
    claims: Map<String, Value>,
    payload: Option<Vec<u8>>,
    members: Vec<Map<String, Value>>,
    set_text: Option<String>,
    token: Option<String>,
    config: ValidatorConfig,
    other_sets: BTreeMap<String, String>,
    now: u64,
}

/// A good ES256 token.
pub fn good() -> Draft {
    by(Algorithm::Es256)
}

/// A good token of an algorithm.
pub fn by(algorithm: Algorithm) -> Draft {
    let key = key(algorithm);
    let kid = key.public().kid().to_string();
    let header = json!({ "alg": algorithm.as_str(), "typ": "at+jwt", "kid": kid });
    Draft {
        key,
        header: header.as_object().unwrap().clone(),
        header_text: None,
        claims: claims(),
        payload: None,
        members: vec![member(key).jwk()],
        set_text: None,
        token: None,
        config: ValidatorConfig::new(ISSUER, AUDIENCE),
        other_sets: BTreeMap::new(),
        now: NOW,
    }
}

impl Draft {
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    pub fn no_header(mut self, name: &str) -> Self {
        self.header.remove(name).unwrap();
        self
    }

    /// The header's bytes instead of the members.
    pub fn header_text(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.header_text = Some(text.into());
        self
    }

    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    pub fn no_claim(mut self, name: &str) -> Self {
        self.claims.remove(name).unwrap();
        self
    }

    /// The payload's bytes instead of the claims.
    pub fn payload(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(bytes.into());
        self
    }

    /// Changes a member of the token's key in the key set.
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members[0].insert(name.to_owned(), value.into());
        self
    }

    pub fn no_member(mut self, name: &str) -> Self {
        self.members[0].remove(name).unwrap();
        self
    }

    /// Adds another key to the set.
    pub fn also(mut self, jwk: Map<String, Value>) -> Self {
        self.members.push(jwk);
        self
    }

    /// The key set's text instead of the members.
    pub fn set_text(mut self, text: impl Into<String>) -> Self {
        self.set_text = Some(text.into());
        self
    }

    /// Signs with another key than the header says.
    pub fn signed_by(mut self, key: &'static SigningKey) -> Self {
        self.key = key;
        self
    }

    pub fn config(mut self, change: impl FnOnce(&mut ValidatorConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// The defaults of a profile, for the same issuer and audience.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.config = ValidatorConfig::of_profile(profile, ISSUER, AUDIENCE);
        self
    }

    /// Another accepted issuer, with its key set.
    pub fn issuer(mut self, issuer: &str, set: String) -> Self {
        self.config.issuers.push(issuer.to_owned());
        self.other_sets.insert(issuer.to_owned(), set);
        self
    }

    pub fn at(mut self, now: u64) -> Self {
        self.now = now;
        self
    }

    /// Changes the signed token's text.
    pub fn text(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.token = Some(change(self.token()));
        self
    }

    /// Changes the token's signature.
    pub fn signature(self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        self.text(|token| {
            let (input, signature) = token.rsplit_once('.').unwrap();
            jws::assemble(input.to_owned(), &change(b64::decode(signature).unwrap()))
        })
    }

    pub fn header_bytes(&self) -> Vec<u8> {
        // In the order in which signers write it, because what a validator knows begins with that.
        let members = || {
            let rank = |name: &str| ["alg", "typ", "kid"].iter().position(|own| *own == name);
            let mut names: Vec<&String> = self.header.keys().collect();
            names.sort_by_key(|name| rank(name).unwrap_or(usize::MAX));
            let member = |name: &&String| format!("{}:{}", json!(name), self.header[*name]);
            format!("{{{}}}", names.iter().map(member).collect::<Vec<_>>().join(","))
        };
        self.header_text.clone().unwrap_or_else(|| members().into_bytes())
    }

    pub fn claims_bytes(&self) -> Vec<u8> {
        let claims = || Value::Object(self.claims.clone()).to_string().into_bytes();
        self.payload.clone().unwrap_or_else(claims)
    }

    pub fn token(&self) -> String {
        let signed = || sign(self.key, &self.header_bytes(), &self.claims_bytes());
        self.token.clone().unwrap_or_else(signed)
    }

    pub fn keys(&self) -> String {
        self.set_text.clone().unwrap_or_else(|| key_set(&self.members))
    }

    pub fn configuration(&self) -> ValidatorConfig {
        self.config.clone()
    }

    pub fn accepted(self, id: &str, reason: &str) -> Case {
        self.case(id, "valid", reason)
    }

    pub fn rejected(self, code: RejectionCode, id: &str, reason: &str) -> Case {
        self.case(id, code.as_str(), reason)
    }

    fn case(self, id: &str, expect: &str, reason: &str) -> Case {
        Case {
            id: id.to_owned(),
            reason: reason.to_owned(),
            expect: expect.to_owned(),
            now: self.now,
            token: self.token(),
            key_set: self.keys(),
            other_key_sets: self.other_sets,
            config: Config::from(&self.config),
        }
    }
}
