//! One issuer: where its keys come from, the keeper that says when, and the task that fetches.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use chancery_token::KeyId;
use chancery_token::jwks::{Exposed, KeySet, MAX_SET_BYTES};
use chancery_validate::anchor::{Anchor, Recollection};
use chancery_validate::{Keys, Profile};
use reqwest::Url;
use tokio::sync::{Notify, watch};

use crate::Bounds;
use crate::clock::Clock;
use crate::discovery::{self, Found};
use crate::error::FetchError;
use crate::fetch::Web;
use crate::keeper::{Ask, Keeper, Next, Pace, THOUSAND};
use crate::logs::Logs;
use crate::place::Place;

/// Where an issuer's key set comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// From the configuration, for good.
    Given(Keys),
    /// From a URL that is configured.
    Url(Url),
    /// From where the issuer's metadata says; that stands where the standards say, or at this URL.
    Discovery(Option<String>),
}

/// One issuer.
#[derive(Debug)]
pub struct Issuer {
    /// As it is configured.
    pub name: String,
    pub source: Source,
    /// Whether a task keeps its keys; else they were given for good.
    pub is_kept: bool,
    keeper: Mutex<Keeper>,
    /// Fetches that ended; the task that fetches holds the other end.
    ended: watch::Receiver<u64>,
    wake: Notify,
    waiting: AtomicUsize,
    waiting_at_most: usize,
    news: Mutex<News>,
}

/// What became known beside the keys.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// Fetches that ended.
    pub fetches: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// What the last fetch died of; `None` once one succeeded.
    pub last_error: Option<String>,
    /// Where the issuer's logs are.
    pub logs: Option<Arc<Place>>,
}

/// What the fetching tasks of all issuers share.
#[derive(Clone, Debug)]
pub struct Means {
    pub web: Web,
    pub clock: Arc<Clock>,
    pub logs: Option<Arc<Logs>>,
    /// Where the logs of every issuer are, if that is configured.
    pub log_at: Option<Arc<Place>>,
    pub anchor: Option<Anchor>,
    pub profile: Profile,
    pub fetch_timeout: Duration,
    /// How long metadata is used again.
    pub metadata_age_ms: u64,
}

/// Takes the keys that were fetched.
pub trait Takes: Send + Sync {
    /// New keys of an issuer, or the same again; `lifetime_s` is what their publisher says.
    fn take(&self, issuer: &Issuer, keys: &Keys, lifetime_s: Option<u64>);

    /// Keys of an issuer whose private halves their publisher has shown.
    fn distrust(&self, issuer: &Issuer, exposed: &[Exposed]);
}

impl Issuer {
    /// An issuer, and the end by which its task tells that a fetch ended.
    pub fn new(
        name: &str,
        source: Source,
        is_kept: bool,
        bounds: &Bounds,
        now: u64,
    ) -> (Self, watch::Sender<u64>) {
        let (sender, ended) = watch::channel(0);
        let issuer = Self {
            name: name.to_owned(),
            source,
            is_kept,
            keeper: Mutex::new(Keeper::new(Pace::from(bounds), now)),
            ended,
            wake: Notify::new(),
            waiting: AtomicUsize::new(0),
            waiting_at_most: bounds.waiting,
            news: Mutex::default(),
        };
        (issuer, sender)
    }

    /// The keeper.
    pub fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known beside the keys.
    pub fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the task that fetches look whether it is still wanted.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for a fetch that may bring a key that is missed, if one runs or may begin now.
    pub async fn refreshed(&self, clock: &Clock) {
        let mut ended = self.ended.clone();
        ended.borrow_and_update();
        match self.keeper().ask(clock.now().ms) {
            Ask::TooSoon => return,
            Ask::Wait => {}
            Ask::Fetch => self.wake(),
        }
        if let Some(_waits) = Waits::one(&self.waiting, self.waiting_at_most) {
            // An error says that the runtime has ended: then nothing comes any more.
            let _ = ended.changed().await;
        }
    }
}

/// One call that waits; many of them would be a way to fill memory.
struct Waits<'i>(&'i AtomicUsize);

impl<'i> Waits<'i> {
    fn one(waiting: &'i AtomicUsize, at_most: usize) -> Option<Self> {
        let this = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < at_most).then_some(this)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The longest sleep: a machine that was suspended looks at its clock again this soon.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Fetches the issuer's keys whenever its keeper says so, until nobody takes them any more. All
/// fetching for an issuer is done here, one after the other.
pub async fn keep<T: Takes>(
    issuer: Arc<Issuer>,
    means: Means,
    taker: Weak<T>,
    ended: watch::Sender<u64>,
) {
    let mut held = Held::default();
    while taker.strong_count() > 0 {
        let now = means.clock.now().ms;
        let next = issuer.keeper().next(now);
        if let Next::At(time) = next {
            let sleep = Duration::from_millis(time.saturating_sub(now)).min(LONGEST_SLEEP);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = issuer.wake.notified() => {}
            }
            continue;
        }
        let refresh = tokio::time::timeout(means.fetch_timeout, held.refresh(&issuer, &means));
        let outcome = refresh.await.unwrap_or(Err(FetchError::TimedOut(means.fetch_timeout)));
        let Some(taker) = taker.upgrade() else { return };
        settle(&issuer, &means, &mut held, &*taker, outcome);
        ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn settle<T: Takes>(
    issuer: &Issuer,
    means: &Means,
    held: &mut Held,
    taker: &T,
    outcome: Result<Fetched, FetchError>,
) {
    let mut news = issuer.news();
    news.fetches = news.fetches.saturating_add(1);
    match outcome {
        Ok(fetched) => {
            news.last_error = None;
            news.logs.clone_from(&held.logs);
            drop(news);
            taker.take(issuer, &fetched.believed, fetched.lifetime_s);
        }
        Err(error) => {
            news.failures = news.failures.saturating_add(1);
            news.last_error = Some(error.to_string());
            drop(news);
            // The rest of the last good set is used on, but not what everybody can sign with now.
            if let FetchError::Exposed { keys, .. } = &error {
                taker.distrust(issuer, keys);
                held.note_exposed(keys);
            }
            // Where the key set was may be wrong by now.
            held.found = None;
            issuer.keeper().failed(means.clock.now().ms, random());
        }
    }
}

/// Below [`THOUSAND`]; it spreads requests, and guards nothing.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % THOUSAND
}

/// Shown keys that are remembered of a publisher: more than an honest one ever shows, and a dishonest
/// one needs no such way.
const MAX_EXPOSED: usize = 4_096;

/// What a task keeps from one fetch to the next.
#[derive(Default)]
struct Held {
    found: Option<(Found, u64)>,
    logs: Option<Arc<Place>>,
    /// The set as it was served, with its entity tag and address.
    served: Option<(Keys, Option<String>, Url)>,
    /// What the signers of the anchor's logs have said.
    recollection: Recollection,
    /// Keys that the publisher has shown: it cannot take that back.
    exposed: HashSet<KeyId>,
}

struct Fetched {
    believed: Keys,
    lifetime_s: Option<u64>,
}

impl Held {
    async fn refresh(&mut self, issuer: &Issuer, means: &Means) -> Result<Fetched, FetchError> {
        let (served, lifetime_s) = match self.address(issuer, means).await? {
            Some(url) => self.fetch(means, url).await?,
            None => match &issuer.source {
                Source::Given(keys) => (keys.clone(), None),
                // Only what is given has no address.
                Source::Url(_) | Source::Discovery(_) => (Keys::unavailable(), Some(0)),
            },
        };
        let believed = match (&means.anchor, &means.logs, served.set()) {
            (Some(anchor), Some(logs), Some(set)) => {
                let unix_s = means.clock.now().unix_s;
                let place = self.logs.as_ref();
                logs.announced(anchor, set, place, unix_s, &mut self.recollection).await
            }
            _ => served,
        };
        let believed = believed.without(|member| self.exposed.contains(&member.key.kid()));
        Ok(Fetched { believed, lifetime_s })
    }

    fn note_exposed(&mut self, exposed: &[Exposed]) {
        for key in exposed.iter().filter_map(|key| key.thumbprint) {
            if self.exposed.len() < MAX_EXPOSED {
                self.exposed.insert(key);
            }
        }
    }

    /// Where the key set is; `None` if it was given. Learns where the logs are.
    async fn address(&mut self, issuer: &Issuer, means: &Means) -> Result<Option<Url>, FetchError> {
        self.logs.clone_from(&means.log_at);
        let at = match &issuer.source {
            Source::Given(_) => return Ok(None),
            Source::Url(url) => return Ok(Some(url.clone())),
            Source::Discovery(at) => at.as_deref(),
        };
        let now = means.clock.now().ms;
        let found = match self.found.take() {
            Some((found, until)) if now < until => (found, until),
            _ => {
                let found = discovery::find(&means.web, &issuer.name, means.profile, at).await?;
                (found, now.saturating_add(means.metadata_age_ms))
            }
        };
        if self.logs.is_none() {
            self.logs = found.0.logs.as_deref().map(|prefix| Arc::new(Place::below(prefix)));
        }
        let url = found.0.jwks_uri.clone();
        self.found = Some(found);
        Ok(Some(url))
    }

    async fn fetch(&mut self, means: &Means, url: Url) -> Result<(Keys, Option<u64>), FetchError> {
        let known = self.served.take().filter(|(_, _, from)| *from == url);
        let etag = known.as_ref().and_then(|(_, etag, _)| etag.as_deref());
        let answer = means.web.get(&url, MAX_SET_BYTES, etag).await?;
        let keys = match (answer.body, known) {
            (Some(body), _) => Keys::parse(means.profile, &body).map_err(|rejection| {
                let (url, why) = (url.to_string(), rejection.to_string());
                match KeySet::exposed(&body) {
                    keys if keys.is_empty() => FetchError::Content { url, why },
                    keys => FetchError::Exposed { url, why, keys },
                }
            })?,
            (None, Some((keys, _, _))) => keys,
            // Without an entity tag that was sent there is no such answer.
            (None, None) => Keys::unavailable(),
        };
        self.served = Some((keys.clone(), answer.etag, url));
        Ok((keys, answer.lifetime_s))
    }
}
