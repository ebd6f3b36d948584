//! How far a receiver is, in a small file of its own in the data folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use chancery_token::b64;
use serde::{Deserialize, Serialize};

/// The version of the file's format.
const FORMAT: u32 = 1;

/// How far one log is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// Number of the next record.
    pub next: u64,
    /// No segment before this number holds it.
    pub segment: u64,
    /// Hour since 1970 of the last record that was read: no later one lies before it.
    pub hour: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    /// By log id.
    logs: BTreeMap<String, At>,
}

/// A cursor over every log.
#[derive(Debug)]
pub struct Cursor {
    file: PathBuf,
    logs: BTreeMap<[u8; 16], At>,
}

impl Cursor {
    /// Reads it; one that is absent or damaged begins anew, which delivers again and loses nothing.
    pub fn load(folder: &Path, name: &str) -> Self {
        let file = folder.join(format!("{name}.json"));
        let logs = match std::fs::read(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => damaged(&file, &e.to_string()),
            Ok(bytes) => parse(&bytes).unwrap_or_else(|why| damaged(&file, &why)),
        };
        Self { file, logs }
    }

    /// How far a log is.
    pub fn at(&self, log: &[u8; 16]) -> At {
        self.logs.get(log).copied().unwrap_or_default()
    }

    /// The hour before which nothing is needed any more of the logs that are known.
    pub fn oldest_hour(&self) -> u64 {
        self.logs.values().map(|at| at.hour).min().unwrap_or(0)
    }

    /// Remembers what was delivered, durably.
    ///
    /// # Errors
    /// A sentence.
    pub async fn advance(&mut self, log: [u8; 16], at: At) -> Result<(), String> {
        let mut logs = self.logs.clone();
        logs.insert(log, at);
        let text: BTreeMap<String, At> = logs.iter().map(|(l, at)| (b64::encode(l), *at)).collect();
        let bytes = serde_json::to_vec(&File { format: FORMAT, logs: text }).unwrap_or_default();
        let file = self.file.clone();
        let shown = file.display().to_string();
        let written = tokio::task::spawn_blocking(move || replace(&file, &bytes)).await;
        let written = written.map_err(|e| e.to_string())?;
        written.map_err(|e| format!("cursor `{shown}`: {e}"))?;
        self.logs = logs;
        Ok(())
    }
}

fn damaged(file: &Path, why: &str) -> BTreeMap<[u8; 16], At> {
    tracing::warn!("cursor `{}`: {why}; everything is delivered again", file.display());
    BTreeMap::new()
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<[u8; 16], At>, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if file.format != FORMAT {
        return Err(format!("format {} is not known", file.format));
    }
    let log = |text: &str| b64::decode_array::<16>(text).map_err(|e| e.to_string());
    file.logs.iter().map(|(text, at)| Ok((log(text)?, *at))).collect()
}

fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let draft = file.with_extension("new");
    let mut out = std::fs::File::create(&draft)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&draft, file)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cursor_comes_back_and_a_damaged_one_begins_anew() {
        let folder = std::env::temp_dir().join(format!("chancery-cursor-{}", std::process::id()));
        let mut cursor = Cursor::load(&folder, "siem");
        let (one, two) = (At { next: 7, segment: 1, hour: 9 }, At { next: 3, segment: 0, hour: 4 });
        cursor.advance([1; 16], one).await.unwrap();
        cursor.advance([2; 16], two).await.unwrap();
        let again = Cursor::load(&folder, "siem");
        assert_eq!((again.at(&[1; 16]), again.at(&[2; 16])), (one, two));
        assert_eq!((again.at(&[3; 16]), again.oldest_hour()), (At::default(), 4));
        let file = folder.join("siem.json");
        let text = std::fs::read_to_string(&file).unwrap();
        for wrong in ["", "{}", &text[1..], &text.replace("\"format\":1", "\"format\":2")] {
            std::fs::write(&file, wrong).unwrap();
            assert_eq!(Cursor::load(&folder, "siem").at(&[1; 16]), At::default(), "{wrong}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
