//! The key sets that are served: merged from the signers' parts, dead signers' included, until
//! their last token has expired.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use chancery_policy::RealmDocument;
use chancery_token::{b64, json, jwks, jws};

use crate::ledger::{Kid, Ledger};

/// A key set as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The JWK Set.
    pub json: Bytes,
    /// Strong entity tag, quoted.
    pub etag: String,
    /// `max-age`, seconds.
    pub max_age_s: u64,
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
    dead: Vec<(String, Ledger)>,
    compromised: BTreeSet<Kid>,
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
        state.realms = realms
            .iter()
            .map(|r| Realm {
                name: r.name.clone(),
                issuer: r.issuer.clone(),
                max_age_s: r.schedule.key_set_max_age_s(),
                skew_s: r.schedule.skew_s,
            })
            .collect();
        self.rebuild(&state, now);
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
        state.dead.retain(|(id, _)| id != log);
        state.live = Some(Live { log: log.to_owned(), members });
        self.rebuild(&state, crate::now());
    }

    /// The living signer died, or a dead one's log was opened: its keys come from its log now.
    /// Those of another signer that lives stay as they are.
    pub fn add_dead(&self, log: &str, ledger: Ledger, now: u64) {
        let mut state = self.state();
        if state.live.as_ref().is_some_and(|live| live.log == log) {
            state.live = None;
        }
        state.compromised.extend(ledger.compromised.iter().copied());
        state.dead.retain(|(id, _)| id != log);
        state.dead.push((log.to_owned(), ledger));
        self.rebuild(&state, now);
    }

    /// Keys that must no longer be believed, whichever signer announced them.
    pub fn add_compromised(&self, kids: impl IntoIterator<Item = Kid>, now: u64) {
        let mut state = self.state();
        state.compromised.extend(kids);
        self.rebuild(&state, now);
    }

    /// Lets keys leave whose time has come; call about once a second.
    pub fn tick(&self, now: u64) {
        let mut state = self.state();
        state.dead.retain(|(_, ledger)| ledger.last_needed(MAX_SKEW_S) > now);
        self.rebuild(&state, now);
    }

    fn rebuild(&self, state: &State, now: u64) {
        let mut sets = HashMap::new();
        for realm in &state.realms {
            let mut members: Vec<jwks::Member> = Vec::new();
            let dead = state
                .dead
                .iter()
                .flat_map(|(log, ledger)| ledger.members_after_death(log, realm.skew_s, now));
            let live = state.live.iter().flat_map(|live| live.members.iter().cloned());
            for member in live.chain(dead) {
                let fell = state.compromised.contains(member.key.kid().as_bytes());
                let left = member.exp.is_some_and(|exp| exp <= now);
                let known = members.iter().any(|m| m.kid == member.kid);
                // INVARIANT I3: a key stands only in the set of the issuer that it speaks for.
                if member.issuer.as_deref() == Some(realm.issuer.as_str())
                    && !fell
                    && !left
                    && !known
                {
                    members.push(member);
                }
            }
            let json = jwks::to_json(&members);
            let hash = chancery_entry::sha256(json.as_bytes());
            let tag = b64::encode(hash.get(..12).unwrap_or_default());
            let served = Served {
                json: json.into(),
                etag: format!("\"{tag}\""),
                max_age_s: realm.max_age_s,
            };
            sets.insert(realm.name.clone(), Arc::new(served));
        }
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = sets;
    }
}

/// Beyond the largest skew that a policy may state in practice: a dead log's keys are looked at
/// until then.
const MAX_SKEW_S: u64 = 86_400;

/// Reads the members out of a signer's `keys.jwt`. Who relies on them verifies them; the service
/// only serves what its own signer handed to it.
fn members_of(keys_jwt: &str) -> Result<Vec<jwks::Member>, chancery_token::Error> {
    let compact = jws::parse(keys_jwt, jwks::MAX_SET_BYTES.saturating_mul(2))?;
    let set = jwks::KeySet::from_object(&json::parse_object(&compact.payload)?)?;
    Ok(set.members().to_vec())
}

#[cfg(test)]
mod tests;
