//! The async front of the validation against the real service: rotation, compromise, outage, logs,
//! trust anchor.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use chancery_relying_party::{
    Accepted, Anchor, Bounds, Builder, Judgement, KeyState, LogPolicy, Rejection, RejectionCode,
    RelyingParty, ValidatorConfig, Verdict,
};
use chancery_testkit::{ClientText, Lab, RealmText, TestClient, grant};
use chancery_token::Algorithm;
use serde_json::json;
use tokio::runtime::Runtime;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";
/// Rotation as fast as the service allows; the key set's `max-age` is 2 s.
const FAST: &str = "rotate_every_s = 2\npublish_lead_s = 4\nmax_lifetime_s = 6\nskew_s = 1";
/// A key for an hour, whose set has a `max-age` of 2 s.
const STEADY: &str = "rotate_every_s = 3600\npublish_lead_s = 4\nmax_lifetime_s = 600\nskew_s = 1";

/// A service, a client of its, and the runtime on which relying parties live.
struct Stage {
    lab: Lab,
    client: TestClient,
    runtime: Runtime,
}

impl Stage {
    fn new(schedule: &str) -> Self {
        let mut lab = Lab::new(CHANCERY);
        let client = TestClient::new("c", Algorithm::Es256);
        let clients = vec![ClientText::new(&client, "", &[grant("api", &[AUDIENCE], "")])];
        let realm = RealmText { name: "r", algorithms: &["ES256"], schedule, clients };
        lab.configure("", &[realm]);
        lab.start();
        Self { lab, client, runtime: Runtime::new().unwrap() }
    }

    fn token(&self) -> String {
        self.lab.token(&self.client, "r", AUDIENCE)
    }

    fn builder(&self) -> Builder {
        let config = ValidatorConfig::new(self.lab.issuer("r"), AUDIENCE);
        RelyingParty::builder(config).runtime(self.runtime.handle().clone())
    }

    fn party(&self, bounds: Bounds) -> RelyingParty {
        let party = self.builder().bounds(bounds).build().unwrap();
        // A machine that stalls may miss the first fetch; the next one comes by itself.
        let begun = Instant::now();
        while let Err(rejection) = self.wait(party.ready()) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{rejection}\n{}", self.lab.log());
            eprintln!("not ready after {:?}: {rejection}", begun.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        party
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn validate(&self, party: &RelyingParty, token: &str) -> Result<Accepted, Rejection> {
        self.wait(party.validate(token))
    }

    /// The anchor that names the log of the attached signer, by its first key.
    fn log_key(&self) -> String {
        let url = format!("{}/log/{}/vkey", self.lab.url(), self.lab.log_id());
        let both = self.lab.web.get(&url).text();
        both.lines().next().unwrap_or_default().to_owned()
    }
}

fn brisk() -> Bounds {
    Bounds {
        min_age: Duration::from_secs(1),
        cool_down: Duration::from_secs(1),
        ..Bounds::default()
    }
}

#[test]
fn rotation_every_two_seconds_rejects_no_token() {
    let stage = Stage::new(FAST);
    let parties = [stage.party(Bounds::default()), stage.party(brisk())];
    let mut kids = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(24);
    while Instant::now() < end {
        let token = stage.token();
        for party in &parties {
            let accepted = stage.validate(party, &token);
            let accepted = accepted.unwrap_or_else(|e| panic!("{e}\n{:?}", party.status()));
            kids.insert(accepted.token.kid().to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(kids.len() >= 9, "{} keys", kids.len());
    for party in &parties {
        let status = party.status();
        let fetches = status.issuers.first().unwrap().fetches;
        assert!(fetches <= 26, "{fetches} fetches in 24 s");
    }
}

#[test]
fn a_compromised_key_is_distrusted_within_the_stated_time() {
    let stage = Stage::new(STEADY);
    let party = stage.builder().cache(1_000).build().unwrap();
    let stolen = stage.token();
    let kid = stage.validate(&party, &stolen).unwrap().token.kid().to_owned();
    let done = stage.lab.run(&["keys", "compromise", &kid, "--reason", "a drill"]);
    assert!(done.status.success(), "{done:?}");
    let taken_back = Instant::now();
    let stated = party.status().issuers.first().unwrap().distrusts_within_ms.unwrap();
    assert_eq!(stated, 15_000);
    while let Judgement::Decided(Ok(_)) = party.judge(&stolen) {
        assert!(taken_back.elapsed() <= Duration::from_millis(stated), "still accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("distrusted after {:?}; stated are {stated} ms", taken_back.elapsed());
    let rejection = stage.validate(&party, &stolen).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::UnknownKey);
    stage.validate(&party, &stage.token()).unwrap();
}

#[test]
fn the_last_good_set_bridges_an_outage_and_no_longer() {
    let mut stage = Stage::new(STEADY);
    let bounds = Bounds { keep: Duration::from_secs(4), ..brisk() };
    let party = stage.party(bounds);
    let token = stage.token();
    stage.lab.kill_service();
    let down = Instant::now();
    while stage.validate(&party, &token).is_ok() {
        assert!(down.elapsed() < Duration::from_secs(20), "accepted for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Fresh for 2 s, kept for 4 s more, counted from the last fetch.
    let bridged = down.elapsed();
    assert!((4_000..=6_500).contains(&bridged.as_millis()), "{bridged:?}");
    let rejection = stage.validate(&party, &token).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeysUnavailable);
    assert!(rejection.retryable());
    assert_eq!(party.status().issuers.first().unwrap().state, KeyState::Expired);
    stage.lab.start();
    let back = Instant::now();
    while let Err(rejection) = stage.validate(&party, &token) {
        assert_eq!(rejection.code(), RejectionCode::KeysUnavailable);
        assert!(back.elapsed() < Duration::from_secs(10), "{rejection}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_keys_of_a_successor_are_found_by_their_first_token() {
    let mut stage = Stage::new("");
    let party = stage.party(brisk());
    let before = stage.token();
    stage.validate(&party, &before).unwrap();
    let before_fetches = party.status().issuers.first().unwrap().fetches;
    stage.lab.kill_service();
    stage.lab.kill_signer();
    stage.lab.start();
    std::thread::sleep(Duration::from_secs(1));
    stage.validate(&party, &stage.token()).unwrap();
    stage.validate(&party, &before).unwrap();
    let fetches = party.status().issuers.first().unwrap().fetches;
    assert_eq!(fetches, before_fetches + 1);
}

#[test]
fn fresh_tokens_are_found_in_their_log_with_few_requests() {
    let stage = Stage::new("");
    let party = stage.builder().log(LogPolicy::Require).build().unwrap();
    let begun = Instant::now();
    let mut tokens = Vec::new();
    for _ in 0..8 {
        let wanted = vec![json!({"aud": AUDIENCE}); 32];
        let answer = stage.lab.issue(&stage.client, "r", wanted).json();
        let issued = answer.get("tokens").and_then(|t| t.as_array()).unwrap().clone();
        tokens.extend(issued.iter().filter_map(|token| {
            token.get("access_token").and_then(|text| text.as_str()).map(str::to_owned)
        }));
    }
    assert_eq!(tokens.len(), 256);
    for token in &tokens {
        loop {
            match stage.validate(&party, token) {
                Ok(accepted) => {
                    assert!(matches!(accepted.log, Some(Verdict::InLog { .. })));
                    break;
                }
                Err(rejection) => {
                    assert_eq!(rejection.code(), RejectionCode::LogPending, "{rejection}");
                    assert!(begun.elapsed() < Duration::from_secs(20), "{rejection}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
    // A checkpoint a second, with its partial tiles, and one verifier key.
    let requests = party.status().logs.requests;
    let most = 5 * (begun.elapsed().as_secs() + 2) + 1;
    assert!(requests <= most, "{requests} requests for 256 tokens in {:?}", begun.elapsed());
    let again = party.status().logs.requests;
    for token in &tokens {
        assert!(matches!(party.judge(token), Judgement::Decided(Ok(_))));
    }
    assert_eq!(party.status().logs.requests, again);
}

#[test]
fn an_explanation_against_the_service_has_every_step() {
    let stage = Stage::new("");
    let party = stage.builder().log(LogPolicy::Report).build().unwrap();
    let token = stage.token();
    std::thread::sleep(Duration::from_secs(2));
    let explained = stage.wait(party.explain(&token));
    let names: Vec<&str> = explained.steps.iter().map(|step| step.name).collect();
    assert_eq!(names.first(), Some(&"form"));
    assert_eq!(names.last(), Some(&"log"));
    assert!(explained.steps.iter().all(|step| step.passed), "{:?}", explained.steps);
    assert!(explained.verdict.is_ok());
}

#[test]
fn an_anchor_takes_announced_keys_and_no_restarted_signer_unpinned() {
    let mut stage = Stage::new(STEADY);
    let first = stage.log_key();
    let anchored = |stage: &Stage, text: &str| {
        let anchor = Anchor::parse(text).unwrap();
        stage.builder().bounds(brisk()).anchor(anchor).build().unwrap()
    };
    let party = anchored(&stage, &first);
    let token = stage.token();
    stage.validate(&party, &token).unwrap();
    let directory = stage.lab.web.get(&format!("{}/directory/vkey", stage.lab.url())).text();
    let by_directory = anchored(&stage, &format!("directory {directory}"));
    stage.validate(&by_directory, &token).unwrap();

    stage.lab.kill_service();
    stage.lab.kill_signer();
    stage.lab.start();
    let successors = stage.token();
    std::thread::sleep(Duration::from_secs(3));
    let rejection = stage.validate(&party, &successors).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeyNotAnnounced, "{rejection}");
    // The dead signer's keys live on in the log that it left.
    stage.validate(&party, &token).unwrap();
    // Who pinned the directory needs to do nothing.
    stage.validate(&by_directory, &successors).unwrap();
    stage.validate(&by_directory, &token).unwrap();

    let both = format!("# before the restart\n{first}\n# after it\n{}", stage.log_key());
    let party = anchored(&stage, &both);
    stage.validate(&party, &successors).unwrap();
    stage.validate(&party, &token).unwrap();

    let stranger = Stage::new("");
    let party = anchored(&stage, &stranger.log_key());
    let rejection = stage.validate(&party, &successors).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeyNotAnnounced);
    let url = format!("{}/directory/vkey", stranger.lab.url());
    let theirs = stranger.lab.web.get(&url).text();
    let party = anchored(&stage, &format!("directory {theirs}"));
    let rejection = stage.validate(&party, &successors).unwrap_err();
    assert_eq!(rejection.code(), RejectionCode::KeyNotAnnounced, "{rejection}");
}

#[test]
fn with_an_anchor_a_compromise_is_distrusted_in_time_too() {
    let stage = Stage::new(STEADY);
    let anchor = Anchor::parse(&stage.log_key()).unwrap();
    let party = stage.builder().bounds(brisk()).anchor(anchor).build().unwrap();
    let stolen = stage.token();
    let kid = stage.validate(&party, &stolen).unwrap().token.kid().to_owned();
    let done = stage.lab.run(&["keys", "compromise", &kid, "--reason", "a drill"]);
    assert!(done.status.success(), "{done:?}");
    let taken_back = Instant::now();
    while stage.validate(&party, &stolen).is_ok() {
        assert!(taken_back.elapsed() <= Duration::from_secs(12), "still accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let fresh = stage.token();
    let begun = Instant::now();
    while let Err(rejection) = stage.validate(&party, &fresh) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{rejection}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
