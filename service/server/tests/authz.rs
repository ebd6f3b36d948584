//! `chancery authz` as nginx and Envoy ask it, without them: every answer, the headers, the Unix
//! socket, HTTP/2, health, failure and recovery, and what a wrong command line says. `cargo xtask
//! authz` does the same behind real nginx.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery_testkit::{Answer, Lab, Port, TestClient, Web, now, raw_exchange, wait_until};
use chancery_token::b64;
use serde_json::{Value, json};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";
/// Starting on a loaded machine, and the pause between two attempts to fetch a key set.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `chancery authz`.
struct Authz {
    process: Child,
    port: Port,
    admin: Port,
    log: PathBuf,
    web: Web,
}

impl Authz {
    fn start(lab: &Lab, more: &[&str]) -> Self {
        Self::start_at(lab, None, more)
    }

    fn start_at(lab: &Lab, socket: Option<&Path>, more: &[&str]) -> Self {
        let (port, admin) = (Port::reserve(), Port::reserve());
        let listen = match socket {
            Some(path) => format!("unix:{}", path.display()),
            None => port.address(),
        };
        let log = lab.folder().join(format!("authz-{}.log", admin.number()));
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new(CHANCERY);
        command.args(["authz", "--listen", &listen, "--admin", &admin.address()]);
        if !more.contains(&"--issuer") {
            command.args(["--issuer", &lab.issuer("consumers")]);
        }
        command.args(["--audience", AUDIENCE]).args(more).stdin(Stdio::null());
        let process = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let authz = Self { process, port, admin, log, web: Web::new() };
        wait_until("authz", PATIENCE, || authz.health("/healthz") == 200);
        authz
    }

    fn ready(self) -> Self {
        wait_until("the key sets", PATIENCE, || self.health("/readyz") == 200);
        self
    }

    fn health(&self, path: &str) -> u16 {
        let url = format!("http://{}{path}", self.admin.address());
        self.web.try_send("GET", &url, &[], b"").map_or(0, |answer| answer.status)
    }

    fn metrics(&self) -> String {
        self.web.get(&format!("http://{}/metrics", self.admin.address())).text()
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let url = format!("http://{}{path}", self.port.address());
        self.web.send(method, &url, headers, b"")
    }

    fn nginx(&self, token: &str, more: &[(&str, &str)]) -> Answer {
        let token = format!("Bearer {token}");
        self.ask("GET", "/authz/nginx", &[&[("authorization", token.as_str())], more].concat())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it as a service manager does; its exit code.
    fn stop(&mut self) -> Option<i32> {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Authz {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lab() -> Lab {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    lab
}

fn token(lab: &Lab, more: &[&str]) -> String {
    let base = ["token", "--realm", "consumers", "--audience", AUDIENCE];
    let output = lab.run(&[&base, more].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn has(answer: &Answer, name: &str) -> bool {
    answer.headers.contains_key(name)
}

#[test]
fn good_tokens_are_let_in_and_told() {
    let lab = lab();
    let authz =
        Authz::start(&lab, &["--headers", "subject,issuer,client,scope,token,expires,log,claims"])
            .ready();
    let good = token(&lab, &["--subject", "user:17", "--scope", "read write"]);
    let answer = authz.nginx(&good, &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.is_empty());
    assert_eq!(answer.header("cache-control"), "no-store");
    let claims: Value =
        serde_json::from_slice(&b64::decode(answer.header("x-chancery-claims")).unwrap()).unwrap();
    for (name, claim) in [
        ("subject", "sub"),
        ("issuer", "iss"),
        ("client", "client_id"),
        ("scope", "scope"),
        ("token", "jti"),
    ] {
        let told = answer.header(&format!("x-chancery-{name}"));
        assert_eq!(claims[claim], told, "{name}");
    }
    assert_eq!(answer.header("x-chancery-expires"), claims["exp"].to_string());
    assert!(!has(&answer, "x-chancery-log") && !has(&answer, "x-envoy-auth-headers-to-remove"));
    assert_eq!(answer.header("x-chancery-subject"), "user:17");

    // Envoy keeps method, path and query; whatever they are, the token decides.
    let bearer = format!("Bearer {good}");
    for (method, path) in [
        ("GET", "/authz/envoy/orders/1?x=y"),
        ("POST", "/authz/envoy/"),
        ("DELETE", "/authz/envoy//../healthz"),
        ("PATCH", "/authz/envoy/authz/nginx"),
    ] {
        let headers = [("authorization", bearer.as_str()), ("content-length", "0")];
        let answer = authz.ask(method, path, &headers);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("x-envoy-auth-headers-to-remove"), "x-chancery-log");
    }
}

#[test]
fn everything_else_is_kept_out_and_told_no_more_than_rfc_6750_says() {
    let lab = lab();
    let authz = Authz::start(&lab, &["--realm", "orders api"]).ready();
    let good = token(&lab, &["--scope", "read"]);
    let other = {
        let base = ["token", "--realm", "consumers", "--audience", "https://orders.example"];
        String::from_utf8(lab.run(&base).stdout).unwrap().trim_end().to_owned()
    };
    let (head, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", "A".repeat(86));
    let invalid = r#"Bearer error="invalid_token""#;
    for bad in ["a.b.c", &forged, &other] {
        let answer = authz.nginx(bad, &[]);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, invalid));
        assert!(answer.body.is_empty() && !has(&answer, "retry-after"), "{answer:?}");
    }
    let bearer = format!("Bearer {good}");
    let good_header = ("authorization", bearer.as_str());
    let twice = format!("{bearer},{bearer}");
    let request = r#"Bearer error="invalid_request""#;
    let realm = r#"Bearer realm="orders api""#;
    for (path, headers, status, challenge) in [
        ("/authz/nginx", &[][..], 401, realm),
        ("/authz/nginx", &[("authorization", "Basic YTpi")], 401, realm),
        ("/authz/nginx", &[("authorization", "Bearer")], 401, request),
        ("/authz/nginx", &[good_header, good_header], 401, request),
        ("/authz/nginx", &[good_header, ("x-original-uri", "/a?access_token=b")], 401, request),
        ("/authz/nginx", &[good_header, ("x-original-uri", "/ä?access_token=b")], 401, request),
        ("/authz/envoy/", &[], 401, realm),
        ("/authz/envoy/", &[("authorization", twice.as_str())], 400, request),
        ("/authz/envoy/?a=b&access_token=c", &[good_header], 400, request),
    ] {
        let answer = authz.ask("GET", path, headers);
        let found = (answer.status, answer.header("www-authenticate"));
        assert_eq!(found, (status, challenge), "{path} {headers:?}");
    }
    // No path but the two says yes, nor does anything of the admin listener stand here.
    for path in ["/", "/healthz", "/readyz", "/metrics", "/authz", "/authz/nginx/", "/authz/envoyx"]
    {
        assert_eq!(authz.ask("GET", path, &[good_header]).status, 404, "{path}");
    }
    let long = format!("Bearer {}", "a".repeat(64 * 1024));
    let raw = format!("GET /authz/nginx HTTP/1.1\r\nhost: a\r\nauthorization: {long}\r\n\r\n");
    let pieces = [raw.as_bytes()];
    let address = authz.port.address();
    let answer = raw_exchange(&address, &pieces, Duration::ZERO, false, Duration::from_secs(10));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    // The reasons are the operator's: in the log, by code, and counted.
    let log = authz.log();
    for code in ["malformed_token", "bad_signature", "wrong_audience", "malformed_credentials"] {
        assert!(log.contains(&format!("code=\"{code}\"")) || log.contains(code), "{code}: {log}");
        let counted = format!("outcome=\"{code}\"");
        assert!(authz.metrics().contains(&counted), "{counted}: {}", authz.metrics());
    }
    assert!(!log.contains(&forged) && !log.contains(&good), "a token was logged: {log}");
}

#[test]
fn scopes_and_audiences_are_demanded_by_the_proxy_and_only_narrow() {
    let lab = lab();
    let more = ["--scope", "read", "--audience", "https://orders.example"];
    let authz = Authz::start(&lab, &more).ready();
    let (none, read) = (token(&lab, &[]), token(&lab, &["--scope", "read"]));
    let both = token(&lab, &["--scope", "write read"]);
    let challenge = |answer: &Answer| (answer.status, answer.header("www-authenticate").to_owned());
    let missing =
        |scope: &str| (403, format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""));
    assert_eq!(challenge(&authz.nginx(&none, &[])), missing("read"));
    assert_eq!(authz.nginx(&read, &[]).status, 200);

    let scope = "x-chancery-require-scope";
    assert_eq!(challenge(&authz.nginx(&read, &[(scope, "write")])), missing("read write"));
    assert_eq!(authz.nginx(&both, &[(scope, "write")]).status, 200);
    assert_eq!(authz.nginx(&both, &[(scope, "write"), (scope, "read")]).status, 200);
    assert_eq!(authz.nginx(&both, &[(scope, "write"), (scope, "admin")]).status, 403);
    // A demand that says nothing is a mistake, and lets nobody in; nor does one replace --scope.
    assert_eq!(authz.nginx(&both, &[(scope, "")]).status, 403);
    assert_eq!(authz.nginx(&none, &[(scope, "")]).status, 403);

    let audience = "x-chancery-require-audience";
    assert_eq!(authz.nginx(&read, &[(audience, AUDIENCE)]).status, 200);
    for other in ["https://orders.example", "https://never.example", ""] {
        let answer = authz.nginx(&read, &[(audience, other)]);
        let wanted = (401, r#"Bearer error="invalid_token""#.to_owned());
        assert_eq!(challenge(&answer), wanted, "{other}");
    }
}

#[test]
fn a_claim_that_could_be_read_otherwise_makes_no_header() {
    let lab = lab();
    let authz = Authz::start(&lab, &["--headers", "subject,claims"]).ready();
    for subject in ["user:jürgen", "user:a ", "user:\u{202e}x"] {
        let token = token(&lab, &["--subject", subject]);
        let answer = authz.nginx(&token, &[]);
        assert_eq!(answer.status, 200, "{subject:?}");
        assert!(!has(&answer, "x-chancery-subject"), "{subject:?}: {answer:?}");
        let claims = b64::decode(answer.header("x-chancery-claims")).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], subject);
    }
}

#[test]
fn without_a_key_set_it_says_so_and_recovers_by_itself() {
    let mut lab = lab();
    let good = token(&lab, &[]);
    assert_eq!(lab.stop().code, Some(0));
    let mut authz = Authz::start(&lab, &[]);
    for path in ["/authz/nginx", "/authz/envoy/"] {
        let answer = authz.ask("GET", path, &[("authorization", &format!("Bearer {good}"))]);
        assert_eq!((answer.status, answer.header("retry-after")), (503, "5"), "{answer:?}");
        assert!(!has(&answer, "www-authenticate"));
    }
    assert_eq!(authz.health("/readyz"), 503);
    assert!(authz.metrics().contains("outcome=\"keys_unavailable\""), "{}", authz.metrics());
    lab.start();
    wait_until("the key set", PATIENCE, || authz.nginx(&good, &[]).status == 200);
    wait_until("readiness", PATIENCE, || authz.health("/readyz") == 200);
    // An outage of the issuer later changes nothing: the key set is kept.
    assert_eq!(lab.stop().code, Some(0));
    assert_eq!(authz.nginx(&good, &[]).status, 200);
    assert_eq!(authz.stop(), Some(0));
}

#[test]
fn with_a_log_that_is_required_a_token_is_looked_up() {
    let lab = lab();
    let authz = Authz::start(&lab, &["--log", "require", "--headers", "log"]).ready();
    let good = token(&lab, &[]);
    // The entry is published within a second; until then the answer is to try again.
    wait_until("the log", PATIENCE, || {
        let answer = authz.nginx(&good, &[]);
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        answer.status == 200 && answer.header("x-chancery-log") == "in_log"
    });
}

#[test]
fn a_unix_socket_answers_and_is_gone_afterwards() {
    let lab = lab();
    let socket = lab.folder().join("authz.sock");
    // What a process that was killed left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut authz = Authz::start_at(&lab, Some(&socket), &["--socket-mode", "600"]).ready();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let good = token(&lab, &[]);
    let mut stream = UnixStream::connect(&socket).unwrap();
    let request = format!(
        "GET /authz/nginx HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {good}\r\nconnection: \
         close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nx-chancery-issuer: http://127.0.0.1:"), "{answer}");
    assert_eq!(authz.stop(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn envoy_may_ask_over_http_2() {
    let lab = lab();
    let authz = Authz::start(&lab, &[]).ready();
    let good = token(&lab, &[]);
    let stream = tokio::net::TcpStream::connect(authz.port.address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driver = tokio::spawn(connection);
    let ask = |token: &str| {
        let builder = hyper::Request::builder().method("POST");
        let builder = builder.uri("http://api.example/authz/envoy/orders?x=y");
        let builder = builder.header("authorization", format!("Bearer {token}"));
        builder.header("content-length", "0").body(String::new()).unwrap()
    };
    assert_eq!(sender.send_request(ask(&good)).await.unwrap().status(), 200);
    assert_eq!(sender.send_request(ask("a.b.c")).await.unwrap().status(), 401);
    driver.abort();
}

#[test]
fn a_wrong_command_line_is_told_at_once() {
    let lab = Lab::new(CHANCERY);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let refused = |more: &[&str], hint: &str| {
        let port = Port::reserve();
        let mut arguments = vec!["authz", "--audience", "a"];
        let admin = port.address();
        if !more.contains(&"--admin") {
            arguments.extend(["--admin", &admin]);
        }
        if !more.contains(&"--issuer") {
            arguments.extend(["--issuer", "https://issuer.example"]);
        }
        arguments.extend(more);
        let output = lab.run_plain(&arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {told}");
        assert!(told.contains(hint), "{more:?}: {told}");
    };
    refused(&["--listen", "0.0.0.0:8430"], "run authz beside the proxy");
    refused(&["--listen", "nowhere"], "unix:PATH");
    refused(&["--listen", "unix:/nonexistent/authz.sock"], "folder must exist");
    refused(&["--listen", "unix:/dev/null"], "something else than a socket");
    refused(&["--socket-mode", "999"], "octal");
    refused(&["--profile", "lax"], "lax");
    refused(&["--headers", "subject,everything"], "everything");
    refused(&["--scope", "read write"], "one scope value");
    refused(&["--profile", "entra", "--scope", "read"], "`scp`");
    refused(&["--jwks", "/nonexistent.json"], "/nonexistent.json");
    // What could never let anybody in.
    for unread in [["--jwks", "keys.json"], ["--jwks-uri", "https://issuer.example/keys"]] {
        for demand in [["--log", "require"], ["--log", "report"], ["--anchor", "anchor.txt"]] {
            refused(&[unread, demand].concat(), "--log-at");
        }
    }
    for profile in ["oidc", "entra"] {
        for demand in [["--log", "require"], ["--log", "report"], ["--anchor", "anchor.txt"]] {
            refused(&[&["--profile", profile][..], &demand].concat(), "name no log");
        }
    }
    let (one, two) = ("https://one.example", "https://two.example");
    for headers in ["subject", "client,scope", "claims,subject"] {
        refused(&["--issuer", one, "--issuer", two, "--headers", headers], "add `issuer`");
        let tenants = ["--profile", "entra", "--issuer", "https://login.example/{tenantid}/v2.0"];
        refused(&[&tenants[..], &["--headers", headers]].concat(), "add `issuer`");
    }
    refused(&["--max-lifetime", "soon"], "or `none`");
    refused(&["--max-lifetime", "0"], "lifetime");
    refused(&["--typ", ""], "--typ");
    refused(&["--algorithm", "none"], "none");
    refused(&["--keep", "99999999"], "`keep`");
    refused(&["--jwks-uri", "http://keys.example/k"], "keys.example");
    refused(&["--jwks-uri", "https://a.example", "--jwks-uri", "https://b.example"], "1 issuers");
    refused(&["--jwks-uri", "https://a.example", "--metadata-uri", "https://b.example"], "second");
    refused(&["--jwks", "a", "--jwks", "b"], "1 issuers");
    refused(&["--anchor", "/nonexistent.anchor"], "/nonexistent.anchor");
    refused(&["--issuer", ""], "");
    refused(&["--issuer", "http://issuer.example"], "http");
    refused(&["--leeway", "100000"], "leeway");
    let file = lab.folder().join("not-a-key-set.json");
    fs::write(&file, "{}").unwrap();
    refused(&["--jwks", &file.display().to_string()], "key set");
    refused(&["--admin", &taken], "another process uses it");
    let missing = lab.run_plain(&["authz", "--audience", "a"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn requests_in_flight_are_finished_when_it_stops() {
    let lab = lab();
    let mut authz = Authz::start(&lab, &[]).ready();
    let mut kept = std::net::TcpStream::connect(authz.port.address()).unwrap();
    // Half a request: the other half comes after the signal.
    let good = token(&lab, &[]);
    kept.write_all(b"GET /authz/nginx HTTP/1.1\r\nhost: a\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    Command::new("kill").arg(authz.process.id().to_string()).status().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    kept.write_all(format!("authorization: Bearer {good}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(authz.process.wait().unwrap().code(), Some(0));
    assert!(std::net::TcpStream::connect(authz.port.address()).is_err());
}

/// A token that is signed by a stranger's key, with the `kid` of a key of the set.
#[test]
fn a_strangers_signature_is_never_let_in() {
    let lab = lab();
    let authz = Authz::start(&lab, &[]).ready();
    let good = token(&lab, &[]);
    let payload = good.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&b64::decode(payload).unwrap()).unwrap();
    let mut claims = claims.as_object().unwrap().clone();
    claims.insert("sub".into(), json!("root"));
    claims.insert("exp".into(), json!(now() + 600));
    let stranger = TestClient::new("stranger", chancery_token::Algorithm::Es256);
    let forged = stranger.sign("at+jwt", claims);
    assert_eq!(authz.nginx(&forged, &[]).status, 401);
}

/// A publisher on this machine: answers each path with its document, as long as it is asked to.
struct Publisher {
    address: String,
    documents: Arc<Mutex<HashMap<String, String>>>,
}

impl Publisher {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let documents = Arc::<Mutex<HashMap<String, String>>>::default();
        let served = documents.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                let _ = reader.read_line(&mut line);
                let mut rest = String::new();
                while reader.read_line(&mut rest).is_ok_and(|count| count > 2) {
                    rest.clear();
                }
                let path = line.split(' ').nth(1).unwrap_or_default();
                let body = served.lock().unwrap().get(path).cloned();
                let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                let body = body.unwrap_or_default();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncache-control: max-age=5\r\nconnection: close\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, documents }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn publish(&self, path: &str, document: &Value) {
        self.documents.lock().unwrap().insert(path.to_owned(), document.to_string());
    }

    fn withdraw(&self, path: &str) {
        self.documents.lock().unwrap().remove(path);
    }
}

/// A key set of one key, with these members beside its own.
fn key_set(key: &TestClient, more: &Value) -> Value {
    let mut jwk = key.jwk();
    jwk.insert("use".into(), json!("sig"));
    jwk.extend(more.as_object().unwrap().clone());
    json!({"keys": [jwk]})
}

/// A token that is good for five minutes, with these claims beside or instead.
fn foreign_token(key: &TestClient, typ: &str, more: &Value) -> String {
    let claims = json!({"aud": AUDIENCE, "sub": "u", "iat": now(), "exp": now() + 300});
    let mut claims = claims.as_object().unwrap().clone();
    claims.extend(more.as_object().unwrap().clone());
    key.sign(typ, claims)
}

/// `chancery validate` with these options: exit status, and the one JSON document.
fn validate(lab: &Lab, options: &[&str], token: &str) -> (Option<i32>, Value) {
    let base = ["validate", "--json", "--audience", AUDIENCE];
    let output = lab.run_plain(&[&base, options, &[token]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    let document = serde_json::from_slice(&output.stdout);
    (output.status.code(), document.unwrap_or_else(|_| Value::from(told)))
}

/// Tokens of version 1 name an issuer whose own metadata leads to keys that do not say whose they
/// are; those of version 2 do.
#[test]
fn key_sets_are_taken_from_where_the_operator_says() {
    let lab = Lab::new(CHANCERY);
    let publisher = Publisher::start();
    let tenant = "f8cdef31-a31e-4b4a-93e4-5f571e91255a";
    let (one, two) = (
        TestClient::new("one", chancery_token::Algorithm::Es256),
        TestClient::new("two", chancery_token::Algorithm::Es384),
    );
    let template = json!({"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"});
    publisher.publish("/v2.0/keys", &key_set(&one, &template));
    publisher.publish("/two", &key_set(&two, &template));
    let issuer = format!("https://sts.windows.net/{tenant}/");
    let token = foreign_token(&one, "JWT", &json!({"iss": issuer, "tid": tenant}));
    let keys = publisher.url("/v2.0/keys");
    let entra = ["--profile", "entra", "--issuer", &issuer, "--jwks-uri"];
    assert_eq!(validate(&lab, &[&entra[..], &[&keys]].concat(), &token).0, Some(0));
    let nowhere = validate(&lab, &[&entra[..], &[&publisher.url("/none")]].concat(), &token);
    assert_eq!((nowhere.0, &nowhere.1["valid"]), (Some(2), &Value::Null), "{nowhere:?}");

    // In the issuers' order, or by name in any; one issuer's keys are never another's.
    let other = "https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/";
    let two_keys = publisher.url("/two");
    let both = ["--profile", "entra", "--issuer", other, "--issuer", &issuer];
    let ordered = ["--jwks-uri", &two_keys, "--jwks-uri", &keys];
    assert_eq!(validate(&lab, &[&both[..], &ordered].concat(), &token).0, Some(0));
    let swapped = ["--jwks-uri", &keys, "--jwks-uri", &two_keys];
    let (code, told) = validate(&lab, &[&both[..], &swapped].concat(), &token);
    assert_eq!((code, &told["code"]), (Some(1), &json!("unknown_key")), "{told}");
    let (mine, others) = (format!("{issuer}={keys}"), format!("{other}={two_keys}"));
    let named = ["--jwks-uri", &mine, "--jwks-uri", &others];
    assert_eq!(validate(&lab, &[&both[..], &named].concat(), &token).0, Some(0));

    // Metadata that is somewhere else leads to the keys, and has to be the issuer's.
    let issuer = "https://issuer.example";
    let token = foreign_token(&one, "JWT", &json!({"iss": issuer}));
    publisher.publish("/keys", &key_set(&one, &json!({})));
    let metadata = |named: &str| json!({"issuer": named, "jwks_uri": publisher.url("/keys")});
    publisher.publish("/metadata", &metadata(issuer));
    publisher.publish("/of-other", &metadata("https://other.example"));
    let oidc = ["--profile", "oidc", "--issuer", issuer, "--metadata-uri"];
    let at = |path| validate(&lab, &[&oidc[..], &[&publisher.url(path)]].concat(), &token);
    assert_eq!(at("/metadata").0, Some(0));
    assert_eq!(at("/of-other").0, Some(2));

    let authz = ["--profile", "oidc", "--issuer", issuer, "--metadata-uri"];
    let authz = Authz::start(&lab, &[&authz[..], &[&publisher.url("/metadata")]].concat()).ready();
    assert_eq!(authz.nginx(&token, &[]).status, 200);
}

/// What is demanded beyond the profile, of both commands alike.
#[test]
fn every_demand_is_an_option_of_both_commands() {
    let lab = Lab::new(CHANCERY);
    let key = TestClient::new("key", chancery_token::Algorithm::Es256);
    let issuer = "https://issuer.example";
    let file = lab.folder().join("keys.json").display().to_string();
    fs::write(&file, key_set(&key, &json!({})).to_string()).unwrap();
    let base = ["--profile", "oidc", "--issuer", issuer, "--jwks", &file];
    let named = json!({"iss": issuer});
    let (at_jwt, id_token) =
        (foreign_token(&key, "at+jwt", &named), foreign_token(&key, "ID", &named));
    let long = foreign_token(&key, "JWT", &json!({"iss": issuer, "exp": now() + 100_000}));
    let cases: [(&[&str], &str, Option<&str>); 10] = [
        (&[], &at_jwt, None),
        (&["--max-lifetime", "299"], &at_jwt, Some("lifetime_too_long")),
        (&["--max-lifetime", "300"], &at_jwt, None),
        (&[], &long, Some("lifetime_too_long")),
        (&["--max-lifetime", "none"], &long, None),
        (&[], &id_token, Some("wrong_type")),
        (&["--typ", "other", "--typ", "id"], &id_token, None),
        (&["--typ", "id"], &at_jwt, Some("wrong_type")),
        (&["--algorithm", "ES384"], &at_jwt, Some("algorithm_not_accepted")),
        (&["--algorithm", "ES384", "--algorithm", "ES256"], &at_jwt, None),
    ];
    for (options, token, code) in cases {
        let options = [&base, options].concat();
        let (status, told) = validate(&lab, &options, token);
        let wanted = (Some(i32::from(code.is_some())), json!(code));
        assert_eq!((status, told["code"].clone()), wanted, "{options:?}: {told}");
    }
    // The same options, told to authz.
    let options = ["--max-lifetime", "300", "--typ", "at+jwt", "--algorithm", "ES256"];
    let more = ["--allow-missing-typ=false", "--accept-eddsa", "--keep", "60"];
    let authz = Authz::start(&lab, &[&base[..], &options, &more].concat()).ready();
    assert_eq!(authz.nginx(&at_jwt, &[]).status, 200);
    for bad in [&id_token, &long] {
        assert_eq!(authz.nginx(bad, &[]).status, 401);
    }
    // A token without `typ` and one that says EdDSA, which TestClient does not write.
    let ed = chancery_token::Algorithm::Ed25519;
    let key = TestClient::new("ed", ed);
    fs::write(&file, key_set(&key, &json!({})).to_string()).unwrap();
    let payload = foreign_token(&key, "x", &named).split('.').nth(1).unwrap().to_owned();
    let header = |more: Value| {
        let mut header = json!({"kid": key.jwk()["kid"]}).as_object().unwrap().clone();
        header.extend(more.as_object().unwrap().clone());
        let header = b64::encode(Value::Object(header).to_string().as_bytes());
        format!("{header}.{payload}.{}", "A".repeat(86))
    };
    let code = |options: &[&str], token: &str| {
        validate(&lab, &[&base[..], options].concat(), token).1["code"].clone()
    };
    // The signature, which comes after both checks, is what is wrong then.
    let untyped = header(json!({"alg": "Ed25519"}));
    assert_eq!(code(&[], &untyped), "bad_signature");
    assert_eq!(code(&["--allow-missing-typ=false"], &untyped), "wrong_type");
    let strict = ["--profile", "strict", "--issuer", issuer, "--jwks", &file];
    let strict = |more: &[&str]| validate(&lab, &[&strict[..], more].concat(), &untyped).1;
    assert_eq!(strict(&[])["code"], "wrong_type");
    assert_ne!(strict(&["--allow-missing-typ"])["code"], "wrong_type");
    let old_name = header(json!({"alg": "EdDSA", "typ": "JWT"}));
    assert_eq!(code(&[], &old_name), "algorithm_not_of_key");
    assert_eq!(code(&["--accept-eddsa"], &old_name), "bad_signature");
}

/// Also after the first success.
#[test]
fn the_log_tells_when_a_key_set_fails_and_when_it_is_back() {
    let lab = Lab::new(CHANCERY);
    let publisher = Publisher::start();
    let key = TestClient::new("key", chancery_token::Algorithm::Es256);
    let keys = key_set(&key, &json!({}));
    let issuer = ["--profile", "oidc", "--issuer", "https://issuer.example", "--jwks-uri"];
    let url = publisher.url("/keys");
    let authz = Authz::start(&lab, &[&issuer[..], &[&url]].concat());
    wait_until("the first failure", PATIENCE, || authz.log().contains("tokens cannot be judged"));
    publisher.publish("/keys", &keys);
    wait_until("the key set", PATIENCE, || authz.log().contains("the key set is there"));
    assert!(!authz.log().contains("the last good one is used"), "{}", authz.log());
    publisher.withdraw("/keys");
    wait_until("the failure", PATIENCE, || authz.log().contains("the last good one is used"));
    let log = authz.log();
    let line = log.lines().find(|line| line.contains("the last good one")).unwrap();
    assert!(line.contains("404") && line.contains("https://issuer.example"), "{line}");
    publisher.publish("/keys", &keys);
    wait_until("the key set", PATIENCE, || {
        authz.log().matches("the key set is there").count() == 2
    });
}

/// A path that the HTTP parser refuses costs its own connection, and nobody else's.
#[test]
fn a_path_that_is_none_ends_no_connection_but_its_own() {
    let lab = lab();
    let authz = Authz::start(&lab, &[]).ready();
    let good = token(&lab, &[]);
    let question = format!(
        "POST /authz/envoy/ HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {good}\r\n\
         content-length: 0\r\n\r\n"
    );
    let mut kept = std::net::TcpStream::connect(authz.port.address()).unwrap();
    let mut ask_kept = || {
        kept.write_all(question.as_bytes()).unwrap();
        let mut answer = [0; 12];
        kept.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = [0; 4096];
        let count = kept.read(&mut rest).unwrap();
        assert!(rest[..count].ends_with(b"\r\n\r\n"));
    };
    ask_kept();
    for path in ["<", ">x", "`", "?a=\"", "\u{7f}"].iter().cycle().take(120) {
        let raw = question.replace("/authz/envoy/", &format!("/authz/envoy/{path}"));
        let pieces = [raw.as_bytes()];
        let within = Duration::from_secs(10);
        let answer = raw_exchange(&authz.port.address(), &pieces, Duration::ZERO, false, within);
        assert!(answer.starts_with("HTTP/1.1 400"), "{path:?}: {answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{path:?}: {answer}");
    }
    ask_kept();
}
