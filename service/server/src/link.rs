//! The line to the signer: frames over its Unix socket, and the greeting.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use chancery_signer_api::{
    Fault, FrameBuffer, Hello, PROTOCOL_VERSION, Request, Response, Welcome, encode,
};

use crate::SOFTWARE;
use crate::logs::LogError;
use crate::wal::WalError;

/// A signer that does not answer its greeting within this time is not alive. Making an identity
/// and a first set of keys takes milliseconds.
const GREETING_WITHIN: Duration = Duration::from_secs(5);

/// How long one frame may take to be written, or an answer before the main job runs to arrive: a
/// first set of RSA keys for many realms takes minutes on a small machine. Beyond it the signer is
/// stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// Why the line broke, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("signer socket: {0}")]
    Io(#[from] std::io::Error),
    /// The signer is there and says nothing.
    #[error("the signer does not answer: it is stopped, or its machine is overloaded")]
    Silent,
    /// Somebody else listens on the signer's socket.
    #[error(
        "user `{0}` listens on the signer's socket; if that is the signer, say --signer-uid {0}"
    )]
    Stranger(u32),
    /// The signer ended.
    #[error("the signer ended; its keys ended with it")]
    Ended,
    /// A frame does not parse.
    #[error("signer frame: {0}")]
    Frame(#[from] chancery_signer_api::Error),
    /// The signer refused.
    #[error("signer: {} ({:?})", .0.detail, .0.code)]
    Fault(Fault),
    /// The signer answered something else than was asked.
    #[error("the signer answered out of step: {0}")]
    OutOfStep(String),
    /// The write-ahead log failed for good.
    #[error("write-ahead log: {0}")]
    Wal(#[from] WalError),
    /// Audit records cannot be made.
    #[error("audit: {0}")]
    Audit(#[from] crate::audit::AuditError),
    /// The log cannot be continued.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl LinkError {
    /// For an answer that nobody asked for.
    #[must_use]
    pub fn out_of_step(response: &Response) -> Self {
        let mut text = format!("{response:?}");
        // Never a token in a log line: only the message's name.
        text.truncate(text.find('(').unwrap_or(text.len()));
        LinkError::OutOfStep(text)
    }
}

/// Both halves of a greeted connection.
#[derive(Debug)]
pub struct Connection {
    /// Towards the signer.
    pub outgoing: Outgoing,
    /// From the signer.
    pub incoming: Incoming,
}

/// Towards the signer.
#[derive(Debug)]
pub struct Outgoing {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// From the signer.
#[derive(Debug)]
pub struct Incoming {
    stream: UnixStream,
    frames: FrameBuffer,
    scratch: Vec<u8>,
}

/// Ends a connection from another thread.
#[derive(Debug)]
pub struct Closer(UnixStream);

impl Closer {
    /// Ends the connection; the other side and our reader see the end of the stream.
    pub fn close(&self) {
        // It fails where the other side closed already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Connection {
    /// Connects to and greets a signer that runs as this user, or as the user `signer_uid`: whoever
    /// else listens there would get the policy, and have its keys published.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn open(socket: &Path, signer_uid: Option<u32>) -> Result<(Self, Welcome), LinkError> {
        let stream = UnixStream::connect(socket)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(std::io::Error::from)?;
        let uid = peer.uid.as_raw();
        if uid != rustix::process::geteuid().as_raw() && signer_uid != Some(uid) {
            return Err(LinkError::Stranger(uid));
        }
        Self::greet(stream)
    }

    /// Greets over a stream that is connected.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn greet(stream: UnixStream) -> Result<(Self, Welcome), LinkError> {
        stream.set_read_timeout(Some(GREETING_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut connection = Self {
            outgoing: Outgoing { stream: stream.try_clone()?, buffer: Vec::new() },
            incoming: Incoming {
                stream: stream.try_clone()?,
                frames: FrameBuffer::default(),
                scratch: vec![0; READ_BYTES],
            },
        };
        let hello = Hello { versions: vec![PROTOCOL_VERSION], software: SOFTWARE.to_owned() };
        let welcome = match connection.ask(&Request::Hello(hello))? {
            Response::Welcome(welcome) => welcome,
            other => return Err(LinkError::out_of_step(&other)),
        };
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok((connection, welcome))
    }

    /// Sends one request and waits for its answer: for the greeting, before the main job runs.
    ///
    /// # Errors
    /// [`LinkError`]; a fault of the signer is one too.
    pub fn ask(&mut self, request: &Request) -> Result<Response, LinkError> {
        self.outgoing.encode(request)?;
        self.outgoing.write()?;
        match self.incoming.receive()? {
            Some(Response::Fault(fault)) => Err(LinkError::Fault(fault)),
            Some(response) => Ok(response),
            None => Err(LinkError::Ended),
        }
    }
}

impl Outgoing {
    /// Makes one frame, for the next [`Outgoing::write`].
    ///
    /// # Errors
    /// [`LinkError::Frame`] when it is too large.
    pub fn encode(&mut self, request: &Request) -> Result<(), LinkError> {
        self.buffer.clear();
        encode(request, &mut self.buffer)?;
        Ok(())
    }

    /// Writes the frame that was made last.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn write(&mut self) -> Result<(), LinkError> {
        self.stream.write_all(&self.buffer)?;
        Ok(())
    }

    /// A handle to end the connection with.
    ///
    /// # Errors
    /// [`LinkError::Io`] when there is no file descriptor left for it.
    pub fn closer(&self) -> Result<Closer, LinkError> {
        Ok(Closer(self.stream.try_clone()?))
    }
}

impl Incoming {
    /// Gives up on a signer that says nothing for so long.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn wait_at_most(&self, patience: Duration) -> Result<(), LinkError> {
        Ok(self.stream.set_read_timeout(Some(patience))?)
    }

    /// Reads one frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn receive(&mut self) -> Result<Option<Response>, LinkError> {
        loop {
            if let Some(response) = self.frames.next_message()? {
                return Ok(Some(response));
            }
            match self.stream.read(&mut self.scratch) {
                Ok(0) => return Ok(None),
                Ok(n) => self.frames.extend(self.scratch.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(LinkError::Silent);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}
