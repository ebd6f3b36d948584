//! Validations a second of one core's time, beside the bare verification of the same signature and
//! beside the crate `jsonwebtoken`, in the same run: a token of 12 claims.
//!
//! `cargo run --release -p chancery-validate --example beside [SECONDS [ALGORITHM]]`

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chancery_token::jwks::{KeySet, Member, Window};
use chancery_token::{Algorithm, RsaBits, SigningKey, b64, jws};
use chancery_validate::{TokenCache, Validator, ValidatorConfig};
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde_json::{Map, Value, json};

const ISSUER: &str = "https://id.example/bench";
const AUDIENCE: &str = "https://api.example";
const LOG: &str = "AAAAAAAAAAAAAAAAAAAAAA";
/// All are measured in turn, in slices of this many operations, so that whatever else the machine
/// does meets each of them.
const SLICE: u32 = 100;
const SECONDS: u64 = 5;

type Operation<'a> = Box<dyn FnMut() -> Result<(), Box<dyn Error>> + 'a>;

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(SECONDS), |text| text.parse())?;
    println!("operations a second of one core's time");
    println!(
        "{:<10} {:>9} {:>9} {:>6} {:>9} {:>9} {:>13} {:>6}",
        "algorithm", "raw", "chancery", "of raw", "added us", "cached", "jsonwebtoken", "of raw"
    );
    let only = std::env::args().nth(2);
    let chosen = |algorithm: &Algorithm| only.as_deref().is_none_or(|o| o == algorithm.as_str());
    for algorithm in Algorithm::ALL.into_iter().filter(chosen) {
        measure(algorithm, Duration::from_secs(seconds))?;
    }
    Ok(())
}

fn measure(algorithm: Algorithm, duration: Duration) -> Result<(), Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let key = SigningKey::generate(algorithm, RsaBits::B2048)?;
    let member = Member {
        issuer: Some(ISSUER.to_owned()),
        window: Some(Window { nbf: now, signs_until: now + 3_600 }),
        exp: Some(now + 7_200),
        log: Some(format!("{LOG}.2")),
        ..Member::new(key.public().clone())
    };
    let peer = peer(&member);
    let encoded = jws::encode_header(algorithm, "at+jwt", &key.public().kid());
    let token = token(&key, &encoded, now)?;
    let token_of_peer = match algorithm {
        Algorithm::Ed25519 => self::token(&key, &renamed(&encoded)?, now)?,
        _ => token.clone(),
    };
    let compact = jws::parse(&token, jws::MAX_TOKEN_BYTES)?;
    let config = ValidatorConfig::new(ISSUER, AUDIENCE);
    let ours = Validator::new(config, KeySet::from_members(vec![member])?);
    let cached = ours.clone().with_cache(Arc::new(TokenCache::new(1_000)));

    let public = key.public();
    let message = compact.signing_input.as_bytes();
    let mut operations: Vec<Operation<'_>> = vec![
        Box::new(|| public.verify(black_box(message), &compact.signature).map_err(Into::into)),
        Box::new(|| {
            black_box(ours.validate(black_box(&token), now)?);
            Ok(())
        }),
        Box::new(|| {
            black_box(cached.validate(black_box(&token), now)?);
            Ok(())
        }),
    ];
    if let Some((key, validation)) = &peer {
        operations.push(Box::new(|| {
            black_box(decode::<Map<String, Value>>(black_box(&token_of_peer), key, validation)?);
            Ok(())
        }));
    }
    let rates = rates(&mut operations, duration)?;
    report(algorithm, &rates);
    Ok(())
}

/// Operations a second of this thread's processor time: the median of the slices, because what
/// disturbs one slice, another tenant of the processor say, says nothing about the operation.
fn rates(operations: &mut [Operation<'_>], duration: Duration) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut slices: Vec<Vec<Duration>> = vec![Vec::new(); operations.len()];
    let mut spent = Duration::ZERO;
    while spent < duration {
        for (operation, slices) in operations.iter_mut().zip(&mut slices) {
            let begun = processor_time();
            for _ in 0..SLICE {
                operation()?;
            }
            let slice = processor_time().saturating_sub(begun);
            spent += slice;
            slices.push(slice);
        }
    }
    let median = |slices: &mut Vec<Duration>| {
        slices.sort_unstable();
        slices.get(slices.len() / 2).copied().unwrap_or_default()
    };
    let rate = |slices| f64::from(SLICE) / median(slices).as_secs_f64();
    Ok(slices.iter_mut().map(rate).collect())
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn report(algorithm: Algorithm, rates: &[f64]) {
    let [raw, ours, cached, rest @ ..] = rates else { return };
    let peer = match rest {
        [peer] => format!("{peer:>13.0} {:>6.3}", peer / raw),
        _ => format!("{:>13}", "not known"),
    };
    println!(
        "{:<10} {raw:>9.0} {ours:>9.0} {:>6.3} {:>9.2} {cached:>9.0} {peer}",
        algorithm.as_str(),
        ours / raw,
        1e6 / ours - 1e6 / raw,
    );
}

/// The same demands to `jsonwebtoken`, as far as it knows them; `None` where it does not know the
/// algorithm.
fn peer(member: &Member) -> Option<(DecodingKey, Validation)> {
    let mut jwk = member.jwk();
    let named = match member.key.algorithm() {
        Algorithm::Ed25519 => "EdDSA",
        algorithm => algorithm.as_str(),
    };
    jwk.insert("alg".to_owned(), named.into());
    let key = DecodingKey::from_jwk(&serde_json::from_value(Value::Object(jwk)).ok()?).ok()?;
    let mut validation = Validation::new(named.parse().ok()?);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_nbf = true;
    Some((key, validation))
}

/// A token of 12 claims, as the signer writes them.
fn token(key: &SigningKey, header: &str, now: u64) -> Result<String, Box<dyn Error>> {
    let kid = key.public().kid();
    let claims = json!({
        "iss": ISSUER,
        "sub": "user:4217",
        "aud": AUDIENCE,
        "client_id": "shop",
        "iat": now,
        "nbf": now,
        "exp": now + 3_600,
        "jti": format!("{LOG}.4711.uH2cWxSAVDqNr0bqcvlyEA"),
        "scope": "read write",
        "tier": "gold",
        "roles": ["buyer", "reviewer"],
        "cnf": {"jkt": kid.to_string()},
    });
    let input = jws::signing_input_with(header, claims.to_string().as_bytes());
    let signature = key.sign(input.as_bytes())?;
    Ok(jws::assemble(input, &signature))
}

/// The peer does not know the name `Ed25519` (RFC 9864).
fn renamed(header: &str) -> Result<String, Box<dyn Error>> {
    let header = String::from_utf8(b64::decode(header)?)?;
    Ok(b64::encode(header.replace("Ed25519", "EdDSA").as_bytes()))
}
