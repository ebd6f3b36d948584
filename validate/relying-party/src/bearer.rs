//! RFC 6750 without a server: which token a request carries, what is demanded of it beyond the
//! validator's rules, and what a resource server answers when it lets nobody in.
//!
//! The tower layer and `chancery authz` are built on this page, so that both read and answer alike.
//! Nothing here tells the sender more than RFC 6750, section 3.1 asks for: the code and the detail of
//! a rejection are for the operator.

use std::fmt;

use chancery_validate::{Rejection, Validated};
use http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

/// Seconds after which a retryable rejection is worth another try: about the cool-down between two
/// fetches of a key set, and half of the time within which a log publishes a token.
pub const RETRY_AFTER_S: u32 = 5;

/// The realm that a challenge names where none is configured.
pub const DEFAULT_REALM: &str = "api";

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq)]
pub enum Denial {
    /// No `Authorization` header, or one of another scheme (401, without an error code).
    NoCredentials,
    /// More than one header or token, or none that has the form of one (400).
    Malformed(&'static str),
    /// The token is not acceptable (401), or cannot be judged just now (503).
    Rejected(Rejection),
    /// The token is acceptable here, but not for this audience, which was demanded of this request
    /// (401).
    OtherAudience(String),
    /// The token does not allow these scope values, separated by spaces (403).
    InsufficientScope(String),
}

impl Denial {
    /// A stable name: the rejection's code, or the denial's own.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::Malformed(_) => "malformed_credentials",
            Self::Rejected(rejection) => rejection.code().as_str(),
            Self::OtherAudience(_) => "other_audience",
            Self::InsufficientScope(_) => "insufficient_scope",
        }
    }

    /// Whether the same request may be let in soon.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Rejected(rejection) if rejection.retryable())
    }

    /// The status to answer: RFC 6750, section 3.1, and 503 for what is retryable.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope(_) => StatusCode::FORBIDDEN,
            Self::Rejected(_) if self.retryable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoCredentials | Self::Rejected(_) | Self::OtherAudience(_) => {
                StatusCode::UNAUTHORIZED
            }
        }
    }

    /// The value of `WWW-Authenticate` (RFC 6750, section 3); none for what is retryable, because
    /// another token would not help.
    #[must_use]
    pub fn challenge(&self, realm: &str) -> Option<HeaderValue> {
        let text = match self {
            Self::NoCredentials => format!("Bearer realm=\"{}\"", quotable(realm)),
            Self::Malformed(_) => "Bearer error=\"invalid_request\"".to_owned(),
            Self::Rejected(_) if self.retryable() => return None,
            Self::Rejected(_) | Self::OtherAudience(_) => {
                "Bearer error=\"invalid_token\"".to_owned()
            }
            Self::InsufficientScope(scope) => {
                format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", quotable(scope))
            }
        };
        HeaderValue::try_from(text).ok()
    }

    /// The whole answer, with an empty body.
    #[must_use]
    pub fn response<B: Default>(&self, realm: &str) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        self.write_headers(realm, response.headers_mut());
        response
    }

    /// The answer's headers: the challenge, `Retry-After` for what is retryable, and that nobody
    /// keeps it.
    pub fn write_headers(&self, realm: &str, headers: &mut HeaderMap) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge(realm) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if self.retryable() {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
    }
}

/// For logs. It may repeat parts of the token, escaped and cut, and is not meant for the sender.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str("no_credentials: the request carries no token"),
            Self::Malformed(why) => write!(f, "malformed_credentials: {why}"),
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::OtherAudience(audience) => {
                write!(f, "other_audience: the token is not for `{}`", audience.escape_debug())
            }
            Self::InsufficientScope(scope) => {
                write!(f, "insufficient_scope: wanted is `{}`", scope.escape_debug())
            }
        }
    }
}

impl std::error::Error for Denial {}

impl From<Rejection> for Denial {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// The one bearer token of a request, from its `Authorization` header (RFC 6750, section 2.1).
///
/// `query` is that of the request, without `?`. A token in it (section 2.3) is never read, because
/// URLs are logged; beside one in the header it makes the request malformed (section 3.1).
///
/// # Errors
/// [`Denial::NoCredentials`] and [`Denial::Malformed`].
pub fn token_of<'h>(headers: &'h HeaderMap, query: Option<&str>) -> Result<&'h str, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::NoCredentials)?;
    if values.next().is_some() {
        return Err(Denial::Malformed("more than one Authorization header"));
    }
    let text = value
        .to_str()
        .map_err(|_| Denial::Malformed("an Authorization header that is not visible ascii"))?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denial::NoCredentials);
    }
    let token = rest.trim_start_matches(' ');
    if !is_b64token(token) {
        return Err(Denial::Malformed("not one bearer token after the scheme"));
    }
    if query.is_some_and(names_token) {
        return Err(Denial::Malformed("a token in the query beside the one in the header"));
    }
    Ok(token)
}

/// RFC 6750, section 2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`. Two
/// tokens joined by a comma, as proxies join repeated headers, are none.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    !body.is_empty() && body.bytes().all(allowed)
}

/// Whether a query has the parameter of RFC 6750, section 2.3, in any spelling that decodes to it.
fn names_token(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "access_token")
}

/// What is demanded of a token beside the validator's rules. Demands only narrow: a token that the
/// validator rejects is never let in because of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// Scope values that the claim `scope` must have, all of them. Tokens of Microsoft Entra ID have
    /// `scp` and `roles` instead, which are the application's to judge.
    pub scopes: Vec<String>,
    /// Audiences that the token must name, all of them.
    pub audiences: Vec<String>,
}

impl Demands {
    /// Whether a token meets them.
    ///
    /// # Errors
    /// [`Denial::OtherAudience`], [`Denial::InsufficientScope`].
    pub fn check(&self, token: &Validated) -> Result<(), Denial> {
        for audience in &self.audiences {
            if !token.claims().aud.contains(audience) {
                return Err(Denial::OtherAudience(audience.clone()));
            }
        }
        let granted = token.claims().scope.unwrap_or("");
        if self.scopes.iter().all(|wanted| holds_scope(granted, wanted)) {
            return Ok(());
        }
        Err(Denial::InsufficientScope(self.scopes.join(" ")))
    }
}

/// Whether `granted`, scope values separated by spaces, has the value `wanted`.
pub(crate) fn holds_scope(granted: &str, wanted: &str) -> bool {
    !wanted.is_empty() && granted.split(' ').any(|value| value == wanted)
}

/// Text as it may stand between quotes in a header: printable ASCII but quote and backslash, of
/// which scope values consist anyway (RFC 6749, section 3.3).
fn quotable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn one_token_in_one_header_is_found() {
        for (value, token) in [
            ("Bearer a.b.c", "a.b.c"),
            ("bearer a.b.c", "a.b.c"),
            ("BEARER   x-._~+/9==", "x-._~+/9=="),
        ] {
            assert_eq!(token_of(&headers(&[value]), None), Ok(token), "{value}");
        }
        let quiet = Some("q=access_token&x=1&access_tokens=2");
        assert_eq!(token_of(&headers(&["Bearer t"]), quiet), Ok("t"));
    }

    #[test]
    fn another_scheme_is_no_credentials() {
        for values in [&[][..], &["Basic YTpi"], &["DPoP a.b.c"], &["Bearera.b.c"], &[""]] {
            assert_eq!(token_of(&headers(values), None), Err(Denial::NoCredentials), "{values:?}");
        }
        // A token in the query alone is a method that is not supported (section 3.1).
        assert_eq!(token_of(&headers(&[]), Some("access_token=t")), Err(Denial::NoCredentials));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_malformed() {
        for values in [
            &["Bearer a", "Bearer a"][..],
            &["Bearer a", "Basic b"],
            &["Basic b", "Bearer a"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a b"],
            &["Bearer a,Bearer b"],
            &["Bearer a, b"],
            &["Bearer \"a\""],
            &["Bearer =="],
            &["Bearer a=b"],
            &["Bearer a\tb"],
            &["Bearer ä"],
        ] {
            let headers = headers(values);
            let found = token_of(&headers, None);
            assert!(matches!(found, Err(Denial::Malformed(_))), "{values:?}: {found:?}");
        }
        for query in ["access_token=t", "a=1&access_token", "access%5Ftoken=t", "%61ccess_token=t"]
        {
            let headers = headers(&["Bearer t"]);
            let found = token_of(&headers, Some(query));
            assert!(matches!(found, Err(Denial::Malformed(_))), "{query}: {found:?}");
        }
    }

    #[test]
    fn answers_are_those_of_rfc_6750() {
        let scope = Denial::InsufficientScope("orders.read a\"\\\nb".into());
        let audience = Denial::OtherAudience("x".into());
        for (denial, status, challenge) in [
            (Denial::NoCredentials, 401, r#"Bearer realm="my api""#),
            (Denial::Malformed("x"), 400, r#"Bearer error="invalid_request""#),
            (audience, 401, r#"Bearer error="invalid_token""#),
            (scope, 403, r#"Bearer error="insufficient_scope", scope="orders.read ab""#),
        ] {
            let response: Response<()> = denial.response("my\n \"api\"");
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().get(WWW_AUTHENTICATE).unwrap(), challenge);
            assert_eq!(response.headers().get(CACHE_CONTROL).unwrap(), "no-store");
            assert!(response.headers().get(RETRY_AFTER).is_none());
            assert!(denial.to_string().starts_with(denial.code()), "{denial}");
        }
    }

    #[test]
    fn scope_values_are_compared_whole() {
        assert!(holds_scope("read write", "read") && holds_scope("read write", "write"));
        for wanted in ["", "rea", "read write", "READ", " "] {
            assert!(!holds_scope("read write", wanted), "{wanted:?}");
        }
        assert!(!holds_scope("", ""));
    }

    proptest! {
        #[test]
        fn no_header_makes_more_than_one_token_of_it(value in "[ -~]{0,40}", query in ".{0,20}") {
            if let Ok(token) = token_of(&headers(&[&value]), Some(&query)) {
                prop_assert!(value.ends_with(token) && is_b64token(token));
                prop_assert_eq!(value.len().checked_sub(token.len()).is_some_and(|n| n >= 7), true);
            }
        }

        #[test]
        fn every_realm_and_scope_makes_one_header(text in any::<String>()) {
            prop_assert!(Denial::NoCredentials.challenge(&text).is_some());
            prop_assert!(Denial::InsufficientScope(text).challenge("").is_some());
        }
    }
}
