//! Signers' evidence, as the service keeps and appraises it: hygiene, so that it publishes no keys of
//! a signer whose evidence fails. Whoever has to rely on it appraises the same evidence themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chancery_attest::{
    AttestationResult, Endorsements, Kind, MAX_EVIDENCE_BYTES, MAX_POLICY_BYTES, Policy,
    SignerEvidence, Statement,
};
use chancery_signer_api::{Appraised, MadeEvidence};
use serde::Deserialize;
use serde_json::json;

use crate::service::hex;
use crate::store::{Store, StoreError};

/// What is accepted where the configuration names no policy: development, and nothing else.
const WITHOUT_POLICY: &str = "version = 1\nkinds = [\"software\"]\n";

/// The object with a log's evidence, below the log.
pub const EVIDENCE: &str = "evidence";
/// The object with how the service appraised it.
pub const RESULT: &str = "attestation-result";

/// `[attestation]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationSettings {
    /// The appraisal policy (docs/attestation.md); without it only `software` evidence is accepted.
    pub policy: Option<PathBuf>,
    /// Endorsements of the hardware, JSON: `certificates`, `crls`, `collateral`.
    pub endorsements: Option<PathBuf>,
}

/// The policy, the endorsements, and what is known of each log.
#[derive(Debug)]
pub struct Appraiser {
    policy: Policy,
    digest: [u8; 32],
    endorsements: Endorsements,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    kinds: BTreeMap<String, &'static str>,
    /// Objects that the store may not hold yet, by name; few, and small.
    waiting: BTreeMap<String, Bytes>,
    /// The same objects, and those that the store took, for the attached signer.
    served: BTreeMap<String, Bytes>,
}

/// Evidence that was appraised.
#[derive(Debug)]
pub struct Judged {
    /// The document, with endorsements.
    pub evidence: SignerEvidence,
    /// The service's judgement.
    pub result: AttestationResult,
}

impl Appraiser {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// What is wrong with the files, for the operator.
    pub fn open(settings: &AttestationSettings) -> Result<Self, String> {
        let read = |file: &PathBuf, limit: usize| -> Result<Vec<u8>, String> {
            let name = file.display();
            let bytes = std::fs::read(file).map_err(|e| format!("`{name}`: {e}"))?;
            let fits = bytes.len() <= limit;
            fits.then_some(bytes).ok_or_else(|| format!("`{name}` has more than {limit} bytes"))
        };
        let text = match &settings.policy {
            None => WITHOUT_POLICY.to_owned(),
            Some(file) => String::from_utf8(read(file, MAX_POLICY_BYTES)?)
                .map_err(|_| format!("`{}` is not UTF-8", file.display()))?,
        };
        let policy = Policy::parse(&text).map_err(|e| format!("attestation.policy: {e}"))?;
        let endorsements = match &settings.endorsements {
            None => Endorsements::default(),
            Some(file) => serde_json::from_slice(&read(file, MAX_EVIDENCE_BYTES)?)
                .map_err(|e| format!("attestation.endorsements: {e}"))?,
        };
        let digest = chancery_entry::sha256(text.as_bytes());
        Ok(Self { policy, digest, endorsements, known: Mutex::default() })
    }

    /// The document of what a signer made, with the endorsements that its kind takes.
    #[must_use]
    pub fn document(&self, made: &MadeEvidence) -> SignerEvidence {
        let statement = Statement {
            identity_keys: made.identity_keys.iter().map(|key| key.to_vec()).collect(),
            policy_digest: *made.policy_digest,
            nonce: made.nonce.to_vec(),
        };
        let mut evidence = SignerEvidence::new(&statement, made.evidence.clone());
        evidence.endorsements = self.endorsements.clone();
        evidence
    }

    /// Judges it now.
    ///
    /// # Errors
    /// Why it cannot be judged, or which checks failed: its keys are not published then.
    pub fn judge(&self, made: &MadeEvidence, now: u64) -> Result<Judged, String> {
        let evidence = self.document(made);
        let result = evidence.appraise(&self.policy, now).map_err(|e| e.to_string())?;
        if !result.accepted {
            let failed: Vec<String> =
                result.failures().map(|check| format!("{}: {}", check.name, check.value)).collect();
            return Err(format!("{} evidence: {}", result.kind, failed.join("; ")));
        }
        Ok(Judged { evidence, result })
    }

    /// Takes over what is to be published of a log; what the log is to say of it.
    pub fn publish(&self, log: &str, judged: &Judged) -> Appraised {
        let result = json!({
            "version": 1,
            "word_of": "the service, not the signer",
            "log": log,
            "evidence_digest": hex(&judged.evidence.digest()),
            "policy_digest": hex(&self.digest),
            "result": judged.result,
        });
        let (evidence, result) = (judged.evidence.to_json(), result.to_string());
        let mut known = self.known();
        known.served.clear();
        for (object, text) in [(EVIDENCE, evidence), (RESULT, result.clone())] {
            let (object, bytes) = (format!("log/{log}/{object}"), Bytes::from(text));
            known.waiting.insert(object.clone(), bytes.clone());
            known.served.insert(object, bytes);
        }
        Appraised {
            at: judged.result.at,
            evidence: judged.evidence.digest().into(),
            policy: self.digest.into(),
            accepted: judged.result.accepted,
            result: chancery_entry::sha256(result.as_bytes()).into(),
        }
    }

    /// Remembers the kind of a log's evidence.
    pub fn note_kind(&self, log: &str, kind: Kind) {
        self.known().kinds.insert(log.to_owned(), kind.as_str());
    }

    /// The kind of a log's evidence, where this service has seen it since its start.
    #[must_use]
    pub fn kind(&self, log: &str) -> Option<&'static str> {
        self.known().kinds.get(log).copied()
    }

    /// Writes what waits to the store.
    ///
    /// # Errors
    /// [`StoreError`]; it waits on then.
    pub async fn store(&self, store: &Store) -> Result<(), StoreError> {
        let waiting = self.known().waiting.clone();
        for (object, bytes) in waiting {
            store.put_durably(&object, bytes.clone()).await?;
            let mut known = self.known();
            if known.waiting.get(&object) == Some(&bytes) {
                known.waiting.remove(&object);
            }
        }
        Ok(())
    }

    /// An object of a log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, store: &Store, log: &str, object: &str) -> Result<Bytes, StoreError> {
        let object = format!("log/{log}/{object}");
        let served = self.known().served.get(&object).cloned();
        match served {
            Some(bytes) => Ok(bytes),
            None => store.get(&object).await,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
