//! Cosignatures of both types.

use proptest::prelude::*;

use super::*;
use crate::cosignature::{self, MAX_TIMESTAMP};
use crate::note::{KeyType, Signature, Verified, signers, verify};

const ORIGIN: &str = "example.com/behind-the-sofa";
const BODY: &str = "example.com/behind-the-sofa\n20852163\n\
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

/// The example of c2sp.org/tlog-cosignature. Its keys are not published.
const SPEC_NOTE: &str = "example.com/behind-the-sofa\n20852163\n\
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

/// What a public log of test certificates served in 2026, cosigned by public witnesses.
const PUBLIC_NOTE: &str = "arche2025h1.staging.ct.transparency.dev\n1432088532\n\
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\n\
— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=\n\
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==\n\
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n";
const REMORA: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

/// A key and its signature on the subtree `[8, 13)` that filippo.io/torchwood made, as the tests of
/// github.com/transparency-dev/formats publish them.
const TORCHWOOD: &str = include_str!("vectors/torchwood-subtree.txt");

const TIME: u64 = 1_679_315_147;

fn both() -> [Cosigner; 2] {
    [Cosigner::ed25519("witness.example/w1", 1), Cosigner::ml_dsa_44("witness.example/w2", 2)]
}

fn log_note() -> Note {
    Note::parse(Signer::new(ORIGIN, 9).note(BODY).as_bytes()).unwrap()
}

fn bad_signature(key: &VerifierKey) -> Error {
    Error::BadSignature { name: key.name().to_owned() }
}

#[test]
fn the_cosignature_of_a_public_witness_verifies() {
    let note = Note::parse(PUBLIC_NOTE.as_bytes()).unwrap();
    let remora = VerifierKey::parse(REMORA).unwrap();
    assert_eq!((remora.to_string().as_str(), remora.signature_bytes()), (REMORA, 72));
    let timestamp = 1_779_573_024;
    assert_eq!(cosignature::verify(&remora, &note.text, &note.signatures[2].bytes), Ok(timestamp));
    let verified = signers(&note, std::slice::from_ref(&remora));
    assert_eq!(verified, Ok(vec![Verified { key: 0, timestamp: Some(timestamp) }]));
    // A witness's signature does not make a checkpoint its log's.
    let opened = Checkpoint::open(PUBLIC_NOTE.as_bytes(), std::slice::from_ref(&remora));
    assert_eq!(opened, Err(Error::Origin("arche2025h1.staging.ct.transparency.dev".to_owned())));
    let mut text = note.text.clone();
    text.push_str("extension\n");
    let extended = cosignature::verify(&remora, &text, &note.signatures[2].bytes);
    assert_eq!(extended, Err(bad_signature(&remora)));
}

/// Checks the message's layout, the key id and the algorithm against another implementation.
#[test]
fn the_ml_dsa_44_signature_of_torchwood_verifies() {
    let (vkey, line) = TORCHWOOD.trim_end().split_once('\n').unwrap();
    let key = VerifierKey::parse(vkey).unwrap();
    assert_eq!((key.key_type(), key.signature_bytes()), (KeyType::MlDsa44Cosignature, 2_428));
    assert_eq!(key.to_string(), vkey);
    let signature = Signature::parse(line).unwrap();
    assert_eq!((signature.name.as_str(), signature.key_id), (key.name(), key.key_id()));
    let root = "E7ERCtFloiK1fdb+B6/dLG0pM1nmIR0ETKBSauCjtVw=".parse().unwrap();
    let message = |start, end| {
        cosignature::subtree_message(key.name(), 0, "example.com/log", (start, end), &root).unwrap()
    };
    let (time, raw) = signature.bytes.split_at(8);
    assert_eq!(time, [0; 8]);
    assert!(key.signed(&message(8, 13), raw));
    assert!(!key.signed(&message(0, 13), raw));
}

#[test]
fn the_example_of_the_specification_is_read() {
    let note = Note::parse(SPEC_NOTE.as_bytes()).unwrap();
    assert_eq!((note.text.as_str(), note.encode().as_str()), (BODY, SPEC_NOTE));
    let [_, cosignature] = note.signatures.as_slice() else { panic!("{note:?}") };
    assert_eq!(cosignature.name, "witness.example.com/w1");
    assert_eq!(cosignature.key_id, [0x8d, 0x66, 0xcf, 0x3f]);
    assert_eq!(cosignature::timestamp(cosignature), TIME);
    assert_eq!(cosignature.bytes.len(), 72);
}

#[test]
fn messages_are_those_of_the_specification() {
    let [ed25519, ml_dsa] = both();
    let message = cosignature::message(&ed25519.key, TIME, BODY).unwrap();
    let expected = format!("cosignature/v1\ntime 1679315147\n{BODY}");
    assert_eq!(message, expected.into_bytes());

    let message = cosignature::message(&ml_dsa.key, TIME, BODY).unwrap();
    let root: Hash = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=".parse().unwrap();
    let expected = [
        b"subtree/v1\n\0".as_slice(),
        b"\x12witness.example/w2",
        &[0, 0, 0, 0, 0x64, 0x18, 0x50, 0xcb],
        b"\x1bexample.com/behind-the-sofa",
        &[0; 8],
        &[0, 0, 0, 0, 0x01, 0x3e, 0x2d, 0xc3],
        &root.0,
    ]
    .concat();
    assert_eq!(message, expected);
}

#[test]
fn key_ids_cover_name_type_and_key() {
    use sha2::Digest as _;
    for (cosigner, type_byte) in both().iter().zip([4, 6]) {
        let key = &cosigner.key;
        let name = format!("{}\n", key.name());
        let identified = [name.as_bytes(), &[type_byte], key.public_key()].concat();
        assert_eq!(key.key_id(), sha2::Sha256::digest(identified)[..4]);
        assert_eq!((key.key_type().byte(), key.key_type().is_cosignature()), (type_byte, true));
        assert_eq!(VerifierKey::parse(&key.to_string()).as_ref(), Ok(key));
    }
    assert!(!KeyType::Ed25519.is_cosignature());
    // One Ed25519 key under one name is two keys, by type.
    let log = Signer::new("witness.example/w1", 1).key;
    assert_eq!(log.public_key(), both()[0].key.public_key());
    assert_ne!(log.key_id(), both()[0].key.key_id());
}

#[test]
fn cosignatures_are_added_and_verified_beside_the_logs_signature() {
    let cosigners = both();
    let mut note = log_note();
    for (cosigner, timestamp) in cosigners.iter().zip([TIME, TIME + 1]) {
        cosigner.cosign(&mut note, timestamp);
    }
    assert_eq!(Note::parse(note.encode().as_bytes()), Ok(note.clone()));
    let [ed25519, ml_dsa] = &cosigners;
    let keys = [ml_dsa.key.clone(), Signer::new(ORIGIN, 9).key, ed25519.key.clone()];
    let expected = [Some(TIME + 1), None, Some(TIME)];
    let expected = expected.into_iter().enumerate();
    let expected: Vec<_> = expected.map(|(key, timestamp)| Verified { key, timestamp }).collect();
    assert_eq!(signers(&note, &keys), Ok(expected));
    assert_eq!(verify(&note, &keys), Ok(vec![0, 1, 2]));
    assert!(ed25519.key.verify(BODY.as_bytes(), &note.signatures[1].bytes));
    assert!(!ed25519.key.verify(b"\xff", &note.signatures[1].bytes));
    let (_, opened) = Checkpoint::open(note.encode().as_bytes(), &keys).unwrap();
    assert_eq!(opened, note);

    // A later cosignature by the same key replaces the earlier one.
    ed25519.cosign(&mut note, TIME + 2);
    assert_eq!(note.signatures.len(), 3);
    assert_eq!(signers(&note, &keys).unwrap()[2].timestamp, Some(TIME + 2));
    // Of two by one key, both must verify, and the later time counts.
    let earlier = cosignature::sign(&ed25519.key, TIME, BODY, |m| ed25519.sign(m)).unwrap();
    note.signatures.push(earlier);
    assert_eq!(signers(&note, &keys).unwrap()[2].timestamp, Some(TIME + 2));
    note.signatures[3].bytes[0] ^= 1;
    assert_eq!(signers(&note, &keys), Err(bad_signature(&ed25519.key)));
}

#[test]
fn a_wrong_cosignature_by_a_known_key_refuses_the_note() {
    for cosigner in both() {
        let mut note = log_note();
        cosigner.cosign(&mut note, TIME);
        let log = Signer::new(ORIGIN, 9).key;
        let keys = [log.clone(), cosigner.key.clone()];
        let good = note.signatures[1].bytes.clone();
        assert_eq!(verify(&note, &keys), Ok(vec![0, 1]));
        let last = good.len() - 1;
        for bytes in [
            flip(&good, 63),       // the time
            flip(&good, 64 + 5),   // the signature's beginning
            flip(&good, 8 * last), // and its end
            good[..last].to_vec(),
            good[..8].to_vec(),
            good[..3].to_vec(),
            [good.as_slice(), &[0]].concat(),
        ] {
            note.signatures[1].bytes = bytes;
            assert_eq!(verify(&note, &keys), Err(bad_signature(&cosigner.key)));
            assert_eq!(verify(&note, std::slice::from_ref(&log)), Ok(vec![0]), "unknown: ignored");
        }
        note.signatures[1].bytes = good.clone();
        note.text = note.text.replace("20852163", "20852164");
        assert_eq!(verify(&note, &keys[1..]), Err(bad_signature(&cosigner.key)));
        // What is no checkpoint cannot be cosigned.
        note.text = "text\n".to_owned();
        assert_eq!(verify(&note, &keys[1..]), Err(bad_signature(&cosigner.key)));
    }
}

#[test]
fn extension_lines_are_covered_by_ed25519_only() {
    let extended = format!("{BODY}extension\n");
    let [ed25519, ml_dsa] = both();
    for (cosigner, covered) in [(&ed25519, true), (&ml_dsa, false)] {
        let signature = cosignature::sign(&cosigner.key, TIME, BODY, |m| cosigner.sign(m)).unwrap();
        let result = cosignature::verify(&cosigner.key, &extended, &signature.bytes);
        assert_eq!(result.is_err(), covered, "{:?}", cosigner.key.key_type());
    }
}

#[test]
fn only_ml_dsa_44_covers_the_cosigners_name() {
    let renamed = |cosigner: Cosigner, other: Cosigner| {
        let signature = cosignature::sign(&cosigner.key, TIME, BODY, |m| cosigner.sign(m)).unwrap();
        cosignature::verify(&other.key, BODY, &signature.bytes)
    };
    assert_eq!(renamed(Cosigner::ed25519("a", 1), Cosigner::ed25519("b", 1)), Ok(TIME));
    let other = Cosigner::ml_dsa_44("b", 1);
    let bad = Err(bad_signature(&other.key));
    assert_eq!(renamed(Cosigner::ml_dsa_44("a", 1), other), bad);
}

#[test]
fn timestamps_are_bounded_and_zero_is_no_time() {
    let [ed25519, ml_dsa] = both();
    for cosigner in [&ed25519, &ml_dsa] {
        let sign = |time| cosignature::sign(&cosigner.key, time, BODY, |m| cosigner.sign(m));
        let largest = sign(MAX_TIMESTAMP).unwrap();
        assert_eq!(largest.bytes[..8], [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(cosignature::verify(&cosigner.key, BODY, &largest.bytes), Ok(MAX_TIMESTAMP));
        let too_large = MAX_TIMESTAMP + 1;
        assert_eq!(sign(too_large), Err(Error::Timestamp(too_large)));
        let claimed = [too_large.to_be_bytes().as_slice(), &largest.bytes[8..]].concat();
        let refused = cosignature::verify(&cosigner.key, BODY, &claimed);
        assert_eq!(refused, Err(Error::Timestamp(too_large)));
    }
    let name = ed25519.key.name().to_owned();
    let refused = cosignature::sign(&ed25519.key, 0, BODY, |m| ed25519.sign(m));
    assert_eq!(refused, Err(Error::NoTimestamp { name }));
    let timeless = cosignature::sign(&ml_dsa.key, 0, BODY, |m| ml_dsa.sign(m)).unwrap();
    assert_eq!(cosignature::verify(&ml_dsa.key, BODY, &timeless.bytes), Ok(0));
    // Others may have made one, and nothing forbids reading it.
    let raw = ed25519.sign(&cosignature::message(&ed25519.key, 0, BODY).unwrap());
    let bytes = [[0; 8].as_slice(), &raw].concat();
    assert_eq!(cosignature::verify(&ed25519.key, BODY, &bytes), Ok(0));
}

#[test]
fn names_that_ml_dsa_44_cannot_cover_are_refused() {
    let (fits, too_long) = ("n".repeat(255), "n".repeat(256));
    let body = |origin: &str| BODY.replace(ORIGIN, origin);
    let [ed25519, ml_dsa] = both();
    assert!(cosignature::message(&ml_dsa.key, TIME, &body(&fits)).is_ok());
    assert!(cosignature::message(&ed25519.key, TIME, &body(&too_long)).is_ok());
    let error = |what| Error::CosignedLength { what, bytes: 256 };
    let origin = error("the checkpoint's origin");
    let refused = cosignature::message(&ml_dsa.key, TIME, &body(&too_long));
    assert_eq!(refused, Err(origin.clone()));
    let refused = cosignature::sign(&ml_dsa.key, TIME, &body(&too_long), |m| ml_dsa.sign(m));
    assert_eq!(refused, Err(origin));

    let public_key = ml_dsa.key.public_key().try_into().unwrap();
    let named = |name: &str| VerifierKey::new_ml_dsa_44_cosigner(name, public_key);
    let key = named(&fits).unwrap();
    assert!(cosignature::message(&key, TIME, BODY).is_ok());
    assert_eq!(VerifierKey::parse(&key.to_string()), Ok(key));
    let name = Err(error("the cosigner's name"));
    assert_eq!(named(&too_long), name);
    let vkey =
        format!("{too_long}+00000000+{}", text::to_base64(&[&[6], public_key.as_slice()].concat()));
    assert_eq!(VerifierKey::parse(&vkey), name);
    assert_eq!(named("a b"), Err(Error::KeyName("a b".to_owned())));
    let public_key = ed25519.key.public_key().try_into().unwrap();
    assert!(VerifierKey::new_ed25519_cosigner(&too_long, public_key).is_ok());
    let refused = VerifierKey::new_ed25519_cosigner("", public_key);
    assert_eq!(refused, Err(Error::KeyName(String::new())));
}

#[test]
fn what_cannot_be_cosigned_is_refused() {
    let log = Signer::new(ORIGIN, 9);
    let wrong_type = Error::KeyType(1);
    assert_eq!(cosignature::message(&log.key, TIME, BODY), Err(wrong_type.clone()));
    let refused = cosignature::verify(&log.key, BODY, &[0; 72]);
    assert_eq!(refused, Err(wrong_type.clone()));
    let mut note = log_note();
    let before = note.clone();
    let refused = note.add_cosignature(&log.key, TIME, |m| log.sign(m));
    assert_eq!(refused, Err(wrong_type));
    for cosigner in both() {
        let name = cosigner.key.name().to_owned();
        let want = cosigner.key.signature_bytes() - 8;
        let refused = note.add_cosignature(&cosigner.key, TIME, |_| Vec::new());
        assert_eq!(refused, Err(Error::SignatureBytes { name, want, got: 0 }));
        let refused = note.add_signature(&cosigner.key, |m| cosigner.sign(m));
        assert_eq!(refused, Err(Error::KeyType(cosigner.key.key_type().byte())));
        let refused = cosignature::message(&cosigner.key, TIME, "text\n");
        assert_eq!(refused, Err(Error::Checkpoint("it has fewer than three lines")));
    }
    assert_eq!(note, before);
}

#[test]
fn a_log_signs_its_checkpoints_with_two_keys_of_one_name() {
    let checkpoint = Checkpoint::parse(BODY).unwrap();
    let (log, post_quantum) = (Signer::new(ORIGIN, 9), Cosigner::ml_dsa_44(ORIGIN, 8));
    let signed = checkpoint.sign(&log.key, |body| log.sign(body)).unwrap();
    let cosign = |signed: &str, cosigner: &Cosigner, time| {
        checkpoint.cosign(signed, &cosigner.key, time, |message| cosigner.sign(message))
    };
    let twice = cosign(&signed, &post_quantum, TIME).unwrap();
    assert!(twice.starts_with(&signed));
    for keys in [vec![log.key.clone()], vec![post_quantum.key.clone()]] {
        let (opened, note) = Checkpoint::open(twice.as_bytes(), &keys).unwrap();
        assert_eq!((opened, note.signatures.len()), (checkpoint.clone(), 2));
    }
    let later = cosign(&twice, &post_quantum, TIME + 1).unwrap();
    let note = Note::parse(later.as_bytes()).unwrap();
    assert_eq!(note.signatures.len(), 2);
    let verified = signers(&note, std::slice::from_ref(&post_quantum.key)).unwrap();
    assert_eq!(verified[0].timestamp, Some(TIME + 1));

    let stranger = Cosigner::ml_dsa_44("stranger.example", 8);
    assert_eq!(cosign(&signed, &stranger, TIME), Err(Error::Origin(ORIGIN.to_owned())));
    let other = Checkpoint { size: 5, ..checkpoint.clone() };
    let other = other.sign(&log.key, |body| log.sign(body)).unwrap();
    let refused = cosign(&other, &post_quantum, TIME);
    assert_eq!(refused, Err(Error::Checkpoint("the signed note is that of another checkpoint")));
    assert!(matches!(cosign("", &post_quantum, TIME), Err(Error::Note(_))));
    let unchecked = Checkpoint { size: 0, ..checkpoint };
    let refused = unchecked.cosign(&signed, &post_quantum.key, TIME, |m| post_quantum.sign(m));
    assert_eq!(refused, Err(Error::Checkpoint("its root is not that of an empty tree")));
}

proptest! {
    #[test]
    fn a_cosignature_holds_for_its_time_and_checkpoint_only(
        time in 1..=MAX_TIMESTAMP, other in any::<u64>(), size in 1..=MAX_TREE_SIZE, bit in 0..64_usize, ml_dsa in any::<bool>(),
    ) {
        let [ed25519, post_quantum] = both();
        let cosigner = if ml_dsa { post_quantum } else { ed25519 };
        let body = Checkpoint::new(ORIGIN, size, leaf(other)).unwrap().body();
        let signature = cosignature::sign(&cosigner.key, time, &body, |m| cosigner.sign(m)).unwrap();
        prop_assert_eq!(cosignature::verify(&cosigner.key, &body, &signature.bytes), Ok(time));
        prop_assert_eq!(cosignature::timestamp(&signature), time);
        let flipped = flip(&signature.bytes, bit);
        prop_assert!(cosignature::verify(&cosigner.key, &body, &flipped).is_err());
        let elsewhere = Checkpoint::new(ORIGIN, size, leaf(other.wrapping_add(1))).unwrap().body();
        prop_assert!(cosignature::verify(&cosigner.key, &elsewhere, &signature.bytes).is_err());
    }

    #[test]
    fn signatures_of_strangers_do_not_verify(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        for cosigner in both() {
            prop_assert!(cosignature::verify(&cosigner.key, BODY, &bytes).is_err());
        }
    }
}
