//! Rotation, compromise and changes of the policy, as a host sees them; and the eight algorithms.

use crate::support::*;
use chancery_entry::{Entry, Start, VoidReason};
use chancery_policy::PolicyDocument;
use chancery_signer_api::*;
use chancery_token::{Algorithm, KeyId};
use serde_json::json;

fn load(host: &mut Host, policy: &PolicyDocument) -> Response {
    let policy = policy.to_json().unwrap().into();
    host.signer.handle(Request::LoadPolicy(LoadPolicy { policy }))
}

fn refused(host: &mut Host, policy: &PolicyDocument) {
    match load(host, policy) {
        Response::Fault(fault) => assert_eq!(fault.code, FaultCode::Policy, "{}", fault.detail),
        other => panic!("accepted: {other:?}"),
    }
}

fn loaded(host: &mut Host, policy: &PolicyDocument) {
    match load(host, policy) {
        Response::PolicyLoaded(answer) => {
            assert_eq!(answer.version, policy.version);
            assert_eq!(*answer.digest, chancery_entry::sha256(&policy.to_json().unwrap()));
        }
        other => panic!("not loaded: {other:?}"),
    }
}

fn next(host: &Host) -> PolicyDocument {
    PolicyDocument { version: host.policy.version + 1, ..host.policy.clone() }
}

fn compromise(host: &mut Host, kids: &[[u8; 32]], include_retired: bool) -> Vec<[u8; 32]> {
    let keys = kids
        .iter()
        .map(|kid| CompromisedKey { kid: (*kid).into(), reason: "stolen".into() })
        .collect();
    match host.signer.handle(Request::Compromise(Compromise { keys, include_retired })) {
        Response::Compromised(answer) => answer.gone.into_iter().map(|kid| *kid).collect(),
        other => panic!("not compromised: {other:?}"),
    }
}

fn rotate(host: &mut Host) -> u64 {
    match host.signer.handle(Request::Rotate(Rotate { realm: "consumers".into() })) {
        Response::Rotating(answer) => {
            assert_eq!(answer.active_from.len(), 1);
            answer.active_from[0].1
        }
        other => panic!("not rotating: {other:?}"),
    }
}

fn active(host: &mut Host) -> KeyStatus {
    let mut keys = host.status().keys;
    keys.retain(|k| k.state == "active");
    assert_eq!(keys.len(), 1);
    keys.remove(0)
}

fn text(kid: [u8; 32]) -> String {
    KeyId::from_bytes(kid).to_string()
}

fn one(host: &mut Host, request: IssueRequest) -> String {
    let prepared = host.prepare(vec![request]);
    host.commit();
    code(&prepared)
}

#[test]
fn rotation_goes_by_itself_and_every_token_of_three_hours_holds() {
    let mut host = Host::with(|p| p.realms[0].schedule.max_lifetime_s = 600);
    let mut kids = std::collections::BTreeSet::new();
    let mut sequence = 0;
    for _ in 0..10_800 {
        host.pass_ms(1_000);
        host.signer.tick().unwrap();
        // An ordinary token now and then; `Host::commit` verifies each.
        if host.now_s().is_multiple_of(20) || host.announced().len() > kids.len() + 1 {
            let request = host.assertion();
            let prepared = host.prepare(vec![request]);
            assert_eq!(code(&prepared), "granted", "at {}", host.now_s());
            kids.insert(text(*granted(&prepared)[0].kid));
        } else {
            host.prepare(Vec::new());
        }
        host.commit();
        assert!(host.last_seq >= sequence);
        sequence = host.last_seq;
    }
    assert!(kids.len() >= 3, "{} keys", kids.len());
    let entries = host.entries();
    let mut starts = entries
        .iter()
        .filter_map(|e| if let Entry::Announcement(a) = e { Some(a.start) } else { None });
    assert_eq!(starts.next(), Some(Start::First));
    assert!(starts.all(|s| s == Start::Led));
    // The first keys have left the key set; the active one is in it.
    let current = text(*active(&mut host).kid);
    let published = host.published();
    assert!(published.contains(&current));
    assert!(published.len() <= 3, "{published:?}");
    // It is signed anew each minute, so a reader always finds a fresh one.
    assert!(host.last_seq >= 180, "{} key sets", host.last_seq);
    assert!(!host.notices.iter().any(|n| n.code == "rotation_gap" || n.code == "signing_stopped"));
}

#[test]
fn a_host_that_sleeps_through_a_rotation_hears_of_the_gap() {
    let mut host = Host::started();
    host.pass_ms(2 * 3_600_000);
    let request = host.assertion();
    assert_eq!(one(&mut host, request), "no_active_key");
    let codes: Vec<_> = host.notices.iter().map(|n| n.code.as_str()).collect();
    assert!(codes.contains(&"rotation_gap") && codes.contains(&"signing_stopped"), "{codes:?}");
    host.run_s(299);
    let request = host.assertion();
    assert_eq!(one(&mut host, request), "no_active_key");
    host.run_s(2);
    host.token();
}

#[test]
fn an_announcement_that_is_not_committed_never_signs() {
    let mut host = Host::started();
    // Up to the successor's announcement, which the host keeps to itself.
    let seconds = START_MS / 1_000 + 3_600 - 310 - host.now_s();
    host.run_s(seconds);
    let announced = host.announced().len();
    assert_eq!(announced, 2);
    let mut host = Host::started();
    host.pass_ms((3_600 - 314) * 1_000);
    host.prepare(Vec::new());
    host.pass_ms(400_000);
    host.prepare(vec![]);
    let request = Request::Prepare(Prepare { requests: vec![host.assertion()], audit: vec![] });
    assert_eq!(host.fault(request), FaultCode::TooManyOpen);
    host.commit();
    host.commit();
    let request = host.assertion();
    assert_eq!(one(&mut host, request), "no_active_key", "the lead counts from the commit");
    host.run_s(301);
    host.token();
}

#[test]
fn an_explicit_rotation_says_when_and_takes_effect_then() {
    let mut host = Host::started();
    let before = active(&mut host);
    let from = rotate(&mut host);
    assert_eq!(from, host.now_s() + 300 + 15);
    assert_eq!(rotate(&mut host), from, "asked twice, it is one rotation");
    while host.now_s() + 1 < from {
        host.run_s(1);
        assert_eq!(active(&mut host).kid, before.kid);
    }
    let last = host.token();
    host.run_s(1);
    let after = active(&mut host);
    assert_ne!(after.kid, before.kid);
    assert_eq!(after.nbf, from);
    assert_ne!(host.token(), last);
    let old = host.status().keys.into_iter().find(|k| k.kid == before.kid).unwrap();
    assert_eq!((old.state.as_str(), old.signs_until), ("retired", from));
    assert!(host.entries().iter().any(
        |e| matches!(e, Entry::Narrowing(n) if n.kid == *before.kid && n.signs_until == from)
    ));
    let unknown = Request::Rotate(Rotate { realm: "nobody".into() });
    assert_eq!(host.fault(unknown), FaultCode::UnknownRealm);
}

#[test]
fn a_compromise_voids_what_is_held_back_and_a_fresh_key_signs_at_once() {
    let mut host = Host::started();
    host.token();
    let stolen = *active(&mut host).kid;
    let request = host.assertion();
    let prepared = host.prepare(vec![request]);
    let index = granted(&prepared)[0].index;
    assert_eq!(compromise(&mut host, &[stolen], false), [stolen]);
    assert_eq!(compromise(&mut host, &[stolen], false), Vec::<[u8; 32]>::new(), "it fell already");
    // The same batch that announces the fresh key may use it.
    let request = host.assertion();
    let next = host.prepare(vec![request]);
    let fresh = *granted(&next)[0].kid;
    assert_ne!(fresh, stolen);
    assert_eq!(host.commit().tokens, [None], "held back under the stolen key");
    assert!(!host.published().contains(&text(stolen)), "it left the key set with that commit");
    assert!(host.commit().tokens[0].is_some());
    assert_eq!(host.published(), [text(fresh)]);
    host.prepare(Vec::new());
    host.commit();
    assert_eq!(host.voids(), [(index, VoidReason::KeyCompromised)]);
    assert!(host.compromised().contains(&stolen));
    let announced = host.entries().into_iter().find_map(|e| match e {
        Entry::Announcement(a) if a.kid == fresh => Some(a),
        _ => None,
    });
    assert_eq!(announced.unwrap().start, Start::Replacement);
}

#[test]
fn a_pending_key_falls_with_the_active_one_and_a_retired_one_on_request() {
    let mut host = Host::started();
    host.token();
    let first = *active(&mut host).kid;
    host.run_s(3_600 - 200);
    let pending: Vec<_> =
        host.status().keys.iter().filter(|k| k.state == "pending").map(|k| *k.kid).collect();
    assert_eq!(pending.len(), 1);
    let mut gone = compromise(&mut host, &[first], false);
    gone.sort_unstable();
    let mut both = vec![first, pending[0]];
    both.sort_unstable();
    assert_eq!(gone, both);
    host.prepare(Vec::new());
    host.commit();
    assert!(!host.published().contains(&text(pending[0])));
    // A retired key stays, unless it is asked for.
    host.token();
    let second = *active(&mut host).kid;
    host.run_s(3_590);
    host.token();
    host.run_s(20);
    host.token();
    let third = *active(&mut host).kid;
    assert!(!compromise(&mut host, &[third], false).contains(&second));
    host.token();
    assert!(host.published().contains(&text(second)));
    let fourth = *active(&mut host).kid;
    assert!(compromise(&mut host, &[fourth], true).contains(&second));
    host.token();
    assert!(!host.published().contains(&text(second)));
}

#[test]
fn keys_of_dead_signers_are_logged_at_start_and_later() {
    let mut host = Host::fresh(|_| {});
    host.hello();
    let dead = CompromisedKey { kid: [9; 32].into(), reason: "found on a pastebin".into() };
    let start = chancery_signer_api::Start {
        policy: host.policy.to_json().unwrap().into(),
        predecessor: None,
        compromised: vec![dead],
    };
    let prepared = host.prepared(Request::Start(start));
    host.open.push(prepared);
    host.commit();
    assert_eq!(host.compromised(), [[9; 32]]);
    assert_eq!(compromise(&mut host, &[[8; 32]], false), Vec::<[u8; 32]>::new());
    host.run_s(4);
    assert_eq!(host.compromised(), [[9; 32], [8; 32]]);
    host.token();
}

#[test]
fn compromises_are_bounded() {
    let mut host = Host::started();
    let key = |reason: String| CompromisedKey { kid: [1; 32].into(), reason };
    let ask = |keys: Vec<CompromisedKey>| {
        Request::Compromise(Compromise { keys, include_retired: false })
    };
    assert_eq!(host.fault(ask(vec![key("x".repeat(1_025))])), FaultCode::Malformed);
    assert_eq!(host.fault(ask(vec![key("x".into()); 8_193])), FaultCode::Malformed);
    let mut accepted = 0;
    while matches!(host.signer.handle(ask(vec![key("x".into()); 8_192])), Response::Compromised(_))
    {
        accepted += 1;
        assert!(accepted < 10, "the signer collects without end");
    }
    host.prepare(Vec::new());
    host.commit();
    assert!(matches!(host.signer.handle(ask(vec![key("x".into())])), Response::Compromised(_)));
}

#[test]
fn a_policy_decides_nothing_before_its_entry_is_committed() {
    let mut host = Host::started();
    let mut policy = next(&host);
    policy.realms[0].clients[0].grants[0].scopes.push("admin".into());
    loaded(&mut host, &policy);
    assert_eq!(host.status().policy_version, 1);
    let admin = |host: &mut Host| host.signed(json!([{"scope": "admin"}]));
    let request = admin(&mut host);
    let with_entry = host.prepare(vec![request]);
    assert_eq!(code(&with_entry), "scope_not_granted", "its entry is in this very batch");
    let request = admin(&mut host);
    assert_eq!(code(&host.prepare(vec![request])), "scope_not_granted", "nor is it committed");
    assert_eq!(host.status().policy_version, 1);
    host.commit();
    assert_eq!(host.status().policy_version, 2);
    host.commit();
    let request = admin(&mut host);
    let prepared = host.prepare(vec![request]);
    assert_eq!(granted(&prepared)[0].policy_version, 2);
    host.commit();
    let digest = chancery_entry::sha256(&policy.to_json().unwrap());
    assert!(
        host.entries()
            .iter()
            .any(|e| matches!(e, Entry::Policy(p) if p.version == 2 && p.digest == digest))
    );
    assert_eq!(*host.status().policy_digest, digest);
}

#[test]
fn a_policy_cannot_go_back_or_change_what_keys_speak_for() {
    let mut host = Host::started();
    let policy = host.policy.clone();
    // Another policy under each version, so that only the version can be the reason.
    let version = |version| {
        let mut document = PolicyDocument { version, ..policy.clone() };
        document.realms[0].clients[0].grants[0].name = format!("grant of {version}");
        document
    };
    refused(&mut host, &version(1));
    refused(&mut host, &version(0));
    let mut other = next(&host);
    other.log_prefix = "elsewhere.example/log".into();
    refused(&mut host, &other);
    let mut other = next(&host);
    other.realms[0].issuer = "https://evil.example".into();
    refused(&mut host, &other);
    // While version 3 waits to be committed, nothing older gets in.
    loaded(&mut host, &version(3));
    let mut third = version(3);
    // The very same again changes nothing: a service that was cut off asks again.
    loaded(&mut host, &third);
    third.realms[0].clients[0].grants[0].name = "another".into();
    refused(&mut host, &third);
    host.prepare(Vec::new());
    loaded(&mut host, &version(3));
    refused(&mut host, &third);
    refused(&mut host, &version(2));
    host.commit();
    loaded(&mut host, &version(3));
    refused(&mut host, &third);
    loaded(&mut host, &version(4));
    host.run_s(1);
    host.token();
}

#[test]
fn a_realm_cannot_change_its_issuer_by_going_away_and_coming_back() {
    let mut host = Host::started();
    host.token();
    let mut without = next(&host);
    without.realms[0].name = "other".into();
    without.realms[0].issuer = "https://issuer.example/other".into();
    loaded(&mut host, &without);
    let mut back = PolicyDocument { version: 3, ..host.policy.clone() };
    back.realms[0].issuer = "https://evil.example".into();
    refused(&mut host, &back);
    let mut renamed = without.clone();
    renamed.version = 3;
    renamed.realms[0].issuer = "https://evil.example".into();
    host.prepare(Vec::new());
    refused(&mut host, &renamed);
    let answer = host.open.remove(0);
    host.log.extend(answer.entries.iter().map(|e| e.to_vec()));
    assert!(matches!(
        host.signer.handle(Request::Commit(Commit { batch: answer.batch })),
        Response::Committed(_)
    ));
    // The keys of the realm that went away are still in the key set.
    refused(&mut host, &back);
}

#[test]
fn a_proof_stays_used_when_its_realm_gets_another_name() {
    let mut host = Host::started();
    let used = host.assertion();
    assert_eq!(one(&mut host, used.clone()), "granted");
    let mut renamed = next(&host);
    renamed.realms[0].name = "shoppers".into();
    loaded(&mut host, &renamed);
    host.run_s(2);
    let again = IssueRequest { realm: "shoppers".into(), ..used };
    assert_eq!(one(&mut host, again), "proof_replayed");
}

#[test]
fn a_client_that_leaves_the_policy_gets_nothing_more() {
    let mut host = Host::started();
    let other = Client::new("other");
    let mut policy = next(&host);
    policy.realms[0].clients = vec![other.document()];
    loaded(&mut host, &policy);
    host.run_s(1);
    let request = host.assertion();
    assert_eq!(one(&mut host, request), "unknown_client");
}

#[test]
fn a_policy_that_waits_survives_a_hand_over() {
    let mut host = Host::started();
    let policy = next(&host);
    loaded(&mut host, &policy);
    let batch = host.prepare(Vec::new());
    let resumed = host.reconnect();
    assert_eq!((resumed.policy_version, resumed.open), (1, vec![batch]));
    host.commit();
    assert_eq!(host.reconnect().policy_version, 2);
}

#[test]
fn every_algorithm_signs_from_end_to_end() {
    let mut host = Host::with(|p| p.realms[0].algorithms = Algorithm::ALL.to_vec());
    // RSA keys come from their own thread; the rest is there at once.
    for _ in 0..1_200 {
        if host.announced().len() >= Algorithm::ALL.len() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        host.run_s(1);
    }
    for algorithm in Algorithm::ALL {
        let request =
            host.signed(json!([{"alg": algorithm.as_str()}, {"alg": algorithm.as_str()}]));
        let prepared = host.prepare(vec![request]);
        assert_eq!(codes(&prepared), ["granted", "granted"], "{algorithm}");
        for token in host.commit().tokens {
            let token = token.unwrap();
            let compact = chancery_token::jws::parse(&token, 16_384).unwrap();
            assert_eq!(compact.header.alg, algorithm.as_str());
        }
    }
    assert_eq!(host.published().len(), Algorithm::ALL.len());
    let kids: std::collections::BTreeSet<_> = host.published().into_iter().collect();
    assert_eq!(kids.len(), Algorithm::ALL.len(), "no key serves two algorithms");
}

#[test]
fn a_status_tells_states_ages_and_sizes() {
    let mut host = Host::started();
    host.token();
    let status = host.status();
    assert_eq!(status.committed_size, host.log.len() as u64);
    assert!(status.clock_trusted);
    let key = &status.keys[0];
    assert_eq!(
        (key.realm.as_str(), key.algorithm.as_str(), key.state.as_str()),
        ("consumers", "ES256", "active")
    );
    assert_eq!((key.announced_at, key.scheduled_s, key.signs_until - key.nbf), (2, 3_600, 3_600));
    assert!(matches!(host.signer.handle(Request::End), Response::Ending));
}
