//! X.509 certificates and the walk from a leaf to a pinned root, at a given time.
//!
//! The chains of hardware vendors are short and known: leaf, one to three authorities, root. So
//! there is no path building; each link is checked, and the root is compared whole.

mod crl;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Header, Reader as _, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::error::Error;
use crate::result::Appraisal;
pub(crate) use crl::Crl;

/// No vendor's certificate comes near this; VCEKs have 1.4 kB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// A vendor's chain has at most five certificates (AWS), and evidence may carry some twice.
pub(crate) const MAX_CERTIFICATES: usize = 16;

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ID_RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// A certificate, and the bytes that its issuer signed.
#[derive(Clone, Debug)]
pub(crate) struct Cert {
    parsed: Certificate,
    der: Vec<u8>,
    signed: Vec<u8>,
}

impl Cert {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, Error> {
        let malformed = |e: x509_cert::der::Error| Error::malformed("certificate", e);
        if der.len() > MAX_CERTIFICATE_BYTES {
            let (what, bytes, limit) = ("a certificate", der.len(), MAX_CERTIFICATE_BYTES);
            return Err(Error::TooLarge { what, bytes, limit });
        }
        let parsed = Certificate::from_der(der).map_err(malformed)?;
        let signed = signed_part(der).map_err(malformed)?;
        if parsed.signature_algorithm() != parsed.tbs_certificate().signature() {
            return Err(Error::malformed("certificate", "it names two signature algorithms"));
        }
        Ok(Self { parsed, der: der.to_vec(), signed })
    }

    /// The certificates of a PEM text, in its order.
    pub(crate) fn parse_pem(text: &[u8]) -> Result<Vec<Self>, Error> {
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(text).take(MAX_CERTIFICATES) {
            let der = der.map_err(|e| Error::malformed("PEM text", e))?;
            certificates.push(Self::parse(&der)?);
        }
        Ok(certificates)
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// The common name of the subject, for people and for AMD's naming of keys.
    pub(crate) fn common_name(&self) -> String {
        common_name(self.subject())
    }

    pub(crate) fn key(&self) -> PublicKey<'_> {
        PublicKey(self.parsed.tbs_certificate().subject_public_key_info())
    }

    /// The content of an extension.
    pub(crate) fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let mut extensions = self.parsed.tbs_certificate().extensions()?.iter();
        extensions.find(|e| e.extn_id == id).map(|e| e.extn_value.as_bytes())
    }

    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        let Some(signature) = self.parsed.signature().as_bytes() else { return false };
        let algorithm = self.parsed.signature_algorithm().oid;
        issuer.key().verifies(algorithm, &self.signed, signature)
    }

    /// Seconds at which validity begins and ends, both inside it.
    fn validity(&self) -> (u64, u64) {
        let validity = self.parsed.tbs_certificate().validity();
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        (seconds(validity.not_before), seconds(validity.not_after))
    }

    fn constraints(&self) -> Option<BasicConstraints> {
        BasicConstraints::from_der(self.extension(BASIC_CONSTRAINTS)?).ok()
    }

    fn is_authority(&self) -> bool {
        self.constraints().is_some_and(|constraints| constraints.ca)
    }

    /// Whether it may issue certificates with `below` authorities between it and the leaf.
    fn may_issue(&self, below: usize) -> Result<(), String> {
        let name = self.common_name();
        let Some(constraints) = self.constraints().filter(|c| c.ca) else {
            return Err(format!("`{name}` is no certificate authority"));
        };
        if constraints.path_len_constraint.is_some_and(|limit| below > usize::from(limit)) {
            return Err(format!("`{name}` may not have {below} authorities below it"));
        }
        let usage = self.extension(KEY_USAGE).map(KeyUsage::from_der);
        if !usage.is_none_or(|usage| usage.is_ok_and(|usage| usage.key_cert_sign())) {
            return Err(format!("`{name}` may not sign certificates"));
        }
        Ok(())
    }

    fn unknown_critical(&self) -> Option<ObjectIdentifier> {
        let known = [BASIC_CONSTRAINTS, KEY_USAGE];
        let mut extensions = self.parsed.tbs_certificate().extensions()?.iter();
        extensions.find(|e| e.critical && !known.contains(&e.extn_id)).map(|e| e.extn_id)
    }
}

/// The first element of the outer sequence, with its header: what the signature is over.
fn signed_part(der: &[u8]) -> Result<Vec<u8>, x509_cert::der::Error> {
    let mut reader = SliceReader::new(der)?;
    Header::decode(&mut reader)?;
    Ok(reader.tlv_bytes()?.to_vec())
}

/// The common name, or the whole name where there is none.
fn common_name(name: &Name) -> String {
    let common = name.common_name().ok().flatten();
    common.map_or_else(|| name.to_string(), |common| common.value().into_owned())
}

/// The public key of a certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicKey<'a>(&'a SubjectPublicKeyInfoOwned);

impl PublicKey<'_> {
    fn curve(&self) -> Option<ObjectIdentifier> {
        let algorithm = &self.0.algorithm;
        if algorithm.oid != ID_EC_PUBLIC_KEY {
            return None;
        }
        algorithm.parameters.as_ref()?.decode_as().ok()
    }

    /// The uncompressed point of a key on P-256.
    pub(crate) fn p256(&self) -> Option<&[u8]> {
        (self.curve()? == P256).then(|| self.0.subject_public_key.as_bytes())?
    }

    /// The uncompressed point of a key on P-384.
    pub(crate) fn p384(&self) -> Option<&[u8]> {
        (self.curve()? == P384).then(|| self.0.subject_public_key.as_bytes())?
    }

    fn rsa(&self) -> Option<&[u8]> {
        (self.0.algorithm.oid == ID_RSA_ENCRYPTION).then(|| self.0.subject_public_key.as_bytes())?
    }

    /// The three pairs of key and algorithm that AMD, Intel and AWS use; nothing else verifies. The
    /// parameters of RSASSA-PSS are not read: only SHA-384 with MGF1 of the same and a salt of 48
    /// bytes can verify.
    fn verifies(&self, algorithm: ObjectIdentifier, message: &[u8], signature: &[u8]) -> bool {
        let (key, algorithm): (_, &'static dyn VerificationAlgorithm) = match algorithm {
            RSASSA_PSS => (self.rsa(), &RSA_PSS_2048_8192_SHA384),
            ECDSA_SHA256 => (self.p256(), &ECDSA_P256_SHA256_ASN1),
            ECDSA_SHA384 => (self.p384(), &ECDSA_P384_SHA384_ASN1),
            _ => return false,
        };
        key.is_some_and(|key| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        })
    }
}

/// The SHA-256 and the DER of a subjectPublicKeyInfo, for keys that a policy names.
pub(crate) fn parse_spki(der: &[u8]) -> Result<SubjectPublicKeyInfoOwned, Error> {
    SubjectPublicKeyInfoOwned::from_der(der).map_err(|e| Error::malformed("public key", e))
}

/// What a public key of a TPM is.
pub(crate) enum TpmKey {
    /// RSAPublicKey, DER.
    Rsa(Vec<u8>),
    /// Uncompressed point on P-256.
    P256(Vec<u8>),
}

/// The key of a subjectPublicKeyInfo, of a type that TPMs have.
pub(crate) fn tpm_key(spki: &SubjectPublicKeyInfoOwned) -> Option<TpmKey> {
    let key = PublicKey(spki);
    let rsa = key.rsa().map(|key| TpmKey::Rsa(key.to_vec()));
    rsa.or_else(|| key.p256().map(|key| TpmKey::P256(key.to_vec())))
}

/// How the checks of one chain are called.
pub(crate) struct ChainNames {
    pub links: &'static str,
    pub validity: &'static str,
    pub revocation: &'static str,
}

/// Checks the chain, leaf first, the pinned root last: links, validity at `at`, revocation.
/// `listed` says from which link on (0 is the leaf's) a list of revoked certificates is needed;
/// `None` where the vendor has none.
pub(crate) fn check_chain(
    appraisal: &mut Appraisal,
    names: &ChainNames,
    chain: &[&Cert],
    crls: &[Crl],
    listed: Option<usize>,
) {
    let at = appraisal.at();
    appraisal.outcome(names.links, links(chain));
    appraisal.outcome(names.validity, validity(chain, at));
    if let Some(listed) = listed {
        appraisal.outcome(names.revocation, crl::check(chain, crls, listed, at));
    }
}

fn links(chain: &[&Cert]) -> Result<String, String> {
    if let Some(leaf) = chain.first().filter(|leaf| leaf.is_authority()) {
        return Err(format!("`{}` is an authority, expected a leaf", leaf.common_name()));
    }
    for (below, pair) in chain.windows(2).enumerate() {
        let [subject, issuer] = pair else { continue };
        let (name, by) = (subject.common_name(), issuer.common_name());
        if subject.issuer() != issuer.subject() {
            return Err(format!("`{name}` was not issued by `{by}`"));
        }
        issuer.may_issue(below)?;
        if !subject.is_signed_by(issuer) {
            return Err(format!("the signature of `{by}` on `{name}` is wrong"));
        }
    }
    if let Some((name, id)) =
        chain.iter().find_map(|cert| Some((cert.common_name(), cert.unknown_critical()?)))
    {
        return Err(format!("`{name}` has the critical extension `{id}`, which is not known"));
    }
    let names: Vec<String> = chain.iter().map(|cert| cert.common_name()).collect();
    Ok(names.join(" < "))
}

fn validity(chain: &[&Cert], at: u64) -> Result<String, String> {
    let mut ends = u64::MAX;
    for cert in chain {
        let (begin, end) = cert.validity();
        let name = cert.common_name();
        if at < begin {
            return Err(format!("`{name}` is valid from {begin} on, judged at {at}"));
        }
        if at > end {
            return Err(format!("`{name}` expired at {end}, judged at {at}"));
        }
        ends = ends.min(end);
    }
    Ok(format!("until {ends}"))
}

/// A certificate that is compiled in.
pub(crate) fn pinned(pem: &str) -> Result<Cert, Error> {
    let certificates = Cert::parse_pem(pem.as_bytes())?;
    certificates.into_iter().next().ok_or_else(|| Error::malformed("PEM text", "no certificate"))
}

#[cfg(test)]
mod tests;
