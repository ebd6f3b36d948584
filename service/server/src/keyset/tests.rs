use chancery_entry::{Announcement, Entry, Start, TokenEntry};
use chancery_policy::Schedule;
use chancery_token::{Algorithm, RsaBits, SigningKey};
use serde_json::{Value, json};

use super::*;

/// Far beyond the test's own clock: `set_live` looks at the real one.
const LATER: u64 = 9_000_000_000;

fn realm(name: &str, publish_lead_s: u64) -> RealmDocument {
    RealmDocument {
        name: name.into(),
        issuer: format!("https://test.example/{name}"),
        algorithms: vec![Algorithm::Ed25519],
        rsa_bits: 2048,
        kubernetes: None,
        schedule: Schedule { publish_lead_s, ..Schedule::default() },
        clients: vec![],
    }
}

fn two_realms() -> KeySets {
    let sets = KeySets::default();
    sets.set_realms(&[realm("one", 300), realm("two", 60)], 1_000);
    sets
}

struct TestKey {
    public: PublicKeyOf,
    realm: String,
}

type PublicKeyOf = chancery_token::PublicKey;

impl TestKey {
    fn of(realm: &str) -> Self {
        let key = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        Self { public: key.public().clone(), realm: realm.to_owned() }
    }

    fn kid(&self) -> String {
        self.public.kid().to_string()
    }

    fn raw(&self) -> Kid {
        *self.public.kid().as_bytes()
    }

    fn member(&self, exp: u64) -> jwks::Member {
        jwks::Member {
            kid: self.kid(),
            key: self.public.clone(),
            issuer: Some(format!("https://test.example/{}", self.realm)),
            window: Some(jwks::Window { nbf: 1_000, signs_until: 2_000 }),
            exp: Some(exp),
            log: Some("_oEsEvOrTOasXbaaw1L5Bg.2".into()),
        }
    }

    /// The ledger of a log in which this key signed one token.
    fn ledger(&self, exp: u64) -> Ledger {
        let mut ledger = Ledger::default();
        let announcement = Announcement {
            realm: self.realm.clone(),
            issuer: format!("https://test.example/{}", self.realm),
            jwk: Value::Object(self.public.jwk()).to_string(),
            kid: self.raw(),
            algorithm: "Ed25519".into(),
            nbf: 1_000,
            signs_until: 2_000,
            max_lifetime_s: 600,
            start: Start::First,
        };
        ledger.apply(0, Entry::Announcement(announcement));
        ledger.apply(1, Entry::Token(TokenEntry::of(self.raw(), 1_500, exp, b"input")));
        ledger
    }
}

/// A signer's part, signed by nobody: the service serves it, others verify it.
fn part(members: &[jwks::Member]) -> String {
    let header = json!({"alg": "Ed25519", "typ": "jwk-set+jwt"}).to_string();
    let input = format!(
        "{}.{}",
        b64::encode(header.as_bytes()),
        b64::encode(jwks::to_json(members).as_bytes())
    );
    jws::assemble(input, &[0; 64])
}

fn kids(sets: &KeySets, realm: &str) -> Vec<String> {
    let set = jwks::KeySet::parse(&sets.get(realm).unwrap().json).unwrap();
    assert!(set.refused.is_empty());
    set.members().iter().map(|m| m.kid.clone()).collect()
}

fn until(sets: &KeySets, realm: &str, key: &TestKey) -> u64 {
    let set = jwks::KeySet::parse(&sets.get(realm).unwrap().json).unwrap();
    set.get(&key.kid()).unwrap().window.unwrap().signs_until
}

#[test]
fn a_key_stands_only_in_the_set_of_its_issuer() {
    let sets = two_realms();
    let (one, two, dead) = (TestKey::of("one"), TestKey::of("two"), TestKey::of("two"));
    let foreign = jwks::Member {
        issuer: Some("https://else.example".into()),
        ..TestKey::of("one").member(LATER)
    };
    let nobody = jwks::Member { issuer: None, ..TestKey::of("one").member(LATER) };
    sets.set_live("a", &part(&[one.member(LATER), two.member(LATER), foreign, nobody]));
    sets.add_dead("b", dead.ledger(LATER), 1_600);
    assert_eq!(kids(&sets, "one"), [one.kid()]);
    assert_eq!(kids(&sets, "two"), [two.kid(), dead.kid()]);
    assert!(sets.get("three").is_none());
    sets.set_realms(&[realm("three", 300)], 1_600);
    assert!(kids(&sets, "three").is_empty());
    assert!(!sets.are_complete());
    // A realm that left the policy is served as long as its tokens live.
    assert_eq!(kids(&sets, "one"), [one.kid()]);
    sets.set_live("a", &part(&[]));
    assert!(sets.get("one").is_none());
}

#[test]
fn a_restart_takes_no_key_away_before_it_knows_who_is_dead() {
    let sets = two_realms();
    let (pending, active) = (TestKey::of("one"), TestKey::of("one"));
    let said = part(&[pending.member(LATER), active.member(LATER)]);
    sets.add_uncertain("a", active.ledger(LATER), Some(&said), 1_600);
    assert_eq!(kids(&sets, "one"), [pending.kid(), active.kid()]);
    sets.tick(1_601);
    assert_eq!(kids(&sets, "one"), [pending.kid(), active.kid()]);
    sets.add_compromised([active.raw()], 1_602);
    assert_eq!(kids(&sets, "one"), [pending.kid()]);
    sets.add_dead("a", active.ledger(LATER), 1_603);
    assert!(kids(&sets, "one").is_empty(), "what never signed is dropped with its signer");
}

#[test]
fn more_keys_than_one_set_may_have_are_served_over_many_realms() {
    let names: Vec<String> = (0..130).map(|i| format!("r{i}")).collect();
    let keys: Vec<TestKey> = names.iter().flat_map(|n| [TestKey::of(n), TestKey::of(n)]).collect();
    let sets = KeySets::default();
    let realms: Vec<_> = names.iter().map(|n| realm(n, 300)).collect();
    sets.set_realms(&realms, 1_600);
    let members: Vec<_> = keys.iter().map(|k| k.member(LATER)).collect();
    sets.set_live("a", &part(&members));
    assert!(sets.are_complete());
    assert_eq!(kids(&sets, "r129").len(), 2);
}

#[test]
fn max_age_is_shorter_than_the_lead() {
    let sets = two_realms();
    assert_eq!((sets.get("one").unwrap().max_age_s, sets.get("two").unwrap().max_age_s), (150, 30));
}

#[test]
fn dead_logs_never_touch_the_keys_of_a_living_signer() {
    let sets = two_realms();
    let (living, dead) = (TestKey::of("one"), TestKey::of("one"));
    // At start every log is read before anybody knows whose signer lives.
    sets.add_dead("living", living.ledger(LATER), 1_600);
    sets.add_dead("dead", dead.ledger(LATER), 1_600);
    assert_eq!(until(&sets, "one", &living), 1_501);
    sets.set_live("living", &part(&[living.member(LATER)]));
    sets.add_dead("dead", dead.ledger(LATER), 1_600);
    assert_eq!(until(&sets, "one", &living), 2_000);
    assert_eq!(kids(&sets, "one"), [living.kid(), dead.kid()]);
    // What it dropped from its part is not served from its log either.
    sets.set_live("living", &part(&[]));
    assert_eq!(kids(&sets, "one"), [dead.kid()]);
    sets.set_live("living", &part(&[living.member(LATER)]));
    // Its own death does: its keys come from its log then, with what they really signed.
    sets.add_dead("living", living.ledger(LATER), 1_700);
    assert_eq!(until(&sets, "one", &living), 1_501);
    let next = TestKey::of("one");
    sets.set_live("next", &part(&[next.member(LATER)]));
    assert_eq!(kids(&sets, "one").len(), 3);
}

#[test]
fn compromised_keys_are_never_served_whoever_says_so() {
    let sets = two_realms();
    let (named, by_log, living) = (TestKey::of("one"), TestKey::of("one"), TestKey::of("one"));
    sets.set_live("a", &part(&[named.member(LATER), by_log.member(LATER), living.member(LATER)]));
    sets.add_compromised([named.raw()], 1_600);
    assert_eq!(kids(&sets, "one"), [by_log.kid(), living.kid()]);
    let mut ledger = Ledger::default();
    ledger.compromised.insert(by_log.raw());
    sets.add_dead("b", ledger, 1_600);
    assert_eq!(kids(&sets, "one"), [living.kid()]);
    // No rebuild, no new part and no log brings them back.
    sets.set_live("a", &part(&[named.member(LATER), by_log.member(LATER), living.member(LATER)]));
    sets.add_dead("c", named.ledger(LATER), 1_600);
    sets.tick(1_700);
    assert_eq!(kids(&sets, "one"), [living.kid()]);
}

#[test]
fn keys_leave_when_their_time_has_come() {
    let sets = two_realms();
    let (dead, living) = (TestKey::of("one"), TestKey::of("one"));
    let now = crate::now();
    sets.set_live("a", &part(&[living.member(now + 1_000)]));
    sets.add_dead("b", dead.ledger(now + 500), now);
    assert_eq!(kids(&sets, "one").len(), 2);
    // The default skew is 30 s.
    sets.tick(now + 529);
    assert_eq!(kids(&sets, "one").len(), 2);
    sets.tick(now + 530);
    assert_eq!(kids(&sets, "one"), [living.kid()]);
    assert_eq!(sets.state().dead.len(), 1, "the ledger stays for the largest skew");
    sets.tick(now + 500 + MAX_SKEW_S);
    assert!(sets.state().dead.is_empty());
    assert!(kids(&sets, "one").is_empty());
}

#[test]
fn the_tag_changes_with_the_content_and_only_then() {
    let sets = two_realms();
    let tag = || sets.get("one").unwrap().etag.clone();
    let empty = tag();
    let key = TestKey::of("one");
    sets.set_live("a", &part(&[key.member(LATER)]));
    let one = tag();
    assert_ne!(one, empty);
    assert!(one.starts_with('"') && one.ends_with('"') && one.len() == 18, "{one}");
    sets.set_live("a", &part(&[key.member(LATER)]));
    sets.tick(crate::now());
    sets.set_live("a", &part(&[key.member(LATER), TestKey::of("two").member(LATER)]));
    assert_eq!(tag(), one);
    sets.set_live("a", &part(&[key.member(LATER + 1)]));
    assert_ne!(tag(), one);
}

#[test]
fn a_part_that_cannot_be_read_changes_nothing() {
    let sets = two_realms();
    let key = TestKey::of("one");
    sets.set_live("a", &part(&[key.member(LATER)]));
    for bad in ["", "x", "a.b.c", &part(&[]).replace('.', "")] {
        sets.set_live("a", bad);
        assert_eq!(kids(&sets, "one"), [key.kid()], "{bad}");
    }
}

/// What a realm's keys were is known from the logs of the dead, however they fell: whoever only ever
/// hears of living keys would go on believing them.
#[test]
fn a_realm_whose_keys_all_fell_is_told_from_one_that_never_had_any() {
    use chancery_entry::Compromise;
    let key = TestKey::of("one");
    let mut declared = key.ledger(LATER);
    let reason = "a drill".to_owned();
    declared.apply(2, Entry::Compromise(Compromise { kid: key.raw(), at: 1_600, reason }));
    let said = part(&[]);
    for uncertain in [true, false] {
        let sets = two_realms();
        assert!(!sets.get("one").unwrap().has_fallen);
        match uncertain {
            true => sets.add_uncertain("log", declared.clone(), Some(&said), 1_700),
            false => sets.add_dead("log", declared.clone(), 1_700),
        }
        let served = sets.get("one").unwrap();
        assert!(served.has_fallen && !served.has_own && served.members.is_empty());
        assert!(!sets.get("two").unwrap().has_fallen, "another realm's");
    }
    // Declared by the service alone.
    let sets = two_realms();
    sets.add_dead("log", key.ledger(LATER), 1_700);
    assert!(!sets.get("one").unwrap().has_fallen);
    sets.add_compromised([key.raw()], 1_700);
    assert!(sets.get("one").unwrap().has_fallen);
}

/// INVARIANT I3: neither under its own name nor another, whether its log is still read or not.
#[test]
fn no_signers_key_is_served_as_an_imported_one() {
    let es256 = || SigningKey::generate(Algorithm::Es256, RsaBits::B2048).unwrap().public().clone();
    let (living, dead, past, foreign) = (es256(), es256(), es256(), es256());
    let import = |kid: &str, key: &PublicKeyOf| chancery_policy::document::ImportedKeyDocument {
        kid: kid.to_owned(),
        jwk: key.jwk(),
        until: LATER,
        in_discovery: true,
    };
    let importing = |keys: &[(&str, &PublicKeyOf)]| {
        let mut realm = realm("one", 300);
        let mut terms = crate::kubernetes::development_realm().kubernetes.unwrap();
        terms.imported = keys.iter().map(|(kid, key)| import(kid, key)).collect();
        realm.kubernetes = Some(terms);
        [realm]
    };
    let named = |public: &PublicKeyOf| TestKey { public: public.clone(), realm: "other".into() };
    let past_name = past.kid().to_string();
    let all = importing(&[
        ("a", &living),
        ("b", &dead),
        ("c", &past),
        (&past_name, &foreign),
        ("d", &foreign),
    ]);
    let sets = KeySets::default();
    sets.set_realms(&all, 1_000);
    assert_eq!(kids(&sets, "one").len(), 5, "nobody knows better yet");
    sets.set_live("alive", &part(&[named(&living).member(LATER)]));
    sets.add_dead("dead", named(&dead).ledger(1_500), 1_000);
    sets.add_own([*past.kid().as_bytes()], 1_000);
    assert_eq!(kids(&sets, "one"), ["d"]);
    let states: Vec<&str> = sets.imported().into_iter().map(|key| key.state).collect();
    assert_eq!(states, ["refused", "refused", "refused", "refused", "imported"]);
    for (kid, key) in [("x", &living), ("x", &dead), ("x", &past), (&past_name, &foreign)] {
        let why = sets.check_imports(&importing(&[(kid, key)])).unwrap_err();
        assert!(why.contains("a signer of this deployment made"), "{why}");
    }
    sets.check_imports(&importing(&[("x", &foreign)])).unwrap();
}
