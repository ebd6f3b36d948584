//! The public paths, and the admin ones. Nothing here changes anything but by issuing a token;
//! changes go over the control socket.

mod errors;
mod logs;
mod metadata;
mod oauth;
mod requests;
mod sources;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::service::Service;
pub use sources::Sources;

/// The largest body of a token request: one proof and a handful of parameters.
pub const MAX_FORM_BYTES: usize = 64 * 1024;

/// What handlers share.
#[derive(Clone)]
pub struct App {
    /// The service.
    pub service: Arc<Service>,
    /// Who sent unverifiable proofs lately.
    pub sources: Arc<Sources>,
}

/// The public router.
pub fn public(service: Arc<Service>) -> Router {
    let sources = Arc::new(Sources::new(service.config.unverified_per_s));
    let app = App { service, sources };
    Router::new()
        .route("/{realm}/.well-known/openid-configuration", get(metadata::of_realm))
        .route("/.well-known/oauth-authorization-server/{realm}", get(metadata::of_realm))
        .route("/.well-known/openid-configuration/{realm}", get(metadata::of_realm))
        .route("/{realm}/jwks.json", get(metadata::key_set).options(metadata::preflight))
        .route("/{realm}/token", post(oauth::token).layer(DefaultBodyLimit::max(MAX_FORM_BYTES)))
        .route(
            "/{realm}/issue",
            post(requests::issue)
                .layer(DefaultBodyLimit::max(chancery_token::jws::MAX_REQUEST_BYTES)),
        )
        .route("/log/{log}/checkpoint", get(logs::checkpoint))
        .route("/log/{log}/tile/{*path}", get(logs::tile))
        .route("/log/{log}/proof/{index}", get(logs::proof))
        .route("/log/{log}/keys.jwt", get(logs::keys_jwt))
        .route("/log/{log}/vkey", get(logs::vkey))
        .route("/signers", get(metadata::signers))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(name_request))
        .with_state(app)
}

/// The admin router: health and metrics, nothing that changes anything.
pub fn admin(service: Arc<Service>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .with_state(service)
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    if service.issuer.is_ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready: no signer, or the disk fails\n").into_response()
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, TYPE)], service.metrics.text()).into_response()
}

async fn not_found() -> Response {
    errors::problem(StatusCode::NOT_FOUND, "not_found", "no such path; see /signers")
}

async fn wrong_method() -> Response {
    errors::problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "see the documentation")
}

/// The id of a request, made here and never taken from a client: it stands in the audit record.
#[derive(Clone, Copy, Debug)]
pub struct RequestId([u8; 16]);

impl RequestId {
    fn new() -> Self {
        let mut id = [0; 16];
        // Without randomness the id is merely not unique.
        let _ = aws_lc_rs::rand::fill(&mut id);
        Self(id)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Base64url.
    #[must_use]
    pub fn text(&self) -> String {
        chancery_token::b64::encode(&self.0)
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

async fn name_request(mut request: Request, next: Next) -> Response {
    let id = RequestId::new();
    request.extensions_mut().insert(id);
    let line = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().path().to_owned()));
    let mut response = errors::as_problem(next.run(request).await);
    if let Ok(value) = HeaderValue::from_str(&id.text()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Some((method, path)) = line {
        tracing::debug!(id = id.text(), %method, path, status = response.status().as_u16());
    }
    response
}
