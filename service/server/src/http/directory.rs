//! The directory log over HTTP: the read paths of C2SP tlog-tiles, its key, and where its entries are.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chancery_tlog::TilePath;

use super::logs::{FOREVER, failed, text, with};
use super::{App, errors};

/// `checkpoint`: the published one, with its cosignatures.
pub async fn checkpoint(State(app): State<App>) -> Response {
    let Some(directory) = &app.service.directory else { return not_here() };
    let checkpoint = directory.checkpoint();
    if checkpoint.is_empty() {
        let detail = "nothing is published yet; it takes about a second";
        return errors::problem(StatusCode::NOT_FOUND, "not_in_log", detail);
    }
    text(checkpoint.to_string(), "text/plain; charset=utf-8")
}

/// `tile/...`: hash tiles and entry bundles.
pub async fn tile(State(app): State<App>, Path(path): Path<String>) -> Response {
    let tile = match TilePath::parse(&format!("tile/{path}")) {
        Ok(tile) => tile,
        Err(e) => return errors::problem(StatusCode::NOT_FOUND, "not_a_tile", &e.to_string()),
    };
    let Some(directory) = &app.service.directory else { return not_here() };
    let bytes = match tile {
        TilePath::Hashes(id) => directory.tile(id).await,
        TilePath::Entries(id) => directory.entries(id).await,
    };
    match bytes {
        Ok(bytes) => with(bytes.into_response(), "application/octet-stream", FOREVER),
        Err(e) => failed(&e),
    }
}

/// `vkey`: the verifier key, which relying parties pin.
pub async fn vkey(State(app): State<App>) -> Response {
    let Some(directory) = &app.service.directory else { return not_here() };
    text(format!("{}\n", directory.vkey()), "text/plain; charset=utf-8")
}

/// `policy`: the directory's key, its witnesses and their quorum as a C2SP tlog-policy, for relying
/// parties who have compared it with what they were told.
pub async fn policy(State(app): State<App>) -> Response {
    let Some(directory) = &app.service.directory else { return not_here() };
    let settings = app.service.config.witness_settings();
    match settings.policy_text(Some(directory.vkey())) {
        Ok(policy) => text(policy, "text/plain; charset=utf-8"),
        // Checked when the configuration was read.
        Err(e) => errors::problem(StatusCode::NOT_FOUND, "no_policy", &e),
    }
}

/// `index.json`: where each log's entries are.
pub async fn index(State(app): State<App>) -> Response {
    let Some(directory) = &app.service.directory else { return not_here() };
    text(directory.index(), "application/json")
}

fn not_here() -> Response {
    let detail = "another service writes and serves this deployment's directory";
    errors::problem(StatusCode::NOT_FOUND, "no_directory", detail)
}
