//! Documents of evidence of any kind, TDX quotes with collateral among them: read, written, read again,
//! shown and judged without a panic, and never accepted where the policy wants another measurement.

#![no_main]

use std::sync::LazyLock;

use chancery_attest::{Evidence, Policy, appraise};
use libfuzzer_sys::fuzz_target;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let impossible = "5a".repeat(48);
    let text = format!(
        "version = 1\nkinds = [\"tdx\"]\n[freshness]\nreport_data = \"if-present\"\n\
         [[reference]]\nrelease = \"r\"\nkind = \"tdx\"\nregisters = {{ mrtd = \"{impossible}\" }}\n"
    );
    Policy::parse(&text).expect("a policy")
});

fuzz_target!(|data: &[u8]| {
    let Ok(evidence) = Evidence::parse(data) else { return };
    let written = evidence.to_json().to_string();
    assert_eq!(Evidence::parse(written.as_bytes()), Ok(evidence.clone()));
    let _ = evidence.show();
    if let Ok(result) = appraise(&evidence, &POLICY, 1_750_400_000, None) {
        assert!(!result.accepted);
    }
});
