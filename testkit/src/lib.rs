//! Runs the real binaries for tests: starts them, loads them, breaks them, and judges what came
//! out. A dev-dependency only.
//!
//! A [`Lab`] is one data folder with the processes that live on it. [`TestClient`] makes the proofs
//! that clients make, [`Load`] asks for tokens until told to stop, [`Judge`] checks each of them as
//! a relying party and an auditor would.
//!
//! Everything here panics where a test should fail, and says what it saw.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken expectation of the harness is a failed test"
)]

mod client;
mod config;
mod judge;
mod lab;
mod load;
mod own_log;
mod port;
mod web;
mod witness;

pub use client::{TestClient, now};
pub use config::{ClientText, RealmText, grant};
pub use judge::{Judge, WebLog};
pub use lab::{Exit, Lab, start_signer, wait_until, wait_until_gone};
pub use load::{Load, Received};
pub use own_log::OwnLog;
pub use port::Port;
pub use web::{Answer, Web, raw_exchange};
pub use witness::WitnessProcess;
