//! Payloads of write-ahead records: what is read can be written and reads the same.

#![no_main]

use chancery::logs::Batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((batch, vkey)) = Batch::decode(7, data) else { return };
    let again = batch.encode(&vkey).expect("its lengths were 16 bits");
    // The key id in a verifier key may be written with capital digits.
    assert!(again.eq_ignore_ascii_case(data));
    assert_eq!(Batch::decode(7, &again), Ok((batch, vkey)));
});
