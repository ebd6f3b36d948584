//! What the benchmarks print: a table for a person, one JSON document for a program.

use chancery_token::Algorithm;
use serde::Serialize;

use super::load::Outcome;
use super::raw::Samples;
use crate::cli::say;

/// Aim for the CPU of a token, in multiples of its raw cryptography.
const AIM_RATIO: f64 = 2.0;
/// Aim for the CPU of a token that was asked for alone, in microseconds.
const AIM_SINGLE_US: f64 = 100.0;
/// Aim for the p99 at half of capacity: this much, in milliseconds, and two p99 syncs.
const AIM_HALF_MS: f64 = 5.0;
/// Aim for what rotation once a second costs of the throughput, in percent.
const AIM_ROTATION_PERCENT: f64 = 5.0;

/// Everything that `bench issue` found.
#[derive(Debug, Serialize)]
pub struct IssueReport {
    algorithm: Algorithm,
    connections: u16,
    seconds: u32,
    cores: usize,
    /// Before the load.
    pub quiet: Raw,
    /// One for each size of request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figures>,
    /// One for each size of request, with `--rotate-every`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<Rotation>,
}

/// The raw costs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Raw {
    /// CPU microseconds of a signature.
    pub sign_us: f64,
    /// CPU microseconds of the verification of a client's proof.
    pub verify_us: f64,
    /// One `fdatasync`.
    pub sync: Sync,
}

/// One `fdatasync` of a prewritten file, wall microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sync {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Latency of requests, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// CPU microseconds for each token.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    /// Of the service.
    pub service_us: f64,
    /// Of the signer.
    pub signer_us: f64,
}

/// Bytes on the disk for each token.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Disk {
    /// In the write-ahead log, which is overwritten.
    pub logged_bytes_per_token: f64,
    /// Kept for good, in the store.
    pub stored_bytes_per_token: f64,
    /// Tokens that share one `fdatasync`.
    pub tokens_per_commit: f64,
}

/// What a token's CPU is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One signature.
    Sign,
    /// One signature and one verification.
    SignAndVerify,
}

/// A figure, and what was aimed for.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    what: String,
    value: f64,
    aim: f64,
    met: bool,
}

/// One size of request.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Tokens of a request.
    pub batch: u16,
    /// Throughput.
    pub tokens_per_s: f64,
    /// Tokens that the figures stand on.
    pub tokens: u64,
    /// Under full load.
    pub latency: Latency,
    /// Cores that other work on the machine used meanwhile: with more than a tenth of one, latencies
    /// say little.
    pub other_cores: f64,
    /// Under full load.
    pub cpu: Cpu,
    /// Under full load.
    pub disk: Disk,
    /// Sampled under full load.
    pub raw: Raw,
    /// CPU against the raw costs.
    pub ratios: Vec<Ratio>,
    /// At half of the throughput.
    pub half: Half,
}

/// At half of the throughput.
#[derive(Clone, Debug, Serialize)]
pub struct Half {
    tokens_per_s: f64,
    latency: Latency,
    cpu: Cpu,
    other_cores: f64,
    tokens_per_commit: f64,
    sync: Sync,
    bound_ms: f64,
    met: bool,
}

/// With and without rotation.
#[derive(Clone, Debug, Serialize)]
pub struct Rotation {
    /// Tokens of a request.
    pub batch: u16,
    /// Seconds between rotations.
    pub every_s: u64,
    /// Throughput without.
    pub tokens_per_s_without: f64,
    /// Throughput with.
    pub tokens_per_s_with: f64,
    /// CPU without.
    pub cpu_without: Cpu,
    /// CPU with.
    pub cpu_with: Cpu,
    /// Keys that signed in the run.
    pub keys: usize,
    /// Tokens that were validated: all.
    pub validated: u64,
    /// Of these, refused.
    pub failed: u64,
    /// Why the first one was refused.
    pub first_failure: Option<String>,
}

impl Cpu {
    /// Of both processes.
    pub fn total_us(self) -> f64 {
        self.service_us + self.signer_us
    }
}

impl Raw {
    /// The medians of what a probe saw.
    pub fn of(mut samples: Samples) -> Self {
        Self {
            sign_us: median(&mut samples.sign_us),
            verify_us: median(&mut samples.verify_us),
            sync: Sync::of(samples.sync_us),
        }
    }

    fn unit(self, unit: Unit) -> f64 {
        match unit {
            Unit::Sign => self.sign_us,
            Unit::SignAndVerify => self.sign_us + self.verify_us,
        }
    }
}

impl Sync {
    /// Percentiles of samples in microseconds.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { p50_us: percentile(&samples, 0.5), p99_us: percentile(&samples, 0.99) }
    }
}

impl Latency {
    /// Percentiles of ascending samples in microseconds.
    pub fn of(ascending_us: &[f64]) -> Self {
        let ms = |share| percentile(ascending_us, share) / 1e3;
        Self { p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

impl Half {
    /// Compares with the aim.
    pub fn new(
        outcome: &Outcome,
        cpu: Cpu,
        other_cores: f64,
        tokens_per_commit: f64,
        sync: Sync,
    ) -> Self {
        let latency = Latency::of(&outcome.latency_us);
        let bound_ms = AIM_HALF_MS + 2.0 * sync.p99_us / 1e3;
        Self {
            tokens_per_s: outcome.tokens_per_s(),
            latency,
            cpu,
            other_cores,
            tokens_per_commit,
            sync,
            bound_ms,
            met: latency.p99_ms <= bound_ms,
        }
    }
}

impl Ratio {
    fn new(what: impl Into<String>, value: f64, aim: f64) -> Self {
        Self { what: what.into(), value, aim, met: value <= aim }
    }
}

impl Figures {
    /// Adds the comparisons with the raw costs, those of the run and those before it.
    pub fn with_ratios(mut self, quiet: Raw, unit: Unit) -> Self {
        let total = self.cpu.total_us();
        let name = match unit {
            Unit::Sign => "signature",
            Unit::SignAndVerify => "(signature + verification)",
        };
        let ratio = |raw: Raw| total / raw.unit(unit).max(1e-9);
        self.ratios = vec![
            Ratio::new(
                format!("CPU / {name}, raw cost sampled in the run"),
                ratio(self.raw),
                AIM_RATIO,
            ),
            Ratio::new(format!("CPU / {name}, raw cost before it"), ratio(quiet), AIM_RATIO),
        ];
        if unit == Unit::SignAndVerify {
            self.ratios.push(Ratio::new("CPU microseconds", total, AIM_SINGLE_US));
        }
        self
    }

    fn lines(&self) -> Vec<String> {
        let asked = match self.batch {
            1 => "single requests with private_key_jwt, POST /{realm}/token".to_owned(),
            n => format!("signed requests in batches of {n}, POST /{{realm}}/issue"),
        };
        let mut lines = vec![
            String::new(),
            asked,
            row(
                "throughput",
                format!("{:.0} tokens/s ({} tokens)", self.tokens_per_s, self.tokens),
            ),
            row("latency of a request", latency(self.latency)),
            row("CPU per token", cpu(self.cpu)),
            row(
                "disk per token",
                format!(
                    "{:.0} bytes in the write-ahead log, {:.0} kept; {:.1} tokens a commit",
                    self.disk.logged_bytes_per_token,
                    self.disk.stored_bytes_per_token,
                    self.disk.tokens_per_commit
                ),
            ),
            row("raw, in the run", raw(self.raw)),
            row("other work on the machine", format!("{:.1} cores", self.other_cores)),
        ];
        for ratio in &self.ratios {
            lines.push(row(&ratio.what, aimed(ratio.value, ratio.aim, ratio.met)));
        }
        let half = &self.half;
        lines.push(row(
            "at half of that",
            format!("{:.0} tokens/s, {}", half.tokens_per_s, latency(half.latency)),
        ));
        lines.push(row(
            "  CPU per token",
            format!("{}; {:.1} tokens a commit", cpu(half.cpu), half.tokens_per_commit),
        ));
        lines.push(row("  other work on the machine", format!("{:.1} cores", half.other_cores)));
        lines.push(row(
            "  p99 in ms",
            format!(
                "{} (5 + 2 x fdatasync p99 of {:.2} ms)",
                aimed(half.latency.p99_ms, half.bound_ms, half.met),
                half.sync.p99_us / 1e3
            ),
        ));
        lines
    }
}

impl Rotation {
    /// Loss of throughput in percent; negative where rotation was faster by chance.
    fn loss_percent(&self) -> f64 {
        (1.0 - self.tokens_per_s_with / self.tokens_per_s_without.max(1e-9)) * 100.0
    }

    fn lines(&self) -> Vec<String> {
        let loss = self.loss_percent();
        let more = self.cpu_with.total_us() / self.cpu_without.total_us().max(1e-9);
        let mut lines = vec![
            String::new(),
            format!("requests for {}, a new key every {} s", self.batch, self.every_s),
            row("without rotation", format!("{:.0} tokens/s", self.tokens_per_s_without)),
            row("  CPU per token", cpu(self.cpu_without)),
            row("with rotation", format!("{:.0} tokens/s", self.tokens_per_s_with)),
            row("  CPU per token", cpu(self.cpu_with)),
            row(
                "loss of throughput, %",
                aimed(loss, AIM_ROTATION_PERCENT, loss <= AIM_ROTATION_PERCENT),
            ),
            row("more CPU per token, %", format!("{:.2}", (more - 1.0) * 100.0)),
            row("keys that signed", self.keys.to_string()),
            row(
                "tokens validated",
                format!("{}, refused: {} (aim: 0)", self.validated, self.failed),
            ),
        ];
        lines.extend(self.first_failure.iter().map(|why| row("  the first one", why.clone())));
        lines
    }
}

impl IssueReport {
    /// A report without figures.
    pub fn new(algorithm: Algorithm, connections: u16, seconds: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            algorithm,
            connections,
            seconds,
            cores,
            quiet: Raw::default(),
            figures: Vec::new(),
            rotations: Vec::new(),
        }
    }

    /// Prints it.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return Ok(say(&serde_json::to_string(self)?)?);
        }
        let mut lines = vec![
            format!(
                "{}, {} connections, {} s a phase, {} cores shared with the load generator",
                self.algorithm, self.connections, self.seconds, self.cores
            ),
            row("raw, before the run", raw(self.quiet)),
        ];
        lines.extend(self.figures.iter().flat_map(Figures::lines));
        lines.extend(self.rotations.iter().flat_map(Rotation::lines));
        Ok(say(&lines.join("\n"))?)
    }
}

/// The middle sample; 0 without any.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    percentile(samples, 0.5)
}

/// A percentile of ascending samples by the nearest rank; 0 without any.
pub fn percentile(ascending: &[f64], share: f64) -> f64 {
    let rank = (share * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// A line of a table.
pub fn row(name: &str, value: impl AsRef<str>) -> String {
    format!("  {name:<58} {}", value.as_ref())
}

fn aimed(value: f64, aim: f64, met: bool) -> String {
    format!("{value:.2} (aim: {aim:.2}, {})", if met { "met" } else { "MISSED" })
}

fn latency(l: Latency) -> String {
    format!("p50 {:.2} ms, p99 {:.2} ms", l.p50_ms, l.p99_ms)
}

fn cpu(c: Cpu) -> String {
    format!("{:.1} us (service {:.1}, signer {:.1})", c.total_us(), c.service_us, c.signer_us)
}

fn raw(r: Raw) -> String {
    format!(
        "signature {:.1} us, verification {:.1} us, fdatasync p50 {:.0} us, p99 {:.0} us",
        r.sign_us, r.verify_us, r.sync.p50_us, r.sync.p99_us
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn the_bound_at_half_load_follows_the_disk() {
        let sync = Sync { p50_us: 100.0, p99_us: 1_000.0 };
        let at = |us| {
            let outcome = Outcome { latency_us: vec![us], ..Outcome::default() };
            Half::new(&outcome, Cpu::default(), 0.0, 1.0, sync)
        };
        assert!(at(7_000.0).met && !at(7_010.0).met);
        assert_eq!(at(7_000.0).bound_ms, 7.0);
    }

    #[test]
    fn rotation_loss_is_in_percent() {
        let rotation = Rotation {
            batch: 1,
            every_s: 1,
            tokens_per_s_without: 200.0,
            tokens_per_s_with: 150.0,
            cpu_without: Cpu::default(),
            cpu_with: Cpu::default(),
            keys: 1,
            validated: 0,
            failed: 0,
            first_failure: None,
        };
        assert_eq!(rotation.loss_percent(), 25.0);
    }
}
