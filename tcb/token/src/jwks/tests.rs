use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures::{jwk_with, key};
use crate::{Algorithm, b64};

fn set(keys: &[Map<String, Value>]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn es256(changes: &[(&str, Value)]) -> Map<String, Value> {
    jwk_with(Algorithm::Es256, changes)
}

#[test]
fn a_set_of_every_algorithm_round_trips() {
    let members: Vec<_> = Algorithm::ALL
        .into_iter()
        .map(|algorithm| Member {
            kid: format!("kid of {algorithm}"),
            issuer: Some("https://issuer.example/consumers".into()),
            window: Some(Window { nbf: 1_767_225_600, signs_until: 1_767_229_200 }),
            exp: Some(1_767_232_805),
            log: Some("AAAAAAAAAAAAAAAAAAAAAA.17".into()),
            ..Member::new(key(algorithm).public().clone())
        })
        .collect();
    let parsed = parse(to_json(&members).as_bytes()).unwrap();
    assert_eq!(parsed.members(), members);
    assert!(parsed.refused.is_empty());
    for member in &members {
        assert_eq!(parsed.get(&member.kid), Some(member));
    }
    assert_eq!(parsed.get("kid of"), None);
    assert_eq!(KeySet::from_members(members.clone()).unwrap().members(), members);
}

#[test]
fn the_text_of_a_member() {
    let public = key(Algorithm::Ed25519).public();
    let kid = public.kid();
    let x = b64::encode(public.raw());
    let bare = Member::new(public.clone());
    let members =
        json!({"alg": "Ed25519", "crv": "Ed25519", "kid": kid, "kty": "OKP", "use": "sig", "x": x});
    assert_eq!(Value::Object(bare.jwk()), members);
    assert_eq!(to_json(&[bare]), json!({ "keys": [members] }).to_string());
    assert_eq!(to_json(&[]), r#"{"keys":[]}"#);
    let window = Some(Window { nbf: 10, signs_until: 20 });
    let full = Member {
        window,
        exp: Some(30),
        log: Some("l.1".into()),
        issuer: Some("i".into()),
        ..Member::new(public.clone())
    };
    let jwk = full.jwk();
    assert_eq!(
        [&jwk["nbf"], &jwk["signs_until"], &jwk["exp"], &jwk["log"], &jwk["issuer"]],
        [&json!(10), &json!(20), &json!(30), &json!("l.1"), &json!("i")]
    );
}

#[test]
fn a_key_that_was_read_as_eddsa_is_written_as_eddsa() {
    let alias = jwk_with(Algorithm::Ed25519, &[("alg", json!("EdDSA"))]);
    let parsed = parse(&set(&[alias])).unwrap();
    let again = parse(to_json(parsed.members()).as_bytes()).unwrap();
    assert!(again.members()[0].key.eddsa_alias());
}

#[test]
fn other_publishers_kids_are_kept_as_they_are() {
    let parsed = parse(&set(&[es256(&[("kid", json!("2026-key \"1\""))])])).unwrap();
    let member = parsed.get("2026-key \"1\"").unwrap();
    assert_eq!(&member.key, key(Algorithm::Es256).public());
    assert_eq!(parsed.get(&member.key.kid().to_string()), None);
    let again = parse(to_json(parsed.members()).as_bytes()).unwrap();
    assert_eq!(again.members(), parsed.members());
}

#[test]
fn unusable_members_are_set_aside_and_explained() {
    let keys = [
        es256(&[("kid", json!("good"))]),
        es256(&[("kid", json!("curve")), ("crv", json!("P-521"))]),
        es256(&[("kid", json!("type")), ("kty", json!("XX"))]),
        es256(&[("kid", json!("enc")), ("use", json!("enc"))]),
        es256(&[("kid", Value::Null)]),
        es256(&[("kid", json!(7))]),
        es256(&[("kid", json!("half")), ("nbf", json!(1))]),
        es256(&[("kid", json!("issuer")), ("issuer", json!(1))]),
        es256(&[("kid", json!("log")), ("log", json!(["x"]))]),
        es256(&[("kid", json!("exp")), ("exp", json!("1"))]),
        jwk_with(Algorithm::Rs256, &[("kid", json!("rsa")), ("alg", Value::Null)]),
    ];
    let parsed = parse(&set(&keys)).unwrap();
    let usable: Vec<_> = parsed.members().iter().map(|member| member.kid.as_str()).collect();
    assert_eq!(usable, ["good"]);
    let refused = |kid: &str, error| (Some(kid.to_owned()), error);
    assert_eq!(
        parsed.refused,
        [
            refused("curve", Error::UnknownCurve("P-521".into())),
            refused("type", Error::UnknownKeyType("XX".into())),
            refused("enc", Error::KeyUse("enc".into())),
            (None, Error::MissingMember("kid")),
            (None, Error::MemberType("kid")),
            refused("half", Error::Window),
            refused("issuer", Error::MemberType("issuer")),
            refused("log", Error::MemberType("log")),
            refused("exp", Error::Seconds("exp")),
            refused("rsa", Error::AlgorithmMissing),
        ]
    );
    for (kid, _) in &parsed.refused {
        assert_eq!(kid.as_deref().and_then(|kid| parsed.get(kid)), None);
    }
}

#[test]
fn windows() {
    let window = |nbf: Value, signs_until: Value| {
        Member::from_jwk(&es256(&[("nbf", nbf), ("signs_until", signs_until)]))
            .map(|member| member.window)
    };
    assert_eq!(window(json!(1), json!(2)), Ok(Some(Window { nbf: 1, signs_until: 2 })));
    assert_eq!(window(Value::Null, Value::Null), Ok(None));
    for (nbf, signs_until) in [
        (json!(1), Value::Null),
        (Value::Null, json!(1)),
        (json!(2), json!(2)),
        (json!(3), json!(2)),
    ] {
        assert_eq!(window(nbf, signs_until), Err(Error::Window));
    }
    assert_eq!(window(json!(1.5), json!(2)), Err(Error::Seconds("nbf")));
    assert_eq!(window(json!(1), json!("2")), Err(Error::Seconds("signs_until")));
    assert_eq!(window(json!(-1), json!(2)), Err(Error::Seconds("nbf")));
}

#[test]
fn windows_are_half_open() {
    let window = Window { nbf: 10, signs_until: 20 };
    let inside: Vec<_> = (0..30).filter(|iat| window.contains(*iat)).collect();
    assert_eq!(inside, (10..20).collect::<Vec<_>>());
}

#[test]
fn one_secret_spoils_the_set() {
    let good = es256(&[]);
    for (secret, error) in [
        (es256(&[("kid", json!("s")), ("d", json!("AA"))]), Error::PrivateMember("d")),
        (jwk_with(Algorithm::MlDsa44, &[("priv", json!("AA"))]), Error::PrivateMember("priv")),
        (jwk_with(Algorithm::Rs256, &[("qi", json!("AA"))]), Error::PrivateMember("qi")),
        (
            es256(&[("kid", Value::Null), ("kty", json!("XX")), ("d", json!(1))]),
            Error::PrivateMember("d"),
        ),
        (serde_json::from_value(json!({"kty": "oct", "kid": "s"})).unwrap(), Error::SymmetricKey),
        (serde_json::from_value(json!({"k": "AA"})).unwrap(), Error::SymmetricKey),
    ] {
        for keys in [[good.clone(), secret.clone()], [secret.clone(), good.clone()]] {
            assert_eq!(parse(&set(&keys)).map(|_| ()), Err(error.clone()));
        }
    }
}

#[test]
fn a_shared_kid_spoils_the_set() {
    let twice = Error::DuplicateKid("a".into());
    let a = es256(&[("kid", json!("a"))]);
    for other in [
        jwk_with(Algorithm::Ed25519, &[("kid", json!("a"))]),
        a.clone(),
        // Also when one of the two is not usable: which one a reader takes would be a matter of luck.
        es256(&[("kid", json!("a")), ("use", json!("enc"))]),
    ] {
        assert_eq!(parse(&set(&[a.clone(), other])).map(|_| ()), Err(twice.clone()));
    }
    let member = Member { kid: "a".into(), ..Member::new(key(Algorithm::Es256).public().clone()) };
    assert_eq!(KeySet::from_members(vec![member.clone(), member]).map(|_| ()), Err(twice));
}

#[test]
fn sets_that_are_none() {
    for (text, error) in [
        ("[]", Error::NotAnObject),
        ("{}", Error::MissingMember("keys")),
        (r#"{"keys":{}}"#, Error::MemberType("keys")),
        (r#"{"keys":null}"#, Error::MemberType("keys")),
        (r#"{"keys":["x"]}"#, Error::MemberType("keys")),
        (r#"{"keys":[],"keys":[]}"#, Error::DuplicateMember("keys".into())),
        (r#"{"keys":[{"kid":"a","kid":"a"}]}"#, Error::DuplicateMember("kid".into())),
    ] {
        assert_eq!(parse(text.as_bytes()).map(|_| ()), Err(error), "{text}");
    }
    assert!(parse(br#"{"keys":[],"iss":"x","seq":1}"#).unwrap().members().is_empty());
}

#[test]
fn a_set_that_shows_a_secret_names_its_key() {
    let mut shown = es256(&[("kid", json!("a"))]);
    shown.insert("d".to_owned(), json!("AAAA"));
    let text = set(&[es256(&[("kid", json!("b"))]), shown]);
    assert!(parse(&text).is_err());
    let exposed = KeySet::exposed(&text);
    let [only] = exposed.as_slice() else { panic!("{exposed:?}") };
    assert_eq!(only.kid.as_deref(), Some("a"));
    // It is the key, under that name and under another.
    let renamed = parse(&set(&[es256(&[("kid", json!("z"))])])).unwrap();
    assert!(only.is(&renamed.members()[0]));
    let symmetric = json!({"keys": [{"kty": "oct", "kid": "c", "k": "AAAA"}, 1, {"k": "x"}]});
    let kids: Vec<_> = KeySet::exposed(symmetric.to_string().as_bytes());
    let kids: Vec<_> = kids.iter().map(|key| (key.kid.as_deref(), key.thumbprint)).collect();
    assert_eq!(kids, [(Some("c"), None), (None, None)]);
    // A purpose that forbids it, or an RSA key without `alg`, hides nothing.
    for hiding in [json!({"use": "enc"}), json!({"key_ops": ["decrypt"]}), json!({"alg": "none"})] {
        let mut shown = es256(&[("kid", json!("a"))]);
        shown.insert("d".to_owned(), json!("AAAA"));
        let is_alg = hiding.get("alg").is_some();
        shown.extend(hiding.as_object().unwrap().clone());
        let exposed = KeySet::exposed(&set(&[shown]));
        assert_eq!(exposed[0].thumbprint.is_none(), is_alg, "{hiding}");
    }
    assert!(KeySet::exposed(&set(&[es256(&[])])).is_empty());
    assert!(KeySet::exposed(b"{").is_empty());
}

#[test]
fn rsa_keys_without_alg_are_bound_by_the_reader() {
    let rsa = key(Algorithm::Rs256).public();
    let mut unnamed = rsa.jwk();
    unnamed.remove("alg");
    let text = set(&[unnamed, key(Algorithm::Es256).public().jwk()]);
    assert_eq!(parse(&text).unwrap().refused.len(), 1);
    let kid = rsa.kid().to_string();
    for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
        let set = KeySet::parse_as(&text, algorithm).unwrap();
        assert_eq!(set.get(&kid).unwrap().key.algorithm(), algorithm);
        assert_eq!((set.members().len(), set.refused.len()), (2, 0));
    }
    // One that names its algorithm keeps it.
    let named = set(&[key(Algorithm::Ps256).public().jwk()]);
    let named = KeySet::parse_as(&named, Algorithm::Rs256).unwrap();
    assert_eq!(named.members()[0].key.algorithm(), Algorithm::Ps256);
    let too_large = Error::TooLarge { what: "key set", limit: MAX_SET_BYTES };
    let spaces = vec![b' '; MAX_SET_BYTES + 1];
    assert_eq!(KeySet::parse_as(&spaces, Algorithm::Rs256).map(|_| ()), Err(too_large));
}

#[test]
fn sets_are_bounded() {
    let many = |count: usize| json!({ "keys": vec![json!({}); count] }).to_string();
    assert_eq!(parse(many(MAX_KEYS).as_bytes()).unwrap().refused.len(), MAX_KEYS);
    assert_eq!(parse(many(MAX_KEYS + 1).as_bytes()).map(|_| ()), Err(Error::TooManyKeys));
    let member = Member::new(key(Algorithm::Es256).public().clone());
    assert_eq!(
        KeySet::from_members(vec![member; MAX_KEYS + 1]).map(|_| ()),
        Err(Error::TooManyKeys)
    );
    let too_large = Error::TooLarge { what: "key set", limit: MAX_SET_BYTES };
    assert_eq!(parse(&vec![b' '; MAX_SET_BYTES + 1]).map(|_| ()), Err(too_large));
}

#[test]
fn the_largest_legitimate_set_fits() {
    let member = Member {
        issuer: Some(format!("https://{}", "i".repeat(100))),
        window: Some(Window { nbf: 1_767_225_600, signs_until: 1_767_229_200 }),
        exp: Some(1_767_232_805),
        log: Some("AAAAAAAAAAAAAAAAAAAAAA.18446744073709551615".into()),
        ..Member::new(key(Algorithm::MlDsa87).public().clone())
    };
    let members: Vec<_> =
        (0..MAX_KEYS).map(|n| Member { kid: format!("{n:043}"), ..member.clone() }).collect();
    let text = to_json(&members);
    assert!(text.len() <= MAX_SET_BYTES, "{} bytes", text.len());
    assert_eq!(parse(text.as_bytes()).unwrap().members().len(), MAX_KEYS);
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn arbitrary_members_do_no_harm(name in "kty|crv|x|y|alg|use|kid|nbf|exp|key_ops", value in "null|1|-1|1\\.5|\"\"|\"EC\"|\\[\\]|\\{\\}") {
        let jwk = es256(&[(name.as_str(), serde_json::from_str(&value).unwrap())]);
        let parsed = parse(&set(&[jwk])).unwrap();
        prop_assert_eq!(parsed.members().len() + parsed.refused.len(), 1);
    }
}
