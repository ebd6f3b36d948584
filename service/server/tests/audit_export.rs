//! Exports from outside: every record arrives, through kills and a receiver that is dead or slow, and
//! issuing knows nothing of it.
//!
//! With `CHANCERY_EXPORTS=FOLDER` what was received is kept there, for other people's validators
//! (`cargo xtask audit`).

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chancery_testkit::{ClientText, Lab, RealmText, TestClient, grant, wait_until};
use chancery_token::Algorithm;
use serde_json::{Value, json};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const API: &str = "https://api.example";
const OTHER: &str = "https://other.example";
/// A busy machine takes its time; a test that waits for nothing fails after this.
const PATIENCE: Duration = Duration::from_secs(60);

const TAKES: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;

/// An HTTP server that keeps what is posted to it, as it is told.
struct Receiver {
    url: String,
    does: Arc<AtomicU8>,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start(does: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
        let (does, bodies) = (Arc::new(AtomicU8::new(does)), Arc::new(Mutex::new(Vec::new())));
        let receiver = Self { url, does: does.clone(), bodies: bodies.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (does, bodies) = (does.clone(), bodies.clone());
                std::thread::spawn(
                    move || while serve(stream.as_ref().unwrap(), &does, &bodies) {},
                );
            }
        });
        receiver
    }
}

/// One request; `false` when the connection is done.
fn serve(mut stream: &TcpStream, does: &AtomicU8, bodies: &Mutex<Vec<String>>) -> bool {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut authorized) = (String::new(), 0, false);
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        authorized |= lower.trim() == "authorization: bearer s3cret";
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return false;
    }
    let answer = match does.load(Ordering::SeqCst) {
        TAKES if authorized => {
            bodies.lock().unwrap().push(String::from_utf8(body).unwrap());
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        }
        HANGS => {
            std::thread::sleep(PATIENCE);
            return false;
        }
        _ => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nbusy\n",
    };
    stream.write_all(answer.as_bytes()).is_ok()
}

fn lab(exports: &str) -> (Lab, TestClient) {
    let mut lab = Lab::new(CHANCERY);
    let client = TestClient::new("orders", Algorithm::Es256);
    let grants = [grant("api", &[API], ""), grant("other", &[OTHER], "scopes = [\"read\"]")];
    let clients = vec![ClientText::new(&client, "", &grants)];
    let realm = RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients };
    let folder = lab.folder().display().to_string();
    std::fs::write(lab.folder().join("bearer"), "Bearer s3cret\n").unwrap();
    let top = format!("[audit]\nflush_every_s = 1\n{}", exports.replace("FOLDER", &folder));
    lab.configure(&top, &[realm]);
    lab.start();
    (lab, client)
}

/// Addresses of the lines of a file, and how often each is there. Every line must be whole.
fn addresses(lab: &Lab, file: &str, name: &[&str]) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(lab.folder().join(file)).unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Ok(document) = serde_json::from_str::<Value>(line) else { continue };
        let at = name.iter().fold(&document, |value, name| &value[*name]);
        *found.entry(at.as_str().unwrap().to_owned()).or_default() += 1;
    }
    found
}

fn recorded(lab: &Lab) -> usize {
    let output = lab.run(&["audit", "find", "--json", "--limit", "100000"]);
    String::from_utf8_lossy(&output.stdout).lines().count()
}

fn metric(lab: &Lab, name: &str) -> u64 {
    let text = chancery_testkit::Web::new().get(&format!("{}/metrics", lab.admin_url())).text();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).map_or(0, |n| n as u64)
}

fn keep(name: &str, bytes: &[u8]) {
    if let Some(folder) = std::env::var_os("CHANCERY_EXPORTS") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(name), bytes).unwrap();
    }
}

#[test]
fn every_record_arrives_through_kills_of_the_service() {
    let (mut lab, client) = lab(
        "[[audit.export]]\nname = \"lines\"\nformat = \"json\"\nto = \"file:FOLDER/lines.jsonl\"\n\
         [[audit.export]]\nname = \"siem\"\nformat = \"ocsf\"\nto = \"file:FOLDER/ocsf.jsonl\"\n",
    );
    for round in 0..6_u64 {
        for _ in 0..3 {
            let _ = lab.token(&client, "r", API);
        }
        let refused = lab.issue(&client, "r", vec![json!({"aud": OTHER, "scope": "write"})]);
        assert_eq!(refused.status, 403);
        // Now before the export, now after it, now in the middle of a segment.
        std::thread::sleep(Duration::from_millis(round * 230));
        lab.kill_service();
        lab.start();
    }
    assert!(lab.run(&["keys", "rotate", "r"]).status.success());
    wait_until("the rotation in the audit", PATIENCE, || {
        lab.run(&["audit", "find", "--outcome", "changed"]).status.success()
    });
    wait_until("every record in both files", PATIENCE, || {
        let count = recorded(&lab);
        let lines = addresses(&lab, "lines.jsonl", &["address_in_log"]);
        let events = addresses(&lab, "ocsf.jsonl", &["metadata", "uid"]);
        count >= 25 && lines.len() == count && events.keys().eq(lines.keys())
    });
    let _ = lab.stop();
    // Numbers of each log without a gap; the same address is the same record.
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let lines = addresses(&lab, "lines.jsonl", &["address_in_log"]);
    let mut numbers: Vec<(String, u64)> = Vec::new();
    for address in lines.keys() {
        let (log, number) = address.split_once("/audit/").unwrap();
        numbers.push((log.to_owned(), number.parse().unwrap()));
    }
    numbers.sort();
    for (log, number) in numbers {
        let next = ends.entry(log).or_default();
        assert_eq!(number, *next);
        *next += 1;
    }
    let text = std::fs::read_to_string(lab.folder().join("lines.jsonl")).unwrap();
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for line in text.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        let address = document["address_in_log"].as_str().unwrap().to_owned();
        assert_eq!(*known.entry(address).or_insert(line), line);
    }
    keep("ocsf.jsonl", &std::fs::read(lab.folder().join("ocsf.jsonl")).unwrap());
}

#[test]
fn a_dead_or_hanging_receiver_is_behind_and_nobody_waits_for_it() {
    let receiver = Receiver::start(HANGS);
    let export = format!(
        "[[audit.export]]\nname = \"otel\"\nformat = \"otlp\"\nto = \"{}\"\n\
         authorization_file = \"FOLDER/bearer\"\n",
        receiver.url
    );
    let (mut lab, client) = lab(&export);
    let began = Instant::now();
    for _ in 0..20 {
        let _ = lab.token(&client, "r", API);
    }
    // One delivery alone hangs for ten seconds: twenty tokens that waited for any would take minutes.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let lag = "chancery_audit_export_lag_records{export=\"otel\"}";
    wait_until("a lag that shows", PATIENCE, || metric(&lab, lag) >= 20);
    receiver.does.store(FAILS, Ordering::SeqCst);
    let failures = "chancery_audit_export_failures_total{export=\"otel\"}";
    wait_until("failures that show", PATIENCE, || metric(&lab, failures) >= 2);
    // By now the records are in segments and out of memory: they come from the store.
    lab.kill_service();
    receiver.does.store(TAKES, Ordering::SeqCst);
    lab.start();
    let received = || {
        let bodies = receiver.bodies.lock().unwrap().clone();
        let mut found = BTreeMap::new();
        for body in bodies {
            let request: Value = serde_json::from_str(&body).unwrap();
            let logs = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
            for log in logs.as_array().unwrap() {
                let address = log["attributes"][0]["value"]["stringValue"].as_str().unwrap();
                found.insert(address.to_owned(), log["eventName"].clone());
            }
        }
        found
    };
    wait_until("every record", PATIENCE, || received().len() == recorded(&lab));
    assert!(received().values().filter(|name| *name == "chancery.token.granted").count() == 20);
    wait_until("no lag", PATIENCE, || metric(&lab, lag) == 0);
    keep("otlp.jsonl", receiver.bodies.lock().unwrap().join("\n").as_bytes());
}
