//! The segments of a store, and what is not in segments yet. Reads beside a running service; locks and
//! changes nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use chancery_audit::keys::Identity;
use chancery_audit::scan::Segments;
use chancery_audit::segment::{Segment, Source, unseal};
use chancery_audit::{Error, Opener, Record, SealedSection, SegmentName};
use chancery_token::b64;

use super::ArchiveArgs;
use crate::audit::split_payload;
use crate::cli::logcheck::Objects;
use crate::folder::Paths;
use crate::store::{Location, Store, StoreError};
use crate::wal::Wal;

/// A write-ahead log that is being written may have to be read again.
const PEEKS: usize = 5;
/// Reads of a bucket that are under way at a time.
const BUCKET_READERS: usize = 8;

/// A store's audit.
pub struct Archive {
    place: Place,
    paths: Paths,
    identities: Arc<[Identity]>,
}

enum Place {
    Folder(PathBuf),
    Bucket(Store, tokio::runtime::Runtime),
}

impl ArchiveArgs {
    /// The archive that they name.
    pub fn open(&self) -> anyhow::Result<Archive> {
        let paths = Paths::new(&self.data);
        let place = match &self.store {
            None => Place::Folder(paths.store()),
            Some(text) if !text.contains(':') => Place::Folder(PathBuf::from(text)),
            Some(text) => {
                let location = Location::parse(text, self.endpoint.as_deref())?;
                match location.client()? {
                    None => Place::Folder(location.folder().to_owned()),
                    Some(client) => {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                        Place::Bucket(Store::new(client), runtime)
                    }
                }
            }
        };
        if let Place::Folder(folder) = &place
            && !folder.is_dir()
        {
            anyhow::bail!("no store at `{}`; name it with --data or --store", folder.display());
        }
        Ok(Archive { place, identities: self.identities(&paths)?.into(), paths })
    }

    fn identities(&self, paths: &Paths) -> anyhow::Result<Vec<Identity>> {
        let read = |file: &Path| -> anyhow::Result<Identity> {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("audit key `{}`", file.display()))?;
            Ok(Identity::parse(&zeroize::Zeroizing::new(text))?)
        };
        let own = paths.audit_key();
        match self.key.as_slice() {
            // Without a key only `verify` can say anything, and it says that it has none.
            [] if !own.exists() => Ok(Vec::new()),
            [] => Ok(vec![read(&own)?]),
            files => files.iter().map(|file| read(file)).collect(),
        }
    }
}

impl Archive {
    /// Whether any key is at hand.
    pub fn has_key(&self) -> bool {
        !self.identities.is_empty()
    }

    /// The keys at hand.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// The same, to be shared.
    pub fn identities_shared(&self) -> &Arc<[Identity]> {
        &self.identities
    }

    /// Segments of these hours, in order.
    pub fn list(&self, hours: std::ops::RangeInclusive<u64>) -> anyhow::Result<Vec<SegmentName>> {
        let mut names = Vec::new();
        for date in self.children("audit", true)? {
            for hour in self.children(&format!("audit/{date}"), true)? {
                let folder = format!("audit/{date}/{hour}");
                if !may_hold(&folder, &hours) {
                    continue;
                }
                for file in self.children(&folder, false)? {
                    names.extend(SegmentName::parse(&format!("{folder}/{file}")));
                }
            }
        }
        names.retain(|name| hours.contains(&name.hour));
        names.sort_unstable();
        Ok(names)
    }

    /// Logs whose entries are in the store.
    pub fn logs(&self) -> anyhow::Result<Vec<String>> {
        self.children("log", true)
    }

    fn children(&self, folder: &str, folders: bool) -> anyhow::Result<Vec<String>> {
        match &self.place {
            Place::Bucket(store, runtime) if folders => {
                Ok(runtime.block_on(store.folders(folder))?)
            }
            Place::Bucket(store, runtime) => Ok(runtime.block_on(store.names(folder))?),
            Place::Folder(root) => {
                let path = root.join(folder);
                let listed = match std::fs::read_dir(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                    other => other.with_context(|| path.display().to_string())?,
                };
                let mut names = Vec::new();
                for entry in listed {
                    let entry = entry.with_context(|| path.display().to_string())?;
                    if entry.file_type()?.is_dir() == folders {
                        names.extend(entry.file_name().into_string().ok());
                    }
                }
                Ok(names)
            }
        }
    }

    /// An object's bytes; `None` when it is not there.
    pub fn object(&self, object: &str) -> anyhow::Result<Option<bytes::Bytes>> {
        match &self.place {
            Place::Bucket(store, runtime) => match runtime.block_on(store.get(object)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(StoreError::Missing(_)) => Ok(None),
                Err(e) => Err(e.into()),
            },
            Place::Folder(root) => match std::fs::read(root.join(object)) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e).with_context(|| root.join(object).display().to_string()),
            },
        }
    }

    /// The path of an object for another program; `None` in a bucket.
    pub fn file(&self, object: &str) -> Option<PathBuf> {
        match &self.place {
            Place::Folder(root) => Some(root.join(object)),
            Place::Bucket(..) => None,
        }
    }

    /// An open segment.
    pub fn segment(&self, name: &SegmentName) -> Result<Segment, Error> {
        let object = name.object();
        let named = |why: String| Error::Parquet(format!("`{object}`: {why}"));
        let source = match &self.place {
            Place::Folder(root) => {
                Source::File(File::open(root.join(&object)).map_err(|e| named(e.to_string()))?)
            }
            Place::Bucket(..) => {
                let bytes = self.object(&object).map_err(|e| named(format!("{e:#}")))?;
                Source::Bytes(bytes.ok_or_else(|| named("it is gone".into()))?)
            }
        };
        let segment = Segment::open(source, &self.identities).map_err(|e| named(e.to_string()))?;
        if segment.range().name != *name {
            return Err(named("it is another segment than its name says".into()));
        }
        Ok(segment)
    }

    /// The records of sealed segments.
    pub fn unsealed(&self, names: &[SegmentName]) -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut opener = Opener::new(&self.identities);
        for name in names {
            let bytes = self.object(&name.object())?.context("it is gone");
            let opened = bytes.and_then(|bytes| {
                let mut records = Vec::new();
                for section in unseal(&bytes)? {
                    records.extend(SealedSection::read(section)?.open(&mut opener)?.records);
                }
                Ok(records)
            });
            records.extend(opened.with_context(|| format!("`{}`", name.object()))?);
        }
        Ok(records)
    }

    /// Sections that may not be in segments: in the write-ahead log, or in objects of their own.
    /// Read before segments are listed: what becomes a segment meanwhile is found there.
    pub fn sections(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut sections = Vec::new();
        for record in self.peek()? {
            let (section, _) = split_payload(&record).map_err(anyhow::Error::msg)?;
            sections.extend(section.map(<[u8]>::to_vec));
        }
        for log in self.children("audit/pending", true)? {
            let folder = format!("audit/pending/{log}");
            let mut names = self.children(&folder, false)?;
            names.sort_unstable();
            for name in names {
                let bytes = self.object(&format!("{folder}/{name}"))?;
                sections.extend(bytes.and_then(|b| b.get(8..).map(<[u8]>::to_vec)));
            }
        }
        Ok(sections)
    }

    fn peek(&self) -> anyhow::Result<Vec<crate::wal::Record>> {
        let folder = self.paths.wal();
        let mut last = None;
        for _ in 0..PEEKS {
            match Wal::peek(&folder) {
                Ok(records) => return Ok(records),
                Err(e) => last = Some(e),
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        last.map_or(Ok(Vec::new()), |e| Err(e.into()))
    }

    /// Records of sections that are in none of these segments, oldest first.
    pub fn fresh(
        &self,
        sections: &[Vec<u8>],
        segments: &[SegmentName],
    ) -> anyhow::Result<Vec<Record>> {
        let mut ends: HashMap<String, u64> = HashMap::new();
        let mut records = Vec::new();
        let mut opener = Opener::new(&self.identities);
        for bytes in sections {
            let sealed = SealedSection::read(bytes)?;
            let log = b64::encode(&sealed.log);
            let end = match ends.get(&log) {
                Some(end) => *end,
                None => self.end_of(&log, segments)?,
            };
            ends.insert(log, end.max(sealed.end()));
            if sealed.first >= end {
                records.extend(sealed.open(&mut opener)?.records);
            }
        }
        records.sort_by_key(|record| record.time_ms);
        Ok(records)
    }

    /// The number behind the last record of a log that is in a segment.
    fn end_of(&self, log: &str, segments: &[SegmentName]) -> anyhow::Result<u64> {
        let last = segments.iter().filter(|name| name.log == log).max_by_key(|name| name.number);
        let Some(name) = last else { return Ok(0) };
        if !name.is_sealed {
            return Ok(self.segment(name)?.range().end());
        }
        let bytes = self.object(&name.object())?.context("a sealed segment is gone")?;
        let sections = unseal(&bytes)?;
        Ok(sections.last().map_or(Ok(0), |last| SealedSection::read(last).map(|s| s.end()))?)
    }
}

impl Objects for (&Archive, String) {
    fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let (archive, log) = self;
        Ok(archive.object(&format!("log/{log}/{path}"))?.map(Into::into))
    }

    fn readers(&self) -> usize {
        match self.0.place {
            Place::Folder(_) => std::thread::available_parallelism().map_or(1, usize::from).min(8),
            Place::Bucket(..) => BUCKET_READERS,
        }
    }
}

/// Some of an archive's segments.
pub struct Chosen<'a> {
    pub archive: &'a Archive,
    pub names: Vec<SegmentName>,
}

impl Segments for Chosen<'_> {
    fn count(&self) -> usize {
        self.names.len()
    }

    fn open(&self, at: usize) -> Result<Segment, Error> {
        let name = self.names.get(at).ok_or_else(|| Error::Parquet("no such segment".into()))?;
        self.archive.segment(name)
    }
}

/// Whether a folder's hour is asked for; the rest of its name is checked with the files'.
fn may_hold(folder: &str, hours: &std::ops::RangeInclusive<u64>) -> bool {
    let probe = format!("{folder}/{}-0.parquet", "x".repeat(22));
    SegmentName::parse(&probe).is_some_and(|name| hours.contains(&name.hour))
}
