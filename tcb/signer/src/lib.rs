//! The trusted signer: it decides, sequences, appends and signs. Everything that INVARIANT I1 to
//! I5 and I10 rest on is in this crate and the pure crates below it.
//!
//! The page to open first is [`issue`]: the life of a token inside the signer. [`lifecycle`] is the
//! life of a key. [`signer`] holds the state and the one place where requests are dispatched;
//! [`serve`] is the event loop around it, [`door`] where its peer comes in, [`memory`] where the private keys are, [`sandbox`] what the
//! process gives up before it starts.

mod attesters;
pub mod clock;
pub mod door;
mod evidence;
mod imports;
pub mod issue;
mod keys;
mod kubernetes;
pub mod lifecycle;
mod log;
pub mod machine;
pub mod memory;
mod open;
mod publish;
mod rsa_pool;
pub mod sandbox;
pub mod serve;
pub mod signer;
mod witnessed;

/// Name and version, for genesis entries and greetings.
pub const SOFTWARE: &str = concat!("chancery-signer ", env!("CARGO_PKG_VERSION"));
