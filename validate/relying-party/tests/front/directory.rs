//! A trust anchor that names the directory: logs are learnt from it, over the network.

use chancery_relying_party::{
    Anchor, Bounds, Judgement, LogPolicy, RejectionCode, RelyingParty, Verdict,
};

use crate::publisher::{Fault, Log, Publisher, now};
use crate::{builder, code, quick, sleep_ms, until};

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

async fn requiring(publisher: &Publisher, publish_within_s: u64) -> RelyingParty {
    let bounds = Bounds { publish_within_s, ..quick() };
    let builder = builder(publisher).bounds(bounds).anchor(anchor(publisher));
    let party = builder.log(LogPolicy::Require).build().unwrap();
    party.ready().await.unwrap();
    party
}

/// Whoever stole the keys of a signer can sign tokens, and a log of its own that holds them. What the
/// directory holds of that log is another one.
#[tokio::test]
async fn a_token_counts_only_under_what_the_directory_holds_of_its_log() {
    let mut publisher = published().await;
    let honest = publisher.logged_token();
    publisher.publish_log();
    publisher.publish_directory();
    let patient = requiring(&publisher, 3_600).await;
    let index = Some(Verdict::InLog { index: publisher.log.len() as u64 - 1 });
    assert_eq!(patient.validate(&honest).await.unwrap().log, index);

    // The log goes on, signed by its own key, and the directory does not know.
    let later = publisher.logged_token();
    publisher.publish_log();
    assert_eq!(code(patient.validate(&later).await), RejectionCode::LogPending);
    let party = requiring(&publisher, 0).await;
    sleep_ms(1_100).await;
    assert_eq!(code(party.validate(&later).await), RejectionCode::LogMissing);
    assert_eq!(party.validate(&honest).await.unwrap().log, index);
    // Without the directory the log's own key would do.
    let pinned = Anchor::parse(&publisher.anchor()).unwrap();
    let believer = builder(&publisher).anchor(pinned).log(LogPolicy::Require).build().unwrap();
    believer.validate(&later).await.unwrap();

    publisher.publish_directory();
    until("the directory holds it", async || party.validate(&later).await.is_ok()).await;
}

/// A history that was rewritten below what the directory holds proves nothing for its tokens.
#[tokio::test]
async fn a_rewritten_log_is_not_believed_under_an_honest_directory() {
    let mut publisher = published().await;
    let _replaced = publisher.logged_token();
    publisher.publish_directory();
    publisher.log.forget(1);
    // Another second makes it another token.
    sleep_ms(1_100).await;
    let forged = publisher.logged_token();
    publisher.publish_log();
    let party = requiring(&publisher, 3_600).await;
    // Not even the key's announcement can be proved then.
    assert_eq!(code(party.validate(&forged).await), RejectionCode::KeyNotAnnounced);
}

#[tokio::test]
async fn an_index_that_is_ahead_of_its_checkpoint_tells_nothing_until_that_has_come() {
    let mut publisher = published().await;
    let token = publisher.logged_token();
    publisher.publish_log();
    let party = requiring(&publisher, 3_600).await;
    let old = publisher.get("/directory/checkpoint");
    publisher.publish_directory();
    let new = publisher.get("/directory/checkpoint");
    publisher.put("/directory/checkpoint", old);
    until("the index is read again", async || {
        code(party.validate(&token).await) == RejectionCode::LogUnknown
    })
    .await;
    publisher.put("/directory/checkpoint", new);
    until("the checkpoint has come", async || party.validate(&token).await.is_ok()).await;
}
