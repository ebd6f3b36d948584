//! gRPC as kube-apiserver speaks it, written out: messages by field number, frames, trailers. Nothing
//! here is shared with the service, so that both could only be wrong in the same way by chance.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{HeaderMap, Request};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

#[derive(Clone, PartialEq, Message)]
pub struct SignRequest {
    #[prost(string, tag = "1")]
    pub claims: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct SignResponse {
    #[prost(string, tag = "1")]
    pub header: String,
    #[prost(string, tag = "2")]
    pub signature: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub struct Keys {
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<Key>,
    #[prost(message, optional, tag = "2")]
    pub data_timestamp: Option<Stamp>,
    #[prost(int64, tag = "3")]
    pub refresh_hint_seconds: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Stamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Key {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub der: Vec<u8>,
    #[prost(bool, tag = "3")]
    pub excluded: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(int64, tag = "1")]
    pub max_token_expiration_seconds: i64,
}

pub const SIGN: &str = "/v1.ExternalJWTSigner/Sign";
pub const FETCH_KEYS: &str = "/v1.ExternalJWTSigner/FetchKeys";
pub const METADATA: &str = "/v1.ExternalJWTSigner/Metadata";

/// gRPC's status numbers that matter here.
pub const UNAVAILABLE: u32 = 14;
pub const DEADLINE_EXCEEDED: u32 = 4;

/// What is not OK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub code: u32,
    pub text: String,
}

impl Failed {
    fn unavailable(e: impl std::fmt::Display) -> Self {
        Self { code: UNAVAILABLE, text: e.to_string() }
    }
}

/// A message behind its length (gRPC over HTTP/2, "Length-Prefixed-Message"), not compressed.
pub fn framed(message: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut out).unwrap();
    out.freeze()
}

pub fn unframed<M: Message + Default>(mut body: Bytes) -> Result<M, Failed> {
    let plain = body.len() >= 5 && body.get_u8() == 0;
    if !plain || body.get_u32() as usize != body.remaining() {
        return Err(Failed::unavailable("not one uncompressed message"));
    }
    M::decode(body).map_err(Failed::unavailable)
}

/// The line to the signer: one connection, made again when it broke. A call waits for it until its
/// own limit (`WaitForReady`).
pub struct Line {
    socket: PathBuf,
    open: Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
}

impl Line {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), open: Mutex::new(None) }
    }

    async fn ready(&self) -> http2::SendRequest<Full<Bytes>> {
        let mut open = self.open.lock().await;
        loop {
            if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
                return sender.clone();
            }
            if let Ok(stream) = UnixStream::connect(&self.socket).await
                && let Ok((sender, connection)) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await
            {
                tokio::spawn(connection);
                *open = Some(sender);
                continue;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn call<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        within: Duration,
    ) -> Result<A, Failed> {
        let body = framed(message);
        let call = async {
            let mut sender = self.ready().await;
            let request = Request::post(format!("http://localhost{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("user-agent", "grpc-go/1.72.2")
                .body(Full::new(body))
                .unwrap();
            let answer = sender.send_request(request).await.map_err(Failed::unavailable)?;
            let (head, body) = answer.into_parts();
            let kind = head.headers.get("content-type").map(|v| v.as_bytes().to_vec());
            if head.status != 200 || kind.as_deref() != Some(b"application/grpc") {
                return Err(Failed::unavailable(format!("{} {kind:?}", head.status)));
            }
            let body = body.collect().await.map_err(Failed::unavailable)?;
            let trailers = body.trailers().cloned().unwrap_or(head.headers);
            status(&trailers)?;
            unframed(body.to_bytes())
        };
        let late = || Failed { code: DEADLINE_EXCEEDED, text: "context deadline exceeded".into() };
        tokio::time::timeout(within, call).await.unwrap_or_else(|_| Err(late()))
    }
}

fn status(trailers: &HeaderMap) -> Result<(), Failed> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => {
            Err(Failed { code, text: unescaped(text("grpc-message").unwrap_or_default()) })
        }
        None => Err(Failed::unavailable("the answer has no grpc-status")),
    }
}

/// `grpc-message` is percent-encoded.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&digits).unwrap_or("00").to_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
