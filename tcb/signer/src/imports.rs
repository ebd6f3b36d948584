//! Imported keys: made elsewhere, listed for a while, never signing here. They come with the policy,
//! so its digest covers them, and each stands in the log as an entry of its own kind.

use std::collections::{BTreeMap, BTreeSet};

use chancery_entry::{Entry, Imported};
use chancery_policy::Policy;
use chancery_token::{KeyId, PublicKey};

use crate::keys::{Keys, announced_jwk};
use crate::log::{self, Log};

/// The most compromised keys that are remembered: a host that declares more gains nothing but entries.
const MAX_FALLEN: usize = 65_536;
/// The most names of imported keys that are remembered: a signer whose policies name more is at the
/// hands of a host that wants its memory.
const MAX_NAMES: usize = 4_096;

/// What the log says of imported keys, and of those that must not be.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    /// By realm and `kid`.
    listed: BTreeMap<(String, String), Imported>,
    /// Keys that the log declares compromised.
    fallen: BTreeSet<[u8; 32]>,
    /// Whose name a `kid` of a realm is, whether it is still listed or not.
    named: BTreeMap<(String, String), KeyId>,
}

/// INVARIANT I3: no key of this signer is somebody else's too, under whichever name; and no name ever
/// means two keys, because relying parties keep keys by it.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn check(policy: &Policy, keys: &Keys, known: &Imports) -> Result<(), String> {
    for realm in policy.realms() {
        for key in realm.kubernetes.iter().flat_map(|kubernetes| &kubernetes.imported) {
            let public = PublicKey::from_jwk(&key.jwk).map_err(|e| e.to_string())?.kid();
            let name = (realm.name.clone(), key.kid.clone());
            match known.named.get(&name) {
                Some(before) if *before != public => {
                    return Err(format!(
                        "realm `{}` imported another key as `{}` before: a `kid` is never used \
                         again, take another",
                        realm.name, key.kid
                    ));
                }
                None if known.named.len() >= MAX_NAMES => {
                    return Err(format!(
                        "more than {MAX_NAMES} keys were imported since this signer began"
                    ));
                }
                _ => {}
            }
            let own = keys.lanes().flat_map(|lane| &lane.keys).map(|own| own.public.kid());
            for own in own {
                if own == public || own.to_string() == key.kid {
                    return Err(format!(
                        "realm `{}` imports `{}`, which is this signer's own key `{own}`",
                        realm.name, key.kid
                    ));
                }
            }
        }
    }
    Ok(())
}

impl Imports {
    /// A policy was accepted, though it is not in force yet: its names are taken.
    pub(crate) fn note_names(&mut self, policy: &Policy) {
        for realm in policy.realms() {
            for key in realm.kubernetes.iter().flat_map(|kubernetes| &kubernetes.imported) {
                let Ok(public) = PublicKey::from_jwk(&key.jwk) else { continue };
                let name = (realm.name.clone(), key.kid.clone());
                self.named.entry(name).or_insert(public.kid());
            }
        }
    }

    /// The log declares the key compromised.
    pub(crate) fn note_fallen(&mut self, kid: [u8; 32]) {
        if self.fallen.len() < MAX_FALLEN {
            self.fallen.insert(kid);
        }
    }

    fn has_fallen(&self, key: &KeyId) -> bool {
        self.fallen.contains(key.as_bytes())
    }

    /// Brings the log in line with a policy in force: an entry for each key that is new or changed,
    /// and one for each that it no longer lists.
    ///
    /// # Errors
    /// Fatal errors of the log.
    pub(crate) fn follow(
        &mut self,
        policy: &Policy,
        now_s: u64,
        log: &mut Log,
    ) -> Result<(), log::Error> {
        let mut listed = BTreeMap::new();
        for realm in policy.realms() {
            let keys = realm.kubernetes.iter().flat_map(|kubernetes| &kubernetes.imported);
            for key in keys.filter(|key| key.until > now_s) {
                // A policy is checked before it is in force: its keys are keys.
                let Ok(public) = PublicKey::from_jwk(&key.jwk) else { continue };
                // A policy that still names it is no reason to sign nothing.
                if self.has_fallen(&public.kid()) {
                    continue;
                }
                let name = (realm.name.clone(), key.kid.clone());
                let at = self.listed.get(&name).map_or(now_s, |known| known.at);
                let wanted = Imported {
                    realm: realm.name.clone(),
                    issuer: realm.issuer.clone(),
                    kid: key.kid.clone(),
                    jwk: announced_jwk(&public),
                    at,
                    until: key.until,
                    in_discovery: key.in_discovery,
                };
                if self.listed.get(&name) == Some(&wanted) {
                    listed.insert(name, wanted);
                    continue;
                }
                let wanted = Imported { at: now_s, ..wanted };
                log.append(&Entry::Imported(wanted.clone()))?;
                listed.insert(name, wanted);
            }
        }
        let known = self.listed.iter();
        let gone = known.filter(|(name, key)| !listed.contains_key(*name) && key.until > now_s);
        for (_, key) in gone {
            let taken_back = Imported { at: now_s, until: now_s, ..key.clone() };
            log.append(&Entry::Imported(taken_back))?;
        }
        self.listed = listed;
        Ok(())
    }
}
