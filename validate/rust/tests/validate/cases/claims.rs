//! Claims that are missing, malformed or not meant for here.

use chancery_validate::RejectionCode::{
    BadClaim, LogIdMismatch, MissingClaim, WrongAudience, WrongIssuer,
};
use serde_json::{Value, json};

use crate::corpus::Case;
use crate::draft::{AUDIENCE, ISSUER, LOG, NOW, RANDOM, good};

pub fn cases() -> Vec<Case> {
    [missing(), malformed(), issuers(), audiences(), addresses()].concat()
}

fn missing() -> Vec<Case> {
    let missing = |claim: &str| {
        let reason = format!("`{claim}` is required (RFC 9068 section 2.2)");
        good().no_claim(claim).rejected(MissingClaim, &format!("{claim}_missing"), &reason)
    };
    let mut cases: Vec<_> =
        ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"].map(missing).into();
    cases.push(good().payload("{}").rejected(
        MissingClaim,
        "no_claims",
        "an object without members",
    ));
    cases
}

fn malformed() -> Vec<Case> {
    let bad = |claim: &str, value: Value, id: &str, reason: &str| {
        good().claim(claim, value).rejected(BadClaim, id, reason)
    };
    let raw = |claims: &str, id: &str, reason: &str| {
        let whole = String::from_utf8(good().no_claim("exp").claims_bytes()).unwrap();
        good().payload(format!("{{{claims},{}", &whole[1..])).rejected(BadClaim, id, reason)
    };
    vec![
        bad("iss", json!(7), "iss_number", "an issuer is a string"),
        bad("iss", json!([ISSUER]), "iss_list", "a list is not a string, even of the right issuer"),
        bad("sub", json!(""), "sub_empty", "an empty name names nobody"),
        bad("sub", json!(1), "sub_number", "a subject is a string"),
        bad("sub", json!(null), "sub_null", "null is not a string"),
        bad("client_id", json!({}), "client_id_object", "a client id is a string"),
        bad("jti", json!(42), "jti_number", "a token id is a string"),
        raw("\"exp\":1800000540.0", "exp_float", "times are whole seconds, as integers"),
        raw("\"exp\":1.80000054e9", "exp_exponent", "times are plain integers"),
        raw("\"exp\":99999999999999999999", "exp_huge", "a number that no integer holds"),
        bad("exp", json!("1800000540"), "exp_text", "a time is a number"),
        bad("exp", json!(-1), "exp_negative", "times are not negative"),
        bad(
            "exp",
            json!((NOW + 540) * 1000),
            "exp_milliseconds",
            "milliseconds are beyond the year 9999",
        ),
        bad("exp", json!(null), "exp_null", "null is not a time"),
        bad("iat", json!(true), "iat_boolean", "a time is a number"),
        bad("iat", json!("now"), "iat_text", "a time is a number"),
        bad("nbf", json!(1.5), "nbf_fraction", "times are whole seconds"),
        bad("nbf", json!(null), "nbf_null", "a claim without a value is left out, not null"),
        bad("aud", json!([]), "aud_empty_list", "nobody is meant"),
        bad("aud", json!(""), "aud_empty", "an empty name names nobody"),
        bad("aud", json!([AUDIENCE, 1]), "aud_list_with_number", "every audience is a string"),
        bad("aud", json!([AUDIENCE, ""]), "aud_list_with_empty", "no audience is empty"),
        bad("aud", json!({"a": AUDIENCE}), "aud_object", "an audience is a string or a list"),
        bad("aud", json!([[AUDIENCE]]), "aud_nested_list", "lists are not nested"),
        bad("scope", json!(["read"]), "scope_list", "scope is one string (RFC 8693 section 4.2)"),
        bad("scope", json!("read  write"), "scope_two_spaces", "scope tokens are one space apart"),
        bad("scope", json!("read\twrite"), "scope_tab", "a tab separates nothing"),
        bad("scope", json!(""), "scope_empty", "a scope without tokens is left out"),
        bad("cnf", json!("key"), "cnf_text", "a confirmation is an object (RFC 7800 section 3.1)"),
        bad("exp", json!(NOW - 60), "exp_equals_iat", "a token that lives for no second"),
        bad("exp", json!(NOW - 61), "exp_before_iat", "a token that ends before it begins"),
    ]
}

fn issuers() -> Vec<Case> {
    let wrong = |iss: String, id: &str, reason: &str| {
        good().claim("iss", iss).rejected(WrongIssuer, id, reason)
    };
    vec![
        wrong(
            "https://issuer.example/consumers".to_owned(),
            "iss_other_realm",
            "another realm of the same host",
        ),
        wrong(format!("{ISSUER}/"), "iss_slash", "a slash more"),
        wrong(ISSUER.replace("issuer", "ISSUER"), "iss_case", "host names are not normalized"),
        wrong(
            format!("{ISSUER}.attacker.example"),
            "iss_prefix",
            "a longer issuer with the right start",
        ),
        wrong(ISSUER.replace("https", "http"), "iss_scheme", "another scheme"),
        wrong(ISSUER.replace("/org", "/%6Frg"), "iss_percent", "percent encoding is not resolved"),
        good()
            .config(|config| config.issuers = vec!["https://issuer.example/consumers".to_owned()])
            .member("issuer", "https://issuer.example/consumers")
            .rejected(
                WrongIssuer,
                "iss_not_of_key",
                "the key is of the accepted issuer, the token of another",
            ),
    ]
}

fn audiences() -> Vec<Case> {
    let wrong = |aud: Value, id: &str, reason: &str| {
        good().claim("aud", aud).rejected(WrongAudience, id, reason)
    };
    vec![
        wrong(json!("https://other.example"), "aud_other", "a token for another service"),
        wrong(
            json!(["https://other.example", "x"]),
            "aud_list_others",
            "a list without the audience",
        ),
        wrong(json!(format!("{AUDIENCE}/")), "aud_slash", "a slash more"),
        wrong(
            json!(format!("{AUDIENCE}.attacker.example")),
            "aud_prefix",
            "a longer name with the right start",
        ),
        wrong(json!("https://api"), "aud_part", "a shorter name"),
        wrong(json!(AUDIENCE.to_uppercase()), "aud_case", "names are case-sensitive"),
        wrong(json!("*"), "aud_star", "there are no wildcards"),
        wrong(
            json!(format!("https://other.example {AUDIENCE}")),
            "aud_two_in_one",
            "a string is one audience",
        ),
        good()
            .config(|config| config.audiences.push("https://b.example".to_owned()))
            .claim("aud", "https://c.example")
            .rejected(WrongAudience, "aud_none_of_two", "none of the accepted audiences"),
    ]
}

fn addresses() -> Vec<Case> {
    let jti = |jti: String, id: &str, reason: &str| {
        good().claim("jti", jti).rejected(LogIdMismatch, id, reason)
    };
    vec![
        jti(
            format!("{RANDOM}.42.{RANDOM}"),
            "jti_other_log",
            "a place in another log than the key's",
        ),
        jti("7f3d9a52-1c1e-4a55-9d7c-0242ac120002".to_owned(), "jti_uuid", "no place in a log"),
        jti(format!("{LOG}.42"), "jti_without_random", "a place without the randomness"),
        jti(format!("{LOG}.042.{RANDOM}"), "jti_leading_zero", "an index has one spelling"),
        jti(format!("{LOG}.-1.{RANDOM}"), "jti_negative", "an index is not negative"),
        jti(
            format!("{LOG}.9223372036854775807.{RANDOM}"),
            "jti_beyond",
            "an index beyond the largest tree",
        ),
        jti(format!("{LOG}.42.AAAA"), "jti_short_random", "less than 128 bits of randomness"),
        jti(format!("{LOG}.42.{RANDOM}.1"), "jti_four_parts", "a part too many"),
    ]
}
