//! Ports that nobody else takes between two starts of a service.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which Linux takes local ports for outgoing connections (32768 and up), so
/// that no client's connection sits on a port while its service is down.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A TCP port on the loopback address, reserved among all labs of this machine as long as this
/// lives: the UDP port of the same number is the lock, which the kernel gives back with the process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: UdpSocket,
}

impl Port {
    /// A free port.
    ///
    /// # Panics
    /// When all ports are in use.
    #[must_use]
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Processes start at different places, so that they seldom try the same ports.
        let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7);
            let number = FIRST.saturating_add(start.wrapping_add(step) % COUNT);
            let Ok(lock) = UdpSocket::bind(("127.0.0.1", number)) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port");
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:<number>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
