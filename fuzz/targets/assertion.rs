//! Client assertions: whoever is proven has signed for this issuer, at this time.

#![no_main]

use chancery_policy::Policy;
use chancery_policy::proof::{self, MAX_PROOF_SECONDS, Moment};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// A realm whose one client has the key of RFC 8037, appendix A.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    Policy::parse(include_bytes!("../seeds/policy_document/one")).expect("the seed is a policy")
});

/// The seeds are proofs made at 1,800,000,000.
const AT: Moment<'_> =
    Moment { now: 1_800_000_010, started_at: 1_799_999_000, log: "_oEsEvOrTOasXbaaw1L5Bg" };

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let realm = POLICY.realm("main").expect("the seed has it");
    if let Ok(proven) = proof::assertion(realm, text, AT, |_, _| false) {
        assert_eq!(proven.client().id, "fuzz");
        assert!(proven.forget_at() > AT.now);
        assert!(proven.forget_at() <= AT.now + MAX_PROOF_SECONDS + proof::FUTURE_LEEWAY_S);
    }
});
