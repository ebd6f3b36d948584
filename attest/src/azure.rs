//! Azure's confidential VMs: the guest does not talk to the hardware, a paravisor below it does. The
//! paravisor's report (HCL report) carries the hardware's, and binds the key of a vTPM to it; the
//! vTPM's quote then speaks for the guest.

mod hcl;

use aws_lc_rs::digest;

use crate::bytes::{Base64, hex};
use crate::error::Error;
use crate::evidence::{Collateral, TpmQuote};
use crate::policy::{Policy, ReportDataField};
use crate::result::{Appraisal, Observed};
use crate::tpm::AttestationKey;
use crate::{snp, tdx, tpm};
use hcl::{Around, Hcl};

/// Judges evidence over SNP.
pub(crate) fn judge_snp(
    a: &mut Appraisal,
    policy: &Policy,
    hcl_report: &[u8],
    quote: &TpmQuote,
    certificates: &[Base64],
    crls: &[Base64],
) -> Result<Observed, Error> {
    let hcl = Hcl::parse(hcl_report)?;
    a.check("azure_report_type", hcl.around == Around::Snp, format!("{:?}", hcl.around));
    let input = snp::Input { report: hcl.hardware_report, certificates, crls };
    let hardware = snp::judge(a, policy, &input)?;
    judge_guest(a, policy, &hcl, quote, hardware)
}

/// Judges evidence over TDX: the quote is over the report that the HCL report carries.
pub(crate) fn judge_tdx(
    a: &mut Appraisal,
    policy: &Policy,
    hcl_report: &[u8],
    quote: &TpmQuote,
    (td_quote, collateral): (&[u8], Option<&Collateral>),
) -> Result<Observed, Error> {
    let hcl = Hcl::parse(hcl_report)?;
    a.check("azure_report_type", hcl.around == Around::Tdx, format!("{:?}", hcl.around));
    let hardware = tdx::judge(a, policy, td_quote, collateral)?;
    judge_guest(a, policy, &hcl, quote, hardware)
}

/// From the hardware's word to the guest's: runtime data, its key, the key's quote.
fn judge_guest(
    a: &mut Appraisal,
    policy: &Policy,
    hcl: &Hcl<'_>,
    quote: &TpmQuote,
    hardware: Observed,
) -> Result<Observed, Error> {
    // The hash fills half of the hardware's field; the rest must be zero, compared too.
    let mut expected = digest::digest(&digest::SHA256, hcl.runtime_data).as_ref().to_vec();
    expected.resize(64, 0);
    let outcome = if hardware.report_data == expected {
        Ok("the hardware report has the hash of the runtime data".to_owned())
    } else {
        let (seen, expected) = (hex(&hardware.report_data), hex(&expected));
        Err(format!("the hardware report has `{seen}`, the runtime data `{expected}`"))
    };
    a.outcome("azure_runtime_data", outcome);
    let configuration = &hcl.runtime.configuration;
    let secure = configuration.secure_boot;
    let value = if secure { "on" } else { "off" };
    a.check("azure_secure_boot", secure || !policy.azure.require_secure_boot, value);
    a.claim("azure_console", configuration.console);
    a.claim("azure_user_data", hex(&hcl.runtime.user_data.0));

    let (n, e) = hcl.runtime.attestation_key()?;
    let key = AttestationKey::RsaParts { n, e };
    let guest = tpm::judge_quote(a, &policy.tpm, quote, &key)?;
    a.claim("tpm_extra_data", hex(&guest.report_data));

    let mut registers = hardware.registers;
    registers.extend(guest.registers);
    let report_data = match policy.azure.report_data {
        ReportDataField::Quote => guest.report_data,
        ReportDataField::UserData => hcl.runtime.user_data.0.clone(),
    };
    Ok(Observed { registers, report_data })
}

/// The fields of all parts, nothing verified.
pub(crate) fn show(
    hcl_report: &[u8],
    quote: &TpmQuote,
    td_quote: Option<&[u8]>,
    certificates: &[Base64],
) -> Result<Vec<(String, String)>, Error> {
    let hcl = Hcl::parse(hcl_report)?;
    let mut shown = match td_quote {
        Some(td_quote) => tdx::show(td_quote)?,
        None => snp::show(hcl.hardware_report, certificates)?,
    };
    shown.push(("azure_runtime_data".to_owned(), String::from_utf8_lossy(hcl.runtime_data).into()));
    shown.extend(tpm::show(quote)?);
    Ok(shown)
}
