//! Whether a bucket keeps its word, tried before anything relies on it.
//!
//! The logs rely on two conditions: an object that is there is not created again, and an object that
//! changed is not replaced by who has not seen the change; and on a list that shows what was
//! written. There are stores and emulators that take conditional requests and ignore the condition:
//! a log on one of them could be overwritten unnoticed.

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, PutResult, UpdateVersion};

use super::{Store, StoreError};

/// Where the object lies that is used for trying; it stays there.
const FOLDER: &str = "probe";
const NAME: &str = "conditional";

impl Store {
    /// Tries a bucket's conditions on an object of its own.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub async fn probe(&self) -> Result<(), String> {
        let said = |e: Error| e.to_string();
        match self.try_put("one\n", PutMode::Create).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(e) => return Err(said(e)),
        }
        match self.try_put("again\n", PutMode::Create).await {
            Err(Error::AlreadyExists { .. }) => {}
            Ok(_) => return Err(ignored("creates objects that are there already")),
            Err(e) => return Err(said(e)),
        }
        let key = Key::from(format!("{FOLDER}/{NAME}"));
        let there = self.limited(self.objects.get(&key)).await.map_err(said)?;
        let (e_tag, version) = (there.meta.e_tag.clone(), there.meta.version.clone());
        let seen = UpdateVersion { e_tag, version };
        // Other bytes than before: where versions are digests of them, the same would change none.
        let bytes = self.limited(there.bytes()).await.map_err(said)?;
        let next = if bytes == "one\n" { "two\n" } else { "one\n" };
        self.try_put(next, PutMode::Update(seen.clone())).await.map_err(said)?;
        match self.try_put("again\n", PutMode::Update(seen)).await {
            Err(Error::Precondition { .. }) => {}
            Ok(_) => return Err(ignored("replaces objects that changed since they were read")),
            Err(e) => return Err(said(e)),
        }
        let names = self.names(FOLDER).await.map_err(|e: StoreError| e.to_string())?;
        match names.iter().any(|name| name == NAME) {
            true => Ok(()),
            false => Err("its list does not show an object that was just written".into()),
        }
    }

    async fn try_put(&self, text: &'static str, mode: PutMode) -> object_store::Result<PutResult> {
        let key = Key::from(format!("{FOLDER}/{NAME}"));
        let bytes = Bytes::from_static(text.as_bytes());
        self.limited(self.objects.put_opts(&key, bytes.into(), PutOptions::from(mode))).await
    }
}

fn ignored(does: &str) -> String {
    format!("it {does}: it ignores conditions, and a log could be overwritten there; use another")
}
