//! Intel TDX: a quote, and what Intel says about the platform that made it (collateral).
//!
//! The chain of trust: Intel's root, the platform's PCK, the quoting enclave, the quote's attestation
//! key, the quote. Beside it Intel's statements, under the same root, say how well the platform stands.

mod pck;
mod quote;
mod statements;
mod tcb;

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::bytes::{Hex, hex};
use crate::error::Error;
use crate::evidence::Collateral;
use crate::policy::{Policy, TcbStatus, TdxPolicy};
use crate::result::{Appraisal, Observed};
use crate::roots;
use crate::x509::{Cert, ChainNames, Crl, check_chain, pinned};
use pck::Platform;
use quote::{Quote, TdReport};
use statements::{Instant, QeIdentity, TcbInfo};

const PCK_CHAIN: ChainNames = ChainNames {
    links: "tdx_pck_chain",
    validity: "tdx_pck_chain_validity",
    revocation: "tdx_pck_chain_revocation",
};
const TCB_INFO_CHAIN: ChainNames = ChainNames {
    links: "tdx_tcb_info_chain",
    validity: "tdx_tcb_info_chain_validity",
    revocation: "tdx_tcb_info_chain_revocation",
};
const QE_IDENTITY_CHAIN: ChainNames = ChainNames {
    links: "tdx_qe_identity_chain",
    validity: "tdx_qe_identity_chain_validity",
    revocation: "tdx_qe_identity_chain_revocation",
};
/// Who signs Intel's statements. A PCK is under the same root, and its holder must not sign them.
const STATEMENT_SIGNER: &str = "Intel SGX TCB Signing";

/// Whether these bytes begin like a quote.
pub(crate) fn is_quote(bytes: &[u8]) -> bool {
    matches!(bytes, [4 | 5, 0, 2, 0, 0x81, 0, 0, 0, ..])
}

/// Judges a quote; the caller compares what it measures and is bound to.
pub(crate) fn judge(
    a: &mut Appraisal,
    policy: &Policy,
    quote: &[u8],
    collateral: Option<&Collateral>,
) -> Result<Observed, Error> {
    let quote = Quote::parse(quote)?;
    let Some(collateral) = collateral else {
        return Err(Error::Missing {
            what: "the collateral",
            hint: "Intel's provisioning certification service, or a cache of it, has it",
        });
    };
    for (name, value) in fields(&quote) {
        a.claim(name, value);
    }
    let crls = [Crl::parse(&collateral.root_ca_crl.0)?, Crl::parse(&collateral.pck_crl.0)?];
    let pck = check_quote(a, &quote, &crls)?;
    check_platform(a, &policy.tdx, &quote, &pck, collateral, &crls)?;
    check_guest(a, &policy.tdx, &quote.body);
    Ok(Observed { registers: registers(&quote.body), report_data: quote.body.report_data.to_vec() })
}

/// From the root down to the quote. Answers the PCK certificate.
fn check_quote(a: &mut Appraisal, quote: &Quote<'_>, crls: &[Crl]) -> Result<Cert, Error> {
    let chain = chain_of(quote.pck_chain)?;
    check_chain(a, &PCK_CHAIN, &chain.iter().collect::<Vec<_>>(), crls, Some(0));
    let pck = chain.into_iter().next().ok_or_else(|| Error::malformed("PCK chain", "empty"))?;
    let signed = pck
        .key()
        .p256()
        .is_some_and(|key| verifies(key, quote.qe_report_bytes, quote.qe_signature));
    a.check("tdx_qe_report_signature", signed, pck.common_name());

    let mut context = digest::Context::new(&digest::SHA256);
    context.update(quote.attestation_key);
    context.update(quote.qe_auth_data);
    let mut bound = context.finish().as_ref().to_vec();
    bound.resize(64, 0);
    let passed = bound == quote.qe_report.report_data;
    a.check("tdx_attestation_key", passed, hex(&quote.qe_report.report_data));

    // An uncompressed point begins with 4.
    let key = [&[4], quote.attestation_key].concat();
    let signed = verifies(&key, quote.signed, quote.signature);
    a.check("tdx_quote_signature", signed, "by the attestation key");
    Ok(pck)
}

/// What Intel says about the platform, and what the policy makes of it.
fn check_platform(
    a: &mut Appraisal,
    policy: &TdxPolicy,
    quote: &Quote<'_>,
    pck: &Cert,
    collateral: &Collateral,
    crls: &[Crl],
) -> Result<(), Error> {
    let info: TcbInfo = statements::parse("TCB info", &collateral.tcb_info)?;
    let identity: QeIdentity = statements::parse("QE identity", &collateral.qe_identity)?;
    let platform = Platform::of(pck)?;
    check_statement(
        a,
        ("tdx_tcb_info_signature", "tdx_tcb_info_time", &TCB_INFO_CHAIN),
        (&collateral.tcb_info, &collateral.tcb_info_signature, &collateral.tcb_info_issuer_chain),
        (info.issue_date, info.next_update),
        crls,
    )?;
    check_statement(
        a,
        ("tdx_qe_identity_signature", "tdx_qe_identity_time", &QE_IDENTITY_CHAIN),
        (
            &collateral.qe_identity,
            &collateral.qe_identity_signature,
            &collateral.qe_identity_issuer_chain,
        ),
        (identity.issue_date, identity.next_update),
        crls,
    )?;
    check_statement_kinds(a, policy, &info, &identity, &platform);
    check_standing(a, policy, quote, &info, &identity, &platform);
    Ok(())
}

/// Signature, chain and time of one statement.
fn check_statement(
    a: &mut Appraisal,
    (signature_check, time_check, names): (&'static str, &'static str, &ChainNames),
    (text, signature, chain): (&str, &Hex, &str),
    (issued, next): (Instant, Instant),
    crls: &[Crl],
) -> Result<(), Error> {
    let chain = chain_of(chain.as_bytes())?;
    check_chain(a, names, &chain.iter().collect::<Vec<_>>(), crls, Some(0));
    let signer = chain.first().map(Cert::common_name).unwrap_or_default();
    let key = chain.first().map(Cert::key);
    let signed = signer == STATEMENT_SIGNER
        && key.and_then(|key| key.p256().map(|key| verifies(key, text.as_bytes(), &signature.0)))
            == Some(true);
    a.check(signature_check, signed, signer);
    let (at, issued, next) = (a.at(), issued.0, next.0);
    let outcome = if at < issued {
        Err(format!("issued at {issued}, judged at {at}"))
    } else if at > next {
        Err(format!("the next issue was due at {next}, judged at {at}"))
    } else {
        Ok(format!("until {next}"))
    };
    a.outcome(time_check, outcome);
    Ok(())
}

/// The statements must be about TDX, and about this platform.
fn check_statement_kinds(
    a: &mut Appraisal,
    policy: &TdxPolicy,
    info: &TcbInfo,
    identity: &QeIdentity,
    platform: &Platform,
) {
    let kinds = (&*info.id, info.version, &*identity.id, identity.version);
    let value = format!("{} {}, {} {}", kinds.0, kinds.1, kinds.2, kinds.3);
    a.check("tdx_statements", kinds == ("TDX", 3, "TD_QE", 2), value);
    let same = info.fmspc.0 == platform.fmspc && info.pce_id.0 == platform.pce_id;
    let value = if same {
        hex(&platform.fmspc)
    } else {
        format!("`{}`, the TCB info is of `{}`", hex(&platform.fmspc), hex(&info.fmspc.0))
    };
    a.check("tdx_platform", same, value);
    let (number, least) = (info.tcb_evaluation_data_number, policy.minimum_tcb_evaluation_number);
    a.check("tdx_tcb_evaluation_number", number >= least, number);
}

/// The standing of processor, module and quoting enclave.
fn check_standing(
    a: &mut Appraisal,
    policy: &TdxPolicy,
    quote: &Quote<'_>,
    info: &TcbInfo,
    identity: &QeIdentity,
    platform: &Platform,
) {
    let module = tcb::module_standing(info, &quote.body);
    let enclave = tcb::qe_standing(identity, &quote.qe_report);
    let state = |standing: &statements::Standing| standing.status.to_string();
    let shown = module.as_ref().map(|m| m.as_ref().map_or("of the platform".to_owned(), state));
    a.outcome("tdx_module", shown.map_err(Clone::clone));
    a.outcome("tdx_quoting_enclave", enclave.as_ref().map(state).map_err(Clone::clone));
    let standing = tcb::platform_standing(info, platform, &quote.body);
    let (Some(standing), Ok(module), Ok(enclave)) = (standing, module, enclave) else {
        let why = "processor, module or quoting enclave is at no level of the statements";
        a.check("tdx_tcb_status", false, why);
        return;
    };
    let level = tcb::join(standing, &[&[enclave], module.as_slice()].concat());
    let accepted =
        level.status != TcbStatus::Revoked && policy.tcb_statuses.contains(&level.status);
    a.check("tdx_tcb_status", accepted, level.status);
    let open: Vec<&str> = level.advisories.iter().map(String::as_str).collect();
    let allowed = level.advisories.is_subset(&policy.allowed_advisories);
    a.check(
        "tdx_advisories",
        allowed,
        if open.is_empty() { "none".to_owned() } else { open.join(", ") },
    );
}

fn check_guest(a: &mut Appraisal, policy: &TdxPolicy, td: &TdReport) {
    let on = |state| if state { "on" } else { "off" };
    a.check("tdx_debug", !td.is_debug() || policy.allow_debug, on(td.is_debug()));
    let migratable = td.migratable();
    a.check("tdx_migratable", !migratable || policy.allow_migration, on(migratable));
    let disabled = td.sept_ve_disable();
    let passed = disabled || !policy.require_sept_ve_disable;
    a.check("tdx_sept_ve_disable", passed, on(disabled));
}

/// Leaf first, the pinned root in place of the one that was sent.
fn chain_of(pem: &[u8]) -> Result<Vec<Cert>, Error> {
    let root = pinned(roots::INTEL_SGX)?;
    let mut chain = Cert::parse_pem(pem)?;
    chain.retain(|cert| cert.subject() != root.subject());
    if chain.is_empty() {
        return Err(Error::malformed("certificate chain", "it has no certificate but a root"));
    }
    chain.push(root);
    Ok(chain)
}

fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok()
}

fn named(td: &TdReport) -> [(&'static str, &[u8]); 10] {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &td.rtmr;
    [
        ("mrtd", &td.mrtd),
        ("rtmr0", rtmr0),
        ("rtmr1", rtmr1),
        ("rtmr2", rtmr2),
        ("rtmr3", rtmr3),
        ("mrconfigid", &td.mrconfigid),
        ("mrowner", &td.mrowner),
        ("mrownerconfig", &td.mrownerconfig),
        ("mrseam", &td.mrseam),
        ("mrsignerseam", &td.mrsignerseam),
    ]
}

fn registers(td: &TdReport) -> BTreeMap<String, Vec<u8>> {
    named(td).map(|(name, value)| (name.to_owned(), value.to_vec())).into()
}

fn fields(quote: &Quote<'_>) -> Vec<(&'static str, String)> {
    let td = &quote.body;
    let mut fields = vec![
        ("tdx_quote_version", quote.version.to_string()),
        ("tdx_report_data", hex(&td.report_data)),
        ("tdx_td_attributes", hex(&td.td_attributes)),
        ("tdx_xfam", hex(&td.xfam)),
        ("tdx_tee_tcb_svn", hex(&td.tee_tcb_svn)),
    ];
    fields.extend(named(td).map(|(name, value)| (name, hex(value))));
    fields
}

/// The fields of a quote, nothing verified.
pub(crate) fn show(quote: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let quote = Quote::parse(quote)?;
    let mut shown: Vec<_> =
        fields(&quote).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for cert in Cert::parse_pem(quote.pck_chain)? {
        shown.push(("certificate".to_owned(), cert.common_name()));
    }
    Ok(shown)
}
