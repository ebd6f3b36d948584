//! The witness protocol: requests, judgements and answers.

use proptest::prelude::*;

use super::*;
use crate::cosignature;
use crate::note::Signature;
use crate::witness::*;

const ORIGIN: &str = "example.com/log";
const TIME: u64 = 1_700_000_000;

/// The example request of c2sp.org/tlog-witness. Its keys are not published.
const SPEC_REQUEST: &str = "old 20852014\n\
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
\n\
example.com/behind-the-sofa\n\
20852163\n\
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
\n\
— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";

/// The example answer of c2sp.org/tlog-witness.
const SPEC_ANSWER: &str = "\
— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==\n\
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==\n\
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==\n";

fn log() -> Signer {
    Signer::new(ORIGIN, 1)
}

fn root(size: u64) -> Hash {
    if size == 0 { empty_root() } else { root_from_tiles(&large(), size).unwrap() }
}

fn latest(size: u64) -> Latest {
    Latest { size, root: root(size) }
}

/// The log's note of a tree with this size and root, which need not be right.
fn note_of(size: u64, root: Hash) -> Note {
    let body = format!("{ORIGIN}\n{size}\n{root}\n");
    Note::parse(log().note(&body).as_bytes()).unwrap()
}

fn proof(old: u64, new: u64) -> Vec<Hash> {
    if old == 0 { Vec::new() } else { consistency_proof(&large(), old, new).unwrap() }
}

fn request(old: u64, new: u64) -> AddCheckpoint {
    AddCheckpoint::new(old, proof(old, new), note_of(new, root(new))).unwrap()
}

/// The witness that knows [`log`], as far as `seen`.
fn answer_to(request: &AddCheckpoint, seen: Option<u64>) -> Result<u64, Refusal> {
    let seen = seen.map(latest);
    judge(request, &[log().key], seen.as_ref()).map(|approved| approved.checkpoint.size)
}

fn conflict(latest: u64) -> Result<u64, Refusal> {
    Err(Refusal::Conflict { latest })
}

fn inconsistent(error: Error) -> Result<u64, Refusal> {
    Err(Refusal::Inconsistent(error))
}

#[test]
fn the_examples_of_the_specification_are_read() {
    let request = AddCheckpoint::parse(SPEC_REQUEST.as_bytes()).unwrap();
    assert_eq!(request.encode(), SPEC_REQUEST);
    assert_eq!((request.old_size(), request.proof().len()), (20_852_014, 4));
    assert_eq!(request.origin(), "example.com/behind-the-sofa");
    assert_eq!(request.checkpoint().size, 20_852_163);
    assert_eq!(request.note().signatures.len(), 2);

    let answer = parse_signatures(SPEC_ANSWER.as_bytes()).unwrap();
    assert_eq!(encode_signatures(&answer).as_deref(), Ok(SPEC_ANSWER));
    let names: Vec<&str> = answer.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, ["witness.example/w1", "witness.example/w1", "witness.example/w2"]);
    assert!(answer.iter().all(|line| line.bytes.len() == 72));
    assert_eq!(
        checkpoint_path("example.com/log"),
        "4d3203c8f35cdf600e475f55fede6081a703d3d322f208865fca2ec4f0e030f8/checkpoint"
    );
}

#[test]
fn malformed_requests_are_refused() {
    let whole = request(5, 700).encode();
    let (head, note) = whole.split_once("\n\n").unwrap();
    let parse = |head: &str| AddCheckpoint::parse(format!("{head}\n\n{note}").as_bytes());
    let bad = |reason| Err(Error::WitnessRequest(reason));
    assert_eq!(parse(head), Ok(request(5, 700)));
    let no_size = bad("its first line is not `old` and a plain decimal");
    for head in [
        "",
        "old",
        "old ",
        "old 05",
        "old -5",
        "old 5 ",
        "old  5",
        "Old 5",
        "old 0x5",
        "5",
        "old 18446744073709551616",
    ] {
        assert_eq!(parse(head), no_size, "{head:?}");
    }
    assert_eq!(parse("old 9223372036854775808"), Err(Error::TreeSize(1 << 63)));
    let no_hash = bad("a hash is not 32 bytes of canonical base64");
    let hash = leaf(0);
    for line in ["AAAA", &format!("{hash} "), &format!("{hash}="), "old 5"] {
        assert_eq!(parse(&format!("old 5\n{line}\n{hash}")), no_hash, "{line}");
    }
    // The first empty line ends the request's head.
    let refused = parse(&format!("old 5\n\n{hash}"));
    assert_eq!(refused, Err(Error::Checkpoint("its size is not a plain decimal")));
    let hashes = |count: usize| format!("old 5{}", format!("\n{hash}").repeat(count));
    assert!(parse(&hashes(63)).is_ok());
    assert_eq!(parse(&hashes(64)), bad("it has more than 63 hashes"));
    let refused = AddCheckpoint::new(5, vec![hash; 64], note_of(700, root(700)));
    assert_eq!(refused, bad("it has more than 63 hashes"));
    assert_eq!(AddCheckpoint::parse(b"old 5\n"), bad("no empty line precedes a checkpoint"));
    assert_eq!(AddCheckpoint::parse(b"\xff"), bad("it is not UTF-8"));
    let long = vec![b'x'; MAX_REQUEST_BYTES + 1];
    assert_eq!(AddCheckpoint::parse(&long), bad("it is longer than 132 KiB"));
    let unsigned = Note { text: "a\n".to_owned(), signatures: Vec::new() };
    assert_eq!(AddCheckpoint::new(5, Vec::new(), unsigned), bad("its checkpoint is not signed"));
    let no_checkpoint = Signer::new(ORIGIN, 1).note("text\n");
    let refused = AddCheckpoint::parse(format!("old 5\n\n{no_checkpoint}").as_bytes());
    assert_eq!(refused, Err(Error::Checkpoint("it has fewer than three lines")));
    let refused = AddCheckpoint::parse(b"old 5\n\nexample.com/log\n5\n");
    assert_eq!(refused, Err(Error::Note("no empty line separates text and signatures")));
    for length in 0..whole.len() {
        assert!(AddCheckpoint::parse(&whole.as_bytes()[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn a_witness_follows_a_log_from_size_to_size() {
    let mut seen = None;
    let mut old = 0;
    for new in [0, 0, 1, 1, 2, 5, 255, 256, 257, 700, 65_536, LARGE] {
        let request = AddCheckpoint::parse(request(old, new).encode().as_bytes()).unwrap();
        assert_eq!(answer_to(&request, seen), Ok(new), "{old} to {new}");
        (seen, old) = (Some(new), new);
    }
}

#[test]
fn refusals_are_those_of_the_specification() {
    // 404: whoever signed.
    let unknown = judge(&request(0, 5), &[], None);
    assert_eq!(unknown, Err(Refusal::UnknownOrigin));
    // 403: not signed by a trusted key, or wrongly so.
    let impostor = Signer::new(ORIGIN, 2).key;
    let untrusted = judge(&request(0, 5), std::slice::from_ref(&impostor), None);
    assert_eq!(untrusted, Err(Refusal::Untrusted(Error::NoKnownSignature)));
    let mut note = note_of(5, root(5));
    note.signatures[0].bytes[0] ^= 1;
    let wrong = AddCheckpoint::new(0, Vec::new(), note).unwrap();
    let bad = Error::BadSignature { name: ORIGIN.to_owned() };
    assert_eq!(answer_to(&wrong, None), Err(Refusal::Untrusted(bad)));
    // One trusted key is enough.
    assert!(judge(&request(0, 5), &[impostor, log().key], None).is_ok());
    // 400: before the latest size is looked at.
    let backwards = AddCheckpoint::new(6, Vec::new(), note_of(5, root(5))).unwrap();
    let old_size = Err(Refusal::OldSize { old: 6, size: 5 });
    assert_eq!(answer_to(&backwards, Some(6)), old_size);
    assert_eq!(answer_to(&backwards, None), old_size);
    // 409: before the proof is looked at.
    assert_eq!(answer_to(&request(0, 5), Some(3)), conflict(3));
    assert_eq!(answer_to(&request(3, 5), None), conflict(0));
    assert_eq!(answer_to(&request(3, 5), Some(700)), conflict(700));
    let unproven = AddCheckpoint::new(4, Vec::new(), note_of(5, root(5))).unwrap();
    assert_eq!(answer_to(&unproven, Some(3)), conflict(3));
    // 422: what is wrong with the tree.
    let length = Error::ProofLength { got: 0, size: 5 };
    assert_eq!(answer_to(&unproven, Some(4)), inconsistent(length));
    let needless = AddCheckpoint::new(0, vec![leaf(0)], note_of(5, root(5))).unwrap();
    let length = Error::ProofLength { got: 1, size: 5 };
    assert_eq!(answer_to(&needless, None), inconsistent(length.clone()));
    assert_eq!(answer_to(&needless, Some(0)), inconsistent(length.clone()));
    let needless = AddCheckpoint::new(5, vec![leaf(0)], note_of(5, root(5))).unwrap();
    assert_eq!(answer_to(&needless, Some(5)), inconsistent(length));
    let fork = AddCheckpoint::new(4, proof(4, 5), note_of(5, leaf(9))).unwrap();
    assert_eq!(answer_to(&fork, Some(4)), inconsistent(Error::RootMismatch { size: 5 }));
    let fork = AddCheckpoint::new(5, Vec::new(), note_of(5, leaf(9))).unwrap();
    assert_eq!(answer_to(&fork, Some(5)), inconsistent(Error::RootMismatch { size: 5 }));
    let not_empty = AddCheckpoint::new(0, Vec::new(), note_of(0, leaf(9))).unwrap();
    assert_eq!(answer_to(&not_empty, None), inconsistent(Error::RootMismatch { size: 0 }));
}

#[test]
fn refusals_have_a_status_and_a_body() {
    let text = "text/plain; charset=utf-8";
    let malformed = Refusal::from(Error::WitnessRequest("it is not UTF-8"));
    let cases = [
        (malformed, 400, (text, "not an add-checkpoint request: it is not UTF-8\n")),
        (Refusal::UnknownOrigin, 404, (text, "the origin is not known to this witness\n")),
        (
            Refusal::Untrusted(Error::NoKnownSignature),
            403,
            (text, "the note carries no signature by a known key\n"),
        ),
        (
            Refusal::OldSize { old: 6, size: 5 },
            400,
            (text, "the old size `6` is larger than the checkpoint's `5`\n"),
        ),
        (Refusal::Conflict { latest: 5 }, 409, (SIZE_CONTENT_TYPE, "5\n")),
        (
            Refusal::Inconsistent(Error::RootMismatch { size: 5 }),
            422,
            (text, "the proof does not lead to the stated root of the tree of size `5`\n"),
        ),
    ];
    for (refusal, status, (content_type, body)) in cases {
        assert_eq!(refusal.status(), status);
        assert_eq!(refusal.body(), (content_type, body.to_owned()));
    }
}

#[test]
fn what_is_approved_carries_the_logs_signatures_alone() {
    let own = Cosigner::ml_dsa_44(ORIGIN, 7);
    let mut note = note_of(5, root(5));
    let stranger = Cosigner::ed25519("stranger.example", 3);
    stranger.cosign(&mut note, TIME);
    own.cosign(&mut note, TIME);
    let request = AddCheckpoint::new(0, Vec::new(), note.clone()).unwrap();
    let approved = judge(&request, &[log().key, own.key.clone()], None).unwrap();
    note.signatures.remove(1);
    assert_eq!(approved.note, note);
    assert_eq!(approved.checkpoint.size, 5);
    // A log that signs by ML-DSA-44 alone, with an empty tree that is none.
    let mut note = note_of(0, leaf(9));
    note.signatures.clear();
    own.cosign(&mut note, TIME);
    let request = AddCheckpoint::new(0, Vec::new(), note).unwrap();
    let refused = judge(&request, std::slice::from_ref(&own.key), None);
    assert_eq!(refused, Err(Refusal::Inconsistent(Error::RootMismatch { size: 0 })));
}

#[test]
fn an_answer_is_judged_by_its_cosignatures() {
    let request = request(5, 700);
    let text = &request.note().text;
    let witness = Cosigner::ed25519("witness.example/w1", 3);
    let quantum = Cosigner::ml_dsa_44("witness.example/w1", 4);
    let stranger = Cosigner::ed25519("witness.example/w2", 5);
    let keys = [witness.key.clone(), quantum.key.clone()];
    let line =
        |by: &Cosigner, time| cosignature::sign(&by.key, time, text, |m| by.sign(m)).unwrap();
    let judged = |lines: &[Signature]| {
        let body = encode_signatures(lines).unwrap();
        judge_answer(&request, &keys, 200, None, body.as_bytes())
    };
    let lines = [line(&stranger, TIME), line(&quantum, TIME + 1), line(&witness, TIME)];
    let cosigned =
        |key, timestamp, at: usize| Cosigned { key, timestamp, signature: lines[at].clone() };
    let expected = vec![cosigned(0, TIME, 2), cosigned(1, TIME + 1, 1)];
    assert_eq!(judged(&lines), Ok(Answer::Cosigned(expected.clone())));

    // They make the checkpoint one that the witness cosigned.
    let mut note = request.note().clone();
    for cosigned in expected {
        note.insert(cosigned.signature).unwrap();
    }
    assert_eq!(note::verify(&note, &keys), Ok(vec![0, 1]));

    // Of several by one key the latest, wherever it stands.
    let many = [line(&witness, TIME), line(&witness, TIME + 9), line(&witness, TIME + 3)];
    let Ok(Answer::Cosigned(one)) = judged(&many) else { panic!("not cosigned") };
    assert_eq!((one.len(), one[0].timestamp, &one[0].signature), (1, TIME + 9, &many[1]));

    assert_eq!(judged(&lines[..1]), Err(Error::NoKnownSignature));
    let name = witness.key.name().to_owned();
    let mut wrong = lines.clone();
    wrong[1].bytes[20] ^= 1;
    assert_eq!(judged(&wrong), Err(Error::BadSignature { name: name.clone() }));
    assert_eq!(judged(&[line(&quantum, 0)]), Err(Error::NoTimestamp { name }));
    let refused = judge_answer(&request, &[log().key], 200, None, SPEC_ANSWER.as_bytes());
    assert_eq!(refused, Err(Error::KeyType(1)));
}

#[test]
fn other_answers_are_told_apart() {
    let judged = |old, status, content_type, body: &str| {
        judge_answer(&request(old, 700), &[], status, content_type, body.as_bytes())
    };
    let size = Some(SIZE_CONTENT_TYPE);
    assert_eq!(judged(5, 409, size, "600\n"), Ok(Answer::Conflict { latest: 600 }));
    assert_eq!(judged(5, 409, size, "0\n"), Ok(Answer::Conflict { latest: 0 }));
    assert_eq!(judged(5, 409, size, "800\n"), Ok(Answer::Conflict { latest: 800 }));
    let spelled = Some("Text/X.TLog.Size ; charset=utf-8");
    assert_eq!(judged(5, 409, spelled, "600\n"), Ok(Answer::Conflict { latest: 600 }));
    // It says that the old size is wrong, and that it is right.
    assert_eq!(judged(5, 409, size, "5\n"), Ok(Answer::Inconsistent));
    // What the text of 2024 asks for when the roots of one size differ.
    assert_eq!(judged(700, 409, None, "roots differ"), Ok(Answer::Inconsistent));
    let untyped = Err(Error::WitnessAnswer("status 409 without a body of type `text/x.tlog.size`"));
    assert_eq!(judged(5, 409, None, "600\n"), untyped);
    assert_eq!(judged(5, 409, Some("text/plain"), "600\n"), untyped);
    let no_size = Err(Error::WitnessAnswer("its body is not a tree size and a newline"));
    for body in ["", "600", "600\n\n", " 600\n", "0600\n", "-1\n", "9223372036854775808\n", "\n"] {
        assert_eq!(judged(5, 409, size, body), no_size, "{body:?}");
    }
    assert_eq!(judged(5, 422, None, "any"), Ok(Answer::Inconsistent));
    assert_eq!(judged(5, 404, None, ""), Ok(Answer::UnknownOrigin));
    assert_eq!(judged(5, 403, None, ""), Ok(Answer::Untrusted));
    for status in [400, 429, 500, 503, 201, 302] {
        assert_eq!(judged(5, status, None, ""), Ok(Answer::Other { status }));
    }
}

#[test]
fn malformed_signature_lines_are_refused() {
    let bad = |reason| Err(Error::WitnessAnswer(reason));
    let line = SPEC_ANSWER.lines().next().unwrap();
    let parse = |text: &str| parse_signatures(text.as_bytes());
    assert_eq!(parse(&format!("{line}\n")).map(|lines| lines.len()), Ok(1));
    assert_eq!(parse(""), bad("it does not end in a signature line"));
    assert_eq!(parse(line), bad("it does not end in a signature line"));
    let no_line = Err(Error::Note("a signature line is not an em dash, a name and base64"));
    assert_eq!(parse("\n"), no_line);
    assert_eq!(parse(&format!("{line}\n\n")), no_line);
    assert_eq!(parse(&format!("\n{line}\n")), no_line);
    assert_eq!(parse(&format!("{line}\r\n")), bad("it holds a control character"));
    assert_eq!(parse("— a+b AAAAAAA=\n"), Err(Error::KeyName("a+b".to_owned())));
    assert_eq!(parse_signatures(b"\xff\n"), bad("it is not UTF-8"));
    assert_eq!(parse(&format!("{line}\n").repeat(64)).map(|lines| lines.len()), Ok(64));
    assert_eq!(parse(&format!("{line}\n").repeat(65)), bad("it has more than 64 signatures"));
    assert_eq!(parse(&"x".repeat(note::MAX_NOTE_BYTES + 1)), bad("it is longer than 128 KiB"));
    assert_eq!(
        encode_signatures(&[]),
        bad("it does not end in a signature line").map(|_: Vec<Signature>| String::new())
    );
}

proptest! {
    /// Whatever a log of one history asks, a witness approves what extends its tree and nothing else.
    #[test]
    fn a_witness_approves_consistent_trees_only(
        seen in 0_u64..1_000, old in 0_u64..1_000, new in 0_u64..1_000, exact in any::<bool>(), fork in any::<bool>(),
    ) {
        let old = if exact { seen } else { old };
        let proof = if old <= new { proof(old, new) } else { Vec::new() };
        let root = if fork { leaf(77) } else { root(new) };
        let request = AddCheckpoint::new(old, proof, note_of(new, root)).unwrap();
        let result = answer_to(&request, Some(seen));
        let status = result.as_ref().map_or_else(Refusal::status, |_| 200);
        let expected = match () {
            () if old > new => 400,
            () if old != seen => 409,
            // From an empty tree every tree is consistent, but there is only one empty tree.
            () if fork && (old > 0 || new == 0) => 422,
            () => 200,
        };
        prop_assert_eq!(status, expected, "{:?}", result);
    }

    #[test]
    fn requests_of_strangers_are_read_as_they_stand_or_refused(
        head in "old [0-9]{0,3}\n([A=]{43,44}\n){0,2}", bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = AddCheckpoint::parse(&bytes);
        let whole = format!("{head}\n{}", note_of(5, leaf(0)).encode());
        if let Ok(request) = AddCheckpoint::parse(whole.as_bytes()) {
            prop_assert_eq!(request.encode(), whole);
        }
    }

    #[test]
    fn answers_of_strangers_are_read_as_they_stand_or_refused(
        text in "((\u{2014} )?[a+ ]{0,3} [A=]{0,12}\n?){0,3}", bytes in prop::collection::vec(any::<u8>(), 0..50), status in any::<u16>(),
    ) {
        let _ = judge_answer(&request(5, 7), &[], status, Some(SIZE_CONTENT_TYPE), &bytes);
        if let Ok(lines) = parse_signatures(text.as_bytes()) {
            prop_assert_eq!(encode_signatures(&lines), Ok(text));
        }
    }

    #[test]
    fn sizes_round_trip(size in 0..=MAX_TREE_SIZE) {
        prop_assert_eq!(parse_size(encode_size(size).as_bytes()), Ok(size));
    }
}
