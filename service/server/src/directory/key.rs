//! The directory's Ed25519 key: a file in the data folder that only its owner can read, made once.
//!
//! It is the service's, not a signer's: who has it can lengthen the directory, or fork it, which
//! witnesses find out. It cannot make up checkpoints of a signer's log, each of which its signer signed.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use chancery_tlog::note::VerifierKey;
use chancery_token::Algorithm;
use chancery_token::client::ClientKey;

use super::DirectoryError;

/// The key in a file; `None` if there is no such file.
pub(super) fn load(path: &Path) -> Result<Option<ClientKey>, DirectoryError> {
    let wrong = |why: String| DirectoryError::Key { path: path.to_owned(), why };
    match std::fs::read_to_string(path) {
        Ok(pem) => ClientKey::from_pkcs8_pem_as(&pem, Algorithm::Ed25519)
            .map(Some)
            .map_err(|e| wrong(format!("{e}; restore the file from a copy"))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(wrong(e.to_string())),
    }
}

/// A new key in a new file, durably: the directory begins after it, and is worth nothing without it.
pub(super) fn make(path: &Path) -> Result<ClientKey, DirectoryError> {
    let wrong = |why: String| DirectoryError::Key { path: path.to_owned(), why };
    let key = ClientKey::generate(Algorithm::Ed25519).map_err(|e| wrong(e.to_string()))?;
    let write = || -> std::io::Result<()> {
        let draft = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
        file.write_all(key.to_pkcs8_pem().as_bytes())?;
        file.sync_all()?;
        // Not over a key that is there: two services would each believe in their own.
        std::fs::hard_link(&draft, path)?;
        std::fs::remove_file(&draft)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|e| wrong(e.to_string()))?;
    Ok(key)
}

/// The verifier key under a name.
pub(super) fn vkey(
    key: &ClientKey,
    name: &str,
    path: &Path,
) -> Result<VerifierKey, DirectoryError> {
    let wrong = |why: String| DirectoryError::Key { path: path.to_owned(), why };
    let public = key.signing_key().public();
    let public = <&[u8; 32]>::try_from(public.raw()).map_err(|e| wrong(e.to_string()))?;
    VerifierKey::new_ed25519(name, public).map_err(|e| wrong(e.to_string()))
}
