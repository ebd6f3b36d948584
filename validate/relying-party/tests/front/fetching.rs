//! Servers that are slow, huge, silent or elsewhere.

use std::time::{Duration, Instant};

use chancery_relying_party::{Bounds, KeyState, RejectionCode, RelyingParty, ValidatorConfig};

use crate::publisher::{AUDIENCE, Fault, Publisher};
use crate::{builder, code, party, quick};

/// What the first fetch dies of under a fault.
async fn error_of(path: &str, fault: Fault) -> String {
    let publisher = Publisher::start().await;
    publisher.fail(path, fault);
    let bounds = Bounds { fetch_timeout: Duration::from_millis(500), ..quick() };
    let party = builder(&publisher).bounds(bounds).build().unwrap();
    let begun = Instant::now();
    let rejection = party.ready().await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(rejection.code(), RejectionCode::KeysUnavailable);
    assert_eq!(party.status().issuers[0].state, KeyState::None);
    rejection.detail().to_owned()
}

const METADATA: &str = "/r/.well-known/openid-configuration";

#[tokio::test]
async fn a_server_that_fails_is_given_up_in_time() {
    for path in [METADATA, Publisher::KEYS] {
        for (fault, why) in [
            (Fault::Silent, "no answer within 500ms"),
            (Fault::Slow(Duration::from_secs(10)), "no answer within 500ms"),
            (Fault::Endless, "longer than"),
            (Fault::Huge, "longer than"),
            (Fault::Status(500), "HTTP status 500"),
            (Fault::Status(204), "HTTP status 204"),
            (Fault::Status(304), "HTTP status 304"),
            (Fault::Status(206), "HTTP status 206"),
        ] {
            let error = error_of(path, fault.clone()).await;
            assert!(error.contains(why), "{path} {fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn an_answer_in_pieces_without_a_length_is_read() {
    let publisher = Publisher::start().await;
    publisher.fail(METADATA, Fault::Pieces);
    publisher.fail(Publisher::KEYS, Fault::Pieces);
    party(&publisher).await.validate(&publisher.token()).await.unwrap();
}

#[tokio::test]
async fn redirects_stay_within_the_origin() {
    let publisher = Publisher::start().await;
    publisher.put("/moved", publisher.get(Publisher::KEYS));
    publisher.fail(Publisher::KEYS, Fault::Redirect("/moved".to_owned()));
    party(&publisher).await.validate(&publisher.token()).await.unwrap();

    // Another port of the same machine is another origin.
    let other = Publisher::start().await;
    other.put(Publisher::KEYS, publisher.get("/moved"));
    let elsewhere = format!("{}{}", other.url, Publisher::KEYS);
    let error = error_of(Publisher::KEYS, Fault::Redirect(elsewhere)).await;
    assert!(error.contains("to another origin"), "{error}");
    assert_eq!(other.count(Publisher::KEYS), 0);
    for place in ["https://127.0.0.1/", "//localhost/", "file:///etc/passwd"] {
        let error = error_of(Publisher::KEYS, Fault::Redirect(place.to_owned())).await;
        assert!(error.contains("redirects") || error.contains("GET"), "{place}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_few() {
    let publisher = Publisher::start().await;
    let keys = publisher.get(Publisher::KEYS);
    let step = |from: String, to: &str| publisher.fail(&from, Fault::Redirect(to.to_owned()));
    step(Publisher::KEYS.to_owned(), "/1");
    step("/1".to_owned(), "/2");
    step("/2".to_owned(), "/3");
    publisher.put("/3", keys.clone());
    party(&publisher).await.validate(&publisher.token()).await.unwrap();
    step("/3".to_owned(), "/4");
    publisher.put("/4", keys);
    let party = builder(&publisher).build().unwrap();
    let error = party.ready().await.unwrap_err().to_string();
    assert!(error.contains("more than three times"), "{error}");
    assert_eq!(publisher.count("/4"), 0);

    publisher.fail(METADATA, Fault::Redirect(METADATA.to_owned()));
    let error = builder(&publisher).build().unwrap().ready().await.unwrap_err().to_string();
    assert!(error.contains("more than three times"), "{error}");
}

#[tokio::test]
async fn the_form_of_rfc_8414_is_found_too() {
    let publisher = Publisher::start().await;
    publisher.remove(METADATA);
    publisher.describe("/.well-known/oauth-authorization-server/r");
    party(&publisher).await.validate(&publisher.token()).await.unwrap();
    assert_eq!(publisher.count(METADATA), 1);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_not_looked_for_elsewhere() {
    let publisher = Publisher::start().await;
    publisher.describe("/.well-known/oauth-authorization-server/r");
    publisher.fail(METADATA, Fault::Status(503));
    let party = builder(&publisher).build().unwrap();
    assert!(party.ready().await.is_err());
    assert_eq!(publisher.count("/.well-known/oauth-authorization-server/r"), 0);
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused() {
    let publisher = Publisher::start().await;
    publisher.describe("/other/.well-known/openid-configuration");
    let issuer = format!("{}/other", publisher.url);
    let config = ValidatorConfig::new(&issuer, AUDIENCE);
    let party = RelyingParty::builder(config).bounds(quick()).build().unwrap();
    let error = party.ready().await.unwrap_err().to_string();
    assert!(error.contains("it names issuer") && error.contains(&issuer), "{error}");
    assert_eq!(publisher.count(Publisher::KEYS), 0);
}

#[tokio::test]
async fn a_configured_address_skips_discovery() {
    let publisher = Publisher::start().await;
    publisher.remove(METADATA);
    let url = format!("{}{}", publisher.url, Publisher::KEYS);
    let party = builder(&publisher).jwks_uri(&publisher.issuer, &url).build().unwrap();
    party.validate(&publisher.token()).await.unwrap();

    publisher.describe("/elsewhere");
    let url = format!("{}/elsewhere", publisher.url);
    let party = builder(&publisher).metadata_uri(&publisher.issuer, &url).build().unwrap();
    party.validate(&publisher.token()).await.unwrap();
    assert_eq!(publisher.count(METADATA), 0);
}

#[tokio::test]
async fn metadata_is_read_again_after_a_failure() {
    let publisher = Publisher::start().await;
    publisher.say(Some("max-age=0"), None);
    let party = party(&publisher).await;
    // The key set moves, and the metadata says so.
    publisher.put("/new", publisher.get(Publisher::KEYS));
    publisher.remove(Publisher::KEYS);
    let metadata = String::from_utf8(publisher.get(METADATA)).unwrap();
    publisher.put(METADATA, metadata.replace("/r/jwks.json", "/new").into_bytes());
    crate::until("the new place is found", async || publisher.count("/new") > 0).await;
    party.validate(&publisher.token()).await.unwrap();
}

#[tokio::test]
async fn a_closed_port_is_an_outage() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = ValidatorConfig::new(format!("http://127.0.0.1:{port}/r"), AUDIENCE);
    let party = RelyingParty::builder(config).bounds(quick()).build().unwrap();
    let error = party.ready().await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    assert_eq!(code(party.validate("not a token").await), RejectionCode::MalformedToken);
}

#[tokio::test]
async fn ages_are_taken_from_the_answer() {
    let publisher = Publisher::start().await;
    for (control, age, distrusts_within_ms) in [
        (Some("max-age=100"), None, 102_000),
        (Some("max-age=100"), Some("40"), 62_000),
        (Some("max-age=100"), Some("400"), 2_300),
        (Some("max-age=99999999"), None, 3_602_000),
        (Some("no-store"), None, 2_300),
        (Some("public"), None, 302_000),
        (None, None, 302_000),
    ] {
        publisher.say(control, age);
        let party = party(&publisher).await;
        let within = party.status().issuers[0].distrusts_within_ms;
        assert_eq!(within, Some(distrusts_within_ms), "{control:?} {age:?}");
    }
}
