//! What the entries say, checked as they are read. Of a signer's log: genesis first, each key announced
//! once, each token inside its key's window. Of a directory: the rules of
//! [`chancery_validate::directory`].

use std::collections::BTreeMap;

use chancery_entry::Entry;
use chancery_entry::directory::DirectoryEntry;
use chancery_tlog::{Hash, LogId};
use chancery_token::b64;
use chancery_validate::directory::Directory;
use serde::{Deserialize, Serialize};

/// What a log is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One signer's keys and tokens.
    Signer,
    /// A deployment's logs.
    Directory,
}

/// An entry of either kind of log.
#[derive(Clone, Debug)]
pub(super) enum Said {
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

/// The story so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Story {
    /// What a directory says; nothing of the rest stands in one.
    pub directory: Directory,
    /// Every checkpoint that a directory holds, by log, where they are collected.
    pub heads: Option<BTreeMap<LogId, Vec<(u64, Hash)>>>,
    windows: BTreeMap<[u8; 32], Window>,
    pub tokens: u64,
    pub voids: u64,
    pub compromised: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    nbf: u64,
    signs_until: u64,
    max_lifetime_s: u64,
}

impl Story {
    /// Announced keys.
    pub fn keys(&self) -> usize {
        self.windows.len()
    }

    /// Takes the entry at `index`; a sentence says what is wrong with it.
    pub fn read(&mut self, index: u64, said: &Said) -> Result<(), String> {
        match said {
            Said::Signer(entry) => self.read_entry(index, entry),
            Said::Directory(entry) => {
                self.directory.apply(index, entry.clone()).map_err(|e| e.to_string())?;
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

    fn read_entry(&mut self, index: u64, entry: &Entry) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("entry {index}: {what}"));
        if (index == 0) != matches!(entry, Entry::Genesis(_)) {
            return wrong("genesis is the first entry and only that");
        }
        match entry {
            Entry::Announcement(a) => {
                if !names_its_key(a) {
                    return wrong("the announcement names another key than it shows");
                }
                let window = Window {
                    nbf: a.nbf,
                    signs_until: a.signs_until,
                    max_lifetime_s: a.max_lifetime_s,
                };
                if self.windows.insert(a.kid, window).is_some() {
                    return wrong("the key was announced before");
                }
            }
            Entry::Narrowing(n) => match self.windows.get_mut(&n.kid) {
                Some(w) if n.signs_until <= w.signs_until => w.signs_until = n.signs_until,
                _ => return wrong("a window can only be narrowed"),
            },
            Entry::Token(t) => {
                self.tokens = self.tokens.saturating_add(1);
                let window = self.windows.get(&t.kid);
                let fits = window.is_some_and(|w| {
                    w.nbf <= t.iat
                        && t.iat < w.signs_until
                        && t.exp.saturating_sub(t.iat) <= w.max_lifetime_s
                });
                if !fits {
                    return wrong("a token outside its key's announced window");
                }
            }
            Entry::Void(v) => {
                self.voids = self.voids.saturating_add(1);
                if v.index >= index {
                    return wrong("voids an entry that is not before it");
                }
            }
            Entry::Compromise(_) => self.compromised = self.compromised.saturating_add(1),
            Entry::Genesis(_) | Entry::Policy(_) | Entry::Imported(_) => {}
        }
        Ok(())
    }
}

fn names_its_key(announcement: &chancery_entry::Announcement) -> bool {
    let jwk = chancery_token::json::parse_object(announcement.jwk.as_bytes());
    let key = jwk.and_then(|jwk| chancery_token::PublicKey::from_jwk(&jwk));
    key.is_ok_and(|k| {
        *k.kid().as_bytes() == announcement.kid && k.algorithm().as_str() == announcement.algorithm
    })
}

/// A story in a resume file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoryText {
    tokens: u64,
    voids: u64,
    compromised: u64,
    keys: Vec<WindowText>,
    /// Entries of a directory that still say something, with their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    directory: Vec<(u64, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowText {
    kid: String,
    nbf: u64,
    signs_until: u64,
    max_lifetime_s: u64,
}

impl From<&Story> for StoryText {
    fn from(story: &Story) -> Self {
        let keys = story.windows.iter().map(|(kid, w)| WindowText {
            kid: b64::encode(kid),
            nbf: w.nbf,
            signs_until: w.signs_until,
            max_lifetime_s: w.max_lifetime_s,
        });
        let parts = story.directory.parts().into_iter();
        let parts = parts.filter_map(|(at, entry)| Some((at, b64::encode(&entry.encode().ok()?))));
        Self {
            tokens: story.tokens,
            voids: story.voids,
            compromised: story.compromised,
            keys: keys.collect(),
            directory: parts.collect(),
        }
    }
}

impl StoryText {
    /// The story of the first `size` entries again; `None` when it is not one.
    pub fn read(&self, size: u64) -> Option<Story> {
        let mut parts = Vec::with_capacity(self.directory.len());
        for (at, entry) in &self.directory {
            parts.push((*at, DirectoryEntry::decode(&b64::decode(entry).ok()?).ok()?));
        }
        let directory = match parts.is_empty() {
            true => Directory::new(),
            false => Directory::from_parts(size, parts).ok()?,
        };
        let mut windows = BTreeMap::new();
        for key in &self.keys {
            let window = Window {
                nbf: key.nbf,
                signs_until: key.signs_until,
                max_lifetime_s: key.max_lifetime_s,
            };
            windows.insert(b64::decode_array(&key.kid).ok()?, window);
        }
        Some(Story {
            directory,
            heads: None,
            windows,
            tokens: self.tokens,
            voids: self.voids,
            compromised: self.compromised,
        })
    }
}
