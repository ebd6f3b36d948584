//! The event loop: one thread, one peer, no blocking call but `poll`.
//!
//! A peer that does not read or write cannot keep a key alive: the loop never waits for it longer
//! than until the next second, when the keys are swept (INVARIANT I4).

use std::io;
use std::time::Duration;

use chancery_signer_api::{Fault, FaultCode, FrameBuffer, Request, Response, encode};
use rustix::event::PollFlags;

use crate::clock::{Clock, SystemClock};
use crate::door::{Door, Stream, Woken};
use crate::signer::{Error as SignerError, Signer};

/// How much is read at a time: a frame of 64 requests usually fits.
const READ_BYTES: usize = 128 * 1024;
/// With this much unsent, nothing more is read: a peer that does not read its answers waits.
const MAX_UNSENT_BYTES: usize = 4 * 1024 * 1024;

/// No more than this passes between two sweeps, whatever the wall clock shows.
const SWEEP_WITHIN_MS: u64 = 1_000;

/// A peer that says nothing is sent away after this many milliseconds: it holds the only place.
const GREETING_WITHIN_MS: u64 = 5_000;

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signer itself failed.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The operating system refused.
    #[error("signer socket: {0}")]
    Io(#[from] io::Error),
}

/// Why it ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody was connected for too long.
    Alone,
    /// The peer asked for it.
    Asked,
}

struct Peer {
    stream: Stream,
    inbox: FrameBuffer,
    outbox: Vec<u8>,
    sent: usize,
    closing: bool,
    ending: bool,
    /// Requests wait in the inbox until the peer has taken its answers.
    held_back: bool,
    /// Boot-time milliseconds of its connection, until its first whole message.
    silent_since: Option<u64>,
}

/// Serves until the signer ends, which it does after `alone_for` without a peer.
///
/// # Errors
/// [`Error`]; all keys are gone then.
pub fn run(
    door: &Door,
    signer: &mut Signer<SystemClock>,
    alone_for: Duration,
) -> Result<Ended, Error> {
    let mut peer: Option<Peer> = None;
    let mut clock = SystemClock;
    let mut alone_since = clock.read().boot_ms;
    let mut swept = clock.read();
    let mut scratch = vec![0; READ_BYTES];
    loop {
        let now = clock.read();
        // Windows end with wall seconds; a host that holds the wall clock still does not hold the
        // boot-time clock.
        let next_second = now.wall_ms / 1_000 != swept.wall_ms / 1_000;
        if next_second || now.boot_ms.saturating_sub(swept.boot_ms) >= SWEEP_WITHIN_MS {
            swept = now;
            signer.tick()?;
        }
        let woken = wait(door, peer.as_ref(), 1_002_u64.saturating_sub(now.wall_ms % 1_000))?;
        let Some(connected) = &mut peer else {
            peer = accept(door, signer)?;
            let alone = clock.read().boot_ms.saturating_sub(alone_since);
            if peer.is_none() && Duration::from_millis(alone) >= alone_for {
                return Ok(Ended::Alone);
            }
            continue;
        };
        let alive = woken == Woken::Look && connected.turn(signer, &mut scratch);
        let drained = connected.unsent() == 0;
        if connected.ending && (drained || !alive) {
            return Ok(Ended::Asked);
        }
        let silent = connected
            .silent_since
            .is_some_and(|since| clock.read().boot_ms.saturating_sub(since) >= GREETING_WITHIN_MS);
        if !alive || silent || (connected.closing && drained) {
            peer = None;
            door.forget(&mut scratch);
            alone_since = clock.read().boot_ms;
        }
    }
}

fn wait(door: &Door, peer: Option<&Peer>, ms: u64) -> Result<Woken, io::Error> {
    let limit = Duration::from_millis(ms);
    let Some(peer) = peer else { return door.wait(limit).map(|()| Woken::Look) };
    let mut flags = PollFlags::empty();
    if peer.unsent() > 0 {
        flags |= PollFlags::OUT;
    }
    if peer.unsent() < MAX_UNSENT_BYTES && !peer.closing {
        flags |= PollFlags::IN;
    }
    let ready = peer.held_back && peer.unsent() < MAX_UNSENT_BYTES;
    door.wait_for(&peer.stream, flags, if ready { Duration::ZERO } else { limit })
}

fn accept(door: &Door, signer: &mut Signer<SystemClock>) -> Result<Option<Peer>, io::Error> {
    let Some(stream) = door.admit()? else { return Ok(None) };
    signer.connected();
    Ok(Some(Peer {
        stream,
        inbox: FrameBuffer::default(),
        outbox: Vec::new(),
        sent: 0,
        closing: false,
        ending: false,
        held_back: false,
        silent_since: Some(SystemClock.read().boot_ms),
    }))
}

impl Peer {
    fn unsent(&self) -> usize {
        self.outbox.len().saturating_sub(self.sent)
    }

    /// Reads what is there, answers, writes what fits. `false` when the peer is gone.
    fn turn(&mut self, signer: &mut Signer<SystemClock>, scratch: &mut [u8]) -> bool {
        use rustix::io::Errno;
        if !self.flush() {
            return false;
        }
        if self.closing || self.unsent() >= MAX_UNSENT_BYTES {
            return true;
        }
        if !self.held_back {
            match rustix::io::read(&self.stream, &mut *scratch) {
                Ok(0) => return false,
                Ok(n) => self.inbox.extend(scratch.get(..n).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        self.held_back = false;
        while !self.closing {
            // A few bytes may ask for megabytes: answers are made as they are taken.
            if self.unsent() >= MAX_UNSENT_BYTES {
                self.held_back = true;
                break;
            }
            match self.inbox.next_message::<Request>() {
                Ok(None) => break,
                Ok(Some(request)) => {
                    let to_sign = matches!(request, Request::Prepare(_) | Request::Start(_));
                    self.silent_since = None;
                    let response = signer.handle(request);
                    self.answer(&response);
                    if !self.flush() {
                        return false;
                    }
                    if to_sign {
                        // Step 5 overlaps with the service's disk: its answer has just left.
                        signer.sign_open();
                    }
                }
                Err(e) => {
                    let detail = format!("{e}; the connection ends");
                    self.answer(&Response::Fault(Fault { code: FaultCode::Malformed, detail }));
                    self.closing = true;
                }
            }
        }
        self.flush()
    }

    fn answer(&mut self, response: &Response) {
        match response {
            Response::Ending => self.ending = true,
            Response::Fault(f) if matches!(f.code, FaultCode::Phase | FaultCode::Version) => {
                self.closing = true;
            }
            _ => {}
        }
        if let Err(e) = encode(response, &mut self.outbox) {
            let fault = Fault { code: FaultCode::Internal, detail: e.to_string() };
            // A fault of one short sentence always fits.
            let _ = encode(&Response::Fault(fault), &mut self.outbox);
        }
    }

    fn flush(&mut self) -> bool {
        use rustix::io::Errno;
        while self.unsent() > 0 {
            let waiting = self.outbox.get(self.sent..).unwrap_or_default();
            match rustix::io::write(&self.stream, waiting) {
                Ok(n) => self.sent = self.sent.saturating_add(n),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        self.outbox.clear();
        self.sent = 0;
        true
    }
}
