//! A relying party: judges one token.
//!
//! `cargo run -p chancery-relying-party --example quickstart ISSUER AUDIENCE TOKEN`

use std::error::Error;

use chancery_relying_party::{RelyingParty, ValidatorConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [issuer, audience, token] = arguments.as_slice() else {
        return Err("usage: quickstart ISSUER AUDIENCE TOKEN".into());
    };
    // Keep one for as long as the program runs: it finds the key set, and keeps it fresh.
    let relying_party = RelyingParty::builder(ValidatorConfig::new(issuer, audience)).build()?;
    match relying_party.validate(token).await {
        Ok(accepted) => {
            let claims = accepted.token.claims();
            println!("valid: {} by {}", claims.sub, accepted.token.kid());
            Ok(())
        }
        // The code is stable; the detail is for your log, not for whoever sent the token.
        Err(rejection) => {
            Err(format!("rejected as {}: {}", rejection.code(), rejection.code().remedy()).into())
        }
    }
}
