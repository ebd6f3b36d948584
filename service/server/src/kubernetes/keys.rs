//! The keys as the API server wants them, and when they last changed.

use std::time::{SystemTime, UNIX_EPOCH};

use chancery_token::{Algorithm, PublicKey, RsaBits, SigningKey, jwks};

use super::api::{Key, Timestamp};
use crate::keyset::Served;

/// Everything of a P-256 `SubjectPublicKeyInfo` before its point (RFC 5480 section 2): the sequences,
/// the object identifiers of EC keys and of the curve, and the bit string's length.
pub(super) const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same of P-384.
pub(super) const P384_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

/// DER `SubjectPublicKeyInfo`; `None` for keys that the API server does not know: one of those
/// among the others would freeze its whole key set.
#[must_use]
pub fn spki(key: &PublicKey) -> Option<Vec<u8>> {
    match key.algorithm() {
        Algorithm::Es256 => Some([P256_PREFIX, key.raw()].concat()),
        Algorithm::Es384 => Some([P384_PREFIX, key.raw()].concat()),
        // An RSA key's octets are that already.
        Algorithm::Rs256 => Some(key.raw().to_vec()),
        _ => None,
    }
}

/// The keys of a realm, listed ones first, each in the order of its `kid`.
#[must_use]
pub fn of(served: &Served) -> Vec<Key> {
    let list = |members: &[jwks::Member], exclude_from_oidc_discovery| {
        let key = |member: &jwks::Member| {
            Some(Key {
                key_id: member.kid.clone(),
                key: spki(&member.key)?,
                exclude_from_oidc_discovery,
            })
        };
        let mut keys: Vec<Key> = members.iter().filter_map(key).collect();
        keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        keys
    };
    [list(&served.members, false), list(&served.excluded, true)].concat()
}

/// A key that verifies nothing: its private half is gone before anybody sees the other. `None` where the
/// machine has no randomness.
#[must_use]
pub fn nobodys() -> Option<Key> {
    let key = SigningKey::generate(Algorithm::Es256, RsaBits::B2048).ok()?;
    let public = key.public();
    Some(Key {
        key_id: public.kid().to_string(),
        key: spki(public)?,
        exclude_from_oidc_discovery: true,
    })
}

/// When the keys last changed: the API server believes nothing new without a new time, and rebuilds
/// everything at each new one.
#[derive(Debug, Default)]
pub struct LastChange {
    keys: Vec<Key>,
    at: Option<Timestamp>,
}

impl LastChange {
    /// Whether keys were ever told.
    #[must_use]
    pub fn is_stamped(&self) -> bool {
        self.at.is_some()
    }

    /// The time to say with these keys: `now` if they changed, and always after the time said before.
    pub fn stamp(&mut self, keys: &[Key], now: SystemTime) -> Timestamp {
        if let Some(at) = self.at
            && self.keys == keys
        {
            return at;
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut at = Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        };
        if let Some(before) = self.at
            && at <= before
        {
            // A clock that stepped back, or two changes within its resolution.
            at = Timestamp { seconds: before.seconds.saturating_add(1), nanos: 0 };
        }
        self.keys = keys.to_vec();
        self.at = Some(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
    };
    use chancery_token::client::ClientKey;

    use super::*;

    #[test]
    fn the_library_reads_each_key_back_and_verifies_with_it() {
        let algorithms: [(Algorithm, &'static dyn VerificationAlgorithm); 3] = [
            (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED),
            (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED),
            (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
        ];
        for (algorithm, verification) in algorithms {
            let key = ClientKey::generate(algorithm).unwrap();
            let der = spki(key.signing_key().public()).unwrap();
            assert_eq!(usize::from(der[0]), 0x30);
            let parsed = ParsedPublicKey::new(verification, &der).unwrap();
            let signature = key.signing_key().sign(b"m").unwrap();
            parsed.verify_sig(b"m", &signature).unwrap();
        }
        let ed = ClientKey::generate(Algorithm::Ed25519).unwrap();
        assert_eq!(spki(ed.signing_key().public()), None);
    }

    #[test]
    fn the_time_advances_with_each_change_and_with_nothing_else() {
        let key = |kid: &str| Key { key_id: kid.into(), ..Key::default() };
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        let mut change = LastChange::default();
        let first = change.stamp(&[key("a")], at(5_250));
        assert_eq!(first, Timestamp { seconds: 5, nanos: 250_000_000 });
        assert_eq!(change.stamp(&[key("a")], at(9_000)), first);
        let second = change.stamp(&[key("a"), key("b")], at(9_000));
        assert_eq!(second.seconds, 9);
        // The clock stepped back; a flag alone is a change, and so is the way back.
        let hidden = Key { exclude_from_oidc_discovery: true, ..key("b") };
        let third = change.stamp(&[key("a"), hidden], at(2_000));
        assert!(third > second);
        let fourth = change.stamp(&[key("a"), key("b")], at(2_000));
        assert!(fourth > third);
        assert!(change.stamp(&[key("a")], at(60_000)).seconds == 60);
    }
}
