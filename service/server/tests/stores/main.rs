//! The main job on every kind of store: issue, restart, recover, and every log checked over HTTP.
//!
//! A folder is always tried. Buckets are tried on emulators, which `cargo xtask stores` installs and
//! starts; it names them in `CHANCERY_TEST_S3` and `CHANCERY_TEST_AZURE` (their URLs, with a bucket
//! or container `chancery` and credentials in the providers' own variables).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail where they are wrong"
)]

mod gate;
mod outages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chancery_testkit::{Answer, ClientText, Judge, Lab, RealmText, TestClient, grant, wait_until};
use chancery_token::Algorithm;
use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";
const PATIENCE: Duration = Duration::from_secs(60);
/// How many tokens a lone client asks for, one after the other, when the price is measured.
const MEASURED: u32 = 20;

/// A store to test on.
struct Place {
    /// The scheme of its URL.
    scheme: &'static str,
    /// Where its emulator is.
    endpoint: Option<String>,
}

impl Place {
    fn folder() -> Self {
        Self { scheme: "file", endpoint: None }
    }

    fn emulator(scheme: &'static str, variable: &str) -> Option<Self> {
        match std::env::var(variable) {
            Ok(endpoint) => Some(Self { scheme, endpoint: Some(endpoint) }),
            Err(_) => {
                eprintln!("skipped: no {variable}; `cargo xtask stores` starts an emulator");
                None
            }
        }
    }

    fn s3() -> Option<Self> {
        Self::emulator("s3", "CHANCERY_TEST_S3")
    }

    fn azure() -> Option<Self> {
        Self::emulator("az", "CHANCERY_TEST_AZURE")
    }

    /// A client of the test's own for the bucket or container.
    fn bucket(&self) -> Option<Arc<dyn ObjectStore>> {
        let endpoint = self.endpoint.clone()?;
        match self.scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_bucket_name("chancery");
                Some(Arc::new(
                    builder.with_endpoint(endpoint).with_allow_http(true).build().unwrap(),
                ))
            }
            _ => {
                let builder = MicrosoftAzureBuilder::from_env().with_container_name("chancery");
                Some(Arc::new(
                    builder.with_endpoint(endpoint).with_allow_http(true).build().unwrap(),
                ))
            }
        }
    }

    /// A `[storage]` table for a place of its own in the store.
    fn table(&self, lab: &Lab, durability: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let url = match self.scheme {
            "file" => format!("file:{}", lab.folder().join("elsewhere").display()),
            scheme => format!("{scheme}://chancery/test/{}-{number}", std::process::id()),
        };
        let endpoint = self.endpoint.as_ref().map(|e| format!("endpoint = \"{e}\"\n"));
        let endpoint = endpoint.unwrap_or_default();
        format!("[storage]\nurl = \"{url}\"\n{endpoint}durability = \"{durability}\"\n")
    }
}

fn client() -> TestClient {
    TestClient::new("c", Algorithm::Es256)
}

fn configure(lab: &mut Lab, storage: &str, client: &TestClient) {
    let clients = vec![ClientText::new(client, "", &[grant("api", &[AUDIENCE], "")])];
    let realm = RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients };
    lab.configure(&format!("wal_segment_mib = 1\n{storage}"), &[realm]);
}

fn batch(lab: &Lab, client: &TestClient, count: usize) -> Answer {
    lab.issue(client, "r", vec![json!({"aud": AUDIENCE}); count])
}

fn tokens_in(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let tokens = body["tokens"].as_array().unwrap();
    tokens.iter().map(|t| t["access_token"].as_str().unwrap().to_owned()).collect()
}

fn metric(lab: &Lab, name: &str) -> f64 {
    let text = lab.web.get(&format!("{}/metrics", lab.admin_url())).text();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or("0 0").to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Every token is in a log under a signed checkpoint, and every log agrees with its checkpoint.
fn check(lab: &Lab, tokens: &[String], logs: &[String]) {
    let mut judge = Judge::new(lab, "r", AUDIENCE);
    for token in tokens {
        judge.must_hold(token);
    }
    for log in logs {
        let url = format!("{}/log/{log}", lab.url());
        let output = lab.run_plain(&["log", "check", &url]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "log check {url}: {words}");
    }
}

/// Issue, be killed alone and with the signer, stop in order: whatever was received stays.
fn whole_job(place: &Place, durability: &str) {
    let mut lab = Lab::new(CHANCERY);
    let client = client();
    let storage = place.table(&lab, durability);
    configure(&mut lab, &storage, &client);
    lab.start();
    let mut logs = vec![lab.log_id()];
    let mut received = vec![lab.token(&client, "r", AUDIENCE)];
    for _ in 0..3 {
        received.extend(tokens_in(&batch(&lab, &client, 256)));
    }
    check(&lab, &received, &logs);
    measure(&lab, &client, place, durability);

    lab.kill_service();
    lab.start();
    assert_eq!(lab.log_id(), logs[0], "the signer lived on");
    received.extend(tokens_in(&batch(&lab, &client, 100)));
    check(&lab, &received, &logs);

    lab.kill_service();
    lab.kill_signer();
    if durability == "store" {
        // Everything that left is in the store: nothing else is needed but a copy of one file.
        let file = lab.data().join("directory.key");
        let key = std::fs::read(&file).unwrap();
        std::fs::remove_dir_all(lab.data()).unwrap();
        std::fs::create_dir(lab.data()).unwrap();
        std::fs::write(&file, key).unwrap();
    }
    lab.start();
    logs.push(lab.log_id());
    assert_ne!(logs[0], logs[1]);
    received.extend(tokens_in(&batch(&lab, &client, 10)));
    check(&lab, &received, &logs);

    assert_eq!(lab.stop().code, Some(0), "{}", lab.log());
    lab.start();
    received.push(lab.token(&client, "r", AUDIENCE));
    check(&lab, &received, &logs);
    if let Some(bucket) = place.bucket() {
        let folder = format!("{}/log/{}", prefix_in(&storage), lab.log_id());
        wait_until("the deletion of old partial tiles", PATIENCE, || {
            // One partial tile and one partial bundle; the next two may be on their way.
            partial_tiles(bucket.as_ref(), &folder) <= 4
        });
        assert!(!lab.data().join("store").exists(), "nothing is kept in the data folder");
    }
}

/// Where in its bucket a `[storage]` table puts the logs.
fn prefix_in(storage: &str) -> &str {
    storage.split("://chancery/").nth(1).unwrap().split('"').next().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn partial_tiles(bucket: &dyn ObjectStore, folder: &str) -> usize {
    let prefix = Path::from(folder);
    let listed = runtime().block_on(bucket.list(Some(&prefix)).collect::<Vec<_>>());
    let partial = listed.iter().filter(|o| o.as_ref().unwrap().location.as_ref().contains(".p/"));
    partial.count()
}

/// Prints what a token costs a lone client, and a full request.
fn measure(lab: &Lab, client: &TestClient, place: &Place, durability: &str) {
    let mut times: Vec<Duration> = (0..MEASURED)
        .map(|_| {
            let started = Instant::now();
            let _ = tokens_in(&batch(lab, client, 1));
            started.elapsed()
        })
        .collect();
    times.sort();
    let started = Instant::now();
    let _ = tokens_in(&batch(lab, client, 256));
    println!(
        "{} durability={durability}: one token {:.1} ms (median of {MEASURED}; slowest {:.1} ms), \
         256 in one request {:.1} ms",
        place.scheme,
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
        started.elapsed().as_secs_f64() * 1e3,
    );
}

#[test]
fn the_main_job_on_a_folder() {
    whole_job(&Place::folder(), "local");
    whole_job(&Place::folder(), "store");
}

#[test]
fn the_main_job_on_s3() {
    let Some(place) = Place::s3() else { return };
    whole_job(&place, "local");
    whole_job(&place, "store");
}

#[test]
fn the_main_job_on_azure() {
    let Some(place) = Place::azure() else { return };
    whole_job(&place, "local");
    whole_job(&place, "store");
}

#[test]
fn a_store_has_one_writer() {
    let mut first = Lab::new(CHANCERY);
    let client = client();
    let storage = Place::folder().table(&first, "local");
    configure(&mut first, &storage, &client);
    first.start();
    let mut second = Lab::new(CHANCERY);
    configure(&mut second, &storage, &client);
    second.spawn();
    assert_eq!(second.wait_exit().code, Some(2));
    assert!(second.log().contains("in use by another service"), "{}", second.log());
    check(&first, &[first.token(&client, "r", AUDIENCE)], &[first.log_id()]);
}

#[test]
fn a_bucket_that_is_not_there_is_refused_at_start_by_name() {
    let places = [(Place::s3(), "s3://nowhere/x"), (Place::azure(), "az://nowhere/x")];
    for (place, url) in places {
        let Some(place) = place else { continue };
        let mut lab = Lab::new(CHANCERY);
        let endpoint = place.endpoint.unwrap();
        let storage = format!("[storage]\nurl = \"{url}\"\nendpoint = \"{endpoint}\"\n");
        configure(&mut lab, &storage, &client());
        lab.spawn();
        assert_eq!(lab.wait_exit().code, Some(2));
        assert!(lab.log().contains(url) && lab.log().contains("docs/storage.md"), "{}", lab.log());
        assert!(lab.signer_pid().is_none(), "no signer is started for nothing");
    }
}

#[test]
fn an_endpoint_where_nobody_answers_is_refused_in_time() {
    // Without the recipe's credentials the client would ask the machine for its identity.
    let Some(_) = Place::s3() else { return };
    let mut lab = Lab::new(CHANCERY);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let storage = format!("[storage]\nurl = \"s3://chancery/x\"\nendpoint = \"http://{free}\"\n");
    configure(&mut lab, &storage, &client());
    let started = Instant::now();
    lab.spawn();
    assert_eq!(lab.wait_exit().code, Some(2));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(lab.log().contains("s3://chancery/x"), "{}", lab.log());
}
