use proptest::prelude::*;

use super::*;
use crate::scan;
use crate::section::tests::record;
use crate::{Outcome, Token};

fn identities() -> Arc<[Identity]> {
    vec![Identity::generate().unwrap()].into()
}

fn recipients(identities: &[Identity]) -> Vec<Recipient> {
    identities.iter().map(|i| i.recipient().clone()).collect()
}

/// As many records of one hour, in order, all tokens.
pub fn granted(count: usize) -> Vec<Record> {
    let record = |at: usize| {
        let mut record = Record::new(1_795_460_400_000 + at as u64 / 10, Outcome::Granted);
        record.client = format!("client-{}", at % 5);
        record.subject = format!("user:{}", at % 1_000);
        record.audiences = vec![format!("https://api{}.example", at % 3)];
        record.token = Some(Token {
            jti: format!("{}.{at}.{:022x}", "L".repeat(22), at.wrapping_mul(0x9e37_79b9)),
            digest: sha256(&at.to_be_bytes()),
            kid: [at as u8 % 2; 32],
            exp: 1_795_464_000 + at as u64,
            lifetime_s: 3_600,
        });
        record
    };
    (0..count).map(record).collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn records_come_back_from_their_segment(
        mut records in proptest::collection::vec(record(), 1..60), first in any::<u32>(),
    ) {
        for record in &mut records {
            record.time_ms = 3_600_000 * 7 + record.time_ms % 3_600_000;
            for audience in &mut record.audiences {
                audience.retain(|c| c != ' ');
            }
            record.audiences.retain(|a| !a.is_empty());
            if let Some(token) = &mut record.token {
                token.exp %= 4_000_000_000;
            }
        }
        records.sort_by_key(|r| r.time_ms);
        let identities = identities();
        let first = u64::from(first);
        let (range, bytes) = write(&[9; 16], 3, first, &records, &recipients(&identities)).unwrap();
        let segment = Segment::open(Source::Bytes(bytes), &identities).unwrap();
        prop_assert_eq!(segment.range(), &range);
        prop_assert_eq!((range.first, range.end()), (first, first + records.len() as u64));
        prop_assert_eq!(scan::all(&segment).unwrap(), records);
    }
}

#[test]
fn only_its_recipients_open_a_segment() {
    let (ours, others) = (identities(), identities());
    let (_, bytes) = write(&[9; 16], 0, 0, &granted(10), &recipients(&ours)).unwrap();
    assert!(Segment::open(Source::Bytes(bytes.clone()), &others).is_err());
    let key = data_key(&Source::Bytes(bytes.clone()), &ours).unwrap();
    assert_eq!(key.bytes().len(), 32);
    assert!(matches!(data_key(&Source::Bytes(bytes.clone()), &others), Err(Error::NoKey(_))));
    let text = b"client-1";
    assert!(!bytes.windows(text.len()).any(|w| w == text), "a client stands in the clear");
}

#[test]
fn a_damaged_segment_is_an_error_and_never_other_records() {
    let identities = identities();
    let records = granted(300);
    let (_, bytes) = write(&[9; 16], 0, 0, &records, &recipients(&identities)).unwrap();
    let open = |bytes: Vec<u8>| {
        let segment = Segment::open(Source::Bytes(bytes.into()), &identities)?;
        scan::all(&segment)
    };
    for length in (0..bytes.len()).step_by(97) {
        assert!(open(bytes[..length].to_vec()).is_err(), "{length} bytes");
    }
    for at in (0..bytes.len()).step_by(31) {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        // A flipped bit of a Bloom filter, which is not encrypted, changes no record.
        if let Ok(read) = open(damaged) {
            assert_eq!(read, records, "byte {at}");
        }
    }
}

#[test]
fn records_that_do_not_belong_together_make_no_segment() {
    let identities = identities();
    let to = recipients(&identities);
    let mut records = granted(3);
    assert!(write(&[9; 16], 0, 0, &[], &to).is_err());
    records[2].time_ms += 3_600_000;
    assert!(write(&[9; 16], 0, 0, &records, &to).is_err());
    records[2].time_ms = records[0].time_ms - 1;
    assert!(write(&[9; 16], 0, 0, &records, &to).is_err());
    assert!(write(&[9; 16], 0, 0, &records[..2], &[]).is_err());
}

#[test]
fn sealed_segments_are_read_strictly() {
    let identities = identities();
    let mut sealer = crate::SectionSealer::new(&recipients(&identities)).unwrap();
    let mut section = |first: u64, count: usize| {
        let records = vec![Record::new(3_600_000 * 5, Outcome::Refused); count];
        sealer.seal(&crate::Section { log: [1; 16], first, records }).unwrap()
    };
    let (one, two, far) = (section(0, 2), section(2, 1), section(4, 1));
    let bytes = seal(&[&one, &two]);
    assert_eq!(unseal(&bytes).unwrap(), [one.as_slice(), &two]);
    assert_eq!(SealedSection::read(&one).unwrap().hour, 5);
    assert!(unseal(&seal(&[&one, &far])).is_err());
    assert!(unseal(&seal(&[])).is_err());
    for length in 0..bytes.len() {
        // Between two sections it looks whole; its digest in the log says that it is not.
        let is_whole = length == bytes.len() - two.len() - 4;
        assert_eq!(unseal(&bytes[..length]).is_ok(), is_whole, "{length}");
    }
}

#[test]
fn a_hostile_footer_never_reaches_the_library() {
    let identities = identities();
    let (_, bytes) = write(&[9; 16], 0, 0, &granted(10), &recipients(&identities)).unwrap();
    let end = bytes.len() - 8;
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
    let open = |bytes: Vec<u8>| Segment::open(Source::Bytes(bytes.into()), &identities);
    assert!(open(bytes.to_vec()).is_ok());
    // Whatever is changed in it, it does not open: not one byte of it is believed before.
    for at in end - length..bytes.len() {
        for bit in [1, 0x80] {
            let mut hostile = bytes.to_vec();
            hostile[at] ^= bit;
            let e = open(hostile).unwrap_err();
            assert!(!matches!(e, Error::Parquet(_)), "byte {at}: {e}");
        }
    }
    // A plain file is none of ours, and neither is one that claims to be all footer.
    let plain = write_plain(&granted(3)).unwrap();
    assert!(matches!(open(plain.to_vec()), Err(Error::Malformed { .. })));
    for length in [0_u32, 1, 166, 1 << 20, u32::MAX] {
        let hostile = [&[0x19; 166][..], &length.to_le_bytes(), b"PARE"].concat();
        assert!(matches!(open(hostile), Err(Error::Malformed { .. })), "{length}");
    }
}
