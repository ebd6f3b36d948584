//! Policies: which logs are believed, and which witnesses must have cosigned (c2sp.org/tlog-policy).
//!
//! A policy is a file of octets, in which names and URLs are opaque. It lists logs, witnesses and
//! groups of witnesses, and names as its quorum the witness or group that must have cosigned:
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <name>...
//! quorum <name>|none
//! ```
//!
//! Groups and quorum refer to preceding lines only, and a name is a member of at most one group; so
//! no witness counts twice, and evaluating a policy takes one pass over its groups.

mod evaluate;
mod parse;

use std::fmt;

use crate::error::{Error, excerpt};
use crate::note::VerifierKey;

pub use evaluate::{Accepted, Evaluation, Witnessed};

/// The longest policy that is read: room for [`MAX_POLICY_LINES`] logs and as many witnesses with
/// ML-DSA-44 keys, which take 1.8 kB each, and with URLs.
pub const MAX_POLICY_BYTES: usize = 2 * 1024 * 1024;

/// The most logs, the most witnesses and the most groups that a policy may define. 32 of each must
/// be accepted (c2sp.org/tlog-policy, "Implementation limits"); this is eight times that.
pub const MAX_POLICY_LINES: usize = 256;

/// The predefined name that stands for no witness at all.
const NONE: &[u8] = b"none";

/// A policy as it was parsed. Two policies are equal if they define the same in the same order;
/// comments, spaces and the place of definitions of another kind do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    quorum: Option<Member>,
}

/// A log that is believed. A log with keys of two types has two of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    key: VerifierKey,
    url: Option<Vec<u8>>,
}

/// A witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    name: Vec<u8>,
    key: VerifierKey,
    url: Option<Vec<u8>>,
}

/// A group, which has witnessed a checkpoint if enough of its members have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    name: Vec<u8>,
    threshold: usize,
    members: Vec<Member>,
}

/// What a name of a policy stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// The index of a witness in [`Policy::witnesses`].
    Witness(usize),
    /// The index of a group in [`Policy::groups`].
    Group(usize),
}

impl Policy {
    /// Reads a policy.
    ///
    /// Fails with [`Error::PolicyLength`], [`Error::Policy`], which names the line, or
    /// [`Error::PolicyQuorum`].
    pub fn parse(octets: impl AsRef<[u8]>) -> Result<Policy, Error> {
        parse::parse(octets.as_ref())
    }

    /// The policy as a file that [`parse`](Self::parse) reads as an equal policy: logs, witnesses,
    /// groups, then the quorum.
    pub fn encode(&self) -> Vec<u8> {
        let mut lines: Vec<Vec<&[u8]>> = Vec::new();
        let log_keys: Vec<String> = self.logs.iter().map(|log| log.key.to_string()).collect();
        for (log, key) in self.logs.iter().zip(&log_keys) {
            let mut line: Vec<&[u8]> = vec![b"log", key.as_bytes()];
            line.extend(log.url());
            lines.push(line);
        }
        let keys: Vec<String> = self.witnesses.iter().map(|w| w.key.to_string()).collect();
        for (witness, key) in self.witnesses.iter().zip(&keys) {
            let mut line: Vec<&[u8]> = vec![b"witness", &witness.name, key.as_bytes()];
            line.extend(witness.url());
            lines.push(line);
        }
        let thresholds: Vec<String> = self.groups.iter().map(Group::threshold_word).collect();
        for (group, threshold) in self.groups.iter().zip(&thresholds) {
            let mut line = vec![b"group", group.name.as_slice(), threshold.as_bytes()];
            line.extend(group.members.iter().map(|member| self.name(*member)));
            lines.push(line);
        }
        lines.push(vec![b"quorum", self.quorum_name()]);
        let mut out = lines.iter().map(|items| items.join(&b' ')).collect::<Vec<_>>().join(&b'\n');
        out.push(b'\n');
        out
    }

    /// The logs, in the order of their lines.
    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// The witnesses, in the order of their lines.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// The groups, in the order of their lines: each refers to earlier ones only.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The witness or group that must have cosigned; `None` if nobody has to.
    pub fn quorum(&self) -> Option<Member> {
        self.quorum
    }

    /// The name of a witness or group; empty for an index that this policy does not have.
    pub fn name(&self, member: Member) -> &[u8] {
        let name = match member {
            Member::Witness(at) => self.witnesses.get(at).map(Witness::name),
            Member::Group(at) => self.groups.get(at).map(Group::name),
        };
        name.unwrap_or_default()
    }

    fn quorum_name(&self) -> &[u8] {
        self.quorum.map_or(NONE, |member| self.name(member))
    }
}

impl Log {
    /// The log's key, whose name is the log's origin.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Where the log can be reached, as the application understands it.
    pub fn url(&self) -> Option<&[u8]> {
        self.url.as_deref()
    }
}

impl Witness {
    /// The witness's name in this policy, which need not be that of its key.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The key that it cosigns with.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Where checkpoints can be submitted to it, the prefix of `/add-checkpoint`.
    pub fn url(&self) -> Option<&[u8]> {
        self.url.as_deref()
    }
}

impl Group {
    /// The group's name in this policy.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// How many of the members must have witnessed a checkpoint: between 1 and their number.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The members, in the order of the line.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    fn threshold_word(&self) -> String {
        match self.threshold {
            all if all == self.members.len() => "all".to_owned(),
            1 => "any".to_owned(),
            k => k.to_string(),
        }
    }
}

/// The file's text for people: octets that are not UTF-8 show as replacement characters, so only
/// [`encode`](Policy::encode) can be read back in all cases.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.encode()))
    }
}

/// A name or word of a policy as an error message shows it.
fn shown(octets: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(octets))
}
