//! The judgement of tokens: of all byte strings, the tokens in the seeds are the only valid ones.

#![no_main]

use chancery_validate::{Validator, ValidatorConfig};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// Believes one Ed25519 and one ES256 key.
static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let config = ValidatorConfig::new("https://issuer.example/main", "https://api.example");
    let jwks = include_bytes!("../seeds/jwks_of_validator");
    Validator::from_jwks(config, jwks).expect("the seeds' key set")
});

const ED25519: &str = include_str!("../seeds/validator/ed25519");
const ES256: &str = include_str!("../seeds/validator/es256");
/// The seeds were signed at 1,800,000,000.
const NOW: u64 = 1_800_000_010;

fuzz_target!(|data: &[u8]| {
    let Ok(token) = str::from_utf8(data) else { return };
    let verdict = VALIDATOR.validate(token, NOW);
    match &verdict {
        Ok(valid) => {
            // An ECDSA signature may be replaced by its mirror image: same content, same key.
            let content = |t: &'static str| t.rsplit_once('.').map_or("", |(input, _)| input);
            assert!(token == ED25519 || valid.signing_input() == content(ES256), "{token}");
        }
        Err(rejection) => assert!(token != ED25519 && token != ES256, "{rejection}"),
    }
    let explained = VALIDATOR.explain(token, NOW);
    assert_eq!(explained.verdict, verdict);
    assert_eq!(verdict.is_ok(), explained.steps.iter().all(|step| step.passed));
});
