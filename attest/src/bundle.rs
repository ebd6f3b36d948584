//! From a token to the hardware's root, offline (INVARIANT I8): one file holds what is needed beside
//! the token, and each step of the walk is told. Nothing in the file is believed for itself; the
//! caller's policy has the reference values, the roots are built in.

use chancery_entry::{Announcement, Entry, Genesis, TokenEntry};
use chancery_tlog::note::{KeyType, VerifierKey};
use chancery_tlog::{LogId, TlogProof, leaf_hash};
use chancery_token::{PublicKey, json, jws};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bytes::{Base64, hex};
use crate::error::Error;
use crate::policy::Policy;
use crate::result::{AttestationResult, Check};
use crate::signer::SignerEvidence;

/// The largest bundle that is read: evidence, three proofs and two entries.
pub const MAX_BUNDLE_BYTES: usize = 4 * 1024 * 1024;

const VERSION: u32 = 1;

/// What leads from a token to evidence. Nothing of it is verified yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    version: u32,
    /// The verifier key of the signer's log (c2sp.org/signed-note).
    pub vkey: String,
    /// That the token is in the log (c2sp.org/tlog-proof).
    pub token: String,
    /// The announcement of the token's key.
    pub announcement: Logged,
    /// The log's first entry.
    pub genesis: Logged,
    /// The evidence that genesis names.
    pub evidence: SignerEvidence,
}

/// An entry and the proof that it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// The entry.
    pub entry: Base64,
    /// c2sp.org/tlog-proof.
    pub proof: String,
}

/// The walk: every step that could be made, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Walk {
    /// Whether every step was made and passed, down to the evidence.
    pub accepted: bool,
    /// Each step with what it saw.
    pub steps: Vec<Check>,
    /// The judgement on the evidence; `None` where there was nothing to judge.
    pub result: Option<AttestationResult>,
}

impl Bundle {
    /// The bundle of these parts.
    #[must_use]
    pub fn new(
        vkey: String,
        token: String,
        announcement: Logged,
        genesis: Logged,
        evidence: SignerEvidence,
    ) -> Self {
        Self { version: VERSION, vkey, token, announcement, genesis, evidence }
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            let (what, limit) = ("the bundle", MAX_BUNDLE_BYTES);
            return Err(Error::TooLarge { what, bytes: bytes.len(), limit });
        }
        let malformed = |e: &dyn std::fmt::Display| Error::malformed("bundle", e);
        let parsed: Self = serde_json::from_slice(bytes).map_err(|e| malformed(&e))?;
        if parsed.version != VERSION {
            return Err(malformed(&format!("`version` is {}, not {VERSION}", parsed.version)));
        }
        parsed.evidence.clone().check()?;
        Ok(parsed)
    }

    /// The bundle's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists of them: there is nothing that could fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Walks from a token to the root of its signer's hardware, judging the evidence by this policy at
    /// this time (Unix seconds). Whether the token is still valid, and for whom, is not asked: that is
    /// what validators do.
    #[must_use]
    pub fn walk(&self, token: &str, policy: &Policy, at: u64) -> Walk {
        let mut steps = Steps(Vec::new());
        let result = self.make(token, policy, at, &mut steps).flatten();
        let evidence = result.as_ref().is_some_and(|result| result.accepted);
        let accepted = evidence && steps.0.iter().all(|step| step.passed);
        Walk { accepted, steps: steps.0, result }
    }

    /// `None` where a step has nothing to go on with.
    fn make(
        &self,
        token: &str,
        policy: &Policy,
        at: u64,
        steps: &mut Steps,
    ) -> Option<Option<AttestationResult>> {
        let token = steps.take("token", Token::parse(token))?;
        let announced = steps.take("announcement", self.announced())?;
        steps.note("key_signed_token", announced.signed(&token));
        steps.note("key_in_window", announced.covers(&token));
        let log = steps.take("log", self.log(&token))?;
        let announcement = log.holds(&self.announcement.entry.0, &self.announcement.proof, None);
        steps.note("announcement_in_log", announcement);
        steps.note("token_in_log", log.holds(&token.entry, &self.token, Some(token.index)));
        let genesis = log.holds(&self.genesis.entry.0, &self.genesis.proof, Some(0));
        steps.note("genesis_in_log", genesis);
        let genesis = steps.take("genesis", self.genesis())?;
        steps.note("evidence_of_genesis", self.evidence_of(&genesis));
        steps.note("identity_keys", self.identity(&log, &genesis));
        let result = self.evidence.appraise(policy, at);
        let shown = match &result {
            Ok(result) if result.accepted => {
                let release = result.release.as_deref().unwrap_or("no known release");
                Ok(format!("{} evidence, {release}", result.kind))
            }
            Ok(result) => Err(format!("{} checks failed", result.failures().count())),
            Err(e) => Err(e.to_string()),
        };
        steps.note("evidence", shown);
        Some(result.ok())
    }

    fn announced(&self) -> Result<(Announced, String), String> {
        let Entry::Announcement(said) = decode(&self.announcement.entry)? else {
            return Err("the entry announces no key".to_owned());
        };
        let jwk = json::parse_object(said.jwk.as_bytes());
        let key = jwk.and_then(|mut jwk| {
            jwk.insert("alg".to_owned(), said.algorithm.clone().into());
            PublicKey::from_jwk(&jwk)
        });
        let key = key.map_err(|e| e.to_string())?;
        if *key.kid().as_bytes() != said.kid {
            return Err("it names another key than it shows".to_owned());
        }
        let shown = format!("key `{}` of issuer `{}`", key.kid(), said.issuer);
        Ok((Announced { said, key }, shown))
    }

    /// The log is the one that the token names, and its id is that of its key.
    fn log(&self, token: &Token<'_>) -> Result<(TheLog, String), String> {
        let key = VerifierKey::parse(&self.vkey).map_err(|e| e.to_string())?;
        let public = <&[u8; 32]>::try_from(key.public_key()).ok();
        let public = public.filter(|_| key.key_type() == KeyType::Ed25519);
        let id = public.map(LogId::of).ok_or("its key is not an Ed25519 key")?;
        if token.log != id {
            return Err(format!("the key is that of log `{id}`, and the token names another one"));
        }
        if key.name().rsplit('/').next() != Some(id.to_string().as_str()) {
            return Err(format!("its origin does not end in its id `{id}`"));
        }
        let shown = format!("`{}`, by its own identity key", key.name());
        Ok((TheLog { key }, shown))
    }

    fn genesis(&self) -> Result<(Genesis, String), String> {
        match decode(&self.genesis.entry)? {
            Entry::Genesis(genesis) => {
                let shown = format!("`{}`, started at {}", genesis.software, genesis.started_at);
                Ok((genesis, shown))
            }
            _ => Err("the entry is no genesis".to_owned()),
        }
    }

    fn evidence_of(&self, genesis: &Genesis) -> Result<String, String> {
        let digest = self.evidence.digest();
        if genesis.evidence_digest != Some(digest) {
            return Err("genesis names other evidence, or none".to_owned());
        }
        if self.evidence.policy_digest.0 != genesis.policy_digest {
            return Err("the evidence is bound to another policy than genesis names".to_owned());
        }
        Ok(format!("SHA-256 {}", hex(&digest)))
    }

    /// The evidence is about the keys of this log, and of no other.
    fn identity(&self, log: &TheLog, genesis: &Genesis) -> Result<String, String> {
        let typed = |kind: KeyType, key: &[u8]| [&[kind.byte()], key].concat();
        let mut keys = vec![typed(KeyType::Ed25519, log.key.public_key())];
        let cosigning = genesis.cosigning_key.as_deref();
        keys.extend(cosigning.map(|key| typed(KeyType::MlDsa44Cosignature, key)));
        let shown = format!("the {} that sign the log's checkpoints", keys.len());
        let bound = self.evidence.identity_keys.iter().map(|key| &key.0).eq(keys.iter());
        if bound { Ok(shown) } else { Err(format!("the evidence is not about {shown}")) }
    }
}

/// A token, as far as it says where it stands. Its signature is not verified yet.
struct Token<'t> {
    compact: jws::Compact<'t>,
    claims: Map<String, Value>,
    iat: u64,
    exp: u64,
    log: LogId,
    index: u64,
    entry: Vec<u8>,
}

impl<'t> Token<'t> {
    fn parse(token: &'t str) -> Result<(Self, String), String> {
        let failed = |e: chancery_token::Error| e.to_string();
        let compact = jws::parse(token, jws::MAX_TOKEN_BYTES).map_err(failed)?;
        let claims = json::parse_object(&compact.payload).map_err(failed)?;
        let seconds = |name: &'static str| {
            let value = claims.get(name).ok_or_else(|| format!("it has no `{name}`"))?;
            json::seconds(name, value).map_err(failed)
        };
        let (iat, exp) = (seconds("iat")?, seconds("exp")?);
        let kid = compact.header.kid.as_deref().unwrap_or_default();
        let kid: chancery_token::KeyId = kid.parse().map_err(failed)?;
        let jti = claims.get("jti").and_then(Value::as_str).unwrap_or_default();
        let mut parts = jti.split('.');
        let log = parts.next().and_then(|id| id.parse().ok());
        let index = parts.next().and_then(|index| index.parse().ok());
        let (Some(log), Some(index)) = (log, index) else {
            return Err("its `jti` names no place in a log".to_owned());
        };
        let entry = TokenEntry::of(*kid.as_bytes(), iat, exp, compact.signing_input.as_bytes());
        let entry = Entry::Token(entry).encode().map_err(|e| e.to_string())?;
        let shown = format!("at index {index} of log `{log}`, by key `{kid}`");
        Ok((Self { compact, claims, iat, exp, log, index, entry }, shown))
    }
}

struct Announced {
    said: Announcement,
    key: PublicKey,
}

impl Announced {
    fn signed(&self, token: &Token<'_>) -> Result<String, String> {
        let kid = self.key.kid().to_string();
        if token.compact.header.kid.as_deref() != Some(kid.as_str()) {
            return Err("the token names another key".to_owned());
        }
        jws::verify(&token.compact, &self.key, false).map_err(|e| e.to_string())?;
        Ok(format!("{} over header and payload", self.said.algorithm))
    }

    fn covers(&self, token: &Token<'_>) -> Result<String, String> {
        let said = &self.said;
        let issuer = token.claims.get("iss").and_then(Value::as_str);
        if issuer != Some(said.issuer.as_str()) {
            return Err(format!("the key speaks for `{}` alone", said.issuer));
        }
        let (iat, from, until) = (token.iat, said.nbf, said.signs_until);
        if iat < from || iat >= until {
            return Err(format!("issued at {iat}, and the key signs from {from} to {until}"));
        }
        let lifetime = token.exp.saturating_sub(iat);
        if lifetime > said.max_lifetime_s {
            return Err(format!(
                "it lives {lifetime} s, at most {} s are announced",
                said.max_lifetime_s
            ));
        }
        Ok(format!("issued at {iat}, within {from} to {until}, for `{}`", said.issuer))
    }
}

struct TheLog {
    key: VerifierKey,
}

impl TheLog {
    fn holds(&self, entry: &[u8], proof: &str, index: Option<u64>) -> Result<String, String> {
        let proof = TlogProof::parse(proof).map_err(|e| e.to_string())?;
        if index.is_some_and(|index| index != proof.index) {
            return Err(format!("the proof is about entry {}", proof.index));
        }
        let checkpoint = proof.verify(&leaf_hash(entry), std::slice::from_ref(&self.key));
        let checkpoint = checkpoint.map_err(|e| e.to_string())?;
        Ok(format!("entry {} under the signed checkpoint of size {}", proof.index, checkpoint.size))
    }
}

fn decode(entry: &Base64) -> Result<Entry, String> {
    Entry::decode(&entry.0).map_err(|e| e.to_string())
}

struct Steps(Vec<Check>);

impl Steps {
    fn note(&mut self, name: &'static str, outcome: Result<String, String>) {
        let passed = outcome.is_ok();
        let (Ok(value) | Err(value)) = outcome;
        self.0.push(Check { name, passed, value });
    }

    fn take<T>(&mut self, name: &'static str, outcome: Result<(T, String), String>) -> Option<T> {
        match outcome {
            Ok((taken, shown)) => {
                self.note(name, Ok(shown));
                Some(taken)
            }
            Err(why) => {
                self.note(name, Err(why));
                None
            }
        }
    }
}
