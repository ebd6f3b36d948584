//! One request of a proxy, one answer.
//!
//! The two proxies ask in different forms and understand different answers:
//!
//! | | nginx `auth_request` | Envoy HTTP `ext_authz` |
//! |---|---|---|
//! | asks | [`NGINX_PATH`], the client's URI in `X-Original-URI` | [`ENVOY_PREFIX`] and the client's path and query, with its method |
//! | lets in | 2xx | 200 alone |
//! | denies | 401 (passes the challenge on), 403 | anything but 200 and 5xx, passed on as it is |
//! | takes as failure | anything else: its client gets 500 | 5xx: its client gets `status_on_error`, 403 by default |

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::Uri;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use chancery_relying_party::bearer::{Demands, Denial, token_of};
use chancery_relying_party::{Accepted, Judgement, RelyingParty};

use super::headers::{self, Told};
use super::journal::Journal;
use super::metrics::Metrics;

/// Where nginx asks.
pub const NGINX_PATH: &str = "/authz/nginx";
/// What Envoy puts before the path of the request that it asks about.
pub const ENVOY_PREFIX: &str = "/authz/envoy";

/// Set by the proxy's configuration: scope values that this request needs, separated by spaces.
const REQUIRE_SCOPE: HeaderName = HeaderName::from_static("x-chancery-require-scope");
/// Set by the proxy's configuration: the audience that this request's token must name.
const REQUIRE_AUDIENCE: HeaderName = HeaderName::from_static("x-chancery-require-audience");
/// The URI that nginx's client asked for.
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// Characters of a path that are logged.
const MAX_SHOWN_CHARS: usize = 120;

/// What every answer needs.
pub struct Gate {
    /// Who judges.
    pub relying_party: RelyingParty,
    /// The realm of challenges.
    pub realm: String,
    /// What is demanded of every token.
    pub demands: Demands,
    /// What is told of a good one.
    pub told: Vec<Told>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where denials are written.
    pub journal: Journal,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// `auth_request`.
    Nginx,
    /// HTTP `ext_authz`.
    Envoy,
}

impl Proxy {
    /// Its name, for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }

    /// Who asks at this URI. A path beside the two is nobody's: a proxy that forgets its prefix must
    /// not be told yes.
    fn asking(uri: &Uri) -> Option<Self> {
        let path = uri.path();
        if path == NGINX_PATH {
            return Some(Self::Nginx);
        }
        let rest = path.strip_prefix(ENVOY_PREFIX)?;
        // `OPTIONS *` has the one path that does not begin with a slash.
        matches!(rest.as_bytes().first(), None | Some(b'/' | b'*')).then_some(Self::Envoy)
    }

    /// The path and the query that the client asked for. What is no text in them is replaced, and
    /// hides nothing of the rest.
    fn asked<'r>(
        self,
        uri: &'r Uri,
        headers: &'r HeaderMap,
    ) -> (Cow<'r, str>, Option<Cow<'r, str>>) {
        match self {
            Self::Envoy => {
                let path = uri.path().strip_prefix(ENVOY_PREFIX).unwrap_or("");
                (path.into(), uri.query().map(Cow::from))
            }
            Self::Nginx => {
                let original = headers.get(ORIGINAL_URI).map_or(&b""[..], HeaderValue::as_bytes);
                let mut parts = original.splitn(2, |&byte| byte == b'?');
                let path = String::from_utf8_lossy(parts.next().unwrap_or_default());
                (path, parts.next().map(String::from_utf8_lossy))
            }
        }
    }

    /// What this proxy understands of a denial's status.
    fn status(self, denial: &Denial) -> StatusCode {
        match denial.status() {
            // nginx would make a fault of its own out of the client's.
            StatusCode::BAD_REQUEST if self == Self::Nginx => StatusCode::UNAUTHORIZED,
            status => status,
        }
    }
}

/// The paths at which proxies ask. Method and body of a request mean nothing here.
pub fn router(gate: Arc<Gate>) -> Router {
    Router::new().fallback(answer).with_state(gate)
}

async fn answer(State(gate): State<Arc<Gate>>, request: Request) -> Response<Body> {
    let began = Instant::now();
    let (parts, _) = request.into_parts();
    let Some(proxy) = Proxy::asking(&parts.uri) else { return nobody() };
    let (path, query) = proxy.asked(&parts.uri, &parts.headers);
    let decided = decide(&gate, &parts.headers, query.as_deref()).await;
    let response = match &decided {
        Ok(accepted) => allow(&gate, proxy, accepted),
        Err(denial) => {
            tell(&gate, proxy, &parts.method, &path, denial);
            deny(&gate, proxy, denial)
        }
    };
    let outcome = decided.as_ref().err().map_or("allowed", Denial::code);
    gate.metrics.decided(proxy, outcome, began.elapsed());
    response
}

async fn decide(gate: &Gate, headers: &HeaderMap, query: Option<&str>) -> Result<Accepted, Denial> {
    let token = token_of(headers, query)?;
    // Nearly every token is decided by what is in memory, without waiting.
    let accepted = match gate.relying_party.judge(token) {
        Judgement::Decided(decided) => decided?,
        Judgement::NeedsIo => gate.relying_party.validate(token).await?,
    };
    demands_of(gate, headers).check(&accepted.token)?;
    Ok(accepted)
}

/// The demands of every request, and those that the proxy's configuration adds to this one. They
/// only narrow, so a client that gets such a header through a careless proxy shuts itself out. One
/// that says nothing demands what no token has: it is a mistake in the proxy's configuration.
fn demands_of<'g>(gate: &'g Gate, headers: &HeaderMap) -> Cow<'g, Demands> {
    let mut demands = Cow::Borrowed(&gate.demands);
    for value in headers.get_all(REQUIRE_SCOPE) {
        let value = String::from_utf8_lossy(value.as_bytes());
        demands.to_mut().scopes.extend(value.split(' ').map(str::to_owned));
    }
    for value in headers.get_all(REQUIRE_AUDIENCE) {
        let value = String::from_utf8_lossy(value.as_bytes());
        demands.to_mut().audiences.push(value.into_owned());
    }
    demands
}

fn allow(gate: &Gate, proxy: Proxy, accepted: &Accepted) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let to = response.headers_mut();
    to.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers::write(&gate.told, accepted, to);
    if proxy == Proxy::Envoy {
        headers::remove_others(to);
    }
    response
}

fn deny(gate: &Gate, proxy: Proxy, denial: &Denial) -> Response<Body> {
    let mut response: Response<Body> = denial.response(&gate.realm);
    *response.status_mut() = proxy.status(denial);
    response
}

fn nobody() -> Response<Body> {
    let text = format!("ask at {NGINX_PATH} or below {ENVOY_PREFIX}/\n");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Writes a denial for the operator. A request without credentials is no event: every client's
/// first one may be.
fn tell(gate: &Gate, proxy: Proxy, method: &Method, path: &str, denial: &Denial) {
    let proxy = proxy.name();
    // The path is the client's, and as long as it likes.
    let path: String = path.chars().take(MAX_SHOWN_CHARS).collect();
    if *denial == Denial::NoCredentials {
        tracing::debug!(proxy, %method, path, "{denial}");
        return;
    }
    if let Some(left_out) = gate.journal.line() {
        if left_out > 0 {
            tracing::info!(left_out, "denials were not written: there were too many");
        }
        tracing::info!(proxy, %method, path, code = denial.code(), "denied: {denial}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_paths_are_answered() {
        for (uri, proxy) in [
            ("/authz/nginx", Some(Proxy::Nginx)),
            ("/authz/nginx?x", Some(Proxy::Nginx)),
            ("/authz/envoy", Some(Proxy::Envoy)),
            ("/authz/envoy/", Some(Proxy::Envoy)),
            ("/authz/envoy/orders/1?x=1", Some(Proxy::Envoy)),
            ("/authz/envoy//../healthz", Some(Proxy::Envoy)),
            ("/authz/envoy*", Some(Proxy::Envoy)),
            ("/authz/nginx/", None),
            ("/authz/envoyx", None),
            ("/authz", None),
            ("/orders/1", None),
            ("/healthz", None),
            ("/metrics", None),
            ("/", None),
            ("http://host/authz/nginx", Some(Proxy::Nginx)),
            ("/x/authz/nginx", None),
        ] {
            assert_eq!(Proxy::asking(&uri.parse().unwrap()), proxy, "{uri}");
        }
    }

    #[test]
    fn the_clients_query_is_found_where_each_proxy_puts_it() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGINAL_URI, HeaderValue::from_static("/orders?access_token=x?y"));
        let envoy: Uri = "/authz/envoy/a?b=c".parse().unwrap();
        let asked = |proxy: Proxy, uri: &Uri, headers: &HeaderMap| {
            let (path, query) = proxy.asked(uri, headers);
            (path.into_owned(), query.map(Cow::into_owned))
        };
        let found = asked(Proxy::Envoy, &envoy, &headers);
        assert_eq!(found, ("/a".into(), Some("b=c".into())));
        let nginx: Uri = "/authz/nginx".parse().unwrap();
        let found = asked(Proxy::Nginx, &nginx, &headers);
        assert_eq!(found, ("/orders".into(), Some("access_token=x?y".into())));
        let nothing = asked(Proxy::Nginx, &nginx, &HeaderMap::new());
        assert_eq!(nothing, (String::new(), None));
        // nginx hands bytes on as they came; none of them hides the rest.
        for before in ["/\u{e4}?", "/?\u{e4}=1&", "/?a=\u{202e}&"] {
            let mut value = format!("{before}access_token=x").into_bytes();
            value.extend(b"&\xff");
            headers.insert(ORIGINAL_URI, HeaderValue::from_bytes(&value).unwrap());
            let (_, query) = asked(Proxy::Nginx, &nginx, &headers);
            assert!(query.unwrap().contains("access_token=x&"), "{before}");
        }
    }

    #[test]
    fn nginx_gets_statuses_that_it_passes_on() {
        for (denial, nginx, envoy) in [
            (Denial::NoCredentials, 401, 401),
            (Denial::Malformed("x"), 401, 400),
            (Denial::OtherAudience("x".into()), 401, 401),
            (Denial::InsufficientScope("x".into()), 403, 403),
        ] {
            assert_eq!(Proxy::Nginx.status(&denial).as_u16(), nginx, "{denial}");
            assert_eq!(Proxy::Envoy.status(&denial).as_u16(), envoy, "{denial}");
        }
    }
}
