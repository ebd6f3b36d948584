//! The ATTESTATION_REPORT of SEV-SNP (AMD 56860, table "ATTESTATION_REPORT"), versions 2, 3 and 5.

use crate::bytes::Reader;
use crate::error::Error;
use crate::policy::{MinimumTcb, Product};

/// Every version of the report has this length.
pub(crate) const REPORT_BYTES: usize = 1184;
/// What the signature is over: all before it.
const SIGNED_BYTES: usize = 0x2a0;
/// Each half of the signature stands in 72 bytes, little-endian; P-384 fills 48 of them.
const SCALAR_FIELD_BYTES: usize = 72;
const SCALAR_BYTES: usize = 48;
/// `SIGNATURE_ALGO`: ECDSA P-384 with SHA-384, the only one that is defined.
pub(crate) const ECDSA_P384_SHA384: u32 = 1;

/// A report's fields.
#[derive(Clone, Debug)]
pub(crate) struct Report<'a> {
    pub version: u32,
    pub guest_svn: u32,
    pub policy: GuestPolicy,
    pub family_id: [u8; 16],
    pub image_id: [u8; 16],
    pub vmpl: u32,
    pub signature_algorithm: u32,
    pub current_tcb: [u8; 8],
    pub platform_info: u64,
    pub key_info: KeyInfo,
    pub report_data: [u8; 64],
    pub measurement: [u8; 48],
    pub host_data: [u8; 32],
    pub id_key_digest: [u8; 48],
    pub author_key_digest: [u8; 48],
    pub report_id: [u8; 32],
    pub report_id_ma: [u8; 32],
    pub reported_tcb: [u8; 8],
    /// Family and model of the processor; from version 3 on.
    pub cpuid: Option<(u8, u8)>,
    pub chip_id: [u8; 64],
    pub committed_tcb: [u8; 8],
    pub launch_tcb: [u8; 8],
    /// The bytes that are signed.
    pub signed: &'a [u8],
    /// r and s, big-endian, 96 bytes; `None` where a half does not fit P-384.
    pub signature: Option<Vec<u8>>,
}

impl<'a> Report<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let what = "SNP report";
        if bytes.len() != REPORT_BYTES {
            let why = format!("it has {} bytes, expected {REPORT_BYTES}", bytes.len());
            return Err(Error::malformed(what, why));
        }
        let mut r = Reader::new(what, bytes);
        let version = r.u32_le()?;
        if !matches!(version, 2 | 3 | 5) {
            return Err(Error::malformed(what, format!("version `{version}` is not known here")));
        }
        let (guest_svn, policy) = (r.u32_le()?, GuestPolicy(r.u64_le()?));
        let (family_id, image_id) = (r.array()?, r.array()?);
        let (vmpl, signature_algorithm) = (r.u32_le()?, r.u32_le()?);
        let (current_tcb, platform_info) = (r.array()?, r.u64_le()?);
        let key_info = KeyInfo(r.u32_le()?);
        r.take(4)?;
        let (report_data, measurement, host_data) = (r.array()?, r.array()?, r.array()?);
        let (id_key_digest, author_key_digest) = (r.array()?, r.array()?);
        let (report_id, report_id_ma, reported_tcb) = (r.array()?, r.array()?, r.array()?);
        let (family, model, _stepping) = (r.u8()?, r.u8()?, r.u8()?);
        r.take(21)?;
        let (chip_id, committed_tcb) = (r.array()?, r.array()?);
        r.take(8)?;
        let launch_tcb = r.array()?;
        let (signed, signature) = bytes.split_at_checked(SIGNED_BYTES).unwrap_or_default();
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            signature_algorithm,
            current_tcb,
            platform_info,
            key_info,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            cpuid: (version >= 3).then_some((family, model)),
            chip_id,
            committed_tcb,
            launch_tcb,
            signed,
            signature: signature_of(signature)?,
        })
    }

    /// The product that the processor's family and model belong to.
    pub(crate) fn product(&self) -> Option<Product> {
        match self.cpuid? {
            (0x19, 0x00..=0x0f) => Some(Product::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Product::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Product::Turin),
            _ => None,
        }
    }
}

/// r and s as P-384 wants them: 48 bytes each, big-endian.
fn signature_of(field: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut r = Reader::new("SNP signature", field);
    let mut both = Vec::with_capacity(2 * SCALAR_BYTES);
    for _ in 0..2 {
        let (scalar, padding) =
            r.take(SCALAR_FIELD_BYTES)?.split_at_checked(SCALAR_BYTES).unwrap_or_default();
        if padding.iter().any(|byte| *byte != 0) {
            return Ok(None);
        }
        both.extend(scalar.iter().rev());
    }
    // What follows is reserved; a signature cannot vouch for itself, so it must be zero.
    Ok(r.rest().iter().all(|byte| *byte == 0).then_some(both))
}

/// `POLICY`: what the guest's owner lets the host do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestPolicy(pub u64);

impl GuestPolicy {
    fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
    pub(crate) fn smt(self) -> bool {
        self.bit(16)
    }
    pub(crate) fn migration_agent(self) -> bool {
        self.bit(18)
    }
    pub(crate) fn debug(self) -> bool {
        self.bit(19)
    }
    pub(crate) fn single_socket(self) -> bool {
        self.bit(20)
    }
    pub(crate) fn ciphertext_hiding(self) -> bool {
        self.bit(24)
    }
}

/// The flags at 0x48: which key signed, and whether the chip's id is masked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyInfo(u32);

impl KeyInfo {
    pub(crate) fn masks_chip_id(self) -> bool {
        self.0 >> 1 & 1 == 1
    }

    /// 0: VCEK, 1: VLEK, 7: none.
    pub(crate) fn signing_key(self) -> u32 {
        self.0 >> 2 & 0b111
    }
}

/// The parts of a TCB version; where each stands depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tcb {
    pub fmc: u8,
    pub bootloader: u8,
    pub tee: u8,
    pub snp: u8,
    pub microcode: u8,
}

impl Tcb {
    pub(crate) fn of(product: Product, bytes: [u8; 8]) -> Self {
        let [b0, b1, b2, b3, _, _, b6, microcode] = bytes;
        match product {
            Product::Milan | Product::Genoa => {
                Self { fmc: 0, bootloader: b0, tee: b1, snp: b6, microcode }
            }
            Product::Turin => Self { fmc: b0, bootloader: b1, tee: b2, snp: b3, microcode },
        }
    }

    pub(crate) fn reaches(&self, least: &MinimumTcb) -> bool {
        self.fmc >= least.fmc
            && self.bootloader >= least.bootloader
            && self.tee >= least.tee
            && self.snp >= least.snp
            && self.microcode >= least.microcode
    }
}

impl std::fmt::Display for Tcb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { fmc, bootloader, tee, snp, microcode } = self;
        write!(f, "bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}, fmc {fmc}")
    }
}
