//! `release = "witnessed"` (INVARIANT I2): batches that are durable, and whose tokens wait for a
//! directory root that witnesses cosigned and that the signer accepted. The signer checks it; what is
//! kept here is only the order, so that nothing is asked of it in vain.
//!
//! A batch that waits for longer than the signer keeps its tokens is committed without them, so that
//! the log goes on. Then the witnesses count as away, and requests are told so at once, until a root
//! covers what was left behind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chancery_signer_api::{Decision, Outcome};

use super::{Batch, Issuer, Queue, Unavailable, lock};

/// The signer voids what was not committed for 30 s, by its clock, which began earlier.
const VOID_AFTER: Duration = Duration::from_secs(31);

/// A batch that waits for so long shows that the witnesses are away: further requests would wait in
/// vain. Witnesses answer in fractions of a second.
const AWAY_AFTER: Duration = Duration::from_secs(5);

/// Batches that wait for witnesses.
#[derive(Default)]
pub(super) struct Held {
    batches: VecDeque<Waiting>,
    /// Entries of the signer's log that it has seen witnessed.
    covered: u64,
    /// Tokens were voided, and nothing was covered since.
    gave_up: bool,
}

struct Waiting {
    size: u64,
    since: Instant,
    has_tokens: bool,
    number: u64,
    batch: Batch,
}

impl Held {
    /// A new connection: nothing is known to be covered.
    pub(super) fn clear(&mut self) -> Vec<Batch> {
        std::mem::take(self).batches.into_iter().map(|waiting| waiting.batch).collect()
    }

    fn are_away(&self) -> bool {
        let waits = |w: &Waiting| w.has_tokens && w.since.elapsed() >= AWAY_AFTER;
        self.gave_up || self.batches.front().is_some_and(waits)
    }
}

impl Issuer {
    /// Has tokens wait for witnesses.
    pub fn wait_for_witnesses(&mut self) {
        self.witnessed = true;
    }

    /// Step 6 is done: the batch, which ends the log at `size` entries, may be committed, at once or
    /// when it is covered.
    pub(super) fn hold(&self, size: u64, number: u64, batch: Batch) {
        let mut queue = lock(&self.queue);
        if self.witnessed {
            let has_tokens = has_tokens(&batch.decisions);
            let since = Instant::now();
            queue.held.batches.push_back(Waiting { size, since, has_tokens, number, batch });
            queue.free_held();
        } else {
            queue.commits.push_back((number, batch));
        }
        let waits = !queue.held.batches.is_empty();
        drop(queue);
        self.changed.notify_one();
        if waits {
            self.unwitnessed.notify_one();
        }
    }

    /// The signer accepted a root that covers so many entries of its log.
    pub fn covered(&self, size: u64) {
        let mut queue = lock(&self.queue);
        queue.held.covered = queue.held.covered.max(size);
        queue.held.gave_up = false;
        queue.free_held();
        drop(queue);
        self.changed.notify_one();
    }

    /// Whether the witnesses are away.
    #[must_use]
    pub fn waits_in_vain(&self) -> bool {
        lock(&self.queue).held.are_away()
    }

    /// Completes when a batch began to wait.
    pub async fn waits(&self) {
        self.unwitnessed.notified().await;
    }
}

impl Queue {
    /// Lets go what waits no longer.
    pub(super) fn free_held(&mut self) {
        while let Some(front) = self.held.batches.front() {
            let is_free = !front.has_tokens || front.size <= self.held.covered;
            let is_void = front.since.elapsed() >= VOID_AFTER;
            if !is_free && !is_void {
                return;
            }
            if !is_free {
                tracing::error!("the witnesses are away: the tokens of a batch are void");
                self.held.gave_up = true;
            }
            let Some(front) = self.held.batches.pop_front() else { return };
            self.commits.push_back((front.number, front.batch));
        }
    }

    /// Whether requests would wait in vain.
    pub(super) fn witnesses_away(&self) -> Option<Unavailable> {
        let why = "the witnesses do not cosign the directory, and no token leaves without them";
        self.held.are_away().then_some(Unavailable { why, retry_after_s: 5 })
    }
}

fn has_tokens(decisions: &[Decision]) -> bool {
    let mut outcomes = decisions.iter().flat_map(|decision| &decision.outcomes);
    outcomes.any(|outcome| matches!(outcome, Outcome::Granted(_)))
}
