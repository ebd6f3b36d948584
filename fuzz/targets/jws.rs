//! Compact JWS: what parses has the one spelling that we write, and verifies or not without harm.

#![no_main]

use chancery_token::{Algorithm, PublicKey, b64, jws};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The key of RFC 8037, appendix A.2; the seeds hold a token that it signed.
static KEY: LazyLock<PublicKey> = LazyLock::new(|| {
    let raw = b64::decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").expect("RFC 8037");
    PublicKey::from_raw(Algorithm::Ed25519, &raw).expect("RFC 8037")
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(compact) = jws::parse(text, jws::MAX_TOKEN_BYTES) else { return };
    assert_eq!(jws::assemble(compact.signing_input.to_owned(), &compact.signature), text);
    assert!(!compact.payload.is_empty());
    if jws::verify(&compact, &KEY, true).is_ok() {
        assert!(["Ed25519", "EdDSA"].contains(&compact.header.alg.as_str()));
        assert!(KEY.verify(compact.signing_input.as_bytes(), &compact.signature).is_ok());
    }
});
