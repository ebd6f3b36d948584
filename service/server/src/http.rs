//! The public paths, and the admin ones. Nothing here changes anything but by issuing a token;
//! changes go over the control socket.

mod digests;
mod directory;
mod errors;
mod evidence;
mod logs;
mod metadata;
mod oauth;
mod requests;
mod sources;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

pub use crate::listen::RequestId;
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
    /// Who asked for fresh evidence lately.
    pub fresh: Arc<evidence::Limits>,
}

/// The public router.
pub fn public(service: Arc<Service>) -> Router {
    let sources = Arc::new(Sources::new(service.config.unverified_per_s));
    let app = App { service, sources, fresh: Arc::new(evidence::Limits::new()) };
    // Each layer costs every request a box and a copy of its service. The paths that issue have none:
    // they read their bodies, and answer what is wrong with a request, themselves.
    let issuing = Router::new()
        .route("/{realm}/token", post(oauth::token))
        .route("/{realm}/issue", post(requests::issue));
    Router::new()
        .route("/{realm}/.well-known/openid-configuration", get(metadata::of_realm))
        .route("/.well-known/oauth-authorization-server/{realm}", get(metadata::of_realm))
        .route("/.well-known/openid-configuration/{realm}", get(metadata::of_realm))
        .route("/{realm}/jwks.json", get(metadata::key_set).options(metadata::preflight))
        .route("/log/{log}/checkpoint", get(logs::checkpoint))
        .route("/log/{log}/tile/{*path}", get(logs::tile))
        .route("/log/{log}/proof/{index}", get(logs::proof))
        .route("/log/{log}/by-digest/{leaf}", get(digests::by_digest))
        .route("/log/{log}/keys.jwt", get(logs::keys_jwt))
        .route("/log/{log}/checkpoint.cosigned", get(logs::cosigned))
        .route("/log/{log}/vkey", get(logs::vkey))
        .route("/log/{log}/pruned", get(logs::pruned))
        .route("/log/{log}/evidence", get(evidence::evidence))
        .route("/log/{log}/attestation-result", get(evidence::result))
        .route("/directory/checkpoint", get(directory::checkpoint))
        .route("/directory/tile/{*path}", get(directory::tile))
        .route("/directory/vkey", get(directory::vkey))
        .route("/directory/policy", get(directory::policy))
        .route("/directory/index.json", get(directory::index))
        .route("/signers", get(metadata::signers))
        .layer(map_response(|response| async { errors::as_problem(response) }))
        .merge(issuing)
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

/// A whole body of at most `limit` bytes.
async fn read_body(body: Body, limit: usize) -> Result<Bytes, Response> {
    to_bytes(body, limit).await.map_err(|e| {
        let too_large = std::error::Error::source(&e)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if too_large { errors::too_large() } else { errors::malformed() }
    })
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
    match service.readiness() {
        Ok(()) => {
            let lines = std::iter::once("ready".to_owned()).chain(service.alarms());
            lines.map(|line| line + "\n").collect::<String>().into_response()
        }
        Err(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response()
        }
    }
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
