//! With a trust anchor a served key set convinces nobody by itself.

use chancery_relying_party::{
    Anchor, BuildError, Judgement, LogPolicy, Profile, RejectionCode, RelyingParty, ValidatorConfig,
};

use crate::publisher::{Fault, Publisher, now};
use crate::{builder, code, sleep_ms, until};

#[tokio::test]
async fn announced_keys_are_believed_and_others_are_not() {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    let anchor = Anchor::parse(&publisher.anchor()).unwrap();
    let party = builder(&publisher).anchor(anchor).build().unwrap();
    party.ready().await.unwrap();
    let token = publisher.token();
    assert!(matches!(party.judge(&token), Judgement::Decided(Ok(_))));
    assert_eq!(party.status().issuers[0].keys, 1);

    // A key that the service made up, with the place of another's announcement.
    publisher.add_key();
    let made_up = publisher.keys.last_mut().unwrap();
    made_up.member.log = Some(format!("{}.0", publisher.log.id));
    publisher.publish_keys();
    let forged = publisher.token();
    until("the key is refused", async || {
        code(party.validate(&forged).await) == RejectionCode::KeyNotAnnounced
    })
    .await;
    party.validate(&token).await.unwrap();
    assert_eq!(party.status().issuers[0].keys, 1);

    // Announced properly it is taken at the next refresh.
    publisher.keys.pop();
    publisher.add_key();
    let token = publisher.token();
    until("the new key is believed", async || party.validate(&token).await.is_ok()).await;
}

#[tokio::test]
async fn logs_that_the_anchor_does_not_name_are_not_even_read() {
    let publisher = Publisher::start().await;
    let other = Publisher::start().await;
    let anchor = Anchor::parse(&other.anchor()).unwrap();
    let party = builder(&publisher).anchor(anchor).build().unwrap();
    assert_eq!(code(party.validate(&publisher.token()).await), RejectionCode::KeyNotAnnounced);
    assert_eq!(publisher.count_of("/log/"), 0);
}

#[tokio::test]
async fn announcements_that_were_verified_outlive_an_outage_of_the_log() {
    let publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    let anchor = Anchor::parse(&publisher.anchor()).unwrap();
    let party = builder(&publisher).anchor(anchor).build().unwrap();
    party.ready().await.unwrap();
    let path = publisher.log_path("checkpoint");
    for fault in [Fault::Status(500), Fault::Bytes(b"maintenance".to_vec()), Fault::Silent] {
        publisher.fail(&path, fault.clone());
        publisher.fail(&publisher.log_path("keys.jwt"), fault);
        let before = party.status().issuers[0].fetches;
        until("refreshes", async || party.status().issuers[0].fetches > before + 1).await;
        let token = publisher.token_at(&publisher.keys[0], 9, now());
        party.validate(&token).await.unwrap();
    }
}

/// Many logs that take connections and say nothing cost a refresh no more time than one: a key that is
/// withdrawn meanwhile is distrusted, and a new one is learnt.
#[tokio::test]
async fn silent_logs_keep_no_withdrawn_key_alive() {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    let mut anchor = publisher.anchor();
    for _ in 0..8 {
        let mut other = Publisher::start().await;
        anchor = format!("{anchor}\n{}", other.anchor());
        let mut key = other.keys.remove(0);
        key.member.issuer = Some(publisher.issuer.clone());
        for object in ["checkpoint", "vkey", "keys.jwt"] {
            publisher.fail(&format!("/log/{}/{object}", other.log.id), Fault::Silent);
        }
        publisher.keys.insert(0, key);
    }
    publisher.publish_keys();
    let party = builder(&publisher).anchor(Anchor::parse(&anchor).unwrap()).build().unwrap();
    party.ready().await.unwrap();
    let old = publisher.token();
    party.validate(&old).await.unwrap();

    publisher.keys.pop();
    publisher.add_key();
    let new = publisher.token();
    until("the withdrawn key is distrusted", async || party.validate(&old).await.is_err()).await;
    party.validate(&new).await.unwrap();
    assert_eq!(party.status().issuers[0].last_error, None);
}

#[tokio::test]
async fn a_given_set_is_looked_at_too() {
    let publisher = Publisher::start().await;
    let jwks = publisher.get(Publisher::KEYS);
    let anchored = |place: Option<&str>| {
        let builder = builder(&publisher).jwks(&publisher.issuer, &jwks);
        let builder = builder.anchor(Anchor::parse(&publisher.anchor()).unwrap());
        match place {
            Some(place) => builder.log_at(place),
            None => builder,
        }
        .build()
    };
    let token = publisher.token();
    let place = format!("{}/log/{{log}}", publisher.url);
    anchored(Some(&place)).unwrap().validate(&token).await.unwrap();
    let error = anchored(None).unwrap_err();
    assert_eq!(error, BuildError::NoLogPlace(publisher.issuer.clone()));
}

/// A service that has served a withdrawal cannot take it back by falling silent, nor by serving its
/// older copy.
#[tokio::test]
async fn a_withdrawal_is_not_forgotten() {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    publisher.add_key();
    let path = publisher.log_path("keys.jwt");
    let older = publisher.signed_set(1, &[0, 1]);
    publisher.put(&path, older.clone());
    let anchor = Anchor::parse(&publisher.anchor()).unwrap();
    let party = builder(&publisher).anchor(anchor).build().unwrap();
    let withdrawn = publisher.token_at(&publisher.keys[0], 7, now());
    party.validate(&withdrawn).await.unwrap();

    publisher.put(&path, publisher.signed_set(2, &[1]));
    until("the withdrawal is heard", async || party.validate(&withdrawn).await.is_err()).await;
    let silent = (Fault::Status(503), None);
    let replayed = (Fault::Slow(std::time::Duration::ZERO), Some(older));
    for (fault, served) in [silent, replayed] {
        publisher.heal(&path);
        if let Some(served) = served {
            publisher.put(&path, served);
        }
        publisher.fail(&path, fault);
        let before = party.status().issuers[0].fetches;
        until("refreshes", async || party.status().issuers[0].fetches > before + 3).await;
        assert_eq!(code(party.validate(&withdrawn).await), RejectionCode::KeyNotAnnounced);
        party.validate(&publisher.token()).await.unwrap();
    }
}

#[tokio::test]
async fn an_announcement_that_cannot_be_read_is_no_accusation() {
    let publisher = Publisher::start().await;
    publisher.fail(&publisher.log_path("checkpoint"), Fault::Status(503));
    let anchor = Anchor::parse(&publisher.anchor()).unwrap();
    let party = builder(&publisher).anchor(anchor).build().unwrap();
    let rejection = party.validate(&publisher.token()).await.unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeysUnavailable);
    assert!(rejection.detail().contains("checkpoint could not be read"), "{rejection}");
}

#[tokio::test]
async fn logs_are_for_the_profile_that_has_them() {
    let publisher = Publisher::start().await;
    let config = ValidatorConfig::of_profile(Profile::Oidc, &publisher.issuer, "a");
    let of_others = || RelyingParty::builder(config.clone());
    let error = of_others().log(LogPolicy::Report).build().unwrap_err();
    assert_eq!(error, BuildError::LogOfOthers);
    let anchor = Anchor::parse(&publisher.anchor()).unwrap();
    assert_eq!(of_others().anchor(anchor).build().unwrap_err(), BuildError::LogOfOthers);
}

#[tokio::test]
async fn an_announcement_deep_in_a_log_is_found() {
    let mut publisher = Publisher::start().await;
    publisher.log.fill(700);
    publisher.add_key();
    publisher.log.fill(70);
    publisher.publish_log();
    let anchor = Anchor::parse(&publisher.anchor()).unwrap();
    let party = builder(&publisher).anchor(anchor).build().unwrap();
    party.validate(&publisher.token()).await.unwrap();
    sleep_ms(1).await;
    assert_eq!(party.status().issuers[0].keys, 2);
}
