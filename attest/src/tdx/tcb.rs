//! The standing of a platform by Intel's statements: the level of the processor, that of the TDX
//! module and that of the quoting enclave, and the worst of them.

use std::collections::BTreeSet;

use super::pck::{COMPONENTS, Platform};
use super::quote::{QeReport, TdReport};
use super::statements::{Module, PlatformLevel, QeIdentity, Standing, SvnLevel, TcbInfo};
use crate::policy::TcbStatus;

/// The status of everything below the guest, and the advisories that are open there.
pub(crate) struct Level {
    pub status: TcbStatus,
    pub advisories: BTreeSet<String>,
}

/// Intel's TDX module must be of Intel's signer with its attributes; a module of a later major
/// version has an identity of its own, with levels.
pub(crate) fn module_standing(info: &TcbInfo, td: &TdReport) -> Result<Option<Standing>, String> {
    let [svn, major, ..] = td.tee_tcb_svn;
    if major == 0 {
        return is_module(&info.tdx_module, td).map(|()| None);
    }
    let id = format!("TDX_{major:02X}");
    let mut identities = info.tdx_module_identities.iter();
    let Some(identity) = identities.find(|identity| identity.id.eq_ignore_ascii_case(&id)) else {
        return Err(format!("the TCB info does not know the TDX module `{id}`"));
    };
    is_module(&identity.module, td)?;
    let standing = standing_of(&identity.tcb_levels, u16::from(svn));
    standing.map(Some).ok_or_else(|| format!("`{id}` with version {svn} is below every level"))
}

fn is_module(module: &Module, td: &TdReport) -> Result<(), String> {
    if module.mrsigner.0 != td.mrsignerseam {
        return Err("the TDX module has another signer".to_owned());
    }
    if !masked_equal(&td.seam_attributes, &module.attributes.0, &module.attributes_mask.0) {
        return Err("the TDX module has other attributes".to_owned());
    }
    Ok(())
}

/// The enclave that signed the quote must be the one that Intel describes.
pub(crate) fn qe_standing(identity: &QeIdentity, qe: &QeReport) -> Result<Standing, String> {
    if identity.mrsigner.0 != qe.mr_signer {
        return Err("the quoting enclave has another signer".to_owned());
    }
    if identity.isvprodid != qe.isv_prod_id {
        return Err(format!("the quoting enclave is product {}", qe.isv_prod_id));
    }
    // The text has the number big-endian, the report little-endian.
    let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
    let (expected, mask) =
        (reversed(&identity.miscselect.0), reversed(&identity.miscselect_mask.0));
    if !masked_equal(&qe.misc_select, &expected, &mask) {
        return Err("the quoting enclave has another MISCSELECT".to_owned());
    }
    if !masked_equal(&qe.attributes, &identity.attributes.0, &identity.attributes_mask.0) {
        return Err("the quoting enclave has other attributes".to_owned());
    }
    let standing = standing_of(&identity.tcb_levels, qe.isv_svn);
    standing.ok_or_else(|| format!("version {} is below every level", qe.isv_svn))
}

fn masked_equal(seen: &[u8], expected: &[u8], mask: &[u8]) -> bool {
    seen.len() == expected.len()
        && seen.len() == mask.len()
        && seen.iter().zip(expected).zip(mask).all(|((s, e), m)| s & m == e & m)
}

/// Levels stand from the newest down: the first that is reached counts.
fn standing_of(levels: &[SvnLevel], svn: u16) -> Option<Standing> {
    levels.iter().find(|level| svn >= level.tcb.isvsvn).map(|level| level.standing.clone())
}

/// The first level whose every component the platform reaches.
pub(crate) fn platform_standing(
    info: &TcbInfo,
    platform: &Platform,
    td: &TdReport,
) -> Option<Standing> {
    let level = info.tcb_levels.iter().find(|level| reaches(level, platform, td))?;
    Some(level.standing.clone())
}

fn reaches(level: &PlatformLevel, platform: &Platform, td: &TdReport) -> bool {
    let (sgx, tdx) = (&level.tcb.sgxtcbcomponents, &level.tcb.tdxtcbcomponents);
    if sgx.len() != COMPONENTS || tdx.len() != COMPONENTS {
        return false;
    }
    // Where the module has an identity of its own, its version (the first two) is judged by that.
    let [_, major, ..] = td.tee_tcb_svn;
    let skip = if major == 0 { 0 } else { 2 };
    let has = |seen: &[u8], least: &[super::statements::Component]| {
        seen.iter().zip(least).all(|(seen, least)| *seen >= least.svn)
    };
    has(&platform.components, sgx)
        && platform.pce_svn >= level.tcb.pcesvn
        && has(td.tee_tcb_svn.get(skip..).unwrap_or_default(), tdx.get(skip..).unwrap_or_default())
}

/// The worst of the three, as Intel's library joins them.
pub(crate) fn join(platform: Standing, others: &[Standing]) -> Level {
    let mut status = platform.status;
    let mut advisories: BTreeSet<String> = platform.advisories.into_iter().collect();
    for other in others {
        status = worse(status, other.status);
        advisories.extend(other.advisories.iter().cloned());
    }
    Level { status, advisories }
}

/// An enclave or module is up to date, out of date or revoked; anything else that is said of one is
/// kept only where the platform has nothing worse.
fn worse(platform: TcbStatus, other: TcbStatus) -> TcbStatus {
    use TcbStatus as S;
    match (platform, other) {
        (S::Revoked, _) | (_, S::Revoked) => S::Revoked,
        (platform, S::UpToDate) => platform,
        (S::UpToDate | S::SwHardeningNeeded, S::OutOfDate) => S::OutOfDate,
        (S::ConfigurationNeeded | S::ConfigurationAndSwHardeningNeeded, S::OutOfDate) => {
            S::OutOfDateConfigurationNeeded
        }
        (S::UpToDate, other) => other,
        (platform, _) => platform,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TcbStatus as S;

    /// Every pair of Intel's table (`Intel TDX DCAP`, TCB status of platform and enclave).
    #[test]
    fn joining_never_improves_a_status() {
        let cases = [
            (S::UpToDate, S::UpToDate, S::UpToDate),
            (S::UpToDate, S::OutOfDate, S::OutOfDate),
            (S::SwHardeningNeeded, S::OutOfDate, S::OutOfDate),
            (S::ConfigurationNeeded, S::OutOfDate, S::OutOfDateConfigurationNeeded),
            (S::ConfigurationAndSwHardeningNeeded, S::OutOfDate, S::OutOfDateConfigurationNeeded),
            (S::OutOfDate, S::UpToDate, S::OutOfDate),
            (S::OutOfDateConfigurationNeeded, S::OutOfDate, S::OutOfDateConfigurationNeeded),
            (S::UpToDate, S::Revoked, S::Revoked),
            (S::Revoked, S::UpToDate, S::Revoked),
            (S::ConfigurationNeeded, S::UpToDate, S::ConfigurationNeeded),
        ];
        for (platform, other, expected) in cases {
            assert_eq!(worse(platform, other), expected, "{platform:?} with {other:?}");
        }
    }
}
