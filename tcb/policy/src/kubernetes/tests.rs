use chancery_token::client::ClientKey;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Policy;
use crate::document::{ImportedKeyDocument, PolicyDocument, Schedule};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn document() -> PolicyDocument {
    let mut document = crate::document::tests::sample();
    let realm = &mut document.realms[0];
    realm.name = "cluster".into();
    realm.issuer = ISSUER.into();
    realm.algorithms = vec![Algorithm::Es256];
    realm.clients.clear();
    realm.kubernetes = Some(KubernetesDocument {
        audiences: vec![ISSUER.into(), "vault".into()],
        service_accounts: vec!["default:*".into(), "kube-system:coredns".into()],
        required_claims: vec![],
        further_claims: vec![],
        imported: vec![],
    });
    document
}

/// As kube-apiserver 1.36 writes them for a pod.
fn claims() -> Value {
    json!({
        "aud": [ISSUER],
        "exp": NOW + 3_607,
        "iat": NOW,
        "iss": ISSUER,
        "jti": "e0a2a2bd-3c0b-4dd6-9a1f-1e3bd0d9e2ce",
        "kubernetes.io": {
            "namespace": "default",
            "node": {"name": "n1", "uid": "a1"},
            "pod": {"name": "web-0", "uid": "b2"},
            "serviceaccount": {"name": "web", "uid": "c3"},
            "warnafter": NOW + 3_607,
        },
        "nbf": NOW,
        "sub": "system:serviceaccount:default:web",
    })
}

fn decide_in(document: &PolicyDocument, text: &str) -> Result<Approved, Refusal> {
    let policy = Policy::parse(&document.to_json().unwrap()).unwrap();
    decide(policy.realm(&document.realms[0].name).unwrap(), text, NOW)
}

fn long_lived() -> PolicyDocument {
    let mut document = document();
    document.realms[0].schedule = Schedule { max_lifetime_s: 7_200, ..Schedule::default() };
    document
}

fn verdict(change: impl FnOnce(&mut Value)) -> Result<Approved, RefusalCode> {
    let mut claims = claims();
    change(&mut claims);
    decide_in(&long_lived(), &b64::encode(claims.to_string().as_bytes())).map_err(|r| r.code)
}

fn code(change: impl FnOnce(&mut Value)) -> RefusalCode {
    verdict(change).unwrap_err()
}

#[test]
fn what_the_api_server_asks_for_is_approved() {
    let approved = verdict(|_| {}).unwrap();
    assert_eq!(approved.subject(), "system:serviceaccount:default:web");
    assert_eq!(approved.audiences(), [ISSUER]);
    assert_eq!((approved.iat(), approved.exp()), (NOW, NOW + 3_607));
    assert_eq!(approved.jti(), "e0a2a2bd-3c0b-4dd6-9a1f-1e3bd0d9e2ce");
    assert_eq!(approved.algorithm(), Algorithm::Es256);
    // One audience as a string, two at once, a token bound to nothing, a name with dots.
    verdict(|c| c["aud"] = json!("vault")).unwrap();
    verdict(|c| c["aud"] = json!(["vault", ISSUER])).unwrap();
    verdict(|c| {
        c["sub"] = json!("system:serviceaccount:default:a.b-c");
        c["kubernetes.io"] =
            json!({"namespace": "default", "serviceaccount": {"name": "a.b-c", "uid": "1"}});
    })
    .unwrap();
}

#[test]
fn claims_are_read_in_one_spelling() {
    let text = claims().to_string();
    let refused = |text: &str| decide_in(&long_lived(), text).unwrap_err().code;
    let malformed = RefusalCode::MalformedRequest;
    let encoded = b64::encode(text.as_bytes());
    for spelling in [
        String::new(),
        format!("{encoded}="),
        format!(" {encoded}"),
        format!("{encoded}\n"),
        format!("{encoded}.{encoded}"),
        "A".repeat(MAX_CLAIMS_CHARS + 4),
    ] {
        assert_eq!(refused(&spelling), malformed, "{spelling}");
    }
    for json in [
        text.replacen("{\"aud\"", "{\"sub\":\"system:serviceaccount:default:x\",\"aud\"", 1),
        text.replacen("\"name\":\"web\"", "\"name\":\"web\",\"name\":\"web\"", 1),
        text.replacen("\"sub\"", "\"s\\u0075b\":\"x\",\"sub\"", 1),
        format!("{text}{{}}"),
        format!("{text} x"),
        format!("\u{feff}{text}"),
        format!("[{text}]"),
        "null".to_owned(),
    ] {
        assert_eq!(refused(&b64::encode(json.as_bytes())), malformed, "{json}");
    }
}

#[test]
fn every_rule_has_its_reason() {
    use RefusalCode as Code;
    assert_eq!(code(|c| c["iss"] = json!(format!("{ISSUER}/"))), Code::WrongIssuer);
    assert_eq!(code(|c| c["iss"] = json!(null)), Code::MalformedRequest);
    assert_eq!(code(|c| c["aud"] = json!(["other"])), Code::AudienceNotGranted);
    assert_eq!(code(|c| c["aud"] = json!([ISSUER, "other"])), Code::AudienceNotGranted);
    assert_eq!(code(|c| c["aud"] = json!([])), Code::MalformedRequest);
    assert_eq!(code(|c| c["aud"] = json!(vec![ISSUER; 17])), Code::MalformedRequest);
    assert_eq!(code(|c| c["aud"] = json!([1])), Code::MalformedRequest);
    assert_eq!(code(|c| c["jti"] = json!("")), Code::MalformedRequest);
    assert_eq!(code(|c| drop(c.as_object_mut().unwrap().remove("jti"))), Code::MalformedRequest);
    assert_eq!(code(|c| c["jti"] = json!("x".repeat(257))), Code::MalformedRequest);
    assert_eq!(code(|c| c["nbf"] = json!(NOW + 1)), Code::MalformedRequest);
    assert_eq!(code(|c| c["iat"] = json!(1.5)), Code::MalformedRequest);
    assert_eq!(code(|c| c["exp"] = json!("1")), Code::MalformedRequest);
    assert_eq!(code(|c| drop(c.as_object_mut().unwrap().remove("exp"))), Code::MalformedRequest);
}

/// Such a token would name the leaf of another: whoever looked it up would hold an honest signer for
/// a forger.
#[test]
fn no_jti_names_a_place_in_a_log() {
    let log = "q83vEjRWeJCrze8SNFZ4kA";
    let jti = |jti: String| verdict(|c| c["jti"] = json!(jti));
    for index in ["0", "17", "007", "18446744073709551616"] {
        let refused = jti(format!("{log}.{index}.{log}"));
        assert_eq!(refused.unwrap_err(), RefusalCode::MalformedRequest, "{index}");
    }
    // Not even one whose last characters have bits that no encoder writes.
    let loose = "AAAAAAAAAAAAAAAAAAAAA_";
    assert_eq!(jti(format!("{loose}.1.{loose}")).unwrap_err(), RefusalCode::MalformedRequest);
    for name in [
        format!("{log}.1"),
        format!("{log}.1.{log}.2"),
        format!("{log}.x.{log}"),
        format!("{log}..{log}"),
        format!("{log}A.1.{log}"),
        format!("{log}.1.{log}A"),
        "a.1.b".to_owned(),
        "1.2.3".to_owned(),
    ] {
        jti(name).unwrap();
    }
}

#[test]
fn issued_at_is_now() {
    let at = |iat: u64| {
        verdict(|c| {
            c["iat"] = json!(iat);
            c["nbf"] = json!(iat);
        })
    };
    at(NOW - IAT_TOLERANCE_S).unwrap();
    at(NOW + IAT_TOLERANCE_S).unwrap();
    assert_eq!(at(NOW - IAT_TOLERANCE_S - 1).unwrap_err(), RefusalCode::IssuedAtNotNow);
    assert_eq!(at(NOW + IAT_TOLERANCE_S + 1).unwrap_err(), RefusalCode::IssuedAtNotNow);
    assert_eq!(at(0).unwrap_err(), RefusalCode::IssuedAtNotNow);
}

#[test]
fn the_ceiling_holds_to_the_second() {
    let lasting = |s: u64| verdict(|c| c["exp"] = json!(NOW + s));
    lasting(7_200).unwrap();
    lasting(1).unwrap();
    assert_eq!(lasting(7_201).unwrap_err(), RefusalCode::LifetimeNotGranted);
    assert_eq!(lasting(0).unwrap_err(), RefusalCode::LifetimeNotGranted);
    assert_eq!(code(|c| c["exp"] = json!(NOW - 1)), RefusalCode::LifetimeNotGranted);
}

#[test]
fn the_account_is_one_and_granted() {
    use RefusalCode as Code;
    let account = |namespace: &str, name: &str| {
        verdict(|c| {
            c["sub"] = json!(format!("system:serviceaccount:{namespace}:{name}"));
            c["kubernetes.io"] =
                json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": "u"}});
        })
    };
    account("default", "anything").unwrap();
    account("kube-system", "coredns").unwrap();
    assert_eq!(account("kube-system", "admin").unwrap_err(), Code::SubjectNotGranted);
    assert_eq!(account("kube-public", "web").unwrap_err(), Code::SubjectNotGranted);
    for (namespace, name) in [
        ("default", "a:b"),
        ("default", ""),
        ("", "web"),
        ("Default", "web"),
        ("default", "web "),
        ("a.b", "web"),
        ("default", "*"),
        ("default", "-web"),
    ] {
        assert_eq!(account(namespace, name).unwrap_err(), Code::MalformedRequest, "{name}");
    }
    // `sub` is what relying parties read, `kubernetes.io` what the API server reads.
    let other = |pointer: &str, value: Value| {
        verdict(|c| *c.pointer_mut(pointer).unwrap() = value).unwrap_err()
    };
    assert_eq!(other("/kubernetes.io/namespace", json!("kube-system")), Code::MalformedRequest);
    assert_eq!(other("/kubernetes.io/serviceaccount/name", json!("x")), Code::MalformedRequest);
    assert_eq!(other("/sub", json!("system:serviceaccount:default:x")), Code::MalformedRequest);
    assert_eq!(other("/sub", json!("system:admin")), Code::MalformedRequest);
    assert_eq!(other("/kubernetes.io", json!(null)), Code::MalformedRequest);
}

#[test]
fn what_nobody_here_understands_is_not_signed() {
    use RefusalCode as Code;
    for name in ["email", "groups", "SUB", "scope", "cnf", ""] {
        assert_eq!(code(|c| c[name] = json!("x")), Code::ClaimNotGranted, "{name}");
    }
    assert_eq!(code(|c| c["kubernetes.io"]["roles"] = json!(["x"])), Code::ClaimNotGranted);
    for wrong in [
        json!({"name": "a", "uid": "b", "role": "c"}),
        json!({"name": 1}),
        json!({"uid": "b"}),
        json!({"name": ""}),
        json!("a"),
    ] {
        assert_eq!(code(|c| c["kubernetes.io"]["pod"] = wrong), Code::MalformedRequest);
    }
    assert_eq!(code(|c| c["kubernetes.io"]["warnafter"] = json!("x")), Code::MalformedRequest);
    let mut document = long_lived();
    let policy = document.realms[0].kubernetes.as_mut().unwrap();
    policy.further_claims = vec!["email".into(), "kubernetes.io/zone".into()];
    let mut more = claims();
    more["email"] = json!("a@b");
    more["kubernetes.io"]["zone"] = json!({"name": 7});
    decide_in(&document, &b64::encode(more.to_string().as_bytes())).unwrap();
}

#[test]
fn required_claims_are_required() {
    let mut document = long_lived();
    let policy = document.realms[0].kubernetes.as_mut().unwrap();
    policy.required_claims = vec!["kubernetes.io/pod".into(), "nbf".into()];
    let ask = |claims: &Value| {
        decide_in(&document, &b64::encode(claims.to_string().as_bytes())).map_err(|r| r.code)
    };
    ask(&claims()).unwrap();
    let mut unbound = claims();
    unbound["kubernetes.io"].as_object_mut().unwrap().remove("pod");
    assert_eq!(ask(&unbound).unwrap_err(), RefusalCode::ClaimRequired);
    let mut without = claims();
    without.as_object_mut().unwrap().remove("nbf");
    assert_eq!(ask(&without).unwrap_err(), RefusalCode::ClaimRequired);
}

#[test]
fn a_realm_of_clients_signs_no_claims_of_others() {
    let document = crate::document::tests::sample();
    let text = b64::encode(claims().to_string().as_bytes());
    assert_eq!(decide_in(&document, &text).unwrap_err().code, RefusalCode::WrongRealmKind);
}

#[test]
fn every_bound_of_the_document_says_what_is_wrong() {
    let refused = |change: &dyn Fn(&mut crate::RealmDocument)| {
        let mut document = document();
        change(&mut document.realms[0]);
        document.check().unwrap_err().to_string()
    };
    document().check().unwrap();
    assert!(refused(&|r| r.schedule.max_lifetime_s = 599).contains("kube-apiserver would exit"));
    assert!(refused(&|r| r.schedule.publish_lead_s = 1).contains("publish_lead_s"));
    assert!(refused(&|r| r.algorithms = vec![Algorithm::Ed25519]).contains("RS256, ES256"));
    assert!(
        refused(&|r| r.algorithms = vec![Algorithm::Es256, Algorithm::Rs256]).contains("has one")
    );
    let sample = crate::document::tests::sample();
    assert!(refused(&|r| r.clients.clone_from(&sample.realms[0].clients)).contains("no clients"));
    let with = |change: &dyn Fn(&mut KubernetesDocument)| {
        refused(&|r| change(r.kubernetes.as_mut().unwrap()))
    };
    assert!(with(&|k| k.audiences.clear()).contains("audiences"));
    for name in ["kubernetes.io/pods", "email", "kubernetes.io/"] {
        let text = with(&|k| k.required_claims = vec!["sub".into(), name.into()]);
        assert!(text.contains(&format!("the claim `{name}`")), "{text}");
    }
    let manual = |r: &mut crate::RealmDocument| {
        r.schedule.rotation = crate::document::Rotation::Manual;
        r.schedule.manual_window_s = 86_400;
    };
    assert!(refused(&manual).contains("rotation must be automatic"));
    assert!(with(&|k| k.service_accounts.clear()).contains("service_accounts"));
    for account in ["web", "a:b:c", "default:we*", "def*:web", ":", "Default:web", "default:"] {
        let text = with(&|k| k.service_accounts = vec![account.into()]);
        assert!(text.contains("alone in the place"), "{account}: {text}");
    }
    let key = ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().jwk();
    let import = |change: &dyn Fn(&mut ImportedKeyDocument)| {
        let mut one = ImportedKeyDocument {
            kid: "old".into(),
            jwk: key.clone(),
            until: NOW,
            in_discovery: true,
        };
        change(&mut one);
        with(&|k| k.imported = vec![one.clone()])
    };
    assert!(import(&|k| k.kid.clear()).contains("1 to 1,024"));
    assert!(import(&|k| k.kid = "x".repeat(1_025)).contains("1 to 1,024"));
    assert!(import(&|k| k.until = u64::MAX).contains("Unix seconds"));
    assert!(import(&|k| drop(k.jwk.insert("d".into(), json!("AA")))).contains("`old`"));
    let ed = ClientKey::generate(Algorithm::Ed25519).unwrap().signing_key().public().jwk();
    assert!(import(&|k| k.jwk.clone_from(&ed)).contains("kube-apiserver knows no such key"));
    let two = ImportedKeyDocument {
        kid: "old".into(),
        jwk: key.clone(),
        until: NOW,
        in_discovery: false,
    };
    assert!(with(&|k| k.imported = vec![two.clone(), two.clone()]).contains("twice"));
    let many = (0..17).map(|i| ImportedKeyDocument { kid: format!("k{i}"), ..two.clone() });
    let many: Vec<_> = many.collect();
    assert!(with(&|k| k.imported.clone_from(&many)).contains("more than 16"));
}

proptest! {
    #[test]
    fn arbitrary_claims_never_panic(text in ".{0,200}") {
        let _ = decide_in(&long_lived(), &text);
        let _ = decide_in(&long_lived(), &b64::encode(text.as_bytes()));
    }

    /// Whatever is approved names an account that the policy grants, however the claims were changed.
    #[test]
    fn a_changed_byte_is_refused_or_means_the_same(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = claims().to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(approved) = decide_in(&long_lived(), &b64::encode(&bytes)) {
            prop_assert!(approved.subject().starts_with("system:serviceaccount:default:"));
            prop_assert!(approved.exp() - approved.iat() <= 7_200);
            prop_assert!(approved.iat().abs_diff(NOW) <= IAT_TOLERANCE_S);
        }
    }
}
