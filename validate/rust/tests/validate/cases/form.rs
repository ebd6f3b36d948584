//! Texts that are not one strict compact JWS.

use chancery_token::{Algorithm, b64};
use chancery_validate::RejectionCode::{DuplicateMember, MalformedToken, Oversize};
use serde_json::json;

use crate::corpus::Case;
use crate::draft::{Draft, good, key};

pub fn cases() -> Vec<Case> {
    [parts(), encodings(), headers(), payloads(), duplicates(), sizes()].concat()
}

fn kid() -> String {
    key(Algorithm::Es256).public().kid().to_string()
}

fn parts() -> Vec<Case> {
    let text = |id: &str, change: fn(String) -> String, reason: &str| {
        good().text(change).rejected(MalformedToken, id, reason)
    };
    let part = |token: &str, at: usize| token.split('.').nth(at).unwrap().to_owned();
    vec![
        text("empty", |_| String::new(), "nothing"),
        text("one_part", |token| token.replace('.', ""), "no dots"),
        text("two_parts", |token| token.rsplit_once('.').unwrap().0.to_owned(), "no signature"),
        text("four_parts", |token| token + ".AAAA", "a fourth part"),
        text("five_parts", |token| token + ".AAAA.AAAA", "five parts, as in a JWE"),
        text("only_dots", |_| "..".to_owned(), "three empty parts"),
        text(
            "empty_header",
            |token| token[token.find('.').unwrap()..].to_owned(),
            "an empty header",
        ),
        good().text(|token| format!("{}..{}", part(&token, 0), part(&token, 2))).rejected(
            MalformedToken,
            "empty_payload",
            "detached content is not accepted",
        ),
        good().text(|token| format!("{}.{}.", part(&token, 0), part(&token, 1))).rejected(
            MalformedToken,
            "empty_signature",
            "an empty signature",
        ),
        good()
            .text(|token| {
                json!({"protected": part(&token, 0), "payload": part(&token, 1),
                    "signature": part(&token, 2)})
                .to_string()
            })
            .rejected(MalformedToken, "json_serialization", "a JWS in JSON serialization"),
        text("bearer", |token| format!("Bearer {token}"), "the HTTP scheme is not part of a token"),
        text("quoted", |token| format!("\"{token}\""), "quotes around it"),
    ]
}

fn encodings() -> Vec<Case> {
    let text = |id: &str, change: fn(String) -> String, reason: &str| {
        good().text(change).rejected(MalformedToken, id, reason)
    };
    vec![
        text("padding", |token| token + "==", "base64url padding (RFC 7515 section 2)"),
        text("newline_at_end", |token| token + "\n", "a line break at the end"),
        text("space_at_start", |token| format!(" {token}"), "a space at the start"),
        text(
            "newline_inside",
            |mut token| {
                token.insert(20, '\n');
                token
            },
            "a line break inside the header",
        ),
        text(
            "standard_alphabet",
            |token| {
                let (input, signature) = token.rsplit_once('.').unwrap();
                format!("{input}.+/{}", &signature[2..])
            },
            "characters of the standard base64 alphabet",
        ),
        text("non_ascii", |token| format!("{token}é"), "a character outside ASCII"),
        text("nul_at_end", |token| token + "\0", "a NUL character at the end"),
        text(
            "trailing_bits",
            other_spelling,
            "another spelling of the same signature: unused bits are set",
        ),
    ]
}

/// Sets an unused bit in the last character of a 64-octet signature: 86 characters, 4 unused bits.
fn other_spelling(mut token: String) -> String {
    let last = token.pop().unwrap();
    let next = char::from(u8::try_from(last).unwrap() + 1);
    // Canonical last characters are A, Q, g and w; the next letter differs in an unused bit only.
    assert!("AQgw".contains(last));
    token.push(next);
    token
}

fn headers() -> Vec<Case> {
    let header = |id: &str, text: Vec<u8>, reason: &str| {
        good().header_text(text).rejected(MalformedToken, id, reason)
    };
    let whole = String::from_utf8(good().header_bytes()).unwrap();
    vec![
        header("header_not_json", b"alg=ES256".to_vec(), "the header is not JSON"),
        header("header_array", format!("[{whole}]").into(), "the header is a list"),
        header("header_string", b"\"ES256\"".to_vec(), "the header is a string"),
        header(
            "header_trailing",
            format!("{whole}{{}}").into(),
            "something follows the header's object",
        ),
        header("header_comment", format!("{whole}//").into(), "comments are not JSON"),
        header("header_bom", format!("\u{feff}{whole}").into(), "a byte order mark"),
        header(
            "header_not_utf8",
            [b"{\"a\":\"\xff\",".as_slice(), &whole.as_bytes()[1..]].concat(),
            "octets that are not UTF-8",
        ),
        header(
            "header_lone_surrogate",
            format!("{{\"a\":\"\\ud800\",{}", &whole[1..]).into(),
            "an escape that is no character",
        ),
        header("header_trailing_comma", whole.replace('}', ",}").into(), "a comma too many"),
        good().no_header("alg").rejected(MalformedToken, "alg_missing", "no algorithm"),
        good().header("alg", json!(["ES256"])).rejected(
            MalformedToken,
            "alg_list",
            "alg is a list",
        ),
        good().header("alg", json!(null)).rejected(MalformedToken, "alg_null", "alg is null"),
        good().header("typ", 1).rejected(MalformedToken, "typ_number", "typ is a number"),
        good().header("kid", 7).rejected(MalformedToken, "kid_number", "kid is a number"),
        good().header("kid", json!(null)).rejected(MalformedToken, "kid_null", "kid is null"),
    ]
}

fn payloads() -> Vec<Case> {
    let payload = |id: &str, bytes: Vec<u8>, reason: &str| {
        good().payload(bytes).rejected(MalformedToken, id, reason)
    };
    let whole = String::from_utf8(good().claims_bytes()).unwrap();
    let deep = format!("{{\"a\":{}1{},{}", "[".repeat(16), "]".repeat(16), &whole[1..]);
    vec![
        payload("payload_not_json", b"iss=me".to_vec(), "the payload is signed, but not JSON"),
        payload("payload_array", format!("[{whole}]").into(), "the payload is a list"),
        payload("payload_number", b"1".to_vec(), "the payload is a number"),
        payload("payload_trailing", format!("{whole} x").into(), "something follows the object"),
        payload("payload_two_objects", format!("{whole}{whole}").into(), "two objects"),
        payload("payload_bom", format!("\u{feff}{whole}").into(), "a byte order mark"),
        payload(
            "payload_not_utf8",
            [b"{\"a\":\"\xc0\x80\",".as_slice(), &whole.as_bytes()[1..]].concat(),
            "an overlong UTF-8 sequence",
        ),
        payload("payload_deep", deep.into(), "nesting beyond 16 levels"),
        payload("payload_nan", format!("{{\"a\":NaN,{}", &whole[1..]).into(), "NaN is not JSON"),
        payload(
            "payload_single_quotes",
            whole.replace('"', "'").into(),
            "single quotes are not JSON",
        ),
        payload("payload_nested_token", good().token().into(), "a token inside a token"),
        payload(
            "payload_compressed",
            vec![0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01],
            "compressed data are not read",
        ),
    ]
}

fn duplicates() -> Vec<Case> {
    let header = |members: &str| {
        good()
            .header_text(format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{}",{members}}}"#, kid()))
    };
    let payload = |member: &str| -> Draft {
        let whole = String::from_utf8(good().claims_bytes()).unwrap();
        good().payload(format!("{{{member},{}", &whole[1..]))
    };
    let rejected =
        |draft: Draft, id: &str, reason: &str| draft.rejected(DuplicateMember, id, reason);
    vec![
        rejected(header(r#""alg":"ES256""#), "duplicate_alg", "alg twice, with the same value"),
        rejected(header(r#""alg":"none""#), "duplicate_alg_none", "alg twice, the second is none"),
        rejected(header(r#""kid":"other""#), "duplicate_kid_in_header", "kid twice"),
        rejected(
            header(r#""a":{"b":1,"b":1}"#),
            "duplicate_nested_in_header",
            "twice in an inner object",
        ),
        rejected(
            payload(r#""aud":"https://other.example""#),
            "duplicate_aud",
            "aud twice: two readers, two audiences",
        ),
        rejected(
            payload(r#""\u0061ud":"https://other.example""#),
            "duplicate_aud_escaped",
            "aud twice, once written with an escape",
        ),
        rejected(payload(r#""exp":1900000000"#), "duplicate_exp", "exp twice"),
        rejected(
            payload(r#""cnf":{"jkt":"a","jkt":"b"}"#),
            "duplicate_nested",
            "twice in an inner object",
        ),
        rejected(
            payload(r#""a":[{"b":1,"b":2}]"#),
            "duplicate_in_list",
            "twice in an object of a list",
        ),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        good().claim("note", "x".repeat(12_000)).rejected(
            Oversize,
            "oversize_token",
            "a token of more than 16 KiB",
        ),
        good().header("note", "x".repeat(1_500)).rejected(
            Oversize,
            "oversize_header",
            "an encoded header of more than 2 KiB",
        ),
        good().text(|_| b64::encode(&[0; 12_289])).rejected(
            Oversize,
            "oversize_garbage",
            "size is judged before form",
        ),
    ]
}
