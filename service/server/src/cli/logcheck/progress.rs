//! How far a check is: a bar on a terminal, a plain line now and then elsewhere. On standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A terminal is redrawn no more often: nobody reads faster.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// A log file gets a line this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR_WIDTH: u64 = 30;

pub(super) struct Progress {
    terminal: bool,
    started: Instant,
    /// Entries that earlier runs had checked.
    before: u64,
    shown: Instant,
    drawn: bool,
}

impl Progress {
    pub fn new(before: u64) -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, started: now, before, shown: now, drawn: false }
    }

    /// So many entries of the log are checked.
    pub fn at(&mut self, done: u64, total: u64) {
        let every = if self.terminal { BAR_EVERY } else { LINE_EVERY };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let line = line(done, total, done.saturating_sub(self.before), self.started.elapsed());
        // Nobody is left to tell when standard error is closed.
        let _ = if self.terminal {
            self.drawn = true;
            // Back to the line's beginning; what a longer line left is cleared.
            write!(std::io::stderr(), "\r[{}] {line}\x1b[K", bar(done, total))
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    /// Leaves the bar's line to what is printed next.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn bar(done: u64, total: u64) -> String {
    let filled = done.saturating_mul(BAR_WIDTH).checked_div(total).unwrap_or(0).min(BAR_WIDTH);
    let cells = (0..BAR_WIDTH).map(|cell| if cell < filled { '#' } else { ' ' });
    cells.collect()
}

/// `4,500,000 of 10,000,000 entries (45%), 812,345/s, 7 s left`
fn line(done: u64, total: u64, in_this_run: u64, elapsed: Duration) -> String {
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = in_this_run.saturating_mul(1000) / millis;
    let left = total.saturating_sub(done).checked_div(rate);
    let left = left.map_or(String::new(), |s| match s {
        0..=119 => format!(", {s} s left"),
        _ => format!(", {} min left", s / 60),
    });
    format!(
        "{} of {} entries ({percent}%), {}/s{left}",
        grouped(done),
        grouped(total),
        grouped(rate)
    )
}

/// Thousands apart: long numbers are compared at a glance.
pub(super) fn grouped(number: u64) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{},{:03}", grouped(number / 1_000), number % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_long() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(4_500_000, 10_000_000, 500_000, second),
            "4,500,000 of 10,000,000 entries (45%), 500,000/s, 11 s left"
        );
        assert_eq!(line(0, 1_000, 0, Duration::ZERO), "0 of 1,000 entries (0%), 0/s");
        assert_eq!(line(1, 100_000, 1, second), "1 of 100,000 entries (0%), 1/s, 1666 min left");
        assert_eq!(line(0, 0, 0, second), "0 of 0 entries (100%), 0/s");
    }

    #[test]
    fn a_bar_is_full_at_the_end_and_never_longer() {
        assert_eq!(bar(0, 10).trim(), "");
        assert_eq!(bar(5, 10), format!("{}{}", "#".repeat(15), " ".repeat(15)));
        assert_eq!(bar(10, 10), "#".repeat(30));
        assert_eq!(bar(99, 10), "#".repeat(30));
        assert_eq!(bar(1, 0).len(), 30);
    }
}
