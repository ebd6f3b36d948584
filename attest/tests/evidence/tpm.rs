//! TPM quotes by keys that the policy names: signed here, with the layout of a TPM's own.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use chancery_attest::{Backing, Base64, Evidence, Hex, TpmQuote};

use crate::common::{assert_accepted, failed, judged};

const NONCE: &[u8] = b"a nonce of the verifier";

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// TPMS_ATTEST over these PCRs of the SHA-256 bank.
fn message(pcrs: &BTreeMap<u8, Hex>, select: &[u8], bank: u16) -> Vec<u8> {
    let values: Vec<u8> = pcrs.values().flat_map(|value| value.0.clone()).collect();
    let mut message = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18];
    message.extend(sized(&[0, 11, 1, 2, 3]));
    message.extend(sized(NONCE));
    message.extend(7u64.to_be_bytes());
    message.extend(1u32.to_be_bytes());
    message.extend(2u32.to_be_bytes());
    message.push(1);
    message.extend(9u64.to_be_bytes());
    message.extend(1u32.to_be_bytes());
    message.extend(bank.to_be_bytes());
    message.push(u8::try_from(select.len()).unwrap());
    message.extend(select);
    message.extend(sized(digest(&SHA256, &values).as_ref()));
    message
}

fn pcrs() -> BTreeMap<u8, Hex> {
    BTreeMap::from([(0, Hex(vec![1; 32])), (4, Hex(vec![2; 32])), (9, Hex(vec![3; 32]))])
}

/// PCRs 0, 4 and 9.
const SELECT: &[u8] = &[0x11, 0x02, 0x00];

struct Signed {
    evidence: Evidence,
    policy: String,
}

fn signed(message: &[u8], signature: Vec<u8>, key: &[u8]) -> Signed {
    let evidence = Evidence::Tpm {
        tpm_quote: TpmQuote {
            message: Base64(message.to_vec()),
            signature: Base64(signature),
            pcrs: pcrs(),
        },
        attestation_key: Base64(key.to_vec()),
    };
    let fingerprint: String =
        digest(&SHA256, key).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let policy = format!(
        r#"version = 1
kinds = ["tpm"]
[tpm]
selection = [0, 4, 9]
attestation_keys = ["{fingerprint}"]
[[reference]]
release = "the image"
kind = "tpm"
registers = {{ pcr4 = "{}" }}
"#,
        "02".repeat(32)
    );
    Signed { evidence, policy }
}

fn by_p256(message: &[u8]) -> Signed {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let both = key.sign(&SystemRandom::new(), message).unwrap();
    let (r, s) = both.as_ref().split_at(32);
    // A TPM leaves leading zeros out.
    let short =
        |scalar: &[u8]| sized(&scalar[scalar.iter().position(|byte| *byte != 0).unwrap_or(0)..]);
    let signature = [&[0, 0x18, 0, 0x0b][..], &short(r), &short(s)].concat();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    signed(message, signature, public.as_ref())
}

fn by_rsa(message: &[u8]) -> Signed {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
    let pair = RsaKeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    let signature = [&[0, 0x14, 0, 0x0b][..], &sized(&signature)].concat();
    signed(message, signature, public.as_ref())
}

#[test]
fn quotes_of_both_key_types_are_accepted() {
    let message = message(&pcrs(), SELECT, 0x0b);
    for Signed { evidence, policy } in [by_p256(&message), by_rsa(&message)] {
        let result = judged(&evidence, &policy, 0, Some(NONCE));
        assert_accepted(&result);
        assert_eq!(result.backing, Backing::MeasuredBoot, "a TPM is no confidential hardware");
        let names: Vec<&str> = result.checks.iter().map(|check| check.name).collect();
        let expected = [
            "tpm_attestation_key",
            "tpm_quote_signature",
            "tpm_pcr_selection",
            "tpm_pcr_digest",
            "kind",
            "report_data",
            "measurements",
        ];
        assert_eq!(names, expected, "a check that is left out is a hole");
    }
}

#[test]
fn a_key_that_the_policy_does_not_name_is_refused() {
    let message = message(&pcrs(), SELECT, 0x0b);
    let (one, two) = (by_p256(&message), by_p256(&message));
    assert_eq!(failed(&one.evidence, &two.policy, 0, Some(NONCE)), ["tpm_attestation_key"]);
}

/// A genuine signature over fewer, other or more PCRs, or over another bank.
#[test]
fn another_selection_is_refused_although_its_digest_fits() {
    for (select, bank) in [
        (&[0x01u8, 0, 0][..], 0x0b),
        (&[0x11, 0x03, 0], 0x0b),
        (&[0x11, 0x02, 0x80], 0x0b),
        (SELECT, 0x0c),
        (SELECT, 0x04),
    ] {
        let mut covered = pcrs();
        if select.first() == Some(&1) {
            covered.retain(|number, _| *number == 0);
        }
        let Signed { evidence, policy } = by_p256(&message(&covered, select, bank));
        let failures = failed(&evidence, &policy, 0, Some(NONCE));
        assert!(failures.contains(&"tpm_pcr_selection".to_owned()), "{select:?}: {failures:?}");
        assert!(!failures.contains(&"tpm_quote_signature".to_owned()));
    }
}

#[test]
fn a_message_that_is_no_quote_is_refused() {
    for (byte, bit) in [(0, 0), (4, 0), (5, 1)] {
        let mut message = message(&pcrs(), SELECT, 0x0b);
        message[byte] ^= 1 << bit;
        let Signed { evidence, policy } = by_p256(&message);
        assert_eq!(failed(&evidence, &policy, 0, Some(NONCE)), ["malformed"]);
    }
    let mut longer = message(&pcrs(), SELECT, 0x0b);
    longer.push(0);
    let Signed { evidence, policy } = by_p256(&longer);
    assert_eq!(failed(&evidence, &policy, 0, Some(NONCE)), ["malformed"]);
}

#[test]
fn pcr_values_and_nonce_count_whole() {
    let Signed { evidence, policy } = by_p256(&message(&pcrs(), SELECT, 0x0b));
    let Evidence::Tpm { tpm_quote, attestation_key } = evidence.clone() else { unreachable!() };
    let with = |pcr: u8, value: Vec<u8>| {
        let mut tpm_quote = tpm_quote.clone();
        tpm_quote.pcrs.insert(pcr, Hex(value));
        Evidence::Tpm { tpm_quote, attestation_key: attestation_key.clone() }
    };
    assert!(failed(&with(23, vec![9; 32]), &policy, 0, Some(NONCE)).is_empty(), "not selected");
    let failures = ["tpm_pcr_digest", "measurements"];
    assert_eq!(failed(&with(0, vec![9; 32]), &policy, 0, Some(NONCE)), failures);
    // Two values that run together as before have the same digest.
    let mut shifted = with(0, vec![1; 31]);
    if let Evidence::Tpm { tpm_quote, .. } = &mut shifted {
        tpm_quote.pcrs.insert(4, Hex([vec![1], vec![2; 32]].concat()));
    }
    assert_eq!(failed(&shifted, &policy, 0, Some(NONCE)), failures);
    assert_eq!(failed(&evidence, &policy, 0, Some(&NONCE[1..])), ["report_data"]);
}

#[test]
fn the_document_comes_back_as_it_was() {
    let Signed { evidence, .. } = by_p256(&message(&pcrs(), SELECT, 0x0b));
    let text = evidence.to_json().to_string();
    assert_eq!(Evidence::parse(text.as_bytes()), Ok(evidence));
    for (old, new) in [("\"9\":", "\"4\":"), ("\"9\":", "\"09\":"), ("\"9\":", "\"x\":")] {
        let error = Evidence::parse(text.replace(old, new).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("is no PCR number, or is there twice"), "{error}");
    }
}
