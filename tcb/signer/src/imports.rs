//! Imported keys: made elsewhere, listed for a while, never signing here. They come with the policy,
//! so its digest covers them, and each stands in the log as an entry of its own kind.

use std::collections::BTreeMap;

use chancery_entry::{Entry, Imported};
use chancery_policy::Policy;
use chancery_token::PublicKey;

use crate::keys::{Keys, announced_jwk};
use crate::log::{self, Log};

/// What the log says of imported keys, by realm and `kid`.
#[derive(Debug, Default)]
pub(crate) struct Imports(BTreeMap<(String, String), Imported>);

/// INVARIANT I3: no key of this signer is somebody else's too, under whichever name.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn check(policy: &Policy, keys: &Keys) -> Result<(), String> {
    for realm in policy.realms() {
        for key in realm.kubernetes.iter().flat_map(|kubernetes| &kubernetes.imported) {
            let public = PublicKey::from_jwk(&key.jwk).map_err(|e| e.to_string())?.kid();
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
                let name = (realm.name.clone(), key.kid.clone());
                let at = self.0.get(&name).map_or(now_s, |known| known.at);
                let wanted = Imported {
                    realm: realm.name.clone(),
                    issuer: realm.issuer.clone(),
                    kid: key.kid.clone(),
                    jwk: announced_jwk(&public),
                    at,
                    until: key.until,
                    in_discovery: key.in_discovery,
                };
                if self.0.get(&name) == Some(&wanted) {
                    listed.insert(name, wanted);
                    continue;
                }
                let wanted = Imported { at: now_s, ..wanted };
                log.append(&Entry::Imported(wanted.clone()))?;
                listed.insert(name, wanted);
            }
        }
        let gone =
            self.0.iter().filter(|(name, key)| !listed.contains_key(*name) && key.until > now_s);
        for (_, key) in gone {
            let taken_back = Imported { at: now_s, until: now_s, ..key.clone() };
            log.append(&Entry::Imported(taken_back))?;
        }
        self.0 = listed;
        Ok(())
    }
}
