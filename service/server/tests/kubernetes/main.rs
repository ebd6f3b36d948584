//! The socket for kube-apiserver against the real service and signer.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail where they are wrong")]
#![expect(clippy::indexing_slicing, reason = "JSON members that must be there")]

mod peer;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chancery::kubernetes::api::Key;
use chancery_testkit::{Lab, RealmText, now, wait_until};
use chancery_token::client::ClientKey;
use chancery_token::{Algorithm, PublicKey, b64};
use peer::{ApiServer, Channel, KeyCache};
use rustix::process::{Signal, getuid, kill_process};
use serde_json::{Value, json};
use tonic::Code;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const STEADY: &str = "publish_lead_s = 8\nmax_lifetime_s = 3600\nskew_s = 1";
/// As fast as tokens of ten minutes let a realm rotate.
const FAST: &str = "rotate_every_s = 10\npublish_lead_s = 4\nmax_lifetime_s = 600\nskew_s = 0";

/// A service for a cluster, and the cluster's API server.
struct Stage {
    lab: Lab,
    api: ApiServer,
    socket: PathBuf,
}

impl Stage {
    fn prepared(schedule: &str, settings: &str, terms: &str) -> Self {
        let mut lab = Lab::new(CHANCERY);
        let socket = lab.folder().join("kubernetes.sock");
        let api = ApiServer::new(&socket, &lab.issuer("cluster"));
        configure(&mut lab, schedule, settings, terms);
        Self { lab, api, socket }
    }

    fn started(schedule: &str, settings: &str, terms: &str) -> Self {
        let mut stage = Self::prepared(schedule, settings, terms);
        stage.lab.start();
        stage
    }

    fn token(&self, jti: &str) -> String {
        let claims = b64::encode(self.api.claims(jti).to_string().as_bytes());
        self.api.sign(&claims).unwrap_or_else(|e| panic!("{e}\n{}", self.lab.log()))
    }

    fn cache(&self) -> KeyCache {
        let mut cache = KeyCache::default();
        cache.take(self.api.fetch_keys().unwrap()).unwrap();
        cache
    }

    fn metrics(&self) -> String {
        self.lab.web.get(&format!("{}/metrics", self.lab.admin_url())).text()
    }

    fn key_set(&self) -> Value {
        self.lab.web.get(&format!("{}/cluster/jwks.json", self.lab.url())).json()
    }
}

fn configure(lab: &mut Lab, schedule: &str, settings: &str, terms: &str) {
    let socket = lab.folder().join("kubernetes.sock");
    let top = format!(
        "[kubernetes]\nrealm = \"cluster\"\nsocket = \"{}\"\n{settings}\n",
        socket.display()
    );
    let issuer = lab.issuer("cluster");
    let schedule = format!(
        "{schedule}\n[realms.kubernetes]\naudiences = [\"{issuer}\", \"vault\"]\n\
         service_accounts = [\"default:*\"]\n{terms}\n"
    );
    let realm = RealmText {
        name: "cluster",
        algorithms: &["ES256"],
        schedule: &schedule,
        clients: Vec::new(),
    };
    lab.configure(&top, &[realm]);
}

#[test]
fn an_api_server_gets_tokens_that_it_accepts() {
    let mut stage = Stage::started(STEADY, "socket_mode = 0o620", "");
    assert_eq!(stage.api.metadata().unwrap().max_token_expiration_seconds, 3_600);
    let keys = stage.api.fetch_keys().unwrap();
    assert_eq!(keys.refresh_hint_seconds, 2, "a quarter of the lead");
    assert_eq!(stage.api.fetch_keys().unwrap(), keys, "nothing changed, the time included");
    let cache = stage.cache();
    let token = stage.token("one");
    let kid = cache.accept(&token).unwrap();
    // Everybody else finds the key in the key set.
    assert_eq!(stage.key_set()["keys"][0]["kid"], kid.as_str());
    assert_eq!(stage.lab.check_logs(), 1);
    let discovery = format!("{}/cluster/.well-known/openid-configuration", stage.lab.url());
    let discovery = stage.lab.web.get(&discovery).json();
    assert_eq!(discovery.get("token_endpoint"), None, "no client asks here");
    let metrics = stage.metrics();
    for line in [
        "chancery_kubernetes_requests_total{method=\"Sign\",code=\"OK\"} 1",
        "chancery_kubernetes_requests_total{method=\"FetchKeys\",code=\"OK\"} 3",
        "chancery_kubernetes_requests_total{method=\"Metadata\",code=\"OK\"} 1",
        "chancery_kubernetes_sign_seconds_count 1",
        "chancery_kubernetes_listening 1",
        "chancery_tokens_released_total{realm=\"cluster\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let fetched = metrics.lines().find_map(|line| {
        line.strip_prefix("chancery_kubernetes_last_fetch_timestamp_seconds ")?.parse::<u64>().ok()
    });
    assert!(fetched.unwrap().abs_diff(now()) < 60);
    let mode = std::fs::metadata(&stage.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    assert_eq!(stage.lab.stop().code, Some(0));
    assert!(!stage.socket.exists(), "an orderly end takes the socket away");
}

/// What makes claims bad.
type Change = fn(&mut Value);

#[test]
fn refusals_say_what_is_wrong() {
    let stage = Stage::started(STEADY, "", "required_claims = [\"kubernetes.io/pod\"]");
    let with = |change: Change| {
        let mut claims = stage.api.claims("x");
        change(&mut claims);
        stage.api.refused(&claims)
    };
    let cases: &[(Change, Code, &str)] = &[
        (|c| c["iss"] = json!("https://other"), Code::PermissionDenied, "wrong_issuer"),
        (|c| c["aud"] = json!(["other"]), Code::PermissionDenied, "audience_not_granted"),
        (|c| c["exp"] = json!(now() + 9_999), Code::PermissionDenied, "lifetime_not_granted"),
        (|c| c["email"] = json!("a@b"), Code::PermissionDenied, "claim_not_granted"),
        (
            |c| drop(c["kubernetes.io"].as_object_mut().unwrap().remove("pod")),
            Code::PermissionDenied,
            "claim_required",
        ),
        (
            |c| {
                c["sub"] = json!("system:serviceaccount:kube-system:web");
                c["kubernetes.io"]["namespace"] = json!("kube-system");
            },
            Code::PermissionDenied,
            "subject_not_granted",
        ),
        (|c| c["iat"] = json!(now() - 60), Code::InvalidArgument, "iat_not_now"),
        (|c| c["sub"] = json!("root"), Code::InvalidArgument, "malformed_request"),
    ];
    for (change, code, reason) in cases {
        let (found, text) = with(*change);
        assert_eq!(found, *code, "{text}");
        assert!(text.starts_with(reason), "{text}");
    }
    for claims in ["", "e30=", "e30.e30", "not base64url", &"A".repeat(8_193)] {
        assert_eq!(stage.api.sign(claims).unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(stage.api.sign(&"A".repeat(20_000)).is_err(), "more than a request may have");
    let claims = b64::encode(stage.api.claims("still well").to_string().as_bytes());
    stage.api.sign(&claims).unwrap();
    let unknown = stage.api.call::<(), ()>("/v1.ExternalJWTSigner/Delete", ());
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    // Neither OAuth endpoint signs in this realm.
    let url = format!("{}/cluster/issue", stage.lab.url());
    let answer = stage.lab.web.send("POST", &url, &[("content-type", "application/jwt")], b"x.y.z");
    assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("wrong_realm_kind")));
}

#[test]
fn a_stranger_on_the_same_machine_is_sent_away() {
    let other = getuid().as_raw() + 1;
    let stage = Stage::started(STEADY, &format!("allowed_uids = [{other}]"), "");
    for _ in 0..3 {
        assert!(stage.api.fetch_keys().is_err());
    }
    let metrics = stage.metrics();
    let refused = "chancery_kubernetes_peers_refused_total ";
    let refused = metrics.lines().find_map(|l| l.strip_prefix(refused)?.parse::<u64>().ok());
    assert!(refused.unwrap() >= 3, "{metrics}");
    assert_eq!(stage.lab.log().matches("may not connect").count(), 1, "said once");
}

#[test]
fn a_hung_signer_costs_seconds_and_not_half_a_minute() {
    let stage = Stage::started(STEADY, "answer_within_ms = 500", "");
    let cache = stage.cache();
    let early = stage.token("before");
    let signer = stage.lab.signer_pid().unwrap();
    kill_process(signer, Signal::STOP).unwrap();
    let begun = Instant::now();
    let claims = b64::encode(stage.api.claims("hung").to_string().as_bytes());
    let status = stage.api.sign(&claims).unwrap_err();
    let took = begun.elapsed();
    // Nor do a thousand callers at once wait for one another.
    let begun = Instant::now();
    let crowd = crowd(&stage, 1_000);
    let crowded = begun.elapsed();
    kill_process(signer, Signal::CONT).unwrap();
    assert!(crowd.iter().all(|code| *code == Code::Unavailable), "{crowd:?}");
    assert!(crowded < Duration::from_secs(10), "{crowded:?}");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("500 ms"), "{status}");
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    cache.accept(&early).unwrap();
    wait_until("a token after the signer is back", Duration::from_secs(20), || {
        let claims = b64::encode(stage.api.claims("after").to_string().as_bytes());
        stage.api.sign(&claims).is_ok_and(|token| cache.accept(&token).is_ok())
    });
    let unavailable = "{method=\"Sign\",code=\"UNAVAILABLE\"}";
    assert!(stage.metrics().contains(unavailable), "the socket's health shows it");
}

#[test]
fn a_service_without_a_signer_says_so_and_never_lists_no_keys() {
    let mut stage = Stage::prepared(STEADY, "answer_within_ms = 300", "");
    let nowhere = format!("unix:{}", stage.lab.folder().join("nobody.sock").display());
    stage.lab.set_arguments(&["--signer", &nowhere]);
    stage.lab.spawn();
    let socket = stage.socket.clone();
    wait_until("the socket", Duration::from_secs(20), || socket.exists());
    assert_eq!(stage.api.fetch_keys().unwrap_err().code(), Code::Unavailable);
    assert_eq!(stage.api.metadata().unwrap().max_token_expiration_seconds, 3_600);
    let claims = b64::encode(stage.api.claims("x").to_string().as_bytes());
    assert_eq!(stage.api.sign(&claims).unwrap_err().code(), Code::Unavailable);
}

#[test]
fn a_socket_that_a_killed_service_left_behind_is_replaced() {
    let mut stage = Stage::started(STEADY, "", "");
    let cache = stage.cache();
    let before = stage.token("before");
    stage.lab.kill_service();
    assert!(stage.socket.exists());
    stage.lab.start();
    // The signer lived on: so did its key, and the API server need not ask again.
    let kid = cache.accept(&stage.token("after")).unwrap();
    assert_eq!(kid, cache.accept(&before).unwrap());
}

#[test]
fn a_dead_signers_tokens_stay_good_and_a_stolen_keys_do_not() {
    let stage = Stage::started("publish_lead_s = 8\nmax_lifetime_s = 3600", "", "");
    let before = stage.token("before");
    let old = stage.cache().accept(&before).unwrap();
    stage.lab.kill_signer();
    let mut token = None;
    wait_until("the next signer's first token", Duration::from_secs(30), || {
        let claims = b64::encode(stage.api.claims("after").to_string().as_bytes());
        token = stage.api.sign(&claims).ok();
        token.is_some()
    });
    // An unknown `kid` makes an API server fetch at once: both keys are there then.
    let cache = stage.cache();
    let new = cache.accept(&token.unwrap()).unwrap();
    assert_ne!(new, old);
    cache.accept(&before).unwrap();
    let answer = stage.lab.run(&["keys", "compromise", &new, "--reason", "a drill"]);
    assert!(answer.status.success(), "{answer:?}");
    let last = stage.token("last");
    let cache = stage.cache();
    assert!(!cache.kids().contains(&new.as_str()));
    assert_ne!(cache.accept(&last).unwrap(), new);
    assert_eq!(stage.lab.check_logs(), 2);
}

#[test]
fn rsa_and_p384_keys_sign_as_well() {
    for algorithm in ["RS256", "ES384"] {
        let mut stage = Stage::prepared(STEADY, "answer_within_ms = 15000", "");
        let text = std::fs::read_to_string(stage.lab.config_file()).unwrap();
        stage.lab.write_config(&text.replace("[\"ES256\"]", &format!("[\"{algorithm}\"]")));
        stage.lab.start();
        stage.cache().accept(&stage.token("x")).unwrap();
    }
}

#[test]
fn rotation_under_load_refuses_no_token() {
    rotate_under_load(FAST, Duration::from_secs(33), 3);
}

#[test]
#[ignore = "takes three minutes"]
fn rotation_every_fifteen_seconds_for_minutes() {
    let schedule = FAST.replace("rotate_every_s = 10", "rotate_every_s = 15");
    rotate_under_load(&schedule, Duration::from_secs(180), 12);
}

fn rotate_under_load(schedule: &str, lasting: Duration, least_keys: usize) {
    let stage = Stage::started(schedule, "", "");
    let mut kids = BTreeSet::new();
    let mut number = 0_u64;
    let mut stamps = BTreeSet::new();
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        // An API server asks again after the hint, and not before.
        let keys = stage.api.fetch_keys().unwrap();
        let fresh = Duration::from_secs(u64::try_from(keys.refresh_hint_seconds).unwrap());
        stamps.insert(keys.data_timestamp.unwrap());
        let mut cache = KeyCache::default();
        cache.take(keys).unwrap();
        let fetched = Instant::now();
        while fetched.elapsed() < fresh {
            let tokens = burst(&stage, number);
            number += 16;
            for token in tokens {
                let accepted = cache.accept(&token);
                kids.insert(accepted.unwrap_or_else(|e| panic!("{e}\n{}", stage.lab.log())));
            }
        }
    }
    assert!(kids.len() >= least_keys, "{} keys", kids.len());
    assert!(stamps.len() >= kids.len(), "each new key is a change");
    assert_eq!(stage.lab.check_logs(), 1);
    assert!(
        !stage.metrics().contains("chancery_kubernetes_requests_total{method=\"Sign\",code=\"U")
    );
}

/// What so many calls at once over one connection are answered.
fn crowd(stage: &Stage, calls: usize) -> Vec<Code> {
    stage.api.runtime.block_on(async {
        let channel = Channel::open(&stage.socket).await.unwrap();
        let claims = b64::encode(peer::claims(&stage.api.issuer, "crowd").to_string().as_bytes());
        let call = |_| {
            let (channel, claims) = (channel.clone(), claims.clone());
            tokio::spawn(async move {
                channel.sign(&claims).await.err().map_or(Code::Ok, |status| status.code())
            })
        };
        let mut codes = Vec::new();
        for call in (0..calls).map(call).collect::<Vec<_>>() {
            codes.push(call.await.unwrap());
        }
        codes
    })
}

/// Sixteen tokens at once over one connection.
fn burst(stage: &Stage, from: u64) -> Vec<String> {
    stage.api.runtime.block_on(async {
        let channel = Channel::open(&stage.socket).await.unwrap();
        let mut calls = Vec::new();
        for number in from..from + 16 {
            let claims = peer::claims(&stage.api.issuer, &format!("jti-{number}"));
            let claims = b64::encode(claims.to_string().as_bytes());
            let channel = channel.clone();
            calls.push(tokio::spawn(async move {
                let answer = channel.sign(&claims).await.unwrap();
                format!("{}.{claims}.{}", answer.header, answer.signature)
            }));
        }
        let mut tokens = Vec::new();
        for call in calls {
            tokens.push(call.await.unwrap());
        }
        tokens
    })
}

#[test]
fn imported_keys_are_listed_as_they_are_said_to_be() {
    let key = || {
        let jwk = ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().jwk();
        format!("{{ kty = \"EC\", crv = \"P-256\", x = {}, y = {} }}", jwk["x"], jwk["y"])
    };
    let import = |kid: &str, jwk: &str, until: u64, in_discovery: bool| {
        format!(
            "[[realms.kubernetes.imported]]\nkid = \"{kid}\"\nuntil = {until}\n\
             in_discovery = {in_discovery}\njwk = {jwk}\n"
        )
    };
    let soon = now() + 20;
    let (hidden, listed) = (key(), key());
    let both =
        import("hidden", &hidden, now() + 3_600, false) + &import("listed", &listed, soon, true);
    let mut stage = Stage::started(STEADY, "", &both);
    let flags = |keys: &[Key]| -> Vec<(String, bool)> {
        let named = keys.iter().filter(|k| k.key_id == "hidden" || k.key_id == "listed");
        named.map(|k| (k.key_id.clone(), k.exclude_from_oidc_discovery)).collect()
    };
    let first = stage.api.fetch_keys().unwrap();
    assert_eq!(first.keys.len(), 3);
    assert_eq!(flags(&first.keys), [("listed".into(), false), ("hidden".into(), true)]);
    let in_discovery = |stage: &Stage| -> BTreeSet<String> {
        let set = stage.key_set();
        let kids = set["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap());
        kids.map(str::to_owned).collect()
    };
    assert!(in_discovery(&stage).contains("listed") && !in_discovery(&stage).contains("hidden"));
    stage.cache().accept(&stage.token("own")).unwrap();
    wait_until("the listed key has left", Duration::from_secs(60), || {
        stage.api.fetch_keys().unwrap().keys.len() == 2
    });
    assert!(now() >= soon);
    let second = stage.api.fetch_keys().unwrap();
    assert!(second.data_timestamp > first.data_timestamp);
    // Taken back by a reload.
    configure(&mut stage.lab, STEADY, "", "");
    assert!(stage.lab.run(&["reload"]).status.success());
    let third = stage.api.fetch_keys().unwrap();
    assert_eq!(third.keys.len(), 1);
    assert!(third.data_timestamp > second.data_timestamp);
    // The signer's own key is not taken for somebody else's.
    let own = stage.key_set()["keys"][0].clone();
    let own = format!("{{ kty = \"EC\", crv = \"P-256\", x = {}, y = {} }}", own["x"], own["y"]);
    configure(&mut stage.lab, STEADY, "", &import("mine", &own, now() + 60, true));
    let refused = stage.lab.run(&["reload"]);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("a signer of this deployment"),
        "{refused:?}"
    );
    assert_eq!(stage.lab.check_logs(), 1);
}

#[test]
fn an_imported_key_that_was_stolen_is_believed_no_longer() {
    let jwk = || ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().clone();
    let (hidden, listed) = (jwk(), jwk());
    let import = |kid: &str, key: &PublicKey, in_discovery: bool| {
        let jwk = key.jwk();
        format!(
            "[[realms.kubernetes.imported]]\nkid = \"{kid}\"\nuntil = {}\n\
             in_discovery = {in_discovery}\n\
             jwk = {{ kty = \"EC\", crv = \"P-256\", x = {}, y = {} }}\n",
            now() + 3_600,
            jwk["x"],
            jwk["y"]
        )
    };
    // The `kid` that the API server gave a key of its own looks like a thumbprint.
    let looks_like_one = "K9G7DESol8MKeqCZHN442AYv5EHeUNoPRoJTRPYC6Cc";
    let both = import(looks_like_one, &hidden, false) + &import("listed", &listed, true);
    let mut stage = Stage::started(STEADY, "", &both);
    let own = stage.cache().accept(&stage.token("own")).unwrap();
    let list = || -> Value {
        serde_json::from_slice(&stage.lab.run(&["keys", "list", "--json"]).stdout).unwrap()
    };
    let states = |list: &Value| -> Vec<(String, String)> {
        let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
        let all = list["imported"].as_array().unwrap().iter();
        all.map(|key| (text(key, "kid"), text(key, "state"))).collect()
    };
    let name = |kid: &str, state: &str| (kid.to_owned(), state.to_owned());
    assert_eq!(states(&list()), [name(looks_like_one, "imported"), name("listed", "imported")]);
    // One by the name of its tokens, the other by its thumbprint.
    let thumbprint = listed.kid().to_string();
    for key in [looks_like_one, &thumbprint] {
        let answer = stage.lab.run(&["keys", "compromise", key, "--reason", "a drill"]);
        assert!(answer.status.success(), "{answer:?}");
    }
    let kids = |stage: &Stage| -> Vec<String> {
        stage.api.fetch_keys().unwrap().keys.into_iter().map(|key| key.key_id).collect()
    };
    assert_eq!(kids(&stage), std::slice::from_ref(&own));
    assert_eq!(stage.key_set()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(
        states(&list()),
        [name(looks_like_one, "compromised"), name("listed", "compromised")]
    );
    // It does not come back by a reload, nor by a restart, and the log says so.
    let changed = both.replace("\"listed\"", "\"again\"");
    configure(&mut stage.lab, STEADY, "", &changed);
    let refused = stage.lab.run(&["reload"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("declared compromised"), "{text}");
    assert_eq!(stage.lab.stop().code, Some(0));
    stage.lab.start();
    assert_eq!(kids(&stage), [own]);
    assert_eq!(stage.lab.check_logs(), 1);
}

/// Nor does it by a policy of the start, which no signer knows better than.
#[test]
fn no_key_of_a_dead_signer_comes_back_as_an_imported_one() {
    let mut stage = Stage::started(STEADY, "", "");
    stage.token("one");
    let dead = stage.key_set()["keys"][0].clone();
    let dead_kid = dead["kid"].as_str().unwrap().to_owned();
    stage.lab.kill_signer();
    wait_until("a successor", Duration::from_secs(60), || {
        let claims = b64::encode(stage.api.claims("two").to_string().as_bytes());
        let token = stage.api.sign(&claims);
        token.is_ok_and(|token| stage.cache().accept(&token).is_ok_and(|kid| kid != dead_kid))
    });
    let other = ClientKey::generate(Algorithm::Es256).unwrap().signing_key().public().jwk();
    let import = |kid: &str, jwk: &Value| {
        format!(
            "[[realms.kubernetes.imported]]\nkid = \"{kid}\"\nuntil = {}\nin_discovery = true\n\
             jwk = {{ kty = \"EC\", crv = \"P-256\", x = {}, y = {} }}\n",
            now() + 3_600,
            jwk["x"],
            jwk["y"]
        )
    };
    for terms in [import("mine", &dead), import(&dead_kid, &Value::Object(other))] {
        configure(&mut stage.lab, STEADY, "", &terms);
        let refused = stage.lab.run(&["reload"]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && text.contains("a signer of this deployment"),
            "{text}"
        );
    }
    configure(&mut stage.lab, STEADY, "", &import("mine", &dead));
    assert_eq!(stage.lab.stop().code, Some(0));
    stage.lab.start();
    assert!(stage.lab.log().contains("it is not listed"), "{}", stage.lab.log());
    let kids: Vec<String> =
        stage.api.fetch_keys().unwrap().keys.into_iter().map(|key| key.key_id).collect();
    assert!(kids.contains(&dead_kid) && !kids.contains(&"mine".to_owned()), "{kids:?}");
}

/// An API server whose clock is ahead, through several rotations: no token is refused, and each is one
/// that its relying parties accept.
#[test]
fn a_clock_that_is_ahead_costs_no_pause_at_the_end_of_a_window() {
    let schedule = "rotate_every_s = 12\npublish_lead_s = 4\nmax_lifetime_s = 600\nskew_s = 1";
    let stage = Stage::started(schedule, "answer_within_ms = 15000", "");
    let (mut kids, end) = (BTreeSet::new(), Instant::now() + Duration::from_secs(40));
    while Instant::now() < end {
        let mut claims = stage.api.claims("ahead");
        for (name, lifetime) in [("iat", 0), ("nbf", 0), ("exp", 600)] {
            claims[name] = (now() + 8 + lifetime).into();
        }
        let claims = b64::encode(claims.to_string().as_bytes());
        let token = stage.api.sign(&claims).unwrap_or_else(|e| panic!("{e}\n{}", stage.lab.log()));
        kids.insert(stage.cache().accept(&token).unwrap());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(kids.len() >= 3, "{} keys", kids.len());
    assert_eq!(stage.lab.check_logs(), 1);
}

/// What never reaches a method shows in the metrics too.
#[test]
fn requests_that_no_method_answers_are_counted() {
    use chancery::kubernetes::api::{MetadataRequest, MetadataResponse, SIGN, SignJwtRequest};
    let stage = Stage::started(STEADY, "", "");
    let none = "/v1.ExternalJWTSigner/Rotate";
    let answer: Result<MetadataResponse, _> = stage.api.call(none, MetadataRequest {});
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    let large = SignJwtRequest { claims: "A".repeat(64 * 1_024) };
    let answer: Result<MetadataResponse, _> = stage.api.call(SIGN, large);
    let code = answer.unwrap_err().code();
    assert!(matches!(code, Code::OutOfRange | Code::ResourceExhausted), "{code:?}");
    let other = MetadataResponse { max_token_expiration_seconds: 5 };
    let answer: Result<MetadataResponse, _> = stage.api.call(SIGN, other);
    assert_eq!(answer.unwrap_err().code(), Code::Internal, "no protobuf of that kind");
    let metrics = stage.metrics();
    let name = if code == Code::OutOfRange { "OUT_OF_RANGE" } else { "RESOURCE_EXHAUSTED" };
    for (method, code) in [("unknown", "UNIMPLEMENTED"), ("Sign", name), ("Sign", "INTERNAL")] {
        let line =
            format!("chancery_kubernetes_requests_total{{method=\"{method}\",code=\"{code}\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[test]
fn a_stolen_key_of_a_hung_signer_is_believed_no_longer() {
    let mut stage = Stage::started(STEADY, "", "");
    let token = stage.token("stolen");
    let mut cache = stage.cache();
    let stolen = cache.accept(&token).unwrap();
    let signer = stage.lab.signer_pid().unwrap();
    kill_process(signer, Signal::STOP).unwrap();
    // The signer does not answer, so neither does the command in time; the fact is stored first.
    let _ = stage.lab.run(&["keys", "compromise", &stolen, "--reason", "a drill"]);
    let keys = stage.api.fetch_keys().unwrap();
    assert_eq!(keys.keys.len(), 1, "an empty list would change nothing");
    assert!(keys.keys[0].exclude_from_oidc_discovery && keys.keys[0].key_id != stolen);
    assert_eq!(stage.api.fetch_keys().unwrap(), keys, "the same, and at the same time");
    cache.take(keys).unwrap();
    assert!(cache.accept(&token).is_err());
    // Nor does a restarted service, which never told anybody of keys, leave it believed.
    stage.lab.kill_service();
    stage.lab.spawn();
    let mut first = None;
    wait_until("keys", Duration::from_secs(20), || {
        first = stage.api.fetch_keys().ok();
        first.is_some()
    });
    let first = first.unwrap();
    assert!(first.keys.len() == 1 && first.keys[0].key_id != stolen, "{first:?}");
    kill_process(signer, Signal::CONT).unwrap();
    wait_until("a token under a fresh key", Duration::from_secs(40), || {
        let claims = b64::encode(stage.api.claims("after").to_string().as_bytes());
        let token = stage.api.sign(&claims);
        token.is_ok_and(|token| stage.cache().accept(&token).is_ok_and(|kid| kid != stolen))
    });
}

#[test]
fn development_mode_serves_a_cluster_on_demand() {
    let mut lab = Lab::new(CHANCERY);
    let socket = lab.folder().join("k.sock");
    lab.set_arguments(&["--kubernetes-socket", socket.to_str().unwrap()]);
    lab.start();
    let api = ApiServer::new(&socket, "https://kubernetes.default.svc.cluster.local");
    let mut cache = KeyCache::default();
    cache.take(api.fetch_keys().unwrap()).unwrap();
    assert_eq!(cache.kids().len(), 1);
    let claims = b64::encode(api.claims("dev").to_string().as_bytes());
    cache.accept(&api.sign(&claims).unwrap()).unwrap();
}

#[test]
fn a_socket_without_a_realm_for_it_is_refused_at_the_start() {
    let mut lab = Lab::new(CHANCERY);
    let text = format!(
        "base_url = \"{0}\"\n[[realms]]\nname = \"r\"\nissuer = \"{0}/r\"\nalgorithms = [\"ES256\"]\n",
        lab.url()
    );
    lab.write_config(&text);
    let socket = lab.folder().join("k.sock");
    lab.set_arguments(&["--kubernetes-socket", socket.to_str().unwrap()]);
    lab.spawn();
    assert_eq!(lab.wait_exit().code, Some(2));
    assert!(lab.log().contains("[realms.kubernetes]"), "{}", lab.log());
    assert!(!socket.exists());
}
