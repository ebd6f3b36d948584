//! The one place where time is read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A jump of the wall clock below this is ordinary slewing and rounding.
const SLACK_MS: u64 = 1_000;

/// Milliseconds that never go back, and that also count time during which the machine slept.
///
/// The monotonic clock of most systems stands still while a virtual machine is suspended; a key set
/// would look fresh that was fetched a day ago. So whatever the wall clock gains on the monotonic one
/// is added. A wall clock that is set forward makes key sets look older than they are, which costs a
/// request; one that is set back changes nothing.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    start_wall_ms: u64,
    slept_ms: AtomicU64,
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the clock was made.
    pub ms: u64,
    /// Seconds since 1970.
    pub unix_s: u64,
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { start: Instant::now(), start_wall_ms: wall_ms(), slept_ms: AtomicU64::new(0) }
    }

    /// The time.
    pub fn now(&self) -> Moment {
        let wall_ms = wall_ms();
        let running_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Moment { ms: self.count(running_ms, wall_ms), unix_s: wall_ms / 1_000 }
    }

    fn count(&self, running_ms: u64, wall_ms: u64) -> u64 {
        let passed_ms = wall_ms.saturating_sub(self.start_wall_ms);
        let gained_ms = passed_ms.saturating_sub(running_ms);
        let mut slept_ms = self.slept_ms.load(Ordering::Relaxed);
        if gained_ms > slept_ms.saturating_add(SLACK_MS) {
            slept_ms = self.slept_ms.fetch_max(gained_ms, Ordering::Relaxed).max(gained_ms);
        }
        running_ms.saturating_add(slept_ms)
    }
}

/// Before 1970 every token is from the future; saying 1970 rejects them just so.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_both_times() {
        let clock = Clock::new();
        let first = clock.now();
        assert!(first.ms < 1_000 && first.unix_s > 1_700_000_000, "{first:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(clock.now().ms >= first.ms + 20);
    }

    #[test]
    fn sleep_counts_and_a_wall_clock_that_steps_back_does_not() {
        let clock = Clock { start: Instant::now(), start_wall_ms: 5_000, slept_ms: 0.into() };
        assert_eq!(clock.count(100, 5_100), 100);
        assert_eq!(clock.count(200, 5_900), 200, "slewing");
        assert_eq!(clock.count(300, 65_300), 60_300, "a minute of sleep");
        assert_eq!(clock.count(400, 1_000), 60_400, "set back");
        assert_eq!(clock.count(500, 125_500), 120_500, "another minute");
    }
}
