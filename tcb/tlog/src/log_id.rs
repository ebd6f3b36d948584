//! How a log is named in tokens, key sets and URLs.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, excerpt};
use crate::hash::sha256;

/// A log's id: the first 128 bits of SHA-256 over the 32 raw bytes of the log's Ed25519 identity key.
/// `Display` and `FromStr` use unpadded base64url, 22 characters, in its one canonical spelling.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId([u8; LogId::BYTES]);

impl LogId {
    /// Bytes of a log id.
    pub const BYTES: usize = 16;

    /// The id of the log with this Ed25519 identity key.
    pub fn of(public_key: &[u8; 32]) -> LogId {
        let mut id = [0; LogId::BYTES];
        for (to, from) in id.iter_mut().zip(sha256(public_key).0) {
            *to = from;
        }
        LogId(id)
    }

    /// An id that was stored as bytes.
    pub fn from_bytes(bytes: [u8; LogId::BYTES]) -> LogId {
        LogId(bytes)
    }

    /// The id as bytes.
    pub fn as_bytes(&self) -> &[u8; LogId::BYTES] {
        &self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

impl FromStr for LogId {
    type Err = Error;

    /// Fails with [`Error::LogId`].
    fn from_str(text: &str) -> Result<LogId, Error> {
        let mut id = [0; LogId::BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut id) {
            Ok(LogId::BYTES) => Ok(LogId(id)),
            _ => Err(Error::LogId(excerpt(text))),
        }
    }
}
