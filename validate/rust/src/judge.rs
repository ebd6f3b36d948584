//! The judgement of one token: every check, in order. Open this page first.
//!
//! What costs nothing comes first, the signature before any claim is read. Each value that a later
//! check needs comes out of an earlier one: a key's terms come from the key that `kid` found, claims
//! from the verification of their signature by that key.
//!
//! The one thing that is read before is the issuer that a token *claims*, where several are
//! accepted: it chooses whose keys are looked at, and is compared again once it is verified.

use std::sync::Arc;

use chancery_token::jwks::{Member, Window};
use chancery_token::jws::{self, Compact, Header};

use crate::claims::{Headers, Signed, Verified, bad, claimed, missing, take_apart};
use crate::explain::{Recorder, shown};
use crate::keys::{Keys, not_at_hand};
use crate::{
    Claims, LogAddress, LogLookup, Profile, Rejection, RejectionCode, TokenCache, Validated,
    ValidatorConfig, tenant,
};

/// What a judgement goes by.
pub struct Court<'v> {
    pub config: &'v ValidatorConfig,
    /// The keys of each issuer, in the order of the configuration.
    pub keys: &'v [Keys],
    pub headers: &'v Headers,
    pub cache: Option<&'v TokenCache>,
}

/// Judges `token` at the time `now`, in seconds since 1970.
pub fn judge(
    court: &Court<'_>,
    token: &str,
    now: u64,
    to: &mut impl Recorder,
) -> Result<Validated, Rejection> {
    let config = court.config;
    // The token's form, believing nothing.
    let form = to.check("form", || format!("{} bytes", token.len()), Form::of(token, court))?;
    let header = form.header();
    let typ = header.typ.as_deref();
    to.check("type", || option(typ), check_type(config, typ))?;

    // The key, found by `kid` alone among those of one issuer, and what it may do (INVARIANT I3).
    let issuer = choose_issuer(config, &form, to)?;
    let keys = court.keys.get(issuer.index);
    let key = to.check("key", || option(header.kid.as_deref()), find_key(keys, header))?;
    let terms = to.check("key_terms", || members(key), Terms::of(config.profile, key))?;
    if config.profile != Profile::Entra {
        let speaks = check_key_issuer(&terms, issuer.name);
        to.check("key_issuer", || option(terms.issuer), speaks)?;
    }
    to.check("key_in_set", || until(key.exp, now), check_in_set(key, now))?;

    // The signature, by the key's algorithm.
    to.check("algorithm", || shown(&header.alg), check_algorithm(config, header, key))?;
    let (signed, fresh) = form.signed(token, court.headers, key, to)?;
    let claims = signed.claims();
    let demanded = check_demanded(config.profile, &signed);
    to.check("claims", || format!("{} bytes", signed.payload.len()), demanded)?;
    let tenant = signed.tenant();
    to.check("issuer", || shown(claims.iss), check_issuer(config, &issuer, &claims, tenant))?;
    if config.profile == Profile::Entra {
        to.check("tenant", || option(tenant), check_tenant(config, &claims, tenant))?;
        let speaks = check_key_tenant(&terms, &claims, tenant);
        to.check("key_issuer", || option(terms.issuer), speaks)?;
    }
    let audiences = || shown(&claims.aud.iter().collect::<Vec<_>>().join(" "));
    to.check("audience", audiences, check_audience(config, &claims))?;

    check_times(config, &claims, &terms, now, to)?;

    // The token's place in the log of the key.
    let jti = || option(claims.jti);
    let address = to.check("log_address", jti, check_address(config, &claims, &terms))?;

    if let (Some(cache), true) = (court.cache, fresh) {
        cache.keep(token, &signed);
    }
    Ok(Validated::new(signed, terms.log, address))
}

/// A token before its signature is judged: taken apart, or known from a judgement before.
enum Form<'t> {
    Fresh(Compact<'t>),
    Known(Arc<Signed>),
}

impl<'t> Form<'t> {
    fn of(token: &'t str, court: &Court<'_>) -> Result<Self, Rejection> {
        if let Some(signed) = court.cache.and_then(|cache| cache.get(token)) {
            return Ok(Self::Known(signed));
        }
        take_apart(token, court.headers).map(Self::Fresh)
    }

    fn header(&self) -> &Header {
        match self {
            Self::Fresh(token) => &token.header,
            Self::Known(signed) => &signed.header,
        }
    }

    /// The issuer and the tenant that the token claims.
    fn claimed(&self) -> Result<(String, Option<String>), Rejection> {
        match self {
            Self::Fresh(token) => claimed(token),
            Self::Known(signed) => {
                Ok((signed.claims().iss.to_owned(), signed.tenant().map(str::to_owned)))
            }
        }
    }

    /// The content under a signature of `key`, and whether it was verified just now. What another
    /// key of the same name has signed is verified anew.
    fn signed(
        self,
        text: &'t str,
        headers: &Headers,
        key: &Member,
        to: &mut impl Recorder,
    ) -> Result<(Arc<Signed>, bool), Rejection> {
        let algorithm = || key.key.algorithm().to_string();
        let token = match self {
            Self::Known(signed)
                if signed.thumbprint == key.key.kid()
                    && signed.algorithm == key.key.algorithm() =>
            {
                return Ok((to.check("signature", algorithm, Ok(signed))?, false));
            }
            Self::Known(_) => take_apart(text, headers)?,
            Self::Fresh(token) => token,
        };
        let bytes = token.payload.len();
        let verified = to.check("signature", algorithm, Verified::by(&key.key, token))?;
        let signed = verified.read();
        let failed = signed.as_ref().err().cloned();
        if let Some(rejection) = failed {
            to.check("claims", || format!("{bytes} bytes"), Err::<(), _>(rejection))?;
        }
        Ok((signed?, true))
    }
}

/// Which issuer's keys may have signed the token, before that is verified.
struct Issuer<'c> {
    index: usize,
    /// As it is configured; a template under profile `entra`.
    name: &'c str,
}

fn choose_issuer<'c>(
    config: &'c ValidatorConfig,
    form: &Form<'_>,
    to: &mut impl Recorder,
) -> Result<Issuer<'c>, Rejection> {
    if let [name] = config.issuers.as_slice() {
        return Ok(Issuer { index: 0, name });
    }
    let claimed = form.claimed();
    let seen = claimed.as_ref().map_or_else(|_| String::new(), |(iss, _)| shown(iss));
    let found = claimed.and_then(|(iss, tenant)| {
        issuer_of(config, &iss, tenant.as_deref()).ok_or_else(|| wrong_issuer(config, &iss))
    });
    to.check("claimed_issuer", || seen, found)
}

/// The configured issuer that `iss` is, or is an instance of.
fn issuer_of<'c>(
    config: &'c ValidatorConfig,
    iss: &str,
    tenant: Option<&str>,
) -> Option<Issuer<'c>> {
    // The issuer itself comes before a template that it fits too: it may have keys of its own.
    let exact = config.issuers.iter().position(|issuer| issuer == iss);
    let index = exact.or_else(|| {
        config.issuers.iter().position(|issuer| is_issuer(config, issuer, iss, tenant))
    })?;
    config.issuers.get(index).map(|name| Issuer { index, name })
}

/// Which configured issuer a token claims, unverified: whose key set to look at.
pub fn route<'c>(config: &'c ValidatorConfig, headers: &Headers, token: &str) -> Option<&'c str> {
    if let [issuer] = config.issuers.as_slice() {
        return Some(issuer);
    }
    let (iss, tenant) = claimed(&take_apart(token, headers).ok()?).ok()?;
    issuer_of(config, &iss, tenant.as_deref()).map(|issuer| issuer.name)
}

fn is_issuer(config: &ValidatorConfig, issuer: &str, iss: &str, tenant: Option<&str>) -> bool {
    match tenant {
        Some(tenant) if config.profile == Profile::Entra && tenant::is_template(issuer) => {
            tenant::fill(issuer, tenant) == iss
        }
        _ => issuer == iss,
    }
}

fn check_times(
    config: &ValidatorConfig,
    claims: &Claims<'_>,
    terms: &Terms<'_>,
    now: u64,
    to: &mut impl Recorder,
) -> Result<(), Rejection> {
    let lifetime = || format!("{} s", claims.exp.saturating_sub(claims.iat));
    to.check("issued_at", || after(claims.iat, now), check_issued(config, claims, now))?;
    to.check("key_window", || window(claims, terms), check_window(claims, terms))?;
    to.check("lifetime", lifetime, check_lifetime(config, claims))?;
    to.check("expiry", || until(Some(claims.exp), now), check_expiry(config, claims, now))?;
    let nbf = || claims.nbf.map_or_else(|| "not there".to_owned(), |nbf| after(nbf, now));
    to.check("not_before", nbf, check_not_before(config, claims, now))
}

/// What a key's members say that it may do.
struct Terms<'k> {
    issuer: Option<&'k str>,
    window: Option<Window>,
    log: Option<LogAddress>,
    log_text: Option<&'k str>,
}

impl<'k> Terms<'k> {
    /// Profile `strict` demands all of them, `entra` the issuer. A member that is there counts
    /// under every profile.
    fn of(profile: Profile, key: &'k Member) -> Result<Self, Rejection> {
        let demand = |there: bool, by: &[Profile], member: &str| {
            demand(there || !by.contains(&profile), RejectionCode::KeyWithoutWindow, || {
                format!("key `{}` has no member {member}", shown(&key.kid))
            })
        };
        let log_text = key.log.as_deref();
        demand(log_text.is_some(), &[Profile::Strict], "`log`")?;
        demand(key.issuer.is_some(), &[Profile::Strict, Profile::Entra], "`issuer`")?;
        demand(key.window.is_some(), &[Profile::Strict], "`nbf` and `signs_until`")?;
        let log = log_text.map(|text| {
            LogAddress::of_key(text).ok_or_else(|| {
                let text = format!("member `log` `{}` is not `<log id>.<index>`", shown(text));
                Rejection::new(RejectionCode::KeyMalformed, text)
            })
        });
        Ok(Self {
            issuer: key.issuer.as_deref(),
            window: key.window,
            log: log.transpose()?,
            log_text,
        })
    }
}

/// RFC 8725, section 3.11: the type tells access tokens from everything else that an issuer signs.
fn check_type(config: &ValidatorConfig, typ: Option<&str>) -> Result<(), Rejection> {
    demand(config.accepts_typ(typ), RejectionCode::WrongType, || {
        format!("`typ` is `{}`, accepted is `{}`", option(typ), config.accepted_typ.join("`, `"))
    })
}

/// By `kid` alone: trying other keys would let a token choose whose key is good enough.
fn find_key<'k>(keys: Option<&'k Keys>, header: &Header) -> Result<&'k Member, Rejection> {
    let kid = header.kid.as_deref().ok_or_else(|| {
        Rejection::new(RejectionCode::MissingKid, "the header names no key".to_owned())
    })?;
    keys.ok_or_else(not_at_hand)?.find(kid)
}

fn check_key_issuer(terms: &Terms<'_>, issuer: &str) -> Result<(), Rejection> {
    demand(terms.issuer.is_none_or(|key| key == issuer), RejectionCode::KeyOfOtherIssuer, || {
        format!("the key speaks for `{}`, accepted is `{issuer}`", option(terms.issuer))
    })
}

/// Microsoft: "the key's issuer, with the tenant filled in, must be the token's".
fn check_key_tenant(
    terms: &Terms<'_>,
    claims: &Claims<'_>,
    tenant: Option<&str>,
) -> Result<(), Rejection> {
    let key = terms.issuer.unwrap_or_default();
    let speaks = tenant.is_some_and(|tenant| tenant::may_speak(key, claims.iss, tenant));
    demand(speaks, RejectionCode::KeyOfOtherIssuer, || {
        let (key, iss, tenant) = (shown(key), shown(claims.iss), option(tenant));
        format!("the key speaks for `{key}`, the token for `{iss}` in tenant `{tenant}`")
    })
}

fn check_in_set(key: &Member, now: u64) -> Result<(), Rejection> {
    demand(key.exp.is_none_or(|exp| now < exp), RejectionCode::KeyLeftSet, || {
        format!("the key's `exp` is over: {}", until(key.exp, now))
    })
}

fn check_algorithm(
    config: &ValidatorConfig,
    header: &Header,
    key: &Member,
) -> Result<(), Rejection> {
    jws::check_algorithm(header, &key.key, config.accept_eddsa)
        .map_err(|error| Rejection::new(RejectionCode::AlgorithmNotOfKey, error.to_string()))?;
    let algorithm = key.key.algorithm();
    let accepted = config.algorithms.is_empty() || config.algorithms.contains(&algorithm);
    demand(accepted, RejectionCode::AlgorithmNotAccepted, || {
        format!("the key is one for `{algorithm}`, which is not accepted here")
    })
}

/// RFC 9068, section 2.2 demands these two of access tokens; ID tokens and most providers' access
/// tokens do without.
///
/// What other providers write into optional claims decides nothing there: it is as if the claim were
/// not there. What says that it is an event and no access token (RFC 8417, section 2.2; OpenID Connect
/// Back-Channel Logout 1.0, section 2.6) is refused, because many providers give it no `typ`.
fn check_demanded(profile: Profile, signed: &Signed) -> Result<(), Rejection> {
    if profile != Profile::Strict {
        return demand(!signed.is_event(), RejectionCode::WrongType, || {
            "the claim `events` says that this is a security event or a logout token".to_owned()
        });
    }
    signed.optional_fault()?;
    let claims = signed.claims();
    claims.jti.ok_or_else(|| missing("jti"))?;
    claims.client_id.map(|_| ()).ok_or_else(|| missing("client_id"))
}

fn check_issuer(
    config: &ValidatorConfig,
    issuer: &Issuer<'_>,
    claims: &Claims<'_>,
    tenant: Option<&str>,
) -> Result<(), Rejection> {
    demand(is_issuer(config, issuer.name, claims.iss, tenant), RejectionCode::WrongIssuer, || {
        format!("`iss` is `{}`, accepted is `{}`", shown(claims.iss), issuer.name)
    })
}

fn wrong_issuer(config: &ValidatorConfig, iss: &str) -> Rejection {
    let accepted = config.issuers.join("`, `");
    let text = format!("`iss` is `{}`, accepted are `{accepted}`", shown(iss));
    Rejection::new(RejectionCode::WrongIssuer, text)
}

fn check_tenant(
    config: &ValidatorConfig,
    claims: &Claims<'_>,
    tenant: Option<&str>,
) -> Result<(), Rejection> {
    let tenant = tenant.ok_or_else(|| missing("tid"))?;
    if !tenant::is_tenant(tenant) {
        return Err(bad("tid", "is not a tenant's id"));
    }
    demand(tenant::is_of(claims.iss, tenant), RejectionCode::WrongTenant, || {
        format!("`tid` is `{tenant}`, `iss` `{}` is another tenant's", shown(claims.iss))
    })?;
    let accepted = config.tenants.is_empty() || config.tenants.iter().any(|known| known == tenant);
    demand(accepted, RejectionCode::WrongTenant, || {
        format!("`tid` is `{tenant}`, which is not one of the accepted tenants")
    })
}

fn check_audience(config: &ValidatorConfig, claims: &Claims<'_>) -> Result<(), Rejection> {
    let named = config.audiences.iter().any(|audience| claims.aud.contains(audience));
    demand(named, RejectionCode::WrongAudience, || {
        let audiences = shown(&claims.aud.iter().collect::<Vec<_>>().join(" "));
        format!("`aud` is `{audiences}`, accepted is `{}`", config.audiences.join("`, `"))
    })
}

fn check_issued(config: &ValidatorConfig, claims: &Claims<'_>, now: u64) -> Result<(), Rejection> {
    demand(claims.iat <= now.saturating_add(config.leeway_s), RejectionCode::IssuedInFuture, || {
        format!("`iat` is {}; check the clocks", after(claims.iat, now))
    })
}

/// No leeway: the signer compared the same two numbers before it signed.
fn check_window(claims: &Claims<'_>, terms: &Terms<'_>) -> Result<(), Rejection> {
    let within = terms.window.is_none_or(|window| window.contains(claims.iat));
    demand(within, RejectionCode::OutsideKeyWindow, || window(claims, terms))
}

fn check_lifetime(config: &ValidatorConfig, claims: &Claims<'_>) -> Result<(), Rejection> {
    let lifetime_s = claims.exp.checked_sub(claims.iat).filter(|lifetime_s| *lifetime_s > 0);
    let lifetime_s = lifetime_s.ok_or_else(|| {
        Rejection::new(RejectionCode::BadClaim, "`exp` is not after `iat`".to_owned())
    })?;
    if claims.nbf.is_some_and(|nbf| nbf >= claims.exp) {
        return Err(bad("nbf", "is not before `exp`"));
    }
    let bound = config.max_lifetime_s.unwrap_or(u64::MAX);
    demand(lifetime_s <= bound, RejectionCode::LifetimeTooLong, || {
        format!("the token lives {lifetime_s} s, accepted are {bound} s")
    })
}

fn check_expiry(config: &ValidatorConfig, claims: &Claims<'_>, now: u64) -> Result<(), Rejection> {
    demand(now < claims.exp.saturating_add(config.leeway_s), RejectionCode::Expired, || {
        format!("`exp` is over: {}", until(Some(claims.exp), now))
    })
}

fn check_not_before(
    config: &ValidatorConfig,
    claims: &Claims<'_>,
    now: u64,
) -> Result<(), Rejection> {
    let nbf = claims.nbf.unwrap_or(0);
    demand(nbf <= now.saturating_add(config.leeway_s), RejectionCode::NotYetValid, || {
        format!("`nbf` is {}", after(nbf, now))
    })
}

/// Section 5 of the design: a token that names another log than its key's, or none, could not be
/// looked up where the key's owner would see it. One that is looked up by digest needs no address,
/// and the one that it has is not used: whoever composed it may have chosen a place of another entry.
fn check_address(
    config: &ValidatorConfig,
    claims: &Claims<'_>,
    terms: &Terms<'_>,
) -> Result<Option<LogAddress>, Rejection> {
    let Some(log) = terms.log.map(|address| address.log()) else { return Ok(None) };
    let spelled = terms.log_text.and_then(|text| text.split('.').next()).unwrap_or_default();
    let address = claims.jti.and_then(|jti| LogAddress::of_jti(jti, spelled, log));
    let by_digest = config.log_lookup == LogLookup::Digest;
    let is_foreign = || by_digest && claims.jti.and_then(LogAddress::in_jti).is_none();
    demand(address.is_some() || is_foreign(), RejectionCode::LogIdMismatch, || {
        format!("`jti` is `{}`, not `{log}.<index>.<random>`", option(claims.jti))
    })?;
    Ok(address.filter(|_| !by_digest))
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

fn window(claims: &Claims<'_>, terms: &Terms<'_>) -> String {
    match terms.window {
        Some(Window { nbf, signs_until }) => {
            format!("issued at {}, the key signs from {nbf} to before {signs_until}", claims.iat)
        }
        None => format!("issued at {}, the key says no window", claims.iat),
    }
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
