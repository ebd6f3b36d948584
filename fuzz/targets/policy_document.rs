//! Policy documents: what is accepted can be written, compiled and read again.

#![no_main]

use chancery_policy::document::MAX_LIVE_KEYS;
use chancery_policy::{Policy, PolicyDocument};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(document) = PolicyDocument::parse(data) else {
        assert!(Policy::parse(data).is_err());
        return;
    };
    let policy = Policy::parse(data).expect("it is a policy");
    assert_eq!(policy.realms().count(), document.realms.len());
    for realm in &document.realms {
        assert!(realm.schedule.live_keys(realm.early_s()) <= MAX_LIVE_KEYS);
        assert!(realm.schedule.key_set_max_age_s() < realm.schedule.publish_lead_s);
    }
    let again = document.to_json().expect("what was read can be written");
    assert_eq!(PolicyDocument::parse(&again).as_ref(), Ok(&document));
});
