//! What follows from the state of the logs: pure, so that a directory that is behind is brought up by
//! the same rules as one that follows second by second.

use std::sync::Arc;

use chancery_entry::directory::{DirectoryEntry, LogClosing, LogGenesis};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Hash, LogId};
use chancery_validate::directory::{Directory as Reading, Wrong, checkpoint_entry};

/// Entries of one batch: those of a few hundred logs, some 100 kB. The rest comes with the next.
pub(super) const MAX_BATCH: usize = 1_024;

/// A log as it is now.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub id: LogId,
    pub key: VerifierKey,
    /// What its first entry says; needed while the directory does not name the log.
    pub genesis: Option<Genesis>,
    /// Its signed checkpoint, durable in the store.
    pub note: Arc<str>,
}

/// What a log's first entry says.
#[derive(Clone, Debug)]
pub(super) struct Genesis {
    pub leaf: Hash,
    pub predecessor: Option<LogId>,
    /// The key that cosigns the log's checkpoints.
    pub cosigning_key: Option<VerifierKey>,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Plan {
    /// The entries, encoded.
    pub entries: Vec<Vec<u8>>,
    /// The directory with them.
    pub after: Reading,
    /// What is wrong with entries that would follow and may not, for a person to look at.
    pub problems: Vec<Wrong>,
}

/// The entries that these logs still need: their names, then their checkpoints, then, for all but the
/// `living` signer's, their ends.
///
/// Nothing is closed before a living log is known and named: it may be a closed one's successor.
pub(super) fn plan(reading: &Reading, seen: &[Seen], living: Option<LogId>) -> Plan {
    let mut plan = Plan { entries: Vec::new(), after: Reading::new(), problems: Vec::new() };
    if !seen.iter().any(|log| is_due(reading, log, living)) {
        return plan;
    }
    plan.after = reading.clone();
    for log in in_order_of_succession(seen) {
        if let (None, Some(genesis)) = (reading.log(log.id), &log.genesis) {
            plan.add(DirectoryEntry::Genesis(LogGenesis {
                log: *log.id.as_bytes(),
                vkeys: std::iter::once(&log.key)
                    .chain(&genesis.cosigning_key)
                    .map(VerifierKey::to_string)
                    .collect(),
                genesis_leaf: genesis.leaf.0,
                predecessor: genesis.predecessor.map(|p| *p.as_bytes()),
            }));
        }
    }
    for log in seen {
        plan.add_checkpoint(log);
    }
    let Some(living) = living.filter(|living| plan.after.log(*living).is_some()) else {
        return plan;
    };
    for log in seen.iter().filter(|log| log.id != living) {
        plan.close(log.id);
    }
    plan
}

fn is_due(reading: &Reading, log: &Seen, living: Option<LogId>) -> bool {
    let Some(named) = reading.log(log.id) else { return true };
    let is_open = named.closing().is_none();
    let size = size_of(&log.note);
    let grew = size > named.latest().map(|(_, latest)| latest.size);
    is_open && (grew || living.is_some_and(|living| living != log.id))
}

/// The size that a checkpoint's second line states.
fn size_of(note: &str) -> Option<u64> {
    note.lines().nth(1).and_then(|line| line.parse().ok())
}

/// Each after the log that it continues, where both are new.
fn in_order_of_succession(seen: &[Seen]) -> Vec<&Seen> {
    let mut rest: Vec<&Seen> = seen.iter().collect();
    let mut ordered = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let waits = |log: &Seen| {
            let before = log.genesis.as_ref().and_then(|genesis| genesis.predecessor);
            before.is_some_and(|before| rest.iter().any(|other| other.id == before))
        };
        let (later, now): (Vec<&Seen>, Vec<&Seen>) =
            rest.iter().copied().partition(|log| waits(log));
        // Logs that continue each other do not exist; if they did, they would not hold up others.
        if now.is_empty() {
            ordered.extend(later);
            break;
        }
        ordered.extend(now);
        rest = later;
    }
    ordered
}

impl Plan {
    fn add_checkpoint(&mut self, log: &Seen) {
        let Some(named) = self.after.log(log.id) else { return };
        let known = named.latest().map(|(_, latest)| latest.size);
        if named.closing().is_some() || size_of(&log.note) <= known {
            return;
        }
        match checkpoint_entry(&log.note, &log.key) {
            Ok(entry) => self.add(DirectoryEntry::Checkpoint(entry)),
            Err(_) => {
                self.problems.push(Wrong::Unsigned(log.id));
            }
        }
    }

    fn close(&mut self, log: LogId) {
        let Some(named) = self.after.log(log) else { return };
        let (None, Some((_, last))) = (named.closing(), named.latest()) else { return };
        let (size, root) = (last.size, last.root);
        let successor = self.after.successor(log).map(|s| *s.as_bytes());
        let log = *log.as_bytes();
        self.add(DirectoryEntry::Closing(LogClosing { log, size, root, successor }));
    }

    /// Adds an entry if the rules that every reader applies allow it.
    fn add(&mut self, entry: DirectoryEntry) {
        if self.entries.len() >= MAX_BATCH {
            return;
        }
        let index = self.after.size();
        let encoded = match entry.encode() {
            Ok(encoded) => encoded,
            Err(e) => return self.problems.push(e.into()),
        };
        match self.after.apply(index, entry) {
            Ok(()) => self.entries.push(encoded),
            Err(violation) => self.problems.push(violation.wrong),
        }
    }
}
