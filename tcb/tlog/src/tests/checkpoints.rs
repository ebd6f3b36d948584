//! Checkpoints, offline proofs and log ids.

use proptest::prelude::*;

use super::*;

const ORIGIN: &str = "example.com/behind-the-sofa";

/// The example of c2sp.org/tlog-checkpoint.
const SPEC_CHECKPOINT: &str = "example.com/behind-the-sofa\n20852163\n\
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

fn log() -> Signer {
    Signer::new(ORIGIN, 1)
}

fn signed(checkpoint: &Checkpoint) -> String {
    let log = log();
    checkpoint.sign(&log.key, |body| log.sign(body)).unwrap()
}

/// The proof of leaf 400 in a tree of 700, and its leaf.
fn proof() -> (TlogProof, Hash) {
    let tiles = large();
    let (index, size) = (400, 700);
    let root = root_from_tiles(&tiles, size).unwrap();
    let proof = TlogProof {
        extra: None,
        index,
        hashes: inclusion_proof(&tiles, index, size).unwrap(),
        checkpoint: signed(&Checkpoint::new(ORIGIN, size, root).unwrap()),
    };
    (proof, leaf(index))
}

#[test]
fn the_checkpoint_of_the_specification_is_read() {
    let note = Note::parse(SPEC_CHECKPOINT.as_bytes()).unwrap();
    let checkpoint = Checkpoint::parse(&note.text).unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.size), (ORIGIN, 20_852_163));
    assert_eq!(checkpoint.root.to_string(), "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=");
    assert_eq!(checkpoint.body(), note.text);
}

#[test]
fn a_signed_checkpoint_opens_with_its_origins_key_only() {
    let checkpoint = Checkpoint::new(ORIGIN, 5, leaf(0)).unwrap();
    let text = signed(&checkpoint);
    let (read, note) = Checkpoint::open(text.as_bytes(), &[log().key]).unwrap();
    assert_eq!(read, checkpoint);
    assert_eq!(note.encode(), text);
    let open = |text: &str, keys: &[VerifierKey]| Checkpoint::open(text.as_bytes(), keys);
    let impostor = Signer::new(ORIGIN, 2);
    assert_eq!(open(&text, std::slice::from_ref(&impostor.key)), Err(Error::NoKnownSignature));

    // A known key of another name vouches for its own log, not for this one.
    let other = Signer::new("example.com/other", 3);
    let foreign = other.note(&checkpoint.body());
    let keys = [log().key, other.key.clone()];
    assert_eq!(open(&foreign, &keys), Err(Error::Origin(ORIGIN.to_owned())));
    let mut both = note.clone();
    both.add_signature(&other.key, |body| other.sign(body)).unwrap();
    assert!(open(&both.encode(), &keys).is_ok());

    let refused = checkpoint.sign(&other.key, |body| other.sign(body));
    assert_eq!(refused, Err(Error::Origin(ORIGIN.to_owned())));
    let not_a_checkpoint = log().note("example.com/behind-the-sofa\n5\n");
    assert_eq!(
        open(&not_a_checkpoint, &keys),
        Err(Error::Checkpoint("it has fewer than three lines"))
    );
}

#[test]
fn malformed_checkpoints_are_refused() {
    let root = leaf(0);
    let bad = |reason| Err(Error::Checkpoint(reason));
    let parse = |text: String| Checkpoint::parse(&text);
    assert_eq!(parse(format!("o\n5\n{root}")), bad("its text does not end in a newline"));
    assert_eq!(parse(String::new()), bad("its text does not end in a newline"));
    assert_eq!(parse("o\n5\n".to_owned()), bad("it has fewer than three lines"));
    for size in ["", "05", "00", "+5", "-5", " 5", "5 ", "0x5", "5.0", "18446744073709551616", "٥"]
    {
        assert_eq!(parse(format!("o\n{size}\n{root}\n")), bad("its size is not a plain decimal"));
    }
    assert_eq!(parse(format!("o\n{}\n{root}\n", 1_u64 << 63)), Err(Error::TreeSize(1 << 63)));
    assert!(parse(format!("o\n{MAX_TREE_SIZE}\n{root}\n")).is_ok());
    for root in ["", "AAAA", &root.to_string()[1..], &format!("{root}=")] {
        let refused = parse(format!("o\n5\n{root}\n"));
        assert_eq!(refused, bad("its root is not 32 bytes of canonical base64"), "{root}");
    }
    assert_eq!(parse(format!("\n5\n{root}\n")), bad("one of its lines is empty"));
    assert_eq!(parse(format!("o\n5\n{root}\n\n")), bad("one of its lines is empty"));
    assert_eq!(parse(format!("o\r\n5\n{root}\n")), bad("it holds a control character"));
    assert_eq!(parse(format!("o\n0\n{root}\n")), bad("its root is not that of an empty tree"));
    assert!(parse(format!("o\n0\n{}\n", empty_root())).is_ok());
    assert_eq!(Checkpoint::new("a\nb", 5, root), bad("it holds a control character"));
    assert_eq!(Checkpoint::new("", 5, root), bad("one of its lines is empty"));
    let unchecked = Checkpoint { origin: ORIGIN.to_owned(), size: 0, root, extensions: Vec::new() };
    let log = log();
    assert_eq!(
        unchecked.sign(&log.key, |body| log.sign(body)),
        bad("its root is not that of an empty tree").map(|_: Checkpoint| String::new())
    );
}

#[test]
fn extension_lines_are_kept() {
    let text = format!("o\n5\n{}\nfirst\nsecond line\n", leaf(0));
    let checkpoint = Checkpoint::parse(&text).unwrap();
    assert_eq!(checkpoint.extensions, ["first", "second line"]);
    assert_eq!(checkpoint.body(), text);
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_refused() {
    let text = signed(&Checkpoint::new(ORIGIN, 5, leaf(0)).unwrap()).into_bytes();
    let keys = [log().key];
    assert!(Checkpoint::open(&text, &keys).is_ok());
    for bit in 0..text.len() * 8 {
        assert!(Checkpoint::open(&flip(&text, bit), &keys).is_err(), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_proof_is_refused() {
    let (proof, leaf) = proof();
    let keys = [log().key];
    let text = proof.encode().into_bytes();
    let verify = |bytes: &[u8]| TlogProof::parse(bytes)?.verify(&leaf, &keys);
    assert_eq!(verify(&text).map(|checkpoint| checkpoint.size), Ok(700));
    for bit in 0..text.len() * 8 {
        assert!(verify(&flip(&text, bit)).is_err(), "bit {bit}");
    }
    for length in 0..text.len() {
        assert!(verify(&text[..length]).is_err(), "cut to {length}");
    }
    assert_eq!(
        proof.verify(&node_hash(&leaf, &leaf), &keys),
        Err(Error::RootMismatch { size: 700 })
    );
    assert_eq!(proof.verify(&leaf, &[]), Err(Error::NoKnownSignature));
    let beyond = TlogProof { index: 700, ..proof };
    assert_eq!(beyond.verify(&leaf, &keys), Err(Error::IndexBeyondSize { index: 700, size: 700 }));
}

#[test]
fn proofs_have_the_form_of_the_specification() {
    let (mut proof, leaf) = proof();
    let text = proof.encode();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["c2sp.org/tlog-proof@v1", "index 400"]);
    assert_eq!(lines[2], proof.hashes[0].to_string());
    assert_eq!(lines[2 + proof.hashes.len()], "");
    assert!(text.ends_with(&format!("\n\n{}", proof.checkpoint)));
    assert_eq!(TlogProof::parse(&text), Ok(proof.clone()));
    assert_eq!(TlogProof::parse(text.as_bytes()), Ok(proof.clone()));

    proof.extra = Some(b"out of band".to_vec());
    let with_extra = proof.encode();
    assert_eq!(with_extra.lines().nth(1), Some("extra b3V0IG9mIGJhbmQ="));
    assert_eq!(TlogProof::parse(&with_extra), Ok(proof.clone()));
    assert!(proof.verify(&leaf, &[log().key]).is_ok());
    proof.extra = Some(Vec::new());
    assert_eq!(proof.encode(), text, "empty data are none");
}

#[test]
fn a_log_of_one_entry_has_a_proof_without_hashes() {
    let hash = leaf(0);
    let checkpoint = signed(&Checkpoint::new(ORIGIN, 1, hash).unwrap());
    let proof = TlogProof { extra: None, index: 0, hashes: Vec::new(), checkpoint };
    let read = TlogProof::parse(proof.encode()).unwrap();
    assert_eq!(read, proof);
    assert!(read.verify(&hash, &[log().key]).is_ok());
}

#[test]
fn malformed_proofs_are_refused() {
    let (proof, _) = proof();
    let (hash, checkpoint) = (proof.hashes[0], &proof.checkpoint);
    let bad = |reason| Err(Error::Proof(reason));
    let parse = |head: &str| {
        let header = "c2sp.org/tlog-proof@v1";
        TlogProof::parse(format!("{header}\n{head}\n{checkpoint}"))
    };
    assert!(parse("index 400\n").is_ok());
    let no_index = bad("it has no line `index` with a plain decimal");
    for head in [
        "",
        "index\n",
        "index \n",
        "index 0400\n",
        "index -1\n",
        "Index 400\n",
        "index 400 \n",
        "index 18446744073709551616\n",
        "400\n",
        "extra AAAA\n",
        "extra AAAA\nextra AAAA\nindex 400\n",
    ] {
        assert_eq!(parse(head), no_index, "{head:?}");
    }
    for extra in ["", "AAA", "AA-A", "AAB="] {
        let refused = parse(&format!("extra {extra}\nindex 400\n"));
        assert_eq!(refused, bad("its extra data are not canonical base64"), "{extra}");
    }
    let not_a_hash = bad("a hash is not 32 bytes of canonical base64");
    assert_eq!(parse("index 400\nAAAA\n"), not_a_hash);
    assert_eq!(parse(&format!("index 400\n{hash} \n")), not_a_hash);
    assert_eq!(parse("index 400\nextra AAAA\n"), not_a_hash);
    let hashes = |count| format!("{hash}\n").repeat(count);
    assert!(parse(&format!("index 400\n{}", hashes(63))).is_ok());
    assert_eq!(parse(&format!("index 400\n{}", hashes(64))), bad("it has more than 63 hashes"));
    assert_eq!(
        TlogProof::parse(format!("c2sp.org/tlog-proof@v2\nindex 400\n\n{checkpoint}")),
        bad("its first line is not `c2sp.org/tlog-proof@v1`")
    );
    assert_eq!(
        TlogProof::parse("c2sp.org/tlog-proof@v1\nindex 400\n"),
        bad("no empty line precedes a checkpoint")
    );
    assert_eq!(
        TlogProof::parse("c2sp.org/tlog-proof@v1\nindex 400\n\no\n5\n"),
        Err(Error::Note("no empty line separates text and signatures"))
    );
    assert_eq!(TlogProof::parse([0xff]), bad("it is not UTF-8"));
    assert_eq!(TlogProof::parse(vec![b'x'; MAX_PROOF_BYTES + 1]), bad("it is longer than 256 KiB"));
}

#[test]
fn log_ids_have_one_spelling() {
    use sha2::Digest as _;
    let public_key = [7; 32];
    let id = LogId::of(&public_key);
    assert_eq!(id.as_bytes()[..], sha2::Sha256::digest(public_key)[..16]);
    let text = id.to_string();
    assert_eq!(text.len(), 22);
    assert_eq!(text.parse(), Ok(id));
    assert_eq!(format!("{id:?}"), format!("LogId({text})"));
    assert_eq!(LogId::from_bytes(*id.as_bytes()), id);
    assert_eq!(LogId::from_bytes([0xff; 16]).to_string(), "_____________________w");
    // 22 characters carry 132 bits: the last four must be zero.
    for bad in [
        "",
        "_____________________x",
        "_____________________",
        "/////////////////////w",
        "_____________________w==",
    ] {
        assert_eq!(bad.parse::<LogId>(), Err(Error::LogId(bad.to_owned())), "{bad}");
    }
}

proptest! {
    #[test]
    fn proofs_of_strangers_are_read_as_they_stand_or_refused(
        head in "(extra [A-C=]{0,8}\n)?(index [0-9]{0,3}\n)?([A=]{43,44}\n){0,2}", bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = TlogProof::parse(&bytes);
        let whole = format!("c2sp.org/tlog-proof@v1\n{head}\n{SPEC_CHECKPOINT}");
        if let Ok(proof) = TlogProof::parse(&whole) {
            prop_assert_eq!(proof.encode(), whole);
        }
    }

    #[test]
    fn checkpoints_of_strangers_are_read_as_they_stand_or_refused(
        text in "[a-z ]{0,3}\n[0-9]{0,3}\n[A-D=]{43,45}\n([a-z]{0,3}\n){0,2}",
    ) {
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.body(), text);
        }
    }

    #[test]
    fn log_ids_round_trip(bytes in any::<[u8; 16]>()) {
        let id = LogId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }
}
