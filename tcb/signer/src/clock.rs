//! INVARIANT I10: wall clocks that step are not believed.
//!
//! The host sets the wall clock. The signer compares it with the kernel's boot-time clock, which
//! nobody sets and which goes on through suspend: the two may drift apart slowly, as they do under
//! NTP, but not step. What counts as a step does not grow with the signer's age: the drift that was
//! allowed is followed as it happens. While they disagree the signer signs nothing; keys are still
//! destroyed, by the later of the last good time and the time that the boot-time clock implies.

use rustix::time::{ClockId, clock_gettime};

/// A step of up to this many milliseconds is what NTP corrects at start-up on a healthy host.
pub const STEP_BOUND_MS: u64 = 2_000;
/// One part in this many of the time since the last reading is allowed beside it: twice the 500 ppm
/// at which kernels slew a clock.
pub const DRIFT_DIVISOR: u64 = 1_000;

/// Both clocks at one moment, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Unix time.
    pub wall_ms: u64,
    /// Time since boot, suspend included.
    pub boot_ms: u64,
}

/// Where readings come from; tests use their own.
pub trait Clock {
    /// Both clocks now.
    fn read(&mut self) -> Reading;
}

/// The kernel's clocks.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&mut self) -> Reading {
        let ms = |id| {
            let t = clock_gettime(id);
            let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
            let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
            seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
        };
        Reading { wall_ms: ms(ClockId::Realtime), boot_ms: ms(ClockId::Boottime) }
    }
}

/// The signer's time at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Unix milliseconds; never decreases.
    pub ms: u64,
    /// Boot-time milliseconds, for time-outs.
    pub boot_ms: u64,
    /// How far the wall clock is off, in milliseconds, when it is beyond the bound: sign nothing.
    pub untrusted_by_ms: Option<i64>,
}

impl Now {
    /// Whole Unix seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.ms / 1_000
    }

    /// Whether signing is allowed.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.untrusted_by_ms.is_none()
    }
}

/// Compares each reading with the one before.
#[derive(Debug)]
pub struct Watch<C> {
    clock: C,
    /// The last reading of the boot-time clock.
    boot_ms: u64,
    /// What the wall clock should have shown then, the drift followed so far included. It is kept
    /// in units of one part in [`DRIFT_DIVISOR`] of a millisecond, so that readings in quick
    /// succession follow a drift too.
    expected: u128,
    last_ms: u64,
}

impl<C: Clock> Watch<C> {
    /// Starts with the clock's present reading as the truth.
    pub fn new(mut clock: C) -> Self {
        let first = clock.read();
        Self {
            clock,
            boot_ms: first.boot_ms,
            expected: fine(first.wall_ms),
            last_ms: first.wall_ms,
        }
    }

    /// The time now, and whether it can be believed.
    pub fn now(&mut self) -> Now {
        let reading = self.clock.read();
        let elapsed = reading.boot_ms.saturating_sub(self.boot_ms);
        self.boot_ms = self.boot_ms.max(reading.boot_ms);
        let expected = self.expected.saturating_add(fine(elapsed));
        let shown = fine(reading.wall_ms);
        // One part in DRIFT_DIVISOR of the elapsed milliseconds, in the finer unit.
        let drift = u128::from(elapsed);
        let followed = shown.clamp(expected.saturating_sub(drift), expected.saturating_add(drift));
        if shown.abs_diff(followed) <= fine(STEP_BOUND_MS) {
            self.expected = followed;
            self.last_ms = self.last_ms.max(reading.wall_ms);
            return Now { ms: self.last_ms, boot_ms: reading.boot_ms, untrusted_by_ms: None };
        }
        // A clock that is wrong is not followed: a step never becomes right by waiting.
        self.expected = expected;
        let expected_ms = coarse(expected);
        let off = i64::try_from(reading.wall_ms.abs_diff(expected_ms)).unwrap_or(i64::MAX);
        let signed = if reading.wall_ms < expected_ms { off.saturating_neg() } else { off };
        // `expected` may only move time forward, so that a key past its window is destroyed.
        self.last_ms = self.last_ms.max(expected_ms);
        Now { ms: self.last_ms, boot_ms: reading.boot_ms, untrusted_by_ms: Some(signed) }
    }

    /// The clock itself, for tests that move it.
    pub fn clock_mut(&mut self) -> &mut C {
        &mut self.clock
    }
}

fn fine(ms: u64) -> u128 {
    u128::from(ms).saturating_mul(u128::from(DRIFT_DIVISOR))
}

fn coarse(fine: u128) -> u64 {
    u64::try_from(fine / u128::from(DRIFT_DIVISOR)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Set(Reading);
    impl Clock for Set {
        fn read(&mut self) -> Reading {
            self.0
        }
    }

    fn watch() -> Watch<Set> {
        Watch::new(Set(Reading { wall_ms: 1_000_000, boot_ms: 500 }))
    }

    fn at(watch: &mut Watch<Set>, wall_ms: u64, boot_ms: u64) -> Now {
        watch.clock_mut().0 = Reading { wall_ms, boot_ms };
        watch.now()
    }

    #[test]
    fn time_that_passes_is_believed() {
        let mut watch = watch();
        assert_eq!(at(&mut watch, 1_060_000, 60_500).ms, 1_060_000);
        assert!(at(&mut watch, 1_060_000, 60_500).is_trusted());
    }

    #[test]
    fn slow_drift_is_believed() {
        let mut watch = watch();
        let day = 86_400_000;
        assert!(at(&mut watch, 1_000_000 + day + 43_000, 500 + day).is_trusted());
    }

    #[test]
    fn a_step_forward_stops_signing_until_it_is_undone() {
        let mut watch = watch();
        let now = at(&mut watch, 1_000_000 + 3_600_000, 600);
        assert_eq!(now.untrusted_by_ms, Some(3_599_900));
        assert!(now.ms < 1_002_000, "a jump never becomes the signer's time");
        assert!(at(&mut watch, 1_001_000, 1_500).is_trusted());
    }

    #[test]
    fn a_step_back_stops_signing_and_time_never_decreases() {
        let mut watch = watch();
        let before = at(&mut watch, 1_010_000, 10_500).ms;
        let now = at(&mut watch, 900_000, 10_600);
        assert_eq!(now.untrusted_by_ms, Some(-110_100));
        assert!(now.ms >= before);
    }

    #[test]
    fn a_small_step_back_holds_the_time() {
        let mut watch = watch();
        assert_eq!(at(&mut watch, 1_010_000, 10_500).ms, 1_010_000);
        let now = at(&mut watch, 1_009_000, 10_600);
        assert!(now.is_trusted());
        assert_eq!(now.ms, 1_010_000);
    }

    #[test]
    fn suspend_moves_both_clocks_and_is_no_step() {
        let mut watch = watch();
        assert!(at(&mut watch, 1_000_000 + 7_200_000, 500 + 7_200_000).is_trusted());
    }

    #[test]
    fn many_small_steps_do_not_add_up_to_a_large_one() {
        let mut watch = watch();
        let mut trusted = true;
        for i in 1..20_u64 {
            trusted = at(&mut watch, 1_000_000 + i * 1_100, 500 + i * 100).is_trusted();
        }
        assert!(!trusted);
    }

    #[test]
    fn a_step_is_a_step_however_old_the_signer_is() {
        let mut watch = watch();
        let day = 86_400_000;
        for d in 1..=60 {
            assert!(at(&mut watch, 1_000_000 + d * day, 500 + d * day).is_trusted());
        }
        let now = at(&mut watch, 1_000_000 + 60 * day + 10_000, 500 + 60 * day + 1_000);
        assert_eq!(now.untrusted_by_ms, Some(9_000));
    }

    #[test]
    fn a_step_does_not_become_right_by_waiting() {
        let mut watch = watch();
        for minute in 1..100_000 {
            let ms = minute * 60_000;
            assert!(!at(&mut watch, 1_000_000 + ms + 10_000, 500 + ms).is_trusted());
        }
        let ms = 100_000 * 60_000;
        assert!(at(&mut watch, 1_000_000 + ms + 1_000, 500 + ms).is_trusted());
    }

    #[test]
    fn drift_is_followed_in_readings_of_a_millisecond() {
        let mut watch = watch();
        // 500 ppm fast, read every 10 ms, for three hours: 5.4 s apart in the end.
        for i in 1..1_080_000_u64 {
            let boot = i * 10;
            assert!(at(&mut watch, 1_000_000 + boot + boot / 2_000, 500 + boot).is_trusted());
        }
    }

    proptest::proptest! {
        #[test]
        fn time_never_decreases_and_never_outruns_the_boot_clock(
            steps in proptest::collection::vec((0_u64..100_000, -10_000_i64..10_000), 1..200),
        ) {
            let mut watch = watch();
            let (mut boot, mut wall, mut last) = (500_u64, 1_000_000_u64, 0);
            for (elapsed, jump) in steps {
                boot += elapsed;
                wall = (wall + elapsed).saturating_add_signed(jump);
                let now = at(&mut watch, wall, boot);
                proptest::prop_assert!(now.ms >= last);
                let passed = boot - 500;
                let latest = 1_000_000 + passed + passed / DRIFT_DIVISOR + STEP_BOUND_MS + 1;
                proptest::prop_assert!(now.ms <= latest, "{} > {latest}", now.ms);
                if now.is_trusted() {
                    proptest::prop_assert!(now.ms >= wall);
                }
                last = now.ms;
            }
        }
    }
}
