//! `POST /{realm}/token`: the client credentials grant with `private_key_jwt` (RFC 6749 section
//! 4.4, RFC 7521, RFC 7523, RFC 8707). The assertion travels untouched to the signer.

use std::borrow::Cow;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use chancery_signer_api::{IssueRequest, Proof};

use super::{App, MAX_FORM_BYTES, RequestId, errors, tokens};
use crate::audit::Context;
use crate::issue::Verdict;
use crate::listen::{PeerAddr, client_address};

/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The longest `scope`, in bytes: a hundred values.
const MAX_SCOPE_BYTES: usize = 8 * 1024;
/// The longest of the other values but the assertion, in bytes: a URL.
const MAX_VALUE_BYTES: usize = 1024;

/// Parameters of a token request.
#[derive(Debug, Default, PartialEq)]
struct Form {
    grant_type: Option<String>,
    assertion_type: Option<String>,
    assertion: Option<String>,
    client_id: Option<String>,
    scope: Option<String>,
    audiences: Vec<String>,
}

/// The token endpoint.
pub async fn token(
    State(app): State<App>,
    realm: Result<Path<String>, PathRejection>,
    Extension(id): Extension<RequestId>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(Path(realm)) = realm else { return errors::malformed() };
    let body = match super::read_body(body, MAX_FORM_BYTES).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let started = std::time::Instant::now();
    let address = client_address(peer, &headers, &app.service.config.trusted_proxies);
    if !app.sources.may_ask(address, started) {
        app.service.metrics.limited();
        return errors::limited();
    }
    let request = match read(&realm, &headers, &body) {
        Ok(request) => IssueRequest {
            context: Context::new(id, &realm, address, &headers).encode().into(),
            ..request
        },
        Err((error, detail)) => {
            return errors::oauth_with(
                StatusCode::BAD_REQUEST,
                error,
                "malformed_request",
                &detail,
            );
        }
    };
    match app.service.issuer.issue(request).await {
        Err(e) => errors::unavailable(&e),
        Ok(mut verdicts) => match verdicts.pop() {
            Some(Verdict::Issued(issued)) => tokens::granted(&issued),
            Some(Verdict::Refused { code, detail }) => {
                super::requests::note_unverified(&app, &code, address, started);
                errors::oauth(&code, &detail)
            }
            None => errors::oauth("malformed_request", "nothing was asked for"),
        },
    }
}

type Malformed = (&'static str, String);

/// Step 1: the request, parsed strictly.
fn read(realm: &str, headers: &HeaderMap, body: &[u8]) -> Result<IssueRequest, Malformed> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let detail = "the body must be application/x-www-form-urlencoded";
        return Err(("invalid_request", detail.to_owned()));
    }
    let form = Form::parse(body).map_err(|detail| ("invalid_request", detail))?;
    match form.grant_type.as_deref() {
        Some("client_credentials") => {}
        Some(_) => {
            let detail = "grant_type must be client_credentials".to_owned();
            return Err(("unsupported_grant_type", detail));
        }
        None => return Err(("invalid_request", "grant_type is missing".into())),
    }
    if form.assertion_type.as_deref() != Some(ASSERTION_TYPE) {
        let detail = format!("client_assertion_type must be {ASSERTION_TYPE}");
        return Err(("invalid_request", detail));
    }
    let jws = form
        .assertion
        .ok_or_else(|| ("invalid_request", "client_assertion is missing".to_owned()))?;
    Ok(IssueRequest {
        realm: realm.to_owned(),
        context: Vec::new().into(),
        proof: Proof::Assertion {
            jws,
            audiences: form.audiences,
            scope: form.scope,
            lifetime_s: None,
            subject: None,
            algorithm: None,
            client_id: form.client_id,
        },
    })
}

impl Form {
    /// Reads the parameters; RFC 6749 section 3.2 forbids any of them twice, RFC 8707 section 2
    /// allows `resource` to repeat, and unknown ones are ignored.
    fn parse(body: &[u8]) -> Result<Self, String> {
        let mut form = Self::default();
        for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = decode(pair)?;
            let slot = match name.as_ref() {
                "audience" | "resource" => {
                    let fits = (1..=MAX_VALUE_BYTES).contains(&value.len());
                    if !fits || form.audiences.len() >= 16 {
                        return Err(
                            "audience and resource: 1 to 16 values of 1 to 1024 bytes".into()
                        );
                    }
                    if !form.audiences.iter().any(|a| *a == value) {
                        form.audiences.push(value.into_owned());
                    }
                    continue;
                }
                "grant_type" => &mut form.grant_type,
                "client_assertion_type" => &mut form.assertion_type,
                "client_assertion" => &mut form.assertion,
                "client_id" => &mut form.client_id,
                "scope" => &mut form.scope,
                "client_secret" => {
                    return Err("clients authenticate by private_key_jwt only".into());
                }
                _ => continue,
            };
            let limit = match name.as_ref() {
                "client_assertion" => chancery_token::jws::MAX_TOKEN_BYTES,
                "scope" => MAX_SCOPE_BYTES,
                _ => MAX_VALUE_BYTES,
            };
            if value.len() > limit {
                return Err(format!("{name} has more than {limit} bytes"));
            }
            if slot.replace(value.into_owned()).is_some() {
                return Err(format!("{name} appears twice"));
            }
        }
        Ok(form)
    }
}

/// One `name=value` (WHATWG URL, `application/x-www-form-urlencoded`). An assertion is most of a
/// form, and has nothing in it that needs decoding.
fn decode(pair: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), String> {
    let wrong = |e: &dyn std::fmt::Display| format!("the body is not a form: {e}");
    if !pair.iter().any(|b| matches!(b, b'%' | b'+')) {
        let text = str::from_utf8(pair).map_err(|e| wrong(&e))?;
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        return Ok((name.into(), value.into()));
    }
    let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(pair).map_err(|e| wrong(&e))?;
    let (name, value) = pairs.into_iter().next().unwrap_or_default();
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn parameters_are_read_once_each() {
        let form = Form::parse(
            b"grant_type=client_credentials&audience=a&resource=https%3A%2F%2Fb&scope=x+y&junk=1",
        )
        .unwrap();
        assert_eq!(form.audiences, ["a", "https://b"]);
        assert_eq!(form.scope.as_deref(), Some("x y"));
        assert!(Form::parse(b"scope=a&scope=b").unwrap_err().contains("twice"));
        assert!(Form::parse(b"audience=").is_err());
        let long = format!("scope={}", "s".repeat(MAX_SCOPE_BYTES + 1));
        assert!(Form::parse(long.as_bytes()).unwrap_err().contains("8192"));
        let long = format!("audience={}", "a".repeat(MAX_VALUE_BYTES + 1));
        assert!(Form::parse(long.as_bytes()).is_err());
        assert!(Form::parse(b"client_secret=x").unwrap_err().contains("private_key_jwt"));
    }

    #[test]
    fn wrong_requests_are_named() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, form)]);
        let name = |headers: &HeaderMap, body: &[u8]| read("r", headers, body).unwrap_err().0;
        assert_eq!(name(&HeaderMap::new(), b"grant_type=client_credentials"), "invalid_request");
        assert_eq!(name(&headers, b""), "invalid_request");
        assert_eq!(name(&headers, b"grant_type=password"), "unsupported_grant_type");
        assert_eq!(name(&headers, b"grant_type=client_credentials"), "invalid_request");
        assert_eq!(name(&headers, b"\xff\xfe="), "invalid_request");
    }
}
