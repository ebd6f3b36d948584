use chancery_entry::{
    Announcement, Compromise, Entry, Genesis, Narrowing, PolicyVersion, Start, TokenEntry, Void,
    VoidReason,
};
use chancery_token::{Algorithm, RsaBits, SigningKey};

use super::*;

mod summary;

const LOG: &str = "_oEsEvOrTOasXbaaw1L5Bg";

fn key(realm: &str, nbf: u64, signs_until: u64) -> Announcement {
    let key = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
    let public = key.public();
    Announcement {
        realm: realm.into(),
        issuer: format!("https://test.example/{realm}"),
        jwk: serde_json::Value::Object(public.jwk()).to_string(),
        kid: *public.kid().as_bytes(),
        algorithm: "Ed25519".into(),
        nbf,
        signs_until,
        max_lifetime_s: 600,
        start: Start::Led,
    }
}

fn token(kid: Kid, iat: u64, exp: u64) -> Entry {
    Entry::Token(TokenEntry::of(kid, iat, exp, b"input"))
}

fn ledger(entries: Vec<Entry>) -> Ledger {
    let mut ledger = Ledger::default();
    for (index, entry) in (0..).zip(entries) {
        ledger.apply(index, entry);
    }
    ledger
}

#[test]
fn genesis_and_the_latest_policy_are_remembered() {
    let genesis = Genesis {
        software: "s".into(),
        started_at: 5,
        policy_digest: [1; 32],
        evidence_digest: None,
        predecessor: None,
        cosigning_key: None,
    };
    let ledger = ledger(vec![
        Entry::Genesis(genesis.clone()),
        Entry::Policy(PolicyVersion { version: 3, digest: [1; 32] }),
        Entry::Void(Void { index: 0, reason: VoidReason::NotCommitted }),
        Entry::Policy(PolicyVersion { version: 4, digest: [2; 32] }),
    ]);
    let latest = PolicyVersion { version: 4, digest: [2; 32] };
    assert_eq!((ledger.genesis, ledger.policy), (Some(genesis), Some(latest)));
    assert_eq!(ledger.keys.len(), 0);
}

#[test]
fn after_its_signers_death_a_key_is_served_for_what_it_signed() {
    let (used, unused) = (key("r", 1_000, 2_000), key("r", 2_000, 3_000));
    let ledger = ledger(vec![
        Entry::Announcement(used.clone()),
        Entry::Announcement(unused.clone()),
        token(used.kid, 1_500, 2_100),
        token(used.kid, 1_400, 2_300),
        // A token of a key that nobody announced here says nothing.
        token([9; 32], 1_999, 9_999),
    ]);
    assert!(ledger.announced(&used.kid) && ledger.announced(&unused.kid));
    assert!(!ledger.announced(&[9; 32]));

    let members = ledger.members_after_death(LOG, 30, 1_600);
    let [member] = members.as_slice() else { panic!("{members:?}") };
    assert_eq!(member.key.kid().as_bytes(), &used.kid);
    assert_eq!(member.kid, member.key.kid().to_string());
    assert_eq!(member.issuer.as_deref(), Some("https://test.example/r"));
    // The window ends with the last logged `iat`, the member with the last expiry and the skew.
    assert_eq!(member.window, Some(jwks::Window { nbf: 1_000, signs_until: 1_501 }));
    assert_eq!(member.exp, Some(2_330));
    assert_eq!(member.log.as_deref(), Some("_oEsEvOrTOasXbaaw1L5Bg.0"));

    assert_eq!(ledger.last_needed(30), 2_330);
    assert_eq!(ledger.members_after_death(LOG, 30, 2_329).len(), 1);
    assert!(ledger.members_after_death(LOG, 30, 2_330).is_empty());
}

#[test]
fn a_window_is_narrowed_never_widened() {
    let announced = key("r", 1_000, 2_000);
    let narrowing = |signs_until| Entry::Narrowing(Narrowing { kid: announced.kid, signs_until });
    let end = |entries: Vec<Entry>| {
        let ledger = ledger(entries);
        ledger.members_after_death(LOG, 0, 0)[0].window.unwrap().signs_until
    };
    let first = || Entry::Announcement(announced.clone());
    let late = || token(announced.kid, 1_900, 2_000);
    assert_eq!(end(vec![first(), late()]), 1_901);
    assert_eq!(end(vec![first(), late(), narrowing(1_700)]), 1_700);
    assert_eq!(end(vec![first(), late(), narrowing(1_700), narrowing(1_800)]), 1_700);
    assert_eq!(end(vec![first(), late(), narrowing(5_000)]), 1_901);
    // Even a token that a broken signer logged beyond its window does not widen it.
    assert_eq!(end(vec![first(), token(announced.kid, 8_000, 8_100)]), 2_000);
}

#[test]
fn compromised_keys_are_not_served() {
    let (one, two) = (key("r", 0, 100), key("r", 0, 100));
    let compromise = |kid| Entry::Compromise(Compromise { kid, at: 50, reason: "test".into() });
    let ledger = ledger(vec![
        Entry::Announcement(one.clone()),
        Entry::Announcement(two.clone()),
        token(one.kid, 10, 600),
        token(two.kid, 10, 600),
        compromise(one.kid),
        // A key of a dead signer's log.
        compromise([7; 32]),
    ]);
    let members = ledger.members_after_death(LOG, 0, 0);
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].key.kid().as_bytes(), &two.kid);
    assert_eq!(ledger.compromised, [one.kid, [7; 32]].into());
}

#[test]
fn with_one_key_fall_the_pending_and_active_ones_of_its_realm() {
    let retired = key("r", 0, 100);
    let (active, pending) = (key("r", 100, 200), key("r", 200, 300));
    let other = key("other", 100, 200);
    let entries = [&retired, &active, &pending, &other];
    let ledger = ledger(entries.map(|k| Entry::Announcement(k.clone())).to_vec());
    let fallen =
        |kid, at, all| -> BTreeSet<Kid> { ledger.fallen_with(kid, at, all).into_iter().collect() };
    assert_eq!(fallen(&active.kid, 150, false), [active.kid, pending.kid].into());
    // The named one falls whatever its state.
    assert_eq!(fallen(&retired.kid, 150, false), [retired.kid, active.kid, pending.kid].into());
    let realm: BTreeSet<Kid> = [retired.kid, active.kid, pending.kid].into();
    assert_eq!(fallen(&active.kid, 150, true), realm);
    // A window is half-open: at its end the key is retired.
    assert_eq!(fallen(&pending.kid, 200, false), [pending.kid].into());
    assert_eq!(fallen(&[9; 32], 150, true), [[9; 32]].into());
}

#[test]
fn an_announcement_without_a_usable_key_is_not_served() {
    let good = key("r", 0, 100);
    let bad = Announcement { jwk: "{\"kty\":\"oct\"}".into(), ..good.clone() };
    let unreadable = Announcement { jwk: "{".into(), ..good.clone() };
    for announcement in [bad, unreadable] {
        let kid = announcement.kid;
        let ledger = ledger(vec![Entry::Announcement(announcement), token(kid, 10, 600)]);
        assert!(ledger.members_after_death(LOG, 0, 0).is_empty());
    }
}

#[test]
fn an_announcement_that_names_another_key_than_it_shows_is_believed_for_neither() {
    let (shown, named) = (key("r", 1_000, 2_000), key("r", 1_000, 2_000));
    let lie = Announcement { jwk: shown.jwk.clone(), ..named.clone() };
    let ledger = ledger(vec![Entry::Announcement(lie), token(named.kid, 1_500, 2_100)]);
    assert!(ledger.members_after_death(LOG, 30, 1_600).is_empty());
}
