//! What is served as keys, judged by what the logs announced. Pure: sets and stories go in, violations
//! come out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chancery_tlog::LogId;
use chancery_tlog::note::VerifierKey;
use chancery_token::jwks::{KeySet, MAX_SET_BYTES, Member};
use chancery_token::{Algorithm, PublicKey, json, jws};
use serde_json::Value;

use super::report::Violation;
use crate::cli::logcheck::story::{Import, Key, Kid, Story};

/// `typ` of a signer's own part of the key set.
const KEY_SET_TYP: &str = "jwk-set+jwt";

/// Every announced key, and every fallen one, of all logs.
#[derive(Debug, Default)]
pub struct Announced<'a> {
    keys: HashMap<Kid, (LogId, &'a Key)>,
    fallen: BTreeSet<Kid>,
    /// Keys that were made elsewhere.
    imports: Vec<&'a Import>,
    /// Keys that are two signers', or a signer's and somebody else's.
    pub twice: Vec<Violation>,
}

/// A finding about a served key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suspicion {
    pub violation: Violation,
    /// Whether an entry that came after the set was served can have caused it.
    pub may_be_late: bool,
}

impl<'a> Announced<'a> {
    pub fn of(stories: impl Iterator<Item = (LogId, &'a Story)>) -> Self {
        let mut announced = Self::default();
        for (log, story) in stories {
            for (kid, key) in story.keys() {
                if let Some((other, _)) = announced.keys.insert(*kid, (log, key)) {
                    let detail = format!("key `{}` is announced by log {other} too", shown(kid));
                    // INVARIANT I3: one key, one signer.
                    let violation = violation("announced_twice", &format!("log {log}"), detail);
                    announced.twice.push(violation);
                }
            }
            announced.fallen.extend(story.fallen());
            announced.imports.extend(story.imports());
        }
        for import in &announced.imports {
            let own = import.thumbprint().and_then(|kid| announced.keys.get(&kid));
            if let Some((log, _)) = own {
                // INVARIANT I3: it would be believed outside its window, and be in no log.
                let detail =
                    format!("`{}` is imported, and log {log} announced that key", import.kid);
                let about = format!("realm {}", import.realm);
                announced.twice.push(violation("imported_own", &about, detail));
            }
        }
        announced
    }

    /// Realms that have announced keys.
    pub fn realms(&self) -> BTreeSet<String> {
        let imported = self.imports.iter().map(|import| import.realm.clone());
        self.keys.values().map(|(_, key)| key.realm.clone()).chain(imported).collect()
    }

    /// Judges the key set that is served for a realm.
    pub fn judge_realm(&self, realm: &str, bytes: &[u8]) -> (usize, Vec<Suspicion>) {
        let about = format!("realm {realm}");
        let set = match KeySet::parse(bytes) {
            Ok(set) => set,
            Err(e) => return (0, vec![certain("served_unreadable", &about, e.to_string())]),
        };
        let unusable = set.refused.iter().map(|(kid, why)| {
            let kid = kid.as_deref().unwrap_or("without id");
            certain("served_unreadable", &about, format!("key `{kid}`: {why}"))
        });
        let mut found: Vec<Suspicion> = unusable.collect();
        for member in set.members() {
            if self.judge_import(realm, member, &mut found) {
                continue;
            }
            let key = self.judge(&about, member, &mut found);
            if let Some((_, key)) = key
                && key.realm != realm
            {
                let detail = format!("key `{}` is announced for realm `{}`", member.kid, key.realm);
                found.push(certain("served_elsewhere", &about, detail));
            }
        }
        (set.members().len(), found)
    }

    /// Judges a key that was made elsewhere; whether it is one.
    fn judge_import(&self, realm: &str, member: &Member, found: &mut Vec<Suspicion>) -> bool {
        let is_this = |import: &&&Import| {
            import.realm == realm && import.kid == member.kid && import.is(&member.key)
        };
        let Some(latest) = self.imports.iter().filter(is_this).max_by_key(|i| i.until) else {
            return false;
        };
        let (about, name) = (format!("realm {realm}"), &member.kid);
        if member.issuer.as_deref() != Some(latest.issuer.as_str()) {
            let detail = format!("key `{name}` is imported for issuer `{}`", latest.issuer);
            found.push(certain("served_elsewhere", &about, detail));
        }
        if member.exp.is_none_or(|exp| exp > latest.until) {
            let detail =
                format!("key `{name}` is imported until {} and served longer", latest.until);
            found.push(certain("served_window", &about, detail));
        }
        if self.imports.iter().filter(is_this).all(|import| !import.in_discovery) {
            let detail = format!("key `{name}` is imported for the API server alone");
            found.push(late("served_hidden", &about, detail));
        }
        if self.fallen.contains(member.key.kid().as_bytes()) {
            let detail = format!("key `{name}` was compromised");
            found.push(late("served_compromised", &about, detail));
        }
        true
    }

    /// Judges what a log's signer itself says of its keys.
    pub fn judge_signed(&self, log: LogId, members: &[Member]) -> Vec<Suspicion> {
        let about = format!("log {log}");
        let mut found = Vec::new();
        for member in members {
            let key = self.judge(&about, member, &mut found);
            if let Some((other, _)) = key
                && other != log
            {
                let detail = format!("key `{}` is announced by log {other}", member.kid);
                found.push(certain("served_elsewhere", &about, detail));
            }
        }
        found
    }

    /// One key, wherever it is served.
    fn judge(
        &self,
        about: &str,
        member: &Member,
        found: &mut Vec<Suspicion>,
    ) -> Option<(LogId, &'a Key)> {
        let name = &member.kid;
        let kid = *member.key.kid().as_bytes();
        let Some(&(log, key)) = self.keys.get(&kid) else {
            let detail = format!("key `{name}` is announced by no log");
            found.push(certain("served_unannounced", about, detail));
            return None;
        };
        let place = format!("{log}.{}", key.announced_at);
        if member.log.as_deref() != Some(place.as_str()) {
            let said = member.log.as_deref().unwrap_or("nowhere");
            let detail = format!("key `{name}` is announced at {place}, not at `{said}`");
            found.push(certain("served_elsewhere", about, detail));
        }
        if member.issuer.as_deref() != Some(key.issuer.as_str()) {
            let said = member.issuer.as_deref().unwrap_or("nobody");
            let detail =
                format!("key `{name}` is announced for issuer `{}`, not for `{said}`", key.issuer);
            found.push(certain("served_elsewhere", about, detail));
        }
        self.judge_window(about, member, key, found);
        if self.fallen.contains(&kid) {
            let detail = format!("key `{name}` was compromised");
            found.push(late("served_compromised", about, detail));
        }
        Some((log, key))
    }

    fn judge_window(&self, about: &str, member: &Member, key: &Key, found: &mut Vec<Suspicion>) {
        let name = &member.kid;
        let (from, to) = (key.nbf, key.announced_until);
        let Some(window) = member.window else {
            let detail = format!("key `{name}` is served without the window {from} to {to}");
            found.push(certain("served_window", about, detail));
            return;
        };
        let said = format!("{} to {}", window.nbf, window.signs_until);
        if window.nbf < from || window.signs_until > to {
            let detail = format!("key `{name}` is announced for {from} to {to}, not for {said}");
            found.push(certain("served_window", about, detail));
        } else if window.signs_until > key.signs_until {
            let detail = format!(
                "the window of key `{name}` was narrowed to {}, not {said}",
                key.signs_until
            );
            found.push(late("served_window", about, detail));
        }
    }
}

/// A signer's own part of the key set: its number and keys, if the log's key signed it.
pub fn open_signed_set(
    bytes: &[u8],
    key: &VerifierKey,
    log: LogId,
) -> Result<(u64, Vec<Member>), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    // It holds all realms' keys.
    let limit = MAX_SET_BYTES.saturating_mul(2);
    let token = jws::parse(text.trim_end(), limit).map_err(|e| e.to_string())?;
    let public = PublicKey::from_raw(Algorithm::Ed25519, key.public_key());
    let public = public.map_err(|e| e.to_string())?;
    jws::verify(&token, &public, false).map_err(|e| e.to_string())?;
    if token.header.typ.as_deref() != Some(KEY_SET_TYP) {
        return Err("it is not a key set".to_owned());
    }
    let set = json::parse_object(&token.payload).map_err(|e| e.to_string())?;
    if set.get("log").and_then(Value::as_str) != Some(log.to_string().as_str()) {
        return Err("it is of another log".to_owned());
    }
    let sequence = set.get("seq").and_then(Value::as_u64).ok_or("it has no `seq`")?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no `keys`")?;
    let members: Result<Vec<Member>, String> = keys
        .iter()
        .map(|key| {
            let key = key.as_object().ok_or("a key is no object")?;
            Member::from_jwk(key).map_err(|e| e.to_string())
        })
        .collect();
    Ok((sequence, members?))
}

/// Violations of sets that were looked at twice: what the first look found and later entries of the
/// logs neither explain nor can have caused, and what the second found.
pub fn confirmed(first_again: Vec<Suspicion>, second: Vec<Suspicion>) -> Vec<Violation> {
    let certain = first_again.into_iter().filter(|s| !s.may_be_late);
    let all: BTreeMap<Violation, ()> =
        certain.chain(second).map(|suspicion| (suspicion.violation, ())).collect();
    all.into_keys().collect()
}

fn shown(kid: &Kid) -> String {
    chancery_token::b64::encode(kid)
}

pub fn violation(code: &'static str, about: &str, detail: String) -> Violation {
    Violation { code, about: about.to_owned(), detail }
}

pub fn certain(code: &'static str, about: &str, detail: String) -> Suspicion {
    Suspicion { violation: violation(code, about, detail), may_be_late: false }
}

fn late(code: &'static str, about: &str, detail: String) -> Suspicion {
    Suspicion { violation: violation(code, about, detail), may_be_late: true }
}
