//! Accepting tokens, with everything that needs the network: key sets are found, kept and refreshed,
//! tokens are looked up in their logs, keys in a trust anchor. The rules themselves are those of the
//! pure core, `chancery-validate`; this crate only brings it what it judges by.
//!
//! ```no_run
//! use chancery_relying_party::{RelyingParty, ValidatorConfig};
//!
//! # async fn example(token: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let config = ValidatorConfig::new("https://login.example/consumers", "https://api.example");
//! let party = RelyingParty::builder(config).build()?; // in a tokio runtime
//! party.ready().await?; // the first key set is there
//!
//! match party.validate(token).await {
//!     Ok(accepted) => println!("it is {}", accepted.token.claims().sub),
//!     Err(rejection) if rejection.retryable() => println!("503: {}", rejection.code()),
//!     Err(rejection) => println!("401 invalid_token; for the log alone: {rejection}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Keep one [`RelyingParty`] for the life of the process and clone it into whatever needs it.
//! [`RelyingParty::judge`] decides most tokens without waiting, from any thread;
//! [`RelyingParty::validate`] decides all of them.
//!
//! # How long a key is believed
//!
//! | bound | default | |
//! |---|---|---|
//! | [`min_age`](Bounds::min_age), [`max_age`](Bounds::max_age) | 5 s, 1 h | between which `Cache-Control: max-age`, less `Age`, is taken; `no-store` and `no-cache` are 0 |
//! | [`default_age`](Bounds::default_age) | 5 min | where the publisher says nothing |
//! | refresh ahead | at 70 to 80% of the age | but never sooner than the cool-down |
//! | [`cool_down`](Bounds::cool_down) | 5 s | between the beginnings of two fetches, for whatever reason |
//! | [`fetch_timeout`](Bounds::fetch_timeout), [`connect_timeout`](Bounds::connect_timeout) | 10 s, 5 s | discovery, key set and announcements together; each connection |
//! | [`keep`](Bounds::keep) | 1 h | for which the last good set outlives its age in an outage |
//! | [`retry_at_most`](Bounds::retry_at_most) | 1 min | between attempts in an outage; they begin at the cool-down and double |
//! | [`waiting`](Bounds::waiting) | 1,024 | calls that wait for one fetch; further ones are rejected at once |
//! | sizes | 256 KiB, 1 MiB | metadata, key set |
//! | redirects | 3 | within the origin |
//! | metadata | `max_age` | how long it is used again; read anew after every failure |
//!
//! A key that its publisher takes out of the set is distrusted
//!
//! > within `age + fetch_timeout` while the publisher answers, and
//! > within `age + keep` whatever happens,
//!
//! where `age` is the publisher's `max-age` within `min_age` and `max_age`, counted from the moment
//! the set was asked for. [`RelyingParty::status`] states both times for the set at hand. With the
//! service's default schedule (`max-age` 150 s) that is 160 s, and 62.5 minutes in an outage; usually
//! it is less than 120 s, because sets are refreshed ahead. Absent keys are gone with the next set,
//! also for tokens in the cache of verified ones.
//!
//! # What strangers can cause
//!
//! A token that names an unknown key may be the first one of a new key, so it causes a fetch, for
//! which its call and all others that miss a key wait. The cool-down between fetches goes by time
//! alone, and nothing is remembered of names that nobody has: a million invented ones cause one
//! request per cool-down, occupy no memory, and cost a rejection of some microseconds each. Good
//! tokens never wait for any of this. (`examples/storm.rs` measures it.) The price: a new key that
//! signs sooner than a cool-down after its publication, as that of a signer which replaces a dead
//! one, may be refused for the rest of it. A publisher that shows keys for longer than the set's age
//! and a fetch before they sign, as the service does, causes no such refusal.
//!
//! # Logs
//!
//! With [`LogPolicy::Require`] a token is accepted once it is found in its log; what was found once
//! is known. A token that is younger than the log's next checkpoint is rejected as `log_pending`,
//! which is retryable. With [`LogPolicy::Report`] the log is read in the background, nothing waits for
//! it and nothing is rejected; what speaks against a token is told to
//! [`on_finding`](Builder::on_finding). Tiles are kept within [`log_bytes`](Bounds::log_bytes), and
//! one fetch of a tile serves the 256 tokens in it. A tile that does not agree with the log's signed
//! checkpoint is dropped.
//!
//! With an [`Anchor`] a key counts only if its announcement is found in a log that the anchor names.
//! What was verified once stays verified while the log cannot be read.
//!
//! # The network
//!
//! `https` by rustls with aws-lc and the system's root certificates, or those given; plain `http` to
//! this machine only, unless allowed. Proxies of the environment are not used. A process that is
//! forked must build its own: tasks do not survive it.
//!
//! The page to open first is `keeper.rs`, which decides when to fetch; `relying_party.rs` is the flow
//! of one judgement.

#![forbid(unsafe_code)]

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tower")]
pub mod bearer;
mod bounds;
mod builder;
mod clock;
mod discovery;
mod error;
mod fetch;
mod findings;
mod freshness;
mod issuer;
mod keeper;
mod logs;
mod place;
mod relying_party;
mod shelf;
mod status;
#[cfg(feature = "tower")]
pub mod tower;

pub use bounds::Bounds;
pub use builder::Builder;
pub use error::BuildError;
pub use findings::Finding;
pub use relying_party::{Accepted, Explained, Judgement, RelyingParty};
pub use status::{IssuerStatus, KeyState, LogStatus, Status};

pub use chancery_validate::anchor::Anchor;
pub use chancery_validate::log::{LogPolicy, Verdict};
pub use chancery_validate::{
    Attestation, LogLookup, Profile, Rejection, RejectionCode, Step, Validated, ValidatorConfig,
};
