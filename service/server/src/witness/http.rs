//! The paths of a witness, below its submission prefix and its monitoring prefix, which are one.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chancery_tlog::witness::MAX_REQUEST_BYTES;

use super::{No, Witness};
use crate::http::Sources;
use crate::listen::{Network, PeerAddr, client_address};

const TEXT: &str = "text/plain; charset=utf-8";

/// What handlers share.
#[derive(Clone)]
struct App {
    witness: Arc<Witness>,
    /// Here every request uses up its source's allowance: each may cost a signature and a disk write.
    sources: Arc<Sources>,
    trusted_proxies: Arc<[Network]>,
}

/// The router for logs and monitors; so many requests a second are taken from one source address.
pub fn public(witness: Arc<Witness>, requests_per_s: u32, trusted_proxies: &[Network]) -> Router {
    let sources = Arc::new(Sources::new(requests_per_s));
    let app = App { witness, sources, trusted_proxies: trusted_proxies.into() };
    Router::new()
        .route("/", get(about))
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{log}/checkpoint", get(checkpoint))
        .with_state(app)
}

/// The router of health and metrics.
pub fn admin(witness: Arc<Witness>) -> Router {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let metrics = |State(witness): State<Arc<Witness>>| async move {
        ([(header::CONTENT_TYPE, TYPE)], witness.metrics().text())
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/metrics", get(metrics))
        .with_state(witness)
}

/// Who this is, for people: the verifier keys, one a line.
async fn about(State(app): State<App>) -> Response {
    let keys: String = app.witness.vkeys().map(|key| format!("{key}\n")).collect();
    ([(header::CONTENT_TYPE, TEXT)], keys).into_response()
}

async fn add_checkpoint(
    State(app): State<App>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let address = client_address(peer, &headers, &app.trusted_proxies);
    let now = Instant::now();
    if !app.sources.may_ask(address, now) {
        app.witness.metrics().limited();
        let why = "too many requests from this address; wait a second\n";
        return with(StatusCode::TOO_MANY_REQUESTS, TEXT, why.into(), Some(1));
    }
    app.sources.note_failure(address, now);
    let Ok(body) = to_bytes(body, MAX_REQUEST_BYTES).await else {
        let why = format!("the body cannot be read, or is longer than {MAX_REQUEST_BYTES} bytes\n");
        return with(StatusCode::BAD_REQUEST, TEXT, why, None);
    };
    match app.witness.add_checkpoint(&body).await {
        Ok(lines) => with(StatusCode::OK, TEXT, lines, None),
        Err(No::Refused(refusal)) => {
            let (kind, text) = refusal.body();
            let status = StatusCode::from_u16(refusal.status());
            with(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), kind, text, None)
        }
        Err(No::Storage) => unavailable("the checkpoint cannot be stored now\n"),
        Err(No::Clock) => unavailable("the clock of this witness is wrong\n"),
        Err(No::Signing) => unavailable("this witness cannot sign now\n"),
    }
}

/// The latest cosigned checkpoint of the log with this hash of its origin.
async fn checkpoint(State(app): State<App>, Path(log): Path<String>) -> Response {
    match app.witness.checkpoint(&format!("{log}/checkpoint")) {
        Some(note) => with(StatusCode::OK, TEXT, note.to_string(), None),
        None => {
            let why = "no log with this hash of its origin was cosigned here\n";
            with(StatusCode::NOT_FOUND, TEXT, why.into(), None)
        }
    }
}

fn unavailable(why: &str) -> Response {
    with(StatusCode::SERVICE_UNAVAILABLE, TEXT, why.to_owned(), Some(5))
}

fn with(status: StatusCode, kind: &'static str, body: String, retry_s: Option<u32>) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    let mut response = (status, headers, body).into_response();
    if let Some(seconds) = retry_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
