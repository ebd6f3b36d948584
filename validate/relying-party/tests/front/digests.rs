//! Tokens that name no place in a log, looked up by digest.

use chancery_relying_party::{
    Anchor, Builder, LogLookup, LogPolicy, Profile, RejectionCode, RelyingParty, ValidatorConfig,
    Verdict,
};

use crate::publisher::{AUDIENCE, Fault, Publisher, now};
use crate::{code, quick, until};

fn of_kubernetes(publisher: &Publisher) -> Builder {
    let mut config = ValidatorConfig::of_profile(Profile::Oidc, &publisher.issuer, AUDIENCE);
    config.log_lookup = LogLookup::Digest;
    RelyingParty::builder(config).bounds(quick()).log(LogPolicy::Require)
}

/// What the service says of a leaf.
fn says(publisher: &Publisher, path: &str, status: u16, body: &str) {
    publisher.fail(path, Fault::Says(status, body.to_owned()));
}

#[tokio::test]
async fn a_token_of_kubernetes_is_found_and_then_known() {
    let mut publisher = Publisher::start().await;
    publisher.log.fill(700);
    let (token, index, path) = publisher.logged_foreign_token(now() - 1);
    publisher.log.fill(900);
    publisher.publish_log();
    says(&publisher, &path, 200, &format!(r#"{{"index":{index},"searched":1602}}"#));
    let party = of_kubernetes(&publisher).build().unwrap();
    party.ready().await.unwrap();
    for _ in 0..3 {
        let accepted = party.validate(&token).await.unwrap();
        assert_eq!(accepted.log, Some(Verdict::InLog { index: index as u64 }));
        assert_eq!(accepted.token.claims().sub, "system:serviceaccount:ns:sa");
    }
    assert_eq!(publisher.count(&path), 1, "what was found once is known");

    // The strict profile does not take such a token, and the address alone does not find it.
    let config = ValidatorConfig::of_profile(Profile::Oidc, &publisher.issuer, AUDIENCE);
    let by_address = RelyingParty::builder(config).bounds(quick()).build().unwrap();
    assert_eq!(code(by_address.validate(&token).await), RejectionCode::LogIdMismatch);
}

#[tokio::test]
async fn keys_are_anchored_for_such_tokens_too() {
    let mut publisher = Publisher::start().await;
    let (token, index, path) = publisher.logged_foreign_token(now() - 1);
    publisher.publish_log();
    says(&publisher, &path, 200, &format!(r#"{{"index":{index}}}"#));
    let anchor = Anchor::parse(&publisher.anchor()).unwrap();
    let party = of_kubernetes(&publisher).anchor(anchor).build().unwrap();
    party.validate(&token).await.unwrap();
    let other = Anchor::parse(&Publisher::start().await.anchor()).unwrap();
    let party = of_kubernetes(&publisher).anchor(other).build().unwrap();
    assert_eq!(code(party.validate(&token).await), RejectionCode::KeyNotAnnounced);
}

/// Whatever a service answers: no token that is not in the log is accepted, and none is called
/// forged.
#[tokio::test]
async fn a_hostile_service_gets_nothing_accepted_and_nothing_called_forged() {
    let mut publisher = Publisher::start().await;
    publisher.log.fill(20);
    let (token, _, path) = publisher.logged_foreign_token(now() - 60);
    publisher.log.entries_end_before(1);
    publisher.publish_log();
    let party = of_kubernetes(&publisher).build().unwrap();
    party.ready().await.unwrap();
    for (status, body, wanted) in [
        (200, r#"{"index":3}"#, RejectionCode::LogUnknown),
        (200, r#"{"index":21}"#, RejectionCode::LogMissing),
        (200, r#"{"searched":99}"#, RejectionCode::LogUnknown),
        (200, "<html>", RejectionCode::LogUnknown),
        (404, r#"{"searched":21}"#, RejectionCode::LogMissing),
        (404, r#"{"searched":20}"#, RejectionCode::LogUnknown),
        // A web server that knows no such path has not searched.
        (404, "<html>not found</html>", RejectionCode::LogUnknown),
        (404, r#"{"index":3,"searched":21}"#, RejectionCode::LogUnknown),
        (501, r#"{"searched":21}"#, RejectionCode::LogUnknown),
        (503, "", RejectionCode::LogUnknown),
    ] {
        says(&publisher, &path, status, body);
        until(body, async || code(party.validate(&token).await) == wanted).await;
    }
}

#[tokio::test]
async fn a_young_token_is_pending_and_is_found_once_it_is_there() {
    let mut publisher = Publisher::start().await;
    let (token, index, path) = publisher.logged_foreign_token(now());
    says(&publisher, &path, 404, r#"{"searched":1}"#);
    let party = of_kubernetes(&publisher).build().unwrap();
    assert_eq!(code(party.validate(&token).await), RejectionCode::LogPending);
    says(&publisher, &path, 200, &format!(r#"{{"index":{index}}}"#));
    publisher.publish_log();
    until("the token is found", async || party.validate(&token).await.is_ok()).await;
}

#[tokio::test]
async fn copies_of_logs_in_folders_cannot_be_searched() {
    let publisher = Publisher::start().await;
    let folder = std::env::temp_dir().join(format!("chancery-front-{}", std::process::id()));
    let log = folder.join(publisher.log.id.to_string());
    std::fs::create_dir_all(&log).unwrap();
    for object in ["vkey", "checkpoint"] {
        std::fs::write(log.join(object), publisher.get(&publisher.log_path(object))).unwrap();
    }
    let place = format!("{}/{{log}}", folder.display());
    let party = of_kubernetes(&publisher).log_at(&place).build().unwrap();
    let rejection = party.validate(&publisher.foreign_token(now())).await.unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::LogUnknown);
    assert!(rejection.detail().contains("files cannot be searched"), "{rejection}");
    std::fs::remove_dir_all(&folder).unwrap();
}
