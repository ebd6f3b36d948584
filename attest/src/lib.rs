//! Evidence of confidential hardware, and its appraisal (RFC 9334): for relying parties, who bring
//! their own reference values, and for the service.
//!
//! Pure: no I/O, no clock. [`Evidence::parse`] reads what was collected, [`Policy::parse`] what is
//! accepted, and [`appraise`] judges one by the other at a given time. The result names every check
//! with the value that it saw; a kind of evidence is judged by the module of its name.

mod azure;
mod bundle;
mod bytes;
mod error;
mod evidence;
mod nitro;
mod policy;
mod result;
mod roots;
mod signer;
mod snp;
mod software;
mod tdx;
mod tpm;
mod x509;

pub use bundle::{Bundle, Logged, MAX_BUNDLE_BYTES, Walk};
pub use bytes::{Base64, Hex, unhex};
pub use error::Error;
pub use evidence::{Collateral, Evidence, MAX_EVIDENCE_BYTES, TpmQuote};
pub use policy::{
    AzurePolicy, Freshness, MAX_POLICY_BYTES, MinimumTcb, Need, NitroPolicy, Policy, Product,
    Reference, ReportDataField, SigningKey, SnpPolicy, TcbStatus, TdxPolicy, TpmPolicy,
};
pub use result::{AttestationResult, Backing, Check, Kind};

pub use chancery_entry::evidence::Statement;
pub use signer::{Endorsements, SignerEvidence};

use result::Appraisal;

/// Judges evidence by a policy at a time (Unix seconds). `report_data` is what the evidence must be
/// bound to, compared whole; `None` only where the policy does not require it.
///
/// # Errors
/// Where there is nothing to judge: a structure is malformed, or an endorsement is missing. A
/// judgement against the evidence is a result whose `accepted` is false.
pub fn appraise(
    evidence: &Evidence,
    policy: &Policy,
    at: u64,
    report_data: Option<&[u8]>,
) -> Result<AttestationResult, Error> {
    let mut appraisal = Appraisal::new(evidence.kind(), at);
    let observed = evidence.judge(&mut appraisal, policy)?;
    Ok(appraisal.finish(policy, &observed, report_data))
}
