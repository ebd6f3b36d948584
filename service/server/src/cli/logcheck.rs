//! `chancery log check`: walks a whole log, every byte of it; a signer's, or the directory, and then
//! the logs that it names.

pub(super) mod cosigned;
mod named;
mod progress;
mod prune;
pub(super) mod resume;
pub(super) mod source;
pub(super) mod story;
pub(super) mod walk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chancery_entry::{AuditRemoval, AuditSegment};
use chancery_tlog::LogId;
use chancery_tlog::note::VerifierKey;
use clap::Args;
use serde_json::json;

use self::cosigned::Cosigned;
use self::progress::grouped;
pub(super) use self::prune::{PruneArgs, run as prune};
use self::resume::Resume;
pub(super) use self::source::Objects;
use self::source::Reader;
use self::story::{Contradiction, Kind};
use self::walk::{Agreement, Check, Claim};
use super::fetch::Place;
use super::{complain, say};

/// `chancery log check`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  chancery log check http://127.0.0.1:8420/log/LOG_ID\n  \
    chancery log check --logs http://127.0.0.1:8420/directory\n  \
    chancery log check chancery-data/store/log/LOG_ID\n  \
    chancery log check https://issuer.example/log/LOG_ID --resume LOG_ID.checked")]
pub struct CheckArgs {
    /// The log: a URL or folder that ends before `checkpoint`
    log: String,
    /// Keep what was checked in this file, and go on from there in later runs
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Of a directory: walk every log that it names, too
    #[arg(long, conflicts_with = "resume")]
    logs: bool,
    /// The log ended and may be pruned: of entries that are gone, the hashes are checked
    #[arg(long, conflicts_with = "logs")]
    pruned: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Why a log was not found good.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// The log contradicts its checkpoint or itself.
    #[error("{why}")]
    Disagrees {
        /// A stable word for programs; `docs/monitor.md` has all of them.
        code: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It could not be found out.
    #[error("{0:#}")]
    Unknown(anyhow::Error),
    /// An object of the right edge is gone; the checkpoint must be read again.
    #[error("{0} is not there")]
    Moved(String),
    /// The user ended it.
    #[error("interrupted at {} of {} entries", grouped(*.at), grouped(*.of))]
    Interrupted {
        /// Entries that were checked.
        at: u64,
        /// Entries of the log.
        of: u64,
    },
}

impl CheckError {
    /// Bytes that are not what was signed.
    fn disagrees(why: String) -> Self {
        CheckError::Disagrees { code: "log_disagrees", why }
    }

    /// A history that does not extend an earlier one.
    fn rewritten(why: String) -> Self {
        CheckError::Disagrees { code: "log_rewritten", why }
    }

    /// Entries that are gone from a log of which it is not known that it ended.
    fn pruned(minimum: u64) -> Self {
        let why = format!(
            "entries below {minimum} were pruned, which only a log may be that the directory closed: \
             check it from there, with `--logs`, or with `--pruned` if you know that it ended"
        );
        CheckError::Disagrees { code: "log_pruned", why }
    }

    fn contradicts(index: u64, Contradiction { code, what }: Contradiction) -> Self {
        CheckError::Disagrees { code, why: format!("entry {index}: {what}") }
    }
}

/// Walks a log. Exit 0: every byte agrees with the signed checkpoint; 1: something does not; 2: it could
/// not be found out.
pub fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let place = Place::parse(&args.log);
    let interrupted = Arc::new(AtomicBool::new(false));
    if args.resume.is_some() {
        save_on_signals(interrupted.clone())?;
    }
    // Where the place names a log id, it must be this log's: the key then cannot be another's.
    let named = args.log.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let named = named.parse::<LogId>().ok();
    let begin = Begin {
        named,
        resume: args.resume.clone().map(Resume::File),
        claims: Vec::new(),
        collects: args.logs,
        may_be_pruned: args.pruned,
    };
    let result = walk(&place, begin, &interrupted).and_then(|agreement| {
        tell(&agreement, args.json).map_err(CheckError::Unknown)?;
        if args.logs {
            named::walk_all(&args.log, &agreement, args.json, &interrupted)?;
        }
        Ok(())
    });
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(CheckError::Disagrees { why, .. }) => {
            if args.json {
                say(&json!({"ok": false, "error": why}).to_string())?;
            } else {
                complain(&format!("NOT OK: {why}"));
            }
            Ok(ExitCode::from(1))
        }
        Err(CheckError::Unknown(e)) => Err(e),
        Err(e @ CheckError::Interrupted { .. }) if args.resume.is_none() => Err(e.into()),
        Err(e @ CheckError::Interrupted { .. }) => {
            let file = args.resume.clone().unwrap_or_default();
            anyhow::bail!("{e}; go on with `--resume {}`", file.display())
        }
        Err(e @ CheckError::Moved(_)) => Err(e.into()),
    }
}

fn tell(agreement: &Agreement, json: bool) -> anyhow::Result<()> {
    let Agreement { checkpoint, story, before, cosigned } = agreement;
    if story.directory.size() > 0 {
        return named::tell_directory(agreement, json);
    }
    if json {
        let document = json!({
            "ok": true,
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.to_string(),
            "keys": story.keys().len(),
            "tokens": story.tokens,
            "voids": story.voids,
            "compromised": story.fallen().len(),
            "pruned_below": story.pruned,
            "cosigned": cosigned,
            "checked_before": before,
        });
        say(&document.to_string())?;
        return Ok(());
    }
    let earlier = earlier(*before);
    let pruned = match story.pruned {
        0 => String::new(),
        below => format!(", PRUNED: of the entries below {below} only the hashes are there"),
    };
    let both = match cosigned {
        Some(size) => format!(", the first {size} under both of its keys"),
        None => String::new(),
    };
    say(&format!(
        "{}: {} entries agree with the signed checkpoint ({} tokens, {} keys, {} voids, \
         {} compromised){pruned}{both}{earlier}",
        checkpoint.origin,
        checkpoint.size,
        story.tokens,
        story.keys().len(),
        story.voids,
        story.fallen().len()
    ))?;
    Ok(())
}

/// That a part was checked by an earlier run.
fn earlier(before: u64) -> String {
    match before {
        0 => String::new(),
        before => format!(", of which {before} were checked before"),
    }
}

/// Walks a whole log, and returns what the service stated in it of its audit; or why it is not good.
pub(super) fn audit_statements(
    objects: &dyn Objects,
    id: LogId,
) -> anyhow::Result<Result<AuditStatements, String>> {
    let begin = Begin { named: Some(id), may_be_pruned: true, ..Begin::default() };
    match walk(objects, begin, &AtomicBool::new(false)) {
        Ok(agreement) => Ok(Ok(AuditStatements {
            entries: agreement.checkpoint.size,
            segments: agreement.story.audits,
            removals: agreement.story.removals,
        })),
        Err(CheckError::Disagrees { why, .. }) => Ok(Err(why)),
        Err(CheckError::Unknown(e)) => Err(e),
        Err(e) => Err(e.into()),
    }
}

/// What a log says of the audit.
pub(super) struct AuditStatements {
    /// Entries of the log.
    pub entries: u64,
    /// Segments that were stored.
    pub segments: Vec<AuditSegment>,
    /// Segments that were deleted.
    pub removals: Vec<AuditRemoval>,
}

/// How a walk begins.
#[derive(Default)]
struct Begin {
    /// The log id that its place names, if it does.
    named: Option<LogId>,
    resume: Option<Resume>,
    /// What others know of the log, the smallest first.
    claims: Vec<Claim>,
    /// Whether a directory's checkpoints are collected.
    collects: bool,
    /// Whether the log is known to have ended: the entries of a living one must all be there.
    may_be_pruned: bool,
}

fn walk(
    objects: &dyn Objects,
    begin: Begin,
    interrupted: &AtomicBool,
) -> Result<Agreement, CheckError> {
    let reader = Reader::new(objects);
    let vkeys = reader.first("vkey")?;
    let (vkey, kind) = parse_vkey(&vkeys, begin.named).map_err(CheckError::disagrees)?;
    let cosigned = Cosigned::read(objects, &vkeys, &vkey)?;
    let mut check = Check::begin(reader, &vkey, kind, begin.resume, interrupted)?;
    check.expect(begin.claims)?;
    if begin.collects {
        check.collect();
    }
    if begin.may_be_pruned {
        check.allow_pruned();
    }
    let mut agreement = check.run()?;
    agreement.cosigned = cosigned.check(&mut check, &agreement)?;
    Ok(agreement)
}

/// The log's key, in the first line, spelt the one way that it can be, and what the log is about: the name of a signer's
/// key ends in its own log id, that of a directory's in no log id.
pub(super) fn parse_vkey(
    bytes: &[u8],
    named: Option<LogId>,
) -> Result<(VerifierKey, Kind), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("vkey: {e}"))?;
    let text = text.split_once('\n').map_or(text, |(first, _)| first);
    let vkey = VerifierKey::parse(text).map_err(|e| format!("vkey: {e}"))?;
    if vkey.to_string() != text {
        return Err("vkey: it is not spelt as it should be".into());
    }
    let public: Result<[u8; 32], _> = vkey.public_key().try_into();
    let id = LogId::of(&public.map_err(|_| "vkey is not an Ed25519 key")?);
    let last = vkey.name().rsplit('/').next().unwrap_or_default();
    if named.is_none() && last.parse::<LogId>().is_err() {
        return Ok((vkey, Kind::Directory));
    }
    if id.to_string() != last {
        return Err(format!("origin `{}` does not end in the log id of its key", vkey.name()));
    }
    if named.is_some_and(|named| named != id) {
        return Err(format!("the verifier key there is that of log `{id}`"));
    }
    Ok((vkey, Kind::Signer))
}

/// The first Ctrl-C or SIGTERM has the check end in order; the second ends it at once.
fn save_on_signals(interrupted: Arc<AtomicBool>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(guard);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = signals.0.recv() => {}
                    _ = signals.1.recv() => {}
                }
                if interrupted.swap(true, Ordering::Relaxed) {
                    std::process::exit(2);
                }
            }
        });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
