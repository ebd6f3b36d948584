use chancery_token::client::ClientKey;

use super::*;

/// A small policy with realm `consumers`, client `shop` and one grant.
pub(crate) fn sample() -> PolicyDocument {
    let key = ClientKey::generate(Algorithm::Es256).unwrap();
    sample_with(key.signing_key().public().jwk())
}

pub(crate) fn sample_with(jwk: Map<String, Value>) -> PolicyDocument {
    PolicyDocument {
        version: 1,
        log_prefix: "issuer.example/log".into(),
        realms: vec![RealmDocument {
            name: "consumers".into(),
            issuer: "https://issuer.example/consumers".into(),
            algorithms: vec![Algorithm::Es256, Algorithm::Ed25519],
            rsa_bits: 2048,
            kubernetes: None,
            schedule: Schedule::default(),
            clients: vec![ClientDocument {
                id: "shop".into(),
                keys: vec![jwk],
                grants: vec![GrantDocument {
                    name: "api".into(),
                    audiences: vec!["https://api.example".into(), "https://b.example".into()],
                    subjects: vec!["shop".into(), "user:*".into()],
                    scopes: vec!["read".into(), "write".into()],
                    claims: vec!["tier".into()],
                    max_lifetime_s: Some(600),
                    algorithms: None,
                    require_cnf: false,
                    max_audiences: 1,
                }],
                max_tokens_per_s: None,
                replay_capacity: 1_000,
                accept_eddsa: false,
            }],
        }],
        witnessed: None,
        protections: Vec::new(),
    }
}

fn refused(change: impl FnOnce(&mut PolicyDocument)) -> String {
    let mut document = sample();
    change(&mut document);
    document.check().unwrap_err().to_string()
}

#[test]
fn a_document_survives_its_json() {
    let document = sample();
    assert_eq!(PolicyDocument::parse(&document.to_json().unwrap()).unwrap(), document);
}

#[test]
fn unknown_and_duplicate_members_are_refused() {
    let json = String::from_utf8(sample().to_json().unwrap()).unwrap();
    let unknown = json.replacen("\"version\"", "\"extra\":1,\"version\"", 1);
    assert!(
        matches!(PolicyDocument::parse(unknown.as_bytes()), Err(Error::Shape(m)) if m.contains("extra"))
    );
    let duplicate = json.replacen("\"version\":1", "\"version\":1,\"version\":1", 1);
    assert!(matches!(PolicyDocument::parse(duplicate.as_bytes()), Err(Error::Shape(_))));
}

#[test]
fn an_oversize_document_is_refused_unread() {
    let huge = vec![b' '; MAX_POLICY_BYTES + 1];
    assert_eq!(PolicyDocument::parse(&huge), Err(Error::TooLarge(MAX_POLICY_BYTES + 1)));
}

#[test]
fn every_bound_says_what_is_wrong() {
    assert!(refused(|d| d.version = 0).contains("start at 1"));
    assert!(refused(|d| d.protections = vec!["x".into()]).contains("`secret_memory`, `"));
    assert!(refused(|d| d.realms.clear()).contains("`0` realms"));
    assert!(refused(|d| d.realms.push(d.realms[0].clone())).contains("appears twice"));
    assert!(refused(|d| d.realms[0].name = "log".into()).contains("reserved"));
    assert!(refused(|d| d.realms[0].name = "Up".into()).contains("lower-case"));
    assert!(refused(|d| d.realms[0].issuer = "ftp://x".into()).contains("http(s)"));
    assert!(refused(|d| d.realms[0].issuer.push('/')).contains("final slash"));
    assert!(refused(|d| d.realms[0].algorithms.clear()).contains("no algorithm"));
    assert!(refused(|d| d.realms[0].algorithms = vec![Algorithm::Es256; 2]).contains("twice"));
    assert!(refused(|d| d.realms[0].rsa_bits = 1024).contains("1024"));
    assert!(refused(|d| d.realms[0].schedule.rotate_every_s = 0).contains("rotate_every_s"));
    assert!(refused(|d| d.log_prefix = "https://x/log".into()).contains("log_prefix"));
    assert!(refused(|d| d.realms[0].clients[0].keys.clear()).contains("no key"));
    assert!(refused(|d| d.realms[0].clients[0].id = "a b".into()).contains("printable"));
    assert!(refused(|d| d.realms[0].clients[0].replay_capacity = 0).contains("replay_capacity"));
    assert!(
        refused(|d| d.realms[0].clients[0].grants[0].subjects[0] = "a*b".into())
            .contains("one `*`")
    );
    assert!(
        refused(|d| d.realms[0].clients[0].grants[0].claims.push("sub".into()))
            .contains("signer alone")
    );
    assert!(
        refused(|d| d.realms[0].clients[0].grants[0].max_lifetime_s = Some(9_999)).contains("9999")
    );
    assert!(
        refused(|d| d.realms[0].clients[0].grants[0].algorithms = Some(vec![Algorithm::Rs256]))
            .contains("RS256")
    );
    assert!(
        refused(|d| d.realms[0].clients[0].grants[0].scopes[0] = "a b".into())
            .contains("scope token")
    );
    assert!(refused(|d| d.realms[0].clients[0].grants[0].audiences.clear()).contains("audiences"));
}

#[test]
fn a_schedule_with_too_many_live_keys_is_refused() {
    let text = refused(|d| {
        d.realms[0].schedule.rotate_every_s = 10;
        d.realms[0].schedule.max_lifetime_s = 600;
        d.realms[0].clients.clear();
    });
    assert!(text.contains("more than 64"), "{text}");
}

#[test]
fn key_sets_that_would_not_fit_a_frame_are_refused() {
    let mut document = sample();
    document.realms[0].clients.clear();
    document.realms[0].algorithms = vec![Algorithm::MlDsa87];
    document.realms[0].schedule.rotate_every_s = 75;
    let template = document.realms[0].clone();
    document.realms = (0..10)
        .map(|i| RealmDocument {
            name: format!("r{i}"),
            issuer: format!("https://i/{i}"),
            ..template.clone()
        })
        .collect();
    assert!(document.check().unwrap_err().to_string().contains("key sets of all realms"));
    document.realms.truncate(3);
    document.check().unwrap();
}

#[test]
fn a_realm_with_more_keys_than_a_set_may_have_is_refused() {
    let text = refused(|d| {
        d.realms[0].algorithms = Algorithm::ALL.to_vec();
        d.realms[0].schedule.rotate_every_s = 75;
        d.realms[0].clients.clear();
    });
    assert!(text.contains("algorithms together"), "{text}");
}

#[test]
fn a_key_set_is_never_cached_for_as_long_as_the_lead() {
    for lead in 1..2_000 {
        let schedule = Schedule { publish_lead_s: lead, ..Schedule::default() };
        assert!(schedule.key_set_max_age_s() < lead);
    }
}

#[test]
fn a_client_with_a_private_or_weak_key_is_refused() {
    let text = refused(|d| {
        d.realms[0].clients[0].keys[0].insert("d".into(), Value::from("AAAA"));
    });
    assert!(text.contains("key"), "{text}");
}
