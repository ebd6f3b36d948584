//! How long does an appraisal take? One file of evidence under one policy, judged again and again:
//! `cargo run --release -p chancery-attest --example appraisal_time -- EVIDENCE.json POLICY.toml AT`.

use std::time::{Duration, Instant};

use chancery_attest::{Evidence, Policy, appraise};

const RUNS: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(evidence), Some(policy), Some(at)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("expected EVIDENCE POLICY AT".into());
    };
    let bytes = std::fs::read(evidence)?;
    let policy = Policy::parse(&std::fs::read_to_string(policy)?)?;
    let at = at.parse()?;
    let mut times: Vec<Duration> = Vec::with_capacity(RUNS);
    let mut accepted = true;
    for _ in 0..RUNS {
        let begin = Instant::now();
        let result = appraise(&Evidence::parse(&bytes)?, &policy, at, None)?;
        times.push(begin.elapsed());
        accepted &= result.accepted;
    }
    times.sort();
    let of = |share: usize| times.get(RUNS * share / 100).copied().unwrap_or_default();
    println!("median {:?}, 99th percentile {:?}, accepted: {accepted}", of(50), of(99));
    Ok(())
}
