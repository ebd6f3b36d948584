//! Signers' evidence and how the service appraised it. With a nonce the attached signer makes evidence
//! anew: hardware takes up to a second for that, so few may ask.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chancery_attest::unhex;
use chancery_entry::evidence::{MAX_NONCE_BYTES, MIN_NONCE_BYTES};
use chancery_tlog::LogId;
use serde::Deserialize;

use super::logs::{failed, text, with};
use super::{App, Sources, errors};
use crate::evidence::{EVIDENCE, RESULT};
use crate::listen::{PeerAddr, client_address};

/// Fresh evidence a second for one address.
const FRESH_PER_S_OF_ONE: u32 = 1;
/// Fresh evidence a second for everybody together.
const FRESH_PER_S: u32 = 5;
/// Everybody, as a key of the table of addresses.
const EVERYBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Who asked for fresh evidence lately.
#[derive(Debug)]
pub struct Limits {
    each: Sources,
    all: Sources,
}

impl Limits {
    /// Nobody did.
    pub fn new() -> Self {
        Self { each: Sources::new(FRESH_PER_S_OF_ONE), all: Sources::new(FRESH_PER_S) }
    }

    fn take(&self, address: IpAddr, now: Instant) -> bool {
        let may = self.each.may_ask(address, now) && self.all.may_ask(EVERYBODY, now);
        if may {
            self.each.note_failure(address, now);
            self.all.note_failure(EVERYBODY, now);
        }
        may
    }
}

/// Query of `evidence`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// A verifier's nonce, hexadecimal.
    nonce: Option<String>,
}

/// `evidence`: as the signer made it at its start, or anew with `?nonce=`.
pub async fn evidence(
    State(app): State<App>,
    Path(log): Path<String>,
    query: Result<Query<Freshness>, QueryRejection>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    headers: HeaderMap,
) -> Response {
    let Ok(Query(query)) = query else { return errors::malformed() };
    let Some(nonce) = query.nonce else { return stored(&app, &log, EVIDENCE).await };
    let nonce = unhex(&nonce).filter(|n| (MIN_NONCE_BYTES..=MAX_NONCE_BYTES).contains(&n.len()));
    let Some(nonce) = nonce else {
        let detail = "`nonce` is 8 to 64 bytes in hexadecimal";
        return errors::problem(StatusCode::BAD_REQUEST, "malformed_nonce", detail);
    };
    if app.service.attached().is_none_or(|signer| signer.log_id != log) {
        let detail =
            "no living signer of this log is attached; only what it made at its start is here";
        return errors::problem(StatusCode::NOT_FOUND, "signer_not_attached", detail);
    }
    let address = client_address(peer, &headers, &app.service.config.trusted_proxies);
    if !app.fresh.take(address, Instant::now()) {
        return errors::too_often("fresh evidence is made for few; ask again in a second");
    }
    match app.service.fresh_evidence(nonce).await {
        Ok(evidence) => {
            let mut response = text(evidence.to_json(), JSON);
            let never = HeaderValue::from_static("no-store");
            response.headers_mut().insert(header::CACHE_CONTROL, never);
            response
        }
        Err(why) => errors::problem(StatusCode::SERVICE_UNAVAILABLE, "no_evidence", &why),
    }
}

/// `attestation-result`: the service's word about that evidence.
pub async fn result(State(app): State<App>, Path(log): Path<String>) -> Response {
    stored(&app, &log, RESULT).await
}

const JSON: &str = "application/json";
/// A service that starts appraises again, perhaps with newer endorsements.
const A_MINUTE: &str = "public, max-age=60";

async fn stored(app: &App, log: &str, object: &str) -> Response {
    let Ok(id) = log.parse::<LogId>() else {
        let detail = "a log id is 22 characters of base64url";
        return errors::problem(StatusCode::NOT_FOUND, "not_a_log_id", detail);
    };
    let service = &app.service;
    match service.appraiser.read(&service.store, &id.to_string(), object).await {
        Ok(bytes) => with(bytes.into_response(), JSON, A_MINUTE),
        Err(e) => failed(&e.into()),
    }
}
