//! HTTP to a witness: bounded in time and size, because what answers is a stranger.

use std::time::Duration;

use chancery_tlog::note::MAX_NOTE_BYTES;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// A witness stores a checkpoint and answers; longer than this it is away.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Kept connections: one for each witness.
const MAX_IDLE: usize = 2;

/// Sends requests; clones share its connections.
#[derive(Clone, Debug)]
pub struct Client(Agent);

/// An answer of any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// At most 128 KiB.
    pub body: Vec<u8>,
}

impl Client {
    /// A client; TLS by aws-lc with the system's roots.
    pub fn new() -> Self {
        // A second call finds the provider installed, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections_per_host(MAX_IDLE)
            .tls_config(tls)
            .user_agent(crate::SOFTWARE)
            .build();
        Self(config.into())
    }

    /// Posts to `<prefix>/add-checkpoint`; waits a bounded time.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub fn add_checkpoint(&self, prefix: &str, body: &str) -> Result<Reply, String> {
        let url = format!("{prefix}/add-checkpoint");
        let post = self.0.post(&url).content_type("text/plain; charset=utf-8");
        let mut response = post.send(body).map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type");
        let content_type = kind.and_then(|v| v.to_str().ok()).map(str::to_owned);
        let limit = u64::try_from(MAX_NOTE_BYTES).unwrap_or(u64::MAX);
        let body = response.body_mut().with_config().limit(limit).read_to_vec();
        Ok(Reply { status, content_type, body: body.map_err(|e| e.to_string())? })
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
