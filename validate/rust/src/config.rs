//! What a relying party demands of a token.

/// Seconds by which the clocks of signer and relying party may differ. Hosts that run NTP are
/// within one; 30 also covers those that have just been resumed.
pub const DEFAULT_LEEWAY_S: u64 = 30;

/// Seconds from `iat` to `exp` that are accepted: a day. A longer-lived access token is a mistake
/// or an attack, because nothing revokes it.
pub const DEFAULT_MAX_LIFETIME_S: u64 = 24 * 60 * 60;

/// The `typ` of JWT access tokens (RFC 9068, section 2.1).
pub const DEFAULT_TYP: &str = "at+jwt";

/// What a relying party demands, profile `strict`.
///
/// There is no leeway for a key's window and for the time at which it leaves its set: those are
/// compared with the token's `iat`, which the key's own signer wrote, and with a time that the
/// publisher chose with reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorConfig {
    /// The issuer's URL; `iss` and the key's `issuer` must both equal it, octet by octet.
    pub issuer: String,
    /// The relying party's own name; it must be `aud`, or one of its values, octet by octet.
    pub audience: String,
    /// Seconds of tolerance for `exp`, `nbf` and an `iat` in the future.
    pub leeway_s: u64,
    /// The longest accepted time from `iat` to `exp`, in seconds; `None` for no bound.
    pub max_lifetime_s: Option<u64>,
    /// Media types of which `typ` must be one, compared without regard to case and to a leading
    /// `application/` (RFC 7515, section 4.1.9). An empty list accepts no token.
    pub accepted_typ: Vec<String>,
    /// Whether a token may say `EdDSA` for an Ed25519 key (RFC 9864 deprecates the name). A key
    /// that was published under that name allows it for itself.
    pub accept_eddsa: bool,
}

impl ValidatorConfig {
    /// The defaults: 30 seconds of leeway, lifetimes of at most a day, `typ` `at+jwt`, no `EdDSA`.
    #[must_use]
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            leeway_s: DEFAULT_LEEWAY_S,
            max_lifetime_s: Some(DEFAULT_MAX_LIFETIME_S),
            accepted_typ: vec![DEFAULT_TYP.to_owned()],
            accept_eddsa: false,
        }
    }

    /// Whether `typ` is one of the accepted media types.
    pub(crate) fn accepts_typ(&self, typ: &str) -> bool {
        let typ = short_media_type(typ);
        self.accepted_typ
            .iter()
            .any(|accepted| short_media_type(accepted).eq_ignore_ascii_case(typ))
    }
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
            assert!(config.accepts_typ(typ), "{typ}");
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
            assert!(!config.accepts_typ(typ), "{typ}");
        }
        config.accepted_typ = vec!["application/jwt".into(), "a/b".into()];
        assert!(config.accepts_typ("JWT") && config.accepts_typ("A/B"));
        assert!(!config.accepts_typ("at+jwt") && !config.accepts_typ("b"));
        config.accepted_typ.clear();
        assert!(!config.accepts_typ("at+jwt") && !config.accepts_typ(""));
    }
}
