//! Why evidence could not be judged. A judgement against evidence is no error: it is an
//! [`AttestationResult`](crate::AttestationResult) with the checks that failed.

use thiserror::Error;

/// Why there is no attestation result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The bytes are larger than any evidence; nothing was parsed.
    #[error("{what} has {bytes} bytes, more than the {limit} that are read")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// The limit that it breaks.
        limit: usize,
    },
    /// The bytes look like no kind of evidence.
    #[error(
        "this is no evidence that is known here; expected a JSON document with `kind`, or the \
         bytes of an SNP report, a TDX quote or a Nitro document"
    )]
    UnknownKind,
    /// A structure does not have the layout that its specification gives it.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The structure.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Something that the judgement needs did not come with the evidence.
    #[error("{what} did not come with the evidence: {hint}")]
    Missing {
        /// What is needed.
        what: &'static str,
        /// Where it is to be had.
        hint: &'static str,
    },
    /// The policy file is wrong.
    #[error("line {line}: {why}")]
    Policy {
        /// Line of the policy file, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        why: String,
    },
}

impl Error {
    pub(crate) fn malformed(what: &'static str, why: impl ToString) -> Self {
        Self::Malformed { what, why: why.to_string() }
    }
}
