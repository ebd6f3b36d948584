//! The tower layer and the axum extractors, with real signatures: through a router by `oneshot`, and
//! over a socket.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use chancery_relying_party::bearer::Denial;
use chancery_relying_party::tower::{BearerLayer, Token};
use chancery_relying_party::{LogPolicy, RelyingParty, ValidatorConfig};
use chancery_token::b64;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "https://api.example";
const LOG: &str = "hnB79-YExUp-qXGchxprvA";

/// An issuer with one key.
struct Signer {
    key: EcdsaKeyPair,
}

impl Signer {
    fn new() -> Self {
        Self { key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwks(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap().split_at(32);
        let now = now();
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
            "x": b64::encode(x), "y": b64::encode(y), "issuer": ISSUER,
            "nbf": now - 600, "signs_until": now + 600, "exp": now + 6_000,
            "log": format!("{LOG}.2"),
        });
        serde_json::to_vec(&json!({"keys": [key]})).unwrap()
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let random = b64::encode(&[7; 16]);
        let mut claims = json!({
            "iss": ISSUER, "sub": "user:1", "aud": AUDIENCE, "exp": now() + 300, "iat": now(),
            "jti": format!("{LOG}.9.{random}"), "client_id": "app", "scope": "read",
        });
        change(&mut claims);
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "k1"});
        let encode = |value: &Value| b64::encode(value.to_string().as_bytes());
        let input = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", b64::encode(signature.as_ref()))
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn relying_party(signer: &Signer) -> RelyingParty {
    let mut config = ValidatorConfig::new(ISSUER, AUDIENCE);
    config.audiences.push("https://other.example".into());
    RelyingParty::builder(config).jwks(ISSUER, &signer.jwks()).build().unwrap()
}

async fn whoami(token: Token) -> Json<Value> {
    assert!(token.has_scope("read") && !token.has_scope("rea"));
    assert_eq!(token.log(), None);
    let shown = format!("{token:?}");
    assert!(shown.contains("k1") && !shown.contains("user:1"), "{shown}");
    Json(json!({"sub": token.claims().sub}))
}

async fn anybody(token: Option<Token>) -> String {
    token.map_or_else(|| "nobody".to_owned(), |token| token.claims().sub.to_owned())
}

async fn writer(token: Token) -> Result<&'static str, Denial> {
    token.require_scope("write")?;
    Ok("written")
}

fn app(layer: BearerLayer) -> Router {
    Router::new()
        .route("/", get(whoami))
        .route("/anybody", get(anybody))
        .route("/writer", get(writer))
        .layer(layer)
}

fn request(path: &str, authorization: &[&str]) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    for value in authorization {
        request.headers_mut().append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    request
}

async fn ask(app: &Router, path: &str, token: &str) -> (Response<Body>, String) {
    let bearer = format!("Bearer {token}");
    let authorization = if token.is_empty() { vec![] } else { vec![bearer.as_str()] };
    send(app, request(path, &authorization)).await
}

async fn send(app: &Router, request: Request<Body>) -> (Response<Body>, String) {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, 10_000).await.unwrap();
    (Response::from_parts(parts, Body::empty()), String::from_utf8(body.to_vec()).unwrap())
}

fn challenge(response: &Response<Body>) -> &str {
    response.headers().get(header::WWW_AUTHENTICATE).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn an_acceptable_token_reaches_the_handler() {
    let signer = Signer::new();
    let app = app(BearerLayer::new(relying_party(&signer)));
    let (response, body) = ask(&app, "/", &signer.token(|_| {})).await;
    assert_eq!((response.status(), body.as_str()), (StatusCode::OK, r#"{"sub":"user:1"}"#));
    let (response, _) = ask(&app, "/writer", &signer.token(|_| {})).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(challenge(&response), r#"Bearer error="insufficient_scope", scope="write""#);
    let writer = signer.token(|claims| claims["scope"] = "read write".into());
    assert_eq!(ask(&app, "/writer", &writer).await.1, "written");
    let (response, body) = ask(&app, "/anybody", &writer).await;
    assert_eq!((response.status(), body.as_str()), (StatusCode::OK, "user:1"));
}

#[tokio::test]
async fn everything_else_is_denied_without_a_word_of_why() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let layer = {
        let heard = heard.clone();
        BearerLayer::new(relying_party(&signer)).realm("my \"api\"").on_denial(
            move |denial, parts| {
                assert!(!parts.headers.contains_key(header::AUTHORIZATION));
                assert_eq!(parts.uri.query(), None, "{}", parts.uri);
                heard.lock().unwrap().push((denial.code(), parts.uri.path().to_owned()));
            },
        )
    };
    let counted = calls.clone();
    let app = Router::new()
        .fallback(move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
        })
        .layer(layer);

    let expired = signer.token(|claims| {
        claims["exp"] = (now() - 100).into();
        claims["iat"] = (now() - 200).into();
    });
    let other = signer.token(|claims| claims["aud"] = "https://third.example".into());
    let invalid = r#"Bearer error="invalid_token""#;
    for (token, code) in [
        (stranger.token(|_| {}), "bad_signature"),
        (expired, "expired"),
        (other, "wrong_audience"),
        ("a.b.c".to_owned(), "malformed_token"),
    ] {
        let (response, body) = ask(&app, "/x", &token).await;
        assert_eq!((response.status(), challenge(&response)), (StatusCode::UNAUTHORIZED, invalid));
        assert!(body.is_empty(), "{body}");
        assert_eq!(response.headers().get(header::CACHE_CONTROL).unwrap(), "no-store");
        assert_eq!(heard.lock().unwrap().pop(), Some((code, "/x".to_owned())));
    }
    let (response, _) = ask(&app, "/x", "").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(challenge(&response), r#"Bearer realm="my api""#);
    let good = format!("Bearer {}", signer.token(|_| {}));
    for wrong in [
        request("/x", &[&good, &good]),
        request("/x?access_token=a", &[&good]),
        request("http://host.example:80/x?access_token=a", &[&good]),
    ] {
        let (response, _) = send(&app, wrong).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(challenge(&response), r#"Bearer error="invalid_request""#);
        let (code, path) = heard.lock().unwrap().pop().unwrap();
        assert_eq!((code, path.as_str()), ("malformed_credentials", "/x"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "a denied request reached the handler");
    send(&app, request("/x", &[&good])).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_layer_can_demand_scopes_and_an_audience() {
    let signer = Signer::new();
    let layer = BearerLayer::new(relying_party(&signer)).scope("read").scope("audit");
    let app = app(layer.audience(AUDIENCE));
    let (response, _) = ask(&app, "/", &signer.token(|_| {})).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(challenge(&response), r#"Bearer error="insufficient_scope", scope="read audit""#);
    let both = signer.token(|claims| claims["scope"] = "audit read".into());
    assert_eq!(ask(&app, "/", &both).await.0.status(), StatusCode::OK);
    let other = signer.token(|claims| {
        claims["scope"] = "audit read".into();
        claims["aud"] = "https://other.example".into();
    });
    assert_eq!(ask(&app, "/", &other).await.0.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_optional_layer_lets_nobody_in_but_no_bad_token() {
    let signer = Signer::new();
    let app = app(BearerLayer::new(relying_party(&signer)).realm("orders").optional());
    assert_eq!(ask(&app, "/anybody", "").await.1, "nobody");
    assert_eq!(ask(&app, "/anybody", &signer.token(|_| {})).await.1, "user:1");
    assert_eq!(ask(&app, "/anybody", "a.b.c").await.0.status(), StatusCode::UNAUTHORIZED);
    let twice = request("/anybody", &["Bearer a", "Bearer a"]);
    assert_eq!(send(&app, twice).await.0.status(), StatusCode::BAD_REQUEST);
    // A handler that needs the token gets the challenge of the layer.
    let (response, _) = ask(&app, "/", "").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(challenge(&response), r#"Bearer realm="orders""#);
}

#[tokio::test]
async fn a_route_without_a_layer_never_looks_anonymous() {
    let app = Router::new().route("/", get(whoami)).route("/anybody", get(anybody));
    for path in ["/", "/anybody"] {
        let (response, body) = ask(&app, path, "").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert!(body.is_empty(), "{body}");
    }
}

#[tokio::test]
async fn what_cannot_be_judged_now_is_503_and_no_challenge() {
    let signer = Signer::new();
    // Nobody listens there, so there is no key set, and no log.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = format!("http://{closed}");
    let config = ValidatorConfig::new(&issuer, AUDIENCE);
    let no_keys = RelyingParty::builder(config).build().unwrap();
    let unlogged = RelyingParty::builder(ValidatorConfig::new(ISSUER, AUDIENCE))
        .jwks(ISSUER, &signer.jwks())
        .log(LogPolicy::Require)
        .log_at(&format!("http://{closed}/log"))
        .build()
        .unwrap();
    let foreign = signer.token(|claims| claims["iss"] = issuer.as_str().into());
    for (relying_party, token) in [(no_keys, foreign), (unlogged, signer.token(|_| {}))] {
        let app = app(BearerLayer::new(relying_party));
        for _ in 0..2 {
            let (response, _) = ask(&app, "/", &token).await;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "5");
            assert_eq!(challenge(&response), "");
        }
        let (response, _) = ask(&app, "/", "a.b.c").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "nonsense is nonsense");
    }
}

/// Over a real socket, with requests written out: hyper hands repeated headers on as they came.
#[tokio::test]
async fn it_holds_over_a_socket() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let signer = Signer::new();
    let app = app(BearerLayer::new(relying_party(&signer)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let bearer = format!("authorization: bEaReR  {}\r\n", signer.token(|_| {}));
    for (headers, status) in [
        (bearer.clone(), "200"),
        (bearer.repeat(2), "400"),
        (String::new(), "401"),
        ("authorization: Bearer a.b.c\r\n".to_owned(), "401"),
        ("authorization: Bearer \u{e4}\r\n".to_owned(), "400"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let Some(found) = answer.strip_prefix("HTTP/1.1 ") else { panic!("{answer}") };
        assert!(found.starts_with(status), "{headers}: {answer}");
    }
    server.abort();
}
