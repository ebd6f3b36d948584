//! Where something stands in a log, as tokens and key sets spell it.

use std::fmt;

use chancery_tlog::{LogId, MAX_TREE_SIZE};

/// Characters of a `jti`'s randomness: the 16 octets that keep leaves unguessable, in base64url.
const JTI_RANDOM_CHARS: usize = 22;

/// A place in a log: `<log id>.<index>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogAddress {
    log: LogId,
    index: u64,
}

impl LogAddress {
    /// The log.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// The zero-based index of the entry.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Reads a key's member `log`, `<log id>.<index>`; `None` for any other spelling.
    pub(crate) fn of_key(log: &str) -> Option<Self> {
        let (log, index) = log.split_once('.')?;
        Some(Self { log: log.parse().ok()?, index: decimal(index)? })
    }

    /// Reads a `jti` that names the log `log`, spelled `spelled`:
    /// `<log id>.<index>.<128 bits of randomness, base64url>`; `None` for any other log and any
    /// other spelling. A log id has only one spelling, so that it need not be decoded again.
    pub(crate) fn of_jti(jti: &str, spelled: &str, log: LogId) -> Option<Self> {
        let (index, random) = jti.strip_prefix(spelled)?.strip_prefix('.')?.split_once('.')?;
        if !is_random(random) {
            return None;
        }
        Some(Self { log, index: decimal(index)? })
    }

    /// Reads a `jti` that has the form of an address, in whichever log; `None` for any other text.
    #[must_use]
    pub fn in_jti(jti: &str) -> Option<Self> {
        let (address, random) = jti.rsplit_once('.')?;
        is_random(random).then(|| Self::of_key(address))?
    }
}

impl fmt::Display for LogAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.log, self.index)
    }
}

/// Whether this is 16 octets in their one spelling (RFC 4648, sections 3.5 and 5), whatever they are:
/// the last character stands for two bits, and the four that it could add are zero.
fn is_random(text: &str) -> bool {
    let octets = text.as_bytes();
    octets.len() == JTI_RANDOM_CHARS
        && octets
            .iter()
            .all(|octet| matches!(octet, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        && matches!(octets.last(), Some(b'A' | b'Q' | b'g' | b'w'))
}

/// A plain decimal index below the size of the largest tree: digits only, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|index| plain && *index < MAX_TREE_SIZE)
}

#[cfg(test)]
mod tests {
    use chancery_token::b64;
    use proptest::prelude::*;

    use super::*;

    const LOG: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn of_jti(jti: &str) -> Option<LogAddress> {
        LogAddress::of_jti(jti, LOG, LOG.parse().unwrap())
    }

    #[test]
    fn addresses_round_trip() {
        for index in [0, 1, 10, MAX_TREE_SIZE - 1] {
            let text = format!("{LOG}.{index}");
            let address = LogAddress::of_key(&text).unwrap();
            assert_eq!((address.index(), address.log().to_string()), (index, LOG.to_owned()));
            assert_eq!(address.to_string(), text);
            assert_eq!(of_jti(&format!("{text}.{LOG}")), Some(address));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for index in ["", "-1", "+1", "01", "00", "1 ", " 1", "1e3", "0x1", "9223372036854775807"] {
            assert_eq!(LogAddress::of_key(&format!("{LOG}.{index}")), None, "{index:?}");
            assert_eq!(of_jti(&format!("{LOG}.{index}.{LOG}")), None, "{index:?}");
        }
        for log in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAAAA=", "a.b"] {
            assert_eq!(LogAddress::of_key(&format!("{log}.1")), None, "{log:?}");
            assert_eq!(of_jti(&format!("{LOG}.1.{log}")), None, "{log:?}");
        }
        assert_eq!(LogAddress::of_key(LOG), None);
        assert_eq!(LogAddress::of_key(&format!("{LOG}.1.2")), None);
        assert_eq!(of_jti(&format!("{LOG}.1")), None);
        assert_eq!(of_jti(&format!("{LOG}1.{LOG}")), None);
        assert_eq!(of_jti(&format!("BBBBBBBBBBBBBBBBBBBBBA.1.{LOG}")), None);
        assert_eq!(of_jti(&format!("{LOG}.1.{LOG}.{LOG}")), None);
    }

    proptest! {
        #[test]
        fn randomness_is_what_decodes_to_sixteen_octets(
            text in prop_oneof!["[A-Za-z0-9_-]{22}", "[A-Za-z0-9_-]{21}[AQgw]", "[A-Zb-y+/=é]{20,23}"],
        ) {
            prop_assert_eq!(is_random(&text), b64::decode_array::<16>(&text).is_ok(), "{}", text);
        }
    }
}
