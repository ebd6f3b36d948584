//! What the entries say, checked as they are read: genesis first, each key announced once, each token
//! inside its key's window.

use std::collections::BTreeMap;

use chancery_entry::Entry;
use chancery_token::b64;
use serde::{Deserialize, Serialize};

/// The story so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Story {
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
    pub fn read(&mut self, index: u64, entry: &Entry) -> Result<(), String> {
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
        Self {
            tokens: story.tokens,
            voids: story.voids,
            compromised: story.compromised,
            keys: keys.collect(),
        }
    }
}

impl StoryText {
    /// The story again; `None` when a key id is none.
    pub fn read(&self) -> Option<Story> {
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
            windows,
            tokens: self.tokens,
            voids: self.voids,
            compromised: self.compromised,
        })
    }
}
