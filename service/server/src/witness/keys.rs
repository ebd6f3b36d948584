//! The keys of a witness: made once, kept in files that only their owner reads, and bound to the
//! records: a witness that has its key and not its memory would cosign anything.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chancery_tlog::note::VerifierKey;
use chancery_token::Algorithm;
use chancery_token::client::ClientKey;

use super::disk::{make_folder, read, replace};
use super::{Folder, WitnessError};

/// Which keys have cosigned with this data folder, one verifier key a line.
const COSIGNERS: &str = "cosigners";

/// A key that cosigns.
pub struct Cosigner {
    vkey: VerifierKey,
    key: ClientKey,
}

impl Cosigner {
    /// A fresh key that no file holds; Ed25519 (0x04), or ML-DSA-44 (0x06).
    ///
    /// # Errors
    /// Why there is none.
    pub fn generate(name: &str, algorithm: Algorithm) -> Result<Self, String> {
        let key = ClientKey::generate(algorithm).map_err(|e| e.to_string())?;
        Self::new(name, key)
    }

    fn new(name: &str, key: ClientKey) -> Result<Self, String> {
        let public = key.signing_key().public();
        let raw = public.raw();
        let vkey = match public.algorithm() {
            Algorithm::Ed25519 => {
                raw.try_into().ok().map(|raw| VerifierKey::new_ed25519_cosigner(name, raw))
            }
            Algorithm::MlDsa44 => {
                raw.try_into().ok().map(|raw| VerifierKey::new_ml_dsa_44_cosigner(name, raw))
            }
            _ => None,
        };
        let vkey = vkey.ok_or("it is neither an Ed25519 nor an ML-DSA-44 key")?;
        Ok(Self { vkey: vkey.map_err(|e| e.to_string())?, key })
    }

    /// The public half, named.
    #[must_use]
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// Signs; `None` when the library cannot.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.key.signing_key().sign(message).ok()
    }
}

/// Reads the keys, or makes those that were never made.
///
/// The list of keys is written before a key is: a key that exists and is not listed belongs to other
/// records, and is refused unless `without_history` says that it never cosigned anything.
///
/// # Errors
/// [`WitnessError::Key`], [`WitnessError::File`], [`WitnessError::RolledBack`].
pub fn load_or_make(
    name: &str,
    folder: &Path,
    data: &Path,
    records: &Folder,
    ml_dsa_44: bool,
    without_history: bool,
) -> Result<Vec<Cosigner>, WitnessError> {
    let file = |path: &Path, e: std::io::Error| WitnessError::File {
        path: path.to_owned(),
        why: e.to_string(),
    };
    make_folder(folder).map_err(|e| file(folder, e))?;
    let list = data.join(COSIGNERS);
    let listed = read(&list).map_err(|e| file(&list, e))?.unwrap_or_default();
    let mut listed = parse_list(&listed, &list)?;
    let has_records = records.has_records().map_err(|e| file(data, e))?;
    let mut wanted = vec![(Algorithm::Ed25519, "ed25519.pem")];
    if ml_dsa_44 {
        wanted.push((Algorithm::MlDsa44, "ml-dsa-44.pem"));
    }
    let mut cosigners = Vec::new();
    for (algorithm, file_name) in wanted {
        let path = folder.join(file_name);
        let wrong = |why: String| WitnessError::Key { path: path.clone(), why };
        let found = read_key(&path, algorithm)?;
        let is_new = found.is_none();
        let key = match found {
            Some(key) => key,
            None => ClientKey::generate(algorithm).map_err(|e| wrong(e.to_string()))?,
        };
        let pem = is_new.then(|| key.to_pkcs8_pem());
        let cosigner = Cosigner::new(name, key).map_err(wrong)?;
        let key_type = cosigner.vkey.key_type();
        if is_new && has_records && listed.iter().any(|k| k.key_type() == key_type) {
            return Err(wrong(format!(
                "it is missing, and the records below `{}` were cosigned with it; restore it, or \
                 begin a witness of another name in a new data folder",
                data.display()
            )));
        }
        if !listed.contains(&cosigner.vkey) {
            if !is_new && !without_history {
                return Err(WitnessError::RolledBack(unlisted(&path, data)));
            }
            // A key that was listed and never written is forgotten: nothing was cosigned with it.
            listed.retain(|k| k.key_type() != key_type);
            listed.push(cosigner.vkey.clone());
            let text: String = listed.iter().map(|k| format!("{k}\n")).collect();
            replace(&list, text.as_bytes()).map_err(|e| file(&list, e))?;
        }
        if let Some(pem) = pem {
            replace(&path, pem.as_bytes()).map_err(|e| file(&path, e))?;
        }
        cosigners.push(cosigner);
    }
    Ok(cosigners)
}

fn unlisted(path: &Path, data: &Path) -> String {
    format!(
        "the key `{}` is not listed in `{}`: it has another name, or it cosigned with records that \
         are not here. Restore the data folder; only if this key, by this name, never cosigned \
         anything, start once with --without-history",
        path.display(),
        data.join(COSIGNERS).display()
    )
}

fn parse_list(bytes: &[u8], path: &Path) -> Result<Vec<VerifierKey>, WitnessError> {
    let wrong = |why: String| WitnessError::Key { path: path.to_owned(), why };
    let text = str::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    text.lines().map(|line| VerifierKey::parse(line).map_err(|e| wrong(e.to_string()))).collect()
}

fn read_key(path: &PathBuf, algorithm: Algorithm) -> Result<Option<ClientKey>, WitnessError> {
    let wrong = |why: String| WitnessError::Key { path: path.clone(), why };
    let Some(bytes) = read(path).map_err(|e| wrong(e.to_string()))? else { return Ok(None) };
    let mode = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(wrong(format!("others may read it (mode {mode:o}); `chmod 600` it")));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not PEM".into()))?;
    ClientKey::from_pkcs8_pem_as(&text, algorithm).map(Some).map_err(|e| wrong(e.to_string()))
}
