//! Claims that kube-apiserver wrote, or somebody who reached its socket: whatever is approved lies within
//! the realm's policy, and another reader reads the same in it.

#![no_main]

use chancery_policy::kubernetes::{self, IAT_TOLERANCE_S};
use chancery_policy::{Policy, Realm};
use chancery_token::b64;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::sync::LazyLock;

const POLICY: &[u8] = br#"{"version":1,"log_prefix":"issuer.example/log","realms":[{
    "name":"cluster","issuer":"https://k.example","algorithms":["ES256"],
    "kubernetes":{"audiences":["https://k.example","vault"],
        "service_accounts":["default:*","kube-system:coredns"],
        "required_claims":["kubernetes.io/pod"],"further_claims":["zone"]}}]}"#;

static CLUSTER: LazyLock<Policy> =
    LazyLock::new(|| Policy::parse(POLICY).expect("the text above is a policy"));

/// The seeds are claims of this second.
const NOW: u64 = 1_800_000_000;

fuzz_target!(|data: &[u8]| {
    let realm = CLUSTER.realm("cluster").expect("the text above has it");
    if let Ok(text) = str::from_utf8(data) {
        check(realm, text);
    }
    check(realm, &b64::encode(data));
});

fn check(realm: &Realm, text: &str) {
    let Ok(approved) = kubernetes::decide(realm, text, NOW) else { return };
    let bytes = b64::decode(text).expect("it was read");
    assert_eq!(b64::encode(&bytes), text, "one spelling");
    let claims: Value = serde_json::from_slice(&bytes).expect("it was read");
    assert_eq!(claims["iss"], "https://k.example");
    assert_eq!(claims["sub"], approved.subject());
    let account = approved.subject().strip_prefix("system:serviceaccount:").expect("a prefix");
    assert!(account.starts_with("default:") || account == "kube-system:coredns", "{account}");
    let binding = &claims["kubernetes.io"];
    let named = (binding["namespace"].as_str(), binding["serviceaccount"]["name"].as_str());
    assert_eq!(named, account.split_once(':').map_or((None, None), |(s, n)| (Some(s), Some(n))));
    assert!(binding["pod"]["name"].is_string(), "required");
    assert!(!approved.audiences().is_empty());
    assert!(approved.audiences().iter().all(|a| a == "https://k.example" || a == "vault"));
    assert!(claims["iat"] == approved.iat() && claims["exp"] == approved.exp());
    assert!(approved.iat().abs_diff(NOW) <= IAT_TOLERANCE_S);
    assert!((1..=3_600).contains(&(approved.exp() - approved.iat())));
}
