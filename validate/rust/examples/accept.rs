//! A relying party: judges one token by a key set that it has at hand.
//!
//! `curl -s ISSUER/jwks.json | cargo run -p chancery-validate --example accept ISSUER AUDIENCE TOKEN`

use std::error::Error;
use std::io::Read as _;
use std::time::{SystemTime, UNIX_EPOCH};

use chancery_validate::{Rejection, Validated, Validator, ValidatorConfig};

/// One judgement. A real relying party keeps the validator until it fetches the key set again.
fn accept(
    issuer: &str,
    audience: &str,
    jwks: &[u8],
    token: &str,
    now: u64,
) -> Result<Validated, Rejection> {
    let config = ValidatorConfig::new(issuer, audience);
    Validator::from_jwks(config, jwks)?.validate(token, now)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [issuer, audience, token] = arguments.as_slice() else {
        return Err(
            "usage: accept ISSUER AUDIENCE TOKEN, with the key set on standard input".into()
        );
    };
    let mut jwks = Vec::new();
    std::io::stdin().read_to_end(&mut jwks)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let validated = accept(issuer, audience, &jwks, token, now)?;
    println!("valid, signed by {}", validated.kid());
    Ok(())
}
