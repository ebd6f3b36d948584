//! What a thief does with a memory image: tries every place as the private half of a public key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ML_DSA_44_SIGNING, PqdsaKeyPair,
};
use chancery_token::{Algorithm, PublicKey, b64};

use crate::process::Image;

/// The library aligns its blocks and its words.
const STEP: usize = 8;
/// Bits of RSA keys here.
const RSA_BYTES: usize = 256;

/// A public key whose private half is looked for.
pub struct Public {
    pub name: String,
    pub key: PublicKey,
}

/// A private key, as it was found.
pub struct Found {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The private halves that stand in the images, in the order of the public ones.
pub fn recover(images: &[Image], publics: &[Public]) -> Vec<Found> {
    publics.iter().filter_map(|public| recover_one(images, public)).collect()
}

fn recover_one(images: &[Image], public: &Public) -> Option<Found> {
    let size = private_bytes(public.key.algorithm());
    let judge = Judge::new(&public.key);
    for range in images.iter().flat_map(|i| i.writable()) {
        let windows = range.windows(size).step_by(STEP);
        for window in windows.filter(|w| looks_random(w)) {
            if judge.is_private(window) {
                return Some(Found { name: public.name.clone(), bytes: window.to_vec() });
            }
        }
    }
    None
}

/// Bytes of what is looked for: a seed, a scalar, one of RSA's primes.
fn private_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Es384 => 48,
        Algorithm::Rs256 => RSA_BYTES / 2,
        _ => 32,
    }
}

/// Keys have no two words alike and few zero bytes; most memory is otherwise.
fn looks_random(window: &[u8]) -> bool {
    let zeros = window.iter().filter(|b| **b == 0 || **b == 0xff).count();
    zeros * 8 <= window.len()
}

enum Judge<'a> {
    Ed25519(&'a [u8]),
    Ecdsa(&'static EcdsaSigningAlgorithm, &'a [u8]),
    MlDsa(&'a [u8]),
    Rsa(Vec<u64>),
}

impl<'a> Judge<'a> {
    fn new(key: &'a PublicKey) -> Self {
        match key.algorithm() {
            Algorithm::Es256 => Self::Ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, key.raw()),
            Algorithm::Es384 => Self::Ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, key.raw()),
            Algorithm::MlDsa44 => Self::MlDsa(key.raw()),
            Algorithm::Rs256 => {
                let mut n = b64::decode(key.jwk()["n"].as_str().unwrap()).unwrap();
                n.reverse();
                Self::Rsa(words(&n))
            }
            _ => Self::Ed25519(key.raw()),
        }
    }

    fn is_private(&self, window: &[u8]) -> bool {
        match self {
            Self::Ed25519(public) => Ed25519KeyPair::from_seed_unchecked(window)
                .is_ok_and(|pair| pair.public_key().as_ref() == *public),
            Self::MlDsa(public) => PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, window)
                .is_ok_and(|pair| pair.public_key().as_ref() == *public),
            Self::Ecdsa(scheme, public) => {
                // The library keeps scalars as little-endian words.
                let turned: Vec<u8> = window.iter().rev().copied().collect();
                [window, &turned].iter().any(|scalar| {
                    EcdsaKeyPair::from_private_key_and_public_key(scheme, scalar, public).is_ok()
                })
            }
            Self::Rsa(modulus) => {
                // A prime is odd and, for a modulus of full length, has its highest bit set.
                let prime = words(window);
                window[0] % 2 == 1 && window[window.len() - 1] >= 0x80 && divides(&prime, modulus)
            }
        }
    }
}

fn words(little_endian: &[u8]) -> Vec<u64> {
    little_endian.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
}

/// Whether `number` is a multiple of `divisor`, by long division in base two.
fn divides(divisor: &[u64], number: &[u64]) -> bool {
    let mut rest = vec![0_u64; divisor.len() + 1];
    for bit in (0..number.len() * 64).rev() {
        let mut carry = number[bit / 64] >> (bit % 64) & 1;
        for word in &mut rest {
            (*word, carry) = (*word << 1 | carry, *word >> 63);
        }
        if rest[divisor.len()] > 0 || rest[..divisor.len()].iter().rev().ge(divisor.iter().rev()) {
            let mut borrow = false;
            for (at, word) in rest.iter_mut().enumerate() {
                let (less, first) = word.overflowing_sub(divisor.get(at).copied().unwrap_or(0));
                let (less, second) = less.overflowing_sub(u64::from(borrow));
                (*word, borrow) = (less, first || second);
            }
        }
    }
    rest.iter().all(|word| *word == 0)
}

#[test]
fn long_division_is_right() {
    assert!(divides(&[7], &[91]) && divides(&[u64::MAX], &[0, u64::MAX]));
    assert!(!divides(&[7], &[92]) && !divides(&[3, 1], &[5, 9]));
}
