//! One connection: TLS if configured, HTTP of either version, and a watchdog.
//!
//! hyper bounds what one message may do; the watchdog bounds what a connection may do over
//! time, with a few atomic counters per connection and one timer, and nothing per byte.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    CONNECTION_WINDOW_BYTES, Limits, ListenOptions, MAX_RESET_STREAMS, MIN_HEADER_BYTES, PeerAddr,
    REQUEST_ID, RequestId, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES, Tls,
};

/// The watchdog looks this many times in the shortest of its timeouts, within the bounds below.
const TICKS_PER_TIMEOUT: u32 = 4;
const MIN_TICK: Duration = Duration::from_millis(10);
const MAX_TICK: Duration = Duration::from_secs(5);
/// What a connection that was asked to close may take until it is cut.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What a listener wants of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Finish the requests in progress, then close.
    Draining,
    /// End now.
    Cut,
}

/// What all connections of a listener share.
pub(super) struct Shared {
    router: TowerToHyperService<axum::Router>,
    http: auto::Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    /// Requests in progress.
    requests: AtomicUsize,
    tick: Duration,
    /// A request that takes longer than this is not going to end.
    exchange_timeout: Duration,
}

impl Shared {
    pub(super) fn new(app: axum::Router, options: ListenOptions) -> Self {
        let ListenOptions { tls, limits } = options;
        let exchange_timeout = limits.request_timeout.saturating_add(limits.response_timeout);
        let shortest = exchange_timeout.min(limits.header_read_timeout).min(limits.idle_timeout);
        Self {
            // Giving the state here lets axum prepare its routes once, not at each request.
            router: TowerToHyperService::new(app.with_state(())),
            http: http_builder(&limits),
            tls,
            requests: AtomicUsize::new(0),
            tick: (shortest / TICKS_PER_TIMEOUT).clamp(MIN_TICK, MAX_TICK),
            exchange_timeout,
            limits,
        }
    }
}

fn http_builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let header_bytes = limits.header_bytes.max(MIN_HEADER_BYTES);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's timer runs from the end of one request to the complete header of the next, so
        // it is also the idle time; the first header's shorter time is the watchdog's.
        .header_read_timeout(limits.idle_timeout.max(limits.header_read_timeout))
        .max_headers(limits.max_headers)
        .max_buf_size(header_bytes as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(header_bytes)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout);
    builder
}

/// Serves one accepted connection to its end.
pub(super) async fn handle(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Some(tls) = &shared.tls else {
        return serve_http(stream, peer, shared, phase).await;
    };
    let handshake = timeout(shared.limits.tls_handshake_timeout, tls.accept(stream));
    let handshake = tokio::select! {
        result = handshake => result,
        // No request is lost with a connection that has not even begun.
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
    };
    match handshake {
        Ok(Ok(stream)) => serve_http(stream, peer, shared, phase).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "tls handshake failed"),
        Err(_) => tracing::debug!(%peer, "tls handshake took too long"),
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    let activity = Arc::new(Activity::new(shared.clone()));
    let service = service_fn({
        let activity = activity.clone();
        move |request| answer(activity.clone(), peer, request)
    });
    let mut connection = pin!(shared.http.serve_connection(TokioIo::new(stream), service));
    let mut watchdog = Watchdog::new(&activity);
    let mut tick = interval(shared.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut next = *phase.borrow_and_update();
    loop {
        match next {
            Phase::Serving => {}
            Phase::Draining => connection.as_mut().graceful_shutdown(),
            Phase::Cut => return,
        }
        next = tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            changed = phase.changed() => match changed {
                Ok(()) => *phase.borrow_and_update(),
                // The listener was dropped.
                Err(_) => Phase::Cut,
            },
            _ = tick.tick() => watchdog.look(&activity, Instant::now(), peer),
        };
    }
}

/// Answers one request, and names it.
async fn answer(
    activity: Arc<Activity>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Tracked>, Infallible> {
    let exchange = Exchange::begin(activity);
    let id = RequestId::new();
    let line = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().path().to_owned()));
    let mut response = route(&exchange, id, peer, request).await;
    if let Some(value) = id.header() {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Some((method, path)) = line {
        tracing::debug!(id = id.text(), %method, path, status = response.status().as_u16());
    }
    Ok(response.map(|body| Tracked { body, exchange }))
}

/// Lets the router answer, within the limits.
async fn route(
    exchange: &Exchange,
    id: RequestId,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let shared = &exchange.activity.shared;
    if exchange.others >= shared.limits.max_requests {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests are in progress; try again shortly",
        );
    }
    let has_body = !request.body().is_end_stream();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(PeerAddr(peer));
    request.extensions_mut().insert(id);
    match timeout(shared.limits.request_timeout, shared.router.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) if has_body => problem(
            StatusCode::REQUEST_TIMEOUT,
            "the request took too long to arrive; send it faster",
        ),
        Err(_) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long; try again shortly")
        }
    }
}

/// An error that the listener itself answers, as RFC 9457 writes it. `detail` is a constant
/// without characters that JSON would escape.
fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{code},"detail":"{detail}"}}"#
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What the watchdog knows about a connection.
struct Activity {
    shared: Arc<Shared>,
    accepted: Instant,
    /// When a request last began or ended, in milliseconds after `accepted`, plus one; 0 before
    /// the first request.
    last: AtomicU64,
    /// Requests in progress, by the parity of the generation in which they began. That finds
    /// requests that never end without a timer or a list entry for each.
    live: [AtomicUsize; 2],
    generation: AtomicUsize,
}

impl Activity {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            accepted: Instant::now(),
            last: AtomicU64::new(0),
            live: [AtomicUsize::new(0), AtomicUsize::new(0)],
            generation: AtomicUsize::new(0),
        }
    }

    /// The counter of requests that began in generations of this parity.
    fn live(&self, generation: usize) -> &AtomicUsize {
        let [even, odd] = &self.live;
        if generation.is_multiple_of(2) { even } else { odd }
    }

    fn touch(&self) {
        let millis = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis.saturating_add(1), Relaxed);
    }

    /// How long nothing has been in progress; `None` while something is.
    fn idle(&self, now: Instant) -> Option<(Duration, bool)> {
        if self.live(0).load(Relaxed) > 0 || self.live(1).load(Relaxed) > 0 {
            return None;
        }
        let age = now.saturating_duration_since(self.accepted);
        match self.last.load(Relaxed) {
            0 => Some((age, true)),
            last => {
                let last = Duration::from_millis(last.saturating_sub(1));
                Some((age.saturating_sub(last), false))
            }
        }
    }
}

/// One request, from its header to the end of its response's body.
struct Exchange {
    activity: Arc<Activity>,
    generation: usize,
    /// Requests in progress on the whole listener when this one began.
    others: usize,
}

impl Exchange {
    fn begin(activity: Arc<Activity>) -> Self {
        let generation = activity.generation.load(Relaxed);
        activity.live(generation).fetch_add(1, Relaxed);
        activity.touch();
        let others = activity.shared.requests.fetch_add(1, Relaxed);
        Self { activity, generation, others }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.activity.touch();
        self.activity.live(self.generation).fetch_sub(1, Relaxed);
        self.activity.shared.requests.fetch_sub(1, Relaxed);
    }
}

/// A response's body that ends its exchange when it is dropped.
struct Tracked {
    body: Body,
    #[expect(dead_code, reason = "held for its drop")]
    exchange: Exchange,
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Decides when a connection has had enough time.
struct Watchdog {
    /// When the current generation of requests began.
    generation_began: Instant,
    /// When the connection was asked to close.
    closing: Option<Instant>,
}

impl Watchdog {
    fn new(activity: &Activity) -> Self {
        Self { generation_began: activity.accepted, closing: None }
    }

    /// What is to become of the connection now.
    fn look(&mut self, activity: &Activity, now: Instant, peer: SocketAddr) -> Phase {
        let shared = &activity.shared;
        let age = now.saturating_duration_since(self.generation_began);
        if age >= shared.exchange_timeout {
            let next = activity.generation.load(Relaxed).wrapping_add(1);
            // The counter that is about to be used again counts the generation before this one,
            // whose requests are at least as old as this generation.
            if activity.live(next).load(Relaxed) > 0 {
                tracing::debug!(%peer, "a response was not taken in time; connection cut");
                return Phase::Cut;
            }
            activity.generation.store(next, Relaxed);
            self.generation_began = now;
        }
        let Some((idle, first)) = activity.idle(now) else {
            return Phase::Serving;
        };
        if let Some(closing) = self.closing {
            let late = now.saturating_duration_since(closing) >= CLOSE_GRACE;
            return if late { Phase::Cut } else { Phase::Serving };
        }
        let allowed =
            if first { shared.limits.header_read_timeout } else { shared.limits.idle_timeout };
        if idle < allowed {
            return Phase::Serving;
        }
        self.closing = Some(now);
        Phase::Draining
    }
}
