//! The HTTP listener: accepts connections, speaks HTTP/1.1, HTTP/2 and TLS, hands requests to
//! an axum router, and bounds everything that a client could make grow or wait.
//!
//! What bounds what:
//!
//! | a client that | is stopped by |
//! |---|---|
//! | opens many connections | [`Limits::max_connections`]; the rest wait in the kernel's backlog |
//! | sends its first header, or its TLS handshake, slowly or never | [`Limits::header_read_timeout`], [`Limits::tls_handshake_timeout`] |
//! | sends a large header | [`Limits::header_bytes`], [`Limits::max_headers`] (431) |
//! | sends its body slowly | [`Limits::request_timeout`] (408) |
//! | takes its response slowly | [`Limits::response_timeout`], then the connection is cut |
//! | keeps a connection and asks nothing | [`Limits::idle_timeout`] |
//! | is gone without a word (HTTP/2) | [`Limits::ping_interval`], [`Limits::ping_timeout`] |
//! | opens or resets many HTTP/2 streams | [`Limits::max_streams`], [`MAX_RESET_STREAMS`] |
//! | asks a lot at once | [`Limits::max_requests`] (503 with `Retry-After`) |
//!
//! The size of a request body is the router's to limit.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

mod connection;
mod error;
mod forwarded;
mod request_id;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use connection::{Phase, Shared};
pub use error::ListenError;
pub use forwarded::{MAX_FORWARDED_HOPS, Network, client_address};
pub use request_id::{REQUEST_ID, RequestId};
use socket::Stream;
pub use socket::{LOCAL_PEER, LocalPeers, Socket, bind, bind_local};
pub use tls::{MAX_PEM_BYTES, Tls, TlsOptions};

/// Default of [`Limits::max_connections`]. With a header buffer and HTTP/2 windows each, this
/// is about 1 GiB at the very worst; thousands of clients with a connection each fit.
pub const MAX_CONNECTIONS: usize = 4096;
/// Default of [`Limits::max_requests`]: well above what the issue queue takes, so that the queue
/// answers first, and small enough that as many request bodies fit into memory.
pub const MAX_REQUESTS: usize = 8192;
/// Default of [`Limits::header_bytes`]: client assertions and tokens are a few KiB each, with
/// post-quantum signatures up to 7 KiB.
pub const HEADER_BYTES: u32 = 32 * 1024;
/// The least that hyper can work with; smaller settings count as this.
pub const MIN_HEADER_BYTES: u32 = 8 * 1024;
/// Default of [`Limits::max_headers`]: several proxies' worth.
pub const MAX_HEADERS: usize = 64;
/// Default of [`Limits::max_streams`]: a gateway's burst over its one connection.
pub const MAX_STREAMS: u32 = 256;
/// HTTP/2 streams that a client may have reset before they were accepted (CVE-2023-44487), and
/// that may have been reset because of its errors, before its connection is closed.
pub const MAX_RESET_STREAMS: usize = 64;
/// HTTP/2 flow-control window of a stream: a batch of signed requests in one round trip.
pub const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// HTTP/2 flow-control window of a connection: what one client can make us hold unread.
pub const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// HTTP/2 response bytes that are buffered per stream: some tiles.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Connections that the kernel holds for us while all of ours are in use.
pub const BACKLOG: u32 = 1024;

/// Default of [`Limits::header_read_timeout`]: many round trips of the slowest network.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Default of [`Limits::request_timeout`]: what common proxies wait.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of [`Limits::response_timeout`]: responses are small.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of [`Limits::idle_timeout`]: the idle time that common connection pools expect.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Default of [`Limits::tls_handshake_timeout`].
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Default of [`Limits::drain_timeout`]: well within the 30 s that Kubernetes gives.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Default of [`Limits::ping_interval`].
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Default of [`Limits::ping_timeout`].
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// First and longest pause after a failed accept. File descriptors come back when connections
/// end; until then every attempt fails at once, and without a pause would cost a whole core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// A state that clients can bring about is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How long connection tasks that were told to stop may take to do so.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a listener needs to know.
#[derive(Clone, Debug, Default)]
pub struct ListenOptions {
    /// Certificate and key; plain HTTP if absent.
    pub tls: Option<Arc<Tls>>,
    /// Limits of connections, requests and time.
    pub limits: Limits,
}

/// Limits of one listener. The defaults are the constants of this module, each with its reason.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections. Further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// Requests in progress over all connections. Further ones get 503 with `Retry-After`.
    pub max_requests: usize,
    /// Bytes of a request's header, or of an HTTP/2 header list.
    pub header_bytes: u32,
    /// Header fields of an HTTP/1 request.
    pub max_headers: usize,
    /// HTTP/2 streams at a time per connection.
    pub max_streams: u32,
    /// From the accepted connection to its first complete request header.
    pub header_read_timeout: Duration,
    /// From a complete header until the router has answered, the body's arrival included.
    pub request_timeout: Duration,
    /// From there until the client has taken the response. A connection is cut when a request
    /// has taken once to twice the sum of this and `request_timeout`. A response that is small
    /// enough to wait for its client in buffers is done at once; then `idle_timeout` runs.
    pub response_timeout: Duration,
    /// From the end of a request to the next one's complete header on the same connection.
    pub idle_timeout: Duration,
    /// For the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// From the shutdown signal until connections that still work on requests are cut.
    pub drain_timeout: Duration,
    /// Between HTTP/2 keep-alive pings.
    pub ping_interval: Duration,
    /// For the answer to such a ping.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_requests: MAX_REQUESTS,
            header_bytes: HEADER_BYTES,
            max_headers: MAX_HEADERS,
            max_streams: MAX_STREAMS,
            header_read_timeout: HEADER_READ_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            tls_handshake_timeout: TLS_HANDSHAKE_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            ping_interval: PING_INTERVAL,
            ping_timeout: PING_TIMEOUT,
        }
    }
}

/// The other end of the connection that a request came over; every request carries it as an
/// extension. IPv4 addresses are plain even on a dual-stack socket. Behind a proxy this is the
/// proxy: see [`client_address`]. On a Unix socket it is [`LOCAL_PEER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because they had not finished in time.
    pub cut: usize,
}

/// Serves `app` on `listener` until `shutdown` completes, then drains: no new connections, the
/// requests in progress are finished, idle connections are closed, and after
/// [`Limits::drain_timeout`] the rest is cut.
///
/// Accept errors never end it. Dropping the returned future cuts all connections.
pub async fn serve(
    listener: impl Into<Socket>,
    app: axum::Router,
    options: ListenOptions,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let listener = listener.into();
    // Permits are counted in 32 bits when they are waited for below.
    let max = u32::try_from(options.limits.max_connections.max(1)).unwrap_or(u32::MAX);
    let max = max.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
    let permits = Arc::new(Semaphore::new(max as usize));
    let (phase, phases) = watch::channel(Phase::Serving);
    let drain_timeout = options.limits.drain_timeout;
    let shared = Arc::new(Shared::new(app, options));

    let mut shutdown = pin!(shutdown);
    let mut crowded = Seldom::default();
    let mut failing = Seldom::default();
    loop {
        if permits.available_permits() == 0 && crowded.due() {
            tracing::warn!(max, "all connections are in use; new ones wait");
        }
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, accept(|| listener.accept(), &mut failing).await)
        };
        let (permit, (stream, peer)) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => next,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let (shared, phases) = (shared.clone(), phases.clone());
        tokio::spawn(async move {
            match stream {
                Stream::Tcp(stream) => connection::handle(stream, peer, shared, phases).await,
                Stream::Unix(stream) => connection::handle(stream, peer, shared, phases).await,
            }
            drop(permit);
        });
    }

    drop(listener);
    phase.send_replace(Phase::Draining);
    // Every connection holds a permit until it ends.
    if timeout(drain_timeout, permits.acquire_many(max)).await.is_ok() {
        return Drained { cut: 0 };
    }
    let cut = (max as usize).saturating_sub(permits.available_permits());
    tracing::warn!(cut, "connections did not finish in time and are cut");
    phase.send_replace(Phase::Cut);
    let _ = timeout(CUT_TIMEOUT, permits.acquire_many(max)).await;
    Drained { cut }
}

/// Accepts the next connection, however often that fails.
async fn accept<F, T>(mut attempt: impl FnMut() -> F, failing: &mut Seldom) -> T
where
    F: Future<Output = io::Result<T>>,
{
    let mut pause = ACCEPT_PAUSE;
    loop {
        match attempt().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                if failing.due() {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(MAX_ACCEPT_PAUSE);
            }
        }
    }
}

/// Keeps a client from filling the disk with log lines about itself.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    /// Whether [`LOG_EVERY`] has passed since this was last true.
    fn due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= LOG_EVERY);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// Whether an accept error concerns only the connection that it would have returned (accept(2)
/// lists pending network errors that it passes on); the next one may be fine at once.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
