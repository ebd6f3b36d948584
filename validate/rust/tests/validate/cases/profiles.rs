//! Other issuers: profiles `oidc` and `entra`, and several issuers at once.

use chancery_token::Algorithm;
use chancery_token::jwks::Member;
use chancery_validate::Profile::{Entra, Oidc};
use chancery_validate::RejectionCode::{
    AlgorithmNotAccepted, AlgorithmNotOfKey, BadClaim, BadSignature, DuplicateMember, KeyMalformed,
    KeyOfOtherIssuer, KeyWithoutWindow, KeysUnavailable, LifetimeTooLong, LogIdMismatch,
    MalformedToken, MissingClaim, OutsideKeyWindow, UnknownKey, WrongIssuer, WrongTenant,
    WrongType,
};

use serde_json::{Value, json};

use crate::corpus::Case;
use crate::draft::{Draft, ISSUER, NOW, by, good, key, key_set, member, other};

const TENANT: &str = "f8cdef31-a31e-4b4a-93e4-5f571e91255a";
/// The tenant of personal accounts.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
const TEMPLATE: &str = "https://login.microsoftonline.com/{tenantid}/v2.0";
const FIRST_TEMPLATE: &str = "https://sts.windows.net/{tenantid}/";
const SECOND: &str = "https://second.example";

pub fn cases() -> Vec<Case> {
    [oidc(), oidc_refused(), entra(), entra_refused(), several(), algorithms()].concat()
}

/// A token of an ordinary provider: an RSA key without `alg` and without Chancery's members.
fn ordinary() -> Draft {
    by(Algorithm::Rs256)
        .profile(Oidc)
        .no_member("alg")
        .no_member("issuer")
        .no_member("nbf")
        .no_member("signs_until")
        .no_member("exp")
        .no_member("log")
        .header("typ", "JWT")
        .claim("jti", "7f3d9a52-1c1e-4a55-9d7c-0242ac120002")
}

/// A version 2 token of Microsoft's.
fn microsoft() -> Draft {
    ordinary()
        .profile(Entra)
        .config(|config| config.issuers = vec![TEMPLATE.to_owned()])
        .member("issuer", TEMPLATE)
        .no_claim("jti")
        .no_claim("client_id")
        .claim("iss", issuer(TENANT))
        .claim("tid", TENANT)
        .claim("nbf", NOW - 60)
        .claim("ver", "2.0")
}

fn issuer(tenant: &str) -> String {
    TEMPLATE.replace("{tenantid}", tenant)
}

fn oidc() -> Vec<Case> {
    vec![
        ordinary()
            .accepted("oidc_rsa_without_alg", "RS256 is what an RSA key without `alg` is for"),
        ordinary().no_header("typ").accepted("oidc_no_typ", "many providers write no `typ`"),
        ordinary().header("typ", "at+jwt").accepted("oidc_at_jwt", "an RFC 9068 access token"),
        ordinary()
            .no_claim("jti")
            .no_claim("client_id")
            .accepted("oidc_few_claims", "OpenID Connect requires neither `jti` nor `client_id`"),
        ordinary().member("nbf", NOW + 600).accepted(
            "oidc_key_with_nbf",
            "`nbf` without `signs_until` is when the key was made, and no window",
        ),
        ordinary().claim("scope", "").accepted(
            "oidc_scope_empty",
            "an empty `scope` allows nothing, which is no fault of the token",
        ),
        ordinary()
            .claim("scope", json!(["read"]))
            .claim("client_id", Value::Null)
            .accepted("oidc_optional_claims", "optional claims of another type are passed over"),
        good().profile(Oidc).accepted("oidc_of_chancery", "a key with all members satisfies them"),
    ]
}

fn oidc_refused() -> Vec<Case> {
    vec![
        good().profile(Oidc).member("issuer", "https://issuer.example/consumers").rejected(
            KeyOfOtherIssuer,
            "oidc_key_of_other_realm",
            "a member that is there counts under every profile",
        ),
        good().profile(Oidc).claim("iat", NOW - 601).rejected(
            OutsideKeyWindow,
            "oidc_outside_window",
            "a window that is there counts under every profile",
        ),
        good().profile(Oidc).claim("jti", "x").rejected(
            LogIdMismatch,
            "oidc_no_address",
            "a key that was announced in a log signs no token without a place in it",
        ),
        good().profile(Oidc).member("log", "x").rejected(
            KeyMalformed,
            "oidc_log_malformed",
            "a member that is there must be right",
        ),
        ordinary().header("alg", "PS256").rejected(
            AlgorithmNotOfKey,
            "oidc_rsa_as_ps256",
            "the key's algorithm is fixed by the profile, not by the token",
        ),
        ordinary().header("alg", "HS256").rejected(
            AlgorithmNotOfKey,
            "oidc_rsa_as_hs256",
            "a public key is no shared secret",
        ),
        ordinary().header("typ", "logout+jwt").rejected(
            WrongType,
            "oidc_logout_token",
            "a logout token of the same issuer is no access token",
        ),
        ordinary()
            .claim("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}}))
            .rejected(
                WrongType,
                "oidc_logout_token_as_jwt",
                "providers need not write `logout+jwt`; the claim `events` tells",
            ),
        ordinary().no_claim("iat").rejected(
            MissingClaim,
            "oidc_no_iat",
            "OpenID Connect Core, section 2 requires `iat`",
        ),
        ordinary().claim("iss", format!("{ISSUER}/")).rejected(
            WrongIssuer,
            "oidc_iss_slash",
            "issuers compare octet by octet under every profile",
        ),
    ]
}

fn entra() -> Vec<Case> {
    let first = format!("https://sts.windows.net/{TENANT}/");
    vec![
        microsoft().accepted("entra_any_tenant", "the template stands for the token's tenant"),
        microsoft()
            .config(|config| config.tenants = vec![TENANT.to_owned()])
            .accepted("entra_accepted_tenant", "a tenant of the list"),
        microsoft()
            .config(|config| config.issuers = vec![issuer(TENANT)])
            .accepted("entra_one_issuer", "one tenant's issuer, the keys' template filled in"),
        microsoft()
            .config(|config| config.issuers = vec![FIRST_TEMPLATE.to_owned()])
            .claim("iss", first)
            .claim("ver", "1.0")
            .accepted("entra_version_1", "a version 1 token of the same tenant"),
        microsoft()
            .claim("iss", issuer(CONSUMERS))
            .claim("tid", CONSUMERS)
            .member("issuer", issuer(CONSUMERS))
            .accepted("entra_consumer", "a consumer's token by the consumers' key"),
        microsoft().claim("exp", NOW - 60 + 100_800).accepted(
            "entra_28_hours",
            "tokens under continuous access evaluation live up to 28 hours",
        ),
    ]
}

fn entra_refused() -> Vec<Case> {
    vec![
        microsoft().member("issuer", issuer(CONSUMERS)).rejected(
            KeyOfOtherIssuer,
            "entra_storm_0558",
            "a key of the consumers' tenant under an enterprise's token",
        ),
        microsoft()
            .config(|config| config.issuers = vec![issuer(CONSUMERS)])
            .member("issuer", issuer(CONSUMERS))
            .claim("iss", issuer(CONSUMERS))
            .rejected(
                WrongTenant,
                "entra_consumer_as_enterprise",
                "the consumers' issuer and key, and an enterprise's `tid`",
            ),
        microsoft()
            .config(|config| {
                config.issuers = vec![issuer(CONSUMERS)];
                config.tenants = vec![TENANT.to_owned()];
            })
            .member("issuer", issuer(CONSUMERS))
            .claim("iss", issuer(CONSUMERS))
            .rejected(
                WrongTenant,
                "entra_consumer_as_listed",
                "the same, with the enterprise in the list of tenants",
            ),
        microsoft().no_member("issuer").rejected(
            KeyWithoutWindow,
            "entra_key_without_issuer",
            "a key that does not say whose it is",
        ),
        microsoft().claim("tid", CONSUMERS).rejected(
            WrongIssuer,
            "entra_tid_not_of_iss",
            "`iss` and `tid` name two tenants",
        ),
        microsoft().config(|config| config.tenants = vec![CONSUMERS.to_owned()]).rejected(
            WrongTenant,
            "entra_other_tenant",
            "not a tenant of the list",
        ),
        microsoft().config(|config| config.issuers = vec![issuer(CONSUMERS)]).rejected(
            WrongIssuer,
            "entra_other_issuer",
            "another tenant's issuer",
        ),
        microsoft()
            .config(|config| config.issuers = vec![issuer(TENANT)])
            .no_claim("tid")
            .rejected(
                MissingClaim,
                "entra_no_tid",
                "without `tid` the key's issuer cannot be filled in",
            ),
        microsoft()
            .claim("iss", "https://login.microsoftonline.com/{tenantid}/v2.0")
            .claim("tid", "{tenantid}")
            .rejected(BadClaim, "entra_tid_template", "the placeholder itself is no tenant"),
        microsoft().claim("iss", issuer("x/../y")).claim("tid", "x/../y").rejected(
            BadClaim,
            "entra_tid_path",
            "a tenant's id holds nothing that changes a URL",
        ),
        microsoft().claim("exp", NOW - 60 + 101_101).rejected(
            LifetimeTooLong,
            "entra_beyond_28_hours",
            "a second more than 28 hours and five minutes",
        ),
    ]
}

/// A key of one tenant's own.
fn member_of_tenant() -> Member {
    Member {
        issuer: Some(issuer(TENANT)),
        window: None,
        exp: None,
        log: None,
        ..member(other(Algorithm::Es256))
    }
}

/// Two issuers, each with a key set of its own.
fn two() -> Draft {
    let second = Member { issuer: Some(SECOND.to_owned()), ..member(other(Algorithm::Es256)) };
    good().issuer(SECOND, key_set(&[second.jwk()]))
}

/// A token of the second issuer.
fn of_second() -> Draft {
    let kid = other(Algorithm::Es256).public().kid().to_string();
    two().signed_by(other(Algorithm::Es256)).header("kid", kid).claim("iss", SECOND)
}

fn several() -> Vec<Case> {
    let both = |draft: Draft| {
        draft.config(|config| config.audiences.insert(0, "https://b.example".to_owned()))
    };
    vec![
        two().accepted("several_first", "the first of two issuers"),
        of_second().accepted("several_second", "the second of two issuers"),
        both(good()).accepted("several_audiences", "one of two accepted audiences"),
        of_second().claim("iss", ISSUER).rejected(
            UnknownKey,
            "several_key_of_second",
            "a token of the first issuer by the key of the second, whose set is not looked at",
        ),
        two().claim("iss", SECOND).rejected(
            UnknownKey,
            "several_key_of_first",
            "a token of the second issuer by the key of the first",
        ),
        two()
            .issuer(
                "https://third.example",
                key_set(&[Member {
                    kid: key(Algorithm::Es256).public().kid().to_string(),
                    issuer: Some("https://third.example".to_owned()),
                    ..member(other(Algorithm::Es256))
                }
                .jwk()]),
            )
            .claim("iss", "https://third.example")
            .rejected(
                BadSignature,
                "several_same_kid",
                "two issuers with one `kid`: the key of the claimed issuer decides",
            ),
        two().claim("iss", "https://evil.example").rejected(
            WrongIssuer,
            "several_none",
            "none of the accepted issuers",
        ),
        good()
            .config(|config| config.issuers.push(SECOND.to_owned()))
            .claim("iss", SECOND)
            .rejected(
                KeysUnavailable,
                "several_no_set",
                "the second issuer's key set is not at hand, and the first's is not asked",
            ),
        two().no_claim("iss").rejected(MissingClaim, "several_no_iss", "no issuer is claimed"),
        of_second().claim("iss", 1).rejected(
            BadClaim,
            "several_iss_number",
            "an issuer is a string",
        ),
        two().payload("x").rejected(MalformedToken, "several_no_json", "no JSON, no issuer"),
        two().payload(r#"{"iss":"a","iss":"b"}"#).rejected(
            DuplicateMember,
            "several_two_iss",
            "two issuers are none",
        ),
        microsoft()
            .issuer(&issuer(TENANT), key_set(&[member_of_tenant().jwk()]))
            .header("kid", other(Algorithm::Es256).public().kid().to_string())
            .header("alg", "ES256")
            .signed_by(other(Algorithm::Es256))
            .accepted("several_exact_first", "an exact issuer comes before a template that fits"),
    ]
}

fn algorithms() -> Vec<Case> {
    vec![
        good()
            .config(|config| config.algorithms = vec![Algorithm::Ed25519, Algorithm::Es256])
            .accepted("algorithm_listed", "an algorithm of the list"),
        good().config(|config| config.algorithms = vec![Algorithm::MlDsa65]).rejected(
            AlgorithmNotAccepted,
            "algorithm_not_listed",
            "an algorithm that is not of the list",
        ),
    ]
}
