//! `cargo xtask checkers`: what tools that nobody here wrote say of our logs.
//!
//! A real service issues tokens, loses its signer and goes on with another one, so that there are
//! several logs; a log of some 66,000 entries is made beside them, for what only long ones have. Each
//! log is fetched as any stranger would, and given to Go's own `sumdb` packages, `tlog-scales` and
//! `aics-tlog`, as it is and with a bit flipped, object by object: each must find it. `aics-witness`
//! cosigns one of them.

mod mirror;
mod tools;

use crate::interop::skipped;
use crate::recipes::{Outcome, no_arguments};
use crate::run::{cargo, output, run, works};
use crate::service::{Binaries, Service, TempFolder};
use anyhow::{Context as _, Result, bail};
use mirror::Mirror;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tools::{Checker, Tools};

/// Tokens of the first log: with them it has a full tile and a partial one.
const TOKENS: usize = 260;
/// Those of them after which the earlier checkpoint is taken.
const EARLY_TOKENS: usize = 40;
/// Tokens of the second log.
const LATER_TOKENS: usize = 5;
/// A full tile of level 1 covers 65,536 entries; then there is a level 2.
const LONG_LOG: &str = "66001";
/// What four bytes take, the last character of which holds bits of the next byte, too.
const KEY_ID_CHARS: usize = 6;
/// Bits that are flipped in an object; in those of the long log, which take long to check, fewer.
const FLIPS: usize = 48;
const FLIPS_OF_LONG: usize = 3;
/// A service that lost its signer has another one within seconds.
const NEW_SIGNER_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// The service publishes a checkpoint about once a second.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);
/// Signature lines of ML-DSA-44 are longer than this, all others shorter.
const LONG_LINE: usize = 1_000;

/// Runs everything; what one of the tools does not find is named.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    no_arguments(arguments)?;
    let tools = match Tools::install(root) {
        Err(reason) => return skipped(&reason),
        Ok(tools) => tools,
    };
    let binaries = Binaries::build(root)?;
    let folder = TempFolder::new("checkers")?;
    let mut logs = real_logs(&binaries, folder.path())?;
    logs.push(long_log(root, folder.path())?);
    if let Some(aics) = &tools.aics {
        logs.extend(witnessed(aics, &logs, folder.path())?);
    }
    let mut missed = 0;
    let mut table = Vec::new();
    for checker in tools.checkers() {
        for log in &logs {
            let result = examine(&checker, log)?;
            missed += result.missed.len();
            table.push(result.to_string());
            result.missed.iter().for_each(|what| println!("{}: {what}", checker.name));
        }
    }
    println!();
    table.iter().for_each(|line| println!("{line}"));
    if tools.aics.is_none() {
        println!(
            "aics-tlog, aics-witness: skipped: they need Python 3.12 or later, and their packages"
        );
    }
    match missed {
        0 => Ok(Outcome::Passed),
        missed => bail!("{missed} flipped bits were not found"),
    }
}

/// A log in a folder, as the checkers take it.
#[derive(Debug)]
struct Log {
    name: &'static str,
    folder: PathBuf,
    flips: usize,
}

/// What a checker said of a log.
struct Examination {
    checker: &'static str,
    log: &'static str,
    size: u64,
    objects: usize,
    flips: usize,
    missed: Vec<String>,
    took: Duration,
}

impl std::fmt::Display for Examination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { checker, log, size, objects, flips, missed, took } = self;
        let found = flips - missed.len();
        let seconds = took.as_secs_f64();
        write!(
            f,
            "{checker:<12} {log:<10} {size:>6} entries agree; {found} of {flips} flipped bits in \
             {objects} objects found, in {seconds:.1} s"
        )
    }
}

/// Has a checker check a log as it is, then with each of some bits flipped, then as it was.
fn examine(checker: &Checker, log: &Log) -> Result<Examination> {
    let started = Instant::now();
    let mut running = checker.start()?;
    let size = running.ask(&log.folder)?;
    let size = size.map_err(|why| anyhow::anyhow!("{}: {}: {why}", checker.name, log.name))?;
    let keys = read(&log.folder.join("vkey"))?;
    let knows_long = checker.knows_ml_dsa && lines(&keys).any(|(_, line)| line.len() > LONG_LINE);
    let (mut objects, mut flips, mut missed) = (0, 0, Vec::new());
    for path in mirror::objects(&log.folder)? {
        let file = log.folder.join(&path);
        let bytes = read(&file)?;
        objects += 1;
        for position in positions(&path, &bytes, log.flips, knows_long) {
            flips += 1;
            write(&file, &flipped(&bytes, position))?;
            let verdict = running.ask(&log.folder);
            write(&file, &bytes)?;
            if verdict?.is_ok() {
                missed.push(format!(
                    "{}: bit {} of byte {position} of {path}",
                    log.name,
                    position % 8
                ));
            }
        }
    }
    if running.ask(&log.folder)? != Ok(size) {
        bail!("{}: {}: another answer than at first", checker.name, log.name);
    }
    let took = started.elapsed();
    Ok(Examination { checker: checker.name, log: log.name, size, objects, flips, missed, took })
}

/// Which bytes of an object are tried: the ends, and some between. A signature by a key that a checker
/// does not know says nothing to it, and one that names another key is such a signature.
fn positions(path: &str, bytes: &[u8], count: usize, knows_long: bool) -> Vec<usize> {
    let is_note = !path.starts_with("tile/");
    let silent = |at: usize| {
        is_note
            && lines(bytes).filter(|(_, line)| line.len() > LONG_LINE).any(|(from, line)| {
                let said = if knows_long { names_key(line) } else { line.len() };
                (from..=from + said).contains(&at)
            })
    };
    let last = bytes.len().saturating_sub(1);
    let steps = count.min(bytes.len()).saturating_sub(1).max(1);
    let mut positions: Vec<usize> = (0..=steps).map(|step| last * step / steps).collect();
    positions.dedup();
    positions.retain(|at| !silent(*at) && *at < bytes.len());
    positions
}

/// How much of a signature line says whose it is: the name, and the key ID that the Base64 begins with.
fn names_key(line: &[u8]) -> usize {
    let base64 = line.iter().rposition(|byte| *byte == b' ').map_or(0, |space| space + 1);
    base64 + KEY_ID_CHARS
}

/// Lines, and where each begins.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut from = 0;
    bytes.split(|byte| *byte == b'\n').map(move |line| {
        let begin = from;
        from += line.len() + 1;
        (begin, line)
    })
}

fn flipped(bytes: &[u8], position: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(position) {
        *byte ^= 1 << (position % 8);
    }
    bytes
}

/// A log that was ended, with tokens enough for a full tile, and its successor.
fn real_logs(binaries: &Binaries, work: &Path) -> Result<Vec<Log>> {
    let service = Service::development(binaries, work)?;
    let story = Story { binaries, service: &service };
    story.tell(work).with_context(|| format!("the service's log ends:\n{}", service.log_tail()))
}

struct Story<'a> {
    binaries: &'a Binaries,
    service: &'a Service,
}

impl Story<'_> {
    fn tell(&self, work: &Path) -> Result<Vec<Log>> {
        let first = self.log_id()?;
        self.tokens(EARLY_TOKENS)?;
        let ended = Mirror::begin(self.service.url(), &first, &work.join("ended"))?;
        let tokens = self.tokens(TOKENS - EARLY_TOKENS)?;
        ended.add_proofs(&self.proofs(&tokens)?)?;
        self.await_size(&ended, TOKENS)?;
        run(self.chancery(&["signer", "end"]).arg("--data").arg(self.service.data()))?;
        let second = self.await_other_log(&first)?;
        let living = Mirror::begin(self.service.url(), &second, &work.join("living"))?;
        let tokens = self.tokens(LATER_TOKENS)?;
        living.add_proofs(&self.proofs(&tokens)?)?;
        self.await_size(&living, LATER_TOKENS)?;
        ended.finish()?;
        living.finish()?;
        let log = |name, mirror: Mirror| Log { name, folder: mirror.into_folder(), flips: FLIPS };
        Ok(vec![log("ended", ended), log("living", living)])
    }

    fn chancery(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binaries.chancery);
        command.args(arguments).env("CHANCERY_DATA", self.service.data());
        command
    }

    fn tokens(&self, count: usize) -> Result<Vec<String>> {
        let arguments = ["token", "--realm", "consumers", "--audience", "https://api.example"];
        println!("$ chancery {}   # {count} times", arguments.join(" "));
        let token = |_| Ok(output(&mut self.chancery(&arguments))?.trim_end().to_owned());
        (0..count).map(token).collect()
    }

    /// Proofs of the first of these tokens, one in the middle, and the last.
    fn proofs(&self, tokens: &[String]) -> Result<Vec<String>> {
        let chosen = [tokens.first(), tokens.get(tokens.len() / 2), tokens.last()];
        let prove = |token: &String| output(&mut self.chancery(&["prove", token]));
        chosen.into_iter().flatten().map(prove).collect()
    }

    fn log_id(&self) -> Result<String> {
        let keys = output(&mut self.chancery(&["keys", "list", "--json"]))?;
        let keys: serde_json::Value = serde_json::from_str(&keys)?;
        let id = keys.get("log_id").and_then(serde_json::Value::as_str);
        Ok(id.context("`chancery keys list` names no log")?.to_owned())
    }

    /// The log of the next signer, once there is one that issues.
    fn await_other_log(&self, before: &str) -> Result<String> {
        let started = Instant::now();
        while started.elapsed() < NEW_SIGNER_WITHIN {
            let issues = ["token", "--realm", "consumers", "--audience", "https://api.example"];
            if works(&mut self.chancery(&issues))
                && let Ok(id) = self.log_id()
                && id != before
            {
                return Ok(id);
            }
            std::thread::sleep(POLL);
        }
        bail!("no new signer within {} s", NEW_SIGNER_WITHIN.as_secs())
    }

    /// Until the published checkpoint holds at least this many entries.
    fn await_size(&self, mirror: &Mirror, entries: usize) -> Result<()> {
        let started = Instant::now();
        while mirror.published()? < entries as u64 {
            if started.elapsed() > PUBLISHED_WITHIN {
                bail!(
                    "{entries} entries were not published within {} s",
                    PUBLISHED_WITHIN.as_secs()
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// A log with tiles of level 2, made without issuing its tokens.
fn long_log(root: &Path, work: &Path) -> Result<Log> {
    let store = work.join("long");
    let mut make = cargo(root, &["run", "--quiet", "-p", "chancery", "--example", "biglog", "--"]);
    let folder = output(make.arg("make").arg(&store).arg(LONG_LOG))?;
    let folder = PathBuf::from(folder.trim_end());
    // One checkpoint is all that was made of it.
    std::fs::copy(folder.join("checkpoint"), folder.join("old"))?;
    Ok(Log { name: "long", folder, flips: FLIPS_OF_LONG })
}

/// The first log with a cosignature by `aics-witness`.
fn witnessed(aics: &Checker, logs: &[Log], work: &Path) -> Result<Option<Log>> {
    let Some(log) = logs.first() else { return Ok(None) };
    let work = work.join("witness");
    std::fs::create_dir(&work)?;
    run(aics.script("witness.py").arg(&log.folder).arg(&work))?;
    Ok(Some(Log { name: "witnessed", folder: work.join("cosigned"), flips: FLIPS }))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_cover_both_ends_and_leave_out_signatures_of_unknown_keys() {
        assert_eq!(positions("tile/0/000", &[0; 100], 3, false), [0, 49, 99]);
        assert_eq!(positions("tile/0/000", &[0; 2], 48, false), [0, 1]);
        assert_eq!(positions("tile/0/000", &[0; 1], 48, false), [0]);
        assert!(positions("checkpoint", &[], 48, false).is_empty());
        let note = [b"ab\n".as_slice(), b"- n ", &[b'x'; LONG_LINE], b"\nc"].concat();
        let known = positions("checkpoint", &note, note.len(), true);
        // Whose line it is says nothing when it names nobody's.
        let after_key_id: Vec<usize> = (14..note.len()).collect();
        assert_eq!(known, [&[0, 1, 2], after_key_id.as_slice()].concat());
        let some = positions("checkpoint", &note, note.len(), false);
        assert_eq!(some, [0, 1, 2, note.len() - 1]);
        assert_eq!(positions("tile/0/000", &note, note.len(), false).len(), note.len());
    }

    #[test]
    fn exactly_one_bit_is_flipped() {
        assert_eq!(flipped(&[0, 0, 0], 1), [0, 2, 0]);
        assert_eq!(flipped(&[0; 9], 8), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
