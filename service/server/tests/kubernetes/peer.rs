//! What kube-apiserver does with the socket: gRPC over HTTP/2 without TLS, and its own judgement of what
//! comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use axum::http::uri::PathAndQuery;
use axum::http::{Request, Response, Uri};
use chancery::kubernetes::api::{
    FETCH_KEYS, FetchKeysRequest, FetchKeysResponse, Key, METADATA, MetadataRequest,
    MetadataResponse, SIGN, SignJwtRequest, SignJwtResponse,
};
use chancery_testkit::now;
use chancery_token::b64;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// An API server has 60 s for its first keys; nothing here takes a fraction of that.
const PATIENCE: Duration = Duration::from_secs(20);

/// An API server without a cluster.
pub struct ApiServer {
    pub runtime: Runtime,
    socket: PathBuf,
    pub issuer: String,
}

/// One connection.
#[derive(Clone)]
pub struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Channel {
    pub async fn open(socket: &Path) -> Result<Self, Status> {
        let gone = |e: &dyn std::fmt::Display| Status::unavailable(format!("connection: {e}"));
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| gone(&e))?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|e| gone(&e))?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::with_origin(self.clone(), Uri::from_static("http://localhost"));
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(tonic::Request::new(request), path, codec).await?.into_inner())
    }

    pub async fn sign(&self, claims: &str) -> Result<SignJwtResponse, Status> {
        self.call(SIGN, SignJwtRequest { claims: claims.to_owned() }).await
    }
}

impl ApiServer {
    pub fn new(socket: &Path, issuer: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        Self { runtime, socket: socket.to_owned(), issuer: issuer.to_owned() }
    }

    pub fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let call = async { Channel::open(&self.socket).await?.call(path, request).await };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await }).unwrap()
    }

    pub fn metadata(&self) -> Result<MetadataResponse, Status> {
        self.call(METADATA, MetadataRequest {})
    }

    pub fn fetch_keys(&self) -> Result<FetchKeysResponse, Status> {
        self.call(FETCH_KEYS, FetchKeysRequest {})
    }

    /// The token of these claims, with the API server's own claims in its middle.
    pub fn sign(&self, claims: &str) -> Result<String, Status> {
        let request = SignJwtRequest { claims: claims.to_owned() };
        let answer: SignJwtResponse = self.call(SIGN, request)?;
        Ok(format!("{}.{claims}.{}", answer.header, answer.signature))
    }

    /// The code that these claims are refused with, and the text.
    pub fn refused(&self, claims: &Value) -> (Code, String) {
        let status = self.sign(&b64::encode(claims.to_string().as_bytes())).unwrap_err();
        (status.code(), status.message().to_owned())
    }

    /// As kube-apiserver 1.36 writes them for a pod.
    pub fn claims(&self, jti: &str) -> Value {
        claims(&self.issuer, jti)
    }
}

/// As kube-apiserver 1.36 writes them for a pod.
pub fn claims(issuer: &str, jti: &str) -> Value {
    let now = now();
    json!({
        "aud": [issuer],
        "exp": now + 600,
        "iat": now,
        "iss": issuer,
        "jti": jti,
        "kubernetes.io": {
            "namespace": "default",
            "node": {"name": "n1", "uid": "a1"},
            "pod": {"name": "web-0", "uid": "b2"},
            "serviceaccount": {"name": "web", "uid": "c3"},
            "warnafter": now + 600,
        },
        "nbf": now,
        "sub": "system:serviceaccount:default:web",
    })
}

/// The keys that an API server holds, and what it demands of them.
#[derive(Default)]
pub struct KeyCache(BTreeMap<String, Key>);

impl KeyCache {
    /// Takes an answer over, or says why an API server would refuse all of it.
    pub fn take(&mut self, answer: FetchKeysResponse) -> Result<(), String> {
        if answer.refresh_hint_seconds <= 0 || answer.data_timestamp.is_none() {
            return Err("refresh_hint_seconds or data_timestamp".into());
        }
        if answer.keys.is_empty() {
            return Err("no keys".into());
        }
        self.0.clear();
        for key in answer.keys {
            if key.key_id.is_empty() || key.key_id.len() > 1_024 {
                return Err(format!("kid `{}`", key.key_id));
            }
            let read = |kind| ParsedPublicKey::new(kind, &key.key).is_ok();
            if !KINDS.iter().any(|(_, kind)| read(*kind)) {
                return Err(format!("key `{}` does not parse", key.key_id));
            }
            self.0.insert(key.key_id.clone(), key);
        }
        Ok(())
    }

    pub fn kids(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// Whether the token would be handed out and then accepted; returns its `kid`.
    pub fn accept(&self, token: &str) -> Result<String, String> {
        let (input, signature) = token.rsplit_once('.').ok_or("parts")?;
        let header = input.split('.').next().ok_or("parts")?;
        let header: Map<String, Value> =
            serde_json::from_slice(&b64::decode(header).map_err(|e| e.to_string())?)
                .map_err(|e| e.to_string())?;
        let mut names: Vec<&str> = header.keys().map(String::as_str).collect();
        names.sort_unstable();
        if names != ["alg", "kid", "typ"] || header["typ"] != "JWT" {
            return Err(format!("header {header:?}"));
        }
        let kid = header["kid"].as_str().ok_or("kid")?;
        let key = self.0.get(kid).ok_or_else(|| format!("unknown kid `{kid}`"))?;
        if key.exclude_from_oidc_discovery {
            return Err(format!("kid `{kid}` is excluded from discovery"));
        }
        let kind = KINDS.iter().find(|(alg, _)| header["alg"] == *alg).ok_or("alg")?.1;
        let parsed = ParsedPublicKey::new(kind, &key.key).map_err(|_| "alg is not the key's")?;
        let signature = b64::decode(signature).map_err(|e| e.to_string())?;
        parsed.verify_sig(input.as_bytes(), &signature).map_err(|_| "signature")?;
        Ok(kid.to_owned())
    }
}

const KINDS: [(&str, &dyn VerificationAlgorithm); 3] = [
    ("ES256", &ECDSA_P256_SHA256_FIXED),
    ("ES384", &ECDSA_P384_SHA384_FIXED),
    ("RS256", &RSA_PKCS1_2048_8192_SHA256),
];
