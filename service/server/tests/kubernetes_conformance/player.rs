//! kube-apiserver 1.36, as far as a signer meets it: its start, its key cache, its discovery document,
//! its token endpoint, its authenticator. It enforces what the real one enforces, and nothing else:
//! what the real one does not look at when it mints, this one does not look at either.
//!
//! Seconds can be made shorter (`Flags::second`), so that its waits can be tested.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chancery_testkit::now;
use chancery_token::{b64, json};
use serde_json::{Map, Value, json};

use crate::keys::Public;
use crate::wire::{
    FETCH_KEYS, Failed, Keys, Line, METADATA, Metadata, Nothing, SIGN, SignRequest, SignResponse,
    Stamp,
};

/// `keySyncTimeout`: for the first keys and for each refresh.
const KEY_SYNC_S: u32 = 60;
/// `fallbackRefreshDuration`: after a refresh that failed.
const RETRY_S: u32 = 10;
/// How long a caller of the token endpoint waits at most.
const CALLER_WAITS_S: u32 = 34;
/// The least that `max_token_expiration_seconds` may be, and that a token may be asked for.
const LEAST_EXPIRATION_S: i64 = 600;
/// What a pod's token volume asks for when its token is to be extended.
const EXTENDABLE_S: i64 = 3_607;
const YEAR_S: i64 = 365 * 24 * 3_600;
const MAX_KID: usize = 1_024;

/// The flags that concern the signer.
#[derive(Clone, Debug)]
pub struct Flags {
    /// `--service-account-issuer`, which is the one API audience too.
    pub issuer: String,
    /// `--service-account-max-token-expiration`, in seconds.
    pub max_expiration_s: Option<i64>,
    /// `--service-account-key-file`.
    pub key_file: bool,
    /// `--service-account-signing-key-file`.
    pub signing_key_file: bool,
    /// How long a second is here.
    pub second: Duration,
}

impl Flags {
    pub fn new(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            max_expiration_s: None,
            key_file: false,
            signing_key_file: false,
            second: Duration::from_secs(1),
        }
    }
}

/// Why the process ended at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Flags(&'static str),
    Keys(String),
    Metadata(String),
    MaxTooShort(i64),
    FlagAboveMax { flag: i64, signer: i64 },
}

/// What the token endpoint is asked for.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub namespace: String,
    pub account: String,
    pub audiences: Vec<String>,
    pub expiration_s: i64,
    pub pod: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Minted {
    pub token: String,
    pub expiration_s: i64,
    /// That the lifetime was shortened.
    pub warning: bool,
}

/// HTTP status and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status(pub u16, pub String);

#[derive(Clone, Debug, PartialEq)]
struct CachedKey {
    id: String,
    key: Public,
    excluded: bool,
}

#[derive(Debug)]
struct Cache {
    keys: Vec<CachedKey>,
    stamp: Stamp,
    /// Seconds after which to fetch again.
    hint_s: u32,
}

impl Cache {
    /// `getTokenVerificationKeys`: one thing that is wrong refuses the answer as a whole.
    fn read(answer: Keys) -> Result<Self, String> {
        if answer.refresh_hint_seconds <= 0 {
            return Err(format!("found invalid refresh hint ({}s)", answer.refresh_hint_seconds));
        }
        if answer.keys.is_empty() {
            return Err("found no keys".to_owned());
        }
        let stamp = answer.data_timestamp.ok_or("invalid data timestamp: proto: invalid nil")?;
        if !(0..1_000_000_000).contains(&stamp.nanos) {
            return Err("invalid data timestamp: nanos out of range".to_owned());
        }
        let mut keys = Vec::new();
        for key in answer.keys {
            if key.id.is_empty() || key.id.len() > MAX_KID {
                return Err(format!("found invalid public key id {:?}", key.id));
            }
            if key.der.is_empty() {
                return Err("found empty public key".to_owned());
            }
            let public = Public::parse(&key.der)
                .map_err(|e| format!("while parsing external public keys: {e}"))?;
            keys.push(CachedKey { id: key.id, key: public, excluded: key.excluded });
        }
        let hint_s = u32::try_from(answer.refresh_hint_seconds).unwrap_or(u32::MAX);
        Ok(Self { keys, stamp, hint_s })
    }

    /// `keysChanged`: the keys themselves are not compared.
    fn differs(&self, other: &Self) -> bool {
        let named = |cache: &Self| -> Vec<(String, bool)> {
            cache.keys.iter().map(|key| (key.id.clone(), key.excluded)).collect()
        };
        self.stamp != other.stamp || named(self) != named(other)
    }

    fn of(&self, kid: &str) -> Vec<CachedKey> {
        self.keys.iter().filter(|key| key.id == kid).cloned().collect()
    }

    /// The JWKS of the discovery endpoint, or why there is none.
    fn jwks(&self) -> Result<Value, String> {
        let published = self.keys.iter().filter(|key| !key.excluded);
        let keys: Result<Vec<_>, _> = published.map(|key| key.key.jwk(&key.id)).collect();
        Ok(json!({"keys": keys?}))
    }
}

struct Inner {
    flags: Flags,
    line: Line,
    max_extended_s: i64,
    max_s: i64,
    cache: Mutex<Arc<Cache>>,
    /// One refresh at a time; whoever comes meanwhile takes its result.
    syncing: tokio::sync::Mutex<()>,
    jwks: Mutex<Option<Value>>,
    syncs: AtomicU64,
    failed_syncs: AtomicUsize,
    last_failure: Mutex<String>,
    ended: AtomicBool,
}

/// A running API server.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ApiServer {
    /// Starts it, or tells why it exits.
    pub async fn start(socket: &Path, flags: Flags) -> Result<Self, Exit> {
        if flags.key_file {
            return Err(Exit::Flags("--service-account-key-file"));
        }
        if flags.signing_key_file {
            return Err(Exit::Flags("--service-account-signing-key-file"));
        }
        let line = Line::new(socket);
        let sync_within = flags.second * KEY_SYNC_S;
        let keys = line.call::<Keys>(FETCH_KEYS, &Nothing {}, sync_within).await;
        let keys = keys.map_err(|e| Exit::Keys(format!("rpc error: {}", e.text)))?;
        let cache = Cache::read(keys).map_err(Exit::Keys)?;
        let metadata = line.call::<Metadata>(METADATA, &Nothing {}, sync_within).await;
        let metadata = metadata.map_err(|e: Failed| Exit::Metadata(e.text))?;
        let max_s = metadata.max_token_expiration_seconds;
        if max_s < LEAST_EXPIRATION_S {
            return Err(Exit::MaxTooShort(max_s));
        }
        if let Some(flag) = flags.max_expiration_s.filter(|flag| *flag > max_s) {
            return Err(Exit::FlagAboveMax { flag, signer: max_s });
        }
        let jwks = cache.jwks().ok();
        let server = Self(Arc::new(Inner {
            line,
            max_extended_s: max_s.min(YEAR_S),
            max_s: flags.max_expiration_s.unwrap_or(max_s),
            cache: Mutex::new(Arc::new(cache)),
            syncing: tokio::sync::Mutex::new(()),
            jwks: Mutex::new(jwks),
            syncs: AtomicU64::new(1),
            failed_syncs: AtomicUsize::new(0),
            last_failure: Mutex::default(),
            ended: AtomicBool::new(false),
            flags,
        }));
        tokio::spawn(server.clone().refresh());
        Ok(server)
    }

    /// Ends it; its connection is closed.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    /// `scheduleSync`: after the hint, or ten seconds after a failure.
    async fn refresh(self) {
        let second = self.0.flags.second;
        let mut wait = second * self.cache().hint_s;
        loop {
            tokio::time::sleep(wait).await;
            if self.0.ended.load(Ordering::Relaxed) {
                return;
            }
            wait = match self.sync(second * KEY_SYNC_S).await {
                Ok(()) => second * self.cache().hint_s,
                Err(_) => second * RETRY_S,
            };
        }
    }

    /// `syncKeys`: an answer that is refused changes nothing.
    async fn sync(&self, within: Duration) -> Result<(), String> {
        let inner = &*self.0;
        let before = inner.syncs.load(Ordering::Acquire);
        let _one_at_a_time = inner.syncing.lock().await;
        if inner.syncs.load(Ordering::Acquire) != before {
            return Ok(());
        }
        let answer = inner.line.call::<Keys>(FETCH_KEYS, &Nothing {}, within).await;
        let fresh = answer.map_err(|e| e.text).and_then(Cache::read).inspect_err(|why| {
            inner.failed_syncs.fetch_add(1, Ordering::Relaxed);
            lock(&inner.last_failure).clone_from(why);
        })?;
        let fresh = Arc::new(fresh);
        let old = std::mem::replace(&mut *lock(&inner.cache), fresh.clone());
        if old.differs(&fresh) {
            // The listener that makes the discovery document; if it fails, the old one stays.
            if let Ok(jwks) = fresh.jwks()
                && lock(&inner.jwks).is_some()
            {
                *lock(&inner.jwks) = Some(jwks);
            }
        }
        inner.syncs.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn cache(&self) -> Arc<Cache> {
        lock(&self.0.cache).clone()
    }

    /// Fetches of keys that were taken, and that failed.
    pub fn syncs(&self) -> (u64, usize) {
        (self.0.syncs.load(Ordering::Acquire), self.0.failed_syncs.load(Ordering::Relaxed))
    }

    pub fn last_failure(&self) -> String {
        lock(&self.0.last_failure).clone()
    }

    /// `/openid/v1/jwks`; `None`: the endpoint does not exist.
    pub fn jwks(&self) -> Option<Value> {
        lock(&self.0.jwks).clone()
    }

    /// The `kid`s of the discovery document.
    pub fn discovered(&self) -> BTreeSet<String> {
        let jwks = self.jwks().unwrap_or_default();
        let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
        keys.iter().filter_map(|key| Some(key["kid"].as_str()?.to_owned())).collect()
    }

    /// `kubectl create token`, or a kubelet for its pod: the caller waits as long as it does.
    pub async fn mint(&self, request: &TokenRequest) -> Result<Minted, Status> {
        self.mint_within(request, self.0.flags.second * CALLER_WAITS_S).await
    }

    pub async fn mint_within(
        &self,
        request: &TokenRequest,
        within: Duration,
    ) -> Result<Minted, Status> {
        let inner = &*self.0;
        if request.expiration_s < LEAST_EXPIRATION_S {
            return Err(Status(422, "may not specify a duration less than 10 minutes".to_owned()));
        }
        let warning = request.expiration_s > inner.max_s;
        let (claims, expiration_s) = self.claims(request);
        let claims = b64::encode(claims.to_string().as_bytes());
        let internal = |what: &str, why: String| Status(500, format!("{what}: {why}"));
        let asked = SignRequest { claims: claims.clone() };
        let answer = inner.line.call::<SignResponse>(SIGN, &asked, within).await;
        let answer = answer.map_err(|e| internal("while signing jwt", e.text))?;
        let checked = self.check_header(&answer.header, within).await;
        checked.map_err(|why| internal("while validating header", why))?;
        if answer.signature.is_empty() {
            return Err(Status(500, "empty signature returned".to_owned()));
        }
        let token = format!("{}.{claims}.{}", answer.header, answer.signature);
        Ok(Minted { token, expiration_s, warning })
    }

    /// What it writes into a token, and for how long.
    fn claims(&self, request: &TokenRequest) -> (Value, i64) {
        let inner = &*self.0;
        let mut expiration_s = request.expiration_s.min(inner.max_s);
        let iat = now();
        let mut binding = json!({
            "namespace": request.namespace,
            "serviceaccount": {"name": request.account, "uid": "5b9a1b4e-7a51-4ff6-9b83-5d5d9bb5b0b1"},
        });
        if let Some(pod) = &request.pod {
            binding["node"] =
                json!({"name": "node-1", "uid": "8e1f1a7c-1d35-4e57-a2ab-2fd3c9f0a8aa"});
            binding["pod"] = json!({"name": pod, "uid": "0c2f6d0e-2d55-4a0b-8f6a-9c3d1a2b4c5d"});
            let for_the_api = request.audiences == [inner.flags.issuer.clone()];
            let extends = inner.max_extended_s > EXTENDABLE_S;
            if expiration_s == EXTENDABLE_S && for_the_api && extends {
                binding["warnafter"] = json!(iat + u64::try_from(EXTENDABLE_S).unwrap());
                expiration_s = inner.max_extended_s;
            }
        }
        let claims = json!({
            "aud": request.audiences,
            "exp": iat + u64::try_from(expiration_s).unwrap(),
            "iat": iat,
            "iss": inner.flags.issuer,
            "jti": uuid(),
            "kubernetes.io": binding,
            "nbf": iat,
            "sub": format!("system:serviceaccount:{}:{}", request.namespace, request.account),
        });
        (claims, expiration_s)
    }

    /// `validateJWTHeader`. Go's decoder reads one value and leaves what follows, takes the last of
    /// repeated members, and does not care for the case of their names.
    async fn check_header(&self, header: &str, within: Duration) -> Result<(), String> {
        let bytes = b64::decode(header).map_err(|e| format!("while unwrapping header: {e}"))?;
        let mut values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
        let Some(Ok(Value::Object(members))) = values.next() else {
            return Err("while parsing header JSON: not an object".to_owned());
        };
        let mut found = Map::new();
        for (name, value) in &members {
            let known = ["alg", "kid", "typ"].into_iter().find(|k| k.eq_ignore_ascii_case(name));
            let known =
                known.ok_or(format!("while parsing header JSON: unknown field {name:?}"))?;
            if !value.is_string() && !value.is_null() {
                return Err("while parsing header JSON: cannot unmarshal into string".to_owned());
            }
            found.insert(known.to_owned(), value.clone());
        }
        let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("typ") != "JWT" {
            return Err("bad type".to_owned());
        }
        let kid = text("kid");
        if kid.is_empty() {
            return Err("key id missing".to_owned());
        }
        if kid.len() > MAX_KID {
            return Err("key id longer than 1 kb".to_owned());
        }
        if !["RS256", "ES256", "ES384", "ES512"].contains(&text("alg")) {
            return Err(format!("bad signing algorithm {:?}", text("alg")));
        }
        // A key that it does not know is asked for, and is no reason to refuse.
        if self.keys_of(kid, within).await.iter().any(|key| key.excluded) {
            return Err(format!("key used for signing JWT (kid: {kid}) is excluded from OIDC"));
        }
        Ok(())
    }

    /// `GetPublicKeys`: an unknown `kid` causes a fetch at once.
    async fn keys_of(&self, kid: &str, within: Duration) -> Vec<CachedKey> {
        let known = self.cache().of(kid);
        if !known.is_empty() || self.sync(within).await.is_err() {
            return known;
        }
        self.cache().of(kid)
    }

    /// What it makes of a bearer token: the claims, or 401. go-jose reads headers strictly.
    pub async fn authenticate(&self, token: &str) -> Result<Map<String, Value>, Status> {
        let no = |why: String| Status(401, why);
        let (input, signature) = token.rsplit_once('.').ok_or_else(|| no("form".into()))?;
        let (header, payload) = input.split_once('.').ok_or_else(|| no("form".into()))?;
        let decoded = |text: &str| b64::decode(text).map_err(|e| no(e.to_string()));
        let header =
            json::parse_object(&decoded(header)?).map_err(|e| no(format!("header: {e}")))?;
        let claims =
            json::parse_object(&decoded(payload)?).map_err(|e| no(format!("claims: {e}")))?;
        if claims.get("iss").and_then(Value::as_str) != Some(&self.0.flags.issuer) {
            return Err(no("not its issuer".into()));
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default();
        let signature = decoded(signature)?;
        let keys = self.keys_of(text("kid"), self.0.flags.second * KEY_SYNC_S).await;
        let verifies = |key: &CachedKey| key.key.verify(text("alg"), input, &signature);
        let verdicts: Vec<_> = keys.iter().map(verifies).collect();
        if !verdicts.iter().any(Result::is_ok) {
            let why = verdicts.into_iter().find_map(Result::err);
            return Err(no(why.unwrap_or_else(|| "no such key".into())));
        }
        let time = |name: &str| claims.get(name).and_then(Value::as_u64).unwrap_or_default();
        if now() >= time("exp") || now() + 1 < time("nbf") {
            return Err(no("not valid now".into()));
        }
        Ok(claims)
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}; {}", self.last_failure());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A version 4 UUID, which the API server takes for `jti`.
fn uuid() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
