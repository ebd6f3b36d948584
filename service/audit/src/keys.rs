//! Data keys, and who can unwrap them.
//!
//! A data key encrypts the sections of one run of the service, or one segment. It is stored beside
//! what it encrypts, wrapped to every [`Recipient`] by HPKE (RFC 9180: X25519, HKDF-SHA256,
//! AES-256-GCM). Who holds a recipient's [`Identity`] can open it, for ever: no key that dies with a
//! signer or with the service is among them.
//!
//! ```text
//! wrapped    number of recipients (1 byte), then for each: the first 8 bytes of SHA-256 of its
//!            public key, the encapsulated secret (32 bytes), the wrapped key (48 bytes)
//! ```

use aws_lc_rs::agreement;
use aws_lc_rs::digest::{SHA256, digest};
use chancery_token::b64;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use crate::Error;

/// The most recipients: an operator, an auditor, and some that are locked away.
pub const MAX_RECIPIENTS: usize = 16;
/// Bytes of a data key, AES-256's.
pub const DATA_KEY_BYTES: usize = 32;

const PURPOSE: &[u8] = b"chancery audit data key 1";
const NAME_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const WRAPPED_BYTES: usize = DATA_KEY_BYTES + 16;
const STANZA_BYTES: usize = NAME_BYTES + SECRET_BYTES + WRAPPED_BYTES;
/// How the line of a key file begins that holds the secret.
const SECRET_PREFIX: &str = "chancery-audit-secret-";
/// How a recipient begins.
const RECIPIENT_PREFIX: &str = "chancery-audit-";

/// The public half: data keys are wrapped to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// Reads `chancery-audit-` and the X25519 public key in base64url.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Key(format!("`{text}` is no recipient ({RECIPIENT_PREFIX}...)"));
        let key = text.strip_prefix(RECIPIENT_PREFIX).ok_or_else(wrong)?;
        let key: [u8; 32] = b64::decode_array(key).map_err(|_| wrong())?;
        // A point of small order would wrap to nobody, or to everybody.
        if key.iter().all(|b| *b == 0) {
            return Err(wrong());
        }
        Ok(Self(key))
    }

    fn name(&self) -> [u8; NAME_BYTES] {
        let hash = digest(&SHA256, &self.0);
        hash.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{RECIPIENT_PREFIX}{}", b64::encode(&self.0))
    }
}

/// The private half.
pub struct Identity {
    secret: Zeroizing<[u8; 32]>,
    recipient: Recipient,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.recipient)
    }
}

impl Identity {
    /// A fresh one.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<Self, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| Error::Random)?;
        Self::of(secret)
    }

    fn of(secret: Zeroizing<[u8; 32]>) -> Result<Self, Error> {
        let wrong = |_| Error::Key("the secret is no X25519 key".into());
        let key = agreement::PrivateKey::from_private_key(&agreement::X25519, secret.as_slice());
        let public = key.map_err(wrong)?.compute_public_key();
        let public = public.map_err(|_| Error::Key("the secret is no X25519 key".into()))?;
        let public = public.as_ref().first_chunk().copied().unwrap_or_default();
        Ok(Self { secret, recipient: Recipient(public) })
    }

    /// Reads a key file: comments, and one line with the secret.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let mut secrets = lines.map(|line| {
            let secret = line.strip_prefix(SECRET_PREFIX)?;
            b64::decode_array(secret).ok().map(Zeroizing::new)
        });
        match (secrets.next().flatten(), secrets.next()) {
            (Some(secret), None) => Self::of(secret),
            _ => Err(Error::Key(format!("a key file has one line `{SECRET_PREFIX}...`"))),
        }
    }

    /// The text of its key file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "# Opens the audit. Keep a copy where the records outlive this machine.\n# recipient: \
             {}\n{SECRET_PREFIX}{}\n",
            self.recipient,
            b64::encode(self.secret.as_slice())
        ))
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }
}

/// A data key, and itself wrapped.
pub struct DataKey {
    key: Zeroizing<[u8; DATA_KEY_BYTES]>,
    wrapped: Vec<u8>,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    /// A fresh key, wrapped to all of these.
    ///
    /// # Errors
    /// [`Error::Key`] for no recipient, too many of them, or one that is no point; [`Error::Random`].
    pub fn generate(recipients: &[Recipient]) -> Result<Self, Error> {
        let count = u8::try_from(recipients.len()).unwrap_or(u8::MAX);
        if count == 0 || usize::from(count) > MAX_RECIPIENTS {
            return Err(Error::Key(format!("there must be 1 to {MAX_RECIPIENTS} recipients")));
        }
        let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
        aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|_| Error::Random)?;
        let mut wrapped = vec![count];
        for recipient in recipients {
            let public = HpkePublicKey(recipient.0.to_vec());
            let name = recipient.name();
            let (secret, sealed) = SUITE
                .seal(PURPOSE, &name, key.as_slice(), &public)
                .map_err(|e| Error::Key(format!("recipient `{recipient}`: {e}")))?;
            wrapped.extend_from_slice(&name);
            wrapped.extend_from_slice(&secret.0);
            wrapped.extend_from_slice(&sealed);
        }
        Ok(Self { key, wrapped })
    }

    /// The key's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; DATA_KEY_BYTES] {
        &self.key
    }

    /// The key as it is stored.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    /// Opens a wrapped key with the first identity that it was wrapped to.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::NoKey`], or [`Error::Altered`].
    pub fn unwrap(wrapped: &[u8], identities: &[Identity]) -> Result<Self, Error> {
        let stanzas = stanzas(wrapped)?;
        for (name, secret, sealed) in &stanzas {
            let Some(identity) = identities.iter().find(|i| i.recipient.name() == **name) else {
                continue;
            };
            let private = HpkePrivateKey::from(identity.secret.to_vec());
            let secret = EncapsulatedSecret(secret.to_vec());
            let key = SUITE.open(&secret, PURPOSE, *name, sealed, &private);
            let key = Zeroizing::new(key.map_err(|_| Error::Altered("data key"))?);
            let key = key.as_slice().try_into().map_err(|_| Error::Altered("data key"))?;
            return Ok(Self { key: Zeroizing::new(key), wrapped: wrapped.to_vec() });
        }
        let names: Vec<_> = stanzas.iter().map(|(name, _, _)| b64::encode(*name)).collect();
        Err(Error::NoKey(names.join(", ")))
    }
}

type Stanza<'a> = (&'a [u8; NAME_BYTES], &'a [u8], &'a [u8]);

/// Splits a wrapped key; its length says all.
fn stanzas(wrapped: &[u8]) -> Result<Vec<Stanza<'_>>, Error> {
    let wrong = || Error::malformed("data key", "it is not one that was wrapped here");
    let (count, rest) = wrapped.split_first().ok_or_else(wrong)?;
    let (stanzas, trailing) = rest.as_chunks::<STANZA_BYTES>();
    let count = usize::from(*count);
    if stanzas.len() != count || !trailing.is_empty() || !(1..=MAX_RECIPIENTS).contains(&count) {
        return Err(wrong());
    }
    let mut out = Vec::with_capacity(count);
    for stanza in stanzas {
        let (name, rest) = stanza.split_first_chunk().ok_or_else(wrong)?;
        let (secret, sealed) = rest.split_at_checked(SECRET_BYTES).ok_or_else(wrong)?;
        out.push((name, secret, sealed));
    }
    Ok(out)
}

/// How many bytes a key takes that is wrapped to so many.
pub(crate) fn wrapped_bytes(count: u8) -> usize {
    usize::from(count).saturating_mul(STANZA_BYTES).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_a_key_was_wrapped_to_opens_it_and_nobody_else() {
        let (a, b, c) = (identity(), identity(), identity());
        let recipients = [a.recipient().clone(), b.recipient().clone()];
        let key = DataKey::generate(&recipients).unwrap();
        assert_eq!(key.wrapped().len(), wrapped_bytes(2));
        for who in [&a, &b] {
            let who = Identity::parse(&who.to_text()).unwrap();
            let again = DataKey::unwrap(key.wrapped(), &[identity(), who]).unwrap();
            assert_eq!(again.bytes(), key.bytes());
        }
        assert!(matches!(DataKey::unwrap(key.wrapped(), &[c]), Err(Error::NoKey(_))));
        assert!(matches!(DataKey::unwrap(key.wrapped(), &[]), Err(Error::NoKey(_))));
    }

    #[test]
    fn every_flipped_bit_of_a_wrapped_key_is_found() {
        let identity = [identity()];
        let key = DataKey::generate(&[identity[0].recipient().clone()]).unwrap();
        for at in 0..key.wrapped().len() {
            let mut wrapped = key.wrapped().to_vec();
            wrapped[at] ^= 1;
            assert!(DataKey::unwrap(&wrapped, &identity).is_err(), "byte {at}");
        }
        for length in 0..key.wrapped().len() {
            assert!(DataKey::unwrap(&key.wrapped()[..length], &identity).is_err());
        }
    }

    #[test]
    fn key_files_and_recipients_are_read_strictly() {
        let one = identity();
        let text = one.recipient().to_string();
        assert_eq!(Recipient::parse(&text).unwrap(), *one.recipient());
        for wrong in ["", "chancery-audit-", "age1xyz", &text[1..], &format!("{text}A")] {
            assert!(matches!(Recipient::parse(wrong), Err(Error::Key(_))), "{wrong}");
        }
        let twice = format!("{}{}", *one.to_text(), *one.to_text());
        for wrong in ["", "# nothing\n", &twice, "chancery-audit-secret-AAAA"] {
            assert!(matches!(Identity::parse(wrong), Err(Error::Key(_))), "{wrong}");
        }
        let zero = format!("{RECIPIENT_PREFIX}{}", b64::encode(&[0; 32]));
        assert!(Recipient::parse(&zero).is_err());
        assert!(DataKey::generate(&[]).is_err());
        assert!(DataKey::generate(&vec![one.recipient().clone(); 17]).is_err());
    }

    fn identity() -> Identity {
        Identity::generate().unwrap()
    }
}
