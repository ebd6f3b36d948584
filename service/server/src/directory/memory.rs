//! What the data folder remembers of the directory, so that a store that was exchanged for an older or
//! another one is found out, and a start need not read the directory of years.
//!
//! - `directory.seen`: the last checkpoint that was published.
//! - `directory.state`: what the entries up to some size say, with the tree that they make up. It is
//!   believed only as far as the store's directory is shown to extend that tree.
//!
//! Both are replaced at once or not at all, and not synced: after a loss of power one of them may be
//! missing or older, which weakens the first and lengthens the second, and breaks nothing.
//!
//! ```text
//! chancery directory state 1 <SHA-256 of the rest, hexadecimal>
//! {"origin":"...","size":...,"frontier":["..."],"entries":[[index,"base64url"],...]}
//! ```

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chancery_entry::directory::DirectoryEntry;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, Frontier, Hash};
use chancery_token::b64;
use chancery_validate::directory::Directory as Reading;
use serde::{Deserialize, Serialize};

/// How a state begins; the number rises when the format changes.
const FORMAT: &str = "chancery directory state 1 ";
/// A start reads at most about this many entries again: 16 bundles.
const STATE_EVERY: u64 = 4_096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    origin: String,
    size: u64,
    frontier: Vec<String>,
    entries: Vec<(u64, String)>,
}

/// What a reader of a directory knows, as bytes that [`decode_state`] reads.
#[must_use]
pub fn encode_state(origin: &str, reading: &Reading, frontier: &Frontier) -> Vec<u8> {
    let entry = |(at, entry): (u64, DirectoryEntry)| Some((at, b64::encode(&entry.encode().ok()?)));
    let state = State {
        origin: origin.to_owned(),
        size: reading.size(),
        frontier: frontier.hashes().iter().map(Hash::to_string).collect(),
        entries: reading.parts().into_iter().filter_map(entry).collect(),
    };
    let body = serde_json::to_string(&state).unwrap_or_default();
    let sum = crate::service::hex(&chancery_entry::sha256(body.as_bytes()));
    format!("{FORMAT}{sum}\n{body}").into_bytes()
}

/// Reads what [`encode_state`] wrote for the directory with this origin. The tree in it is one that
/// the reader saw; whether a directory extends it is for the caller to check.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn decode_state(bytes: &[u8], origin: &str) -> Result<(Reading, Frontier), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let rest = text.strip_prefix(FORMAT).ok_or("it is not of this version")?;
    let (sum, body) = rest.split_once('\n').ok_or("it is cut off")?;
    if sum != crate::service::hex(&chancery_entry::sha256(body.as_bytes())) {
        return Err("it is damaged".into());
    }
    let state: State = serde_json::from_str(body).map_err(|e| e.to_string())?;
    if state.origin != origin {
        return Err(format!("it is about the directory `{}`", state.origin));
    }
    let mut parts = Vec::with_capacity(state.entries.len());
    for (at, entry) in &state.entries {
        let bytes = b64::decode(entry).map_err(|e| e.to_string())?;
        parts.push((*at, DirectoryEntry::decode(&bytes).map_err(|e| e.to_string())?));
    }
    let reading = Reading::from_parts(state.size, parts).map_err(|e| e.to_string())?;
    let hashes: Result<Vec<Hash>, _> = state.frontier.iter().map(|hash| hash.parse()).collect();
    let hashes = hashes.map_err(|e: chancery_tlog::Error| e.to_string())?;
    let frontier = Frontier::from_hashes(state.size, hashes).map_err(|e| e.to_string())?;
    Ok((reading, frontier))
}

/// The two files.
#[derive(Debug)]
pub(super) struct Memory {
    seen: PathBuf,
    state: PathBuf,
    /// Size of the directory when its state was last kept.
    kept: std::sync::atomic::AtomicU64,
}

impl Memory {
    pub fn new(seen: PathBuf, state: PathBuf) -> Self {
        Self { seen, state, kept: 0.into() }
    }

    /// The checkpoint that was published last; `None` if none is remembered.
    pub fn checkpoint(&self, vkey: &VerifierKey) -> Option<Checkpoint> {
        let bytes = read(&self.seen)?;
        match Checkpoint::open(&bytes, std::slice::from_ref(vkey)) {
            Ok((checkpoint, _)) => Some(checkpoint),
            Err(e) => {
                tracing::warn!("`{}`: {e}; it is not used", self.seen.display());
                None
            }
        }
    }

    /// The size that the remembered checkpoint states, whoever signed it; for messages.
    pub fn last_size(&self) -> Option<u64> {
        let note = read(&self.seen)?;
        std::str::from_utf8(&note).ok()?.lines().nth(1)?.parse().ok()
    }

    /// Whether a directory was published before.
    pub fn is_there(&self) -> bool {
        self.seen.exists() || self.state.exists()
    }

    /// What the directory said, and its tree; nothing where that is not remembered.
    pub fn state(&self, origin: &str) -> (Reading, Frontier) {
        let nothing = || (Reading::new(), Frontier::new());
        let Some(bytes) = read(&self.state) else { return nothing() };
        match decode_state(&bytes, origin) {
            Ok((reading, frontier)) => {
                self.kept.store(reading.size(), std::sync::atomic::Ordering::Relaxed);
                (reading, frontier)
            }
            Err(why) => {
                let file = self.state.display();
                tracing::warn!("`{file}`: {why}; the directory is read whole");
                nothing()
            }
        }
    }

    pub fn keep_checkpoint(&self, note: &str) {
        replace(&self.seen, note.as_bytes());
    }

    pub fn state_is_due(&self, size: u64) -> bool {
        let kept = self.kept.load(std::sync::atomic::Ordering::Relaxed);
        size.saturating_sub(kept) >= STATE_EVERY
    }

    pub fn keep_state(&self, origin: &str, reading: &Reading, frontier: &Frontier) {
        replace(&self.state, &encode_state(origin, reading, frontier));
        self.kept.store(reading.size(), std::sync::atomic::Ordering::Relaxed);
    }
}

fn read(file: &Path) -> Option<Vec<u8>> {
    match std::fs::read(file) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => {
            tracing::warn!("`{}`: {e}; it is not used", file.display());
            None
        }
    }
}

/// A few kilobytes; the directory goes on without them where they cannot be written.
fn replace(file: &Path, bytes: &[u8]) {
    let mut draft = file.to_owned().into_os_string();
    draft.push(".new");
    let mut options = OpenOptions::new();
    let written = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| out.write_all(bytes))
        .and_then(|()| std::fs::rename(&draft, file));
    if let Err(e) = written {
        tracing::warn!("`{}`: {e}; a store that is rolled back may go unnoticed", file.display());
    }
}
