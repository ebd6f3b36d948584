//! TDX: a quote with the collateral of its platform and time.

use chancery_attest::{Base64, Collateral, Evidence};

use crate::common::{assert_accepted, failed, flipped, judged, vector};

/// 2025-06-20: inside the times of the collateral.
const AT: u64 = 1_750_400_000;
const HEADER: usize = 48;
const MRTD: std::ops::Range<usize> = HEADER + 136..HEADER + 184;
const REPORT_DATA: std::ops::Range<usize> = HEADER + 520..HEADER + 584;

fn policy(quote: &[u8], extra: &str) -> String {
    let mrtd: String = quote[MRTD].iter().map(|b| format!("{b:02x}")).collect();
    format!(
        r#"version = 1
kinds = ["tdx"]
[[reference]]
release = "the recorded one"
kind = "tdx"
registers = {{ mrtd = "{mrtd}" }}
[tdx]
{extra}
"#
    )
}

fn recorded(name: &str) -> Option<(Vec<u8>, Collateral)> {
    let quote = vector(&format!("tdx/dcap-qvl/{name}"))?;
    let collateral = vector(&format!("tdx/dcap-qvl/{name}_collateral.json")).unwrap();
    Some((quote, serde_json::from_slice(&collateral).unwrap()))
}

fn evidence(quote: &[u8], collateral: &Collateral) -> Evidence {
    Evidence::Tdx { quote: Base64(quote.to_vec()), collateral: Some(collateral.clone()) }
}

#[test]
fn the_recorded_quote_is_accepted_and_every_check_is_named() {
    let Some((quote, collateral)) = recorded("tdx_quote") else { return };
    let data = Some(&quote[REPORT_DATA]);
    let result = judged(&evidence(&quote, &collateral), &policy(&quote, ""), AT, data);
    assert_accepted(&result);
    let names: Vec<&str> = result.checks.iter().map(|check| check.name).collect();
    let expected = [
        "tdx_pck_chain",
        "tdx_pck_chain_validity",
        "tdx_pck_chain_revocation",
        "tdx_qe_report_signature",
        "tdx_attestation_key",
        "tdx_quote_signature",
        "tdx_tcb_info_chain",
        "tdx_tcb_info_chain_validity",
        "tdx_tcb_info_chain_revocation",
        "tdx_tcb_info_signature",
        "tdx_tcb_info_time",
        "tdx_qe_identity_chain",
        "tdx_qe_identity_chain_validity",
        "tdx_qe_identity_chain_revocation",
        "tdx_qe_identity_signature",
        "tdx_qe_identity_time",
        "tdx_statements",
        "tdx_platform",
        "tdx_tcb_evaluation_number",
        "tdx_module",
        "tdx_quoting_enclave",
        "tdx_tcb_status",
        "tdx_advisories",
        "tdx_debug",
        "tdx_migratable",
        "tdx_sept_ve_disable",
        "kind",
        "report_data",
        "measurements",
    ];
    assert_eq!(names, expected, "a check that is left out is a hole");
}

#[test]
fn a_bit_flipped_in_the_quote_is_refused() {
    let Some((quote, collateral)) = recorded("tdx_quote") else { return };
    let policy = policy(&quote, "");
    let data = Some(&quote[REPORT_DATA]);
    let reasons = [
        "tdx_quote_signature",
        "tdx_qe_report_signature",
        "tdx_attestation_key",
        "tdx_pck_chain",
        "malformed",
    ];
    // Header, body, signature, key, enclave report and its signature; then the enclave's own data.
    let end = HEADER + 584 + 4 + 128 + 6 + 384 + 64 + 2 + 32;
    for byte in (0..end).step_by(17) {
        let changed = flipped(&quote, byte, u8::try_from(byte % 8).unwrap());
        let failures = failed(&evidence(&changed, &collateral), &policy, AT, data);
        let right = |name: &String| reasons.contains(&name.as_str());
        assert!(failures.iter().any(right), "{byte}: {failures:?}");
    }
}

#[test]
fn each_field_has_its_own_reason() {
    let Some((quote, collateral)) = recorded("tdx_quote") else { return };
    let data = Some(&quote[REPORT_DATA]);
    let cases = [
        (HEADER + 120, 0, "tdx_debug"),
        (HEADER + 123, 4, "tdx_sept_ve_disable"),
        (HEADER + 123, 5, "tdx_migratable"),
        (HEADER + 64, 0, "tdx_module"),
        (HEADER + 112, 0, "tdx_module"),
        (HEADER + 136, 0, "measurements"),
        (HEADER + 583, 7, "report_data"),
    ];
    for (byte, bit, reason) in cases {
        let changed = flipped(&quote, byte, bit);
        let failures = failed(&evidence(&changed, &collateral), &policy(&quote, ""), AT, data);
        assert!(failures.iter().any(|name| name == reason), "{byte}: {reason}: {failures:?}");
    }
}

#[test]
fn the_collateral_counts_only_in_its_time() {
    let Some((quote, collateral)) = recorded("tdx_quote") else { return };
    let evidence = evidence(&quote, &collateral);
    let data = Some(&quote[REPORT_DATA]);
    let late = failed(&evidence, &policy(&quote, ""), 1_795_000_000, data);
    for reason in ["tdx_pck_chain_revocation", "tdx_tcb_info_time", "tdx_qe_identity_time"] {
        assert!(late.iter().any(|name| name == reason), "{reason}: {late:?}");
    }
    let early = failed(&evidence, &policy(&quote, ""), AT - 31_536_000, data);
    for reason in ["tdx_pck_chain_revocation", "tdx_tcb_info_time", "tdx_qe_identity_time"] {
        assert!(early.iter().any(|name| name == reason), "{reason}: {early:?}");
    }
}

#[test]
fn every_part_of_the_collateral_is_verified() {
    let Some((quote, good)) = recorded("tdx_quote") else { return };
    let policy = policy(&quote, "");
    let data = Some(&quote[REPORT_DATA]);
    type Change = fn(&mut Collateral);
    let cases: [(&str, Change); 7] = [
        ("tdx_tcb_info_signature", |c| {
            c.tcb_info = c.tcb_info.replacen("OutOfDate", "UpToDate", 1)
        }),
        ("tdx_tcb_info_signature", |c| c.tcb_info_signature.0[3] ^= 1),
        ("tdx_qe_identity_signature", |c| c.qe_identity = c.qe_identity.replacen("00", "01", 1)),
        ("tdx_qe_identity_signature", |c| c.qe_identity_signature.0[60] ^= 1),
        ("tdx_pck_chain_revocation", |c| {
            let last = c.pck_crl.0.len() - 1;
            c.pck_crl.0[last] ^= 1;
        }),
        ("tdx_tcb_info_chain_revocation", |c| {
            let last = c.root_ca_crl.0.len() - 1;
            c.root_ca_crl.0[last] ^= 1;
        }),
        // The chain of a platform's own authority must not sign statements.
        ("tdx_tcb_info_signature", |c| c.tcb_info_issuer_chain = c.pck_crl_issuer_chain.clone()),
    ];
    for (reason, change) in cases {
        let mut collateral = good.clone();
        change(&mut collateral);
        let failures = failed(&evidence(&quote, &collateral), &policy, AT, data);
        assert!(failures.iter().any(|name| name == reason), "{reason}: {failures:?}");
    }
}

#[test]
fn the_policy_decides_on_the_platform() {
    let Some((quote, collateral)) = recorded("tdx_quote") else { return };
    let evidence = evidence(&quote, &collateral);
    let data = Some(&quote[REPORT_DATA]);
    let statuses = policy(&quote, "tcb_statuses = [\"OutOfDate\"]");
    assert_eq!(failed(&evidence, &statuses, AT, data), ["tdx_tcb_status"]);
    let newer = policy(&quote, "minimum_tcb_evaluation_number = 18");
    assert_eq!(failed(&evidence, &newer, AT, data), ["tdx_tcb_evaluation_number"]);
}

/// A quote of version 5 with a body of TDX 1.5, genuine, of a platform below every level.
#[test]
fn a_platform_at_no_level_is_refused() {
    let Some((quote, collateral)) = recorded("tdx_quote_outdated") else { return };
    let body = &quote[6..];
    let policy = policy(body, "");
    let evidence = evidence(&quote, &collateral);
    let failures = failed(&evidence, &policy, 1_771_500_000, Some(&body[REPORT_DATA]));
    assert_eq!(failures, ["tdx_tcb_status"]);
}

#[test]
fn collateral_of_another_platform_is_refused() {
    let Some((quote, _)) = recorded("tdx_quote") else { return };
    let (_, other) = recorded("tdx_quote_outdated").unwrap();
    let data = Some(&quote[REPORT_DATA]);
    let failures = failed(&evidence(&quote, &other), &policy(&quote, ""), 1_771_500_000, data);
    assert!(failures.iter().any(|name| name == "tdx_platform"), "{failures:?}");
}

#[test]
fn quotes_of_other_shapes_are_read() {
    for file in [
        "go-tdx-guest/cos-113-tdx-quote.dat",
        "trustee/tdx_quote_4.dat",
        "trustee/tdx_quote_5.dat",
        "trustee/tdx_quote_6.dat",
    ] {
        let Some(quote) = vector(&format!("tdx/{file}")) else { return };
        let evidence = Evidence::parse(&quote).unwrap();
        assert!(evidence.show().unwrap().len() > 15, "{file}");
        assert_eq!(failed(&evidence, &policy(&quote, ""), AT, None), ["missing"]);
    }
    let trailing = vector("tdx/go-tdx-guest/tdx_prod_quote_SPR_E4.dat").unwrap();
    assert!(Evidence::parse(&trailing).unwrap().show().is_err(), "text follows its end");
}
