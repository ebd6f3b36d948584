//! Opening the directory: whether store, key and data folder belong together, and what a crash left.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use bytes::Bytes;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, EntriesTileId, Frontier, TILE_WIDTH, decode_entries, leaf_hash};
use chancery_token::client::ClientKey;
use chancery_validate::directory::Directory as Reading;

use super::memory::Memory;
use super::{Directory, DirectoryError, Pending, Writer, key};
use crate::logs::{Batch, Log, LogError};
use crate::store::{Mutable, Store, StoreError};

/// Where a directory's own files lie, in the data folder.
#[derive(Clone, Debug)]
pub struct Files {
    /// The private key, PKCS#8 PEM.
    pub key: PathBuf,
    /// The last checkpoint that was published.
    pub seen: PathBuf,
    /// What the entries said.
    pub state: PathBuf,
}

/// The payload of `directory/next`: the index of the first entry, 8 bytes, then the batch as in a
/// write-ahead record.
pub(super) fn encode_next(batch: &Batch, vkey: &VerifierKey) -> Result<Vec<u8>, DirectoryError> {
    let encoded = batch.encode(vkey).map_err(|e| DirectoryError::Sign(e.to_string()))?;
    Ok([&batch.first_index.to_be_bytes(), encoded.as_slice()].concat())
}

fn decode_next(bytes: &[u8]) -> Result<(Batch, VerifierKey), String> {
    let (first, rest) = bytes.split_first_chunk::<8>().ok_or("it is cut off")?;
    Batch::decode(u64::from_be_bytes(*first), rest)
}

/// What is in the store before anything is believed.
struct Found {
    vkey: Option<VerifierKey>,
    next: Mutable,
    batch: Option<Batch>,
}

impl Directory {
    /// Opens the directory in the store, or begins one. `origin` is the configured name; a new
    /// directory gets `default` where there is none.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing was changed but that a key may have been made.
    pub async fn open(
        store: Store,
        files: Files,
        origin: Option<&str>,
        default: &str,
    ) -> Result<Self, DirectoryError> {
        let found = Found::read(&store).await?;
        let memory = Memory::new(files.seen, files.state);
        let (key, vkey) = settle_key(&found, &memory, &files.key, origin.unwrap_or(default))?;
        if let Some(configured) = origin
            && configured != vkey.name()
        {
            let (configured, found) = (configured.to_owned(), vkey.name().to_owned());
            return Err(DirectoryError::Origin { configured, found });
        }
        let log = Log::open_directory(store.clone(), vkey.clone()).await?;
        let (reading, frontier) = replay(&log, &memory).await?;
        let pending = pending(&log, found.batch, &reading, &frontier)?;
        let served = log.checkpoint();
        let writer = Writer {
            next: found.next,
            pending,
            frontier,
            memory,
            genesis: HashMap::new(),
            told: Vec::new(),
        };
        Ok(Self {
            log,
            key,
            store,
            reading: RwLock::new(Arc::new(reading)),
            served: RwLock::new(served),
            living: Mutex::default(),
            behind: Mutex::default(),
            cosigner: OnceLock::new(),
            writer: tokio::sync::Mutex::new(writer),
        })
    }
}

impl Found {
    async fn read(store: &Store) -> Result<Self, DirectoryError> {
        let damaged = |object: &str, why: String| {
            let what = format!("{object}: {why}");
            LogError::Damaged { log: "directory".into(), what }
        };
        let vkey = match optional(store.get("directory/vkey").await)? {
            None => None,
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                let vkey = VerifierKey::parse(&text);
                Some(vkey.map_err(|e| damaged("vkey", e.to_string()))?)
            }
        };
        let mut next = Mutable::new("directory/next".into());
        let Some(bytes) = optional(next.read(store).await)? else {
            return Ok(Self { vkey, next, batch: None });
        };
        let (batch, named) = decode_next(&bytes).map_err(|why| damaged("next", why))?;
        if vkey.as_ref().is_some_and(|vkey| *vkey != named) {
            let why = "it is another directory's than `vkey` names".to_owned();
            return Err(damaged("next", why).into());
        }
        Ok(Self { vkey: Some(named), next, batch: Some(batch) })
    }
}

fn optional(result: Result<Bytes, StoreError>) -> Result<Option<Bytes>, StoreError> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Missing(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The key that belongs to the store's directory. One is made only where there is no directory, and
/// none is remembered: a key that was lost must be restored.
fn settle_key(
    found: &Found,
    memory: &Memory,
    path: &std::path::Path,
    name: &str,
) -> Result<(ClientKey, VerifierKey), DirectoryError> {
    match (key::load(path)?, &found.vkey) {
        (Some(key), Some(vkey)) => {
            let own = key::vkey(&key, vkey.name(), path)?;
            if own != *vkey {
                let found = vkey.to_string();
                return Err(DirectoryError::Foreign { found, path: path.to_owned() });
            }
            Ok((key, own))
        }
        (None, Some(vkey)) => {
            Err(DirectoryError::KeyLost { origin: vkey.name().to_owned(), path: path.to_owned() })
        }
        (_, None) if memory.is_there() => Err(match memory.last_size() {
            Some(known) => DirectoryError::RolledBack { known, found: 0 },
            None => DirectoryError::Key {
                path: path.to_owned(),
                why: "a directory was published from here, and the store holds none".into(),
            },
        }),
        (Some(key), None) => {
            let vkey = key::vkey(&key, name, path)?;
            Ok((key, vkey))
        }
        (None, None) => {
            let key = key::make(path)?;
            let vkey = key::vkey(&key, name, path)?;
            tracing::info!("a new directory: `{vkey}`; keep a copy of `{}`", path.display());
            Ok((key, vkey))
        }
    }
}

/// What the published entries say: those after the remembered state, on top of its tree, must hash to
/// the signed root, and pass by the remembered checkpoint.
async fn replay(log: &Log, memory: &Memory) -> Result<(Reading, Frontier), DirectoryError> {
    let (size, root) = log.size_and_root();
    let seen = memory.checkpoint(log.vkey());
    let (mut reading, mut frontier) = memory.state(log.vkey().name());
    let known = seen.as_ref().map_or(0, |seen| seen.size).max(reading.size());
    if known > size {
        return Err(DirectoryError::RolledBack { known, found: size });
    }
    let differs = |frontier: &Frontier, seen: &Option<Checkpoint>| {
        let due = seen.as_ref().filter(|seen| seen.size == frontier.size() && seen.size > 0);
        due.is_some_and(|seen| seen.root != frontier.root())
    };
    let mut rewritten = differs(&frontier, &seen);
    let mut bundle = frontier.size() / TILE_WIDTH;
    while let Some(id) = EntriesTileId::at(bundle, size) {
        let bytes = log.entries(id).await?;
        let entries = decode_entries(&bytes, usize::from(id.width)).map_err(|e| {
            let what = format!("{}: {e}", id.path());
            LogError::Damaged { log: "directory".into(), what }
        })?;
        for (index, entry) in (bundle.saturating_mul(TILE_WIDTH)..).zip(&entries) {
            if index < frontier.size() {
                continue;
            }
            reading.read(entry)?;
            frontier.append(leaf_hash(entry));
            rewritten |= differs(&frontier, &seen);
        }
        bundle = bundle.saturating_add(1);
    }
    if rewritten || (frontier.root() != root && known > 0) {
        return Err(DirectoryError::Rewritten { known });
    }
    if frontier.root() != root {
        let what = "its entries do not hash to the checkpoint's root".to_owned();
        return Err(LogError::Damaged { log: "directory".into(), what }.into());
    }
    Ok((reading, frontier))
}

/// The batch in `next`, if it is not published: this start carries it out.
fn pending(
    log: &Log,
    batch: Option<Batch>,
    reading: &Reading,
    frontier: &Frontier,
) -> Result<Option<Pending>, DirectoryError> {
    let Some(batch) = batch else { return Ok(None) };
    let size = log.size();
    let count = u64::try_from(batch.entries.len()).unwrap_or(u64::MAX);
    let end = batch.first_index.saturating_add(count);
    if end <= size {
        return Ok(None);
    }
    if batch.first_index != size {
        // The checkpoint that it follows was published before it was written.
        return Err(DirectoryError::RolledBack { known: batch.first_index, found: size });
    }
    let (mut reading, mut frontier) = (reading.clone(), frontier.clone());
    for entry in &batch.entries {
        reading.read(entry)?;
        frontier.append(leaf_hash(entry));
    }
    log.check(&batch)?;
    Ok(Some(Pending { batch, reading: Arc::new(reading), frontier }))
}
