use serde_json::json;

use super::*;
use crate::fixtures::{jwk_with, key};
use crate::jwks::{KeySet, MAX_KEYS, MAX_SET_BYTES};
use crate::{KeyId, PublicKey, b64, client::ClientKey, json, jws};

fn jwk_error(algorithm: Algorithm, changes: &[(&str, serde_json::Value)]) -> Error {
    PublicKey::from_jwk(&jwk_with(algorithm, changes)).unwrap_err()
}

fn header_error(header: &str) -> Error {
    jws::parse(&format!("{}.e30.AA", b64::encode(header.as_bytes())), jws::MAX_TOKEN_BYTES)
        .unwrap_err()
}

fn set_error(set: &str) -> Error {
    KeySet::parse(set.as_bytes()).unwrap_err()
}

/// Real input for every variant, and the text that a person then reads.
fn every_variant() -> Vec<(Error, &'static str)> {
    [of_texts(), of_tokens(), of_jwks(), of_key_material(), of_use()].concat()
}

fn of_texts() -> Vec<(Error, &'static str)> {
    vec![
        (
            set_error(&" ".repeat(MAX_SET_BYTES + 1)),
            "the key set is longer than 1048576 bytes; send a shorter one",
        ),
        (
            b64::decode("=").unwrap_err(),
            "not canonical base64url: use the URL alphabet, no padding, no whitespace, zero trailing bits",
        ),
        (json::parse(b"\"\xff\"").unwrap_err(), "json text is not valid UTF-8"),
        (
            json::parse(b"\xef\xbb\xbf{}").unwrap_err(),
            "json text starts with a byte order mark; remove it",
        ),
        (json::parse(b"{}x").unwrap_err(), "not json: trailing characters at line 1 column 3"),
        (
            json::parse("[".repeat(17).as_bytes()).unwrap_err(),
            "json is nested deeper than 16 levels",
        ),
        (
            json::parse(br#"{"a":1,"a":2}"#).unwrap_err(),
            "json member `a` occurs more than once in one object",
        ),
        (json::parse_object(b"[]").unwrap_err(), "json text is not an object"),
    ]
}

fn of_tokens() -> Vec<(Error, &'static str)> {
    let token = |text: &str| jws::parse(text, jws::MAX_TOKEN_BYTES).unwrap_err();
    vec![
        (header_error("{}"), "member `alg` is missing"),
        (header_error(r#"{"alg":1}"#), "member `alg` has the wrong json type"),
        (
            json::seconds("exp", &json!(1.0)).unwrap_err(),
            "member `exp` is not a whole number of seconds between 0 and 253402300799",
        ),
        (token("a.b"), "not a compact jws: it must have three parts separated by dots"),
        (token("e30..AA"), "member `alg` is missing"),
        (token("eyJhbGciOiJFUzI1NiJ9..AA"), "the payload part of the jws is empty"),
        (
            token("eyJhbGciOiJFUzI1NiJ9.e30.A"),
            "the signature part of the jws is not canonical base64url",
        ),
        (
            header_error(r#"{"alg":"ES256","crit":[]}"#),
            "header member `crit` is not accepted; sign without it",
        ),
        (header_error(r#"{"alg":"nOnE"}"#), "algorithm `none` is not accepted"),
    ]
}

fn of_jwks() -> Vec<(Error, &'static str)> {
    let es256 = Algorithm::Es256;
    vec![
        ("HS256".parse::<Algorithm>().unwrap_err(), "algorithm `HS256` is not supported"),
        (
            jwk_error(Algorithm::Rs256, &[("alg", json!(null))]),
            "the key does not say its algorithm; add member `alg`",
        ),
        (
            jwk_error(es256, &[("alg", json!("ES384"))]),
            "algorithm `ES384` where `ES256` is required",
        ),
        (
            jwk_error(Algorithm::Rs256, &[("alg", json!("ES256"))]),
            "algorithm `ES256` does not belong to key type `RSA`",
        ),
        (jwk_error(es256, &[("kty", json!("XX"))]), "key type `XX` is not supported"),
        (jwk_error(es256, &[("crv", json!("P-521"))]), "curve `P-521` is not supported"),
    ]
}

fn of_key_material() -> Vec<(Error, &'static str)> {
    let es256 = Algorithm::Es256;
    vec![
        (
            jwk_error(es256, &[("x", json!("A"))]),
            "key member `x` is not canonical base64url of the right form",
        ),
        (
            jwk_error(es256, &[("y", json!("AA"))]),
            "key member `y` has 1 octets where 32 are required",
        ),
        (jwk_error(es256, &[("y", json!("A".repeat(43)))]), "not a valid public key for `ES256`"),
        (
            jwk_error(Algorithm::Rs256, &[("n", json!("AQAB"))]),
            "rsa modulus of 17 bits: it must be odd and have 2048 to 4096 bits in whole octets",
        ),
        (
            jwk_error(Algorithm::Rs256, &[("e", json!("Aw"))]),
            "rsa exponent must be odd, at least 65537 and at most 32 bits long",
        ),
        (
            jwk_error(Algorithm::Ed25519, &[("x", json!("A".repeat(43)))]),
            "ed25519 key is a point of small order",
        ),
        (jwk_error(es256, &[("use", json!("enc"))]), "key is not for signatures: `use` is `enc`"),
        (
            jwk_error(es256, &[("key_ops", json!(["sign"]))]),
            "key is not for verifying: `key_ops` must contain `verify` and no value twice",
        ),
        (
            jwk_error(es256, &[("d", json!("AA"))]),
            "member `d` belongs to a private key; publish the public key only, and replace this one",
        ),
        (jwk_error(es256, &[("kty", json!("oct"))]), "symmetric keys are not accepted"),
    ]
}

fn of_use() -> Vec<(Error, &'static str)> {
    let es256 = Algorithm::Es256;
    let public = key(es256).public();
    vec![
        (
            "x".parse::<KeyId>().unwrap_err(),
            "not a key id: `x` is not 43 characters of canonical base64url",
        ),
        (
            set_error(r#"{"keys":[{"kid":"a"},{"kid":"a"}]}"#),
            "key set has more than one key with kid `a`",
        ),
        (
            set_error(&format!("{{\"keys\":[{}{{}}]}}", "{},".repeat(MAX_KEYS))),
            "key set has more than 256 keys",
        ),
        (
            crate::jwks::Member::from_jwk(&jwk_with(es256, &[("nbf", json!(1))])).unwrap_err(),
            "window needs both `nbf` and `signs_until`, the first before the second",
        ),
        (
            public.verify(b"", &[0; 63]).unwrap_err(),
            "signature has 63 octets where 64 are required",
        ),
        (public.verify(b"", &[1; 64]).unwrap_err(), "signature does not verify"),
        (
            ClientKey::from_pkcs8_pem("").unwrap_err(),
            "not a pem file with one `PRIVATE KEY` block; convert the key with `openssl pkcs8 -topk8 -nocrypt`",
        ),
        (
            ClientKey::from_pkcs8_pem(
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            )
            .unwrap_err(),
            "not an unencrypted pkcs#8 private key of a supported algorithm",
        ),
        // These two happen only when the library itself fails, which nothing here can bring about.
        (Error::Generate(es256), "cannot generate a key for `ES256`"),
        (Error::Sign(es256), "cannot sign with `ES256`"),
    ]
}

#[test]
fn every_variant_has_its_text() {
    for (error, text) in every_variant() {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn every_variant_was_tried() {
    let mut tried: Vec<_> = every_variant().iter().map(|(error, _)| name(error)).collect();
    tried.sort_unstable();
    tried.dedup();
    // The exhaustive match below keeps this number honest.
    assert_eq!(tried.len(), 42, "{tried:?}");
}

/// Fails to compile when a variant is added and not named here.
fn name(error: &Error) -> &'static str {
    match error {
        Error::TooLarge { .. } => "TooLarge",
        Error::Base64 => "Base64",
        Error::NotUtf8 => "NotUtf8",
        Error::ByteOrderMark => "ByteOrderMark",
        Error::Json(_) => "Json",
        Error::TooDeep => "TooDeep",
        Error::DuplicateMember(_) => "DuplicateMember",
        Error::NotAnObject => "NotAnObject",
        Error::MissingMember(_) => "MissingMember",
        Error::MemberType(_) => "MemberType",
        Error::Seconds(_) => "Seconds",
        Error::Parts => "Parts",
        Error::EmptyPart(_) => "EmptyPart",
        Error::PartEncoding(_) => "PartEncoding",
        Error::RefusedHeader(_) => "RefusedHeader",
        Error::AlgorithmNone => "AlgorithmNone",
        Error::UnknownAlgorithm(_) => "UnknownAlgorithm",
        Error::AlgorithmMissing => "AlgorithmMissing",
        Error::AlgorithmMismatch { .. } => "AlgorithmMismatch",
        Error::AlgorithmKeyType { .. } => "AlgorithmKeyType",
        Error::UnknownKeyType(_) => "UnknownKeyType",
        Error::UnknownCurve(_) => "UnknownCurve",
        Error::MemberEncoding(_) => "MemberEncoding",
        Error::MemberLength { .. } => "MemberLength",
        Error::InvalidKey(_) => "InvalidKey",
        Error::RsaModulus(_) => "RsaModulus",
        Error::RsaExponent => "RsaExponent",
        Error::SmallOrder => "SmallOrder",
        Error::KeyUse(_) => "KeyUse",
        Error::KeyOperations => "KeyOperations",
        Error::PrivateMember(_) => "PrivateMember",
        Error::SymmetricKey => "SymmetricKey",
        Error::KeyId(_) => "KeyId",
        Error::DuplicateKid(_) => "DuplicateKid",
        Error::TooManyKeys => "TooManyKeys",
        Error::Window => "Window",
        Error::SignatureLength { .. } => "SignatureLength",
        Error::SignatureInvalid => "SignatureInvalid",
        Error::Pem => "Pem",
        Error::Pkcs8 => "Pkcs8",
        Error::Generate(_) => "Generate",
        Error::Sign(_) => "Sign",
    }
}

#[test]
fn what_is_shown_is_short_and_escaped() {
    assert_eq!(shown("plain"), "plain");
    assert_eq!(shown("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
    assert_eq!(shown(&"x".repeat(64)), "x".repeat(64));
    assert_eq!(shown(&"x".repeat(65)), format!("{}...", "x".repeat(64)));
    assert!(shown(&"\u{0}".repeat(100_000)).len() < 1000);
}
