//! `cargo xtask audit`: questions over an archive of made-up records, and DuckDB over the same files;
//! then what others say of segments and exports.
//!
//! Each question is asked several times by a program of its own, as an investigator does; the median
//! is printed. DuckDB's figure is the one that its `.timer` prints, without its start. Both must give as
//! many rows. Times are printed beside their aims and fail nothing: they are the machine's as well.
//! Pyarrow must read every segment, and what exports sent must agree with OCSF's schema and OTLP's
//! messages.

use crate::interop::skipped;
use crate::python_binding;
use crate::recipes::Outcome;
use crate::run::{cargo, output, run};
use crate::service::TempFolder;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Records without an argument: what CI has time for.
const RECORDS: &str = "1000000";
/// How often each question is asked.
const TIMES: usize = 5;
/// Optimized, and built in half the time of a release: figures for documents are made with `--release`.
const PROFILE: &str = "measure";
/// The peers, from PyPI.
const PACKAGES: &str = "interop/audit/requirements.txt";
/// Bytes that a record may take on disk.
const BYTES_AIM: f64 = 60.0;
/// Megabytes that a question may take in memory.
const MEMORY_AIM: f64 = 200.0;

/// A question: its name, arguments of `audit find`, SQL, how many milliseconds are aimed for with ten
/// million records. `JTI` and `DIGEST` are one token's.
struct Question {
    name: &'static str,
    find: &'static [&'static str],
    sql: &'static str,
    aim_ms: f64,
}

const QUESTIONS: [Question; 5] = [
    Question {
        name: "a client in an hour",
        find: &["--client", "client-017", "--from", "2026-11-22T12:00", "--to", "2026-11-22T13:00"],
        sql: "SELECT * FROM audit WHERE client = 'client-017' AND time >= '2026-11-22 \
              12:00:00+00' AND time < '2026-11-22 13:00:00+00'",
        aim_ms: 50.0,
    },
    Question {
        name: "one token by its jti",
        find: &["--jti", "JTI"],
        sql: "SELECT * FROM audit WHERE jti = 'JTI'",
        aim_ms: 50.0,
    },
    Question {
        name: "one token by its digest",
        find: &["--digest", "DIGEST"],
        sql: "SELECT * FROM audit WHERE digest = from_base64('DIGEST')",
        aim_ms: 50.0,
    },
    Question {
        name: "counts by client over everything",
        find: &["--count-by", "client"],
        sql: "SELECT client, sum(count), min(time), max(time), max(expires) FROM audit GROUP BY ALL",
        aim_ms: 500.0,
    },
    Question {
        name: "counts by realm, audience and outcome",
        find: &["--count-by", "realm,audience,outcome"],
        sql: "SELECT realm, audience, outcome, sum(count), min(time), max(time), max(expires) FROM \
              audit GROUP BY ALL",
        aim_ms: 500.0,
    },
];

/// Builds, fills an archive, asks.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let mut records = RECORDS;
    let mut profile = PROFILE;
    for argument in arguments {
        match argument.as_str() {
            "--release" => profile = "release",
            number if number.parse::<u64>().is_ok_and(|n| n > 0) => records = number,
            _ => bail!("usage: cargo xtask audit [RECORDS] [--release]"),
        }
    }
    // Together, so that both are built with the same features of what they share.
    let build = ["build", "--profile", profile, "-p", "chancery", "--bin", "chancery"];
    let example = ["-p", "chancery-audit", "--example", "archive"];
    run(cargo(root, &build).args(example))?;
    let built = root.join("target").join(profile);
    let folder = TempFolder::new("audit")?;
    let filled =
        output(Command::new(built.join("examples/archive")).arg(folder.path()).arg(records))?;
    print!("{filled}");
    check_size(&filled)?;
    let python = python_binding::environment(root)
        .and_then(|python| python_binding::install(&python, root, PACKAGES));
    let duckdb = python.as_ref().ok().map(|python| python.with_file_name("duckdb"));
    let asker = Asker { chancery: built.join("chancery"), data: folder.path(), duckdb };
    for question in &QUESTIONS {
        asker.compare(question, &filled)?;
    }
    let python = match python {
        Err(why) => return skipped(&format!("no peer: {why}")),
        Ok(python) => python,
    };
    asker.read_by_pyarrow(root, &python, records)?;
    check_exports(root, &python, folder.path())?;
    Ok(Outcome::Passed)
}

/// What a record takes does not depend on the machine.
fn check_size(filled: &str) -> Result<()> {
    let bytes = filled.split(" bytes each").next().and_then(|s| s.rsplit(' ').next()?.parse().ok());
    let bytes: f64 = bytes.context("the archive does not say its size")?;
    println!("{bytes} bytes a record: {}", verdict(bytes, BYTES_AIM));
    Ok(())
}

fn verdict(found: f64, aim: f64) -> String {
    format!("aim {aim}, {}", if found < aim { "met" } else { "MISSED" })
}

/// Exports of a real service, kept by the test that receives them.
fn check_exports(root: &Path, python: &Path, folder: &Path) -> Result<()> {
    let kept = folder.join("exports");
    let test = ["test", "-p", "chancery", "--test", "audit_export"];
    run(cargo(root, &test).env("CHANCERY_EXPORTS", &kept))?;
    run(Command::new(python).arg(root.join("interop/audit/check_exports.py")).arg(kept))
}

struct Asker<'a> {
    chancery: PathBuf,
    data: &'a Path,
    duckdb: Option<PathBuf>,
}

/// What a question took and gave.
struct Answer {
    ms: f64,
    rows: usize,
    megabytes: f64,
}

impl Asker<'_> {
    fn compare(&self, question: &Question, filled: &str) -> Result<()> {
        let sample = |name: &str| {
            let line = filled.lines().find_map(|line| line.strip_prefix(name));
            line.context("the archive names no token")
        };
        let (jti, digest) = (sample("jti ")?, sample("digest ")?);
        let find: Vec<String> =
            question.find.iter().map(|a| a.replace("JTI", jti).replace("DIGEST", digest)).collect();
        let base64 = format!("{}=", digest.replace('-', "+").replace('_', "/"));
        let sql = question.sql.replace("JTI", jti).replace("DIGEST", &base64);
        let ours = median(|| self.find(&find))?;
        let Question { name, aim_ms, .. } = question;
        let (time, memory) = (verdict(ours.ms, *aim_ms), verdict(ours.megabytes, MEMORY_AIM));
        println!("{name}: {} rows", ours.rows);
        println!("  chancery {:8.1} ms ({time})   {:6.0} MB ({memory})", ours.ms, ours.megabytes);
        if let Some(duckdb) = &self.duckdb {
            let theirs = median(|| self.ask_duckdb(duckdb, &sql))?;
            println!("  DuckDB   {:8.1} ms", theirs.ms);
            if theirs.rows != ours.rows {
                bail!("{name}: DuckDB gives {} rows, not {}", theirs.rows, ours.rows);
            }
        }
        Ok(())
    }

    /// One question, timed by the command itself.
    fn find(&self, find: &[String]) -> Result<Answer> {
        let mut command = Command::new(&self.chancery);
        command.args(["audit", "find", "--timing", "--json", "--limit", "1000000", "--data"]);
        let output = command.arg(self.data).args(find).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let number = |end: &str| {
            let before = said.split(end).next()?;
            before.rsplit([' ', '\n']).next()?.parse::<f64>().ok()
        };
        let (ms, megabytes) = (number(" ms over"), number(" MB of memory"));
        let (Some(ms), Some(megabytes), true) = (ms, megabytes, output.status.success()) else {
            bail!("audit find: {said}");
        };
        let rows = output.stdout.iter().filter(|b| **b == b'\n').count();
        Ok(Answer { ms, rows, megabytes })
    }

    /// The same question, timed by DuckDB.
    fn ask_duckdb(&self, duckdb: &Path, sql: &str) -> Result<Answer> {
        let said = output(&mut self.sql(duckdb, &format!(".timer on\n{sql}")))?;
        let time = |line: &str| {
            let real = line.split("real ").nth(1)?;
            real.split(' ').next()?.parse::<f64>().ok()
        };
        let seconds = said.lines().rev().find_map(time);
        let seconds = seconds.with_context(|| format!("no time in: {said}"))?;
        // One line is the head, one the time.
        let rows = said.lines().filter(|line| !line.is_empty()).count().saturating_sub(2);
        Ok(Answer { ms: seconds * 1e3, rows, megabytes: 0.0 })
    }

    fn sql(&self, duckdb: &Path, sql: &str) -> Command {
        let mut command = Command::new(&self.chancery);
        command.args(["audit", "sql", "--format", "csv", "--data"]).arg(self.data);
        command.arg("--duckdb").arg(duckdb).arg(sql);
        command
    }

    /// Every row is there for the C++ library too, with the columns that only a question for one token
    /// reads.
    fn read_by_pyarrow(&self, root: &Path, python: &Path, records: &str) -> Result<()> {
        let script = self.data.join("script.sql");
        let tee = self.data.join("tee");
        std::fs::write(&tee, format!("#!/bin/sh\ncat > '{}'\n", script.display()))?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&tee, std::fs::Permissions::from_mode(0o700))?;
        run(&mut self.sql(&tee, "SELECT 1"))?;
        let read = root.join("interop/audit/read_segments.py");
        let said = output(Command::new(python).arg(read).arg(&script))?;
        println!("pyarrow reads {} (rows, tokens)", said.trim());
        match said.split_whitespace().next() {
            Some(rows) if rows == records => Ok(()),
            _ => bail!("pyarrow reads {said}, and {records} records were written"),
        }
    }
}

fn median(ask: impl Fn() -> Result<Answer>) -> Result<Answer> {
    let mut answers: Vec<Answer> = (0..TIMES).map(|_| ask()).collect::<Result<_>>()?;
    answers.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    Ok(answers.swap_remove(TIMES / 2))
}
