//! HCL reports of Azure, over SNP and over TDX, with quotes: nothing that is not signed is accepted.
//! The first octet says how much of the input is the HCL report (in steps of sixteen octets).

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chancery_attest::{Base64, Evidence, Hex, Policy, TpmQuote, appraise};
use libfuzzer_sys::fuzz_target;

fn policy(kind: &str, rest: &str) -> Policy {
    let zeros = "00".repeat(32);
    let text = format!(
        "version = 1\nkinds = [\"{kind}\"]\n[freshness]\nreport_data = \"if-present\"\n\
         revocation = \"if-present\"\n[tpm]\nselection = [0]\n\
         attestation_keys = [\"{zeros}\"]\n{rest}"
    );
    Policy::parse(&text).expect("a policy")
}

static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
    let reference = |kind: &str| {
        let zeros = "00".repeat(32);
        format!(
            "[snp.minimum_tcb]\nmilan = {{ bootloader = 0, tee = 0, snp = 0, microcode = 0 }}\n\
             [[reference]]\nrelease = \"r\"\nkind = \"{kind}\"\nregisters = {{ pcr0 = \"{zeros}\" }}\n"
        )
    };
    ["azure-snp", "azure-tdx"].map(|kind| policy(kind, &reference(kind)))
});

const VCEK: &[u8] = include_bytes!("../../attest/tests/samples/snp_milan_vcek.pem");

fuzz_target!(|data: &[u8]| {
    let Some((&length, bytes)) = data.split_first() else { return };
    let (hcl, rest) = bytes.split_at(usize::from(length).saturating_mul(16).min(bytes.len()));
    let tpm_quote = TpmQuote {
        message: Base64(rest.to_vec()),
        signature: Base64(vec![0; 256]),
        pcrs: BTreeMap::from([(0, Hex(vec![0; 32]))]),
    };
    let hcl_report = Base64(hcl.to_vec());
    let mut snp = Evidence::AzureSnp {
        hcl_report: hcl_report.clone(),
        tpm_quote: tpm_quote.clone(),
        certificates: vec![],
        crls: vec![],
    };
    snp.add_certificates(VCEK).expect("a certificate");
    let td_quote = Base64(rest.to_vec());
    let tdx = Evidence::AzureTdx { hcl_report, tpm_quote, td_quote, collateral: None };
    for (evidence, policy) in [snp, tdx].iter().zip(&*POLICIES) {
        let _ = evidence.show();
        if let Ok(result) = appraise(evidence, policy, 1_780_272_000, None) {
            assert!(!result.accepted, "nobody signed this");
        }
    }
});
