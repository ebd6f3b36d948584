//! Proofs as a client makes them: assertions and signed issuance requests.

use std::path::Path;

use chancery_policy::proof::{ASSERTION_TYP, SIGNED_REQUEST_TYP};
use chancery_token::client::ClientKey;
use chancery_token::{b64, jws};
use serde_json::{Value, json};

/// How long a proof made here is valid, in seconds.
const PROOF_SECONDS: u64 = 60;

/// A client with its key.
pub struct Client {
    id: String,
    key: ClientKey,
}

impl Client {
    /// A client whose key is in a PKCS#8 PEM file.
    pub fn load(id: &str, file: &Path) -> anyhow::Result<Self> {
        let pem = std::fs::read_to_string(file).map_err(|e| {
            anyhow::anyhow!(
                "client key `{}`: {e}; start `chancery serve` once in development mode, or name \
                 --client and --key",
                file.display()
            )
        })?;
        let key = ClientKey::from_pkcs8_pem(&pem)
            .map_err(|e| anyhow::anyhow!("client key `{}`: {e}", file.display()))?;
        Ok(Self { id: id.to_owned(), key })
    }

    /// A client from its key, for benches.
    pub fn new(id: &str, key: ClientKey) -> Self {
        Self { id: id.to_owned(), key }
    }

    /// A `private_key_jwt` assertion for a realm's issuer, naming the log where it is known.
    pub fn assertion(&self, issuer: &str, log: Option<&str>) -> anyhow::Result<String> {
        self.sign(ASSERTION_TYP, self.claims(issuer, log)?)
    }

    /// A signed issuance request.
    pub fn request(
        &self,
        issuer: &str,
        log: Option<&str>,
        requests: Vec<Value>,
    ) -> anyhow::Result<String> {
        let mut claims = self.claims(issuer, log)?;
        if let Some(members) = claims.as_object_mut() {
            members.insert("requests".into(), requests.into());
        }
        self.sign(SIGNED_REQUEST_TYP, claims)
    }

    fn claims(&self, issuer: &str, log: Option<&str>) -> anyhow::Result<Value> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let now = crate::now();
        let mut claims = json!({
            "iss": self.id,
            "sub": self.id,
            "aud": issuer,
            "iat": now,
            "exp": now.saturating_add(PROOF_SECONDS),
            "jti": b64::encode(&random),
        });
        if let (Some(members), Some(log)) = (claims.as_object_mut(), log) {
            members.insert("log".into(), log.into());
        }
        Ok(claims)
    }

    fn sign(&self, typ: &str, claims: Value) -> anyhow::Result<String> {
        let key = self.key.signing_key();
        let public = key.public();
        let payload = claims.to_string();
        let input = jws::signing_input(public.algorithm(), typ, &public.kid(), payload.as_bytes());
        let signature = key.sign(input.as_bytes())?;
        Ok(jws::assemble(input, &signature))
    }
}
