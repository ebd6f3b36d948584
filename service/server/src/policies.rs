//! Policy versions in the store: each version is an object that is written once.

use bytes::Bytes;
use chancery_policy::PolicyDocument;

use crate::config::Config;
use crate::store::{Store, StoreError};

/// Why a policy version cannot be settled.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration is no policy.
    #[error(transparent)]
    Policy(#[from] chancery_policy::Error),
}

/// A policy version and its bytes.
#[derive(Clone, Debug)]
pub struct Version {
    /// The document.
    pub document: PolicyDocument,
    /// Its bytes, over which the digest is taken.
    pub bytes: Bytes,
}

/// The version that the configuration means: the latest stored one where nothing changed, else the
/// next, which is stored first.
///
/// # Errors
/// [`PolicyError`].
pub async fn settle(store: &Store, config: &Config) -> Result<Version, PolicyError> {
    let names = store.names("policy").await?;
    let latest = names.iter().filter_map(|n| n.parse::<u64>().ok()).max().unwrap_or(0);
    if latest > 0 {
        let bytes = store.get(&format!("policy/{latest}")).await?;
        // Older software may have written what this one cannot read; then a new version follows.
        if let Ok(document) = PolicyDocument::parse(&bytes)
            && document == config.policy(latest)
        {
            return Ok(Version { document, bytes });
        }
    }
    let document = config.policy(latest.saturating_add(1));
    let bytes = Bytes::from(document.to_json()?);
    store.put(&format!("policy/{}", document.version), bytes.clone()).await?;
    store.make_durable().await?;
    Ok(Version { document, bytes })
}
