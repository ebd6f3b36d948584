//! `chancery bench`: what a token costs here, beside what its signature alone costs.
//!
//! A figure means nothing without the machine, so everything is measured in one run and printed as
//! a ratio too: the raw signature, the raw verification of a client's proof and the raw `fdatasync`
//! of the same disk. [`issue`] is the page to open first.

mod host;
mod issue;
mod load;
mod proofs;
mod raw;
mod report;
mod rotation;
mod validate;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use chancery_token::Algorithm;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Start a service and a signer, drive them over loopback, print what a token costs
    Issue(IssueArgs),
    /// Compare the validator with the raw verification of a signature
    Validate(ValidateArgs),
}

/// `chancery bench issue`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  chancery bench issue\n  chancery bench issue --batch 1 \
    --seconds 10 --json\n  chancery bench issue --batch 32 --rotate-every 1")]
pub struct IssueArgs {
    /// Seconds of each measured phase
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=30))]
    seconds: u32,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Tokens of one request: 1 asks with private_key_jwt at the token endpoint, more with signed
    /// requests (default: measure 32, then 1)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: Option<u16>,
    /// Algorithm of the tokens
    #[arg(long, default_value = "ES256")]
    algorithm: Algorithm,
    /// Folder on the disk to measure; a folder is made in it and removed again (default: the
    /// system's folder for temporary files)
    #[arg(long)]
    data: Option<PathBuf>,
    /// Compare a service that rotates its keys this often, in seconds, with one that does not, and
    /// validate every token
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    rotate_every: Option<u64>,
    /// Have tokens wait for a witness on loopback: `release = "witnessed"`
    #[arg(long, conflicts_with = "rotate_every")]
    witnessed: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `chancery bench validate`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  chancery bench validate --algorithm ES256")]
pub struct ValidateArgs {
    /// Algorithm of the token (default: every one)
    #[arg(long)]
    algorithm: Option<Algorithm>,
    /// Seconds for each algorithm
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs a benchmark.
pub fn run(command: &BenchCommand) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        super::complain("this is not a release build: its figures mean nothing");
    }
    match command {
        BenchCommand::Issue(args) => issue::run(args),
        BenchCommand::Validate(args) => validate::run(args),
    }
}
