//! The records of one batch in the write-ahead log: encrypted, and bound to their place.
//!
//! ```text
//! section    format (1 byte: 1), log id (16), number of the first record (8), number of records (4),
//!            hour since 1970 of the records (8), the wrapped data key, nonce (12), records sealed with AES-256-GCM
//! records    CBOR: one array of records, deterministic as the log's entries are
//! ```
//!
//! All integers are big-endian. Everything before the nonce is authenticated with the records, so a
//! section that is moved to another place of the log does not open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::keys::{DataKey, Identity, Recipient, wrapped_bytes};
use crate::{Error, Record, hour_of};

/// The most records of one section: two for each token that a frame may ask for.
pub const MAX_SECTION_RECORDS: usize = 4_096;
/// The largest section, in bytes: half a write-ahead record, so that the batch has the other half.
pub const MAX_SECTION_BYTES: usize = 8 * 1024 * 1024;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 1 + 16 + 8 + 4 + 8;
/// Bytes of a nonce that count; the others are random for each key.
const COUNTER_BYTES: usize = 8;

/// Records of one log, in order and without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The log id.
    pub log: [u8; 16],
    /// Number of the first record.
    pub first: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// A section as it is stored, its clear part read.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSection<'a> {
    /// The log id.
    pub log: [u8; 16],
    /// Number of the first record.
    pub first: u64,
    /// How many records it holds.
    pub count: u32,
    /// Hour since 1970 in which they were made.
    pub hour: u64,
    bytes: &'a [u8],
    wrapped: &'a [u8],
    nonce: &'a [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl fmt::Debug for SealedSection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedSection({} records from {})", self.count, self.first)
    }
}

/// Seals the sections of one run of the service.
pub struct SectionSealer {
    data_key: DataKey,
    key: LessSafeKey,
    prefix: [u8; NONCE_LEN - COUNTER_BYTES],
    sealed: u64,
}

impl fmt::Debug for SectionSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SectionSealer({} sealed)", self.sealed)
    }
}

impl SectionSealer {
    /// With a fresh data key for these recipients.
    ///
    /// # Errors
    /// As [`DataKey::generate`].
    pub fn new(recipients: &[Recipient]) -> Result<Self, Error> {
        let data_key = DataKey::generate(recipients)?;
        let mut prefix = [0; NONCE_LEN - COUNTER_BYTES];
        aws_lc_rs::rand::fill(&mut prefix).map_err(|_| Error::Random)?;
        let key = less_safe_key(&data_key)?;
        Ok(Self { data_key, key, prefix, sealed: 0 })
    }

    /// The section's bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it holds nothing, or more than a section may.
    pub fn seal(&mut self, section: &Section) -> Result<Vec<u8>, Error> {
        let wrong = |why: &str| Error::malformed("section", why);
        let count = section.records.len();
        if !(1..=MAX_SECTION_RECORDS).contains(&count) {
            return Err(wrong("it holds nothing, or too many records"));
        }
        if !section.records.iter().all(Record::is_bounded) {
            return Err(wrong("a text is longer than its bound"));
        }
        let mut out = Vec::with_capacity(count.saturating_mul(384).saturating_add(512));
        out.push(FORMAT);
        out.extend_from_slice(&section.log);
        out.extend_from_slice(&section.first.to_be_bytes());
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
        let hour = section.records.first().map_or(0, |record| hour_of(record.time_ms));
        out.extend_from_slice(&hour.to_be_bytes());
        out.extend_from_slice(self.data_key.wrapped());
        let clear = out.len();
        // One number, one nonce: the key was made for this run and lives nowhere else.
        self.sealed = self.sealed.checked_add(1).ok_or_else(|| wrong("too many were sealed"))?;
        let mut nonce = [0; NONCE_LEN];
        let (prefix, counter) = nonce.split_at_mut(NONCE_LEN - COUNTER_BYTES);
        prefix.copy_from_slice(&self.prefix);
        counter.copy_from_slice(&self.sealed.to_be_bytes());
        out.extend_from_slice(&nonce);
        let start = out.len();
        minicbor::encode(&section.records, &mut out).map_err(|e| Error::malformed("section", e))?;
        let (head, records) = out.split_at_mut(start);
        let aad = Aad::from(head.get(..clear).unwrap_or_default());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, records);
        out.extend_from_slice(tag.map_err(|_| Error::Random)?.as_ref());
        if out.len() > MAX_SECTION_BYTES {
            return Err(wrong("it is too large"));
        }
        Ok(out)
    }
}

impl<'a> SealedSection<'a> {
    /// Reads the clear part.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_SECTION_BYTES {
            return Err(Error::malformed("section", "it is too large"));
        }
        Self::split(bytes).ok_or_else(|| {
            Error::malformed("section", "it is not of a format that this version knows")
        })
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let (format, head) = head.split_first()?;
        let (log, head) = head.split_first_chunk::<16>()?;
        let (first, head) = head.split_first_chunk::<8>()?;
        let (count, hour) = head.split_first_chunk::<4>()?;
        let hour = u64::from_be_bytes(*hour.first_chunk()?);
        let first = u64::from_be_bytes(*first);
        let count = u32::from_be_bytes(*count);
        let within = (1..=MAX_SECTION_RECORDS).contains(&usize::try_from(count).ok()?);
        first.checked_add(u64::from(count))?;
        let (wrapped, rest) = rest.split_at_checked(wrapped_bytes(*rest.first()?))?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        let known = *format == FORMAT && within;
        known.then_some(Self { log: *log, first, count, hour, bytes, wrapped, nonce, sealed })
    }

    /// The number behind the last record's.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// The data key, as it is stored.
    #[must_use]
    pub fn wrapped_key(&self) -> &[u8] {
        self.wrapped
    }

    /// Opens it. Sections of one run have one data key, which `opener` remembers.
    ///
    /// # Errors
    /// [`Error::NoKey`], [`Error::Altered`], or [`Error::Malformed`].
    pub fn open(&self, opener: &mut Opener<'_>) -> Result<Section, Error> {
        let key = opener.key(self.wrapped)?;
        let clear = self.wrapped.len().saturating_add(HEAD_BYTES);
        let aad = Aad::from(self.bytes.get(..clear).unwrap_or_default());
        let nonce = Nonce::assume_unique_for_key(*self.nonce);
        let mut plain = self.sealed.to_vec();
        let plain = key.open_in_place(nonce, aad, &mut plain);
        let plain = &*plain.map_err(|_| Error::Altered("section"))?;
        let records = decode(plain)?;
        if u32::try_from(records.len()) != Ok(self.count) {
            return Err(Error::malformed("section", "it holds another number of records"));
        }
        Ok(Section { log: self.log, first: self.first, records })
    }
}

/// Reads records, refusing every encoding but the one that is written.
fn decode(plain: &[u8]) -> Result<Vec<Record>, Error> {
    let wrong = |why: &str| Error::malformed("records", why);
    let mut decoder = minicbor::Decoder::new(plain);
    let records: Vec<Record> = decoder.decode().map_err(|e| Error::malformed("records", e))?;
    if decoder.position() != plain.len() {
        return Err(wrong("bytes follow them"));
    }
    let again = minicbor::to_vec(&records).map_err(|e| Error::malformed("records", e))?;
    if again != plain {
        return Err(wrong("they are not in deterministic encoding"));
    }
    if !records.iter().all(Record::is_bounded) {
        return Err(wrong("a text is longer than its bound"));
    }
    Ok(records)
}

/// Opens sections with some identities.
#[derive(Debug)]
pub struct Opener<'a> {
    identities: &'a [Identity],
    last: Option<(Vec<u8>, LessSafeKey)>,
}

impl<'a> Opener<'a> {
    /// With these identities.
    #[must_use]
    pub fn new(identities: &'a [Identity]) -> Self {
        Self { identities, last: None }
    }

    fn key(&mut self, wrapped: &[u8]) -> Result<&LessSafeKey, Error> {
        if self.last.as_ref().is_none_or(|(known, _)| known != wrapped) {
            let key = less_safe_key(&DataKey::unwrap(wrapped, self.identities)?)?;
            self.last = Some((wrapped.to_vec(), key));
        }
        self.last.as_ref().map(|(_, key)| key).ok_or(Error::Random)
    }
}

fn less_safe_key(key: &DataKey) -> Result<LessSafeKey, Error> {
    let key = UnboundKey::new(&AES_256_GCM, key.bytes()).map_err(|_| Error::Random)?;
    Ok(LessSafeKey::new(key))
}

/// Reads the records of a section without its encryption: for fuzzing.
///
/// # Errors
/// [`Error::Malformed`].
pub fn decode_records(plain: &[u8]) -> Result<Vec<Record>, Error> {
    decode(plain)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Outcome, Token};

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-z:/.]{1,30}", ".{0,40}"]
    }

    fn token() -> impl Strategy<Value = Token> {
        (text(), any::<[u8; 32]>(), any::<[u8; 32]>(), 0..4_000_000_000_u64, 0..86_400_u64)
            .prop_map(|(jti, digest, kid, exp, lifetime_s)| Token {
                jti,
                digest,
                kid,
                exp,
                lifetime_s,
            })
    }

    prop_compose! {
        /// Any record.
        pub fn record()(
            time_ms in 0..4_000_000_000_000_u64,
            outcome in 0..4_usize,
            texts in proptest::collection::vec(text(), 10),
            audiences in proptest::collection::vec("[a-z:/.]{1,30}", 0..4),
            token in proptest::option::of(token()),
            numbers in any::<(u16, u32, u16)>(),
        ) -> Record {
            let text = |at: usize| texts[at].clone();
            Record {
                time_ms,
                outcome: Outcome::ALL[outcome],
                code: text(0),
                detail: text(1),
                realm: text(2),
                client: text(3),
                subject: text(4),
                audiences,
                scope: text(5),
                grant: text(6),
                policy_version: u64::from(numbers.0),
                token,
                address: text(7),
                user_agent: text(8),
                request_id: text(9),
                latency_ms: numbers.1 >> 1,
                count: u64::from(numbers.2),
            }
        }
    }

    proptest! {
        #[test]
        fn records_come_back_from_their_section(
            records in proptest::collection::vec(record(), 1..20), first in any::<u32>(),
        ) {
            let identities = [Identity::generate().unwrap()];
            let mut sealer = SectionSealer::new(&[identities[0].recipient().clone()]).unwrap();
            let section = Section { log: [7; 16], first: u64::from(first), records };
            let bytes = sealer.seal(&section).unwrap();
            let sealed = SealedSection::read(&bytes).unwrap();
            prop_assert_eq!((sealed.log, sealed.first), (section.log, section.first));
            let opened = sealed.open(&mut Opener::new(&identities)).unwrap();
            prop_assert_eq!(opened, section);
        }

        #[test]
        fn arbitrary_bytes_are_refused_in_words(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_records(&bytes);
            let _ = SealedSection::read(&bytes);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_section_is_found() {
        let identities = [Identity::generate().unwrap()];
        let mut sealer = SectionSealer::new(&[identities[0].recipient().clone()]).unwrap();
        let records = vec![Record::new(5, Outcome::Refused)];
        let bytes = sealer.seal(&Section { log: [1; 16], first: 3, records }).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let read = SealedSection::read(&bytes);
            let opened = read.and_then(|s| s.open(&mut Opener::new(&identities)));
            assert!(opened.is_err(), "byte {at}");
        }
    }

    #[test]
    fn sections_have_bounds() {
        let identity = Identity::generate().unwrap();
        let mut sealer = SectionSealer::new(&[identity.recipient().clone()]).unwrap();
        let mut seal =
            |records: Vec<Record>| sealer.seal(&Section { log: [1; 16], first: 0, records });
        let plain = Record::new(1, Outcome::Granted);
        assert!(seal(vec![]).is_err());
        assert!(seal(vec![plain.clone(); MAX_SECTION_RECORDS + 1]).is_err());
        let long = Record { client: "x".repeat(crate::MAX_TEXT_BYTES + 1), ..plain };
        assert!(seal(vec![long.clone()]).is_err());
        assert!(seal(vec![long.bounded()]).is_ok());
    }
}
