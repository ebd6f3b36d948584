//! The witnesses in the configuration, and the C2SP tlog-policy that they are.

use chancery_tlog::note::VerifierKey;
use chancery_tlog::policy::Policy;
use serde::Deserialize;

use super::remote::Remote;

/// The most witnesses: each has a request under way, and a line of up to 3.4 kB in the checkpoint.
pub const MAX_WITNESSES: usize = 16;

/// Everything about witnesses.
#[derive(Clone, Debug, Default)]
pub struct WitnessSettings {
    /// `[[witness]]`
    pub witnesses: Vec<WitnessDocument>,
    /// `[[witness_group]]`
    pub groups: Vec<GroupDocument>,
    /// The witness or group that must have cosigned, or `none`.
    pub quorum: Option<String>,
}

/// A witness.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessDocument {
    /// Its name here: in groups, metrics and log lines.
    pub name: String,
    /// Its verifier key, of type 0x04 or 0x06.
    pub vkey: String,
    /// Its submission prefix. Witnesses of one URL are one server with several keys.
    pub url: String,
}

/// A group of witnesses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupDocument {
    /// Its name.
    pub name: String,
    /// How many members must have cosigned: `any`, `all`, or a number.
    pub threshold: String,
    /// Witnesses, and groups that stand before this one.
    pub members: Vec<String>,
}

impl WitnessSettings {
    /// The witnesses, one for each URL.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn remotes(&self) -> Result<Vec<Remote>, String> {
        let mut remotes: Vec<(String, String, Vec<VerifierKey>)> = Vec::new();
        for document in &self.witnesses {
            let url = document.url.trim_end_matches('/');
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let plain = |b: u8| b.is_ascii_graphic() && !b"?#\"\\<>".contains(&b);
            if rest.is_none_or(|r| r.is_empty() || r.starts_with('/') || !r.bytes().all(plain)) {
                return Err(format!(
                    "witness `{}`: url `{}` must be an http(s) URL without query and fragment",
                    document.name, document.url
                ));
            }
            let key = VerifierKey::parse(&document.vkey)
                .map_err(|e| format!("witness `{}`: {e}", document.name))?;
            match remotes.iter_mut().find(|(_, known, _)| known == url) {
                Some((_, _, keys)) => keys.push(key),
                None => remotes.push((document.name.clone(), url.to_owned(), vec![key])),
            }
        }
        if remotes.len() > MAX_WITNESSES {
            return Err(format!("at most {MAX_WITNESSES} witnesses are asked"));
        }
        Ok(remotes.into_iter().map(|(name, url, keys)| Remote::new(name, url, keys)).collect())
    }

    /// The witnesses, groups and quorum as a tlog-policy, with the directory's key where it is known.
    /// URLs are left out: a witness that moves is the same witness.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn policy(&self, directory: Option<&VerifierKey>) -> Result<Policy, String> {
        Policy::parse(self.policy_text(directory)?).map_err(|e| format!("witnesses: {e}"))
    }

    /// The text of [`WitnessSettings::policy`].
    ///
    /// # Errors
    /// A sentence about names that cannot stand in a policy.
    pub fn policy_text(&self, directory: Option<&VerifierKey>) -> Result<String, String> {
        let names = self.witnesses.iter().map(|w| &w.name);
        let names =
            names.chain(self.groups.iter().flat_map(|g| {
                std::iter::once(&g.name).chain([&g.threshold]).chain(g.members.iter())
            }));
        for name in names.chain(self.witnesses.iter().map(|w| &w.vkey)).chain(&self.quorum) {
            if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(format!("witnesses: `{}` is not one word", name.escape_debug()));
            }
        }
        let mut text = String::new();
        if let Some(key) = directory {
            text.push_str(&format!("log {key}\n"));
        }
        for witness in &self.witnesses {
            text.push_str(&format!("witness {} {}\n", witness.name, witness.vkey));
        }
        for group in &self.groups {
            let members = group.members.join(" ");
            text.push_str(&format!("group {} {} {members}\n", group.name, group.threshold));
        }
        text.push_str(&format!("quorum {}\n", self.quorum.as_deref().unwrap_or("none")));
        Ok(text)
    }

    /// Whether everything fits together.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.remotes()?;
        self.policy(None).map(drop)
    }
}
