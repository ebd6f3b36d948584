//! Signed notes and verifier keys.

use proptest::prelude::*;

use super::*;
use crate::note::{KeyType, MAX_NOTE_BYTES, MAX_SIGNATURES, Signature, sign, signers, verify};

/// The example of Go's package `golang.org/x/mod/sumdb/note`.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
then you don't know what your problem is.\n\
\n\
— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n\
— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

/// The example of c2sp.org/signed-note.
const SPEC_NOTE: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
ed è subito sera.\n\n\
— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

fn key(vkey: &str) -> VerifierKey {
    VerifierKey::parse(vkey).unwrap()
}

fn parse(text: &str) -> Result<Note, Error> {
    Note::parse(text.as_bytes())
}

#[test]
fn the_notes_of_others_verify() {
    let note = parse(GO_NOTE).unwrap();
    assert_eq!(note.encode(), GO_NOTE);
    assert_eq!(verify(&note, &[key(PETER)]), Ok(vec![0]));
    assert_eq!(verify(&note, &[key(ENOCH), key(PETER)]), Ok(vec![0, 1]));
    let stranger = Signer::new("stranger.example", 1).key;
    assert_eq!(verify(&note, &[stranger.clone(), key(ENOCH)]), Ok(vec![1]));
    assert_eq!(verify(&note, &[stranger]), Err(Error::NoKnownSignature));
    assert_eq!(verify(&note, &[]), Err(Error::NoKnownSignature));

    let note = parse(SPEC_NOTE).unwrap();
    assert_eq!(note.encode(), SPEC_NOTE);
    assert!(note.text.ends_with("sole:\n\ned è subito sera.\n"));
    let [signature] = note.signatures.as_slice() else { panic!("{note:?}") };
    assert_eq!(signature.name, "quasimodo.example/salvatore");
    assert_eq!(signature.key_id, [0x36, 0x7b, 0xa0, 0x4b]);
}

#[test]
fn a_known_key_whose_signature_is_wrong_refuses_the_note() {
    let mut note = parse(GO_NOTE).unwrap();
    note.signatures[0].bytes[0] ^= 1;
    let bad = Err(Error::BadSignature { name: "PeterNeumann".to_owned() });
    assert_eq!(verify(&note, &[key(PETER)]), bad);
    assert_eq!(verify(&note, &[key(ENOCH), key(PETER)]), bad);
    assert_eq!(verify(&note, &[key(ENOCH)]), Ok(vec![0]), "unknown keys are ignored");

    let mut note = parse(GO_NOTE).unwrap();
    note.text.push('\n');
    assert_eq!(verify(&note, &[key(PETER)]), bad);
    note.signatures[0].bytes.truncate(63);
    assert_eq!(verify(&note, &[key(PETER)]), bad);
}

#[test]
fn a_name_or_an_id_alone_does_not_make_a_key_known() {
    let mut note = parse(GO_NOTE).unwrap();
    note.signatures.truncate(1);
    for other in [
        Signature { name: "EnochRoot".to_owned(), ..note.signatures[0].clone() },
        Signature { key_id: [1, 2, 3, 4], ..note.signatures[0].clone() },
    ] {
        let note = Note { signatures: vec![other], ..note.clone() };
        assert_eq!(verify(&note, &[key(PETER), key(ENOCH)]), Err(Error::NoKnownSignature));
    }
}

#[test]
fn every_signature_of_a_key_that_signed_twice_must_verify() {
    let mut note = parse(GO_NOTE).unwrap();
    note.signatures.push(note.signatures[0].clone());
    assert_eq!(verify(&note, &[key(PETER), key(ENOCH)]), Ok(vec![0, 1]));
    note.signatures[2].bytes[9] ^= 1;
    assert!(matches!(verify(&note, &[key(PETER)]), Err(Error::BadSignature { .. })));
}

#[test]
fn keys_that_share_name_and_id_are_refused() {
    // Ids have 32 bits, so some 80,000 keys are enough to find two that share one.
    let mut seen = HashMap::new();
    let (one, two) = (0_u64..2_000_000)
        .find_map(|number| {
            let mut public_key = [0; 32];
            public_key[..8].copy_from_slice(&number.to_be_bytes());
            let key = VerifierKey::new_ed25519("a", &public_key).unwrap();
            let earlier = seen.insert(key.key_id(), key.clone())?;
            Some((earlier, key))
        })
        .unwrap();
    let claim = Signature { name: "a".to_owned(), key_id: one.key_id(), bytes: vec![0; 64] };
    let note = Note { text: "text\n".to_owned(), signatures: vec![claim] };
    let ambiguous = Err(Error::AmbiguousKey { name: "a".to_owned() });
    assert_eq!(verify(&note, &[one.clone(), two]), ambiguous);
    let bad = Err(Error::BadSignature { name: "a".to_owned() });
    assert_eq!(verify(&note, &[one.clone(), one]), bad, "one key named twice is no riddle");
}

#[test]
fn malformed_notes_are_refused() {
    let line = GO_NOTE.lines().nth(3).unwrap();
    let note = |text: &str| parse(&text.replace('~', line));
    assert!(note("text\n\n~\n").is_ok());
    assert!(note("\n\n~\n").is_ok(), "a text may be one empty line");
    let bad = |reason| Err(Error::Note(reason));
    let no_separator = bad("no empty line separates text and signatures");
    assert_eq!(note(""), no_separator);
    assert_eq!(note("text\n~\n"), no_separator);
    assert_eq!(note("\n~\n"), no_separator);
    let no_end = bad("it does not end in a signature line");
    assert_eq!(note("text\n\n~"), no_end);
    assert_eq!(note("text\n\n"), no_end);
    let bad_line = bad("a signature line is not an em dash, a name and base64");
    assert_eq!(note("text\n\n\n"), no_end);
    assert_eq!(note("text\n\n~\nmore\n"), bad_line);
    assert_eq!(note("text\n\n ~\n"), bad_line);
    assert_eq!(parse("text\n\n- a AAAAAAA=\n"), bad_line);
    assert_eq!(parse("text\n\n— a\n"), bad_line);
    assert_eq!(parse("text\n\n—  AAAAAAA=\n"), Err(Error::KeyName(String::new())));
    assert_eq!(parse("text\n\n— a+b AAAAAAA=\n"), Err(Error::KeyName("a+b".to_owned())));
    assert_eq!(parse("text\n\n— a\u{a0}b AAAAAAA=\n"), Err(Error::KeyName("a\\u{a0}b".to_owned())));
    let not_base64 = bad("a signature is not canonical base64");
    for spelling in ["AAAAAAA", "AAAAAAB=", "AAAAAAA= ", " AAAAAAA=", "AAAAAAA=A", "AAAA-AA="] {
        assert_eq!(parse(&format!("text\n\n— a {spelling}\n")), not_base64, "{spelling}");
    }
    assert!(parse("text\n\n— a AAAAAAA=\n").is_ok());
    let short = bad("a signature is shorter than a key id and one byte");
    assert_eq!(parse("text\n\n— a AAAAAA==\n"), short);
    assert_eq!(parse("text\n\n— a AAAA\n"), short);
    assert_eq!(parse("text\n\n— a \n"), short);
    for control in ["\r", "\t", "\0", "\u{1f}"] {
        assert_eq!(note(&format!("te{control}xt\n\n~\n")), bad("it holds a control character"));
    }
    assert_eq!(Note::parse(b"te\xffxt\n\n"), bad("it is not UTF-8"));
}

#[test]
fn notes_are_limited_but_hold_sixteen_large_signatures() {
    let with = |count: usize, length: usize| {
        let signature = Signature { name: "n".repeat(100), key_id: [0; 4], bytes: vec![7; length] };
        Note { text: "text\n".to_owned(), signatures: vec![signature; count] }.encode()
    };
    assert!(parse(&with(16, 5_000)).is_ok());
    assert!(parse(&with(MAX_SIGNATURES, 64)).is_ok());
    let many = with(MAX_SIGNATURES + 1, 64);
    assert_eq!(parse(&many), Err(Error::Note("it has more than 64 signatures")));
    let long = with(20, 5_000);
    assert!(long.len() > MAX_NOTE_BYTES);
    assert_eq!(parse(&long), Err(Error::NoteLength(long.len())));
}

#[test]
fn signing_adds_a_line_and_replaces_that_of_the_same_key() {
    let (log, witness) = (Signer::new("log.example", 1), Signer::new("witness.example", 2));
    let mut note = parse(&log.note("text\n")).unwrap();
    note.add_signature(&witness.key, |text| witness.sign(text)).unwrap();
    let keys = [log.key.clone(), witness.key.clone()];
    assert_eq!(verify(&note, &keys), Ok(vec![0, 1]));
    assert_eq!(parse(&note.encode()), Ok(note.clone()));

    note.add_signature(&log.key, |text| log.sign(text)).unwrap();
    let names: Vec<&str> = note.signatures.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["witness.example", "log.example"]);
    assert_eq!(verify(&note, &keys), Ok(vec![0, 1]));
}

#[test]
fn what_cannot_be_a_note_is_not_signed() {
    let log = Signer::new("log.example", 1);
    let signed = |text: &str| sign(text, &log.key, |bytes| log.sign(bytes));
    assert_eq!(signed("text"), Err(Error::Note("its text does not end in a newline")));
    assert_eq!(signed(""), Err(Error::Note("its text does not end in a newline")));
    assert_eq!(signed("te\rxt\n"), Err(Error::Note("it holds a control character")));
    let long = "x".repeat(MAX_NOTE_BYTES) + "\n";
    assert!(matches!(signed(&long), Err(Error::NoteLength(length)) if length > long.len()));
    let failed = sign("text\n", &log.key, |_| Vec::new());
    let name = "log.example".to_owned();
    assert_eq!(failed, Err(Error::SignatureBytes { name, want: 64, got: 0 }));

    let other = Signature { name: "a".to_owned(), key_id: [0; 4], bytes: vec![1] };
    let mut full = Note { text: "text\n".to_owned(), signatures: vec![other; MAX_SIGNATURES] };
    let before = full.clone();
    let refused = full.add_signature(&log.key, |text| log.sign(text));
    assert_eq!(refused, Err(Error::Note("it has more than 64 signatures")));
    assert_eq!(full, before);
}

#[test]
fn verifier_keys_have_one_text_form() {
    let peter = key(PETER);
    assert_eq!(peter.to_string(), PETER);
    assert_eq!(PETER.parse(), Ok(peter.clone()));
    assert_eq!((peter.name(), peter.key_id()), ("PeterNeumann", [0xc7, 0x4f, 0x20, 0xa3]));
    assert_eq!(peter.key_type(), KeyType::Ed25519);
    let public_key: &[u8; 32] = peter.public_key().try_into().unwrap();
    assert_eq!(VerifierKey::new_ed25519("PeterNeumann", public_key), Ok(peter.clone()));
    assert_eq!(VerifierKey::new_ed25519("a b", public_key), Err(Error::KeyName("a b".to_owned())));
    // Other implementations read upper-case ids, so some operators may have written them.
    assert_eq!(key(&PETER.replace("c74f20a3", "C74F20A3")).to_string(), PETER);
}

#[test]
fn malformed_verifier_keys_are_refused() {
    let bad = |reason| Err(Error::VerifierKey(reason));
    for text in ["", "a", "a+c74f20a3", "PeterNeumann"] {
        assert_eq!(VerifierKey::parse(text), bad("it has fewer than three parts"), "{text}");
    }
    let with_id = |id: &str| VerifierKey::parse(&PETER.replace("c74f20a3", id));
    for id in ["c74f20a", "0c74f20a3", "+74f20a3", "c74f20ag", ""] {
        assert!(with_id(id).is_err(), "{id}");
    }
    assert_eq!(with_id("c74f20ag"), bad("its id is not 8 hex digits"));
    let mismatch = bad("its id is not that of its name and key");
    assert_eq!(with_id("c74f20a4"), mismatch);
    assert_eq!(VerifierKey::parse(&PETER.replace("Peter", "Petra")), mismatch);
    assert_eq!(VerifierKey::parse(&PETER.replace("10TW", "10TX")), mismatch);
    assert_eq!(VerifierKey::parse("a+00000000+AR"), bad("its key is not canonical base64"));
    assert_eq!(VerifierKey::parse("a+00000000+"), bad("its key is empty"));
    let length = bad("its key does not have the length of its type");
    assert_eq!(VerifierKey::parse("a+00000000+AQAA"), length);
    assert_eq!(VerifierKey::parse("a+00000000+BgAA"), length);
    assert_eq!(VerifierKey::parse("a+00000000+AgAA"), Err(Error::KeyType(0x02)));
    assert_eq!(VerifierKey::parse("+00000000+AQAA"), Err(Error::KeyName(String::new())));
    let long = format!("{}+00000000+AQAA", "a".repeat(5_000));
    assert_eq!(VerifierKey::parse(&long), bad("it is longer than 4096 bytes"));
}

#[test]
fn a_line_that_no_note_can_have_is_not_inserted() {
    let note = parse(GO_NOTE).unwrap();
    let line = note.signatures[0].clone();
    let mut unchanged = note.clone();
    let mut insert = |signature| unchanged.insert(signature);
    let bad_name = Signature { name: "a b".to_owned(), ..line.clone() };
    assert_eq!(insert(bad_name), Err(Error::KeyName("a b".to_owned())));
    let empty = Signature { bytes: Vec::new(), ..line.clone() };
    let short = Err(Error::Note("a signature is shorter than a key id and one byte"));
    assert_eq!(insert(empty), short);
    let long = Signature { bytes: vec![1; MAX_NOTE_BYTES], ..line.clone() };
    assert!(matches!(insert(long), Err(Error::NoteLength(_))));
    assert_eq!(unchanged, note);

    unchanged.insert(line.clone()).unwrap();
    assert_eq!(unchanged.signatures, [note.signatures[1].clone(), line]);
}

#[test]
fn signatures_without_a_time_have_none() {
    let note = parse(GO_NOTE).unwrap();
    let signed = signers(&note, &[key(ENOCH)]).unwrap();
    assert_eq!(signed, [note::Verified { key: 0, timestamp: None }]);
    assert_eq!(signers::<VerifierKey>(&note, &[]), Ok(Vec::new()));
}

proptest! {
    #[test]
    fn notes_of_strangers_are_read_as_they_stand_or_refused(
        text in "[a \n\u{2014}\r]{0,30}", line in "(\u{2014} )?[a+ ]{0,3} [A=]{0,12}\n?", bytes in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let _ = Note::parse(&bytes);
        let _ = VerifierKey::parse(&line);
        let whole = format!("{text}\n\n{line}");
        if let Ok(note) = parse(&whole) {
            prop_assert_eq!(note.encode(), whole);
        }
    }

    #[test]
    fn long_inputs_give_short_messages(name in "[a-z+\n]{200,400}") {
        let message = Error::KeyName(error::excerpt(&name)).to_string();
        prop_assert!(message.len() < 300 && !message.contains('\n'));
    }
}
