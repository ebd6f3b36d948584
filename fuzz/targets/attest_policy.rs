//! Appraisal policies: read, or refused with a line of the text.

#![no_main]

use chancery_attest::{Error, Kind, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    match Policy::parse(text) {
        Ok(policy) => {
            let hardware = [Kind::Snp, Kind::Tdx, Kind::AzureSnp, Kind::AzureTdx, Kind::Nitro];
            let software = policy.accepts(Kind::Software);
            assert!(!software || !hardware.iter().any(|kind| policy.accepts(*kind)));
        }
        Err(Error::Policy { line, .. }) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
        }
        Err(_) => {}
    }
});
