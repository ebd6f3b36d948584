//! What a signed request asks for, as JSON: whatever is granted lies within the grant.

#![no_main]

use chancery_policy::{Ask, Policy, decide};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// A realm whose one client has the key of RFC 8037, appendix A.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    Policy::parse(include_bytes!("../seeds/policy_document/one")).expect("the seed is a policy")
});

fuzz_target!(|data: &[u8]| {
    let Ok(value) = chancery_token::json::parse(data) else { return };
    let Ok(ask) = Ask::parse(value) else { return };
    let realm = POLICY.realm("main").expect("the seed has it");
    let client = realm.client("fuzz").expect("the seed has it");
    let Ok(granted) = decide(realm, client, ask) else { return };
    let grant = client.grants.iter().find(|g| g.name == granted.grant).expect("a grant decided");
    assert!(granted.audiences.iter().all(|a| grant.audiences.contains(a)));
    assert!(granted.audiences.len() <= usize::from(grant.max_audiences));
    assert!(granted.scopes.iter().all(|s| grant.scopes.contains(s)));
    assert!(granted.claims.keys().all(|c| grant.claims.contains(c)));
    assert!(granted.lifetime_s > 0 && granted.lifetime_s <= realm.schedule.max_lifetime_s);
    assert!(granted.subject == "fuzz" || granted.subject.starts_with("user:"));
});
