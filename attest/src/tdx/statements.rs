//! Intel's signed statements: TCB info (version 3) and the identity of the quoting enclave (version
//! 2), as the Provisioning Certification Service hands them out. Unknown members are let be: Intel
//! adds some, and the signature is over the whole text.

use serde::{Deserialize, Deserializer, de};
use x509_cert::der::DateTime;

use crate::bytes::Hex;
use crate::error::Error;
use crate::policy::TcbStatus;

/// TCB info has 3 to 5 kB.
const MAX_STATEMENT_BYTES: usize = 128 * 1024;

/// What Intel says about the platforms of one family.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TcbInfo {
    pub id: String,
    pub version: u32,
    pub issue_date: Instant,
    pub next_update: Instant,
    pub fmspc: Hex,
    pub pce_id: Hex,
    pub tcb_evaluation_data_number: u32,
    pub tdx_module: Module,
    #[serde(default)]
    pub tdx_module_identities: Vec<ModuleIdentity>,
    pub tcb_levels: Vec<PlatformLevel>,
}

/// The TDX module of the first major version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Module {
    pub mrsigner: Hex,
    pub attributes: Hex,
    pub attributes_mask: Hex,
}

/// A TDX module of a later major version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModuleIdentity {
    pub id: String,
    #[serde(flatten)]
    pub module: Module,
    pub tcb_levels: Vec<SvnLevel>,
}

/// A level of the platform: the least security versions, and what holds there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlatformLevel {
    pub tcb: PlatformTcb,
    #[serde(flatten)]
    pub standing: Standing,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PlatformTcb {
    pub sgxtcbcomponents: Vec<Component>,
    pub pcesvn: u16,
    pub tdxtcbcomponents: Vec<Component>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Component {
    pub svn: u8,
}

/// A level of an enclave or module.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SvnLevel {
    pub tcb: Svn,
    #[serde(flatten)]
    pub standing: Standing,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Svn {
    pub isvsvn: u16,
}

/// What holds at a level.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Standing {
    #[serde(rename = "tcbStatus")]
    pub status: TcbStatus,
    #[serde(rename = "advisoryIDs", default)]
    pub advisories: Vec<String>,
}

/// What Intel says about the quoting enclave.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QeIdentity {
    pub id: String,
    pub version: u32,
    pub issue_date: Instant,
    pub next_update: Instant,
    pub miscselect: Hex,
    pub miscselect_mask: Hex,
    pub attributes: Hex,
    pub attributes_mask: Hex,
    pub mrsigner: Hex,
    pub isvprodid: u16,
    pub tcb_levels: Vec<SvnLevel>,
}

/// A time in a statement, in Unix seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant(pub u64);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: Result<DateTime, _> = text.parse();
        time.map(|time| Self(time.unix_duration().as_secs()))
            .map_err(|_| de::Error::custom("expected a time such as `2025-06-19T10:16:03Z`"))
    }
}

/// Reads a statement.
pub(crate) fn parse<T: de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Error> {
    if text.len() > MAX_STATEMENT_BYTES {
        return Err(Error::TooLarge { what, bytes: text.len(), limit: MAX_STATEMENT_BYTES });
    }
    serde_json::from_str(text).map_err(|e| Error::malformed(what, e))
}
