//! What logs say against tokens, told in the background.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chancery_tlog::{Hash, leaf_hash};
use chancery_validate::Validated;
use chancery_validate::log::Verdict;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// A token with a log's verdict that is not "in log".
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The token, which passed every other check.
    pub token: Validated,
    /// What the log says. A [`Verdict::Forged`] carries a proof that anybody can check.
    pub verdict: Verdict,
}

/// Findings that wait for the callback: a callback that is slower than this many is told less.
const WAITING_FINDINGS: usize = 1_024;

/// Called with each finding.
pub type Callback = Arc<dyn Fn(&Finding) + Send + Sync>;

/// Hands findings to a callback, on a thread where it may block.
pub struct Findings {
    sender: Option<mpsc::Sender<Finding>>,
    dropped: Arc<AtomicU64>,
}

impl Findings {
    /// Without a callback findings are counted as dropped.
    pub fn new(handle: Option<&Handle>, callback: Option<Callback>) -> Self {
        let dropped = Arc::new(AtomicU64::new(0));
        let sender = handle.zip(callback).map(|(handle, callback)| {
            let (sender, receiver) = mpsc::channel(WAITING_FINDINGS);
            handle.spawn(tell(receiver, callback, Arc::clone(&dropped)));
            sender
        });
        Self { sender, dropped }
    }

    /// Tells a finding some time later.
    pub fn found(&self, finding: Finding) {
        let told = self.sender.as_ref().is_some_and(|sender| sender.try_send(finding).is_ok());
        if !told {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Findings that were not told.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Findings").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

/// Ends when the relying party is dropped.
async fn tell(mut receiver: mpsc::Receiver<Finding>, callback: Callback, dropped: Arc<AtomicU64>) {
    while let Some(finding) = receiver.recv().await {
        let callback = Arc::clone(&callback);
        let call = move || catch_unwind(AssertUnwindSafe(|| callback(&finding))).is_ok();
        if !tokio::task::spawn_blocking(call).await.unwrap_or(false) {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What names a token's entry: the key and what it signed.
pub fn entry_of(token: &Validated) -> Hash {
    let mut text = token.key_thumbprint().to_string();
    text.push('.');
    text.push_str(token.signing_input());
    leaf_hash(text.as_bytes())
}

/// A bounded table of hashes, each with a place, that forgets the oldest.
#[derive(Debug)]
pub struct Seen {
    generations: Mutex<(HashMap<Hash, u64>, HashMap<Hash, u64>)>,
    half: usize,
}

impl Seen {
    /// A table of at most `entries`, rounded up to 2.
    pub fn new(entries: usize) -> Self {
        Self { generations: Mutex::default(), half: entries.div_ceil(2).max(1) }
    }

    /// The place, if the hash is there.
    pub fn place(&self, hash: &Hash) -> Option<u64> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.0.get(hash).or_else(|| generations.1.get(hash)).copied()
    }

    /// Adds a hash with its place; says whether it is new.
    pub fn add(&self, hash: Hash, place: u64) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let (young, old) = &mut *generations;
        if young.contains_key(&hash) || old.contains_key(&hash) {
            return false;
        }
        if young.len() >= self.half {
            *old = std::mem::take(young);
        }
        young.insert(hash, place);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_and_bounded() {
        let seen = Seen::new(10);
        let hash = |number: u32| leaf_hash(&number.to_be_bytes());
        for number in 0..100 {
            assert!(seen.add(hash(number), u64::from(number)));
            assert!(!seen.add(hash(number), 0));
            let known = (0..=number).filter(|n| seen.place(&hash(*n)).is_some()).count();
            assert_eq!(seen.place(&hash(number)), Some(u64::from(number)));
            assert!(known <= 10, "{known}");
        }
    }
}
