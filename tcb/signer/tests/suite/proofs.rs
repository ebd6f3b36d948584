//! Proofs as a hostile host handles them: altered, repeated, kept, sent to the wrong signer; and
//! what is remembered of them.

use crate::support::*;
use chancery_signer_api::*;
use chancery_token::jws;
use proptest::prelude::*;
use serde_json::{Value, json};

fn jws_of(request: &IssueRequest) -> String {
    match &request.proof {
        Proof::Signed { jws } | Proof::Assertion { jws, .. } => jws.clone(),
        Proof::Kubernetes { .. } => panic!("no JWS"),
    }
}

fn one(host: &mut Host, request: IssueRequest) -> String {
    let prepared = host.prepare(vec![request]);
    host.commit();
    code(&prepared)
}

#[test]
fn any_altered_byte_of_a_signed_request_refuses_it() {
    let mut host = Host::started();
    let good = host.signed(json!([{"sub": "user:1", "scope": "read", "claims": {"tier": 1}}]));
    let text = jws_of(&good);
    let mut altered = Vec::new();
    for at in 0..text.len() {
        for bit in [0x01, 0x02, 0x04, 0x10, 0x20] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= bit;
            if let Ok(jws) = String::from_utf8(bytes) {
                altered.push(request(Proof::Signed { jws }));
            }
        }
        altered.push(request(Proof::Signed { jws: text[..at].to_owned() }));
    }
    assert!(altered.len() > 5 * text.len(), "every byte, in several ways");
    for chunk in altered.chunks(MAX_TOKENS_PER_FRAME) {
        let prepared = host.prepare(chunk.to_vec());
        assert!(granted(&prepared).is_empty());
        assert!(codes(&prepared).iter().all(|c| c != "granted" && c != "proof_replayed"));
        host.commit();
    }
    assert_eq!(one(&mut host, good), "granted", "the alterations used nothing up");
}

#[test]
fn what_was_asked_for_is_what_comes_out() {
    let mut host = Host::started();
    let request = host.signed(json!([
        {"sub": "user:7", "aud": "https://b.example", "scope": "write read", "lifetime": 77,
         "claims": {"tier": {"deep": [1, "x"]}}, "cnf": {"jkt": "A".repeat(43)}},
        {},
    ]));
    host.prepare(vec![request]);
    let tokens = host.commit().tokens;
    let claims: Vec<Value> = tokens
        .iter()
        .map(|t| {
            let compact = jws::parse(t.as_ref().unwrap(), jws::MAX_TOKEN_BYTES).unwrap();
            serde_json::from_slice(&compact.payload).unwrap()
        })
        .collect();
    assert_eq!(claims[0]["sub"], "user:7");
    assert_eq!(claims[0]["aud"], "https://b.example");
    assert_eq!(claims[0]["scope"], "write read");
    assert_eq!(claims[0]["tier"], json!({"deep": [1, "x"]}));
    assert_eq!(claims[0]["cnf"], json!({"jkt": "A".repeat(43)}));
    assert_eq!(claims[0]["exp"].as_u64().unwrap() - claims[0]["iat"].as_u64().unwrap(), 77);
    assert_eq!((&claims[1]["sub"], &claims[1]["aud"]), (&json!("shop"), &json!(AUDIENCE)));
    assert_eq!(claims[1]["client_id"], "shop");
    assert_ne!(claims[0]["jti"], claims[1]["jti"]);
}

#[test]
fn nothing_outside_the_policy_is_granted() {
    let mut host = Host::started();
    let asks = [
        (json!({"aud": "https://evil.example"}), "audience_not_granted"),
        (json!({"aud": [AUDIENCE, "https://b.example"]}), "audience_not_granted"),
        (json!({"sub": "admin"}), "subject_not_granted"),
        (json!({"sub": ""}), "subject_not_granted"),
        (json!({"scope": "read admin"}), "scope_not_granted"),
        (json!({"claims": {"role": "admin"}}), "claim_not_granted"),
        (json!({"claims": {"sub": "admin"}}), "reserved_claim"),
        (json!({"lifetime": 3_601}), "lifetime_not_granted"),
        (json!({"lifetime": 0}), "lifetime_not_granted"),
        (json!({"alg": "ES384"}), "algorithm_not_granted"),
        (json!({"alg": "none"}), "algorithm_not_granted"),
        (json!({"nbf": 1}), "malformed_request"),
        (json!({"sub": 1}), "malformed_request"),
        (json!({"cnf": {"jkt": "short"}}), "malformed_request"),
        (json!({"claims": {"tier": "x".repeat(5_000)}}), "malformed_request"),
        (json!("x"), "malformed_request"),
    ];
    for (ask, expected) in asks {
        let request = host.signed(json!([ask]));
        assert_eq!(one(&mut host, request), expected, "{ask}");
    }
    let many_scopes: Vec<String> = (0..20_000).map(|i| format!("s{i}")).collect();
    let request = host.signed(json!([{"scope": many_scopes.join(" ")}]));
    assert_eq!(one(&mut host, request), "malformed_request");
    let request = host.signed(json!(vec![json!({}); 257]));
    assert_eq!(one(&mut host, request), "too_many_requests");
    let request = host.signed(json!([]));
    assert_eq!(one(&mut host, request), "too_many_requests");
}

#[test]
fn a_token_too_long_to_be_read_is_not_signed() {
    let mut host = Host::with(|p| {
        p.realms[0].clients[0].grants[0].audiences =
            (0..20).map(|i| format!("https://{i}.{}", "a".repeat(1_000))).collect();
        p.realms[0].clients[0].grants[0].max_audiences = 20;
    });
    let all = host.policy.realms[0].clients[0].grants[0].audiences.clone();
    let request = host.signed(json!([{"aud": all}]));
    assert_eq!(one(&mut host, request), "malformed_request");
    let request = host.signed(json!([{"aud": all[..5]}]));
    assert_eq!(one(&mut host, request), "granted");
}

#[test]
fn a_proof_is_good_once_in_a_frame_later_and_after_a_hand_over() {
    let mut host = Host::started();
    for signed in [false, true] {
        let request = if signed { host.signed(json!([{}])) } else { host.assertion() };
        let prepared = host.prepare(vec![request.clone(), request.clone()]);
        assert_eq!(codes(&prepared), ["granted", "proof_replayed"]);
        host.commit();
        assert_eq!(one(&mut host, request.clone()), "proof_replayed");
        host.reconnect();
        assert_eq!(one(&mut host, request.clone()), "proof_replayed");
        host.run_s(30);
        assert_eq!(one(&mut host, request.clone()), "proof_replayed");
        host.run_s(30);
        assert_eq!(one(&mut host, request), "proof_expired");
    }
}

#[test]
fn one_jti_is_one_proof_whatever_kind_it_is() {
    let mut host = Host::started();
    let now = host.now_s();
    let mut payload = host.client.proof(now);
    let first = request(assertion_of(host.client.sign("JWT", &payload)));
    payload["requests"] = json!([{}]);
    let second = request(Proof::Signed { jws: host.client.sign(REQUEST_TYP, &payload) });
    assert_eq!(one(&mut host, first), "granted");
    assert_eq!(one(&mut host, second), "proof_replayed");
}

#[test]
fn a_signed_request_is_no_assertion_and_the_other_way_round() {
    let mut host = Host::started();
    let signed = jws_of(&host.signed(json!([{"sub": "user:1"}])));
    assert_eq!(one(&mut host, request(assertion_of(signed))), "malformed_proof");
    let assertion = jws_of(&host.assertion());
    assert_eq!(one(&mut host, request(Proof::Signed { jws: assertion })), "malformed_proof");
}

#[test]
fn proofs_from_before_the_start_are_refused_unless_they_name_this_log() {
    let mut host = Host::fresh(|_| {});
    host.hello();
    let start = host.start_request();
    let prepared = host.prepared(start);
    host.open.push(prepared);
    host.commit();
    let started = host.now_s();
    let (log, mut stranger) = (host.log_id(), Host::fresh(|_| {}));
    stranger.hello();
    let proof = |host: &mut Host, iat: u64, log: Option<&str>| {
        let mut payload = host.client.proof(iat);
        if let Some(log) = log {
            payload["log"] = json!(log);
        }
        request(assertion_of(host.client.sign("JWT", &payload)))
    };
    let foreign = stranger.log_id();
    for (after_s, iat, log, expected) in [
        (0, started, None, "proof_before_start"),
        (0, started - 30, Some(log.as_str()), "granted"),
        (0, started, Some(foreign.as_str()), "wrong_log"),
        (2, started + 2, None, "proof_before_start"),
        (2, started + 4, None, "proof_before_start"),
        (3, started + 2, None, "proof_before_start"),
        (3, started - 30, None, "proof_before_start"),
        (3, started + 3, None, "granted"),
        (3, started + 3, Some(foreign.as_str()), "wrong_log"),
        (3, started + 5, None, "granted"),
        (3, started + 6, None, "proof_not_yet_valid"),
    ] {
        let wait = started + after_s - host.now_s();
        host.pass_ms(wait * 1_000);
        let request = proof(&mut host, iat, log);
        assert_eq!(
            one(&mut host, request),
            expected,
            "iat {} at {after_s}",
            iat as i64 - started as i64
        );
    }
}

#[test]
fn a_client_id_that_names_somebody_else_is_refused_and_uses_nothing_up() {
    let mut host = Host::started();
    let mut named = host.assertion();
    let mut set = |id: &str| {
        let Proof::Assertion { client_id, .. } = &mut named.proof else { panic!("no assertion") };
        *client_id = Some(id.to_owned());
        named.clone()
    };
    let (wrong, right) = (set("somebody"), set("shop"));
    assert_eq!(one(&mut host, wrong), "malformed_request");
    assert_eq!(one(&mut host, right), "granted");
}

#[test]
fn strangers_and_strange_keys_are_refused() {
    let mut host = Host::started();
    let now = host.now_s();
    let mut stranger = Client::new("nobody");
    let proof = stranger.proof(now);
    let unknown = request(assertion_of(stranger.sign("JWT", &proof)));
    assert_eq!(one(&mut host, unknown), "unknown_client");
    // The right name with the wrong key, once with its own and once with the right `kid`.
    let mut thief = Client::new("shop");
    let proof = thief.proof(now);
    let text = thief.sign("JWT", &proof);
    assert_eq!(one(&mut host, request(assertion_of(text.clone()))), "unknown_client_key");
    let good = host.client.sign("JWT", &host.client.proof_with(now));
    let header = good.split('.').next().unwrap();
    let rest = text.split_once('.').unwrap().1;
    assert_eq!(one(&mut host, request(assertion_of(format!("{header}.{rest}")))), "bad_signature");
    // Another realm's issuer, several audiences, the token endpoint: RFC 7523bis wants the issuer.
    for aud in [
        json!("https://issuer.example/organizations"),
        json!([ISSUER, "https://b.example"]),
        json!(format!("{ISSUER}/token")),
        Value::Null,
    ] {
        let mut payload = host.client.proof(now);
        payload["aud"] = aud;
        let wrong = request(assertion_of(host.client.sign("JWT", &payload)));
        assert_eq!(one(&mut host, wrong), "wrong_audience");
    }
    let mut long = host.client.proof(now);
    long["exp"] = json!(now + 121);
    let long = request(assertion_of(host.client.sign("JWT", &long)));
    assert_eq!(one(&mut host, long), "proof_too_long");
}

#[test]
fn a_full_memory_refuses_and_never_evicts() {
    let mut host = Host::with(|p| p.realms[0].clients[0].replay_capacity = 3);
    let used: Vec<_> = (0..3).map(|_| host.assertion()).collect();
    for request in &used {
        assert_eq!(one(&mut host, request.clone()), "granted");
    }
    let fourth = host.assertion();
    assert_eq!(one(&mut host, fourth.clone()), "replay_memory_full");
    for request in &used {
        assert_eq!(one(&mut host, request.clone()), "proof_replayed");
    }
    host.run_s(58);
    assert_eq!(one(&mut host, fourth.clone()), "replay_memory_full");
    host.run_s(2);
    let fresh = host.assertion();
    assert_eq!(one(&mut host, fresh), "granted", "the old ones have expired");
    assert_eq!(one(&mut host, fourth), "proof_expired");
}

#[test]
fn the_memory_of_one_client_is_not_that_of_another() {
    let other = Client::new("other");
    let mut host = Host::with(|p| {
        p.realms[0].clients[0].replay_capacity = 1;
        p.realms[0].clients.push(other.document());
    });
    let request = host.assertion();
    assert_eq!(one(&mut host, request), "granted");
    let request = host.assertion();
    assert_eq!(one(&mut host, request), "replay_memory_full");
    host.client = other;
    let request = host.assertion();
    assert_eq!(one(&mut host, request), "granted");
}

#[test]
fn a_clients_rate_counts_its_tokens_and_a_replay_costs_it_nothing() {
    let mut host = Host::with(|p| p.realms[0].clients[0].max_tokens_per_s = Some(10));
    let batch = host.signed(json!(vec![json!({}); 19]));
    let prepared = host.prepare(vec![batch.clone()]);
    assert_eq!(granted(&prepared).len(), 19);
    host.commit();
    for _ in 0..50 {
        assert_eq!(one(&mut host, batch.clone()), "proof_replayed");
    }
    let last = host.assertion();
    assert_eq!(one(&mut host, last), "granted");
    let early = host.signed(json!(vec![json!({}); 10]));
    assert_eq!(one(&mut host, early.clone()), "rate_limited");
    host.pass_ms(999);
    assert_eq!(one(&mut host, early.clone()), "rate_limited");
    host.pass_ms(1);
    let prepared = host.prepare(vec![early]);
    assert_eq!(granted(&prepared).len(), 10, "the same proof is good when there is room");
    host.commit();
    let never = host.signed(json!(vec![json!({}); 21]));
    host.run_s(30);
    assert_eq!(one(&mut host, never), "rate_limited");
}

#[test]
fn what_does_not_fit_into_a_frame_is_deferred_and_its_proof_stays_good() {
    let mut host = Host::started();
    let requests: Vec<_> = [256, 256, 256, 200, 57, 56, 1]
        .iter()
        .map(|n| host.signed(json!(vec![json!({}); *n])))
        .collect();
    let prepared = host.prepare(requests.clone());
    let by_request: Vec<_> = prepared.decisions.iter().map(|d| d.outcomes.len()).collect();
    // What follows the first that does not fit waits unseen, so that little is verified twice.
    assert_eq!(by_request, [256, 256, 256, 200, 1, 1, 1]);
    assert_eq!(granted(&prepared).len(), 968);
    let deferred = |at: usize| matches!(&prepared.decisions[at].outcomes[0], Outcome::Refused { code, .. } if code == "deferred");
    assert!(deferred(4) && deferred(5) && deferred(6));
    assert_eq!(host.commit().tokens.iter().flatten().count(), 968);
    let prepared = host.prepare(requests);
    assert_eq!(granted(&prepared).len(), 114, "the three that were deferred");
    let replayed = codes(&prepared).iter().filter(|c| *c == "proof_replayed").count();
    assert_eq!(replayed, 4);
    host.commit();
}

#[test]
fn refusals_count_against_the_frame_too() {
    let mut host = Host::started();
    let requests: Vec<_> =
        (0..8).map(|_| host.signed(json!(vec![json!({"scope": "admin"}); 256]))).collect();
    let prepared = host.prepare(requests);
    let refused = codes(&prepared);
    assert_eq!(refused.iter().filter(|c| *c == "scope_not_granted").count(), MAX_TOKENS_PER_FRAME);
    assert_eq!(refused.iter().filter(|c| *c == "deferred").count(), 4);
}

#[test]
fn a_clock_that_steps_stops_signing_and_uses_nothing_up() {
    let mut host = Host::started();
    for jump in [3_600_000_i64, -3_600_000, 5_000, -5_000] {
        let request = host.assertion();
        let wall = &mut host.signer.clock_mut().0.wall_ms;
        *wall = wall.saturating_add_signed(jump);
        host.signer.tick().unwrap();
        assert!(!host.status().clock_trusted);
        assert_eq!(one(&mut host, request.clone()), "clock_untrusted", "{jump}");
        let wall = &mut host.signer.clock_mut().0.wall_ms;
        *wall = wall.saturating_add_signed(-jump);
        assert_eq!(one(&mut host, request), "granted", "{jump}");
    }
    let said = |code: &str| host.notices.iter().filter(|n| n.code == code).count();
    assert_eq!((said("clock_untrusted"), said("clock_trusted")), (4, 4));
}

#[test]
fn a_host_that_creeps_cannot_move_the_clock_far() {
    let mut host = Host::started();
    // A second of wall time in every real millisecond, in steps below the bound.
    let mut refused = false;
    for _ in 0..100 {
        let reading = &mut host.signer.clock_mut().0;
        reading.wall_ms += 1_000;
        reading.boot_ms += 1;
        host.signer.tick().unwrap();
        refused |= !host.status().clock_trusted;
    }
    assert!(refused);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn garbage_for_a_proof_is_refused(text in "\\PC{0,200}", signed in any::<bool>()) {
        let mut host = Host::started();
        let proof = if signed { Proof::Signed { jws: text } } else { assertion_of(text) };
        prop_assert_eq!(one(&mut host, request(proof)), "malformed_proof");
    }
}
