//! HTTP as tests need it: every status is an answer, every header can be set, and raw bytes can be
//! sent too.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, Request};

/// Longer than any answer takes on a loaded machine, the service's own ten seconds included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Larger than any answer of the service.
const MAX_BODY_BYTES: u64 = 32 * 1024 * 1024;

/// An HTTP client with kept connections.
#[derive(Clone, Debug)]
pub struct Web(Agent);

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Default for Web {
    fn default() -> Self {
        Self::new()
    }
}

impl Web {
    /// A new client.
    #[must_use]
    pub fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        Self(config.into())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// What kept an answer from arriving.
    pub fn try_send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = if body.is_empty() && method != "POST" {
            request.body(()).map_err(|e| e.to_string()).map(|r| self.0.run(r))
        } else {
            request.body(body).map_err(|e| e.to_string()).map(|r| self.0.run(r))
        };
        let response = sent?.map_err(|e| e.to_string())?;
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(MAX_BODY_BYTES).read_to_vec();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.map_err(|e| e.to_string())?,
        })
    }

    /// Sends a request that must be answered.
    ///
    /// # Panics
    /// When no answer arrives.
    #[must_use]
    pub fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, url, headers, body).unwrap_or_else(|e| panic!("{method} {url}: {e}"))
    }

    /// GETs something that must be answered.
    ///
    /// # Panics
    /// When no answer arrives.
    #[must_use]
    pub fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[], b"")
    }
}

impl Answer {
    /// A header field's value, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("HTTP {}: `{}`: {e}", self.status, self.text()))
    }

    /// The `max-age` of `Cache-Control`, in seconds.
    #[must_use]
    pub fn max_age(&self) -> Option<u64> {
        let control = self.header("cache-control");
        control.split(',').find_map(|d| d.trim().strip_prefix("max-age=")?.parse().ok())
    }
}

/// Sends raw pieces over one connection with a pause before each, closes the sending side when
/// `half_close`, and reads until the other side closes or `within` is over. The request should say
/// `Connection: close`.
///
/// # Panics
/// When the connection cannot be made.
#[must_use]
pub fn raw_exchange(
    address: &str,
    pieces: &[&[u8]],
    pause: Duration,
    half_close: bool,
    within: Duration,
) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(within)).expect("timeout");
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            std::thread::sleep(pause);
        }
        // A server that has answered and closed already is judged by what it answered.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    if half_close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read) = stream.read(&mut chunk) {
        match chunk.get(..read) {
            Some(bytes) if !bytes.is_empty() => answer.extend_from_slice(bytes),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}
