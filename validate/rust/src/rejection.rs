//! Why a token is not acceptable: one closed table, the same in every binding.
//!
//! `docs/rejections.md` holds the same table; a test keeps the two equal and shows that every code
//! is produced.

use std::fmt;
use std::str::FromStr;

use chancery_token::Error;
use serde::{Serialize, Serializer};

/// Why a token is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    code: RejectionCode,
    detail: String,
}

impl Rejection {
    /// A rejection with its detail, for the callers of the core that judge beyond it: fronts that
    /// fetch key sets and read logs.
    #[must_use]
    pub fn new(code: RejectionCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> RejectionCode {
        self.code
    }

    /// What was seen, for a person who looks into it. It may repeat parts of the token, escaped and
    /// cut; it is not meant for the token's sender.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether the same token may become acceptable soon, without a change to it.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.code.retryable()
    }
}

macro_rules! rejection_codes {
    ($($code:ident, $text:literal, $meaning:literal, $remedy:literal;)+) => {
        /// The codes. Their texts are stable; a new rule gets a new code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RejectionCode {
            $(#[doc = $meaning] $code,)+
        }

        impl RejectionCode {
            /// Every code, in the order of `docs/rejections.md`.
            pub const ALL: &[Self] = &[$(Self::$code,)+];

            /// The stable text, in snake case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)+ }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$code => $remedy,)+ }
            }
        }
    };
}

rejection_codes! {
    Oversize, "oversize",
        "The token is longer than 16 KiB, or its header than 2,048 characters.",
        "Ask for a token with fewer claims.";
    MalformedToken, "malformed_token",
        "The text is not a compact JWS whose header and payload are strict JSON objects in canonical base64url.",
        "Send the token alone, unchanged; without `Bearer`, quotes, padding or line breaks.";
    DuplicateMember, "duplicate_member",
        "A member name occurs twice in one object of the header or the payload.",
        "Repair the issuer: two readers could read two different tokens.";
    CriticalHeader, "critical_header",
        "The header holds `crit`, `b64` or `zip`, which change how a token is to be read.",
        "Sign without them.";
    EmbeddedKey, "embedded_key",
        "The header holds `jwk`, `jku`, `x5u` or `x5c`: the token brings its own key.",
        "Treat it as an attack unless the issuer is known to do this; then have it sign without them.";
    AlgorithmNone, "algorithm_none",
        "The header says `alg` `none`, in some spelling: the token is not signed.",
        "Treat it as an attack.";
    WrongType, "wrong_type",
        "`typ` is not there or is not an accepted type, or the claim `events` is there, so this may be an ID token, a logout token or another kind of JWT.",
        "Send the access token, or configure the type that is meant.";
    MissingKid, "missing_kid",
        "The header has no `kid`; keys are found by it alone.",
        "Have the issuer write `kid`.";
    KeySetRefused, "key_set_refused",
        "The key set as a whole cannot be believed: it is not strict JSON, too large, holds a private or symmetric key, or the same `kid` twice.",
        "Repair the key set; replace every key whose private half it shows.";
    KeysUnavailable, "keys_unavailable",
        "No key set of the issuer is at hand, or the announcement that a trust anchor demands could not be read.",
        "Ask again; if it stays so, look into why the key set cannot be fetched.";
    UnknownKey, "unknown_key",
        "No key of the set has this `kid`.",
        "Fetch the key set again, not more often than its cool-down allows; the token may also be another issuer's or forged.";
    KeyMalformed, "key_malformed",
        "The set has a key with this `kid`, but it is weak, malformed, not for verifying signatures, or its members contradict each other.",
        "Repair the key in the set; the detail says what is wrong with it.";
    KeyNotAnnounced, "key_not_announced",
        "A trust anchor is set, and no announcement of this key was verified in a log that it names.",
        "If the anchor pins logs and the signer was restarted, have it name the directory instead; otherwise treat it as an attack by whoever serves the key set.";
    KeyWithoutWindow, "key_without_window",
        "The key does not say for whom it speaks (`issuer`), when it signs (`nbf`, `signs_until`) or where it was announced (`log`), and the profile demands it.",
        "Use an issuer that publishes these members, or the profile for such issuers.";
    KeyNotLogged, "key_not_logged",
        "The log is demanded, and the token's key names none: its tokens are in no log, as those of a key that was imported from elsewhere.",
        "Get a token under a key of a signer; until tokens of an imported key are over, use `report`.";
    KeyOfOtherIssuer, "key_of_other_issuer",
        "The key's member `issuer` is not the issuer that is accepted here (profile `entra`: not that of the token and its tenant).",
        "Configure the realm's own issuer and key set; if both are right, treat it as an attack.";
    KeyLeftSet, "key_left_set",
        "The time at which the key leaves its set (`exp`) is over.",
        "Ask for a new token, and fetch the key set again.";
    AlgorithmNotOfKey, "algorithm_not_of_key",
        "The token names another algorithm than the one that the key is bound to.",
        "Treat it as an attack, unless the token says `EdDSA` for an Ed25519 key: that can be configured.";
    AlgorithmNotAccepted, "algorithm_not_accepted",
        "The key is bound to an algorithm that is not accepted here.",
        "Ask for a token of an accepted algorithm, or accept this one.";
    BadSignature, "bad_signature",
        "The signature is not the key's over this header and payload.",
        "Check that the token arrives unchanged; otherwise treat it as an attack.";
    MissingClaim, "missing_claim",
        "One of `iss`, `sub`, `aud`, `exp`, `iat` is not there, or under profile `strict` `jti` or `client_id` (RFC 9068, section 2.2), or under `entra` `tid`.",
        "Use an issuer of RFC 9068 access tokens.";
    BadClaim, "bad_claim",
        "A claim has the wrong type or form: a time that is not whole seconds, an empty name, a `scope` that is not scope tokens, an `exp` that is not after `iat` or `nbf`.",
        "Repair the issuer; the detail names the claim.";
    WrongIssuer, "wrong_issuer",
        "`iss` is not the issuer that is accepted here, octet by octet.",
        "Send a token of the right realm, or configure its issuer exactly as it spells itself.";
    WrongTenant, "wrong_tenant",
        "`tid` is not one of the accepted tenants, or not that of `iss` (profile `entra`).",
        "Send a token of an accepted tenant, or accept this one.";
    WrongAudience, "wrong_audience",
        "No accepted audience is among the values of `aud`, octet by octet.",
        "Ask for a token with this audience; a token for another service must not work here.";
    IssuedInFuture, "issued_in_future",
        "`iat` is further in the future than the leeway.",
        "Check the clocks of issuer and relying party.";
    OutsideKeyWindow, "outside_key_window",
        "`iat` is not in the window in which the key signs; there is no leeway.",
        "Treat it as a misused key unless the key set is older than the token; then fetch it again.";
    LifetimeTooLong, "lifetime_too_long",
        "The time from `iat` to `exp` is longer than accepted.",
        "Ask for a token with a shorter lifetime, or raise the bound knowingly.";
    Expired, "expired",
        "`exp` is over by at least the leeway.",
        "Ask for a new token.";
    NotYetValid, "not_yet_valid",
        "`nbf` is further in the future than the leeway.",
        "Wait until then, or check the clocks.";
    LogIdMismatch, "log_id_mismatch",
        "`jti` does not name a place in the log in which the key was announced; or, where tokens are found by digest, it names one in another log.",
        "Treat it as an attack: the key's signer writes no such token.";
    LogMissing, "log_missing",
        "The log does not hold the token, although the time to publish it is over.",
        "Reject and report the token; ask again once if the log may have been served from an old copy.";
    LogForged, "log_forged",
        "The log holds another entry at the token's place, under a verified root: the token is proven to be forged.",
        "Report the token with the proof and have its key declared compromised.";
    LogPending, "log_pending",
        "The log does not hold the token yet, and the time to publish it is not over.",
        "Ask again after the publishing time.";
    LogUnknown, "log_unknown",
        "The log could not be read, or what was read does not agree with its signed checkpoint.",
        "Ask again; if it stays so, look into the log's availability and integrity.";
    AttestationUnknown, "attestation_unknown",
        "Evidence of the signer is demanded, and none could be appraised; this version knows no evidence.",
        "Set `attestation` to `off` or `report` until evidence can be appraised.";
}

impl RejectionCode {
    /// Whether the same token may become acceptable soon, without a change to it: the key set or the
    /// log was not ready or not reachable.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::LogPending | Self::LogUnknown)
    }
}

impl FromStr for RejectionCode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(())
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for RejectionCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The rejection for a token that could not be taken apart.
pub(crate) fn of_form(error: &Error) -> Rejection {
    let code = match error {
        Error::TooLarge { .. } => RejectionCode::Oversize,
        Error::DuplicateMember(_) => RejectionCode::DuplicateMember,
        Error::AlgorithmNone => RejectionCode::AlgorithmNone,
        Error::RefusedHeader("jwk" | "jku" | "x5u" | "x5c") => RejectionCode::EmbeddedKey,
        Error::RefusedHeader(_) => RejectionCode::CriticalHeader,
        _ => RejectionCode::MalformedToken,
    };
    Rejection::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_snake_case() {
        let codes: BTreeSet<_> = RejectionCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), RejectionCode::ALL.len());
        for code in codes {
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
        }
    }

    #[test]
    fn a_rejection_shows_its_code_first_and_serializes_it() {
        let rejection = Rejection::new(RejectionCode::LogPending, "a b");
        assert_eq!(rejection.to_string(), "log_pending: a b");
        assert_eq!(
            serde_json::to_string(&rejection).unwrap(),
            r#"{"code":"log_pending","detail":"a b"}"#
        );
        assert!(rejection.retryable());
        let retryable: Vec<_> = RejectionCode::ALL.iter().filter(|code| code.retryable()).collect();
        assert_eq!(
            retryable,
            [
                &RejectionCode::KeysUnavailable,
                &RejectionCode::LogPending,
                &RejectionCode::LogUnknown
            ]
        );
    }
}
