//! An API that only acceptable tokens get into, with axum.
//!
//! `cargo run -p chancery-relying-party --features axum --example axum_app ISSUER AUDIENCE ADDRESS`

use std::error::Error;

use axum::routing::get;
use axum::{Json, Router};
use chancery_relying_party::bearer::Denial;
use chancery_relying_party::tower::{BearerLayer, Token};
use chancery_relying_party::{RelyingParty, ValidatorConfig};
use serde_json::{Value, json};

/// Whoever gets here has an acceptable token.
async fn whoami(token: Token) -> Json<Value> {
    let claims = token.claims();
    Json(json!({"iss": claims.iss, "sub": claims.sub, "scope": claims.scope}))
}

/// This needs a scope value too: 403 without it.
async fn write(token: Token) -> Result<&'static str, Denial> {
    token.require_scope("write")?;
    Ok("written\n")
}

fn app(relying_party: RelyingParty) -> Router {
    let tokens = BearerLayer::new(relying_party).realm("example").on_denial(|denial, request| {
        // The path alone: what stands behind it may be secret.
        eprintln!("{} {}: {denial}", request.method, request.uri.path());
    });
    Router::new().route("/whoami", get(whoami)).route("/write", get(write)).layer(tokens)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [issuer, audience, address] = arguments.as_slice() else {
        return Err("usage: axum_app ISSUER AUDIENCE ADDRESS".into());
    };
    let config = ValidatorConfig::new(issuer, audience);
    let relying_party = RelyingParty::builder(config).cache(10_000).build()?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(relying_party)).await?;
    Ok(())
}
