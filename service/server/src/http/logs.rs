//! The logs over HTTP: the read paths of C2SP tlog-tiles, proofs, and each signer's key set.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chancery_tlog::{LogId, TilePath};

use super::{App, errors};
use crate::logs::{Log, LogError};
use crate::store::StoreError;

/// Tiles never change.
pub(super) const FOREVER: &str = "public, max-age=31536000, immutable";
/// Checkpoints grow by the second.
const BRIEFLY: &str = "public, max-age=1";

/// `checkpoint`: the latest committed one.
pub async fn checkpoint(State(app): State<App>, Path(log): Path<String>) -> Response {
    match open(&app, &log).await {
        Err(response) => response,
        Ok(log) => text(log.checkpoint().to_string(), "text/plain; charset=utf-8"),
    }
}

/// `checkpoint.cosigned`: the latest one that both keys of the signer signed.
pub async fn cosigned(State(app): State<App>, Path(log): Path<String>) -> Response {
    let log = match open(&app, &log).await {
        Ok(log) => log,
        Err(response) => return response,
    };
    match log.cosigned() {
        Some(note) => text(note.to_string(), "text/plain; charset=utf-8"),
        None => {
            let detail = "no checkpoint is cosigned yet; it takes about a second";
            errors::problem(StatusCode::NOT_FOUND, "not_cosigned", detail)
        }
    }
}

/// `tile/...`: hash tiles and entry bundles.
pub async fn tile(State(app): State<App>, Path((log, path)): Path<(String, String)>) -> Response {
    let tile = match TilePath::parse(&format!("tile/{path}")) {
        Ok(tile) => tile,
        Err(e) => return errors::problem(StatusCode::NOT_FOUND, "not_a_tile", &e.to_string()),
    };
    let log = match open(&app, &log).await {
        Ok(log) => log,
        Err(response) => return response,
    };
    let bytes: Result<Bytes, LogError> = match tile {
        TilePath::Hashes(id) => log.tile(id).await,
        TilePath::Entries(id) => log.entries(id).await,
    };
    match bytes {
        Ok(bytes) => with(bytes.into_response(), "application/octet-stream", FOREVER),
        Err(e) => failed(&e),
    }
}

/// `proof/{index}`: a tlog-proof under the latest committed checkpoint.
pub async fn proof(State(app): State<App>, Path((log, index)): Path<(String, String)>) -> Response {
    let Ok(index) = index.parse::<u64>() else {
        let detail = "the index must be a decimal number";
        return errors::problem(StatusCode::BAD_REQUEST, "not_an_index", detail);
    };
    let log = match open(&app, &log).await {
        Ok(log) => log,
        Err(response) => return response,
    };
    match log.proof(index).await {
        Ok(proof) => text(proof, "text/plain; charset=utf-8"),
        Err(e) => failed(&e),
    }
}

/// `keys.jwt`: the signer's own part of the key set, signed by its identity key.
pub async fn keys_jwt(State(app): State<App>, Path(log): Path<String>) -> Response {
    let log = match open(&app, &log).await {
        Ok(log) => log,
        Err(response) => return response,
    };
    match log.keys_jwt() {
        Some(keys) => text(keys.to_string(), "application/jwk-set+jwt"),
        None => errors::problem(StatusCode::NOT_FOUND, "no_keys", "no key set was signed yet"),
    }
}

/// `pruned`: the log's minimum index, where its entries were pruned.
pub async fn pruned(State(app): State<App>, Path(log): Path<String>) -> Response {
    let log = match open(&app, &log).await {
        Ok(log) => log,
        Err(response) => return response,
    };
    match log.minimum_index().await {
        Ok(Some(minimum)) => text(format!("{minimum}\n"), "text/plain; charset=utf-8"),
        Ok(None) => {
            errors::problem(StatusCode::NOT_FOUND, "not_pruned", "no entry of this log was pruned")
        }
        Err(e) => failed(&e),
    }
}

/// `vkey`: the verifier keys, one a line. Believe the first only if the log id is its hash, the second,
/// which cosigns, only if the directory, the genesis entry or evidence says so.
pub async fn vkey(State(app): State<App>, Path(log): Path<String>) -> Response {
    match open(&app, &log).await {
        Err(response) => response,
        Ok(log) => text(log.vkeys(), "text/plain; charset=utf-8"),
    }
}

pub(super) async fn open(app: &App, log: &str) -> Result<Arc<Log>, Response> {
    let Ok(id) = log.parse::<LogId>() else {
        let detail = "a log id is 22 characters of base64url";
        return Err(errors::problem(StatusCode::NOT_FOUND, "not_a_log_id", detail));
    };
    app.service.logs.open(id).await.map_err(|e| failed(&e))
}

pub(super) fn text(body: String, kind: &'static str) -> Response {
    with(body.into_response(), kind, BRIEFLY)
}

pub(super) fn with(mut response: Response, kind: &'static str, cache: &'static str) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

pub(super) fn failed(e: &LogError) -> Response {
    match e {
        LogError::Unknown(_) => {
            errors::problem(StatusCode::NOT_FOUND, "unknown_log", &e.to_string())
        }
        LogError::NotThere(_) | LogError::Store(StoreError::Missing(_)) => {
            errors::problem(StatusCode::NOT_FOUND, "not_in_log", &e.to_string())
        }
        LogError::Pruned(_) => errors::problem(StatusCode::GONE, "pruned", &e.to_string()),
        _ => {
            tracing::error!("{e}");
            let detail = "the store cannot be read now";
            errors::problem(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruned_is_not_missing() {
        let missing = StoreError::Missing("log/x/tile/entries/000".into()).into();
        assert_eq!(failed(&missing).status(), StatusCode::NOT_FOUND);
        assert_eq!(failed(&LogError::Pruned(256)).status(), StatusCode::GONE);
    }
}
