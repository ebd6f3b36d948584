use super::*;
use crate::fixtures::key;

#[test]
fn every_algorithm_signs_what_its_public_half_verifies() {
    for algorithm in Algorithm::ALL {
        let key = key(algorithm);
        assert_eq!(key.public().algorithm(), algorithm);
        for message in [&b""[..], b"m", &[7; 10_000]] {
            let signature = key.sign(message).unwrap();
            assert_eq!(key.public().verify(message, &signature), Ok(()), "{algorithm}");
            assert_eq!(
                key.public().verify(b"other", &signature),
                Err(Error::SignatureInvalid),
                "{algorithm}"
            );
        }
    }
}

#[test]
fn keys_differ() {
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_rsa()) {
        let other = SigningKey::generate(algorithm, RsaBits::B2048).unwrap();
        let key = key(algorithm);
        assert_ne!(other.public().kid(), key.public().kid());
        let signature = other.sign(b"m").unwrap();
        assert_eq!(key.public().verify(b"m", &signature), Err(Error::SignatureInvalid));
    }
}

#[test]
fn rsa_keys_have_the_size_asked_for() {
    // 4096 bits would take seconds; the mapping is the same code.
    let key = SigningKey::generate(Algorithm::Ps256, RsaBits::B3072).unwrap();
    assert_eq!(key.sign(b"m").unwrap().len(), 384);
    assert_eq!(key_size(RsaBits::B4096).len(), 512);
    assert_eq!(key.public().jwk()["e"], "AQAB");
}

#[test]
fn debug_shows_the_key_id_only() {
    for algorithm in Algorithm::ALL {
        let key = key(algorithm);
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.public().kid()));
    }
}

#[test]
fn signing_keys_move_between_threads() {
    fn send<T: Send>(_: &T) {}
    send(key(Algorithm::Rs256));
}

#[test]
fn public_keys_in_der_are_read_exactly() {
    let der = [0x30, 0x0a, 0x02, 0x03, 0x00, 0xff, 0x01, 0x02, 0x03, 0x01, 0x00, 0x01];
    assert_eq!(rsa_components(&der), Some((&[0xff, 0x01][..], &[1, 0, 1][..])));
    let long_form = [&[0x30, 0x81, 0x0a], &der[2..]].concat();
    assert_eq!(rsa_components(&long_form), rsa_components(&der));
    for cut in 0..der.len() {
        assert_eq!(rsa_components(&der[..cut]), None);
    }
    for broken in [
        [&der[..], &[0]].concat(),
        vec![0x31, 0x00],
        vec![0x30, 0x80],
        vec![0x30, 0x83, 0, 0, 0],
        vec![0x30, 0x82, 0xff, 0xff],
        vec![0x30, 0x03, 0x02, 0x01, 0x05],
    ] {
        assert_eq!(rsa_components(&broken), None, "{broken:02x?}");
    }
}
