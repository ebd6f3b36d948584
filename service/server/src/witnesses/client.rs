//! HTTP to a witness: bounded in time and size, because what answers is a stranger.

use std::time::Duration;

use chancery_tlog::note::MAX_NOTE_BYTES;
use ureq::Agent;

use crate::web;

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
        Self(web::agent(TIMEOUT, MAX_IDLE))
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
        let body = web::body_of(&mut response, limit).map_err(|e| e.to_string())?;
        Ok(Reply { status, content_type, body })
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
