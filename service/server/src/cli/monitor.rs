//! `chancery monitor`: the stranger's monitor. It trusts nobody whom it follows.
//!
//! In each round it reads which signers there are, goes on with each signer's log from where it was
//! ([`super::logcheck`] walks it), and compares the served key sets with what the logs announced. What
//! only a deployment that lies can cause is a violation; what cannot be read is said, and tried again
//! in the next round.

mod follow;
mod memory;
mod report;
mod served;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chancery_validate::anchor::Anchor;
use clap::Args;

use self::follow::Follower;
use self::memory::Memory;
use self::report::Report;
use super::fetch::Place;

pub use self::served::open_signed_set;

/// `chancery monitor`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong (with --once), 1 a violation, 2 it could not be \
    checked.\n\nExamples:\n  chancery monitor --follow https://issuer.example --state issuer.monitor\n  \
    chancery monitor --follow http://127.0.0.1:8420 --once --json"
)]
pub struct MonitorArgs {
    /// The deployment: the URL before `/signers` (or a folder with a copy of what is there)
    #[arg(long, value_name = "URL")]
    follow: String,
    /// Believe only logs whose verifier keys stand in this file, one a line
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Remember in this folder what was checked, and go on from there in later runs
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Look once and end
    #[arg(long)]
    once: bool,
    /// Seconds between two rounds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    interval: u32,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Follows until a violation, or once. Exit 0: nothing is wrong; 1: a violation; 2: it could not be
/// checked.
pub fn run(args: &MonitorArgs) -> anyhow::Result<ExitCode> {
    let place = Place::parse(&args.follow);
    let anchor = args.anchor.as_deref().map(read_anchor).transpose()?;
    let memory = Memory::open(args.state.as_deref(), args.follow.trim_end_matches('/'))?;
    let mut report = Report::new(args.json);
    let mut follower = Follower::new(place, anchor, memory);
    loop {
        let round = follower.round(&mut report)?;
        if round.violations > 0 {
            return Ok(ExitCode::from(1));
        }
        if args.once {
            if round.unreadable > 0 {
                return Ok(ExitCode::from(2));
            }
            follower.sum_up(&mut report)?;
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_secs(args.interval.into()));
    }
}

fn read_anchor(file: &std::path::Path) -> anyhow::Result<Anchor> {
    let named = || format!("anchor `{}`", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    Anchor::parse(&text).with_context(named)
}

#[cfg(test)]
mod tests;
