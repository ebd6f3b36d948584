//! Refusals of requests whose client is not known, counted together.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chancery_audit::Record;

/// How often the counts become records.
const EVERY: Duration = Duration::from_secs(10);
/// What is told apart at a time: with [`EVERY`], the most records that strangers can cause are some
/// two million a day, which compress to a few dozen megabytes. The rest is counted without a source.
const MAX_KEYS: usize = 256;

/// Realm, reason code, source address.
type Key = (String, String, String);

/// The counts.
#[derive(Debug, Default)]
pub struct Strangers {
    counts: HashMap<Key, Record>,
    since: Option<Instant>,
}

impl Strangers {
    /// Counts one refusal. Of those that are alike, the first one's details are kept.
    pub fn count(&mut self, refused: Record) {
        self.since.get_or_insert_with(Instant::now);
        let mut key = (refused.realm.clone(), refused.code.clone(), refused.address.clone());
        if self.counts.len() >= MAX_KEYS && !self.counts.contains_key(&key) {
            key = (String::new(), String::new(), String::new());
        }
        match self.counts.get_mut(&key) {
            Some(record) => record.count = record.count.saturating_add(1),
            None => {
                let (realm, code, address) = key.clone();
                let known = !code.is_empty();
                let record = Record {
                    realm,
                    address,
                    code: if known { code } else { "unauthenticated".into() },
                    detail: if known { refused.detail } else { "too many sources".into() },
                    user_agent: if known { refused.user_agent } else { String::new() },
                    request_id: if known { refused.request_id } else { String::new() },
                    ..Record::new(refused.time_ms, refused.outcome)
                };
                self.counts.insert(key, record);
            }
        }
    }

    /// The counts as records, when it is time. They are taken away: should they not become durable
    /// with the batch that comes next, they are lost with it.
    pub fn take(&mut self, now: Instant) -> Vec<Record> {
        let due = self.since.is_some_and(|since| now.saturating_duration_since(since) >= EVERY);
        if !due {
            return Vec::new();
        }
        self.since = None;
        let mut records: Vec<_> = std::mem::take(&mut self.counts).into_values().collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.count));
        records
    }
}

#[cfg(test)]
mod tests {
    use chancery_audit::Outcome;

    use super::*;

    fn refused(address: &str) -> Record {
        let mut record = Record::new(1, Outcome::Refused);
        record.code = "proof_expired".into();
        record.address = address.into();
        record
    }

    #[test]
    fn a_million_refusals_are_a_bounded_number_of_records() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        for at in 0..20_000_u32 {
            strangers.count(refused(&format!("192.0.2.{}", at % 7)));
            strangers.count(refused(&format!("x{at}")));
        }
        assert!(strangers.take(now).is_empty());
        let records = strangers.take(now + EVERY * 2);
        assert!(records.len() <= MAX_KEYS + 1, "{}", records.len());
        assert_eq!(records.iter().map(|r| r.count).sum::<u64>(), 40_000);
        let of_one = records.iter().find(|r| r.address == "192.0.2.3").unwrap();
        assert_eq!(of_one.count, 20_000 / 7);
        assert!(strangers.take(now + EVERY * 4).is_empty());
    }
}
