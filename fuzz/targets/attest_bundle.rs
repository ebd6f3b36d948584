//! Bundles: whatever stands in one, no entry or evidence but the genuine ones lead from the token to
//! an accepted signer.

#![no_main]

use chancery_attest::{Bundle, Policy};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const GENUINE: &[u8] = include_bytes!("../../attest/tests/samples/bundle.json");
const TOKEN: &str = include_str!("../../attest/tests/samples/bundle.token");

static KNOWN: LazyLock<(Bundle, Policy)> = LazyLock::new(|| {
    let policy = include_str!("../../attest/tests/samples/bundle-policy.toml");
    (Bundle::parse(GENUINE).expect("a bundle"), Policy::parse(policy).expect("a policy"))
});

fuzz_target!(|data: &[u8]| {
    let Ok(bundle) = Bundle::parse(data) else { return };
    let (genuine, policy) = &*KNOWN;
    if bundle.walk(TOKEN.trim_end(), policy, 0).accepted {
        assert_eq!(bundle.announcement.entry, genuine.announcement.entry);
        assert_eq!(bundle.genesis.entry, genuine.genesis.entry);
        assert_eq!(bundle.evidence, genuine.evidence);
    }
});
