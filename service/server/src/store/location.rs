//! Where the objects are: one URL of the configuration, and the client for it.
//!
//! Credentials never stand in the URL: each provider's usual environment variables are read, and
//! where there are none, the machine's or container's own identity is asked for. Whatever the
//! environment says about time-outs and attempts, these are bounded here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig, path,
};
use url::Url;

use super::{CALL_WITHIN, StoreError};

/// Attempts after the first for one call: throttling and passing failures are waited out briefly.
/// A longer outage is the caller's, who tries again every second and says so.
const RETRIES: usize = 3;
/// No further attempt after this time.
const RETRY_FOR: Duration = Duration::from_secs(5);
/// Waits between attempts, doubled each time and spread at random.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);
/// The longest time to reach the store; what follows is bounded by [`CALL_WITHIN`].
const CONNECT_WITHIN_S: u64 = 3;

/// Why `storage` in the configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// No URL at all.
    #[error("storage.url `{0}`: {1}")]
    Url(String, String),
    /// No endpoint.
    #[error("storage.endpoint `{0}`: {1}")]
    Endpoint(String, &'static str),
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Bucket { provider: Provider, url: Url, prefix: path::Path, endpoint: Option<Url> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    S3,
    Azure,
    Gcs,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Place::Folder(folder) => write!(f, "file:{}", folder.display()),
            Place::Bucket { url, .. } => write!(f, "{url}"),
        }
    }
}

impl Location {
    /// A local folder.
    #[must_use]
    pub fn of_folder(folder: PathBuf) -> Self {
        Self(Place::Folder(folder))
    }

    /// Reads `storage.url` and `storage.endpoint`.
    ///
    /// # Errors
    /// [`LocationError`].
    pub fn parse(text: &str, endpoint: Option<&str>) -> Result<Self, LocationError> {
        let wrong = |why: &str| LocationError::Url(text.to_owned(), why.to_owned());
        let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        if url.password().is_some() {
            // Not repeated: it may be a secret.
            let hidden = format!("{}:...", url.scheme());
            let why = "credentials come from the environment, never from the URL";
            return Err(LocationError::Url(hidden, why.to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
            return Err(wrong("a port, a query or a fragment means nothing here"));
        }
        if url.scheme() == "file" {
            if endpoint.is_some() {
                return Err(wrong("storage.endpoint is for buckets"));
            }
            let folder = url.to_file_path().ok().filter(|f| text.contains(":/") && f.has_root());
            let folder = folder.ok_or_else(|| wrong("write file:/the/whole/path"))?;
            return Ok(Self::of_folder(folder));
        }
        let provider = match url.scheme() {
            "s3" => Provider::S3,
            "az" | "abfs" | "abfss" => Provider::Azure,
            "gs" => Provider::Gcs,
            _ => return Err(wrong("it must begin with file:, s3://, az://, abfs:// or gs://")),
        };
        if provider != Provider::Azure && !url.username().is_empty() {
            return Err(wrong("credentials come from the environment, never from the URL"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it names no bucket or container"));
        }
        let (_, prefix) = ObjectStoreScheme::parse(&url).map_err(|e| wrong(&e.to_string()))?;
        let endpoint = endpoint.map(parse_endpoint).transpose()?;
        Ok(Self(Place::Bucket { provider, url, prefix, endpoint }))
    }

    /// The folder, if it is one; otherwise an empty path.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match &self.0 {
            Place::Folder(folder) => folder,
            Place::Bucket { .. } => Path::new(""),
        }
    }

    /// Whether credentials and objects would cross a network in the clear.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        let Place::Bucket { endpoint: Some(endpoint), .. } = &self.0 else { return false };
        let loopback = match endpoint.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        endpoint.scheme() == "http" && !loopback
    }

    /// The client for a bucket; none for a folder. Nothing is sent yet.
    ///
    /// # Errors
    /// [`StoreError::Bucket`], mostly for settings that are missing in the environment.
    pub fn client(&self) -> Result<Option<Arc<dyn ObjectStore>>, StoreError> {
        let Place::Bucket { provider, url, prefix, endpoint } = &self.0 else { return Ok(None) };
        let client = match provider {
            Provider::S3 => s3(url, endpoint.as_ref()),
            Provider::Azure => azure(url, endpoint.as_ref()),
            Provider::Gcs => gcs(url, endpoint.as_ref()),
        };
        let client =
            client.map_err(|e| StoreError::Bucket { url: self.to_string(), why: e.to_string() })?;
        Ok(Some(Arc::new(PrefixStore::new(client, prefix.clone()))))
    }
}

fn parse_endpoint(text: &str) -> Result<Url, LocationError> {
    let wrong = |why| LocationError::Endpoint(text.to_owned(), why);
    let url = Url::parse(text).map_err(|_| wrong("it is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("it must be an http(s) URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LocationError::Endpoint("...".into(), "credentials come from the environment"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("a query or a fragment means nothing here"));
    }
    Ok(url)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: BACKOFF_FIRST,
        max_backoff: BACKOFF_LONGEST,
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_FOR }
}

/// Time limits of the client, in its own words.
fn limits() -> [(ClientConfigKey, String); 2] {
    [
        (ClientConfigKey::Timeout, format!("{} seconds", CALL_WITHIN.as_secs())),
        (ClientConfigKey::ConnectTimeout, format!("{CONNECT_WITHIN_S} seconds")),
    ]
}

fn s3(url: &Url, endpoint: Option<&Url>) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry());
    for (key, value) in limits() {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    if let Some(endpoint) = endpoint {
        builder = builder
            .with_config(AmazonS3ConfigKey::S3Endpoint, without_slash(endpoint))
            .with_allow_http(endpoint.scheme() == "http");
    }
    Ok(Arc::new(builder.build()?))
}

fn azure(url: &Url, endpoint: Option<&Url>) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry());
    for (key, value) in limits() {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    if let Some(endpoint) = endpoint {
        builder = builder
            .with_endpoint(without_slash(endpoint))
            .with_allow_http(endpoint.scheme() == "http");
    }
    Ok(Arc::new(builder.build()?))
}

fn gcs(url: &Url, endpoint: Option<&Url>) -> object_store::Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(gcs_builder(url, endpoint).build()?))
}

fn gcs_builder(url: &Url, endpoint: Option<&Url>) -> GoogleCloudStorageBuilder {
    let mut builder =
        GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry());
    for (key, value) in limits() {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    if let Some(endpoint) = endpoint {
        let allow = (endpoint.scheme() == "http").to_string();
        builder = builder
            .with_base_url(&without_slash(endpoint))
            .with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), allow);
    }
    builder
}

fn without_slash(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
