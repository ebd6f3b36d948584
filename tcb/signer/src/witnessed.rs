//! `release = "witnessed"` (INVARIANT I2): signatures leave only under a directory root that the
//! policy's witnesses cosigned, that holds a checkpoint of this signer covering them, and that
//! extends the last such root. All of it is verified here, so that it holds against the host too:
//! what is released is in a history that the witnesses keep the host from rewriting.

use chancery_entry::directory::DirectoryEntry;
use chancery_signer_api::{Covered, Witnessed};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::policy::Policy;
use chancery_tlog::{
    Checkpoint, Hash, LogId, MAX_PROOF_HASHES, leaf_hash, verify_consistency, verify_inclusion,
};

/// What this signer has seen of the directory.
#[derive(Debug)]
pub struct Witnessing {
    policy: Policy,
    text: String,
    /// Size and root of the last root that was accepted.
    directory: Option<(u64, Hash)>,
    /// Entries of this signer's log that stand under it.
    covered: u64,
}

impl Witnessing {
    /// Nothing is seen yet. `text` is the policy's, which cannot change while this signer lives.
    pub fn new(policy: Policy, text: String) -> Self {
        Self { policy, text, directory: None, covered: 0 }
    }

    /// Whether a later policy asks for the same.
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// Whether the first `size` entries of this signer's log are covered.
    pub fn covers(&self, size: u64) -> bool {
        self.covered >= size
    }

    /// Entries of the directory at the last root that was accepted; 0 for none.
    pub fn directory_size(&self) -> u64 {
        self.directory.as_ref().map_or(0, |(size, _)| *size)
    }

    /// Judges what the service shows; `key` is that of this signer's log, `log` its id. What is
    /// refused changes nothing.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn accept(
        &mut self,
        shown: &Witnessed,
        key: &VerifierKey,
        log: LogId,
    ) -> Result<Covered, String> {
        let accepted =
            self.policy.open(shown.checkpoint.as_bytes(), &[]).map_err(|e| e.to_string())?;
        let directory = accepted.checkpoint;
        let consistency = hashes(&shown.consistency)?;
        match &self.directory {
            Some((size, root)) => {
                let (new_size, new_root) = (directory.size, &directory.root);
                verify_consistency(*size, root, new_size, new_root, &consistency)
                    .map_err(|e| format!("the directory does not extend the last one: {e}"))?;
            }
            None if consistency.is_empty() => {}
            None => return Err("there is no directory root to be consistent with".into()),
        }
        let size = self.checkpoint_of(&shown.entry, key, log)?;
        let (leaf, inclusion) = (leaf_hash(&shown.entry), hashes(&shown.inclusion)?);
        verify_inclusion(&leaf, shown.index, directory.size, &inclusion, &directory.root)
            .map_err(|e| format!("the entry is not in the directory: {e}"))?;

        self.covered = self.covered.max(size);
        self.directory = Some((directory.size, directory.root));
        Ok(Covered { size: self.covered, directory_size: directory.size })
    }

    /// The size in a directory entry that holds a checkpoint of this signer. Its signature is this
    /// signer's own, which signs one tree only: covering is a matter of the size.
    fn checkpoint_of(&self, entry: &[u8], key: &VerifierKey, log: LogId) -> Result<u64, String> {
        let decoded = DirectoryEntry::decode(entry).map_err(|e| e.to_string())?;
        let DirectoryEntry::Checkpoint(held) = decoded else {
            return Err("the directory entry holds no checkpoint".into());
        };
        if held.log != *log.as_bytes() {
            return Err("the directory entry is about another log".into());
        }
        let checkpoint = Checkpoint::new(key.name(), held.size, Hash(held.root));
        let body = checkpoint.map_err(|e| e.to_string())?.body();
        if !key.verify(body.as_bytes(), &held.signature) {
            return Err("this signer never signed the checkpoint in the directory entry".into());
        }
        Ok(held.size)
    }
}

fn hashes(shown: &[minicbor::bytes::ByteArray<32>]) -> Result<Vec<Hash>, String> {
    if shown.len() > MAX_PROOF_HASHES {
        return Err(format!("a proof has at most {MAX_PROOF_HASHES} hashes"));
    }
    Ok(shown.iter().map(|hash| Hash(**hash)).collect())
}
