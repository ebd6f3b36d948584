//! `chancery audit hold` and `chancery audit prune`: what the audit's retention may delete.

use std::process::ExitCode;

use chancery_audit::parse_time;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::audit::retention::Hold;
use crate::cli::{DataArgs, say};
use crate::control::Command;

/// `chancery audit hold`
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Keep the records of a window, whatever their age, until the hold is released
    Add(AddArgs),
    /// End a hold
    Release {
        /// The hold's name
        name: String,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Print every hold
    List(DataArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  chancery audit hold add case-17 --from 2026-11-01 --to 2026-12-01 \
    --reason 'counsel, letter of 2026-12-03'"
)]
pub struct AddArgs {
    /// Its name: 1 to 64 of a-z, 0-9 and -
    name: String,
    /// From this time on
    #[arg(long, value_parser = time, value_name = "TIME")]
    from: u64,
    /// Before this time
    #[arg(long, value_parser = time, value_name = "TIME")]
    to: u64,
    /// Who asked for it, and why
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    data: DataArgs,
}

/// `chancery audit prune`
#[derive(Debug, Args)]
#[command(after_help = "The service does the same every hour. Segments that are older than \
    audit.keep_days and the longest life of a key go, but none that is held.\n\
    Example:\n  chancery audit prune --dry-run")]
pub struct PruneArgs {
    /// Say what would go, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    data: DataArgs,
}

fn time(text: &str) -> Result<u64, String> {
    parse_time(text).ok_or_else(|| "write 2026-11-23, 2026-11-23T19:05:00 or Unix seconds".into())
}

/// Exit 0: the service did it, or said it.
pub fn hold(command: &HoldCommand) -> anyhow::Result<ExitCode> {
    let (data, command) = match command {
        HoldCommand::Add(args) => {
            let AddArgs { name, from, to, reason, data } = args;
            let (from_ms, to_ms) = (*from, *to);
            let (name, reason) = (name.clone(), reason.clone());
            (data, Command::AddHold(Hold { name, from_ms, to_ms, reason, at: 0 }))
        }
        HoldCommand::Release { name, data } => (data, Command::ReleaseHold { name: name.clone() }),
        HoldCommand::List(data) => (data, Command::Holds),
    };
    crate::cli::keys::simple(data, &command)
}

/// Exit 0: what is too old is gone, or was said.
pub fn prune(args: &PruneArgs) -> anyhow::Result<ExitCode> {
    let answer = args.data.send(&Command::PruneAudit { dry_run: args.dry_run })?;
    if args.data.json {
        say(&answer.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let word = if args.dry_run { "would be removed" } else { "removed" };
    let removed = answer.get("removed").and_then(Value::as_array).into_iter().flatten();
    for object in removed.clone().filter_map(Value::as_str) {
        say(&format!("{word}: {object}"))?;
    }
    let held = answer.get("held").and_then(Value::as_u64).unwrap_or(0);
    say(&format!("{} segments {word}, {held} are held", removed.count()))?;
    if answer.get("more") == Some(&Value::Bool(true)) {
        say("there are more; run it again, or leave them to the service")?;
    }
    Ok(ExitCode::SUCCESS)
}
