//! One witness: what it has cosigned, when it is asked again, and what its answers mean.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chancery_tlog::note::{Signature, VerifierKey};
use chancery_tlog::witness::{AddCheckpoint, Answer, judge_answer};

use super::client::Reply;
use super::{Alarm, Counts};

/// The pause after a first failure; doubled with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: a witness that is back is found within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A witness.
#[derive(Debug)]
pub struct Remote {
    name: String,
    url: String,
    keys: Vec<VerifierKey>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The size that it is believed to have; nothing before the first answer.
    known: u64,
    /// The largest size that it cosigned for this process.
    cosigned: u64,
    /// A request is under way: a slow witness is not asked twice.
    busy: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// What it was told to be wrong last, so that a change is a line in the log and a repetition not.
    trouble: Option<String>,
    alarm: Option<Alarm>,
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The lines are verified.
    Cosigned(Vec<Signature>),
    /// Its size is known now: ask again.
    Again,
    /// Nothing; it is asked again after a pause.
    Failed,
}

impl Remote {
    /// A witness by its keys, below its submission prefix.
    pub fn new(name: String, url: String, keys: Vec<VerifierKey>) -> Self {
        Self { name, url, keys, state: Mutex::default() }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its submission prefix, without a final slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The alarm that stands.
    pub fn alarm(&self) -> Option<Alarm> {
        self.state().alarm
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request for a tree of `size`: answers the size to prove from, and whether to wait for
    /// the answer; `None` if it is not its time. What is asked `again` in a round does not wait.
    pub fn begin(&self, size: u64, again: bool) -> Option<(u64, bool)> {
        let mut state = self.state();
        if state.busy || (state.is_paused() && !again) {
            return None;
        }
        state.busy = true;
        // A smaller tree than it has: it says so itself, and that is the alarm.
        let old = if state.known <= size { state.known } else { 0 };
        Some((old, state.failures == 0))
    }

    /// Whether it has cosigned this size, or cannot be asked now.
    pub fn is_settled(&self, size: u64) -> bool {
        let state = self.state();
        state.cosigned >= size || state.busy || state.is_paused()
    }

    /// Ends a request that was not sent.
    pub fn give_up(&self, why: &str, counts: &Counts) {
        let mut state = self.state();
        self.fail(&mut state, why, counts);
    }

    /// Ends a request with its answer.
    pub fn settle(
        &self,
        request: &AddCheckpoint,
        reply: Result<Reply, String>,
        counts: &Counts,
    ) -> Step {
        let size = request.checkpoint().size;
        let judged = reply.and_then(|reply| {
            let kind = reply.content_type.as_deref();
            judge_answer(request, &self.keys, reply.status, kind, &reply.body)
                .map_err(|e| e.to_string())
        });
        let mut state = self.state();
        let step = match judged {
            Ok(Answer::Cosigned(cosigned)) => {
                self.succeed(&mut state, size, counts);
                return Step::Cosigned(cosigned.into_iter().map(|c| c.signature).collect());
            }
            Ok(Answer::Conflict { latest }) => self.conflict(&mut state, latest, size, counts),
            Ok(Answer::Inconsistent) => {
                self.raise(&mut state, Alarm::Inconsistent { ours: size }, counts);
                Step::Failed
            }
            Ok(Answer::UnknownOrigin) => {
                let why = "it does not know this directory (404): its operator must add it";
                self.fail(&mut state, why, counts);
                return Step::Failed;
            }
            Ok(Answer::Untrusted) => {
                let why = "it has another key for this directory (403): its operator must mend it";
                self.fail(&mut state, why, counts);
                return Step::Failed;
            }
            Ok(Answer::Other { status }) => {
                self.fail(&mut state, &format!("it answered with status {status}"), counts);
                return Step::Failed;
            }
            Err(e) => {
                self.fail(&mut state, &e, counts);
                return Step::Failed;
            }
        };
        state.busy = false;
        if step == Step::Failed {
            pause(&mut state);
        }
        step
    }

    fn conflict(&self, state: &mut State, latest: u64, size: u64, counts: &Counts) -> Step {
        if latest > size {
            self.raise(state, Alarm::Ahead { witness: latest, ours: size }, counts);
            return Step::Failed;
        }
        if latest < state.cosigned {
            let cosigned = state.cosigned;
            self.raise(state, Alarm::Forgot { witness: latest, cosigned }, counts);
        }
        counts.asked(&self.name, "conflict");
        state.known = latest;
        Step::Again
    }

    fn succeed(&self, state: &mut State, size: u64, counts: &Counts) {
        counts.asked(&self.name, "cosigned");
        counts.cosigned(&self.name, size);
        if state.trouble.take().is_some() {
            tracing::warn!(witness = self.name, "the witness cosigns again");
        }
        // A witness that lost its memory is no better for having cosigned again.
        if !matches!(state.alarm, Some(Alarm::Forgot { .. })) && state.alarm.take().is_some() {
            tracing::warn!(witness = self.name, "the alarm is over");
            counts.alarm(&self.name, None);
        }
        state.known = size;
        state.cosigned = state.cosigned.max(size);
        state.busy = false;
        state.failures = 0;
        state.not_before = None;
    }

    fn raise(&self, state: &mut State, alarm: Alarm, counts: &Counts) {
        counts.asked(&self.name, alarm.kind());
        if state.alarm.as_ref().map(Alarm::kind) != Some(alarm.kind()) {
            tracing::error!(witness = self.name, "ALARM: {alarm}");
        }
        state.alarm = Some(alarm);
        counts.alarm(&self.name, Some(alarm));
    }

    fn fail(&self, state: &mut State, why: &str, counts: &Counts) {
        counts.asked(&self.name, "failed");
        let why: String = why.chars().take(200).flat_map(char::escape_debug).collect();
        if state.trouble.as_ref() != Some(&why) {
            tracing::warn!(witness = self.name, "no cosignature: {why}");
        }
        state.trouble = Some(why);
        state.busy = false;
        pause(state);
    }
}

impl State {
    fn is_paused(&self) -> bool {
        self.not_before.is_some_and(|at| Instant::now() < at)
    }
}

fn pause(state: &mut State) {
    let doubled = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(state.failures).unwrap_or(u32::MAX));
    state.failures = state.failures.saturating_add(1);
    state.not_before = Some(Instant::now() + doubled.min(LONGEST_PAUSE));
}
