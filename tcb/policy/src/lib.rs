//! Realms, clients, grants and schedules: what the signer may sign, for whom.
//!
//! Pure: a policy document, a request and the time go in, a decision comes out. The signer runs
//! this inside its own boundary, so that a compromised host can refuse but not forge
//! (INVARIANT I5). The service uses the same code to check a configuration before it hands it over.
//!
//! - [`document`]: the policy as operators write it, and its strict parsing.
//! - [`compiled`]: the policy as decisions use it.
//! - [`proof`]: who is asking: client assertions and signed issuance requests.
//! - [`replay`]: which proofs were used already.
//! - [`mod@decide`]: may this client have this token?
//! - [`claims`]: the payload of a granted token.
//! - [`kubernetes`]: may this Kubernetes service account have this token?
//! - [`witnessed`]: which directory roots free signatures.

pub mod claims;
pub mod compiled;
pub mod decide;
pub mod document;
pub mod kubernetes;
pub mod proof;
mod refusal;
pub mod replay;
pub mod witnessed;

pub use compiled::{Client, Policy, Realm};
pub use decide::{Ask, Granted, decide};
pub use document::{Error, KubernetesDocument, PolicyDocument, RealmDocument, Rotation, Schedule};
pub use refusal::{Refusal, RefusalCode};
