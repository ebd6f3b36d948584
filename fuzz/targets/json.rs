//! Strict JSON: what it accepts, an ordinary parser reads as the same value.

#![no_main]

use chancery_token::{Error, json};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// What validators look for, and names that inputs make up easily.
const NAMES: [&str; 8] = ["a", "b", "iss", "aud", "exp", "alg", "kid", "scope"];

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        picking_agrees_with_parsing(text);
    }
    let Ok(value) = json::parse(data) else { return };
    assert_eq!(serde_json::from_slice::<Value>(data).expect("it is JSON"), value);
    // Not compared: serde_json reads a long decimal fraction to the last bit but one.
    assert!(json::parse(value.to_string().as_bytes()).is_ok());
});

/// The one pass over a token's JSON finds what a parse of all of it finds, and refuses what that
/// refuses.
fn picking_agrees_with_parsing(text: &str) {
    let picked = json::pick::<8>(text, |name| NAMES.iter().position(|known| *known == name));
    let parsed = json::parse_members(text).map(|members| {
        NAMES.map(|name| {
            members.iter().find(|(known, _)| known == name).map(|(_, node)| node.clone())
        })
    });
    match (picked, parsed) {
        // serde_json tells the place of a fault, which may differ by what it expected there.
        (Err(Error::Json(_)), Err(Error::Json(_))) => {}
        (picked, parsed) => assert_eq!(picked, parsed),
    }
}
