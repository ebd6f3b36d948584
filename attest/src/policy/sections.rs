//! The tables of a policy, one for each kind of hardware.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::bytes::Hex;

/// Whether something must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Evidence without it is refused.
    #[default]
    Required,
    /// It is judged where it is there.
    IfPresent,
}

impl Need {
    pub(crate) fn is_required(self) -> bool {
        self == Self::Required
    }
}

/// `[freshness]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Freshness {
    /// Whether the verifier must say which report data it expects. The nonce is in there.
    pub report_data: Need,
    /// Whether lists of revoked certificates must come with SNP evidence (TDX collateral always has
    /// them, Nitro has none: its certificates live for hours).
    pub revocation: Need,
    /// The largest age, in seconds, of evidence that carries its own time (Nitro documents).
    pub max_age_s: u64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { report_data: Need::Required, revocation: Need::Required, max_age_s: 300 }
    }
}

/// A generation of AMD's processors, each with a root of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// AMD's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }
}

/// Which key may sign an SNP report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningKey {
    /// Versioned chip endorsement key: derived from one chip's fuses.
    Vcek,
    /// Versioned loaded endorsement key: AMD gives it to a cloud, it names no chip.
    Vlek,
}

/// The least security versions of SNP firmware that are accepted, for one product.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimumTcb {
    /// Boot loader of the secure processor.
    pub bootloader: u8,
    /// Its operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
    /// FMC; Turin only.
    #[serde(default)]
    pub fmc: u8,
}

/// `[snp]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpPolicy {
    /// `[snp.minimum_tcb.milan]` and so on. A product without such a table is refused.
    pub minimum_tcb: BTreeMap<Product, MinimumTcb>,
    /// Keys that may sign.
    pub signing_keys: BTreeSet<SigningKey>,
    /// Privilege levels that may ask for the report; 0 is the most privileged.
    pub vmpl: BTreeSet<u32>,
    /// The host may read a guest in debug mode.
    pub allow_debug: bool,
    /// A migration agent may move the guest, with its memory.
    pub allow_migration: bool,
    /// Threads of one core may be shared out to others while the guest runs.
    pub allow_smt: bool,
    /// A report that hides which chip made it cannot be matched to the chip's certificate.
    pub allow_masked_chip_id: bool,
    /// Demand that the guest runs on one socket only.
    pub require_single_socket: bool,
    /// Demand that the host sees no ciphertext of the guest's memory.
    pub require_ciphertext_hiding: bool,
}

impl Default for SnpPolicy {
    fn default() -> Self {
        Self {
            minimum_tcb: BTreeMap::new(),
            signing_keys: BTreeSet::from([SigningKey::Vcek]),
            vmpl: BTreeSet::from([0]),
            allow_debug: false,
            allow_migration: false,
            allow_smt: true,
            allow_masked_chip_id: false,
            require_single_socket: false,
            require_ciphertext_hiding: false,
        }
    }
}

/// How a platform stands, in Intel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum TcbStatus {
    /// Nothing is open.
    UpToDate,
    /// Software in the guest must mitigate something.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform must be configured otherwise.
    ConfigurationNeeded,
    /// Both.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Firmware with known faults.
    OutOfDate,
    /// The same, and the configuration.
    OutOfDateConfigurationNeeded,
    /// Keys of this level are known to others.
    Revoked,
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
        })
    }
}

/// `[tdx]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxPolicy {
    /// The TCB statuses that are accepted, in Intel's spelling (`UpToDate`, `SWHardeningNeeded`, ...).
    /// `Revoked` is never accepted.
    pub tcb_statuses: BTreeSet<TcbStatus>,
    /// Security advisories (`INTEL-SA-...`) that may be open on the platform.
    pub allowed_advisories: BTreeSet<String>,
    /// The least `tcbEvaluationDataNumber` of the collateral: Intel's counter of TCB recoveries.
    pub minimum_tcb_evaluation_number: u32,
    /// The host may read a guest in debug mode.
    pub allow_debug: bool,
    /// A migration guest may move the guest, with its memory.
    pub allow_migration: bool,
    /// Demand that a page taken away by the host is no silent exception in the guest.
    pub require_sept_ve_disable: bool,
}

impl Default for TdxPolicy {
    fn default() -> Self {
        Self {
            tcb_statuses: BTreeSet::from([TcbStatus::UpToDate]),
            allowed_advisories: BTreeSet::new(),
            minimum_tcb_evaluation_number: 0,
            allow_debug: false,
            allow_migration: false,
            require_sept_ve_disable: true,
        }
    }
}

/// `[tpm]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TpmPolicy {
    /// The PCRs of the SHA-256 bank that a quote must select: exactly these.
    pub selection: Option<Spanned<BTreeSet<u8>>>,
    /// For `tpm` evidence: SHA-256 of the subjectPublicKeyInfo (DER) of each attestation key that is
    /// trusted. Azure's key is proved by the hardware report instead.
    pub attestation_keys: BTreeSet<Hex>,
}

impl TpmPolicy {
    pub(crate) fn check(&self) -> Result<(), (Range<usize>, String)> {
        let Some(selection) = &self.selection else { return Ok(()) };
        let numbers = selection.get_ref();
        if numbers.is_empty() || numbers.iter().any(|n| *n > 23) {
            return Err((selection.span(), "`selection` needs PCR numbers, 0 to 23".to_owned()));
        }
        Ok(())
    }
}

/// Where Azure's evidence carries the report data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportDataField {
    /// The qualifying data (nonce) of the vTPM's quote: at most 50 bytes there.
    #[default]
    Quote,
    /// `user-data` of the runtime claims in the HCL report: 64 bytes.
    UserData,
}

/// `[azure]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzurePolicy {
    /// The field that is compared with the report data.
    pub report_data: ReportDataField,
    /// Demand Secure Boot.
    pub require_secure_boot: bool,
}

impl Default for AzurePolicy {
    fn default() -> Self {
        Self { report_data: ReportDataField::Quote, require_secure_boot: true }
    }
}

/// `[nitro]`
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NitroPolicy {
    /// Enclaves in debug mode have all-zero PCRs, and a console that the host reads.
    pub allow_debug: bool,
}
