//! The id of a request: in its answer's header, in the log, and in the audit record.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderName, HeaderValue};

/// Carries the id in every response.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, made here and never taken from a client; every request carries it as an
/// extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// A fresh id: a random number of this process, and a count. That it tells how many requests there
    /// were is no secret, the log tells as much; and records of it compress to a byte or two.
    pub(crate) fn new() -> Self {
        static PROCESS: LazyLock<[u8; 8]> = LazyLock::new(|| {
            let mut process = [0; 8];
            // Without randomness the id is merely not unique.
            let _ = aws_lc_rs::rand::fill(&mut process);
            process
        });
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut id = [0; 16];
        let (process, count) = id.split_at_mut(8);
        process.copy_from_slice(&*PROCESS);
        count.copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Self(id)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Base64url.
    #[must_use]
    pub fn text(&self) -> String {
        chancery_token::b64::encode(&self.0)
    }

    /// Its text as a header; base64url always is one.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.text()).ok()
    }
}
