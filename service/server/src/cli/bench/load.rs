//! The load generator: one thread, one epoll, requests that were made ahead. It does nothing that
//! the cores it shares with the service could be used for.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

/// Bytes read at a time: a response of 32 tokens.
const READ_BYTES: usize = 64 * 1024;
/// A service that answers nothing for this long has failed.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// The largest response: 256 tokens of 16 KiB.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// Stands once for each token in a response.
const TOKEN_MARK: &[u8] = b"\"access_token\"";

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As soon as a connection is free.
    Full,
    /// So many a second, whatever the service does: an open loop. Latency counts from the moment
    /// at which a request was due, so that a stall is felt by all that were due in it.
    PerSecond(f64),
}

/// What came back.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Latency of each request, microseconds, ascending.
    pub latency_us: Vec<f64>,
    /// Tokens in the measured time.
    pub tokens: u64,
    /// Tokens, those that came after the end of the measured time included.
    pub tokens_in_all: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// Bodies with the time of their arrival, where wanted.
    pub bodies: Vec<(Instant, Vec<u8>)>,
}

impl Outcome {
    /// Tokens a second.
    pub fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Adds what another slice of the same run brought.
    pub fn add(&mut self, other: Outcome) {
        self.latency_us.extend(other.latency_us);
        self.latency_us.sort_by(f64::total_cmp);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.tokens_in_all = self.tokens_in_all.saturating_add(other.tokens_in_all);
        self.requests = self.requests.saturating_add(other.requests);
        self.elapsed = self.elapsed.saturating_add(other.elapsed);
        self.bodies.extend(other.bodies);
    }
}

/// Open connections to a service.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    free: VecDeque<usize>,
    keep_bodies: bool,
}

struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Length of the whole response, once its head is there.
    expected: Option<Response>,
    /// When the request in progress was due.
    since: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Response {
    status: u16,
    body_at: usize,
    length: usize,
}

impl Load {
    /// Connects.
    pub fn connect(address: SocketAddr, connections: u16) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::new();
        for number in 0..u64::from(connections) {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            let data = epoll::EventData::new_u64(number);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            all.push(Connection { stream, inbox: Vec::new(), expected: None, since: None });
        }
        let free = (0..all.len()).collect();
        Ok(Self { epoll, connections: all, free, keep_bodies: false })
    }

    /// From now on the bodies of responses are kept.
    pub fn keep_bodies(&mut self) {
        self.keep_bodies = true;
    }

    /// Sends requests for `seconds`, or until there are no more, and waits for the answers to all
    /// that were sent.
    pub fn run(
        &mut self,
        requests: &mut impl Iterator<Item = Vec<u8>>,
        pace: Pace,
        seconds: f64,
    ) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let end = begun + Duration::from_secs_f64(seconds);
        let mut sender = Sender { pace, due: begun, end, requests, done: false };
        let mut outcome = Outcome::default();
        let mut scratch = vec![0; READ_BYTES];
        let mut events = Vec::with_capacity(self.connections.len());
        loop {
            while let Some(number) = self.free.pop_front() {
                let Some((due, request)) = sender.next(Instant::now()) else {
                    self.free.push_front(number);
                    break;
                };
                self.send(number, due, &request)?;
            }
            if self.free.len() == self.connections.len() && sender.done {
                break;
            }
            let wait = sender.wait(!self.free.is_empty(), Instant::now());
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, Some(&timespec(wait))) {
                Ok(0) if wait >= STUCK_AFTER => anyhow::bail!("the service does not answer"),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                self.receive(number, &mut scratch, sender.end, &mut outcome)?;
            }
        }
        outcome.elapsed = sender.end.min(Instant::now()).saturating_duration_since(begun);
        outcome.latency_us.sort_by(f64::total_cmp);
        Ok(outcome)
    }

    fn send(&mut self, number: usize, due: Instant, request: &[u8]) -> anyhow::Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        connection.since = Some(due);
        // A request fits into the socket's buffer, so this does not wait.
        connection.stream.write_all(request)?;
        Ok(())
    }

    fn receive(
        &mut self,
        number: usize,
        scratch: &mut [u8],
        end: Instant,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        let Some(response) = connection.read(scratch)? else { return Ok(()) };
        let now = Instant::now();
        let body = connection.inbox.get(response.body_at..).unwrap_or_default();
        let tokens = count_tokens(body);
        if response.status != 200 || tokens == 0 {
            let text = String::from_utf8_lossy(body);
            anyhow::bail!("the service answered {}: {}", response.status, text.escape_debug());
        }
        if let Some(since) = connection.since.take() {
            let took = now.saturating_duration_since(since);
            outcome.latency_us.push(took.as_secs_f64() * 1e6);
        }
        outcome.requests = outcome.requests.saturating_add(1);
        outcome.tokens_in_all = outcome.tokens_in_all.saturating_add(tokens);
        if now <= end {
            outcome.tokens = outcome.tokens.saturating_add(tokens);
        }
        if self.keep_bodies {
            outcome.bodies.push((now, body.to_vec()));
        }
        connection.inbox.clear();
        connection.expected = None;
        self.free.push_back(number);
        Ok(())
    }
}

/// Decides when the next request goes out.
struct Sender<I> {
    pace: Pace,
    due: Instant,
    end: Instant,
    requests: I,
    done: bool,
}

impl<I: Iterator<Item = Vec<u8>>> Sender<I> {
    /// The next request, if one is due, and since when.
    fn next(&mut self, now: Instant) -> Option<(Instant, Vec<u8>)> {
        if self.done {
            return None;
        }
        let due = match self.pace {
            Pace::Full => now,
            Pace::PerSecond(_) => self.due,
        };
        if due >= self.end {
            self.done = true;
            return None;
        }
        if due > now {
            return None;
        }
        let Some(request) = self.requests.next() else {
            // What comes back from here on is not at the pace that is measured.
            self.done = true;
            self.end = now;
            return None;
        };
        if let Pace::PerSecond(rate) = self.pace {
            self.due = due + Duration::from_secs_f64(1.0 / rate.max(1e-3));
        }
        Some((due, request))
    }

    fn wait(&self, has_free: bool, now: Instant) -> Duration {
        match self.pace {
            Pace::PerSecond(_) if has_free && !self.done => {
                self.due.min(self.end).saturating_duration_since(now)
            }
            _ => STUCK_AFTER,
        }
    }
}

impl Connection {
    /// Reads what is there; the response, once it is whole.
    fn read(&mut self, scratch: &mut [u8]) -> anyhow::Result<Option<Response>> {
        let read = self.stream.read(scratch)?;
        if read == 0 {
            anyhow::bail!("the service closed a connection");
        }
        self.inbox.extend_from_slice(scratch.get(..read).unwrap_or_default());
        if self.expected.is_none() {
            self.expected = parse_head(&self.inbox)?;
        }
        Ok(self.expected.filter(|r| self.inbox.len() >= r.length))
    }
}

/// Status and length of an HTTP/1.1 response, once its head is whole.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<Response>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if !name.eq_ignore_ascii_case("content-length") {
            return None;
        }
        value.trim().parse::<usize>().ok()
    });
    let body_at = end.saturating_add(4);
    match (status, length) {
        (Some(status), Some(length)) if length <= MAX_RESPONSE_BYTES => {
            Ok(Some(Response { status, body_at, length: body_at.saturating_add(length) }))
        }
        _ => {
            anyhow::bail!("the service answered something else than HTTP: {}", head.escape_debug())
        }
    }
}

fn count_tokens(body: &[u8]) -> u64 {
    let mut rest = body;
    let mut count = 0_u64;
    while let Some(at) = rest.iter().position(|b| *b == b'"') {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(TOKEN_MARK) {
            count = count.saturating_add(1);
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    count
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Len").unwrap().is_none());
        let head = b"HTTP/1.1 503 Busy\r\nx: y\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
        let response = parse_head(head).unwrap().unwrap();
        assert_eq!(response.status, 503);
        assert_eq!(response.length, head.len());
        assert_eq!(head.get(response.body_at..), Some(&b"{\"a\":1}"[..]));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn tokens_are_counted() {
        assert_eq!(count_tokens(br#"{"tokens":[{"access_token":"a"},{"access_token":"b"}]}"#), 2);
        assert_eq!(count_tokens(br#"{"error":"x"}"#), 0);
    }

    #[test]
    fn an_open_loop_sends_what_is_due_and_no_more() {
        let begun = Instant::now();
        let mut sender = Sender {
            pace: Pace::PerSecond(10.0),
            due: begun,
            end: begun + Duration::from_secs(1),
            requests: std::iter::repeat(Vec::new()),
            done: false,
        };
        let late = begun + Duration::from_millis(450);
        let due: Vec<_> = std::iter::from_fn(|| sender.next(late)).map(|(due, _)| due).collect();
        assert_eq!(due.len(), 5, "due at 0, 100, 200, 300 and 400 ms");
        assert_eq!(due.first(), Some(&begun));
        assert!(sender.wait(true, late) <= Duration::from_millis(50));
        assert_eq!(std::iter::from_fn(|| sender.next(begun + STUCK_AFTER)).count(), 5);
        assert!(sender.done);
    }
}
