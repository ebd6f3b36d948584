//! What a relying party demands of a token.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use chancery_token::Algorithm;

use crate::tenant;

/// Seconds by which the clocks of signer and relying party may differ. Hosts that run NTP are
/// within one; 30 also covers those that have just been resumed.
pub const DEFAULT_LEEWAY_S: u64 = 30;

/// The largest leeway that [`ValidatorConfig::check`] lets pass: five minutes, the most that
/// libraries in use allow. More hides a broken clock and lengthens every token's life.
pub const MAX_LEEWAY_S: u64 = 300;

/// Seconds from `iat` to `exp` that are accepted: a day. A longer-lived access token is a mistake
/// or an attack, because nothing revokes it.
pub const DEFAULT_MAX_LIFETIME_S: u64 = 24 * 60 * 60;

/// Seconds from `iat` to `exp` under profile `entra`: tokens for clients that take part in
/// continuous access evaluation live up to 28 hours, and are dated five minutes back.
pub const ENTRA_MAX_LIFETIME_S: u64 = 28 * 60 * 60 + 5 * 60;

/// The `typ` of JWT access tokens (RFC 9068, section 2.1).
pub const DEFAULT_TYP: &str = "at+jwt";

/// Whose tokens are judged. `docs/rejections.md` has the table of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// Chancery's own: keys carry their issuer, window and log, tokens their address in it.
    #[default]
    Strict,
    /// Ordinary OpenID providers: these members are enforced where they are there.
    Oidc,
    /// Microsoft Entra ID: as `oidc`, and the key's `issuer`, with its `{tenantid}` filled in from
    /// `tid`, must be the token's.
    Entra,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Strict, Self::Oidc, Self::Entra];

    /// The name, as options spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Oidc => "oidc",
            Self::Entra => "entra",
        }
    }

    /// The algorithm of RSA keys that do not name one. Chancery's always do.
    #[must_use]
    pub const fn rsa_without_alg(self) -> Option<Algorithm> {
        match self {
            Self::Strict => None,
            Self::Oidc | Self::Entra => Some(Algorithm::Rs256),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let known = Self::ALL.into_iter().find(|profile| profile.as_str() == name);
        known.ok_or_else(|| ConfigError::UnknownProfile(name.to_owned()))
    }
}

/// How the log of a token's key says where the token's entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LogLookup {
    /// By the address in its `jti`, which the signer wrote.
    #[default]
    Address,
    /// By the digest of its entry: for realms whose tokens somebody else composes, `jti` included, as
    /// Kubernetes' API server does. Whoever serves the log is asked for the place; the answer is
    /// believed only with a proof.
    Digest,
}

impl LogLookup {
    /// The name, as options spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Digest => "digest",
        }
    }
}

impl fmt::Display for LogLookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for LogLookup {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let known = [Self::Address, Self::Digest].into_iter().find(|way| way.as_str() == name);
        known.ok_or_else(|| ConfigError::UnknownLookup(name.to_owned()))
    }
}

/// What a relying party demands.
///
/// There is no leeway for a key's window and for the time at which it leaves its set: those are
/// compared with the token's `iat`, which the key's own signer wrote, and with a time that the
/// publisher chose with reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorConfig {
    /// Whose tokens are judged.
    pub profile: Profile,
    /// The issuers' URLs. `iss` and the key's `issuer` must both equal the one whose key set holds
    /// the key, octet by octet. Under [`Profile::Entra`] one may hold `{tenantid}`, which stands
    /// for the token's `tid`.
    pub issuers: Vec<String>,
    /// The relying party's own names; one of them must be `aud`, or one of its values, octet by
    /// octet.
    pub audiences: Vec<String>,
    /// Seconds of tolerance for `exp`, `nbf` and an `iat` in the future.
    pub leeway_s: u64,
    /// The longest accepted time from `iat` to `exp`, in seconds; `None` for no bound.
    pub max_lifetime_s: Option<u64>,
    /// Media types of which `typ` must be one, compared without regard to case and to a leading
    /// `application/` (RFC 7515, section 4.1.9). An empty list accepts no `typ`.
    pub accepted_typ: Vec<String>,
    /// Whether a token may have no `typ` at all.
    pub allow_missing_typ: bool,
    /// Whether a token may say `EdDSA` for an Ed25519 key (RFC 9864 deprecates the name). A key
    /// that was published under that name allows it for itself.
    pub accept_eddsa: bool,
    /// Algorithms that are accepted; an empty list accepts all eight. The key decides which one is
    /// used, so this only narrows.
    pub algorithms: Vec<Algorithm>,
    /// Under [`Profile::Entra`] the tenants (`tid`) that are accepted; an empty list accepts those
    /// that the issuers allow, which is every tenant if one of them holds `{tenantid}`.
    pub tenants: Vec<String>,
    /// How tokens are found in their log. With [`LogLookup::Digest`] `jti` may be anything but an
    /// address in another log than the key's. It holds for all issuers: a token of a realm whose
    /// tokens have addresses would not be held to its own, and not be called forged; such realms get a
    /// validator of their own.
    pub log_lookup: LogLookup,
}

impl ValidatorConfig {
    /// The defaults of [`Profile::Strict`]: 30 seconds of leeway, lifetimes of at most a day, `typ`
    /// `at+jwt`, no `EdDSA`.
    #[must_use]
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self::of_profile(Profile::Strict, issuer, audience)
    }

    /// The defaults of a profile. `oidc` and `entra` also take `typ` `JWT` or none, because most
    /// providers write these; `entra` takes lifetimes up to [`ENTRA_MAX_LIFETIME_S`].
    #[must_use]
    pub fn of_profile(
        profile: Profile,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Self {
        let strict = profile == Profile::Strict;
        let mut accepted_typ = vec![DEFAULT_TYP.to_owned()];
        if !strict {
            accepted_typ.push("JWT".to_owned());
        }
        let max_lifetime_s = match profile {
            Profile::Entra => ENTRA_MAX_LIFETIME_S,
            Profile::Strict | Profile::Oidc => DEFAULT_MAX_LIFETIME_S,
        };
        Self {
            profile,
            issuers: vec![issuer.into()],
            audiences: vec![audience.into()],
            leeway_s: DEFAULT_LEEWAY_S,
            max_lifetime_s: Some(max_lifetime_s),
            accepted_typ,
            allow_missing_typ: !strict,
            accept_eddsa: false,
            algorithms: Vec::new(),
            tenants: Vec::new(),
            log_lookup: LogLookup::default(),
        }
    }

    /// Whether tokens and keys of the profile can be in logs.
    #[must_use]
    pub fn has_logs(&self) -> bool {
        match self.profile {
            Profile::Strict => true,
            // Kubernetes' tokens: ordinary ones, but for their keys.
            Profile::Oidc => self.log_lookup == LogLookup::Digest,
            Profile::Entra => false,
        }
    }

    /// Whether the demands can be met and mean what they seem to. A validator with others is safe,
    /// but rejects every token or accepts more than was meant.
    ///
    /// # Errors
    /// The first fault, as a text for whoever wrote the configuration.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { issuers, audiences, tenants, .. } = self;
        if issuers.is_empty() || issuers.iter().any(String::is_empty) {
            return Err(ConfigError::NoIssuer);
        }
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(ConfigError::NoAudience);
        }
        let mut named = HashSet::new();
        if let Some(repeated) = issuers.iter().find(|issuer| !named.insert(issuer.as_str())) {
            return Err(ConfigError::RepeatedIssuer(repeated.clone()));
        }
        if self.profile != Profile::Entra {
            if let Some(template) = issuers.iter().find(|issuer| tenant::is_template(issuer)) {
                return Err(ConfigError::Template(template.clone()));
            }
            if !tenants.is_empty() {
                return Err(ConfigError::Tenants);
            }
        }
        if let Some(tenant) = tenants.iter().find(|tenant| !tenant::is_tenant(tenant)) {
            return Err(ConfigError::Tenant(tenant.clone()));
        }
        if self.profile == Profile::Entra && self.log_lookup == LogLookup::Digest {
            return Err(ConfigError::Lookup);
        }
        if self.profile == Profile::Strict && self.log_lookup == LogLookup::Digest {
            return Err(ConfigError::StrictLookup);
        }
        if self.accepted_typ.is_empty() && !self.allow_missing_typ {
            return Err(ConfigError::NoTyp);
        }
        if self.leeway_s > MAX_LEEWAY_S {
            return Err(ConfigError::Leeway(self.leeway_s));
        }
        match self.max_lifetime_s {
            Some(0) => Err(ConfigError::NoLifetime),
            _ => Ok(()),
        }
    }

    /// Whether `typ` is one of the accepted media types.
    pub(crate) fn accepts_typ(&self, typ: Option<&str>) -> bool {
        let Some(typ) = typ else { return self.allow_missing_typ };
        let typ = short_media_type(typ);
        self.accepted_typ
            .iter()
            .any(|accepted| short_media_type(accepted).eq_ignore_ascii_case(typ))
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such profile.
    #[error("`{0}` is no profile; there are `strict`, `oidc` and `entra`")]
    UnknownProfile(String),
    /// There is no such way to find tokens in logs.
    #[error("`{0}` is no way to find a token in its log; there are `address` and `digest`")]
    UnknownLookup(String),
    /// Tokens of profile `entra` are in no log.
    #[error("tokens of profile `entra` are in no log, so they are not found by digest")]
    Lookup,
    /// Tokens that somebody else composes have no `client_id`.
    #[error(
        "profile `strict` demands `client_id`, which tokens that are found by digest do not have; use \
         profile `oidc` for them"
    )]
    StrictLookup,
    /// No issuer, or an empty one.
    #[error("name at least one issuer, none of them empty")]
    NoIssuer,
    /// No audience, or an empty one.
    #[error("name at least one audience, none of them empty")]
    NoAudience,
    /// Two equal issuers.
    #[error("issuer `{0}` is named twice")]
    RepeatedIssuer(String),
    /// A template outside profile `entra`.
    #[error("issuer `{0}` is a template; only profile `entra` knows what to put in")]
    Template(String),
    /// Tenants outside profile `entra`.
    #[error("tenants are known to profile `entra` only")]
    Tenants,
    /// A tenant that is none.
    #[error("`{0}` is not a tenant's id: 32 lower-case hexadecimal digits in five groups")]
    Tenant(String),
    /// No `typ` would be accepted.
    #[error("no `typ` would be accepted, so no token; name at least one")]
    NoTyp,
    /// More leeway than anybody needs.
    #[error("a leeway of {0} s is more than {MAX_LEEWAY_S} s; repair the clock instead")]
    Leeway(u64),
    /// No token lives that short.
    #[error("the longest accepted lifetime is 0 s, which no token has")]
    NoLifetime,
}

/// A media type without `application/`, where nothing but that prefix tells the two forms apart
/// (RFC 7515, section 4.1.9).
fn short_media_type(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => typ,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_compare_as_rfc_7515_says() {
        let mut config = ValidatorConfig::new("i", "a");
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
            assert!(config.accepts_typ(Some(typ)), "{typ}");
        }
        for typ in [
            "",
            "JWT",
            "at+jwt ",
            "at+jwt;v=1",
            "text/at+jwt",
            "application/x/at+jwt",
            "application/application/at+jwt",
            "application/",
            "at+jwté",
        ] {
            assert!(!config.accepts_typ(Some(typ)), "{typ}");
        }
        assert!(!config.accepts_typ(None));
        config.accepted_typ = vec!["application/jwt".into(), "a/b".into()];
        assert!(config.accepts_typ(Some("JWT")) && config.accepts_typ(Some("A/B")));
        assert!(!config.accepts_typ(Some("at+jwt")) && !config.accepts_typ(Some("b")));
        config.accepted_typ.clear();
        assert!(!config.accepts_typ(Some("at+jwt")) && !config.accepts_typ(Some("")));
        config.allow_missing_typ = true;
        assert!(config.accepts_typ(None) && !config.accepts_typ(Some("")));
    }

    #[test]
    fn profiles_are_named() {
        for profile in Profile::ALL {
            assert_eq!(profile.as_str().parse(), Ok(profile));
        }
        for way in [LogLookup::Address, LogLookup::Digest] {
            assert_eq!(way.to_string().parse(), Ok(way));
        }
        let unknown = ConfigError::UnknownLookup("Digest".into());
        assert_eq!("Digest".parse::<LogLookup>(), Err(unknown));
        let unknown = ConfigError::UnknownProfile("Strict".into());
        assert_eq!("Strict".parse::<Profile>(), Err(unknown));
    }

    #[test]
    fn what_would_accept_nothing_or_too_much_is_refused() {
        const TENANT: &str = "f8cdef31-a31e-4b4a-93e4-5f571e91255a";
        let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
        let strict = ValidatorConfig::new("https://i", "a");
        let entra = ValidatorConfig::of_profile(Profile::Entra, template, "a");
        let with = |config: &ValidatorConfig, change: fn(&mut ValidatorConfig)| {
            let mut config = config.clone();
            change(&mut config);
            config.check()
        };
        assert_eq!(strict.check(), Ok(()));
        assert_eq!(entra.check(), Ok(()));
        assert_eq!(with(&entra, |c| c.tenants = vec![TENANT.into()]), Ok(()));
        assert_eq!(with(&strict, |c| c.issuers.clear()), Err(ConfigError::NoIssuer));
        assert_eq!(with(&strict, |c| c.issuers.push(String::new())), Err(ConfigError::NoIssuer));
        assert_eq!(with(&strict, |c| c.audiences.clear()), Err(ConfigError::NoAudience));
        assert_eq!(
            with(&strict, |c| c.audiences.push(String::new())),
            Err(ConfigError::NoAudience)
        );
        let twice = ConfigError::RepeatedIssuer("https://i".into());
        assert_eq!(with(&strict, |c| c.issuers.push("https://i".into())), Err(twice));
        let oidc = ValidatorConfig::of_profile(Profile::Oidc, template, "a");
        assert_eq!(oidc.check(), Err(ConfigError::Template(template.into())));
        assert_eq!(with(&strict, |c| c.tenants = vec![TENANT.into()]), Err(ConfigError::Tenants));
        let tenant = ConfigError::Tenant("common".into());
        assert_eq!(with(&entra, |c| c.tenants = vec!["common".into()]), Err(tenant));
        assert_eq!(with(&entra, |c| c.log_lookup = LogLookup::Digest), Err(ConfigError::Lookup));
        let by_digest = with(&strict, |c| c.log_lookup = LogLookup::Digest);
        assert_eq!(by_digest, Err(ConfigError::StrictLookup));
        let oidc = ValidatorConfig::of_profile(Profile::Oidc, "https://i", "a");
        assert_eq!(with(&oidc, |c| c.log_lookup = LogLookup::Digest), Ok(()));
        assert_eq!(with(&strict, |c| c.accepted_typ.clear()), Err(ConfigError::NoTyp));
        assert_eq!(with(&strict, |c| c.leeway_s = 301), Err(ConfigError::Leeway(301)));
        assert_eq!(with(&strict, |c| c.max_lifetime_s = Some(0)), Err(ConfigError::NoLifetime));
        assert_eq!(with(&strict, |c| c.max_lifetime_s = None), Ok(()));
    }
}
