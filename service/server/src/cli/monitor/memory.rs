//! What a monitor remembers between two runs: a folder of small files, each replaced at once.
//!
//! ```text
//! followed.json       which deployment, its directory's key, and the number of each signer's key set
//! directory.checked   what was checked of the directory
//! <log id>.checked    what was checked of a log: the form of `chancery log check --resume`
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use chancery_tlog::LogId;
use serde::{Deserialize, Serialize};

use crate::cli::logcheck::resume::{Resume, replace};

/// What was followed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Followed {
    /// The deployment.
    url: String,
    /// Its directory's verifier key, once there was one.
    directory: Option<String>,
    /// `seq` of the latest `keys.jwt`, by log id.
    sequences: BTreeMap<String, u64>,
}

/// In a folder, or for one run only.
pub struct Memory {
    folder: Option<PathBuf>,
    followed: Followed,
    resumes: BTreeMap<String, Arc<Mutex<Vec<u8>>>>,
}

impl Memory {
    /// Takes up what an earlier run left in the folder; without one, nothing outlives this run.
    pub fn open(folder: Option<&Path>, url: &str) -> anyhow::Result<Self> {
        let new = Followed { url: url.to_owned(), ..Followed::default() };
        let mut memory =
            Self { folder: folder.map(Path::to_owned), followed: new, resumes: BTreeMap::new() };
        let Some(file) = memory.file() else { return Ok(memory) };
        let named = || format!("state `{}`", file.display());
        match std::fs::read(&file) {
            Ok(bytes) => memory.followed = serde_json::from_slice(&bytes).with_context(named)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let folder = file.parent().unwrap_or(&file);
                std::fs::create_dir_all(folder).with_context(named)?;
                memory.save()?;
            }
            Err(e) => return Err(e).with_context(named),
        }
        if memory.followed.url != url {
            anyhow::bail!(
                "state `{}` is about {}, not {url}; use a folder for each deployment",
                file.display(),
                memory.followed.url
            );
        }
        Ok(memory)
    }

    fn file(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("followed.json"))
    }

    fn save(&self) -> anyhow::Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        let bytes = serde_json::to_vec(&self.followed)?;
        replace(&file, &bytes).with_context(|| format!("state `{}`", file.display()))
    }

    /// Logs that earlier runs followed.
    pub fn logs(&self) -> Vec<LogId> {
        let files = self.folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok());
        let id = |file: std::fs::DirEntry| {
            file.file_name().to_str()?.strip_suffix(".checked")?.parse().ok()
        };
        files.into_iter().flatten().flatten().filter_map(id).collect()
    }

    /// Where the check of a log, or of the directory, goes on.
    pub fn resume(&mut self, log: &str) -> Resume {
        match &self.folder {
            Some(folder) => Resume::File(folder.join(format!("{log}.checked"))),
            None => Resume::Memory(self.resumes.entry(log.to_owned()).or_default().clone()),
        }
    }

    /// The verifier key of the directory, once there was one.
    pub fn directory(&self) -> Option<&str> {
        self.followed.directory.as_deref()
    }

    /// Remembers the directory's key.
    pub fn met_directory(&mut self, key: &str) -> anyhow::Result<()> {
        self.followed.directory = Some(key.to_owned());
        self.save()
    }

    /// The number of the latest key set of a log's signer.
    pub fn sequence(&self, log: LogId) -> Option<u64> {
        self.followed.sequences.get(&log.to_string()).copied()
    }

    /// Remembers the number of a key set.
    pub fn heard(&mut self, log: LogId, sequence: u64) -> anyhow::Result<()> {
        if self.followed.sequences.insert(log.to_string(), sequence) == Some(sequence) {
            return Ok(());
        }
        self.save()
    }
}
