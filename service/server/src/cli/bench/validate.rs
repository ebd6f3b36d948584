//! `chancery bench validate`: the validator beside the raw verification of the same signature.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use chancery_token::jwks::{KeySet, Member, Window};
use chancery_token::{Algorithm, RsaBits, SigningKey, jws};
use chancery_validate::{Validator, ValidatorConfig};
use serde::Serialize;
use serde_json::json;

use super::ValidateArgs;
use super::raw::{RawPublic, thread_cpu};
use crate::cli::say;

const ISSUER: &str = "https://id.example/bench";
const AUDIENCE: &str = "https://api.example";
const LOG: &str = "AAAAAAAAAAAAAAAAAAAAAA";
/// Both are measured in turn, in slices of this many operations, so that whatever else the machine
/// does meets both.
const SLICE: u32 = 200;

/// One algorithm.
#[derive(Debug, Serialize)]
struct Figures {
    algorithm: Algorithm,
    /// Verifications a second and core.
    raw_per_s: f64,
    /// Validations a second and core.
    validate_per_s: f64,
    /// Validations for each verification.
    ratio: f64,
    /// What the validator adds, microseconds.
    added_us: f64,
}

/// Runs the benchmark and prints its report.
pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let algorithms = args.algorithm.map_or_else(|| Algorithm::ALL.to_vec(), |a| vec![a]);
    let duration = Duration::from_secs(u64::from(args.seconds));
    let mut all = Vec::new();
    for algorithm in algorithms {
        all.push(measure(algorithm, duration)?);
    }
    if args.json {
        say(&serde_json::to_string(&all)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    say("operations a second of one core's time, a token of 12 claims")?;
    say(&format!(
        "{:<11} {:>12} {:>12} {:>8} {:>10}",
        "algorithm", "raw verify", "validate", "ratio", "added us"
    ))?;
    for f in all {
        say(&format!(
            "{:<11} {:>12.0} {:>12.0} {:>8.3} {:>10.2}",
            f.algorithm, f.raw_per_s, f.validate_per_s, f.ratio, f.added_us
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(algorithm: Algorithm, duration: Duration) -> anyhow::Result<Figures> {
    let now = crate::now();
    let key = SigningKey::generate(algorithm, RsaBits::B2048)?;
    let token = token(&key, now)?;
    let validator = validator(&key, now)?;
    validator.validate(&token, now).map_err(|e| anyhow::anyhow!("{}", e.detail()))?;
    let raw = RawPublic::of(algorithm, key.public().raw())?;
    let compact = jws::parse(&token, jws::MAX_TOKEN_BYTES)?;
    let message = compact.signing_input.as_bytes();

    let (mut raw_time, mut full_time, mut count) = (Duration::ZERO, Duration::ZERO, 0_u32);
    while raw_time + full_time < duration {
        let begun = thread_cpu();
        for _ in 0..SLICE {
            raw.verify(black_box(message), &compact.signature)?;
        }
        let middle = thread_cpu();
        for _ in 0..SLICE {
            let verdict = validator.validate(black_box(&token), now);
            black_box(verdict).map_err(|e| anyhow::anyhow!("{}", e.detail()))?;
        }
        raw_time += middle.saturating_sub(begun);
        full_time += thread_cpu().saturating_sub(middle);
        count = count.saturating_add(SLICE);
    }
    let per_s = |time: Duration| f64::from(count) / time.as_secs_f64().max(1e-9);
    let added = full_time.as_secs_f64() - raw_time.as_secs_f64();
    Ok(Figures {
        algorithm,
        raw_per_s: per_s(raw_time),
        validate_per_s: per_s(full_time),
        ratio: per_s(full_time) / per_s(raw_time),
        added_us: added * 1e6 / f64::from(count.max(1)),
    })
}

/// A token of 12 claims, as the signer writes them.
fn token(key: &SigningKey, now: u64) -> anyhow::Result<String> {
    let claims = json!({
        "iss": ISSUER,
        "sub": "user:4217",
        "aud": AUDIENCE,
        "client_id": "shop",
        "iat": now,
        "nbf": now,
        "exp": now.saturating_add(3_600),
        "jti": format!("{LOG}.4711.uH2cWxSAVDqNr0bqcvlyEA"),
        "scope": "read write",
        "tier": "gold",
        "roles": ["buyer", "reviewer"],
        "cnf": {"jkt": key.public().kid().to_string()},
    });
    let payload = claims.to_string();
    let input = jws::signing_input(
        key.public().algorithm(),
        "at+jwt",
        &key.public().kid(),
        payload.as_bytes(),
    );
    let signature = key.sign(input.as_bytes())?;
    Ok(jws::assemble(input, &signature))
}

fn validator(key: &SigningKey, now: u64) -> anyhow::Result<Validator> {
    let member = Member {
        issuer: Some(ISSUER.to_owned()),
        window: Some(Window { nbf: now, signs_until: now.saturating_add(3_600) }),
        exp: Some(now.saturating_add(7_200)),
        log: Some(format!("{LOG}.2")),
        ..Member::new(key.public().clone())
    };
    let keys = KeySet::from_members(vec![member])?;
    Ok(Validator::new(ValidatorConfig::new(ISSUER, AUDIENCE), keys))
}
