//! Reference values: what a release measures as.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bytes::{Hex, hex};
use crate::result::Kind;

/// Bytes of SHA-384: measurements of SNP, TDX and Nitro.
const SHA384_BYTES: usize = 48;
/// Bytes of SHA-256: the PCR bank that is accepted.
const SHA256_BYTES: usize = 32;
/// A TPM and a Nitro enclave have PCRs 0 to 23 and 0 to 31.
const TPM_PCRS: u8 = 24;
const NITRO_PCRS: u8 = 32;

/// One `[[reference]]`: the registers of one release on one kind of hardware. Evidence belongs to
/// the release when every register that is named here has the value that is given here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The release, as people call it.
    release: String,
    /// The kind of evidence.
    kind: Kind,
    /// Values by register, in hexadecimal.
    ///
    /// | kind | registers | needed |
    /// |---|---|---|
    /// | `snp` | `measurement`, `host_data`, `id_key_digest`, `author_key_digest`, `family_id`, `image_id` | `measurement` |
    /// | `tdx` | `mrtd`, `rtmr0` to `rtmr3`, `mrconfigid`, `mrowner`, `mrownerconfig`, `mrseam`, `mrsignerseam` | `mrtd` |
    /// | `azure-snp`, `azure-tdx` | those of `snp` or `tdx`, and `pcr0` to `pcr23` | one PCR |
    /// | `tpm` | `pcr0` to `pcr23` | one |
    /// | `nitro` | `pcr0` to `pcr31` | `pcr0` |
    registers: BTreeMap<String, Hex>,
}

impl Reference {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.release.is_empty() {
            return Err("`release` is empty".to_owned());
        }
        for (name, value) in &self.registers {
            let Some(size) = register_bytes(self.kind, name) else {
                return Err(format!("`{}` evidence has no register `{name}`", self.kind));
            };
            if value.0.len() != size {
                let have = value.0.len();
                return Err(format!("register `{name}` has {have} bytes, expected {size}"));
            }
        }
        let needed = match self.kind {
            Kind::Snp => "measurement",
            Kind::Tdx => "mrtd",
            Kind::Nitro => "pcr0",
            Kind::AzureSnp | Kind::AzureTdx | Kind::Tpm => {
                let any = self.registers.keys().any(|name| name.starts_with("pcr"));
                return any.then_some(()).ok_or_else(|| "no PCR among `registers`".to_owned());
            }
            Kind::Software => return Err("`software` has no measurements".to_owned()),
        };
        if self.registers.contains_key(needed) {
            return Ok(());
        }
        Err(format!("`registers` of `{}` need `{needed}`", self.kind))
    }
}

/// The length of a register; `None` where the kind has no such register.
fn register_bytes(kind: Kind, name: &str) -> Option<usize> {
    let pcr = |count: u8, size| {
        let number = name.strip_prefix("pcr")?;
        let canonical = |n: &u8| *n < count && n.to_string() == number;
        number.parse().ok().filter(canonical).map(|_| size)
    };
    let snp = match name {
        "measurement" | "id_key_digest" | "author_key_digest" => Some(SHA384_BYTES),
        "host_data" => Some(32),
        "family_id" | "image_id" => Some(16),
        _ => None,
    };
    let tdx = matches!(
        name,
        "mrtd"
            | "rtmr0"
            | "rtmr1"
            | "rtmr2"
            | "rtmr3"
            | "mrconfigid"
            | "mrowner"
            | "mrownerconfig"
            | "mrseam"
            | "mrsignerseam"
    )
    .then_some(SHA384_BYTES);
    match kind {
        Kind::Snp => snp,
        Kind::Tdx => tdx,
        Kind::AzureSnp => snp.or_else(|| pcr(TPM_PCRS, SHA256_BYTES)),
        Kind::AzureTdx => tdx.or_else(|| pcr(TPM_PCRS, SHA256_BYTES)),
        Kind::Tpm => pcr(TPM_PCRS, SHA256_BYTES),
        Kind::Nitro => pcr(NITRO_PCRS, SHA384_BYTES),
        Kind::Software => None,
    }
}

/// The first release whose registers are all as seen; otherwise what differs from the one that
/// comes nearest.
pub(super) fn release_of<'a>(
    references: impl Iterator<Item = &'a Reference>,
    kind: Kind,
    seen: &BTreeMap<String, Vec<u8>>,
) -> Result<&'a str, String> {
    let mut nearest: Option<(usize, String)> = None;
    for reference in references.filter(|reference| reference.kind == kind) {
        let differs = |(name, value): &(&String, &Hex)| seen.get(*name) != Some(&value.0);
        let different: Vec<_> = reference.registers.iter().filter(differs).collect();
        let Some((name, value)) = different.first() else { return Ok(&reference.release) };
        if nearest.as_ref().is_none_or(|(count, _)| different.len() < *count) {
            let have = seen.get(*name).map_or("not in the evidence".to_owned(), |v| hex(v));
            let release = &reference.release;
            let value = hex(&value.0);
            let why = format!("`{name}` is `{have}`, release `{release}` has `{value}`");
            nearest = Some((different.len(), why));
        }
    }
    Err(nearest.map_or_else(|| format!("no reference values for `{kind}`"), |(_, why)| why))
}
