//! With a trust anchor a served key set convinces nobody by itself.

use chancery_relying_party::{Anchor, Judgement, RejectionCode};

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
        .unwrap()
    };
    let token = publisher.token();
    let place = format!("{}/log/{{log}}", publisher.url);
    anchored(Some(&place)).validate(&token).await.unwrap();
    let rejection = anchored(None).validate(&token).await.unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeyNotAnnounced);
    assert!(rejection.detail().contains("no log is known"), "{rejection}");
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
