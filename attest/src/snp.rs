//! AMD SEV-SNP: a report, the certificate of the key that signed it, and what AMD revoked.

mod endorsement;
mod report;

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::bytes::{Base64, hex};
use crate::error::Error;
use crate::policy::{Policy, Product, SigningKey, SnpPolicy};
use crate::result::{Appraisal, Observed};
use crate::x509::{ChainNames, Crl, MAX_CERTIFICATES, check_chain};
use endorsement::Endorsement;
use report::{ECDSA_P384_SHA384, REPORT_BYTES, Report, Tcb};

const CHAIN: ChainNames = ChainNames {
    links: "snp_chain",
    validity: "snp_chain_validity",
    revocation: "snp_chain_revocation",
};
/// AMD's list is the root's: it speaks of the intermediates, the second link.
const LISTED_LINK: usize = 1;

/// A report with its endorsements.
pub(crate) struct Input<'a> {
    pub report: &'a [u8],
    pub certificates: &'a [Base64],
    pub crls: &'a [Base64],
}

/// Whether these bytes look like a report.
pub(crate) fn is_report(bytes: &[u8]) -> bool {
    bytes.len() == REPORT_BYTES && matches!(bytes, [2..=9, 0, 0, 0, ..])
}

/// Judges a report; the caller compares what it measures and is bound to.
pub(crate) fn judge(
    a: &mut Appraisal,
    policy: &Policy,
    input: &Input<'_>,
) -> Result<Observed, Error> {
    let report = Report::parse(input.report)?;
    let endorsement = Endorsement::find(input.certificates)?;
    if input.crls.len() > MAX_CERTIFICATES {
        return Err(Error::malformed("revocation lists", "there are too many"));
    }
    let crls = input.crls.iter().map(|der| Crl::parse(&der.0)).collect::<Result<Vec<_>, _>>()?;
    for (name, value) in fields(&report) {
        a.claim(name, value);
    }

    check_signature(a, &report, &endorsement);
    let needed = if policy.freshness.revocation.is_required() { LISTED_LINK } else { usize::MAX };
    check_chain(a, &CHAIN, &endorsement.chain(), &crls, Some(needed));
    check_key(a, &policy.snp, &report, &endorsement);
    check_product(a, &report, &endorsement);
    check_tcb(a, &policy.snp, &report, &endorsement);
    check_chip(a, &policy.snp, &report, &endorsement);
    check_guest(a, &policy.snp, &report);

    Ok(Observed { registers: registers(&report), report_data: report.report_data.to_vec() })
}

fn check_signature(a: &mut Appraisal, report: &Report<'_>, endorsement: &Endorsement) {
    let outcome = if report.signature_algorithm != ECDSA_P384_SHA384 {
        Err(format!("algorithm `{}` is not ECDSA P-384 with SHA-384", report.signature_algorithm))
    } else if let (Some(signature), Some(key)) =
        (&report.signature, endorsement.leaf().key().p384())
    {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key);
        match key.verify(report.signed, signature) {
            Ok(()) => Ok(format!("by `{}`", endorsement.leaf().common_name())),
            Err(_) => Err("the signature on the report is wrong".to_owned()),
        }
    } else {
        Err("the signature or the key does not fit P-384".to_owned())
    };
    a.outcome("snp_report_signature", outcome);
}

fn check_key(
    a: &mut Appraisal,
    policy: &SnpPolicy,
    report: &Report<'_>,
    endorsement: &Endorsement,
) {
    let said = match report.key_info.signing_key() {
        0 => Some(SigningKey::Vcek),
        1 => Some(SigningKey::Vlek),
        _ => None,
    };
    let outcome = if said != Some(endorsement.key) {
        let (selector, name) = (report.key_info.signing_key(), endorsement.leaf().common_name());
        Err(format!("the report's selector is {selector}, the certificate is of `{name}`"))
    } else if !policy.signing_keys.contains(&endorsement.key) {
        Err(format!("`{}` is not among `signing_keys`", endorsement.leaf().common_name()))
    } else {
        endorsement.intermediate_name()
    };
    a.outcome("snp_signing_key", outcome);
}

/// Chain, certificate and processor must be of one product.
fn check_product(a: &mut Appraisal, report: &Report<'_>, endorsement: &Endorsement) {
    let product = endorsement.product;
    let name = endorsement.product_name();
    // `Milan-B0`: the stepping follows a hyphen.
    let named = name.as_deref().and_then(|name| name.split('-').next());
    let outcome = if named != Some(product.as_str()) {
        let name = name.unwrap_or_else(|| "no product".to_owned());
        Err(format!("the certificate names `{name}`, its root is of `{}`", product.as_str()))
    } else if report.cpuid.is_some() && report.product() != Some(product) {
        let (family, model) = report.cpuid.unwrap_or_default();
        Err(format!(
            "the processor is family {family:#x} model {model:#x}, the chain is of `{}`",
            product.as_str()
        ))
    } else {
        Ok(product.as_str().to_owned())
    };
    a.outcome("snp_product", outcome);
}

fn check_tcb(
    a: &mut Appraisal,
    policy: &SnpPolicy,
    report: &Report<'_>,
    endorsement: &Endorsement,
) {
    let product = endorsement.product;
    let reported = Tcb::of(product, report.reported_tcb);
    let committed = Tcb::of(product, report.committed_tcb);
    match endorsement.tcb() {
        Some(tcb) if tcb == reported => a.check("snp_tcb_of_key", true, tcb),
        Some(tcb) => {
            a.check("snp_tcb_of_key", false, format!("key: {tcb}; report: {reported}"));
        }
        None => a.check("snp_tcb_of_key", false, "the certificate lacks TCB extensions"),
    }
    let outcome = match policy.minimum_tcb.get(&product) {
        None => Err(format!("the policy has no minimum for `{}`", product.as_str())),
        Some(least) if !reported.reaches(least) => Err(format!("reported: {reported}")),
        // The host may go back to what is committed, so that counts too.
        Some(least) if !committed.reaches(least) => Err(format!("committed: {committed}")),
        Some(_) => Ok(reported.to_string()),
    };
    a.outcome("snp_minimum_tcb", outcome);
}

fn check_chip(
    a: &mut Appraisal,
    policy: &SnpPolicy,
    report: &Report<'_>,
    endorsement: &Endorsement,
) {
    let outcome = match endorsement.key {
        SigningKey::Vlek => Ok("a VLEK names no chip".to_owned()),
        SigningKey::Vcek if report.key_info.masks_chip_id() => {
            if policy.allow_masked_chip_id {
                Ok("masked, as the policy allows".to_owned())
            } else {
                Err("the report masks its chip id".to_owned())
            }
        }
        SigningKey::Vcek => match endorsement.chip_id() {
            Some(id) if id == report.chip_id => Ok(hex(&id)),
            Some(id) => Err(format!("key: `{}`; report: `{}`", hex(&id), hex(&report.chip_id))),
            None => Err("the certificate has no chip id of the product's length".to_owned()),
        },
    };
    a.outcome("snp_chip_id", outcome);
}

/// What the guest's owner lets the host do, and who in the guest asked.
fn check_guest(a: &mut Appraisal, policy: &SnpPolicy, report: &Report<'_>) {
    let guest = report.policy;
    let forbids = |seen: bool, allowed: bool| (!seen || allowed, seen);
    let demands = |seen: bool, required: bool| (seen || !required, seen);
    let states = [
        ("snp_debug", forbids(guest.debug(), policy.allow_debug)),
        ("snp_migration_agent", forbids(guest.migration_agent(), policy.allow_migration)),
        ("snp_smt", forbids(guest.smt(), policy.allow_smt)),
        ("snp_single_socket", demands(guest.single_socket(), policy.require_single_socket)),
        (
            "snp_ciphertext_hiding",
            demands(guest.ciphertext_hiding(), policy.require_ciphertext_hiding),
        ),
    ];
    for (name, (passed, seen)) in states {
        a.check(name, passed, if seen { "on" } else { "off" });
    }
    a.check("snp_vmpl", policy.vmpl.contains(&report.vmpl), report.vmpl);
}

fn registers(report: &Report<'_>) -> BTreeMap<String, Vec<u8>> {
    let entries: [(&str, &[u8]); 6] = [
        ("measurement", &report.measurement),
        ("host_data", &report.host_data),
        ("id_key_digest", &report.id_key_digest),
        ("author_key_digest", &report.author_key_digest),
        ("family_id", &report.family_id),
        ("image_id", &report.image_id),
    ];
    entries.map(|(name, value)| (name.to_owned(), value.to_vec())).into()
}

fn fields(report: &Report<'_>) -> Vec<(&'static str, String)> {
    let guest = report.policy;
    let product = report.product();
    // Where the report does not say its product, the order of most machines is shown.
    let tcb = |bytes| Tcb::of(product.unwrap_or(Product::Milan), bytes).to_string();
    vec![
        ("snp_version", report.version.to_string()),
        ("snp_processor", product.map_or("not said", Product::as_str).to_owned()),
        ("snp_guest_svn", report.guest_svn.to_string()),
        ("snp_policy", format!("{:#x}", guest.0)),
        ("snp_debug", guest.debug().to_string()),
        ("snp_vmpl", report.vmpl.to_string()),
        ("snp_platform_info", format!("{:#x}", report.platform_info)),
        ("snp_measurement", hex(&report.measurement)),
        ("snp_report_data", hex(&report.report_data)),
        ("snp_host_data", hex(&report.host_data)),
        ("snp_family_id", hex(&report.family_id)),
        ("snp_image_id", hex(&report.image_id)),
        ("snp_id_key_digest", hex(&report.id_key_digest)),
        ("snp_author_key_digest", hex(&report.author_key_digest)),
        ("snp_report_id", hex(&report.report_id)),
        ("snp_report_id_ma", hex(&report.report_id_ma)),
        ("snp_chip_id", hex(&report.chip_id)),
        ("snp_reported_tcb", tcb(report.reported_tcb)),
        ("snp_current_tcb", tcb(report.current_tcb)),
        ("snp_committed_tcb", tcb(report.committed_tcb)),
        ("snp_launch_tcb", tcb(report.launch_tcb)),
    ]
}

/// The fields of a report, nothing verified.
pub(crate) fn show(report: &[u8], certificates: &[Base64]) -> Result<Vec<(String, String)>, Error> {
    let report = Report::parse(report)?;
    let mut shown: Vec<_> =
        fields(&report).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for der in certificates {
        let name = crate::x509::Cert::parse(&der.0)?.common_name();
        shown.push(("certificate".to_owned(), name));
    }
    Ok(shown)
}
