//! Starts by a summary of the ledger: they read what follows it, and know what a whole reading knows.

use chancery_entry::{Announcement, Compromise, Narrowing, Start, TokenEntry};
use chancery_token::{Algorithm, RsaBits, SigningKey};

use super::support::TestLog;
use super::*;
use crate::keyset::KeySets;
use crate::ledger::{Kid, Summary};
use crate::logs::load::SUMMARY;
use crate::store::faulty::{FaultyStore, Objects};

fn key() -> SummaryKey {
    SummaryKey::new(&[5; 32])
}

/// A log of two real keys, with a token of the first and a narrowing every now and then.
fn entries(size: u64) -> (Vec<Entry>, [Kid; 2]) {
    let announcement = |realm: &str| {
        let key = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        let public = key.public();
        Announcement {
            realm: realm.into(),
            issuer: "https://test.example/r".into(),
            jwk: serde_json::Value::Object(public.jwk()).to_string(),
            kid: *public.kid().as_bytes(),
            algorithm: "Ed25519".into(),
            nbf: 0,
            signs_until: 100_000,
            max_lifetime_s: 100_000,
            start: Start::First,
        }
    };
    let keys = [announcement("r"), announcement("r")];
    let kids = [keys[0].kid, keys[1].kid];
    let [first, second] = keys;
    let mut entries = vec![Entry::Announcement(first), Entry::Announcement(second)];
    for i in 2..size {
        let kid = kids[usize::from(i % 3 == 0)];
        entries.push(match i % 50 {
            49 => Entry::Narrowing(Narrowing { kid, signs_until: 100_000 - i }),
            _ => Entry::Token(TokenEntry::of(kid, i, i + 60_000, &i.to_be_bytes())),
        });
    }
    (entries, kids)
}

fn whole(entries: &[Entry]) -> Ledger {
    let mut ledger = Ledger::default();
    (0..).zip(entries).for_each(|(index, entry)| ledger.apply(index, entry.clone()));
    ledger
}

/// The objects of the log at `size`, with a summary of its first `known` entries.
fn with_summary(test: &TestLog, entries: &[Entry], known: usize, size: usize) -> Objects {
    let mut objects = test.objects(size);
    let summary = Summary::encode(&test.checkpoint(known), &whole(&entries[..known]), &key());
    objects.insert(test.path(SUMMARY), summary.unwrap().into());
    objects
}

async fn open(test: &TestLog, objects: &Objects) -> Result<Log, LogError> {
    let faulty = FaultyStore::with(objects).await;
    Log::open(faulty.store(), test.id(), true, Some(&key())).await
}

#[tokio::test]
async fn a_start_by_any_summary_is_a_start_by_the_whole_log() {
    let (entries, _) = entries(770);
    let test = TestLog::of_entries(7, &entries);
    let sizes = [0, 1, 2, 100, 255, 256, 257, 511, 512, 513, 600, 767, 768, 769];
    for size in sizes {
        for known in sizes.into_iter().filter(|known| *known <= size) {
            let log = open(&test, &with_summary(&test, &entries, known, size)).await.unwrap();
            assert_eq!(log.ledger(), whole(&entries[..size]), "{known} of {size}");
            let summarised = log.publishing.lock().await.summarised;
            assert_eq!(summarised, known as u64, "{known} of {size}: it was not used");
            // And it goes on from there as any log does.
            log.apply(&test.batch(size, 770)).unwrap();
            assert_eq!(log.size_and_root(), (770, test.root(770)));
            assert_eq!(log.ledger(), whole(&entries));
            let edge = EntriesTileId::at(3, 770).unwrap();
            assert_eq!(log.entries(edge).await.unwrap(), test.bundle(edge));
        }
    }
}

#[tokio::test]
async fn only_what_follows_the_summary_is_read() {
    let (entries, _) = entries(770);
    let test = TestLog::of_entries(7, &entries);
    let mut objects = with_summary(&test, &entries, 600, 770);
    for early in [0, 1] {
        objects.remove(&test.path(&EntriesTileId { index: early, width: 256 }.path())).unwrap();
    }
    assert_eq!(open(&test, &objects).await.unwrap().ledger(), whole(&entries));
    objects.remove(&test.path(SUMMARY));
    assert!(matches!(open(&test, &objects).await, Err(LogError::Store(_))));
}

#[tokio::test]
async fn a_summary_that_is_not_of_this_log_or_service_means_reading_it_whole() {
    let (entries, kids) = entries(600);
    let test = TestLog::of_entries(7, &entries);
    // Whoever may write to the store would like to have a key forgotten.
    let lie = Ledger::default();
    let of = |note: &str, key: &[u8; 32]| {
        Bytes::from(Summary::encode(note, &lie, &SummaryKey::new(key)).unwrap())
    };
    let other_log = TestLog::of_entries(8, &entries);
    let cases = [
        ("forged", of(&test.checkpoint(500), &[6; 32])),
        ("of another log", of(&other_log.checkpoint(500), &[5; 32])),
        ("ahead", of(&test.checkpoint(600), &[5; 32])),
        ("empty", Bytes::new()),
        ("garbage", Bytes::from_static(b"chancery ledger summary 1 \n{}")),
        ("another version", Bytes::from_static(b"chancery ledger summary 2 00\n{}")),
    ];
    for (what, bytes) in cases {
        let mut objects = test.objects(550);
        objects.insert(test.path(SUMMARY), bytes);
        let log = open(&test, &objects).await.unwrap();
        assert_eq!(log.ledger(), whole(&entries[..550]), "{what}");
        assert!(log.ledger().announced(&kids[0]), "{what}");
        assert_eq!(log.publishing.lock().await.summarised, 0, "{what}");
    }
    // Without a key, the service neither believes nor writes any.
    let faulty = FaultyStore::with(&with_summary(&test, &entries, 500, 550)).await;
    let log = Log::open(faulty.store(), test.id(), true, None).await.unwrap();
    log.summarise().await;
    assert_eq!((log.ledger(), faulty.calls()), (whole(&entries[..550]), 0));
}

#[tokio::test]
async fn a_log_with_two_histories_is_found_by_its_summary() {
    let (mut entries, kids) = entries(600);
    let first = TestLog::of_entries(7, &entries);
    let note = first.checkpoint(400);
    let summary = Summary::encode(&note, &whole(&entries[..400]), &key()).unwrap();
    entries[399] = Entry::Token(TokenEntry::of(kids[0], 1, 2, b"another"));
    let second = TestLog::of_entries(7, &entries);
    let mut objects = second.objects(600);
    objects.insert(second.path(SUMMARY), summary.into());
    let error = open(&second, &objects).await.unwrap_err().to_string();
    assert!(error.contains("two histories") && error.contains("size 400"), "{error}");
}

#[tokio::test]
async fn damage_after_the_summary_is_found_as_without_it() {
    let (entries, _) = entries(600);
    let test = TestLog::of_entries(7, &entries);
    let objects = with_summary(&test, &entries, 300, 600);
    for index in [1, 2] {
        let path = test.path(&EntriesTileId::at(index, 600).unwrap().path());
        let mut changed = objects.clone();
        let mut bytes = changed[&path].to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        changed.insert(path, bytes.into());
        assert!(matches!(open(&test, &changed).await, Err(LogError::Damaged { .. })));
    }
}

/// INVARIANT I9, I3: a key that fell does not come back by a start, whatever lies in place of the summary.
#[tokio::test]
async fn a_compromised_key_never_comes_back_by_a_summary() {
    let (mut entries, [fallen, healthy]) = entries(600);
    entries[450] = Entry::Compromise(Compromise { kid: fallen, at: 450, reason: "t".into() });
    let test = TestLog::of_entries(7, &entries);
    let before_it_fell = with_summary(&test, &entries, 300, 600);
    let after_it_fell = with_summary(&test, &entries, 500, 600);
    let summary = test.path(SUMMARY);
    let mut cases = vec![test.objects(600), before_it_fell, after_it_fell.clone()];
    // A genuine summary of a shorter history in which it did not fall, of the same key and size.
    let mut kept = entries.clone();
    kept[450] = Entry::Token(TokenEntry::of(fallen, 450, 60_000, b"kept"));
    let other = TestLog::of_entries(8, &kept);
    let mut foreign = test.objects(600);
    foreign.insert(
        summary.clone(),
        with_summary(&other, &kept, 500, 600)[&other.path(SUMMARY)].clone(),
    );
    cases.push(foreign);
    // Every byte of the summary changed, one at a time.
    for at in (0..after_it_fell[&summary].len()).step_by(7) {
        let mut objects = after_it_fell.clone();
        let mut bytes = objects[&summary].to_vec();
        bytes[at] ^= 1;
        objects.insert(summary.clone(), bytes.into());
        cases.push(objects);
    }
    let realms = realms();
    for (case, objects) in cases.iter().enumerate() {
        let log = open(&test, objects).await.unwrap();
        assert!(log.ledger().compromised.contains(&fallen), "case {case}");
        let sets = KeySets::default();
        sets.set_realms(&realms, 1_000);
        sets.add_dead(log.id_text(), log.ledger(), 1_000);
        let served = String::from_utf8(sets.get("r").unwrap().json.to_vec()).unwrap();
        let id = |kid: &Kid| chancery_token::b64::encode(kid);
        assert!(served.contains(&id(&healthy)), "case {case}: {served}");
        assert!(!served.contains(&id(&fallen)), "case {case}: {served}");
    }
}

#[tokio::test]
async fn summaries_are_written_at_the_end_and_belong_to_the_stored_checkpoint() {
    let (entries, _) = entries(600);
    let test = TestLog::of_entries(7, &entries);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = test.empty(faulty.store()).with_summaries(Some(key()));
    let stored = || faulty.visible().get(&test.path(SUMMARY)).cloned();
    log.apply(&test.batch(0, 200)).unwrap();
    log.publish().await.unwrap();
    log.summarise().await;
    assert_eq!(stored(), None, "less than a bundle is not worth an object");
    log.apply(&test.batch(200, 500)).unwrap();
    log.summarise().await;
    assert_eq!(stored(), None, "a summary must not be ahead of the checkpoint");
    log.publish().await.unwrap();
    log.summarise().await;
    let summary = Summary::decode(&stored().unwrap(), &key(), test.vkey()).unwrap();
    assert_eq!(summary.checkpoint.size, 500);
    assert_eq!(summary.ledger, whole(&entries[..500]));
    let calls = faulty.calls();
    log.summarise().await;
    assert_eq!(faulty.calls(), calls, "nothing is new");
    let again = open(&test, &faulty.visible()).await.unwrap();
    assert_eq!(again.ledger(), whole(&entries[..500]));
}

#[tokio::test]
async fn a_summary_that_cannot_be_written_keeps_nothing_from_being_published() {
    let (entries, _) = entries(600);
    let test = TestLog::of_entries(7, &entries);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = test.empty(faulty.store()).with_summaries(Some(key()));
    log.apply(&test.batch(0, 600)).unwrap();
    log.publish().await.unwrap();
    faulty.fail(faulty.calls(), crate::store::faulty::Fault::Failed);
    log.summarise().await;
    assert!(!faulty.visible().contains_key(&test.path(SUMMARY)));
    assert!(!log.publish().await.unwrap());
    log.summarise().await;
    assert!(faulty.visible().contains_key(&test.path(SUMMARY)));
}

#[tokio::test]
async fn a_long_log_is_summarised_while_it_is_published() {
    let size = usize::try_from(publish::SUMMARY_EVERY).unwrap() + 10;
    let (entries, _) = entries(size as u64);
    let test = TestLog::of_entries(7, &entries);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = test.empty(faulty.store()).with_summaries(Some(key()));
    log.apply(&test.batch(0, size - 5)).unwrap();
    log.publish().await.unwrap();
    let stored = faulty.visible()[&test.path(SUMMARY)].clone();
    let summary = Summary::decode(&stored, &key(), test.vkey()).unwrap();
    assert_eq!(summary.checkpoint.size, size as u64 - 5);
    log.apply(&test.batch(size - 5, size)).unwrap();
    log.publish().await.unwrap();
    assert_eq!(faulty.visible()[&test.path(SUMMARY)], stored, "the next one has time");
}

fn realms() -> Vec<chancery_policy::RealmDocument> {
    vec![chancery_policy::RealmDocument {
        name: "r".into(),
        issuer: "https://test.example/r".into(),
        algorithms: vec![Algorithm::Ed25519],
        rsa_bits: 2048,
        kubernetes: None,
        schedule: chancery_policy::Schedule::default(),
        clients: vec![],
    }]
}
