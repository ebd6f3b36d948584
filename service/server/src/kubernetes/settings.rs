//! The `[kubernetes]` table of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use chancery_policy::RealmDocument;
use rustix::process::geteuid;
use serde::Deserialize;

use super::import::Import;

/// How often the API server is asked to refresh where nothing else is said, in seconds: a compromised key
/// is believed for so long at most. A shorter lead makes it more often.
const DEFAULT_REFRESH_S: u64 = 30;
/// A lead holds at least this many refreshes: one may fail, and the next still comes in time.
const REFRESHES_PER_LEAD: u64 = 2;
/// The API server's own callers wait 34 s for a hung signer; half of that is the most that makes sense.
const MAX_ANSWER_WITHIN_MS: u64 = 15_000;

/// The socket for kube-apiserver.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The realm whose tokens it signs.
    pub realm: String,
    /// Where it listens; `--kubernetes-socket` overrides it.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Mode of the socket's file.
    #[serde(default = "default_mode")]
    pub socket_mode: u32,
    /// Users whose processes may connect; by default the service's own, and root.
    #[serde(default)]
    pub allowed_uids: Option<Vec<u32>>,
    /// How often the API server is to fetch the keys, in seconds.
    #[serde(default)]
    pub refresh_hint_s: Option<u64>,
    /// How long it waits for a token before it hears `UNAVAILABLE`, in milliseconds.
    #[serde(default = "default_answer_within")]
    pub answer_within_ms: u64,
    /// Public keys that the cluster had before: they become part of the realm's policy.
    #[serde(default)]
    pub import: Vec<Import>,
}

fn default_mode() -> u32 {
    0o600
}

fn default_answer_within() -> u64 {
    2_000
}

impl Settings {
    /// The defaults for a realm.
    #[must_use]
    pub fn of(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            socket: None,
            socket_mode: default_mode(),
            allowed_uids: None,
            refresh_hint_s: None,
            answer_within_ms: default_answer_within(),
            import: Vec::new(),
        }
    }

    /// Checks what would otherwise end an API server, or have it refuse good tokens.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check(&self, realms: &[RealmDocument]) -> Result<(), String> {
        let Some(realm) = realms.iter().find(|realm| realm.name == self.realm) else {
            return Err(format!("kubernetes.realm `{}` is not one of the realms", self.realm));
        };
        if realm.kubernetes.is_none() {
            return Err(format!("kubernetes.realm `{}` has no [realms.kubernetes]", self.realm));
        }
        let most = realm.schedule.publish_lead_s / REFRESHES_PER_LEAD;
        if let Some(hint) = self.refresh_hint_s
            && (hint == 0 || hint > most)
        {
            return Err(format!(
                "kubernetes.refresh_hint_s `{hint}` is not within 1 and half of the realm's \
                 publish_lead_s, {most}: a key would sign before the API server knows it"
            ));
        }
        if self.socket_mode > 0o777 || self.socket_mode & 0o600 != 0o600 {
            return Err(format!(
                "kubernetes.socket_mode `0o{:o}` is not a file mode that its owner can use, such as 0o600",
                self.socket_mode
            ));
        }
        if self.allowed_uids.as_ref().is_some_and(Vec::is_empty) {
            return Err("kubernetes.allowed_uids lets nobody connect".into());
        }
        if !(1..=MAX_ANSWER_WITHIN_MS).contains(&self.answer_within_ms) {
            return Err(format!(
                "kubernetes.answer_within_ms must be within 1 to {MAX_ANSWER_WITHIN_MS}"
            ));
        }
        Ok(())
    }

    /// Reads the files of imported keys into the realm's policy.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read_imports(&self, realms: &mut [RealmDocument]) -> Result<(), String> {
        let realm = realms.iter_mut().find(|realm| realm.name == self.realm);
        let Some(terms) = realm.and_then(|realm| realm.kubernetes.as_mut()) else { return Ok(()) };
        for import in &self.import {
            terms.imported.extend(import.read()?);
        }
        Ok(())
    }

    /// Users whose processes may connect.
    #[must_use]
    pub fn peers(&self) -> Vec<u32> {
        self.allowed_uids.clone().unwrap_or_else(|| vec![geteuid().as_raw(), 0])
    }

    /// `refresh_hint_seconds` under a realm's present schedule: well inside its lead, whatever a reload
    /// made of it.
    #[must_use]
    pub fn refresh_hint(&self, publish_lead_s: u64) -> u64 {
        let most = (publish_lead_s / REFRESHES_PER_LEAD).max(1);
        self.refresh_hint_s.unwrap_or(DEFAULT_REFRESH_S.min(most / 2)).clamp(1, most)
    }

    /// How long Sign may take.
    #[must_use]
    pub fn answer_within(&self) -> Duration {
        Duration::from_millis(self.answer_within_ms)
    }
}
