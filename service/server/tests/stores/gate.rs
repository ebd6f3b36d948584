//! A way to an emulator that can be closed, and slowed down.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Forwards connections on loopback.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    closed: AtomicBool,
    ended: AtomicBool,
    delay_ms: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// An open way to `http://host:port`.
    pub fn to(endpoint: &str) -> Self {
        let target = endpoint.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for incoming in listener.incoming() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(incoming) = incoming {
                    accepting.connect(incoming);
                }
            }
        });
        Self { address, shared }
    }

    /// The URL of this side.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts every connection, and refuses new ones.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }

    /// Each answer takes so much longer.
    pub fn slow_down(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.close();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, incoming: TcpStream) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(outgoing) = TcpStream::connect(&self.target) else { return };
        let (Ok(from), Ok(to)) = (incoming.try_clone(), outgoing.try_clone()) else { return };
        self.connections.lock().unwrap().extend([from, to]);
        let (Ok(from), Ok(to)) = (incoming.try_clone(), outgoing.try_clone()) else { return };
        let _ = (incoming.set_nodelay(true), outgoing.set_nodelay(true));
        std::thread::spawn(move || copy(from, to, || Duration::ZERO));
        let shared = self.clone();
        std::thread::spawn(move || {
            copy(outgoing, incoming, || {
                Duration::from_millis(shared.delay_ms.load(Ordering::SeqCst))
            });
        });
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, delay: impl Fn() -> Duration) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(delay());
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
