//! Refusals: the policy said no. The codes are stable; scripts and audits rely on them.

use std::fmt;

/// A decision against a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// The stable reason.
    pub code: RefusalCode,
    /// What was wrong and what to do, for the client's developer. Never holds secrets.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its explanation.
    pub fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RefusalCode { $($(#[$doc])* $name,)* }

        impl RefusalCode {
            /// Every code.
            pub const ALL: &'static [RefusalCode] = &[$(RefusalCode::$name,)*];

            /// The stable text of the code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(RefusalCode::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// No realm of this name is in the policy.
    UnknownRealm = "unknown_realm",
    /// The proof is not a JWS of the expected form.
    MalformedProof = "malformed_proof",
    /// The client is not in the realm; no signature was verified.
    UnknownClient = "unknown_client",
    /// The client has no key of the proof's `kid`, or several keys and the proof names none.
    UnknownClientKey = "unknown_client_key",
    /// The proof's signature does not verify.
    BadSignature = "bad_signature",
    /// The proof's `aud` is not exactly the realm's issuer (RFC 7523bis).
    WrongAudience = "wrong_audience",
    /// The proof has expired.
    ProofExpired = "proof_expired",
    /// The proof's `iat` or `nbf` lies in the future.
    ProofNotYetValid = "proof_not_yet_valid",
    /// The proof is valid for longer than allowed.
    ProofTooLong = "proof_too_long",
    /// The proof could have been used with an earlier signer; make a new one.
    ProofBeforeStart = "proof_before_start",
    /// The proof names the log of another signer.
    WrongLog = "wrong_log",
    /// The proof was used already.
    ProofReplayed = "proof_replayed",
    /// The client has as many unexpired proofs as are remembered; wait until some expire.
    ReplayMemoryFull = "replay_memory_full",
    /// The client asked more often than its policy allows.
    RateLimited = "rate_limited",
    /// The request itself is malformed.
    MalformedRequest = "malformed_request",
    /// The signed request holds more requests than allowed.
    TooManyRequests = "too_many_requests",
    /// No grant allows the audience.
    AudienceNotGranted = "audience_not_granted",
    /// No grant allows the subject.
    SubjectNotGranted = "subject_not_granted",
    /// No grant allows the scope.
    ScopeNotGranted = "scope_not_granted",
    /// No grant allows the claim.
    ClaimNotGranted = "claim_not_granted",
    /// The claim is set by the signer alone.
    ReservedClaim = "reserved_claim",
    /// The lifetime is longer than granted.
    LifetimeNotGranted = "lifetime_not_granted",
    /// The algorithm is not granted, or not one of the realm's.
    AlgorithmNotGranted = "algorithm_not_granted",
    /// The grant demands a token bound to a client key (`cnf`).
    ConfirmationRequired = "cnf_required",
    /// The realm is one of Kubernetes service accounts, or not one.
    WrongRealmKind = "wrong_realm_kind",
    /// The claims name another issuer than the realm's.
    WrongIssuer = "wrong_issuer",
    /// The claims' `iat` is not the signer's time, within seconds.
    IssuedAtNotNow = "iat_not_now",
    /// The realm demands a claim that is not there.
    ClaimRequired = "claim_required",
    /// No key may sign now; retry (see the service's log for the reason).
    NoActiveKey = "no_active_key",
    /// The signer does not trust its clock and signs nothing.
    ClockUntrusted = "clock_untrusted",
    /// The signature would have come too late and was voided; retry.
    Voided = "voided",
    /// The frame was full; the service asks again by itself.
    Deferred = "deferred",
}

impl RefusalCode {
    /// The code for its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text)
    }

    /// Whether the same request, proved anew, may succeed later without a change of policy.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            RefusalCode::ReplayMemoryFull
                | RefusalCode::RateLimited
                | RefusalCode::NoActiveKey
                | RefusalCode::ClockUntrusted
                | RefusalCode::Voided
                | RefusalCode::Deferred
                | RefusalCode::ProofBeforeStart
                | RefusalCode::WrongLog
        )
    }

    /// Whether the proof was refused as none of the client's, or as an old one that anybody may have
    /// picked up. Only these count against a source address. Proofs that a restarted signer refuses
    /// do not: every honest client's are among them.
    #[must_use]
    pub fn is_unauthenticated(self) -> bool {
        matches!(
            self,
            RefusalCode::MalformedProof
                | RefusalCode::UnknownClient
                | RefusalCode::UnknownClientKey
                | RefusalCode::BadSignature
                | RefusalCode::WrongAudience
                | RefusalCode::ProofExpired
                | RefusalCode::ProofNotYetValid
                | RefusalCode::ProofTooLong
                | RefusalCode::ProofReplayed
        )
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_distinct_and_parse_back() {
        for code in RefusalCode::ALL {
            assert_eq!(RefusalCode::parse(code.as_str()), Some(*code));
        }
        assert_eq!(RefusalCode::parse("no_such_code"), None);
    }

    #[test]
    fn a_refusal_reads_as_code_and_detail() {
        let refusal = Refusal::new(RefusalCode::UnknownRealm, "no realm `x`");
        assert_eq!(refusal.to_string(), "unknown_realm: no realm `x`");
    }
}
