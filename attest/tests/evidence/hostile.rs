//! Hostile evidence is refused or cannot be judged; it never panics.

use std::collections::BTreeMap;

use chancery_attest::{
    Base64, Collateral, Error, Evidence, Hex, MAX_EVIDENCE_BYTES, Policy, TpmQuote, appraise,
};
use proptest::prelude::*;

const SNP: &[u8] = include_bytes!("../samples/snp_milan_report.bin");
const VCEK: &[u8] = include_bytes!("../samples/snp_milan_vcek.pem");
const NITRO: &[u8] = include_bytes!("../samples/nitro.cose");

/// A policy that takes every kind of hardware, and no measurement that there is.
fn policy() -> Policy {
    let mut text = "version = 1\nkinds = [\"snp\", \"tdx\", \"azure-snp\", \"azure-tdx\", \
                    \"tpm\", \"nitro\"]\n[freshness]\nreport_data = \"if-present\"\n\
                    [tpm]\nselection = [0]\nattestation_keys = [\"00\"]\n[snp.minimum_tcb]\n\
                    milan = { bootloader = 0, tee = 0, snp = 0, microcode = 0 }\n"
        .to_owned();
    for (kind, register, bytes) in [
        ("snp", "measurement", 48),
        ("tdx", "mrtd", 48),
        ("azure-snp", "pcr0", 32),
        ("azure-tdx", "pcr0", 32),
        ("tpm", "pcr0", 32),
        ("nitro", "pcr0", 48),
    ] {
        let value = "5a".repeat(bytes);
        let registers = format!("registers = {{ {register} = \"{value}\" }}\n");
        text += &format!("[[reference]]\nrelease = \"r\"\nkind = \"{kind}\"\n{registers}");
    }
    Policy::parse(&text).unwrap()
}

fn quote(bytes: &[u8]) -> TpmQuote {
    let pcrs = BTreeMap::from([(0, Hex(vec![0x5a; 32]))]);
    TpmQuote { message: Base64(bytes.to_vec()), signature: Base64(bytes.to_vec()), pcrs }
}

/// The bytes as each part of each kind.
fn everywhere(bytes: &[u8]) -> Vec<Evidence> {
    let part = || Base64(bytes.to_vec());
    let text = || String::from_utf8_lossy(bytes).into_owned();
    let hex = || Hex(bytes.to_vec());
    let collateral = Collateral {
        pck_crl_issuer_chain: text(),
        root_ca_crl: hex(),
        pck_crl: hex(),
        tcb_info_issuer_chain: text(),
        tcb_info: text(),
        tcb_info_signature: hex(),
        qe_identity_issuer_chain: text(),
        qe_identity: text(),
        qe_identity_signature: hex(),
    };
    let mut endorsed = Evidence::parse(SNP).unwrap();
    endorsed.add_certificates(VCEK).unwrap();
    endorsed.add_crl(bytes);
    vec![
        endorsed,
        Evidence::Snp { report: part(), certificates: vec![part()], crls: vec![part()] },
        Evidence::Snp { report: Base64(SNP.to_vec()), certificates: vec![part()], crls: vec![] },
        Evidence::Tdx { quote: part(), collateral: Some(collateral) },
        Evidence::AzureSnp {
            hcl_report: part(),
            tpm_quote: quote(bytes),
            certificates: vec![part()],
            crls: vec![],
        },
        Evidence::Tpm { tpm_quote: quote(bytes), attestation_key: part() },
        Evidence::Nitro { document: part() },
    ]
}

fn is_survived(bytes: &[u8]) {
    let policy = policy();
    if let Ok(evidence) = Evidence::parse(bytes) {
        let _ = evidence.show();
    }
    for evidence in everywhere(bytes) {
        let _ = evidence.show();
        if let Ok(result) = appraise(&evidence, &policy, 1_780_272_000, None) {
            assert!(!result.accepted, "{result:#?}");
        }
    }
}

#[test]
fn truncated_evidence_is_refused() {
    for sample in [SNP, NITRO] {
        for length in (0..sample.len()).step_by(41) {
            is_survived(&sample[..length]);
        }
    }
}

#[test]
fn what_is_too_large_is_not_parsed() {
    let large = vec![b'{'; MAX_EVIDENCE_BYTES + 1];
    assert!(matches!(Evidence::parse(&large), Err(Error::TooLarge { .. })));
    let nested = "[".repeat(100_000);
    let nested = format!("{{\"kind\":{nested}");
    assert!(matches!(Evidence::parse(nested.as_bytes()), Err(Error::Malformed { .. })));
    let many = vec![Base64(vec![0x30, 0]); 17];
    let many = Evidence::Snp { report: Base64(SNP.to_vec()), certificates: many, crls: vec![] };
    assert!(matches!(appraise(&many, &policy(), 0, None), Err(Error::Malformed { .. })));
    assert_eq!(Evidence::parse(b"\x00\x01\x02"), Err(Error::UnknownKind));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        is_survived(&bytes);
    }

    #[test]
    fn changed_samples_are_survived(
        nitro in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = if nitro { NITRO.to_vec() } else { SNP.to_vec() };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        is_survived(&bytes);
    }
}
