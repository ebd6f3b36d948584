//! `chancery log prune`: deletes the entries of logs that ended long ago; their hashes stay.
//!
//! A log's entries go only when nothing can need them any more, and each of these was looked at:
//!
//! - the directory has closed the log: its signer is dead, and the log never grows again;
//! - every byte of it agrees with its last checkpoint, which is the one that the directory closed it at:
//!   what is damaged is evidence;
//! - the last token of its last key expired before the time that entries are kept;
//! - no audit segment that it states is in the store any more: the statements are their proof.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use chancery_audit::SegmentName;
use chancery_entry::AuditSegment;
use chancery_tlog::{LogId, TILE_WIDTH};
use chancery_token::b64;
use chancery_validate::directory::Named;
use clap::Args;
use serde_json::json;

use super::source::Objects;
use super::story::Story;
use super::{Begin, CheckError, grouped, walk};
use crate::cli::{DEFAULT_DATA, say};
use crate::folder::Paths;
use crate::logs::{MARKER, parse_marker, prune_entries};
use crate::store::{Location, Store, StoreError};

/// The least time that entries are kept: monitors must get ample time to read them (C2SP tlog-tiles,
/// "Retention Policies"), and a month is what people notice.
const MIN_KEEP_DAYS: u64 = 30;
/// The most: 300 years, so that sums of seconds stay small.
const MAX_KEEP_DAYS: u64 = 110_000;
const DAY_S: u64 = 86_400;
/// Reads that are under way at a time.
const READERS: usize = 8;

/// `chancery log prune`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  chancery log prune --data chancery-data --keep-days 730 --dry-run\n\n\
    docs/backup.md says what goes, what stays, and what to tell relying parties before."
)]
pub struct PruneArgs {
    /// Data folder of the service, which must be stopped if its store is in it
    #[arg(long, env = "CHANCERY_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// The store, where it is not in the data folder: file:, s3://, az:// or gs://
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where the bucket's provider is, as storage.endpoint in the configuration
    #[arg(long, requires = "store", value_name = "URL")]
    endpoint: Option<String>,
    /// How long the entries of a log are kept after the last token of its last key expired
    #[arg(long, value_name = "DAYS",
        value_parser = clap::value_parser!(u64).range(MIN_KEEP_DAYS..=MAX_KEEP_DAYS))]
    keep_days: u64,
    /// Say what would go, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Exit 0: what may go is gone; 2: it could not be found out, or not be deleted.
pub fn run(args: &PruneArgs) -> anyhow::Result<ExitCode> {
    let location = match &args.store {
        None => Location::of_folder(Paths::new(&args.data).store()),
        Some(url) => Location::parse(url, args.endpoint.as_deref())?,
    };
    if location.client()?.is_none() && !location.folder().is_dir() {
        anyhow::bail!("no store at `{location}`; name it with --data or --store");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let store = runtime.block_on(Store::open(&location))?;
    let keep_s = args.keep_days.saturating_mul(DAY_S);
    let pruner = Pruner { store, runtime, keep_s, now: crate::now(), dry_run: args.dry_run };
    let fates = pruner.prune()?;
    tell(&fates, args)?;
    Ok(ExitCode::SUCCESS)
}

/// What became of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its entries stay, and why.
    Kept(String),
    /// Its entries below this index are gone, or would be.
    Pruned(u64),
    /// An earlier run has done it all.
    Before(u64),
}

pub(super) struct Pruner {
    pub store: Store,
    pub runtime: tokio::runtime::Runtime,
    pub keep_s: u64,
    /// Unix seconds.
    pub now: u64,
    pub dry_run: bool,
}

/// The objects below a prefix of the store.
struct Below<'a>(&'a Pruner, String);

impl Objects for Below<'_> {
    fn get(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let Below(pruner, prefix) = self;
        match pruner.runtime.block_on(pruner.store.get(&format!("{prefix}/{path}"))) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn readers(&self) -> usize {
        READERS
    }
}

impl Pruner {
    /// Looks at every log that the directory names, and prunes those that may be.
    pub fn prune(&self) -> anyhow::Result<Vec<(LogId, Fate)>> {
        let directory = Below(self, "directory".into());
        let found = walk(&directory, Begin::default(), &AtomicBool::new(false));
        let found = found.map_err(|e| anyhow::anyhow!("directory: {e}; nothing was pruned"))?;
        let mut fates = Vec::new();
        for (id, named) in found.story.directory.logs() {
            let fate = self.of_log(id, named).map_err(|e| e.context(format!("log `{id}`")))?;
            fates.push((id, fate));
        }
        Ok(fates)
    }

    fn of_log(&self, id: LogId, named: &Named) -> anyhow::Result<Fate> {
        let minimum = match self.may_go(id, named)? {
            Ok(minimum) => minimum,
            Err(why) => return Ok(Fate::Kept(why)),
        };
        if self.dry_run {
            return Ok(Fate::Pruned(minimum));
        }
        let did = self.runtime.block_on(prune_entries(&self.store, id, minimum))?;
        Ok(if did { Fate::Pruned(minimum) } else { Fate::Before(minimum) })
    }

    /// The index below which a log's entries may go, or why none of them may.
    fn may_go(&self, id: LogId, named: &Named) -> anyhow::Result<Result<u64, String>> {
        let Some((_, closing)) = named.closing() else {
            return Ok(Err("the directory has not closed it: its signer may live".into()));
        };
        let minimum = closing.size.saturating_sub(closing.size % TILE_WIDTH);
        if minimum == 0 {
            return Ok(Err(format!("it has no {TILE_WIDTH} entries")));
        }
        let objects = Below(self, format!("log/{id}"));
        if let Some(marker) = objects.get(MARKER)? {
            // It was looked at by the run that began.
            anyhow::ensure!(
                parse_marker(&marker) == Some(minimum),
                "`{MARKER}` does not say `{minimum}`, where the directory closed the log"
            );
            return Ok(Ok(minimum));
        }
        let begin = Begin { named: Some(id), ..Begin::default() };
        let found = match walk(&objects, begin, &AtomicBool::new(false)) {
            Ok(found) => found,
            Err(CheckError::Unknown(e)) => return Err(e),
            Err(e) => return Ok(Err(format!("it is not whole, and may be evidence: {e}"))),
        };
        let end = (found.checkpoint.size, found.checkpoint.root.0);
        if end != (closing.size, closing.root) {
            return Ok(Err("it did not end where the directory closed it: look into that".into()));
        }
        if let Some(why) = self.is_needed(&found.story)? {
            return Ok(Err(why));
        }
        Ok(Ok(minimum))
    }

    /// Why what the log says is still needed.
    fn is_needed(&self, story: &Story) -> anyhow::Result<Option<String>> {
        let keys =
            story.keys().map(|(_, key)| key.announced_until.saturating_add(key.max_lifetime_s));
        let imports = story.imports().iter().map(|import| import.until);
        let last = keys.chain(imports).max().unwrap_or(0);
        let until = last.saturating_add(self.keep_s);
        if until > self.now {
            return Ok(Some(format!(
                "the last token of its keys may live until {last}, and entries are kept until {until} \
                 (Unix seconds)"
            )));
        }
        for statement in &story.audits {
            if self.is_stored(statement)? {
                return Ok(Some(format!(
                    "it states audit segment {} of log `{}`, which is still kept",
                    statement.number,
                    b64::encode(&statement.log)
                )));
            }
        }
        Ok(None)
    }

    /// Whether a stated segment is in the store, readable or sealed.
    fn is_stored(&self, statement: &AuditSegment) -> anyhow::Result<bool> {
        for is_sealed in [false, true] {
            let (hour, number) = (statement.hour, statement.number);
            let name = SegmentName { hour, log: b64::encode(&statement.log), number, is_sealed };
            let object = name.object();
            let Some((folder, file)) = object.rsplit_once('/') else { continue };
            let names = self.runtime.block_on(self.store.names(folder))?;
            if names.iter().any(|name| name == file) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn tell(fates: &[(LogId, Fate)], args: &PruneArgs) -> anyhow::Result<()> {
    if args.json {
        let logs: Vec<_> = fates
            .iter()
            .map(|(id, fate)| match fate {
                Fate::Kept(why) => json!({"log": id.to_string(), "kept": why}),
                Fate::Pruned(below) => {
                    json!({"log": id.to_string(), "pruned_below": below, "now": true})
                }
                Fate::Before(below) => {
                    json!({"log": id.to_string(), "pruned_below": below, "now": false})
                }
            })
            .collect();
        return Ok(say(&json!({"dry_run": args.dry_run, "logs": logs}).to_string())?);
    }
    for (id, fate) in fates {
        let pruned = if args.dry_run { "would be pruned" } else { "pruned" };
        say(&match fate {
            Fate::Kept(why) => format!("{id}: kept: {why}"),
            Fate::Pruned(below) => format!("{id}: {pruned} below entry {}", grouped(*below)),
            Fate::Before(below) => format!("{id}: pruned before, below entry {}", grouped(*below)),
        })?;
    }
    Ok(())
}
