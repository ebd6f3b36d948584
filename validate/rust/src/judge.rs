//! The judgement of one token: every check, in order. Open this page first.
//!
//! What costs nothing comes first, the signature before any claim is read. Each value that a later
//! check needs comes out of an earlier one, so none can be left out: a key cannot be used before its
//! members were demanded, claims cannot be read before the signature was verified.

use chancery_token::jwks::{KeySet, Member, Window};
use chancery_token::jws::{self, Compact, Header};
use chancery_token::{Algorithm, KeyId};
use serde_json::{Map, Value};

use crate::claims::Verified;
use crate::explain::{Recorder, shown};
use crate::rejection::of_form;
use crate::{Claims, LogAddress, Rejection, RejectionCode, ValidatorConfig};

/// A token that passed every check. There is no other way to make one.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    claims: Claims,
    extra: Map<String, Value>,
    algorithm: Algorithm,
    kid: String,
    thumbprint: KeyId,
    key_log: String,
    address: LogAddress,
    signing_input: String,
}

impl Validated {
    /// The claims with a meaning here.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// All other claims, as they were signed.
    #[must_use]
    pub fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }

    /// The algorithm, which is the key's.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `kid` by which token and key set name the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key's RFC 7638 thumbprint, by which logs name it.
    #[must_use]
    pub fn key_thumbprint(&self) -> KeyId {
        self.thumbprint
    }

    /// The key's member `log`, where it was announced. Profile `strict` demands it.
    #[must_use]
    pub fn key_log(&self) -> Option<&str> {
        Some(&self.key_log)
    }

    /// Where the token's entry stands, from its `jti`; the log is that of the key.
    #[must_use]
    pub fn log_address(&self) -> LogAddress {
        self.address
    }

    /// The text that was signed (RFC 7515, section 5.1).
    #[must_use]
    pub fn signing_input(&self) -> &str {
        &self.signing_input
    }
}

/// Judges `token` at the time `now`, in seconds since 1970.
pub(crate) fn judge(
    config: &ValidatorConfig,
    keys: &KeySet,
    token: &str,
    now: u64,
    to: &mut impl Recorder,
) -> Result<Validated, Rejection> {
    // The token's form, believing nothing.
    let mut jws = to.check("form", || format!("{} bytes", token.len()), read(token))?;
    to.check("type", || option(jws.header.typ.as_deref()), check_type(config, &jws.header))?;

    // The key, found by `kid` alone, and what it may do (INVARIANT I3).
    let key = to.check("key", || option(jws.header.kid.as_deref()), find_key(keys, &jws.header))?;
    let terms = to.check("key_terms", || members(key), Terms::of(key))?;
    to.check("key_issuer", || shown(terms.issuer), check_key_issuer(config, &terms))?;
    to.check("key_in_set", || until(key.exp, now), check_in_set(key, now))?;

    // The signature, by the key's algorithm.
    let verified = Verified::by(&key.key, &mut jws, config.accept_eddsa);
    to.check("algorithm", || shown(&jws.header.alg), wrong_algorithm(&verified))?;
    let verified = to.check("signature", || key.key.algorithm().to_string(), verified)?;

    // The claims.
    let read = verified.claims();
    let (claims, extra) = to.check("claims", || format!("{} bytes", verified.len()), read)?;
    to.check("issuer", || shown(&claims.iss), check_issuer(config, &claims))?;
    to.check("audience", || shown(&claims.aud.join(" ")), check_audience(config, &claims))?;

    // The times.
    let lifetime = || format!("{} s", claims.exp.saturating_sub(claims.iat));
    to.check("issued_at", || after(claims.iat, now), check_issued(config, &claims, now))?;
    to.check("key_window", || window(&claims, &terms), check_window(&claims, &terms))?;
    to.check("lifetime", lifetime, check_lifetime(config, &claims))?;
    to.check("expiry", || until(Some(claims.exp), now), check_expiry(config, &claims, now))?;
    let nbf = || claims.nbf.map_or_else(|| "not there".to_owned(), |nbf| after(nbf, now));
    to.check("not_before", nbf, check_not_before(config, &claims, now))?;

    // The token's place in the log of the key.
    let address = to.check("log_address", || shown(&claims.jti), check_address(&claims, &terms))?;

    Ok(Validated {
        algorithm: key.key.algorithm(),
        kid: key.kid.clone(),
        thumbprint: key.key.kid(),
        key_log: terms.log_text.to_owned(),
        address,
        signing_input: jws.signing_input.to_owned(),
        claims,
        extra,
    })
}

/// What a key's members say that it may do. Profile `strict` demands all of them.
struct Terms<'k> {
    issuer: &'k str,
    window: Window,
    log: LogAddress,
    log_text: &'k str,
}

impl<'k> Terms<'k> {
    fn of(key: &'k Member) -> Result<Self, Rejection> {
        let missing = |member: &str| {
            let text = format!("key `{}` has no member {member}", shown(&key.kid));
            Rejection::new(RejectionCode::KeyWithoutWindow, text)
        };
        let log_text = key.log.as_deref().ok_or_else(|| missing("`log`"))?;
        Ok(Self {
            issuer: key.issuer.as_deref().ok_or_else(|| missing("`issuer`"))?,
            window: key.window.ok_or_else(|| missing("`nbf` and `signs_until`"))?,
            log: LogAddress::of_key(log_text).ok_or_else(|| {
                let text = format!("member `log` `{}` is not `<log id>.<index>`", shown(log_text));
                Rejection::new(RejectionCode::KeyMalformed, text)
            })?,
            log_text,
        })
    }
}

fn read(token: &str) -> Result<Compact<'_>, Rejection> {
    jws::parse(token, jws::MAX_TOKEN_BYTES).map_err(|error| of_form(&error))
}

/// RFC 8725, section 3.11: the type tells access tokens from everything else that an issuer signs.
fn check_type(config: &ValidatorConfig, header: &Header) -> Result<(), Rejection> {
    demand(
        header.typ.as_deref().is_some_and(|typ| config.accepts_typ(typ)),
        RejectionCode::WrongType,
        || {
            let accepted = config.accepted_typ.join("`, `");
            format!("`typ` is `{}`, accepted is `{accepted}`", option(header.typ.as_deref()))
        },
    )
}

/// By `kid` alone: trying other keys would let a token choose whose key is good enough.
fn find_key<'k>(keys: &'k KeySet, header: &Header) -> Result<&'k Member, Rejection> {
    let kid = header.kid.as_deref().ok_or_else(|| {
        Rejection::new(RejectionCode::MissingKid, "the header names no key".to_owned())
    })?;
    if let Some(key) = keys.get(kid) {
        return Ok(key);
    }
    let refused = keys.refused.iter().find(|(refused, _)| refused.as_deref() == Some(kid));
    Err(match refused {
        Some((_, error)) => {
            let text = format!("key `{}` of the set is not usable: {error}", shown(kid));
            Rejection::new(RejectionCode::KeyMalformed, text)
        }
        None => {
            let text = format!("no key of the set has kid `{}`", shown(kid));
            Rejection::new(RejectionCode::UnknownKey, text)
        }
    })
}

fn check_key_issuer(config: &ValidatorConfig, terms: &Terms<'_>) -> Result<(), Rejection> {
    demand(terms.issuer == config.issuer, RejectionCode::KeyOfOtherIssuer, || {
        let (key, want) = (shown(terms.issuer), &config.issuer);
        format!("the key speaks for `{key}`, accepted is `{want}`")
    })
}

fn check_in_set(key: &Member, now: u64) -> Result<(), Rejection> {
    demand(key.exp.is_none_or(|exp| now < exp), RejectionCode::KeyLeftSet, || {
        format!("the key's `exp` is over: {}", until(key.exp, now))
    })
}

fn wrong_algorithm(verified: &Result<Verified, Rejection>) -> Result<(), Rejection> {
    match verified {
        Err(rejection) if rejection.code() == RejectionCode::AlgorithmNotOfKey => {
            Err(rejection.clone())
        }
        _ => Ok(()),
    }
}

fn check_issuer(config: &ValidatorConfig, claims: &Claims) -> Result<(), Rejection> {
    demand(claims.iss == config.issuer, RejectionCode::WrongIssuer, || {
        format!("`iss` is `{}`, accepted is `{}`", shown(&claims.iss), config.issuer)
    })
}

fn check_audience(config: &ValidatorConfig, claims: &Claims) -> Result<(), Rejection> {
    demand(claims.aud.contains(&config.audience), RejectionCode::WrongAudience, || {
        let audiences = shown(&claims.aud.join(" "));
        format!("`aud` is `{audiences}`, accepted is `{}`", config.audience)
    })
}

fn check_issued(config: &ValidatorConfig, claims: &Claims, now: u64) -> Result<(), Rejection> {
    demand(claims.iat <= now.saturating_add(config.leeway_s), RejectionCode::IssuedInFuture, || {
        format!("`iat` is {}; check the clocks", after(claims.iat, now))
    })
}

/// No leeway: the signer compared the same two numbers before it signed.
fn check_window(claims: &Claims, terms: &Terms<'_>) -> Result<(), Rejection> {
    demand(terms.window.contains(claims.iat), RejectionCode::OutsideKeyWindow, || {
        window(claims, terms)
    })
}

fn check_lifetime(config: &ValidatorConfig, claims: &Claims) -> Result<(), Rejection> {
    let lifetime_s = claims.exp.checked_sub(claims.iat).filter(|lifetime_s| *lifetime_s > 0);
    let lifetime_s = lifetime_s.ok_or_else(|| {
        Rejection::new(RejectionCode::BadClaim, "`exp` is not after `iat`".to_owned())
    })?;
    let bound = config.max_lifetime_s.unwrap_or(u64::MAX);
    demand(lifetime_s <= bound, RejectionCode::LifetimeTooLong, || {
        format!("the token lives {lifetime_s} s, accepted are {bound} s")
    })
}

fn check_expiry(config: &ValidatorConfig, claims: &Claims, now: u64) -> Result<(), Rejection> {
    demand(now < claims.exp.saturating_add(config.leeway_s), RejectionCode::Expired, || {
        format!("`exp` is over: {}", until(Some(claims.exp), now))
    })
}

fn check_not_before(config: &ValidatorConfig, claims: &Claims, now: u64) -> Result<(), Rejection> {
    let nbf = claims.nbf.unwrap_or(0);
    demand(nbf <= now.saturating_add(config.leeway_s), RejectionCode::NotYetValid, || {
        format!("`nbf` is {}", after(nbf, now))
    })
}

/// Section 5 of the design: a token that names another log than its key's, or none, could not be
/// looked up where the key's owner would see it.
fn check_address(claims: &Claims, terms: &Terms<'_>) -> Result<LogAddress, Rejection> {
    LogAddress::of_jti(&claims.jti).filter(|address| address.log() == terms.log.log()).ok_or_else(
        || {
            let text = format!(
                "`jti` is `{}`, not `{}.<index>.<random>`",
                shown(&claims.jti),
                terms.log.log()
            );
            Rejection::new(RejectionCode::LogIdMismatch, text)
        },
    )
}

fn demand(
    passed: bool,
    code: RejectionCode,
    detail: impl FnOnce() -> String,
) -> Result<(), Rejection> {
    if passed { Ok(()) } else { Err(Rejection::new(code, detail())) }
}

fn option(text: Option<&str>) -> String {
    text.map_or_else(|| "not there".to_owned(), shown)
}

fn members(key: &Member) -> String {
    let window = key.window.map_or_else(
        || "not there".to_owned(),
        |window| format!("{} to {}", window.nbf, window.signs_until),
    );
    let (issuer, log) = (option(key.issuer.as_deref()), option(key.log.as_deref()));
    format!("issuer {issuer}, window {window}, log {log}")
}

fn window(claims: &Claims, terms: &Terms<'_>) -> String {
    let Window { nbf, signs_until } = terms.window;
    format!("issued at {}, the key signs from {nbf} to before {signs_until}", claims.iat)
}

/// A time that should be in the future.
fn until(end: Option<u64>, now: u64) -> String {
    match end {
        None => "not there".to_owned(),
        Some(end) if end > now => format!("{end}, in {} s", end.saturating_sub(now)),
        Some(end) => format!("{end}, {} s ago", now.saturating_sub(end)),
    }
}

/// A time that should be in the past.
fn after(start: u64, now: u64) -> String {
    until(Some(start), now)
}
