//! Nitro: a production document and two of enclaves in debug mode.

use chancery_attest::{AttestationResult, Base64, Error, Evidence, Policy, appraise};

use crate::common::{assert_accepted, failed, flipped, judged, vector};

/// What is under `samples/`.
const SAMPLE: &[u8] = include_bytes!("../samples/nitro.cose");

/// A policy that takes this PCR 0.
fn policy(pcr0: &str, extra: &str) -> String {
    format!(
        r#"version = 1
kinds = ["nitro"]
[nitro]
{extra}
[[reference]]
release = "the recorded one"
kind = "nitro"
registers = {{ pcr0 = "{pcr0}" }}
"#
    )
}

fn field(evidence: &Evidence, name: &str) -> String {
    let shown = evidence.show().unwrap();
    shown.into_iter().find(|(field, _)| field == name).map(|(_, value)| value).unwrap()
}

/// The document, when it was made (seconds), its PCR 0 and its user data.
fn recorded(bytes: &[u8]) -> (Evidence, u64, String, Vec<u8>) {
    let evidence = Evidence::parse(bytes).unwrap();
    let at: u64 = field(&evidence, "nitro_timestamp_ms").parse().unwrap();
    let (pcr0, data) = (field(&evidence, "pcr0"), field(&evidence, "nitro_user_data"));
    let data = if data == "none" { vec![] } else { chancery_attest::unhex(&data).unwrap() };
    (evidence, at / 1000, pcr0, data)
}

fn names(result: &AttestationResult) -> Vec<&'static str> {
    result.checks.iter().map(|check| check.name).collect()
}

#[test]
fn the_sample_is_accepted_and_every_check_is_named() {
    let (evidence, at, pcr0, data) = recorded(SAMPLE);
    let result = judged(&evidence, &policy(&pcr0, ""), at + 1, Some(&data));
    assert_accepted(&result);
    let expected = [
        "nitro_root",
        "nitro_chain",
        "nitro_chain_validity",
        "nitro_signature",
        "nitro_digest",
        "nitro_age",
        "nitro_debug",
        "kind",
        "report_data",
        "measurements",
    ];
    assert_eq!(names(&result), expected, "a check that is left out is a hole");
}

#[test]
fn a_bit_flipped_anywhere_is_refused() {
    let (_, at, pcr0, data) = recorded(SAMPLE);
    let policy = Policy::parse(&policy(&pcr0, "")).unwrap();
    for byte in (0..SAMPLE.len()).step_by(13).chain(SAMPLE.len() - 96..SAMPLE.len()) {
        let changed = flipped(SAMPLE, byte, u8::try_from(byte % 8).unwrap());
        let document = Evidence::Nitro { document: Base64(changed) };
        match appraise(&document, &policy, at + 1, Some(&data)) {
            Err(Error::Malformed { .. }) => {}
            Err(other) => panic!("{byte}: {other}"),
            Ok(result) => {
                let reasons = ["nitro_signature", "nitro_root", "nitro_chain"];
                let right = |name: &str| reasons.contains(&name);
                let failed: Vec<_> = result.failures().map(|check| check.name).collect();
                assert!(failed.iter().any(|name| right(name)), "{byte}: {failed:?}");
            }
        }
    }
}

#[test]
fn a_document_counts_only_in_its_time() {
    let (evidence, at, pcr0, data) = recorded(SAMPLE);
    let policy = policy(&pcr0, "");
    assert!(failed(&evidence, &policy, at + 300, Some(&data)).is_empty());
    assert_eq!(failed(&evidence, &policy, at + 302, Some(&data)), ["nitro_age"]);
    let early = failed(&evidence, &policy, at - 31, Some(&data));
    assert!(early.iter().any(|name| name == "nitro_age"), "{early:?}");
    let day_later = failed(&evidence, &policy, at + 86_400, Some(&data));
    assert_eq!(day_later, ["nitro_chain_validity", "nitro_age"]);
}

#[test]
fn other_values_have_their_own_reason() {
    let (evidence, at, pcr0, data) = recorded(SAMPLE);
    let other = "ab".repeat(48);
    assert_eq!(failed(&evidence, &policy(&other, ""), at, Some(&data)), ["measurements"]);
    let longer = [&data[..], &[0]].concat();
    assert_eq!(failed(&evidence, &policy(&pcr0, ""), at, Some(&longer)), ["report_data"]);
}

/// Debug documents verify in full; only their all-zero PCRs tell.
#[test]
fn enclaves_in_debug_mode_are_refused() {
    let Some(debug) = vector("nitro/ppmag/nitro_ad_debug.bin") else { return };
    let wrapped = vector("nitro/dstack/nitro_attestation_dbg.bin").unwrap();
    // The second stands inside another encoding: cut where the COSE_Sign1 begins and ends.
    let begin = wrapped.windows(2).position(|two| two == [0x84, 0x44]).unwrap();
    let document = (begin + 1..=wrapped.len())
        .map(|end| &wrapped[begin..end])
        .find(|cut| Evidence::parse(cut).is_ok_and(|evidence| evidence.show().is_ok()))
        .unwrap();
    for document in [&debug, document] {
        let (evidence, at, pcr0, data) = recorded(document);
        assert_eq!(failed(&evidence, &policy(&pcr0, ""), at, Some(&data)), ["nitro_debug"]);
        let allowed = policy(&pcr0, "allow_debug = true");
        assert!(failed(&evidence, &allowed, at, Some(&data)).is_empty());
    }
}
