//! Keys and key sets that must not be believed.

use chancery_token::{Algorithm, b64};
use chancery_validate::RejectionCode::{
    KeyLeftSet, KeyMalformed, KeyOfOtherIssuer, KeySetRefused, KeyWithoutWindow, UnknownKey,
};
use serde_json::{Value, json};

use crate::corpus::Case;
use crate::draft::{Draft, ISSUER, LEAVES, LOG, NOW, by, good, key, key_set, member, other};

pub fn cases() -> Vec<Case> {
    [terms(), weak(), malformed(), purposes(), sets()].concat()
}

fn terms() -> Vec<Case> {
    let issuer = |issuer: String, id: &str, reason: &str| {
        good().member("issuer", issuer).rejected(KeyOfOtherIssuer, id, reason)
    };
    vec![
        issuer(
            "https://issuer.example/consumers".to_owned(),
            "key_of_other_realm",
            "a consumer key signs for the organizations: the failure of 2023",
        ),
        issuer(format!("{ISSUER}/"), "key_issuer_slash", "issuers compare octet by octet"),
        issuer(ISSUER.replace("https", "HTTPS"), "key_issuer_case", "URLs are not normalized"),
        issuer(String::new(), "key_issuer_empty", "an empty issuer is no issuer"),
        issuer(
            "https://issuer.example/{tenantid}".to_owned(),
            "key_issuer_template",
            "templates have no meaning in profile strict",
        ),
        good().no_member("issuer").rejected(
            KeyWithoutWindow,
            "key_without_issuer",
            "the key does not say for whom it speaks",
        ),
        good().no_member("nbf").no_member("signs_until").rejected(
            KeyWithoutWindow,
            "key_without_window",
            "the key does not say when it signs",
        ),
        good().no_member("log").rejected(
            KeyWithoutWindow,
            "key_without_log",
            "the key was announced nowhere",
        ),
        good().no_member("nbf").rejected(
            KeyMalformed,
            "key_half_window",
            "half a window is no window",
        ),
        good().member("signs_until", NOW - 600).rejected(
            KeyMalformed,
            "key_empty_window",
            "a window without a second in it",
        ),
        good().member("nbf", "0").rejected(KeyMalformed, "key_window_text", "a window of text"),
        good().member("exp", 1.5).rejected(KeyMalformed, "key_exp_fraction", "whole seconds only"),
        good().member("log", LOG).rejected(
            KeyMalformed,
            "key_log_without_index",
            "an announcement without an index",
        ),
        good().member("log", format!("{LOG}.01")).rejected(
            KeyMalformed,
            "key_log_leading_zero",
            "an index has one spelling",
        ),
        good().at(LEAVES).claim("iat", NOW).claim("exp", LEAVES + 1).rejected(
            KeyLeftSet,
            "key_left_set",
            "the second in which the key leaves its set; no leeway",
        ),
        good().at(LEAVES + 100_000).rejected(
            KeyLeftSet,
            "key_left_set_long_ago",
            "an old copy of the key set revives no key",
        ),
    ]
}

fn weak() -> Vec<Case> {
    let rsa = || by(Algorithm::Rs256);
    let reject = |draft: Draft, id: &str, reason: &str| draft.rejected(KeyMalformed, id, reason);
    let mut y = key(Algorithm::Es256).public().raw()[33..].to_vec();
    y[31] ^= 1;
    let mut identity = [0; 32];
    identity[0] = 1;
    vec![
        reject(rsa().member("n", b64::encode(&[0xC1; 128])), "rsa_1024", "a modulus of 1024 bits"),
        reject(
            rsa().member("n", b64::encode(&[0xC1; 1024])),
            "rsa_8192",
            "a modulus that makes verification slow",
        ),
        reject(rsa().member("e", "Aw"), "rsa_exponent_3", "exponent 3"),
        reject(
            rsa().member("e", "AQ"),
            "rsa_exponent_1",
            "exponent 1: everything is its own signature",
        ),
        reject(rsa().member("n", b64::encode(&[0xC2; 256])), "rsa_even", "an even modulus"),
        reject(
            good().member("y", b64::encode(&y)),
            "ec_off_curve",
            "a point that is not on the curve",
        ),
        reject(
            good().member("x", b64::encode(&[0; 32])).member("y", b64::encode(&[0; 32])),
            "ec_zero",
            "the point (0, 0)",
        ),
        reject(
            by(Algorithm::Ed25519).member("x", b64::encode(&identity)),
            "ed25519_small_order",
            "a point of small order verifies anything",
        ),
        reject(
            by(Algorithm::Ed25519).member("x", b64::encode(&[0xff; 32])),
            "ed25519_not_reduced",
            "a coordinate that is not reduced",
        ),
    ]
}

fn malformed() -> Vec<Case> {
    let reject = |draft: Draft, id: &str, reason: &str| draft.rejected(KeyMalformed, id, reason);
    let x = b64::encode(&key(Algorithm::Es256).public().raw()[1..32]);
    vec![
        reject(good().member("x", x), "ec_short_coordinate", "31 octets where 32 are required"),
        reject(good().member("crv", "P-521"), "ec_unknown_curve", "a curve of no algorithm here"),
        reject(
            good().member("alg", "ES384"),
            "ec_alg_of_other_curve",
            "curve and alg contradict each other",
        ),
        reject(
            good().member("kty", "RSA"),
            "kty_of_other_key",
            "key type and members contradict each other",
        ),
        reject(good().member("kty", "XYZ"), "kty_unknown", "an unknown key type"),
        reject(good().no_member("kty"), "kty_missing", "no key type"),
        reject(
            good().member("x", "AA=="),
            "member_padding",
            "a coordinate that is not canonical base64url",
        ),
        reject(
            by(Algorithm::Rs256).no_member("alg"),
            "rsa_without_alg",
            "RS256 or PS256 cannot be told apart",
        ),
        reject(
            by(Algorithm::MlDsa65).no_member("alg"),
            "akp_without_alg",
            "alg is required (RFC 9964 section 3)",
        ),
        reject(
            by(Algorithm::MlDsa65).member("alg", "ML-DSA-44"),
            "akp_of_other_set",
            "a key of another length",
        ),
        reject(
            by(Algorithm::Ed25519).member("crv", "X25519"),
            "okp_x25519",
            "a curve for key agreement",
        ),
    ]
}

fn purposes() -> Vec<Case> {
    let reject = |name: &str, value: Value, id: &str, reason: &str| {
        good().member(name, value).rejected(KeyMalformed, id, reason)
    };
    vec![
        reject("use", json!("enc"), "use_enc", "a key for encryption"),
        reject("use", json!("SIG"), "use_case", "values are case-sensitive (RFC 7517 section 4.2)"),
        reject("key_ops", json!(["sign"]), "key_ops_sign", "a key that is not for verifying"),
        reject("key_ops", json!([]), "key_ops_empty", "a key for nothing"),
        reject(
            "key_ops",
            json!(["verify", "verify"]),
            "key_ops_twice",
            "a value twice (RFC 7517 section 4.3)",
        ),
    ]
}

fn sets() -> Vec<Case> {
    let refused = |draft: Draft, id: &str, reason: &str| draft.rejected(KeySetRefused, id, reason);
    let good_set = good().keys();
    let mut namesake = member(other(Algorithm::Es256)).jwk();
    namesake.insert("kid".into(), key(Algorithm::Es256).public().kid().to_string().into());
    let private = json!({"kty": "EC", "crv": "P-256", "kid": "x", "x": "AA", "y": "AA", "d": "AA"});
    let symmetric = json!({"kty": "oct", "kid": "x", "k": "AAAA"});
    let neighbour = |jwk: Value| good().also(jwk.as_object().unwrap().clone());
    vec![
        refused(good().member("d", "AAAA"), "private_key", "the set shows a private key"),
        refused(
            neighbour(private),
            "private_neighbour",
            "a private key beside the good one spoils the set",
        ),
        refused(neighbour(symmetric), "symmetric_neighbour", "so does a symmetric one"),
        refused(good().also(namesake), "kid_twice", "two keys under one kid"),
        refused(good().set_text(""), "set_empty_text", "no text at all"),
        refused(good().set_text("<html></html>"), "set_not_json", "an error page instead of a set"),
        refused(
            good().set_text(format!("[{good_set}]")),
            "set_list",
            "a list instead of an object",
        ),
        refused(good().set_text("{}"), "set_without_keys", "no member keys"),
        refused(good().set_text(r#"{"keys":{}}"#), "set_keys_object", "keys is not a list"),
        refused(
            good().set_text(r#"{"keys":[1]}"#),
            "set_key_number",
            "a key that is not an object",
        ),
        refused(
            good().set_text(good_set.replacen('{', "{\"keys\":[],", 1)),
            "set_keys_twice",
            "keys twice: two readers, two sets",
        ),
        good().set_text(key_set(&[])).rejected(UnknownKey, "set_no_keys", "a set without keys"),
    ]
}
