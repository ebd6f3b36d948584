//! The token endpoint.

use std::time::{Duration, Instant};

use chancery_testkit::{Answer, Judge, Lab, TestClient, now};
use chancery_token::Algorithm;
use serde_json::Value;

use super::{AUDIENCE, assert_problem, lab, part};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const GRANTED: &str = "&audience=https%3A%2F%2Fapi.example";

fn post(lab: &Lab, body: &str) -> Answer {
    lab.web.send("POST", &format!("{}/consumers/token", lab.url()), &[FORM], body.as_bytes())
}

fn ask(lab: &Lab, client: &TestClient, more: &str) -> Answer {
    let assertion = client.assertion(&lab.issuer("consumers"), Some(&lab.log_id()));
    post(lab, &TestClient::form(&assertion, more))
}

#[test]
fn a_client_gets_a_token() {
    let lab = lab();
    let client = lab.demo();
    let started = now();
    let answer = ask(&lab, &client, &format!("{GRANTED}&scope=read+write&unknown=ignored"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("pragma"), "no-cache");
    assert!(answer.header("x-request-id").len() >= 22, "{:?}", answer.headers);
    let body = answer.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 3_600);
    assert_eq!(body["scope"], "read write");
    let token = body["access_token"].as_str().unwrap();

    let header = part(token, 0);
    let mut names: Vec<_> = header.as_object().unwrap().keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["alg", "kid", "typ"]);
    assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"at+jwt".into()));
    let claims = part(token, 1);
    assert_eq!(claims["iss"], lab.issuer("consumers"));
    assert_eq!((&claims["sub"], &claims["client_id"]), (&"demo".into(), &"demo".into()));
    assert_eq!((&claims["aud"], &claims["scope"]), (&AUDIENCE.into(), &"read write".into()));
    let iat = claims["iat"].as_u64().unwrap();
    assert!((started..=now()).contains(&iat));
    assert_eq!(claims["exp"], iat + 3_600);
    let jti: Vec<_> = claims["jti"].as_str().unwrap().split('.').collect();
    assert_eq!((jti.len(), jti[0], jti[2].len()), (3, lab.log_id().as_str(), 22));
    Judge::new(&lab, "consumers", AUDIENCE).must_hold(token);

    // RFC 8707's name for the same, and the grant's default when none is named.
    let resource = ask(&lab, &client, "&resource=https%3A%2F%2Forders.example").json();
    assert_eq!(
        part(resource["access_token"].as_str().unwrap(), 1)["aud"],
        "https://orders.example"
    );
    let default = ask(&lab, &client, "").json();
    assert_eq!(part(default["access_token"].as_str().unwrap(), 1)["aud"], AUDIENCE);
    assert!(default.get("scope").is_none(), "none was asked for: {default}");
}

/// RFC 6749 section 5.2.
fn assert_oauth(answer: &Answer, status: u16, error: &str, reason: &str) {
    assert_eq!(answer.status, status, "{reason}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{reason}");
    assert_eq!(answer.header("cache-control"), "no-store", "{reason}");
    assert_eq!(answer.header("pragma"), "no-cache", "{reason}");
    let body = answer.json();
    assert_eq!(body["error"], error, "{body}");
    assert_eq!(body["reason"], reason, "{body}");
    let description = body["error_description"].as_str().unwrap();
    assert!(!description.is_empty());
    let allowed = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\';
    assert!(description.chars().all(allowed), "{description}");
}

#[test]
fn requests_that_are_not_understood_are_named() {
    let lab = lab();
    let client = lab.demo();
    let assertion = client.assertion(&lab.issuer("consumers"), Some(&lab.log_id()));
    let good = TestClient::form(&assertion, GRANTED);
    let cases = [
        (String::new(), "invalid_request"),
        ("grant_type=password".into(), "unsupported_grant_type"),
        ("grant_type=client_credentials".into(), "invalid_request"),
        (good.replace("jwt-bearer", "saml2-bearer"), "invalid_request"),
        (good.replace("client_assertion=", "assertion="), "invalid_request"),
        (format!("{good}&grant_type=client_credentials"), "invalid_request"),
        (format!("{good}&scope=a&scope=b"), "invalid_request"),
        (format!("{good}&audience="), "invalid_request"),
        (format!("{good}&client_secret=x"), "invalid_request"),
        (format!("{good}{}", "&audience=a".repeat(3).replace("=a", "=\u{1}")), "invalid_request"),
    ];
    for (body, error) in cases.iter().take(9) {
        assert_oauth(&post(&lab, body), 400, error, "malformed_request");
    }
    // A scope that is no scope gets as far as the signer.
    assert_oauth(
        &post(&lab, &format!("{good}&scope=a++b")),
        400,
        "invalid_request",
        "malformed_request",
    );
    let url = format!("{}/consumers/token", lab.url());
    for kind in ["application/json", "text/plain", "multipart/form-data; boundary=x"] {
        let answer = lab.web.send("POST", &url, &[("content-type", kind)], good.as_bytes());
        assert_oauth(&answer, 400, "invalid_request", "malformed_request");
    }
    let answer = lab.web.send("POST", &url, &[FORM], b"\xff\xfe=\x00");
    assert_oauth(&answer, 400, "invalid_request", "malformed_request");
    let large = format!("{good}&junk={}", "x".repeat(64 * 1024));
    assert_problem(&post(&lab, &large), 413, "too_large");
    let wrong = lab.web.get(&url);
    assert_problem(&wrong, 405, "method_not_allowed");
    assert!(wrong.header("allow").contains("POST"), "{:?}", wrong.headers);
    // Nothing of that used the assertion up, and the content type may have parameters.
    let kind = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    assert_eq!(lab.web.send("POST", &url, &[kind], good.as_bytes()).status, 200);
}

#[test]
fn clients_that_are_not_proved_are_refused() {
    let lab = lab();
    let client = lab.demo();
    let (issuer, log) = (lab.issuer("consumers"), lab.log_id());
    let typ = "client-authentication+jwt";
    let with = |name: &str, value: Value| {
        let mut claims = client.claims(&issuer, Some(&log));
        claims.insert(name.into(), value);
        client.sign(typ, claims)
    };
    let good = client.assertion(&issuer, Some(&log));
    // The first character of a signature holds whole bits of it; the last one may not.
    let (head, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let tampered = format!("{head}.{first}{}", &signature[1..]);
    let stranger = TestClient::new("stranger", Algorithm::Es256);
    let imposter = TestClient::new("demo", Algorithm::Es256);
    let cases = [
        ("garbage".to_owned(), "malformed_proof"),
        (client.sign("at+jwt", client.claims(&issuer, Some(&log))), "malformed_proof"),
        (with("sub", "other".into()), "malformed_proof"),
        (with("jti", "".into()), "malformed_proof"),
        (with("iat", 1.5.into()), "malformed_proof"),
        (tampered, "bad_signature"),
        (stranger.assertion(&issuer, Some(&log)), "unknown_client"),
        (imposter.assertion(&issuer, Some(&log)), "unknown_client_key"),
        (with("aud", format!("{issuer}/token").into()), "wrong_audience"),
        (with("aud", lab.issuer("organizations").into()), "wrong_audience"),
        (with("exp", (now() - 1).into()), "proof_expired"),
        (with("exp", (now() + 1_000).into()), "proof_too_long"),
        (with("iat", (now() + 60).into()), "proof_not_yet_valid"),
        (with("log", "AAAAAAAAAAAAAAAAAAAAAA".into()), "wrong_log"),
    ];
    for (assertion, reason) in &cases {
        let answer = post(&lab, &TestClient::form(assertion, GRANTED));
        assert_oauth(&answer, 401, "invalid_client", reason);
        // The allowance for unverified proofs is not what this test is about.
        std::thread::sleep(Duration::from_millis(60));
    }
    // Once, and never again.
    assert_eq!(post(&lab, &TestClient::form(&good, GRANTED)).status, 200);
    let again = post(&lab, &TestClient::form(&good, GRANTED));
    assert_oauth(&again, 401, "invalid_client", "proof_replayed");
    let elsewhere = format!("{}/organizations/token", lab.url());
    let form = TestClient::form(&good, GRANTED);
    let answer = lab.web.send("POST", &elsewhere, &[FORM], form.as_bytes());
    assert_oauth(&answer, 401, "invalid_client", "wrong_audience");
    let nowhere = format!("{}/nowhere/token", lab.url());
    let answer = lab.web.send("POST", &nowhere, &[FORM], form.as_bytes());
    assert_oauth(&answer, 404, "invalid_request", "unknown_realm");
}

#[test]
fn what_is_not_granted_is_refused() {
    let lab = lab();
    let client = lab.demo();
    let cases = [
        ("&audience=https%3A%2F%2Fother.example", "invalid_target", "audience_not_granted"),
        // One audience by default.
        (
            "&audience=https%3A%2F%2Fapi.example&resource=https%3A%2F%2Forders.example",
            "invalid_target",
            "audience_not_granted",
        ),
        ("&audience=https%3A%2F%2Fapi.example&scope=admin", "invalid_scope", "scope_not_granted"),
        ("&audience=%22%5C%C3%BC%0A", "invalid_target", "audience_not_granted"),
    ];
    for (more, error, reason) in cases {
        assert_oauth(&ask(&lab, &client, more), 400, error, reason);
    }
}

#[test]
fn a_proof_that_names_no_log_works_once_the_signer_is_old_enough() {
    let lab = lab();
    let client = lab.demo();
    let started = lab.signers()[0]["started_at"].as_u64().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let assertion = client.assertion(&lab.issuer("consumers"), None);
        let asked = now();
        let answer = post(&lab, &TestClient::form(&assertion, GRANTED));
        if answer.status == 200 {
            assert!(now() > started + 2, "it could have been used with an earlier signer");
            break;
        }
        assert_oauth(&answer, 401, "invalid_client", "proof_before_start");
        assert!(asked <= started + 3, "started {started}, asked {asked}");
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(100));
    }
}
