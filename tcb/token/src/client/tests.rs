use super::*;

#[test]
fn files_round_trip() {
    for algorithm in Algorithm::ALL {
        let made = ClientKey::generate(algorithm).unwrap();
        let pem = made.to_pkcs8_pem();
        let read = ClientKey::from_pkcs8_pem_as(&pem, algorithm).unwrap();
        assert_eq!(read.signing_key().public(), made.signing_key().public());
        assert_eq!(*read.to_pkcs8_pem(), *pem);
        let signature = read.signing_key().sign(b"m").unwrap();
        assert_eq!(made.signing_key().public().verify(b"m", &signature), Ok(()));

        let guessed = ClientKey::from_pkcs8_pem(&pem).unwrap();
        let expected = if algorithm.is_rsa() { Algorithm::Rs256 } else { algorithm };
        assert_eq!(guessed.signing_key().public().algorithm(), expected);
        assert_eq!(guessed.signing_key().public().kid(), made.signing_key().public().kid());
        assert_eq!(
            format!("{made:?}"),
            format!("ClientKey({})", made.signing_key().public().kid())
        );
    }
}

#[test]
fn the_layout_is_that_of_rfc_7468() {
    let pem = ClientKey::generate(Algorithm::Rs256).unwrap().to_pkcs8_pem();
    let lines: Vec<_> = pem.lines().collect();
    assert_eq!(lines.first(), Some(&BEGIN));
    assert_eq!(lines.last(), Some(&END));
    assert!(pem.ends_with("-----\n"));
    let body = &lines[1..lines.len() - 1];
    assert!(body[..body.len() - 1].iter().all(|line| line.len() == LINE_CHARS));
    assert!((1..=LINE_CHARS).contains(&body.last().unwrap().len()));
    // Exactly the room that was set aside: no reallocation left a copy behind.
    for len in 0..200 {
        let pem = encode_pem(&vec![7; len]);
        assert_eq!(pem.capacity(), pem.len());
        assert_eq!(*decode_pem(&pem).unwrap(), vec![7; len]);
    }
}

#[test]
fn what_other_tools_write_is_read() {
    // Keys that RFCs print, in the layout of other tools: line ends of two characters, version 1.
    const ED25519: &str = "-----BEGIN PRIVATE KEY-----\r\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\r\n-----END PRIVATE KEY-----\r\n";
    // The seed of RFC 8032, section 7.1, test 1; its public key is printed there.
    let key = ClientKey::from_pkcs8_pem(ED25519).unwrap();
    assert_eq!(
        key.signing_key().public().jwk()["x"],
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    );
    assert_eq!(
        key.signing_key().public().kid().to_string(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );

    // The key of RFC 7515, appendix A.3, as the Python package `cryptography` writes it.
    const ES256: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIff\nH1136cspYG6+0iY7X1fCE9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp\n7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWt\n-----END PRIVATE KEY-----\n";
    let key = ClientKey::from_pkcs8_pem(ES256).unwrap();
    assert_eq!(
        key.signing_key().public().jwk()["x"],
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
    );
}

#[test]
fn files_that_are_none() {
    let pem = ClientKey::generate(Algorithm::Es256).unwrap().to_pkcs8_pem();
    let body = pem.trim().strip_prefix(BEGIN).unwrap().strip_suffix(END).unwrap();
    for text in [
        String::new(),
        "\n".into(),
        body.into(),
        format!("{BEGIN}{body}"),
        format!("{body}{END}"),
        format!("{}{}", *pem, *pem),
        format!("subject=x\n{}", *pem),
        pem.replace("PRIVATE KEY", "EC PRIVATE KEY"),
        pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        pem.replace("PRIVATE KEY", "PUBLIC KEY"),
        format!("{BEGIN}\nProc-Type: 4,ENCRYPTED\n{body}{END}"),
        format!("{BEGIN}\nA\n{END}"),
        format!("{BEGIN}\nAB==\n{END}"),
        format!("{BEGIN}\n____\n{END}"),
    ] {
        assert_eq!(ClientKey::from_pkcs8_pem(&text).unwrap_err(), Error::Pem, "{text}");
    }
    let empty = format!("{BEGIN}\n{END}");
    assert_eq!(ClientKey::from_pkcs8_pem(&empty).unwrap_err(), Error::Pkcs8);
    let huge = "x".repeat(MAX_PEM_BYTES + 1);
    let too_large = Error::TooLarge { what: "pem file", limit: MAX_PEM_BYTES };
    assert_eq!(ClientKey::from_pkcs8_pem(&huge).unwrap_err(), too_large);
}

#[test]
fn keys_for_another_algorithm_are_refused() {
    let pem = ClientKey::generate(Algorithm::Es256).unwrap().to_pkcs8_pem();
    for other in Algorithm::ALL.into_iter().filter(|other| *other != Algorithm::Es256) {
        assert_eq!(ClientKey::from_pkcs8_pem_as(&pem, other).unwrap_err(), Error::Pkcs8, "{other}");
    }
}

#[test]
fn a_truncated_key_is_refused() {
    for algorithm in [Algorithm::Es256, Algorithm::Ed25519, Algorithm::MlDsa44] {
        let key = ClientKey::generate(algorithm).unwrap();
        for len in 0..key.pkcs8.len() {
            let pem = encode_pem(&key.pkcs8[..len]);
            assert_eq!(
                ClientKey::from_pkcs8_pem(&pem).unwrap_err(),
                Error::Pkcs8,
                "{algorithm} {len}"
            );
        }
    }
}
