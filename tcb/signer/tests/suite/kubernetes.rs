//! Tokens of Kubernetes service accounts: signed as the claims came, found by their digest, under
//! keys whose windows hold what another clock calls now; and imported keys, which never sign.

use std::collections::BTreeSet;

use crate::support::*;
use chancery_entry::{Entry, Imported, TokenEntry};
use chancery_policy::document::{ImportedKeyDocument, KubernetesDocument};
use chancery_policy::{PolicyDocument, Schedule};
use chancery_signer_api::*;
use chancery_token::client::ClientKey;
use chancery_token::{Algorithm, KeyId, b64, jws};
use serde_json::{Map, Value, json};

/// A key every 15 seconds, as fast as tokens of ten minutes let a realm go.
const FAST: Schedule = Schedule {
    rotation: chancery_policy::Rotation::Automatic,
    rotate_every_s: 15,
    publish_lead_s: 5,
    max_lifetime_s: 600,
    skew_s: 5,
    manual_window_s: 600,
};

fn cluster(document: &mut PolicyDocument) {
    let realm = &mut document.realms[0];
    realm.clients.clear();
    realm.schedule = FAST;
    realm.kubernetes = Some(KubernetesDocument {
        audiences: vec![AUDIENCE.into()],
        service_accounts: vec!["default:*".into()],
        required_claims: vec![],
        further_claims: vec![],
        imported: vec![],
    });
}

fn kubernetes(document: &mut PolicyDocument) -> &mut KubernetesDocument {
    document.realms[0].kubernetes.as_mut().unwrap()
}

fn claims(iat: u64, lifetime_s: u64, jti: &str) -> String {
    let claims = json!({
        "iss": ISSUER, "sub": "system:serviceaccount:default:web", "aud": [AUDIENCE],
        "iat": iat, "nbf": iat, "exp": iat + lifetime_s, "jti": jti,
        "kubernetes.io":
            {"namespace": "default", "serviceaccount": {"name": "web", "uid": "1"}},
    });
    b64::encode(claims.to_string().as_bytes())
}

fn asked(claims: String) -> IssueRequest {
    request(Proof::Kubernetes { claims })
}

/// Commits without the checks that tokens of clients must pass.
fn commit(host: &mut Host) -> Vec<Option<String>> {
    let prepared = host.open.remove(0);
    host.log.extend(prepared.entries.iter().map(|e| e.to_vec()));
    match host.signer.handle(Request::Commit(Commit { batch: prepared.batch })) {
        Response::Committed(committed) => {
            host.keys_jwt = committed.keys_jwt.or(host.keys_jwt.take());
            committed.tokens
        }
        other => panic!("not committed: {other:?}"),
    }
}

/// The refusal's code, or the token.
fn sign(host: &mut Host, claims: &str) -> Result<String, String> {
    let prepared = host.prepare(vec![asked(claims.to_owned())]);
    let tokens = commit(host);
    match code(&prepared).as_str() {
        "granted" => Ok(tokens.into_iter().next().unwrap().expect("not voided")),
        code => Err(code.to_owned()),
    }
}

/// What a stranger can check of a token that says `claims`; returns the thumbprint of its key.
fn check(host: &Host, token: &str, claims: &str) -> KeyId {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts[1], claims, "the claims as they came");
    let header: Map<String, Value> =
        serde_json::from_slice(&b64::decode(parts[0]).unwrap()).unwrap();
    assert_eq!(header.len(), 3);
    assert_eq!(header["typ"], "JWT");
    let compact = jws::parse(token, jws::MAX_TOKEN_BYTES).unwrap();
    let kid: KeyId = header["kid"].as_str().unwrap().parse().unwrap();
    let (key, nbf, until) = &host.announced()[kid.as_bytes()];
    assert_eq!(header["alg"], key.algorithm().as_str());
    jws::verify(&compact, key, false).unwrap();
    let claims: Value = serde_json::from_slice(&compact.payload).unwrap();
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!((*nbf..*until).contains(&iat), "{iat} outside {nbf}..{until}");
    let leaf = TokenEntry::of(*kid.as_bytes(), iat, exp, compact.signing_input.as_bytes());
    assert!(host.entries().contains(&Entry::Token(leaf)), "not in the log");
    kid
}

fn imported(host: &Host) -> Vec<Imported> {
    let of = |entry| if let Entry::Imported(key) = entry { Some(key) } else { None };
    host.entries().into_iter().filter_map(of).collect()
}

fn load(host: &mut Host, document: &PolicyDocument) -> Result<(), String> {
    let load = LoadPolicy { policy: document.to_json().unwrap().into() };
    match host.signer.handle(Request::LoadPolicy(load)) {
        Response::PolicyLoaded(_) => {}
        Response::Fault(fault) => return Err(fault.detail),
        other => panic!("{other:?}"),
    }
    // The policy's entry, then those that follow from it.
    for _ in 0..2 {
        host.prepare(Vec::new());
        commit(host);
    }
    Ok(())
}

#[test]
fn claims_are_signed_as_they_came() {
    for algorithm in [Algorithm::Es256, Algorithm::Es384] {
        let mut host = Host::with(|document| {
            cluster(document);
            document.realms[0].algorithms = vec![algorithm];
        });
        let now = host.now_s();
        // Neither order nor spacing is the signer's.
        let spaced = b64::decode(&claims(now, 600, "a")).unwrap();
        let spaced = String::from_utf8(spaced).unwrap().replace(',', " ,\n");
        let spaced = b64::encode(spaced.as_bytes());
        let token = sign(&mut host, &spaced).unwrap();
        check(&host, &token, &spaced);
        // The same claims twice are two entries, and the second token is as good.
        let again = sign(&mut host, &spaced).unwrap();
        check(&host, &again, &spaced);
        let tokens = host.entries().iter().filter(|e| matches!(e, Entry::Token(_))).count();
        assert_eq!(tokens, 2);
    }
}

#[test]
fn neither_kind_of_realm_answers_the_other_kind_of_request() {
    let mut host = Host::with(cluster);
    for request in [host.assertion(), host.signed(json!([{}]))] {
        let prepared = host.prepare(vec![request]);
        commit(&mut host);
        assert_eq!(code(&prepared), "wrong_realm_kind");
    }
    let mut host = Host::started();
    let now = host.now_s();
    assert_eq!(sign(&mut host, &claims(now, 60, "a")).unwrap_err(), "wrong_realm_kind");
}

#[test]
fn a_rotation_every_fifteen_seconds_refuses_nothing() {
    let mut host = Host::with(cluster);
    let mut kids = BTreeSet::new();
    for second in 0..120_u64 {
        let now = host.now_s();
        for late in [0, 4, 10] {
            let claims = claims(now - late, 600, &format!("{second}-{late}"));
            let token = sign(&mut host, &claims).unwrap_or_else(|e| panic!("{second}: {e}"));
            kids.insert(check(&host, &token, &claims).to_string());
        }
        host.pass_ms(1_000);
        host.signer.tick().unwrap();
    }
    assert!(kids.len() >= 8, "{} keys", kids.len());
    let announced = host.announced();
    let mut windows: Vec<_> = announced.values().map(|(_, nbf, until)| (*nbf, *until)).collect();
    windows.sort_unstable();
    for pair in windows.windows(2) {
        assert_eq!(pair[1].0, pair[0].1 - 10, "each window begins 10 s before its key signs");
    }
    // The published window is the announced one.
    let (set, _) = host.read_keys_jwt(host.keys_jwt.as_ref().unwrap());
    for member in set.members() {
        let (_, nbf, until) = &announced[member.key.kid().as_bytes()];
        assert_eq!(member.window.map(|w| (w.nbf, w.signs_until)), Some((*nbf, *until)));
    }
}

/// Over several rotations, with a clock that is ahead by each amount that is allowed: nothing is
/// refused, and each second is one key's.
#[test]
fn a_clock_that_is_ahead_is_signed_for_by_the_next_key() {
    for ahead in [1, 2, 3, 7, 10] {
        let mut host = Host::with(cluster);
        let mut signed: Vec<(u64, KeyId)> = Vec::new();
        for second in 0..60 {
            let now = host.now_s();
            for iat in [now, now + ahead] {
                let claims = claims(iat, 600, &format!("{second}-{iat}"));
                let token = sign(&mut host, &claims)
                    .unwrap_or_else(|e| panic!("{ahead} s ahead, second {second}: {e}"));
                signed.push((iat, check(&host, &token, &claims)));
            }
            host.pass_ms(1_000);
            host.signer.tick().unwrap();
        }
        signed.sort_unstable_by_key(|(iat, _)| *iat);
        for pair in signed.windows(2) {
            assert!(pair[0].0 < pair[1].0 || pair[0].1 == pair[1].1, "two keys for one second");
        }
        let kids: BTreeSet<String> = signed.iter().map(|(_, kid)| kid.to_string()).collect();
        assert!(kids.len() >= 4, "{} keys", kids.len());
    }
    let mut host = Host::with(cluster);
    let now = host.now_s();
    assert_eq!(sign(&mut host, &claims(now - 11, 60, "b")).unwrap_err(), "iat_not_now");
    assert_eq!(sign(&mut host, &claims(now + 11, 60, "c")).unwrap_err(), "iat_not_now");
}

/// INVARIANT I3: relying parties do not know it yet.
#[test]
fn a_successor_whose_lead_has_not_passed_signs_for_no_clock() {
    let mut host = Host::with(|document| {
        cluster(document);
        document.realms[0].schedule.rotate_every_s = 30;
    });
    let active = host.status().keys.into_iter().find(|k| k.state == "active").unwrap();
    let is_announced = |host: &mut Host| host.status().keys.iter().any(|k| k.state == "pending");
    // Its announcement is made, and the service is late in committing it.
    while !is_announced(&mut host) {
        host.pass_ms(1_000);
        host.signer.tick().unwrap();
    }
    while host.now_s() + 10 < active.signs_until {
        host.pass_ms(1_000);
        host.signer.tick().unwrap();
    }
    let ahead = claims(active.signs_until, 600, "a");
    assert_eq!(sign(&mut host, &ahead).unwrap_err(), "no_active_key");
    // Committed just now: after the lead it signs, though the active key still does.
    host.pass_ms(5_000);
    assert!(host.now_s() < active.signs_until);
    let token = sign(&mut host, &ahead).unwrap();
    assert_ne!(check(&host, &token, &ahead).as_bytes(), &*active.kid);
}

/// A realm that leaves the policy drops its pending keys, but not one that signed.
#[test]
fn a_successor_that_signed_for_a_clock_ahead_stays_known() {
    let mut host = Host::with(cluster);
    let active = host.status().keys.into_iter().find(|k| k.state == "active").unwrap();
    while host.now_s() + 5 < active.signs_until {
        host.run_s(1);
    }
    let ahead = claims(active.signs_until + 2, 600, "a");
    let token = sign(&mut host, &ahead).unwrap();
    let successor = check(&host, &token, &ahead);
    let mut document = host.policy.clone();
    document.version = 2;
    document.realms[0].name = "other".into();
    load(&mut host, &document).unwrap();
    check(&host, &token, &ahead);
    assert!(host.published().contains(&successor.to_string()));
}

#[test]
fn no_window_is_narrowed_over_a_token_of_a_clock_that_is_ahead() {
    let mut host = Host::with(|document| {
        cluster(document);
        document.realms[0].schedule.rotate_every_s = 60;
    });
    // A realm that leaves the policy retires its keys within this second, or that of its tokens.
    let ahead = claims(host.now_s() + 9, 600, "a");
    let token = sign(&mut host, &ahead).unwrap();
    let mut document = host.policy.clone();
    document.version = 2;
    document.realms[0].name = "other".into();
    load(&mut host, &document).unwrap();
    check(&host, &token, &ahead);
    let narrowed = host.entries().into_iter().filter_map(|entry| match entry {
        Entry::Narrowing(narrowing) => Some(narrowing.signs_until),
        _ => None,
    });
    assert_eq!(narrowed.max(), Some(host.now_s() + 10), "and no later");

    // A rotation, whose successor would take over before that.
    let mut host = Host::with(|document| {
        cluster(document);
        document.realms[0].schedule.rotate_every_s = 60;
    });
    let (began, realm) = (host.now_s(), host.policy.realms[0].name.clone());
    let ahead = claims(began + 10, 600, "a");
    let token = sign(&mut host, &ahead).unwrap();
    match host.signer.handle(Request::Rotate(Rotate { realm })) {
        Response::Rotating(rotating) => assert_eq!(rotating.active_from[0].1, began + 5 + 2 + 10),
        other => panic!("{other:?}"),
    }
    host.prepare(Vec::new());
    commit(&mut host);
    let first = check(&host, &token, &ahead);
    host.run_s(18);
    let now = host.now_s();
    let claims = claims(now, 600, "b");
    let token = sign(&mut host, &claims).unwrap();
    assert_ne!(check(&host, &token, &claims), first);
}

#[test]
fn a_raised_ceiling_waits_for_a_key_that_announced_it() {
    let mut host = Host::with(cluster);
    let mut document = host.policy.clone();
    document.version = 2;
    document.realms[0].schedule.max_lifetime_s = 700;
    load(&mut host, &document).unwrap();
    let now = host.now_s();
    assert_eq!(sign(&mut host, &claims(now, 700, "a")).unwrap_err(), "lifetime_not_granted");
    sign(&mut host, &claims(now, 600, "b")).unwrap();
    host.run_s(60);
    let now = host.now_s();
    sign(&mut host, &claims(now, 700, "c")).unwrap();
    document.version = 3;
    document.realms[0].schedule.max_lifetime_s = 600;
    load(&mut host, &document).unwrap();
    assert_eq!(sign(&mut host, &claims(now, 700, "d")).unwrap_err(), "lifetime_not_granted");
}

#[test]
fn a_raised_ceiling_makes_a_rotation_due() {
    let mut host = Host::with(|document| {
        cluster(document);
        document.realms[0].schedule.rotate_every_s = 86_400;
    });
    let mut document = host.policy.clone();
    document.version = 2;
    document.realms[0].schedule.max_lifetime_s = 700;
    load(&mut host, &document).unwrap();
    host.run_s(20);
    let claims = claims(host.now_s(), 700, "a");
    let token = sign(&mut host, &claims).unwrap();
    check(&host, &token, &claims);
    assert_eq!(host.announced().len(), 2);
    host.run_s(60);
    assert_eq!(host.announced().len(), 2, "once");
}

#[test]
fn a_realm_never_changes_its_kind() {
    let mut host = Host::with(cluster);
    let mut document = host.policy.clone();
    document.version = 2;
    document.realms[0].kubernetes = None;
    assert!(load(&mut host, &document).unwrap_err().contains("cease"));
    // Not by way of a version without it either.
    let mut renamed = host.policy.clone();
    renamed.version = 2;
    renamed.realms[0].name = "other".into();
    load(&mut host, &renamed).unwrap();
    document.version = 3;
    assert!(load(&mut host, &document).unwrap_err().contains("cease"));
}

#[test]
fn imported_keys_stand_in_the_log_for_as_long_as_they_are_listed() {
    let jwk = ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().jwk();
    let until = START_MS / 1_000 + 3_600;
    let old = ImportedKeyDocument { kid: "old-1".into(), jwk, until, in_discovery: false };
    let mut host = Host::with(|document| {
        cluster(document);
        let over = ImportedKeyDocument { kid: "over".into(), until: 5, ..old.clone() };
        kubernetes(document).imported = vec![old.clone(), over];
    });
    let first = imported(&host);
    assert_eq!(first.len(), 1, "what is over is not listed");
    assert_eq!((first[0].kid.as_str(), first[0].until), ("old-1", until));
    assert_eq!((first[0].issuer.as_str(), first[0].in_discovery), (ISSUER, false));
    let named: Map<String, Value> = serde_json::from_str(&first[0].jwk).unwrap();
    assert_eq!((&named["x"], &named["alg"]), (&old.jwk["x"], &json!("ES256")));
    // It signs nothing and is in no key set of the signer.
    assert!(!host.published().contains(&"old-1".to_owned()));

    let mut document = host.policy.clone();
    document.version = 2;
    load(&mut host, &document).unwrap();
    assert_eq!(imported(&host).len(), 1, "nothing changed");
    document.version = 3;
    kubernetes(&mut document).imported[0].in_discovery = true;
    load(&mut host, &document).unwrap();
    assert!(imported(&host)[1].in_discovery);
    document.version = 4;
    kubernetes(&mut document).imported.clear();
    load(&mut host, &document).unwrap();
    let all = imported(&host);
    assert_eq!((all.len(), all[2].until), (3, all[2].at), "taken back");
}

#[test]
fn an_own_key_is_not_imported() {
    let mut host = Host::with(cluster);
    let own = host.announced().values().next().unwrap().0.clone();
    let other = ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().clone();
    let import = |kid: String, jwk| ImportedKeyDocument {
        kid,
        jwk,
        until: START_MS / 1_000 + 3_600,
        in_discovery: true,
    };
    let mut document = host.policy.clone();
    document.version = 2;
    for key in [import("other".into(), own.jwk()), import(own.kid().to_string(), other.jwk())] {
        kubernetes(&mut document).imported = vec![key];
        let refused = load(&mut host, &document).unwrap_err();
        assert!(refused.contains("own key"), "{refused}");
    }
    kubernetes(&mut document).imported = vec![import("other".into(), other.jwk())];
    load(&mut host, &document).unwrap();
}

#[test]
fn the_kid_of_an_imported_key_is_never_another_keys() {
    let key = || ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().jwk();
    let until = START_MS / 1_000 + 3_600;
    let import = |jwk| ImportedKeyDocument { kid: "old".into(), jwk, until, in_discovery: true };
    let (first, other) = (key(), key());
    let mut host = Host::with(|document| {
        cluster(document);
        kubernetes(document).imported = vec![import(first.clone())];
    });
    let mut document = host.policy.clone();
    document.version = 2;
    kubernetes(&mut document).imported = vec![import(other.clone())];
    assert!(load(&mut host, &document).unwrap_err().contains("never used again"));
    // Nor after it was taken out.
    kubernetes(&mut document).imported.clear();
    load(&mut host, &document).unwrap();
    document.version = 3;
    kubernetes(&mut document).imported = vec![import(other)];
    assert!(load(&mut host, &document).unwrap_err().contains("never used again"));
    kubernetes(&mut document).imported = vec![import(first)];
    load(&mut host, &document).unwrap();
}

#[test]
fn a_compromised_key_is_not_imported_again() {
    let public = ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().clone();
    let until = START_MS / 1_000 + 3_600;
    let old =
        ImportedKeyDocument { kid: "old".into(), jwk: public.jwk(), until, in_discovery: true };
    let mut host = Host::with(|document| {
        cluster(document);
        kubernetes(document).imported = vec![old.clone()];
    });
    let keys =
        vec![CompromisedKey { kid: (*public.kid().as_bytes()).into(), reason: "stolen".into() }];
    match host.signer.handle(Request::Compromise(Compromise { keys, include_retired: false })) {
        Response::Compromised(answer) => assert!(answer.gone.is_empty(), "no key of its own"),
        other => panic!("{other:?}"),
    }
    let mut document = host.policy.clone();
    document.version = 2;
    kubernetes(&mut document).imported[0].kid = "again".into();
    load(&mut host, &document).unwrap();
    let all = imported(&host);
    assert_eq!((all.len(), all[1].kid.as_str(), all[1].until), (2, "old", all[1].at), "taken back");
    let now = host.now_s();
    let claims = claims(now, 600, "a");
    let token = sign(&mut host, &claims).unwrap();
    check(&host, &token, &claims);
}

#[test]
fn a_full_frame_of_long_claims_is_answered() {
    let mut host = Host::with(cluster);
    let now = host.now_s();
    let long = b64::decode(&claims(now, 600, "a")).unwrap();
    let room = chancery_policy::kubernetes::MAX_CLAIMS_CHARS / 4 * 3 - long.len();
    let long = [long, vec![b' '; room]].concat();
    let long = b64::encode(&long);
    let prepared = host.prepare(vec![asked(long.clone()); MAX_TOKENS_PER_FRAME]);
    let codes = codes(&prepared);
    let signed = codes.iter().take_while(|c| *c == "granted").count();
    assert!((300..MAX_TOKENS_PER_FRAME).contains(&signed), "{signed}");
    assert!(codes.iter().skip(signed).all(|c| c == "deferred"), "the rest comes again");
    let tokens = commit(&mut host);
    assert_eq!(tokens.len(), signed);
    let mut frame = Vec::new();
    let answer = Committed { batch: 1, tokens, keys_jwt: None };
    encode(&Response::Committed(answer), &mut frame).unwrap();
    assert!(frame.len() < MAX_FRAME_BYTES / 2);
    let longer = format!("{long}AAAA");
    assert_eq!(sign(&mut host, &longer).unwrap_err(), "malformed_request");
}
