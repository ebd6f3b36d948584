//! Nitro documents: none but the genuine one is accepted.

#![no_main]

use chancery_attest::{Base64, Evidence, Policy, appraise};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const GENUINE: &[u8] = include_bytes!("../../attest/tests/samples/nitro.cose");

static KNOWN: LazyLock<(u64, Policy)> = LazyLock::new(|| {
    let shown = Evidence::parse(GENUINE).and_then(|evidence| evidence.show()).expect("a document");
    let field = |name: &str| {
        shown.iter().find(|(field, _)| field == name).map(|(_, v)| v.clone()).expect("a field")
    };
    let policy = format!(
        "version = 1\nkinds = [\"nitro\"]\n[freshness]\nreport_data = \"if-present\"\n\
         [[reference]]\nrelease = \"r\"\nkind = \"nitro\"\nregisters = {{ pcr0 = \"{}\" }}\n",
        field("pcr0")
    );
    let made: u64 = field("nitro_timestamp_ms").parse().expect("milliseconds");
    (made / 1000, Policy::parse(&policy).expect("a policy"))
});

fuzz_target!(|data: &[u8]| {
    let evidence = Evidence::Nitro { document: Base64(data.to_vec()) };
    let _ = evidence.show();
    let (at, policy) = &*KNOWN;
    if let Ok(result) = appraise(&evidence, policy, *at, None) {
        assert!(data == GENUINE || !result.accepted, "a document that AWS did not sign");
    }
});
