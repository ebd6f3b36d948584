//! A signer's evidence as `/log/<log id>/evidence` serves it: what the signer made, what it is bound
//! to, and the endorsements that came from elsewhere.

use chancery_entry::evidence::{QUOTE_DATA_BYTES, Statement};
use serde::{Deserialize, Serialize};

use crate::bytes::{Base64, Hex};
use crate::error::Error;
use crate::evidence::{Collateral, Evidence, MAX_EVIDENCE_BYTES};
use crate::policy::{Policy, ReportDataField};
use crate::result::{AttestationResult, Kind};

/// The version of the document.
const VERSION: u32 = 1;

/// Evidence of a signer, not yet judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerEvidence {
    version: u32,
    /// Every identity key that it is bound to: the byte of its signature type, and the public key
    /// (c2sp.org/signed-note).
    pub identity_keys: Vec<Base64>,
    /// SHA-256 of the policy that it is bound to.
    pub policy_digest: Hex,
    /// The verifier's nonce; empty in the evidence that the log's genesis names.
    pub nonce: Hex,
    /// The evidence exactly as the signer made it, a JSON document: genesis has its SHA-256.
    pub evidence: String,
    /// What others say about the hardware.
    #[serde(default)]
    pub endorsements: Endorsements,
}

/// What others say about the hardware; each kind of evidence has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endorsements {
    /// SNP: the VCEK or VLEK, and any ASK or ASVK that is not built in, DER.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Base64>,
    /// SNP: AMD's lists of revoked certificates, DER.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub crls: Vec<Base64>,
    /// TDX: Intel's statements about the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collateral: Option<Collateral>,
}

impl SignerEvidence {
    /// The document of what a signer made.
    #[must_use]
    pub fn new(statement: &Statement, evidence: String) -> Self {
        Self {
            version: VERSION,
            identity_keys: statement.identity_keys.iter().cloned().map(Base64).collect(),
            policy_digest: Hex(statement.policy_digest.to_vec()),
            nonce: Hex(statement.nonce.clone()),
            evidence,
            endorsements: Endorsements::default(),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_EVIDENCE_BYTES {
            let (what, limit) = ("the evidence", MAX_EVIDENCE_BYTES);
            return Err(Error::TooLarge { what, bytes: bytes.len(), limit });
        }
        let parsed: Self = serde_json::from_slice(bytes).map_err(|e| malformed(&e))?;
        parsed.check()
    }

    pub(crate) fn check(self) -> Result<Self, Error> {
        if self.version != VERSION {
            return Err(malformed(&format!("`version` is {}, not {VERSION}", self.version)));
        }
        Ok(self)
    }

    /// The document's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists of them: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the evidence must be bound to.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn statement(&self) -> Result<Statement, Error> {
        let policy_digest = <[u8; 32]>::try_from(self.policy_digest.0.as_slice());
        Ok(Statement {
            identity_keys: self.identity_keys.iter().map(|key| key.0.clone()).collect(),
            policy_digest: policy_digest.map_err(|_| malformed(&"a digest has 32 bytes"))?,
            nonce: self.nonce.0.clone(),
        })
    }

    /// SHA-256 of what the signer made, as genesis has it where [`Self::nonce`] is empty.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        chancery_entry::sha256(self.evidence.as_bytes())
    }

    /// The evidence with its endorsements.
    ///
    /// # Errors
    /// As [`Evidence::parse`]; [`Error::Malformed`] for endorsements that its kind does not have.
    pub fn evidence(&self) -> Result<Evidence, Error> {
        let mut evidence = Evidence::parse(self.evidence.as_bytes())?;
        let given = &self.endorsements;
        let none = |what: &str| Err(malformed(&format!("this kind of evidence takes no {what}")));
        for certificate in &given.certificates {
            if !evidence.add_certificates(&certificate.0)? {
                return none("certificate");
            }
        }
        for crl in &given.crls {
            if !evidence.add_crl(&crl.0) {
                return none("list of revoked certificates");
            }
        }
        if let Some(collateral) = &given.collateral
            && !evidence.take_collateral(collateral.clone())
        {
            return none("collateral");
        }
        Ok(evidence)
    }

    /// Judges it by a policy at a time (Unix seconds); that it is bound to its statement is compared
    /// whatever the policy says of report data.
    ///
    /// # Errors
    /// As [`crate::appraise`].
    pub fn appraise(&self, policy: &Policy, at: u64) -> Result<AttestationResult, Error> {
        let evidence = self.evidence()?;
        let data = self.statement()?.report_data().map_err(|e| malformed(&e))?;
        let short = match evidence.kind() {
            Kind::Tpm => true,
            Kind::AzureSnp | Kind::AzureTdx => policy.azure.report_data == ReportDataField::Quote,
            Kind::Snp | Kind::Tdx | Kind::Nitro | Kind::Software => false,
        };
        // A TPM's quote has room for 32 bytes everywhere; for 64 only in some TPMs.
        let data = if short { data.get(..QUOTE_DATA_BYTES) } else { Some(&data[..]) };
        crate::appraise(&evidence, policy, at, Some(data.unwrap_or_default()))
    }
}

fn malformed(why: &dyn std::fmt::Display) -> Error {
    Error::malformed("document of a signer's evidence", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        Statement { identity_keys: vec![vec![1; 33]], policy_digest: [2; 32], nonce: vec![] }
    }

    fn made() -> SignerEvidence {
        let data = Hex(statement().report_data().unwrap().to_vec());
        let made = Evidence::Software { software: "test".to_owned(), report_data: data };
        SignerEvidence::new(&statement(), made.to_json().to_string())
    }

    fn judged(evidence: &SignerEvidence) -> bool {
        let policy = Policy::parse("version = 1\nkinds = [\"software\"]\n").unwrap();
        evidence.appraise(&policy, 1).unwrap().accepted
    }

    #[test]
    fn a_document_survives_its_text_and_is_accepted() {
        let read = SignerEvidence::parse(made().to_json().as_bytes()).unwrap();
        assert_eq!(read, made());
        assert_eq!(read.statement().unwrap(), statement());
        assert!(judged(&read));
    }

    #[test]
    fn another_statement_is_refused() {
        let mut others = vec![made(); 4];
        others[0].identity_keys[0].0[5] ^= 1;
        others[1].identity_keys.push(Base64(vec![6; 33]));
        others[2].policy_digest.0[0] ^= 1;
        others[3].nonce = Hex(vec![0; 8]);
        assert!(others.iter().all(|other| !judged(other)));
    }

    #[test]
    fn endorsements_of_another_kind_and_versions_are_refused() {
        let mut other = made();
        other.endorsements.crls.push(Base64(vec![0]));
        assert!(matches!(other.evidence(), Err(Error::Malformed { .. })));
        let text = made().to_json().replace("\"version\":1", "\"version\":2");
        assert!(matches!(SignerEvidence::parse(text.as_bytes()), Err(Error::Malformed { .. })));
    }
}
