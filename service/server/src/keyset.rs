//! The key sets that are served: merged from the signers' parts, dead signers' included, until
//! their last token has expired.

mod imports;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use chancery_policy::RealmDocument;
use chancery_token::{b64, json, jwks, jws};

use crate::ledger::{Kid, Ledger};

pub use imports::ImportedKey;

/// A key set as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The JWK Set.
    pub json: Bytes,
    /// Strong entity tag, quoted.
    pub etag: String,
    /// `max-age`, seconds.
    pub max_age_s: u64,
    /// What the set lists.
    pub members: Vec<jwks::Member>,
    /// Imported keys that it does not list.
    pub excluded: Vec<jwks::Member>,
    /// Whether the set lists a key that was made here.
    pub has_own: bool,
    /// Whether it would list another, had that not been declared compromised.
    pub has_fallen: bool,
}

/// All realms' key sets.
#[derive(Debug, Default)]
pub struct KeySets {
    served: RwLock<HashMap<String, Arc<Served>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    realms: Vec<Realm>,
    live: Option<Live>,
    dead: Vec<Past>,
    compromised: BTreeSet<Kid>,
    /// Keys that signers of this deployment made, living and dead: none of them is imported.
    own: BTreeSet<Kid>,
    /// When the next key leaves a set.
    next_change: u64,
}

/// A log whose signer is not attached.
#[derive(Debug)]
struct Past {
    log: String,
    ledger: Ledger,
    /// Until it is known that the signer is dead, what it said itself holds: a relying party must not
    /// lose a key because the service restarted.
    said: Option<Vec<jwks::Member>>,
}

/// The part of the signer that is attached.
#[derive(Debug)]
struct Live {
    log: String,
    members: Vec<jwks::Member>,
}

#[derive(Clone, Debug)]
struct Realm {
    name: String,
    issuer: String,
    max_age_s: u64,
    skew_s: u64,
    /// Keys that were made elsewhere, and whether the set lists them.
    imported: Vec<(jwks::Member, bool)>,
    /// Gone from the policy; its set is served until its last key has left.
    removed: bool,
}

impl KeySets {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key set of a realm; `None` for unknown realms.
    #[must_use]
    pub fn get(&self, realm: &str) -> Option<Arc<Served>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).get(realm).cloned()
    }

    /// Follows the policy's realms.
    pub fn set_realms(&self, realms: &[RealmDocument], now: u64) {
        let mut state = self.state();
        let wanted: Vec<Realm> = realms
            .iter()
            .map(|r| Realm {
                name: r.name.clone(),
                issuer: r.issuer.clone(),
                max_age_s: r.schedule.key_set_max_age_s(),
                skew_s: r.schedule.skew_s,
                imported: imported_by(r),
                removed: false,
            })
            .collect();
        let before = std::mem::replace(&mut state.realms, wanted);
        for realm in before {
            if !state.realms.iter().any(|r| r.name == realm.name) {
                state.realms.push(Realm { removed: true, ..realm });
            }
        }
        self.rebuild(&mut state, now);
    }

    /// Whether every realm of the policy has a key to show.
    #[must_use]
    pub fn are_complete(&self) -> bool {
        let realms: Vec<String> =
            self.state().realms.iter().filter(|r| !r.removed).map(|r| r.name.clone()).collect();
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        realms.iter().all(|name| served.get(name).is_some_and(|s| s.has_own))
    }

    /// Takes the new part of the living signer, whose log this is. A log that was read at start is
    /// a dead signer's until its signer turns out to be alive.
    pub fn set_live(&self, log: &str, keys_jwt: &str) {
        let members = match members_of(keys_jwt) {
            Ok(members) => members,
            Err(e) => {
                tracing::error!("the signer's key set cannot be read: {e}");
                return;
            }
        };
        let mut state = self.state();
        state.own.extend(members.iter().map(|member| *member.key.kid().as_bytes()));
        state.dead.retain(|past| past.log != log);
        state.live = Some(Live { log: log.to_owned(), members });
        self.rebuild(&mut state, crate::now());
    }

    /// A log that was found at start, whose signer may be dead or alive: its keys are as the signer
    /// said last, until the service has attached to it or to another.
    pub fn add_uncertain(&self, log: &str, ledger: Ledger, keys_jwt: Option<&str>, now: u64) {
        let said = keys_jwt.and_then(|keys| members_of(keys).ok());
        self.add_past(Past { log: log.to_owned(), ledger, said }, now);
    }

    /// The living signer died, or a dead one's log was opened: its keys come from its log now.
    /// Those of another signer that lives stay as they are.
    pub fn add_dead(&self, log: &str, ledger: Ledger, now: u64) {
        self.add_past(Past { log: log.to_owned(), ledger, said: None }, now);
    }

    fn add_past(&self, past: Past, now: u64) {
        let mut state = self.state();
        if state.live.as_ref().is_some_and(|live| live.log == past.log) {
            state.live = None;
        }
        state.compromised.extend(past.ledger.compromised.iter().copied());
        state.own.extend(past.ledger.announced_keys());
        state.dead.retain(|other| other.log != past.log);
        state.dead.push(past);
        self.rebuild(&mut state, now);
    }

    /// Keys that must no longer be believed, whichever signer announced them.
    pub fn add_compromised(&self, kids: impl IntoIterator<Item = Kid>, now: u64) {
        let mut state = self.state();
        state.compromised.extend(kids);
        self.rebuild(&mut state, now);
    }

    /// Keys of signers whose logs are not read any more.
    pub fn add_own(&self, kids: impl IntoIterator<Item = Kid>, now: u64) {
        let mut state = self.state();
        state.own.extend(kids);
        self.rebuild(&mut state, now);
    }

    /// Lets keys leave whose time has come; call about once a second.
    pub fn tick(&self, now: u64) {
        let mut state = self.state();
        if now < state.next_change {
            return;
        }
        state.dead.retain(|p| p.said.is_some() || p.ledger.last_needed(MAX_SKEW_S) > now);
        self.rebuild(&mut state, now);
    }

    fn rebuild(&self, state: &mut State, now: u64) {
        let mut sets = HashMap::new();
        let mut next_change = u64::MAX;
        for realm in &state.realms {
            let mut members: Vec<jwks::Member> = Vec::new();
            // A dead signer's members leave out what its own log declares.
            let fell = |past: &Past| past.ledger.has_fallen(&realm.issuer, &state.compromised);
            let mut has_fallen = state.dead.iter().any(fell);
            let speaks = |m: &&jwks::Member| m.issuer.as_deref() == Some(realm.issuer.as_str());
            let dead = state.dead.iter().flat_map(|past| match &past.said {
                Some(said) => said.iter().filter(speaks).cloned().collect(),
                None => past.ledger.members_after_death(&past.log, realm.skew_s, now),
            });
            let live = state.live.iter().flat_map(|live| live.members.iter().filter(speaks));
            for member in live.cloned().chain(dead) {
                let fell = state.compromised.contains(member.key.kid().as_bytes());
                let left = member.exp.is_some_and(|exp| exp <= now);
                let known = members.iter().any(|m| m.kid == member.kid);
                // INVARIANT I3: a key stands only in the set of the issuer that it speaks for.
                has_fallen |= speaks(&&member) && fell && !left;
                if speaks(&&member) && !fell && !left && !known {
                    next_change = next_change.min(member.exp.unwrap_or(u64::MAX));
                    members.push(member);
                }
            }
            if realm.removed && members.is_empty() {
                continue;
            }
            let has_own = !members.is_empty();
            let mut excluded = Vec::new();
            for (member, in_discovery) in &realm.imported {
                let fell = state.compromised.contains(member.key.kid().as_bytes());
                let left = member.exp.is_some_and(|exp| exp <= now);
                let known = members.iter().any(|m| m.kid == member.kid);
                if fell || left || realm.removed || known || state.is_own(member) {
                    continue;
                }
                next_change = next_change.min(member.exp.unwrap_or(u64::MAX));
                if *in_discovery { &mut members } else { &mut excluded }.push(member.clone());
            }
            let json = jwks::to_json(&members);
            let hash = chancery_entry::sha256(json.as_bytes());
            let tag = b64::encode(hash.get(..12).unwrap_or_default());
            let served = Served {
                json: json.into(),
                etag: format!("\"{tag}\""),
                max_age_s: realm.max_age_s,
                members,
                excluded,
                has_own,
                has_fallen,
            };
            sets.insert(realm.name.clone(), Arc::new(served));
        }
        state.realms.retain(|r| !r.removed || sets.contains_key(&r.name));
        state.next_change = next_change;
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = sets;
    }
}

impl State {
    /// INVARIANT I3: whether an imported key is a signer's, or has the name of one.
    fn is_own(&self, member: &jwks::Member) -> bool {
        let named = member.kid.parse::<chancery_token::KeyId>();
        self.own.contains(member.key.kid().as_bytes())
            || named.is_ok_and(|named| self.own.contains(named.as_bytes()))
    }
}

/// Keys that were made elsewhere, as the realm's policy lists them: they have no window, and no log
/// announced them.
fn imported_by(realm: &RealmDocument) -> Vec<(jwks::Member, bool)> {
    let keys = realm.kubernetes.iter().flat_map(|kubernetes| &kubernetes.imported);
    let member = |key: &chancery_policy::document::ImportedKeyDocument| {
        // A policy is checked before it comes here.
        let public = chancery_token::PublicKey::from_jwk(&key.jwk).ok()?;
        let member = jwks::Member {
            kid: key.kid.clone(),
            issuer: Some(realm.issuer.clone()),
            exp: Some(key.until),
            ..jwks::Member::new(public)
        };
        Some((member, key.in_discovery))
    };
    keys.filter_map(member).collect()
}

/// Beyond the largest skew that a policy may state in practice: a dead log's keys are looked at
/// until then.
const MAX_SKEW_S: u64 = 86_400;

/// Reads the members out of a signer's `keys.jwt`. Who relies on them verifies them; the service
/// only serves what its own signer handed to it. One document holds all realms' keys, so the limit
/// that relying parties put on the number of keys in one set does not apply to it.
fn members_of(keys_jwt: &str) -> Result<Vec<jwks::Member>, chancery_token::Error> {
    let compact = jws::parse(keys_jwt, jwks::MAX_SET_BYTES.saturating_mul(2))?;
    let document = json::parse_object(&compact.payload)?;
    let keys = document.get("keys").and_then(serde_json::Value::as_array);
    let objects = keys.into_iter().flatten().filter_map(serde_json::Value::as_object);
    objects.map(jwks::Member::from_jwk).collect()
}

#[cfg(test)]
mod tests;
