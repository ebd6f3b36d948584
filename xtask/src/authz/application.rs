//! The application behind nginx: answers each request with what it saw of it.

use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A request's header is read no further.
const MAX_HEADER_BYTES: u64 = 128 * 1024;

/// A running application; its threads end with the process.
pub struct Application {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Application {
    /// Listens on a free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let counter = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = counter.clone();
                // A connection that breaks is nginx's to report.
                thread::spawn(move || answer(stream, &counter));
            }
        });
        Ok(Self { address, requests })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// One request: nginx opens a connection for each.
fn answer(stream: TcpStream, counter: &AtomicU64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream).take(MAX_HEADER_BYTES);
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            text => {
                // Names are told in lower case, the first line as it is.
                let line = match text.split_once(": ") {
                    Some((name, value)) if !seen.is_empty() => {
                        format!("{}: {value}\n", name.to_lowercase())
                    }
                    _ => format!("{text}\n"),
                };
                seen.push_str(&line);
            }
        }
    }
    counter.fetch_add(1, Ordering::SeqCst);
    let length = seen.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut stream = reader.into_inner().into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(seen.as_bytes())
}
