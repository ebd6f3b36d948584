//! The signer against a hostile host: through its library surface with a clock that the test sets,
//! and as the process that it is.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod cosigned;
mod evidence;
mod hostile_service;
mod keys_and_policy;
mod kubernetes;
mod process;
mod proofs;
mod support;
mod witnessed;
