//! What is read of the audit: records, sealed sections and segments, ends of Parquet files, names,
//! times, keys. The Parquet library sees only footers that opened with their key.

#![no_main]

use chancery_audit::keys::{Identity, Recipient};
use chancery_audit::segment::{Segment, Source, unseal};
use chancery_audit::{Opener, SealedSection, SegmentName, decode_records, parse_time};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(records) = decode_records(data) {
        let again = minicbor::to_vec(&records).expect("records have an encoding");
        assert_eq!(again, data, "one encoding");
    }
    if let Ok(sealed) = SealedSection::read(data) {
        assert_eq!(sealed.end(), sealed.first + u64::from(sealed.count));
        assert!(sealed.open(&mut Opener::new(&[])).is_err(), "nobody has its key");
    }
    if let Ok(sections) = unseal(data) {
        assert!(sections.iter().all(|section| SealedSection::read(section).is_ok()));
    }
    let source = Source::Bytes(data.to_vec().into());
    assert!(Segment::open(source, &Vec::new().into()).is_err(), "nobody has its key");
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (parse_time(text), Identity::parse(text));
    if let Some(name) = SegmentName::parse(text) {
        assert_eq!(name.object(), text);
    }
    if let Ok(recipient) = Recipient::parse(text) {
        assert_eq!(recipient.to_string(), text);
    }
});
