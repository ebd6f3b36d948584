//! The public keys that a cluster had before, from the files that its API server read them from.

use std::path::PathBuf;

use chancery_entry::sha256;
use chancery_policy::document::ImportedKeyDocument;
use chancery_token::{Algorithm, PublicKey, b64};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Map, Value};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::keys::{P256_PREFIX, P384_PREFIX, spki};

/// RFC 8017 appendix A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// The largest file of keys, in bytes: sixteen RSA-4096 keys are 13 kB.
const MAX_FILE_BYTES: u64 = 64 * 1_024;
/// What begins a section of a PEM file (RFC 7468 section 2), and ends its label.
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_DASHES: &str = "-----";
/// The label of the only sections that are taken.
const PEM_LABEL: &str = "PUBLIC KEY";

/// Public keys in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// PEM, `PUBLIC KEY`, one or several.
    pub key_file: PathBuf,
    /// The `kid` of its tokens, for a file of one key. By default the one that kube-apiserver itself
    /// gives a key: SHA-256 of the DER, base64url.
    #[serde(default)]
    pub kid: Option<String>,
    /// Unix seconds from which on it is no longer listed.
    pub until: u64,
    /// Whether everybody sees it in the realm's key set.
    #[serde(default)]
    pub in_discovery: bool,
}

impl Import {
    /// The file's keys, as the policy lists them.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(&self) -> Result<Vec<ImportedKeyDocument>, String> {
        let wrong =
            |what: String| format!("kubernetes.import `{}`: {what}", self.key_file.display());
        let bytes = read_file(&self.key_file).map_err(&wrong)?;
        let sections = check_sections(&bytes).map_err(&wrong)?;
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(&bytes) {
            let der = der.map_err(|e| wrong(format!("not PEM: {e}")))?;
            let key = from_spki(&der).map_err(&wrong)?;
            let kid = match &self.kid {
                Some(kid) => kid.clone(),
                None => kid_of(&key).ok_or_else(|| wrong("no such key".into()))?,
            };
            keys.push(ImportedKeyDocument {
                kid,
                jwk: public_members(&key),
                until: self.until,
                in_discovery: self.in_discovery,
            });
        }
        if keys.len() != sections {
            return Err(wrong(format!(
                "has {sections} sections, of which {} could be read: one is cut short",
                keys.len()
            )));
        }
        match keys.len() {
            0 => Err(wrong(
                "holds no `PUBLIC KEY`; `openssl pkey -in sa.key -pubout` makes one of a private key"
                    .into(),
            )),
            1 => Ok(keys),
            _ if self.kid.is_some() => Err(wrong("several keys cannot have one `kid`".into())),
            _ => Ok(keys),
        }
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let most = MAX_FILE_BYTES.saturating_add(1);
    let read = file.take(most).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if u64::try_from(read).unwrap_or(u64::MAX) >= most {
        return Err(format!(
            "has more than {MAX_FILE_BYTES} bytes; name the files that hold the keys"
        ));
    }
    Ok(bytes)
}

/// How many sections there are: each must be a public key. kube-apiserver takes others from the same
/// file, so one that was passed over here would be a key whose tokens are suddenly refused.
fn check_sections(bytes: &[u8]) -> Result<usize, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut sections: usize = 0;
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix(PEM_BEGIN) else { continue };
        let label = rest.trim_end().strip_suffix(PEM_DASHES).unwrap_or(rest);
        if label != PEM_LABEL {
            let convert = match label {
                "RSA PUBLIC KEY" => "openssl rsa -RSAPublicKey_in -in FILE -pubout",
                "CERTIFICATE" => "openssl x509 -in FILE -noout -pubkey",
                _ => "openssl pkey -in FILE -pubout",
            };
            return Err(format!(
                "has a section `{}`; only `{PEM_LABEL}` is taken, and `{convert}` makes one of it",
                label.escape_debug()
            ));
        }
        sections = sections.saturating_add(1);
    }
    Ok(sections)
}

/// The `kid` that kube-apiserver gives a key of its own.
fn kid_of(key: &PublicKey) -> Option<String> {
    spki(key).map(|der| b64::encode(&sha256(&der)))
}

/// The members that the key itself consists of, and its algorithm.
fn public_members(key: &PublicKey) -> Map<String, Value> {
    let mut jwk = key.jwk();
    jwk.remove("use");
    jwk.remove("kid");
    jwk
}

/// A key from its DER `SubjectPublicKeyInfo`, for the one algorithm that the API server would use.
fn from_spki(der: &[u8]) -> Result<PublicKey, String> {
    for (prefix, algorithm) in [(P256_PREFIX, Algorithm::Es256), (P384_PREFIX, Algorithm::Es384)] {
        if let Some(point) = der.strip_prefix(prefix) {
            return PublicKey::from_raw(algorithm, point).map_err(|e| e.to_string());
        }
    }
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|e| format!("not a key: {e}"))?;
    if info.algorithm.oid != RSA_ENCRYPTION {
        return Err("only RSA, P-256 and P-384 keys can be imported".into());
    }
    let bits = info.subject_public_key.as_bytes().unwrap_or_default();
    let (n, e) = rsa_members(bits).map_err(|e| format!("not an RSA key: {e}"))?;
    let jwk = [("kty", "RSA".to_owned()), ("n", n), ("e", e), ("alg", "RS256".to_owned())];
    let jwk = jwk.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
    PublicKey::from_jwk(&jwk.collect()).map_err(|e| e.to_string())
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1), base64url.
fn rsa_members(der: &[u8]) -> Result<(String, String), x509_cert::der::Error> {
    let mut reader = SliceReader::new(der)?;
    let members = reader.sequence(|reader| {
        let (n, e) = (UintRef::decode(reader)?, UintRef::decode(reader)?);
        Ok::<_, x509_cert::der::Error>((b64::encode(n.as_bytes()), b64::encode(e.as_bytes())))
    })?;
    reader.finish()?;
    Ok(members)
}

#[cfg(test)]
mod tests {
    use chancery_token::client::ClientKey;

    use super::*;

    fn pem(der: &[u8]) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    fn read(text: &str, kid: Option<&str>) -> Result<Vec<ImportedKeyDocument>, String> {
        let name = format!("chancery-import-{}-{}", std::process::id(), text.len());
        let key_file = std::env::temp_dir().join(name);
        std::fs::write(&key_file, text).unwrap();
        let kid = kid.map(str::to_owned);
        let import = Import { key_file: key_file.clone(), kid, until: 9, in_discovery: true };
        let read = import.read();
        std::fs::remove_file(key_file).unwrap();
        read
    }

    /// The P-256 key of RFC 7515, appendix A.3, as `openssl pkey` writes it.
    const CLUSTER_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n\
        6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn keys_of_each_kind_come_back_as_themselves() {
        let mut all = String::new();
        let mut kids = Vec::new();
        for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384] {
            let key = ClientKey::generate(algorithm).unwrap();
            let public = key.signing_key().public();
            let text = pem(&spki(public).unwrap());
            let imported = read(&text, Some("old")).unwrap();
            assert_eq!((imported[0].kid.as_str(), imported[0].until), ("old", 9));
            assert_eq!(PublicKey::from_jwk(&imported[0].jwk).unwrap(), *public);
            all.push_str(&text);
            kids.push(kid_of(public).unwrap());
        }
        let imported = read(&all, None).unwrap();
        let found: Vec<String> = imported.into_iter().map(|key| key.kid).collect();
        assert_eq!(found, kids);
        assert!(read(&all, Some("one")).unwrap_err().contains("one `kid`"));
    }

    #[test]
    fn the_default_kid_is_the_digest_of_the_der() {
        let imported = read(CLUSTER_KEY, None).unwrap();
        // openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | basenc --base64url
        assert_eq!(imported[0].jwk["x"], "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        assert_eq!(imported[0].kid, "K9G7DESol8MKeqCZHN442AYv5EHeUNoPRoJTRPYC6Cc");
    }

    #[test]
    fn no_key_of_a_file_is_passed_over() {
        for label in
            ["RSA PUBLIC KEY", "CERTIFICATE", "EC PARAMETERS", "EC PRIVATE KEY", "public key"]
        {
            let other = format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
            for text in [format!("{CLUSTER_KEY}{other}"), format!("{other}{CLUSTER_KEY}")] {
                let refused = read(&text, None).unwrap_err();
                assert!(refused.contains(&format!("`{label}`")), "{refused}");
                assert!(refused.contains("openssl "), "{refused}");
            }
        }
        let cut = CLUSTER_KEY.split("-----END").next().unwrap();
        assert!(read(&format!("{CLUSTER_KEY}{cut}"), None).is_err(), "an end is missing");
        // What would have been cut off held a second key.
        let long = format!("{CLUSTER_KEY}{}{CLUSTER_KEY}", "#\n".repeat(40_000));
        assert!(read(&long, None).unwrap_err().contains("65536 bytes"));
        let spaced = format!("# a comment\n\n{}", CLUSTER_KEY.replace('\n', "\r\n"));
        assert_eq!(read(&spaced, None).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_such_key_is_named() {
        assert!(read("", None).unwrap_err().contains("openssl pkey"));
        let private = ClientKey::generate(Algorithm::Es256).unwrap().to_pkcs8_pem();
        assert!(read(&private, None).unwrap_err().contains("openssl pkey"));
        let ed = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let ed = [&ed[..], &[7; 32]].concat();
        assert!(read(&pem(&ed), None).unwrap_err().contains("only RSA"));
        assert!(read(&pem(&[0x30, 3, 1, 2, 3]), None).unwrap_err().contains("not a key"));
        let off_curve = [P256_PREFIX, &[4], &[9; 64]].concat();
        assert!(read(&pem(&off_curve), None).is_err());
        let missing = Import {
            key_file: "/nonexistent/sa.pub".into(),
            kid: None,
            until: 0,
            in_discovery: false,
        };
        assert!(missing.read().unwrap_err().contains("/nonexistent/sa.pub"));
    }
}
