//! TDX quotes, versions 4 and 5 (Intel TDX DCAP Quoting Library API, appendix A.3 and A.4).

use crate::bytes::Reader;
use crate::error::Error;

const WHAT: &str = "TDX quote";
/// Quotes have 5 kB; some tools pad them with zeros to 8,000 or 16,384 bytes.
pub(crate) const MAX_QUOTE_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 48;
const BODY_1_0_BYTES: usize = 584;
const BODY_1_5_BYTES: usize = 648;
/// ECDSA on P-256: the only type of attestation key in use.
const ECDSA_P256: u16 = 2;
/// The TEE type of TDX.
const TEE_TDX: u32 = 0x81;
/// Intel's quoting enclave.
const INTEL_QE: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// Certification data that is a report of the quoting enclave, and a PEM chain of the PCK.
const QE_REPORT: u16 = 6;
const PCK_CHAIN: u16 = 5;
pub(crate) const QE_REPORT_BYTES: usize = 384;

/// A quote's parts.
#[derive(Clone, Debug)]
pub(crate) struct Quote<'a> {
    pub version: u16,
    pub body: TdReport,
    /// Header and body: what the attestation key signed.
    pub signed: &'a [u8],
    pub signature: &'a [u8],
    /// x and y of the attestation key.
    pub attestation_key: &'a [u8],
    /// What the PCK signed.
    pub qe_report_bytes: &'a [u8],
    pub qe_report: QeReport,
    pub qe_signature: &'a [u8],
    pub qe_auth_data: &'a [u8],
    /// PEM.
    pub pck_chain: &'a [u8],
}

/// What the TDX module reports of a guest.
#[derive(Clone, Debug)]
pub(crate) struct TdReport {
    pub tee_tcb_svn: [u8; 16],
    pub mrseam: [u8; 48],
    pub mrsignerseam: [u8; 48],
    pub seam_attributes: [u8; 8],
    pub td_attributes: [u8; 8],
    pub xfam: [u8; 8],
    pub mrtd: [u8; 48],
    pub mrconfigid: [u8; 48],
    pub mrowner: [u8; 48],
    pub mrownerconfig: [u8; 48],
    pub rtmr: [[u8; 48]; 4],
    pub report_data: [u8; 64],
}

/// The fields of the quoting enclave's report that its identity speaks of.
#[derive(Clone, Debug)]
pub(crate) struct QeReport {
    pub misc_select: [u8; 4],
    pub attributes: [u8; 16],
    pub mr_signer: [u8; 32],
    pub isv_prod_id: u16,
    pub isv_svn: u16,
    pub report_data: [u8; 64],
}

impl<'a> Quote<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_QUOTE_BYTES {
            let (bytes, limit) = (bytes.len(), MAX_QUOTE_BYTES);
            return Err(Error::TooLarge { what: "the TDX quote", bytes, limit });
        }
        let mut r = Reader::new(WHAT, bytes);
        let version = header(&mut r)?;
        let (body_bytes, signed_bytes) = match version {
            4 => (BODY_1_0_BYTES, HEADER_BYTES + BODY_1_0_BYTES),
            _ => body_size(&mut r)?,
        };
        let body = TdReport::parse(r.take(body_bytes)?)?;
        let signed = bytes.get(..signed_bytes).unwrap_or_default();

        let mut s = Reader::new(WHAT, r.sized_u32_le()?);
        if r.rest().iter().any(|byte| *byte != 0) {
            return Err(Error::malformed(WHAT, "what follows its signature is not zero"));
        }
        let (signature, attestation_key) = (s.take(64)?, s.take(64)?);
        let mut c = Reader::new(WHAT, certification(&mut s, QE_REPORT)?);
        s.finish()?;
        let qe_report_bytes = c.take(QE_REPORT_BYTES)?;
        let qe_signature = c.take(64)?;
        let auth = usize::from(c.u16_le()?);
        let qe_auth_data = c.take(auth)?;
        let pck_chain = certification(&mut c, PCK_CHAIN)?;
        c.finish()?;
        Ok(Self {
            version,
            body,
            signed,
            signature,
            attestation_key,
            qe_report_bytes,
            qe_report: QeReport::parse(qe_report_bytes)?,
            qe_signature,
            qe_auth_data,
            pck_chain,
        })
    }
}

fn header(r: &mut Reader<'_>) -> Result<u16, Error> {
    let (version, key_type, tee) = (r.u16_le()?, r.u16_le()?, r.u32_le()?);
    r.take(4)?;
    let vendor: [u8; 16] = r.array()?;
    r.take(20)?;
    let wrong = if !matches!(version, 4 | 5) {
        format!("version {version} is not known here")
    } else if key_type != ECDSA_P256 {
        format!("attestation key type {key_type} is not ECDSA on P-256")
    } else if tee != TEE_TDX {
        format!("TEE type {tee:#x} is not TDX")
    } else if vendor != INTEL_QE {
        "its quoting enclave is not Intel's".to_owned()
    } else {
        return Ok(version);
    };
    Err(Error::malformed(WHAT, wrong))
}

/// The body descriptor of version 5: the body's bytes, and the bytes that are signed.
fn body_size(r: &mut Reader<'_>) -> Result<(usize, usize), Error> {
    let (kind, size) = (r.u16_le()?, r.u32_le()?);
    let body = match kind {
        2 => BODY_1_0_BYTES,
        3 => BODY_1_5_BYTES,
        _ => return Err(Error::malformed(WHAT, format!("body type {kind} is not that of a TD"))),
    };
    if u32::try_from(body) != Ok(size) {
        return Err(Error::malformed(WHAT, format!("a body of {size} bytes, expected {body}")));
    }
    Ok((body, HEADER_BYTES + 6 + body))
}

fn certification<'a>(r: &mut Reader<'a>, expected: u16) -> Result<&'a [u8], Error> {
    let kind = r.u16_le()?;
    if kind != expected {
        let why = format!("certification data of type {kind}, expected {expected}");
        return Err(Error::malformed(WHAT, why));
    }
    r.sized_u32_le()
}

impl TdReport {
    fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(WHAT, body);
        Ok(Self {
            tee_tcb_svn: r.array()?,
            mrseam: r.array()?,
            mrsignerseam: r.array()?,
            seam_attributes: r.array()?,
            td_attributes: r.array()?,
            xfam: r.array()?,
            mrtd: r.array()?,
            mrconfigid: r.array()?,
            mrowner: r.array()?,
            mrownerconfig: r.array()?,
            rtmr: [r.array()?, r.array()?, r.array()?, r.array()?],
            report_data: r.array()?,
        })
    }

    /// Any bit of the group "TD under debug".
    pub(crate) fn is_debug(&self) -> bool {
        let [under_debug, ..] = self.td_attributes;
        under_debug != 0
    }

    pub(crate) fn sept_ve_disable(&self) -> bool {
        u64::from_le_bytes(self.td_attributes) >> 28 & 1 == 1
    }

    pub(crate) fn migratable(&self) -> bool {
        u64::from_le_bytes(self.td_attributes) >> 29 & 1 == 1
    }
}

impl QeReport {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new("report of the quoting enclave", bytes);
        r.take(16)?;
        let misc_select = r.array()?;
        r.take(28)?;
        let attributes = r.array()?;
        r.take(32 + 32)?;
        let mr_signer = r.array()?;
        r.take(96)?;
        let (isv_prod_id, isv_svn) = (r.u16_le()?, r.u16_le()?);
        r.take(60)?;
        let report_data = r.array()?;
        r.finish()?;
        Ok(Self { misc_select, attributes, mr_signer, isv_prod_id, isv_svn, report_data })
    }
}
