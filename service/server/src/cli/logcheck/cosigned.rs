//! The second signature of a signer's log: by the ML-DSA-44 key that its genesis states, over the latest
//! tree that it was asked about (`checkpoint.cosigned`). What it signs must be a beginning of the log.

use chancery_tlog::Checkpoint;
use chancery_tlog::note::{KeyType, VerifierKey};

use super::CheckError;
use super::source::Objects;
use super::walk::{Agreement, Check, Claim};

const OBJECT: &str = "checkpoint.cosigned";

/// What is served beside a log: its second key, and the latest checkpoint that both keys signed.
pub(in crate::cli) struct Cosigned {
    key: Option<VerifierKey>,
    claim: Option<Claim>,
}

impl Cosigned {
    /// Reads it. It is read before the log's checkpoint is, so that it is not ahead of that.
    pub fn read(
        objects: &dyn Objects,
        vkeys: &[u8],
        vkey: &VerifierKey,
    ) -> Result<Self, CheckError> {
        let key = second_key(vkeys, vkey).map_err(CheckError::disagrees)?;
        let note = match &key {
            Some(_) => objects.get(OBJECT).map_err(CheckError::Unknown)?,
            None => None,
        };
        let keys: Vec<_> = std::iter::once(vkey).chain(&key).cloned().collect();
        let open = |note: Vec<u8>| {
            let opened = Checkpoint::open_by_all(&note, &keys);
            let (Checkpoint { size, root, .. }, _) =
                opened.map_err(|e| CheckError::disagrees(format!("{OBJECT}: {e}")))?;
            Ok(Claim { size, root, by: "with both signatures" })
        };
        let claim = note.map(open).transpose()?;
        Ok(Self { key, claim })
    }

    /// The key beside the log, if there is a second one.
    pub fn key(&self) -> Option<&VerifierKey> {
        self.key.as_ref()
    }

    /// Whether there is a checkpoint that both keys signed.
    pub fn is_there(&self) -> bool {
        self.claim.is_some()
    }

    /// Once the log was walked: its second key must be the one that its genesis states, and what that
    /// signed a beginning of the log. Answers how many entries both keys signed; `None` for a log that
    /// has one key.
    pub fn check(
        self,
        check: &mut Check<'_>,
        agreement: &Agreement,
    ) -> Result<Option<u64>, CheckError> {
        let stated = agreement.story.cosigning_key.as_deref();
        // Of a log whose genesis was pruned the directory says it, which names both keys.
        let is_known = stated.is_some() || agreement.story.pruned == 0;
        if is_known && stated != self.key.as_ref().map(VerifierKey::public_key) {
            let why = "the second key beside the log is not the one that its genesis states";
            return Err(CheckError::disagrees(why.to_owned()));
        }
        if let Some(key) = &self.key {
            // A second signature there may be missing, and must not be wrong.
            let keys = [check.vkey.clone(), key.clone()];
            Checkpoint::open(check.note().as_bytes(), &keys)
                .map_err(|e| CheckError::disagrees(format!("checkpoint: {e}")))?;
        }
        if let Some(claim) = &self.claim {
            check.extends(claim)?;
        }
        Ok(self.key.map(|_| self.claim.map_or(0, |claim| claim.size)))
    }
}

/// The second line of a log's verifier keys; `None` if there is one line.
fn second_key(vkeys: &[u8], vkey: &VerifierKey) -> Result<Option<VerifierKey>, String> {
    let text = std::str::from_utf8(vkeys).map_err(|e| format!("vkey: {e}"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let Some((_, second)) = text.split_once('\n') else { return Ok(None) };
    let key = VerifierKey::parse(second).map_err(|e| format!("vkey: second line: {e}"))?;
    let fits = key.key_type() == KeyType::MlDsa44Cosignature && key.name() == vkey.name();
    if !fits || key.to_string() != second {
        return Err("vkey: the second line is not an ML-DSA-44 key of the log's name".into());
    }
    Ok(Some(key))
}
