//! Clients and the proofs that they make, right and wrong ones.

use std::path::Path;

use chancery_policy::proof::{ASSERTION_TYP, SIGNED_REQUEST_TYP};
use chancery_token::client::ClientKey;
use chancery_token::{Algorithm, b64, jws};
use serde_json::{Map, Value, json};

/// How long a proof is valid, in seconds.
const PROOF_SECONDS: u64 = 60;

/// Unix seconds now.
#[must_use]
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// A client with its key.
#[derive(Debug)]
pub struct TestClient {
    id: String,
    key: ClientKey,
}

impl TestClient {
    /// A client with a new key.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new(id: &str, algorithm: Algorithm) -> Self {
        Self { id: id.to_owned(), key: ClientKey::generate(algorithm).expect("client key") }
    }

    /// A client whose key is in a file, such as the demo client of development mode.
    ///
    /// # Panics
    /// When the file holds no key.
    #[must_use]
    pub fn load(id: &str, file: &Path) -> Self {
        let pem = std::fs::read_to_string(file).expect("client key file");
        Self { id: id.to_owned(), key: ClientKey::from_pkcs8_pem(&pem).expect("client key") }
    }

    /// Its client id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public JWK, for configurations.
    #[must_use]
    pub fn jwk(&self) -> Map<String, Value> {
        self.key.signing_key().public().jwk()
    }

    /// Writes its key where `--key` finds it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn save(&self, file: &Path) {
        std::fs::write(file, self.key.to_pkcs8_pem().as_bytes()).expect("client key file");
    }

    /// The claims of a proper proof; `log` names the signer's log.
    ///
    /// # Panics
    /// Without randomness.
    #[must_use]
    pub fn claims(&self, issuer: &str, log: Option<&str>) -> Map<String, Value> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).expect("randomness");
        let claims = json!({
            "iss": self.id,
            "sub": self.id,
            "aud": issuer,
            "iat": now(),
            "exp": now().saturating_add(PROOF_SECONDS),
            "jti": b64::encode(&random),
        });
        let mut claims = claims.as_object().cloned().unwrap_or_default();
        if let Some(log) = log {
            claims.insert("log".into(), log.into());
        }
        claims
    }

    /// A `private_key_jwt` assertion.
    #[must_use]
    pub fn assertion(&self, issuer: &str, log: Option<&str>) -> String {
        self.sign(ASSERTION_TYP, self.claims(issuer, log))
    }

    /// A signed issuance request.
    #[must_use]
    pub fn request(&self, issuer: &str, log: Option<&str>, requests: Vec<Value>) -> String {
        let mut claims = self.claims(issuer, log);
        claims.insert("requests".into(), requests.into());
        self.sign(SIGNED_REQUEST_TYP, claims)
    }

    /// Signs any claims, for proofs that should be refused.
    ///
    /// # Panics
    /// When signing fails.
    #[must_use]
    pub fn sign(&self, typ: &str, claims: Map<String, Value>) -> String {
        let key = self.key.signing_key();
        let public = key.public();
        let payload = Value::Object(claims).to_string();
        let input = jws::signing_input(public.algorithm(), typ, &public.kid(), payload.as_bytes());
        let signature = key.sign(input.as_bytes()).expect("signature");
        jws::assemble(input, &signature)
    }

    /// The form of a token request with this assertion and further parameters, which are encoded
    /// already.
    #[must_use]
    pub fn form(assertion: &str, more: &str) -> String {
        format!(
            "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
             client-assertion-type%3Ajwt-bearer&client_assertion={assertion}{more}"
        )
    }
}
