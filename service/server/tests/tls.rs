//! `serve` with TLS from files, as a client with rustls sees it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use chancery_testkit::{ClientText, Lab, RealmText, TestClient, grant, raw_exchange, wait_until};
use chancery_token::Algorithm;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::Signal;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";
const WITHIN: Duration = Duration::from_secs(30);

struct Secured {
    lab: Lab,
    client: TestClient,
    roots: RootCertStore,
}

impl Secured {
    fn new() -> Self {
        let mut lab = Lab::new(CHANCERY);
        lab.set_https();
        let client = TestClient::new("c", Algorithm::Ed25519);
        let mut secured = Self { lab, client, roots: RootCertStore::empty() };
        let _ = secured.renew();
        let file = |name: &str| secured.lab.folder().join(name).display().to_string();
        let top = format!(
            "[tls]\ncert_file = \"{}\"\nkey_file = \"{}\"",
            file("cert.pem"),
            file("key.pem")
        );
        let clients = vec![ClientText::new(&secured.client, "", &[grant("g", &[AUDIENCE], "")])];
        let realm = RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients };
        secured.lab.configure(&top, &[realm]);
        secured.lab.start();
        secured
    }

    /// Writes a new certificate with its key, which clients trust beside the old ones.
    fn renew(&mut self) -> CertificateDer<'static> {
        let names = ["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        fs::write(self.lab.folder().join("cert.pem"), cert.pem()).unwrap();
        fs::write(self.lab.folder().join("key.pem"), signing_key.serialize_pem()).unwrap();
        self.roots.add(cert.der().clone()).unwrap();
        cert.der().clone()
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(self.lab.address()).unwrap();
        tcp.set_read_timeout(Some(WITHIN)).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream
    }

    /// Sends a request over a connection of its own; the answer's body must be JSON.
    fn exchange(&self, method: &str, path: &str, kind: &str, body: &str) -> (String, Value) {
        let mut stream = self.connect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.lab.address(),
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.to_owned(), serde_json::from_str(body).expect(body))
    }

    fn presented(&self) -> CertificateDer<'static> {
        self.connect().conn.peer_certificates().unwrap().first().unwrap().clone().into_owned()
    }
}

#[test]
fn tokens_come_over_a_post_quantum_key_agreement() {
    let secured = Secured::new();
    let stream = secured.connect();
    let group = stream.conn.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    drop(stream);

    let (head, metadata) =
        secured.exchange("GET", "/r/.well-known/openid-configuration", "text/plain", "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(metadata.get("issuer"), Some(&Value::from(secured.lab.issuer("r"))));
    let listed = secured.lab.run(&["keys", "list", "--json"]);
    let keys: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let log = keys.get("log_id").and_then(Value::as_str);
    let wanted = vec![json!({"aud": AUDIENCE})];
    let request = secured.client.request(&secured.lab.issuer("r"), log, wanted);
    let (head, answer) = secured.exchange("POST", "/r/issue", "application/jwt", &request);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}: {answer}");
    assert!(answer.pointer("/tokens/0/access_token").is_some());
}

#[test]
fn plain_http_gets_nothing_from_a_tls_listener() {
    let secured = Secured::new();
    let request: &[u8] = b"GET /signers HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw_exchange(&secured.lab.address(), &[request], Duration::ZERO, false, WITHIN);
    assert!(!answer.contains("signers") && !answer.contains("200"), "{answer}");
    assert!(secured.connect().conn.negotiated_key_exchange_group().is_some());
}

#[test]
fn certificates_are_renewed_while_it_runs() {
    let mut secured = Secured::new();
    let old = secured.presented();
    let new = secured.renew();
    assert_ne!(old, new);
    assert_eq!(secured.presented(), old, "nothing changes before SIGHUP");
    secured.lab.signal(Signal::HUP);
    wait_until("the new certificate", WITHIN, || secured.presented() == new);

    fs::write(secured.lab.folder().join("key.pem"), "no key").unwrap();
    let before = secured.lab.log().len();
    secured.lab.signal(Signal::HUP);
    wait_until("a word about the file", WITHIN, || {
        secured.lab.log().get(before..).is_some_and(|log| log.contains("the old ones stay"))
    });
    assert_eq!(secured.presented(), new);
}

#[test]
fn files_that_are_no_certificate_stop_the_start() {
    let mut secured = Secured::new();
    assert_eq!(secured.lab.stop().code, Some(0));
    fs::write(secured.lab.folder().join("cert.pem"), "no certificate").unwrap();
    secured.lab.spawn();
    assert_eq!(secured.lab.wait_exit().code, Some(2));
    assert!(secured.lab.log().contains("cert.pem"), "{}", secured.lab.log());
}
