//! `chancery bench issue`: what a token costs, in full, beside what its signature alone costs.
//!
//! For each size of request: start a service and a signer in their default durable setting, make
//! the proofs ahead, warm up, load fully, then load at half of what that gave. The raw costs are
//! sampled while the load runs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use chancery_policy::Schedule;

use super::host::{Host, Setup, Usage, WorkFolder};
use super::load::{Load, Outcome, Pace};
use super::proofs::{CLIENT_ALGORITHM, Clients};
use super::raw::{self, Probe, RawKey};
use super::report::{Cpu, Disk, Figures, Half, IssueReport, Latency, Raw, Sync, Unit};
use super::{IssueArgs, rotation};

/// Requests of a batch when none is named: the two that the design sets aims for.
const DEFAULT_BATCHES: [u16; 2] = [32, 1];
/// Seconds of load before anything is measured.
const WARM_UP_S: f64 = 1.0;
/// Tokens a second that nothing on one machine exceeds, for the warm-up's requests.
const MOST_BATCHED_PER_S: f64 = 150_000.0;
const MOST_SINGLE_PER_S: f64 = 40_000.0;
/// The publisher runs once a second; what a phase left behind is written after this.
const SETTLE: Duration = Duration::from_millis(1_500);
/// More requests than a phase is expected to need, as a share.
const RESERVE: f64 = 1.5;

/// Runs the benchmark and prints its report.
pub fn run(args: &IssueArgs) -> anyhow::Result<ExitCode> {
    let folder = WorkFolder::make(args.data.as_deref())?;
    let batches = args.batch.map_or_else(|| DEFAULT_BATCHES.to_vec(), |batch| vec![batch]);
    let mut report = IssueReport::new(args.algorithm, args.connections, args.seconds);
    report.quiet = quiet(args, &folder.0)?;
    for batch in batches {
        let place = folder.0.join(format!("b{batch}"));
        match args.rotate_every {
            None => report.figures.push(measure(args, batch, &place, report.quiet)?),
            Some(every) => report.rotations.push(rotation::measure(args, batch, every, &place)?),
        }
    }
    report.print(args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// The raw costs before anything runs.
fn quiet(args: &IssueArgs, folder: &Path) -> anyhow::Result<Raw> {
    let (sign_us, _) = RawKey::generate(args.algorithm)?.quiet()?;
    let (_, verify_us) = RawKey::generate(CLIENT_ALGORITHM)?.quiet()?;
    Ok(Raw { sign_us, verify_us, sync: raw::quiet_syncs(folder)? })
}

fn measure(args: &IssueArgs, batch: u16, place: &Path, quiet: Raw) -> anyhow::Result<Figures> {
    let clients = Clients::generate()?;
    let schedule = Schedule::default();
    let setup = Setup {
        algorithm: args.algorithm,
        schedule,
        clients: clients.documents(),
        witnessed: args.witnessed,
    };
    let host = Host::start(place, setup)?;
    let mut load = Load::connect(host.address, args.connections)?;
    let seconds = f64::from(args.seconds);

    let warm = warm_up(&clients, &host, &mut load, batch)?;
    std::thread::sleep(SETTLE);
    let expected = warm * seconds * RESERVE;
    let requests = clients.requests(&host, batch, whole(expected))?;

    let stored = host.stored_bytes();
    let probe = Probe::start(args.algorithm, CLIENT_ALGORITHM, place)?;
    let before = host.usage()?;
    let full = load.run(&mut requests.into_iter(), Pace::Full, seconds)?;
    let loaded = host.usage()?;
    let samples = probe.finish()?;
    std::thread::sleep(SETTLE);
    let stored = host.stored_bytes().saturating_sub(stored);

    let rate = full.requests as f64 / full.elapsed.as_secs_f64().max(1e-9) / 2.0;
    let half = half(args, &clients, &host, &mut load, batch, rate, place)?;
    host.stop()?;

    let tokens = full.tokens_in_all as f64;
    let figures = Figures {
        batch,
        tokens_per_s: full.tokens_per_s(),
        tokens: full.tokens_in_all,
        latency: Latency::of(&full.latency_us),
        other_cores: others(before, loaded, &full),
        cpu: cpu_between(before, loaded, &full),
        disk: Disk {
            logged_bytes_per_token: difference(before.logged_bytes, loaded.logged_bytes) / tokens,
            stored_bytes_per_token: stored as f64 / tokens,
            tokens_per_commit: tokens / difference(before.commits, loaded.commits).max(1.0),
        },
        raw: Raw::of(samples),
        ratios: Vec::new(),
        half,
    };
    Ok(figures.with_ratios(quiet, if batch == 1 { Unit::SignAndVerify } else { Unit::Sign }))
}

/// Requests a second under full load, before anything is measured.
pub fn warm_up(clients: &Clients, host: &Host, load: &mut Load, batch: u16) -> anyhow::Result<f64> {
    let most = if batch == 1 { MOST_SINGLE_PER_S } else { MOST_BATCHED_PER_S / f64::from(batch) };
    let requests = clients.requests(host, batch, whole(most * WARM_UP_S / 2.0))?;
    let outcome = load.run(&mut requests.into_iter(), Pace::Full, WARM_UP_S)?;
    Ok(outcome.requests as f64 / outcome.elapsed.as_secs_f64().max(1e-9))
}

/// Half of the capacity, as an open loop.
fn half(
    args: &IssueArgs,
    clients: &Clients,
    host: &Host,
    load: &mut Load,
    batch: u16,
    rate: f64,
    place: &Path,
) -> anyhow::Result<Half> {
    let seconds = f64::from(args.seconds);
    let requests = clients.requests(host, batch, whole(rate * seconds))?;
    let probe = Probe::start(args.algorithm, CLIENT_ALGORITHM, place)?;
    let before = host.usage()?;
    let outcome = load.run(&mut requests.into_iter(), Pace::PerSecond(rate), seconds)?;
    let after = host.usage()?;
    let samples = probe.finish()?;
    let commits = difference(before.commits, after.commits).max(1.0);
    Ok(Half::new(
        &outcome,
        cpu_between(before, after, &outcome),
        others(before, after, &outcome),
        outcome.tokens_in_all as f64 / commits,
        Sync::of(samples.sync_us),
    ))
}

/// CPU of the processes between two looks, for each token of the load between them.
pub fn cpu_between(before: Usage, after: Usage, load: &Outcome) -> Cpu {
    let tokens = load.tokens_in_all.max(1) as f64;
    Cpu {
        service_us: (after.service_s - before.service_s) * 1e6 / tokens,
        signer_us: (after.signer_s - before.signer_s) * 1e6 / tokens,
    }
}

/// Cores that other work used; rounding in the kernel's counters can take it below nothing.
fn others(before: Usage, after: Usage, load: &Outcome) -> f64 {
    ((after.others_s - before.others_s) / load.elapsed.as_secs_f64().max(1e-9)).max(0.0)
}

fn difference(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64
}

/// A count of requests: at least one, and no more than memory takes easily.
pub fn whole(count: f64) -> usize {
    const MOST: f64 = 2_000_000.0;
    // Saturating, and never negative.
    count.clamp(1.0, MOST) as usize
}
