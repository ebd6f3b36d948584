//! SEV-SNP: reports of three generations, by chip keys and by a loaded key.

use chancery_attest::{Backing, Base64, Evidence, unhex};

use crate::common::{assert_accepted, certificate, failed, flipped, judged, vector};

/// 2026-03-01: after the VCEKs of the newest set were made.
const AT: u64 = 1_772_323_200;
const MEASUREMENT: std::ops::Range<usize> = 0x90..0xc0;
const REPORT_DATA: std::ops::Range<usize> = 0x50..0x90;

/// A policy that takes exactly this report.
fn policy(report: &[u8], extra: &str) -> String {
    let measurement: String = report[MEASUREMENT].iter().map(|b| format!("{b:02x}")).collect();
    format!(
        r#"version = 1
kinds = ["snp"]
[freshness]
revocation = "if-present"
[[reference]]
release = "the recorded one"
kind = "snp"
registers = {{ measurement = "{measurement}" }}
[snp.minimum_tcb]
milan = {{ bootloader = 2, tee = 0, snp = 5, microcode = 68 }}
genoa = {{ bootloader = 10, tee = 0, snp = 23, microcode = 84 }}
turin = {{ bootloader = 1, tee = 1, snp = 4, microcode = 81, fmc = 1 }}
[snp]
{extra}
"#
    )
}

fn evidence(report: &[u8], certificates: Vec<Base64>) -> Evidence {
    Evidence::Snp { report: Base64(report.to_vec()), certificates, crls: vec![] }
}

fn recorded(product: &str) -> Option<(Vec<u8>, Base64)> {
    let report = vector(&format!("snp/ms-tav/{product}_attestation_report.bin"))?;
    let vcek = vector(&format!("snp/ms-tav/{product}_vcek.pem"))?;
    Some((report, certificate(&vcek)))
}

/// What is under `samples/`: the Milan report, so that this runs without the vectors.
fn sample() -> (Vec<u8>, Base64) {
    let report = include_bytes!("../samples/snp_milan_report.bin").to_vec();
    (report, certificate(include_bytes!("../samples/snp_milan_vcek.pem")))
}

#[test]
fn the_sample_is_accepted_and_every_check_is_named() {
    let (report, vcek) = sample();
    let evidence = evidence(&report, vec![vcek]);
    let result = judged(&evidence, &policy(&report, ""), AT, Some(&report[REPORT_DATA]));
    assert_accepted(&result);
    assert_eq!(result.backing, Backing::ConfidentialHardware);
    assert_eq!(result.release.as_deref(), Some("the recorded one"));
    let names: Vec<&str> = result.checks.iter().map(|check| check.name).collect();
    let expected = [
        "snp_report_signature",
        "snp_chain",
        "snp_chain_validity",
        "snp_chain_revocation",
        "snp_signing_key",
        "snp_product",
        "snp_tcb_of_key",
        "snp_minimum_tcb",
        "snp_chip_id",
        "snp_debug",
        "snp_migration_agent",
        "snp_smt",
        "snp_single_socket",
        "snp_ciphertext_hiding",
        "snp_vmpl",
        "kind",
        "report_data",
        "measurements",
    ];
    assert_eq!(names, expected, "a check that is left out is a hole");
}

#[test]
fn three_generations_are_accepted() {
    for product in ["milan", "genoa", "turin"] {
        let Some((report, vcek)) = recorded(product) else { return };
        let evidence = evidence(&report, vec![vcek]);
        let result = judged(&evidence, &policy(&report, ""), AT, Some(&report[REPORT_DATA]));
        assert_accepted(&result);
        let of = result.checks.iter().find(|check| check.name == "snp_product").unwrap();
        assert_eq!(of.value.to_lowercase(), product);
    }
}

#[test]
fn a_bit_flipped_anywhere_in_what_is_signed_is_refused() {
    let (report, vcek) = sample();
    let policy = policy(&report, "");
    // The whole signed part, one bit in every seventh byte, and the signature's two halves.
    let signature = [0x2a0, 0x2a0 + 47, 0x2a0 + 60, 0x2a0 + 72, 0x2a0 + 119, 0x2a0 + 150, 1183];
    for at in (0..0x2a0).step_by(7).chain(signature) {
        let bit = u8::try_from(at % 8).unwrap();
        let changed = evidence(&flipped(&report, at, bit), vec![vcek.clone()]);
        let failures = failed(&changed, &policy, AT, Some(&report[REPORT_DATA]));
        let right = ["snp_report_signature", "malformed"];
        assert!(failures.iter().any(|f| right.contains(&f.as_str())), "{at:#x}: {failures:?}");
    }
}

/// Each field that is judged by itself fails its own check too, not the signature alone.
#[test]
fn each_field_has_its_own_reason() {
    let (report, vcek) = sample();
    // The least versions are those of the report.
    let policy = policy(&report, "").replace("microcode = 68", "microcode = 219");
    let cases = [
        (0x08 + 2, 3, "snp_debug"),
        (0x08 + 2, 2, "snp_migration_agent"),
        (0x30, 0, "snp_vmpl"),
        (0x34, 1, "snp_report_signature"),
        (0x48, 2, "snp_signing_key"),
        (0x48, 1, "snp_chip_id"),
        (0x50, 0, "report_data"),
        (0x90, 0, "measurements"),
        (0x180, 0, "snp_tcb_of_key"),
        (0x187, 7, "snp_minimum_tcb"),
        (0x188, 1, "snp_product"),
        (0x1a0, 0, "snp_chip_id"),
        (0x1e7, 7, "snp_minimum_tcb"),
    ];
    for (at, bit, reason) in cases {
        let changed = evidence(&flipped(&report, at, bit), vec![vcek.clone()]);
        let failures = failed(&changed, &policy, AT, Some(&report[REPORT_DATA]));
        assert!(failures.iter().any(|name| name == reason), "{at:#x}: {reason}: {failures:?}");
    }
}

#[test]
fn the_policy_decides_each_state() {
    let (report, vcek) = sample();
    let good = evidence(&report, vec![vcek]);
    let data = Some(&report[REPORT_DATA]);
    let cases = [
        ("allow_smt = false", "snp_smt"),
        ("require_single_socket = true", "snp_single_socket"),
        ("require_ciphertext_hiding = true", "snp_ciphertext_hiding"),
        ("vmpl = [1]", "snp_vmpl"),
        ("signing_keys = [\"vlek\"]", "snp_signing_key"),
    ];
    for (line, reason) in cases {
        assert_eq!(failed(&good, &policy(&report, line), AT, data), [reason], "{line}");
    }
    let newer = policy(&report, "").replace("microcode = 68", "microcode = 255");
    assert_eq!(failed(&good, &newer, AT, data), ["snp_minimum_tcb"]);
    let without = policy(&report, "");
    let without: String =
        without.split_inclusive('\n').filter(|l| !l.starts_with("milan")).collect();
    assert_eq!(failed(&good, &without, AT, data), ["snp_minimum_tcb"]);
    let listed = policy(&report, "").replace("if-present", "required");
    assert_eq!(failed(&good, &listed, AT, data), ["snp_chain_revocation"]);
    assert_eq!(failed(&good, &policy(&report, ""), AT, None), ["report_data"]);
    assert_eq!(failed(&good, &policy(&report, ""), AT, Some(&report[0x50..0x70])), ["report_data"]);
}

#[test]
fn certificates_count_only_in_their_time() {
    let (report, vcek) = sample();
    let good = evidence(&report, vec![vcek]);
    let (policy, data) = (policy(&report, ""), Some(&report[REPORT_DATA]));
    for at in [1_770_253_472, 1_991_178_274] {
        assert_eq!(failed(&good, &policy, at, data), ["snp_chain_validity"], "{at}");
    }
    for at in [1_770_253_473, 1_991_178_273] {
        assert!(failed(&good, &policy, at, data).is_empty(), "{at}");
    }
}

#[test]
fn a_chain_of_another_product_is_refused() {
    let Some((report, _)) = recorded("milan") else { return };
    let (_, other) = recorded("genoa").unwrap();
    let data = Some(&report[REPORT_DATA]);
    let failures = failed(&evidence(&report, vec![other]), &policy(&report, ""), AT, data);
    for reason in ["snp_report_signature", "snp_product", "snp_tcb_of_key", "snp_chip_id"] {
        assert!(failures.iter().any(|name| name == reason), "{reason}: {failures:?}");
    }
}

#[test]
fn a_forged_intermediate_or_leaf_is_refused() {
    let (report, vcek) = sample();
    let data = Some(&report[REPORT_DATA]);
    // The last byte of a certificate belongs to its issuer's signature.
    let forged = Base64(flipped(&vcek.0, vcek.0.len() - 1, 0));
    let failures = failed(&evidence(&report, vec![forged]), &policy(&report, ""), AT, data);
    assert_eq!(failures, ["snp_chain"]);
    let Some(ask) = vector("snp/ms-tav/milan_ask.pem") else { return };
    let ask = certificate(&ask);
    let forged = Base64(flipped(&ask.0, ask.0.len() - 1, 0));
    let failures =
        failed(&evidence(&report, vec![vcek.clone(), forged]), &policy(&report, ""), AT, data);
    assert_eq!(failures, ["snp_chain"], "what the evidence brings goes before what is built in");
    let failures = failed(&evidence(&report, vec![vcek, ask]), &policy(&report, ""), AT, data);
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn evidence_without_its_certificate_cannot_be_judged() {
    let (report, _) = sample();
    let bare = Evidence::parse(&report).unwrap();
    assert_eq!(failed(&bare, &policy(&report, ""), AT, None), ["missing"]);
}

/// Version 2, with a key that AMD gave to one chip in 2022.
#[test]
fn older_reports_are_accepted() {
    let Some(hex) = vector("snp/virtee-sev/report_milan.hex") else { return };
    let report = unhex(std::str::from_utf8(&hex).unwrap().trim()).unwrap();
    let vcek = certificate(&vector("snp/virtee-sev/vcek_milan.der").unwrap());
    let policy = policy(&report, "")
        .replace("microcode = 68", "microcode = 0")
        .replace("snp = 5", "snp = 0");
    let result = judged(&evidence(&report, vec![vcek]), &policy, AT, Some(&report[REPORT_DATA]));
    assert_accepted(&result);
    let report = vector("snp/trustee/test-report.bin").unwrap();
    let vcek = certificate(&vector("snp/trustee/test-vcek.der").unwrap());
    let policy = self::policy(&report, "");
    let result = judged(&evidence(&report, vec![vcek]), &policy, AT, Some(&report[REPORT_DATA]));
    assert_accepted(&result);
}

#[test]
fn a_guest_in_debug_mode_is_refused() {
    let Some(report) = vector("snp/go-sev-guest/attestation.bin") else { return };
    let vcek = certificate(&vector("snp/go-sev-guest/vcek.testcer").unwrap());
    let evidence = evidence(&report, vec![vcek]);
    let data = Some(&report[REPORT_DATA]);
    assert_eq!(failed(&evidence, &policy(&report, ""), AT, data), ["snp_debug"]);
    let allowed = policy(&report, "allow_debug = true");
    assert!(failed(&evidence, &allowed, AT, data).is_empty());
}

/// A loaded key stands under the ASVK, and its certificate lived until 2025-12-10.
#[test]
fn a_loaded_key_is_accepted_where_the_policy_takes_it() {
    let Some(report) = vector("snp/trustee/test-vlek-report.bin") else { return };
    let vlek = certificate(&vector("snp/trustee/test-vlek.der").unwrap());
    let evidence = evidence(&report, vec![vlek]);
    let data = Some(&report[REPORT_DATA]);
    let before = 1_764_547_200;
    let vlek = "signing_keys = [\"vlek\"]\nvmpl = [1]";
    assert!(failed(&evidence, &policy(&report, vlek), before, data).is_empty());
    assert_eq!(failed(&evidence, &policy(&report, vlek), AT, data), ["snp_chain_validity"]);
    let vcek_only = policy(&report, "vmpl = [1]");
    assert_eq!(failed(&evidence, &vcek_only, before, data), ["snp_signing_key"]);
}
