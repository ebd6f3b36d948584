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
    let mut latest = names.iter().filter_map(|n| n.parse::<u64>().ok()).max().unwrap_or(0);
    // A list may lag behind what was written; a version must not be given twice.
    while is_there(store, latest.saturating_add(1)).await? {
        latest = latest.saturating_add(1);
    }
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
    store.create_durably(&format!("policy/{}", document.version), bytes.clone()).await?;
    Ok(Version { document, bytes })
}

async fn is_there(store: &Store, version: u64) -> Result<bool, StoreError> {
    match store.get(&format!("policy/{version}")).await {
        Ok(_) => Ok(true),
        Err(StoreError::Missing(_)) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{Fault, FaultyStore, Objects};

    fn config(scope: &str) -> Config {
        let sample = include_str!("../../../docs/configuration.md");
        let sample = sample.split("```toml\n").nth(1).unwrap().split_once("\n```").unwrap().0;
        Config::parse(&sample.replace("\"read\"", &format!("\"{scope}\""))).unwrap()
    }

    #[tokio::test]
    async fn a_version_is_stored_once_and_the_next_one_only_when_something_changed() {
        let faulty = FaultyStore::with(&Objects::new()).await;
        let store = faulty.store();
        let first = settle(&store, &config("read")).await.unwrap();
        assert_eq!(first.document.version, 1);
        assert_eq!(faulty.moments()[0].durable["policy/1"], first.bytes, "durable at once");
        let again = settle(&store, &config("read")).await.unwrap();
        assert_eq!((&again.document, &again.bytes), (&first.document, &first.bytes));
        assert_eq!(faulty.calls(), 1);
        let changed = settle(&store, &config("write")).await.unwrap();
        assert_eq!(changed.document.version, 2);
        // Back to what it was is a change too: a version never means two things.
        assert_eq!(settle(&store, &config("read")).await.unwrap().document.version, 3);
        assert_eq!(faulty.visible()["policy/1"], first.bytes);
    }

    #[tokio::test]
    async fn a_list_that_lags_behind_gives_no_version_twice() {
        let faulty = FaultyStore::with(&Objects::new()).await;
        settle(&faulty.bucket(), &config("read")).await.unwrap();
        faulty.freeze_lists();
        assert_eq!(settle(&faulty.bucket(), &config("write")).await.unwrap().document.version, 2);
        let again = settle(&faulty.bucket(), &config("write")).await.unwrap();
        assert_eq!((again.document.version, faulty.visible().len()), (2, 2));
        assert_eq!(settle(&faulty.bucket(), &config("read")).await.unwrap().document.version, 3);
    }

    #[tokio::test]
    async fn unreadable_versions_are_followed_not_replaced() {
        let objects = [("policy/4", "not a policy"), ("policy/x", "not a version")];
        let objects =
            objects.map(|(name, bytes)| (name.to_owned(), Bytes::from_static(bytes.as_bytes())));
        let faulty = FaultyStore::with(&Objects::from(objects)).await;
        let version = settle(&faulty.store(), &config("read")).await.unwrap();
        assert_eq!(version.document.version, 5);
        assert_eq!(faulty.visible()["policy/4"], "not a policy");
    }

    #[tokio::test]
    async fn a_failing_store_settles_nothing_and_a_second_try_does() {
        for fault in [Fault::Failed, Fault::Persisted] {
            let faulty = FaultyStore::with(&Objects::new()).await;
            faulty.fail(0, fault);
            let failed = settle(&faulty.store(), &config("read")).await;
            assert!(matches!(failed, Err(PolicyError::Store(_))));
            let version = settle(&faulty.store(), &config("read")).await.unwrap();
            assert_eq!((version.document.version, faulty.visible().len()), (1, 1));
        }
        let faulty = FaultyStore::with(&Objects::new()).await;
        faulty.fail_reads(true);
        let failed = settle(&faulty.store(), &config("read")).await;
        assert!(matches!(failed, Err(PolicyError::Store(_))), "an unreadable store is not empty");
    }
}
