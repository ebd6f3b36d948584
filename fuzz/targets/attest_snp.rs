//! SEV-SNP evidence: the first octet says which part of a genuine one is replaced by the rest. No other
//! report is accepted, and none makes the appraisal panic.

#![no_main]

use chancery_attest::{Base64, Evidence, Policy, appraise};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const REPORT: &[u8] = include_bytes!("../../attest/tests/samples/snp_milan_report.bin");
const VCEK: &[u8] = include_bytes!("../../attest/tests/samples/snp_milan_vcek.pem");
/// 2026-06-01.
const AT: u64 = 1_780_272_000;

static GENUINE: LazyLock<(Vec<Base64>, Policy)> = LazyLock::new(|| {
    let mut evidence = Evidence::parse(REPORT).expect("a report");
    evidence.add_certificates(VCEK).expect("a certificate");
    let Evidence::Snp { certificates, .. } = evidence else { panic!("another kind") };
    let measurement: String = REPORT[0x90..0xc0].iter().map(|b| format!("{b:02x}")).collect();
    let policy = format!(
        "version = 1\nkinds = [\"snp\"]\n[freshness]\nrevocation = \"if-present\"\n\
         [snp.minimum_tcb]\nmilan = {{ bootloader = 0, tee = 0, snp = 0, microcode = 0 }}\n\
         [[reference]]\nrelease = \"r\"\nkind = \"snp\"\n\
         registers = {{ measurement = \"{measurement}\" }}\n"
    );
    (certificates, Policy::parse(&policy).expect("a policy"))
});

fuzz_target!(|data: &[u8]| {
    let Some((&which, bytes)) = data.split_first() else { return };
    let (certificates, policy) = &*GENUINE;
    let (mut report, mut certificates, mut crls) = (REPORT.to_vec(), certificates.clone(), vec![]);
    match which % 4 {
        0 => report = bytes.to_vec(),
        1 => certificates = vec![Base64(bytes.to_vec())],
        2 => certificates.insert(0, Base64(bytes.to_vec())),
        _ => crls.push(Base64(bytes.to_vec())),
    }
    let same = report == REPORT;
    let evidence = Evidence::Snp { report: Base64(report), certificates, crls };
    let _ = evidence.show();
    let Ok(result) = appraise(&evidence, policy, AT, Some(&REPORT[0x50..0x90])) else { return };
    assert!(same || !result.accepted, "a report that AMD did not sign");
});
