//! Whether this is the store that was here: a start never takes an empty or an older one for a new
//! beginning (INVARIANT I9).
//!
//! The data folder remembers in `logs.seen` how far each log that still counts was published: its size
//! and root. It is replaced after each round of publishing, at once or not at all, and not synced: after
//! a loss of power it may be older or missing, which weakens it and breaks nothing. A start compares it,
//! and what the directory says of the logs, with the logs in the store, after recovery from the
//! write-ahead log, and before anything new is written. A data folder that is new remembers nothing;
//! then the directory speaks alone.
//!
//! ```text
//! {"format":1,"logs":{"<log id>":{"size":...,"root":"base64"}}}
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chancery_tlog::{Hash, LogId, verify_consistency};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::logs::{LogError, Logs};
use crate::service::ServiceError;

/// The number rises when the format changes.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    format: u32,
    logs: BTreeMap<String, Head>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    size: u64,
    root: String,
}

/// What the data folder remembers of the logs.
#[derive(Debug)]
pub struct Seen {
    file: PathBuf,
    written: Mutex<Option<Memory>>,
}

/// How far logs got at one moment.
#[derive(Debug)]
pub struct Heads(Memory);

impl Heads {
    /// Of every log that counts, as it is now.
    #[must_use]
    pub fn of(logs: &Logs) -> Self {
        let head = |log: std::sync::Arc<crate::logs::Log>| {
            let (size, root) = log.size_and_root();
            (log.id_text().to_owned(), Head { size, root: root.to_string() })
        };
        let logs = logs.all_open().into_iter().map(head).filter(|(_, head)| head.size > 0);
        Self(Memory { format: FORMAT, logs: logs.collect() })
    }
}

impl Seen {
    /// In this file of the data folder.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file, written: Mutex::default() }
    }

    /// Compares the store's logs with what the data folder and the directory know of them.
    ///
    /// # Errors
    /// [`ServiceError::StorageLost`] when the store has less, or something else; [`ServiceError::Log`]
    /// when a log cannot be read.
    pub async fn check(
        &self,
        logs: &Logs,
        directory: Option<&Directory>,
    ) -> Result<(), ServiceError> {
        for (id, head) in self.remembered().logs {
            let (Ok(id), Ok(root)) = (id.parse::<LogId>(), head.root.parse::<Hash>()) else {
                continue;
            };
            compare(logs, id, (head.size, root), "this service has published").await?;
        }
        let reading = directory.map(Directory::reading);
        for (id, named) in reading.iter().flat_map(|reading| reading.logs()) {
            // Logs that ended may have been put aside.
            if let (Some((_, head)), None) = (named.latest(), named.closing()) {
                compare(logs, id, (head.size, Hash(head.root)), "the directory says that it has")
                    .await?;
            }
        }
        Ok(())
    }

    /// Remembers logs that were published at least as far as this.
    pub fn remember(&self, Heads(heads): Heads) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref() == Some(&heads) {
            return;
        }
        let bytes = serde_json::to_vec(&heads).unwrap_or_default();
        if let Err(e) = replace(&self.file, &bytes) {
            let file = self.file.display();
            tracing::warn!("`{file}`: {e}; a store that is rolled back may go unnoticed");
            return;
        }
        *written = Some(heads);
    }

    fn remembered(&self) -> Memory {
        let nothing = Memory { format: FORMAT, logs: BTreeMap::new() };
        let bytes = match std::fs::read(&self.file) {
            Err(e) if e.kind() == ErrorKind::NotFound => return nothing,
            Err(e) => Err(e.to_string()),
            Ok(bytes) => Ok(bytes),
        };
        let memory = bytes
            .and_then(|bytes| serde_json::from_slice::<Memory>(&bytes).map_err(|e| e.to_string()));
        match memory {
            Ok(memory) if memory.format == FORMAT => memory,
            Ok(Memory { format, .. }) => {
                tracing::warn!("`{}`: format {format} is not known", self.file.display());
                nothing
            }
            Err(e) => {
                tracing::warn!("`{}`: {e}; it is not used", self.file.display());
                nothing
            }
        }
    }
}

/// That the store's log extends this tree.
async fn compare(
    logs: &Logs,
    id: LogId,
    (known, root): (u64, Hash),
    who: &str,
) -> Result<(), ServiceError> {
    let lost = |what: String| {
        ServiceError::StorageLost(format!(
            "log `{id}`: {who} {known} entries of it, and the store {what}; restore the store that \
             belongs to this data folder, or, to begin anew, take a new data folder and an empty store"
        ))
    };
    let log = match logs.open(id).await {
        Err(LogError::Unknown(_)) => return Err(lost("does not have the log".into())),
        other => other?,
    };
    let (size, now) = log.size_and_root();
    if size < known {
        return Err(lost(format!("has only {size}: it is an older copy, or another one")));
    }
    let proof = log.consistency(known, size).await?;
    verify_consistency(known, &root, size, &now, &proof)
        .map_err(|_| lost("has others: it was rewritten, or is another copy's".into()))
}

fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut draft = file.to_owned().into_os_string();
    draft.push(".new");
    std::fs::write(&draft, bytes)?;
    std::fs::rename(&draft, file)
}
