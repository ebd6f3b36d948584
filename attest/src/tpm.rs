//! TPM 2.0 quotes: alone, by a key that the policy names, and as a part of Azure's evidence.
//!
//! A quote's digest alone is worth nothing: whoever may ask for quotes may ask for one over a PCR
//! that he can set. So the selection is compared whole.

mod quote;

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use toml::Spanned;

use crate::bytes::{Hex, hex};
use crate::error::Error;
use crate::evidence::TpmQuote;
use crate::policy::{Policy, TpmPolicy};
use crate::result::{Appraisal, Observed};
use crate::x509::{TpmKey, parse_spki, tpm_key};
use quote::{Quote, SHA256, Signature};

/// What verifies a quote.
pub(crate) enum AttestationKey {
    /// Modulus and exponent, big-endian, with a bare RSASSA signature: Azure's vTPM.
    RsaParts {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// A key with a TPMT_SIGNATURE.
    Tpm(TpmKey),
}

impl AttestationKey {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> Result<bool, Error> {
        Ok(match self {
            Self::RsaParts { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Self::Tpm(key) => match (key, Signature::parse(signature)?) {
                (TpmKey::Rsa(key), Signature::Rsassa(signature)) => {
                    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
                    key.verify(message, &signature).is_ok()
                }
                (TpmKey::P256(key), Signature::Ecdsa(r, s)) => {
                    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
                    let signature = Signature::p256(&r, &s);
                    signature.is_some_and(|signature| key.verify(message, &signature).is_ok())
                }
                _ => false,
            },
        })
    }
}

/// Judges a quote by a key of the policy.
pub(crate) fn judge(
    a: &mut Appraisal,
    policy: &Policy,
    quote: &TpmQuote,
    attestation_key: &[u8],
) -> Result<Observed, Error> {
    let spki = parse_spki(attestation_key)?;
    let fingerprint = digest::digest(&digest::SHA256, attestation_key).as_ref().to_vec();
    let known = policy.tpm.attestation_keys.contains(&Hex(fingerprint.clone()));
    a.check("tpm_attestation_key", known, hex(&fingerprint));
    let key = tpm_key(&spki)
        .ok_or_else(|| Error::malformed("attestation key", "it is neither RSA nor on P-256"))?;
    judge_quote(a, &policy.tpm, quote, &AttestationKey::Tpm(key))
}

/// Judges a quote by a key that the caller trusts: signature, selection, digest.
pub(crate) fn judge_quote(
    a: &mut Appraisal,
    policy: &TpmPolicy,
    evidence: &TpmQuote,
    key: &AttestationKey,
) -> Result<Observed, Error> {
    let quote = Quote::parse(&evidence.message.0)?;
    a.claim("tpm_firmware", format!("{:#x}", quote.firmware));
    a.claim("tpm_clock_ms", quote.clock_ms);
    a.claim("tpm_reset_count", quote.reset_count);
    a.claim("tpm_restart_count", quote.restart_count);
    a.claim("tpm_qualified_signer", hex(&quote.qualified_signer));

    let signed = key.verifies(&evidence.message.0, &evidence.signature.0)?;
    a.check("tpm_quote_signature", signed, if signed { "by the key" } else { "wrong" });
    let expected = policy.selection.as_ref().map(Spanned::get_ref);
    let selected = check_selection(a, &quote, expected);
    let registers = check_digest(a, &quote, &selected, &evidence.pcrs);
    Ok(Observed { registers, report_data: quote.extra_data })
}

/// The quote must select exactly the policy's PCRs, of the SHA-256 bank, once.
fn check_selection(
    a: &mut Appraisal,
    quote: &Quote,
    expected: Option<&BTreeSet<u8>>,
) -> BTreeSet<u8> {
    let one = match &*quote.selections {
        [(SHA256, numbers)] => Ok(numbers.clone()),
        [(bank, _)] => Err(format!("bank {bank:#x}, expected SHA-256")),
        banks => Err(format!("{} banks, expected SHA-256 alone", banks.len())),
    };
    let selected = one.clone().unwrap_or_default();
    let outcome = one.and_then(|numbers| match expected {
        Some(expected) if *expected == numbers => Ok(list(&numbers)),
        Some(expected) => Err(format!("PCRs {}, expected {}", list(&numbers), list(expected))),
        None => Err("the policy has no `selection`".to_owned()),
    });
    a.outcome("tpm_pcr_selection", outcome);
    selected
}

/// The digest is over the values of the selected PCRs in ascending order. Only these are registers:
/// nothing vouches for the others.
fn check_digest(
    a: &mut Appraisal,
    quote: &Quote,
    selected: &BTreeSet<u8>,
    pcrs: &BTreeMap<u8, Hex>,
) -> BTreeMap<String, Vec<u8>> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut registers = BTreeMap::new();
    let mut missing = None;
    for number in selected {
        // A value of another length would let two lists of values have one digest.
        let Some(value) = pcrs.get(number).filter(|value| value.0.len() == 32) else {
            missing = Some(*number);
            continue;
        };
        context.update(&value.0);
        registers.insert(format!("pcr{number}"), value.0.clone());
    }
    let computed = context.finish();
    let outcome = match missing {
        Some(number) => Err(format!("the evidence lacks the value of PCR {number}")),
        None if computed.as_ref() == quote.pcr_digest => Ok(hex(&quote.pcr_digest)),
        None => {
            let (quoted, computed) = (hex(&quote.pcr_digest), hex(computed.as_ref()));
            Err(format!("`{quoted}`, the values have `{computed}`"))
        }
    };
    if a.outcome("tpm_pcr_digest", outcome) { registers } else { BTreeMap::new() }
}

fn list(numbers: &BTreeSet<u8>) -> String {
    numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

/// The fields of a quote, nothing verified.
pub(crate) fn show(evidence: &TpmQuote) -> Result<Vec<(String, String)>, Error> {
    let quote = Quote::parse(&evidence.message.0)?;
    let field = |name: &str, value: String| (name.to_owned(), value);
    let mut shown = vec![
        field("tpm_extra_data", hex(&quote.extra_data)),
        field("tpm_qualified_signer", hex(&quote.qualified_signer)),
        field("tpm_clock_ms", quote.clock_ms.to_string()),
        field("tpm_reset_count", quote.reset_count.to_string()),
        field("tpm_firmware", format!("{:#x}", quote.firmware)),
        field("tpm_pcr_digest", hex(&quote.pcr_digest)),
    ];
    for (bank, numbers) in &quote.selections {
        shown.push(field("tpm_selection", format!("bank {bank:#x}, PCRs {}", list(numbers))));
    }
    for (number, value) in &evidence.pcrs {
        shown.push((format!("pcr{number}"), hex(&value.0)));
    }
    Ok(shown)
}
