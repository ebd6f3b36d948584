//! Tests of the write-ahead log: a fault matrix, random histories with crashes, damage, and the
//! real folder.

mod folder;
mod sim;

use proptest::prelude::*;

use super::format::{RECORD_HEADER_BYTES, RecordHeader, encode_record};
use super::*;
use sim::{Bench, Crash, FAULTS, Fault, ID, LOG, payload};

const SMALL: u64 = MIN_SEGMENT_BYTES;

const CRASHES: [Crash; 5] = [
    Crash::Process,
    Crash::ProcessEvicted,
    Crash::Power(0),
    Crash::Power(0x5555_aaaa_1234_5679),
    Crash::Power(0xdead_beef_cafe_f00d),
];

/// Sizes that fill sectors exactly, by one less and one more, and switch segments often.
const SIZES: [usize; 8] = [0, 3000, 432, 433, 2900, 1, 4000, 944];

/// Appends, trying again once with another payload, as a caller does whose batch has changed.
fn append_or_retry(bench: &mut Bench, seed: u64, retry_bytes: usize) {
    let bytes = SIZES[seed as usize % SIZES.len()];
    if bench.append(payload(seed, bytes)).is_err() {
        let _ = bench.append(payload(seed + 1000, retry_bytes));
    }
}

/// A history that goes round the ring twice, with a crash in the middle.
fn history(bench: &mut Bench, retry_bytes: usize, crash_at: u64, crash: Crash) {
    for seed in 0..24 {
        if seed == crash_at {
            bench.crash(crash);
        }
        append_or_retry(bench, seed, retry_bytes);
        bench.release((bench.acknowledged.len() as u64).saturating_sub(2));
    }
}

#[test]
fn every_write_and_sync_may_fail_or_fail_after_persisting() {
    let mut clean = Bench::new(SMALL);
    history(&mut clean, 1, 12, Crash::Process);
    assert_eq!(clean.acknowledged.len(), 24);
    let operations = clean.machine.lock().unwrap().operations;

    for at in 0..operations {
        for fault in FAULTS {
            for retry_bytes in [1, 5000] {
                for crash in CRASHES {
                    let mut bench = Bench::new(SMALL);
                    bench.machine.lock().unwrap().fault = Some((at, fault));
                    history(&mut bench, retry_bytes, 12, crash);
                    bench.crash(crash);
                    assert!(bench.acknowledged.len() >= 24, "{at} {fault:?} {crash:?}");
                }
            }
        }
    }
}

#[test]
fn a_crash_right_after_any_failed_operation_recovers() {
    for at in 0..60 {
        for fault in [Fault::Nothing, Fault::Half, Fault::Persisted] {
            for crash in CRASHES {
                let mut bench = Bench::new(SMALL);
                bench.machine.lock().unwrap().fault = Some((at, fault));
                for seed in 0..20 {
                    let bytes = SIZES[seed as usize % SIZES.len()];
                    match bench.append(payload(seed, bytes)) {
                        Ok(()) => {}
                        // Released late, so that segment switches need a mark.
                        Err(WalError::Full { .. }) => bench.release(u64::MAX),
                        Err(_) => {
                            bench.crash(crash);
                            // What recovery saw must be on the disk, also where it saw pages
                            // that no sync had carried there.
                            bench.crash(Crash::Power(0));
                        }
                    }
                }
                bench.crash(Crash::Power(0));
            }
        }
    }
}

/// A write persists although its sync fails; the retry is killed half-way, and a first attempt
/// to open fails at operation `failing`, a sync that drops the half-written pages. So recovery
/// sees a torn record, in clean pages, where the disk holds a whole one. That one must not come
/// back later beside the record that has taken its sequence number elsewhere.
fn whole_on_disk_but_torn_in_the_cache(before: usize, lost: usize, after: usize, failing: usize) {
    let mut bench = Bench::new(SMALL);
    bench.append(payload(0, before)).unwrap();
    let fail = |bench: &mut Bench, after: usize, fault| {
        let mut machine = bench.machine.lock().unwrap();
        machine.fault = Some((machine.operations + after, fault));
    };
    fail(&mut bench, 1, Fault::Persisted);
    bench.append(payload(1, lost)).unwrap_err();
    fail(&mut bench, 0, Fault::Half);
    bench.append(payload(2, lost)).unwrap_err();
    fail(&mut bench, failing, Fault::Nothing);
    bench.crash(Crash::Process);
    assert_eq!(bench.acknowledged.len(), 1, "recovery saw a torn record");
    bench.append(payload(3, after)).unwrap();
    bench.crash(Crash::Power(0));
    assert_eq!(bench.acknowledged.len(), 2);
}

#[test]
fn no_ghost_returns_from_the_tail() {
    whole_on_disk_but_torn_in_the_cache(4000, 2000, 5000, 1);
}

#[test]
fn no_ghost_returns_from_the_next_segment() {
    whole_on_disk_but_torn_in_the_cache(4000, 5000, 100, 3);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    /// Release all but so many.
    Release(u64),
    /// Let the operation after so many more go wrong.
    Fault(usize, Fault),
    Crash(Crash),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop::sample::select(FAULTS.to_vec());
    let step = prop_oneof![
        12 => (0usize..6500).prop_map(Step::Append),
        6 => (0usize..700).prop_map(Step::Append),
        8 => (0u64..6).prop_map(Step::Release),
        3 => (0usize..5, fault).prop_map(|(after, fault)| Step::Fault(after, fault)),
        1 => Just(Step::Crash(Crash::Process)),
        1 => Just(Step::Crash(Crash::ProcessEvicted)),
        2 => any::<u64>().prop_map(|bits| Step::Crash(Crash::Power(bits))),
    ];
    prop::collection::vec(step, 1..120)
}

fn run(bench: &mut Bench, steps: &[Step]) {
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Append(bytes) => {
                let _ = bench.append(payload(number as u64, *bytes));
            }
            Step::Release(but) => {
                bench.release((bench.acknowledged.len() as u64).saturating_sub(*but));
            }
            Step::Fault(after, fault) => {
                let mut machine = bench.machine.lock().unwrap();
                machine.fault = Some((machine.operations + after, *fault));
            }
            Step::Crash(crash) => bench.crash(*crash),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn recovery_returns_what_was_acknowledged(steps in steps(), bits in any::<u64>()) {
        let mut bench = Bench::new(SMALL);
        run(&mut bench, &steps);
        bench.crash(Crash::Power(bits));
        // The log still works: with everything released, any record fits.
        bench.machine.lock().unwrap().fault = None;
        bench.release(u64::MAX);
        let largest = bench.wal.as_ref().unwrap().max_payload_bytes();
        bench.append(payload(7, largest)).unwrap();
        bench.crash(Crash::Power(0));
    }

    #[test]
    fn one_damaged_byte_is_found_or_harmless(
        steps in steps(), segment in 0usize..3, byte in 0..SMALL as usize, flip in 1u8..=255,
    ) {
        let mut bench = Bench::new(SMALL);
        run(&mut bench, &steps);
        bench.crash(Crash::Power(1));
        let mut segments = bench.machine.lock().unwrap().durable();
        segments[segment][byte] ^= flip;
        let slices: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
        if let Ok(records) = recover_bytes(&slices) {
            let mut expected = records.first().map_or(1, |r| r.sequence);
            for record in &records {
                prop_assert_eq!(record.sequence, expected);
                prop_assert_eq!(&record.payload, &bench.acknowledged[expected as usize - 1]);
                expected += 1;
            }
            // Only the last record can go unnoticed: damaged, it looks torn.
            let last = bench.acknowledged.len() as u64;
            if last > bench.released + 1 {
                prop_assert!(expected >= last, "record {} is lost", expected);
                prop_assert!(records[0].sequence <= bench.released + 1);
            }
        }
    }

    #[test]
    fn recovery_never_panics(
        steps in steps(), edits in prop::collection::vec((0usize..3, 0..SMALL as usize, any::<u8>()), 0..40),
        cut in 0..=SMALL as usize, count in 0usize..=3,
    ) {
        let mut bench = Bench::new(SMALL);
        run(&mut bench, &steps);
        let mut segments = bench.machine.lock().unwrap().durable();
        for (segment, byte, value) in edits {
            segments[segment][byte] = value;
        }
        segments[2].truncate(cut);
        let slices: Vec<&[u8]> = segments.iter().take(count).map(Vec::as_slice).collect();
        let _ = recover_bytes(&slices);
    }
}

#[test]
fn one_commit_is_one_write_and_one_sync() {
    let mut bench = Bench::new(DEFAULT_SEGMENT_BYTES / 64);
    let before = {
        let machine = bench.machine.lock().unwrap();
        (machine.operations, machine.syncs)
    };
    for seed in 0..10 {
        bench.append(payload(seed, 5000)).unwrap();
    }
    let machine = bench.machine.lock().unwrap();
    assert_eq!((machine.operations, machine.syncs), (before.0 + 20, before.1 + 10));
}

#[test]
fn full_until_released() {
    let mut bench = Bench::new(SMALL);
    let wal = |bench: &Bench| {
        let wal = bench.wal.as_ref().unwrap();
        (wal.free_bytes(), wal.capacity_bytes())
    };
    assert_eq!(wal(&bench), (3 * 7168, 3 * 7168));
    for seed in 0..3 {
        bench.append(payload(seed, 7168 - RECORD_HEADER_BYTES)).unwrap();
    }
    assert_eq!(wal(&bench).0, 0);
    assert!((bench.wal.as_ref().unwrap().utilisation() - 1.0).abs() < 1e-9);
    let full = bench.append(payload(3, 1)).unwrap_err();
    assert!(matches!(full, WalError::Full { waiting: 3 }), "{full}");
    assert!(full.to_string().contains("3 records wait"));

    bench.release(1);
    assert_eq!(wal(&bench).0, 7168);
    bench.append(payload(3, 1)).unwrap();
    bench.append(payload(4, 6000)).unwrap();
    assert!(matches!(bench.append(payload(5, 600)), Err(WalError::Full { .. })));
    // Full survives a restart, and so does what is in it.
    bench.crash(Crash::Power(0));
    assert!(matches!(bench.append(payload(5, 600)), Err(WalError::Full { .. })));
    bench.release(2);
    bench.append(payload(5, 600)).unwrap();
    bench.crash(Crash::Power(0));
}

#[test]
fn release_clamps_and_never_goes_back() {
    let mut bench = Bench::new(SMALL);
    for seed in 0..3 {
        bench.append(payload(seed, 10)).unwrap();
    }
    let wal = bench.wal.as_mut().unwrap();
    wal.release(u64::MAX);
    assert_eq!(wal.released_through(), 3);
    wal.release(1);
    assert_eq!(wal.released_through(), 3);
}

#[test]
fn a_released_position_survives_with_the_next_record() {
    let mut bench = Bench::new(SMALL);
    for seed in 0..3 {
        bench.append(payload(seed, 10)).unwrap();
    }
    bench.release(3);
    bench.append(payload(3, 10)).unwrap();
    let segments = bench.machine.lock().unwrap().durable();
    let slices: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    let records = recover_bytes(&slices).unwrap();
    assert_eq!(records.iter().map(|r| r.sequence).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_record_larger_than_a_segment_is_refused() {
    let mut bench = Bench::new(SMALL);
    let wal = bench.wal.as_mut().unwrap();
    let limit = wal.max_payload_bytes();
    assert_eq!(limit, 8192 - 1024 - RECORD_HEADER_BYTES);
    let error = wal.append(RecordKind::Audited, LOG, 0, &vec![0; limit + 1]).unwrap_err();
    assert!(
        matches!(error, WalError::TooLarge { bytes, limit: l } if bytes == limit + 1 && l == limit)
    );
    assert!(error.to_string().contains("make smaller batches"));
    assert!(!error.is_retryable());
    wal.append(RecordKind::Audited, LOG, 0, &vec![0; limit]).unwrap();
}

/// The bytes of a log with five records of one sector each, in segment 0 from byte 1024 on.
fn five_records() -> Vec<Vec<u8>> {
    let mut bench = Bench::new(SMALL);
    for seed in 0..5 {
        bench.append(payload(seed, 100)).unwrap();
    }
    bench.machine.lock().unwrap().durable()
}

fn recover(segments: &[Vec<u8>]) -> Result<Vec<Record>, WalError> {
    let slices: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    recover_bytes(&slices)
}

#[test]
fn a_damaged_record_before_others_is_corruption_and_the_last_is_torn() {
    for (record, offset) in (0..5).zip((1024..).step_by(512)) {
        for byte in [0, 20, 60, 76, RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + 99] {
            let mut segments = five_records();
            segments[0][offset + byte] ^= 1;
            let result = recover(&segments);
            if record == 4 {
                assert_eq!(result.unwrap().len(), 4);
                continue;
            }
            let error = result.unwrap_err();
            let WalError::Corrupt { path, offset: at, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!((path.as_path(), *at), (Path::new("segment-0"), offset as u64));
            assert!(error.to_string().contains("copy the folder away"), "{error}");
        }
    }
}

#[test]
fn two_damaged_headers_at_the_end_are_corruption() {
    let mut segments = five_records();
    segments[0][1024 + 3 * 512] ^= 1;
    segments[0][1024 + 4 * 512 + RECORD_HEADER_BYTES] ^= 1;
    let error = recover(&segments).unwrap_err();
    assert!(error.to_string().contains("record 5 is damaged and record 4"), "{error}");
}

#[test]
fn corruption_leaves_the_disk_alone() {
    let mut bench = Bench::new(SMALL);
    for seed in 0..5 {
        bench.append(payload(seed, 100)).unwrap();
    }
    let mut segments = bench.machine.lock().unwrap().durable();
    segments[0][1600] ^= 1;
    bench.machine.lock().unwrap().replace(segments.clone());
    let error = Wal::from_files(ID, bench.files(), SMALL).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
    assert_eq!(bench.machine.lock().unwrap().durable(), segments);
}

#[test]
fn payload_bytes_cannot_pass_for_a_record() {
    // A client that knows the format hides a record at a sector of its payload, for another
    // identity because it cannot know this log's; then the outer record is torn.
    let header = RecordHeader {
        kind: RecordKind::Batch,
        log: LOG,
        first_index: 9,
        sequence: 2,
        released: 0,
    };
    let mut forged = Vec::new();
    encode_record(&[7; 16], &header, b"forged", &mut forged);
    let mut hidden = vec![0; 512 - RECORD_HEADER_BYTES];
    hidden.extend_from_slice(&forged);
    let mut bench = Bench::new(SMALL);
    bench.append(payload(0, 100)).unwrap();
    bench.append(hidden).unwrap();
    let mut segments = bench.machine.lock().unwrap().durable();
    segments[0][1536] ^= 1;
    let records = recover(&segments).unwrap();
    assert_eq!(records.len(), 1);

    // The same bytes under the log's own identity would be taken: the identity is what counts.
    encode_record(&ID, &header, b"forged", &mut forged);
    segments[0][2048..2560].copy_from_slice(&forged);
    assert_eq!(recover(&segments).unwrap().len(), 2);
}

#[test]
fn a_record_that_is_there_twice_is_corruption() {
    let mut segments = five_records();
    let copy = segments[0][1024..1536].to_vec();
    segments[1][1024..1536].copy_from_slice(&copy);
    let error = recover(&segments).unwrap_err();
    assert!(error.to_string().contains("record 1 is there twice"), "{error}");
}

#[test]
fn many_damaged_records_end_the_scan() {
    let header = |sequence| RecordHeader {
        kind: RecordKind::Batch,
        log: LOG,
        first_index: 0,
        sequence,
        released: 0,
    };
    let mut segments = {
        let bench = Bench::new(SMALL * 8);
        let machine = bench.machine.lock().unwrap();
        machine.durable()
    };
    let mut bytes = Vec::new();
    for sector in 2..100 {
        encode_record(&ID, &header(1), b"x", &mut bytes);
        bytes[RECORD_HEADER_BYTES] ^= 1;
        segments[0][sector * 512..][..512].copy_from_slice(&bytes);
    }
    let error = recover(&segments).unwrap_err();
    assert!(error.to_string().contains("more than 64 records are damaged"), "{error}");
}

#[test]
fn formats_of_other_versions_are_left_alone() {
    // Change a version or kind and make the checksum right again.
    let reseal = |sector: &mut [u8], at: usize, value: u8, length: usize| {
        sector[at] = value;
        let crc = crc32c::crc32c(&sector[..length]);
        sector[length..length + 4].copy_from_slice(&crc.to_le_bytes());
    };
    for (start, at, value, length) in [(0, 8, 2, 40), (1024, 8, 3, 76), (1024, 10, 4, 76)] {
        let mut segments = five_records();
        reseal(&mut segments[0][start..], at, value, length);
        let error = recover(&segments).unwrap_err();
        let WalError::Unsupported { offset, format, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((*offset, *format), (start as u64, u16::from(value)));
        assert!(error.to_string().contains("start the version that wrote it"));
    }
}

#[test]
fn sequence_numbers_that_nobody_counted_to_are_refused() {
    let mut segments = five_records();
    segments[1][512..1024].copy_from_slice(&format::encode_mark(&ID, u64::MAX));
    let error = recover(&segments).unwrap_err();
    assert!(matches!(error, WalError::Exhausted), "{error}");
    assert!(error.to_string().contains("run out of sequence numbers"));
}

#[test]
fn segments_of_another_log_or_in_another_order_are_refused() {
    let mut swapped = five_records();
    swapped.swap(0, 1);
    let two = &five_records()[..2];
    let mut other = five_records();
    other[2][24] ^= 1;
    let crc = crc32c::crc32c(&other[2][..40]);
    other[2][40..44].copy_from_slice(&crc.to_le_bytes());
    let mut blank = five_records();
    blank[1].fill(0);
    let mut rotten = five_records();
    rotten[1][20] ^= 1;
    for (segments, reason) in [
        (swapped.as_slice(), "renamed"),
        (two, "another number of segments"),
        (&other, "a segment of another log"),
        (&blank, "no segment header"),
        (&rotten, "the segment header is damaged"),
    ] {
        let error = recover(segments).unwrap_err();
        assert!(matches!(error, WalError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    let mut short = five_records();
    short[2].truncate(4096);
    assert!(matches!(
        recover(&short),
        Err(WalError::WrongSize { found: 4096, expected: 8192, .. })
    ));
}
