//! Signatures that are not the key's over this token.

use chancery_token::Algorithm;
use chancery_validate::RejectionCode::BadSignature;

use crate::corpus::Case;
use crate::draft::{Draft, by, good, key, other};

pub fn cases() -> Vec<Case> {
    [others(), altered(), shapes()].concat()
}

fn reject(draft: Draft, id: &str, reason: &str) -> Case {
    draft.rejected(BadSignature, id, reason)
}

fn others() -> Vec<Case> {
    vec![
        reject(
            good().signed_by(other(Algorithm::Es256)),
            "es256_other_key",
            "another key under the right kid",
        ),
        reject(
            by(Algorithm::Ed25519).signed_by(other(Algorithm::Ed25519)),
            "ed25519_other_key",
            "another key under the right kid",
        ),
        reject(
            by(Algorithm::Rs256).signed_by(key(Algorithm::Ps256)),
            "rs256_by_other_rsa_key",
            "another RSA key and padding, the length is right",
        ),
        reject(
            good()
                .also(crate::draft::member(other(Algorithm::Es256)).jwk())
                .signed_by(other(Algorithm::Es256)),
            "key_of_set_not_named",
            "the signature of another key of the set, which is not tried",
        ),
    ]
}

fn altered() -> Vec<Case> {
    let swap = |part: usize, from: Draft| {
        good().text(|token| {
            let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
            parts[part] = from.token().split('.').nth(part).unwrap().to_owned();
            parts.join(".")
        })
    };
    vec![
        reject(
            swap(1, good().claim("sub", "admin")),
            "payload_swapped",
            "the payload of another token",
        ),
        reject(
            swap(2, good().claim("sub", "admin")),
            "signature_swapped",
            "the signature of another token",
        ),
        reject(
            swap(0, good().header("typ", "AT+jwt")),
            "header_swapped",
            "the header of another token",
        ),
    ]
}

fn shapes() -> Vec<Case> {
    let zeros = |length: usize| move |_: Vec<u8>| vec![0; length];
    let cut = |mut signature: Vec<u8>| {
        signature.pop();
        signature
    };
    let longer = |mut signature: Vec<u8>| {
        signature.push(0);
        signature
    };
    let last_bit = |mut signature: Vec<u8>| {
        *signature.last_mut().unwrap() ^= 1;
        signature
    };
    let mut cases = vec![
        reject(
            good().signature(zeros(64)),
            "es256_zero",
            "r and s are zero, which broken libraries accept",
        ),
        reject(
            good().signature(der),
            "es256_der",
            "an ASN.1 signature (RFC 7518 section 3.4 wants r || s)",
        ),
        reject(good().signature(cut), "es256_short", "63 octets"),
        reject(good().signature(longer), "es256_long", "65 octets"),
        reject(
            good().signature(|signature| [&signature[..32], &[0xff; 32]].concat()),
            "es256_s_too_large",
            "s is not below the order of the curve",
        ),
        reject(by(Algorithm::Ed25519).signature(zeros(64)), "ed25519_zero", "64 zero octets"),
        reject(by(Algorithm::Rs256).signature(cut), "rs256_short", "255 octets"),
        reject(by(Algorithm::Rs256).signature(zeros(256)), "rs256_zero", "256 zero octets"),
        reject(by(Algorithm::MlDsa44).signature(cut), "ml_dsa_44_short", "an octet too few"),
    ];
    for algorithm in Algorithm::ALL {
        let id = format!("last_bit_{}", algorithm.as_str().to_lowercase().replace('-', "_"));
        cases.push(reject(
            by(algorithm).signature(last_bit),
            &id,
            "one bit of the signature is changed",
        ));
    }
    cases
}

/// The ASN.1 form of a P-256 signature.
fn der(signature: Vec<u8>) -> Vec<u8> {
    let integer = |octets: &[u8]| {
        let start = octets.iter().position(|octet| *octet != 0).unwrap();
        let mut value = octets[start..].to_vec();
        if value[0] >= 0x80 {
            value.insert(0, 0);
        }
        [&[2, u8::try_from(value.len()).unwrap()], value.as_slice()].concat()
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}
