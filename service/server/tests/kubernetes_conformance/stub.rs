//! A signer that does as a test says: well, or badly in exactly one way.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use chancery::kubernetes::keys::spki;
use chancery_token::client::ClientKey;
use chancery_token::{Algorithm, b64};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;

use crate::wire::{
    FETCH_KEYS, Failed, Key, Keys, METADATA, Metadata, SIGN, SignRequest, SignResponse, Stamp,
    framed, unframed,
};

/// How Sign is answered: claims to header and signature.
pub type Signs = Arc<dyn Fn(&str) -> Result<SignResponse, Failed> + Send + Sync>;

/// What it answers, and what it was asked.
pub struct Script {
    pub keys: Keys,
    pub max_s: i64,
    pub signs: Signs,
    /// Before each answer to Sign.
    pub hangs: Duration,
    /// Paths in order.
    pub asked: Vec<String>,
    pub claims: Vec<String>,
    /// `:authority` and headers of the last request.
    pub authority: String,
    pub headers: HeaderMap,
}

/// The signer, listening.
pub struct Stub {
    script: Arc<Mutex<Script>>,
    pub socket: PathBuf,
    task: Option<tokio::task::JoinHandle<()>>,
}

/// A key of a signer.
pub struct SigningKey(pub ClientKey, pub String);

impl SigningKey {
    pub fn new(algorithm: Algorithm) -> Arc<Self> {
        let key = ClientKey::generate(algorithm).unwrap();
        let kid = key.signing_key().public().kid().to_string();
        Arc::new(Self(key, kid))
    }

    pub fn listed(&self) -> Key {
        let der = spki(self.0.signing_key().public()).unwrap();
        Key { id: self.1.clone(), der, excluded: false }
    }

    pub fn algorithm(&self) -> &'static str {
        self.0.signing_key().public().algorithm().as_str()
    }

    /// A header as it must be.
    pub fn header(&self) -> String {
        let (alg, kid) = (self.algorithm(), &self.1);
        format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"JWT"}}"#)
    }

    /// Signs under any header at all.
    pub fn sign_under(&self, header: &str, claims: &str) -> SignResponse {
        let header = b64::encode(header.as_bytes());
        let input = format!("{header}.{claims}");
        let signature = self.0.signing_key().sign(input.as_bytes()).unwrap();
        SignResponse { header, signature: b64::encode(&signature) }
    }

    /// A signer that signs well with this key.
    pub fn signs(self: &Arc<Self>) -> Signs {
        let key = Arc::clone(self);
        Arc::new(move |claims| Ok(key.sign_under(&key.header(), claims)))
    }
}

pub fn stamp(seconds: i64) -> Option<Stamp> {
    Some(Stamp { seconds, nanos: 0 })
}

/// A list of keys as it must be.
pub fn keys(keys: &[&SigningKey], seconds: i64, hint_s: i64) -> Keys {
    let keys = keys.iter().map(|key| key.listed()).collect();
    Keys { keys, data_timestamp: stamp(seconds), refresh_hint_seconds: hint_s }
}

impl Stub {
    /// One that does everything well with this key, and does not listen yet.
    pub fn quiet(folder: &Path, key: &Arc<SigningKey>) -> Self {
        let script = Script {
            keys: keys(&[key], 1, 3_600),
            max_s: 3_600,
            signs: key.signs(),
            hangs: Duration::ZERO,
            asked: Vec::new(),
            claims: Vec::new(),
            authority: String::new(),
            headers: HeaderMap::new(),
        };
        let socket = folder.join("stub.sock");
        Self { script: Arc::new(Mutex::new(script)), socket, task: None }
    }

    pub fn start(folder: &Path, key: &Arc<SigningKey>) -> Self {
        let mut stub = Self::quiet(folder, key);
        stub.listen();
        stub
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn listen(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let script = Arc::clone(&self.script);
        self.task = Some(tokio::spawn(async move {
            // Connections end with the listener: all of this is one task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                let service = service_fn(move |request| answer(Arc::clone(&script), request));
                connections.spawn(async move {
                    let server = http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
    }

    /// Goes away: socket, connections and all.
    pub fn vanish(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.vanish();
    }
}

type Stream = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

async fn answer(
    script: Arc<Mutex<Script>>,
    request: Request<Incoming>,
) -> Result<Response<StreamBody<Stream>>, Infallible> {
    let path = request.uri().path().to_owned();
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let headers = request.headers().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let (outcome, hangs) = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        script.asked.push(path.clone());
        (script.authority, script.headers) = (authority, headers);
        let outcome = respond(&mut script, &path, body);
        (outcome, if path == SIGN { script.hangs } else { Duration::ZERO })
    };
    tokio::time::sleep(hangs).await;
    let mut trailers = HeaderMap::new();
    let mut frames = Vec::new();
    match outcome {
        Ok(message) => {
            frames.push(Ok(Frame::data(message)));
            trailers.insert("grpc-status", 0.into());
        }
        Err(failed) => {
            trailers.insert("grpc-status", failed.code.into());
            trailers.insert("grpc-message", failed.text.parse().unwrap());
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(body).unwrap())
}

fn respond(script: &mut Script, path: &str, body: Bytes) -> Result<Bytes, Failed> {
    match path {
        SIGN => {
            let request: SignRequest = unframed(body)?;
            script.claims.push(request.claims.clone());
            (script.signs)(&request.claims).map(|answer| framed(&answer))
        }
        FETCH_KEYS => Ok(framed(&script.keys)),
        METADATA => Ok(framed(&Metadata { max_token_expiration_seconds: script.max_s })),
        _ => Err(Failed { code: 12, text: "unimplemented".to_owned() }),
    }
}
