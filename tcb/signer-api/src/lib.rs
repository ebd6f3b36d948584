//! The frames that a signer accepts: the whole surface of the trusted computing base.
//!
//! A frame is a 4-byte big-endian length and that many bytes of CBOR: one [`Request`] towards the
//! signer, one [`Response`] back. Responses come in the order of the requests. The length is
//! checked against [`MAX_FRAME_BYTES`] before a byte of the body is read.
//!
//! Which request is accepted when is one table, [`Phase::accepts`]:
//!
//! | phase | accepts | next phase |
//! |---|---|---|
//! | `Hello` | `Hello` | `Start` in a signer without policy, else `Resume` |
//! | `Start` | `Start` | `Serving` |
//! | `Resume` | `Resume` | `Serving` |
//! | `Serving` | everything else | `Serving` |
//! | all but `Hello` | `End` | - |
//!
//! Anything outside the table, and any frame that does not parse, ends the connection: the peer is
//! broken or hostile, and the signer keeps nothing that a new connection could not take up again.
//! No frame carries raw entry bytes from the service: what the service asserts has its own kinds.

mod frame;
mod messages;

pub use frame::{FrameBuffer, encode};
pub use messages::*;

/// The protocol version of this crate: 2 adds witnessed roots, cosigned checkpoints, statements about the
/// audit, and claims that an API server composed.
pub const PROTOCOL_VERSION: u16 = 2;

/// The largest frame body, in bytes: a policy of 4 MiB or a thousand signed tokens fits; a hostile
/// length cannot make either side allocate more.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// The most requests in one `Prepare`, and the most tokens that one may yield: most
/// algorithms sign them in a tenth of a second. RSA-4096 takes seconds, in slices; what would come
/// more than 2 s after its key's window is void.
pub const MAX_TOKENS_PER_FRAME: usize = 1_024;

/// The longest opaque context of a request, in bytes: what the service needs for the audit record
/// when it was restarted meanwhile (realm, request id, source, user agent).
pub const MAX_CONTEXT_BYTES: usize = 256;

/// The most statements about the audit in one `Prepare`: the service makes one at a time.
pub const MAX_AUDIT_STATEMENTS: usize = 4;

/// The most batches that may be prepared and not yet committed.
pub const MAX_OPEN_BATCHES: usize = 2;

/// Why a frame is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The length exceeds [`MAX_FRAME_BYTES`].
    #[error("frame of `{0}` bytes exceeds the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// The body is not the CBOR of a message.
    #[error("frame does not hold a message of this protocol version: {0}")]
    Malformed(String),
    /// The message has bytes behind it.
    #[error("frame has `{0}` bytes behind its message")]
    Trailing(usize),
}

/// What the signer waits for on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first message.
    Hello,
    /// A fresh signer waits for its policy.
    Start,
    /// A running signer waits to learn what the service still holds of its log.
    Resume,
    /// The main job.
    Serving,
}

impl Phase {
    /// The one table of which messages a phase accepts.
    #[must_use]
    pub fn accepts(self, request: &Request) -> bool {
        match request {
            Request::Hello(_) => self == Phase::Hello,
            Request::Start(_) => self == Phase::Start,
            Request::Resume(_) => self == Phase::Resume,
            Request::Prepare(_)
            | Request::Commit(_)
            | Request::LoadPolicy(_)
            | Request::Rotate(_)
            | Request::Compromise(_)
            | Request::Witnessed(_)
            | Request::Cosign(_)
            | Request::Evidence(_)
            | Request::Appraised(_)
            | Request::Status => self == Phase::Serving,
            // Ending destroys keys and gives nothing away, so a peer may ask as soon as it greeted.
            Request::End => self != Phase::Hello,
        }
    }
}

#[cfg(test)]
mod tests;
