//! JWK Sets: what we write of a set that was read gives the same members back.

#![no_main]

use chancery_token::jwks::{KeySet, to_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(set) = KeySet::parse(data) else { return };
    let again = KeySet::parse(to_json(set.members()).as_bytes()).expect("we read what we write");
    assert_eq!(again.members(), set.members());
    assert!(again.refused.is_empty(), "{:?}", again.refused);
    for member in set.members() {
        assert_eq!(set.get(&member.kid), Some(member));
    }
});
