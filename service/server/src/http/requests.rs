//! `POST /{realm}/issue`: signed issuance requests, single and batch. The body is the client's JWS
//! itself (`application/jwt`), so that nothing on the way can alter what was asked for.

use std::net::IpAddr;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chancery_policy::RefusalCode;
use chancery_signer_api::{IssueRequest, Proof};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, RequestId, errors};
use crate::issue::{Issued, Verdict};
use crate::listen::{PeerAddr, client_address};

/// Query of an issuance request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `true`: each token comes with its C2SP tlog-proof.
    #[serde(default)]
    proof: bool,
}

/// The issuance endpoint.
pub async fn issue(
    State(app): State<App>,
    Path(realm): Path<String>,
    Query(options): Query<Options>,
    Extension(id): Extension<RequestId>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let started = Instant::now();
    let address = client_address(peer, &headers, &app.service.config.trusted_proxies);
    if !app.sources.may_ask(address, started) {
        app.service.metrics.limited();
        return errors::limited();
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !kind.eq_ignore_ascii_case("application/jwt") {
        let detail = "the body must be the signed request itself, as application/jwt";
        return errors::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "malformed_request", detail);
    }
    let Ok(jws) = String::from_utf8(body.into()) else {
        let detail = "the body is not a JWS in compact form";
        return errors::problem(StatusCode::BAD_REQUEST, "malformed_proof", detail);
    };
    let request = IssueRequest { realm, context: id.bytes().into(), proof: Proof::Signed { jws } };
    let verdicts = match app.service.issuer.issue(request).await {
        Ok(verdicts) => verdicts,
        Err(e) => return errors::unavailable(&e),
    };
    if let [Verdict::Refused { code, detail }] = verdicts.as_slice() {
        note_unverified(&app, code, address, started);
        return errors::refusal(code, detail);
    }
    let mut tokens = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        tokens.push(match verdict {
            Verdict::Issued(issued) => match member(&app, issued, options.proof).await {
                Ok(member) => member,
                Err(response) => return response,
            },
            Verdict::Refused { code, detail } => {
                json!({"error": code, "error_description": detail})
            }
        });
    }
    let mut response = Json(json!({"tokens": tokens})).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn member(app: &App, issued: Issued, with_proof: bool) -> Result<Value, Response> {
    let mut member = json!({
        "access_token": issued.token,
        "expires_in": issued.lifetime_s,
        "index": issued.index,
    });
    let Some(members) = member.as_object_mut() else { return Ok(member) };
    if !issued.scope.is_empty() {
        members.insert("scope".into(), issued.scope.into());
    }
    if with_proof {
        let log = app.service.attached().and_then(|s| s.log_id.parse().ok());
        let log = log.and_then(|id| app.service.logs.get(id));
        let Some(log) = log else {
            let detail = "the token is logged, its proof is at /log/{log id}/proof/{index}";
            return Err(errors::problem(StatusCode::SERVICE_UNAVAILABLE, "no_proof", detail));
        };
        let proof = log.proof(issued.index).await.map_err(|e| {
            errors::problem(StatusCode::INTERNAL_SERVER_ERROR, "no_proof", &e.to_string())
        })?;
        members.insert("proof".into(), proof.into());
    }
    Ok(member)
}

/// Counts a proof that did not verify against the address that it came from.
pub fn note_unverified(app: &App, code: &str, address: IpAddr, now: Instant) {
    if RefusalCode::parse(code).is_some_and(RefusalCode::is_unauthenticated) {
        app.sources.note_failure(address, now);
    }
}
