//! Evidence as it is stored and sent: one JSON document, or the vendor's own bytes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::bytes::{Base64, Hex};
use crate::error::Error;
use crate::policy::Policy;
use crate::result::{Appraisal, Kind, Observed};
use crate::{azure, nitro, snp, software, tdx, tpm};

/// The largest evidence that is read: TDX with collateral has 40 kB, and a list of revoked
/// certificates may be long.
pub const MAX_EVIDENCE_BYTES: usize = 1024 * 1024;

/// Evidence of one kind with its endorsements, not yet judged. As JSON it is one object with the
/// member `kind`; bytes are base64 with padding, PCR values hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Evidence {
    /// An SEV-SNP report (1,184 bytes).
    Snp {
        /// The report.
        report: Base64,
        /// Certificates, DER: the VCEK or VLEK, and any ASK or ASVK that is not built in.
        #[serde(default)]
        certificates: Vec<Base64>,
        /// AMD's lists of revoked certificates, DER.
        #[serde(default)]
        crls: Vec<Base64>,
    },
    /// A TDX quote, version 4 or 5.
    Tdx {
        /// The quote.
        quote: Base64,
        /// What Intel says about the platform.
        #[serde(default)]
        collateral: Option<Collateral>,
    },
    /// An Azure confidential VM on SEV-SNP.
    AzureSnp {
        /// The HCL report (NV index 0x01400001).
        hcl_report: Base64,
        /// The quote of the vTPM.
        tpm_quote: TpmQuote,
        /// As in `snp`.
        #[serde(default)]
        certificates: Vec<Base64>,
        /// As in `snp`.
        #[serde(default)]
        crls: Vec<Base64>,
    },
    /// An Azure confidential VM on TDX.
    AzureTdx {
        /// The HCL report.
        hcl_report: Base64,
        /// The quote of the vTPM.
        tpm_quote: TpmQuote,
        /// The TDX quote over the HCL report.
        td_quote: Base64,
        /// As in `tdx`.
        #[serde(default)]
        collateral: Option<Collateral>,
    },
    /// A TPM 2.0 quote.
    Tpm {
        /// The quote; its signature is a TPMT_SIGNATURE.
        tpm_quote: TpmQuote,
        /// The attestation key: subjectPublicKeyInfo, DER.
        attestation_key: Base64,
    },
    /// A Nitro attestation document.
    Nitro {
        /// The COSE_Sign1.
        document: Base64,
    },
    /// What a program says about itself.
    Software {
        /// Which program.
        software: String,
        /// What the evidence is bound to.
        report_data: Hex,
    },
}

/// A TPM's quote and the PCRs that it speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmQuote {
    /// TPMS_ATTEST.
    pub message: Base64,
    /// For Azure the bytes of RSASSA with SHA-256, for `tpm` a TPMT_SIGNATURE.
    pub signature: Base64,
    /// Values of the SHA-256 bank by PCR number. Only those that the quote selects count.
    #[serde(deserialize_with = "pcrs")]
    pub pcrs: BTreeMap<u8, Hex>,
}

/// PCR values by number, each once. A document's names are text, whatever the map's keys are.
fn pcrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u8, Hex>, D::Error> {
    struct Pcrs;
    impl<'de> de::Visitor<'de> for Pcrs {
        type Value = BTreeMap<u8, Hex>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of PCR values by number")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pcrs = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, Hex>()? {
                let number = name.parse().ok().filter(|number: &u8| number.to_string() == name);
                let fresh = number.is_some_and(|number| pcrs.insert(number, value).is_none());
                if !fresh {
                    let why = format!("`{name}` is no PCR number, or is there twice");
                    return Err(de::Error::custom(why));
                }
            }
            Ok(pcrs)
        }
    }
    deserializer.deserialize_map(Pcrs)
}

/// Intel's statements about a platform, in the form that Intel's provisioning service and caches of it
/// are commonly stored in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collateral {
    /// PEM: the authority of the PCK, and the root.
    pub pck_crl_issuer_chain: String,
    /// The root's list of revoked certificates, DER in hexadecimal.
    pub root_ca_crl: Hex,
    /// The PCK authority's list of revoked certificates, DER in hexadecimal.
    pub pck_crl: Hex,
    /// PEM: the signer of the TCB info, and the root.
    pub tcb_info_issuer_chain: String,
    /// The TCB info: JSON text exactly as it was signed.
    pub tcb_info: String,
    /// ECDSA P-256, r and s, hexadecimal.
    pub tcb_info_signature: Hex,
    /// PEM: the signer of the QE identity, and the root.
    pub qe_identity_issuer_chain: String,
    /// The identity of the quoting enclave: JSON text exactly as it was signed.
    pub qe_identity: String,
    /// ECDSA P-256, r and s, hexadecimal.
    pub qe_identity_signature: Hex,
}

impl Evidence {
    /// Reads a JSON document of evidence, or a vendor's own bytes (SNP report, TDX quote, Nitro
    /// document), which are told apart by their first bytes and length.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::UnknownKind`], [`Error::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_EVIDENCE_BYTES {
            let (what, limit) = ("the evidence", MAX_EVIDENCE_BYTES);
            return Err(Error::TooLarge { what, bytes: bytes.len(), limit });
        }
        if bytes.trim_ascii_start().first() == Some(&b'{') {
            return serde_json::from_slice(bytes)
                .map_err(|e| Error::malformed("evidence document", e));
        }
        let raw = || Base64(bytes.to_vec());
        if snp::is_report(bytes) {
            return Ok(Self::Snp { report: raw(), certificates: vec![], crls: vec![] });
        }
        if tdx::is_quote(bytes) {
            return Ok(Self::Tdx { quote: raw(), collateral: None });
        }
        if nitro::is_document(bytes) {
            return Ok(Self::Nitro { document: raw() });
        }
        Err(Error::UnknownKind)
    }

    /// The JSON document.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // Strings, numbers and lists of them: there is nothing that could fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Which kind it says it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Snp { .. } => Kind::Snp,
            Self::Tdx { .. } => Kind::Tdx,
            Self::AzureSnp { .. } => Kind::AzureSnp,
            Self::AzureTdx { .. } => Kind::AzureTdx,
            Self::Tpm { .. } => Kind::Tpm,
            Self::Nitro { .. } => Kind::Nitro,
            Self::Software { .. } => Kind::Software,
        }
    }

    /// Adds certificates to evidence of a kind that has any; false where it has none.
    pub fn add_certificates(&mut self, pem_or_der: &[u8]) -> Result<bool, Error> {
        let (Self::Snp { certificates, .. } | Self::AzureSnp { certificates, .. }) = self else {
            return Ok(false);
        };
        let parsed = if pem_or_der.trim_ascii_start().starts_with(b"-----BEGIN") {
            crate::x509::Cert::parse_pem(pem_or_der)?
        } else {
            vec![crate::x509::Cert::parse(pem_or_der)?]
        };
        certificates.extend(parsed.iter().map(|cert| Base64(cert.der().to_vec())));
        Ok(true)
    }

    /// Adds a list of revoked certificates (DER) to evidence of a kind that has any.
    pub fn add_crl(&mut self, der: &[u8]) -> bool {
        let (Self::Snp { crls, .. } | Self::AzureSnp { crls, .. }) = self else { return false };
        crls.push(Base64(der.to_vec()));
        true
    }

    /// Sets the collateral (JSON) of evidence of a kind that has any.
    pub fn set_collateral(&mut self, json: &[u8]) -> Result<bool, Error> {
        if !matches!(self, Self::Tdx { .. } | Self::AzureTdx { .. }) {
            return Ok(false);
        }
        let parsed = serde_json::from_slice(json);
        Ok(self.take_collateral(parsed.map_err(|e| Error::malformed("collateral", e))?))
    }

    pub(crate) fn take_collateral(&mut self, taken: Collateral) -> bool {
        let (Self::Tdx { collateral, .. } | Self::AzureTdx { collateral, .. }) = self else {
            return false;
        };
        *collateral = Some(taken);
        true
    }

    /// What the evidence says, by name, with nothing verified.
    ///
    /// # Errors
    /// [`Error::Malformed`] where a structure does not have its layout.
    pub fn show(&self) -> Result<Vec<(String, String)>, Error> {
        match self {
            Self::Snp { report, certificates, .. } => snp::show(&report.0, certificates),
            Self::Tdx { quote, .. } => tdx::show(&quote.0),
            Self::AzureSnp { hcl_report, tpm_quote, certificates, .. } => {
                azure::show(&hcl_report.0, tpm_quote, None, certificates)
            }
            Self::AzureTdx { hcl_report, tpm_quote, td_quote, .. } => {
                azure::show(&hcl_report.0, tpm_quote, Some(&td_quote.0), &[])
            }
            Self::Tpm { tpm_quote, .. } => tpm::show(tpm_quote),
            Self::Nitro { document } => nitro::show(&document.0),
            Self::Software { software, report_data } => Ok(software::show(software, report_data)),
        }
    }

    pub(crate) fn judge(
        &self,
        appraisal: &mut Appraisal,
        policy: &Policy,
    ) -> Result<Observed, Error> {
        match self {
            Self::Snp { report, certificates, crls } => {
                snp::judge(appraisal, policy, &snp::Input { report: &report.0, certificates, crls })
            }
            Self::Tdx { quote, collateral } => {
                tdx::judge(appraisal, policy, &quote.0, collateral.as_ref())
            }
            Self::AzureSnp { hcl_report, tpm_quote, certificates, crls } => {
                azure::judge_snp(appraisal, policy, &hcl_report.0, tpm_quote, certificates, crls)
            }
            Self::AzureTdx { hcl_report, tpm_quote, td_quote, collateral } => {
                let td = (&*td_quote.0, collateral.as_ref());
                azure::judge_tdx(appraisal, policy, &hcl_report.0, tpm_quote, td)
            }
            Self::Tpm { tpm_quote, attestation_key } => {
                tpm::judge(appraisal, policy, tpm_quote, &attestation_key.0)
            }
            Self::Nitro { document } => nitro::judge(appraisal, policy, &document.0),
            Self::Software { software, report_data } => {
                Ok(software::judge(appraisal, software, report_data))
            }
        }
    }
}
