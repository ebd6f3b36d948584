//! Strict JSON: what it accepts, an ordinary parser reads as the same value.

#![no_main]

use chancery_token::json;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = json::parse(data) else { return };
    assert_eq!(serde_json::from_slice::<Value>(data).expect("it is JSON"), value);
    // Not compared: serde_json reads a long decimal fraction to the last bit but one.
    assert!(json::parse(value.to_string().as_bytes()).is_ok());
});
