//! What a witness remembers of a log: the cosigned checkpoint itself, as monitors get it. It carries
//! the witness's own signature, so that a record that was damaged or made up is found when it is read.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use chancery_tlog::note::{self, Note, VerifierKey};
use chancery_tlog::witness::checkpoint_path;
use chancery_tlog::{Checkpoint, Hash};

use super::{Disk, WitnessError};
use crate::service::hex;

/// The latest checkpoint that was cosigned of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Leaves in the tree.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
    /// When it was cosigned, Unix seconds.
    pub at: u64,
    /// The checkpoint with the log's signatures and the witness's cosignatures.
    pub note: Arc<str>,
}

/// The file of a log's record.
pub fn name(origin: &str) -> String {
    let path = checkpoint_path(origin);
    let hash = path.split('/').next().unwrap_or_default();
    format!("{hash}.checkpoint")
}

/// The file of a request that may be evidence: the same for the same checkpoint.
pub fn evidence_name(origin: &str, text: &str) -> String {
    let log = name(origin);
    let log = log.get(..16).unwrap_or_default();
    let text = hex(digest(&SHA256, text.as_bytes()).as_ref());
    format!("{log}-{}.request", text.get(..16).unwrap_or_default())
}

/// Reads a log's record; `None` if the log was never cosigned.
///
/// # Errors
/// [`WitnessError::Record`] for what this witness did not cosign, and [`WitnessError::RolledBack`]
/// when the second copy is ahead.
pub fn load(
    disk: &dyn Disk,
    origin: &str,
    own: &[VerifierKey],
) -> Result<Option<Known>, WitnessError> {
    let name = name(origin);
    let read = |copy: usize| -> Result<Option<Known>, WitnessError> {
        let path = disk.path(copy, &name);
        let file =
            |e: std::io::Error| WitnessError::File { path: path.clone(), why: e.to_string() };
        let Some(bytes) = disk.read(copy, &name).map_err(file)? else { return Ok(None) };
        let record = |why: String| WitnessError::Record { path: path.clone(), why };
        parse(&bytes, origin, own).map(Some).map_err(record)
    };
    let first = read(0)?;
    if disk.copies() < 2 {
        return Ok(first);
    }
    let second = read(1)?;
    let size = |known: &Option<Known>| known.as_ref().map_or(0, |k| k.size);
    let differs =
        matches!((&first, &second), (Some(a), Some(b)) if a.size == b.size && a.root != b.root);
    if size(&second) > size(&first) || differs || (first.is_none() && second.is_some()) {
        return Err(WitnessError::RolledBack(format!(
            "of `{origin}` the data folder holds the tree of size {}, the second copy one of size {}: \
             a copy that was restored is too old. Put `{}` in the place of `{}`, if it is the one \
             that the log publishes with this witness's cosignature",
            size(&first),
            size(&second),
            disk.path(1, &name).display(),
            disk.path(0, &name).display(),
        )));
    }
    // The first one is written first: after a crash in between, the second one follows here.
    if let Some(known) = first.as_ref().filter(|_| first != second) {
        let failed = |e: std::io::Error| WitnessError::File {
            path: disk.path(1, &name),
            why: e.to_string(),
        };
        disk.replace(&name, known.note.as_bytes()).map_err(failed)?;
    }
    Ok(first)
}

/// Reads a record, which this witness must have cosigned.
fn parse(bytes: &[u8], origin: &str, own: &[VerifierKey]) -> Result<Known, String> {
    let note = Note::parse(bytes).map_err(|e| e.to_string())?;
    let checkpoint = Checkpoint::parse(&note.text).map_err(|e| e.to_string())?;
    if checkpoint.origin != origin {
        return Err(format!("it is of the log `{}`", checkpoint.origin.escape_debug()));
    }
    let signers = note::signers(&note, own).map_err(|e| e.to_string())?;
    let at = signers.iter().filter_map(|signer| signer.timestamp).max();
    let at = at.ok_or("it does not carry this witness's cosignature")?;
    let Checkpoint { size, root, .. } = checkpoint;
    Ok(Known { size, root, at, note: note.encode().into() })
}
