//! Offline proofs that an entry is in a log (c2sp.org/tlog-proof), with file suffix `.tlog-proof`.

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::hash::Hash;
use crate::note::{MAX_NOTE_BYTES, Note, VerifierKey};
use crate::policy::{Accepted, Policy};
use crate::text::{decimal, from_base64, hash_from_base64, to_base64};
use crate::verify::verify_inclusion;

/// The longest proof that is read: a checkpoint, and as much again for hashes and extra data.
pub const MAX_PROOF_BYTES: usize = 2 * MAX_NOTE_BYTES;

/// The most hashes of an inclusion proof: the height of a tree of
/// [`MAX_TREE_SIZE`](crate::MAX_TREE_SIZE) leaves.
pub const MAX_PROOF_HASHES: usize = 63;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// An entry's index, its inclusion proof, and the checkpoint that the proof leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Data for the application. Nothing authenticates it. Empty data is the same as none.
    pub extra: Option<Vec<u8>>,
    /// Zero-based index of the entry in the log.
    pub index: u64,
    /// The inclusion proof, from the leaf's sibling up to the root's child.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, verbatim, with its signatures.
    pub checkpoint: String,
}

impl TlogProof {
    /// The proof as it is stored and sent.
    pub fn encode(&self) -> String {
        let mut out = format!("{HEADER}\n");
        if let Some(extra) = self.extra.as_deref().filter(|extra| !extra.is_empty()) {
            out.push_str(&format!("extra {}\n", to_base64(extra)));
        }
        out.push_str(&format!("index {}\n", self.index));
        for hash in &self.hashes {
            out.push_str(&format!("{hash}\n"));
        }
        out.push('\n');
        out.push_str(&self.checkpoint);
        out
    }

    /// Reads a proof, as bytes or text; [`encode`](Self::encode) gives the same bytes back. The
    /// checkpoint is a well-formed note then, but nothing has been verified.
    ///
    /// Fails with [`Error::Proof`], or as [`Note::parse`] does.
    pub fn parse(proof: impl AsRef<[u8]>) -> Result<TlogProof, Error> {
        TlogProof::parse_bytes(proof.as_ref())
    }

    fn parse_bytes(bytes: &[u8]) -> Result<TlogProof, Error> {
        if bytes.len() > MAX_PROOF_BYTES {
            return Err(Error::Proof("it is longer than 256 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::Proof("it is not UTF-8"))?;
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or(Error::Proof("no empty line precedes a checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(Error::Proof("its first line is not `c2sp.org/tlog-proof@v1`"));
        }
        let mut extra = None;
        if let Some(base64) = lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            let data = from_base64(base64).filter(|data| !data.is_empty());
            extra = Some(data.ok_or(Error::Proof("its extra data are not canonical base64"))?);
            lines.next();
        }
        let index = lines
            .next()
            .and_then(|line| decimal(line.strip_prefix("index ")?))
            .ok_or(Error::Proof("it has no line `index` with a plain decimal"))?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == MAX_PROOF_HASHES {
                return Err(Error::Proof("it has more than 63 hashes"));
            }
            let hash = hash_from_base64(line);
            hashes.push(hash.ok_or(Error::Proof("a hash is not 32 bytes of canonical base64"))?);
        }
        Note::parse(checkpoint.as_bytes())?;
        Ok(TlogProof { extra, index, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks the checkpoint's signatures and that `entry_leaf` (the [`leaf_hash`](crate::leaf_hash)
    /// of the entry) stands at [`index`](Self::index) below its root. Answers the checkpoint.
    ///
    /// Fails as [`Checkpoint::open`] and [`verify_inclusion`] do.
    pub fn verify(&self, entry_leaf: &Hash, keys: &[VerifierKey]) -> Result<Checkpoint, Error> {
        let (checkpoint, _) = Checkpoint::open(self.checkpoint.as_bytes(), keys)?;
        let (size, root) = (checkpoint.size, &checkpoint.root);
        verify_inclusion(entry_leaf, self.index, size, &self.hashes, root)?;
        Ok(checkpoint)
    }
    /// Checks the proof as [`verify`](Self::verify) does, but asks `policy` whether the checkpoint
    /// counts: a log must have signed it, and enough witnesses must have cosigned it. `log_keys` are
    /// keys of logs that are known from elsewhere, beside those that the policy lists.
    ///
    /// Fails as [`Policy::open`] and [`verify_inclusion`] do.
    pub fn verify_policy(
        &self,
        entry_leaf: &Hash,
        policy: &Policy,
        log_keys: &[VerifierKey],
    ) -> Result<Accepted, Error> {
        let accepted = policy.open(self.checkpoint.as_bytes(), log_keys)?;
        let (size, root) = (accepted.checkpoint.size, &accepted.checkpoint.root);
        verify_inclusion(entry_leaf, self.index, size, &self.hashes, root)?;
        Ok(accepted)
    }
}
