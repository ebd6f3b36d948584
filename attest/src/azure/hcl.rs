//! The HCL report of Azure's confidential VMs: what the paravisor keeps at NV index 0x01400001. A
//! header, a hardware report, and runtime data (JSON) whose hash the hardware report carries.

use serde::Deserialize;

use crate::bytes::{Hex, Reader};
use crate::error::Error;

const WHAT: &str = "HCL report";
const MAGIC: &[u8; 4] = b"HCLA";
/// The space for the hardware report: an SNP report fills it, a TDREPORT has 1,024 bytes and zeros.
const HARDWARE_REPORT_BYTES: usize = 1184;
/// The NV index has 2,600 bytes today.
const MAX_HCL_BYTES: usize = 16 * 1024;
/// Hash of the runtime data: 1 is SHA-256, the only one that was ever seen.
const HASH_SHA256: u32 = 1;
/// The key that signs the vTPM's quotes.
const AK_KID: &str = "HCLAkPub";

/// Which hardware report it is around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    Snp,
    Tdx,
}

/// An HCL report.
#[derive(Clone, Debug)]
pub(crate) struct Hcl<'a> {
    pub around: Around,
    pub hardware_report: &'a [u8],
    /// The runtime data, exactly as hashed.
    pub runtime_data: &'a [u8],
    pub runtime: Runtime,
}

/// The members of the runtime data that are read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Runtime {
    keys: Vec<Jwk>,
    #[serde(rename = "vm-configuration", default)]
    pub configuration: Configuration,
    /// What the guest wrote to NV index 0x01400002.
    #[serde(rename = "user-data", default)]
    pub user_data: Hex,
}

/// How the VM was configured.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Configuration {
    #[serde(rename = "secure-boot", default)]
    pub secure_boot: bool,
    #[serde(rename = "console-enabled", default)]
    pub console: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

impl<'a> Hcl<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_HCL_BYTES {
            let (bytes, limit) = (bytes.len(), MAX_HCL_BYTES);
            return Err(Error::TooLarge { what: "the HCL report", bytes, limit });
        }
        let mut r = Reader::new(WHAT, bytes);
        if r.take(4)? != MAGIC {
            return Err(Error::malformed(WHAT, "it does not begin with `HCLA`"));
        }
        let (_version, _size, _request, status) =
            (r.u32_le()?, r.u32_le()?, r.u32_le()?, r.u32_le()?);
        r.take(12)?;
        if status != 0 {
            return Err(Error::malformed(WHAT, format!("its status is {status}")));
        }
        let hardware_report = r.take(HARDWARE_REPORT_BYTES)?;
        let (_size, _version, kind, hash) = (r.u32_le()?, r.u32_le()?, r.u32_le()?, r.u32_le()?);
        let around = match kind {
            2 => Around::Snp,
            4 => Around::Tdx,
            _ => return Err(Error::malformed(WHAT, format!("report type {kind} is not known"))),
        };
        if hash != HASH_SHA256 {
            return Err(Error::malformed(WHAT, format!("hash type {hash} is not SHA-256")));
        }
        let runtime_data = r.sized_u32_le()?;
        if r.rest().iter().any(|byte| *byte != 0) {
            return Err(Error::malformed(WHAT, "what follows the runtime data is not zero"));
        }
        let runtime = serde_json::from_slice(runtime_data)
            .map_err(|e| Error::malformed("runtime data of the HCL report", e))?;
        Ok(Self { around, hardware_report, runtime_data, runtime })
    }
}

impl Runtime {
    /// Modulus and exponent of the attestation key, which must be there once.
    pub(crate) fn attestation_key(&self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let malformed = |why: &str| Error::malformed("runtime data of the HCL report", why);
        let mut keys = self.keys.iter().filter(|key| key.kid == AK_KID);
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(malformed("it does not have one key `HCLAkPub`"));
        };
        if key.kty != "RSA" {
            return Err(malformed("`HCLAkPub` is not an RSA key"));
        }
        let decode = |text: &str| {
            URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("`HCLAkPub` is no base64url"))
        };
        Ok((decode(&key.n)?, decode(&key.e)?))
    }
}
