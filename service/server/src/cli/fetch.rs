//! Reading over HTTP or from a folder, with limits: what is fetched comes from strangers.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;

use crate::web;

/// A command gives up on a server after this long.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer: a bundle of 256 entries of 64 KiB, which no log of ours comes near.
const MAX_ANSWER_BYTES: u64 = 17 * 1024 * 1024;

/// Connections that are kept for more requests: as many as any command uses at a time.
const MAX_IDLE: usize = 8;

/// A client with time and size limits that follows no redirects.
#[derive(Clone)]
pub struct Web(Agent);

impl Web {
    /// A new client; TLS by aws-lc with the system's roots.
    pub fn new() -> Self {
        Self(web::agent(TIMEOUT, MAX_IDLE))
    }

    /// The body of a successful GET.
    pub fn get(&self, url: &str) -> anyhow::Result<Vec<u8>> {
        self.get_if_there(url)?.map_err(|refused| anyhow::anyhow!(refused))
    }

    /// The body of a successful GET, or the refusal of one that found nothing.
    fn get_if_there(&self, url: &str) -> anyhow::Result<Result<Vec<u8>, String>> {
        let mut response = self.0.get(url).call().map_err(|e| anyhow::anyhow!("GET {url}: {e}"))?;
        let status = response.status();
        let body = web::body_of(&mut response, MAX_ANSWER_BYTES);
        let body = body.map_err(|e| anyhow::anyhow!("GET {url}: {e}"))?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let refused = format!("GET {url}: {status}: {}", text.trim().escape_debug());
            if matches!(status.as_u16(), 404 | 410) {
                return Ok(Err(refused));
            }
            anyhow::bail!(refused);
        }
        Ok(Ok(body))
    }

    /// The status and body of whatever a GET answers.
    pub fn get_with_status(&self, url: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut response = self.0.get(url).call().map_err(|e| anyhow::anyhow!("GET {url}: {e}"))?;
        let status = response.status().as_u16();
        let body = web::body_of(&mut response, MAX_ANSWER_BYTES);
        Ok((status, body.map_err(|e| anyhow::anyhow!("GET {url}: {e}"))?))
    }

    /// Posts a body; answers the status and the answer's body.
    pub fn post(&self, url: &str, kind: &str, body: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut response = self
            .0
            .post(url)
            .content_type(kind)
            .send(body)
            .map_err(|e| anyhow::anyhow!("POST {url}: {e}"))?;
        let status = response.status().as_u16();
        let body = web::body_of(&mut response, MAX_ANSWER_BYTES);
        Ok((status, body.map_err(|e| anyhow::anyhow!("POST {url}: {e}"))?))
    }
}

/// A place with objects by path: a URL prefix or a folder.
pub enum Place {
    /// Below a URL.
    Web(Web, String),
    /// Below a folder.
    Folder(PathBuf),
}

impl Place {
    /// A place by what the user wrote.
    pub fn parse(text: &str) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            Place::Web(Web::new(), text.trim_end_matches('/').to_owned())
        } else {
            Place::Folder(PathBuf::from(text))
        }
    }

    /// A place below this one.
    pub fn below(&self, path: &str) -> Self {
        match self {
            Place::Web(web, prefix) => Place::Web(web.clone(), format!("{prefix}/{path}")),
            Place::Folder(folder) => Place::Folder(folder.join(path)),
        }
    }

    /// Reads one object.
    pub fn read(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        match self {
            Place::Web(web, prefix) => web.get(&format!("{prefix}/{path}")),
            Place::Folder(folder) => {
                let file = folder.join(Path::new(path));
                std::fs::read(&file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))
            }
        }
    }

    /// Reads one object; `None` when there is none.
    pub fn read_if_there(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Place::Web(web, prefix) => Ok(web.get_if_there(&format!("{prefix}/{path}"))?.ok()),
            Place::Folder(folder) => {
                let file = folder.join(Path::new(path));
                match std::fs::read(&file) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e)
                        if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
                    {
                        Ok(None)
                    }
                    Err(e) => Err(anyhow::anyhow!("{}: {e}", file.display())),
                }
            }
        }
    }
}
