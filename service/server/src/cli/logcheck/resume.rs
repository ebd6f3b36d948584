//! The file of `--resume`: what was checked so far, so that a later run goes on from there.
//!
//! It is the user's own and believed as such, except for what can be checked: the tree it names must
//! be a prefix of the log's (a consistency proof), and the checkpoint it holds one by the log's key. A
//! checksum finds accidents.
//!
//! ```text
//! chancery log check 2 <SHA-256 of the rest, hexadecimal>
//! {"origin":"...","size":...,"root":"...","frontier":["..."],"tiles":["..."],"story":{...},"checkpoint":"..."}
//! ```

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, Frontier, Hash, TILE_WIDTH, TileBuilder};
use chancery_token::b64;
use serde::{Deserialize, Serialize};

use super::story::StoryText;
use super::walk::Walk;

/// How the file begins; the number rises when the format changes.
const FORMAT: &str = "chancery log check 2 ";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Which log.
    origin: String,
    /// Checked entries; a multiple of 256.
    size: u64,
    /// Their root.
    root: String,
    /// The roots of the perfect subtrees that they make up, the largest first.
    frontier: Vec<String>,
    /// The tiles at the right edge above level 0, lowest first.
    tiles: Vec<String>,
    /// What the entries said.
    story: StoryText,
    /// The latest checkpoint that was seen, a signed note.
    checkpoint: String,
}

/// A resume file, or a place in memory that is used as one.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Resume {
    File(PathBuf),
    Memory(Arc<Mutex<Vec<u8>>>),
}

/// What it held.
pub(in crate::cli) struct Resumed {
    pub walk: Walk,
    /// The latest checkpoint that was seen.
    pub seen: Checkpoint,
}

impl Resume {
    /// What an earlier run left; `None` when there is no such file yet.
    pub fn load(&self, vkey: &VerifierKey) -> anyhow::Result<Option<Resumed>> {
        let bytes = match self {
            Resume::Memory(bytes) => bytes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Resume::File(file) => match std::fs::read(file) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                other => other.with_context(|| self.to_string())?,
            },
        };
        if bytes.is_empty() && matches!(self, Resume::Memory(_)) {
            return Ok(None);
        }
        parse(&bytes, vkey).map(Some).with_context(|| self.to_string())
    }

    /// Replaces the file at once or not at all.
    pub fn save(&self, walk: &Walk, seen: &str, origin: &str) -> anyhow::Result<()> {
        let bytes = encode(walk, seen, origin)?;
        match self {
            Resume::Memory(held) => {
                *held.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
                Ok(())
            }
            Resume::File(file) => replace(file, &bytes).with_context(|| self.to_string()),
        }
    }
}

impl std::fmt::Display for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resume::File(file) => write!(f, "resume file `{}`", file.display()),
            Resume::Memory(_) => f.write_str("what was remembered"),
        }
    }
}

/// Writes a file so that it holds all of it or what it held before.
pub(in crate::cli) fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut draft = file.to_owned().into_os_string();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut out = File::create(&draft)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&draft, file)
}

fn encode(walk: &Walk, seen: &str, origin: &str) -> anyhow::Result<Vec<u8>> {
    let levels = 0..walk.tiles.levels();
    let state = State {
        origin: origin.to_owned(),
        size: walk.position(),
        root: walk.upper.root().to_string(),
        frontier: walk.upper.hashes().iter().map(Hash::to_string).collect(),
        tiles: levels.map(|l| b64::encode(walk.tiles.partial(l).unwrap_or_default())).collect(),
        story: StoryText::from(&walk.story),
        checkpoint: seen.to_owned(),
    };
    let body = serde_json::to_vec(&state)?;
    let sum = crate::service::hex(&chancery_entry::sha256(&body));
    let mut out = format!("{FORMAT}{sum}\n").into_bytes();
    out.extend_from_slice(&body);
    Ok(out)
}

fn parse(bytes: &[u8], vkey: &VerifierKey) -> anyhow::Result<Resumed> {
    let damaged = "it is damaged; delete it to begin anew";
    let text = std::str::from_utf8(bytes).context(damaged)?;
    let rest = text.strip_prefix(FORMAT);
    let rest = rest.context("it was not written by `chancery log check` of this version")?;
    let (sum, body) = rest.split_once('\n').context(damaged)?;
    if sum != crate::service::hex(&chancery_entry::sha256(body.as_bytes())) {
        anyhow::bail!(damaged);
    }
    let state: State = serde_json::from_str(body).context(damaged)?;
    if state.origin != vkey.name() {
        anyhow::bail!("it is about the log `{}`, not `{}`", state.origin, vkey.name());
    }
    let (seen, _) = Checkpoint::open(state.checkpoint.as_bytes(), std::slice::from_ref(vkey))
        .context("it is about another log: its checkpoint is not one by this log's key")?;
    if !state.size.is_multiple_of(TILE_WIDTH) || state.size > seen.size {
        anyhow::bail!(damaged);
    }
    let subtrees = state.size / TILE_WIDTH;
    let hashes: Result<Vec<Hash>, _> = state.frontier.iter().map(|h| h.parse()).collect();
    let upper = Frontier::from_hashes(subtrees, hashes.context(damaged)?).context(damaged)?;
    let tiles: Result<Vec<Vec<u8>>, _> = state.tiles.iter().map(|t| b64::decode(t)).collect();
    let tiles = TileBuilder::from_edge(subtrees, tiles.context(damaged)?).context(damaged)?;
    if upper.root() != tiles.root() || upper.root().to_string() != state.root {
        anyhow::bail!(damaged);
    }
    let story = state.story.read(state.size).context(damaged)?;
    Ok(Resumed { walk: Walk { upper, tiles, story }, seen })
}
