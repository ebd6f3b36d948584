//! Policy versions in the store: each version is an object that is written once.

use std::collections::HashMap;

use bytes::Bytes;
use chancery_policy::{PolicyDocument, RealmDocument};
use chancery_token::{KeyId, PublicKey};

use crate::config::Config;
use crate::store::{Store, StoreError};

/// Versions before a new one whose imported keys are compared with it: a `kid` that was used longer ago
/// is in no relying party's memory.
const VERSIONS_COMPARED: u64 = 256;

/// Why a policy version cannot be settled.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration is no policy.
    #[error(transparent)]
    Policy(#[from] chancery_policy::Error),
    /// Relying parties keep keys by their `kid`.
    #[error(
        "realm `{realm}` imported another key as `{kid}` before (policy version {version}): a `kid` is \
         never used again, take another"
    )]
    NameTaken {
        /// The realm.
        realm: String,
        /// The imported key's name.
        kid: String,
        /// An earlier version.
        version: u64,
    },
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
    check_names(store, &document).await?;
    let bytes = Bytes::from(document.to_json()?);
    store.create_durably(&format!("policy/{}", document.version), bytes.clone()).await?;
    Ok(Version { document, bytes })
}

/// Whether each imported key's name meant that key before, or nothing.
async fn check_names(store: &Store, document: &PolicyDocument) -> Result<(), PolicyError> {
    let wanted = names_of(&document.realms);
    if wanted.is_empty() {
        return Ok(());
    }
    let oldest = document.version.saturating_sub(VERSIONS_COMPARED).max(1);
    for version in oldest..document.version {
        let bytes = match store.get(&format!("policy/{version}")).await {
            Ok(bytes) => bytes,
            Err(StoreError::Missing(_)) => continue,
            Err(e) => return Err(e.into()),
        };
        // Older software may have written what this one cannot read.
        let Ok(before) = PolicyDocument::parse(&bytes) else { continue };
        for ((realm, kid), key) in names_of(&before.realms) {
            let name = (realm, kid);
            if wanted.get(&name).is_some_and(|other| *other != key) {
                let (realm, kid) = (name.0.to_owned(), name.1.to_owned());
                return Err(PolicyError::NameTaken { realm, kid, version });
            }
        }
    }
    Ok(())
}

/// Imported keys, by realm and `kid`.
fn names_of(realms: &[RealmDocument]) -> HashMap<(&str, &str), KeyId> {
    let mut names = HashMap::new();
    for realm in realms {
        for key in realm.kubernetes.iter().flat_map(|kubernetes| &kubernetes.imported) {
            if let Ok(public) = PublicKey::from_jwk(&key.jwk) {
                names.insert((realm.name.as_str(), key.kid.as_str()), public.kid());
            }
        }
    }
    names
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
    async fn the_kid_of_an_imported_key_never_means_another() {
        let import = |keys: &[(&str, &PublicKey)]| {
            let mut config = config("read");
            let mut realm = crate::kubernetes::development_realm();
            for (kid, key) in keys {
                realm.kubernetes.as_mut().unwrap().imported.push(
                    chancery_policy::document::ImportedKeyDocument {
                        kid: (*kid).to_owned(),
                        jwk: key.jwk(),
                        until: 9,
                        in_discovery: true,
                    },
                );
            }
            config.realms = vec![realm];
            config
        };
        let key = || {
            let key = chancery_token::client::ClientKey::generate(chancery_token::Algorithm::Es256);
            key.unwrap().signing_key().public().clone()
        };
        let (first, second) = (key(), key());
        let faulty = FaultyStore::with(&Objects::new()).await;
        let store = faulty.store();
        settle(&store, &import(&[("old", &first)])).await.unwrap();
        settle(&store, &import(&[])).await.unwrap();
        let taken = settle(&store, &import(&[("old", &second)])).await;
        assert!(matches!(taken, Err(PolicyError::NameTaken { version: 1, .. })), "{taken:?}");
        let other = settle(&store, &import(&[("older", &second), ("old", &first)])).await;
        assert_eq!(other.unwrap().document.version, 3, "nothing was stored for the refused one");
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
