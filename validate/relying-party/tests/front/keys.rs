//! Key sets: found, kept, refreshed, taken back, missed.

use std::time::{Duration, Instant};

use chancery_relying_party::{Bounds, Judgement, KeyState, RejectionCode, RelyingParty};
use chancery_relying_party::{BuildError, LogPolicy, ValidatorConfig};

use crate::publisher::{AUDIENCE, Fault, Publisher, with_unknown_key};
use crate::{builder, code, party, quick, sleep_ms, until};

#[tokio::test]
async fn a_good_token_is_accepted_and_then_decided_without_io() {
    let publisher = Publisher::start().await;
    let party = builder(&publisher).build().unwrap();
    let token = publisher.token();
    let accepted = party.validate(&token).await.unwrap();
    assert_eq!(accepted.token.claims().iss, publisher.issuer);
    assert_eq!(accepted.log, None);
    assert_eq!(party.judge(&token), Judgement::Decided(Ok(accepted)));
    for _ in 0..100 {
        party.validate(&token).await.unwrap();
    }
    assert_eq!(publisher.count(Publisher::KEYS), 1);
    let status = party.status();
    let issuer = &status.issuers[0];
    assert_eq!((issuer.state, issuer.keys, issuer.fetches), (KeyState::Fresh, 1, 1));
    assert_eq!(issuer.distrusts_within_ms, Some(152_000));
    assert_eq!(issuer.distrusts_at_most_ms, Some(3_750_000));
}

#[tokio::test]
async fn a_token_is_judged_at_the_time_that_is_given() {
    let publisher = Publisher::start().await;
    let party = party(&publisher).await;
    let token = publisher.token();
    let late = crate::publisher::now() + 2_000;
    assert_eq!(code(party.validate_at(&token, late).await), RejectionCode::Expired);
    assert!(matches!(party.judge_at(&token, late), Judgement::Decided(Err(_))));
    let explained = party.explain_at(&token, late).await;
    assert_eq!(explained.steps.last().map(|step| step.name), Some("expiry"));
    assert_eq!(code(explained.verdict), RejectionCode::Expired);
}

/// Everybody can sign with a key whose private half its publisher shows: it is distrusted at once,
/// although a broken set is otherwise bridged by the last good one.
#[tokio::test]
async fn a_key_that_its_publisher_shows_is_distrusted_at_once() {
    let mut publisher = Publisher::start().await;
    publisher.add_key();
    publisher.say(Some("max-age=0"), None);
    let party = party(&publisher).await;
    let shown = publisher.token_at(&publisher.keys[0], 3, crate::publisher::now());
    party.validate(&shown).await.unwrap();
    let mut set: serde_json::Value =
        serde_json::from_slice(&publisher.get(Publisher::KEYS)).unwrap();
    set["keys"][0]["d"] = "AAAA".into();
    publisher.put(Publisher::KEYS, set.to_string().into_bytes());
    until("it is distrusted", async || {
        let verdict = party.validate(&shown).await;
        verdict.is_err_and(|rejection| rejection.code() == RejectionCode::KeyMalformed)
    })
    .await;
    party.validate(&publisher.token()).await.unwrap();
    let error = party.status().issuers[0].last_error.clone().unwrap();
    assert!(error.contains("the keys that it shows are distrusted"), "{error}");

    // It cannot take back what it showed, under that name or another.
    for name in [None, Some("another")] {
        let key = &mut set["keys"][0];
        key.as_object_mut().unwrap().remove("d");
        let mut again = shown.clone();
        if let Some(name) = name {
            key["kid"] = name.into();
            again = publisher.token_named(&publisher.keys[0], name);
        }
        publisher.put(Publisher::KEYS, set.to_string().into_bytes());
        let before = party.status().issuers[0].clone();
        let refreshed = async || {
            let now = &party.status().issuers[0];
            now.fetches > before.fetches + 1 && now.last_error.is_none()
        };
        until("it is served again", refreshed).await;
        assert_eq!(code(party.validate(&again).await), RejectionCode::KeyMalformed, "{name:?}");
        party.validate(&publisher.token()).await.unwrap();
    }
}

#[tokio::test]
async fn calls_before_the_first_set_share_one_fetch() {
    let publisher = Publisher::start().await;
    publisher.fail(Publisher::KEYS, Fault::Slow(Duration::from_millis(300)));
    let party = builder(&publisher).build().unwrap();
    let token = publisher.token();
    assert_eq!(party.judge(&token), Judgement::NeedsIo);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (party, token) = (party.clone(), token.clone());
            tokio::spawn(async move { party.validate(&token).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(publisher.count(Publisher::KEYS), 1);
    assert_eq!(publisher.count("/r/.well-known/openid-configuration"), 1);
}

#[tokio::test]
async fn a_dropped_call_does_not_stop_the_fetch_for_others() {
    let publisher = Publisher::start().await;
    publisher.fail(Publisher::KEYS, Fault::Slow(Duration::from_millis(300)));
    let party = builder(&publisher).build().unwrap();
    let token = publisher.token();
    let short = Duration::from_millis(50);
    assert!(tokio::time::timeout(short, party.validate(&token)).await.is_err());
    party.validate(&token).await.unwrap();
    assert_eq!(publisher.count(Publisher::KEYS), 1);
}

#[tokio::test]
async fn a_new_key_is_fetched_by_the_first_token_that_names_it() {
    let mut publisher = Publisher::start().await;
    let party = party(&publisher).await;
    sleep_ms(350).await;
    publisher.add_key();
    let token = publisher.token();
    assert_eq!(party.judge(&token), Judgement::NeedsIo);
    party.validate(&token).await.unwrap();
    assert_eq!(publisher.count(Publisher::KEYS), 2);
    assert!(matches!(party.judge(&token), Judgement::Decided(Ok(_))));
}

#[tokio::test]
async fn invented_keys_cause_one_fetch_per_cool_down_and_are_refused_at_once_between() {
    let publisher = Publisher::start().await;
    let party = party(&publisher).await;
    let token = publisher.token();
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < Duration::from_millis(1_500) {
        let unknown = with_unknown_key(&token, number);
        assert_eq!(code(party.validate(&unknown).await), RejectionCode::UnknownKey);
        number += 1;
    }
    let most = begun.elapsed().as_millis() as usize / 300 + 2;
    let fetches = publisher.count(Publisher::KEYS);
    assert!((2..=most).contains(&fetches), "{fetches} fetches for {number} tokens");
    assert!(number > 500, "{number} tokens");
}

#[tokio::test]
async fn calls_that_wait_are_bounded() {
    let publisher = Publisher::start().await;
    let bounds = Bounds { waiting: 3, ..quick() };
    let party = builder(&publisher).bounds(bounds).build().unwrap();
    party.ready().await.unwrap();
    sleep_ms(350).await;
    publisher.fail(Publisher::KEYS, Fault::Slow(Duration::from_millis(500)));
    let token = publisher.token();
    let begun = Instant::now();
    let calls: Vec<_> = (0..10)
        .map(|number| {
            let (party, token) = (party.clone(), with_unknown_key(&token, number));
            tokio::spawn(async move { (code(party.validate(&token).await), begun.elapsed()) })
        })
        .collect();
    let mut waited = 0;
    for call in calls {
        let (code, time) = call.await.unwrap();
        assert_eq!(code, RejectionCode::UnknownKey);
        waited += usize::from(time > Duration::from_millis(300));
    }
    assert_eq!(waited, 3);
}

#[tokio::test]
async fn an_absent_key_is_distrusted_at_the_next_refresh_within_the_stated_time() {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=1"), None);
    publisher.add_key();
    let party = party(&publisher).await;
    let old = publisher.token_at(&publisher.keys[0], 7, crate::publisher::now());
    party.validate(&old).await.unwrap();
    publisher.drop_key();
    let taken_back = Instant::now();
    until("the key is distrusted", async || party.validate(&old).await.is_err()).await;
    let measured = taken_back.elapsed();
    let stated = party.status().issuers[0].distrusts_within_ms.unwrap();
    assert_eq!(stated, 3_000);
    assert!(measured <= Duration::from_millis(stated), "{measured:?}");
    assert_eq!(code(party.validate(&old).await), RejectionCode::UnknownKey);
    party.validate(&publisher.token()).await.unwrap();
}

#[tokio::test]
async fn a_verified_token_of_a_key_that_is_gone_does_not_live_on_in_the_cache() {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    publisher.add_key();
    let party = builder(&publisher).cache(1_000).build().unwrap();
    let old = publisher.token_at(&publisher.keys[0], 7, crate::publisher::now());
    for _ in 0..3 {
        party.validate(&old).await.unwrap();
    }
    publisher.drop_key();
    until("the key is distrusted", async || party.validate(&old).await.is_err()).await;
    assert_eq!(code(party.validate(&old).await), RejectionCode::UnknownKey);
}

#[tokio::test]
async fn an_outage_is_bridged_and_not_for_ever() {
    let publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    let bounds = Bounds { keep: Duration::from_millis(1_200), ..quick() };
    let party = builder(&publisher).bounds(bounds).build().unwrap();
    party.ready().await.unwrap();
    publisher.fail(Publisher::KEYS, Fault::Status(500));
    let down = Instant::now();
    let token = publisher.token();
    let mut last_good = down;
    while party.validate(&token).await.is_ok() {
        last_good = Instant::now();
        assert!(down.elapsed() < Duration::from_secs(10), "still accepted");
        sleep_ms(10).await;
    }
    let bridged = last_good - down;
    // The set is believed for min_age + keep from its last good fetch.
    let (least, most) = (Duration::from_millis(1_000), Duration::from_millis(1_600));
    assert!((least..=most).contains(&bridged), "{bridged:?}");
    let rejection = party.validate(&token).await.unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeysUnavailable);
    assert!(rejection.retryable() && rejection.detail().contains("500"), "{rejection}");
    let status = party.status();
    let issuer = &status.issuers[0];
    assert_eq!((issuer.state, issuer.keys), (KeyState::Expired, 0));
    assert!(issuer.failures_in_a_row >= 2, "{issuer:?}");

    publisher.heal(Publisher::KEYS);
    until("the issuer is back", async || party.validate(&token).await.is_ok()).await;
    assert_eq!(party.status().issuers[0].failures_in_a_row, 0);
}

#[tokio::test]
async fn requests_during_an_outage_keep_the_cool_down() {
    let publisher = Publisher::start().await;
    publisher.fail(Publisher::KEYS, Fault::Status(503));
    let party = builder(&publisher).build().unwrap();
    let token = publisher.token();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(code(party.validate(&token).await), RejectionCode::KeysUnavailable);
        assert_eq!(party.ready().await.unwrap_err().code(), RejectionCode::KeysUnavailable);
    }
    let fetches = publisher.count(Publisher::KEYS);
    let most = begun.elapsed().as_millis() as usize / 300 + 2;
    assert!((2..=most).contains(&fetches), "{fetches}");
}

#[tokio::test]
async fn a_set_that_cannot_be_believed_does_not_replace_a_good_one() {
    let publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    let party = party(&publisher).await;
    let token = publisher.token();
    let broken: [&[u8]; 4] = [
        b"<html>maintenance</html>",
        br#"{"keys":{}}"#,
        br#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}"#,
        br#"{"keys":[],"keys":[]}"#,
    ];
    for body in broken {
        publisher.fail(Publisher::KEYS, Fault::Bytes(body.to_vec()));
        let before = party.status().issuers[0].failures;
        until("a refusal", async || party.status().issuers[0].failures > before).await;
        party.validate(&token).await.unwrap();
        let status = party.status();
        let error = status.issuers[0].last_error.clone().unwrap();
        assert!(error.contains("key_set_refused"), "{error}");
    }
    // An empty set is a set: everything is taken back.
    publisher.fail(Publisher::KEYS, Fault::Bytes(br#"{"keys":[]}"#.to_vec()));
    until("the keys are gone", async || {
        party.validate(&token).await.is_err_and(|r| r.code() == RejectionCode::UnknownKey)
    })
    .await;
}

#[tokio::test]
async fn a_set_that_did_not_change_is_not_sent_again() {
    let publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    publisher.use_etags();
    let party = party(&publisher).await;
    until("answers that nothing changed", async || publisher.not_modified() >= 2).await;
    party.validate(&publisher.token()).await.unwrap();
    // Between two refreshes that a busy machine delays it is stale for a moment.
    let is_fresh = async || party.status().issuers[0].state == KeyState::Fresh;
    until("it is fresh", is_fresh).await;
    assert_eq!(party.status().issuers[0].failures, 0);
}

#[tokio::test]
async fn each_issuer_has_a_set_of_its_own() {
    let (one, mut two) = (Publisher::start().await, Publisher::start().await);
    let mut config = ValidatorConfig::new(&one.issuer, AUDIENCE);
    config.issuers.push(two.issuer.clone());
    let party = RelyingParty::builder(config).bounds(quick()).build().unwrap();
    party.ready().await.unwrap();
    party.validate(&one.token()).await.unwrap();
    party.validate(&two.token()).await.unwrap();
    sleep_ms(350).await;
    two.add_key();
    party.validate(&two.token()).await.unwrap();
    assert_eq!((one.count(Publisher::KEYS), two.count(Publisher::KEYS)), (1, 2));

    // The outage of one is none of the other.
    let (three, four) = (Publisher::start().await, Publisher::start().await);
    four.fail(Publisher::KEYS, Fault::Silent);
    let mut config = ValidatorConfig::new(&three.issuer, AUDIENCE);
    config.issuers.push(four.issuer.clone());
    let party = RelyingParty::builder(config).bounds(quick()).build().unwrap();
    party.validate(&three.token()).await.unwrap();
    let begun = Instant::now();
    assert_eq!(code(party.validate(&four.token()).await), RejectionCode::KeysUnavailable);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(party.ready().await.is_err());
}

#[tokio::test]
async fn a_given_set_needs_no_network() {
    let publisher = Publisher::start().await;
    let config = ValidatorConfig::new(&publisher.issuer, AUDIENCE);
    let jwks = publisher.get(Publisher::KEYS);
    let party = RelyingParty::builder(config).jwks(&publisher.issuer, &jwks).build().unwrap();
    party.ready().await.unwrap();
    let token = publisher.token();
    assert!(matches!(party.judge(&token), Judgement::Decided(Ok(_))));
    let unknown = with_unknown_key(&token, 1);
    assert!(matches!(party.judge(&unknown), Judgement::Decided(Err(_))));
    assert_eq!(code(party.validate(&unknown).await), RejectionCode::UnknownKey);
    assert_eq!(publisher.count_of("/"), 0);
    let status = party.status();
    assert_eq!((status.issuers[0].state, status.issuers[0].age_ms), (KeyState::Given, None));
}

#[test]
fn a_given_set_needs_no_runtime_either_but_a_fetched_one_does() {
    let config = || ValidatorConfig::new("https://a.example", AUDIENCE);
    let given = RelyingParty::builder(config()).jwks("https://a.example", br#"{"keys":[]}"#);
    assert!(given.build().is_ok());
    assert_eq!(RelyingParty::builder(config()).build().unwrap_err(), BuildError::NoRuntime);
}

#[tokio::test]
async fn mistakes_in_the_configuration_are_told() {
    let builder = || RelyingParty::builder(ValidatorConfig::new("https://a.example", AUDIENCE));
    let wrong = |error: Result<RelyingParty, BuildError>| error.unwrap_err().to_string();
    let told = wrong(builder().jwks("https://b.example", b"{}").build());
    assert!(told.contains("`https://b.example` is not one of"), "{told}");
    let told = wrong(builder().jwks("https://a.example", b"{}").build());
    assert!(told.contains("is refused"), "{told}");
    let told = wrong(builder().jwks_uri("https://a.example", "http://b.example/k").build());
    assert!(told.contains("not encrypted"), "{told}");
    let told = wrong(builder().metadata_uri("https://a.example", "nowhere").build());
    assert!(told.contains("is not a URL"), "{told}");
    let told = wrong(builder().log_at("http://b.example/log").build());
    assert!(told.contains("not encrypted"), "{told}");
    let told = wrong(builder().root_certificates(b"none").build());
    assert!(told.contains("root certificates"), "{told}");
    let bounds = Bounds { cool_down: Duration::ZERO, ..Bounds::default() };
    assert!(matches!(builder().bounds(bounds).build(), Err(BuildError::Bounds(_))));
    let config = ValidatorConfig::new("", AUDIENCE);
    assert!(matches!(RelyingParty::builder(config).build(), Err(BuildError::Config(_))));
}

#[tokio::test]
async fn the_last_clone_that_is_dropped_ends_the_fetching() {
    let publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    let party = party(&publisher).await;
    let clone = party.clone();
    drop(party);
    let before = publisher.count(Publisher::KEYS);
    until("refreshes go on", async || publisher.count(Publisher::KEYS) > before + 1).await;
    drop(clone);
    sleep_ms(400).await;
    let after = publisher.count(Publisher::KEYS);
    sleep_ms(1_000).await;
    assert_eq!(publisher.count(Publisher::KEYS), after);
}

#[test]
fn without_its_runtime_a_party_judges_on_and_hangs_never() {
    let home = tokio::runtime::Runtime::new().unwrap();
    let (party, publisher) = home.block_on(async {
        let mut publisher = Publisher::start().await;
        publisher.logged_token();
        publisher.publish_log();
        let party = builder(&publisher).log(LogPolicy::Require).build().unwrap();
        party.ready().await.unwrap();
        (party, publisher)
    });
    drop(home);
    std::thread::sleep(Duration::from_millis(350));
    let elsewhere = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let token = publisher.token();
    let begun = Instant::now();
    for number in 0..3 {
        let unknown = with_unknown_key(&token, number);
        let rejection = elsewhere.block_on(party.validate(&unknown));
        assert_eq!(code(rejection), RejectionCode::UnknownKey);
        let rejection = elsewhere.block_on(party.validate(&token)).unwrap_err();
        assert_eq!(rejection.code(), RejectionCode::LogUnknown);
        assert!(rejection.detail().contains("the runtime has ended"), "{rejection}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
