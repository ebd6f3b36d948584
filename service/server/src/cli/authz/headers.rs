//! What a good token's answer tells the application behind the proxy.
//!
//! A claim becomes a header only where it arrives as what it was signed as: printable ASCII without
//! spaces at its ends, so that no line, no second header and no other text can come of it. What does
//! not fit is left out; `x-chancery-claims` has everything, in base64url.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chancery_relying_party::Accepted;
use chancery_token::b64;
use chancery_validate::log::Verdict;
use clap::ValueEnum;

/// The longest claim that becomes a header, in bytes. Subjects and URLs in use are shorter; proxies
/// hold 4 or 8 KiB of headers in all.
const MAX_VALUE_BYTES: usize = 1024;

/// Envoy takes the headers that are listed here out of its client's request.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// One header of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Told {
    /// `x-chancery-subject`: the claim `sub`
    Subject,
    /// `x-chancery-issuer`: the claim `iss`
    Issuer,
    /// `x-chancery-client`: the claim `client_id`
    Client,
    /// `x-chancery-scope`: the claim `scope`
    Scope,
    /// `x-chancery-token`: the claim `jti`, the token's place in its log
    Token,
    /// `x-chancery-expires`: the claim `exp`, Unix seconds
    Expires,
    /// `x-chancery-log`: what the log said, with --log
    Log,
    /// `x-chancery-claims`: all claims, the JSON text in base64url
    Claims,
}

impl Told {
    /// The header's name.
    pub const fn name(self) -> HeaderName {
        match self {
            Self::Subject => HeaderName::from_static("x-chancery-subject"),
            Self::Issuer => HeaderName::from_static("x-chancery-issuer"),
            Self::Client => HeaderName::from_static("x-chancery-client"),
            Self::Scope => HeaderName::from_static("x-chancery-scope"),
            Self::Token => HeaderName::from_static("x-chancery-token"),
            Self::Expires => HeaderName::from_static("x-chancery-expires"),
            Self::Log => HeaderName::from_static("x-chancery-log"),
            Self::Claims => HeaderName::from_static("x-chancery-claims"),
        }
    }

    /// Its value for a token; none where the token has nothing to say or it does not fit.
    fn value(self, accepted: &Accepted) -> Option<HeaderValue> {
        let claims = accepted.token.claims();
        match self {
            Self::Subject => plain(claims.sub),
            Self::Issuer => plain(claims.iss),
            Self::Client => plain(claims.client_id?),
            Self::Scope => plain(claims.scope?),
            Self::Token => plain(claims.jti?),
            Self::Expires => Some(HeaderValue::from(claims.exp)),
            Self::Log => accepted.log.as_ref().map(verdict),
            Self::Claims => {
                HeaderValue::try_from(b64::encode(accepted.token.payload().as_bytes())).ok()
            }
        }
    }
}

/// Writes what is told of an accepted token.
pub fn write(told: &[Told], accepted: &Accepted, to: &mut HeaderMap) {
    for one in told {
        if let Some(value) = one.value(accepted) {
            to.insert(one.name(), value);
        }
    }
}

/// Has Envoy take every header of ours that this answer does not set out of its client's request:
/// without that, a client could say what the token did not.
pub fn remove_others(answer: &mut HeaderMap) {
    let absent = Told::value_variants().iter().map(|one| one.name());
    let absent: Vec<HeaderName> = absent.filter(|name| !answer.contains_key(name)).collect();
    let names: Vec<&str> = absent.iter().map(HeaderName::as_str).collect();
    if let Ok(value) = HeaderValue::try_from(names.join(",")) {
        answer.insert(TO_REMOVE, value);
    }
}

/// A claim as a header, if it arrives unchanged.
fn plain(text: &str) -> Option<HeaderValue> {
    let fits = (1..=MAX_VALUE_BYTES).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && !text.starts_with(' ')
        && !text.ends_with(' ');
    if fits { HeaderValue::from_str(text).ok() } else { None }
}

fn verdict(verdict: &Verdict) -> HeaderValue {
    HeaderValue::from_static(match verdict {
        Verdict::InLog { .. } => "in_log",
        Verdict::Pending => "pending",
        Verdict::Missing => "missing",
        Verdict::Forged { .. } => "forged",
        Verdict::Unknown { .. } => "unknown",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn claims_that_would_change_on_the_way_are_left_out() {
        for good in ["user:1", "a b", "https://i.example/x?y=\"z\"", "a,b; c=%0d%0a"] {
            assert_eq!(plain(good).unwrap(), good);
        }
        let long = "x".repeat(1025);
        for bad in
            ["", " a", "a ", "a\r\nX-Chancery-Subject: b", "a\tb", "jürgen", "a\0", "\u{7f}", &long]
        {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn envoy_removes_what_is_not_told() {
        let mut answer = HeaderMap::new();
        answer.insert(Told::Subject.name(), HeaderValue::from_static("u"));
        answer.insert(Told::Claims.name(), HeaderValue::from_static("e30"));
        remove_others(&mut answer);
        let removed = answer.get("x-envoy-auth-headers-to-remove").unwrap();
        assert_eq!(
            removed,
            "x-chancery-issuer,x-chancery-client,x-chancery-scope,x-chancery-token,\
             x-chancery-expires,x-chancery-log"
        );
    }

    proptest! {
        #[test]
        fn a_header_is_the_claim_or_nothing(text in any::<String>()) {
            if let Some(value) = plain(&text) {
                prop_assert_eq!(value.to_str().unwrap(), text.trim());
            }
        }
    }
}
