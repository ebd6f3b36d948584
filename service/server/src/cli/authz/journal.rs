//! How many denials are written: strangers can cause as many as they like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines within a second. A person reads fewer, and a day of them is about a gigabyte.
const LINES_PER_S: u32 = 20;

/// Counts lines.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Journal {
    /// Whether a line may be written now, and how many were not since the last one that was.
    pub fn line(&self) -> Option<u64> {
        self.line_at(Instant::now())
    }

    fn line_at(&self, now: Instant) -> Option<u64> {
        // Nothing panics while it holds the lock.
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |began: Instant| now.saturating_duration_since(began) >= Duration::from_secs(1);
        if second.began.is_none_or(over) {
            second.began = Some(now);
            second.written = 0;
        }
        if second.written >= LINES_PER_S {
            second.left_out = second.left_out.saturating_add(1);
            return None;
        }
        second.written = second.written.saturating_add(1);
        Some(std::mem::take(&mut second.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_rest_is_counted() {
        let journal = Journal::default();
        let start = Instant::now();
        let lines = (0..50).filter(|_| journal.line_at(start).is_some()).count();
        assert_eq!(lines, 20);
        let later = start.checked_add(Duration::from_millis(1_001)).unwrap();
        assert_eq!(journal.line_at(later), Some(30));
        assert_eq!(journal.line_at(later), Some(0));
    }
}
