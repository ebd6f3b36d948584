//! Source addresses that send proofs which do not verify: limited, so that strangers cannot make
//! the signer verify signatures for them. Clients whose proofs verify are never counted here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The most addresses remembered at a time: some 3 MB. Beyond it, addresses whose allowance is
/// whole again are forgotten; if none is, all are, which lets each send one second's worth more.
const MAX_SOURCES: usize = 65_536;

/// The table.
#[derive(Debug)]
pub struct Sources {
    per_s: f64,
    seen: Mutex<HashMap<IpAddr, Allowance>>,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Sources {
    /// Allows so many unverifiable proofs a second from one address.
    #[must_use]
    pub fn new(per_s: u32) -> Self {
        Self { per_s: f64::from(per_s), seen: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<IpAddr, Allowance>) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a request from this address may be looked at.
    #[must_use]
    pub fn may_ask(&self, address: IpAddr, now: Instant) -> bool {
        let key = network_of(address);
        self.with(|seen| seen.get(&key).is_none_or(|a| self.refilled(*a, now) >= 1.0))
    }

    /// A proof from this address did not verify.
    pub fn note_failure(&self, address: IpAddr, now: Instant) {
        let key = network_of(address);
        self.with(|seen| {
            if seen.len() >= MAX_SOURCES && !seen.contains_key(&key) {
                seen.retain(|_, a| self.refilled(*a, now) < self.per_s);
                if seen.len() >= MAX_SOURCES {
                    seen.clear();
                }
            }
            let fresh = Allowance { left: self.per_s, at: now };
            let allowance = seen.entry(key).or_insert(fresh);
            *allowance =
                Allowance { left: (self.refilled(*allowance, now) - 1.0).max(0.0), at: now };
        });
    }

    fn refilled(&self, allowance: Allowance, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(allowance.at).as_secs_f64();
        (allowance.left + elapsed * self.per_s).min(self.per_s)
    }
}

/// One subscriber usually holds a whole /64 of IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn failures_use_up_an_allowance_that_refills() {
        let sources = Sources::new(3);
        let now = Instant::now();
        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            assert!(sources.may_ask(address, now));
            sources.note_failure(address, now);
        }
        assert!(!sources.may_ask(address, now));
        assert!(sources.may_ask("192.0.2.2".parse().unwrap(), now));
        assert!(sources.may_ask(address, now + Duration::from_millis(400)));
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let sources = Sources::new(1);
        let now = Instant::now();
        sources.note_failure("2001:db8::1".parse().unwrap(), now);
        assert!(!sources.may_ask("2001:db8::2".parse().unwrap(), now));
        assert!(sources.may_ask("2001:db8:0:1::2".parse().unwrap(), now));
    }

    #[test]
    fn memory_is_bounded() {
        let sources = Sources::new(1);
        let now = Instant::now();
        for i in 0..(MAX_SOURCES as u32 + 10) {
            sources.note_failure(IpAddr::from(i.to_be_bytes()), now);
        }
        assert!(sources.with(|s| s.len()) <= MAX_SOURCES);
    }
}
