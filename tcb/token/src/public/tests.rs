use serde_json::json;

use super::*;
use crate::fixtures::{jwk_with, key};

fn read(algorithm: Algorithm, changes: &[(&str, Value)]) -> Result<PublicKey, Error> {
    PublicKey::from_jwk(&jwk_with(algorithm, changes))
}

fn refused(algorithm: Algorithm, changes: &[(&str, Value)], error: &Error) {
    assert_eq!(read(algorithm, changes).as_ref(), Err(error), "{algorithm} {changes:?}");
}

/// A JWK member with its octets changed by `change`.
fn octets(algorithm: Algorithm, member: &str, change: impl FnOnce(&mut Vec<u8>)) -> Value {
    let jwk = key(algorithm).public().jwk();
    let mut octets = b64::decode(jwk[member].as_str().unwrap()).unwrap();
    change(&mut octets);
    b64::encode(&octets).into()
}

#[test]
fn jwks_round_trip() {
    for algorithm in Algorithm::ALL {
        let public = key(algorithm).public();
        let jwk = public.jwk();
        assert_eq!(jwk["alg"], algorithm.as_str());
        assert_eq!(jwk["kty"], algorithm.kty());
        assert_eq!(jwk["use"], "sig");
        assert_eq!(jwk["kid"], public.kid().to_string());
        let again = PublicKey::from_jwk(&jwk).unwrap();
        assert_eq!(&again, public);
        assert_eq!(again.jwk(), jwk);
        assert_eq!(again.raw(), public.raw());
        let signature = key(algorithm).sign(b"message").unwrap();
        assert_eq!(again.verify(b"message", &signature), Ok(()));
        assert_eq!(again.verify(b"massage", &signature), Err(Error::SignatureInvalid));
    }
}

#[test]
fn raw_keys_round_trip_except_rsa() {
    for algorithm in Algorithm::ALL {
        let public = key(algorithm).public();
        let again = PublicKey::from_raw(algorithm, public.raw());
        if algorithm.is_rsa() {
            assert_eq!(again, Err(Error::InvalidKey(algorithm)));
        } else {
            assert_eq!(again.as_ref(), Ok(public));
            assert!(PublicKey::from_raw(algorithm, public.raw().split_last().unwrap().1).is_err());
            assert!(PublicKey::from_raw(algorithm, &[]).is_err());
        }
    }
    // A compressed point is another spelling of the same key.
    let raw = key(Algorithm::Es256).public().raw();
    let compressed = [&[2 | (raw[64] & 1)], &raw[1..33]].concat();
    assert_eq!(
        PublicKey::from_raw(Algorithm::Es256, &compressed),
        Err(Error::InvalidKey(Algorithm::Es256))
    );
}

#[test]
fn canonical_members_are_sorted_and_complete() {
    let names = |algorithm| {
        let text = key(algorithm).public().canonical_jwk();
        let members: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&members).unwrap(), text);
        members.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(Algorithm::Es256), "crv kty x y");
    assert_eq!(names(Algorithm::Es384), "crv kty x y");
    assert_eq!(names(Algorithm::Ed25519), "crv kty x");
    assert_eq!(names(Algorithm::Rs256), "e kty n");
    assert_eq!(names(Algorithm::Ps256), "e kty n");
    assert_eq!(names(Algorithm::MlDsa65), "alg kty pub");
}

#[test]
fn equality_is_key_and_algorithm() {
    let rs256 = read(Algorithm::Rs256, &[]).unwrap();
    let ps256 = read(Algorithm::Rs256, &[("alg", json!("PS256"))]).unwrap();
    assert_eq!(rs256.kid(), ps256.kid());
    assert_ne!(rs256, ps256);
    assert_ne!(&rs256, key(Algorithm::Es256).public());
    assert_eq!(format!("{rs256:?}"), format!("PublicKey(RS256, {})", rs256.kid()));
}

#[test]
fn the_algorithm_is_inferred_where_the_curve_says_it() {
    for algorithm in Algorithm::ALL {
        let without = read(algorithm, &[("alg", Value::Null)]).map(|key| key.algorithm());
        let expected = match algorithm.kty() {
            "EC" | "OKP" => Ok(algorithm),
            "AKP" => Err(Error::MissingMember("alg")),
            _ => Err(Error::AlgorithmMissing),
        };
        assert_eq!(without, expected, "{algorithm}");
    }
}

#[test]
fn the_caller_can_fix_the_algorithm() {
    for algorithm in Algorithm::ALL {
        let jwk = jwk_with(algorithm, &[]);
        for fixed in Algorithm::ALL {
            let read = PublicKey::from_jwk_as(&jwk, Some(fixed)).map(|key| key.algorithm());
            if fixed == algorithm {
                assert_eq!(read, Ok(algorithm));
            } else {
                let mismatch =
                    Error::AlgorithmMismatch { expected: algorithm, found: fixed.to_string() };
                assert_eq!(read, Err(mismatch));
            }
        }
    }
    let bare = jwk_with(Algorithm::Rs256, &[("alg", Value::Null)]);
    for (fixed, expected) in [
        (Algorithm::Rs256, Ok(Algorithm::Rs256)),
        (Algorithm::Ps256, Ok(Algorithm::Ps256)),
        (
            Algorithm::Es256,
            Err(Error::AlgorithmKeyType { algorithm: Algorithm::Es256, kty: "RSA" }),
        ),
    ] {
        assert_eq!(PublicKey::from_jwk_as(&bare, Some(fixed)).map(|key| key.algorithm()), expected);
    }
}

#[test]
fn eddsa_is_an_alias_on_ed25519_keys_only() {
    let alias = read(Algorithm::Ed25519, &[("alg", json!("EdDSA"))]).unwrap();
    assert!(alias.eddsa_alias());
    assert_eq!(alias.algorithm(), Algorithm::Ed25519);
    assert_eq!(&alias, key(Algorithm::Ed25519).public());
    assert_eq!(alias.jwk()["alg"], "EdDSA");
    assert!(!key(Algorithm::Ed25519).public().eddsa_alias());
    let fixed = jwk_with(Algorithm::Ed25519, &[("alg", json!("EdDSA"))]);
    assert!(PublicKey::from_jwk_as(&fixed, Some(Algorithm::Ed25519)).unwrap().eddsa_alias());
    for other in [Algorithm::Es256, Algorithm::Rs256, Algorithm::MlDsa44] {
        refused(other, &[("alg", json!("EdDSA"))], &Error::UnknownAlgorithm("EdDSA".into()));
    }
}

#[test]
fn algorithms_and_types_must_agree() {
    let mismatch =
        |expected, found: &str| Error::AlgorithmMismatch { expected, found: found.into() };
    refused(Algorithm::Es256, &[("alg", json!("ES384"))], &mismatch(Algorithm::Es256, "ES384"));
    refused(Algorithm::Es256, &[("alg", json!("RS256"))], &mismatch(Algorithm::Es256, "RS256"));
    refused(Algorithm::Ed25519, &[("alg", json!("ES256"))], &mismatch(Algorithm::Ed25519, "ES256"));
    let key_type = |algorithm, kty| Error::AlgorithmKeyType { algorithm, kty };
    refused(Algorithm::MlDsa44, &[("alg", json!("ES256"))], &key_type(Algorithm::Es256, "AKP"));
    refused(Algorithm::Rs256, &[("alg", json!("ML-DSA-44"))], &key_type(Algorithm::MlDsa44, "RSA"));
    for alg in ["RS384", "RS1", "none", "ES512", "RSA-OAEP", ""] {
        refused(Algorithm::Rs256, &[("alg", json!(alg))], &Error::UnknownAlgorithm(alg.into()));
    }
    for crv in ["P-521", "secp256k1", "p-256", "Ed25519", "X25519", "Ed448"] {
        refused(Algorithm::Es256, &[("crv", json!(crv))], &Error::UnknownCurve(crv.into()));
    }
    for crv in ["X25519", "Ed448", "P-256"] {
        refused(Algorithm::Ed25519, &[("crv", json!(crv))], &Error::UnknownCurve(crv.into()));
    }
    for kty in ["ec", "EC2", "", "rsa"] {
        refused(Algorithm::Es256, &[("kty", json!(kty))], &Error::UnknownKeyType(kty.into()));
    }
}

#[test]
fn members_must_be_there_and_be_strings() {
    for (algorithm, members) in [
        (Algorithm::Es256, &["kty", "crv", "x", "y"][..]),
        (Algorithm::Ed25519, &["kty", "crv", "x"]),
        (Algorithm::Rs256, &["kty", "n", "e"]),
        (Algorithm::MlDsa44, &["kty", "alg", "pub"]),
    ] {
        for member in members {
            refused(algorithm, &[(member, Value::Null)], &Error::MissingMember(member));
            refused(algorithm, &[(member, json!(1))], &Error::MemberType(member));
        }
        for member in ["alg", "use", "kid", "key_ops"] {
            refused(algorithm, &[(member, json!({}))], &Error::MemberType(member));
        }
        assert!(
            read(algorithm, &[("x5c", json!(["AA"])), ("foo", json!(1)), ("kid", json!("any"))])
                .is_ok()
        );
    }
}

#[test]
fn private_and_symmetric_keys_are_refused() {
    for algorithm in Algorithm::ALL {
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"] {
            for value in [json!("AA"), json!(""), json!([]), json!(false)] {
                refused(algorithm, &[(member, value)], &Error::PrivateMember(member));
            }
        }
        refused(algorithm, &[("k", json!("AA"))], &Error::SymmetricKey);
        refused(algorithm, &[("kty", json!("oct"))], &Error::SymmetricKey);
    }
    // Before anything else is looked at: the fault to report is the published secret.
    refused(
        Algorithm::Es256,
        &[("kty", json!("XX")), ("d", json!("AA"))],
        &Error::PrivateMember("d"),
    );
}

#[test]
fn keys_for_other_purposes_are_refused() {
    let es256 = Algorithm::Es256;
    for purpose in ["enc", "SIG", "", "sig "] {
        refused(es256, &[("use", json!(purpose))], &Error::KeyUse(purpose.into()));
    }
    for operations in [
        json!([]),
        json!(["sign"]),
        json!(["encrypt"]),
        json!(["verify", "verify"]),
        json!(["Verify"]),
    ] {
        refused(es256, &[("key_ops", operations)], &Error::KeyOperations);
    }
    let many: Vec<_> = (0..17).map(|n| n.to_string()).chain(["verify".to_owned()]).collect();
    refused(es256, &[("key_ops", json!(many))], &Error::KeyOperations);
    refused(es256, &[("key_ops", json!(["verify", 1]))], &Error::MemberType("key_ops"));
    refused(es256, &[("key_ops", json!("verify"))], &Error::MemberType("key_ops"));
    assert!(read(es256, &[("key_ops", json!(["verify"])), ("use", Value::Null)]).is_ok());
    assert!(read(es256, &[("key_ops", json!(["sign", "verify"]))]).is_ok());
}

#[test]
fn ec_points_are_checked() {
    let (es256, es384) = (Algorithm::Es256, Algorithm::Es384);
    for (algorithm, len) in [(es256, 32), (es384, 48)] {
        for member in ["x", "y"] {
            let flipped = octets(algorithm, member, |octets| octets[5] ^= 1);
            refused(algorithm, &[(member, flipped)], &Error::InvalidKey(algorithm));
            let short = octets(algorithm, member, |octets| octets.truncate(len - 1));
            let wrong = |found| Error::MemberLength { member, expected: len, found };
            refused(algorithm, &[(member, short)], &wrong(len - 1));
            let padded = octets(algorithm, member, |octets| octets.insert(0, 0));
            refused(algorithm, &[(member, padded)], &wrong(len + 1));
            refused(algorithm, &[(member, json!(""))], &wrong(0));
        }
        let zero = json!(b64::encode(&vec![0; len]));
        refused(algorithm, &[("x", zero.clone()), ("y", zero)], &Error::InvalidKey(algorithm));
        let prime = json!(b64::encode(&vec![0xff; len]));
        refused(algorithm, &[("x", prime)], &Error::InvalidKey(algorithm));
    }
    refused(
        es256,
        &[("crv", json!("P-384")), ("alg", json!("ES384"))],
        &Error::MemberLength { member: "x", expected: 48, found: 32 },
    );
}

#[test]
fn spelling_of_key_members_is_canonical() {
    let es256 = Algorithm::Es256;
    let jwk = key(es256).public().jwk();
    let x = jwk["x"].as_str().unwrap();
    for spelling in
        [format!("{x}="), format!("{x}\n"), format!(" {x}"), x.replacen(&x[..1], "+", 1)]
    {
        refused(es256, &[("x", json!(spelling))], &Error::MemberEncoding("x"));
    }
    // 32 octets take 43 characters; the last one carries two bits that must be zero.
    let trailing = ["AB", "AC"].map(|end| format!("{}{end}", &x[..41]));
    refused(es256, &[("x", json!(trailing[0]))], &Error::MemberEncoding("x"));
}

#[test]
fn ed25519_keys_are_checked() {
    let ed25519 = Algorithm::Ed25519;
    let neutral = octets(ed25519, "x", |octets| {
        octets.fill(0);
        octets[0] = 1;
    });
    refused(ed25519, &[("x", neutral)], &Error::SmallOrder);
    refused(ed25519, &[("x", json!(b64::encode(&[0xff; 32])))], &Error::MemberEncoding("x"));
    for len in [0, 31, 33, 44] {
        let wrong = Error::MemberLength { member: "x", expected: 32, found: len };
        refused(ed25519, &[("x", json!(b64::encode(&vec![9; len])))], &wrong);
    }
}

#[test]
fn rsa_keys_are_checked() {
    let rs256 = Algorithm::Rs256;
    let leading_zero = octets(rs256, "n", |octets| octets.insert(0, 0));
    refused(rs256, &[("n", leading_zero)], &Error::MemberEncoding("n"));
    refused(rs256, &[("n", json!(""))], &Error::MemberEncoding("n"));
    refused(rs256, &[("e", json!("AAEAAQ"))], &Error::MemberEncoding("e"));
    refused(rs256, &[("e", json!(""))], &Error::MemberEncoding("e"));
    let even = octets(rs256, "n", |octets| *octets.last_mut().unwrap() &= 0xfe);
    refused(rs256, &[("n", even)], &Error::RsaModulus(2048));
    for (first, bits) in [(0x7f, 2047), (0x40, 2047), (0x01, 2041)] {
        let odd_length = octets(rs256, "n", |octets| octets[0] = first);
        refused(rs256, &[("n", odd_length)], &Error::RsaModulus(bits));
    }
    for (len, bits) in [(128, 1024), (255, 2040), (513, 4104), (2048, 16384)] {
        refused(rs256, &[("n", json!(b64::encode(&vec![0xff; len])))], &Error::RsaModulus(bits));
    }
    let one_bit_more = octets(rs256, "n", |octets| octets.insert(0, 1));
    refused(rs256, &[("n", one_bit_more)], &Error::RsaModulus(2049));
    for exponent in
        [&[1][..], &[3], &[0xff, 0xff], &[1, 0, 0], &[1, 0, 2], &[1, 0, 0, 0, 1], &[0xff; 40]]
    {
        refused(rs256, &[("e", json!(b64::encode(exponent)))], &Error::RsaExponent);
    }
    for exponent in [&[1, 0, 1][..], &[0xff, 0xff, 0xff, 0xff]] {
        assert!(read(rs256, &[("e", json!(b64::encode(exponent)))]).is_ok());
    }
}

#[test]
fn ml_dsa_keys_have_the_length_of_their_set() {
    for (algorithm, expected) in
        [(Algorithm::MlDsa44, 1312), (Algorithm::MlDsa65, 1952), (Algorithm::MlDsa87, 2592)]
    {
        for found in [0, 32, expected - 1, expected + 1] {
            let wrong = Error::MemberLength { member: "pub", expected, found };
            refused(algorithm, &[("pub", json!(b64::encode(&vec![1; found])))], &wrong);
        }
    }
    // The library would take a SubjectPublicKeyInfo too; a JWK holds raw octets (RFC 9964).
    let wrong = Error::MemberLength { member: "pub", expected: 1952, found: 1312 };
    refused(Algorithm::MlDsa44, &[("alg", json!("ML-DSA-65"))], &wrong);
}

#[test]
fn signatures_of_another_length_are_not_tried() {
    for algorithm in Algorithm::ALL {
        let public = key(algorithm).public();
        let good = key(algorithm).sign(b"m").unwrap();
        let expected = good.len();
        assert_eq!(algorithm.signature_len().unwrap_or(256), expected);
        for signature in [
            &[][..],
            &good[1..],
            &good[..expected - 1],
            &[&good[..], &[0]].concat(),
            &[&[0], &good[..]].concat(),
        ] {
            let wrong = Error::SignatureLength { expected, found: signature.len() };
            assert_eq!(public.verify(b"m", signature), Err(wrong));
        }
        for filler in [0, 1, 0xff] {
            assert_eq!(public.verify(b"m", &vec![filler; expected]), Err(Error::SignatureInvalid));
        }
    }
}

#[test]
fn public_keys_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(key(Algorithm::Es256).public());
}
