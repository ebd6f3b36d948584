//! Attestation results (RFC 9334): the verdict, and every check with the value that it saw.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::hex;
use crate::policy::Policy;

/// A kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An AMD SEV-SNP attestation report.
    Snp,
    /// An Intel TDX quote with its collateral.
    Tdx,
    /// An Azure confidential VM on SEV-SNP: the report of its paravisor, and a quote of its vTPM.
    AzureSnp,
    /// An Azure confidential VM on TDX.
    AzureTdx,
    /// A TPM 2.0 quote by an attestation key that the policy names.
    Tpm,
    /// An AWS Nitro attestation document.
    Nitro,
    /// What a program says about itself: development only.
    Software,
}

impl Kind {
    /// What stands behind evidence of this kind. It follows from the kind, never from a policy.
    #[must_use]
    pub fn backing(self) -> Backing {
        match self {
            Self::Snp | Self::Tdx | Self::AzureSnp | Self::AzureTdx | Self::Nitro => {
                Backing::ConfidentialHardware
            }
            Self::Tpm => Backing::MeasuredBoot,
            Self::Software => Backing::None,
        }
    }

    /// The word for it in documents and policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::AzureSnp => "azure-snp",
            Self::AzureTdx => "azure-tdx",
            Self::Tpm => "tpm",
            Self::Nitro => "nitro",
            Self::Software => "software",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands behind evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// A processor or hypervisor that keeps the host out of the guest's memory signed it.
    ConfidentialHardware,
    /// A TPM signed what was booted; it says nothing about who can read the memory.
    MeasuredBoot,
    /// Nothing: a program's word about itself.
    None,
}

/// One check: what was asked, whether it held, and the value that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable word, e.g. `report_signature`.
    pub name: &'static str,
    /// Whether it held.
    pub passed: bool,
    /// What was seen; where it failed, also what was expected.
    pub value: String,
}

/// The verdict on a piece of evidence under a policy at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttestationResult {
    /// Kind of the evidence.
    pub kind: Kind,
    /// What stands behind that kind.
    pub backing: Backing,
    /// The Unix time, in seconds, at which it was judged.
    pub at: u64,
    /// Whether every check passed.
    pub accepted: bool,
    /// The release whose reference values the measurements equal.
    pub release: Option<String>,
    /// Every check, in the order of judging, none left out after a failure.
    pub checks: Vec<Check>,
    /// What the evidence says, as text; believe it only where `accepted`.
    pub claims: BTreeMap<&'static str, String>,
}

impl AttestationResult {
    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }
}

/// A judgement in the making. A kind's own code adds checks; only [`Appraisal::finish`] makes the
/// result, and it adds the checks that every kind needs, so none of them can be forgotten.
#[derive(Debug)]
pub(crate) struct Appraisal {
    kind: Kind,
    at: u64,
    checks: Vec<Check>,
    claims: BTreeMap<&'static str, String>,
}

/// What each kind's code must hand over for the checks that every kind needs.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The measurements by the names that reference values use.
    pub registers: BTreeMap<String, Vec<u8>>,
    /// The whole field that binds the evidence to what it is for.
    pub report_data: Vec<u8>,
}

impl Appraisal {
    pub(crate) fn new(kind: Kind, at: u64) -> Self {
        Self { kind, at, checks: Vec::new(), claims: BTreeMap::new() }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn check(&mut self, name: &'static str, passed: bool, value: impl ToString) {
        self.checks.push(Check { name, passed, value: value.to_string() });
    }

    /// A check whose failure says why.
    pub(crate) fn outcome(&mut self, name: &'static str, outcome: Result<String, String>) -> bool {
        let passed = outcome.is_ok();
        let (Ok(value) | Err(value)) = outcome;
        self.checks.push(Check { name, passed, value });
        passed
    }

    pub(crate) fn claim(&mut self, name: &'static str, value: impl ToString) {
        self.claims.insert(name, value.to_string());
    }

    #[cfg(test)]
    pub(crate) fn into_checks(self) -> Vec<Check> {
        self.checks
    }

    /// The checks that every kind needs, and the verdict.
    pub(crate) fn finish(
        mut self,
        policy: &Policy,
        observed: &Observed,
        expected: Option<&[u8]>,
    ) -> AttestationResult {
        let accepted_kind = policy.accepts(self.kind);
        self.check("kind", accepted_kind, self.kind);
        self.report_data(policy, &observed.report_data, expected);
        let release = policy.release_of(self.kind, &observed.registers);
        let shown = release.as_ref().map(|release| (*release).to_owned());
        self.outcome("measurements", shown.map_err(Clone::clone));
        AttestationResult {
            kind: self.kind,
            backing: self.kind.backing(),
            at: self.at,
            accepted: self.checks.iter().all(|check| check.passed),
            release: release.ok().map(str::to_owned),
            checks: self.checks,
            claims: self.claims,
        }
    }

    fn report_data(&mut self, policy: &Policy, seen: &[u8], expected: Option<&[u8]>) {
        self.claim("report_data", hex(seen));
        match expected {
            Some(expected) if seen == expected => self.check("report_data", true, hex(seen)),
            Some(expected) => {
                let value = format!("`{}`, expected `{}`", hex(seen), hex(expected));
                self.check("report_data", false, value);
            }
            None if policy.freshness.report_data.is_required() => {
                let value = "none was expected, and the policy requires one: without it the \
                             evidence may be of any time and for anyone";
                self.check("report_data", false, value);
            }
            None => self.check("report_data", true, "not compared, as the policy allows"),
        }
    }
}
