//! AWS Nitro enclaves: one signed document with its chain.

mod document;

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::bytes::hex;
use crate::error::Error;
use crate::policy::Policy;
use crate::result::{Appraisal, Observed};
use crate::roots;
use crate::x509::{Cert, ChainNames, check_chain, pinned};
use document::Document;

const CHAIN: ChainNames =
    ChainNames { links: "nitro_chain", validity: "nitro_chain_validity", revocation: "" };
/// Clocks of the hypervisor and of the verifier may differ by this many seconds.
const SKEW_S: u64 = 30;
/// The PCRs that describe the enclave image; all zero in debug mode.
const IMAGE_PCRS: std::ops::RangeInclusive<u8> = 0..=2;

/// Whether these bytes begin like a document.
pub(crate) fn is_document(bytes: &[u8]) -> bool {
    let array = bytes.strip_prefix(&[0xd2]).unwrap_or(bytes);
    let protected = array.strip_prefix(&[0x84, 0x44]);
    protected.is_some_and(|rest| rest.starts_with(&document::PROTECTED_ES384))
}

/// Judges a document.
pub(crate) fn judge(a: &mut Appraisal, policy: &Policy, bytes: &[u8]) -> Result<Observed, Error> {
    let document = Document::parse(bytes)?;
    a.claim("nitro_module_id", &document.module_id);
    a.claim("nitro_timestamp_ms", document.timestamp_ms);
    for (name, value) in
        [("nitro_public_key", &document.public_key), ("nitro_nonce", &document.nonce)]
    {
        if let Some(value) = value {
            a.claim(name, hex(value));
        }
    }

    let leaf = Cert::parse(&document.certificate)?;
    check_root(a, &document)?;
    let authorities = document.cabundle.iter().skip(1).rev();
    let authorities = authorities.map(|der| Cert::parse(der)).collect::<Result<Vec<_>, _>>()?;
    let root = pinned(roots::AWS_NITRO)?;
    let chain: Vec<&Cert> =
        std::iter::once(&leaf).chain(&authorities).chain(std::iter::once(&root)).collect();
    check_chain(a, &CHAIN, &chain, &[], None);

    let signed = leaf.key().p384().is_some_and(|key| {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key);
        key.verify(&document.signed, &document.signature).is_ok()
    });
    a.check("nitro_signature", signed, leaf.common_name());
    a.check("nitro_digest", document.digest == "SHA384", &document.digest);
    check_age(a, policy, document.timestamp_ms);
    check_debug(a, policy, &document);

    let registers = document.pcrs.iter().map(|(n, value)| (format!("pcr{n}"), value.clone()));
    let report_data = document.user_data.clone().unwrap_or_default();
    Ok(Observed { registers: registers.collect(), report_data })
}

/// The document brings its own root: it must be the pinned one, byte for byte.
fn check_root(a: &mut Appraisal, document: &Document) -> Result<(), Error> {
    let root = pinned(roots::AWS_NITRO)?;
    let given = document.cabundle.first().map(Vec::as_slice);
    let value = if given == Some(root.der()) { "the pinned one" } else { "another one" };
    a.check("nitro_root", given == Some(root.der()), value);
    Ok(())
}

fn check_age(a: &mut Appraisal, policy: &Policy, timestamp_ms: u64) {
    let (at, made) = (a.at(), timestamp_ms / 1000);
    let outcome = if made > at.saturating_add(SKEW_S) {
        Err(format!("made at {made}, judged at {at}: it is from the future"))
    } else {
        let (age, most) = (at.saturating_sub(made), policy.freshness.max_age_s);
        if age > most {
            Err(format!("{age} s old, at most {most} s are accepted"))
        } else {
            Ok(format!("{age} s old"))
        }
    };
    a.outcome("nitro_age", outcome);
}

fn check_debug(a: &mut Appraisal, policy: &Policy, document: &Document) {
    let is_zero = |number: u8| {
        document.pcrs.get(&number).is_none_or(|value| value.iter().all(|byte| *byte == 0))
    };
    let zero: Vec<String> =
        IMAGE_PCRS.filter(|n| is_zero(*n)).map(|n| format!("PCR {n}")).collect();
    let passed = zero.is_empty() || policy.nitro.allow_debug;
    let value = if zero.is_empty() {
        "off".to_owned()
    } else {
        format!("on, or a broken image: all-zero or absent: {}", zero.join(", "))
    };
    a.check("nitro_debug", passed, value);
}

/// The fields of a document, nothing verified.
pub(crate) fn show(bytes: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let document = Document::parse(bytes)?;
    let mut shown = vec![
        ("nitro_module_id".to_owned(), document.module_id),
        ("nitro_timestamp_ms".to_owned(), document.timestamp_ms.to_string()),
        ("nitro_digest".to_owned(), document.digest),
    ];
    let optional = BTreeMap::from([
        ("nitro_public_key", document.public_key),
        ("nitro_user_data", document.user_data),
        ("nitro_nonce", document.nonce),
    ]);
    for (name, value) in optional {
        let value = value.map_or("none".to_owned(), |value| hex(&value));
        shown.push((name.to_owned(), value));
    }
    for (number, value) in document.pcrs {
        shown.push((format!("pcr{number}"), hex(&value)));
    }
    for der in document.cabundle.iter().chain(std::iter::once(&document.certificate)) {
        shown.push(("certificate".to_owned(), Cert::parse(der)?.common_name()));
    }
    Ok(shown)
}
