//! When the key set of one issuer is fetched, and how long it is believed: a pure state machine.
//!
//! Time is an argument, in milliseconds that never go back; so is randomness. The keys themselves are
//! elsewhere: this decides by times alone, which is why invented `kid`s cannot move it.
//!
//! | state | a token with a known key | a token with an unknown key |
//! |---|---|---|
//! | none | - | waits for the running fetch, or starts one unless the cool-down runs |
//! | fresh, stale | is judged at once | the same |
//! | expired | - | the same |
//!
//! What always holds, and is tested against a simulated clock (`keeper/tests.rs`):
//! - at most one fetch runs, and two begin at least the cool-down apart, whatever is asked;
//! - a set is believed for `age + keep` from the beginning of its fetch, and not a moment longer;
//! - while the publisher answers, a key that it takes back is gone within `age + fetch time`.

use crate::Bounds;

/// The times of [`Bounds`] that matter here, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// [`Bounds::min_age`]
    pub min_age: u64,
    /// [`Bounds::max_age`]
    pub max_age: u64,
    /// [`Bounds::default_age`]
    pub default_age: u64,
    /// [`Bounds::cool_down`]
    pub cool_down: u64,
    /// [`Bounds::keep`]
    pub keep: u64,
    /// [`Bounds::retry_at_most`]
    pub retry_at_most: u64,
}

impl From<&Bounds> for Pace {
    fn from(bounds: &Bounds) -> Self {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            min_age: ms(bounds.min_age),
            max_age: ms(bounds.max_age),
            default_age: ms(bounds.default_age),
            cool_down: ms(bounds.cool_down),
            keep: ms(bounds.keep),
            retry_at_most: ms(bounds.retry_at_most),
        }
    }
}

/// What is known of a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There was never one.
    None,
    /// It is as new as its publisher wants it.
    Fresh,
    /// It should have been replaced, but is still believed.
    Stale,
    /// It is too old to be believed.
    Expired,
}

/// What a call does whose token names a key that is not at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Begin a fetch, and wait for it. It counts as running from here on.
    Fetch,
    /// Wait for the fetch that runs.
    Wait,
    /// Judge by what is at hand: the cool-down is not over.
    TooSoon,
}

/// What the task that fetches does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Fetch now; the fetch counts as running.
    Fetch,
    /// Look again at this time, or when woken.
    At(u64),
}

/// A set that was fetched.
#[derive(Clone, Copy, Debug)]
struct Good {
    /// When its request began: it shows the publisher's mind of that moment or later.
    asked: u64,
    age: u64,
}

/// The keeper of one key set.
#[derive(Clone, Debug)]
pub struct Keeper {
    pace: Pace,
    good: Option<Good>,
    /// When the fetch that runs began.
    running: Option<u64>,
    /// When the last fetch began.
    begun: Option<u64>,
    /// When to fetch without being asked.
    due: u64,
    failures: u32,
}

/// A set is refreshed when this share of its age is over, in thousandths, less a random part.
const REFRESH_AT: u64 = 800;
/// The random part, in thousandths of the age: many relying parties that started together spread.
const REFRESH_SPREAD: u64 = 100;
/// The scale of both, and of the random numbers that are given.
pub const THOUSAND: u64 = 1_000;

impl Keeper {
    /// A keeper that wants its first set at once.
    pub const fn new(pace: Pace, now: u64) -> Self {
        Self { pace, good: None, running: None, begun: None, due: now, failures: 0 }
    }

    /// What is known.
    pub fn state(&self, now: u64) -> State {
        match self.good {
            None => State::None,
            Some(good) if now < good.fresh_until() => State::Fresh,
            Some(good) if now < self.pace.believed_until(good) => State::Stale,
            Some(_) => State::Expired,
        }
    }

    /// Until when the set at hand is believed; `None` without one.
    pub fn believed_until(&self) -> Option<u64> {
        self.good.map(|good| self.pace.believed_until(good))
    }

    /// When the request for the set at hand began, and for how long it is fresh from then on.
    pub fn asked_and_age(&self) -> Option<(u64, u64)> {
        self.good.map(|good| (good.asked, good.age))
    }

    /// Failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// A token names a key that is not at hand, or no set is.
    pub fn ask(&mut self, now: u64) -> Ask {
        let ask = self.would(now);
        if ask == Ask::Fetch {
            self.begin(now);
        }
        ask
    }

    /// What [`Keeper::ask`] would answer.
    pub fn would(&self, now: u64) -> Ask {
        if self.running.is_some() {
            Ask::Wait
        } else if now >= self.earliest() {
            Ask::Fetch
        } else {
            Ask::TooSoon
        }
    }

    /// What the task that fetches does: the fetch that a token asked for, the one that is due, or
    /// nothing yet.
    pub fn next(&mut self, now: u64) -> Next {
        if self.running.is_some() {
            return Next::Fetch;
        }
        let at = self.due.max(self.earliest());
        if now < at {
            return Next::At(at);
        }
        self.begin(now);
        Next::Fetch
    }

    /// The running fetch brought a set, or the news that it did not change. `lifetime_s` is what the
    /// answer says about its freshness, `random` is below [`THOUSAND`].
    pub fn fetched(&mut self, now: u64, lifetime_s: Option<u64>, random: u64) {
        let asked = self.running.take().unwrap_or(now);
        let said = lifetime_s.map_or(self.pace.default_age, |s| s.saturating_mul(THOUSAND));
        let age = said.clamp(self.pace.min_age, self.pace.max_age);
        let share = REFRESH_AT.saturating_sub(REFRESH_SPREAD.saturating_mul(random) / THOUSAND);
        self.good = Some(Good { asked, age });
        self.failures = 0;
        self.due = asked.saturating_add(age.saturating_mul(share) / THOUSAND);
    }

    /// The running fetch failed.
    pub fn failed(&mut self, now: u64, random: u64) {
        let asked = self.running.take().unwrap_or(now);
        let times = 1_u64.checked_shl(self.failures).unwrap_or(u64::MAX);
        let longest = self.pace.retry_at_most.max(self.pace.cool_down);
        let wait = self.pace.cool_down.saturating_mul(times).min(longest);
        // Up to a quarter more, so that what failed together does not come back together.
        let spread = (wait / 4).saturating_mul(random) / THOUSAND;
        self.failures = self.failures.saturating_add(1);
        self.due = asked.saturating_add(wait).saturating_add(spread);
    }

    fn begin(&mut self, now: u64) {
        self.running = Some(now);
        self.begun = Some(now);
    }

    /// When the cool-down is over.
    fn earliest(&self) -> u64 {
        self.begun.map_or(0, |begun| begun.saturating_add(self.pace.cool_down))
    }
}

impl Good {
    const fn fresh_until(&self) -> u64 {
        self.asked.saturating_add(self.age)
    }
}

impl Pace {
    const fn believed_until(&self, good: Good) -> u64 {
        good.fresh_until().saturating_add(self.keep)
    }
}

#[cfg(test)]
mod tests;
