//! Appraisal of evidence that real hardware made, at fixed times: accepted as it is, refused with the
//! right check when anything that matters is changed.
//!
//! The evidence is not part of this repository (`CHANCERY_VECTORS` names its folder); what is under
//! `samples/` is. Without the folder the tests that need it say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    reason = "tests"
)]

mod azure;
mod common;
mod hostile;
mod nitro;
mod snp;
mod software;
mod tdx;
mod tpm;
