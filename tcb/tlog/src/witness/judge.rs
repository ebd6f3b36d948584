//! What a witness thinks of a request.

use super::{AddCheckpoint, SIZE_CONTENT_TYPE, encode_size};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::hash::{Hash, empty_root};
use crate::note::{self, Note, VerifierKey};
use crate::verify::verify_consistency;

/// The latest checkpoint that a witness cosigned of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Leaves in the tree.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

/// A checkpoint to cosign, once it is stored as the latest one of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its note with the log's signatures alone, which have been verified; those by other keys, of
    /// which nothing is known, are left out.
    pub note: Note,
}

/// Why a witness does not cosign, in the order in which it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is malformed: status 400.
    Malformed(Error),
    /// The witness has no keys for this origin: status 404.
    UnknownOrigin,
    /// No trusted key of the origin signed the checkpoint, or a signature by one is wrong: 403.
    Untrusted(Error),
    /// The old size is larger than the checkpoint's: status 400.
    OldSize {
        /// The old size.
        old: u64,
        /// The checkpoint's size.
        size: u64,
    },
    /// The old size is not that of the latest checkpoint: status 409. The client tries again from it.
    Conflict {
        /// Size of the latest checkpoint, 0 if there is none.
        latest: u64,
    },
    /// The tree is not shown to extend that of the latest checkpoint: status 422. The log's signature
    /// stands under it, so this may prove that the log misbehaves: the request should be kept.
    Inconsistent(Error),
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) | Refusal::OldSize { .. } => 400,
            Refusal::UnknownOrigin => 404,
            Refusal::Untrusted(_) => 403,
            Refusal::Conflict { .. } => 409,
            Refusal::Inconsistent(_) => 422,
        }
    }

    /// The content type and the body of the answer, which ends in a newline.
    pub fn body(&self) -> (&'static str, String) {
        let text = match self {
            Refusal::Conflict { latest } => return (SIZE_CONTENT_TYPE, encode_size(*latest)),
            Refusal::UnknownOrigin => "the origin is not known to this witness".to_owned(),
            Refusal::OldSize { old, size } => {
                format!("the old size `{old}` is larger than the checkpoint's `{size}`")
            }
            Refusal::Malformed(error)
            | Refusal::Untrusted(error)
            | Refusal::Inconsistent(error) => error.to_string(),
        };
        ("text/plain; charset=utf-8", format!("{text}\n"))
    }
}

/// A request that [`AddCheckpoint::parse`] refuses.
impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Malformed(error)
    }
}

/// Judges a request. `keys` are those that the witness trusts for the request's
/// [origin](AddCheckpoint::origin), none if it does not know the log; `latest` is the last checkpoint
/// of that origin that it cosigned.
///
/// The caller stores what is approved as the latest checkpoint before it answers, in one step with
/// this check: nothing else may be stored for the origin in between. A checkpoint of the same size and
/// root as the latest one is approved again, for a cosignature at a later time.
///
/// # Errors
/// The reason for which the witness must not cosign.
pub fn judge(
    request: &AddCheckpoint,
    keys: &[VerifierKey],
    latest: Option<&Latest>,
) -> Result<Approved, Refusal> {
    if keys.is_empty() {
        return Err(Refusal::UnknownOrigin);
    }
    note::verify(request.note(), keys).map_err(Refusal::Untrusted)?;
    let (old, checkpoint) = (request.old_size(), request.checkpoint());
    let size = checkpoint.size;
    if old > size {
        return Err(Refusal::OldSize { old, size });
    }
    let seen = latest.copied().unwrap_or_else(|| Latest { size: 0, root: empty_root() });
    if old != seen.size {
        return Err(Refusal::Conflict { latest: seen.size });
    }
    // An empty tree with another root than `SHA-256("")`, different roots at one size, and a proof
    // from size 0 that is not empty are all refused here.
    verify_consistency(old, &seen.root, size, &checkpoint.root, request.proof())
        .map_err(Refusal::Inconsistent)?;

    let mut note = request.note().clone();
    note.signatures.retain(|signature| keys.iter().any(|key| key.made(signature)));
    Ok(Approved { checkpoint: checkpoint.clone(), note })
}
