//! What evidence of a signer is bound to: the one statement that signer and verifiers compute.
//!
//! Report data is SHA-512 over the statement in deterministic CBOR, an array of four: the text
//! [`DOMAIN`], the identity keys in the order of the log's genesis, the policy's digest, the nonce.
//! Nothing else that is hashed anywhere begins with that text.

use aws_lc_rs::digest::{SHA512, digest};
use minicbor::Encoder;

use crate::Error;

/// The first element of a statement.
pub const DOMAIN: &str = "chancery evidence of a signer v1";

/// The most identity keys of one signer: one of each kind of signature that C2SP notes know, and as
/// many again.
pub const MAX_IDENTITY_KEYS: usize = 8;

/// The longest identity key, in bytes with its type: ML-DSA-87 has 2,592.
pub const MAX_IDENTITY_KEY_BYTES: usize = 4_096;

/// The shortest nonce that says anything about time, in bytes.
pub const MIN_NONCE_BYTES: usize = 8;

/// The longest nonce, in bytes: two of what anybody needs.
pub const MAX_NONCE_BYTES: usize = 64;

/// Bytes of report data where a TPM's quote carries it: all TPMs take as many.
pub const QUOTE_DATA_BYTES: usize = 32;

/// What a signer's evidence says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Every identity key, each as the signature type's byte and the public key (c2sp.org/signed-note).
    pub identity_keys: Vec<Vec<u8>>,
    /// SHA-256 of the policy in force.
    pub policy_digest: [u8; 32],
    /// The verifier's; empty in the evidence that the signer makes before its genesis, which is
    /// about keys that it has just made.
    pub nonce: Vec<u8>,
}

impl Statement {
    /// The 64 bytes that the evidence must be bound to.
    ///
    /// # Errors
    /// [`Error::Shape`] without keys, and beyond the limits of this module.
    pub fn report_data(&self) -> Result<[u8; 64], Error> {
        self.check().map_err(|why| Error::Shape(why.to_owned()))?;
        let mut bytes = Vec::with_capacity(256);
        self.write(&mut Encoder::new(&mut bytes)).map_err(|e| Error::Shape(e.to_string()))?;
        let mut out = [0; 64];
        for (to, from) in out.iter_mut().zip(digest(&SHA512, &bytes).as_ref()) {
            *to = *from;
        }
        Ok(out)
    }

    fn check(&self) -> Result<(), &'static str> {
        let keys = &self.identity_keys;
        if keys.is_empty() || keys.len() > MAX_IDENTITY_KEYS {
            return Err("a statement of evidence has 1 to 8 identity keys");
        }
        if keys.iter().any(|key| key.len() < 2 || key.len() > MAX_IDENTITY_KEY_BYTES) {
            return Err("an identity key has a type and at most 4096 bytes");
        }
        let nonce = self.nonce.len();
        if nonce > MAX_NONCE_BYTES || (nonce > 0 && nonce < MIN_NONCE_BYTES) {
            return Err("a nonce has 8 to 64 bytes");
        }
        Ok(())
    }

    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> crate::codec::EncodeResult {
        e.array(4)?.str(DOMAIN)?;
        e.array(u64::try_from(self.identity_keys.len()).unwrap_or(u64::MAX))?;
        for key in &self.identity_keys {
            e.bytes(key)?;
        }
        e.bytes(&self.policy_digest)?.bytes(&self.nonce)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        Statement {
            identity_keys: vec![vec![1; 33], vec![6; 1_313]],
            policy_digest: [2; 32],
            nonce: vec![3; 16],
        }
    }

    #[test]
    fn report_data_is_the_digest_of_the_documented_bytes() {
        let mut bytes = vec![0x84, 0x78, 32];
        bytes.extend_from_slice(DOMAIN.as_bytes());
        bytes.extend_from_slice(&[0x82, 0x58, 33]);
        bytes.extend_from_slice(&[1; 33]);
        bytes.extend_from_slice(&[0x59, 5, 33]);
        bytes.extend_from_slice(&[6; 1_313]);
        bytes.extend_from_slice(&[0x58, 32]);
        bytes.extend_from_slice(&[2; 32]);
        bytes.push(0x50);
        bytes.extend_from_slice(&[3; 16]);
        assert_eq!(statement().report_data().unwrap(), digest(&SHA512, &bytes).as_ref());
    }

    #[test]
    fn each_part_and_the_order_of_the_keys_counts() {
        let mut others = vec![statement(); 5];
        others[0].identity_keys.reverse();
        others[1].identity_keys.pop();
        others[2].policy_digest[31] ^= 1;
        others[3].nonce.clear();
        others[4].identity_keys[1][0] ^= 1;
        let data = statement().report_data().unwrap();
        assert!(others.iter().all(|other| other.report_data().unwrap() != data));
    }

    #[test]
    fn what_exceeds_a_limit_is_refused() {
        let mut bad = vec![statement(); 6];
        bad[0].identity_keys.clear();
        bad[1].identity_keys = vec![vec![1; 33]; MAX_IDENTITY_KEYS + 1];
        bad[2].identity_keys[0] = vec![1];
        bad[3].identity_keys[0] = vec![1; MAX_IDENTITY_KEY_BYTES + 1];
        bad[4].nonce = vec![0; MIN_NONCE_BYTES - 1];
        bad[5].nonce = vec![0; MAX_NONCE_BYTES + 1];
        for statement in bad {
            assert!(matches!(statement.report_data(), Err(Error::Shape(_))));
        }
    }
}
