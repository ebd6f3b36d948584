//! What the service knows of a request before the signer decides. It travels through the signer and
//! back with the decision, so that a service which was restarted in between records it too.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use chancery_signer_api::MAX_CONTEXT_BYTES;
use minicbor::{Decode, Encode};

use crate::listen::RequestId;

/// A realm's name is shorter; a stranger's path need not be.
const MAX_REALM_BYTES: usize = 64;
/// What identifies a client's software is at the beginning of its user agent.
const MAX_USER_AGENT_BYTES: usize = 120;

/// The source of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Context {
    /// The realm asked, cut to a bound.
    #[n(0)]
    pub realm: String,
    /// The id of the request.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub request_id: Vec<u8>,
    /// Source address: 4 or 16 bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub address: Vec<u8>,
    /// `User-Agent`, cut to a bound.
    #[n(3)]
    pub user_agent: String,
    /// When it arrived, Unix milliseconds.
    #[n(4)]
    pub arrived_ms: u64,
}

impl Context {
    /// The context of a request that arrives now.
    #[must_use]
    pub fn new(id: RequestId, realm: &str, address: IpAddr, headers: &HeaderMap) -> Self {
        let address = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Self { address, ..Self::local(Some(id), realm, headers) }
    }

    /// The context of a request that arrives now over a socket of this machine.
    #[must_use]
    pub fn local(id: Option<RequestId>, realm: &str, headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).map(|v| v.as_bytes()).unwrap_or_default();
        let agent = String::from_utf8_lossy(agent);
        Self {
            realm: cut(realm, MAX_REALM_BYTES).to_owned(),
            request_id: id.map(|id| id.bytes()).unwrap_or_default(),
            address: Vec::new(),
            user_agent: cut(&agent, MAX_USER_AGENT_BYTES).to_owned(),
            arrived_ms: super::now_ms(),
        }
    }

    /// As it goes to the signer; at most [`MAX_CONTEXT_BYTES`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = minicbor::to_vec(self).unwrap_or_default();
        if bytes.len() > MAX_CONTEXT_BYTES { Vec::new() } else { bytes }
    }

    /// As it came back; nothing is known where it does not parse.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        minicbor::decode(bytes).unwrap_or_default()
    }

    /// The address as text; empty where it is unknown.
    #[must_use]
    pub fn address_text(&self) -> String {
        if let Ok(v4) = <[u8; 4]>::try_from(self.address.as_slice()) {
            return IpAddr::from(v4).to_string();
        }
        let v6 = <[u8; 16]>::try_from(self.address.as_slice());
        v6.map(|v6| IpAddr::from(v6).to_string()).unwrap_or_default()
    }
}

fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_longest_context_fits_and_comes_back() {
        let long = "é".repeat(500);
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_bytes(long.as_bytes()).unwrap());
        let address = "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap();
        let context = Context::new(RequestId::new(), &long, address, &headers);
        let bytes = context.encode();
        assert!((200..=MAX_CONTEXT_BYTES).contains(&bytes.len()), "{}", bytes.len());
        assert_eq!(Context::decode(&bytes), context);
        assert_eq!(context.address_text(), address.to_string());
    }

    #[test]
    fn what_is_no_context_is_an_unknown_one() {
        for bytes in [&b""[..], b"ctx", &[0xff; 40]] {
            assert_eq!(Context::decode(bytes), Context::default());
        }
        assert_eq!(Context::default().address_text(), "");
    }
}
