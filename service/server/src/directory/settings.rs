//! The `[directory]` table of the configuration.

use chancery_tlog::note::VerifierKey;
use serde::Deserialize;

/// The directory log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirectorySettings {
    /// The directory's name, for ever; without it, `base_url` without its scheme and `/directory`.
    pub origin: Option<String>,
    /// Whether this service writes the deployment's directory. One service does.
    pub write: bool,
}

impl Default for DirectorySettings {
    fn default() -> Self {
        Self { origin: None, write: true }
    }
}

impl DirectorySettings {
    /// Whether the origin can be one.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        let Some(origin) = &self.origin else { return Ok(()) };
        let wrong = |why: &str| format!("directory.origin `{origin}` {why}");
        // An ML-DSA-44 cosignature gives it a length of one byte (c2sp.org/tlog-cosignature).
        if origin.len() > 255 {
            return Err(wrong("is longer than 255 bytes"));
        }
        if origin.contains("://") || origin.ends_with('/') {
            return Err(wrong("must be a name as `login.example/directory`, without a scheme"));
        }
        VerifierKey::new_ed25519(origin, &[0; 32]).map(drop).map_err(|e| wrong(&e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_names() {
        let check = |origin: &str| {
            DirectorySettings { origin: Some(origin.to_owned()), write: true }.check()
        };
        assert_eq!(check("login.example/directory"), Ok(()));
        assert_eq!(check("[::1]:8420/directory"), Ok(()));
        let long = "x".repeat(256);
        for bad in ["", "a b", "a+b", "https://login.example/directory", "login.example/", &long] {
            assert!(check(bad).unwrap_err().contains("directory.origin"), "{bad}");
        }
        assert_eq!(DirectorySettings::default().check(), Ok(()));
    }
}
