//! The player meets the real service and signer.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery_testkit::{Lab, RealmText, now, wait_until};
use chancery_tlog::TlogProof;
use chancery_token::{Algorithm, b64};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::player::{ApiServer, Exit, Flags, TokenRequest};
use crate::stub::{SigningKey, Stub};
use crate::{of_a_pod, request};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const STEADY: &str = "publish_lead_s = 8\nmax_lifetime_s = 7200\nskew_s = 1";

/// A cluster whose API server has not started yet.
struct Cluster {
    lab: Lab,
    socket: PathBuf,
    issuer: String,
}

impl Cluster {
    /// With a schedule, lines of `[kubernetes]`, and lines of `[realms.kubernetes]`.
    fn prepared(schedule: &str, settings: &str, terms: &str) -> Self {
        let mut lab = Lab::new(CHANCERY);
        let socket = lab.folder().join("kube.sock");
        let issuer = lab.issuer("cluster");
        configure(&mut lab, "ES256", schedule, settings, terms);
        Self { lab, socket, issuer }
    }

    fn started(schedule: &str, settings: &str, terms: &str) -> Self {
        let mut cluster = Self::prepared(schedule, settings, terms);
        cluster.lab.start();
        cluster
    }

    async fn api_server(&self) -> ApiServer {
        let started = ApiServer::start(&self.socket, Flags::new(&self.issuer)).await;
        started.unwrap_or_else(|exit| panic!("{exit:?}\n{}", self.lab.log()))
    }

    fn request(&self) -> TokenRequest {
        request(&self.issuer, 600)
    }

    /// `chancery validate` as a relying party that demands the log.
    fn validate(&self, token: &str, log: &str) -> Value {
        let jwks = format!("{}/cluster/jwks.json", self.lab.url());
        let logs = format!("{}/log/{{log}}", self.lab.url());
        let output = self.lab.run_plain(&[
            "validate",
            "--issuer",
            &self.issuer,
            "--audience",
            &self.issuer,
            "--profile",
            "oidc",
            "--jwks-uri",
            &jwks,
            "--log",
            log,
            "--log-lookup",
            "digest",
            "--log-at",
            &logs,
            "--json",
            token,
        ]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn configure(lab: &mut Lab, algorithm: &str, schedule: &str, settings: &str, terms: &str) {
    let socket = lab.folder().join("kube.sock");
    let socket = socket.display();
    let top = format!("[kubernetes]\nrealm = \"cluster\"\nsocket = \"{socket}\"\n{settings}\n");
    let issuer = lab.issuer("cluster");
    let schedule = format!(
        "{schedule}\n[realms.kubernetes]\naudiences = [\"{issuer}\", \"vault\"]\n\
         service_accounts = [\"default:*\"]\n{terms}\n"
    );
    let algorithms = [algorithm];
    let clients = Vec::new();
    let realm =
        RealmText { name: "cluster", algorithms: &algorithms, schedule: &schedule, clients };
    lab.configure(&top, &[realm]);
}

/// From the first start to a proof in the hands of somebody who trusts nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clusters_token_is_accepted_everywhere_and_proved_in_the_log() {
    let cluster = Cluster::started(STEADY, "", "");
    let server = cluster.api_server().await;
    for asked in [cluster.request(), of_a_pod(&cluster.issuer, 3_607), request("vault", 900)] {
        let minted = server.mint(&asked).await.unwrap();
        let claims = server.authenticate(&minted.token).await.unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:default:web");
        // A pod's token for the API itself is extended as far as the realm goes.
        let extended = asked.expiration_s == 3_607;
        assert_eq!(minted.expiration_s, if extended { 7_200 } else { asked.expiration_s });
        assert_eq!(claims["kubernetes.io"].get("warnafter").is_some(), extended);
    }
    let long = server.mint(&request(&cluster.issuer, 86_400)).await.unwrap();
    assert_eq!((long.expiration_s, long.warning), (7_200, true));

    // The API server's discovery document and Chancery's name the same keys.
    let jwks = cluster.lab.web.get(&format!("{}/cluster/jwks.json", cluster.lab.url())).json();
    let coordinates = |jwks: &Value| -> BTreeSet<String> {
        let keys = jwks["keys"].as_array().unwrap().iter();
        keys.map(|key| format!("{} {} {} {}", key["kid"], key["alg"], key["x"], key["y"])).collect()
    };
    assert_eq!(coordinates(&server.jwks().unwrap()), coordinates(&jwks));

    // `jti` is the API server's, so the log is asked by digest.
    let token = server.mint(&cluster.request()).await.unwrap().token;
    let proof = cluster.lab.run(&["prove", &token]);
    assert!(proof.status.success(), "{}", String::from_utf8_lossy(&proof.stderr));
    let proof = TlogProof::parse(String::from_utf8(proof.stdout).unwrap()).unwrap();
    let valid = cluster.validate(&token, "require");
    assert_eq!(valid["valid"], true, "{valid}");
    let steps = valid["steps"].as_array().unwrap();
    let log = steps.iter().find(|step| step["check"] == "log").unwrap();
    assert_eq!(log["value"], format!("in log at index {}", proof.index));
    assert_eq!(cluster.lab.check_logs(), 1);
    server.end();
}

/// A token that nobody logged, as a thief of the key would make it. The signer does not give its key
/// away, so a key of the test's own stands in a key set with the members of the realm's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_in_the_log_is_missing_and_not_forged() {
    let cluster = Cluster::started(STEADY, "", "");
    let server = cluster.api_server().await;
    let token = server.mint(&cluster.request()).await.unwrap().token;
    let jwks = cluster.lab.web.get(&format!("{}/cluster/jwks.json", cluster.lab.url())).json();
    let log = jwks["keys"][0]["log"].as_str().unwrap().to_owned();
    let thief = SigningKey::new(Algorithm::Es256);
    let mut jwk = Value::Object(thief.0.signing_key().public().jwk());
    for member in ["issuer", "nbf", "signs_until", "exp", "log"] {
        jwk[member] = jwks["keys"][0][member].clone();
    }
    jwk["kid"] = thief.1.clone().into();
    let set = cluster.lab.folder().join("jwks.json");
    std::fs::write(&set, json!({"keys": [jwk]}).to_string()).unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let mut claims: Value = serde_json::from_slice(&b64::decode(claims).unwrap()).unwrap();
    let logs = format!("{}/log/{{log}}", cluster.lab.url());
    let mut validate = |iat: u64, jti: &str| {
        (claims["iat"], claims["nbf"], claims["exp"]) =
            (iat.into(), iat.into(), (iat + 600).into());
        claims["jti"] = jti.into();
        let signed = thief.sign_under(&thief.header(), &b64::encode(claims.to_string().as_bytes()));
        let payload = b64::encode(claims.to_string().as_bytes());
        let token = format!("{}.{payload}.{}", signed.header, signed.signature);
        let output = cluster.lab.run_plain(&[
            "validate",
            "--issuer",
            &cluster.issuer,
            "--audience",
            &cluster.issuer,
            "--profile",
            "oidc",
            "--jwks",
            set.to_str().unwrap(),
            "--log",
            "require",
            "--log-lookup",
            "digest",
            "--log-at",
            &logs,
            "--json",
            &token,
        ]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["code"].as_str().unwrap_or("valid").to_owned()
    };
    let uuid = "0d1c6b0e-4c1c-4b26-9d3a-6f4f6a1b2c3d";
    assert_eq!(validate(now(), uuid), "log_pending");
    wait_until("the publishing time is over", Duration::from_secs(30), || {
        // The key's window begins 10 s before it became active.
        validate(jwks["keys"][0]["nbf"].as_u64().unwrap(), uuid) == "log_missing"
    });
    let (id, _) = log.split_once('.').unwrap();
    let here = format!("{id}.0.AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(validate(jwks["keys"][0]["nbf"].as_u64().unwrap(), &here), "log_missing");
    let elsewhere = "AAAAAAAAAAAAAAAAAAAAAA.0.AAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(validate(now(), elsewhere), "log_id_mismatch");
    server.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_algorithm_of_such_realms_is_one_that_the_api_server_takes() {
    for algorithm in ["RS256", "ES384"] {
        let mut cluster = Cluster::prepared(STEADY, "", "");
        configure(&mut cluster.lab, algorithm, STEADY, "", "");
        cluster.lab.start();
        let server = cluster.api_server().await;
        let token = server.mint(&cluster.request()).await.unwrap().token;
        server.authenticate(&token).await.unwrap();
        assert_eq!(server.jwks().unwrap()["keys"][0]["alg"], algorithm);
        server.end();
    }
    // Others are refused before an API server can meet them.
    for algorithm in ["EdDSA", "Ed25519", "PS256", "ML-DSA-44"] {
        let mut lab = Lab::new(CHANCERY);
        configure(&mut lab, algorithm, STEADY, "", "");
        let file = lab.config_file();
        let output = lab.run_plain(&["config", "check", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{algorithm}");
    }
}

/// What would end an API server at its start is refused at configuration time.
#[test]
fn no_configuration_can_end_an_api_server() {
    let cases = [
        ("max_lifetime_s = 599", "", "max_lifetime_s `599` is below 600"),
        ("publish_lead_s = 1", "", "publish_lead_s `1` is below 2"),
        (STEADY, "refresh_hint_s = 0", "refresh_hint_s `0` is not within"),
        (STEADY, "refresh_hint_s = 5", "refresh_hint_s `5` is not within 1 and half"),
        (STEADY, "answer_within_ms = 34000", "answer_within_ms must be within"),
    ];
    for (schedule, settings, why) in cases {
        let mut lab = Lab::new(CHANCERY);
        configure(&mut lab, "ES256", schedule, settings, "");
        let file = lab.config_file();
        let output = lab.run_plain(&["config", "check", file.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{why}: {text}");
        assert!(text.contains(why), "{why}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_first_waits_for_the_service() {
    let mut cluster = Cluster::prepared(STEADY, "", "");
    let (socket, issuer) = (cluster.socket.clone(), cluster.issuer.clone());
    let starting =
        tokio::spawn(async move { ApiServer::start(&socket, Flags::new(&issuer)).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!starting.is_finished(), "nobody listens yet");
    cluster.lab.start();
    // A service without keys yet says so, which ends an API server: the socket answers once it has.
    match starting.await.unwrap() {
        Ok(server) => server.end(),
        Err(Exit::Keys(why)) => assert!(why.contains("no key"), "{why}"),
        Err(exit) => panic!("{exit:?}"),
    }
    cluster.api_server().await.end();
}

/// Refreshes by the hint alone: no token may name a key that the API server does not know yet, and
/// nothing ever has to be fetched for want of a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_every_15_seconds_refuses_no_token_and_surprises_no_key_cache() {
    let schedule = "rotate_every_s = 15\npublish_lead_s = 6\nmax_lifetime_s = 600\nskew_s = 1";
    let cluster = Cluster::started(schedule, "", "");
    let server = cluster.api_server().await;
    let (mut kids, mut tokens) = (BTreeSet::new(), Vec::new());
    let end = Instant::now() + Duration::from_secs(50);
    while Instant::now() < end {
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let (server, request) = (server.clone(), cluster.request());
                tokio::spawn(async move { server.mint(&request).await })
            })
            .collect();
        for minting in asked {
            let before = server.syncs();
            let token = minting.await.unwrap().unwrap().token;
            let header = token.split('.').next().unwrap();
            let header: Value = serde_json::from_slice(&b64::decode(header).unwrap()).unwrap();
            let kid = header["kid"].as_str().unwrap().to_owned();
            assert!(server.discovered().contains(&kid), "relying parties know the key already");
            server.authenticate(&token).await.unwrap();
            assert!(server.syncs().0 <= before.0 + 1);
            if kids.insert(kid) {
                tokens.push(token);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(kids.len() >= 3, "{} keys", kids.len());
    // Tokens of the first key are as good as ever.
    for token in &tokens {
        server.authenticate(token).await.unwrap();
    }
    let (syncs, failed) = server.syncs();
    // 50 s at a hint of a quarter of the lead: nothing came on top for an unknown `kid`.
    assert!(failed == 0 && syncs <= 52, "{syncs} refreshes, {failed} failed");
    assert_eq!(cluster.lab.check_logs(), 1);
    server.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_signer_costs_no_token_and_no_half_minute() {
    let mut cluster = Cluster::started(STEADY, "answer_within_ms = 500", "");
    let server = cluster.api_server().await;
    let token = server.mint(&cluster.request()).await.unwrap().token;

    // Hung: the answer is quick.
    let signer = cluster.lab.signer_pid().unwrap();
    kill_process(signer, Signal::STOP).unwrap();
    let begun = Instant::now();
    let status = server.mint(&cluster.request()).await.unwrap_err();
    assert!(status.0 == 500 && status.1.contains("500 ms"), "{status:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.authenticate(&token).await.unwrap();
    kill_process(signer, Signal::CONT).unwrap();

    // Dead: a successor signs, and the dead one's key stays as long as its tokens.
    cluster.lab.kill_signer();
    let mut renewed = None;
    for _ in 0..600 {
        if let Ok(minted) = server.mint(&cluster.request()).await {
            renewed = Some(minted.token);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let renewed = renewed.expect("a successor");
    server.authenticate(&renewed).await.unwrap();
    server.authenticate(&token).await.unwrap();
    let fresh = cluster.api_server().await;
    fresh.authenticate(&token).await.unwrap();
    fresh.authenticate(&renewed).await.unwrap();
    fresh.end();

    // The service itself restarts: the caller waits, and is answered.
    cluster.lab.kill_service();
    let waiting = tokio::spawn({
        let (server, request) = (server.clone(), cluster.request());
        async move { server.mint(&request).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.authenticate(&token).await.unwrap();
    cluster.lab.start();
    let waited = waiting.await.unwrap();
    // The first moment of a start may still be without a key.
    if let Err(status) = &waited {
        assert_eq!(status.0, 500, "{status:?}");
    }
    let after = server.mint(&cluster.request()).await.unwrap().token;
    server.authenticate(&after).await.unwrap();
    // Of both logs each token is proved.
    for token in [&token, &renewed, &after] {
        let proof = cluster.lab.run(&["prove", token]);
        assert!(proof.status.success(), "{}", String::from_utf8_lossy(&proof.stderr));
    }
    server.end();
}

/// The lines of a realm that believe a cluster's old key until then.
fn imported(old: &SigningKey, until: u64, in_discovery: bool) -> String {
    let jwk = old.0.signing_key().public().jwk();
    format!(
        "[[realms.kubernetes.imported]]\nkid = \"{}\"\nuntil = {until}\n\
         in_discovery = {in_discovery}\n\
         jwk = {{ kty = \"EC\", crv = \"P-256\", x = {}, y = {} }}\n",
        old.1, jwk["x"], jwk["y"]
    )
}

/// What the cluster signed ten minutes ago, with its key file.
fn token_of_a_key_file(old: &SigningKey, issuer: &str) -> String {
    let claims = json!({
        "aud": [issuer], "exp": now() + 3_000, "iat": now() - 600, "iss": issuer,
        "jti": "old", "nbf": now() - 600, "sub": "system:serviceaccount:default:web",
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "web", "uid": "u"}},
    });
    let claims = b64::encode(claims.to_string().as_bytes());
    let signed = old.sign_under(&old.header(), &claims);
    format!("{}.{claims}.{}", signed.header, signed.signature)
}

/// Moving a running cluster here: its old tokens stay valid while its old key is imported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_clusters_old_tokens_stay_valid_while_its_key_is_imported() {
    let old = SigningKey::new(Algorithm::Es256);
    let import = |until, in_discovery| imported(&old, until, in_discovery);
    let mut cluster = Cluster::started(STEADY, "", &import(now() + 3_600, true));
    let server = cluster.api_server().await;
    let old_token = token_of_a_key_file(&old, &cluster.issuer);
    server.authenticate(&old_token).await.unwrap();
    assert!(server.discovered().contains(&old.1));
    // It is in no log, which `report` tells and `require` refuses.
    assert_eq!(cluster.validate(&old_token, "report")["valid"], true);
    assert_eq!(cluster.validate(&old_token, "require")["code"], "key_not_logged");
    // New tokens are not signed by it.
    let token = server.mint(&cluster.request()).await.unwrap().token;
    assert!(!token.starts_with(old_token.split_once('.').unwrap().0));

    // Out of discovery, for the API server alone.
    configure(&mut cluster.lab, "ES256", STEADY, "", &import(now() + 3_600, false));
    assert!(cluster.lab.run(&["reload"]).status.success());
    server.until("it left discovery", |server| !server.discovered().contains(&old.1)).await;
    server.authenticate(&old_token).await.unwrap();
    // And out altogether.
    configure(&mut cluster.lab, "ES256", STEADY, "", "");
    assert!(cluster.lab.run(&["reload"]).status.success());
    let (syncs, _) = server.syncs();
    server.until("two refreshes", |server| server.syncs().0 >= syncs + 2).await;
    assert_eq!(server.authenticate(&old_token).await.unwrap_err().0, 401);
    server.authenticate(&token).await.unwrap();
    server.end();
}

/// The way back of docs/kubernetes.md, step by step. An API server with key files is one whose signer
/// has that key and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_back_to_its_key_file_and_loses_what_the_guide_says() {
    let old = SigningKey::new(Algorithm::Es256);
    let import = imported(&old, now() + 3_600, true);
    let mut cluster = Cluster::started(STEADY, "", &import);
    let server = cluster.api_server().await;
    let old_token = token_of_a_key_file(&old, &cluster.issuer);
    let extended = server.mint(&of_a_pod(&cluster.issuer, 3_607)).await.unwrap();
    assert_eq!(extended.expiration_s, 7_200);

    // 1. A lower ceiling counts at once for the signer, and for an API server once it starts again.
    let lower = STEADY.replace("max_lifetime_s = 7200", "max_lifetime_s = 3600");
    configure(&mut cluster.lab, "ES256", &lower, "", &import);
    assert!(cluster.lab.run(&["reload"]).status.success());
    let status = server.mint(&of_a_pod(&cluster.issuer, 3_607)).await.unwrap_err();
    assert!(status.0 == 500 && status.1.contains("lifetime_not_granted"), "{status:?}");
    server.mint(&cluster.request()).await.unwrap();
    server.end();
    let server = cluster.api_server().await;
    let short = server.mint(&of_a_pod(&cluster.issuer, 3_607)).await.unwrap();
    assert_eq!((short.expiration_s, short.warning), (3_600, true));
    server.authenticate(&extended.token).await.unwrap();
    server.end();

    // 2. The manifest as it was.
    let stub = Stub::start(cluster.lab.folder(), &old);
    let before = ApiServer::start(&stub.socket, Flags::new(&cluster.issuer)).await.unwrap();
    before.authenticate(&old_token).await.unwrap();
    let renewed = before.mint(&cluster.request()).await.unwrap().token;
    before.authenticate(&renewed).await.unwrap();
    for lost in [&extended.token, &short.token] {
        assert_eq!(before.authenticate(lost).await.unwrap_err().0, 401);
    }
    before.end();

    // 3. What was signed meanwhile stays on record, also for who asks no index, and relying parties outside go on believing it.
    for token in [&extended.token, &short.token] {
        assert!(cluster.lab.run(&["prove", token]).status.success());
        assert_eq!(cluster.validate(token, "require")["valid"], true);
    }
    assert!(!cluster.lab.run(&["prove", &renewed]).status.success());
    let log = cluster.lab.log_id();
    let walk = |token: &str| cluster.lab.run(&["prove", "--log", &log, "--walk", token]);
    let found = walk(&short.token);
    assert!(found.status.success(), "{found:?}");
    assert!(String::from_utf8_lossy(&found.stdout).starts_with("c2sp.org/tlog-proof@v1"));
    let absent = walk(&renewed);
    assert_eq!(absent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("none of its"), "{absent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_the_policy_reach_whoever_asked() {
    let cluster = Cluster::started(STEADY, "", "required_claims = [\"kubernetes.io/pod\"]");
    let server = cluster.api_server().await;
    server.mint(&of_a_pod(&cluster.issuer, 600)).await.unwrap();
    let stranger =
        TokenRequest { namespace: "kube-system".into(), ..of_a_pod(&cluster.issuer, 600) };
    for (asked, code) in [
        (cluster.request(), "claim_required"),
        (of_a_pod("https://elsewhere.example", 600), "audience_not_granted"),
        (stranger, "subject_not_granted"),
    ] {
        let status = server.mint(&asked).await.unwrap_err();
        assert!(status.0 == 500 && status.1.contains(code), "{code}: {status:?}");
    }
    // Another issuer in the API server's flags than in the realm: nothing is signed.
    let flags = Flags::new("https://other.example");
    let other = ApiServer::start(&cluster.socket, flags).await.unwrap();
    let status = other.mint(&of_a_pod("https://other.example", 600)).await.unwrap_err();
    assert!(status.1.contains("wrong_issuer"), "{status:?}");
    // A flag above the realm's maximum ends the API server, and names both.
    let mut flags = Flags::new(&cluster.issuer);
    flags.max_expiration_s = Some(7_201);
    let exit = ApiServer::start(&cluster.socket, flags).await.err();
    assert_eq!(exit, Some(Exit::FlagAboveMax { flag: 7_201, signer: 7_200 }));
    server.end();
    other.end();
}

/// `cargo test --release -p chancery --test kubernetes_conformance -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn measure_sign_at_500_tokens_a_second() {
    let cluster = Cluster::started("publish_lead_s = 300\nmax_lifetime_s = 3600", "", "");
    let server = cluster.api_server().await;
    let rate = |seconds: u64| {
        let (server, request) = (server.clone(), cluster.request());
        async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(2));
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..seconds * 500 {
                // Each call is timed from when it was due: a late one counts as slow.
                let due = ticks.tick().await;
                let (server, request) = (server.clone(), request.clone());
                calls.spawn(async move {
                    server.mint(&request).await.unwrap();
                    due.elapsed()
                });
            }
            calls.join_all().await
        }
    };
    drop(rate(2).await);
    let told = |what: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        println!(
            "{what}: {} tokens, p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    };
    let begun = Instant::now();
    let times = rate(30).await;
    println!("{:.0} tokens a second", times.len() as f64 / begun.elapsed().as_secs_f64());
    told("Sign over the socket, logged, ES256", times);
    let key = Arc::new(SigningKey::new(Algorithm::Es256));
    let claims = "A".repeat(1_000);
    let in_process = (0..15_000).map(|_| {
        let begun = Instant::now();
        std::hint::black_box(key.sign_under(&key.header(), &claims));
        begun.elapsed()
    });
    told("a key in the same process, ES256", in_process.collect());
    server.end();
}
