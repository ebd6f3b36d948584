//! Policies: their text, and what they say about checkpoints and proofs.

use proptest::prelude::*;

use super::*;
use crate::policy::{MAX_POLICY_BYTES, MAX_POLICY_LINES, Member, Policy, Witnessed};

const ORIGIN: &str = "example.com/log";
const SIZE: u64 = 700;
const INDEX: u64 = 400;
const TIME: u64 = 1_700_000_000;

/// The policy that c2sp.org/tlog-policy shows, with keys and some URLs filled in.
fn example() -> String {
    let mut text = format!("log {}\n\n", log().key);
    for (at, witness) in witnesses().iter().enumerate() {
        let name = ["X1", "X2", "X3", "Y1", "Y2", "Y3"][at];
        let url = if at == 1 { " https://x2.example/" } else { "" };
        text.push_str(&format!("witness {name} {}{url}\n", witness.key));
        match at {
            2 => text.push_str("group X-witnesses 2 X1 X2 X3\n\n"),
            5 => text.push_str("group Y-witnesses any Y1 Y2 Y3\n\n"),
            _ => (),
        }
    }
    text.push_str("group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n");
    text
}

fn log() -> Signer {
    Signer::new(ORIGIN, 1)
}

/// The witnesses X1 to X3 and Y1 to Y3; those with odd numbers have Ed25519 keys.
fn witnesses() -> Vec<Cosigner> {
    let witness = |at: u8| {
        let name = format!("witness{at}.example");
        if at.is_multiple_of(2) {
            Cosigner::ed25519(&name, 10 + at)
        } else {
            Cosigner::ml_dsa_44(&name, 10 + at)
        }
    };
    (0..6).map(witness).collect()
}

fn checkpoint() -> Checkpoint {
    let root = root_from_tiles(&large(), SIZE).unwrap();
    Checkpoint::new(ORIGIN, SIZE, root).unwrap()
}

/// The checkpoint, signed by its log and cosigned, at [`TIME`] and as many seconds more as its number
/// says, by each witness with a number in `cosigners`.
fn note(cosigners: &[usize]) -> Note {
    let mut note = Note::parse(log().note(&checkpoint().body()).as_bytes()).unwrap();
    for at in cosigners {
        witnesses()[*at].cosign(&mut note, TIME + *at as u64);
    }
    note
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

/// The reason for which the last line of `text` is refused.
fn reason(text: &str) -> String {
    match Policy::parse(text) {
        Err(Error::Policy { line, reason }) => {
            assert_eq!(line, text.split_inclusive('\n').count(), "{reason}");
            reason
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn the_example_of_the_specification_is_read() {
    let policy = policy(&example());
    let [read] = policy.logs() else { panic!("{policy}") };
    assert_eq!((read.key(), read.url()), (&log().key, None));
    assert_eq!(policy.witnesses().len(), 6);
    for (read, witness) in policy.witnesses().iter().zip(witnesses()) {
        assert_eq!(read.key(), &witness.key);
    }
    let second = &policy.witnesses()[1];
    assert_eq!(
        (second.name(), second.url()),
        (b"X2".as_slice(), Some(b"https://x2.example/".as_slice()))
    );
    let thresholds: Vec<usize> = policy.groups().iter().map(|group| group.threshold()).collect();
    assert_eq!(thresholds, [2, 1, 2]);
    let [_, y, both] = policy.groups() else { panic!("{policy}") };
    assert_eq!(y.name(), b"Y-witnesses");
    assert_eq!(y.members(), [Member::Witness(3), Member::Witness(4), Member::Witness(5)]);
    assert_eq!(both.members(), [Member::Group(0), Member::Group(1)]);
    assert_eq!(policy.quorum(), Some(Member::Group(2)));
    assert_eq!(policy.name(Member::Group(2)), b"X-and-Y");
    assert_eq!(policy.name(Member::Witness(6)), b"");
}

#[test]
fn a_policy_is_written_as_it_is_read() {
    let text = example();
    let policy = policy(&text);
    let encoded = policy.encode();
    assert_eq!(Policy::parse(&encoded), Ok(policy.clone()));
    assert_eq!(policy.to_string().as_bytes(), encoded);
    let sorted = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text), sorted(&policy.to_string()));
    assert_eq!(Policy::parse("quorum none\n").unwrap().encode(), b"quorum none\n");
}

#[test]
fn spaces_comments_and_opaque_octets_are_allowed() {
    let witnesses = witnesses();
    let (w1, w2) = (&witnesses[0], &witnesses[1]);
    let text = [
        b"# a comment\xff\n\t # another\n \t \n".as_slice(),
        b"quorum\tnone  \n",
        format!(" witness \t\u{212a} {} \t http://h\u{e4}.example/#x \n", w1.key).as_bytes(),
        format!("witness K {}\n", w2.key).as_bytes(),
        b"group any any K\ngroup \xff\x80 01 \xe2\x84\xaa any\ngroup #x all \xff\x80\n",
    ]
    .concat();
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.quorum(), None);
    assert_eq!(policy.witnesses()[0].name(), "\u{212a}".as_bytes());
    assert_eq!(policy.witnesses()[0].url(), Some("http://h\u{e4}.example/#x".as_bytes()));
    assert_eq!(policy.groups()[1].name(), b"\xff\x80");
    assert_eq!(policy.groups()[2].name(), b"#x");
    assert_eq!(Policy::parse(policy.encode()), Ok(policy));
}

#[test]
fn lines_may_stand_in_any_order_that_defines_names_first() {
    let witness = format!("witness w {}\n", witnesses()[0].key);
    let log = format!("log {}\n", log().key);
    let one = policy(&format!("{witness}quorum w\n{log}"));
    assert_eq!(one, policy(&format!("{log}{witness}quorum w\n")));
    let undefined = "no earlier line defines a witness or group `w`";
    assert_eq!(reason("quorum w\n"), undefined);
    assert_eq!(reason("group g any w\n"), undefined);
    assert_eq!(reason(&format!("{witness}group w2 any w w2\n")), undefined.replace("`w`", "`w2`"));
}

#[test]
fn malformed_lines_are_refused_with_their_number() {
    let (log, witnesses) = (log(), witnesses());
    let w1 = format!("witness w1 {}\n", witnesses[0].key);
    let w2 = format!("witness w2 {}\n", witnesses[1].key);
    let forms = [
        (vec!["log", "log a b c"], "write `log <vkey> [<url>]`"),
        (vec!["witness", "witness a", "witness a b c d"], "write `witness <name> <vkey> [<url>]`"),
        (vec!["group", "group a", "group a any"], "write `group <name> all|any|<k> <name>...`"),
        (vec!["quorum", "quorum a b"], "write `quorum <name>` or `quorum none`"),
    ];
    for (lines, expected) in forms {
        for line in lines {
            assert_eq!(reason(&format!("\n{line}\n")), expected, "{line}");
        }
    }
    assert_eq!(reason("Log x\n"), "`Log` is none of `log`, `witness`, `group` and `quorum`");
    assert_eq!(
        reason("quorum none\nlog"),
        "it does not end in a newline; is the file complete? add one"
    );
    for octet in ["\r", "\0", "\x0b", "\x7f", "\x1f"] {
        let expected =
            format!("the octet `0x{:02x}` is not allowed; remove it", octet.as_bytes()[0]);
        assert_eq!(reason(&format!("# {octet}\n")), expected);
    }
    assert_eq!(
        reason("quorum none\nquorum none\n"),
        "the quorum is set by an earlier line; keep one of them"
    );
    let predefined = "the name `none` is predefined; choose another one";
    assert_eq!(reason(&w1.replace("w1", "none")), predefined);
    assert_eq!(reason(&format!("{w1}group none any w1\n")), predefined);
    assert_eq!(
        reason(&format!("{w1}group g any none\n")),
        "no earlier line defines a witness or group `none`"
    );
    let taken = "the name `w1` is taken by an earlier line";
    assert_eq!(reason(&format!("{w1}{}", w2.replace("w2", "w1"))), taken);
    assert_eq!(reason(&format!("{w1}group w1 any w1\n")), taken);
    let twice = "`w1` is a member of a group already";
    assert_eq!(reason(&format!("{w1}group g any w1 w1\n")), twice);
    assert_eq!(reason(&format!("{w1}{w2}group g any w1\ngroup h any w2 w1\n")), twice);
    for k in ["0", "3", "-1", "+1", "x", "1.0", "Any", "18446744073709551616"] {
        let expected = format!(
            "`{k}` is neither `any` nor `all` nor a number from 1 to 2, the number of members"
        );
        assert_eq!(reason(&format!("{w1}{w2}group g {k} w1 w2\n")), expected);
    }
    assert_eq!(
        reason("log x\n"),
        "`x`: not a verifier key `name+hex+base64`: it has fewer than three parts"
    );
    let sth = "log.example+00000000+BQAA";
    assert_eq!(
        reason(&format!("log {sth}\n")),
        format!("`{sth}`: note key type `0x05` is not supported here")
    );
    assert!(
        matches!(Policy::parse(b"log \xff\n"), Err(Error::Policy { line: 1, reason }) if reason == "the key is not UTF-8")
    );
    assert_eq!(
        reason(&format!("witness w {}\n", log.key)),
        "the key of type `0x01` makes no cosignatures; a witness's key is of type `0x04` or `0x06`"
    );
    let shown = Error::Policy { line: 3, reason: twice.to_owned() }.to_string();
    assert_eq!(shown, "line 3 of the policy: `w1` is a member of a group already");
    assert_eq!(Policy::parse(""), Err(Error::PolicyQuorum));
    assert_eq!(Policy::parse(&w1), Err(Error::PolicyQuorum));
    assert_eq!(
        Policy::parse("# no newline"),
        Err(Error::Policy {
            line: 1,
            reason: "it does not end in a newline; is the file complete? add one".to_owned()
        })
    );
}

#[test]
fn one_public_key_is_one_log_and_one_witness() {
    let named = |name, seed| format!("log {}\n", Signer::new(name, seed).key);
    let duplicate = "another log has the same public key; remove one of the two";
    assert_eq!(reason(&format!("{}{}", named("a", 1), named("b", 1))), duplicate);
    // The type is part of the text form, not of the key.
    let cosigner = format!("log {}\n", Cosigner::ed25519("a", 1).key);
    assert_eq!(reason(&format!("{}{cosigner}", named("a", 1))), duplicate);
    let witness = |name, key| format!("witness {name} {}\n", Cosigner::ed25519(key, 1).key);
    assert_eq!(
        reason(&format!("{}{}", witness("a", "a.example"), witness("b", "b.example"))),
        "another witness has the same public key; remove one of the two"
    );
    // A log may witness itself, and one log may have several keys.
    let text = format!("{}{}{}quorum a\n", named("a", 1), named("a", 2), witness("a", "a"));
    assert_eq!(policy(&text).logs().len(), 2);
}

#[test]
fn policies_are_limited_but_large_ones_are_read() {
    let witness = |at: usize| {
        let mut public_key = [0; 1312];
        public_key[..8].copy_from_slice(&at.to_be_bytes());
        let key = VerifierKey::new_ml_dsa_44_cosigner(&"n".repeat(255), &public_key).unwrap();
        (
            format!("log {key} https://example.com/{at}\n"),
            format!("witness w{at} {key} https://example.com/{at}\n"),
        )
    };
    let (mut logs, mut all, mut groups) = (String::new(), String::new(), String::new());
    for at in 0..MAX_POLICY_LINES {
        let (log, witness) = witness(at);
        logs.push_str(&log);
        all.push_str(&witness);
        groups.push_str(&format!("group g{at} any w{at}\n"));
    }
    let text = format!("{logs}{all}{groups}quorum g255\n");
    let read = policy(&text);
    assert_eq!((read.logs().len(), read.witnesses().len(), read.groups().len()), (256, 256, 256));
    assert_eq!(Policy::parse(read.encode()), Ok(read));
    let (log, more) = witness(256);
    assert_eq!(reason(&format!("{logs}{log}")), "it defines more than 256 logs");
    assert_eq!(reason(&format!("{all}{more}")), "it defines more than 256 witnesses");
    let deep = "group h0 any g0\n";
    assert_eq!(reason(&format!("{all}{groups}{deep}")), "it defines more than 256 groups");
    let long = "#".repeat(MAX_POLICY_BYTES + 1);
    assert_eq!(Policy::parse(&long), Err(Error::PolicyLength(MAX_POLICY_BYTES + 1)));
}

#[test]
fn the_quorum_of_the_example_is_two_of_x_and_one_of_y() {
    let policy = policy(&example());
    let mut signed = note(&[0, 1, 2, 3, 4, 5]);
    let lines = signed.signatures.split_off(1);
    for subset in 0..64_usize {
        let cosigners: Vec<usize> = (0..6).filter(|at| subset >> at & 1 == 1).collect();
        let mut note = signed.clone();
        note.signatures.extend(cosigners.iter().map(|at| lines[*at].clone()));
        let evaluation = policy.evaluate(&note, &[]).unwrap();
        let (x, y) = ((subset & 0b111).count_ones(), (subset >> 3).count_ones());
        assert_eq!(evaluation.quorum_met, x >= 2 && y >= 1, "{cosigners:?}");
        assert_eq!(evaluation.logs, [0]);
        assert_eq!(evaluation.checkpoint, checkpoint());
        let witnessed = |at: &usize| Witnessed { witness: *at, timestamp: TIME + *at as u64 };
        let expected: Vec<Witnessed> = cosigners.iter().map(witnessed).collect();
        assert_eq!(evaluation.witnesses, expected);
        let opened = policy.open(note.encode().as_bytes(), &[]);
        match opened {
            Ok(accepted) => {
                assert_eq!((accepted.checkpoint, accepted.note), (checkpoint(), note));
                assert_eq!(accepted.witnesses, expected);
            }
            Err(error) => assert_eq!(error, Error::Quorum("X-and-Y".to_owned())),
        }
    }
}

#[test]
fn groups_count_every_member_that_is_met() {
    // A chain of groups, each of which the next one contains.
    let mut text = format!("witness w {}\ngroup g0 any w\n", witnesses()[0].key);
    for at in 1..100 {
        text.push_str(&format!("group g{at} 1 g{}\n", at - 1));
    }
    text.push_str("quorum g99\n");
    let policy = policy(&text);
    assert!(policy.evaluate(&note(&[0]), &[]).unwrap().quorum_met);
    assert!(!policy.evaluate(&note(&[]), &[]).unwrap().quorum_met);
}

#[test]
fn a_log_must_have_signed_under_its_origin() {
    let none = policy(&format!("log {}\nquorum none\n", log().key));
    let opened = |policy: &Policy, note: &str, keys: &[VerifierKey]| {
        policy.open(note.as_bytes(), keys).map(|accepted| accepted.witnesses.len())
    };
    let signed = note(&[]).encode();
    assert_eq!(opened(&none, &signed, &[]), Ok(0));
    let wrong_origin = Err(Error::Origin(ORIGIN.to_owned()));
    // By a log of the policy, but not by this one.
    let other = Signer::new("example.com/other", 2);
    let foreign = other.note(&checkpoint().body());
    let both = policy(&format!("log {}\nlog {}\nquorum none\n", other.key, log().key));
    assert_eq!(opened(&both, &foreign, &[]), wrong_origin);
    assert_eq!(both.evaluate(&note(&[]), &[]).unwrap().logs, [1]);
    // By nobody whom the policy knows.
    let empty = policy("quorum none\n");
    assert_eq!(opened(&empty, &signed, &[]), wrong_origin);
    assert!(empty.evaluate(&note(&[]), &[]).unwrap().quorum_met);
    // By a log that is known from elsewhere.
    assert_eq!(opened(&empty, &signed, &[other.key.clone(), log().key]), Ok(0));
    let evaluation = both.evaluate(&note(&[]), &[log().key]).unwrap();
    assert_eq!(evaluation.logs, [1, 2]);
    // A witness that has the log's name is no log.
    let witness = Cosigner::ed25519(ORIGIN, 3);
    let text = format!("witness w {}\nquorum w\n", witness.key);
    let mut cosigned = note(&[]);
    witness.cosign(&mut cosigned, TIME);
    assert_eq!(opened(&policy(&text), &cosigned.encode(), &[]), wrong_origin);
}

#[test]
fn the_logs_own_ml_dsa_44_signature_counts() {
    let own = Cosigner::ml_dsa_44(ORIGIN, 4);
    let text = format!("log {}\nlog {}\nquorum none\n", log().key, own.key);
    let mut twice = note(&[]);
    own.cosign(&mut twice, TIME);
    assert_eq!(policy(&text).evaluate(&twice, &[]).unwrap().logs, [0, 1]);
    twice.signatures.remove(0);
    assert!(policy(&text).open(twice.encode().as_bytes(), &[]).is_ok());
}

#[test]
fn a_wrong_signature_by_any_known_key_refuses_the_checkpoint() {
    let policy = policy(&example());
    // Without Y3 the quorum would be met.
    let good = note(&[0, 1, 2, 3, 4, 5]);
    assert!(policy.open(good.encode().as_bytes(), &[]).is_ok());
    for at in 0..good.signatures.len() {
        let mut note = good.clone();
        let last = note.signatures[at].bytes.len() - 1;
        note.signatures[at].bytes[last] ^= 1;
        let name = note.signatures[at].name.clone();
        let bad = Err(Error::BadSignature { name });
        assert_eq!(policy.evaluate(&note, &[]), bad);
    }
    let mut stranger = good.clone();
    stranger.signatures[1].name = "stranger.example".to_owned();
    assert!(policy.evaluate(&stranger, &[]).is_ok());
    let not_a_checkpoint = log().note("text\n");
    let refused = policy.open(not_a_checkpoint.as_bytes(), &[]);
    assert_eq!(refused, Err(Error::Checkpoint("it has fewer than three lines")));
    assert!(matches!(policy.open(b"", &[]), Err(Error::Note(_))));
}

#[test]
fn proofs_are_verified_by_a_policy() {
    let policy = policy(&example());
    let proof = |cosigners: &[usize]| TlogProof {
        extra: None,
        index: INDEX,
        hashes: inclusion_proof(&large(), INDEX, SIZE).unwrap(),
        checkpoint: note(cosigners).encode(),
    };
    let good = TlogProof::parse(proof(&[0, 2, 4]).encode()).unwrap();
    let accepted = good.verify_policy(&leaf(INDEX), &policy, &[]).unwrap();
    assert_eq!(accepted.checkpoint, checkpoint());
    let times: Vec<u64> = accepted.witnesses.iter().map(|witnessed| witnessed.timestamp).collect();
    assert_eq!(times, [TIME, TIME + 2, TIME + 4]);
    // Enough witnesses of one kind are not enough.
    let refused = proof(&[0, 1, 2]).verify_policy(&leaf(INDEX), &policy, &[]);
    assert_eq!(refused, Err(Error::Quorum("X-and-Y".to_owned())));
    let refused = good.verify_policy(&leaf(INDEX + 1), &policy, &[]);
    assert_eq!(refused, Err(Error::RootMismatch { size: SIZE }));
    let empty = Policy::parse("quorum none\n").unwrap();
    let refused = good.verify_policy(&leaf(INDEX), &empty, &[]);
    assert_eq!(refused, Err(Error::Origin(ORIGIN.to_owned())));
    assert!(good.verify_policy(&leaf(INDEX), &empty, &[log().key]).is_ok());
}

/// A tree of names: witnesses are numbers, groups lists of members.
fn lines() -> impl Strategy<Value = (Vec<(u8, Vec<u8>)>, u8)> {
    (prop::collection::vec((0_u8..6, prop::collection::vec(0_u8..12, 1..5)), 0..6), 0_u8..12)
}

proptest! {
    /// Whatever is accepted evaluates as a naive reading of the text does.
    #[test]
    fn the_quorum_is_what_the_text_says((groups, quorum) in lines(), cosigners in prop::collection::vec(any::<bool>(), 3)) {
        let mut text = String::new();
        let all = witnesses();
        for (at, witness) in all.iter().step_by(2).enumerate() {
            text.push_str(&format!("witness {at} {}\n", witness.key));
        }
        for (at, (k, members)) in groups.iter().enumerate() {
            let members: Vec<String> = members.iter().map(u8::to_string).collect();
            text.push_str(&format!("group {} {k} {}\n", at + 3, members.join(" ")));
        }
        text.push_str(&format!("quorum {quorum}\n"));
        if let Ok(policy) = Policy::parse(&text) {
            let encoded = policy.encode();
            prop_assert_eq!(Policy::parse(&encoded), Ok(policy.clone()));
            let signed: Vec<usize> = (0..3).filter(|at| cosigners[*at]).map(|at| 2 * at).collect();
            let met = naive(quorum, &groups, &cosigners);
            prop_assert_eq!(policy.evaluate(&note(&signed), &[]).unwrap().quorum_met, met);
        }
    }

    #[test]
    fn policies_of_strangers_are_read_or_refused(
        octets in prop::collection::vec(any::<u8>(), 0..100), text in "((log|witness|group|quorum|#)?( [a-c1-2+]{1,3}| none| any| all){0,4}\n){0,5}",
    ) {
        let _ = Policy::parse(&octets);
        if let Ok(policy) = Policy::parse(&text) {
            prop_assert_eq!(Policy::parse(policy.encode()), Ok(policy));
        }
    }
}

fn naive(name: u8, groups: &[(u8, Vec<u8>)], cosigners: &[bool]) -> bool {
    if name < 3 {
        return cosigners[usize::from(name)];
    }
    let (k, members) = &groups[usize::from(name) - 3];
    let met = members.iter().filter(|member| naive(**member, groups, cosigners)).count();
    met >= usize::from(*k)
}
