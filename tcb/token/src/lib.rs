//! JOSE bytes: compact JWS, JWK, JWK Sets and the eight signature algorithms that Chancery knows.
//!
//! This crate is the one place where a signature meets an encoding. The signer, the service and
//! every relying party go through it, so that a token has exactly one spelling: what this crate
//! writes it accepts, and whatever a second parser could read differently it refuses.
//!
//! It is pure: no I/O, no clock, no logging. Randomness enters only inside `aws-lc-rs`, when a key
//! is generated and where a signature scheme draws its own.
//!
//! | module or type | for |
//! |---|---|
//! | [`b64`] | base64url without padding, canonical only (RFC 7515, section 2) |
//! | [`json`] | strict JSON: no duplicate members, bounded depth, exact seconds |
//! | [`Algorithm`], [`KeyId`] | JOSE algorithm names; RFC 7638 thumbprints as `kid` |
//! | [`SigningKey`] | a private key that cannot leave the process |
//! | [`PublicKey`] | a checked, parsed public key; reading and writing JWKs |
//! | [`client`] | keys of clients, which live in files |
//! | [`jws`] | compact JWS (RFC 7515): parse, verify, write |
//! | [`jwks`] | JWK Sets (RFC 7517) with Chancery's members |
//!
//! Claims are not judged here: a verified signature says who spoke, not whether the token is
//! acceptable.

mod algorithm;
pub mod b64;
pub mod client;
mod ed25519;
mod error;
pub mod json;
mod jwk;
pub mod jwks;
pub mod jws;
mod key_id;
mod public;
mod signing;

pub use algorithm::{Algorithm, RsaBits};
pub use error::Error;
pub use key_id::KeyId;
pub use public::PublicKey;
pub use signing::SigningKey;

#[cfg(test)]
mod fixtures;
