//! How much a storm of tokens with invented keys disturbs good ones, and the issuer.
//!
//! `cargo run --release -p chancery-relying-party --example storm`
//!
//! One thread judges good tokens and takes the time of each, in three phases: alone; while another
//! thread judges a million tokens whose `kid` nobody has, by the same relying party; and while it does
//! so by a relying party of its own. The last tells what the storm costs because the machine is busy,
//! whatever is shared. An HTTP server beside them counts how often the key set is fetched.
//!
//! Ends with 1 if that is more than once per cool-down, or if the 99th percentile of good tokens is
//! in the storm more than twice what it is when quiet, and also more than twice what it is beside the
//! other storm: on a machine without two idle cores only the second comparison means something.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::header::CACHE_CONTROL;
use axum::routing::get;
use chancery_relying_party::{
    Bounds, Judgement, Rejection, RejectionCode, RelyingParty, ValidatorConfig,
};
use chancery_token::jwks::{Member, Window, to_json};
use chancery_token::{Algorithm, RsaBits, SigningKey, b64, jws};
use serde_json::json;
use tokio::net::TcpListener;

const AUDIENCE: &str = "https://api.example";
const LOG: &str = "AAECAwQFBgcICQoLDA0ODw";
const STORM: u64 = 1_000_000;
const QUIET: Duration = Duration::from_secs(10);
/// Different good tokens: more than one, so that nothing is measured that remembers the last.
const TOKENS: u64 = 256;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// An issuer with one key, and the number of times that its key set was fetched.
struct Issuer {
    url: String,
    key: SigningKey,
    fetched: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let key = SigningKey::generate(Algorithm::Es256, RsaBits::B2048)?;
        let member = Member {
            issuer: Some(url.clone()),
            window: Some(Window { nbf: now().saturating_sub(600), signs_until: now() + 3_000 }),
            log: Some(format!("{LOG}.0")),
            ..Member::new(key.public().clone())
        };
        let jwks = to_json(&[member]);
        let fetched = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fetched);
        let serve = move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            ([(CACHE_CONTROL, "public, max-age=150")], jwks)
        };
        let app = Router::new().route("/jwks.json", get(serve));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, key, fetched })
    }

    fn token(&self, index: u64) -> Result<String, Box<dyn Error>> {
        let claims = json!({
            "iss": self.url, "sub": "s", "aud": AUDIENCE, "client_id": "c", "iat": now(),
            "exp": now() + 3_000, "jti": format!("{LOG}.{index}.{}", b64::encode(&[7; 16])),
        });
        let (kid, payload) = (self.key.public().kid(), claims.to_string());
        let input = jws::signing_input(Algorithm::Es256, "at+jwt", &kid, payload.as_bytes());
        let signature = self.key.sign(input.as_bytes())?;
        Ok(jws::assemble(input, &signature))
    }
}

/// Times of good tokens, in nanoseconds, sorted.
struct Times(Vec<u64>);

impl Times {
    /// Judges good tokens until told to stop.
    fn take(party: &RelyingParty, tokens: &[String], stop: &AtomicBool) -> Result<Self, Rejection> {
        let mut times = Vec::new();
        for token in tokens.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let begun = Instant::now();
            let judged = party.judge(token);
            times.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if let Judgement::Decided(result) = judged {
                result?;
            }
        }
        times.sort_unstable();
        Ok(Self(times))
    }

    /// In microseconds; `share` in thousandths.
    fn at(&self, share: usize) -> f64 {
        let index = self.0.len().saturating_mul(share) / 1_000;
        self.0.get(index).or(self.0.last()).map_or(0.0, |ns| *ns as f64 / 1_000.0)
    }

    fn print(&self, name: &str) {
        let (p50, p99, p999) = (self.at(500), self.at(990), self.at(999));
        let count = self.0.len();
        println!(
            "{name}: {count} good tokens, p50 {p50:.1} µs, p99 {p99:.1} µs, p99.9 {p999:.1} µs"
        );
    }
}

/// The same token with a key that nobody has.
fn invented(token: &str, number: u64) -> String {
    let rest = token.split_once('.').map_or("", |(_, rest)| rest);
    // Spread over all 64 bits, as random names are.
    let kid = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let header = format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{kid:016x}"}}"#);
    format!("{}.{rest}", b64::encode(header.as_bytes()))
}

async fn storm(party: &RelyingParty, token: &str) -> Result<(), Box<dyn Error>> {
    for number in 0..STORM {
        match party.validate(&invented(token, number)).await {
            Err(rejection) if rejection.code() == RejectionCode::UnknownKey => {}
            other => return Err(format!("an invented key was judged {other:?}").into()),
        }
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let issuer = Issuer::start().await?;
    let config = ValidatorConfig::new(&issuer.url, AUDIENCE);
    let jwks_uri = format!("{}/jwks.json", issuer.url);
    let builder = || RelyingParty::builder(config.clone()).jwks_uri(&issuer.url, &jwks_uri);
    let party = builder().build()?;
    party.ready().await?;
    let tokens = (0..TOKENS).map(|index| issuer.token(index)).collect::<Result<Vec<_>, _>>()?;

    let quiet = {
        let measured = Measured::begin(&party, &tokens);
        tokio::time::sleep(QUIET).await;
        measured.end()?
    };
    quiet.print("quiet");

    let before = issuer.fetched.load(Ordering::Relaxed);
    let (loud, took) = beside_a_storm(&party, &tokens, &party).await?;
    let fetches = issuer.fetched.load(Ordering::Relaxed).saturating_sub(before);
    loud.print("storm");

    let other = builder().build()?;
    other.ready().await?;
    let (apart, _) = beside_a_storm(&party, &tokens, &other).await?;
    apart.print("storm elsewhere");

    let cool_downs = took.as_secs_f64() / Bounds::default().cool_down.as_secs_f64();
    println!(
        "{STORM} invented keys in {:.2} s, {:.0} a second: {fetches} fetches in {cool_downs:.1} \
         cool-downs",
        took.as_secs_f64(),
        STORM as f64 / took.as_secs_f64()
    );
    let (to_quiet, to_apart) = (loud.at(990) / quiet.at(990), loud.at(990) / apart.at(990));
    println!(
        "p99 of good tokens in the storm: {to_quiet:.2} times its quiet value, {to_apart:.2} times \
         that beside a storm elsewhere"
    );
    let kept = fetches as f64 <= cool_downs + 1.0 && (to_quiet <= 2.0 || to_apart <= 2.0);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The times of good tokens while another task judges invented ones, and how long that took.
async fn beside_a_storm(
    party: &RelyingParty,
    tokens: &[String],
    stormed: &RelyingParty,
) -> Result<(Times, Duration), Box<dyn Error>> {
    let measured = Measured::begin(party, tokens);
    let begun = Instant::now();
    let (stormed, token) = (stormed.clone(), tokens.first().cloned().unwrap_or_default());
    let storm = async move { storm(&stormed, &token).await.map_err(|error| error.to_string()) };
    tokio::spawn(storm).await??;
    let took = begun.elapsed();
    Ok((measured.end()?, took))
}

/// A thread that takes times.
struct Measured {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Times, Rejection>>,
}

impl Measured {
    fn begin(party: &RelyingParty, tokens: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (party, tokens, told) = (party.clone(), tokens.to_vec(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || Times::take(&party, &tokens, &told));
        Self { stop, thread }
    }

    fn end(self) -> Result<Times, Box<dyn Error>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the measuring thread panicked")??)
    }
}
