//! What holds for every token.

use std::sync::{Arc, LazyLock};

use chancery_token::Algorithm;
use chancery_token::jwks::{KeySet, Member, Window};
use chancery_validate::{RejectionCode, TokenCache, Validator};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::corpus;
use crate::draft::{AUDIENCE, Draft, ISSUER, LOG, NOW, RANDOM, by, good, key, key_set, member};

fn validator(draft: &Draft) -> Validator {
    Validator::from_jwks(draft.configuration(), draft.keys().as_bytes()).unwrap()
}

/// The token with one bit changed, if it is still text: bit 7 of an ASCII character is not.
fn flip(token: &str, at: usize, bit: u8) -> String {
    let mut bytes = token.as_bytes().to_vec();
    bytes[at] ^= 1 << bit;
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_single_bit_counts() {
    for algorithm in [Algorithm::Es256, Algorithm::Ed25519, Algorithm::Rs256] {
        let draft = by(algorithm);
        let (validator, token) = (validator(&draft), draft.token());
        validator.validate(&token, NOW).unwrap();
        for at in 0..token.len() {
            for bit in 0..7 {
                let wrong = flip(&token, at, bit);
                assert!(validator.validate(&wrong, NOW).is_err(), "{algorithm}: {wrong}");
            }
        }
    }
}

static SIGNED: LazyLock<Vec<(Validator, String)>> = LazyLock::new(|| {
    let signed = |algorithm| {
        let draft = by(algorithm);
        (validator(&draft), draft.token())
    };
    Algorithm::ALL.into_iter().map(signed).collect()
});

/// The corpus, each case with whether its token is acceptable.
static CORPUS: LazyLock<Vec<(Validator, String, u64, bool)>> = LazyLock::new(|| {
    let cases = corpus::stored().into_values().flatten();
    let with_validator = |case: corpus::Case| {
        Some((case.validator().ok()?, case.token, case.now, case.expect == "valid"))
    };
    cases.filter_map(with_validator).collect()
});

proptest! {
    #[test]
    fn some_bit_of_every_algorithm_counts(which in any::<Index>(), at in any::<Index>(), bit in 0..7_u8) {
        let (validator, token) = which.get(&SIGNED);
        prop_assert!(validator.validate(token, NOW).is_ok());
        prop_assert!(validator.validate(&flip(token, at.index(token.len()), bit), NOW).is_err());
    }

    #[test]
    fn any_text_is_rejected_and_explained_alike(text in "\\PC{0,60}|[A-Za-z0-9_.-]{0,200}") {
        let (validator, _) = &SIGNED[0];
        let rejection = validator.validate(&text, NOW).unwrap_err();
        prop_assert_eq!(validator.explain(&text, NOW).verdict.unwrap_err(), rejection);
    }

    #[test]
    fn a_changed_token_is_rejected_and_explained_alike(
        which in any::<Index>(),
        at in any::<Index>(),
        cut in 0..8_usize,
        insert in "[A-Za-z0-9_.=-]{0,4}",
    ) {
        let (validator, token, now, valid) = which.get(&CORPUS);
        let mut chars: Vec<char> = token.chars().collect();
        let at = at.index(chars.len() + 1);
        let end = (at + cut).min(chars.len());
        chars.splice(at..end, insert.chars());
        let changed: String = chars.into_iter().collect();
        let verdict = validator.validate(&changed, *now);
        prop_assert_eq!(&validator.explain(&changed, *now).verdict, &verdict);
        // A change may repair a token that was spelled wrongly; none makes a second good one.
        prop_assert!(verdict.is_err() || changed == *token || !valid);
    }

    /// The rules on times once more, as one sentence each.
    #[test]
    fn times_are_judged_by_the_stated_rules(
        nbf in 0..60_u64, window_s in 1..60_u64, iat in 0..120_u64, lifetime_s in 0..60_u64,
        token_nbf in proptest::option::of(0..120_u64), leaves in 0..200_u64, now in 0..200_u64,
        leeway_s in 0..20_u64, bound_s in proptest::option::of(0..60_u64),
    ) {
        let signing_key = key(Algorithm::Ed25519);
        let window = Window { nbf, signs_until: nbf + window_s };
        let mut key_member = member(signing_key);
        key_member.window = Some(window);
        key_member.exp = Some(leaves);
        let mut draft = by(Algorithm::Ed25519)
            .claim("iat", iat)
            .claim("exp", iat + lifetime_s)
            .config(|config| { config.leeway_s = leeway_s; config.max_lifetime_s = bound_s; });
        if let Some(token_nbf) = token_nbf {
            draft = draft.claim("nbf", token_nbf);
        }
        let keys = key_set(&[key_member.jwk()]);
        let validator = Validator::from_jwks(draft.configuration(), keys.as_bytes()).unwrap();

        let rules = [
            (now < leaves, RejectionCode::KeyLeftSet),
            (iat <= now + leeway_s, RejectionCode::IssuedInFuture),
            (nbf <= iat && iat < nbf + window_s, RejectionCode::OutsideKeyWindow),
            (lifetime_s > 0, RejectionCode::BadClaim),
            (token_nbf.is_none_or(|nbf| nbf < iat + lifetime_s), RejectionCode::BadClaim),
            (bound_s.is_none_or(|bound_s| lifetime_s <= bound_s), RejectionCode::LifetimeTooLong),
            (now < iat + lifetime_s + leeway_s, RejectionCode::Expired),
            (token_nbf.unwrap_or(0) <= now + leeway_s, RejectionCode::NotYetValid),
        ];
        let broken = rules.into_iter().find(|(holds, _)| !holds).map(|(_, code)| code);
        let verdict = validator.validate(&draft.token(), now);
        prop_assert_eq!(verdict.err().map(|rejection| rejection.code()), broken);
    }
}

#[test]
fn what_was_signed_is_what_is_told() {
    let draft = good()
        .claim("nbf", NOW - 60)
        .claim("scope", "read write")
        .claim("cnf", serde_json::json!({"jkt": "x"}))
        .claim("roles", serde_json::json!(["a"]));
    let token = draft.token();
    let validated = validator(&draft).validate(&token, NOW).unwrap();
    let claims = validated.claims();
    assert_eq!((claims.iss, claims.sub, claims.client_id), (ISSUER, "client-7", Some("client-7")));
    assert_eq!(claims.aud.iter().collect::<Vec<_>>(), [AUDIENCE]);
    assert_eq!((claims.iat, claims.exp, claims.nbf), (NOW - 60, NOW + 540, Some(NOW - 60)));
    assert_eq!(
        (claims.jti, claims.scope),
        (Some(format!("{LOG}.42.{RANDOM}").as_str()), Some("read write"))
    );
    assert_eq!(validated.confirmation().unwrap()["jkt"], "x");
    assert_eq!(validated.extra().keys().collect::<Vec<_>>(), ["cnf", "roles"]);
    assert_eq!(validated.to_map(), serde_json::from_slice(&draft.claims_bytes()).unwrap());
    assert_eq!(validated.payload().as_bytes(), draft.claims_bytes());
    #[derive(serde::Deserialize)]
    struct Own {
        roles: Vec<String>,
    }
    assert_eq!(validated.deserialize::<Own>().unwrap().roles, ["a"]);
    assert!(validated.deserialize::<Vec<String>>().is_err());
    let known = serde_json::to_value(claims).unwrap();
    assert_eq!((&known["aud"], &known["scope"]), (&[AUDIENCE].into(), &"read write".into()));
    let public = key(Algorithm::Es256).public();
    assert_eq!(
        (validated.algorithm(), validated.kid()),
        (Algorithm::Es256, public.kid().to_string().as_str())
    );
    assert_eq!(validated.key_thumbprint(), public.kid());
    assert_eq!(validated.key_log().unwrap().to_string(), format!("{LOG}.1"));
    assert_eq!(validated.log_address().unwrap().to_string(), format!("{LOG}.42"));
    assert_eq!(validated.signing_input(), token.rsplit_once('.').unwrap().0);
}

#[test]
fn a_swapped_key_set_counts_at_once() {
    let draft = good();
    let validator = validator(&draft);
    let token = draft.token();
    assert!(validator.validate(&token, NOW).is_ok());
    let emptied = validator.with_keys_of(ISSUER, KeySet::default());
    assert_eq!(emptied.validate(&token, NOW).unwrap_err().code(), RejectionCode::UnknownKey);
    assert_eq!(emptied.config(), validator.config());
    assert_eq!(emptied.keys_of(ISSUER).unwrap().kids().count(), 0);
    let unchanged = validator.with_keys_of("https://other.example", KeySet::default());
    assert!(unchanged.validate(&token, NOW).is_ok());
    assert!(unchanged.keys_of("https://other.example").is_none());
}

#[test]
fn demands_that_were_left_empty_accept_nothing() {
    let code = |draft: Draft| {
        let rejection = validator(&draft).validate(&draft.token(), NOW).unwrap_err();
        rejection.code()
    };
    let with = |change: fn(&mut chancery_validate::ValidatorConfig)| code(good().config(change));
    assert_eq!(with(|c| c.audiences = vec![String::new()]), RejectionCode::WrongAudience);
    assert_eq!(with(|c| c.audiences.clear()), RejectionCode::WrongAudience);
    assert_eq!(with(|c| c.issuers.clear()), RejectionCode::WrongIssuer);
    assert_eq!(with(|c| c.accepted_typ.clear()), RejectionCode::WrongType);
    assert_eq!(with(|c| c.max_lifetime_s = Some(0)), RejectionCode::LifetimeTooLong);
}

#[test]
fn a_cache_hides_no_change() {
    let draft = good();
    let token = draft.token();
    let cache = Arc::new(TokenCache::new(100));
    let cached = validator(&draft).with_cache(Arc::clone(&cache));
    let first = cached.validate(&token, NOW).unwrap();
    assert_eq!((cache.len(), cached.validate(&token, NOW).unwrap()), (1, first));
    // The time.
    let expired = cached.validate(&token, NOW + 570).unwrap_err();
    assert_eq!(expired.code(), RejectionCode::Expired);
    // The key, gone, narrowed, or another one under the same name.
    let gone = cached.with_keys_of(ISSUER, KeySet::default());
    assert_eq!(gone.validate(&token, NOW).unwrap_err().code(), RejectionCode::UnknownKey);
    let narrowed = good().member("signs_until", NOW - 60);
    let narrowed = cached.with_keys_of(ISSUER, KeySet::parse(narrowed.keys().as_bytes()).unwrap());
    assert_eq!(narrowed.validate(&token, NOW).unwrap_err().code(), RejectionCode::OutsideKeyWindow);
    let public = key(Algorithm::Es256).public();
    let swapped =
        Member { kid: public.kid().to_string(), ..member(crate::draft::other(Algorithm::Es256)) };
    let swapped = cached.with_keys_of(ISSUER, KeySet::from_members(vec![swapped]).unwrap());
    assert_eq!(swapped.validate(&token, NOW).unwrap_err().code(), RejectionCode::BadSignature);
    // The demands, of another validator that shares the cache.
    let demanding = good().config(|c| c.audiences = vec!["https://b.example".to_owned()]);
    let demanding = validator(&demanding).with_cache(Arc::clone(&cache));
    assert_eq!(demanding.validate(&token, NOW).unwrap_err().code(), RejectionCode::WrongAudience);
    let picky = good().config(|c| c.algorithms = vec![Algorithm::Rs256]);
    let picky = validator(&picky).with_cache(Arc::clone(&cache));
    assert_eq!(
        picky.validate(&token, NOW).unwrap_err().code(),
        RejectionCode::AlgorithmNotAccepted
    );
    // One octet more is another token, and what was rejected was not kept.
    assert!(cached.validate(&format!("{token}A"), NOW).is_err());
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_cache_is_bounded_and_keeps_what_is_used() {
    let cache = Arc::new(TokenCache::new(320));
    let draft = by(Algorithm::Ed25519);
    let cached = validator(&draft).with_cache(Arc::clone(&cache));
    let used = draft.token();
    for index in 0..2000 {
        let token = by(Algorithm::Ed25519).claim("sub", format!("u{index}")).token();
        cached.validate(&token, NOW).unwrap();
        cached.validate(&used, NOW).unwrap();
        assert!(cache.len() <= 320, "{}", cache.len());
    }
    assert!(cache.len() > 160, "{}", cache.len());
    assert!(!cache.is_empty());
}

#[test]
fn an_explanation_tells_what_was_seen_and_escapes_it() {
    let draft = good().claim("aud", "https://other.example/\n\u{1b}[31m");
    let explanation = validator(&draft).explain(&draft.token(), NOW);
    let last = explanation.steps.last().unwrap();
    assert_eq!((last.name, last.passed), ("audience", false));
    assert_eq!(last.value, "https://other.example/\\n\\u{1b}[31m");
    let rejection = explanation.verdict.unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::WrongAudience);
    assert!(
        !rejection.detail().contains('\n') && rejection.detail().contains(AUDIENCE),
        "{rejection}"
    );
    assert_eq!(explanation.steps[0].value, format!("{} bytes", draft.token().len()));
}
