//! A trust anchor that names the directory: logs are learnt from it, over the network.

use chancery_relying_party::{Anchor, Judgement, RejectionCode};

use crate::publisher::{Fault, Log, Publisher, now};
use crate::{builder, code, until};

async fn published() -> Publisher {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    publisher.publish_directory();
    publisher
}

fn anchor(publisher: &Publisher) -> Anchor {
    Anchor::parse(&publisher.directory_anchor()).unwrap()
}

#[tokio::test]
async fn a_restarted_signer_is_believed_without_another_anchor() {
    let mut publisher = published().await;
    let party = builder(&publisher).anchor(anchor(&publisher)).build().unwrap();
    party.ready().await.unwrap();
    let token = publisher.token();
    assert!(matches!(party.judge(&token), Judgement::Decided(Ok(_))));

    // A new signer with a log of its own, at first outside the directory.
    publisher.log = Log::new();
    publisher.keys.clear();
    publisher.add_key();
    let token = publisher.token();
    until("the new key is served", async || {
        code(party.validate(&token).await) == RejectionCode::KeyNotAnnounced
    })
    .await;
    publisher.publish_directory();
    until("the new log is believed", async || party.validate(&token).await.is_ok()).await;
}

#[tokio::test]
async fn a_long_directory_is_read_with_few_requests() {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    publisher.log.fill(300);
    publisher.publish_log();
    for _ in 0..600 {
        publisher.log.fill(1);
        publisher.publish_directory();
    }
    publisher.publish_log();
    let party = builder(&publisher).anchor(anchor(&publisher)).build().unwrap();
    party.validate(&publisher.token()).await.unwrap();
    // Checkpoint, index, two bundles and a handful of tiles, whatever the length.
    let requests = publisher.count_of("/directory/");
    assert!(requests < 16, "{requests} requests");
}

#[tokio::test]
async fn an_outage_of_the_directory_changes_nothing_that_was_verified() {
    let publisher = published().await;
    let party = builder(&publisher).anchor(anchor(&publisher)).build().unwrap();
    party.ready().await.unwrap();
    for fault in [Fault::Status(500), Fault::Bytes(b"maintenance".to_vec())] {
        for object in ["checkpoint", "index.json"] {
            publisher.fail(&format!("/directory/{object}"), fault.clone());
        }
        let before = party.status().issuers[0].fetches;
        until("refreshes", async || party.status().issuers[0].fetches > before + 1).await;
        let token = publisher.token_at(&publisher.keys[0], 9, now());
        party.validate(&token).await.unwrap();
    }
}

#[tokio::test]
async fn another_deployments_directory_names_nothing_here() {
    let (publisher, other) = (published().await, published().await);
    let party = builder(&publisher).anchor(anchor(&other)).build().unwrap();
    assert_eq!(code(party.validate(&publisher.token()).await), RejectionCode::KeyNotAnnounced);
    // A place that is one log's has no directory beside it.
    let place = format!("{}/log/{}", publisher.url, publisher.log.id);
    let party = builder(&publisher).anchor(anchor(&publisher)).log_at(&place).build().unwrap();
    let rejection = party.validate(&publisher.token()).await.unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeysUnavailable);
    assert!(rejection.detail().contains("no directory beside it"), "{rejection}");
}
