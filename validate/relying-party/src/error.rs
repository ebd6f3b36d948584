//! What can go wrong: in building a relying party, and in fetching.

use std::time::Duration;

use chancery_token::jwks::Exposed;
use chancery_validate::ConfigError;

/// Why a relying party could not be built. All of these are mistakes in its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The demands cannot be met.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key set or URL was given for an issuer that is not configured.
    #[error("`{0}` is not one of the configured issuers; name one of them")]
    UnknownIssuer(String),
    /// A key set that was given cannot be believed.
    #[error("the key set that was given for `{issuer}` is refused: {why}")]
    KeySet {
        /// The issuer.
        issuer: String,
        /// Why.
        why: String,
    },
    /// A URL cannot be used.
    #[error("{0}")]
    Url(String),
    /// Bounds that contradict each other.
    #[error("bounds: {0}")]
    Bounds(String),
    /// The root certificates that were given cannot be read.
    #[error("root certificates: {0}; give PEM text with at least one certificate")]
    Roots(String),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made: {0}")]
    Client(String),
    /// Logs are asked for tokens that are in none.
    #[error(
        "log and anchor are for profile `strict`, or `oidc` with `log_lookup` `digest`: only their tokens \
         and keys are in logs"
    )]
    LogOfOthers,
    /// Nothing says where the logs are.
    #[error(
        "a key set was given for `{0}`, so nothing says where its logs are; name their place (`log_at`)"
    )]
    NoLogPlace(String),
    /// Key sets must be fetched, and there is no tokio runtime to do it on.
    #[error(
        "there is no tokio runtime here; build inside one, or give the builder the handle of one"
    )]
    NoRuntime,
}

/// Why something could not be fetched. For people: it ends in a status or a detail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("`{url}` {why}")]
    Refused { url: String, why: &'static str },
    #[error("GET {url}: {why}")]
    Transport { url: String, why: String },
    #[error("GET {url}: HTTP status {status}")]
    Status { url: String, status: u16 },
    #[error("GET {url}: the answer is longer than {limit} bytes")]
    TooLong { url: String, limit: usize },
    #[error("GET {url}: it redirects {why}")]
    Redirect { url: String, why: &'static str },
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{url}: {why}")]
    Content { url: String, why: String },
    #[error("{url}: {why}; the keys that it shows are distrusted: {}", named(.keys))]
    Exposed { url: String, why: String, keys: Vec<Exposed> },
}

fn named(keys: &[Exposed]) -> String {
    let kids: Vec<_> = keys.iter().filter_map(|key| key.kid.as_deref()).collect();
    kids.join(", ").escape_debug().to_string()
}

impl FetchError {
    /// Whether the server answered that there is no such thing.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Status { status: 400..=499, .. })
    }
}
