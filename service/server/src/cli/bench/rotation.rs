//! `--rotate-every`: two services side by side, one that rotates and one that does not, loaded in
//! turn, slice by slice, so that whatever else the machine does meets both. Every token of the
//! rotating one is validated as a relying party would: with the key set that it had fetched when
//! the token arrived, refreshed when its `max-age` was over and never in between.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chancery_policy::Schedule;
use chancery_validate::{Validator, ValidatorConfig};
use serde_json::Value;

use super::IssueArgs;
use super::host::{Host, Setup, Usage};
use super::issue::{cpu_between, warm_up, whole};
use super::load::{Load, Outcome, Pace};
use super::proofs::{AUDIENCE, Clients};
use super::report::{Cpu, Rotation};
use crate::cli::fetch::Web;

/// Seconds of a slice: whole rotations fit into it.
const SLICE_S: f64 = 2.0;
/// Lifetime of a token and leeway of validators under rotation, in rotations: with one a second
/// some forty keys are live, below the limit of 64.
const LIFETIME_ROTATIONS: u64 = 30;
const SKEW_ROTATIONS: u64 = 5;
/// How long a key is published before it signs, in rotations.
const LEAD_ROTATIONS: u64 = 2;
/// More requests than a run is expected to need, as a share.
const RESERVE: f64 = 1.4;

/// One of the two services.
struct Side {
    host: Host,
    load: Load,
    requests: std::vec::IntoIter<Vec<u8>>,
    outcome: Outcome,
    cpu: Usage,
}

impl Side {
    fn start(
        args: &IssueArgs,
        batch: u16,
        place: &Path,
        schedule: Schedule,
    ) -> anyhow::Result<Self> {
        let clients = Clients::generate()?;
        let setup = Setup {
            algorithm: args.algorithm,
            schedule,
            clients: clients.documents(),
            witnessed: false,
        };
        let host = Host::start(place, setup)?;
        let mut load = Load::connect(host.address, args.connections)?;
        let rate = warm_up(&clients, &host, &mut load, batch)?;
        let count = whole(rate * f64::from(args.seconds) * RESERVE);
        let requests = clients.requests(&host, batch, count)?.into_iter();
        // On both sides: it costs the load generator time.
        load.keep_bodies();
        Ok(Self { host, load, requests, outcome: Outcome::default(), cpu: Usage::default() })
    }

    fn slice(&mut self) -> anyhow::Result<()> {
        let before = self.host.usage()?;
        let outcome = self.load.run(&mut self.requests, Pace::Full, SLICE_S)?;
        let after = self.host.usage()?;
        self.cpu.service_s += after.service_s - before.service_s;
        self.cpu.signer_s += after.signer_s - before.signer_s;
        self.outcome.add(outcome);
        Ok(())
    }

    fn cpu(&self) -> Cpu {
        cpu_between(Usage::default(), self.cpu, &self.outcome)
    }
}

/// Measures both, slice by slice.
pub fn measure(
    args: &IssueArgs,
    batch: u16,
    every_s: u64,
    place: &Path,
) -> anyhow::Result<Rotation> {
    let schedule = rotating(every_s);
    let refresh = Duration::from_secs(schedule.key_set_max_age_s());
    let mut still = Side::start(args, batch, &place.join("still"), Schedule::default())?;
    let mut rotating = Side::start(args, batch, &place.join("rotating"), schedule)?;

    let done = AtomicBool::new(false);
    let party = RelyingParty::of(&rotating.host);
    let slices = (f64::from(args.seconds) / SLICE_S).ceil().max(1.0) as u32;
    let keys = std::thread::scope(|scope| {
        let party = scope.spawn(|| party.follow(refresh, &done));
        let mut run = || {
            for _ in 0..slices {
                still.slice()?;
                rotating.slice()?;
            }
            anyhow::Ok(())
        };
        let result = run();
        done.store(true, Ordering::Relaxed);
        let keys = party.join().map_err(|_| anyhow::anyhow!("the relying party failed"))?;
        result.and(keys)
    })?;
    let verdicts = validate(&keys, &rotating.outcome)?;
    let rotation = Rotation {
        batch,
        every_s,
        tokens_per_s_without: still.outcome.tokens_per_s(),
        tokens_per_s_with: rotating.outcome.tokens_per_s(),
        cpu_without: still.cpu(),
        cpu_with: rotating.cpu(),
        keys: verdicts.kids.len(),
        validated: verdicts.validated,
        failed: verdicts.failed,
        first_failure: verdicts.first_failure,
    };
    still.host.stop()?;
    rotating.host.stop()?;
    Ok(rotation)
}

fn rotating(every_s: u64) -> Schedule {
    Schedule {
        rotate_every_s: every_s,
        publish_lead_s: every_s.saturating_mul(LEAD_ROTATIONS),
        max_lifetime_s: every_s.saturating_mul(LIFETIME_ROTATIONS),
        skew_s: every_s.saturating_mul(SKEW_ROTATIONS),
        ..Schedule::default()
    }
}

/// A validator, and since when it was in use.
type Fetched = (Instant, Validator);

struct RelyingParty {
    url: String,
    config: ValidatorConfig,
}

impl RelyingParty {
    fn of(host: &Host) -> Self {
        Self {
            url: format!("{}/jwks.json", host.issuer),
            config: ValidatorConfig::new(host.issuer.clone(), AUDIENCE),
        }
    }

    /// Fetches the key set whenever it may no longer be cached.
    fn follow(&self, refresh: Duration, done: &AtomicBool) -> anyhow::Result<Vec<Fetched>> {
        let web = Web::new();
        let mut all = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let keys = web.get(&self.url)?;
            let validator = Validator::from_jwks(self.config.clone(), &keys)
                .map_err(|e| anyhow::anyhow!("key set: {}", e.detail()))?;
            all.push((Instant::now(), validator));
            // The answer may have been made at any moment since it was asked for.
            std::thread::sleep(refresh.saturating_sub(asked.elapsed()));
        }
        Ok(all)
    }
}

#[derive(Default)]
struct Verdicts {
    validated: u64,
    failed: u64,
    kids: HashSet<String>,
    first_failure: Option<String>,
}

/// Validates every token with what the relying party held when it arrived.
fn validate(keys: &[Fetched], outcome: &Outcome) -> anyhow::Result<Verdicts> {
    let (now, now_s) = (Instant::now(), crate::now());
    let mut verdicts = Verdicts::default();
    for (arrived, body) in &outcome.bodies {
        let held = keys.iter().rev().find(|(since, _)| since <= arrived);
        let (_, validator) = held
            .or(keys.first())
            .ok_or_else(|| anyhow::anyhow!("the key set was never fetched"))?;
        let at = now_s.saturating_sub(now.saturating_duration_since(*arrived).as_secs());
        for token in tokens(body)? {
            verdicts.validated = verdicts.validated.saturating_add(1);
            match validator.validate(&token, at) {
                Ok(valid) => drop(verdicts.kids.insert(valid.kid().to_owned())),
                Err(e) => {
                    verdicts.failed = verdicts.failed.saturating_add(1);
                    verdicts
                        .first_failure
                        .get_or_insert_with(|| format!("{}: {}", e.code().as_str(), e.detail()));
                }
            }
        }
    }
    Ok(verdicts)
}

fn tokens(body: &[u8]) -> anyhow::Result<Vec<String>> {
    let body: Value = serde_json::from_slice(body)?;
    let token = |v: &Value| v.get("access_token").and_then(Value::as_str).map(str::to_owned);
    let listed = body.get("tokens").and_then(Value::as_array);
    Ok(match listed {
        Some(list) => list.iter().filter_map(token).collect(),
        None => token(&body).into_iter().collect(),
    })
}
