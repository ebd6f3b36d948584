use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures::{jwk_with, key};

const PAYLOAD: &[u8] =
    br#"{"iss":"https://issuer.example/consumers","aud":"https://api.example","iat":1767225600}"#;

fn token(algorithm: Algorithm) -> String {
    let key = key(algorithm);
    let input = signing_input(algorithm, "at+jwt", &key.public().kid(), PAYLOAD);
    let signature = key.sign(input.as_bytes()).unwrap();
    assemble(input, &signature)
}

/// A token with this header text and a payload and signature that parse.
fn with_header(header: &str) -> String {
    format!("{}.e30.AAAA", b64::encode(header.as_bytes()))
}

fn parsed(token: &str) -> Result<Compact<'_>, Error> {
    parse(token, MAX_TOKEN_BYTES)
}

#[test]
fn what_is_written_is_read_and_verifies() {
    for algorithm in Algorithm::ALL {
        let public = key(algorithm).public();
        let token = token(algorithm);
        let compact = parsed(&token).unwrap();
        assert_eq!(compact.payload, PAYLOAD);
        assert_eq!(
            *compact.header,
            Header {
                alg: algorithm.to_string(),
                typ: Some("at+jwt".into()),
                kid: Some(public.kid().to_string()),
            }
        );
        assert_eq!(verify(&compact, public, false), Ok(()));
        assert_eq!(token.rsplit_once('.').unwrap().0, compact.signing_input);
    }
}

#[test]
fn a_known_header_is_not_read_again() {
    let token = token(Algorithm::Es256);
    let read = parsed(&token).unwrap();
    let known = |encoded: &str| {
        assert_eq!(encoded, token.split('.').next().unwrap());
        Some(Arc::clone(&read.header))
    };
    let again = parse_with(&token, MAX_TOKEN_BYTES, known, b64::decode).unwrap();
    assert!(Arc::ptr_eq(&again.header, &read.header));
    assert_eq!(again, read);
    assert_eq!(Header::parse(token.split('.').next().unwrap()), Ok((*read.header).clone()));
    let long = Error::TooLarge { what: "jws header", limit: MAX_HEADER_BYTES };
    assert_eq!(Header::parse(&"A".repeat(MAX_HEADER_BYTES + 1)), Err(long));
}

#[test]
fn the_header_is_exact() {
    let kid = KeyId::from_bytes([0; 32]);
    let header = encode_header(Algorithm::MlDsa44, "at+jwt", &kid);
    let text = String::from_utf8(b64::decode(&header).unwrap()).unwrap();
    assert_eq!(text, format!(r#"{{"alg":"ML-DSA-44","typ":"at+jwt","kid":"{}"}}"#, "A".repeat(43)));
    assert_eq!(
        signing_input_with(&header, b"{}"),
        signing_input(Algorithm::MlDsa44, "at+jwt", &kid, b"{}")
    );
    assert_eq!(signing_input_with("h", b"{}"), "h.e30");
    assert_eq!(assemble("h.e30".into(), &[0]), "h.e30.AA");
}

#[test]
fn a_type_cannot_break_out_of_the_header() {
    let kid = KeyId::from_bytes([0; 32]);
    for typ in ["a\",\"alg\":\"none", "\\", "\u{0}\n", "ü"] {
        let header = encode_header(Algorithm::Es256, typ, &kid);
        let token = format!("{header}.e30.AAAA");
        assert_eq!(parsed(&token).unwrap().header.typ.as_deref(), Some(typ));
    }
}

#[test]
fn any_changed_character_is_noticed() {
    for algorithm in [Algorithm::Es256, Algorithm::Ed25519] {
        let token = token(algorithm);
        let public = key(algorithm).public();
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            let verdict = parsed(&changed).and_then(|compact| verify(&compact, public, true));
            assert!(verdict.is_err(), "character {at}");
        }
    }
}

#[test]
fn a_key_verifies_under_its_own_algorithm_only() {
    for signed_with in Algorithm::ALL {
        let token = token(signed_with);
        let compact = parsed(&token).unwrap();
        for other in Algorithm::ALL.into_iter().filter(|other| *other != signed_with) {
            assert_eq!(
                verify(&compact, key(other).public(), true),
                Err(Error::AlgorithmMismatch { expected: other, found: signed_with.to_string() })
            );
        }
    }
}

#[test]
fn the_same_rsa_key_does_not_change_its_scheme() {
    // One key pair published for PS256 must not verify what says RS256, though both fit the key.
    let jwk = jwk_with(Algorithm::Rs256, &[("alg", json!("PS256"))]);
    let as_ps256 = PublicKey::from_jwk(&jwk).unwrap();
    let rs256 = token(Algorithm::Rs256);
    let mut compact = parsed(&rs256).unwrap();
    assert!(matches!(verify(&compact, &as_ps256, false), Err(Error::AlgorithmMismatch { .. })));
    Arc::make_mut(&mut compact.header).alg = "PS256".into();
    assert_eq!(verify(&compact, &as_ps256, false), Err(Error::SignatureInvalid));
}

#[test]
fn eddsa_is_ed25519_only_where_asked_for() {
    let ed25519 = key(Algorithm::Ed25519);
    let input = format!("{}.e30", b64::encode(br#"{"alg":"EdDSA"}"#));
    let token = assemble(input.clone(), &ed25519.sign(input.as_bytes()).unwrap());
    let compact = parsed(&token).unwrap();
    let mismatch = |expected| Err(Error::AlgorithmMismatch { expected, found: "EdDSA".into() });
    assert_eq!(verify(&compact, ed25519.public(), false), mismatch(Algorithm::Ed25519));
    assert_eq!(verify(&compact, ed25519.public(), true), Ok(()));
    assert_eq!(verify(&compact, key(Algorithm::Es256).public(), true), mismatch(Algorithm::Es256));

    let alias =
        PublicKey::from_jwk(&jwk_with(Algorithm::Ed25519, &[("alg", json!("EdDSA"))])).unwrap();
    assert_eq!(verify(&compact, &alias, false), Ok(()));
    let token = self::token(Algorithm::Ed25519);
    assert_eq!(verify(&parsed(&token).unwrap(), &alias, false), Ok(()));
}

#[test]
fn none_is_refused_in_every_spelling() {
    for alg in ["none", "None", "NONE", "nOnE", " none", "none\\n", "\\u006eone"] {
        let token = with_header(&format!("{{\"alg\":\"{alg}\"}}"));
        assert_eq!(parsed(&token), Err(Error::AlgorithmNone), "{alg}");
    }
}

#[test]
fn members_that_are_never_accepted() {
    for member in ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c"] {
        for value in ["null", "true", "false", "[]", "{}", "\"x\""] {
            let token = with_header(&format!(r#"{{"alg":"ES256","{member}":{value}}}"#));
            assert_eq!(parsed(&token), Err(Error::RefusedHeader(member)));
        }
    }
    assert!(
        parsed(&with_header(r#"{"alg":"ES256","x5t":"AA","cty":"JWT","nonce":{"a":[1]}}"#)).is_ok()
    );
}

#[test]
fn headers_that_cannot_be_read() {
    for (header, error) in [
        ("{}", Error::MissingMember("alg")),
        (r#"{"typ":"JWT"}"#, Error::MissingMember("alg")),
        (r#"{"alg":null}"#, Error::MemberType("alg")),
        (r#"{"alg":["ES256"]}"#, Error::MemberType("alg")),
        (r#"{"alg":"ES256","typ":1}"#, Error::MemberType("typ")),
        (r#"{"alg":"ES256","kid":null}"#, Error::MemberType("kid")),
        (r#"{"alg":"ES256","kid":["a"]}"#, Error::MemberType("kid")),
        (r#"{"alg":"ES256","alg":"ES256"}"#, Error::DuplicateMember("alg".into())),
        (r#"{"alg":"ES256","x":{"y":1,"y":1}}"#, Error::DuplicateMember("y".into())),
        ("[]", Error::NotAnObject),
        ("\"ES256\"", Error::NotAnObject),
        ("\u{feff}{\"alg\":\"ES256\"}", Error::ByteOrderMark),
    ] {
        assert_eq!(parsed(&with_header(header)), Err(error), "{header}");
    }
    let not_utf8 = format!("{}.e30.AAAA", b64::encode(b"{\"alg\":\"\xff\"}"));
    assert_eq!(parsed(&not_utf8), Err(Error::NotUtf8));
}

#[test]
fn parts() {
    let header = b64::encode(br#"{"alg":"ES256"}"#);
    for (token, error) in [
        (String::new(), Error::Parts),
        (header.clone(), Error::Parts),
        (format!("{header}.e30"), Error::Parts),
        (format!("{header}.e30.AA.AA"), Error::Parts),
        (format!("{header}.e30.AA."), Error::Parts),
        (format!("{header}.e30.A.A.A"), Error::Parts),
        ("..".into(), Error::EmptyPart("header")),
        (".e30.AA".into(), Error::EmptyPart("header")),
        (format!("{header}..AA"), Error::EmptyPart("payload")),
        (format!("{header}.e30."), Error::EmptyPart("signature")),
        (format!("{header}=.e30.AA"), Error::PartEncoding("header")),
        (format!("{header}.e30=.AA"), Error::PartEncoding("payload")),
        (format!("{header}.e30.AB"), Error::PartEncoding("signature")),
        (format!("{header}.e30.AA\n"), Error::PartEncoding("signature")),
        (format!(" {header}.e30.AA"), Error::PartEncoding("header")),
        (format!("{header}.e 30.AA"), Error::PartEncoding("payload")),
        (format!("{header}.e30.+/"), Error::PartEncoding("signature")),
        (r#"{"payload":"e30","protected":"e30","signature":"AA"}"#.into(), Error::Parts),
    ] {
        assert_eq!(parsed(&token), Err(error), "{token}");
    }
}

#[test]
fn sizes_are_bounded_before_anything_is_decoded() {
    let header = b64::encode(br#"{"alg":"ES256"}"#);
    let fits = format!("{header}.{}.AA", "A".repeat(MAX_TOKEN_BYTES - header.len() - 4));
    assert_eq!(fits.len(), MAX_TOKEN_BYTES);
    assert!(parsed(&fits).is_ok());
    let over = format!("{fits}AA");
    assert_eq!(parsed(&over), Err(Error::TooLarge { what: "jws", limit: MAX_TOKEN_BYTES }));
    assert!(parse(&over, MAX_REQUEST_BYTES).is_ok());
    let long_header = format!("{}.e30.AA", "!".repeat(MAX_HEADER_BYTES + 1));
    assert_eq!(
        parsed(&long_header),
        Err(Error::TooLarge { what: "jws header", limit: MAX_HEADER_BYTES })
    );
}

#[test]
fn the_longest_token_of_every_algorithm_fits() {
    for algorithm in Algorithm::ALL {
        let claims = MAX_TOKEN_BYTES - token(algorithm).len();
        assert!(claims > 8 * 1024, "{algorithm} leaves {claims} characters for claims");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_does_no_harm(text in "\\PC{0,80}") {
        let _ = parsed(&text);
    }

    #[test]
    fn near_tokens_do_no_harm(header in "\\PC{0,40}", payload in "[A-Za-z0-9_-]{0,9}", signature in "[A-Za-z0-9_-]{0,9}") {
        let token = format!("{}.{payload}.{signature}", b64::encode(header.as_bytes()));
        let _ = parsed(&token);
    }

    /// A token has one spelling: what parses is what its parts encode to.
    #[test]
    fn one_spelling(payload in "[A-Za-z0-9_-]{1,9}", signature in "[A-Za-z0-9_-]{1,9}") {
        let header = b64::encode(br#"{"alg":"ES256"}"#);
        let token = format!("{header}.{payload}.{signature}");
        if let Ok(compact) = parsed(&token) {
            let input = signing_input_with(&header, &compact.payload);
            prop_assert_eq!(assemble(input, &compact.signature), token);
        }
    }
}
