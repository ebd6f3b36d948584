//! Which address a request came from, when trusted proxies stand in between.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;
use axum::http::header::{FORWARDED, HeaderName};
use serde::Deserialize;

use super::ListenError;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses that are looked at in a forwarding header: more than any chain of proxies has.
pub const MAX_FORWARDED_HOPS: usize = 32;

/// A block of IP addresses: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` lies in the block. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = mask(self.prefix, 32) as u32;
                network.to_bits() == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                network.to_bits() == address.to_bits() & mask(self.prefix, 128)
            }
            _ => false,
        }
    }
}

/// The mask whose highest `prefix` of `width` bits are set, in the low `width` bits.
fn mask(prefix: u8, width: u8) -> u128 {
    let ones = u128::MAX >> (128 - u32::from(width));
    let host = u32::from(width.saturating_sub(prefix));
    ones & u128::MAX.checked_shl(host).unwrap_or(0)
}

impl FromStr for Network {
    type Err = ListenError;

    /// # Errors
    ///
    /// [`ListenError::Network`] if it is not an address, the prefix is too long, or bits beyond
    /// the prefix are set.
    fn from_str(given: &str) -> Result<Self, ListenError> {
        let error = |problem: String| ListenError::Network { given: given.to_owned(), problem };
        let (address, prefix) = match given.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (given, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| error("write `10.0.0.0/8`, `2001:db8::/32` or one address".into()))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width)
                .ok_or_else(|| error(format!("the prefix must be a number up to {width}")))?,
            Some(_) => return Err(error(format!("the prefix must be a number up to {width}"))),
        };
        let network = match address {
            IpAddr::V4(a) => {
                let bits = a.to_bits() & mask(prefix, 32) as u32;
                IpAddr::V4(Ipv4Addr::from_bits(bits))
            }
            IpAddr::V6(a) => {
                let bits = a.to_bits() & mask(prefix, 128);
                IpAddr::V6(bits.into())
            }
        };
        if network != address {
            let problem = format!("bits beyond the prefix are set; write `{network}/{prefix}`");
            return Err(error(problem));
        }
        if matches!(address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some()) {
            return Err(error("write IPv4 networks in their own form".into()));
        }
        let address = network;
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Network {
    type Error = ListenError;

    fn try_from(given: String) -> Result<Self, ListenError> {
        given.parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address that a request came from. That is the peer, unless the peer is a trusted proxy:
/// then it is the last address in `X-Forwarded-For` or `Forwarded` (RFC 7239) that is not one,
/// because everything before it may be the client's invention.
///
/// If that is not an address (RFC 7239 section 6 allows names), the peer counts. So it does if
/// both headers are present and do not agree: a proxy sets one of them and passes a client's
/// other one on, and nothing tells which.
#[must_use]
pub fn client_address(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.ip().to_canonical();
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let x_forwarded_for = walk(headers, &X_FORWARDED_FOR, parse_node, is_trusted);
    let forwarded = walk(headers, &FORWARDED, parse_forwarded, is_trusted);
    match (x_forwarded_for, forwarded) {
        (Walk::Address(a), Walk::Address(b)) if a == b => a,
        (Walk::Address(a), Walk::Absent) | (Walk::Absent, Walk::Address(a)) => a,
        _ => peer,
    }
}

/// What a forwarding header says.
enum Walk {
    Absent,
    Malformed,
    Address(IpAddr),
}

/// Walks a header's elements from the last, nearest hop to the first address that is not
/// trusted; if all are trusted, to the first hop.
fn walk(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&str) -> Option<IpAddr>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Walk {
    let mut found = Walk::Absent;
    let mut hops = 0;
    for value in headers.get_all(name).iter().rev() {
        let Ok(value) = value.to_str() else {
            return Walk::Malformed;
        };
        for element in value.rsplit(',') {
            hops += 1;
            let address = parse(element.trim()).filter(|_| hops <= MAX_FORWARDED_HOPS);
            match address {
                None => return Walk::Malformed,
                Some(address) if is_trusted(address) => found = Walk::Address(address),
                Some(address) => return Walk::Address(address),
            }
        }
    }
    found
}

/// An element of `Forwarded`: parameters of which `for` counts.
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let mut node = None;
    for pair in element.split(';') {
        let (name, value) = pair.trim().split_once('=')?;
        if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
            return None;
        }
    }
    let node = node?;
    let unquoted = node.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
    parse_node(unquoted.unwrap_or(node))
}

/// An address with or without port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_node(node: &str) -> Option<IpAddr> {
    let bracketed = node.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let address = bracketed
        .and_then(|n| n.parse().ok().map(IpAddr::V6))
        .or_else(|| node.parse().ok())
        .or_else(|| node.parse().ok().map(|socket: SocketAddr| socket.ip()))?;
    Some(address.to_canonical())
}
