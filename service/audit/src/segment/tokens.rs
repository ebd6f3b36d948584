//! Which tokens a segment may hold: the range of their places in the log, which their `jti` names, and a
//! Bloom filter of their digests. It stands in the footer, encrypted with it, and never says no of a
//! token that is there.
//!
//! ```text
//! 1 <lowest index> <highest index> <bits, base64url>    indexes `-` where a `jti` names none
//! ```

use chancery_token::b64;

use crate::Record;

/// The key of the file's metadata.
pub(super) const KEY: &str = "chancery.tokens";

/// With six bits and four places a token, six of a hundred segments are read in vain; each is read in
/// milliseconds.
const BITS_PER_TOKEN: usize = 6;
const PLACES: usize = 4;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Lowest and highest index; `None` where one `jti` is no address.
    indexes: Option<(u64, u64)>,
    bits: Vec<u8>,
}

impl Tokens {
    /// Those of these records.
    pub(super) fn of(records: &[Record]) -> Self {
        let count = records.iter().filter(|record| record.token.is_some()).count();
        let mut tokens = Self {
            indexes: Some((u64::MAX, 0)),
            bits: vec![0; count.saturating_mul(BITS_PER_TOKEN).div_ceil(8)],
        };
        for token in records.iter().filter_map(|record| record.token.as_ref()) {
            tokens.indexes = match (tokens.indexes, index_of(&token.jti)) {
                (Some((low, high)), Some(index)) => Some((low.min(index), high.max(index))),
                _ => None,
            };
            for place in places(&token.digest, tokens.bits.len()) {
                if let Some(byte) = tokens.bits.get_mut(place / 8) {
                    *byte |= 1 << (place % 8);
                }
            }
        }
        tokens
    }

    pub(super) fn to_text(&self) -> String {
        let bits = b64::encode(&self.bits);
        match self.indexes {
            Some((low, high)) => format!("1 {low} {high} {bits}"),
            None => format!("1 - - {bits}"),
        }
    }
}

/// The same as it stands in a footer. It is not decoded: of a hundred thousand bits a question needs four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written<'a> {
    indexes: Option<(u64, u64)>,
    /// In base64url.
    bits: &'a str,
}

impl<'a> Written<'a> {
    /// Reads it; nothing is known where it is not of this version.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let (version, low, high) = (parts.next()?, parts.next()?, parts.next()?);
        let indexes = match (low, high) {
            ("-", "-") => None,
            (low, high) => Some((low.parse().ok()?, high.parse().ok()?)),
        };
        let bits = parts.next()?;
        (version == "1").then_some(Self { indexes, bits })
    }

    /// Whether a token with this `jti` may be there.
    #[must_use]
    pub fn may_hold_jti(&self, jti: &str) -> bool {
        match (self.indexes, index_of(jti)) {
            (Some((low, high)), Some(index)) => (low..=high).contains(&index),
            // Every one that is there is an address, and this is none.
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// Whether a token with this digest may be there.
    #[must_use]
    pub fn may_hold_digest(&self, digest: &[u8; 32]) -> bool {
        // Six bits a letter.
        let bytes = self.bits.len().saturating_mul(6) / 8;
        places(digest, bytes).all(|place| self.is_set(place))
    }

    /// What is no base64url says nothing.
    fn is_set(&self, place: usize) -> bool {
        // Letters begin with the highest bit of the first byte, places with its lowest.
        let at = (place / 8).saturating_mul(8).saturating_add(7 - place % 8);
        let Some(letter) = self.bits.as_bytes().get(at / 6) else { return false };
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return true,
        };
        value & (1 << (5 - at % 6)) != 0
    }
}

/// The place in its log that a `jti` names: `<log id>.<index>.<randomness>`.
fn index_of(jti: &str) -> Option<u64> {
    let parts: Vec<&str> = jti.split('.').collect();
    let [_, index, _] = parts.as_slice() else { return None };
    index.parse().ok()
}

/// A digest is random already: its words are its hashes. With no byte there is no place, and nothing is
/// there.
fn places(digest: &[u8; 32], bytes: usize) -> impl Iterator<Item = usize> + use<> {
    let bits = u64::try_from(bytes).unwrap_or(0).saturating_mul(8);
    let (words, _) = digest.as_chunks::<8>();
    let words: Vec<u64> = words.iter().take(PLACES).map(|word| u64::from_be_bytes(*word)).collect();
    words.into_iter().map(move |word| {
        word.checked_rem(bits).map_or(usize::MAX, |at| usize::try_from(at).unwrap_or(usize::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::granted;
    use crate::{Outcome, Token};

    #[test]
    fn what_is_there_is_never_denied_and_most_else_is() {
        let records = granted(5_000);
        let text = Tokens::of(&records).to_text();
        let tokens = Written::parse(&text).unwrap();
        for token in records.iter().filter_map(|r| r.token.as_ref()) {
            assert!(tokens.may_hold_jti(&token.jti) && tokens.may_hold_digest(&token.digest));
        }
        assert!(!tokens.may_hold_jti("x.5000.y") && !tokens.may_hold_jti("nonsense"));
        let others = granted(15_000).split_off(5_000);
        let passed = others.iter().filter_map(|r| r.token.as_ref());
        let passed = passed.filter(|t| tokens.may_hold_digest(&t.digest)).count();
        assert!(passed < 1_000, "{passed} of 10,000");
    }

    #[test]
    fn no_token_and_tokens_without_an_address() {
        let none = Tokens::of(&[Record::new(1, Outcome::Refused)]).to_text();
        let none = Written::parse(&none).unwrap();
        assert!(!none.may_hold_jti("x.0.y") && !none.may_hold_digest(&[0; 32]));
        let mut record = Record::new(1, Outcome::Granted);
        let token =
            Token { jti: "foreign".into(), digest: [3; 32], kid: [0; 32], exp: 1, lifetime_s: 1 };
        record.token = Some(token);
        let foreign = Tokens::of(&[record]).to_text();
        let foreign = Written::parse(&foreign).unwrap();
        assert!(foreign.may_hold_jti("foreign") && foreign.may_hold_digest(&[3; 32]));
        for wrong in ["", "2 1 2 AA", "1 1 2", "1 x 2 AA"] {
            assert_eq!(Written::parse(wrong), None, "{wrong}");
        }
        // Letters that are none deny nothing.
        let damaged = Written::parse("1 1 2 ****").unwrap();
        assert!(damaged.may_hold_digest(&[3; 32]));
    }
}
