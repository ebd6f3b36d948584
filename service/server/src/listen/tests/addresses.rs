//! Networks, and which forwarded addresses count.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn networks_contain_their_addresses() {
    for (text, inside, outside) in [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "ffff::", "10.0.0.1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("::1", "::1", "::2"),
        ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
    ] {
        assert!(network(text).contains(address(inside)), "{text} {inside}");
        assert!(!network(text).contains(address(outside)), "{text} {outside}");
    }
    assert_eq!(network("192.0.2.1").to_string(), "192.0.2.1/32");
    assert_eq!(network("2001:db8::/32").to_string(), "2001:db8::/32");
}

#[test]
fn bad_networks_say_what_is_wrong() {
    for (text, problem) in [
        ("", "write `10.0.0.0/8`"),
        ("example.org", "write `10.0.0.0/8`"),
        ("10.0.0/8", "write `10.0.0.0/8`"),
        ("10.0.0.0/33", "a number up to 32"),
        ("10.0.0.0/", "a number up to 32"),
        ("10.0.0.0/+8", "a number up to 32"),
        ("::/129", "a number up to 128"),
        ("10.0.0.1/8", "write `10.0.0.0/8`"),
        ("2001:db8::1/32", "write `2001:db8::/32`"),
        ("::ffff:10.0.0.0/104", "in their own form"),
    ] {
        let error = text.parse::<Network>().unwrap_err();
        assert!(matches!(&error, ListenError::Network { given, .. } if given == text));
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn networks_come_from_configuration() {
    let networks: Vec<Network> = serde_json::from_str(r#"["10.0.0.0/8", "::1"]"#).unwrap();
    assert_eq!(networks, [network("10.0.0.0/8"), network("::1/128")]);
    let error = serde_json::from_str::<Network>(r#""10.0.0.1/8""#).unwrap_err();
    assert!(error.to_string().contains("write `10.0.0.0/8`"), "{error}");
    let options: TlsOptions = serde_json::from_str(r#"{"cert_file":"a","key_file":"b"}"#).unwrap();
    assert_eq!(options.key_file.as_os_str(), "b");
}

/// The address for a request from the proxy 10.0.0.1, where 10.0.0.0/8 and ::1 are trusted.
fn through_proxy(headers: &[(&'static str, &str)]) -> String {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    let trusted = [network("10.0.0.0/8"), network("::1")];
    client_address(([10, 0, 0, 1], 999).into(), &map, &trusted).to_string()
}

#[test]
fn the_last_untrusted_address_counts() {
    const PROXY: &str = "10.0.0.1";
    for (value, expected) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        // What the client wrote itself stands before what the proxies added.
        ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
        ("nonsense, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.7, ::1", "192.0.2.1"),
        ("10.0.0.9, 10.0.0.7", "10.0.0.9"),
        ("192.0.2.1, nonsense", PROXY),
        ("nonsense, 10.0.0.7", PROXY),
        ("192.0.2.1,", PROXY),
        ("unknown", PROXY),
        ("", PROXY),
        ("192.0.2.999", PROXY),
    ] {
        assert_eq!(through_proxy(&[("x-forwarded-for", value)]), expected, "{value}");
    }
    assert_eq!(through_proxy(&[]), PROXY);
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    const PROXY: &str = "10.0.0.1";
    for (value, expected) in [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        (r#"proto=https; For="[2001:db8:cafe::17]:4711""#, "2001:db8:cafe::17"),
        (r#"for="192.0.2.43:47011", for=10.0.0.5"#, "192.0.2.43"),
        ("for=_hidden", PROXY),
        ("for=unknown", PROXY),
        ("proto=http", PROXY),
        ("for=192.0.2.1;for=192.0.2.2", PROXY),
        ("192.0.2.1", PROXY),
    ] {
        assert_eq!(through_proxy(&[("forwarded", value)]), expected, "{value}");
    }
}

#[test]
fn repeated_headers_are_one_list() {
    let twice = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "198.51.100.2, 10.0.0.3")];
    assert_eq!(through_proxy(&twice), "198.51.100.2");
}

#[test]
fn two_headers_must_agree() {
    let both = |a, b| through_proxy(&[("x-forwarded-for", a), ("forwarded", b)]);
    assert_eq!(both("192.0.2.1", "for=192.0.2.1"), "192.0.2.1");
    assert_eq!(both("192.0.2.1", "for=203.0.113.9"), "10.0.0.1");
    assert_eq!(both("203.0.113.9", "nonsense"), "10.0.0.1");
}

#[test]
fn long_chains_are_not_walked() {
    let chain = |hops| format!("192.0.2.1{}", ", 10.0.0.2".repeat(hops));
    let longest = chain(MAX_FORWARDED_HOPS - 1);
    assert_eq!(through_proxy(&[("x-forwarded-for", &longest)]), "192.0.2.1");
    let too_long = chain(MAX_FORWARDED_HOPS);
    assert_eq!(through_proxy(&[("x-forwarded-for", &too_long)]), "10.0.0.1");
}

#[test]
fn nobody_else_is_believed() {
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", "192.0.2.1".parse().unwrap());
    let peer: SocketAddr = "[::ffff:203.0.113.5]:1".parse().unwrap();
    assert_eq!(client_address(peer, &headers, &[]), address("203.0.113.5"));
    let trusted = [network("10.0.0.0/8")];
    assert_eq!(client_address(peer, &headers, &trusted), address("203.0.113.5"));
    let trusted = [network("203.0.113.5")];
    assert_eq!(client_address(peer, &headers, &trusted), address("192.0.2.1"));
}

proptest! {
    #[test]
    fn a_client_cannot_choose_its_address(spoofed in "[ -~]{0,60}") {
        // Whatever the client sends, the proxy appends the address that it sees.
        let value = format!("{spoofed}, 192.0.2.1");
        prop_assert_eq!(through_proxy(&[("x-forwarded-for", &value)]), "192.0.2.1");
    }

    #[test]
    fn networks_print_what_they_parse(bits in any::<u32>(), prefix in 0u8..=32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let text = format!("{}/{prefix}", Ipv4Addr::from_bits(bits & mask));
        let parsed = network(&text);
        prop_assert_eq!(parsed.to_string(), text);
        prop_assert!(parsed.contains(Ipv4Addr::from_bits(bits).into()));
        if prefix > 0 {
            let other = bits ^ (1 << (32 - u32::from(prefix)));
            prop_assert!(!parsed.contains(Ipv4Addr::from_bits(other).into()));
        }
    }
}
