//! Tokens in logs: five verdicts, few requests, findings.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery_relying_party::{
    Bounds, Finding, Judgement, LogPolicy, RejectionCode, RelyingParty, Verdict,
};

use crate::publisher::{Fault, Publisher, now};
use crate::{builder, code, quick, sleep_ms, until};

async fn requiring(publisher: &Publisher) -> RelyingParty {
    let party = builder(publisher).log(LogPolicy::Require).build().unwrap();
    party.ready().await.unwrap();
    party
}

type Found = Arc<Mutex<Vec<Finding>>>;

async fn reporting(publisher: &Publisher, bounds: Bounds) -> (RelyingParty, Found) {
    let found = Found::default();
    let told = Arc::clone(&found);
    let party = builder(publisher)
        .bounds(bounds)
        .log(LogPolicy::Report)
        .on_finding(move |finding| told.lock().unwrap().push(finding.clone()))
        .build()
        .unwrap();
    party.ready().await.unwrap();
    (party, found)
}

#[tokio::test]
async fn one_fetch_of_a_tile_serves_all_its_tokens() {
    let mut publisher = Publisher::start().await;
    publisher.log.fill(255);
    let tokens: Vec<String> = (0..256).map(|_| publisher.logged_token()).collect();
    publisher.log.fill(300);
    publisher.publish_log();
    let party = requiring(&publisher).await;
    let calls: Vec<_> = tokens
        .iter()
        .map(|token| {
            let (party, token) = (party.clone(), token.clone());
            tokio::spawn(async move { party.validate(&token).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let accepted = call.await.unwrap().unwrap();
        assert_eq!(accepted.log, Some(Verdict::InLog { index: 256 + number as u64 }));
    }
    assert_eq!(publisher.count(&publisher.log_path("tile/0/001")), 1);
    assert_eq!(publisher.count(&publisher.log_path("vkey")), 1);
    assert!(publisher.count(&publisher.log_path("checkpoint")) < 20);
    assert!(publisher.count_of("/tile/") <= 4, "{}", publisher.count_of("/tile/"));

    // What was found once is known, and so decided without I/O.
    let requests = party.status().logs.requests;
    sleep_ms(100).await;
    for token in &tokens {
        assert!(matches!(party.judge(token), Judgement::Decided(Ok(_))));
        party.validate(token).await.unwrap();
    }
    assert_eq!(party.status().logs.requests, requests);
}

#[tokio::test]
async fn tokens_at_every_kind_of_place_are_found() {
    for size in [2, 3, 255, 256, 257, 511, 600] {
        let mut publisher = Publisher::start().await;
        let first = publisher.logged_token();
        publisher.log.fill(size / 2);
        let middle = publisher.logged_token();
        publisher.log.fill(size.saturating_sub(publisher.log.len() + 1));
        let last = publisher.logged_token();
        publisher.publish_log();
        let party = requiring(&publisher).await;
        for token in [&first, &middle, &last] {
            let accepted = party.validate(token).await;
            assert!(accepted.is_ok(), "size {size}: {accepted:?}");
        }
    }
}

#[tokio::test]
async fn a_tile_of_three_levels_is_read_in_two_rounds() {
    let mut publisher = Publisher::start().await;
    let token = publisher.logged_token();
    publisher.log.fill(66_000);
    publisher.publish_log();
    let party = requiring(&publisher).await;
    for path in ["vkey", "checkpoint"] {
        publisher.fail(&publisher.log_path(path), Fault::Slow(Duration::from_millis(200)));
    }
    let tiles =
        ["tile/0/000", "tile/0/257.p/210", "tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1"];
    for path in tiles {
        publisher.fail(&publisher.log_path(path), Fault::Slow(Duration::from_millis(200)));
    }
    let begun = std::time::Instant::now();
    party.validate(&token).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_fresh_token_is_pending_then_accepted() {
    let mut publisher = Publisher::start().await;
    let party = requiring(&publisher).await;
    let token = publisher.logged_token();
    assert_eq!(party.judge(&token), Judgement::NeedsIo);
    let rejection = party.validate(&token).await.unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::LogPending);
    assert!(rejection.retryable());
    publisher.publish_log();
    sleep_ms(60).await;
    party.validate(&token).await.unwrap();
}

#[tokio::test]
async fn a_token_that_was_never_logged_is_missing_or_forged() {
    let mut publisher = Publisher::start().await;
    let found = Found::default();
    let told = Arc::clone(&found);
    let party = builder(&publisher)
        .log(LogPolicy::Require)
        .on_finding(move |finding| told.lock().unwrap().push(finding.clone()))
        .build()
        .unwrap();
    let key = publisher.keys.last().unwrap();
    let missing = publisher.token_at(key, 1_000, now() - 30);
    let forged = publisher.token();
    publisher.log.fill(1);
    publisher.publish_log();
    assert_eq!(code(party.validate(&missing).await), RejectionCode::LogMissing);
    assert_eq!(code(party.validate(&forged).await), RejectionCode::LogForged);
    until("the findings", async || found.lock().unwrap().len() == 2).await;
    let found = found.lock().unwrap();
    assert_eq!(found[0].verdict, Verdict::Missing);
    // The proof that comes with it convinces a stranger.
    let Verdict::Forged { found: leaf, vkey, proof, .. } = &found[1].verdict else {
        panic!("{found:?}");
    };
    let key = chancery_tlog::note::VerifierKey::parse(vkey).unwrap();
    assert_eq!(proof.verify(leaf, &[key]).map(|_| ()), Ok(()));
}

#[tokio::test]
async fn a_log_that_fails_is_unknown_until_it_is_back() {
    let mut publisher = Publisher::start().await;
    let token = publisher.logged_token();
    publisher.log.fill(300);
    publisher.publish_log();
    let party = requiring(&publisher).await;
    let faults = [
        ("checkpoint", Fault::Status(500)),
        ("vkey", Fault::Status(404)),
        ("tile/0/000", Fault::Endless),
        ("tile/0/000", Fault::Bytes(vec![0; 8_192])),
        ("tile/0/000", Fault::Bytes(vec![0; 100])),
        ("checkpoint", Fault::Bytes(b"nonsense".to_vec())),
    ];
    for (object, fault) in faults {
        let path = publisher.log_path(object);
        publisher.fail(&path, fault.clone());
        let rejection = party.validate(&token).await.unwrap_err();
        assert_eq!(rejection.code(), RejectionCode::LogUnknown, "{object} {fault:?}");
        assert!(rejection.retryable());
        // Failures are remembered for a moment: an outage is not made worse.
        let before = publisher.count_of("/log/");
        for _ in 0..50 {
            assert_eq!(code(party.validate(&token).await), RejectionCode::LogUnknown);
        }
        let asked = publisher.count_of("/log/") - before;
        assert!(asked < 20, "{object} {fault:?}: {asked} requests for 50 tokens");
        publisher.heal(&path);
        sleep_ms(120).await;
    }
    // Lies are not kept either: the same token is found as soon as the log is back.
    until("the log is back", async || party.validate(&token).await.is_ok()).await;
}

#[tokio::test]
async fn a_partial_tile_that_is_gone_is_read_from_the_full_one() {
    let mut publisher = Publisher::start().await;
    let token = publisher.logged_token();
    publisher.publish_log();
    let size = publisher.log.len();
    let checkpoint = publisher.get(&publisher.log_path("checkpoint"));
    publisher.log.fill(300);
    publisher.publish_log();
    publisher.put(&publisher.log_path("checkpoint"), checkpoint);
    publisher.remove(&publisher.log_path(&format!("tile/0/000.p/{size}")));
    requiring(&publisher).await.validate(&token).await.unwrap();
}

#[tokio::test]
async fn a_log_in_a_folder_or_at_a_given_place_is_read() {
    let mut publisher = Publisher::start().await;
    let token = publisher.logged_token();
    publisher.publish_log();
    let folder = std::env::temp_dir().join(format!("relying-party-{}", std::process::id()));
    for object in ["vkey", "checkpoint", "tile/0/000.p/2"] {
        let file = folder.join(object);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, publisher.get(&publisher.log_path(object))).unwrap();
    }
    let jwks = publisher.get(Publisher::KEYS);
    let places = [
        folder.display().to_string(),
        format!("{}/log/{}", publisher.url, publisher.log.id),
        format!("{}/log/{{log}}/", publisher.url),
    ];
    for place in places {
        let party = builder(&publisher)
            .jwks(&publisher.issuer, &jwks)
            .log(LogPolicy::Require)
            .log_at(&place)
            .build()
            .unwrap();
        let accepted = party.validate(&token).await;
        assert!(accepted.is_ok(), "{place}: {accepted:?}");
    }
    let party = builder(&publisher).jwks(&publisher.issuer, &jwks).log(LogPolicy::Require);
    let error = party.build().unwrap_err().to_string();
    assert!(error.contains("name their place (`log_at`)"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn reports_never_wait_and_never_reject() {
    let mut publisher = Publisher::start().await;
    publisher.fail(&publisher.log_path("checkpoint"), Fault::Silent);
    let (party, found) = reporting(&publisher, quick()).await;
    let token = publisher.logged_token();
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(party.validate(&token).await.unwrap().log, None);
        assert!(matches!(party.judge(&token), Judgement::Decided(Ok(_))));
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    until("the finding", async || !found.lock().unwrap().is_empty()).await;
    sleep_ms(100).await;
    let found = found.lock().unwrap();
    assert_eq!(found.len(), 1, "a token is looked up once");
    assert!(matches!(found[0].verdict, Verdict::Unknown { .. }), "{found:?}");
}

#[tokio::test]
async fn a_pending_token_is_looked_at_again() {
    let mut publisher = Publisher::start().await;
    let bounds = Bounds { publish_within_s: 3, ..quick() };
    let (party, found) = reporting(&publisher, bounds).await;
    let logged = publisher.logged_token();
    let stolen = publisher.token_at(publisher.keys.last().unwrap(), 700, now());
    party.validate(&logged).await.unwrap();
    party.validate(&stolen).await.unwrap();
    sleep_ms(300).await;
    assert!(found.lock().unwrap().is_empty(), "both are pending");
    publisher.publish_log();
    until("the finding", async || !found.lock().unwrap().is_empty()).await;
    until("the lookup", async || party.validate(&logged).await.unwrap().log.is_some()).await;
    let found = found.lock().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].verdict, Verdict::Missing);
    assert_eq!(found[0].token.log_address().unwrap().index(), 700);
}

#[tokio::test]
async fn lookups_and_findings_that_are_too_many_are_counted() {
    let publisher = Publisher::start().await;
    publisher.fail(&publisher.log_path("checkpoint"), Fault::Silent);
    let (party, _) = reporting(&publisher, Bounds { reports: 2, ..quick() }).await;
    for index in 0..5 {
        let token = publisher.token_at(publisher.keys.last().unwrap(), index, now());
        party.validate(&token).await.unwrap();
    }
    assert_eq!(party.status().logs.dropped_lookups, 3);

    // A callback that panics harms nobody.
    publisher.heal(&publisher.log_path("checkpoint"));
    let party = builder(&publisher)
        .log(LogPolicy::Report)
        .on_finding(|_| panic!("a callback of the test"))
        .build()
        .unwrap();
    let stolen = publisher.token_at(publisher.keys.last().unwrap(), 700, now() - 60);
    party.validate(&stolen).await.unwrap();
    until("the count", async || party.status().logs.dropped_findings == 1).await;
    party.validate(&stolen).await.unwrap();
}

#[tokio::test]
async fn an_explanation_ends_with_the_log() {
    let mut publisher = Publisher::start().await;
    let token = publisher.logged_token();
    let forged = publisher.token();
    publisher.log.fill(1);
    publisher.publish_log();
    for policy in [LogPolicy::Report, LogPolicy::Require] {
        let party = builder(&publisher).log(policy).build().unwrap();
        let explained = party.explain(&token).await;
        let last = explained.steps.last().unwrap();
        assert_eq!((last.name, last.passed), ("log", true));
        assert_eq!(last.value, "in log at index 1");
        assert_eq!(explained.verdict.unwrap().log, Some(Verdict::InLog { index: 1 }));
        let explained = party.explain(&forged).await;
        let last = explained.steps.last().unwrap();
        assert_eq!((last.name, last.passed), ("log", false));
        assert!(last.value.contains("FORGED"), "{}", last.value);
        assert_eq!(explained.verdict.is_ok(), policy == LogPolicy::Report);
    }
}
