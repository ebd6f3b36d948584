//! Every bound of the front, with its default and the reason for it.

use std::time::Duration;

use crate::BuildError;

/// How long things are kept, how often they are fetched, and how much may wait.
///
/// ```
/// use std::time::Duration;
/// use chancery_relying_party::Bounds;
///
/// let bounds = Bounds { keep: Duration::from_secs(600), ..Bounds::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest time for which a key set counts as fresh, whatever its publisher says: 5 s. A
    /// publisher that forbids caching is asked this often, and not for every token.
    pub min_age: Duration,
    /// The longest time for which a key set counts as fresh: 1 hour. It bounds how long a publisher
    /// can keep itself from taking a key back.
    pub max_age: Duration,
    /// How long a key set is fresh whose publisher does not say: 5 minutes.
    pub default_age: Duration,
    /// The least time between two requests for one key set, whatever the reason: 5 s. A token that
    /// names an unknown key causes a request only when this time is over, so that no number of
    /// invented names causes more.
    pub cool_down: Duration,
    /// How long the last good key set is used after it stopped being fresh: 1 hour. It bridges an
    /// outage of the publisher; afterwards tokens are rejected as `keys_unavailable`.
    pub keep: Duration,
    /// The longest time between two attempts while the publisher fails: 1 minute. The first repeats
    /// come after `cool_down`, and each waits twice as long as the one before.
    pub retry_at_most: Duration,
    /// The whole of one refresh, and each single object of a log: 10 s.
    pub fetch_timeout: Duration,
    /// Connecting, TLS included: 5 s.
    pub connect_timeout: Duration,
    /// Calls that may wait for one refresh: 1,024. Further ones get their rejection at once.
    pub waiting: usize,
    /// Within how many seconds after its `iat` a token's entry must be published: 10, as the service
    /// promises.
    pub publish_within_s: u64,
    /// How long a log's checkpoint and partial tiles are used again: 1 s, the time between two
    /// checkpoints of the service.
    pub checkpoint_age: Duration,
    /// Bytes of tiles and verifier keys that are kept: 64 MiB, which are 2 million tokens' places.
    pub log_bytes: usize,
    /// Tokens that may wait in the background for their look at the log, under
    /// [`LogPolicy::Report`](chancery_validate::log::LogPolicy::Report): 10,000, some 20 MiB.
    /// Further ones are not looked at, and are counted.
    pub reports: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            min_age: Duration::from_secs(5),
            max_age: Duration::from_secs(60 * 60),
            default_age: Duration::from_secs(5 * 60),
            cool_down: Duration::from_secs(5),
            keep: Duration::from_secs(60 * 60),
            retry_at_most: Duration::from_secs(60),
            fetch_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            waiting: 1_024,
            publish_within_s: chancery_validate::log::DEFAULT_PUBLISH_WITHIN_S,
            checkpoint_age: Duration::from_secs(1),
            log_bytes: 64 * 1024 * 1024,
            reports: 10_000,
        }
    }
}

/// A busy loop of requests is a mistake, also in tests.
const LEAST: Duration = Duration::from_millis(10);
/// A key that is taken back must be gone within a day, whatever is configured.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// A call that waits longer than a minute has lost its caller.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

impl Bounds {
    /// Whether the bounds can be kept together.
    ///
    /// # Errors
    /// [`BuildError::Bounds`] with the first fault.
    pub fn check(&self) -> Result<(), BuildError> {
        let within = |name: &str, value: Duration, least: Duration, most: Duration| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let text = format!("`{name}` is {value:?}; make it {least:?} to {most:?}");
            Err(BuildError::Bounds(text))
        };
        within("cool_down", self.cool_down, LEAST, MOST)?;
        within("min_age", self.min_age, self.cool_down, MOST)?;
        within("max_age", self.max_age, self.min_age, MOST)?;
        within("default_age", self.default_age, self.min_age, self.max_age)?;
        within("keep", self.keep, Duration::ZERO, MOST)?;
        within("retry_at_most", self.retry_at_most, self.cool_down, MOST)?;
        within("fetch_timeout", self.fetch_timeout, LEAST, LONGEST_TIMEOUT)?;
        within("connect_timeout", self.connect_timeout, LEAST, LONGEST_TIMEOUT)?;
        within("checkpoint_age", self.checkpoint_age, Duration::ZERO, LONGEST_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_kept() {
        assert_eq!(Bounds::default().check(), Ok(()));
    }

    #[test]
    fn bounds_that_contradict_each_other_are_named() {
        let s = Duration::from_secs;
        let wrong = [
            ("cool_down", Bounds { cool_down: Duration::ZERO, ..Bounds::default() }),
            ("min_age", Bounds { min_age: s(4), ..Bounds::default() }),
            ("max_age", Bounds { max_age: s(4), ..Bounds::default() }),
            ("default_age", Bounds { default_age: s(7_200), ..Bounds::default() }),
            ("keep", Bounds { keep: s(86_401), ..Bounds::default() }),
            ("retry_at_most", Bounds { retry_at_most: s(1), ..Bounds::default() }),
            ("fetch_timeout", Bounds { fetch_timeout: s(61), ..Bounds::default() }),
            ("connect_timeout", Bounds { connect_timeout: Duration::ZERO, ..Bounds::default() }),
            ("checkpoint_age", Bounds { checkpoint_age: s(61), ..Bounds::default() }),
        ];
        for (name, bounds) in wrong {
            let text = bounds.check().unwrap_err().to_string();
            assert!(text.contains(&format!("`{name}` is ")), "{name}: {text}");
        }
    }
}
