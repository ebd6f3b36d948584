//! Public keys as Go's `x509.ParsePKIXPublicKey` and go-jose take them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use chancery_token::b64;
use serde_json::{Value, json};

/// The key kinds that matter, by the DER of their object identifiers (RFC 3279, RFC 5480, RFC 8410).
const KINDS: [(Kind, &[u8]); 5] = [
    (Kind::Rsa, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]),
    (Kind::P256, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
    (Kind::P384, &[0x2b, 0x81, 0x04, 0x00, 0x22]),
    (Kind::P521, &[0x2b, 0x81, 0x04, 0x00, 0x23]),
    (Kind::Ed25519, &[0x06, 0x03, 0x2b, 0x65, 0x70]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Kind {
    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::Rsa => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::P256 => Some(&ECDSA_P256_SHA256_FIXED),
            Self::P384 => Some(&ECDSA_P384_SHA384_FIXED),
            Self::P521 => Some(&ECDSA_P521_SHA512_FIXED),
            Self::Ed25519 => None,
        }
    }

    /// The algorithm under which the API server publishes and verifies; RSA is RS256 whatever the
    /// signer means.
    pub fn algorithm(self) -> Option<&'static str> {
        match self {
            Self::Rsa => Some("RS256"),
            Self::P256 => Some("ES256"),
            Self::P384 => Some("ES384"),
            Self::P521 => Some("ES512"),
            Self::Ed25519 => None,
        }
    }

    /// Octets of a coordinate.
    fn coordinate(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
            Self::Rsa | Self::Ed25519 => 0,
        }
    }
}

/// A key that parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    pub kind: Kind,
    der: Vec<u8>,
}

impl Public {
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        if der.first() != Some(&0x30) {
            return Err("asn1: structure error: tags don't match".to_owned());
        }
        let head = &der[..der.len().min(40)];
        let has = |oid: &[u8]| head.windows(oid.len()).any(|window| window == oid);
        let kind = KINDS.iter().find(|(_, oid)| has(oid)).map(|(kind, _)| *kind);
        let kind = kind.ok_or("x509: unknown public key algorithm")?;
        match kind.verification() {
            Some(verification) => {
                ParsedPublicKey::new(verification, der).map_err(|e| format!("x509: {e}"))?;
            }
            None if der.len() == 44 => {}
            None => return Err("x509: wrong Ed25519 public key size".to_owned()),
        }
        Ok(Self { kind, der: der.to_vec() })
    }

    /// Whether the signature, as a JWS has it, is this key's under the algorithm that the header names.
    pub fn verify(&self, algorithm: &str, input: &str, signature: &[u8]) -> Result<(), String> {
        if self.kind.algorithm() != Some(algorithm) {
            return Err("the key is not one for this algorithm".to_owned());
        }
        let verification = self.kind.verification().ok_or("no such key")?;
        let key = ParsedPublicKey::new(verification, &self.der).map_err(|e| e.to_string())?;
        key.verify_sig(input.as_bytes(), signature).map_err(|_| "bad signature".to_owned())
    }

    /// The member of a JWKS; an Ed25519 key has none, and spoils the whole set.
    pub fn jwk(&self, kid: &str) -> Result<Value, String> {
        let algorithm = self.kind.algorithm();
        let algorithm = algorithm.ok_or("unknown public key type ed25519.PublicKey")?;
        let mut jwk = json!({"kid": kid, "use": "sig", "alg": algorithm});
        let size = self.kind.coordinate();
        if size > 0 {
            let point = &self.der[self.der.len() - 2 * size..];
            jwk["kty"] = "EC".into();
            jwk["x"] = b64::encode(&point[..size]).into();
            jwk["y"] = b64::encode(&point[size..]).into();
        } else {
            jwk["kty"] = "RSA".into();
        }
        Ok(jwk)
    }
}
