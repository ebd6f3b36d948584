//! What becomes of the key sets, for the log: every change into and out of failure, with the reason.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_relying_party::{IssuerStatus, KeyState, Status};

use super::decide::Gate;

/// How often the key sets are looked at. Fetches of one set are at least five seconds apart, so no
/// change is missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While tokens of an issuer cannot be judged, the log says so this often.
const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Looks at the key sets for as long as the process runs.
pub async fn watch(gate: Arc<Gate>) {
    let mut watch = Watch::default();
    loop {
        for news in watch.look(&gate.relying_party.status(), Instant::now()) {
            news.tell();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether tokens can be judged, and whether that will go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// There was no fetch yet.
    Unknown,
    /// The last fetch succeeded.
    Good,
    /// Fetches fail, and the last good set is used.
    Failing,
    /// There is no set that may be used.
    Without,
}

impl Health {
    fn of(issuer: &IssuerStatus) -> Self {
        let failing = issuer.failures_in_a_row > 0;
        match issuer.state {
            KeyState::None if !failing => Self::Unknown,
            KeyState::None | KeyState::Expired => Self::Without,
            KeyState::Fresh | KeyState::Stale if failing => Self::Failing,
            KeyState::Given | KeyState::Fresh | KeyState::Stale => Self::Good,
        }
    }
}

/// What was seen last, by issuer.
#[derive(Debug, Default)]
struct Watch(HashMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    health: Health,
    why: Option<String>,
    told: Instant,
}

/// One line for the log.
#[derive(Debug, PartialEq, Eq)]
struct News {
    issuer: String,
    health: Health,
    why: String,
    keys: usize,
    failures: u64,
}

impl Watch {
    /// What is new at `now`.
    fn look(&mut self, status: &Status, now: Instant) -> Vec<News> {
        status.issuers.iter().filter_map(|issuer| self.news_of(issuer, now)).collect()
    }

    fn news_of(&mut self, issuer: &IssuerStatus, now: Instant) -> Option<News> {
        let health = Health::of(issuer);
        let why = issuer.last_error.clone();
        let seen = self.0.entry(issuer.issuer.clone()).or_insert_with(|| Seen {
            health: Health::Unknown,
            why: None,
            told: now,
        });
        let reminds =
            health == Health::Without && now.saturating_duration_since(seen.told) >= REMIND_EVERY;
        let changed = seen.health != health || (health != Health::Good && seen.why != why);
        if !changed && !reminds {
            return None;
        }
        *seen = Seen { health, why: why.clone(), told: now };
        Some(News {
            issuer: issuer.issuer.clone(),
            health,
            why: why.unwrap_or_else(|| "it is too old".to_owned()),
            keys: issuer.keys,
            failures: issuer.failures,
        })
    }
}

impl News {
    fn tell(&self) {
        let Self { issuer, health, why, keys, failures } = self;
        match health {
            Health::Unknown => {}
            Health::Good => tracing::info!(%issuer, keys, failures, "the key set is there"),
            Health::Failing => tracing::warn!(
                %issuer, keys, failures,
                "the key set cannot be fetched, the last good one is used: {why}"
            ),
            Health::Without => tracing::error!(
                %issuer, failures,
                "no key set, tokens cannot be judged: {why}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: KeyState, in_a_row: u32, last_error: Option<&str>) -> Status {
        let issuer = IssuerStatus {
            issuer: "https://i.example".into(),
            state,
            keys: 2,
            age_ms: None,
            fetches: 9,
            failures: 5,
            failures_in_a_row: in_a_row,
            last_error: last_error.map(str::to_owned),
            distrusts_within_ms: None,
            distrusts_at_most_ms: None,
        };
        Status { issuers: vec![issuer], logs: Default::default() }
    }

    #[test]
    fn every_change_is_news_and_nothing_else() {
        let mut watch = Watch::default();
        let start = Instant::now();
        let mut look = |after_s: u64, state, in_a_row, error| {
            let now = start.checked_add(Duration::from_secs(after_s)).unwrap();
            let news = watch.look(&status(state, in_a_row, error), now);
            news.into_iter().map(|news| (news.health, news.why)).next()
        };
        assert_eq!(look(0, KeyState::None, 0, None), None);
        let refused = Some((Health::Without, "refused".to_owned()));
        assert_eq!(look(1, KeyState::None, 1, Some("refused")), refused);
        assert_eq!(look(2, KeyState::None, 2, Some("refused")), None);
        assert_eq!(look(11, KeyState::None, 2, Some("refused")), refused, "a reminder");
        assert_eq!(look(12, KeyState::Fresh, 0, None).unwrap().0, Health::Good);
        assert_eq!(look(13, KeyState::Stale, 0, None), None);
        // After the first success: into failure, for another reason, without a set, and out of it.
        let failing = |why: &str| Some((Health::Failing, why.to_owned()));
        assert_eq!(look(20, KeyState::Fresh, 1, Some("404")), failing("404"));
        assert_eq!(look(40, KeyState::Stale, 2, Some("404")), None);
        assert_eq!(look(41, KeyState::Stale, 3, Some("timeout")), failing("timeout"));
        let without = Some((Health::Without, "timeout".to_owned()));
        assert_eq!(look(50, KeyState::Expired, 9, Some("timeout")), without);
        assert_eq!(look(51, KeyState::Fresh, 0, None).unwrap().0, Health::Good);
    }

    #[test]
    fn a_set_that_was_given_is_told_once() {
        let mut watch = Watch::default();
        let given = status(KeyState::Given, 0, None);
        assert_eq!(watch.look(&given, Instant::now()).len(), 1);
        assert_eq!(watch.look(&given, Instant::now()), []);
    }
}
