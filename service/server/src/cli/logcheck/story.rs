//! What the entries say, checked as they are read. Of a signer's log: genesis first, each key announced
//! once, each token inside its key's window. Of a directory: the rules of
//! [`chancery_validate::directory`].

use std::collections::{BTreeMap, BTreeSet};

use chancery_entry::directory::DirectoryEntry;
use chancery_entry::{Announcement, AuditRemoval, AuditSegment, Entry, Imported, TokenEntry};
use chancery_tlog::{Hash, LogId};
use chancery_token::{PublicKey, b64};
use chancery_validate::directory::Directory;
use serde::{Deserialize, Serialize};

/// What a log is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    /// One signer's keys and tokens.
    Signer,
    /// A deployment's logs.
    Directory,
}

/// An entry of either kind of log.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Said {
    Signer(Entry),
    Directory(DirectoryEntry),
}

impl Kind {
    /// Reads an entry of such a log.
    pub fn decode(self, bytes: &[u8]) -> Result<Said, chancery_entry::Error> {
        match self {
            Kind::Signer => Entry::decode(bytes).map(Said::Signer),
            Kind::Directory => DirectoryEntry::decode(bytes).map(Said::Directory),
        }
    }
}

/// A sentence of a log that contradicts an earlier one, though every hash agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Contradiction {
    /// A stable word for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub what: String,
}

/// A key's thumbprint.
pub(in crate::cli) type Kid = [u8; 32];

/// The story so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Story {
    /// What a directory says; nothing of the rest stands in one.
    pub directory: Directory,
    /// Every checkpoint that a directory holds, by log, where they are collected.
    pub heads: Option<BTreeMap<LogId, Vec<(u64, Hash)>>>,
    keys: BTreeMap<Kid, Key>,
    pub tokens: u64,
    pub voids: u64,
    /// Keys of this log or of others that must no longer be believed.
    fallen: BTreeSet<Kid>,
    imports: Vec<Import>,
    /// Entries from the first on that were pruned: what they said is not known, nor whether those
    /// after them agree with it.
    pub pruned: u64,
    /// The signer's second identity key, as the genesis states it.
    pub cosigning_key: Option<Vec<u8>>,
    /// What the service stated of its audit; not kept in resume files.
    pub audits: Vec<AuditSegment>,
    /// Which segments it stated as deleted; not kept either.
    pub removals: Vec<AuditRemoval>,
}

/// A key that was made elsewhere and is listed for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Import {
    pub realm: String,
    /// As its maker calls it.
    pub kid: String,
    pub issuer: String,
    /// The public JWK.
    jwk: String,
    pub until: u64,
    /// Whether everybody sees it; resume files of older versions do not say.
    #[serde(default = "yes")]
    pub in_discovery: bool,
}

const fn yes() -> bool {
    true
}

impl Import {
    /// The key's thumbprint.
    pub fn thumbprint(&self) -> Option<Kid> {
        parse_key(&self.jwk).map(|key| *key.kid().as_bytes())
    }

    /// Whether it is this key.
    pub fn is(&self, key: &PublicKey) -> bool {
        parse_key(&self.jwk).is_some_and(|own| own == *key)
    }
}

/// An announced key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Key {
    /// Index of its announcement.
    pub announced_at: u64,
    pub realm: String,
    pub issuer: String,
    pub nbf: u64,
    /// End of its window as announced.
    pub announced_until: u64,
    /// The same, narrowed where the log says so.
    pub signs_until: u64,
    pub max_lifetime_s: u64,
}

impl Story {
    /// The announced keys.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = (&Kid, &Key)> {
        self.keys.iter()
    }

    /// Keys, of this log or of others, that it declares compromised.
    pub fn fallen(&self) -> &BTreeSet<Kid> {
        &self.fallen
    }

    /// Keys that were made elsewhere.
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    fn import(&mut self, said: &Imported) {
        self.imports.retain(|known| (&known.realm, &known.kid) != (&said.realm, &said.kid));
        if said.until > said.at {
            self.imports.push(Import {
                realm: said.realm.clone(),
                kid: said.kid.clone(),
                issuer: said.issuer.clone(),
                jwk: said.jwk.clone(),
                until: said.until,
                in_discovery: said.in_discovery,
            });
        }
    }

    fn announce(&mut self, index: u64, said: &Announcement) -> Result<(), Contradiction> {
        if !names_its_key(said) {
            return wrong("other_key", "the announcement names another key than it shows");
        }
        if said.nbf >= said.signs_until {
            return wrong("empty_window", "a window that ends before it begins");
        }
        let key = Key {
            announced_at: index,
            realm: said.realm.clone(),
            issuer: said.issuer.clone(),
            nbf: said.nbf,
            announced_until: said.signs_until,
            signs_until: said.signs_until,
            max_lifetime_s: said.max_lifetime_s,
        };
        match self.keys.insert(said.kid, key) {
            None => Ok(()),
            Some(_) => wrong("announced_twice", "the key was announced before"),
        }
    }

    fn take_token(&mut self, token: &TokenEntry) -> Result<(), Contradiction> {
        self.tokens = self.tokens.saturating_add(1);
        let Some(key) = self.keys.get(&token.kid) else {
            return wrong("not_announced", "a token of a key that was not announced before");
        };
        let lifetime = token.exp.saturating_sub(token.iat);
        if token.iat < key.nbf || token.iat >= key.signs_until || lifetime > key.max_lifetime_s {
            return wrong("outside_window", "a token outside its key's announced window");
        }
        if self.fallen.contains(&token.kid) {
            return wrong("after_compromise", "a token of a key that was compromised before");
        }
        Ok(())
    }
}

/// Reading.
impl Story {
    /// Takes the entry at `index`, the next one.
    pub fn read(&mut self, index: u64, said: &Said) -> Result<(), Contradiction> {
        match said {
            Said::Signer(entry) => self.read_entry(index, entry),
            Said::Directory(entry) => {
                if let Err(e) = self.directory.apply(index, entry.clone()) {
                    return wrong("directory", &e.wrong.to_string());
                }
                self.note_head(entry);
                Ok(())
            }
        }
    }

    fn note_head(&mut self, entry: &DirectoryEntry) {
        let (Some(heads), DirectoryEntry::Checkpoint(head)) = (&mut self.heads, entry) else {
            return;
        };
        let log = LogId::from_bytes(head.log);
        heads.entry(log).or_default().push((head.size, Hash(head.root)));
    }

    fn read_entry(&mut self, index: u64, entry: &Entry) -> Result<(), Contradiction> {
        if self.pruned > 0 {
            match entry {
                Entry::AuditSegment(a) => self.audits.push(a.clone()),
                Entry::AuditRemoval(r) => self.removals.push(r.clone()),
                _ => {}
            }
            return Ok(());
        }
        if (index == 0) != matches!(entry, Entry::Genesis(_)) {
            return wrong("genesis", "genesis is the first entry and only that");
        }
        match entry {
            Entry::Announcement(said) => return self.announce(index, said),
            Entry::Token(token) => return self.take_token(token),
            Entry::Narrowing(n) => match self.keys.get_mut(&n.kid) {
                Some(key) if n.signs_until <= key.signs_until => key.signs_until = n.signs_until,
                _ => return wrong("widened", "a window can only be narrowed"),
            },
            Entry::Void(v) => {
                self.voids = self.voids.saturating_add(1);
                if v.index >= index {
                    return wrong("void", "voids an entry that is not before it");
                }
            }
            Entry::Compromise(c) => {
                self.fallen.insert(c.kid);
            }
            Entry::Imported(said) => self.import(said),
            Entry::AuditSegment(a) => self.audits.push(a.clone()),
            Entry::AuditRemoval(r) => self.removals.push(r.clone()),
            Entry::Genesis(genesis) => self.cosigning_key.clone_from(&genesis.cosigning_key),
            Entry::Policy(_) | Entry::Appraised(_) => {}
        }
        Ok(())
    }
}

fn wrong(code: &'static str, what: &str) -> Result<(), Contradiction> {
    Err(Contradiction { code, what: what.to_owned() })
}

fn names_its_key(announcement: &Announcement) -> bool {
    parse_key(&announcement.jwk).is_some_and(|k| {
        *k.kid().as_bytes() == announcement.kid && k.algorithm().as_str() == announcement.algorithm
    })
}

fn parse_key(jwk: &str) -> Option<PublicKey> {
    let jwk = chancery_token::json::parse_object(jwk.as_bytes()).ok()?;
    PublicKey::from_jwk(&jwk).ok()
}

/// A story in a resume file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoryText {
    tokens: u64,
    voids: u64,
    fallen: Vec<String>,
    imports: Vec<Import>,
    keys: BTreeMap<String, Key>,
    #[serde(default)]
    pruned: u64,
    /// Entries of a directory that still say something, with their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    directory: Vec<(u64, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cosigning_key: Option<String>,
}

impl From<&Story> for StoryText {
    fn from(story: &Story) -> Self {
        let keys = story.keys.iter().map(|(kid, key)| (b64::encode(kid), key.clone()));
        let parts = story.directory.parts().into_iter();
        let parts = parts.filter_map(|(at, entry)| Some((at, b64::encode(&entry.encode().ok()?))));
        Self {
            directory: parts.collect(),
            pruned: story.pruned,
            tokens: story.tokens,
            voids: story.voids,
            fallen: story.fallen.iter().map(|kid| b64::encode(kid)).collect(),
            imports: story.imports.clone(),
            keys: keys.collect(),
            cosigning_key: story.cosigning_key.as_deref().map(b64::encode),
        }
    }
}

impl StoryText {
    /// The story of the first `size` entries again; `None` when it is not one.
    pub fn read(self, size: u64) -> Option<Story> {
        let mut parts = Vec::with_capacity(self.directory.len());
        for (at, entry) in &self.directory {
            parts.push((*at, DirectoryEntry::decode(&b64::decode(entry).ok()?).ok()?));
        }
        let directory = match parts.is_empty() {
            true => Directory::new(),
            false => Directory::from_parts(size, parts).ok()?,
        };
        let id = |text: &String| b64::decode_array(text).ok();
        let keys = self.keys.into_iter().map(|(kid, key)| Some((id(&kid)?, key)));
        Some(Story {
            directory,
            heads: None,
            keys: keys.collect::<Option<_>>()?,
            tokens: self.tokens,
            voids: self.voids,
            fallen: self.fallen.iter().map(id).collect::<Option<_>>()?,
            imports: self.imports,
            pruned: self.pruned,
            cosigning_key: self.cosigning_key.map(|key| b64::decode(&key)).transpose().ok()?,
            audits: Vec::new(),
            removals: Vec::new(),
        })
    }
}
