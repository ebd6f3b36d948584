//! Signed issuance requests, single and in batches.

use chancery_entry::{Entry, TokenEntry};
use chancery_testkit::{Answer, ClientText, Judge, Lab, RealmText, TestClient, grant};
use chancery_tlog::{TlogProof, leaf_hash};
use chancery_token::{Algorithm, KeyId};
use serde_json::{Value, json};

use super::{AUDIENCE, CHANCERY, assert_problem, lab, living_log, part};

const JWT: (&str, &str) = ("content-type", "application/jwt");

fn post(lab: &Lab, path: &str, body: &[u8]) -> Answer {
    lab.web.send("POST", &format!("{}{path}", lab.url()), &[JWT], body)
}

fn signed(lab: &Lab, client: &TestClient, requests: Vec<Value>) -> String {
    client.request(&lab.issuer("consumers"), Some(&lab.log_id()), requests)
}

/// The leaf of a token's entry, from the token alone.
fn leaf_of(token: &str) -> chancery_tlog::Hash {
    let (header, claims) = (part(token, 0), part(token, 1));
    let kid: KeyId = header["kid"].as_str().unwrap().parse().unwrap();
    let (input, _) = token.rsplit_once('.').unwrap();
    let second = |name: &str| claims[name].as_u64().unwrap();
    let entry = TokenEntry::of(*kid.as_bytes(), second("iat"), second("exp"), input.as_bytes());
    leaf_hash(&Entry::Token(entry).encode().unwrap())
}

#[test]
fn a_batch_comes_with_proofs_that_verify() {
    let lab = lab();
    let client = lab.demo();
    let request = signed(&lab, &client, vec![json!({"aud": AUDIENCE}); 256]);
    let answer = post(&lab, "/consumers/issue?proof=true", request.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    let tokens = body["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 256);
    let key = living_log(&lab).key();
    let mut judge = Judge::new(&lab, "consumers", AUDIENCE);
    let first = tokens[0]["index"].as_u64().unwrap();
    for (position, member) in (0_u64..).zip(tokens) {
        let token = member["access_token"].as_str().unwrap();
        assert_eq!(member["index"], first + position);
        assert_eq!(member["expires_in"], 3_600);
        let proof = TlogProof::parse(member["proof"].as_str().unwrap()).unwrap();
        assert_eq!(proof.index, first + position);
        proof.verify(&leaf_of(token), std::slice::from_ref(&key)).unwrap();
        assert!(proof.verify(&leaf_hash(b"another"), std::slice::from_ref(&key)).is_err());
        judge.must_hold(token);
    }
}

#[test]
fn each_request_of_a_batch_is_judged_by_itself() {
    let lab = lab();
    let client = lab.demo();
    let cases = [
        (json!({"aud": AUDIENCE}), None),
        (json!({"aud": "https://other.example"}), Some("audience_not_granted")),
        (json!({"aud": AUDIENCE, "sub": "somebody"}), Some("subject_not_granted")),
        (json!({"aud": AUDIENCE, "scope": "admin"}), Some("scope_not_granted")),
        (json!({"aud": AUDIENCE, "claims": {"groups": []}}), Some("claim_not_granted")),
        (json!({"aud": AUDIENCE, "claims": {"iss": "me"}}), Some("reserved_claim")),
        (json!({"aud": AUDIENCE, "lifetime": 3_601}), Some("lifetime_not_granted")),
        (json!({"aud": AUDIENCE, "alg": "ES512"}), None),
        (
            json!({"aud": AUDIENCE, "sub": "user:7", "claims": {"tier": "gold"}, "lifetime": 60}),
            None,
        ),
    ];
    // An unknown algorithm spoils the request as a whole, so it is tried alone below.
    let asked: Vec<_> = cases.iter().filter(|(ask, _)| ask.get("alg").is_none()).collect();
    let requests = asked.iter().map(|(ask, _)| ask.clone()).collect();
    let answer = post(&lab, "/consumers/issue", signed(&lab, &client, requests).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    for (member, (ask, refused)) in body["tokens"].as_array().unwrap().iter().zip(&asked) {
        match refused {
            Some(code) => {
                assert_eq!(member["error"], *code, "{ask}");
                assert!(member.get("access_token").is_none());
                assert!(member["error_description"].as_str().is_some_and(|d| !d.is_empty()));
            }
            None => assert!(member["access_token"].is_string(), "{ask}: {member}"),
        }
    }
    let last = body["tokens"].as_array().unwrap().last().unwrap();
    let claims = part(last["access_token"].as_str().unwrap(), 1);
    assert_eq!((&claims["sub"], &claims["tier"]), (&"user:7".into(), &"gold".into()));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);

    for (ask, refused) in cases.iter().filter(|(_, refused)| refused.is_some()) {
        let alone =
            post(&lab, "/consumers/issue", signed(&lab, &client, vec![ask.clone()]).as_bytes());
        assert_problem(&alone, 403, refused.unwrap());
    }
    let unknown = vec![json!({"aud": AUDIENCE, "alg": "ES512"})];
    let answer = post(&lab, "/consumers/issue", signed(&lab, &client, unknown).as_bytes());
    assert_problem(&answer, 403, "algorithm_not_granted");
    for strange in [json!({"aud": AUDIENCE, "extra": 1}), json!("text"), json!({"aud": 7})] {
        let request = signed(&lab, &client, vec![strange]);
        let answer = post(&lab, "/consumers/issue", request.as_bytes());
        assert_problem(&answer, 400, "malformed_request");
    }
}

#[test]
fn requests_that_cannot_be_read_are_named() {
    let lab = lab();
    let client = lab.demo();
    let good = signed(&lab, &client, vec![json!({"aud": AUDIENCE})]);
    for number in [0, 257] {
        let request = signed(&lab, &client, vec![json!({"aud": AUDIENCE}); number]);
        assert_problem(
            &post(&lab, "/consumers/issue", request.as_bytes()),
            400,
            "too_many_requests",
        );
    }
    let path = "/consumers/issue";
    assert_problem(&post(&lab, path, b""), 401, "malformed_proof");
    assert_problem(&post(&lab, path, b"a.b.c"), 401, "malformed_proof");
    assert_problem(&post(&lab, path, b"\xff\xfe"), 400, "malformed_proof");
    let assertion = client.assertion(&lab.issuer("consumers"), Some(&lab.log_id()));
    assert_problem(&post(&lab, path, assertion.as_bytes()), 401, "malformed_proof");
    let oversize = vec![b'a'; chancery_token::jws::MAX_REQUEST_BYTES + 1];
    assert_problem(&post(&lab, path, &oversize), 413, "too_large");
    for query in ["?proof=maybe", "?other=1", "?proof=true&proof=true"] {
        let answer = post(&lab, &format!("{path}{query}"), good.as_bytes());
        assert_problem(&answer, 400, "malformed_request");
    }
    let url = format!("{}{path}", lab.url());
    for kind in ["application/json", "text/plain", ""] {
        let answer = lab.web.send("POST", &url, &[("content-type", kind)], good.as_bytes());
        assert_problem(&answer, 415, "malformed_request");
    }
    assert_problem(&post(&lab, "/nowhere/issue", good.as_bytes()), 404, "unknown_realm");
    assert_problem(&post(&lab, "/organizations/issue", good.as_bytes()), 401, "wrong_audience");
    let put = lab.web.send("PUT", &url, &[JWT], good.as_bytes());
    assert_problem(&put, 405, "method_not_allowed");

    // Nothing of that used the request up; a replay does not get through.
    assert_eq!(post(&lab, path, good.as_bytes()).status, 200);
    assert_problem(&post(&lab, path, good.as_bytes()), 401, "proof_replayed");
    let other = "AAAAAAAAAAAAAAAAAAAAAA";
    let request = client.request(&lab.issuer("consumers"), Some(other), vec![json!({})]);
    let answer = post(&lab, path, request.as_bytes());
    assert_problem(&answer, 401, "wrong_log");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
}

#[test]
fn every_algorithm_signs_tokens_that_validate() {
    let lab = lab();
    let client = lab.demo();
    let all = [
        ("consumers", &["ES256", "RS256", "PS256", "Ed25519"][..]),
        ("organizations", &["Ed25519", "ES384", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"][..]),
    ];
    for (realm, algorithms) in all {
        for algorithm in algorithms {
            let wanted = || vec![json!({"aud": AUDIENCE, "alg": algorithm})];
            let mut answer = lab.issue(&client, realm, wanted());
            // RSA keys are made beside the thread that answers; until then clients are told.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while answer.status == 503 && std::time::Instant::now() < deadline {
                assert_problem(&answer, 503, "no_active_key");
                std::thread::sleep(std::time::Duration::from_millis(100));
                answer = lab.issue(&client, realm, wanted());
            }
            let body = answer.json();
            let token = body["tokens"][0]["access_token"].as_str();
            let token = token.unwrap_or_else(|| panic!("{algorithm}: {body}"));
            assert_eq!(part(token, 0)["alg"], *algorithm);
            Judge::new(&lab, realm, AUDIENCE).must_hold(token);
        }
    }
}

#[test]
fn grants_bind_clients_to_what_they_say() {
    let mut lab = Lab::new(CHANCERY);
    let bound = TestClient::new("bound", Algorithm::Ed25519);
    let slow = TestClient::new("slow", Algorithm::Es384);
    let forgetful = TestClient::new("forgetful", Algorithm::Rs256);
    let grants = [
        grant("first", &["https://a.example", "https://b.example"], "max_audiences = 2"),
        grant("second", &["https://c.example"], "require_cnf = true\nmax_lifetime_s = 30"),
    ];
    let plain = [grant("plain", &[AUDIENCE], "")];
    let clients = vec![
        ClientText::new(&bound, "", &grants),
        ClientText::new(&slow, "max_tokens_per_s = 2", &plain),
        ClientText::new(&forgetful, "replay_capacity = 3", &plain),
    ];
    lab.configure("", &[RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients }]);
    lab.start();

    let both = json!({"aud": ["https://a.example", "https://b.example"]});
    let body = lab.issue(&bound, "r", vec![both]).json();
    let claims = part(body["tokens"][0]["access_token"].as_str().unwrap(), 1);
    assert_eq!(claims["aud"], json!(["https://a.example", "https://b.example"]));
    let across = json!({"aud": ["https://a.example", "https://c.example"]});
    assert_problem(&lab.issue(&bound, "r", vec![across]), 403, "audience_not_granted");
    let unbound = json!({"aud": "https://c.example"});
    assert_problem(&lab.issue(&bound, "r", vec![unbound]), 403, "cnf_required");
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let with_key = json!({"aud": "https://c.example", "cnf": {"jkt": jkt}});
    let body = lab.issue(&bound, "r", vec![with_key]).json();
    let claims = part(body["tokens"][0]["access_token"].as_str().unwrap(), 1);
    assert_eq!(claims["cnf"], json!({"jkt": jkt}));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 30);

    // Limits of a client count its verified proofs; other clients do not feel them.
    let mut limited = 0;
    for _ in 0..12 {
        let answer = lab.issue(&slow, "r", vec![json!({})]);
        if answer.status == 429 {
            assert_problem(&answer, 429, "rate_limited");
            assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
            limited += 1;
        }
    }
    assert!(limited > 0);
    for number in 0..5 {
        let answer = lab.issue(&forgetful, "r", vec![json!({})]);
        match number {
            0..3 => assert_eq!(answer.status, 200, "{}", answer.text()),
            // Full, not forgetful: nothing that was used once is ever taken again.
            _ => assert_problem(&answer, 429, "replay_memory_full"),
        }
    }
}
