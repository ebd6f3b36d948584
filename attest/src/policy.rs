//! The appraisal policy and its reference values: one TOML file, read strictly.
//!
//! The structs here are its reference: every table and key is a field. What a policy does not say
//! is decided the careful way; there is no way to accept hardware evidence with any measurement.

mod references;
mod sections;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::error::Error;
use crate::result::Kind;
pub use references::Reference;
pub use sections::{
    AzurePolicy, Freshness, MinimumTcb, Need, NitroPolicy, Product, ReportDataField, SigningKey,
    SnpPolicy, TcbStatus, TdxPolicy, TpmPolicy,
};

/// No policy of a deployment comes near this many bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// Which evidence is accepted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of this format: 1.
    version: Spanned<u32>,
    /// The kinds of evidence that are accepted. `software` stands alone or not at all.
    kinds: Spanned<BTreeSet<Kind>>,
    /// How fresh evidence must be.
    #[serde(default)]
    pub freshness: Freshness,
    /// SEV-SNP reports, alone or inside Azure's evidence.
    #[serde(default)]
    pub snp: SnpPolicy,
    /// TDX quotes, alone or inside Azure's evidence.
    #[serde(default)]
    pub tdx: TdxPolicy,
    /// TPM quotes, alone or inside Azure's evidence.
    #[serde(default)]
    pub tpm: TpmPolicy,
    /// What Azure's evidence has beyond its report and its quote.
    #[serde(default)]
    pub azure: AzurePolicy,
    /// Nitro attestation documents.
    #[serde(default)]
    pub nitro: NitroPolicy,
    /// The reference values: accepted measurements, each with its release.
    #[serde(default, rename = "reference")]
    references: Vec<Spanned<Reference>>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`Error::Policy`] with the line, for anything that is not understood in full.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_POLICY_BYTES {
            let (what, bytes) = ("the policy", text.len());
            return Err(Error::TooLarge { what, bytes, limit: MAX_POLICY_BYTES });
        }
        let policy: Self = toml::from_str(text).map_err(|e| {
            fault(text, e.span().unwrap_or_default(), e.message().replace('\n', ", "))
        })?;
        policy.check().map_err(|(span, why)| fault(text, span, why))?;
        Ok(policy)
    }

    /// Whether evidence of this kind is accepted at all.
    #[must_use]
    pub fn accepts(&self, kind: Kind) -> bool {
        self.kinds.get_ref().contains(&kind)
    }

    /// The release whose reference values these registers have, or what is wrong with them.
    pub(crate) fn release_of(
        &self,
        kind: Kind,
        registers: &BTreeMap<String, Vec<u8>>,
    ) -> Result<&str, String> {
        if kind == Kind::Software {
            return Ok("software has no measurements");
        }
        references::release_of(self.references.iter().map(Spanned::get_ref), kind, registers)
    }

    fn check(&self) -> Result<(), (Range<usize>, String)> {
        if *self.version.get_ref() != 1 {
            return Err((self.version.span(), "`version` must be 1".to_owned()));
        }
        let kinds = self.kinds.get_ref();
        let bad_kinds = |why: &str| Err((self.kinds.span(), why.to_owned()));
        if kinds.is_empty() {
            return bad_kinds("`kinds` is empty: name the kinds of evidence that are accepted");
        }
        if kinds.contains(&Kind::Software) && kinds.len() > 1 {
            return bad_kinds("`software` proves nothing and stands alone: take it, or hardware");
        }
        for kind in kinds {
            if let Some(why) = self.lacks(*kind) {
                return bad_kinds(&format!("`{kind}` is accepted, but {why}"));
            }
        }
        for reference in &self.references {
            let span = reference.span();
            reference.get_ref().check().map_err(|why| (span.clone(), why))?;
            if !self.accepts(reference.get_ref().kind()) {
                let why = format!("`kinds` does not have `{}`", reference.get_ref().kind());
                return Err((span, why));
            }
        }
        self.tpm.check()
    }

    /// What the policy must say for this kind and does not.
    fn lacks(&self, kind: Kind) -> Option<&'static str> {
        let of_kind = |r: &Spanned<Reference>| r.get_ref().kind() == kind;
        if kind != Kind::Software && !self.references.iter().any(of_kind) {
            return Some("there is no `[[reference]]` for it");
        }
        let snp = matches!(kind, Kind::Snp | Kind::AzureSnp);
        if snp && self.snp.minimum_tcb.is_empty() {
            return Some("there is no `[snp.minimum_tcb.PRODUCT]` for any product");
        }
        let tpm = matches!(kind, Kind::Tpm | Kind::AzureSnp | Kind::AzureTdx);
        if tpm && self.tpm.selection.is_none() {
            return Some("`[tpm]` has no `selection` of PCRs");
        }
        if kind == Kind::Tpm && self.tpm.attestation_keys.is_empty() {
            return Some("`[tpm]` has no `attestation_keys`");
        }
        None
    }
}

fn fault(text: &str, span: Range<usize>, why: String) -> Error {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
    Error::Policy { line, why }
}

#[cfg(test)]
mod tests;
