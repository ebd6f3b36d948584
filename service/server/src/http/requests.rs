//! `POST /{realm}/issue`: signed issuance requests, single and batch. The body is the client's JWS
//! itself (`application/jwt`), so that nothing on the way can alter what was asked for.

use std::net::IpAddr;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use chancery_policy::RefusalCode;
use chancery_signer_api::{IssueRequest, Proof};
use chancery_token::jws::MAX_REQUEST_BYTES;
use serde::Deserialize;

use super::tokens::{self, Item};
use super::{App, RequestId, errors};
use crate::audit::Context;
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
    realm: Result<Path<String>, PathRejection>,
    options: Result<Query<Options>, QueryRejection>,
    Extension(id): Extension<RequestId>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (Ok(Path(realm)), Ok(Query(options))) = (realm, options) else {
        return errors::malformed();
    };
    let body = match super::read_body(body, MAX_REQUEST_BYTES).await {
        Ok(body) => body,
        Err(response) => return response,
    };
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
    let context = Context::new(id, &realm, address, &headers).encode().into();
    let request = IssueRequest { realm, context, proof: Proof::Signed { jws } };
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
            Verdict::Issued(issued) => item(&app, issued, options.proof).await,
            Verdict::Refused { code, detail } => {
                Item::Refused { error: code, error_description: detail }
            }
        });
    }
    tokens::batch(tokens)
}

/// A released token, with its proof where one was asked for. A proof that cannot be made now costs
/// nobody a token that is logged: it can be had later, at `/log/{log id}/proof/{index}`.
async fn item(app: &App, issued: Issued, with_proof: bool) -> Item {
    let proof = if with_proof { prove(app, &issued).await } else { None };
    Item::issued(issued, proof)
}

async fn prove(app: &App, issued: &Issued) -> Option<String> {
    // The token itself says in which log it is; the signer may have changed since.
    let id = issued.jti.split('.').next()?.parse().ok()?;
    let log = app.service.logs.get(id)?;
    match log.proof(issued.index).await {
        Ok(proof) => Some(proof),
        Err(e) => {
            tracing::error!("a proof that was asked for: {e}");
            None
        }
    }
}

/// Counts a proof that did not verify against the address that it came from.
pub fn note_unverified(app: &App, code: &str, address: IpAddr, now: Instant) {
    if RefusalCode::parse(code).is_some_and(RefusalCode::is_unauthenticated) {
        app.sources.note_failure(address, now);
    }
}
