//! Length prefix and CBOR: bytes in, messages out, without I/O.

use minicbor::{Decode, Encode};

use crate::{Error, MAX_FRAME_BYTES};

const PREFIX: usize = 4;

/// One message as a whole frame, appended to `out`.
///
/// # Errors
/// [`Error::TooLarge`]; `out` is unchanged then.
pub fn encode<T: Encode<()>>(message: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let written = minicbor::encode(message, &mut *out);
    let body = out.len().saturating_sub(start).saturating_sub(PREFIX);
    if written.is_err() || body > MAX_FRAME_BYTES {
        out.truncate(start);
        return Err(Error::TooLarge(body));
    }
    let length = u32::try_from(body).map_err(|_| Error::TooLarge(body))?;
    if let Some(prefix) = out.get_mut(start..).and_then(|b| b.first_chunk_mut::<PREFIX>()) {
        *prefix = length.to_be_bytes();
    }
    Ok(())
}

/// Collects bytes as they arrive and yields whole messages.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    read: usize,
}

impl FrameBuffer {
    /// Takes bytes as they arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`Error`]; the connection should end then, the stream is out of step.
    pub fn next_message<T: for<'b> Decode<'b, ()>>(&mut self) -> Result<Option<T>, Error> {
        let waiting = self.bytes.get(self.read..).unwrap_or_default();
        let Some((prefix, rest)) = waiting.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > MAX_FRAME_BYTES {
            return Err(Error::TooLarge(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let mut decoder = minicbor::Decoder::new(body);
        let message = decoder.decode().map_err(|e| Error::Malformed(e.to_string()))?;
        if decoder.position() != length {
            return Err(Error::Trailing(length.saturating_sub(decoder.position())));
        }
        self.read = self.read.saturating_add(PREFIX).saturating_add(length);
        Ok(Some(message))
    }

    /// Bytes waiting for the rest of their frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.bytes.len().saturating_sub(self.read)
    }
}
