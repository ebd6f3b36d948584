//! Taking a signer's evidence: before anything that it signed is published, and anew for whoever
//! brings a nonce.

use chancery_attest::SignerEvidence;
use chancery_signer_api::{EvidenceRequest, Request, Response, Welcome};
use chancery_tlog::LogId;

use super::{Service, ServiceError};
use crate::evidence::Judged;
use crate::link::{Connection, LinkError};
use crate::logs::Log;

/// The byte of an Ed25519 key's signature type (c2sp.org/signed-note).
const ED25519: u8 = 1;

impl Service {
    /// The evidence that a signer made at its start, appraised.
    ///
    /// # Errors
    /// [`ServiceError::Evidence`] when it is not accepted.
    pub(super) fn take_evidence(
        &self,
        connection: &mut Connection,
        welcome: &Welcome,
    ) -> Result<Judged, ServiceError> {
        let request = EvidenceRequest { nonce: Vec::new().into() };
        let made = match connection.ask(&Request::Evidence(request))? {
            Response::Evidence(made) => made,
            other => return Err(LinkError::out_of_step(&other).into()),
        };
        let mut identity = vec![ED25519];
        identity.extend_from_slice(&*welcome.identity);
        if !made.identity_keys.iter().any(|key| key.to_vec() == identity) {
            let why = "it is not about the key that the signer greets with".to_owned();
            return Err(ServiceError::Evidence(why));
        }
        let judged = self.appraiser.judge(&made, crate::now()).map_err(ServiceError::Evidence)?;
        self.appraiser.note_kind(&LogId::of(&welcome.identity).to_string(), judged.result.kind);
        Ok(judged)
    }

    /// Publishes the evidence of a log whose genesis is there, and has the log say how it was judged.
    ///
    /// # Errors
    /// [`ServiceError::Evidence`] when genesis names other evidence.
    pub(super) fn publish_evidence(
        &self,
        connection: &mut Connection,
        log: &Log,
        judged: &Judged,
    ) -> Result<(), ServiceError> {
        let named = log.ledger().genesis.and_then(|genesis| genesis.evidence_digest);
        if named != Some(judged.evidence.digest()) {
            let why = "the log's genesis names other evidence".to_owned();
            return Err(ServiceError::Evidence(why));
        }
        let appraised = self.appraiser.publish(log.id_text(), judged);
        match connection.ask(&Request::Appraised(appraised))? {
            Response::Noted => {}
            other => return Err(LinkError::out_of_step(&other).into()),
        }
        Ok(())
    }

    /// Evidence that the attached signer makes now, bound to a verifier's nonce.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub async fn fresh_evidence(&self, nonce: Vec<u8>) -> Result<SignerEvidence, String> {
        let request = EvidenceRequest { nonce: nonce.into() };
        match self.issuer.call(Request::Evidence(request)).await {
            Ok(Response::Evidence(made)) => Ok(self.appraiser.document(&made)),
            Ok(Response::Fault(fault)) => Err(fault.detail),
            Ok(_) => Err("the signer answered out of step".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }
}
