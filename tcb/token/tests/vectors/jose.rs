//! JWS, JWK and JWK Set vectors: Wycheproof, the IETF cookbook (RFC 7520), RFC 9964's examples.

use aws_lc_rs::hmac;
use chancery_token::client::ClientKey;
use chancery_token::jwks::KeySet;
use chancery_token::{Algorithm, Error, PublicKey, b64, jws};
use serde_json::{Map, Value};

use crate::{hex, load, run};

/// A group's key. HMAC exists here only, so that the vectors about encoding, all of them HS256,
/// exercise this crate's parser.
enum Key {
    Public(Box<PublicKey>),
    Hmac(Box<hmac::Key>),
    Set(KeySet),
    Refused,
}

fn group_key(group: &Value) -> Key {
    let jwk = group.get("public").unwrap_or(&group["private"]).as_object().unwrap();
    if jwk.contains_key("keys") {
        return KeySet::parse(Value::Object(jwk.clone()).to_string().as_bytes())
            .map_or(Key::Refused, Key::Set);
    }
    if jwk["kty"] == "oct" {
        assert_eq!(PublicKey::from_jwk(jwk).unwrap_err(), Error::SymmetricKey);
        let secret = b64::decode(jwk["k"].as_str().unwrap()).unwrap();
        return Key::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
    }
    PublicKey::from_jwk(jwk).map_or(Key::Refused, |key| Key::Public(Box::new(key)))
}

fn accepts(key: &Key, test: &Value) -> bool {
    let Some(jws) = test.get("jws") else { return false };
    let text = jws.as_str().map_or_else(|| jws.to_string(), str::to_owned);
    let Ok(compact) = jws::parse(&text, jws::MAX_TOKEN_BYTES) else { return false };
    match key {
        Key::Public(key) => jws::verify(&compact, key, false).is_ok(),
        Key::Hmac(key) => {
            compact.header.alg == "HS256"
                && hmac::verify(key, compact.signing_input.as_bytes(), &compact.signature).is_ok()
        }
        Key::Set(set) => {
            let kid = compact.header.kid.as_deref().unwrap_or_default();
            set.get(kid).is_some_and(|member| jws::verify(&compact, &member.key, false).is_ok())
        }
        Key::Refused => false,
    }
}

#[test]
fn wycheproof_jws() {
    run("jose/json_web_signature_test.json", group_key, accepts);
}

#[test]
fn wycheproof_jwk() {
    run("jose/json_web_key_test.json", group_key, accepts);
}

#[test]
fn wycheproof_crypto() {
    run("jose/json_web_crypto_test.json", group_key, accepts);
}

fn cookbook(file: &str) -> Option<Value> {
    load(&format!("jose/cookbook/{file}"))
}

fn cookbook_jwk(file: &str) -> Option<Map<String, Value>> {
    Some(cookbook(file)?.as_object().unwrap().clone())
}

#[test]
fn cookbook_keys() {
    for (file, error) in [
        ("jwk/3_1.ec_public_key.json", Error::UnknownCurve("P-521".into())),
        ("jwk/3_2.ec_private_key.json", Error::PrivateMember("d")),
        ("jwk/3_3.rsa_public_key.json", Error::AlgorithmMissing),
        ("jwk/3_4.rsa_private_key.json", Error::PrivateMember("d")),
        ("jwk/3_5.symmetric_key_mac_computation.json", Error::SymmetricKey),
        ("jwk/3_6.symmetric_key_encryption.json", Error::SymmetricKey),
    ] {
        let Some(jwk) = cookbook_jwk(file) else { return };
        assert_eq!(PublicKey::from_jwk(&jwk).unwrap_err(), error, "{file}");
    }
}

#[test]
fn cookbook_signatures() {
    let Some(jwk) = cookbook_jwk("jwk/3_3.rsa_public_key.json") else { return };
    let key = PublicKey::from_jwk_as(&jwk, Some(Algorithm::Rs256)).unwrap();
    let rs256 = cookbook("jws/4_1.rsa_v15_signature.json").unwrap();
    let compact =
        jws::parse(rs256["output"]["compact"].as_str().unwrap(), jws::MAX_TOKEN_BYTES).unwrap();
    assert_eq!(compact.payload, rs256["input"]["payload"].as_str().unwrap().as_bytes());
    assert_eq!(jws::verify(&compact, &key, false), Ok(()));

    // PS384, ES512 and HS256 parse and are refused by name, whatever the key.
    for (file, alg) in [
        ("jws/4_2.rsa-pss_signature.json", "PS384"),
        ("jws/4_3.ecdsa_signature.json", "ES512"),
        ("jws/4_4.hmac-sha2_integrity_protection.json", "HS256"),
    ] {
        let vector = cookbook(file).unwrap();
        let compact =
            jws::parse(vector["output"]["compact"].as_str().unwrap(), jws::MAX_TOKEN_BYTES)
                .unwrap();
        let mismatch = Error::AlgorithmMismatch { expected: Algorithm::Rs256, found: alg.into() };
        assert_eq!(jws::verify(&compact, &key, false), Err(mismatch), "{file}");
    }
}

#[test]
fn cookbook_detached_and_unencoded_content_is_refused() {
    let Some(detached) = cookbook("jws/4_5.signature_with_detached_content.json") else { return };
    let text = detached["output"]["compact"].as_str().unwrap();
    assert_eq!(jws::parse(text, jws::MAX_TOKEN_BYTES), Err(Error::EmptyPart("payload")));
    for (file, member) in [
        ("rfc7797/4.2.hmac-sha2_b64_false.json", "crit"),
        ("rfc7797/hmac-sha2_b64_false.json", "crit"),
    ] {
        let vector = cookbook(file).unwrap();
        // The second file's own encoding of its header is not the header, and not JSON.
        let header = b64::encode(vector["signing"]["protected"].to_string().as_bytes());
        let token = format!("{header}.e30.AAAA");
        assert_eq!(
            jws::parse(&token, jws::MAX_TOKEN_BYTES),
            Err(Error::RefusedHeader(member)),
            "{file}"
        );
    }
}

#[test]
fn cookbook_ed25519() {
    let Some(vector) = cookbook("curve25519/jws.json") else { return };
    let mut jwk = vector["input"]["key"].as_object().unwrap().clone();
    assert_eq!(PublicKey::from_jwk(&jwk), Err(Error::PrivateMember("d")));
    jwk.remove("d");
    let key = PublicKey::from_jwk(&jwk).unwrap();
    let compact =
        jws::parse(vector["output"]["compact"].as_str().unwrap(), jws::MAX_TOKEN_BYTES).unwrap();
    assert_eq!(jws::verify(&compact, &key, true), Ok(()));
    let mismatch = Error::AlgorithmMismatch { expected: Algorithm::Ed25519, found: "EdDSA".into() };
    assert_eq!(jws::verify(&compact, &key, false), Err(mismatch));
}

#[test]
fn examples_of_rfc_9964() {
    for (algorithm, file) in [
        (Algorithm::MlDsa44, "mldsa/ML_DSA_44.jose.json"),
        (Algorithm::MlDsa65, "mldsa/ML_DSA_65.jose.json"),
        (Algorithm::MlDsa87, "mldsa/ML_DSA_87.jose.json"),
    ] {
        let Some(vector) = load(file) else { return };
        let jwk = vector["jwk"].as_object().unwrap();
        let mut public = jwk.clone();
        if public.remove("priv").is_some() {
            assert_eq!(PublicKey::from_jwk(jwk), Err(Error::PrivateMember("priv")));
        }
        let key = PublicKey::from_jwk(&public).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.raw(), hex(&vector["raw_public_key"]));
        assert_eq!(key.kid().to_string(), jwk["kid"], "{file}");

        let compact = jws::parse(vector["jws"].as_str().unwrap(), jws::MAX_TOKEN_BYTES).unwrap();
        assert_eq!(compact.signature, hex(&vector["raw_signature"]));
        assert_eq!(compact.signing_input.as_bytes(), hex(&vector["raw_to_be_signed"]));
        assert_eq!(jws::verify(&compact, &key, false), Ok(()), "{file}");

        let own = crate::primitives::ml_dsa_from_seed(algorithm, &hex(&vector["priv"])).unwrap();
        assert_eq!(own.signing_key().public(), &key, "{file}");
        let pem: &str = &own.to_pkcs8_pem();
        assert_eq!(ClientKey::from_pkcs8_pem(pem).unwrap().signing_key().public(), &key);
    }
}

#[test]
fn composite_keys_are_refused_by_name() {
    for alg in ["ML-DSA-44-ES256", "ML-DSA-65-Ed25519"] {
        let jwk = serde_json::json!({"kty": "AKP", "alg": alg, "kid": "c", "pub": "AAAA"});
        let refused = PublicKey::from_jwk(jwk.as_object().unwrap());
        assert_eq!(refused, Err(Error::UnknownAlgorithm(alg.into())));
    }
}
