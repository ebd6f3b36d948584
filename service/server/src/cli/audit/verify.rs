//! `chancery audit verify`: every segment against what the log says of it.
//!
//! The logs come first: each is walked whole, as `chancery log check` does, so that what the service
//! stated of its audit is known to stand under a checkpoint that the signer signed. Then every stated
//! segment must be there with the stated SHA-256, and the statements of each log must cover its
//! records from the first on without a gap. One that is not there must have been stated as removed by
//! retention, under the same logs, before it went. For this no key is needed; with one, segments are opened
//! and read whole.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use chancery_audit::keys::Identity;
use chancery_audit::segment::{Segment, Source};
use chancery_audit::{SegmentName, hour_of, parse_time, scan};
use chancery_entry::{AuditRemoval, AuditSegment};
use chancery_token::b64;
use clap::Args;
use serde_json::json;

use super::ArchiveArgs;
use super::archive::Archive;
use crate::cli::{complain, logcheck, say};
use crate::logs::MARKER;

/// `chancery audit verify`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  chancery audit verify --data chancery-data")]
pub struct VerifyArgs {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Segments of earlier hours may be gone, as retention allows
    #[arg(long, value_parser = parse, value_name = "TIME")]
    from: Option<u64>,
    /// Nothing may have been removed by retention before it was so old, by the signers' time
    #[arg(long, value_name = "DAYS")]
    keep_days: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn parse(text: &str) -> Result<u64, String> {
    parse_time(text).ok_or_else(|| "write 2026-11-23, 2026-11-23T19:05:00 or Unix seconds".into())
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    logs: u64,
    entries: u64,
    segments: u64,
    records: u64,
    /// Segments that are gone and stated as removed.
    removed: u64,
    /// Segments that no log names yet.
    unstated: u64,
    /// Whether entries of a log were pruned, and with them perhaps the first statements.
    pruned: bool,
    violations: Vec<String>,
}

/// Exit 0: nothing is missing, altered or reordered; 1: something is; 2: it could not be found out.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let archive = args.archive.open()?;
    // Before the logs are read: what is stated meanwhile is in the store already.
    let stored = archive.list(0..=u64::MAX)?;
    let mut findings = Findings::default();
    let mut stated: BTreeMap<[u8; 16], Vec<AuditSegment>> = BTreeMap::new();
    let mut removals =
        Removals { keep_s: args.keep_days.map(|d| d.saturating_mul(86_400)), said: Vec::new() };
    for log in archive.logs()? {
        let Ok(id) = log.parse() else { continue };
        if archive.object(&format!("log/{log}/checkpoint"))?.is_none() {
            continue;
        }
        findings.pruned |= archive.object(&format!("log/{log}/{MARKER}"))?.is_some();
        match logcheck::audit_statements(&(&archive, log.clone()), id)? {
            Ok(said) => {
                findings.logs = findings.logs.saturating_add(1);
                findings.entries = findings.entries.saturating_add(said.entries);
                removals.said.extend(said.removals);
                for statement in said.segments {
                    stated.entry(statement.log).or_default().push(statement);
                }
            }
            Err(why) => findings.violations.push(format!("log `{log}`: {why}")),
        }
    }
    let first_hour = args.from.map_or(0, hour_of);
    for (log, statements) in stated {
        let known = Known { first_hour, removals: &removals, stored: &stored };
        check_log(&archive, log, statements, &known, &mut findings)?;
    }
    tell(&findings, &archive, args.json)?;
    Ok(if findings.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn tell(findings: &Findings, archive: &Archive, json: bool) -> anyhow::Result<()> {
    let ok = findings.violations.is_empty();
    if json {
        let document = json!({
            "ok": ok,
            "logs": findings.logs,
            "entries": findings.entries,
            "segments": findings.segments,
            "records": findings.records,
            "removed": findings.removed,
            "not_stated_yet": findings.unstated,
            "opened": archive.has_key(),
            "violations": findings.violations,
        });
        return Ok(say(&document.to_string())?);
    }
    for violation in &findings.violations {
        complain(&format!("NOT OK: {violation}"));
    }
    if ok {
        let opened = if archive.has_key() { "opened and read" } else { "not opened: no key" };
        say(&format!(
            "{} segments with {} records agree with {} logs of {} entries ({opened}); {} of them \
             were removed by retention, as stated; {} more are not stated yet",
            findings.segments,
            findings.records,
            findings.logs,
            findings.entries,
            findings.removed,
            findings.unstated
        ))?;
    }
    Ok(())
}

/// What is known besides one log's statements.
struct Known<'a> {
    first_hour: u64,
    removals: &'a Removals,
    stored: &'a [SegmentName],
}

/// What was stated as removed.
struct Removals {
    /// How old it must have been, in seconds.
    keep_s: Option<u64>,
    said: Vec<AuditRemoval>,
}

impl Removals {
    /// Whether this segment may be gone; or what is wrong with what was said of it.
    fn allow(&self, segment: &AuditSegment) -> Result<bool, String> {
        let covers = |r: &&AuditRemoval| {
            r.log == segment.log
                && segment.number.checked_sub(r.first).is_some_and(|at| at < r.segments)
        };
        // Said twice, it may have gone after the first time.
        let Some(said) = self.said.iter().filter(covers).min_by_key(|r| r.at) else {
            return Ok(false);
        };
        if segment.hour >= said.before {
            return Err("although it is younger than what was stated as removed".into());
        }
        let age_s = said.at.saturating_sub(segment.hour.saturating_add(1).saturating_mul(3_600));
        match self.keep_s {
            Some(keep_s) if age_s < keep_s => {
                Err(format!("when it was {} days old", age_s / 86_400))
            }
            _ => Ok(true),
        }
    }
}

/// What is wrong with a segment.
enum Wrong {
    /// It is not there, under this name.
    Missing(String),
    Other(String),
}

/// The statements about one log, in order, and their segments.
fn check_log(
    archive: &Archive,
    log: [u8; 16],
    mut statements: Vec<AuditSegment>,
    known: &Known<'_>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let Known { first_hour, removals, stored } = known;
    let text = b64::encode(&log);
    statements.sort_by_key(|s| s.number);
    // A service that was not sure whether it was heard says the same again.
    statements.dedup();
    let first = statements.first().filter(|_| findings.pruned);
    let (number, mut end) = first.map_or((0, 0), |s| (s.number, s.first));
    for (number, statement) in (number..).zip(&statements) {
        let gap = if statement.number != number {
            Some(format!("segment {number} is not stated, {} is", statement.number))
        } else if statement.first != end {
            Some(format!("segment {number} begins at record {}, not {end}", statement.first))
        } else {
            None
        };
        if let Some(gap) = gap {
            findings.violations.push(format!("audit of `{text}`: {gap}"));
            return Ok(());
        }
        end = statement.first.saturating_add(statement.records);
        findings.records = findings.records.saturating_add(statement.records);
        if statement.hour >= *first_hour {
            findings.segments = findings.segments.saturating_add(1);
            match check_segment(archive, &text, statement)? {
                Ok(()) => {}
                Err(Wrong::Missing(object)) => match removals.allow(statement) {
                    Ok(true) => findings.removed = findings.removed.saturating_add(1),
                    Ok(false) => findings.violations.push(format!("`{object}` is missing")),
                    Err(why) => findings.violations.push(format!("`{object}` was removed {why}")),
                },
                Err(Wrong::Other(what)) => findings.violations.push(what),
            }
        }
    }
    for name in stored.iter().filter(|name| name.log == text) {
        let known = statements.binary_search_by_key(&name.number, |s| s.number);
        match known.ok().and_then(|at| statements.get(at)) {
            Some(statement) if statement.hour == name.hour => {}
            Some(_) => findings
                .violations
                .push(format!("`{}` lies beside the segment that was stated", name.object())),
            // Stored a moment ago, or while no signer was there to log it.
            None => findings.unstated = findings.unstated.saturating_add(1),
        }
    }
    Ok(())
}

/// One segment: there, unaltered, and with what was stated.
fn check_segment(
    archive: &Archive,
    log: &str,
    statement: &AuditSegment,
) -> anyhow::Result<Result<(), Wrong>> {
    let wrong = |what: String| Ok(Err(Wrong::Other(what)));
    let (hour, number) = (statement.hour, statement.number);
    let mut name = SegmentName { hour, log: log.into(), number, is_sealed: false };
    let mut bytes = archive.object(&name.object())?;
    let object = name.object();
    if bytes.is_none() {
        name.is_sealed = true;
        bytes = archive.object(&name.object())?;
    }
    let Some(bytes) = bytes else { return Ok(Err(Wrong::Missing(object))) };
    let object = name.object();
    if chancery_entry::sha256(&bytes) != statement.digest {
        return wrong(format!("`{object}` was altered: its SHA-256 is not the stated one"));
    }
    // A sealed one is for other keys than those at hand here.
    if !archive.has_key() || name.is_sealed {
        return Ok(Ok(()));
    }
    let segment = match archive.segment(&name) {
        Ok(segment) => segment,
        // Another recipient's: its digest was checked, which is all that can be.
        Err(e) => return wrong(format!("{e}")),
    };
    let range = segment.range();
    if (range.first, range.records) != (statement.first, statement.records) {
        return wrong(format!("`{object}` holds other records than were stated"));
    }
    let read = read_whole(&bytes, archive.identities_shared());
    Ok(read.map_err(|e| Wrong::Other(format!("`{object}`: {e}"))))
}

fn read_whole(bytes: &bytes::Bytes, identities: &Arc<[Identity]>) -> Result<(), String> {
    let segment = Segment::open(Source::Bytes(bytes.clone()), identities);
    let records = segment.and_then(|segment| scan::all(&segment)).map_err(|e| e.to_string())?;
    if records.is_sorted_by_key(|record| record.time_ms) {
        return Ok(());
    }
    Err("its records are not in order".into())
}
