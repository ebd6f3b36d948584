//! Configuration files: the policy that an accepted one means is one that a signer accepts.

#![no_main]

use chancery::config::Config;
use chancery_policy::PolicyDocument;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(config) = Config::parse(text) else { return };
    let _ = config.warnings();
    let document = config.policy(1);
    let json = document.to_json().expect("a file of this size is no policy of 4 MiB");
    assert_eq!(PolicyDocument::parse(&json).as_ref(), Ok(&document));
});
