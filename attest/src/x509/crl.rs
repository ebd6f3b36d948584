//! Lists of revoked certificates (RFC 5280, section 5), given as bytes.

use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use super::{Cert, signed_part};
use crate::error::Error;

/// Intel's list of revoked PCKs has some 3 kB today; it may grow a hundredfold.
const MAX_CRL_BYTES: usize = 512 * 1024;

/// A list of revoked certificates, and the bytes that its issuer signed.
#[derive(Clone, Debug)]
pub(crate) struct Crl {
    parsed: CertificateList,
    signed: Vec<u8>,
}

impl Crl {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, Error> {
        let malformed = |e: x509_cert::der::Error| Error::malformed("revocation list", e);
        if der.len() > MAX_CRL_BYTES {
            let (what, bytes, limit) = ("a revocation list", der.len(), MAX_CRL_BYTES);
            return Err(Error::TooLarge { what, bytes, limit });
        }
        let parsed = CertificateList::from_der(der).map_err(malformed)?;
        let signed = signed_part(der).map_err(malformed)?;
        if parsed.signature_algorithm != parsed.tbs_cert_list.signature {
            return Err(Error::malformed("revocation list", "it names two signature algorithms"));
        }
        Ok(Self { parsed, signed })
    }

    fn is_signed_by(&self, issuer: &Cert) -> bool {
        let Some(signature) = self.parsed.signature.as_bytes() else { return false };
        issuer.key().verifies(self.parsed.signature_algorithm.oid, &self.signed, signature)
    }

    /// Whether it is in force and complete: a critical extension narrows what a list speaks of.
    fn is_usable(&self, at: u64) -> Result<(), String> {
        let list = &self.parsed.tbs_cert_list;
        let begin = list.this_update.to_unix_duration().as_secs();
        if at < begin {
            return Err(format!("the list was issued at {begin}, judged at {at}"));
        }
        let end = list.next_update.map(|time| time.to_unix_duration().as_secs());
        if end.is_none_or(|end| at > end) {
            let end = end.map_or("never said".to_owned(), |end| end.to_string());
            return Err(format!("the list's next issue was due at {end}, judged at {at}"));
        }
        if list.crl_extensions.iter().flatten().any(|extension| extension.critical) {
            return Err("the list has a critical extension, which is not known".to_owned());
        }
        Ok(())
    }

    fn revokes(&self, cert: &Cert) -> bool {
        let revoked = self.parsed.tbs_cert_list.revoked_certificates.iter().flatten();
        revoked.into_iter().any(|entry| entry.serial_number.as_bytes() == cert.serial())
    }
}

/// Looks each certificate of the chain up in its issuer's list. From link `listed` on there must be
/// such a list.
pub(super) fn check(
    chain: &[&Cert],
    crls: &[Crl],
    listed: usize,
    at: u64,
) -> Result<String, String> {
    let mut looked_up = Vec::new();
    for (link, pair) in chain.windows(2).enumerate() {
        let [subject, issuer] = pair else { continue };
        let (name, by) = (subject.common_name(), issuer.common_name());
        let of_issuer = |crl: &&Crl| crl.parsed.tbs_cert_list.issuer == *issuer.subject();
        let mut found = false;
        for crl in crls.iter().filter(of_issuer) {
            if !crl.is_signed_by(issuer) {
                return Err(format!("the signature of `{by}` on its list is wrong"));
            }
            crl.is_usable(at).map_err(|why| format!("list of `{by}`: {why}"))?;
            if crl.revokes(subject) {
                return Err(format!("`{name}` is revoked by `{by}`"));
            }
            found = true;
        }
        if found {
            looked_up.push(name);
        } else if link >= listed {
            return Err(format!("no list of `{by}` came with the evidence, which `{name}` needs"));
        }
    }
    if looked_up.is_empty() {
        return Ok("no list came with the evidence, as the policy allows".to_owned());
    }
    Ok(format!("not revoked: {}", looked_up.join(", ")))
}
