//! Clients that ask for tokens until told to stop, and keep what they got.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Lab, TestClient, Web};

/// Between two requests of one client, so that a test measures behaviour and not capacity.
const PAUSE: Duration = Duration::from_millis(4);

/// A token as a client received it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The JWS.
    pub token: String,
    /// When it arrived.
    pub at: Instant,
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    url: String,
    realm: String,
    audience: String,
    client: Arc<TestClient>,
    stop: AtomicBool,
    received: Mutex<Vec<Received>>,
    /// What came instead of tokens, and how often.
    other: Mutex<BTreeMap<String, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Starts `threads` clients that ask for single tokens by signed requests which name the log
    /// that `/signers` shows.
    #[must_use]
    pub fn start(
        lab: &Lab,
        client: Arc<TestClient>,
        realm: &str,
        audience: &str,
        threads: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            url: lab.url(),
            realm: realm.to_owned(),
            audience: audience.to_owned(),
            client,
            stop: AtomicBool::new(false),
            received: Mutex::default(),
            other: Mutex::default(),
        });
        let run = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.ask_until_stopped())
        };
        let threads = (0..threads).map(run).collect();
        Self { shared, threads }
    }

    /// How many tokens arrived so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.shared.received).len()
    }

    /// The tokens that arrived so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Waits until so many more tokens arrived.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_for(&self, more: usize) {
        let wanted = self.count().saturating_add(more);
        crate::wait_until("tokens", Duration::from_secs(60), || self.count() >= wanted);
    }

    /// When the first token arrived that is in another log than `log`, after `since`.
    #[must_use]
    pub fn first_outside(&self, log: &str, since: Instant) -> Option<Instant> {
        let received = lock(&self.shared.received);
        received
            .iter()
            .filter(|r| r.at >= since)
            .find(|r| log_of(&r.token).is_some_and(|l| l != log))
            .map(|r| r.at)
    }

    /// Ends the clients; returns the tokens, and what came instead of tokens and how often.
    ///
    /// # Panics
    /// When a client thread failed.
    #[must_use]
    pub fn finish(self) -> (Vec<Received>, BTreeMap<String, u64>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("client thread");
        }
        let received = std::mem::take(&mut *lock(&self.shared.received));
        let other = std::mem::take(&mut *lock(&self.shared.other));
        (received, other)
    }
}

impl Shared {
    fn ask_until_stopped(&self) {
        let web = Web::new();
        let mut log = None;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(PAUSE);
            if log.is_none() {
                log = attached(&web, &self.url);
            }
            if let Err(what) = self.ask(&web, log.as_deref()) {
                log = None;
                let mut other = lock(&self.other);
                let times = other.entry(what).or_default();
                *times = times.saturating_add(1);
            }
        }
    }

    fn ask(&self, web: &Web, log: Option<&str>) -> Result<(), String> {
        let issuer = format!("{}/{}", self.url, self.realm);
        let request = self.client.request(&issuer, log, vec![json!({"aud": self.audience})]);
        let url = format!("{issuer}/issue");
        let headers = [("content-type", "application/jwt")];
        let answer = web
            .try_send("POST", &url, &headers, request.as_bytes())
            .map_err(|_| "no answer".to_owned())?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match body.pointer("/tokens/0/access_token").and_then(Value::as_str) {
            Some(token) => {
                let received = Received { token: token.to_owned(), at: Instant::now() };
                lock(&self.received).push(received);
                Ok(())
            }
            None => {
                let code = body.get("code").and_then(Value::as_str).unwrap_or("no code");
                Err(format!("{} {code}", answer.status))
            }
        }
    }
}

fn attached(web: &Web, url: &str) -> Option<String> {
    let answer = web.try_send("GET", &format!("{url}/signers"), &[], b"").ok()?;
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let signers = body.get("signers")?.as_array()?;
    let attached = signers.iter().find(|s| s.get("attached") == Some(&Value::Bool(true)))?;
    attached.get("log_id")?.as_str().map(str::to_owned)
}

/// The log id in a token's `jti`.
fn log_of(token: &str) -> Option<String> {
    let payload = chancery_token::b64::decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims.get("jti")?.as_str()?.split('.').next().map(str::to_owned)
}
