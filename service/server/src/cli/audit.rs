//! `chancery audit`: an investigator's questions, and the proof that the answer is whole.

mod archive;
mod find;
mod hold;
mod sql;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::DEFAULT_DATA;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Find decisions, count them, or see what a key's compromise touches
    Find(Box<find::FindArgs>),
    /// Check every segment against the log; exit 0 only if none is missing, altered or reordered
    Verify(verify::VerifyArgs),
    /// Keep a window's records, whatever their age
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Delete segments that are too old and that nobody holds, now
    Prune(hold::PruneArgs),
    /// Ask in SQL, by the DuckDB that is installed beside chancery
    Sql(sql::SqlArgs),
}

/// Where the audit is, and what opens it.
#[derive(Clone, Debug, Args)]
pub struct ArchiveArgs {
    /// Data folder of the service: its store, its write-ahead log, its key
    #[arg(long, env = "CHANCERY_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// The store, where it is not in the data folder: a folder, or file:, s3://, az:// or gs://
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where the bucket's provider is, as storage.endpoint in the configuration
    #[arg(long, requires = "store", value_name = "URL")]
    endpoint: Option<String>,
    /// Key file that opens the audit (default: audit.key in the data folder); may be repeated
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
}

/// Runs one of them.
pub fn run(command: &AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::Find(args) => find::run(args),
        AuditCommand::Verify(args) => verify::run(args),
        AuditCommand::Hold(command) => hold::hold(command),
        AuditCommand::Prune(args) => hold::prune(args),
        AuditCommand::Sql(args) => sql::run(args),
    }
}
