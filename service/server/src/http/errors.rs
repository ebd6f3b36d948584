//! Error bodies: RFC 6749 section 5.2 on the token endpoint, RFC 9457 everywhere else.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chancery_policy::RefusalCode;
use serde_json::json;

use crate::issue::Unavailable;

/// A problem document (RFC 9457). `code` is stable.
pub fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Gives the framework's own plain-text errors (body too large, bad query, ...) the form of all
/// others.
pub fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let plain = kind.is_none_or(|k| k.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        StatusCode::BAD_REQUEST => malformed(),
        _ => problem(status, "error", status.canonical_reason().unwrap_or("the request failed")),
    }
}

/// The body exceeds its path's limit.
pub fn too_large() -> Response {
    problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body exceeds this path's limit")
}

/// The framework cannot take the request apart.
pub fn malformed() -> Response {
    let detail = "the path, query or body cannot be read";
    problem(StatusCode::BAD_REQUEST, "malformed_request", detail)
}

/// The service cannot issue now.
pub fn unavailable(e: &Unavailable) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", e.why);
    retry_after(&mut response, e.retry_after_s);
    response
}

fn retry_after(response: &mut Response, seconds: u32) {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
}

/// Too many unverifiable proofs came from the client's address.
pub fn limited() -> Response {
    let mut response = problem(
        StatusCode::TOO_MANY_REQUESTS,
        "unverified_proofs",
        "too many proofs that do not verify came from this address; wait, and check the client's \
         key",
    );
    retry_after(&mut response, 1);
    response
}

/// The path's own limit.
pub fn too_often(detail: &str) -> Response {
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "too_often", detail);
    retry_after(&mut response, 1);
    response
}

/// The HTTP status of a refusal.
fn status_of(code: Option<RefusalCode>) -> StatusCode {
    use RefusalCode as C;
    match code {
        Some(C::UnknownRealm) => StatusCode::NOT_FOUND,
        Some(C::RateLimited | C::ReplayMemoryFull) => StatusCode::TOO_MANY_REQUESTS,
        Some(C::NoActiveKey | C::ClockUntrusted | C::Voided | C::Deferred) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Some(
            C::MalformedProof
            | C::UnknownClient
            | C::UnknownClientKey
            | C::BadSignature
            | C::WrongAudience
            | C::ProofExpired
            | C::ProofNotYetValid
            | C::ProofTooLong
            | C::ProofBeforeStart
            | C::WrongLog
            | C::ProofReplayed,
        ) => StatusCode::UNAUTHORIZED,
        Some(C::MalformedRequest | C::TooManyRequests) | None => StatusCode::BAD_REQUEST,
        Some(_) => StatusCode::FORBIDDEN,
    }
}

/// A refusal of a whole signed request.
pub fn refusal(code: &str, detail: &str) -> Response {
    let parsed = RefusalCode::parse(code);
    let mut response = problem(status_of(parsed), code, detail);
    if parsed.is_some_and(RefusalCode::is_retryable) {
        retry_after(&mut response, 1);
    }
    response
}

/// The RFC 6749 error name of a refusal; RFC 8707 section 2 for audiences.
pub fn oauth_name(code: &str) -> &'static str {
    use RefusalCode as C;
    match RefusalCode::parse(code) {
        Some(C::AudienceNotGranted) => "invalid_target",
        Some(C::ScopeNotGranted) => "invalid_scope",
        Some(C::MalformedRequest | C::TooManyRequests | C::UnknownRealm) => "invalid_request",
        Some(
            C::NoActiveKey
            | C::ClockUntrusted
            | C::Voided
            | C::Deferred
            | C::ReplayMemoryFull
            | C::RateLimited,
        ) => "temporarily_unavailable",
        parsed if status_of(parsed) == StatusCode::UNAUTHORIZED => "invalid_client",
        _ => "unauthorized_client",
    }
}

/// A refusal on the token endpoint: `error` and `error_description` as RFC 6749 names them, and
/// the stable reason code beside.
pub fn oauth(code: &str, detail: &str) -> Response {
    let parsed = RefusalCode::parse(code);
    let status = match status_of(parsed) {
        StatusCode::FORBIDDEN => StatusCode::BAD_REQUEST,
        other => other,
    };
    let mut response = oauth_with(status, oauth_name(code), code, detail);
    if parsed.is_some_and(RefusalCode::is_retryable) {
        retry_after(&mut response, 1);
    }
    response
}

/// An OAuth error that is not a refusal.
pub fn oauth_with(status: StatusCode, error: &str, code: &str, detail: &str) -> Response {
    // RFC 6749 section 5.2 allows no quote, no backslash and only ASCII in a description.
    let description: String = detail
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '?' })
        .collect();
    let body = json!({"error": error, "error_description": description, "reason": code});
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        retry_after(&mut response, 1);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of reasons in `docs/clients.md` says what the endpoints answer.
    #[test]
    fn the_documented_reasons_are_those_that_are_answered() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/clients.md");
        let document = std::fs::read_to_string(path).unwrap();
        let rows = document.lines().skip_while(|line| !line.starts_with("| reason |")).skip(2);
        let found: Vec<Vec<&str>> = rows
            .take_while(|line| line.starts_with('|'))
            .map(|row| row.trim_matches('|').split('|').map(str::trim).take(4).collect())
            .collect();
        let wanted: Vec<Vec<String>> = RefusalCode::ALL
            .iter()
            .map(|code| {
                let text = code.as_str();
                let again = if code.is_retryable() { "yes" } else { "no" };
                vec![
                    format!("`{text}`"),
                    format!("{} `{}`", oauth(text, "").status().as_u16(), oauth_name(text)),
                    refusal(text, "").status().as_u16().to_string(),
                    again.to_owned(),
                ]
            })
            .collect();
        assert_eq!(found, wanted);
    }
}
