//! The policy as decisions use it: keys parsed, names looked up in constant time.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use chancery_token::{Algorithm, PublicKey};
use serde_json::Value;

use crate::document::{
    ClientDocument, Error, GrantDocument, KubernetesDocument, PolicyDocument, Schedule,
};
use crate::{Refusal, RefusalCode};

/// A policy version in force.
#[derive(Debug)]
pub struct Policy {
    version: u64,
    digest: [u8; 32],
    log_prefix: String,
    witnessed: Option<String>,
    protections: Vec<String>,
    realms: HashMap<String, Arc<Realm>>,
}

/// One realm.
#[derive(Debug)]
pub struct Realm {
    /// Its name.
    pub name: String,
    /// The URL in `iss`.
    pub issuer: String,
    /// Algorithms; the first is the default.
    pub algorithms: Vec<Algorithm>,
    /// Size of RSA keys in bits.
    pub rsa_bits: u16,
    /// The life of its keys.
    pub schedule: Schedule,
    /// Version of the policy that it belongs to.
    pub policy_version: u64,
    /// Set where it signs tokens of Kubernetes service accounts, and nothing else.
    pub kubernetes: Option<KubernetesDocument>,
    clients: HashMap<String, Arc<Client>>,
}

/// One client of a realm.
#[derive(Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its keys, each with the `kid` that proofs name.
    keys: Vec<(String, PublicKey)>,
    /// Its grants.
    pub grants: Vec<GrantDocument>,
    /// The most tokens a second.
    pub max_tokens_per_s: Option<u32>,
    /// How many unexpired proofs are remembered.
    pub replay_capacity: u32,
    /// Whether `EdDSA` is accepted as a name in proofs.
    pub accept_eddsa: bool,
}

impl Policy {
    /// Parses, checks and compiles a document.
    ///
    /// # Errors
    /// [`Error`], naming the place.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let document = PolicyDocument::parse(bytes)?;
        let mut realms = HashMap::new();
        for realm in document.realms {
            let mut clients = HashMap::new();
            for client in realm.clients {
                clients.insert(client.id.clone(), Arc::new(Client::compile(client)?));
            }
            let compiled = Realm {
                name: realm.name.clone(),
                issuer: realm.issuer,
                algorithms: realm.algorithms,
                rsa_bits: realm.rsa_bits,
                schedule: realm.schedule,
                policy_version: document.version,
                kubernetes: realm.kubernetes,
                clients,
            };
            realms.insert(realm.name, Arc::new(compiled));
        }
        let mut sha256 = [0; 32];
        for (to, from) in sha256.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
            *to = *from;
        }
        Ok(Self {
            version: document.version,
            digest: sha256,
            log_prefix: document.log_prefix,
            witnessed: document.witnessed,
            protections: document.protections,
            realms,
        })
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// SHA-256 of the document.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Prefix of log origins.
    #[must_use]
    pub fn log_prefix(&self) -> &str {
        &self.log_prefix
    }

    /// The tlog-policy that frees signatures, if they wait for witnesses; [`crate::witnessed::parse`]
    /// reads it.
    #[must_use]
    pub fn witnessed(&self) -> Option<&str> {
        self.witnessed.as_deref()
    }

    /// Protections that the signer's process must have.
    #[must_use]
    pub fn protections(&self) -> &[String] {
        &self.protections
    }

    /// A realm by name.
    ///
    /// # Errors
    /// The refusal [`RefusalCode::UnknownRealm`].
    pub fn realm(&self, name: &str) -> Result<&Arc<Realm>, Refusal> {
        self.realms.get(name).ok_or_else(|| {
            Refusal::new(RefusalCode::UnknownRealm, format!("no realm `{}`", name.escape_debug()))
        })
    }

    /// All realms, in no particular order.
    pub fn realms(&self) -> impl Iterator<Item = &Arc<Realm>> {
        self.realms.values()
    }
}

impl Realm {
    /// A client by id; no signature has been verified yet.
    ///
    /// # Errors
    /// The refusal [`RefusalCode::UnknownClient`].
    pub fn client(&self, id: &str) -> Result<&Arc<Client>, Refusal> {
        self.clients.get(id).ok_or_else(|| {
            Refusal::new(
                RefusalCode::UnknownClient,
                format!("realm `{}` has no such client; check `iss` and `sub`", self.name),
            )
        })
    }

    /// Ids of all clients, in no particular order.
    pub fn clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.values()
    }
}

impl Client {
    fn compile(document: ClientDocument) -> Result<Self, Error> {
        let mut keys = Vec::with_capacity(document.keys.len());
        for jwk in &document.keys {
            let key = PublicKey::from_jwk(jwk).map_err(|e| Error::Value {
                at: format!("client `{}`", document.id),
                what: e.to_string(),
            })?;
            let kid = match jwk.get("kid") {
                Some(Value::String(kid)) => kid.clone(),
                _ => key.kid().to_string(),
            };
            keys.push((kid, key));
        }
        Ok(Self {
            id: document.id,
            keys,
            grants: document.grants,
            max_tokens_per_s: document.max_tokens_per_s,
            replay_capacity: document.replay_capacity,
            accept_eddsa: document.accept_eddsa,
        })
    }

    /// The key that a proof names. A client with a single key may leave `kid` out.
    ///
    /// # Errors
    /// The refusal [`RefusalCode::UnknownClientKey`].
    pub fn key(&self, kid: Option<&str>) -> Result<&PublicKey, Refusal> {
        let found = match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|(name, _)| name == kid),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.map(|(_, key)| key).ok_or_else(|| {
            Refusal::new(
                RefusalCode::UnknownClientKey,
                "no key of this client has the proof's `kid`; name the RFC 7638 thumbprint or the \
                 registered `kid`",
            )
        })
    }
}
