//! `by-digest/{leaf}`: where an entry stands, by its leaf hash. Whoever asks verifies a proof.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chancery_tlog::{HASH_BYTES, Hash};
use serde_json::json;

use super::{App, errors, logs};
use crate::digests::{Answer, DigestError};

/// The entry's index, or, with status 404, up to which size the log was searched in vain.
pub async fn by_digest(
    State(app): State<App>,
    Path((log, leaf)): Path<(String, String)>,
) -> Response {
    let Some(leaf) = parse(&leaf) else {
        let detail = "a leaf hash is 64 lower-case hexadecimal digits";
        return errors::problem(StatusCode::BAD_REQUEST, "not_a_digest", detail);
    };
    let log = match logs::open(&app, &log).await {
        Ok(log) => log,
        Err(response) => return response,
    };
    let response = match app.service.digests.find(&log, leaf).await {
        Ok(Answer { index: Some(index), searched }) => {
            Json(json!({"index": index, "searched": searched})).into_response()
        }
        Ok(Answer { index: None, searched }) => absent(searched),
        Err(e @ (DigestError::Off | DigestError::Past)) => {
            errors::problem(StatusCode::NOT_IMPLEMENTED, "no_digest_index", &e.to_string())
        }
        Err(DigestError::Log(e)) => return logs::failed(&e),
        Err(e @ (DigestError::Run(_) | DigestError::Crowded)) => {
            tracing::error!("index of leaf hashes: {e}");
            let detail = "the index of leaf hashes cannot be read now";
            errors::problem(StatusCode::SERVICE_UNAVAILABLE, "index_unavailable", detail)
        }
    };
    open_to_all(response)
}

fn absent(searched: u64) -> Response {
    let detail = format!("none of the log's first {searched} entries has this leaf hash");
    let body = json!({
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "not_in_log",
        "detail": detail,
        "searched": searched,
    });
    let mut response = (StatusCode::NOT_FOUND, Json(body)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The next entry may be the one that was asked for, so nothing is kept by caches.
fn open_to_all(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// One spelling alone: lower-case digits.
fn parse(text: &str) -> Option<Hash> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte.checked_sub(b'0'),
        b'a'..=b'f' => byte.checked_sub(b'a').map(|value| value.saturating_add(10)),
        _ => None,
    };
    let digits = text.as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let mut hash = [0; HASH_BYTES];
    if pairs.len() != HASH_BYTES {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(Hash(hash))
}
