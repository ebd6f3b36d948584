//! Tokens that must be accepted.

use chancery_token::{Algorithm, b64};
use serde_json::json;

use crate::corpus::Case;
use crate::draft::{
    AUDIENCE, Draft, LEAVES, LOG, NOW, RANDOM, WINDOW, by, good, key, member, other,
};

pub fn cases() -> Vec<Case> {
    [algorithms(), headers(), keys(), claims(), times()].concat()
}

fn algorithms() -> Vec<Case> {
    let of = |algorithm: Algorithm| {
        let id = format!("valid_{}", algorithm.as_str().to_lowercase().replace('-', "_"));
        by(algorithm).accepted(&id, &format!("a token signed with {algorithm}"))
    };
    let mut cases: Vec<_> = Algorithm::ALL.into_iter().map(of).collect();
    cases.extend([
        by(Algorithm::Ed25519).header("alg", "EdDSA").member("alg", "EdDSA").accepted(
            "eddsa_published",
            "the key was published as EdDSA, so its tokens may say so",
        ),
        by(Algorithm::Ed25519)
            .header("alg", "EdDSA")
            .config(|config| config.accept_eddsa = true)
            .accepted("eddsa_configured", "EdDSA is accepted for Ed25519 by configuration"),
        by(Algorithm::Ed25519)
            .member("alg", "EdDSA")
            .accepted("ed25519_published_as_eddsa", "the exact name is right for such a key, too"),
    ]);
    cases
}

fn headers() -> Vec<Case> {
    vec![
        good()
            .header("typ", "application/at+jwt")
            .accepted("typ_with_prefix", "RFC 9068 section 4 allows the long form"),
        good()
            .header("typ", "AT+JWT")
            .accepted("typ_other_case", "media types compare without regard to case"),
        good()
            .header("typ", "JWT")
            .config(|config| config.accepted_typ.push("JWT".to_owned()))
            .accepted("typ_configured", "another type was configured"),
        good()
            .header("x5t", "AAAA")
            .header("example", json!({"a": [1]}))
            .accepted("header_unknown_members", "unknown members are ignored (RFC 7515 section 4)"),
        good()
            .header_text(format!(
                "{{ \"kid\" : \"{}\",\r\n\t\"alg\":\"ES256\", \"typ\":\"at+jwt\" }}",
                key(Algorithm::Es256).public().kid()
            ))
            .accepted("header_whitespace", "JSON whitespace and the order of members mean nothing"),
        good()
            .header_text(format!(
                r#"{{"\u0061lg":"\u0045S256","typ":"at\u002bjwt","kid":"{}"}}"#,
                key(Algorithm::Es256).public().kid()
            ))
            .accepted("header_escapes", "JSON escapes are resolved before names are compared"),
    ]
}

fn keys() -> Vec<Case> {
    let weak = json!({"kty": "RSA", "kid": "weak", "alg": "RS256", "e": "AQAB",
        "n": b64::encode(&[0xC1; 128])});
    let other = member(other(Algorithm::Es256)).jwk();
    vec![
        good()
            .also(other)
            .also(member(key(Algorithm::Rs256)).jwk())
            .accepted("several_keys", "the key is found by kid among several"),
        good().also(weak.as_object().unwrap().clone()).accepted(
            "unusable_neighbour",
            "a member that is not usable is put aside (RFC 7517 section 5)",
        ),
        good()
            .header("kid", "2027-01")
            .member("kid", "2027-01")
            .accepted("kid_not_thumbprint", "a kid is any string that token and set agree on"),
        good()
            .no_member("exp")
            .accepted("key_without_exp", "a key need not say when it leaves its set"),
        good()
            .member("key_ops", json!(["verify"]))
            .accepted("key_ops_verify", "a key for verifying may say so"),
        good()
            .member("x5c", json!(["AAAA"]))
            .accepted("key_with_certificate", "certificates in a set are ignored, not followed"),
        good()
            .claim("iat", WINDOW.signs_until - 1)
            .claim("exp", WINDOW.signs_until + 3599)
            .at(WINDOW.signs_until + 3000)
            .accepted("retired_key", "a retired key's tokens live on until they expire"),
        good()
            .claim("iat", NOW - 100)
            .claim("exp", LEAVES + 100)
            .at(LEAVES - 1)
            .accepted("key_in_set_last_second", "the key is believed until just before its exp"),
    ]
}

fn claims() -> Vec<Case> {
    let cnf = json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"});
    vec![
        good()
            .claim("aud", json!(["https://other.example", AUDIENCE]))
            .accepted("aud_list", "the audience is one of several"),
        good()
            .claim("aud", json!([AUDIENCE]))
            .accepted("aud_list_of_one", "a list of one audience"),
        good()
            .claim("scope", "read write:all")
            .claim("cnf", cnf)
            .claim("roles", json!(["a", {"b": null}]))
            .accepted("further_claims", "scope, cnf and claims without a meaning here"),
        good().claim("sub", "käthe\u{1F511}").accepted("sub_unicode", "names are any Unicode text"),
        good()
            .claim("jti", format!("{LOG}.0.{RANDOM}"))
            .accepted("jti_first_index", "index 0 is written `0`"),
        good()
            .claim("jti", format!("{LOG}.9223372036854775806.{RANDOM}"))
            .accepted("jti_last_index", "the last index of the largest tree"),
    ]
}

fn times() -> Vec<Case> {
    let no_leeway = |draft: Draft| draft.config(|config| config.leeway_s = 0);
    vec![
        good()
            .at(NOW + 540 + 29)
            .accepted("exp_within_leeway", "29 s after exp with 30 s of leeway"),
        no_leeway(good().at(NOW + 539))
            .accepted("exp_last_second", "the second before exp, without leeway"),
        good().claim("nbf", NOW - 60).accepted("nbf_past", "nbf is over"),
        good().claim("nbf", NOW + 30).accepted("nbf_within_leeway", "nbf at the end of the leeway"),
        no_leeway(good().claim("nbf", NOW)).accepted("nbf_now", "nbf is now, without leeway"),
        good().claim("iat", NOW + 30).accepted("iat_within_leeway", "iat at the end of the leeway"),
        no_leeway(good().claim("iat", NOW)).accepted("iat_now", "iat is now, without leeway"),
        good()
            .claim("iat", WINDOW.nbf)
            .accepted("iat_window_first_second", "the first second of the key's window"),
        good()
            .claim("iat", WINDOW.signs_until - 1)
            .claim("exp", WINDOW.signs_until + 60)
            .at(WINDOW.signs_until)
            .accepted("iat_window_last_second", "the last second of the key's window"),
        good()
            .claim("iat", NOW)
            .claim("exp", NOW + 86_400)
            .accepted("lifetime_at_bound", "a lifetime of exactly a day"),
        good()
            .claim("exp", NOW + 1_000_000)
            .config(|config| config.max_lifetime_s = None)
            .accepted("lifetime_unbounded", "no bound was configured"),
    ]
}
