//! `cargo xtask audit`: questions over an archive of made-up records, and DuckDB over the same files.
//!
//! Each question is asked several times by a program of its own, as an investigator does; the median
//! is printed. DuckDB's figure is the one that its `.timer` prints, without its start.

use crate::interop::skipped;
use crate::recipes::Outcome;
use crate::run::{cargo, output, run, works};
use crate::service::TempFolder;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Records without an argument: what CI has time for.
const RECORDS: &str = "1000000";
/// How often each question is asked.
const TIMES: usize = 5;
/// The DuckDB command line, from PyPI.
const DUCKDB: &str = "duckdb-cli==1.5.6";
/// What is asked: a name, arguments of `audit find`, SQL. `JTI` and `DIGEST` are one token's.
const QUESTIONS: [(&str, &[&str], &str); 5] = [
    (
        "a client in an hour",
        &["--client", "client-017", "--from", "2026-11-22T12:00", "--to", "2026-11-22T13:00"],
        "SELECT * FROM audit WHERE client = 'client-017' AND time >= '2026-11-22 12:00:00+00' AND \
         time < '2026-11-22 13:00:00+00'",
    ),
    ("one token by its jti", &["--jti", "JTI"], "SELECT * FROM audit WHERE jti = 'JTI'"),
    (
        "one token by its digest",
        &["--digest", "DIGEST"],
        "SELECT * FROM audit WHERE digest = from_base64('DIGEST')",
    ),
    (
        "counts by client over everything",
        &["--count-by", "client"],
        "SELECT client, sum(count), min(time), max(time), max(expires) FROM audit GROUP BY ALL",
    ),
    (
        "counts by realm, audience and outcome",
        &["--count-by", "realm,audience,outcome"],
        "SELECT realm, audience, outcome, sum(count), min(time), max(time), max(expires) FROM \
         audit GROUP BY ALL",
    ),
];

/// Builds, fills an archive, asks.
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let records = match arguments {
        [] => RECORDS,
        [records] if records.parse::<u64>().is_ok_and(|n| n > 0) => records,
        _ => bail!("usage: cargo xtask audit [RECORDS]"),
    };
    let build = ["build", "--release", "--bin", "chancery"];
    run(&mut cargo(root, &build))?;
    let example = ["build", "--release", "-p", "chancery-audit", "--example", "archive"];
    run(&mut cargo(root, &example))?;
    let folder = TempFolder::new("audit")?;
    let mut fill = Command::new(root.join("target/release/examples/archive"));
    let filled = output(fill.arg(folder.path()).arg(records))?;
    print!("{filled}");
    let sample = |name: &str| {
        let line = filled.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::to_owned).context("the archive names no token")
    };
    let (jti, digest) = (sample("jti ")?, sample("digest ")?);
    let duckdb = install_duckdb(root);
    for (name, find, sql) in QUESTIONS {
        let find: Vec<String> =
            find.iter().map(|a| a.replace("JTI", &jti).replace("DIGEST", &digest)).collect();
        let base64 = format!("{}=", digest.replace('-', "+").replace('_', "/"));
        let sql = sql.replace("JTI", &jti).replace("DIGEST", &base64);
        let ours = median(|| ask(root, folder.path(), &find))?;
        let theirs = match &duckdb {
            Ok(duckdb) => {
                format!("{:8.1} ms", median(|| ask_duckdb(root, folder.path(), duckdb, &sql))?)
            }
            Err(_) => "       -".to_owned(),
        };
        println!("{name:<40} chancery {ours:8.1} ms   DuckDB {theirs}");
    }
    match duckdb {
        Ok(_) => Ok(Outcome::Passed),
        Err(why) => skipped(&format!("no peer: {why}")),
    }
}

/// Milliseconds of one question, as the command says; what it prints is thrown away.
fn ask(root: &Path, data: &Path, find: &[String]) -> Result<f64> {
    let mut command = Command::new(root.join("target/release/chancery"));
    command.args(["audit", "find", "--timing", "--json", "--data"]).arg(data).args(find);
    let output = command.stdout(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let time = said.split(" ms over").next().and_then(|t| t.lines().last()?.parse().ok());
    time.filter(|_| output.status.success()).with_context(|| format!("audit find: {said}"))
}

/// Milliseconds of the same question, as DuckDB says.
fn ask_duckdb(root: &Path, data: &Path, duckdb: &Path, sql: &str) -> Result<f64> {
    let mut command = Command::new(root.join("target/release/chancery"));
    command.args(["audit", "sql", "--data"]).arg(data).arg("--duckdb").arg(duckdb);
    let said = output(command.arg(format!(".timer on\n{sql}")))?;
    let seconds = said.lines().rev().find_map(|line| {
        line.strip_prefix("Run Time (s): real ")?.split(' ').next()?.parse::<f64>().ok()
    });
    Ok(seconds.with_context(|| format!("no time in: {said}"))? * 1e3)
}

fn median(ask: impl Fn() -> Result<f64>) -> Result<f64> {
    let mut times: Vec<f64> = (0..TIMES).map(|_| ask()).collect::<Result<_>>()?;
    times.sort_by(f64::total_cmp);
    times.get(TIMES / 2).copied().context("nothing was asked")
}

/// DuckDB below `target/ci`, or why it cannot be had.
fn install_duckdb(root: &Path) -> Result<PathBuf, String> {
    let folder = root.join("target/ci/duckdb");
    let program = folder.join("bin/duckdb");
    if works(Command::new(&program).arg("--version")) {
        return Ok(program);
    }
    let venv = works(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let install = ["-m", "pip", "install", "--quiet", DUCKDB];
    if venv && works(Command::new(folder.join("bin/python")).args(install)) {
        return Ok(program);
    }
    Err(format!("Python 3.10 and `{DUCKDB}` from PyPI cannot be installed"))
}
