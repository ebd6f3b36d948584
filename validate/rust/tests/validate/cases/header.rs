//! Headers that must not be believed.

use aws_lc_rs::hmac;
use chancery_token::{Algorithm, SigningKey, b64};
use chancery_validate::RejectionCode::{
    AlgorithmNone, AlgorithmNotOfKey, CriticalHeader, EmbeddedKey, MissingKid, UnknownKey,
    WrongType,
};
use serde_json::{Value, json};

use crate::corpus::Case;
use crate::draft::{Draft, by, good, key, other};

pub fn cases() -> Vec<Case> {
    [algorithms(), extensions(), embedded_keys(), types(), kids()].concat()
}

fn algorithms() -> Vec<Case> {
    let none = |id: &str, alg: &str| {
        good().header("alg", alg).rejected(AlgorithmNone, id, "an unsigned token, by its own word")
    };
    let named = |draft: Draft, alg: &str, id: &str, reason: &str| {
        draft.header("alg", alg).rejected(AlgorithmNotOfKey, id, reason)
    };
    let es256 = key(Algorithm::Es256);
    vec![
        none("alg_none", "none"),
        none("alg_none_capital", "None"),
        none("alg_none_mixed", "nOnE"),
        none("alg_none_spaces", " none "),
        hmac_with(
            es256.public().raw(),
            "alg_hs256_raw_key",
            "HMAC keyed with the octets of the public key",
        ),
        hmac_with(
            es256.public().canonical_jwk().as_bytes(),
            "alg_hs256_jwk",
            "HMAC keyed with the text of the public key",
        ),
        named(
            good(),
            "HS256",
            "alg_hs256_signed",
            "the key's own signature under a symmetric name",
        ),
        named(good(), "RS256", "alg_rs256_of_ec_key", "a name of another key type"),
        named(good(), "ES384", "alg_es384_of_p256_key", "a name of another curve"),
        named(
            good(),
            "es256",
            "alg_lower_case",
            "names are case-sensitive (RFC 7515 section 4.1.1)",
        ),
        named(good(), "ES256 ", "alg_trailing_space", "names are exact"),
        named(good(), "", "alg_empty", "an empty name"),
        named(good(), "ES256K", "alg_unknown", "a name of no algorithm here"),
        named(
            by(Algorithm::Rs256),
            "PS256",
            "alg_ps256_of_rs256_key",
            "an RSA key is bound to one padding",
        ),
        named(
            by(Algorithm::Ps256),
            "RS256",
            "alg_rs256_of_ps256_key",
            "an RSA key is bound to one padding",
        ),
        named(
            by(Algorithm::Ed25519),
            "EdDSA",
            "alg_eddsa",
            "the deprecated name, where nothing allows it",
        ),
        named(by(Algorithm::Ed25519), "Ed448", "alg_ed448", "a name of another curve"),
        named(
            good().config(|config| config.accept_eddsa = true),
            "EdDSA",
            "alg_eddsa_of_ec_key",
            "EdDSA is an alias for Ed25519 only",
        ),
        named(
            by(Algorithm::MlDsa44),
            "ML-DSA-65",
            "alg_ml_dsa_other_set",
            "a name of another parameter set",
        ),
    ]
}

/// The classic confusion: a public key used as a symmetric one.
fn hmac_with(secret: &[u8], id: &str, reason: &str) -> Case {
    let draft = good().header("alg", "HS256");
    let input =
        format!("{}.{}", b64::encode(&draft.header_bytes()), b64::encode(&draft.claims_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    draft.signature(|_| tag.as_ref().to_vec()).rejected(AlgorithmNotOfKey, id, reason)
}

fn extensions() -> Vec<Case> {
    let with = |name: &str, value: Value, id: &str, reason: &str| {
        good().header(name, value).rejected(CriticalHeader, id, reason)
    };
    vec![
        with("crit", json!(["exp"]), "crit", "an extension that must be understood"),
        with(
            "crit",
            json!([]),
            "crit_empty",
            "an empty list is not allowed either (RFC 7515 section 4.1.11)",
        ),
        with("b64", json!(false), "b64_false", "an unencoded payload (RFC 7797)"),
        with(
            "b64",
            json!(true),
            "b64_true",
            "b64 without crit is not allowed (RFC 7797 section 6)",
        ),
        with("zip", json!("DEF"), "zip", "compression belongs to JWE"),
    ]
}

fn embedded_keys() -> Vec<Case> {
    let thief: &'static SigningKey = other(Algorithm::Es256);
    let with = |name: &str, value: Value, id: &str, reason: &str| {
        good().header(name, value).signed_by(thief).rejected(EmbeddedKey, id, reason)
    };
    vec![
        with("jwk", Value::Object(thief.public().jwk()), "jwk", "the token brings its own key"),
        with(
            "jku",
            json!("https://attacker.example/jwks.json"),
            "jku",
            "the token names its own key set",
        ),
        with(
            "x5u",
            json!("https://attacker.example/a.pem"),
            "x5u",
            "the token names its own certificate",
        ),
        with("x5c", json!(["MIIB"]), "x5c", "the token brings its own certificate"),
        good().header("jwk", Value::Object(key(Algorithm::Es256).public().jwk())).rejected(
            EmbeddedKey,
            "jwk_right_key",
            "even the right key is not read from a token",
        ),
    ]
}

fn types() -> Vec<Case> {
    let typ = |typ: &str, id: &str, reason: &str| {
        good().header("typ", typ).rejected(WrongType, id, reason)
    };
    vec![
        good().no_header("typ").rejected(WrongType, "typ_missing", "it may be an ID token"),
        typ("JWT", "typ_jwt", "the general type says nothing"),
        typ("", "typ_empty", "an empty type"),
        typ("at+jwt ", "typ_trailing_space", "not exactly the type"),
        typ("text/at+jwt", "typ_other_tree", "another top-level type"),
        typ(
            "application/application/at+jwt",
            "typ_prefix_twice",
            "the prefix is left out once only",
        ),
        typ("logout+jwt", "typ_logout", "a logout token of the same issuer"),
        good()
            .config(|config| {
                config.accepted_typ.clear();
                config.allow_missing_typ = true;
            })
            .rejected(
                WrongType,
                "typ_only_none_accepted",
                "only tokens without a type are accepted",
            ),
    ]
}

fn kids() -> Vec<Case> {
    let kid = |kid: String, id: &str, reason: &str| {
        good().header("kid", kid).rejected(UnknownKey, id, reason)
    };
    let right = key(Algorithm::Es256).public().kid().to_string();
    vec![
        good().no_header("kid").rejected(
            MissingKid,
            "kid_missing",
            "the only key of the set is not tried",
        ),
        kid(String::new(), "kid_empty", "an empty kid names no key"),
        kid(
            other(Algorithm::Es256).public().kid().to_string(),
            "kid_unknown",
            "the right signature under a kid that is not in the set",
        ),
        kid(format!("{right} "), "kid_trailing_space", "kids compare octet by octet"),
        kid(right.to_uppercase(), "kid_other_case", "kids are case-sensitive"),
        kid("../../etc/passwd".to_owned(), "kid_path", "a kid is not a path"),
        kid("' OR 1=1 --".to_owned(), "kid_sql", "a kid is not a query"),
    ]
}
