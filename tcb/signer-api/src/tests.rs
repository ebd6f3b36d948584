use minicbor::bytes::ByteArray;
use proptest::prelude::*;

use super::*;

fn hello() -> Request {
    Request::Hello(Hello { versions: vec![1], software: "test".into() })
}

fn audit_segment() -> AuditSegment {
    let (log, digest) = (ByteArray::from([1; 16]), ByteArray::from([2; 32]));
    AuditSegment { log, number: 3, first: 4, records: 5, hour: 6, digest }
}

fn statements() -> Vec<AuditStatement> {
    let removal = AuditRemoval { log: [1; 16].into(), first: 3, segments: 4, before: 5 };
    vec![AuditStatement::Stored(audit_segment()), AuditStatement::Removed(removal)]
}

fn appraised() -> Appraised {
    let digest = ByteArray::from([2; 32]);
    Appraised { at: 1, evidence: digest, policy: digest, accepted: true, result: digest }
}

fn every_request() -> Vec<Request> {
    vec![
        hello(),
        Request::Start(Start { policy: vec![1].into(), predecessor: None, compromised: vec![] }),
        Request::Resume(Resume { size: 0, root: ByteArray::from([0; 32]) }),
        Request::Prepare(Prepare { requests: vec![], audit: statements() }),
        Request::Commit(Commit { batch: 1 }),
        Request::LoadPolicy(LoadPolicy { policy: vec![].into() }),
        Request::Rotate(Rotate { realm: "r".into() }),
        Request::Compromise(Compromise { keys: vec![], include_retired: false }),
        Request::Status,
        Request::End,
        Request::Witnessed(Witnessed {
            checkpoint: "note".into(),
            consistency: vec![[1; 32].into()],
            index: 7,
            entry: vec![2].into(),
            inclusion: vec![],
        }),
        Request::Evidence(EvidenceRequest { nonce: vec![1; 8].into() }),
        Request::Appraised(appraised()),
    ]
}

#[test]
fn messages_survive_their_frame_in_any_pieces() {
    let mut bytes = Vec::new();
    for request in every_request() {
        encode(&request, &mut bytes).unwrap();
    }
    for piece in [1, 3, 7, bytes.len()] {
        let mut buffer = FrameBuffer::default();
        let mut seen = Vec::new();
        for chunk in bytes.chunks(piece) {
            buffer.extend(chunk);
            while let Some(request) = buffer.next_message::<Request>().unwrap() {
                seen.push(request);
            }
        }
        assert_eq!(seen, every_request());
        assert_eq!(buffer.pending(), 0);
    }
}

#[test]
fn each_phase_accepts_exactly_its_messages() {
    let names = |phase: Phase| -> Vec<usize> {
        every_request()
            .iter()
            .enumerate()
            .filter(|(_, r)| phase.accepts(r))
            .map(|(i, _)| i)
            .collect()
    };
    assert_eq!(names(Phase::Hello), [0]);
    assert_eq!(names(Phase::Start), [1, 9]);
    assert_eq!(names(Phase::Resume), [2, 9]);
    assert_eq!(names(Phase::Serving), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn a_hostile_length_is_refused_before_its_body_arrives() {
    let mut buffer = FrameBuffer::default();
    buffer.extend(&u32::MAX.to_be_bytes());
    assert_eq!(buffer.next_message::<Request>(), Err(Error::TooLarge(u32::MAX as usize)));
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut bytes = Vec::new();
    encode(&Request::Status, &mut bytes).unwrap();
    bytes.push(0);
    bytes[3] += 1;
    let mut buffer = FrameBuffer::default();
    buffer.extend(&bytes);
    assert_eq!(buffer.next_message::<Request>(), Err(Error::Trailing(1)));
}

#[test]
fn garbage_is_malformed() {
    let mut buffer = FrameBuffer::default();
    buffer.extend(&[0, 0, 0, 2, 0xff, 0xff]);
    assert!(matches!(buffer.next_message::<Request>(), Err(Error::Malformed(_))));
}

#[test]
fn an_oversize_message_is_not_encoded() {
    let mut bytes = vec![1, 2];
    let huge = Request::LoadPolicy(LoadPolicy { policy: vec![0; MAX_FRAME_BYTES + 1].into() });
    assert!(matches!(encode(&huge, &mut bytes), Err(Error::TooLarge(_))));
    assert_eq!(bytes, [1, 2]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut buffer = FrameBuffer::default();
        buffer.extend(&bytes);
        while let Ok(Some(_)) = buffer.next_message::<Request>() {}
        let mut buffer = FrameBuffer::default();
        buffer.extend(&bytes);
        while let Ok(Some(_)) = buffer.next_message::<Response>() {}
    }
}
