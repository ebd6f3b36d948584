//! The relying party: one object that a service asks about each token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use chancery_token::jwks::Exposed;
use chancery_validate::log::{LogPolicy, Verdict, judge, published_by};
use chancery_validate::{
    Attestation, Keys, Rejection, RejectionCode, Step, Validated, Validator, ValidatorConfig,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::builder::Builder;
use crate::clock::Clock;
use crate::findings::{Finding, Findings, Seen, entry_of};
use crate::issuer::{Issuer, Takes, random};
use crate::keeper::{Ask, State};
use crate::logs::Logs;
use crate::place::Place;
use crate::status::{IssuerStatus, KeyState, LogStatus, Status};

/// Looks at a pending token after the first.
const LOOKS: usize = 2;
/// The service publishes once a second, and what was read is used for another.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(2);

/// Accepts or rejects tokens, and keeps what it needs for that. Clones share everything; the last
/// one that is dropped ends the tasks in the background.
#[derive(Clone, Debug)]
pub struct RelyingParty(Arc<Inner>);

/// A token that is accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The token: claims, key, address in its log.
    pub token: Validated,
    /// What its log says. Always there under [`LogPolicy::Require`]; under [`LogPolicy::Report`] if
    /// it was known already, because a report never waits for the log.
    pub log: Option<Verdict>,
}

/// What can be said without waiting.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// The same that [`RelyingParty::validate`] would say.
    Decided(Result<Accepted, Rejection>),
    /// Ask [`RelyingParty::validate`]: a key set or a log has to be fetched.
    NeedsIo,
}

/// A judgement step by step.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The checks in the order in which they were made, those of log and evidence last.
    pub steps: Vec<Step>,
    /// The verdict.
    pub verdict: Result<Accepted, Rejection>,
}

impl RelyingParty {
    /// Begins to build a relying party with these demands.
    pub fn builder(config: ValidatorConfig) -> Builder {
        Builder::new(config)
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// What is demanded of tokens.
    #[must_use]
    pub fn config(&self) -> ValidatorConfig {
        self.0.current.load().validator.config().clone()
    }

    /// Judges a token by what is at hand: no I/O, no waiting, callable from any thread. Most tokens
    /// are decided here; whoever gets [`Judgement::NeedsIo`] asks [`RelyingParty::validate`].
    #[must_use]
    pub fn judge(&self, token: &str) -> Judgement {
        self.judge_when(token, None)
    }

    /// As [`RelyingParty::judge`], at the time `now` in seconds since 1970: for tests and tools.
    #[must_use]
    pub fn judge_at(&self, token: &str, now: u64) -> Judgement {
        self.judge_when(token, Some(now))
    }

    fn judge_when(&self, token: &str, at: Option<u64>) -> Judgement {
        let inner = &*self.0;
        let now = inner.clock.now();
        let mut current = inner.current(now.ms);
        let mut verdict = current.validator.validate(token, at.unwrap_or(now.unix_s));
        if let Some(issuer) = inner.misses(&current, &verdict, token)
            && issuer.is_kept
        {
            if issuer.keeper().would(now.ms) != Ask::TooSoon {
                return Judgement::NeedsIo;
            }
            // A fetch may have ended since the judgement began.
            let newer = inner.current(now.ms);
            if !Arc::ptr_eq(&current, &newer) {
                verdict = newer.validator.validate(token, at.unwrap_or(now.unix_s));
                current = newer;
            }
        }
        let accepted = inner.say_unavailable(&current, verdict, token).and_then(|validated| {
            inner.attestation.without_evidence()?;
            Ok(validated)
        });
        match accepted {
            Err(rejection) => Judgement::Decided(Err(rejection)),
            Ok(token) => match inner.known(token, at) {
                Ok(accepted) => Judgement::Decided(Ok(accepted)),
                Err(_) => Judgement::NeedsIo,
            },
        }
    }

    /// Judges a token. Waits for a key set if there is none, or if one runs that may bring the key
    /// that the token names; and for the token's log under [`LogPolicy::Require`].
    ///
    /// The future may be dropped at any time: what it waits for goes on for the others.
    ///
    /// # Errors
    /// The first check that the token fails, in the order of `docs/rejections.md`.
    pub async fn validate(&self, token: &str) -> Result<Accepted, Rejection> {
        self.validate_when(token, None).await
    }

    /// As [`RelyingParty::validate`], at the time `now` in seconds since 1970.
    ///
    /// # Errors
    /// As [`RelyingParty::validate`].
    pub async fn validate_at(&self, token: &str, now: u64) -> Result<Accepted, Rejection> {
        self.validate_when(token, Some(now)).await
    }

    async fn validate_when(&self, token: &str, at: Option<u64>) -> Result<Accepted, Rejection> {
        let inner = &*self.0;
        let judge = |current: &Current, unix_s| current.validator.validate(token, unix_s);
        let (current, verdict) = inner.with_keys(token, at, judge, |verdict| verdict).await;
        let validated = inner.say_unavailable(&current, verdict, token)?;
        inner.attestation.without_evidence()?;
        match inner.known(validated, at) {
            Ok(accepted) => Ok(accepted),
            Err(validated) => inner.looked_up(validated, at).await,
        }
    }

    /// Judges a token as [`RelyingParty::validate`] does, and tells each check. Unlike it, this
    /// waits for the log under [`LogPolicy::Report`] too.
    pub async fn explain(&self, token: &str) -> Explained {
        self.explain_when(token, None).await
    }

    /// As [`RelyingParty::explain`], at the time `now` in seconds since 1970.
    pub async fn explain_at(&self, token: &str, now: u64) -> Explained {
        self.explain_when(token, Some(now)).await
    }

    async fn explain_when(&self, token: &str, at: Option<u64>) -> Explained {
        let inner = &*self.0;
        let judge = |current: &Current, unix_s| current.validator.explain(token, unix_s);
        let (current, explanation) =
            inner.with_keys(token, at, judge, |explanation| &explanation.verdict).await;
        let mut steps = explanation.steps;
        let verdict = match inner.say_unavailable(&current, explanation.verdict, token) {
            Ok(validated) => inner.explain_rest(validated, at, &mut steps).await,
            Err(rejection) => Err(rejection),
        };
        Explained { steps, verdict }
    }

    /// Waits until the first key set of every issuer is there. A service that asks this before it
    /// takes requests rejects none of them for want of keys.
    ///
    /// # Errors
    /// [`RejectionCode::KeysUnavailable`] when one could not be fetched; the detail says why. It is
    /// tried again in the background, so asking again later makes sense.
    pub async fn ready(&self) -> Result<(), Rejection> {
        let inner = &*self.0;
        for (index, issuer) in inner.issuers.iter().enumerate() {
            if !inner.current(inner.clock.now().ms).has(index) {
                issuer.refreshed(&inner.clock).await;
            }
            if !inner.current(inner.clock.now().ms).has(index) {
                return Err(unavailable(issuer));
            }
        }
        Ok(())
    }

    /// The state of key sets and lookups.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = &*self.0;
        let now = inner.clock.now().ms;
        let current = inner.current(now);
        let of = |(index, issuer): (usize, &Arc<Issuer>)| {
            inner.issuer_status(&current, index, issuer, now)
        };
        let (requests, failures) = inner.logs.as_ref().map_or((0, 0), |logs| logs.counts());
        let logs = LogStatus {
            requests,
            failures,
            bytes: inner.logs.as_ref().map_or(0, |logs| logs.bytes()),
            dropped_lookups: inner.dropped_lookups.load(Ordering::Relaxed),
            dropped_findings: inner.findings.dropped(),
        };
        Status { issuers: inner.issuers.iter().enumerate().map(of).collect(), logs }
    }
}

/// What judges now: it is replaced as a whole, so that a judgement never sees half a change.
#[derive(Debug)]
pub struct Current {
    pub validator: Validator,
    /// Until when each issuer's keys are believed; `None` where there are none.
    pub believed_until: Vec<Option<u64>>,
    /// The earliest of these.
    expires_at: u64,
}

impl Current {
    /// What judges with these keys.
    pub fn new(validator: Validator, believed_until: Vec<Option<u64>>) -> Self {
        let expires_at = believed_until.iter().flatten().copied().min().unwrap_or(u64::MAX);
        Self { validator, believed_until, expires_at }
    }

    fn has(&self, index: usize) -> bool {
        self.believed_until.get(index).is_some_and(Option::is_some)
    }

    /// The same with other keys of one issuer.
    fn with(&self, index: usize, name: &str, keys: Keys, until: Option<u64>) -> Self {
        let mut believed_until = self.believed_until.clone();
        if let Some(place) = believed_until.get_mut(index) {
            *place = until;
        }
        Self::new(self.validator.with_keys_of(name, keys), believed_until)
    }
}

/// What clones share.
#[derive(Debug)]
pub struct Inner {
    pub current: ArcSwap<Current>,
    /// Held while `current` is replaced.
    pub replacing: Mutex<()>,
    pub issuers: Vec<Arc<Issuer>>,
    pub clock: Arc<Clock>,
    pub fetch_timeout: Duration,
    pub keep: Duration,
    pub log: LogPolicy,
    pub attestation: Attestation,
    pub logs: Option<Arc<Logs>>,
    pub log_at: Option<Arc<Place>>,
    pub publish_within_s: u64,
    pub handle: Option<Handle>,
    /// Tokens that are in their log, and those whose lookup is under way or done.
    pub in_log: Seen,
    pub looked_at: Seen,
    pub lookups: Arc<Semaphore>,
    pub dropped_lookups: AtomicU64,
    pub findings: Findings,
    /// For tasks that must not keep it alive.
    pub this: Weak<Self>,
}

impl Inner {
    /// What judges at this moment: key sets that are too old are taken out first.
    fn current(&self, now: u64) -> arc_swap::Guard<Arc<Current>> {
        let current = self.current.load();
        if now < current.expires_at {
            return current;
        }
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, issuer) in self.issuers.iter().enumerate() {
            let current = self.current.load();
            let until = current.believed_until.get(index).copied().flatten();
            if until.is_some_and(|until| until <= now) {
                let without = current.with(index, &issuer.name, Keys::unavailable(), None);
                self.current.store(Arc::new(without));
            }
        }
        self.current.load()
    }

    /// The issuer whose key set might hold the key that a rejected token misses.
    fn misses(
        &self,
        current: &Current,
        verdict: &Result<Validated, Rejection>,
        token: &str,
    ) -> Option<&Arc<Issuer>> {
        let code = verdict.as_ref().err()?.code();
        // An announcement may have been out of reach when the set was fetched.
        let missed = [
            RejectionCode::KeysUnavailable,
            RejectionCode::UnknownKey,
            RejectionCode::KeyNotAnnounced,
        ];
        if !missed.contains(&code) {
            return None;
        }
        let name = current.validator.route(token)?;
        self.issuers.iter().find(|issuer| issuer.name == name)
    }

    /// The verdict; where no key set is at hand, with the reason for that.
    fn say_unavailable(
        &self,
        current: &Current,
        verdict: Result<Validated, Rejection>,
        token: &str,
    ) -> Result<Validated, Rejection> {
        match self.misses(current, &verdict, token) {
            Some(issuer) if is_unavailable(current, &issuer.name, &verdict) => {
                Err(unavailable(issuer))
            }
            _ => verdict,
        }
    }

    /// Judges; if the token misses its key, waits for a fetch that may bring it, and judges again.
    async fn with_keys<V>(
        &self,
        token: &str,
        at: Option<u64>,
        judge: impl Fn(&Current, u64) -> V,
        verdict: impl Fn(&V) -> &Result<Validated, Rejection>,
    ) -> (Arc<Current>, V) {
        let now = self.clock.now();
        let current = Arc::clone(&self.current(now.ms));
        let judged = judge(&current, at.unwrap_or(now.unix_s));
        let missing = self.misses(&current, verdict(&judged), token).cloned();
        let Some(issuer) = missing.filter(|issuer| issuer.is_kept) else {
            return (current, judged);
        };
        issuer.refreshed(&self.clock).await;
        // Also when nothing was waited for: a fetch may have ended since the first judgement.
        let now = self.clock.now();
        let newer = Arc::clone(&self.current(now.ms));
        if Arc::ptr_eq(&current, &newer) {
            return (current, judged);
        }
        let judged = judge(&newer, at.unwrap_or(now.unix_s));
        (newer, judged)
    }

    /// The token, accepted, if its log need not be waited for; else the token as it was.
    fn known(&self, token: Validated, at: Option<u64>) -> Result<Accepted, Validated> {
        if self.log == LogPolicy::Off {
            return Ok(Accepted { token, log: None });
        }
        let entry = entry_of(&token);
        if let Some(index) = self.in_log.place(&entry) {
            return Ok(Accepted { token, log: Some(Verdict::InLog { index }) });
        }
        if self.log == LogPolicy::Require {
            return Err(token);
        }
        // A verdict is about now; a tool that judges at another time asks for no report.
        if at.is_none() && self.looked_at.add(entry, 0) {
            self.report(token.clone());
        }
        Ok(Accepted { token, log: None })
    }

    /// Looks the token up, and applies the policy.
    async fn looked_up(&self, token: Validated, at: Option<u64>) -> Result<Accepted, Rejection> {
        let verdict = self.look_up(&token, at).await;
        // The caller gets a code; the proof goes to whoever collects findings.
        if matches!(verdict, Verdict::Forged { .. } | Verdict::Missing) {
            self.findings.found(Finding { token: token.clone(), verdict: verdict.clone() });
        }
        judge(&token, &verdict, self.log)?;
        Ok(Accepted { token, log: Some(verdict) })
    }

    async fn look_up(&self, token: &Validated, at: Option<u64>) -> Verdict {
        let Some(logs) = &self.logs else {
            return Verdict::Unknown { why: "logs are not looked at".to_owned() };
        };
        let unix_s = at.unwrap_or_else(|| self.clock.now().unix_s);
        let verdict = logs.look_up(token, self.place_of(token).as_ref(), unix_s).await;
        if let Verdict::InLog { index } = verdict {
            self.in_log.add(entry_of(token), index);
        }
        verdict
    }

    /// Where the logs of the token's issuer are.
    fn place_of(&self, token: &Validated) -> Option<Arc<Place>> {
        if self.log_at.is_some() {
            return self.log_at.clone();
        }
        let mut issuers = self.issuers.iter();
        let issuer = issuers.find(|issuer| issuer.name == token.claims().iss);
        issuer.and_then(|issuer| issuer.news().logs.clone())
    }

    /// Looks a token up in the background, again while it is pending, and tells what was found.
    fn report(&self, token: Validated) {
        let permit = Arc::clone(&self.lookups).try_acquire_owned().ok();
        let Some((permit, handle)) = permit.zip(self.handle.as_ref()) else {
            self.dropped_lookups.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let this = Weak::clone(&self.this);
        handle.spawn(async move {
            let _permit = permit;
            let mut looks = 0;
            let verdict = loop {
                let Some(inner) = this.upgrade() else { return };
                let verdict = inner.look_up(&token, None).await;
                let wait = inner.until_next_look(&token, looks);
                drop(inner);
                if verdict != Verdict::Pending || looks == LOOKS {
                    break verdict;
                }
                looks = looks.saturating_add(1);
                tokio::time::sleep(wait).await;
            };
            if !matches!(verdict, Verdict::InLog { .. })
                && let Some(inner) = this.upgrade()
            {
                inner.findings.found(Finding { token, verdict });
            }
        });
    }

    /// How long to wait after this many looks: first a moment, because the next checkpoint will do
    /// for most tokens, then until the entry has to be published.
    fn until_next_look(&self, token: &Validated, looks: usize) -> Duration {
        if looks == 0 {
            return SECOND_LOOK_AFTER;
        }
        let published = published_by(token, self.publish_within_s);
        // An `iat` in the future is within the leeway, so this is not long.
        Duration::from_secs(published.saturating_sub(self.clock.now().unix_s))
    }

    async fn explain_rest(
        &self,
        token: Validated,
        at: Option<u64>,
        steps: &mut Vec<Step>,
    ) -> Result<Accepted, Rejection> {
        if self.attestation != Attestation::Off {
            let value = "unknown: this version appraises no evidence".to_owned();
            let counts = self.attestation == Attestation::Require;
            steps.push(Step { name: "attestation", passed: false, counts, value });
            self.attestation.without_evidence()?;
        }
        if self.log == LogPolicy::Off {
            return Ok(Accepted { token, log: None });
        }
        let verdict = self.look_up(&token, at).await;
        let passed = matches!(verdict, Verdict::InLog { .. });
        let counts = self.log == LogPolicy::Require;
        steps.push(Step { name: "log", passed, counts, value: shown(&verdict) });
        judge(&token, &verdict, self.log)?;
        Ok(Accepted { token, log: Some(verdict) })
    }

    fn issuer_status(
        &self,
        current: &Current,
        index: usize,
        issuer: &Issuer,
        now: u64,
    ) -> IssuerStatus {
        let news = issuer.news().clone();
        let keeper = issuer.keeper().clone();
        let state = match keeper.state(now) {
            _ if !issuer.is_kept => KeyState::Given,
            State::None => KeyState::None,
            State::Fresh => KeyState::Fresh,
            State::Stale => KeyState::Stale,
            State::Expired => KeyState::Expired,
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (asked, age) = keeper.asked_and_age().unzip();
        let keys = current.validator.keys_of(&issuer.name).filter(|_| current.has(index));
        IssuerStatus {
            issuer: issuer.name.clone(),
            state,
            keys: keys.map_or(0, |keys| keys.kids().count()),
            age_ms: asked.map(|asked| now.saturating_sub(asked)),
            fetches: news.fetches,
            failures: news.failures,
            failures_in_a_row: keeper.failures(),
            last_error: news.last_error,
            distrusts_within_ms: age.map(|age| age.saturating_add(ms(self.fetch_timeout))),
            distrusts_at_most_ms: age.map(|age| age.saturating_add(ms(self.keep))),
        }
    }
}

impl Drop for Inner {
    /// The fetching tasks hold no reference, and end when they notice.
    fn drop(&mut self) {
        for issuer in &self.issuers {
            issuer.wake();
        }
    }
}

impl Takes for Inner {
    fn take(&self, issuer: &Issuer, keys: &Keys, lifetime_s: Option<u64>) {
        let Some(index) = self.issuers.iter().position(|other| other.name == issuer.name) else {
            return;
        };
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        // The keeper stays locked until the keys are in use: whoever it then tells that no fetch runs
        // must find them.
        let mut keeper = issuer.keeper();
        keeper.fetched(self.clock.now().ms, lifetime_s, random());
        let until = keeper.believed_until();
        let current = self.current.load().with(index, &issuer.name, keys.clone(), until);
        self.current.store(Arc::new(current));
    }

    fn distrust(&self, issuer: &Issuer, exposed: &[Exposed]) {
        let Some(index) = self.issuers.iter().position(|other| other.name == issuer.name) else {
            return;
        };
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load();
        if let Some(keys) = current.validator.keys_of(&issuer.name) {
            let until = current.believed_until.get(index).copied().flatten();
            let keys = keys.without(|member| exposed.iter().any(|shown| shown.is(member)));
            let without = current.with(index, &issuer.name, keys, until);
            self.current.store(Arc::new(without));
        }
    }
}

/// Whether there is no key set, and not only no announcement of the key.
fn is_unavailable(current: &Current, issuer: &str, verdict: &Result<Validated, Rejection>) -> bool {
    let keys = current.validator.keys_of(issuer);
    keys.is_none_or(|keys| keys.set().is_none())
        && verdict
            .as_ref()
            .is_err_and(|rejection| rejection.code() == RejectionCode::KeysUnavailable)
}

fn unavailable(issuer: &Issuer) -> Rejection {
    let why = issuer.news().last_error.clone();
    let why = why.unwrap_or_else(|| "it is not fetched yet".to_owned());
    let text = format!("no key set of `{}` is at hand: {why}", issuer.name);
    Rejection::new(RejectionCode::KeysUnavailable, text)
}

/// A verdict for a person.
fn shown(verdict: &Verdict) -> String {
    match verdict {
        Verdict::InLog { index } => format!("in log at index {index}"),
        Verdict::Pending => "pending".to_owned(),
        Verdict::Missing => "missing".to_owned(),
        Verdict::Forged { index, .. } => format!("FORGED: another leaf stands at index {index}"),
        Verdict::Unknown { why } => format!("unknown: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Else a token would be rejected, in the very moment in which its key arrived.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_is_told_that_no_fetch_runs_finds_what_the_last_one_brought() {
        // Nobody answers here, so that the fetch that runs is ended by the test.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", silent.local_addr().unwrap());
        let own = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let root = own.cert.pem().into_bytes();
        let keys = Keys::parse(chancery_validate::Profile::Strict, br#"{"keys":[]}"#).unwrap();
        for _ in 0..100 {
            let config = ValidatorConfig::new(&issuer, "https://api.example");
            let party = RelyingParty::builder(config).root_certificates(&root).build().unwrap();
            while party.0.issuers[0].keeper().would(0) != Ask::Wait {
                tokio::task::yield_now().await;
            }
            let looks = Arc::new(AtomicBool::new(false));
            let (inner, looking) = (Arc::clone(&party.0), Arc::clone(&looks));
            let looker = std::thread::spawn(move || {
                while inner.issuers[0].keeper().would(0) == Ask::Wait {
                    looking.store(true, Ordering::Relaxed);
                }
                inner.current.load().has(0)
            });
            while !looks.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            party.0.take(&party.0.issuers[0], &keys, None);
            assert!(looker.join().unwrap());
        }
    }
}
