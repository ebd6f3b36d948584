use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn values_of_every_kind() {
    let text =
        r#"{"a":[1,-2,3.5,true,false,null,"x\u0041\n",{}],"b":{"c":{"a":18446744073709551615}}}"#;
    assert_eq!(
        parse(text.as_bytes()),
        Ok(json!({"a": [1, -2, 3.5, true, false, null, "xA\n", {}], "b": {"c": {"a": u64::MAX}}}))
    );
    assert_eq!(parse(b" 7 "), Ok(json!(7)));
}

#[test]
fn duplicates_are_refused_at_any_depth() {
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"b":1,"a":1,"c":2,"a":2}"#,
        r#"{"x":{"a":1,"a":1}}"#,
        r#"[[{"y":[{"a":null,"a":null}]}]]"#,
        r#"{"a":1,"\u0061":2}"#,
    ] {
        assert_eq!(parse(text.as_bytes()), Err(Error::DuplicateMember("a".into())), "{text}");
    }
    // The same name in different objects is no duplicate, and names are compared exactly.
    assert!(parse(br#"{"a":{"a":{"a":1}},"A":2,"a ":3,"":4}"#).is_ok());
}

#[test]
fn depth_is_bounded_and_counted_exactly() {
    let lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    for nest in [&lists as &dyn Fn(usize) -> String, &objects] {
        assert!(parse(nest(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(parse(nest(MAX_DEPTH + 1).as_bytes()), Err(Error::TooDeep));
        assert_eq!(parse(nest(30_000).as_bytes()), Err(Error::TooDeep));
        for (depth, expected) in [(MAX_DEPTH - 1, Ok(())), (MAX_DEPTH, Err(Error::TooDeep))] {
            let text = format!(r#"{{"a":{}}}"#, nest(depth));
            assert_eq!(pick::<1>(&text, |_| None).map(|_| ()), expected);
        }
    }
}

#[test]
fn bytes_that_are_not_one_json_text() {
    for bytes in [
        &b""[..],
        b" ",
        b"{",
        b"{}{}",
        b"{} x",
        b"{,}",
        b"{\"a\"}",
        b"[1,]",
        b"{\"a\":1,}",
        b"nul",
        b"NaN",
        b"Infinity",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x1",
        b"'a'",
        b"\"\n\"",
        b"\"\\ud800\"",
        b"\"\\x\"",
        b"{a:1}",
        b"/**/1",
        b"1e999",
        b"\0",
        b"{\"a\":1}\0",
        b"-",
    ] {
        assert!(
            matches!(parse(bytes), Err(Error::Json(_))),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(parse(b"{\"a\":\"\xc3\"}"), Err(Error::NotUtf8));
    assert_eq!(parse(b"\"\xed\xa0\x80\""), Err(Error::NotUtf8));
    assert_eq!(parse(b"\xff\xfe{\0}\0"), Err(Error::NotUtf8));
    assert_eq!(parse(b"\xef\xbb\xbf1"), Err(Error::ByteOrderMark));
}

#[test]
fn size_is_bounded() {
    let fits = format!("\"{}\"", "x".repeat(MAX_BYTES - 2));
    assert!(parse(fits.as_bytes()).is_ok());
    assert_eq!(
        parse(format!("{fits} ").as_bytes()),
        Err(Error::TooLarge { what: "json text", limit: MAX_BYTES })
    );
}

#[test]
fn objects_only() {
    assert_eq!(parse_object(br#"{"a":1}"#).map(Value::Object), Ok(json!({"a": 1})));
    for text in ["[]", "1", "null", "\"{}\""] {
        assert_eq!(parse_object(text.as_bytes()), Err(Error::NotAnObject));
    }
}

#[test]
fn seconds_are_exact() {
    for (text, expected) in [("0", 0), ("1767225600", 1_767_225_600), ("253402300799", MAX_SECONDS)]
    {
        assert_eq!(seconds("iat", &parse(text.as_bytes()).unwrap()), Ok(expected));
    }
    for text in [
        "1.0",
        "1e3",
        "1E0",
        "-1",
        "-0",
        "0.5",
        "\"1\"",
        "null",
        "true",
        "[1]",
        "{}",
        "253402300800",
        "1767225600000",
        "18446744073709551615",
        "18446744073709551616",
        "1e300",
    ] {
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(seconds("iat", &value), Err(Error::Seconds("iat")), "{text}");
    }
}

#[test]
fn string_members() {
    let map = parse_object(br#"{"s":"x","n":null,"i":1}"#).unwrap();
    assert_eq!(optional_str(&map, "s"), Ok(Some("x")));
    assert_eq!(optional_str(&map, "none"), Ok(None));
    assert_eq!(optional_str(&map, "n"), Err(Error::MemberType("n")));
    assert_eq!(required_str(&map, "s"), Ok("x"));
    assert_eq!(required_str(&map, "i"), Err(Error::MemberType("i")));
    assert_eq!(required_str(&map, "none"), Err(Error::MissingMember("none")));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Without duplicates and within the bounds, the strict reader and `serde_json` agree.
    #[test]
    fn agrees_with_the_lax_reader(value in any_value()) {
        let text = value.to_string();
        prop_assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn never_more_lenient_than_the_lax_reader(text in r#"[\[\]{}:,"a1.eE+ \\nul-]{0,24}"#) {
        if let Ok(value) = parse(text.as_bytes()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn any_repeated_name_is_found(names in proptest::collection::vec("[a-c]{1,2}", 1..6)) {
        let body: Vec<_> = names.iter().map(|name| format!("\"{name}\":0")).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        let parsed = parse(format!("{{{}}}", body.join(",")).as_bytes());
        prop_assert_eq!(parsed.is_ok(), unique.len() == names.len());
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
    }
}

#[test]
fn names_repeat_however_they_are_spelled_and_wherever_they_stand() {
    let many: Vec<String> = (0..60).map(|i| format!("n{i}")).collect();
    for at in [0, 1, 22, 23, 24, 25, 58] {
        for escaped in [false, true] {
            let again = if escaped { format!("\\u006e{at}") } else { format!("n{at}") };
            for end in [at + 1, 30.max(at + 1), 60] {
                let members =
                    many[..end].iter().chain([&again]).map(|name| format!("\"{name}\":1"));
                let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
                let expected = Err(Error::DuplicateMember(format!("n{at}")));
                assert_eq!(parse_members(&text).map(|_| ()), expected, "{text}");
                assert_eq!(pick::<1>(&text, |_| None).map(|_| ()), expected, "{text}");
                let nested = format!("[{{\"a\":{text}}}]");
                assert_eq!(parse_node(&nested).map(|_| ()), expected, "{nested}");
            }
        }
    }
    assert_eq!(
        parse_members(r#"{"\u0061":1,"b":2,"a":3}"#),
        Err(Error::DuplicateMember("a".to_owned()))
    );
}

proptest! {
    /// Whatever the text: what is passed over is judged like what is kept.
    #[test]
    fn picking_agrees_with_parsing(
        text in prop_oneof![
            r#"[ \t]?[\{\[][ "a-c:,\{\}\[\]0-9e.\\u-]{0,40}[\}\]]"#,
            r#"[ \t]?\{("[a-c]":([0-9]{1,2}|1[0-9]{17,20}|[ \t]"[a-dé\\"\x1f-]{0,20}"|tru?e|nul[l1]|\[[12],? ?\]|\{\})[ ,]{1,2}){1,3}"[a-c]":1\}[ x]?"#,
            r#"\{"[a-c]":(1|"x"|null|\[\]|\{"a":1,"[ab]":2\})(,"[a-c]":(1.5|\[1,2\]|true)){0,4}\}"#,
        ],
    ) {
        let names = ["a", "b", "c"];
        let picked = pick::<3>(&text, |name| names.iter().position(|known| *known == name));
        let parsed = parse_members(&text).map(|members| {
            names.map(|name| {
                members.iter().find(|(known, _)| known == name).map(|(_, node)| node.clone())
            })
        });
        match (&picked, &parsed) {
            // serde_json tells the place of a fault, which may differ by what it expected there.
            (Err(Error::Json(_)), Err(Error::Json(_))) => {}
            _ => prop_assert_eq!(picked, parsed),
        }
    }
}
