//! What a log says about its keys: derived from its entries, entry by entry.
//!
//! The key set of a signer that died is rebuilt from here: what it announced, what each key really
//! signed and until when, what was narrowed or compromised.

mod summary;

use std::collections::{BTreeMap, BTreeSet};

use chancery_entry::{Announcement, Entry, Genesis, PolicyVersion};
use chancery_token::{PublicKey, json, jwks};
use serde::{Deserialize, Serialize};

pub use summary::{Summary, SummaryKey};

/// A thumbprint.
pub type Kid = [u8; 32];

/// Facts about one log's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The first entry.
    pub genesis: Option<Genesis>,
    /// Announced keys.
    keys: BTreeMap<Kid, KeyRecord>,
    /// Keys, of this log or others, that this log declares compromised.
    pub compromised: BTreeSet<Kid>,
    /// The latest policy version and its digest.
    pub policy: Option<PolicyVersion>,
    /// For each log, this one or others, how far its audit is in stored segments.
    pub audited: BTreeMap<[u8; 16], Audited>,
    /// Segments that it says are deleted, by log: number of the first, and how many. Only those that
    /// this service saw logged; nobody asks later.
    pub removed: BTreeSet<([u8; 16], u64, u64)>,
}

/// How far a log's audit is in segments whose digests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// The next segment's number.
    pub segments: u64,
    /// The next record's number.
    pub records: u64,
}

impl Audited {
    /// The farther of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if self.records >= other.records { self } else { other }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyRecord {
    announcement: Announcement,
    announced_at: u64,
    signs_until: u64,
    last_iat: Option<u64>,
    last_exp: u64,
}

impl Ledger {
    /// Takes note of the entry at `index`.
    pub fn apply(&mut self, index: u64, entry: Entry) {
        match entry {
            Entry::Token(token) => {
                if let Some(key) = self.keys.get_mut(&token.kid) {
                    key.last_iat = key.last_iat.max(Some(token.iat));
                    key.last_exp = key.last_exp.max(token.exp);
                }
            }
            Entry::Announcement(announcement) => {
                let record = KeyRecord {
                    announced_at: index,
                    signs_until: announcement.signs_until,
                    last_iat: None,
                    last_exp: 0,
                    announcement,
                };
                self.keys.insert(record.announcement.kid, record);
            }
            Entry::Narrowing(narrowing) => {
                if let Some(key) = self.keys.get_mut(&narrowing.kid) {
                    // A window may be narrowed, never widened.
                    key.signs_until = key.signs_until.min(narrowing.signs_until);
                }
            }
            Entry::Compromise(compromise) => {
                self.compromised.insert(compromise.kid);
            }
            Entry::Genesis(genesis) => self.genesis = Some(genesis),
            Entry::Policy(policy) => self.policy = Some(policy),
            Entry::AuditSegment(segment) => {
                let known = self.audited.entry(segment.log).or_default();
                let stated = Audited {
                    segments: segment.number.saturating_add(1),
                    records: segment.first.saturating_add(segment.records),
                };
                *known = known.max(stated);
            }
            Entry::AuditRemoval(removal) => {
                self.removed.insert((removal.log, removal.first, removal.segments));
            }
            // An imported key signs nothing here: no log's end changes what it is listed for.
            Entry::Void(_) | Entry::Imported(_) | Entry::Appraised(_) => {}
        }
    }

    /// Whether this log announced the key.
    #[must_use]
    pub fn announced(&self, kid: &Kid) -> bool {
        self.keys.contains_key(kid)
    }

    /// Thumbprints of every key that it announced.
    pub fn announced_keys(&self) -> impl Iterator<Item = Kid> {
        self.keys.keys().copied()
    }

    /// Whether a key fell that it announced for the issuer, by its own word or that of `others`.
    #[must_use]
    pub fn has_fallen(&self, issuer: &str, others: &BTreeSet<Kid>) -> bool {
        let mut own = self.keys.iter().filter(|(_, key)| key.announcement.issuer == issuer);
        own.any(|(kid, _)| self.compromised.contains(kid) || others.contains(kid))
    }

    /// The lowest ceiling of a token's lifetime among a realm's keys that sign at `now` or later, in
    /// seconds; `None` without such keys.
    #[must_use]
    pub fn lowest_ceiling(&self, realm: &str, now: u64) -> Option<u64> {
        let signs = |key: &&KeyRecord| {
            key.announcement.realm == realm
                && key.signs_until > now
                && !self.compromised.contains(&key.announcement.kid)
        };
        self.keys.values().filter(signs).map(|key| key.announcement.max_lifetime_s).min()
    }

    /// The key itself and, in its realm, every other key that was pending or active at `at`; the
    /// retired ones too on request. A thief of one has likely seen them all.
    #[must_use]
    pub fn fallen_with(&self, kid: &Kid, at: u64, include_retired: bool) -> Vec<Kid> {
        let Some(named) = self.keys.get(kid) else { return vec![*kid] };
        let fell = |other: &KeyRecord| {
            other.announcement.realm == named.announcement.realm
                && (other.announcement.kid == *kid || include_retired || other.signs_until > at)
        };
        self.keys.values().filter(|k| fell(k)).map(|k| k.announcement.kid).collect()
    }

    /// The keys that live tokens still need after the signer's death: a key that never signed is
    /// dropped, a window is narrowed to the last logged `iat`.
    #[must_use]
    pub fn members_after_death(&self, log: &str, skew_s: u64, now: u64) -> Vec<jwks::Member> {
        let mut members = Vec::new();
        for key in self.keys.values() {
            let Some(last_iat) = key.last_iat else { continue };
            let leaves_at = key.last_exp.saturating_add(skew_s);
            if leaves_at <= now || self.compromised.contains(&key.announcement.kid) {
                continue;
            }
            let parsed = json::parse_object(key.announcement.jwk.as_bytes()).and_then(|mut jwk| {
                jwk.insert("alg".into(), key.announcement.algorithm.clone().into());
                PublicKey::from_jwk(&jwk)
            });
            let Ok(public) = parsed else { continue };
            // An announcement that names another key than it shows is nobody's word for either.
            if *public.kid().as_bytes() != key.announcement.kid {
                continue;
            }
            members.push(jwks::Member {
                kid: public.kid().to_string(),
                key: public,
                issuer: Some(key.announcement.issuer.clone()),
                window: Some(jwks::Window {
                    nbf: key.announcement.nbf,
                    signs_until: key.signs_until.min(last_iat.saturating_add(1)),
                }),
                exp: Some(leaves_at),
                log: Some(format!("{log}.{}", key.announced_at)),
            });
        }
        members
    }

    /// When the last key leaves the set after the signer's death.
    #[must_use]
    pub fn last_needed(&self, skew_s: u64) -> u64 {
        self.keys.values().map(|k| k.last_exp).max().unwrap_or(0).saturating_add(skew_s)
    }
}

#[cfg(test)]
mod tests;
