//! `chancery audit sql`: the same segments in the DuckDB that is installed beside chancery.
//!
//! A view `audit` over all segments is prepared, with their data keys, in a database in memory; then
//! DuckDB is cut off from everything but the audit's folder and its settings are locked. The keys go
//! through a pipe: they stand neither in the arguments nor on the disk.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use chancery_audit::segment::{Source, data_key};
use chancery_audit::{hour_of, parse_time};
use clap::{Args, ValueEnum};

use super::ArchiveArgs;
use super::archive::Archive;
use crate::cli::complain;

/// The most segments of one question: each is a key and a file in the view's definition.
const MAX_SEGMENTS: usize = 20_000;

/// `chancery audit sql`
#[derive(Debug, Args)]
#[command(
    after_help = "Records that are in no segment yet are not there; `chancery audit find` has \
    them.\nExample:\n  chancery audit sql \"SELECT client, count(*) FROM audit GROUP BY ALL\""
)]
pub struct SqlArgs {
    /// The question; the view `audit` has one row a decision
    query: String,
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Segments from this time on
    #[arg(long, value_parser = time, value_name = "TIME")]
    from: Option<u64>,
    /// Segments before this time
    #[arg(long, value_parser = time, value_name = "TIME")]
    to: Option<u64>,
    /// The DuckDB command line (default: `duckdb` from the PATH)
    #[arg(long, env = "CHANCERY_DUCKDB", value_name = "FILE")]
    duckdb: Option<PathBuf>,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

fn time(text: &str) -> Result<u64, String> {
    parse_time(text).ok_or_else(|| "write 2026-11-23, 2026-11-23T19:05:00 or Unix seconds".into())
}

/// Exit as DuckDB does; 2 where it is not there.
pub fn run(args: &SqlArgs) -> anyhow::Result<ExitCode> {
    let duckdb = args.duckdb.clone().unwrap_or_else(|| PathBuf::from("duckdb"));
    let archive = args.archive.open()?;
    let prelude = prelude(&archive, args)?;
    let format = match (args.json, args.format) {
        (true, _) | (_, Format::Json) => "-json",
        (_, Format::Csv) => "-csv",
        (_, Format::Table) => "-box",
    };
    let mut command = Command::new(&duckdb);
    // No start-up file, and the first error ends it.
    command.args(["-init", "/dev/null", "-bail", format, ":memory:"]);
    let child = command.stdin(Stdio::piped()).spawn();
    let mut child = match child {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            complain(&format!(
                "no DuckDB at `{}`: `pip install duckdb-cli` installs its command line, or take it \
                 from duckdb.org, and name it with --duckdb",
                duckdb.display()
            ));
            return Ok(ExitCode::from(2));
        }
        other => other.with_context(|| duckdb.display().to_string())?,
    };
    let query = args.query.trim().trim_end_matches(';');
    let script = zeroize::Zeroizing::new(format!("{}{query};\n", *prelude));
    if let Some(mut stdin) = child.stdin.take() {
        // One that ended early says itself why.
        let _ = stdin.write_all(script.as_bytes());
    }
    let status = child.wait()?;
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    })
}

/// Keys, the view, and the locks behind them.
fn prelude(archive: &Archive, args: &SqlArgs) -> anyhow::Result<zeroize::Zeroizing<String>> {
    let hours = hour_of(args.from.unwrap_or(0))..=hour_of(args.to.unwrap_or(u64::MAX));
    let mut names = archive.list(hours)?;
    let all = names.len();
    names.retain(|name| !name.is_sealed);
    if names.len() < all {
        complain(&format!("{} sealed segments are left out", all.saturating_sub(names.len())));
    }
    if names.is_empty() {
        anyhow::bail!(
            "there is no segment yet; `chancery audit find` answers from the first record"
        );
    }
    if names.len() > MAX_SEGMENTS {
        anyhow::bail!("{} segments at a time are too many; name a window", names.len());
    }
    // What preparing prints is nobody's answer.
    let mut script = zeroize::Zeroizing::new(String::from(".output /dev/null\n"));
    // DuckDB 1.5 fails to decrypt what it filters while it reads, in files of other writers as well.
    script.push_str("SET disabled_optimizers = 'filter_pushdown';\n");
    let mut parts = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let object = name.object();
        let file = archive.file(&object);
        let file = file.context("SQL needs the store in a folder; copy the segments to one")?;
        let source = Source::File(std::fs::File::open(&file)?);
        let key = data_key(&source, archive.identities()).with_context(|| object.clone())?;
        let key = zeroize::Zeroizing::new(base64_of(key.bytes()));
        script.push_str(&format!("PRAGMA add_parquet_key('k{at}', '{}');\n", *key));
        parts.push(format!(
            "SELECT * FROM read_parquet('{}', encryption_config = {{footer_key: 'k{at}'}}, \
             hive_partitioning = false)",
            quoted(&std::path::absolute(&file)?)?
        ));
    }
    let folder = archive.file("audit").unwrap_or_default();
    let folder = quoted(&std::path::absolute(folder)?)?;
    script.push_str(&format!("CREATE VIEW audit AS {};\n", parts.join("\nUNION ALL ")));
    script.push_str(&format!(
        "SET allowed_directories = ['{folder}/'];\nSET enable_external_access = false;\n\
         SET lock_configuration = true;\n.output\n"
    ));
    Ok(script)
}

/// A path in an SQL text.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().context("the store's path is not UTF-8")?;
    if text.contains(['*', '?', '[', '{']) {
        anyhow::bail!("DuckDB would take `{text}` for a pattern; use a store with a plain path");
    }
    Ok(text.replace('\'', "''"))
}

/// Base64 with padding, as DuckDB reads keys.
fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
