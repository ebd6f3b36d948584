use super::*;
use crate::Policy;
use crate::document::tests::sample;

fn judged(
    change: impl FnOnce(&mut GrantDocument),
    ask: impl FnOnce(&mut Ask),
) -> Result<Granted, RefusalCode> {
    let mut document = sample();
    change(&mut document.realms[0].clients[0].grants[0]);
    let policy = Policy::parse(&document.to_json().unwrap()).unwrap();
    let realm = policy.realm("consumers").unwrap();
    let mut asked = Ask::default();
    ask(&mut asked);
    decide(realm, realm.client("shop").unwrap(), asked).map_err(|r| r.code)
}

#[test]
fn defaults_are_the_grants() {
    let granted = judged(|_| {}, |_| {}).unwrap();
    assert_eq!(granted.subject, "shop");
    assert_eq!(granted.audiences, ["https://api.example"]);
    assert_eq!(granted.lifetime_s, 600);
    assert_eq!(granted.algorithm, Algorithm::Es256);
    assert!(granted.scopes.is_empty());
}

#[test]
fn what_is_not_granted_is_refused_with_its_reason() {
    use RefusalCode as Code;
    let code = |ask: fn(&mut Ask)| judged(|_| {}, ask).unwrap_err();
    assert_eq!(code(|a| a.audiences = vec!["https://evil".into()]), Code::AudienceNotGranted);
    assert_eq!(
        code(|a| a.audiences = vec!["https://api.example".into(), "https://b.example".into()]),
        Code::AudienceNotGranted
    );
    assert_eq!(code(|a| a.subject = Some("admin".into())), Code::SubjectNotGranted);
    assert_eq!(code(|a| a.subject = Some(String::new())), Code::SubjectNotGranted);
    assert_eq!(code(|a| a.scopes = vec!["admin".into()]), Code::ScopeNotGranted);
    assert_eq!(code(|a| drop(a.claims.insert("role".into(), 1.into()))), Code::ClaimNotGranted);
    assert_eq!(code(|a| drop(a.claims.insert("iss".into(), 1.into()))), Code::ReservedClaim);
    assert_eq!(code(|a| a.lifetime_s = Some(601)), Code::LifetimeNotGranted);
    assert_eq!(code(|a| a.lifetime_s = Some(0)), Code::LifetimeNotGranted);
    assert_eq!(code(|a| a.algorithm = Some(Algorithm::Rs256)), Code::AlgorithmNotGranted);
}

#[test]
fn a_claim_that_a_grant_names_by_mistake_stays_reserved() {
    let result = judged(|_| {}, |a| drop(a.claims.insert("cnf".into(), 1.into())));
    assert_eq!(result.unwrap_err(), RefusalCode::ReservedClaim);
}

#[test]
fn subject_patterns_are_exact_or_prefixes() {
    assert!(judged(|_| {}, |a| a.subject = Some("user:7".into())).is_ok());
    assert!(judged(|_| {}, |a| a.subject = Some("xuser:7".into())).is_err());
    assert!(judged(|g| g.subjects.clear(), |a| a.subject = Some("user:7".into())).is_err());
    assert!(judged(|g| g.subjects.clear(), |a| a.subject = Some("shop".into())).is_ok());
    let only_users = judged(|g| g.subjects = vec!["user:*".into()], |_| {});
    assert_eq!(only_users.unwrap_err(), RefusalCode::SubjectNotGranted);
}

#[test]
fn confirmation_is_demanded_where_the_grant_says() {
    let without = judged(|g| g.require_cnf = true, |_| {});
    assert_eq!(without.unwrap_err(), RefusalCode::ConfirmationRequired);
    let jkt = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".to_owned();
    let with = judged(|g| g.require_cnf = true, |a| a.cnf_jkt = Some(jkt.clone()));
    assert_eq!(with.unwrap().cnf_jkt, Some(jkt));
}

#[test]
fn oversize_claims_are_refused() {
    let result = judged(|_| {}, |a| drop(a.claims.insert("tier".into(), "x".repeat(5_000).into())));
    assert_eq!(result.unwrap_err(), RefusalCode::MalformedRequest);
}

#[test]
fn request_objects_are_read_strictly() {
    let parse = |text: &str| Ask::parse(serde_json::from_str(text).unwrap());
    let jkt = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    let ask = parse(&format!(
        r#"{{"sub":"user:1","aud":["a"],"scope":"read write read","lifetime":60,
            "claims":{{"tier":1}},"cnf":{{"jkt":"{jkt}"}},"alg":"Ed25519"}}"#
    ))
    .unwrap();
    assert_eq!(ask.scopes, ["read", "write"]);
    assert_eq!(ask.algorithm, Some(Algorithm::Ed25519));
    assert_eq!(ask.cnf_jkt.as_deref(), Some(jkt));
    for bad in [
        "[]",
        r#"{"extra":1}"#,
        r#"{"sub":1}"#,
        r#"{"aud":[1]}"#,
        r#"{"scope":"a  b"}"#,
        r#"{"lifetime":1.5}"#,
        r#"{"lifetime":"60"}"#,
        r#"{"cnf":{"jkt":"short"}}"#,
        r#"{"cnf":{"jkt":"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs","x":1}}"#,
    ] {
        assert_eq!(parse(bad).unwrap_err().code, RefusalCode::MalformedRequest, "{bad}");
    }
    assert_eq!(parse(r#"{"alg":"none"}"#).unwrap_err().code, RefusalCode::AlgorithmNotGranted);
}

#[test]
fn the_payload_holds_what_was_granted() {
    let granted = judged(
        |_| {},
        |a| {
            a.scopes = vec!["read".into(), "write".into()];
            a.claims.insert("tier".into(), "gold \"\u{e9}".into());
        },
    )
    .unwrap();
    let stamp = crate::claims::Stamp {
        issuer: "https://i",
        client: "shop",
        iat: 10,
        exp: 610,
        jti: "log.3.rand",
    };
    let bytes = crate::claims::payload(&granted, stamp).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let expected = serde_json::json!({
        "iss": "https://i", "sub": "shop", "aud": "https://api.example", "client_id": "shop",
        "iat": 10, "exp": 610, "jti": "log.3.rand", "scope": "read write", "tier": "gold \"é"
    });
    assert_eq!(value, expected);
}
