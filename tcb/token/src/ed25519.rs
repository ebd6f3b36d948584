//! Which Ed25519 public keys are refused before any signature is looked at.
//!
//! `aws-lc-rs` takes any 32 octets. Under a point of small order a signature can verify for many or
//! all messages, and a y-coordinate that is not reduced gives one key two spellings, hence two
//! thumbprints. An encoding that is no curve point at all needs no check: under it nothing verifies.

use crate::Error;

/// The y-coordinates of the eight points of small order (orders 1, 2, 4 and 8), little-endian,
/// reduced, without the sign bit. The last two are the y of the points of order 8 and its negative.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    with_ends(1, 0, 0),
    with_ends(0, 0, 0),
    with_ends(0xec, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// The field prime, 2^255 - 19, little-endian.
const PRIME: [u8; 32] = with_ends(0xed, 0xff, 0x7f);

/// The sign of x, in the last octet (RFC 8032, section 5.1.2).
const SIGN_BIT: u8 = 0x80;

/// Thirty equal octets between two others: how these few numbers look in little-endian.
const fn with_ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    let [low, .., high] = &mut bytes;
    *low = first;
    *high = last;
    bytes
}

/// Refuses unreduced encodings and points of small order.
pub(crate) fn check(key: &[u8; 32]) -> Result<(), Error> {
    let mut y = *key;
    let [.., last] = &mut y;
    *last &= !SIGN_BIT;
    if y.iter().rev().ge(PRIME.iter().rev()) {
        return Err(Error::MemberEncoding("x"));
    }
    if SMALL_ORDER_Y.contains(&y) {
        return Err(Error::SmallOrder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, ParsedPublicKey};

    use super::*;

    #[test]
    fn the_library_alone_would_accept_a_forgery() {
        // Under the neutral point, R = neutral and S = 0 verifies for every message.
        let neutral = with_ends(1, 0, 0);
        let mut signature = [0; 64];
        signature[0] = 1;
        let key = ParsedPublicKey::new(&ED25519, neutral).unwrap();
        assert!(key.verify_sig(b"anything", &signature).is_ok());
        assert_eq!(check(&neutral), Err(Error::SmallOrder));
    }

    #[test]
    fn every_listed_point_is_of_small_order() {
        // With R = neutral and S = 0 the equation is h * A = 0, so a point whose order divides
        // eight verifies for about one message in at most eight; any other point never does.
        let mut signature = [0; 64];
        signature[0] = 1;
        for y in SMALL_ORDER_Y {
            let key = ParsedPublicKey::new(&ED25519, y).unwrap();
            let hits = (0..200_u8).filter(|n| key.verify_sig(&[*n], &signature).is_ok()).count();
            assert!(hits > 0, "{y:02x?}");
            let mut negative = y;
            negative[31] |= SIGN_BIT;
            assert_eq!(check(&y), Err(Error::SmallOrder));
            assert_eq!(check(&negative), Err(Error::SmallOrder));
        }
    }

    #[test]
    fn unreduced_encodings_are_refused() {
        for first in 0xed..=0xff {
            let mut key = with_ends(first, 0xff, 0x7f);
            assert_eq!(check(&key), Err(Error::MemberEncoding("x")));
            key[31] |= SIGN_BIT;
            assert_eq!(check(&key), Err(Error::MemberEncoding("x")));
        }
        assert_eq!(check(&with_ends(0xeb, 0xff, 0x7f)), Ok(()));
        assert_eq!(check(&with_ends(0xff, 0xff, 0x7e)), Ok(()));
    }

    #[test]
    fn what_is_no_point_verifies_nothing() {
        // y = 2 has no x on the curve; the library loads it and can never verify under it.
        let key = with_ends(2, 0, 0);
        assert_eq!(check(&key), Ok(()));
        let mut signature = [0; 64];
        signature[0] = 1;
        let parsed = ParsedPublicKey::new(&ED25519, key).unwrap();
        assert!((0..200_u8).all(|n| parsed.verify_sig(&[n], &signature).is_err()));
    }
}
