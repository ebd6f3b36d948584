//! What may follow what in a directory.

use chancery_entry::directory::{DirectoryEntry, LogClosing, LogGenesis};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, Hash, LogId};
use chancery_token::{Algorithm, RsaBits, SigningKey};
use chancery_validate::directory::{Directory, Violation, Wrong, checkpoint_entry};
use proptest::prelude::*;

/// A signer's log, as far as the directory sees it.
struct Log {
    identity: SigningKey,
    key: VerifierKey,
    id: LogId,
}

impl Log {
    fn new() -> Self {
        let identity = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        let public = <[u8; 32]>::try_from(identity.public().raw()).unwrap();
        let id = LogId::of(&public);
        let key = VerifierKey::new_ed25519(&format!("test.example/log/{id}"), &public).unwrap();
        Self { identity, key, id }
    }

    fn genesis_after(&self, predecessor: Option<&Log>) -> DirectoryEntry {
        DirectoryEntry::Genesis(LogGenesis {
            log: *self.id.as_bytes(),
            vkeys: vec![self.key.to_string()],
            genesis_leaf: [7; 32],
            predecessor: predecessor.map(|p| *p.id.as_bytes()),
        })
    }

    fn note(&self, size: u64) -> String {
        let checkpoint = Checkpoint::new(self.key.name(), size, Hash([size as u8; 32])).unwrap();
        checkpoint.sign(&self.key, |body| self.identity.sign(body).unwrap()).unwrap()
    }

    fn checkpoint(&self, size: u64) -> DirectoryEntry {
        DirectoryEntry::Checkpoint(checkpoint_entry(&self.note(size), &self.key).unwrap())
    }

    fn closing(&self, size: u64, successor: Option<&Log>) -> DirectoryEntry {
        DirectoryEntry::Closing(LogClosing {
            log: *self.id.as_bytes(),
            size,
            root: [size as u8; 32],
            successor: successor.map(|s| *s.id.as_bytes()),
        })
    }
}

/// A directory of these entries; it goes through their bytes.
fn of(entries: &[DirectoryEntry]) -> Result<Directory, Violation> {
    let mut directory = Directory::new();
    for entry in entries {
        directory.read(&entry.encode().unwrap())?;
    }
    Ok(directory)
}

/// What is wrong with the last of these entries.
#[track_caller]
fn wrong(entries: &[DirectoryEntry]) -> Wrong {
    let (_, before) = entries.split_last().unwrap();
    of(before).unwrap();
    let violation = of(entries).unwrap_err();
    assert_eq!(violation.index, before.len() as u64);
    violation.wrong
}

#[test]
fn logs_come_grow_and_end() {
    let (first, second) = (Log::new(), Log::new());
    let directory = of(&[
        first.genesis_after(None),
        first.checkpoint(3),
        first.checkpoint(9),
        second.genesis_after(Some(&first)),
        second.checkpoint(2),
        first.closing(9, Some(&second)),
        second.checkpoint(5),
    ])
    .unwrap();
    assert_eq!(directory.size(), 7);
    assert_eq!(directory.logs().count(), 2);
    let ended = directory.log(first.id).unwrap();
    assert_eq!((ended.named_at(), ended.latest().unwrap().0), (0, 2));
    assert_eq!(ended.closing().unwrap().0, 5);
    assert_eq!(directory.successor(first.id), Some(second.id));
    let alive = directory.log(second.id).unwrap();
    assert!(alive.closing().is_none());
    assert_eq!(alive.latest_note(), Some(second.note(5)), "the signed note is all there");
    assert_eq!(alive.key(), &second.key);
    assert_eq!(directory.log(Log::new().id), None);
}

#[test]
fn a_log_enters_once_under_its_own_keys() {
    let (log, other) = (Log::new(), Log::new());
    let genesis = |change: &dyn Fn(&mut LogGenesis)| {
        let DirectoryEntry::Genesis(mut genesis) = log.genesis_after(None) else { panic!() };
        change(&mut genesis);
        DirectoryEntry::Genesis(genesis)
    };
    assert_eq!(
        wrong(&[log.genesis_after(None), log.genesis_after(None)]),
        Wrong::NamedTwice(log.id)
    );
    let of_other = other.key.to_string();
    let lower = log.key.to_string().replacen('/', "//", 1);
    let named =
        VerifierKey::new_ed25519("test.example/a", &log.key.public_key().try_into().unwrap());
    let named = named.unwrap().to_string();
    let keys: [Vec<String>; 6] = [
        vec![],
        vec![of_other.clone()],
        vec!["garbage".into()],
        vec![lower],
        vec![named],
        vec![log.key.to_string(), of_other],
    ];
    for vkeys in keys {
        let entry = genesis(&|g| g.vkeys.clone_from(&vkeys));
        let found = wrong(&[entry]);
        assert!(matches!(found, Wrong::Keys { log: id, .. } if id == log.id), "{vkeys:?}: {found}");
    }
}

#[test]
fn a_log_has_one_successor() {
    let (first, second, third) = (Log::new(), Log::new(), Log::new());
    let begun =
        [first.genesis_after(None), first.checkpoint(1), second.genesis_after(Some(&first))];
    let with = |entry| [begun.as_slice(), &[entry]].concat();
    assert_eq!(
        wrong(&with(third.genesis_after(Some(&first)))),
        Wrong::SecondSuccessor { log: third.id, predecessor: first.id, other: second.id }
    );
    for named in [None, Some(&third)] {
        let closing = with(first.closing(1, named));
        assert_eq!(wrong(&closing), Wrong::OtherSuccessor { log: first.id });
    }
    // A log that ended without a successor gets none later.
    let ended = [first.genesis_after(None), first.checkpoint(1), first.closing(1, None)];
    let late = [ended.as_slice(), &[second.genesis_after(Some(&first))]].concat();
    assert_eq!(wrong(&late), Wrong::Closed(first.id));
    // The continued log need not be known: a directory may begin with an old deployment's last log.
    of(&[second.genesis_after(Some(&first)), second.checkpoint(1)]).unwrap();
    let both = [second.genesis_after(Some(&first)), third.genesis_after(Some(&first))];
    assert!(matches!(wrong(&both), Wrong::SecondSuccessor { .. }));
}

#[test]
fn checkpoints_grow_and_are_the_logs_own() {
    let (log, other) = (Log::new(), Log::new());
    let begun = [log.genesis_after(None), log.checkpoint(5)];
    let with = |entry| [begun.as_slice(), &[entry]].concat();
    for size in [5, 4] {
        let expected = Wrong::NotGrown { log: log.id, size, before: 5 };
        assert_eq!(wrong(&with(log.checkpoint(size))), expected);
    }
    assert_eq!(wrong(&with(other.checkpoint(1))), Wrong::NotNamed(other.id));
    let DirectoryEntry::Checkpoint(mut entry) = log.checkpoint(6) else { panic!() };
    entry.root = [9; 32];
    assert_eq!(wrong(&with(DirectoryEntry::Checkpoint(entry.clone()))), Wrong::Unsigned(log.id));
    entry.size = u64::MAX;
    assert_eq!(wrong(&with(DirectoryEntry::Checkpoint(entry))), Wrong::Unsigned(log.id));
}

#[test]
fn closings_are_final_and_restate_the_end() {
    let log = Log::new();
    let begun = [log.genesis_after(None), log.checkpoint(5)];
    let with = |entry| [begun.as_slice(), &[entry]].concat();
    assert_eq!(wrong(&with(log.closing(4, None))), Wrong::OtherEnd(log.id));
    let early = [log.genesis_after(None), log.closing(0, None)];
    assert_eq!(wrong(&early), Wrong::OtherEnd(log.id), "a log without a checkpoint");
    let ended = with(log.closing(5, None));
    for more in [log.checkpoint(6), log.closing(5, None)] {
        assert_eq!(wrong(&[ended.as_slice(), &[more]].concat()), Wrong::Closed(log.id));
    }
}

#[test]
fn foreign_bytes_and_places_are_refused() {
    let mut directory = Directory::new();
    let violation = directory.read(b"x").unwrap_err();
    assert!(matches!(violation.wrong, Wrong::Entry(_)), "{violation}");
    let token = chancery_entry::TokenEntry::of([1; 32], 1, 2, b"x");
    let token = chancery_entry::Entry::Token(token).encode().unwrap();
    assert!(matches!(directory.read(&token).unwrap_err().wrong, Wrong::Entry(_)));
    assert_eq!(directory, Directory::new(), "nothing changed");
    let (log, other) = (Log::new(), Log::new());
    directory.apply(4, log.genesis_after(None)).unwrap();
    let violation = directory.apply(4, other.genesis_after(None)).unwrap_err();
    assert_eq!(violation.wrong, Wrong::Order(4));
}

proptest! {
    /// Whatever happens, a directory can be taken up again from what still says something.
    #[test]
    fn a_directory_is_taken_up_from_its_parts(steps in proptest::collection::vec((0usize..4, 0u8..4), 0..40)) {
        let logs: Vec<Log> = (0..4).map(|_| Log::new()).collect();
        let mut directory = Directory::new();
        let mut sizes = [0_u64; 4];
        for (which, what) in steps {
            let log = &logs[which];
            let entry = match what {
                0 => log.genesis_after(which.checked_sub(1).map(|p| &logs[p])),
                3 => {
                    let successor = directory.successor(log.id);
                    let successor = logs.iter().find(|l| Some(l.id) == successor);
                    log.closing(sizes[which], successor)
                }
                _ => log.checkpoint(sizes[which] + 1),
            };
            let is_checkpoint = matches!(entry, DirectoryEntry::Checkpoint(_));
            let before = directory.clone();
            match directory.read(&entry.encode().unwrap()) {
                Ok(()) => sizes[which] += u64::from(is_checkpoint),
                Err(_) => prop_assert_eq!(&directory, &before),
            }
        }
        let again = Directory::from_parts(directory.size(), directory.parts());
        prop_assert_eq!(again, Ok(directory.clone()));
        if let Some(short) = directory.size().checked_sub(1) {
            let parts = directory.parts();
            let reaches = parts.last().is_some_and(|(at, _)| *at == short);
            prop_assert_eq!(Directory::from_parts(short, parts).is_err(), reaches);
        }
    }
}
