//! A summary and the entries after it say what the whole log says, whatever the log is.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, LogId, TileBuilder};
use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [5; 32];

fn signed_note(seed: u8, size: u64) -> (String, VerifierKey) {
    let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
    let origin = format!("test.example/log/{}", LogId::of(&public));
    let vkey = VerifierKey::new_ed25519(&origin, &public).unwrap();
    let mut builder = TileBuilder::new();
    (0..size).for_each(|i| drop(builder.append(chancery_tlog::leaf_hash(&i.to_be_bytes()))));
    let checkpoint = Checkpoint::new(origin, size, builder.root()).unwrap();
    (checkpoint.sign(&vkey, |m| key.sign(m).as_ref().to_vec()).unwrap(), vkey)
}

/// Few keys, so that facts meet each other.
fn entry() -> impl Strategy<Value = Entry> {
    let kid = || (0_u8..4).prop_map(|k| [k; 32]);
    let time = || 0_u64..2_000;
    let announcement = (kid(), time(), time(), "[a-c]{1,3}").prop_map(|(kid, nbf, end, realm)| {
        Entry::Announcement(Announcement {
            issuer: format!("https://test.example/{realm}"),
            realm,
            jwk: "{\"kty\":\"OKP\"}".into(),
            kid,
            algorithm: "Ed25519".into(),
            nbf,
            signs_until: end,
            max_lifetime_s: 600,
            start: Start::Led,
        })
    });
    let genesis = any::<u64>().prop_map(|started_at| {
        Entry::Genesis(Genesis {
            software: "s".into(),
            started_at,
            policy_digest: [1; 32],
            evidence_digest: None,
            predecessor: None,
            cosigning_key: None,
        })
    });
    let version = any::<u64>();
    prop_oneof![
        4 => announcement,
        8 => (kid(), time(), time()).prop_map(|(kid, iat, exp)| token(kid, iat, exp)),
        2 => (kid(), time()).prop_map(|(kid, signs_until)| {
            Entry::Narrowing(Narrowing { kid, signs_until })
        }),
        2 => (kid(), time()).prop_map(|(kid, at)| {
            Entry::Compromise(Compromise { kid, at, reason: "test".into() })
        }),
        1 => genesis,
        1 => version.prop_map(|version| Entry::Policy(PolicyVersion { version, digest: [2; 32] })),
        1 => any::<u64>().prop_map(|index| {
            Entry::Void(Void { index, reason: VoidReason::NotCommitted })
        }),
    ]
}

proptest! {
    #[test]
    fn a_summary_and_what_follows_are_the_whole_ledger(
        entries in proptest::collection::vec(entry(), 0..60),
        cut in any::<proptest::sample::Index>(),
    ) {
        let cut = cut.index(entries.len() + 1);
        let key = SummaryKey::new(&KEY);
        let (note, vkey) = signed_note(7, cut as u64);
        let stored = Summary::encode(&note, &ledger(entries[..cut].to_vec()), &key).unwrap();
        let summary = Summary::decode(&stored, &key, &vkey).unwrap();
        prop_assert_eq!(summary.checkpoint.size, cut as u64);
        let mut restored = summary.ledger;
        for (index, entry) in (0..).zip(&entries).skip(cut) {
            restored.apply(index, entry.clone());
        }
        prop_assert_eq!(restored, ledger(entries));
    }

    #[test]
    fn arbitrary_bytes_are_no_summary(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (_, vkey) = signed_note(7, 1);
        prop_assert!(Summary::decode(&bytes, &SummaryKey::new(&KEY), &vkey).is_err());
    }
}

#[test]
fn a_summary_with_any_changed_or_missing_byte_is_refused() {
    let key = SummaryKey::new(&KEY);
    let (note, vkey) = signed_note(7, 3);
    let announced = super::key("r", 0, 100);
    let fell = Entry::Compromise(Compromise { kid: announced.kid, at: 1, reason: "t".into() });
    let ledger = ledger(vec![Entry::Announcement(announced.clone()), fell]);
    let stored = Summary::encode(&note, &ledger, &key).unwrap();
    assert_eq!(Summary::decode(&stored, &key, &vkey).unwrap().ledger, ledger);
    for at in 0..stored.len() {
        for bit in 0..8 {
            let mut bytes = stored.clone();
            bytes[at] ^= 1 << bit;
            assert!(Summary::decode(&bytes, &key, &vkey).is_err(), "byte {at}, bit {bit}");
        }
        assert!(Summary::decode(&stored[..at], &key, &vkey).is_err(), "cut at {at}");
    }
    assert!(Summary::decode(&[stored.as_slice(), b"\n"].concat(), &key, &vkey).is_err());
}

#[test]
fn a_summary_that_somebody_else_wrote_or_of_another_log_is_refused() {
    let key = SummaryKey::new(&KEY);
    let (note, vkey) = signed_note(7, 3);
    let (other_note, other_vkey) = signed_note(8, 3);
    let ledger = ledger(vec![Entry::Announcement(super::key("r", 0, 100))]);
    let forged = Summary::encode(&note, &ledger, &SummaryKey::new(&[6; 32])).unwrap();
    let error = Summary::decode(&forged, &key, &vkey).unwrap_err();
    assert!(error.contains("did not write it"), "{error}");
    let other = Summary::encode(&other_note, &ledger, &key).unwrap();
    let error = Summary::decode(&other, &key, &vkey).unwrap_err();
    assert!(error.contains("not one of this log"), "{error}");
    Summary::decode(&other, &key, &other_vkey).unwrap();
    let unsigned = Summary::encode("nothing", &ledger, &key).unwrap();
    assert!(Summary::decode(&unsigned, &key, &vkey).is_err());
}

#[test]
fn the_key_is_made_once_and_anew_when_it_is_damaged() {
    use std::os::unix::fs::PermissionsExt;
    let file = std::env::temp_dir().join(format!("chancery-summary-{}.key", std::process::id()));
    let (note, vkey) = signed_note(7, 0);
    let readable = |by: &SummaryKey, of: &SummaryKey| {
        let stored = Summary::encode(&note, &Ledger::default(), of).unwrap();
        Summary::decode(&stored, by, &vkey).is_ok()
    };
    let first = SummaryKey::load_or_make(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(readable(&SummaryKey::load_or_make(&file).unwrap(), &first));
    for damaged in [&[1_u8; 31][..], &[1; 33], &[]] {
        std::fs::write(&file, damaged).unwrap();
        let next = SummaryKey::load_or_make(&file).unwrap();
        assert!(!readable(&next, &first));
        assert!(readable(&SummaryKey::load_or_make(&file).unwrap(), &next));
    }
    std::fs::remove_file(&file).unwrap();
    SummaryKey::load_or_make(std::path::Path::new("/proc/nothing/key")).unwrap_err();
}
