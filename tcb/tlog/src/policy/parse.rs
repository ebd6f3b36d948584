//! Reading a policy, line by line.

use std::collections::{HashMap, HashSet};

use super::{Group, Log, MAX_POLICY_BYTES, MAX_POLICY_LINES, Member, NONE, Policy, Witness, shown};
use crate::error::Error;
use crate::note::VerifierKey;

/// What the lines so far have defined. Its functions fail with the reason for which a line is wrong.
#[derive(Default)]
struct Parser {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    /// What each name stands for: witnesses and groups share one namespace.
    names: HashMap<Vec<u8>, Member>,
    /// What is a member of a group already.
    members: HashSet<Member>,
    /// The public keys of logs and of witnesses, without name and type: what makes duplicates.
    log_keys: HashSet<Vec<u8>>,
    witness_keys: HashSet<Vec<u8>>,
    quorum: Option<Option<Member>>,
}

pub(super) fn parse(octets: &[u8]) -> Result<Policy, Error> {
    if octets.len() > MAX_POLICY_BYTES {
        return Err(Error::PolicyLength(octets.len()));
    }
    let mut parser = Parser::default();
    for (index, line) in octets.split_inclusive(|octet| *octet == b'\n').enumerate() {
        let at = |reason| Error::Policy { line: index.saturating_add(1), reason };
        let line = line.strip_suffix(b"\n").ok_or_else(|| {
            at("it does not end in a newline; is the file complete? add one".to_owned())
        })?;
        parser.line(line).map_err(at)?;
    }
    let Parser { logs, witnesses, groups, quorum, .. } = parser;
    let quorum = quorum.ok_or(Error::PolicyQuorum)?;
    Ok(Policy { logs, witnesses, groups, quorum })
}

impl Parser {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        if let Some(octet) = line.iter().find(|octet| !is_allowed(**octet)) {
            return Err(format!("the octet `0x{octet:02x}` is not allowed; remove it"));
        }
        let items: Vec<&[u8]> =
            line.split(|octet| is_space(*octet)).filter(|item| !item.is_empty()).collect();
        match *items.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] => self.log(key, None),
            [b"log", key, url] => self.log(key, Some(url)),
            [b"witness", name, key] => self.witness(name, key, None),
            [b"witness", name, key, url] => self.witness(name, key, Some(url)),
            [b"group", name, threshold, ref members @ ..] if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            [b"quorum", name] => self.quorum(name),
            [b"log", ..] => Err("write `log <vkey> [<url>]`".to_owned()),
            [b"witness", ..] => Err("write `witness <name> <vkey> [<url>]`".to_owned()),
            [b"group", ..] => Err("write `group <name> all|any|<k> <name>...`".to_owned()),
            [b"quorum", ..] => Err("write `quorum <name>` or `quorum none`".to_owned()),
            [word, ..] => {
                Err(format!("`{}` is none of `log`, `witness`, `group` and `quorum`", shown(word)))
            }
        }
    }

    fn log(&mut self, key: &[u8], url: Option<&[u8]>) -> Result<(), String> {
        let key = verifier_key(key)?;
        if !self.log_keys.insert(key.public_key().to_vec()) {
            return Err("another log has the same public key; remove one of the two".to_owned());
        }
        room(self.logs.len(), "logs")?;
        self.logs.push(Log { key, url: url.map(<[u8]>::to_vec) });
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8], url: Option<&[u8]>) -> Result<(), String> {
        let key = verifier_key(key)?;
        if !key.key_type().is_cosignature() {
            return Err(format!(
                "the key of type `0x{:02x}` makes no cosignatures; a witness's key is of type `0x04` or `0x06`",
                key.key_type().byte()
            ));
        }
        if !self.witness_keys.insert(key.public_key().to_vec()) {
            return Err("another witness has the same public key; remove one of the two".to_owned());
        }
        room(self.witnesses.len(), "witnesses")?;
        self.define(name, Member::Witness(self.witnesses.len()))?;
        let url = url.map(<[u8]>::to_vec);
        self.witnesses.push(Witness { name: name.to_vec(), key, url });
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], items: &[&[u8]]) -> Result<(), String> {
        let mut members = Vec::with_capacity(items.len());
        for item in items {
            let member = self.defined(item)?;
            if !self.members.insert(member) {
                return Err(format!("`{}` is a member of a group already", shown(item)));
            }
            members.push(member);
        }
        let threshold = match threshold {
            b"any" => 1,
            b"all" => members.len(),
            digits => number(digits).filter(|k| (1..=members.len()).contains(k)).ok_or_else(|| {
                format!(
                    "`{}` is neither `any` nor `all` nor a number from 1 to {}, the number of members",
                    shown(digits),
                    members.len()
                )
            })?,
        };
        room(self.groups.len(), "groups")?;
        // The name is defined last: a group is no member of itself.
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { name: name.to_vec(), threshold, members });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("the quorum is set by an earlier line; keep one of them".to_owned());
        }
        let quorum = if name == NONE { None } else { Some(self.defined(name)?) };
        self.quorum = Some(quorum);
        Ok(())
    }

    fn define(&mut self, name: &[u8], member: Member) -> Result<(), String> {
        if name == NONE {
            return Err("the name `none` is predefined; choose another one".to_owned());
        }
        match self.names.insert(name.to_vec(), member) {
            None => Ok(()),
            Some(_) => Err(format!("the name `{}` is taken by an earlier line", shown(name))),
        }
    }

    fn defined(&self, name: &[u8]) -> Result<Member, String> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| format!("no earlier line defines a witness or group `{}`", shown(name)))
    }
}

/// Tab and what is not a control character; lines hold no newline (c2sp.org/tlog-policy, "Character
/// set").
fn is_allowed(octet: u8) -> bool {
    octet == b'\t' || matches!(octet, 0x20..=0x7e | 0x80..)
}

fn is_space(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

fn verifier_key(octets: &[u8]) -> Result<VerifierKey, String> {
    let text = str::from_utf8(octets).map_err(|_| "the key is not UTF-8".to_owned())?;
    VerifierKey::parse(text).map_err(|error| format!("`{}`: {error}", shown(octets)))
}

fn room(defined: usize, what: &str) -> Result<(), String> {
    if defined < MAX_POLICY_LINES {
        Ok(())
    } else {
        Err(format!("it defines more than {MAX_POLICY_LINES} {what}"))
    }
}

/// An ASCII decimal.
fn number(digits: &[u8]) -> Option<usize> {
    let text = str::from_utf8(digits).ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}
