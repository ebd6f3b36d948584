//! Rounds: the directory and which logs there are, each from where it was, then the key sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, Hash, LogId};
use chancery_validate::anchor::Anchor;
use chancery_validate::directory::Directory;
use serde_json::json;

use super::memory::Memory;
use super::report::{Report, Round, Violation};
use super::served::{Announced, Suspicion, certain, confirmed, open_signed_set, violation};
use crate::cli::fetch::Place;
use crate::cli::logcheck::cosigned::Cosigned;
use crate::cli::logcheck::source::Reader;
use crate::cli::logcheck::story::{Kind, Story};
use crate::cli::logcheck::walk::{Agreement, Check, Claim, open};
use crate::cli::logcheck::{CheckError, parse_vkey};

/// The wait before something is looked at again that may only be early or late: checkpoints are
/// published about once a second.
const LOOK_AGAIN: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 3 });
/// Where the directory lies.
const DIRECTORY: &str = "directory";
/// More signers than any deployment has had.
const MAX_LOGS: usize = 10_000;

/// Follows one deployment.
pub struct Follower {
    place: Place,
    anchor: Option<Anchor>,
    memory: Memory,
    directory: Option<Followed>,
    logs: BTreeMap<LogId, Followed>,
    /// Keys in the sets of the last round.
    served: usize,
}

/// A log as far as it was followed in this run.
struct Followed {
    vkey: VerifierKey,
    /// The verifier keys as they were served, one a line.
    vkeys: Vec<u8>,
    size: u64,
    root: Hash,
    story: Story,
    /// What the directory held of it when that was last proven.
    claimed: Option<(u64, Hash)>,
}

/// What following a log came to, if not to a step forward.
enum Trouble {
    Violation(Violation),
    /// It cannot be read now.
    Unreadable(String),
}

/// What is served as keys at one time, as bytes by what they are about.
#[derive(Default)]
struct Served {
    realms: BTreeMap<String, Vec<u8>>,
    signers: BTreeMap<LogId, Vec<u8>>,
}

impl Follower {
    pub fn new(place: Place, anchor: Option<Anchor>, memory: Memory) -> Self {
        Self { place, anchor, memory, directory: None, logs: BTreeMap::new(), served: 0 }
    }

    /// One look at everything.
    pub fn round(&mut self, report: &mut Report) -> anyhow::Result<Round> {
        // Sets first: what they hold must have been announced by the time the logs are read.
        let mut first = self.fetch_sets(report)?;
        self.follow_logs(report)?;
        // The first round learns only now which realms and signers there are.
        if self.served == 0 {
            first = self.fetch_sets(report)?;
        }
        let (served, mut suspicions) = self.judge(&first);
        self.served = served;
        if !suspicions.is_empty() {
            std::thread::sleep(LOOK_AGAIN);
            let second = self.fetch_sets(report)?;
            self.follow_logs(report)?;
            suspicions = self.judge(&first).1;
            let violations = confirmed(suspicions, self.judge(&second).1);
            violations.iter().try_for_each(|found| report.violation(found))?;
        }
        let twice = Announced::of(self.stories()).twice;
        twice.iter().try_for_each(|found| report.violation(found))?;
        self.remember(&first)?;
        Ok(report.round())
    }

    /// What was found to be in order.
    pub fn sum_up(&self, report: &mut Report) -> anyhow::Result<()> {
        let entries: u64 = self.logs.values().map(|log| log.size).sum();
        let keys: usize = self.logs.values().map(|log| log.story.keys().len()).sum();
        let (logs, served) = (self.logs.len(), self.served);
        report.line(
            json!({"event": "ok", "logs": logs, "entries": entries, "keys": keys, "served": served}),
            &format!(
                "ok: {logs} logs with {entries} entries, which announce {keys} keys; {served} served \
                 keys are as announced"
            ),
        )?;
        Ok(())
    }

    fn stories(&self) -> impl Iterator<Item = (LogId, &Story)> {
        self.logs.iter().map(|(id, log)| (*id, &log.story))
    }

    /// The directory, then every log that is named now, or was followed before.
    fn follow_logs(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.follow_directory(report)?;
        let mut ids: BTreeSet<LogId> = self.logs.keys().copied().collect();
        ids.extend(self.memory.logs());
        ids.extend(self.directory().logs().map(|(id, _)| id));
        match self.signers() {
            Ok(named) => ids.extend(named),
            Err(e) => report.unreadable("signers", &format!("{e:#}"))?,
        }
        let anchored = self.anchored();
        for id in ids.iter().chain(anchored.iter().filter(|id| !ids.contains(id))) {
            match self.follow(*id, report)? {
                Ok(()) => {}
                Err(Trouble::Violation(found)) => report.violation(&found)?,
                Err(Trouble::Unreadable(why)) => report.unreadable(&format!("log {id}"), &why)?,
            }
        }
        self.check_names(&ids, report)
    }

    /// That the anchor or the directory names every log.
    fn check_names(&mut self, ids: &BTreeSet<LogId>, report: &mut Report) -> anyhow::Result<()> {
        if ids.iter().any(|id| self.unnamed(*id).is_some()) {
            // A signer may be there a moment before the directory names it.
            std::thread::sleep(LOOK_AGAIN);
            self.follow_directory(report)?;
        }
        for id in ids {
            if let Some(why) = self.unnamed(*id) {
                report.violation(&violation("log_not_named", &format!("log {id}"), why))?;
            }
        }
        Ok(())
    }

    /// Why a log does not count.
    fn unnamed(&self, id: LogId) -> Option<String> {
        let named = self.directory().log(id);
        let anchored = self.anchored();
        let no_anchor = self.anchor.is_none();
        let by_directory = no_anchor || self.anchors_directory();
        if self.directory.is_some() && by_directory {
            let Some(named) = named else {
                return Some("the directory does not name it".to_owned());
            };
            let key = self.logs.get(&id).map(|log| &log.vkey);
            let other = key.is_some_and(|key| key.to_string() != named.key().to_string());
            return other.then(|| "the directory names it with another key".to_owned());
        }
        let names = no_anchor || anchored.contains(&id);
        (!names).then(|| "the anchor does not name it".to_owned())
    }

    /// Signers' logs that the anchor names.
    fn anchored(&self) -> BTreeSet<LogId> {
        let all = self.anchor.iter().flat_map(Anchor::logs);
        all.filter(|id| Some(*id) != self.directory_id()).collect()
    }

    fn anchors_directory(&self) -> bool {
        let id = self.directory_id();
        id.is_some_and(|id| self.anchor.as_ref().is_some_and(|anchor| anchor.names(id)))
    }

    /// What the directory's log id would be, were it a signer's log.
    fn directory_id(&self) -> Option<LogId> {
        let key = &self.directory.as_ref()?.vkey;
        <&[u8; 32]>::try_from(key.public_key()).ok().map(LogId::of)
    }

    /// What the directory says; nothing where there is none.
    fn directory(&self) -> &Directory {
        static NONE: LazyLock<Directory> = LazyLock::new(Directory::new);
        self.directory.as_ref().map_or(&NONE, |followed| &followed.story.directory)
    }

    fn follow_directory(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let before = self.directory.as_ref().map(|directory| directory.size);
        match self.walk_directory() {
            Ok(None) => {}
            Err(Trouble::Violation(found)) => report.violation(&found)?,
            Err(Trouble::Unreadable(why)) => report.unreadable("directory", &why)?,
            Ok(Some(directory)) => {
                let key = directory.vkey.to_string();
                if self.memory.directory() != Some(&key) {
                    self.memory.met_directory(&key)?;
                }
                let (size, logs) = (directory.size, directory.story.directory.logs().count());
                if before.is_none() {
                    report.line(
                        json!({"event": "directory", "size": size, "logs": logs}),
                        &format!("directory: {size} entries, {logs} logs"),
                    )?;
                }
                self.directory = Some(directory);
            }
        }
        Ok(())
    }

    /// `None` when nothing is new, or there is no directory here.
    fn walk_directory(&mut self) -> Result<Option<Followed>, Trouble> {
        let place = self.place.below(DIRECTORY);
        let wrong =
            |code, detail: &str| Trouble::Violation(violation(code, DIRECTORY, detail.to_owned()));
        let Some(text) = place.read_if_there("vkey").map_err(unreadable)? else {
            return match self.memory.directory() {
                None => Ok(None),
                Some(_) => Err(wrong("directory_vanished", "its key is gone")),
            };
        };
        let (vkey, kind) =
            parse_vkey(&text, None).map_err(|why| wrong("directory_replaced", &why))?;
        if kind != Kind::Directory {
            return Err(wrong("directory_replaced", "the key there is that of a signer's log"));
        }
        if self.memory.directory().is_some_and(|known| known != vkey.to_string()) {
            return Err(wrong("directory_replaced", "it has another key than before"));
        }
        let Some(note) = place.read_if_there("checkpoint").map_err(unreadable)? else {
            return match self.memory.directory() {
                None => Ok(None),
                Some(_) => Err(wrong("directory_vanished", "its checkpoint is gone")),
            };
        };
        let of = |e| trouble(DIRECTORY, e);
        let (checkpoint, _) = open(&note, &vkey).map_err(of)?;
        if self.directory.as_ref().is_some_and(|d| d.is_at(&checkpoint)) {
            return Ok(None);
        }
        let never = AtomicBool::new(false);
        let resume = self.memory.resume(DIRECTORY);
        let mut check =
            Check::begin(Reader::new(&place), &vkey, kind, Some(resume), &never).map_err(of)?;
        let agreement = check.run().map_err(of)?;
        drop(check);
        Ok(Some(Followed::at(vkey, agreement, None)))
    }

    /// The logs of the signers that the deployment names.
    fn signers(&self) -> anyhow::Result<Vec<LogId>> {
        let document: serde_json::Value = serde_json::from_slice(&self.place.read("signers")?)?;
        let signers = document.get("signers").and_then(serde_json::Value::as_array);
        let signers = signers.ok_or_else(|| anyhow::anyhow!("it lists no signers"))?;
        if signers.len() > MAX_LOGS {
            anyhow::bail!("it lists {} signers", signers.len());
        }
        let id = |signer: &serde_json::Value| {
            let id = signer.get("log_id").and_then(serde_json::Value::as_str);
            id.and_then(|id| id.parse().ok())
        };
        let ids: Option<Vec<LogId>> = signers.iter().map(id).collect();
        ids.ok_or_else(|| anyhow::anyhow!("a signer has no `log_id`"))
    }

    /// One log from where it was; says how far it got. Output that fails ends everything.
    fn follow(&mut self, id: LogId, report: &Report) -> std::io::Result<Result<(), Trouble>> {
        let before = self.logs.get(&id).map(|log| log.size);
        let log = match self.walk(id) {
            Ok(Some(log)) => log,
            Ok(None) => return Ok(Ok(())),
            Err(trouble) => return Ok(Err(trouble)),
        };
        let (size, tokens, keys) = (log.size, log.story.tokens, log.story.keys().len());
        if before != Some(size) {
            report.line(
                json!({"event": "log", "log": id.to_string(), "size": size, "before": before,
                       "tokens": tokens, "keys": keys}),
                &match before {
                    None => format!("log {id}: {size} entries, {tokens} tokens, {keys} keys"),
                    Some(before) => format!("log {id}: {before} to {size} entries, {keys} keys"),
                },
            )?;
        }
        self.logs.insert(id, log);
        Ok(Ok(()))
    }

    /// `None` when nothing is new.
    fn walk(&mut self, id: LogId) -> Result<Option<Followed>, Trouble> {
        let about = format!("log {id}");
        let place = self.place.below(&format!("log/{id}"));
        let known = self.logs.get(&id);
        let vanished = |what: &str| {
            Trouble::Violation(violation("log_vanished", &about, format!("`{what}` is gone")))
        };
        let (vkey, vkeys) = match known {
            Some(log) => (log.vkey.clone(), log.vkeys.clone()),
            None => {
                let text = place.read_if_there("vkey").map_err(unreadable)?;
                let text = text.ok_or_else(|| vanished("vkey"))?;
                let key = parse_vkey(&text, Some(id));
                let wrong = |why| Trouble::Violation(violation("log_disagrees", &about, why));
                (key.map_err(wrong)?.0, text)
            }
        };
        let of = |e| trouble(&about, e);
        let cosigned = Cosigned::read(&place, &vkeys, &vkey).map_err(of)?;
        self.check_anchored(id, &cosigned)?;
        let Some(note) = place.read_if_there("checkpoint").map_err(unreadable)? else {
            let was_there = known.is_some() || self.memory.logs().contains(&id);
            // A signer may be named a moment before its log is published.
            return if was_there { Err(vanished("checkpoint")) } else { Ok(None) };
        };
        let (checkpoint, _) = open(&note, &vkey).map_err(of)?;
        self.check_end(id, checkpoint.size)?;
        let head = self.directory().log(id).and_then(|named| named.latest());
        let head = head.map(|(_, head)| (head.size, Hash(head.root)));
        let unchanged = known.filter(|log| log.is_at(&checkpoint));
        if unchanged.is_some_and(|log| head.is_none() || log.claimed == head) {
            return Ok(None);
        }
        let mut claims: Vec<Claim> = Vec::new();
        if let Some(named) = self.directory().log(id).filter(|_| known.is_none()) {
            let root = Hash(named.genesis().genesis_leaf);
            claims.push(Claim { size: 1, root, by: "by its genesis in the directory" });
        }
        claims.extend(head.map(|(size, root)| Claim { size, root, by: "in the directory" }));
        let never = AtomicBool::new(false);
        let resume = self.memory.resume(&id.to_string());
        let mut check =
            Check::begin(Reader::new(&place), &vkey, Kind::Signer, Some(resume), &never)
                .map_err(of)?;
        if self.directory().log(id).is_some_and(|named| named.closing().is_some()) {
            check.allow_pruned();
        }
        let agreement = check.run().map_err(of)?;
        // Now that every tile is known to be good, a proof that fails is the history's fault.
        for claim in &claims {
            check.extends(claim).map_err(of)?;
        }
        cosigned.check(&mut check, &agreement).map_err(of)?;
        drop(check);
        Ok(Some(Followed { vkeys, ..Followed::at(vkey, agreement, head) }))
    }

    /// A log whose second key the anchor has must show that key, and what it signed.
    fn check_anchored(&self, id: LogId, cosigned: &Cosigned) -> Result<(), Trouble> {
        let pinned = self.anchor.as_ref().and_then(|anchor| anchor.cosigning_key(id));
        match pinned {
            Some(key) if cosigned.key() != Some(key) => {
                let detail = "its second key is not the anchor's".to_owned();
                let found = violation("log_disagrees", &format!("log {id}"), detail);
                Err(Trouble::Violation(found))
            }
            Some(_) if !cosigned.is_there() => {
                let why = "no checkpoint has the second signature that the anchor demands";
                Err(Trouble::Unreadable(why.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// That a log that was closed has not grown.
    fn check_end(&self, id: LogId, size: u64) -> Result<(), Trouble> {
        let closing = self.directory().log(id).and_then(|named| named.closing());
        let end = closing.map_or(size, |(_, closing)| closing.size);
        if end == size {
            return Ok(());
        }
        let detail = format!("it has {size} entries, and the directory closed it at {end}");
        Err(Trouble::Violation(violation("log_rewritten", &format!("log {id}"), detail)))
    }

    /// Every key set that is served for what is known so far.
    fn fetch_sets(&self, report: &mut Report) -> anyhow::Result<Served> {
        let mut served = Served::default();
        for realm in Announced::of(self.stories()).realms() {
            // A realm's name comes from strangers, and becomes a part of a path.
            if !is_plain(&realm) {
                continue;
            }
            match self.place.read_if_there(&format!("{realm}/jwks.json")) {
                // A realm that is gone has no set, and so no key that could be wrong.
                Ok(set) => served.realms.extend(set.map(|set| (realm, set))),
                Err(e) => report.unreadable(&format!("realm {realm}"), &format!("{e:#}"))?,
            }
        }
        for id in self.logs.keys() {
            match self.place.read_if_there(&format!("log/{id}/keys.jwt")) {
                Ok(set) => served.signers.extend(set.map(|set| (*id, set))),
                Err(e) => report.unreadable(&format!("log {id}"), &format!("{e:#}"))?,
            }
        }
        Ok(served)
    }

    /// How many keys realms serve, and what is wrong with them or with what signers say.
    fn judge(&self, served: &Served) -> (usize, Vec<Suspicion>) {
        let announced = Announced::of(self.stories());
        let (mut count, mut found) = (0_usize, Vec::new());
        for (realm, bytes) in &served.realms {
            let (keys, wrong) = announced.judge_realm(realm, bytes);
            count = count.saturating_add(keys);
            found.extend(wrong);
        }
        for (id, bytes) in &served.signers {
            let Some(log) = self.logs.get(id) else { continue };
            let about = format!("log {id}");
            match open_signed_set(bytes, &log.vkey, *id) {
                Err(why) => found.push(certain("signed_set", &about, format!("keys.jwt: {why}"))),
                Ok((sequence, members)) => {
                    found.extend(announced.judge_signed(*id, &members));
                    let known = self.memory.sequence(*id).unwrap_or(0);
                    if sequence < known {
                        let detail = format!("keys.jwt has number {sequence} after {known}");
                        let violation = violation("signed_set_older", &about, detail);
                        // A cache may lag behind.
                        found.push(Suspicion { violation, may_be_late: true });
                    }
                }
            }
        }
        (count, found)
    }

    fn remember(&mut self, served: &Served) -> anyhow::Result<()> {
        for (id, bytes) in &served.signers {
            let Some(log) = self.logs.get(id) else { continue };
            let Ok((sequence, _)) = open_signed_set(bytes, &log.vkey, *id) else { continue };
            if self.memory.sequence(*id).is_none_or(|known| known < sequence) {
                self.memory.heard(*id, sequence)?;
            }
        }
        Ok(())
    }
}

impl Followed {
    fn at(vkey: VerifierKey, agreement: Agreement, claimed: Option<(u64, Hash)>) -> Self {
        let Agreement { checkpoint, story, .. } = agreement;
        Self {
            vkey,
            vkeys: Vec::new(),
            size: checkpoint.size,
            root: checkpoint.root,
            story,
            claimed,
        }
    }

    fn is_at(&self, checkpoint: &Checkpoint) -> bool {
        self.size == checkpoint.size && self.root == checkpoint.root
    }
}

fn trouble(about: &str, error: CheckError) -> Trouble {
    match error {
        CheckError::Disagrees { code, why } => Trouble::Violation(violation(code, about, why)),
        other => unreadable(other.into()),
    }
}

fn unreadable(error: anyhow::Error) -> Trouble {
    Trouble::Unreadable(format!("{error:#}"))
}

/// Letters, digits, dashes, underscores and dots, but no dot at the beginning.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}
