//! Tests of the listener over real sockets.

mod addresses;
mod secure;

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// What no test should ever need to wait for.
const FOREVER: Duration = Duration::from_secs(60);
/// What a thing that ought to happen at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// More than the buffers of a socket hold.
const LARGE: usize = 32 * 1024 * 1024;

/// A listener that runs, and the way to stop it.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Drained>,
}

impl Server {
    fn start(options: ListenOptions) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), options)
    }

    fn start_at(address: SocketAddr, options: ListenOptions) -> Self {
        let listener = bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, app(), options, async {
            let _ = stopped.await;
        }));
        Self { address, stop: Some(stop), task }
    }

    fn with_limits(limits: Limits) -> Self {
        Self::start(ListenOptions { tls: None, limits })
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn http1(&self) -> http1::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn stop(mut self) -> Drained {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(FOREVER, self.task).await.unwrap().unwrap()
    }
}

fn app() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/echo", post(async |body: Bytes| body))
        .route(
            "/peer",
            get(async |Extension(PeerAddr(peer)): Extension<PeerAddr>| peer.to_string()),
        )
        .route(
            "/slow",
            get(async || {
                sleep(Duration::from_millis(500)).await;
                "slow"
            }),
        )
        .route("/never", get(async || sleep(FOREVER).await))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/endless", get(async || Body::new(Endless)))
}

/// A body that goes on as long as somebody takes it.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
    }
}

fn request(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(format!("http://localhost{path}"));
    request.header("host", "localhost").body(Full::default()).unwrap()
}

async fn text(response: axum::http::Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Sends bytes, then reads to the end of the connection; the answer and how long it took.
async fn raw(server: &Server, bytes: &[u8]) -> (String, Duration) {
    let mut stream = server.connect().await;
    let start = Instant::now();
    stream.write_all(bytes).await.unwrap();
    (read_to_end(&mut stream).await, start.elapsed())
}

/// A reset counts as an end.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("no end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn http1_keeps_a_connection_for_many_requests() {
    let server = Server::start(ListenOptions::default());
    let mut client = server.http1().await;
    for _ in 0..3 {
        let response = client.send_request(request("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response).await, "hello");
        client.ready().await.unwrap();
    }
    assert_eq!(server.stop().await, Drained { cut: 0 });
}

#[tokio::test]
async fn http2_by_prior_knowledge_serves_streams_at_once() {
    let server = Server::start(ListenOptions::default());
    let mut client = server.http2().await;
    let start = Instant::now();
    let mut slow = client.clone();
    let slow =
        tokio::spawn(async move { text(slow.send_request(request("/slow")).await.unwrap()).await });
    let body = Full::from(vec![b'y'; 300_000]);
    let echo = Request::post("http://localhost/echo").body(body).unwrap();
    let response = client.send_request(echo).await.unwrap();
    assert_eq!(text(response).await.len(), 300_000);
    assert!(start.elapsed() >= millis(500) || !slow.is_finished(), "one after the other");
    assert_eq!(slow.await.unwrap(), "slow");
    assert_eq!(server.stop().await, Drained { cut: 0 });
}

#[tokio::test]
async fn requests_carry_the_peer_address_on_either_family() {
    let server = Server::start_at((Ipv6Addr::UNSPECIFIED, 0).into(), ListenOptions::default());
    let port = server.address.port();
    let locals = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    for local in locals as [SocketAddr; 2] {
        let stream = TcpStream::connect(local).await.unwrap();
        let ours = stream.local_addr().unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request("/peer")).await.unwrap();
        // Not ::ffff:127.0.0.1, although the socket is IPv6.
        assert_eq!(text(response).await, ours.to_string());
    }
}

#[tokio::test]
async fn a_slow_first_header_is_cut_off() {
    let limits =
        Limits { header_read_timeout: millis(300), idle_timeout: FOREVER, ..Limits::default() };
    let server = Server::with_limits(limits);
    for bytes in [
        &b""[..],
        b"G",
        b"PRI * HT",
        b"GET / HTTP/1.1\r\nhost: a\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let (answer, took) = raw(&server, bytes).await;
        assert!(!answer.contains("200 OK"), "{answer}");
        assert!(took >= millis(300) && took < SOON, "{bytes:?} {took:?}");
    }
    // Dripping bytes does not help.
    let mut stream = server.connect().await;
    let start = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    while stream.write_all(b"a: b\r\n").await.is_ok() {
        assert!(start.elapsed() < SOON, "still open");
        sleep(millis(20)).await;
    }
}

#[tokio::test]
async fn a_slow_later_header_is_cut_off() {
    let limits =
        Limits { header_read_timeout: millis(100), idle_timeout: millis(400), ..Limits::default() };
    let server = Server::with_limits(limits);
    let both = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost";
    let (answer, took) = raw(&server, both).await;
    assert_eq!(answer.matches("200 OK").count(), 1, "{answer}");
    assert!(took >= millis(400) && took < SOON, "{took:?}");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let limits = Limits { idle_timeout: millis(300), ..Limits::default() };
    let server = Server::with_limits(limits);
    let start = Instant::now();
    let mut client = server.http1().await;
    text(client.send_request(request("/")).await.unwrap()).await;
    while !client.is_closed() {
        assert!(start.elapsed() < SOON, "http/1 still open");
        sleep(millis(10)).await;
    }
    assert!(start.elapsed() >= millis(290));

    let start = Instant::now();
    let mut client = server.http2().await;
    text(client.send_request(request("/")).await.unwrap()).await;
    while !client.is_closed() {
        assert!(start.elapsed() < SOON, "http/2 still open");
        sleep(millis(10)).await;
    }
    assert!(start.elapsed() >= millis(290));
}

#[tokio::test]
async fn half_closed_connections_end_at_once() {
    let server = Server::start(ListenOptions::default());
    for bytes in ["", "GET / HT", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc"]
    {
        let mut stream = server.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(!read_to_end(&mut stream).await.contains("200 OK"), "{bytes}");
    }
}

#[tokio::test]
async fn an_oversize_header_gets_431() {
    let limits = Limits { header_bytes: MIN_HEADER_BYTES, ..Limits::default() };
    let server = Server::with_limits(limits);
    let large = "x".repeat(MIN_HEADER_BYTES as usize);
    let (answer, _) =
        raw(&server, format!("GET / HTTP/1.1\r\nlarge: {large}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
    let (answer, _) = raw(&server, format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let mut client = server.http2().await;
    let mut fits = request("/");
    fits.headers_mut().insert("fits", "x".repeat(4000).parse().unwrap());
    assert_eq!(client.send_request(fits).await.unwrap().status(), StatusCode::OK);
    let mut too_large = request("/");
    too_large.headers_mut().insert("large", large.parse().unwrap());
    let response = client.send_request(too_large).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn malformed_requests_get_400() {
    let server = Server::start(ListenOptions::default());
    for bytes in
        ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n"]
    {
        let (answer, _) = raw(&server, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes}: {answer}");
    }
}

#[tokio::test]
async fn a_slow_body_gets_408_and_a_slow_answer_503() {
    let limits = Limits { request_timeout: millis(300), ..Limits::default() };
    let server = Server::with_limits(limits);
    let post = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\nabc";
    let (answer, took) = raw(&server, post).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert!(took >= millis(300), "{took:?}");
    let json = answer.split("\r\n\r\n").nth(1).unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["status"], 408);

    let mut client = server.http2().await;
    let response = client.send_request(request("/never")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn a_response_that_nobody_takes_is_cut_off() {
    // An endless response is in progress until its exchange has had its time; one that is
    // buffered whole is done for us, and then the connection is idle.
    let limits = |response_timeout, idle_timeout| Limits {
        header_read_timeout: millis(400),
        request_timeout: millis(200),
        response_timeout,
        idle_timeout,
        ..Limits::default()
    };
    for (path, limits) in
        [("/endless", limits(millis(200), FOREVER)), ("/large", limits(FOREVER, millis(400)))]
    {
        let server = Server::with_limits(limits);
        // HTTP/1: the socket's buffers are full.
        let mut stream = server.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        sleep(millis(2500)).await;
        let answer = read_to_end(&mut stream).await;
        assert!(answer.len() < LARGE, "all of it arrived");
        // HTTP/2: the window is never opened again, although the connection lives.
        let mut client = server.http2().await;
        let response = client.send_request(request(path)).await.unwrap();
        sleep(millis(2500)).await;
        assert!(client.is_closed());
        assert!(response.into_body().collect().await.is_err());
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let server = Server::with_limits(limits);
    let mut first = server.http1().await;
    let mut second = server.http1().await;
    for client in [&mut first, &mut second] {
        text(client.send_request(request("/")).await.unwrap()).await;
    }
    let mut third = server.http1().await;
    let mut waiting = std::pin::pin!(third.send_request(request("/")));
    assert!(timeout(millis(300), waiting.as_mut()).await.is_err(), "served beyond the cap");
    drop(first);
    let response = timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(text(response).await, "hello");
    text(second.send_request(request("/")).await.unwrap()).await;
}

#[tokio::test]
async fn more_requests_than_allowed_get_503() {
    let limits = Limits { max_requests: 1, ..Limits::default() };
    let server = Server::with_limits(limits);
    let mut client = server.http2().await;
    let mut other = client.clone();
    let slow = tokio::spawn(async move { other.send_request(request("/slow")).await.unwrap() });
    sleep(millis(100)).await;
    let response = client.send_request(request("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    let json: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(json["status"], 503);
    assert_eq!(text(slow.await.unwrap()).await, "slow");
    let response = client.send_request(request("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn draining_finishes_what_is_in_progress() {
    let server = Server::start(ListenOptions::default());
    let address = server.address;
    let mut idle = server.http1().await;
    text(idle.send_request(request("/")).await.unwrap()).await;
    // One that has not said anything yet, and two in the middle of a request.
    let mut silent = server.connect().await;
    let mut one = server.http1().await;
    let one =
        tokio::spawn(async move { text(one.send_request(request("/slow")).await.unwrap()).await });
    let mut two = server.http2().await;
    let two =
        tokio::spawn(async move { text(two.send_request(request("/slow")).await.unwrap()).await });
    sleep(millis(150)).await;

    let start = Instant::now();
    assert_eq!(server.stop().await, Drained { cut: 0 });
    assert!(start.elapsed() < SOON);
    assert_eq!(one.await.unwrap(), "slow");
    assert_eq!(two.await.unwrap(), "slow");
    assert_eq!(read_to_end(&mut silent).await, "");
    assert!(idle.send_request(request("/")).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn draining_is_bounded() {
    let limits = Limits { drain_timeout: millis(200), ..Limits::default() };
    let server = Server::with_limits(limits);
    let mut client = server.http1().await;
    let never = tokio::spawn(async move { client.send_request(request("/never")).await });
    sleep(millis(100)).await;
    let start = Instant::now();
    assert_eq!(server.stop().await, Drained { cut: 1 });
    assert!(start.elapsed() >= millis(200) && start.elapsed() < SOON);
    assert!(never.await.unwrap().is_err());
}

#[tokio::test]
async fn dropping_the_listener_cuts_its_connections() {
    let server = Server::start(ListenOptions::default());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(millis(100)).await;
    server.task.abort();
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn accept_errors_pause_and_do_not_end_the_listener() {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let calls = AtomicUsize::new(0);
    let start = Instant::now();
    let attempt = async || match calls.fetch_add(1, Ordering::Relaxed) {
        // A connection that is gone already costs no pause, too many open files do.
        0..100 => Err(io::ErrorKind::ConnectionAborted.into()),
        100..103 => {
            let errno = rustix::io::Errno::MFILE;
            Err(io::Error::from_raw_os_error(errno.raw_os_error()))
        }
        _ => listener.accept().await,
    };
    let (_, peer) = accept(attempt, &mut Seldom::default()).await;
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(calls.load(Ordering::Relaxed), 104);
    assert!(start.elapsed() >= millis(10 + 20 + 40), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let held = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = held.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("cannot listen on `{address}`")), "{text}");
    assert!(text.contains("another process uses it"), "{text}");
    let error = bind(([203, 0, 113, 1], 0).into()).unwrap_err();
    assert!(error.to_string().contains("does not have that address"), "{error}");
}
