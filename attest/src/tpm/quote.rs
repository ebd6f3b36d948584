//! TPMS_ATTEST of a quote, and TPMT_SIGNATURE (TPM 2.0 Library, part 2, sections 10.12 and 11.3).

use std::collections::BTreeSet;

use crate::bytes::Reader;
use crate::error::Error;

const WHAT: &str = "TPM quote";
/// TPM_GENERATED_VALUE: a TPM signs nothing of other origin that begins so.
const MAGIC: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
const QUOTE: u16 = 0x8018;
/// TPM_ALG_SHA256.
pub(crate) const SHA256: u16 = 0x000b;
const RSASSA: u16 = 0x0014;
const ECDSA: u16 = 0x0018;
/// A TPM has a handful of banks.
const MAX_BANKS: u32 = 8;

/// A quote.
#[derive(Clone, Debug)]
pub(crate) struct Quote {
    /// The name of the key that signed, under its parents.
    pub qualified_signer: Vec<u8>,
    /// What the caller gave in: a nonce.
    pub extra_data: Vec<u8>,
    pub clock_ms: u64,
    pub reset_count: u32,
    pub restart_count: u32,
    pub firmware: u64,
    /// The PCRs by bank.
    pub selections: Vec<(u16, BTreeSet<u8>)>,
    pub pcr_digest: Vec<u8>,
}

impl Quote {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(WHAT, message);
        if r.u32_be()? != MAGIC {
            return Err(Error::malformed(WHAT, "it does not begin with TPM_GENERATED_VALUE"));
        }
        let kind = r.u16_be()?;
        if kind != QUOTE {
            return Err(Error::malformed(WHAT, format!("type {kind:#x} is not that of a quote")));
        }
        let qualified_signer = r.sized_u16_be()?.to_vec();
        let extra_data = r.sized_u16_be()?.to_vec();
        let (clock_ms, reset_count, restart_count) = (r.u64_be()?, r.u32_be()?, r.u32_be()?);
        let _safe = r.u8()?;
        let firmware = r.u64_be()?;
        let banks = r.u32_be()?;
        if banks > MAX_BANKS {
            return Err(Error::malformed(WHAT, format!("it selects from {banks} banks")));
        }
        let mut selections = Vec::new();
        for _ in 0..banks {
            selections.push(selection(&mut r)?);
        }
        let pcr_digest = r.sized_u16_be()?.to_vec();
        r.finish()?;
        Ok(Self {
            qualified_signer,
            extra_data,
            clock_ms,
            reset_count,
            restart_count,
            firmware,
            selections,
            pcr_digest,
        })
    }
}

/// TPMS_PCR_SELECTION: bit n of byte m selects PCR 8m + n.
fn selection(r: &mut Reader<'_>) -> Result<(u16, BTreeSet<u8>), Error> {
    let bank = r.u16_be()?;
    let bytes = usize::from(r.u8()?);
    if bytes > 4 {
        return Err(Error::malformed(WHAT, format!("a selection of {bytes} bytes")));
    }
    let mut numbers = BTreeSet::new();
    for (first, byte) in (0u8..).step_by(8).zip(r.take(bytes)?) {
        numbers.extend((0..8).filter(|bit| byte >> bit & 1 == 1).map(|bit| first | bit));
    }
    Ok((bank, numbers))
}

/// A TPM's signature.
#[derive(Clone, Debug)]
pub(crate) enum Signature {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rsassa(Vec<u8>),
    /// ECDSA with SHA-256: r and s, without leading zeros.
    Ecdsa(Vec<u8>, Vec<u8>),
}

impl Signature {
    /// A TPMT_SIGNATURE.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let what = "TPM signature";
        let mut r = Reader::new(what, bytes);
        let (scheme, hash) = (r.u16_be()?, r.u16_be()?);
        if hash != SHA256 {
            return Err(Error::malformed(what, format!("hash {hash:#x} is not SHA-256")));
        }
        let signature = match scheme {
            RSASSA => Self::Rsassa(r.sized_u16_be()?.to_vec()),
            ECDSA => Self::Ecdsa(r.sized_u16_be()?.to_vec(), r.sized_u16_be()?.to_vec()),
            _ => {
                let why = format!("scheme {scheme:#x} is neither RSASSA nor ECDSA");
                return Err(Error::malformed(what, why));
            }
        };
        r.finish()?;
        Ok(signature)
    }

    /// r and s for P-256: 32 bytes each.
    pub(crate) fn p256(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
        let mut both = Vec::with_capacity(64);
        for scalar in [r, s] {
            let zeros = 32usize.checked_sub(scalar.len())?;
            both.resize(both.len().checked_add(zeros)?, 0);
            both.extend(scalar);
        }
        Some(both)
    }
}
