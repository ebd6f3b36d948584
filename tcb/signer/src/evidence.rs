//! Evidence of this signer: bound to its identity keys and its policy, at the start for genesis, and
//! with anybody's nonce later (INVARIANT I8).

use chancery_entry::evidence::Statement;
use chancery_entry::sha256;
use chancery_signer_api::MadeEvidence;

use crate::attesters::{Attester, Error, Software};
use crate::log::Log;

/// The attester, and what it made first.
#[derive(Debug)]
pub struct Evidence {
    attester: Box<dyn Attester>,
    first: Option<MadeEvidence>,
}

impl Evidence {
    /// Evidence by nothing but this program's word.
    pub fn software() -> Self {
        Self { attester: Box::new(Software), first: None }
    }

    /// Makes the evidence that genesis names; its digest.
    ///
    /// # Errors
    /// [`Error`]; without evidence there is no log.
    pub fn at_start(&mut self, log: &Log, policy_digest: [u8; 32]) -> Result<[u8; 32], Error> {
        let made = self.make(log, policy_digest, Vec::new())?;
        let digest = sha256(made.evidence.as_bytes());
        self.first = Some(made);
        Ok(digest)
    }

    /// The evidence that genesis names, or, with a nonce, evidence that is made now.
    ///
    /// # Errors
    /// [`Error`].
    pub fn answer(
        &mut self,
        log: &Log,
        policy_digest: [u8; 32],
        nonce: Vec<u8>,
    ) -> Result<MadeEvidence, Error> {
        match &self.first {
            Some(first) if nonce.is_empty() => Ok(first.clone()),
            _ => self.make(log, policy_digest, nonce),
        }
    }

    fn make(
        &mut self,
        log: &Log,
        policy_digest: [u8; 32],
        nonce: Vec<u8>,
    ) -> Result<MadeEvidence, Error> {
        let statement = Statement { identity_keys: log.identity_keys(), policy_digest, nonce };
        let evidence = self.attester.attest(&statement.report_data()?)?;
        Ok(MadeEvidence {
            evidence,
            identity_keys: statement.identity_keys.into_iter().map(Into::into).collect(),
            policy_digest: statement.policy_digest.into(),
            nonce: statement.nonce.into(),
        })
    }
}
