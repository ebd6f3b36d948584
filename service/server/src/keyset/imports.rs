//! Keys that were made elsewhere, as operators see them.

use chancery_policy::RealmDocument;
use chancery_token::{KeyId, PublicKey, jwks};

use super::KeySets;
use crate::ledger::Kid;

/// An imported key, as the policy in force lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedKey {
    /// The realm.
    pub realm: String,
    /// As the key's tokens name it.
    pub kid: String,
    /// RFC 7638 thumbprint, base64url.
    pub thumbprint: String,
    /// As JOSE names it.
    pub algorithm: &'static str,
    /// `imported`, or `compromised`, `refused` (a signer's own key), or `over`: only the first is shown
    /// to anybody.
    pub state: &'static str,
    /// Unix seconds from which on it is no longer listed.
    pub until: u64,
    /// Whether the realm's key set lists it.
    pub in_discovery: bool,
}

impl KeySets {
    /// Every imported key of the policy in force.
    #[must_use]
    pub fn imported(&self) -> Vec<ImportedKey> {
        let now = crate::now();
        let state = self.state();
        let mut all = Vec::new();
        for realm in state.realms.iter().filter(|realm| !realm.removed) {
            for (member, in_discovery) in &realm.imported {
                let thumbprint = member.key.kid();
                let until = member.exp.unwrap_or(0);
                all.push(ImportedKey {
                    realm: realm.name.clone(),
                    kid: member.kid.clone(),
                    thumbprint: thumbprint.to_string(),
                    algorithm: member.key.algorithm().as_str(),
                    state: match state.compromised.contains(thumbprint.as_bytes()) {
                        true => "compromised",
                        false if state.is_own(member) => "refused",
                        false if until <= now => "over",
                        false => "imported",
                    },
                    until,
                    in_discovery: *in_discovery,
                });
            }
        }
        all
    }

    /// Whether the policy in force imports the key.
    #[must_use]
    pub fn imports(&self, key: &Kid) -> bool {
        let state = self.state();
        let mut imported = state.realms.iter().flat_map(|realm| &realm.imported);
        imported.any(|(member, _)| member.key.kid().as_bytes() == key)
    }

    /// The imported key of this thumbprint, or of this `kid`.
    ///
    /// # Errors
    /// A sentence, where several realms have different keys under one `kid`.
    pub fn imported_under(&self, name: &str) -> Result<Option<KeyId>, String> {
        let state = self.state();
        let all = state.realms.iter().flat_map(|realm| &realm.imported);
        let all: Vec<(KeyId, &str)> =
            all.map(|(member, _)| (member.key.kid(), member.kid.as_str())).collect();
        if let Some((key, _)) = all.iter().find(|(key, _)| key.to_string() == name) {
            return Ok(Some(*key));
        }
        let mut named = all.iter().filter(|(_, kid)| *kid == name).map(|(key, _)| *key);
        let first = named.next();
        if named.any(|other| Some(other) != first) {
            return Err(format!(
                "several keys are imported under `{name}`; name the thumbprint that `chancery keys \
                 list` prints"
            ));
        }
        Ok(first)
    }

    /// Whether realms that are to be import no key that was declared compromised, and none that a
    /// signer of this deployment made, living or dead: it would be believed beyond its window.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check_imports(&self, realms: &[RealmDocument]) -> Result<(), String> {
        let state = self.state();
        for realm in realms {
            for key in realm.kubernetes.iter().flat_map(|kubernetes| &kubernetes.imported) {
                let public = PublicKey::from_jwk(&key.jwk).map_err(|e| e.to_string())?;
                let member = jwks::Member { kid: key.kid.clone(), ..jwks::Member::new(public) };
                if state.is_own(&member) {
                    return Err(format!(
                        "realm `{}` imports `{}`, which a signer of this deployment made: take it out",
                        realm.name, key.kid
                    ));
                }
                let public = member.key.kid();
                if state.compromised.contains(public.as_bytes()) {
                    return Err(format!(
                        "realm `{}` imports `{}`, which was declared compromised: take it out",
                        realm.name, key.kid
                    ));
                }
            }
        }
        Ok(())
    }
}
