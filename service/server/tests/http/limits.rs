//! Slow, half-closed, greedy and hostile clients; HTTP/2; IPv6.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chancery_testkit::{Answer, ClientText, Lab, RealmText, TestClient, grant, raw_exchange};
use chancery_token::Algorithm;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use super::{AUDIENCE, CHANCERY, assert_problem, lab};

const WITHIN: Duration = Duration::from_secs(20);

fn head(lab: &Lab, length: usize) -> String {
    format!(
        "POST /consumers/issue HTTP/1.1\r\nhost: {}\r\ncontent-type: application/jwt\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n",
        lab.address()
    )
}

fn good_request(lab: &Lab) -> String {
    let wanted = vec![json!({"aud": AUDIENCE})];
    lab.demo().request(&lab.issuer("consumers"), Some(&lab.log_id()), wanted)
}

#[test]
fn a_slow_request_is_served() {
    let lab = lab();
    let request = good_request(&lab);
    let whole = format!("{}{request}", head(&lab, request.len()));
    let pieces: Vec<&[u8]> = whole.as_bytes().chunks(whole.len().div_ceil(20)).collect();
    let pause = Duration::from_millis(50);
    let answer = raw_exchange(&lab.address(), &pieces, pause, false, WITHIN);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_request_that_ends_early_gets_no_token_and_no_patience() {
    let lab = lab();
    let request = good_request(&lab);
    let half = &request.as_bytes()[..request.len() / 2];
    let head = head(&lab, request.len());
    for pieces in [&[head.as_bytes(), half][..], &[&head.as_bytes()[..30]], &[]] {
        let started = Instant::now();
        let answer = raw_exchange(&lab.address(), pieces, Duration::ZERO, true, WITHIN);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(5), "it ends at once");
    }
    // The proof in it was not used up.
    let headers = [("content-type", "application/jwt")];
    let url = format!("{}/consumers/issue", lab.url());
    assert_eq!(lab.web.send("POST", &url, &headers, request.as_bytes()).status, 200);
}

#[test]
fn bytes_that_are_not_http_are_refused() {
    let lab = lab();
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(500));
    let wide = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let smuggled = "POST /consumers/issue HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\
                    content-length: 7\r\n\r\n0\r\n\r\n";
    let cases: [(&[u8], &[&str]); 6] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &["HTTP/1.1 400", ""]),
        (b"NONSENSE\r\n\r\n", &["HTTP/1.1 400"]),
        (long.as_bytes(), &["HTTP/1.1 414", "HTTP/1.1 431"]),
        (many.as_bytes(), &["HTTP/1.1 431"]),
        (wide.as_bytes(), &["HTTP/1.1 431"]),
        (smuggled.as_bytes(), &["HTTP/1.1 400"]),
    ];
    for (bytes, expected) in cases {
        let answer = raw_exchange(&lab.address(), &[bytes], Duration::ZERO, true, WITHIN);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let known =
            expected.iter().any(|e| answer.starts_with(e) && (!e.is_empty() || answer.is_empty()));
        assert!(known, "`{shown}`: `{answer}`");
    }
    let _ = lab.token(&lab.demo(), "consumers", AUDIENCE);
}

#[test]
fn stalled_clients_cost_little_and_stop_nobody() {
    let lab = lab();
    let pid = service_pid(&lab);
    let before = resident_kib(pid);
    let head = head(&lab, 1 << 20);
    let body = vec![b'a'; 64 * 1024];
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(lab.address()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        stalled.push(stream);
    }
    for _ in 0..5 {
        let _ = lab.token(&lab.demo(), "consumers", AUDIENCE);
    }
    let grown = resident_kib(pid).saturating_sub(before);
    println!("200 stalled clients: {grown} KiB");
    // What they sent, and as much again for buffers.
    assert!(grown < 200 * 64 * 2 + 20_000, "{grown} KiB");
}

/// The service's process id, from its lock on the data folder: proc(5), `/proc/locks` names it.
fn service_pid(lab: &Lab) -> u32 {
    let data = lab.data().display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter_map(|p| p.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        words.get(1) == Some(&&b"serve"[..]) && words.contains(&data.as_bytes())
    });
    found.expect("the service's process")
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// A lab with few allowed failures, behind these proxies.
fn limited_lab(proxies: &str) -> (Lab, TestClient) {
    let mut lab = Lab::new(CHANCERY);
    let client = TestClient::new("c", Algorithm::Es256);
    let clients = vec![ClientText::new(&client, "", &[grant("g", &[AUDIENCE], "")])];
    let top = format!("unverified_per_s = 2\ntrusted_proxies = {proxies}");
    lab.configure(&top, &[RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients }]);
    lab.start();
    (lab, client)
}

/// A proof by an unknown client, from an address.
fn stranger(lab: &Lab, header: (&str, &str)) -> Answer {
    let stranger = TestClient::new("stranger", Algorithm::Ed25519);
    let request = stranger.request(&lab.issuer("r"), Some(&lab.log_id()), vec![json!({})]);
    let headers = [("content-type", "application/jwt"), header];
    lab.web.send("POST", &format!("{}/r/issue", lab.url()), &headers, request.as_bytes())
}

fn wear_out(lab: &Lab, header: (&str, &str)) -> Answer {
    let deadline = Instant::now() + WITHIN;
    loop {
        let answer = stranger(lab, header);
        if answer.status != 401 {
            return answer;
        }
        assert!(Instant::now() < deadline, "never limited");
    }
}

#[test]
fn strangers_are_limited_by_their_address_and_cannot_choose_it() {
    let (lab, client) = limited_lab("[]");
    let answer = wear_out(&lab, ("x-forwarded-for", "192.0.2.1"));
    assert_problem(&answer, 429, "unverified_proofs");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    // Without a trusted proxy the header says nothing: the next address is the same one.
    let mut limited = 0;
    for number in 0..20 {
        let address = format!("192.0.2.{number}");
        limited += u32::from(stranger(&lab, ("x-forwarded-for", &address)).status == 429);
    }
    assert!(limited >= 10, "{limited} of 20");
    let text = lab.web.get(&format!("{}/metrics", lab.admin_url())).text();
    let line = text.lines().find(|l| l.starts_with("chancery_requests_limited_total")).unwrap();
    assert!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= 10, "{line}");
    // The allowance comes back by itself.
    chancery_testkit::wait_until("the allowance", WITHIN, || {
        lab.issue(&client, "r", vec![json!({})]).status == 200
    });
}

#[test]
fn behind_a_trusted_proxy_each_client_address_counts_for_itself() {
    let (lab, client) = limited_lab("[\"127.0.0.0/8\"]");
    for name in ["x-forwarded-for", "forwarded"] {
        let write = |address: &str| match name {
            "forwarded" => format!("for={address}"),
            _ => address.to_owned(),
        };
        let bad = write(if name == "forwarded" { "192.0.2.1" } else { "192.0.2.2" });
        assert_problem(&wear_out(&lab, (name, &bad)), 429, "unverified_proofs");
        for number in 10..20 {
            let other = write(&format!("198.51.100.{number}"));
            assert_eq!(stranger(&lab, (name, &other)).status, 401, "{name}: {other}");
        }
    }
    // A client that proves itself is counted nowhere.
    for _ in 0..10 {
        assert_eq!(lab.issue(&client, "r", vec![json!({})]).status, 200);
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_works() {
    let lab = tokio::task::spawn_blocking(lab).await.unwrap();
    let request = good_request(&lab);
    let stream = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    // Sixteen streams at once over one connection.
    let mut answers = Vec::new();
    for _ in 0..16 {
        let get = axum::http::Request::get(format!("{}/consumers/jwks.json", lab.url()))
            .body(Full::new(Bytes::new()))
            .unwrap();
        answers.push(sender.send_request(get));
    }
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.version(), axum::http::Version::HTTP_2);
        assert_eq!(answer.status(), 200);
        assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    let post = axum::http::Request::post(format!("{}/consumers/issue", lab.url()))
        .header("content-type", "application/jwt")
        .body(Full::new(Bytes::from(request)))
        .unwrap();
    let answer = sender.send_request(post).await.unwrap();
    assert_eq!(answer.status(), 200);
    tokio::task::spawn_blocking(move || drop(lab)).await.unwrap();
}

#[test]
fn ipv6_is_served() {
    let mut lab = Lab::new(CHANCERY);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let client = TestClient::new("c", Algorithm::Es256);
    let clients = vec![ClientText::new(&client, "", &[grant("g", &[AUDIENCE], "")])];
    lab.configure("", &[RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients }]);
    let text = std::fs::read_to_string(lab.config_file()).unwrap();
    lab.write_config(&text.replace("\nlisten = \"127.0.0.1:", "\nlisten = \"[::1]:"));
    lab.start();
    let port = lab.address().rsplit(':').next().unwrap().to_owned();
    let answer = lab.web.get(&format!("http://[::1]:{port}/r/.well-known/openid-configuration"));
    // The issuer is the configured one, whatever address the service listens on.
    assert_eq!(answer.json()["issuer"], lab.issuer("r"));
}
