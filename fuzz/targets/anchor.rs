//! The trust anchor: whoever serves a log can withhold, but cannot make a key believed that the log
//! does not announce.
//!
//! The first octet says which object is replaced by the rest, of a log with two announcements: that of
//! the served key is at place 1, and place 0 announces another one. The served set points to place 0 if
//! the octet is odd.

#![no_main]

use chancery_entry::{Announcement, Entry, Start};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, EntriesTileId, LogId, TileBuilder, TileId, encode_entry, leaf_hash,
};
use chancery_token::jwks::{KeySet, Member, Window};
use chancery_token::{Algorithm, RsaBits, SigningKey};
use chancery_validate::anchor::{Anchor, AnchorReader, DirectoryObject, Recollection};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const ISSUER: &str = "https://issuer.example/main";
const NOW: u64 = 1_800_000_000;
const WINDOW: Window = Window { nbf: NOW - 60, signs_until: NOW + 60 };

struct Log {
    anchor: Anchor,
    id: LogId,
    checkpoint: Vec<u8>,
    tile: Vec<u8>,
    entries: Vec<u8>,
    key: SigningKey,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let generate = || SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).expect("a key");
    let (identity, key, other) = (generate(), generate(), generate());
    let public = <[u8; 32]>::try_from(identity.public().raw()).expect("32 octets");
    let name = VerifierKey::new_ed25519("log.example/a", &public).expect("a name");
    let mut tree = TileBuilder::new();
    let (mut tile, mut entries) = (Vec::new(), Vec::new());
    for key in [&other, &key] {
        let entry = Entry::Announcement(Announcement {
            realm: "main".to_owned(),
            issuer: ISSUER.to_owned(),
            jwk: key.public().canonical_jwk(),
            kid: *key.public().kid().as_bytes(),
            algorithm: "Ed25519".to_owned(),
            nbf: WINDOW.nbf,
            signs_until: WINDOW.signs_until,
            max_lifetime_s: 3600,
            start: Start::First,
        });
        let entry = entry.encode().expect("an entry");
        tile.extend_from_slice(&leaf_hash(&entry).0);
        encode_entry(&mut entries, &entry).expect("a bundle");
        tree.append(leaf_hash(&entry));
    }
    let checkpoint = Checkpoint::new(name.name(), tree.size(), tree.root()).expect("a checkpoint");
    let note = checkpoint.sign(&name, |body| identity.sign(body).expect("a signature"));
    let checkpoint = note.expect("a note").into_bytes();
    let anchor = Anchor::parse(&name.to_string()).expect("an anchor");
    Log { anchor, id: LogId::of(&public), checkpoint, tile, entries, key }
});

struct Served<'d> {
    which: u8,
    bytes: &'d [u8],
}

impl Served<'_> {
    fn answer(&self, which: u8, truth: &[u8]) -> Result<Vec<u8>, &'static str> {
        Ok(if self.which == which { self.bytes } else { truth }.to_vec())
    }
}

impl AnchorReader for Served<'_> {
    type Error = &'static str;

    fn checkpoint(&self, _: LogId) -> Result<Vec<u8>, &'static str> {
        self.answer(0, &LOG.checkpoint)
    }

    fn tile(&self, _: LogId, _: TileId) -> Result<Vec<u8>, &'static str> {
        self.answer(1, &LOG.tile)
    }

    fn entries(&self, _: LogId, _: EntriesTileId) -> Result<Vec<u8>, &'static str> {
        self.answer(2, &LOG.entries)
    }

    fn key_set(&self, _: LogId) -> Result<Vec<u8>, &'static str> {
        if self.which == 3 { Ok(self.bytes.to_vec()) } else { Err("withheld") }
    }

    fn directory(&self, _: DirectoryObject) -> Result<Vec<u8>, &'static str> {
        Err("the anchor names no directory")
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else { return };
    let (wrong, served) = (first % 2 == 1, Served { which: first / 2 % 8, bytes });
    let member = Member {
        issuer: Some(ISSUER.to_owned()),
        window: Some(WINDOW),
        log: Some(format!("{}.{}", LOG.id, u8::from(!wrong))),
        ..Member::new(LOG.key.public().clone())
    };
    let set = KeySet::from_members(vec![member]).expect("a set of one key");
    let keys = LOG.anchor.announced(&set, NOW, &served, &mut Recollection::default());
    let believed = keys.kids().count() == 1;
    assert!(!(believed && wrong), "a key at another's announcement");
    let truth = match served.which {
        1 => bytes == LOG.tile,
        2 => bytes == LOG.entries,
        // A note may carry more signatures, so other bytes can be right as well.
        0 => return,
        _ => true,
    };
    assert_eq!(believed, truth && !wrong);
});
