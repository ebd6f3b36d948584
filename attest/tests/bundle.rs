//! The shipped example bundle is accepted for its token, and every part of it matters: whichever is
//! changed, the walk fails.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use chancery_attest::{Bundle, Policy, Walk};
use serde_json::Value;

const BUNDLE: &str = include_str!("samples/bundle.json");
const TOKEN: &str = include_str!("samples/bundle.token");
const POLICY: &str = include_str!("samples/bundle-policy.toml");
/// Characters between two flips: every part is hit often, and the test takes seconds.
const STRIDE: usize = 5;

fn walk(bundle: &str, token: &str) -> Option<Walk> {
    let policy = Policy::parse(POLICY).unwrap();
    let bundle = Bundle::parse(bundle.as_bytes()).ok()?;
    Some(bundle.walk(token.trim_end(), &policy, 1_800_000_000))
}

fn is_accepted(bundle: &str, token: &str) -> bool {
    walk(bundle, token).is_some_and(|walk| walk.accepted)
}

/// Every text in a document, by its place.
fn texts(value: &Value, at: String, out: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => out.push((at, text.clone())),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, v)| texts(v, format!("{at}/{i}"), out));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, v)| texts(v, format!("{at}/{name}"), out));
        }
        _ => {}
    }
}

/// The text with another character at this place, whatever the encoding.
fn changed(text: &str, at: usize) -> String {
    let other = |c| if c == 'y' { 'z' } else { 'y' };
    text.chars().enumerate().map(|(i, c)| if i == at { other(c) } else { c }).collect()
}

/// Whether the walk relies on this place: of a checkpoint's signatures on the first, the log's own by
/// Ed25519. Further ones, by its ML-DSA-44 key and by witnesses, are for who asks for them.
fn counts(text: &str, at: usize) -> bool {
    let before: String = text.chars().take(at + 1).collect();
    let after_first = before.split_once("\n— ").map_or("", |(_, rest)| rest);
    !after_first.contains('\n')
}

#[test]
fn the_example_is_accepted_step_by_step() {
    let walk = walk(BUNDLE, TOKEN).unwrap();
    assert!(walk.accepted, "{walk:#?}");
    let names: Vec<&str> = walk.steps.iter().map(|step| step.name).collect();
    let expected = [
        "token",
        "announcement",
        "key_signed_token",
        "key_in_window",
        "log",
        "announcement_in_log",
        "token_in_log",
        "genesis_in_log",
        "genesis",
        "evidence_of_genesis",
        "identity_keys",
        "evidence",
    ];
    assert_eq!(names, expected);
}

#[test]
fn whichever_text_of_the_bundle_is_changed_it_is_refused() {
    let document: Value = serde_json::from_str(BUNDLE).unwrap();
    let mut places = Vec::new();
    texts(&document, String::new(), &mut places);
    assert!(places.len() >= 9, "{places:?}");
    for (place, text) in places {
        for at in (0..text.chars().count()).step_by(STRIDE).filter(|at| counts(&text, *at)) {
            let mut other = document.clone();
            *other.pointer_mut(&place).unwrap() = changed(&text, at).into();
            assert!(!is_accepted(&other.to_string(), TOKEN), "{place} at {at}");
        }
    }
}

#[test]
fn a_changed_token_or_another_policy_is_refused() {
    let token = TOKEN.trim_end();
    for at in 0..token.len() {
        assert!(!is_accepted(BUNDLE, &changed(token, at)), "{at}");
    }
    let bundle = Bundle::parse(BUNDLE.as_bytes()).unwrap();
    let hardware = "version = 1\nkinds = [\"nitro\"]\n[[reference]]\nrelease = \"r\"\n\
        kind = \"nitro\"\nregisters = { pcr0 = \"PCR\" }\n";
    let hardware = Policy::parse(&hardware.replace("PCR", &"ab".repeat(48))).unwrap();
    let refused = bundle.walk(token, &hardware, 1_800_000_000);
    assert!(!refused.accepted);
    let last = refused.steps.last().unwrap();
    assert_eq!((last.name, last.passed), ("evidence", false));
}

#[test]
fn parts_of_the_same_log_in_each_others_place_are_refused() {
    let document: Value = serde_json::from_str(BUNDLE).unwrap();
    for (one, other) in [("announcement", "genesis"), ("genesis", "announcement")] {
        let mut swapped = document.clone();
        *swapped.get_mut(one).unwrap() = document.get(other).unwrap().clone();
        assert!(!is_accepted(&swapped.to_string(), TOKEN), "{one}");
    }
}
