//! The trust anchor: which keys are believed, against a small log in memory.

use std::collections::BTreeMap;

use chancery_entry::{Announcement, Compromise, Entry, Start};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, EntriesTileId, LogId, TileBuilder, TileId, encode_entry, leaf_hash,
};
use chancery_token::jwks::{KeySet, Member, Window};
use chancery_token::{Algorithm, RsaBits, SigningKey, jws};
use chancery_validate::anchor::{Anchor, AnchorError, AnchorReader, DirectoryObject, Recollection};
use chancery_validate::{Keys, RejectionCode, Validator};
use serde_json::{Value, json};

use crate::draft::{Draft, ISSUER, NOW, RANDOM, WINDOW, good, key, other};

/// A signer: its log's key and what it wrote.
struct Signer {
    identity: SigningKey,
    name: VerifierKey,
    id: LogId,
    entries: Vec<Vec<u8>>,
    key_set: Option<String>,
    checkpoint: Option<String>,
}

/// What the reader serves instead of the truth.
type Lies<'s> = BTreeMap<String, Vec<u8>>;

struct Served<'s> {
    signer: &'s Signer,
    lies: Lies<'s>,
}

fn announcement() -> Announcement {
    let public = key(Algorithm::Es256).public();
    Announcement {
        realm: "organizations".to_owned(),
        issuer: ISSUER.to_owned(),
        jwk: public.canonical_jwk(),
        kid: *public.kid().as_bytes(),
        algorithm: "ES256".to_owned(),
        nbf: WINDOW.nbf,
        signs_until: WINDOW.signs_until,
        max_lifetime_s: 3600,
        start: Start::First,
    }
}

impl Signer {
    /// A signer whose log holds three entries; the announcement is the second.
    fn of(announcement: Announcement) -> Self {
        let identity = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        let public = <[u8; 32]>::try_from(identity.public().raw()).unwrap();
        let name = VerifierKey::new_ed25519("log.example/a", &public).unwrap();
        let filler = |kid| {
            Entry::Compromise(Compromise { kid: [kid; 32], reason: "a test".to_owned(), at: NOW })
        };
        let entries = [filler(1), Entry::Announcement(announcement), filler(2)];
        let entries = entries.iter().map(|entry| entry.encode().unwrap()).collect();
        Self { identity, name, id: LogId::of(&public), entries, key_set: None, checkpoint: None }
    }

    fn new() -> Self {
        Self::of(announcement())
    }

    fn anchor(&self) -> Anchor {
        Anchor::parse(&format!("# signer a\n\n{} # since May\n", self.name)).unwrap()
    }

    /// The token's draft, and a member that names this log.
    fn draft(&self) -> Draft {
        good()
            .claim("jti", format!("{}.2.{RANDOM}", self.id))
            .member("log", format!("{}.1", self.id))
    }

    /// Signs a key set that lists these members.
    fn with_key_set(mut self, members: &[Member], change: impl FnOnce(&mut Value)) -> Self {
        let keys: Vec<Value> = members.iter().map(|member| Value::Object(member.jwk())).collect();
        let mut set = json!({
            "iss": "log.example/a", "log": self.id.to_string(), "seq": 1,
            "iat": NOW - 10, "exp": NOW + 290, "keys": keys,
        });
        change(&mut set);
        let kid = self.identity.public().kid();
        let input =
            jws::signing_input(Algorithm::Ed25519, "jwk-set+jwt", &kid, set.to_string().as_bytes());
        let signature = self.identity.sign(input.as_bytes()).unwrap();
        self.key_set = Some(jws::assemble(input, &signature));
        self
    }

    fn served(&self) -> Served<'_> {
        Served { signer: self, lies: Lies::new() }
    }
}

impl Served<'_> {
    fn with(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.lies.insert(path.to_owned(), bytes.into());
        self
    }

    fn answer(&self, path: String, truth: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, String> {
        match self.lies.get(&path) {
            Some(lie) if lie == b"withheld" => Err("not found".to_owned()),
            Some(lie) => Ok(lie.clone()),
            None => Ok(truth()),
        }
    }

    fn believes(&self, anchor: &Anchor, draft: &Draft) -> Result<(), (RejectionCode, String)> {
        let set = KeySet::parse(draft.keys().as_bytes()).unwrap();
        verdict(draft, anchor.announced(&set, NOW, self, &mut Recollection::default()))
    }
}

fn verdict(draft: &Draft, keys: Keys) -> Result<(), (RejectionCode, String)> {
    let verdict = Validator::new(draft.configuration(), keys).validate(&draft.token(), NOW);
    verdict.map(|_| ()).map_err(|rejection| (rejection.code(), rejection.detail().to_owned()))
}

impl AnchorReader for Served<'_> {
    type Error = String;

    fn checkpoint(&self, log: LogId) -> Result<Vec<u8>, String> {
        assert_eq!(log, self.signer.id);
        self.answer("checkpoint".to_owned(), || {
            let mut builder = TileBuilder::new();
            for entry in &self.signer.entries {
                builder.append(leaf_hash(entry));
            }
            let name = &self.signer.name;
            let checkpoint = Checkpoint::new(name.name(), builder.size(), builder.root()).unwrap();
            let sign = |body: &[u8]| self.signer.identity.sign(body).unwrap();
            let note = checkpoint.sign(name, sign).unwrap();
            self.signer.checkpoint.clone().unwrap_or(note).into_bytes()
        })
    }

    fn tile(&self, log: LogId, id: TileId) -> Result<Vec<u8>, String> {
        assert_eq!(log, self.signer.id);
        self.answer(id.path(), || {
            let leaves = self.signer.entries.iter().flat_map(|entry| leaf_hash(entry).0);
            leaves.collect()
        })
    }

    fn entries(&self, log: LogId, id: EntriesTileId) -> Result<Vec<u8>, String> {
        assert_eq!(log, self.signer.id);
        self.answer(id.path(), || bundle(&self.signer.entries))
    }

    fn key_set(&self, log: LogId) -> Result<Vec<u8>, String> {
        assert_eq!(log, self.signer.id);
        let set = self.signer.key_set.clone().ok_or("there is none")?;
        self.answer("keys.jwt".to_owned(), || set.into_bytes())
    }

    fn directory(&self, object: DirectoryObject) -> Result<Vec<u8>, String> {
        panic!("no directory is named, and {object:?} was asked for")
    }
}

fn bundle(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        encode_entry(&mut bytes, entry).unwrap();
    }
    bytes
}

#[track_caller]
fn not_announced(outcome: Result<(), (RejectionCode, String)>, why: &str) {
    let (code, detail) = outcome.unwrap_err();
    assert_eq!(code, RejectionCode::KeyNotAnnounced, "{detail}");
    assert!(detail.contains(why), "`{detail}` does not say `{why}`");
}

/// Whether these keys hold the draft's token.
pub fn verdict_of(draft: &Draft, keys: Keys) -> Result<(), (RejectionCode, String)> {
    verdict(draft, keys)
}

/// An announcement of the draft's key.
pub fn announced() -> Announcement {
    announcement()
}

/// The code of keys that were not announced.
pub fn produced() -> RejectionCode {
    let (signer, stranger) = (Signer::new(), Signer::new());
    stranger.served().believes(&signer.anchor(), &stranger.draft()).unwrap_err().0
}

#[test]
fn an_announced_key_is_believed() {
    let signer = Signer::new();
    assert_eq!(signer.served().believes(&signer.anchor(), &signer.draft()), Ok(()));
    let listed = Member { log: None, ..crate::draft::member(key(Algorithm::Es256)) };
    let alive = Signer::new().with_key_set(&[listed], |_| {});
    assert_eq!(alive.served().believes(&alive.anchor(), &alive.draft()), Ok(()));
}

#[test]
fn an_unsigned_key_set_convinces_nobody() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let anchor = signer.anchor();
    // A host that lists a signer of its own making.
    not_announced(stranger.served().believes(&anchor, &stranger.draft()), "is not in the anchor");
    // A key that nobody announced: one that names the place of another's announcement.
    let own = other(Algorithm::Es256);
    let mut jwk = crate::draft::member(own).jwk();
    jwk.insert("log".to_owned(), format!("{}.1", signer.id).into());
    let forged = signer
        .draft()
        .set_text(json!({"keys": [jwk]}).to_string())
        .header("kid", own.public().kid().to_string())
        .signed_by(own);
    not_announced(signer.served().believes(&anchor, &forged), "another key is announced there");
    // Places that announce nothing, or are none.
    let place = |log: String| signer.draft().member("log", log);
    let announces_none = place(format!("{}.0", signer.id));
    not_announced(signer.served().believes(&anchor, &announces_none), "announces no key");
    // Its announcement may come with the next checkpoint.
    let beyond = signer.served().believes(&anchor, &place(format!("{}.3", signer.id)));
    assert_eq!(beyond.unwrap_err().0, RejectionCode::KeysUnavailable);
    not_announced(signer.served().believes(&anchor, &place("x".to_owned())), "no place in a log");
    let nowhere = signer.draft().no_member("log");
    not_announced(signer.served().believes(&anchor, &nowhere), "no member `log`");
}

#[test]
fn a_window_is_never_widened() {
    let signer = Signer::new();
    let believes = |draft: Draft| signer.served().believes(&signer.anchor(), &draft);
    not_announced(believes(signer.draft().member("nbf", WINDOW.nbf - 1)), "wider");
    not_announced(believes(signer.draft().member("signs_until", WINDOW.signs_until + 1)), "wider");
    assert_eq!(believes(signer.draft().member("signs_until", NOW)), Ok(()));
    // Narrower than the token: the key is believed, the token is not.
    let narrowed = believes(signer.draft().member("signs_until", NOW - 60)).unwrap_err();
    assert_eq!(narrowed.0, RejectionCode::OutsideKeyWindow);
    let without = signer.draft().no_member("nbf").no_member("signs_until");
    not_announced(believes(without), "no window");
    let other_issuer =
        Announcement { issuer: "https://other.example".to_owned(), ..announcement() };
    let signer = Signer::of(other_issuer);
    let believed = signer.served().believes(&signer.anchor(), &signer.draft());
    not_announced(believed, "announced for issuer `https://other.example`");
}

#[test]
fn a_served_key_does_not_outlive_its_tokens() {
    let old = Announcement { max_lifetime_s: 60, ..announcement() };
    let signer = Signer::of(old);
    let set = KeySet::parse(signer.draft().member("exp", NOW * 2).keys().as_bytes()).unwrap();
    let keys = signer.anchor().announced(&set, NOW, &signer.served(), &mut Recollection::default());
    let believed = &keys.set().unwrap().members()[0];
    assert_eq!(believed.exp, Some(WINDOW.signs_until + 60 + 300));
}

#[test]
fn what_the_living_signer_withdrew_is_gone() {
    let listed = |member: Member| Member { log: None, ..member };
    let other_key = listed(crate::draft::member(other(Algorithm::Es256)));
    let withdrawn = Signer::new().with_key_set(std::slice::from_ref(&other_key), |_| {});
    let believed = |signer: &Signer| signer.served().believes(&signer.anchor(), &signer.draft());
    not_announced(believed(&withdrawn), "does not list it any more");
    // A set that is over, from the future, or another log's says nothing: the signer may be dead.
    let set = |change: fn(&mut Value)| {
        Signer::new().with_key_set(std::slice::from_ref(&other_key), change)
    };
    assert_eq!(believed(&set(|set| set["exp"] = NOW.into())), Ok(()));
    assert_eq!(believed(&set(|set| set["iat"] = (NOW + 31).into())), Ok(()));
    assert_eq!(believed(&set(|set| set["log"] = "x".into())), Ok(()));
    // One that somebody else signed does not count either way.
    let mut forged = set(|_| {});
    forged.key_set = Signer::new().with_key_set(&[], |_| {}).key_set;
    assert_eq!(believed(&forged), Ok(()));
    // The signer's own window counts where it is narrower.
    let narrowed = Member {
        window: Some(Window { nbf: WINDOW.nbf, signs_until: NOW - 60 }),
        ..listed(crate::draft::member(key(Algorithm::Es256)))
    };
    let narrowed = Signer::new().with_key_set(&[narrowed], |_| {});
    assert_eq!(believed(&narrowed).unwrap_err().0, RejectionCode::OutsideKeyWindow);
}

/// What a signer said is not forgotten because it is withheld, or because something older is served.
#[test]
fn a_withdrawal_is_not_unlearnt() {
    let listed = |key| Member { log: None, ..crate::draft::member(key) };
    let (key, other) = (listed(key(Algorithm::Es256)), listed(other(Algorithm::Es256)));
    let signer = Signer::new();
    let (anchor, draft) = (signer.anchor(), signer.draft());
    let set = KeySet::parse(draft.keys().as_bytes()).unwrap();
    let signer = signer.with_key_set(&[key], |_| {});
    let older = signer.key_set.clone().unwrap();
    let signer = signer.with_key_set(&[other], |set| set["seq"] = 2.into());
    let mut recollection = Recollection::default();
    let mut believes = |served: Served<'_>, now| {
        verdict(&draft, anchor.announced(&set, now, &served, &mut recollection))
    };
    let old = || signer.served().with("keys.jwt", older.clone());
    assert_eq!(believes(old(), NOW), Ok(()));
    not_announced(believes(signer.served(), NOW), "does not list it any more");
    not_announced(believes(signer.served().with("keys.jwt", "withheld"), NOW), "any more");
    not_announced(believes(old(), NOW), "does not list it any more");
    // Not when the set that said so is over, either.
    not_announced(believes(signer.served().with("keys.jwt", "withheld"), NOW + 300), "any more");
}

#[test]
fn a_signed_set_that_cannot_be_used_is_not_the_silence_of_a_dead_signer() {
    let signer = Signer::new().with_key_set(&[], |set| set["keys"] = "x".into());
    let believed = signer.served().believes(&signer.anchor(), &signer.draft());
    not_announced(believed, "is not understood");
}

#[test]
fn whoever_serves_the_log_can_only_withhold() {
    let signer = Signer::new();
    let anchor = signer.anchor();
    let believes = |served: Served<'_>| served.believes(&anchor, &signer.draft());
    for path in ["checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"] {
        // What could not be read refutes nothing.
        let outcome = believes(signer.served().with(path, "withheld"));
        assert_eq!(outcome.unwrap_err().0, RejectionCode::KeysUnavailable, "{path}");
        for lie in [vec![], b"x".to_vec(), vec![0; 96], vec![0xff; 9000]] {
            let outcome = believes(signer.served().with(path, lie));
            assert_eq!(outcome.unwrap_err().0, RejectionCode::KeyNotAnnounced, "{path}");
        }
    }
    // An announcement that is not in the tree, with the tile that would fit it.
    let wide = Announcement { nbf: 0, ..announcement() };
    let mut entries = signer.entries.clone();
    entries[1] = Entry::Announcement(wide).encode().unwrap();
    let leaves: Vec<u8> = entries.iter().flat_map(|entry| leaf_hash(entry).0).collect();
    let lied = signer
        .served()
        .with("tile/entries/000.p/3", bundle(&entries))
        .with("tile/0/000.p/3", leaves);
    not_announced(believes(lied), "not under the root");
}

#[test]
fn anchors_are_read_strictly() {
    let signer = Signer::new();
    assert!(signer.anchor().names(signer.id));
    assert_eq!(signer.anchor().logs().collect::<Vec<_>>(), [signer.id]);
    assert_eq!(Anchor::parse("# nothing\n\n").unwrap_err(), AnchorError::Empty);
    let twice = format!("{}\n\n{}\n", signer.name, signer.name);
    assert_eq!(Anchor::parse(&twice).unwrap_err(), AnchorError::Repeated { line: 3 });
    let text = format!("{}\nlog.example/a+00000000+AAAA\n", signer.name);
    assert!(matches!(Anchor::parse(&text), Err(AnchorError::Line { line: 2, .. })));
    let text = Anchor::parse("x").unwrap_err().to_string();
    assert!(text.starts_with("line 1 of the anchor is not an Ed25519 verifier key"), "{text}");
}

#[test]
fn an_anchor_with_both_keys_of_a_log_believes_what_both_signed() {
    let mut signer = Signer::new();
    let public = <[u8; 32]>::try_from(signer.identity.public().raw()).unwrap();
    let origin = format!("log.example/{}", signer.id);
    signer.name = VerifierKey::new_ed25519(&origin, &public).unwrap();
    let second = SigningKey::generate(Algorithm::MlDsa44, RsaBits::B2048).unwrap();
    let public = second.public().raw().try_into().unwrap();
    let key = VerifierKey::new_ml_dsa_44_cosigner(&origin, public).unwrap();
    let both = Anchor::parse(&format!("{}\n{key}\n", signer.name)).unwrap();
    assert_eq!(both.cosigning_key(signer.id), Some(&key));

    let draft = signer.draft();
    assert_eq!(signer.served().believes(&signer.anchor(), &draft), Ok(()));
    let (code, detail) = signer.served().believes(&both, &draft).unwrap_err();
    assert_eq!(code, RejectionCode::KeyNotAnnounced);
    assert!(detail.contains("did not sign the checkpoint"), "{detail}");
    let note = AnchorReader::checkpoint(&signer.served(), signer.id).unwrap();
    let note = String::from_utf8(note).unwrap();
    let text = chancery_tlog::note::Note::parse(note.as_bytes()).unwrap().text;
    let sign = |message: &[u8]| second.sign(message).unwrap();
    let cosigned = Checkpoint::parse(&text).unwrap().cosign(&note, &key, 0, sign).unwrap();
    assert_eq!(signer.served().with("checkpoint", cosigned).believes(&both, &draft), Ok(()));

    let alone = Anchor::parse(&format!("{key}\n")).unwrap_err();
    assert_eq!(alone, AnchorError::CosigningAlone(signer.id));
    let elsewhere = VerifierKey::new_ml_dsa_44_cosigner(&format!("b/{}", signer.id), public);
    let other_name = format!("{}\n{}\n", signer.name, elsewhere.unwrap());
    assert_eq!(Anchor::parse(&other_name).unwrap_err(), AnchorError::CosigningAlone(signer.id));
    let twice = format!("{}\n{key}\n{key}\n", signer.name);
    assert_eq!(Anchor::parse(&twice).unwrap_err(), AnchorError::Repeated { line: 3 });
}
