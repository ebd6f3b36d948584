//! Wycheproof vectors of the signature schemes themselves, through [`PublicKey::verify`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery_token::client::ClientKey;
use chancery_token::{Algorithm, PublicKey};
use serde_json::Value;

use crate::{hex, run};

/// Runs a file whose groups hold a key as JWK, and perhaps its octets at `raw`.
fn run_jwk(file: &str, algorithm: Algorithm, raw: &str) {
    let prepare = |group: &Value| {
        let raw = group.pointer(raw).map(hex);
        let jwk = group.get("publicKeyJwk").or(group.get("keyJwk"));
        let from_jwk =
            jwk.map(|jwk| PublicKey::from_jwk_as(jwk.as_object().unwrap(), Some(algorithm)));
        let from_raw = raw.map(|raw| PublicKey::from_raw(algorithm, &raw));
        if let (Some(from_jwk), Some(from_raw)) = (&from_jwk, &from_raw) {
            assert_eq!(from_jwk, from_raw, "{group}");
        }
        from_jwk.or(from_raw).expect("a key").ok()
    };
    run(file, prepare, |key, test| {
        key.as_ref().is_some_and(|key| key.verify(&hex(&test["msg"]), &hex(&test["sig"])).is_ok())
    });
}

#[test]
fn ecdsa() {
    let raw = "/publicKey/uncompressed";
    run_jwk("sig-primitives/ecdsa_secp256r1_sha256_p1363_test.json", Algorithm::Es256, raw);
    run_jwk("sig-primitives/ecdsa_secp384r1_sha384_p1363_test.json", Algorithm::Es384, raw);
}

#[test]
fn ed25519() {
    run_jwk("sig-primitives/ed25519_test.json", Algorithm::Ed25519, "/publicKey/pk");
}

#[test]
fn rsa_pkcs1() {
    run_jwk("sig-primitives/rsa_signature_2048_sha256_test.json", Algorithm::Rs256, "/none");
    run_jwk("sig-primitives/rsa_signature_3072_sha256_test.json", Algorithm::Rs256, "/none");
}

#[test]
fn rsa_pss() {
    run_jwk("sig-primitives/rsa_pss_2048_sha256_mgf1_32_test.json", Algorithm::Ps256, "/none");
    run_jwk("sig-primitives/rsa_pss_3072_sha256_mgf1_32_test.json", Algorithm::Ps256, "/none");
}

/// Verifies with an empty context, the only one that JOSE has (RFC 9964, section 4).
fn run_ml_dsa_verify(file: &str, algorithm: Algorithm) {
    let prepare = |group: &Value| PublicKey::from_raw(algorithm, &hex(&group["publicKey"])).ok();
    run(file, prepare, |key, test| {
        key.as_ref().is_some_and(|key| key.verify(&hex(&test["msg"]), &hex(&test["sig"])).is_ok())
    });
}

#[test]
fn ml_dsa_44_verify() {
    run_ml_dsa_verify("mldsa/mldsa_44_verify_test.json", Algorithm::MlDsa44);
}

#[test]
fn ml_dsa_65_verify() {
    run_ml_dsa_verify("mldsa/mldsa_65_verify_test.json", Algorithm::MlDsa65);
}

#[test]
fn ml_dsa_87_verify() {
    run_ml_dsa_verify("mldsa/mldsa_87_verify_test.json", Algorithm::MlDsa87);
}

/// Signing draws randomness, so the signatures in these files cannot be made again. What is checked
/// is that a seed gives their public key, that their signatures verify under it, and that ours do.
fn run_ml_dsa_sign(file: &str, algorithm: Algorithm) {
    let prepare = |group: &Value| {
        let key = ml_dsa_from_seed(algorithm, &hex(&group["privateSeed"]))?;
        let public = key.signing_key().public();
        assert_eq!(public.raw(), hex(&group["publicKey"]));
        let signature = key.signing_key().sign(b"message").unwrap();
        assert_eq!(public.verify(b"message", &signature), Ok(()));
        if let Some(document) = group.get("privateKeyPkcs8") {
            let read = ClientKey::from_pkcs8_pem_as(&pem(&hex(document)), algorithm).unwrap();
            assert_eq!(read.signing_key().public(), public);
        }
        Some(public.clone())
    };
    run(file, prepare, |key, test| match (key, test.get("msg")) {
        (Some(key), Some(message)) => key.verify(&hex(message), &hex(&test["sig"])).is_ok(),
        _ => false,
    });
}

#[test]
fn ml_dsa_44_sign() {
    run_ml_dsa_sign("mldsa/mldsa_44_sign_seed_test.json", Algorithm::MlDsa44);
}

#[test]
fn ml_dsa_65_sign() {
    run_ml_dsa_sign("mldsa/mldsa_65_sign_seed_test.json", Algorithm::MlDsa65);
}

#[test]
fn ml_dsa_87_sign() {
    run_ml_dsa_sign("mldsa/mldsa_87_sign_seed_test.json", Algorithm::MlDsa87);
}

/// The key that a seed gives, through the seed form of RFC 9881's private keys.
pub(crate) fn ml_dsa_from_seed(algorithm: Algorithm, seed: &[u8]) -> Option<ClientKey> {
    let set = match algorithm {
        Algorithm::MlDsa44 => 0x11,
        Algorithm::MlDsa65 => 0x12,
        Algorithm::MlDsa87 => 0x13,
        other => panic!("no seed form for {other}"),
    };
    let len = u8::try_from(seed.len()).unwrap();
    let mut der =
        vec![0x30, 20 + len, 2, 1, 0, 0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, set];
    der.extend([4, 2 + len, 0x80, len]);
    der.extend(seed);
    ClientKey::from_pkcs8_pem_as(&pem(&der), algorithm).ok()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}
