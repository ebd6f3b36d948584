//! INVARIANT I2 with `release = "witnessed"`: a host that shows anything but a cosigned directory root
//! over this signer's own checkpoint, extending the last one, gets no signature.

use std::cell::RefCell;
use std::convert::Infallible;

use chancery_entry::VoidReason;
use chancery_entry::directory::{DirectoryEntry, LogCheckpoint};
use chancery_signer_api::*;
use chancery_tlog::note::{Note, VerifierKey};
use chancery_tlog::{
    Checkpoint, Frontier, Hash, TileId, TileSource, consistency_proof, inclusion_proof, leaf_hash,
};
use chancery_token::{Algorithm, RsaBits, SigningKey};

use crate::support::*;

const DIRECTORY: &str = "issuer.example/directory";
const TIME: u64 = START_MS / 1_000;

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap()
}

fn public(key: &SigningKey) -> [u8; 32] {
    key.public().raw().try_into().unwrap()
}

/// A deployment's directory and its witnesses, two of three to be asked for.
struct World {
    directory: SigningKey,
    vkey: VerifierKey,
    witnesses: Vec<(SigningKey, VerifierKey)>,
    entries: RefCell<Vec<Vec<u8>>>,
}

impl World {
    fn new() -> Self {
        let directory = key();
        let vkey = VerifierKey::new_ed25519(DIRECTORY, &public(&directory)).unwrap();
        let witness = |n: usize| {
            let key = key();
            let name = format!("w.example/{n}");
            let vkey = VerifierKey::new_ed25519_cosigner(&name, &public(&key)).unwrap();
            (key, vkey)
        };
        let witnesses = (0..3).map(witness).collect();
        Self { directory, vkey, witnesses, entries: RefCell::default() }
    }

    fn policy(&self) -> String {
        let mut text = format!("log {}\n", self.vkey);
        for (n, (_, vkey)) in self.witnesses.iter().enumerate() {
            text.push_str(&format!("witness w{n} {vkey}\n"));
        }
        text.push_str("group g 2 w0 w1 w2\nquorum g\n");
        text
    }

    /// Enters a signer's checkpoint, as a note, and answers its index.
    fn enter(&self, note: &str, log: [u8; 16]) -> u64 {
        let note = Note::parse(note.as_bytes()).unwrap();
        let checkpoint = Checkpoint::parse(&note.text).unwrap();
        let entry = DirectoryEntry::Checkpoint(LogCheckpoint {
            log,
            size: checkpoint.size,
            root: checkpoint.root.0,
            signature: note.signatures[0].bytes.as_slice().try_into().unwrap(),
        });
        self.push(entry.encode().unwrap())
    }

    fn push(&self, entry: Vec<u8>) -> u64 {
        self.entries.borrow_mut().push(entry);
        self.size() - 1
    }

    fn size(&self) -> u64 {
        self.entries.borrow().len() as u64
    }

    fn root(&self) -> Hash {
        let mut tree = Frontier::new();
        self.entries.borrow().iter().for_each(|entry| tree.append(leaf_hash(entry)));
        tree.root()
    }

    /// The directory's checkpoint, cosigned by these witnesses.
    fn cosigned(&self, by: &[usize]) -> String {
        let checkpoint = Checkpoint::new(DIRECTORY, self.size(), self.root()).unwrap();
        let signed = checkpoint.sign(&self.vkey, |m| self.directory.sign(m).unwrap()).unwrap();
        let mut note = Note::parse(signed.as_bytes()).unwrap();
        for at in by {
            let (key, vkey) = &self.witnesses[*at];
            note.add_cosignature(vkey, TIME, |m| key.sign(m).unwrap()).unwrap();
        }
        note.encode()
    }

    /// What an honest service shows, with the directory root of size `before` shown last.
    fn shown(&self, index: u64, before: u64) -> Witnessed {
        let plain = |proof: Vec<Hash>| proof.into_iter().map(|h| h.0.into()).collect::<Vec<_>>();
        let consistency = consistency_proof(self, before, self.size()).unwrap();
        Witnessed {
            checkpoint: self.cosigned(&[0, 2]),
            consistency: plain(consistency),
            index,
            entry: self.entries.borrow()[index as usize].clone().into(),
            inclusion: plain(inclusion_proof(self, index, self.size()).unwrap()),
        }
    }
}

impl TileSource for World {
    type Error = Infallible;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, Infallible> {
        assert_eq!((id.level, id.index), (0, 0), "a small directory");
        let entries = self.entries.borrow();
        let first = entries.iter().take(usize::from(id.width));
        Ok(first.flat_map(|entry| leaf_hash(entry).0).collect())
    }
}

fn host(world: &World) -> Host {
    Host::with(|policy| policy.witnessed = Some(world.policy()))
}

/// An open batch with one token, its checkpoint in the directory at the answered index.
fn batch(host: &mut Host, world: &World) -> (Prepared, u64) {
    let request = host.assertion();
    let prepared = host.prepare(vec![request]);
    let index = world.enter(&prepared.checkpoint, *host.signer.log_id().as_bytes());
    (prepared, index)
}

fn commit_of(prepared: &Prepared) -> Request {
    Request::Commit(Commit { batch: prepared.batch })
}

fn show(host: &mut Host, shown: &Witnessed) -> Result<Covered, String> {
    match host.signer.handle(Request::Witnessed(shown.clone())) {
        Response::Covered(covered) => Ok(covered),
        Response::Fault(fault) => {
            assert_eq!(fault.code, FaultCode::NotWitnessed);
            Err(fault.detail)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_leaves_only_under_a_witnessed_root() {
    let world = World::new();
    let mut host = host(&world);
    world.push(b"something else".to_vec());
    let mut before = 0;
    for turn in 0..5 {
        let (prepared, index) = batch(&mut host, &world);
        assert_eq!(host.fault(commit_of(&prepared)), FaultCode::NotWitnessed, "turn {turn}");
        let covered = show(&mut host, &world.shown(index, before)).unwrap();
        let size = prepared.first_index + prepared.entries.len() as u64;
        assert_eq!(covered, Covered { size, directory_size: world.size() });
        before = world.size();
        assert!(host.commit().tokens[0].is_some());
        world.push(format!("other {turn}").into_bytes());
    }
}

#[test]
fn one_root_may_cover_several_batches() {
    let world = World::new();
    let mut host = host(&world);
    let (first, _) = batch(&mut host, &world);
    let (second, index) = batch(&mut host, &world);
    show(&mut host, &world.shown(index, 0)).unwrap();
    assert_eq!((first.batch + 1, host.open.len()), (second.batch, 2));
    assert!(host.commit().tokens[0].is_some());
    assert!(host.commit().tokens[0].is_some());
}

#[test]
fn nothing_else_covers_a_batch() {
    let world = World::new();
    let mut host = host(&world);
    let (prepared, index) = batch(&mut host, &world);
    let good = world.shown(index, 0);
    let mut bad: Vec<(&str, Witnessed)> = Vec::new();
    let mut change = |why, act: &dyn Fn(&mut Witnessed)| {
        let mut shown = good.clone();
        act(&mut shown);
        bad.push((why, shown));
    };
    change("quorum", &|s| s.checkpoint = world.cosigned(&[1]));
    change("quorum", &|s| s.checkpoint = world.cosigned(&[]));
    change("note", &|s| s.checkpoint = "x".repeat(1_000_000));
    change("note", &|s| s.checkpoint.clear());
    change("not in the directory", &|s| s.index += 1);
    change("not in the directory", &|s| s.inclusion.push([0; 32].into()));
    change("at most 63", &|s| s.inclusion = vec![[0; 32].into(); 100]);
    change("no directory root", &|s| s.consistency.push([0; 32].into()));
    change("", &|s| s.entry = Vec::new().into());
    // Witnesses of another directory, with the same name.
    let other = World::new();
    other.enter(&prepared.checkpoint, *host.signer.log_id().as_bytes());
    bad.push(("", other.shown(0, 0)));
    // Another signer's checkpoint, one that nobody signed, and an entry of another kind.
    let mut stranger = Host::started();
    let (theirs, _) = batch(&mut stranger, &World::new());
    let at = world.enter(&theirs.checkpoint, *stranger.signer.log_id().as_bytes());
    bad.push(("another log", world.shown(at, 0)));
    let at = world.enter(&theirs.checkpoint, *host.signer.log_id().as_bytes());
    bad.push(("never signed", world.shown(at, 0)));
    let forged = prepared.checkpoint.replacen("\n4\n", "\n9\n", 1);
    assert_ne!(forged, prepared.checkpoint);
    let at = world.enter(&forged, *host.signer.log_id().as_bytes());
    bad.push(("never signed", world.shown(at, 0)));
    for (turn, (why, shown)) in bad.iter().enumerate() {
        let refused = show(&mut host, shown).unwrap_err();
        assert!(refused.contains(why), "turn {turn}: {refused}");
        assert_eq!(host.fault(commit_of(&prepared)), FaultCode::NotWitnessed, "turn {turn}");
    }
    // An older checkpoint of this signer covers less.
    show(&mut host, &good_again(&world, index)).unwrap();
    let (next, _) = batch(&mut host, &world);
    let known = world.size();
    show(&mut host, &world.shown(index, known - 1)).unwrap();
    assert!(host.commit().tokens[0].is_some());
    assert_eq!(host.fault(commit_of(&next)), FaultCode::NotWitnessed);
}

fn good_again(world: &World, index: u64) -> Witnessed {
    world.shown(index, 0)
}

#[test]
fn a_directory_that_forgets_or_forks_is_refused_although_witnesses_cosigned_it() {
    let world = World::new();
    let mut host = host(&world);
    let log = *host.signer.log_id().as_bytes();
    for n in 0..5 {
        world.push(format!("entry {n}").into_bytes());
    }
    let (_, index) = batch(&mut host, &world);
    show(&mut host, &world.shown(index, 0)).unwrap();
    host.commit();
    let known = world.size();
    let (prepared, _) = batch(&mut host, &world);
    // Rolled back to fewer entries, or to others.
    let honest: Vec<_> = world.entries.borrow().clone();
    *world.entries.borrow_mut() = honest[..2].to_vec();
    let at = world.enter(&prepared.checkpoint, log);
    assert!(show(&mut host, &world.shown(at, 0)).is_err());
    let mut forked = honest.clone();
    forked[1] = b"another history".to_vec();
    *world.entries.borrow_mut() = forked;
    let last = world.size() - 1;
    let refused = show(&mut host, &world.shown(last, known)).unwrap_err();
    assert!(refused.contains("does not extend"), "{refused}");
    assert_eq!(host.fault(commit_of(&prepared)), FaultCode::NotWitnessed);
    *world.entries.borrow_mut() = honest;
    show(&mut host, &world.shown(last, known)).unwrap();
    assert!(host.commit().tokens[0].is_some());
}

#[test]
fn without_witnesses_a_batch_is_void_after_its_time_and_the_log_goes_on() {
    let world = World::new();
    let mut host = host(&world);
    let (prepared, _) = batch(&mut host, &world);
    host.pass_ms(29_999);
    assert_eq!(host.fault(commit_of(&prepared)), FaultCode::NotWitnessed);
    host.pass_ms(1);
    assert_eq!(host.commit().tokens, [None]);
    host.prepare(Vec::new());
    host.commit();
    let index = granted(&prepared)[0].index;
    assert_eq!(host.voids(), [(index, VoidReason::NotCommitted)]);
}

#[test]
fn a_service_that_comes_back_gets_no_token_that_was_not_witnessed() {
    let world = World::new();
    let mut host = host(&world);
    let (prepared, _) = batch(&mut host, &world);
    assert_eq!(host.reconnect().open, [prepared]);
    assert_eq!(host.commit().tokens, [None]);
    host.prepare(Vec::new());
    host.commit();
    assert_eq!(host.voids().len(), 1);
}

#[test]
fn a_living_signer_neither_drops_nor_gains_nor_changes_its_witnesses() {
    let world = World::new();
    let load = |host: &mut Host, witnessed: Option<String>| {
        let mut policy = host.policy.clone();
        policy.version += 1;
        policy.witnessed = witnessed;
        let policy = policy.to_json().unwrap().into();
        host.signer.handle(Request::LoadPolicy(LoadPolicy { policy }))
    };
    let refused = |response| matches!(response, Response::Fault(f) if f.code == FaultCode::Policy);
    let mut witnessed = host(&world);
    assert!(refused(load(&mut witnessed, None)));
    assert!(refused(load(&mut witnessed, Some(World::new().policy()))));
    assert!(matches!(load(&mut witnessed, Some(world.policy())), Response::PolicyLoaded(_)));
    let mut committed = Host::started();
    assert!(refused(load(&mut committed, Some(world.policy()))));
    let shown = Witnessed {
        checkpoint: String::new(),
        consistency: vec![],
        index: 0,
        entry: vec![].into(),
        inclusion: vec![],
    };
    assert!(show(&mut committed, &shown).unwrap_err().contains("asks for no witnesses"));
}
