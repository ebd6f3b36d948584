//! Where logs are, and reading one object of them.

use std::io::Read as _;
use std::path::Path;

use chancery_tlog::{
    EntriesTileId, FULL_TILE_BYTES, Hash, LogId, MAX_ENTRY_BYTES, TILE_WIDTH, TileId,
};
use chancery_token::jwks::MAX_SET_BYTES;
use chancery_validate::log::Search;

use crate::error::FetchError;
use crate::fetch::Web;

/// What stands for the log's id in a place.
const LOG: &str = "{log}";
/// How a place ends beside which there is a directory, and what that is called.
const LOGS: &str = "/log/{log}";
const DIRECTORY: &str = "/directory";

/// Where the objects of logs are; `{log}` in it stands for a log's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Below a URL.
    Web(String),
    /// Below a folder, for logs that were copied.
    Folder(String),
}

/// Which of the logs at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// A signer's.
    Log(LogId),
    /// The directory that names them.
    Directory,
}

/// One object of a log (c2sp.org/tlog-tiles), and Chancery's own beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// The log's verifier key.
    Vkey,
    /// The latest checkpoint.
    Checkpoint,
    /// The latest checkpoint that both keys of the signer signed.
    Cosigned,
    /// The signer's own part of the key set.
    KeySet,
    /// Where a directory's entries are.
    Index,
    /// A tile of hashes.
    Tile(TileId),
    /// A bundle of entries.
    Entries(EntriesTileId),
    /// Where a leaf stands, as whoever serves the log says.
    Search(Hash),
}

/// Verifier keys, one a line; an ML-DSA-44 key has 1.8 kB.
const MAX_VKEY_BYTES: usize = 4 * 1024;
/// A checkpoint with the cosignatures of some hundred witnesses.
const MAX_CHECKPOINT_BYTES: usize = 64 * 1024;
/// Two numbers, or a problem document with one.
const MAX_SEARCH_BYTES: usize = 4 * 1024;
/// Some four thousand logs; the service lists half as many, the newest.
const MAX_INDEX_BYTES: usize = 1024 * 1024;
/// A full bundle of the longest entries, each behind its length in two octets.
const MAX_BUNDLE_BYTES: usize = TILE_WIDTH as usize * (MAX_ENTRY_BYTES + 2);
/// A set of the largest size in base64url, between a header and a signature.
const MAX_SIGNED_SET_BYTES: usize = MAX_SET_BYTES / 3 * 4 + 4 * 1024;

impl Place {
    /// A place as people write it: a URL or a folder.
    pub fn parse(text: &str) -> Self {
        let text = text.trim_end_matches('/');
        if text.starts_with("https://") || text.starts_with("http://") {
            Self::Web(text.to_owned())
        } else {
            Self::Folder(text.to_owned())
        }
    }

    /// The place of an issuer's logs, each below its id.
    pub fn below(prefix: &str) -> Self {
        Self::Web(format!("{prefix}/{LOG}"))
    }

    /// Reads one object.
    pub async fn read(&self, web: &Web, site: Site, object: Object) -> Result<Vec<u8>, FetchError> {
        let template = match self {
            Self::Web(template) | Self::Folder(template) => template,
        };
        let base = match (site, template.strip_suffix(LOGS)) {
            (Site::Log(log), _) => template.replace(LOG, &log.to_string()),
            (Site::Directory, Some(beside)) => format!("{beside}{DIRECTORY}"),
            (Site::Directory, None) => {
                let why = "has no directory beside it, as a place that ends in `/log/{log}` has";
                return Err(FetchError::Refused { url: template.clone(), why });
            }
        };
        let at = |path: &str| format!("{base}/{path}");
        if let Object::Search(_) = object {
            return self.search(web, at(&object.path())).await;
        }
        let mut answer = self.read_at(web, at(&object.path()), object.limit()).await;
        // A log may drop a partial tile once the full one is there (c2sp.org/tlog-tiles).
        if let (Err(error), Some(full)) = (&answer, object.full())
            && error.is_absent()
        {
            answer = self.read_at(web, at(&full.path()), full.limit()).await;
        }
        answer
    }

    /// Asks for the place of a leaf. "Nowhere" comes with status 404, and counts only if it says how
    /// far was searched: a web server that knows no such path has not searched.
    async fn search(&self, web: &Web, at: String) -> Result<Vec<u8>, FetchError> {
        // Named shortly: the hash in the URL would push the reason out of what is shown of it.
        let failed = |why: String| FetchError::Content { url: "by-digest".to_owned(), why };
        if let Self::Folder(_) = self {
            let why = "files cannot be searched; name the URL of the service instead";
            return Err(failed(why.to_owned()));
        }
        let answer = web.get_found_or_not(&web.url(&at)?, MAX_SEARCH_BYTES).await;
        let (status, body) = answer.map_err(|error| match error {
            FetchError::Status { status, .. } => failed(format!("HTTP status {status}")),
            FetchError::Transport { why, .. } => failed(why),
            other => other,
        })?;
        match (status, Search::parse(&body)) {
            (200, Some(Search::At(_))) | (404, Some(Search::Absent { .. })) => Ok(body),
            (200, _) => Err(failed("it names no index".to_owned())),
            _ => Err(failed(format!("HTTP status {status}, and not from a search"))),
        }
    }

    async fn read_at(&self, web: &Web, at: String, limit: usize) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::Web(_) => {
                let answer = web.get(&web.url(&at)?, limit, None).await?;
                Ok(answer.body.unwrap_or_default())
            }
            Self::Folder(_) => {
                let file = at.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&file, limit)).await;
                read.unwrap_or_else(|error| {
                    Err(FetchError::Content { url: at, why: error.to_string() })
                })
            }
        }
    }
}

fn read_file(file: &str, limit: usize) -> Result<Vec<u8>, FetchError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => FetchError::Status { url: file.to_owned(), status: 404 },
        _ => FetchError::Content { url: file.to_owned(), why: error.to_string() },
    };
    let mut bytes = Vec::new();
    let more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let opened = std::fs::File::open(Path::new(file)).map_err(failed)?;
    opened.take(more).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(FetchError::TooLong { url: file.to_owned(), limit });
    }
    Ok(bytes)
}

impl Object {
    /// The path below the log.
    fn path(self) -> String {
        match self {
            Self::Vkey => "vkey".to_owned(),
            Self::Checkpoint => "checkpoint".to_owned(),
            Self::Cosigned => "checkpoint.cosigned".to_owned(),
            Self::KeySet => "keys.jwt".to_owned(),
            Self::Index => "index.json".to_owned(),
            Self::Tile(id) => id.path(),
            Self::Entries(id) => id.path(),
            Self::Search(leaf) => Search::path(&leaf),
        }
    }

    const fn limit(self) -> usize {
        match self {
            Self::Vkey => MAX_VKEY_BYTES,
            Self::Checkpoint | Self::Cosigned => MAX_CHECKPOINT_BYTES,
            Self::KeySet => MAX_SIGNED_SET_BYTES,
            Self::Index => MAX_INDEX_BYTES,
            Self::Tile(_) => FULL_TILE_BYTES,
            Self::Entries(_) => MAX_BUNDLE_BYTES,
            Self::Search(_) => MAX_SEARCH_BYTES,
        }
    }

    /// The full tile or bundle at the place of a partial one.
    pub fn full(self) -> Option<Self> {
        match self {
            Self::Tile(id) if !id.is_full() => Some(Self::Tile(id.full())),
            Self::Entries(id) if !id.hashes().is_full() => {
                Some(Self::Entries(EntriesTileId { width: id.hashes().full().width, ..id }))
            }
            _ => None,
        }
    }

    /// Whether the object changes: then it is not used again for long.
    pub const fn changes(self) -> bool {
        matches!(
            self,
            Self::Checkpoint | Self::Cosigned | Self::KeySet | Self::Index | Self::Search(_)
        )
    }
}
