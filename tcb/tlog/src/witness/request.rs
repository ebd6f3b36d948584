//! What is posted to `add-checkpoint`.

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::hash::{Hash, MAX_TREE_SIZE};
use crate::note::{MAX_NOTE_BYTES, Note};
use crate::proof::MAX_PROOF_HASHES;
use crate::text::{decimal, hash_from_base64};

/// The longest request that is read: a checkpoint's note, 63 hashes of 45 bytes, and the line with
/// the old size.
pub const MAX_REQUEST_BYTES: usize = MAX_NOTE_BYTES + 4096;

/// A request to cosign a checkpoint. It is well-formed, and nothing more: nothing is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old_size: u64,
    proof: Vec<Hash>,
    checkpoint: Checkpoint,
    note: Note,
}

impl AddCheckpoint {
    /// A request for a cosignature on the checkpoint that is signed in `note`. `old_size` is that of
    /// the last checkpoint that the witness cosigned of this log, 0 if it has none or if that is not
    /// known; `proof` is the consistency proof from there, empty from 0.
    ///
    /// Fails with [`Error::WitnessRequest`], [`Error::Checkpoint`] or [`Error::TreeSize`].
    pub fn new(old_size: u64, proof: Vec<Hash>, note: Note) -> Result<AddCheckpoint, Error> {
        if old_size > MAX_TREE_SIZE {
            return Err(Error::TreeSize(old_size));
        }
        if proof.len() > MAX_PROOF_HASHES {
            return Err(Error::WitnessRequest("it has more than 63 hashes"));
        }
        if note.signatures.is_empty() {
            return Err(Error::WitnessRequest("its checkpoint is not signed"));
        }
        let checkpoint = Checkpoint::parse_claim(&note.text)?;
        Ok(AddCheckpoint { old_size, proof, checkpoint, note })
    }

    /// Reads a request's body; [`encode`](Self::encode) gives the same bytes back.
    ///
    /// Fails with [`Error::WitnessRequest`], or as [`Note::parse`] and [`new`](Self::new) do; the
    /// status is 400 then.
    pub fn parse(bytes: &[u8]) -> Result<AddCheckpoint, Error> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(Error::WitnessRequest("it is longer than 132 KiB"));
        }
        let text = str::from_utf8(bytes).map_err(|_| Error::WitnessRequest("it is not UTF-8"))?;
        let (head, note) = text
            .split_once("\n\n")
            .ok_or(Error::WitnessRequest("no empty line precedes a checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| decimal(line.strip_prefix("old ")?))
            .ok_or(Error::WitnessRequest("its first line is not `old` and a plain decimal"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == MAX_PROOF_HASHES {
                return Err(Error::WitnessRequest("it has more than 63 hashes"));
            }
            let hash = hash_from_base64(line);
            proof.push(
                hash.ok_or(Error::WitnessRequest("a hash is not 32 bytes of canonical base64"))?,
            );
        }
        AddCheckpoint::new(old_size, proof, Note::parse(note.as_bytes())?)
    }

    /// The body of the request.
    pub fn encode(&self) -> String {
        let mut out = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            out.push_str(&format!("{hash}\n"));
        }
        out.push('\n');
        out.push_str(&self.note.encode());
        out
    }

    /// Which log the checkpoint claims to be of.
    pub fn origin(&self) -> &str {
        &self.checkpoint.origin
    }

    /// The size that the client takes for that of the witness's latest checkpoint.
    pub fn old_size(&self) -> u64 {
        self.old_size
    }

    /// The consistency proof from the old size, as it was sent.
    pub fn proof(&self) -> &[Hash] {
        &self.proof
    }

    /// The checkpoint. The root that it claims for an empty tree may be wrong.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The checkpoint's note, with its signatures.
    pub fn note(&self) -> &Note {
        &self.note
    }
}
