//! Retention: segments that are older than the policy says are deleted, but none that somebody holds.
//!
//! Order, and what a crash leaves behind at each point:
//!
//! 1. What is old enough, and held by nobody, is stated to the signer, which logs it as the service's
//!    word with its own time. A crash before that: nothing happened.
//! 2. Once that entry is committed and published the segments are deleted, each only if nobody holds it by then. A
//!    crash here: what is left is as old as before, is stated again, which is no contradiction, and
//!    deleted by the next run. A segment that is stated as removed and still there is checked by
//!    `chancery audit verify` like any other.
//!
//! Holds are objects in the store, so that every service of a fleet heeds them. One that cannot be read
//! holds everything.

use std::time::{Duration, Instant};

use chancery_audit::{Outcome, Record, SegmentName, hour_of};
use chancery_signer_api::AuditRemoval;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{lock, now_ms};
use crate::service::Service;

/// Where holds lie in the store.
const HOLDS: &str = "audit/holds";
/// The most holds: each is read before anything is deleted.
const MAX_HOLDS: usize = 256;
/// The longest name of a hold, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The longest reason, in bytes: one paragraph.
const MAX_REASON_BYTES: usize = 1_024;
/// The most segments of one run: an operator who adds a hold waits for a run that is under way.
const MAX_SEGMENTS: usize = 256;
/// How often it is looked whether something is too old. A run that left something is followed at once.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// The first look: the service has other things to do when it starts.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// A statement is logged within a second or two. Afterwards the next run makes it again.
const LOGGED_WITHIN: Duration = Duration::from_secs(8);
const DAY_S: u64 = 86_400;

/// Someone asked that the records of a window are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Its name, 1 to 64 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// First millisecond that is held, since 1970.
    pub from_ms: u64,
    /// The millisecond behind the last.
    pub to_ms: u64,
    /// Who asked for it, and why.
    pub reason: String,
    /// Unix seconds at which it was made; the service says when.
    #[serde(default)]
    pub at: u64,
}

impl Hold {
    /// Whether records of this hour are held.
    #[must_use]
    pub fn covers(&self, hour: u64) -> bool {
        // Both ends count whole: a segment goes or stays whole.
        (hour_of(self.from_ms)..=hour_of(self.to_ms.saturating_sub(1))).contains(&hour)
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.from_ms >= self.to_ms {
            return Err("a hold must end after it begins".into());
        }
        if self.reason.is_empty() || self.reason.len() > MAX_REASON_BYTES {
            return Err(format!("the reason must have 1 to {MAX_REASON_BYTES} bytes"));
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(format!("a hold's name is 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -, not `{name}`"))
}

fn object_of(name: &str) -> String {
    format!("{HOLDS}/{name}.json")
}

/// What one run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Unix milliseconds: hours that ended before are too old.
    before_ms: u64,
    /// Segments that went.
    removed: Vec<SegmentName>,
    /// Segments that are old enough and held.
    held: u64,
    /// Whether more is to be done.
    more: bool,
}

impl Run {
    fn to_json(&self, dry_run: bool) -> Value {
        let removed: Vec<String> = self.removed.iter().map(SegmentName::object).collect();
        json!({
            "dry_run": dry_run,
            "before": self.before_ms / 1_000,
            "removed": removed,
            "held": self.held,
            "more": self.more,
        })
    }
}

/// Deletes what is too old, for ever.
pub async fn retain_forever(service: std::sync::Arc<Service>) {
    let mut wait = FIRST_LOOK;
    loop {
        tokio::time::sleep(wait).await;
        wait = LOOK_EVERY;
        match run(&service, false).await {
            Ok(run) if run.more => wait = Duration::from_secs(1),
            Ok(_) => {}
            Err(why) => tracing::error!("retention of the audit: {why}; nothing more is deleted"),
        }
    }
}

/// One run for an operator; a dry one only says what would go.
///
/// # Errors
/// Why nothing, or nothing more, was deleted.
pub async fn prune(service: &Service, dry_run: bool) -> Result<Value, String> {
    Ok(run(service, dry_run).await?.to_json(dry_run))
}

async fn run(service: &Service, dry_run: bool) -> Result<Run, String> {
    let _alone = service.audit.retention.lock().await;
    let mut run = Run { before_ms: cutoff_ms(service, now_ms()), ..Run::default() };
    let before = hour_of(run.before_ms);
    let holds = load_holds(service).await?;
    let old = segments_before(service, before).await?;
    let is_held = |name: &SegmentName| holds.iter().any(|hold| hold.covers(name.hour));
    run.held = u64::try_from(old.iter().filter(|name| is_held(name)).count()).unwrap_or(u64::MAX);
    let mut old: Vec<SegmentName> = old.into_iter().filter(|name| !is_held(name)).collect();
    run.more = old.len() > MAX_SEGMENTS;
    old.truncate(MAX_SEGMENTS);
    if dry_run || old.is_empty() {
        run.removed = old;
        return Ok(run);
    }
    let removals = removals_of(&old, before);
    for removal in &removals {
        let mut record = Record::new(now_ms(), Outcome::Changed);
        record.code = "remove_segments".into();
        record.client = "retention".into();
        record.detail = format!(
            "{} segments of log {} from number {} on",
            removal.segments,
            chancery_token::b64::encode(&*removal.log),
            removal.first
        );
        service.audit.note(record);
    }
    state(service, &removals).await?;
    for name in old {
        // Somebody of another service may have asked for it meanwhile.
        let holds = load_holds(service).await?;
        if holds.iter().any(|hold| hold.covers(name.hour)) {
            continue;
        }
        service.store.delete(&name.object()).await.map_err(|e| e.to_string())?;
        run.removed.push(name);
    }
    tracing::info!(segments = run.removed.len(), "audit segments that were too old are deleted");
    Ok(run)
}

/// What ended before this is too old: as long as the policy's keys can matter, and what is configured
/// beyond that.
fn cutoff_ms(service: &Service, now_ms: u64) -> u64 {
    let life = |schedule: &chancery_policy::Schedule| {
        let window = schedule.window_s();
        window.saturating_add(schedule.max_lifetime_s).saturating_add(schedule.skew_s)
    };
    let policy = service.policy();
    let longest = policy.document.realms.iter().map(|realm| life(&realm.schedule)).max();
    let keep_s = service.config.audit.keep_days.saturating_mul(DAY_S);
    now_ms.saturating_sub(keep_s.saturating_add(longest.unwrap_or(0)).saturating_mul(1_000))
}

/// Stored segments of hours before this one that the log names: of what it does not name yet it is not
/// said either that it is gone.
async fn segments_before(service: &Service, before: u64) -> Result<Vec<SegmentName>, String> {
    let mut names = Vec::new();
    let found = super::export::source::segments_until(&service.store, before).await;
    for name in found.map_err(|e| e.to_string())? {
        let log = chancery_token::b64::decode_array::<16>(&name.log).map_err(|e| e.to_string())?;
        let state = lock(&service.audit.state);
        let mut flights = state.flights.iter().map(|flight| &flight.segment);
        if !flights.any(|s| *s.log == log && s.number == name.number) {
            names.push(name);
        }
    }
    names.sort_by(|a, b| (&a.log, a.number).cmp(&(&b.log, b.number)));
    Ok(names)
}

/// Runs of numbers that follow each other.
fn removals_of(names: &[SegmentName], before: u64) -> Vec<AuditRemoval> {
    let mut removals: Vec<AuditRemoval> = Vec::new();
    for name in names {
        let Ok(log) = chancery_token::b64::decode_array::<16>(&name.log) else { continue };
        let end = |r: &AuditRemoval| r.first.saturating_add(r.segments);
        match removals.last_mut().filter(|r| *r.log == log && end(r) == name.number) {
            Some(last) => last.segments = last.segments.saturating_add(1),
            None => removals.push(AuditRemoval {
                log: log.into(),
                first: name.number,
                segments: 1,
                before,
            }),
        }
    }
    removals
}

/// Returns once the log says that they are gone, for everyone to see.
async fn state(service: &Service, removals: &[AuditRemoval]) -> Result<(), String> {
    lock(&service.audit.state).removals = removals.iter().map(|r| (r.clone(), None)).collect();
    let started = Instant::now();
    let is_logged = |r: &AuditRemoval| service.logs.is_removal_logged(r);
    while !removals.iter().all(is_logged) {
        if started.elapsed() >= LOGGED_WITHIN.max(per_statement(removals.len())) {
            lock(&service.audit.state).removals.clear();
            return Err("no signer logged what is to be deleted; nothing is deleted before".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lock(&service.audit.state).removals.clear();
    // Whoever misses a segment finds the statement in the store, not only in this process.
    for log in service.logs.all_open() {
        if removals.iter().any(|removal| log.has_removed(removal)) {
            log.publish().await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// Four statements go with a frame, and one frame a second at least.
fn per_statement(count: usize) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(u64::MAX).saturating_add(4))
}

async fn load_holds(service: &Service) -> Result<Vec<Hold>, String> {
    let mut holds = Vec::new();
    for name in service.store.names(HOLDS).await.map_err(|e| e.to_string())? {
        let object = format!("{HOLDS}/{name}");
        let bytes = match service.store.get(&object).await {
            Err(crate::store::StoreError::Missing(_)) => continue,
            other => other.map_err(|e| e.to_string())?,
        };
        let hold = serde_json::from_slice(&bytes)
            .map_err(|e| format!("`{object}` is no hold ({e}); until it is one, all is held"))?;
        holds.push(hold);
    }
    Ok(holds)
}

/// What is held, for an operator.
///
/// # Errors
/// Why that is not known.
pub async fn holds(service: &Service) -> Result<Value, String> {
    Ok(json!({"holds": load_holds(service).await?}))
}

/// Holds a window from now on. The answer comes when no run can delete of it any more.
///
/// # Errors
/// Why it is not held.
pub async fn add_hold(service: &Service, mut hold: Hold) -> Result<Value, String> {
    hold.check()?;
    hold.at = crate::now();
    let _alone = service.audit.retention.lock().await;
    let holds = load_holds(service).await?;
    if holds.iter().any(|known| known.name == hold.name) {
        return Err(format!(
            "there is a hold `{}` already; release it, or use another name",
            hold.name
        ));
    }
    if holds.len() >= MAX_HOLDS {
        return Err(format!("there are {MAX_HOLDS} holds already"));
    }
    let bytes = serde_json::to_vec(&hold).map_err(|e| e.to_string())?;
    let object = object_of(&hold.name);
    service.store.put_durably(&object, bytes.into()).await.map_err(|e| e.to_string())?;
    Ok(json!({"held": hold}))
}

/// Ends a hold; what is too old goes with the next run.
///
/// # Errors
/// Why it is still held.
pub async fn release_hold(service: &Service, name: &str) -> Result<Value, String> {
    check_name(name)?;
    let _alone = service.audit.retention.lock().await;
    let known = load_holds(service).await?.into_iter().find(|hold| hold.name == name);
    let hold = known
        .ok_or_else(|| format!("there is no hold `{name}`; see `chancery audit hold list`"))?;
    service.store.delete(&object_of(name)).await.map_err(|e| e.to_string())?;
    Ok(json!({"released": hold}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(log: u8, number: u64, hour: u64) -> SegmentName {
        let log = chancery_token::b64::encode(&[log; 16]);
        SegmentName { hour, log, number, is_sealed: false }
    }

    #[test]
    fn runs_of_numbers_are_one_statement_each() {
        let names = [name(1, 0, 5), name(1, 1, 5), name(1, 3, 6), name(2, 4, 6), name(2, 5, 7)];
        let said: Vec<_> = removals_of(&names, 9)
            .into_iter()
            .map(|r| (r.log[0], r.first, r.segments, r.before))
            .collect();
        assert_eq!(said, [(1, 0, 2, 9), (1, 3, 1, 9), (2, 4, 2, 9)]);
    }

    #[test]
    fn a_hold_covers_every_hour_that_it_touches() {
        let hour = 3_600_000;
        let hold =
            |from_ms, to_ms| Hold { name: "a".into(), from_ms, to_ms, reason: "b".into(), at: 0 };
        let covered = |h: &Hold| (0..6).filter(|at| h.covers(*at)).collect::<Vec<_>>();
        assert_eq!(covered(&hold(hour, 2 * hour)), [1]);
        assert_eq!(covered(&hold(hour - 1, 2 * hour + 1)), [0, 1, 2]);
        assert_eq!(covered(&hold(2 * hour + 5, 2 * hour + 6)), [2]);
        for wrong in [hold(5, 5), hold(6, 5), Hold { name: "../a".into(), ..hold(1, 2) }] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(Hold { reason: String::new(), ..hold(1, 2) }.check().is_err());
        assert_eq!(hold(1, 2).check(), Ok(()));
    }
}
