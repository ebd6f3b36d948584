//! A copy of a log, fetched over HTTP as the specification says it is served (C2SP tlog-tiles).

use super::{read, write};
use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Hashes in a full tile.
const WIDTH: u64 = 256;
/// One request, on loopback.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The service asks its signer about once a second.
const COSIGNED_WITHIN: Duration = Duration::from_secs(60);
/// More than any object of a log has: 256 entries of 64 kB.
const MAX_ANSWER: u64 = 17_000_000;

/// A copy in the making.
#[derive(Debug)]
pub struct Mirror {
    /// Where the service listens.
    address: String,
    /// Of the log, on the service.
    prefix: String,
    folder: PathBuf,
}

impl Mirror {
    /// Takes the log's key, and its present checkpoint as the earlier one.
    pub fn begin(url: &str, log: &str, folder: &Path) -> Result<Self> {
        let address = url.strip_prefix("http://").context("not a plain HTTP service")?.to_owned();
        let mirror = Self { address, prefix: format!("/log/{log}"), folder: folder.to_owned() };
        mirror.save("vkey", &mirror.fetch("vkey")?)?;
        mirror.save("old", &mirror.fetch("checkpoint")?)?;
        Ok(mirror)
    }

    /// Entries under the checkpoint that both keys of the signer signed; 0 before there is one.
    pub fn published(&self) -> Result<u64> {
        self.fetch("checkpoint.cosigned").map_or(Ok(0), |note| size(&note))
    }

    /// Puts proofs beside the log.
    pub fn add_proofs(&self, proofs: &[String]) -> Result<()> {
        for (number, proof) in (1..).zip(proofs) {
            self.save(&format!("proofs/{number}.tlog-proof"), proof.as_bytes())?;
        }
        Ok(())
    }

    /// Takes the present checkpoint with both signatures, and every tile and bundle under it.
    pub fn finish(&self) -> Result<()> {
        let latest = size(&self.fetch("checkpoint")?)?;
        let started = Instant::now();
        while self.published()? < latest {
            if started.elapsed() > COSIGNED_WITHIN {
                bail!("the signer does not cosign its checkpoint of {latest} entries");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let checkpoint = self.fetch("checkpoint.cosigned")?;
        self.save("checkpoint", &checkpoint)?;
        for path in paths(size(&checkpoint)?) {
            self.save(&path, &self.fetch(&path)?)?;
        }
        Ok(())
    }

    /// The folder of the copy.
    pub fn into_folder(self) -> PathBuf {
        self.folder
    }

    fn save(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let file = self.folder.join(path);
        std::fs::create_dir_all(file.parent().unwrap_or(&self.folder))?;
        write(&file, bytes)
    }

    fn fetch(&self, path: &str) -> Result<Vec<u8>> {
        let (address, prefix) = (&self.address, &self.prefix);
        let ask = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            // An answer to HTTP/1.0 ends with the connection, in one piece.
            let request = format!("GET {prefix}/{path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().with_context(|| format!("{prefix}/{path}"))?;
        body(&answer).with_context(|| format!("{prefix}/{path}"))
    }
}

/// The body of a 200.
fn body(answer: &[u8]) -> Result<Vec<u8>> {
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n").context("no HTTP answer")?;
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{status}");
    }
    Ok(body.get(4..).unwrap_or_default().to_vec())
}

/// A checkpoint's second line.
fn size(checkpoint: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(checkpoint)?;
    let size = text.lines().nth(1).and_then(|line| line.parse().ok());
    size.with_context(|| format!("`{text}` is no checkpoint"))
}

/// Every tile and bundle of a log of this size.
fn paths(size: u64) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    let mut level_size = size;
    for level in 0.. {
        if level_size == 0 {
            break;
        }
        for index in 0..level_size.div_ceil(WIDTH) {
            let width = level_size.saturating_sub(index * WIDTH).min(WIDTH);
            let part = if width < WIDTH { format!(".p/{width}") } else { String::new() };
            paths.push(format!("tile/{level}/{}{part}", number(index)));
            if level == 0 {
                paths.push(format!("tile/entries/{}{part}", number(index)));
            }
        }
        level_size /= WIDTH;
    }
    paths
}

/// A tile's number in groups of three digits, all but the last after an `x`.
fn number(index: u64) -> String {
    let mut text = format!("{:03}", index % 1_000);
    let mut rest = index / 1_000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1_000);
        rest /= 1_000;
    }
    text
}

/// What is tried of a copy: everything but the key; of many tiles of a kind the first, one in the
/// middle and the last.
pub fn objects(folder: &Path) -> Result<Vec<String>> {
    let mut objects = vec!["checkpoint".to_owned(), "old".to_owned()];
    for proof in 1.. {
        let path = format!("proofs/{proof}.tlog-proof");
        if !folder.join(&path).exists() {
            break;
        }
        objects.push(path);
    }
    let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
    for path in paths(size(&read(&folder.join("checkpoint"))?)?) {
        let level = path.split('/').nth(1).unwrap_or_default();
        let kind = format!("{level}{}", path.contains(".p/"));
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, paths)) => paths.push(path),
            None => kinds.push((kind, vec![path])),
        }
    }
    for (_, mut paths) in kinds {
        let (middle, last) = (paths.len() / 2, paths.len() - 1);
        let mut at = 0..paths.len();
        paths.retain(|_| at.next().is_some_and(|at| at == 0 || at == middle || at == last));
        objects.extend(paths);
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::TempFolder;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(number(1_234_067), "x001/x234/067");
        assert!(paths(0).is_empty());
        assert_eq!(paths(1), ["tile/0/000.p/1", "tile/entries/000.p/1"]);
        let expected = [
            "tile/0/000",
            "tile/entries/000",
            "tile/0/001.p/4",
            "tile/entries/001.p/4",
            "tile/1/000.p/1",
        ];
        assert_eq!(paths(260), expected);
        let long = paths(66_001);
        for path in ["tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1", "tile/0/257.p/209"] {
            assert!(long.iter().any(|known| known == path), "{path}");
        }
    }

    #[test]
    fn objects_are_of_every_kind_and_not_too_many() {
        let folder = TempFolder::new("objects-test").unwrap();
        let checkpoint = folder.path().join("checkpoint");
        std::fs::write(&checkpoint, "log\n66001\nroot\n\n").unwrap();
        let objects = objects(folder.path()).unwrap();
        assert!(objects.iter().all(|path| path != "vkey"));
        assert_eq!(objects.iter().filter(|path| path.starts_with("tile/0/")).count(), 4);
        for path in ["tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1", "tile/entries/257.p/209"] {
            assert!(objects.iter().any(|known| known == path), "{path}");
        }
        std::fs::write(&checkpoint, "log\n").unwrap();
        assert!(super::objects(folder.path()).is_err());
    }

    #[test]
    fn only_the_body_of_a_200_counts() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\na: b\r\n\r\nx\r\n\r\ny").unwrap(), b"x\r\n\r\ny");
        let error = body(b"HTTP/1.0 404 Not Found\r\n\r\nx").unwrap_err().to_string();
        assert_eq!(error, "HTTP/1.0 404 Not Found");
        assert!(body(b"HTTP/1.0 200 OK\r\n").is_err());
    }
}
