//! The life of a key, as a pure function of time: INVARIANT I3 and I4.
//!
//! `Pending -> Active -> Retired -> Gone`. What a state obliges to:
//!
//! | state | signs | published | private half |
//! |---|---|---|---|
//! | Pending | no | once its announcement is committed | exists |
//! | Active | yes, alone in its realm and algorithm | yes | exists |
//! | Retired | no | until the last token that it signed has expired, and the skew | destroyed |
//! | Gone | no | no | destroyed |
//!
//! Windows of one lane (a realm and an algorithm) never overlap, so at most one key is Active. A
//! window is half-open in whole seconds; a key signs in it only `publish_lead` after the *commit*
//! of its announcement, except the first key of a lane and the replacement of a compromised one.

use chancery_entry::Start;
use chancery_policy::document::MAX_LIVE_KEYS;
use chancery_policy::{Rotation, Schedule};

/// A signature may be made this long after the window, in milliseconds: `iat` was read inside it,
/// and signing a full frame takes time. Later ones are void.
pub const LATE_SIGNATURE_MS: u64 = 2_000;

/// What the lifecycle needs to know of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// First second of its window.
    pub nbf: u64,
    /// End of its window, narrowed where an explicit rotation took over.
    pub signs_until: u64,
    /// How it starts.
    pub start: Start,
    /// Unix milliseconds at which its announcement was committed.
    pub committed_ms: Option<u64>,
    /// Whether the private half still exists.
    pub has_private: bool,
    /// The latest expiry among tokens that it signed.
    pub last_exp: Option<u64>,
    /// The longest lifetime that it may sign, in seconds.
    pub max_lifetime_s: u64,
    /// Seconds that validators may lag behind.
    pub skew_s: u64,
    /// Seconds between the commit of its announcement and its first signature, as the schedule
    /// said when it was announced: a later schedule moves no key that relying parties know.
    pub lead_s: u64,
    /// Whether it fell to a compromise.
    pub compromised: bool,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Announced, not signing yet.
    Pending,
    /// Signing.
    Active,
    /// Its private half is destroyed; tokens that it signed are still valid.
    Retired,
    /// Not believed any more.
    Gone,
}

impl State {
    /// Lower-case name for reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Active => "active",
            State::Retired => "retired",
            State::Gone => "gone",
        }
    }
}

impl KeyFacts {
    /// Whether it may sign a token whose `iat` is the second of `now_ms`.
    #[must_use]
    pub fn may_sign(&self, now_ms: u64) -> bool {
        self.may_sign_for(now_ms / 1_000, now_ms)
    }

    /// Whether it may sign at `now_ms` a token whose `iat` another clock set, which may be ahead: the
    /// window is asked about that second, and relying parties know the key since its lead.
    #[must_use]
    pub fn may_sign_for(&self, iat: u64, now_ms: u64) -> bool {
        let led = match (self.start, self.committed_ms) {
            (Start::First | Start::Replacement, _) => true,
            (Start::Led, Some(at)) => {
                at.saturating_add(self.lead_s.saturating_mul(1_000)) <= now_ms
            }
            (Start::Led, None) => false,
        };
        self.has_private
            && !self.compromised
            && led
            && (self.nbf..self.signs_until).contains(&iat)
            && now_ms / 1_000 < self.signs_until
    }

    /// First second in which the key is no longer in the key set.
    #[must_use]
    pub fn leaves_at(&self, now_s: u64) -> u64 {
        if now_s < self.signs_until {
            let longest = self.signs_until.saturating_add(self.max_lifetime_s);
            return longest.saturating_add(self.skew_s);
        }
        self.last_exp.unwrap_or(self.signs_until).max(self.signs_until).saturating_add(self.skew_s)
    }

    /// Its state at `now_ms`.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> State {
        let now_s = now_ms / 1_000;
        if self.compromised || now_s >= self.leaves_at(now_s) {
            State::Gone
        } else if now_s >= self.signs_until || !self.has_private {
            State::Retired
        } else if self.may_sign(now_ms) {
            State::Active
        } else {
            State::Pending
        }
    }
}

/// What a lane remembers beside its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneFacts {
    /// End of the latest window ever announced here; `None` before the first.
    pub last_end: Option<u64>,
    /// A key was compromised and its replacement is not announced yet.
    pub replacement_due: bool,
    /// Until this second relying parties may hold a key set that they fetched under an earlier
    /// schedule with a longer `max-age`: a key that they cannot know yet does not sign before.
    pub cached_until: u64,
    /// Another clock sets `iat`, and may be this many seconds ahead: a successor's lead has passed by
    /// the time at which that clock first calls for it.
    pub early_s: u64,
}

impl LaneFacts {
    /// Seconds from an announcement at `now_s` to the key's first signature.
    #[must_use]
    pub fn lead_s(&self, now_s: u64, schedule: &Schedule) -> u64 {
        schedule.publish_lead_s.max(self.cached_until.saturating_sub(now_s))
    }
}

/// What a sweep wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make and announce a key.
    Announce {
        /// First second of its window.
        nbf: u64,
        /// End of its window.
        signs_until: u64,
        /// How it starts.
        start: Start,
        /// Seconds without any key that the operator must hear about.
        gap_s: u64,
    },
    /// Destroy the private half of the key at this position.
    Destroy(usize),
    /// Remove the key at this position: it is Gone.
    Forget(usize),
}

/// Decides what is due at `now_ms` (Unix milliseconds) for one lane.
#[must_use]
pub fn sweep(now_ms: u64, keys: &[KeyFacts], lane: LaneFacts, schedule: &Schedule) -> Vec<Action> {
    let now_s = now_ms / 1_000;
    let mut actions = Vec::new();
    for (position, key) in keys.iter().enumerate() {
        if key.has_private && (key.compromised || now_s >= key.signs_until) {
            actions.push(Action::Destroy(position));
        }
        if key.compromised || now_s >= key.leaves_at(now_s) {
            actions.push(Action::Forget(position));
        }
    }
    announce(now_s, keys, lane, schedule, &mut actions);
    actions
}

fn announce(
    now_s: u64,
    keys: &[KeyFacts],
    lane: LaneFacts,
    schedule: &Schedule,
    actions: &mut Vec<Action>,
) {
    let window = schedule.window_s();
    let lead_s = lane.lead_s(now_s, schedule);
    let ahead_s = lead_s.saturating_add(schedule.margin_s()).saturating_add(lane.early_s);
    let horizon = now_s.saturating_add(ahead_s);
    let mut end = match lane.last_end {
        Some(end) if !lane.replacement_due => end,
        // The first key signs at once. Its window reaches at least to where a successor that is
        // announced now may take over. Only a key that a change of the policy retired within this
        // second has a window that is not over yet.
        before => {
            let believed = keys.iter().filter(|k| !k.compromised).map(|k| k.signs_until).max();
            let nbf = now_s.max(believed.unwrap_or(0));
            let signs_until = nbf.saturating_add(window).max(horizon);
            let start = if before.is_none() { Start::First } else { Start::Replacement };
            actions.push(Action::Announce { nbf, signs_until, start, gap_s: 0 });
            signs_until
        }
    };
    if schedule.rotation == Rotation::Manual {
        return;
    }
    let mut room = usize::try_from(MAX_LIVE_KEYS).unwrap_or(0).saturating_sub(keys.len());
    while end <= horizon && room > 0 {
        let nbf = end.max(now_s.saturating_add(lead_s));
        let signs_until = nbf.saturating_add(window);
        // INVARIANT I4: no key's window is stretched over a gap; nothing signs until the lead of
        // the successor has passed.
        let gap_s = nbf.saturating_sub(end.max(now_s));
        actions.push(Action::Announce { nbf, signs_until, start: Start::Led, gap_s });
        end = signs_until;
        room = room.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
