//! An issuer with its log behind a real HTTP server of the test's own, that can be made to fail.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chancery_entry::directory::{DirectoryEntry, LogGenesis};
use chancery_entry::{Announcement, Entry, Start, TokenEntry};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, LogId, TileBuilder, encode_entry, leaf_hash};
use chancery_token::jwks::{Member, Window, to_json};
use chancery_token::{Algorithm, RsaBits, SigningKey, b64, jws};
use chancery_validate::directory::checkpoint_entry;
use chancery_validate::log::Search;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const AUDIENCE: &str = "https://api.example";

/// How a path is answered, other than truthfully.
#[derive(Clone, Debug)]
pub enum Fault {
    /// With this status and no body.
    Status(u16),
    /// After this time.
    Slow(Duration),
    /// Never.
    Silent,
    /// With a body that does not end, without a length.
    Endless,
    /// With a length that is larger than any limit.
    Huge,
    /// With these bytes.
    Bytes(Vec<u8>),
    /// With this status and these bytes.
    Says(u16, String),
    /// With a redirect.
    Redirect(String),
    /// A good answer, in small pieces and without a length.
    Pieces,
}

#[derive(Default)]
struct Served {
    objects: BTreeMap<String, Vec<u8>>,
    cache_control: Option<String>,
    age: Option<String>,
    etags: bool,
    faults: HashMap<String, Fault>,
    counts: BTreeMap<String, usize>,
    not_modified: usize,
}

/// The server, the issuer's keys and its log. Dropping it ends the server.
pub struct Publisher {
    served: Arc<Mutex<Served>>,
    pub url: String,
    pub issuer: String,
    task: tokio::task::JoinHandle<()>,
    pub keys: Vec<Key>,
    pub log: Log,
    /// The log that names it.
    pub directory: Log,
}

pub struct Key {
    pub key: SigningKey,
    pub member: Member,
}

/// A log with its identity key and all of its leaves.
pub struct Log {
    identity: SigningKey,
    name: VerifierKey,
    pub id: LogId,
    entries: Vec<Vec<u8>>,
    /// Of a directory: where each log is named.
    named: BTreeMap<LogId, usize>,
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Publisher {
    /// A publisher with one key, whose set says `max-age=150`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Served::default()));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&served));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let issuer = format!("{url}/r");
        let (log, directory) = (Log::new(), Log::named(|_| "log.example/directory".to_owned()));
        let mut publisher = Self { served, url, issuer, task, keys: Vec::new(), log, directory };
        publisher.served().cache_control = Some("public, max-age=150".to_owned());
        publisher.describe("/r/.well-known/openid-configuration");
        publisher.add_key();
        publisher
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap()
    }

    /// Serves the issuer's metadata at a path.
    pub fn describe(&self, path: &str) {
        let metadata = json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/r/jwks.json", self.url),
            "chancery_signers_uri": format!("{}/signers", self.url),
        });
        self.put(path, metadata.to_string().into_bytes());
    }

    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.served().objects.insert(path.to_owned(), bytes);
    }

    pub fn remove(&self, path: &str) {
        self.served().objects.remove(path);
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.served().objects.get(path).cloned().unwrap()
    }

    pub fn fail(&self, path: &str, fault: Fault) {
        self.served().faults.insert(path.to_owned(), fault);
    }

    pub fn heal(&self, path: &str) {
        self.served().faults.remove(path);
    }

    pub fn say(&self, cache_control: Option<&str>, age: Option<&str>) {
        let mut served = self.served();
        served.cache_control = cache_control.map(str::to_owned);
        served.age = age.map(str::to_owned);
    }

    pub fn use_etags(&self) {
        self.served().etags = true;
    }

    pub fn not_modified(&self) -> usize {
        self.served().not_modified
    }

    /// Requests for a path so far.
    pub fn count(&self, path: &str) -> usize {
        self.served().counts.get(path).copied().unwrap_or(0)
    }

    /// Requests for paths that contain this.
    pub fn count_of(&self, part: &str) -> usize {
        let served = self.served();
        served.counts.iter().filter(|(path, _)| path.contains(part)).map(|(_, n)| n).sum()
    }

    pub const KEYS: &'static str = "/r/jwks.json";

    /// A new key, announced in the log and served.
    pub fn add_key(&mut self) {
        let key = SigningKey::generate(Algorithm::Es256, RsaBits::B2048).unwrap();
        let window = Window { nbf: now() - 600, signs_until: now() + 3_000 };
        let announcement = Announcement {
            kid: *key.public().kid().as_bytes(),
            jwk: Value::Object(key.public().jwk()).to_string(),
            algorithm: Algorithm::Es256.as_str().to_owned(),
            issuer: self.issuer.clone(),
            nbf: window.nbf,
            signs_until: window.signs_until,
            max_lifetime_s: 3_600,
            realm: "r".to_owned(),
            start: Start::First,
        };
        let index = self.log.append(Entry::Announcement(announcement).encode().unwrap());
        let member = Member {
            issuer: Some(self.issuer.clone()),
            window: Some(window),
            exp: Some(now() + 10_000),
            log: Some(format!("{}.{index}", self.log.id)),
            ..Member::new(key.public().clone())
        };
        self.keys.push(Key { key, member });
        self.publish_keys();
        self.publish_log();
    }

    /// Takes the oldest key out of the set.
    pub fn drop_key(&mut self) -> Key {
        let key = self.keys.remove(0);
        self.publish_keys();
        key
    }

    pub fn publish_keys(&self) {
        let members: Vec<Member> = self.keys.iter().map(|key| key.member.clone()).collect();
        self.put(Self::KEYS, to_json(&members).into_bytes());
    }

    /// The signer's own key set, `keys.jwt`, with these of the keys.
    pub fn signed_set(&self, sequence: u64, which: &[usize]) -> Vec<u8> {
        let keys = which.iter().map(|index| Value::Object(self.keys[*index].member.jwk()));
        let set = json!({
            "iss": self.log.name.name(), "log": self.log.id.to_string(), "seq": sequence,
            "iat": now(), "exp": now() + 300, "keys": keys.collect::<Vec<_>>(),
        });
        let (identity, payload) = (&self.log.identity, set.to_string());
        let kid = identity.public().kid();
        let input = jws::signing_input(Algorithm::Ed25519, "jwk-set+jwt", &kid, payload.as_bytes());
        let signature = identity.sign(input.as_bytes()).unwrap();
        jws::assemble(input, &signature).into_bytes()
    }

    /// A token of the newest key, which is the log's next entry once it is appended.
    pub fn token(&self) -> String {
        self.token_at(self.keys.last().unwrap(), self.log.entries.len() as u64, now() - 1)
    }

    pub fn token_at(&self, key: &Key, index: u64, iat: u64) -> String {
        let claims = json!({
            "iss": self.issuer, "sub": "s", "aud": AUDIENCE, "client_id": "c", "iat": iat,
            "exp": iat + 600, "jti": format!("{}.{index}.{}", self.log.id, b64::encode(&[7; 16])),
        });
        sign(&key.key, &claims)
    }

    /// A token under a key that the set calls by another name than its thumbprint.
    pub fn token_named(&self, key: &Key, kid: &str) -> String {
        let plain = self.token_at(key, 3, now());
        let claims = plain.split('.').nth(1).unwrap();
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": kid}).to_string();
        let input = format!("{}.{claims}", b64::encode(header.as_bytes()));
        let signature = key.key.sign(input.as_bytes()).unwrap();
        jws::assemble(input, &signature)
    }

    /// A token of the newest key that stands in the log, which is not published yet.
    pub fn logged_token(&mut self) -> String {
        let token = self.token();
        self.log.append(entry_of(&token, self.keys.last().unwrap()));
        token
    }

    /// A token of Kubernetes' form under the newest key: its `jti` is no address.
    pub fn foreign_token(&self, iat: u64) -> String {
        let claims = json!({
            "iss": self.issuer, "sub": "system:serviceaccount:ns:sa", "aud": [AUDIENCE], "iat": iat,
            "nbf": iat, "exp": iat + 600, "jti": "0d1c6b0e-4c1c-4b26-9d3a-6f4f6a1b2c3d",
            "kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "sa", "uid": "u"}},
        });
        sign_as("JWT", &self.keys.last().unwrap().key, &claims)
    }

    /// The same, in the log, which is not published yet; and the path that finds it.
    pub fn logged_foreign_token(&mut self, iat: u64) -> (String, usize, String) {
        let token = self.foreign_token(iat);
        let entry = entry_of(&token, self.keys.last().unwrap());
        let path = self.log_path(&Search::path(&leaf_hash(&entry)));
        (token, self.log.append(entry), path)
    }

    /// Serves the log as it is now.
    pub fn publish_log(&self) {
        self.publish(&format!("/log/{}", self.log.id), &self.log);
    }

    /// Enters the log as it is now in the directory, with a name if it has none, and serves that.
    pub fn publish_directory(&mut self) {
        let log = &self.log;
        let named_at = self.directory.named.entry(log.id).or_insert(self.directory.entries.len());
        let named_at = *named_at;
        if named_at == self.directory.entries.len() {
            let genesis = DirectoryEntry::Genesis(LogGenesis {
                log: *log.id.as_bytes(),
                vkeys: vec![log.name.to_string()],
                genesis_leaf: leaf_hash(&log.entries[0]).0,
                predecessor: None,
            });
            self.directory.entries.push(genesis.encode().unwrap());
        }
        let entry = checkpoint_entry(&log.note(), &log.name).unwrap();
        self.directory.entries.push(DirectoryEntry::Checkpoint(entry).encode().unwrap());
        let checkpoint_at = self.directory.entries.len() - 1;
        let id = log.id.to_string();
        let places = json!({"log": id, "named_at": named_at, "checkpoint_at": checkpoint_at});
        let index = json!({"logs": [places]});
        self.put("/directory/index.json", index.to_string().into_bytes());
        self.publish("/directory", &self.directory);
    }

    fn publish(&self, prefix: &str, log: &Log) {
        self.put(&format!("{prefix}/vkey"), format!("{}\n", log.name).into_bytes());
        let mut builder = TileBuilder::new();
        for entry in &log.entries {
            for (id, bytes) in builder.append(leaf_hash(entry)) {
                self.put(&format!("{prefix}/{}", id.path()), bytes);
            }
        }
        for (id, bytes) in builder.edge() {
            self.put(&format!("{prefix}/{}", id.path()), bytes.to_vec());
        }
        for (index, bundle) in log.entries.chunks(256).enumerate() {
            let size = log.entries.len() as u64;
            let id = chancery_tlog::EntriesTileId::at(index as u64, size).unwrap();
            let mut bytes = Vec::new();
            for entry in bundle {
                encode_entry(&mut bytes, entry).unwrap();
            }
            self.put(&format!("{prefix}/{}", id.path()), bytes);
        }
        self.put(&format!("{prefix}/checkpoint"), log.note().into_bytes());
    }

    /// The path of an object of the log.
    pub fn log_path(&self, object: &str) -> String {
        format!("/log/{}/{object}", self.log.id)
    }

    /// The log's verifier key, a line of an anchor.
    pub fn anchor(&self) -> String {
        self.log.name.to_string()
    }

    /// The line of an anchor that names the directory.
    pub fn directory_anchor(&self) -> String {
        format!("directory {}", self.directory.name)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Log {
    /// Takes its last entries back, which no honest log does.
    pub fn forget(&mut self, entries: usize) {
        self.entries.truncate(self.entries.len() - entries);
    }

    pub fn new() -> Self {
        Self::named(|id| format!("log.example/{id}"))
    }

    fn named(name: impl FnOnce(LogId) -> String) -> Self {
        let identity = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).unwrap();
        let public = <[u8; 32]>::try_from(identity.public().raw()).unwrap();
        let id = LogId::of(&public);
        let name = VerifierKey::new_ed25519(&name(id), &public).unwrap();
        Self { identity, name, id, entries: Vec::new(), named: BTreeMap::new() }
    }

    /// Its signed checkpoint.
    fn note(&self) -> String {
        let mut builder = TileBuilder::new();
        for entry in &self.entries {
            builder.append(leaf_hash(entry));
        }
        let checkpoint = Checkpoint::new(self.name.name(), builder.size(), builder.root());
        let sign = |body: &[u8]| self.identity.sign(body).unwrap();
        checkpoint.unwrap().sign(&self.name, sign).unwrap()
    }

    /// Appends an entry; answers its index.
    pub fn append(&mut self, entry: Vec<u8>) -> usize {
        self.entries.push(entry);
        self.entries.len() - 1
    }

    pub fn fill(&mut self, count: usize) {
        for number in 0..count {
            self.append(format!("filler {number}").into_bytes());
        }
    }

    /// Forgets the last entries.
    pub fn entries_end_before(&mut self, last: usize) {
        self.entries.truncate(self.entries.len() - last);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The entry of a token, as the signer writes it.
fn entry_of(token: &str, key: &Key) -> Vec<u8> {
    let (input, _) = token.rsplit_once('.').unwrap();
    let payload = b64::decode(input.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let seconds = |name: &str| claims[name].as_u64().unwrap();
    let kid = *key.key.public().kid().as_bytes();
    let entry = TokenEntry::of(kid, seconds("iat"), seconds("exp"), input.as_bytes());
    Entry::Token(entry).encode().unwrap()
}

pub fn sign(key: &SigningKey, claims: &Value) -> String {
    sign_as("at+jwt", key, claims)
}

fn sign_as(typ: &str, key: &SigningKey, claims: &Value) -> String {
    let public = key.public();
    let payload = claims.to_string();
    let input = jws::signing_input(public.algorithm(), typ, &public.kid(), payload.as_bytes());
    let signature = key.sign(input.as_bytes()).unwrap();
    jws::assemble(input, &signature)
}

/// A token that names a key that nobody has: `number` makes it another one.
pub fn with_unknown_key(token: &str, number: u64) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": format!("unknown-{number}")});
    format!("{}.{rest}", b64::encode(header.to_string().as_bytes()))
}

async fn answer(
    State(served): State<Arc<Mutex<Served>>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let path = uri.path().to_owned();
    let (fault, response) = {
        let mut served = served.lock().unwrap();
        *served.counts.entry(path.clone()).or_default() += 1;
        let response = good_answer(&mut served, &path, &headers);
        (served.faults.get(&path).cloned(), response)
    };
    let Some(fault) = fault else { return response };
    match fault {
        Fault::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            response
        }
        Fault::Silent => std::future::pending().await,
        Fault::Endless => {
            let piece = Bytes::from(vec![b' '; 64 * 1024]);
            let pieces = stream::repeat_with(move || Ok::<_, Infallible>(piece.clone()));
            Body::from_stream(pieces).into_response()
        }
        Fault::Huge => {
            let body = Body::from(vec![b' '; 2 * 1024 * 1024]);
            body.into_response()
        }
        Fault::Bytes(bytes) => bytes.into_response(),
        Fault::Says(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Fault::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Fault::Pieces => {
            let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let pieces: Vec<_> = bytes
                .chunks(7)
                .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
                .collect();
            Body::from_stream(stream::iter(pieces)).into_response()
        }
    }
}

fn good_answer(served: &mut Served, path: &str, headers: &HeaderMap) -> Response {
    let Some(bytes) = served.objects.get(path).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{}\"", leaf_hash(&bytes));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if served.etags && known == Some(etag.as_str()) {
        served.not_modified += 1;
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        bytes.into_response()
    };
    let fields = response.headers_mut();
    if served.etags {
        fields.insert(header::ETAG, etag.parse().unwrap());
    }
    if let Some(control) = &served.cache_control {
        fields.insert(header::CACHE_CONTROL, control.parse().unwrap());
    }
    if let Some(age) = &served.age {
        fields.insert(header::AGE, age.parse().unwrap());
    }
    response
}
