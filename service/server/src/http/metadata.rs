//! Discovery (OpenID Connect Discovery 1.0, RFC 8414), key sets (RFC 7517), and the signers.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chancery_policy::RealmDocument;
use chancery_token::Algorithm;
use serde_json::{Value, json};

use super::{App, errors};

/// How long metadata may be cached, in seconds: it changes with the configuration only.
const METADATA_MAX_AGE_S: u64 = 300;

/// Metadata of one realm. URLs come from the configuration, never from the request.
pub async fn of_realm(State(app): State<App>, Path(realm): Path<String>) -> Response {
    let policy = app.service.policy();
    let Some(document) = policy.document.realms.iter().find(|r| r.name == realm) else {
        return unknown_realm();
    };
    let base = &app.service.config.base_url;
    let algorithms: Vec<&str> = Algorithm::ALL.iter().map(|a| a.as_str()).collect();
    if document.kubernetes.is_some() {
        return cached(Json(of_cluster(document, base)).into_response(), METADATA_MAX_AGE_S);
    }
    let body = json!({
        "issuer": document.issuer,
        "token_endpoint": format!("{base}/{realm}/token"),
        "jwks_uri": format!("{base}/{realm}/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        // OpenID Connect Discovery requires the next two; no ID tokens are issued.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": document.algorithms,
        "chancery_issuance_endpoint": format!("{base}/{realm}/issue"),
        "chancery_signers_uri": format!("{base}/signers"),
    });
    cached(Json(body).into_response(), METADATA_MAX_AGE_S)
}

/// What the API server itself publishes of such a realm: no client asks for tokens here.
fn of_cluster(document: &RealmDocument, base: &str) -> Value {
    json!({
        "issuer": document.issuer,
        "jwks_uri": format!("{base}/{}/jwks.json", document.name),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": document.algorithms,
        "chancery_signers_uri": format!("{base}/signers"),
    })
}

/// A realm's key set, with ETag and CORS: browsers validate tokens too.
pub async fn key_set(
    State(app): State<App>,
    Path(realm): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(served) = app.service.keys.get(&realm) else { return unknown_realm() };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let unchanged = known.is_some_and(|tags| {
        tags.split(',').any(|t| t.trim().trim_start_matches("W/") == served.etag || t.trim() == "*")
    });
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        const TYPE: &str = "application/jwk-set+json";
        ([(header::CONTENT_TYPE, TYPE)], served.json.clone()).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(&served.etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    cached(response, served.max_age_s)
}

/// CORS preflight for the key set.
pub async fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("If-None-Match"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Every signer that the service knows, with its log, evidence and protections.
pub async fn signers(State(app): State<App>) -> Response {
    cached(Json(json!({"signers": app.service.signers()})).into_response(), 1)
}

fn cached(mut response: Response, max_age_s: u64) -> Response {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={max_age_s}")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn unknown_realm() -> Response {
    errors::problem(StatusCode::NOT_FOUND, "unknown_realm", "no realm of this name is served")
}
