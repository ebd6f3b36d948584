//! How long an answer may be used: `Cache-Control` and `Age` (RFC 9111, sections 5.1 and 5.2).

/// Directives that are read: more in one answer are somebody's play.
const MAX_DIRECTIVES: usize = 64;
/// Seconds that are told apart from more: RFC 9111, section 1.2.2 asks for at least 2^31.
const MAX_SECONDS: u64 = 1 << 31;

/// What an answer says about its own freshness, in seconds from its receipt: 0 if it must not be
/// used again without asking, `None` if it does not say.
///
/// `control` are the values of all `Cache-Control` fields, `age` that of the first `Age` field.
/// `s-maxage` and `Expires` are not read: the first is for shared caches, the second depends on the
/// publisher's clock.
pub fn lifetime_s<'a>(
    control: impl IntoIterator<Item = &'a str>,
    age: Option<&str>,
) -> Option<u64> {
    let mut least: Option<u64> = None;
    let directives = control.into_iter().flat_map(directives).take(MAX_DIRECTIVES);
    for (name, value) in directives {
        // What forbids reuse, and what cannot be understood (RFC 9111, section 4.2.1), is stale.
        let said = if name.eq_ignore_ascii_case("max-age") {
            value.and_then(seconds).unwrap_or(0)
        } else if ["no-store", "no-cache"].iter().any(|no| name.eq_ignore_ascii_case(no)) {
            0
        } else {
            continue;
        };
        least = Some(least.map_or(said, |least| least.min(said)));
    }
    // An `Age` that is no number is ignored, as section 5.1 says.
    let age = age.and_then(|age| seconds(age.trim())).unwrap_or(0);
    least.map(|least| least.saturating_sub(age))
}

/// The directives of one field: names with their values, which may stand in quotes. A comma within
/// quotes does not end a directive.
fn directives(field: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = field.split(move |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return true,
            _ => {}
        }
        false
    });
    parts.map(|part| match part.split_once('=') {
        Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
        None => (part.trim(), None),
    })
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// delta-seconds (RFC 9111, section 1.2.2): digits alone; what is too large is very large.
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().map_or(MAX_SECONDS, |seconds: u64| seconds.min(MAX_SECONDS)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(control: &str) -> Option<u64> {
        lifetime_s([control], None)
    }

    #[test]
    fn what_publishers_write_is_understood() {
        assert_eq!(of("public, max-age=150"), Some(150));
        assert_eq!(of("MAX-AGE=\"15\" , must-revalidate"), Some(15));
        assert_eq!(of("max-age = 20"), Some(20));
        assert_eq!(of("private=\"set-cookie, max-age=1\", max-age=30"), Some(30));
        assert_eq!(of("private=\"a\\\", max-age=1\", max-age=30"), Some(30));
        assert_eq!(lifetime_s(["public", "max-age=7"], None), Some(7));
        for silent in ["", "public", "s-maxage=9", "immutable", "x-max-age=3", "max-age2=3", ",,,"]
        {
            assert_eq!(of(silent), None, "{silent}");
        }
    }

    #[test]
    fn the_shortest_word_counts_and_what_is_wrong_is_stale() {
        assert_eq!(of("max-age=60, max-age=5"), Some(5));
        assert_eq!(of("max-age=60, no-cache"), Some(0));
        assert_eq!(of("no-store"), Some(0));
        assert_eq!(of("no-cache=\"set-cookie\", max-age=9"), Some(0));
        for wrong in
            ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=+1", "max-age=1s"]
        {
            assert_eq!(of(wrong), Some(0), "{wrong}");
        }
        assert_eq!(of("max-age=99999999999999999999999999"), Some(MAX_SECONDS));
    }

    #[test]
    fn time_spent_in_other_caches_counts() {
        let aged = |age| lifetime_s(["max-age=100"], Some(age));
        assert_eq!(aged("30"), Some(70));
        assert_eq!(aged(" 30 "), Some(70));
        assert_eq!(aged("100"), Some(0));
        assert_eq!(aged("99999999999999999999999"), Some(0));
        assert_eq!(aged("soon"), Some(100));
        assert_eq!(aged("-5"), Some(100));
        assert_eq!(lifetime_s([], Some("30")), None);
    }

    proptest! {
        #[test]
        fn no_field_breaks_it(control in "\\PC{0,60}", age in "\\PC{0,12}") {
            let said = lifetime_s([control.as_str()], Some(&age));
            prop_assert!(said.is_none_or(|seconds| seconds <= MAX_SECONDS));
        }

        #[test]
        fn more_words_never_lengthen(words in proptest::collection::vec(
            prop_oneof!["max-age=[0-9]{1,4}", "no-store", "public", "[a-z]{1,5}=[0-9]{1,3}"], 1..8)) {
            let all = of(&words.join(", "));
            for word in &words {
                if let (Some(all), Some(one)) = (all, of(word)) {
                    prop_assert!(all <= one);
                }
            }
        }
    }
}
