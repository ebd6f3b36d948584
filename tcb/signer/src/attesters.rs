//! What makes evidence. An attester knows one kind of hardware; what the evidence is bound to is
//! decided in [`crate::evidence`].

use serde_json::json;

use crate::SOFTWARE;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it should be bound to is beyond a limit.
    #[error(transparent)]
    Statement(#[from] chancery_entry::Error),
}

/// Makes evidence of one kind.
pub trait Attester: std::fmt::Debug + Send {
    /// Evidence that is bound to this report data, as a JSON document without endorsements.
    ///
    /// # Errors
    /// [`Error`] when the hardware, or what stands before it, refuses.
    fn attest(&mut self, report_data: &[u8; 64]) -> Result<String, Error>;
}

/// A program's word about itself: for development. Nothing signs it.
#[derive(Debug)]
pub struct Software;

impl Attester for Software {
    fn attest(&mut self, report_data: &[u8; 64]) -> Result<String, Error> {
        let hex: String = report_data.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(json!({"kind": "software", "software": SOFTWARE, "report_data": hex}).to_string())
    }
}
