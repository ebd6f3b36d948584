//! The five verdicts, against a small log in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use chancery_entry::{Entry, TokenEntry};
use chancery_tlog::note::{Note, VerifierKey};
use chancery_tlog::{Checkpoint, Hash, LogId, TileBuilder, TileId, leaf_hash};
use chancery_token::{Algorithm, RsaBits, SigningKey};
use chancery_validate::log::{LogPolicy, LogReader, Search, Verdict, apply, judge, look_up};
use chancery_validate::{
    Attestation, LogLookup, Profile, Rejection, RejectionCode, Validated, Validator,
};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::draft::{NOW, RANDOM, by, good, key};

const PUBLISH_WITHIN_S: u64 = 10;

/// A log with its identity key, all of its tiles, and its latest checkpoint.
#[derive(Clone)]
struct MemoryLog {
    vkey: String,
    checkpoint: Vec<u8>,
    tiles: BTreeMap<String, Vec<u8>>,
    fails: Option<&'static str>,
    /// The key that must have signed too.
    second: Option<VerifierKey>,
    /// What is said about every leaf, if not what is true.
    says: Option<Search>,
    read: RefCell<Vec<TileId>>,
}

struct Identity {
    key: SigningKey,
    name: VerifierKey,
    id: LogId,
}

impl Identity {
    fn new() -> Self {
        let key = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        let public = <[u8; 32]>::try_from(key.public().raw()).unwrap();
        let name = VerifierKey::new_ed25519("log.example/a", &public).unwrap();
        Self { key, name, id: LogId::of(&public) }
    }

    /// The log of these leaves.
    fn log(&self, leaves: &[Hash]) -> MemoryLog {
        let mut builder = TileBuilder::new();
        let mut tiles = BTreeMap::new();
        for leaf in leaves {
            tiles.extend(builder.append(*leaf).into_iter().map(|(id, bytes)| (id.path(), bytes)));
        }
        tiles.extend(builder.edge().map(|(id, bytes)| (id.path(), bytes.to_vec())));
        let checkpoint = Checkpoint::new(self.name.name(), builder.size(), builder.root()).unwrap();
        let note = checkpoint.sign(&self.name, |body| self.key.sign(body).unwrap()).unwrap();
        MemoryLog {
            vkey: self.name.to_string(),
            checkpoint: note.into_bytes(),
            tiles,
            fails: None,
            second: None,
            says: None,
            read: RefCell::default(),
        }
    }

    /// A validated token whose `jti` somebody else chose, found by digest, and its leaf.
    fn foreign_token(&self, jti: &str) -> Result<(Validated, Hash), Rejection> {
        let draft = good().claim("jti", jti).member("log", format!("{}.0", self.id));
        let mut config = draft.configuration();
        config.profile = Profile::Oidc;
        config.log_lookup = LogLookup::Digest;
        let validator = Validator::from_jwks(config, draft.keys().as_bytes()).unwrap();
        let token = validator.validate(&draft.token(), NOW)?;
        let kid = *key(Algorithm::Es256).public().kid().as_bytes();
        let entry = TokenEntry::of(kid, NOW - 60, NOW + 540, token.signing_input().as_bytes());
        Ok((token, leaf_hash(&Entry::Token(entry).encode().unwrap())))
    }

    /// A validated token at `index` of this log, and its leaf.
    fn token(&self, index: u64) -> (Validated, Hash) {
        let draft = good()
            .claim("jti", format!("{}.{index}.{RANDOM}", self.id))
            .member("log", format!("{}.0", self.id));
        let validator =
            Validator::from_jwks(draft.configuration(), draft.keys().as_bytes()).unwrap();
        let token = validator.validate(&draft.token(), NOW).unwrap();
        let kid = *key(Algorithm::Es256).public().kid().as_bytes();
        let entry = TokenEntry::of(kid, NOW - 60, NOW + 540, token.signing_input().as_bytes());
        let leaf = leaf_hash(&Entry::Token(entry).encode().unwrap());
        (token, leaf)
    }
}

impl LogReader for MemoryLog {
    type Error = String;

    fn checkpoint(&self) -> Result<Vec<u8>, String> {
        self.fail("checkpoint").map(|()| self.checkpoint.clone())
    }

    fn tile(&self, id: TileId) -> Result<Vec<u8>, String> {
        self.read.borrow_mut().push(id);
        self.fail("tile")?;
        self.tiles.get(&id.path()).cloned().ok_or_else(|| format!("no {}", id.path()))
    }

    fn vkey(&self) -> Result<String, String> {
        self.fail("vkey").map(|()| self.vkey.clone())
    }

    fn cosigning_key(&self) -> Option<VerifierKey> {
        self.second.clone()
    }

    fn search(&self, leaf: &Hash) -> Result<Search, String> {
        self.fail("search")?;
        if let Some(said) = self.says {
            return Ok(said);
        }
        let level = self.tiles.iter().filter(|(path, _)| path.starts_with("tile/0/"));
        let leaves: Vec<&[u8]> = level.flat_map(|(_, tile)| tile.chunks(32)).collect();
        let index = leaves.iter().position(|known| *known == leaf.0);
        let searched = leaves.len() as u64;
        Ok(index.map_or(Search::Absent { searched }, |index| Search::At(index as u64)))
    }
}

impl MemoryLog {
    fn fail(&self, what: &str) -> Result<(), String> {
        if self.fails == Some(what) { Err("connection\nreset".to_owned()) } else { Ok(()) }
    }

    fn ask(&self, token: &Validated) -> Verdict {
        look_up(token, self, NOW, PUBLISH_WITHIN_S)
    }
}

fn filler(number: usize) -> Hash {
    leaf_hash(format!("entry {number}").as_bytes())
}

/// A log of `size` leaves with the token's at `index`.
fn logged(identity: &Identity, index: usize, size: usize) -> (Validated, MemoryLog) {
    let (token, leaf) = identity.token(index as u64);
    let leaves: Vec<_> = (0..size).map(|at| if at == index { leaf } else { filler(at) }).collect();
    (token, identity.log(&leaves))
}

fn why(verdict: Verdict) -> String {
    match verdict {
        Verdict::Unknown { why } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_logged_token_is_found_at_every_place() {
    let identity = Identity::new();
    for size in [1, 2, 3, 255, 256, 257, 300, 513] {
        for index in [0, 1, 2, 254, 255, 256, 299, 512].into_iter().filter(|index| *index < size) {
            let (token, log) = logged(&identity, index, size);
            assert_eq!(
                log.ask(&token),
                Verdict::InLog { index: index as u64 },
                "{index} of {size}"
            );
            let read = log.read.take();
            let distinct: HashSet<_> = read.iter().collect();
            assert_eq!(distinct.len(), read.len(), "a tile was read twice");
        }
    }
}

#[test]
fn a_full_tile_serves_for_a_partial_one() {
    let identity = Identity::new();
    let (token, later) = logged(&identity, 7, 256);
    let (_, mut log) = logged(&identity, 7, 9);
    let (_, leaf) = identity.token(7);
    let full = &later.tiles["tile/0/000"];
    // ECDSA signatures differ each time, the signing input and so the leaf do not.
    assert_eq!(full[7 * 32..8 * 32], leaf.0);
    log.tiles.insert("tile/0/000.p/9".into(), full.clone());
    assert_eq!(log.ask(&token), Verdict::InLog { index: 7 });
}

#[test]
fn beyond_the_end_time_decides() {
    let identity = Identity::new();
    let (token, _) = identity.token(5);
    for log in [identity.log(&[]), logged(&identity, 3, 5).1] {
        let issued = token.claims().iat;
        for (age_s, young) in [(0, true), (9, true), (10, false), (60, false)] {
            let wanted = if young { Verdict::Pending } else { Verdict::Missing };
            assert_eq!(look_up(&token, &log, issued + age_s, PUBLISH_WITHIN_S), wanted);
        }
        assert_eq!(look_up(&token, &log, issued, 0), Verdict::Missing);
        assert_eq!(look_up(&token, &log, u64::MAX, u64::MAX), Verdict::Missing);
    }
}

#[test]
fn another_leaf_under_a_verified_root_is_a_proof_of_forgery() {
    let identity = Identity::new();
    for size in [6, 300] {
        let (token, leaf) = identity.token(5);
        let log = identity.log(&(0..size).map(filler).collect::<Vec<_>>());
        let Verdict::Forged { index, expected, found, vkey, proof } = log.ask(&token) else {
            panic!("not forged");
        };
        assert_eq!((index, expected, found), (5, leaf, filler(5)));
        // The proof stands by itself: anybody can check it with the log's key.
        let known = [VerifierKey::parse(&vkey).unwrap()];
        assert_eq!(proof.index, 5);
        assert_eq!(proof.verify(&found, &known).unwrap().size, size as u64);
        assert!(proof.verify(&expected, &known).is_err());
    }
}

/// The token's leaf one place further is another leaf at its place.
#[test]
fn the_right_leaf_at_another_place_does_not_help() {
    let identity = Identity::new();
    let (token, leaf) = identity.token(5);
    let mut leaves: Vec<_> = (0..9).map(filler).collect();
    leaves[6] = leaf;
    assert!(
        matches!(identity.log(&leaves).ask(&token), Verdict::Forged { found, .. } if found == filler(5))
    );
}

#[test]
fn what_cannot_be_read_is_unknown() {
    let identity = Identity::new();
    let (token, log) = logged(&identity, 5, 300);
    for (what, told) in [("checkpoint", "checkpoint"), ("tile", "tile"), ("vkey", "verifier key")] {
        let broken = MemoryLog { fails: Some(what), ..log.clone() };
        let wanted = format!("the log's {told} could not be read: connection\\nreset");
        assert_eq!(why(broken.ask(&token)), wanted);
    }
    // The leaf and its nearest siblings, and the right edge.
    for path in ["tile/0/000", "tile/0/001.p/44"] {
        let mut broken = log.clone();
        broken.tiles.remove(path).unwrap();
        assert!(why(broken.ask(&token)).contains(path), "{path}");
    }
}

#[test]
fn only_the_key_that_the_log_id_names_is_believed() {
    let (identity, stranger) = (Identity::new(), Identity::new());
    let (token, log) = logged(&identity, 0, 1);
    // A stranger's log that holds the token's very leaf, signed by the stranger.
    let (_, leaf) = identity.token(0);
    let wrong = stranger.log(&[leaf]);
    assert!(why(wrong.ask(&token)).contains("is not that of log"));
    let mixed = MemoryLog { vkey: log.vkey.clone(), ..wrong.clone() };
    assert!(why(mixed.ask(&token)).contains("checkpoint is not believed"));
    let other = MemoryLog { vkey: wrong.vkey, ..log.clone() };
    assert!(why(other.ask(&token)).contains("is not that of log"));
    for vkey in ["", "a+b+c", "log.example/a\n"] {
        let broken = MemoryLog { vkey: vkey.to_owned(), ..log.clone() };
        assert!(why(broken.ask(&token)).contains("verifier key is not believed"));
    }
}

/// Whoever serves the tiles cannot make a forgery look logged, nor a logged token forged.
#[test]
fn tiles_that_do_not_hash_to_the_root_prove_nothing() {
    let identity = Identity::new();
    let (token, leaf) = identity.token(5);
    let honest = identity.log(&(0..300).map(filler).collect::<Vec<_>>());
    let mut lying = honest.clone();
    lying.tiles.get_mut("tile/0/000").unwrap()[5 * 32..6 * 32].copy_from_slice(&leaf.0);
    assert!(why(lying.ask(&token)).contains("do not agree with its checkpoint"));

    let (token, mut lying) = logged(&identity, 5, 300);
    lying.tiles.get_mut("tile/0/000").unwrap()[5 * 32] ^= 1;
    assert!(why(lying.ask(&token)).contains("do not agree with its checkpoint"));
    lying.tiles.get_mut("tile/0/000").unwrap().pop();
    assert!(why(lying.ask(&token)).contains("tiles are malformed"));
}

#[test]
fn require_accepts_what_is_in_the_log_only() {
    for (verdict, code) in verdicts() {
        assert_eq!(apply(&verdict, LogPolicy::Off), Ok(()));
        assert_eq!(apply(&verdict, LogPolicy::Report), Ok(()));
        let required = apply(&verdict, LogPolicy::Require);
        assert_eq!(required.as_ref().err().map(|rejection| rejection.code()), code);
        if let Err(rejection) = required {
            let retry = matches!(verdict, Verdict::Pending | Verdict::Unknown { .. });
            assert_eq!(rejection.retryable(), retry);
        }
    }
    assert_eq!(LogPolicy::default(), LogPolicy::Off);
}

/// One verdict of each kind, from real lookups, with the code that it gives.
fn verdicts() -> Vec<(Verdict, Option<RejectionCode>)> {
    let identity = Identity::new();
    let (token, log) = logged(&identity, 5, 9);
    let short = identity.log(&[filler(0)]);
    let broken = MemoryLog { fails: Some("tile"), ..log.clone() };
    vec![
        (log.ask(&token), None),
        (
            look_up(&token, &short, token.claims().iat, PUBLISH_WITHIN_S),
            Some(RejectionCode::LogPending),
        ),
        (short.ask(&token), Some(RejectionCode::LogMissing)),
        (
            identity.log(&(0..9).map(filler).collect::<Vec<_>>()).ask(&token),
            Some(RejectionCode::LogForged),
        ),
        (broken.ask(&token), Some(RejectionCode::LogUnknown)),
    ]
}

/// A token under a key that was made elsewhere, which names no log, and what a lookup says of it.
fn imported() -> (Validated, Verdict) {
    let draft = good().claim("jti", "0d1c6b0e-4c1c-4b26-9d3a-6f4f6a1b2c3d");
    let mut keys: Value = serde_json::from_str(&draft.keys()).unwrap();
    for key in keys["keys"].as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("log");
    }
    let mut config = draft.configuration();
    config.profile = Profile::Oidc;
    config.log_lookup = LogLookup::Digest;
    let validator = Validator::from_jwks(config, keys.to_string().as_bytes()).unwrap();
    let token = validator.validate(&draft.token(), NOW).unwrap();
    let verdict = Identity::new().log(&[filler(0)]).ask(&token);
    (token, verdict)
}

/// No later attempt finds it, so it is not `log_unknown`, after which callers ask again for ever.
#[test]
fn a_token_of_a_key_that_names_no_log_is_rejected_for_good_where_the_log_is_demanded() {
    let (token, verdict) = imported();
    assert!(matches!(verdict, Verdict::Unknown { .. }));
    assert_eq!(judge(&token, &verdict, LogPolicy::Off), Ok(()));
    assert_eq!(judge(&token, &verdict, LogPolicy::Report), Ok(()));
    let rejection = judge(&token, &verdict, LogPolicy::Require).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeyNotLogged);
    assert!(!rejection.retryable());
    // One that names a log keeps the code of its verdict.
    let (logged, _) = logged(&Identity::new(), 5, 9);
    let rejection = judge(&logged, &verdict, LogPolicy::Require).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::LogUnknown);
}

/// The codes that lookups produce under `require`, and that of evidence.
pub fn produced() -> BTreeSet<RejectionCode> {
    let rejections = verdicts().into_iter().map(|(verdict, _)| apply(&verdict, LogPolicy::Require));
    let evidence = Attestation::Require.without_evidence();
    let (imported, verdict) = imported();
    let not_logged = judge(&imported, &verdict, LogPolicy::Require);
    let all = rejections.chain([evidence, not_logged]);
    all.filter_map(|verdict| verdict.err().map(|rejection| rejection.code())).collect()
}

#[test]
fn evidence_that_nobody_can_appraise_is_never_accepted_where_it_is_demanded() {
    assert_eq!(Attestation::Off.without_evidence(), Ok(()));
    assert_eq!(Attestation::Report.without_evidence(), Ok(()));
    let rejection = Attestation::Require.without_evidence().unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::AttestationUnknown);
    assert!(!rejection.retryable());
}

/// A token's leaf depends on the key itself, not on the name that a set gives it.
#[test]
fn the_leaf_names_the_key_by_its_thumbprint() {
    let identity = Identity::new();
    let draft = by(Algorithm::Ed25519)
        .header("kid", "friendly name")
        .member("kid", "friendly name")
        .claim("jti", format!("{}.0.{RANDOM}", identity.id))
        .member("log", format!("{}.0", identity.id));
    let validator = Validator::from_jwks(draft.configuration(), draft.keys().as_bytes()).unwrap();
    let token = validator.validate(&draft.token(), NOW).unwrap();
    let kid = *key(Algorithm::Ed25519).public().kid().as_bytes();
    let entry = TokenEntry::of(kid, NOW - 60, NOW + 540, token.signing_input().as_bytes());
    let log = identity.log(&[leaf_hash(&Entry::Token(entry).encode().unwrap())]);
    assert_eq!(log.ask(&token), Verdict::InLog { index: 0 });
}

const UUID: &str = "0d1c6b0e-4c1c-4b26-9d3a-6f4f6a1b2c3d";

#[test]
fn a_token_that_somebody_else_composed_is_found_by_digest() {
    let identity = Identity::new();
    let (token, leaf) = identity.foreign_token(UUID).unwrap();
    assert_eq!((token.log_address(), token.key_log().map(|at| at.index())), (None, Some(0)));
    for (index, size) in [(0, 1), (5, 9), (256, 300), (299, 300)] {
        let leaves = (0..size).map(|at| if at == index { leaf } else { filler(at) });
        let log = identity.log(&leaves.collect::<Vec<_>>());
        assert_eq!(log.ask(&token), Verdict::InLog { index: index as u64 });
    }
}

/// Absence is no proof: time decides between the two, and nothing makes it a forgery.
#[test]
fn absent_by_digest_is_pending_and_then_missing() {
    let identity = Identity::new();
    let (token, _) = identity.foreign_token(UUID).unwrap();
    let log = identity.log(&(0..300).map(filler).collect::<Vec<_>>());
    let issued = token.claims().iat;
    // Its composer's clock may lag by ten seconds when the token is signed.
    for (age_s, young) in [(0, true), (10, true), (19, true), (20, false), (60, false)] {
        let wanted = if young { Verdict::Pending } else { Verdict::Missing };
        assert_eq!(look_up(&token, &log, issued + age_s, PUBLISH_WITHIN_S), wanted, "{age_s}");
    }
    let rejection = apply(&Verdict::Missing, LogPolicy::Require).unwrap_err();
    assert_eq!((rejection.code(), rejection.retryable()), (RejectionCode::LogMissing, false));
}

/// Whoever serves the log can say anything: it gets no token accepted, and none called forged.
#[test]
fn false_answers_prove_nothing() {
    let identity = Identity::new();
    let (token, leaf) = identity.foreign_token(UUID).unwrap();
    let honest = identity.log(&(0..300).map(filler).collect::<Vec<_>>());
    let says = |log: &MemoryLog, said| MemoryLog { says: Some(said), ..log.clone() }.ask(&token);
    for index in [0, 7, 299] {
        assert!(
            why(says(&honest, Search::At(index))).contains(&format!("at {index}, and it does not"))
        );
    }
    for index in [300, u64::MAX] {
        assert_eq!(says(&honest, Search::At(index)), Verdict::Missing);
    }
    for searched in [0, 299] {
        let told = why(says(&honest, Search::Absent { searched }));
        assert_eq!(
            told,
            format!("only the first {searched} of the log's 300 entries can be searched yet")
        );
    }
    assert_eq!(says(&honest, Search::Absent { searched: 300 }), Verdict::Missing);
    // It can deny what is there, which is a rejection.
    let logged = identity.log(&[leaf]);
    assert_eq!(logged.ask(&token), Verdict::InLog { index: 0 });
    assert_eq!(says(&logged, Search::Absent { searched: 1 }), Verdict::Missing);
    let broken = MemoryLog { fails: Some("search"), ..logged };
    assert_eq!(
        why(broken.ask(&token)),
        "the log's index of digests could not be read: connection\\nreset"
    );
}

#[test]
fn a_place_in_another_log_stays_a_rejection_and_one_in_this_log_is_not_believed() {
    let (identity, other) = (Identity::new(), Identity::new());
    let elsewhere = format!("{}.0.{RANDOM}", other.id);
    let rejection = identity.foreign_token(&elsewhere).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::LogIdMismatch);
    // Else whoever composes tokens could have a good one called forged.
    let (token, leaf) = identity.foreign_token(&format!("{}.1.{RANDOM}", identity.id)).unwrap();
    let log = identity.log(&[leaf, filler(1)]);
    assert_eq!(log.ask(&token), Verdict::InLog { index: 0 });
    for jti in ["x", "0", "a.b.c"] {
        identity.foreign_token(jti).unwrap();
    }
}

#[test]
fn answers_of_a_search_are_read_strictly() {
    let parse = |text: &str| Search::parse(text.as_bytes());
    assert_eq!(parse(r#"{"index":5,"searched":9}"#), Some(Search::At(5)));
    assert_eq!(parse(r#"{"status":404,"searched":9}"#), Some(Search::Absent { searched: 9 }));
    for text in [
        "",
        "[]",
        "{}",
        r#"{"index":-1,"searched":9}"#,
        r#"{"index":"5"}"#,
        r#"{"index":null,"searched":9}"#,
        r#"{"index":1.5}"#,
        r#"{"searched":"9"}"#,
        r#"{"searched":9,"searched":9}"#,
        "<html>404</html>",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
    let path = Search::path(&Hash([0xab; 32]));
    assert_eq!(path, format!("by-digest/{}", "ab".repeat(32)));
}

proptest! {
    #[test]
    fn one_changed_byte_never_changes_a_verdict_into_another_but_unknown(
        forged in any::<bool>(), file in any::<Index>(), at in any::<Index>(), bit in 0..8_u8,
    ) {
        let identity = Identity::new();
        let (token, mut log) = logged(&identity, 5, 300);
        if forged {
            log = identity.log(&(0..300).map(filler).collect::<Vec<_>>());
        }
        let honest = log.ask(&token);
        let paths: Vec<_> = log.tiles.keys().cloned().collect();
        let bytes = match file.index(paths.len() + 1) {
            0 => &mut log.checkpoint,
            n => log.tiles.get_mut(&paths[n - 1]).unwrap(),
        };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match log.ask(&token) {
            Verdict::Unknown { .. } => {}
            same => prop_assert_eq!(same, honest),
        }
    }
}

/// Who broke or stole the Ed25519 key can sign any checkpoint with it; one that has not the second
/// signature says nothing to whoever knows the second key.
#[test]
fn a_history_under_one_of_two_keys_is_not_believed() {
    let identity = Identity::new();
    let second = SigningKey::generate(Algorithm::MlDsa44, RsaBits::B2048).unwrap();
    let public = second.public().raw().try_into().unwrap();
    let second_name = VerifierKey::new_ml_dsa_44_cosigner("log.example/a", public).unwrap();
    let (token, mut log) = logged(&identity, 2, 300);
    log.vkey = format!("{}\n{second_name}\n", identity.name);
    log.second = Some(second_name.clone());
    let stripped = String::from_utf8(log.checkpoint.clone()).unwrap();
    let said = why(log.ask(&token));
    assert!(said.contains("type `0x06` named `log.example/a` did not sign"), "{said}");

    let text = Note::parse(stripped.as_bytes()).unwrap().text;
    let checkpoint = Checkpoint::parse(&text).unwrap();
    let sign = |message: &[u8]| second.sign(message).unwrap();
    let cosigned = checkpoint.cosign(&stripped, &second_name, 0, sign).unwrap();
    log.checkpoint = cosigned.clone().into_bytes();
    assert_eq!(log.ask(&token), Verdict::InLog { index: 2 });

    // Both signatures, each over another tree.
    let (_, shorter) = logged(&identity, 2, 299);
    let other = String::from_utf8(shorter.checkpoint).unwrap();
    let mut mixed = Note::parse(other.as_bytes()).unwrap();
    mixed.insert(Note::parse(cosigned.as_bytes()).unwrap().signatures[1].clone()).unwrap();
    log.checkpoint = mixed.encode().into_bytes();
    let said = why(log.ask(&token));
    assert!(said.contains("does not verify"), "{said}");
    // The second signature alone.
    let mut alone = Note::parse(cosigned.as_bytes()).unwrap();
    alone.signatures.remove(0);
    log.checkpoint = alone.encode().into_bytes();
    let said = why(log.ask(&token));
    assert!(said.contains("type `0x01` named `log.example/a` did not sign"), "{said}");
}
