//! Frames between service and signer, both ways: the first byte says how the bytes arrive in pieces.

#![no_main]

use chancery_signer_api::{FrameBuffer, MAX_FRAME_BYTES, Phase, Request, Response, encode};
use libfuzzer_sys::fuzz_target;

const PHASES: [Phase; 4] = [Phase::Hello, Phase::Start, Phase::Resume, Phase::Serving];

fuzz_target!(|data: &[u8]| {
    let Some((piece, bytes)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let requests: Vec<Request> = read(bytes, piece);
    assert_eq!(requests, read::<Request>(bytes, bytes.len().max(1)), "pieces do not matter");
    for request in &requests {
        assert!(PHASES.iter().any(|phase| phase.accepts(request)), "{request:?}");
        let greets = matches!(request, Request::Hello(_));
        assert_eq!(
            PHASES.map(|phase| phase.accepts(request) && greets),
            [greets, false, false, false]
        );
        assert_eq!(Phase::Hello.accepts(request), greets, "nothing comes before the greeting");
        check(request);
    }
    read::<Response>(bytes, piece).iter().for_each(check);
});

/// All whole messages before the end or the first that is refused.
fn read<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8], piece: usize) -> Vec<T> {
    let mut buffer = FrameBuffer::default();
    let mut messages = Vec::new();
    for chunk in bytes.chunks(piece) {
        buffer.extend(chunk);
        loop {
            match buffer.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
        assert!(buffer.pending() < MAX_FRAME_BYTES + 4);
    }
    messages
}

/// What was read can be written, and reads the same.
fn check<T>(message: &T)
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> + PartialEq + std::fmt::Debug,
{
    let mut frame = Vec::new();
    encode(message, &mut frame).expect("it came in a frame");
    assert_eq!(read::<T>(&frame, frame.len()).first(), Some(message));
}
