//! The id of a request: in its answer's header, in the log, and in the audit record.

use axum::http::{HeaderName, HeaderValue};

/// Carries the id in every response.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, made here and never taken from a client; every request carries it as an
/// extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// A fresh id.
    pub(crate) fn new() -> Self {
        let mut id = [0; 16];
        // Without randomness the id is merely not unique.
        let _ = aws_lc_rs::rand::fill(&mut id);
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
