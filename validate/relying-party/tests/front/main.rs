//! The front against a real HTTP server that rotates, dawdles, lies and fails.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

mod anchor;
mod digests;
mod directory;
mod fetching;
mod https;
mod keys;
mod logs;
mod publisher;
mod storm;

use std::time::{Duration, Instant};

use chancery_relying_party::{
    Accepted, Bounds, Builder, Rejection, RejectionCode, RelyingParty, ValidatorConfig,
};
use publisher::{AUDIENCE, Publisher};

/// Bounds with which a test need not wait long.
fn quick() -> Bounds {
    Bounds {
        min_age: Duration::from_millis(300),
        max_age: Duration::from_secs(3_600),
        default_age: Duration::from_secs(300),
        cool_down: Duration::from_millis(300),
        keep: Duration::from_secs(3_600),
        retry_at_most: Duration::from_millis(600),
        fetch_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        checkpoint_age: Duration::from_millis(50),
        ..Bounds::default()
    }
}

fn builder(publisher: &Publisher) -> Builder {
    let config = ValidatorConfig::new(&publisher.issuer, AUDIENCE);
    RelyingParty::builder(config).bounds(quick())
}

async fn party(publisher: &Publisher) -> RelyingParty {
    let party = builder(publisher).build().unwrap();
    party.ready().await.unwrap();
    party
}

fn code(result: Result<Accepted, Rejection>) -> RejectionCode {
    match result {
        Err(rejection) => rejection.code(),
        Ok(accepted) => panic!("accepted: {accepted:?}"),
    }
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
