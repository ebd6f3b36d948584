//! Every command, with its output for people and programs and its exit codes: 0 success, 1 a "no"
//! as an answer, 2 a failure to find out.

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chancery_testkit::{ClientText, Lab, RealmText, TestClient, WebLog, grant, now, wait_until};
use chancery_tlog::TlogProof;
use chancery_token::Algorithm;
use serde_json::{Value, json};

const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");
const AUDIENCE: &str = "https://api.example";

fn lab() -> Lab {
    let mut lab = Lab::new(CHANCERY);
    lab.start();
    lab
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn document(output: &Output) -> Value {
    let text = out(output);
    assert_eq!(text.lines().count(), 1, "one JSON document: {text}{}", err(output));
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", out(output), err(output));
}

fn a_token(lab: &Lab) -> String {
    let output = lab.run(&["token", "--realm", "consumers", "--audience", AUDIENCE]);
    assert_code(&output, 0);
    out(&output).trim_end().to_owned()
}

fn validate(lab: &Lab, more: &[&str], token: &str) -> Output {
    let issuer = lab.issuer("consumers");
    let mut arguments = vec!["validate", "--issuer", &issuer];
    if !more.contains(&"--audience") {
        arguments.extend(["--audience", AUDIENCE]);
    }
    arguments.extend(more);
    arguments.push(token);
    lab.run_plain(&arguments)
}

#[test]
fn help_names_every_command_and_shows_examples() {
    let lab = Lab::new(CHANCERY);
    let help = lab.run_plain(&["--help"]);
    assert_code(&help, 0);
    for command in [
        "serve",
        "token",
        "assertion",
        "validate",
        "authz",
        "prove",
        "log",
        "attest",
        "keys",
        "config",
        "bench",
    ] {
        assert!(out(&help).contains(&format!("\n  {command} ")), "{command}: {}", out(&help));
    }
    for command in
        [&["token"][..], &["assertion"], &["validate"], &["authz"], &["prove"], &["log", "check"]]
    {
        let help = lab.run_plain(&[command, &["--help"]].concat());
        assert_code(&help, 0);
        assert!(out(&help).contains("Example"), "{command:?}: {}", out(&help));
    }
    let version = lab.run_plain(&["--version"]);
    assert!(out(&version).starts_with("chancery "), "{}", out(&version));
    for wrong in [&["nonsense"][..], &["serve", "--nonsense"], &[], &["validate"], &["keys"]] {
        assert_code(&lab.run_plain(wrong), 2);
    }
}

#[test]
fn tokens_are_printed_with_proof_or_as_json() {
    let lab = lab();
    let ask = |more: &[&str]| {
        let base = ["token", "--realm", "consumers", "--audience", AUDIENCE];
        lab.run(&[&base, more].concat())
    };
    let plain = ask(&[]);
    assert_code(&plain, 0);
    assert_eq!(out(&plain).lines().count(), 1);
    assert_eq!(out(&plain).split('.').count(), 3);

    let proved = ask(&["--proof"]);
    let text = out(&proved);
    let (token, proof) = text.split_once('\n').unwrap();
    assert_eq!(token.split('.').count(), 3);
    TlogProof::parse(proof).unwrap();

    let full = ask(&[
        "--json",
        "--subject",
        "user:1",
        "--scope",
        "read",
        "--lifetime",
        "60",
        "--alg",
        "Ed25519",
    ]);
    let issued = document(&full);
    assert_eq!((&issued["expires_in"], &issued["scope"]), (&60.into(), &"read".into()));
    let judged = validate(&lab, &["--json"], issued["access_token"].as_str().unwrap());
    assert_code(&judged, 0);
    let claims = &document(&judged)["claims"];
    assert_eq!(claims["sub"], "user:1");

    for (more, code) in [
        (&["--subject", "root"][..], "subject_not_granted"),
        (&["--scope", "admin"], "scope_not_granted"),
        (&["--lifetime", "999999"], "lifetime_not_granted"),
        (&["--alg", "none"], "algorithm_not_granted"),
    ] {
        let refused = ask(more);
        assert_code(&refused, 1);
        assert!(out(&refused).is_empty());
        assert!(err(&refused).starts_with(&format!("refused: {code}: ")), "{}", err(&refused));
    }
    let nowhere = lab.run(&["token", "--realm", "nowhere", "--audience", AUDIENCE]);
    assert_code(&nowhere, 2);
    assert!(err(&nowhere).contains("no realm `nowhere`"), "{}", err(&nowhere));
    let nobody =
        lab.run_plain(&["token", "--realm", "r", "--audience", "a", "--data", "/nonexistent"]);
    assert_code(&nobody, 2);
    assert!(err(&nobody).contains("start `chancery serve`"), "{}", err(&nobody));
}

#[test]
fn an_assertion_is_all_that_plain_curl_needs() {
    let lab = lab();
    let output = lab.run(&["assertion", "--realm", "organizations"]);
    assert_code(&output, 0);
    let form = TestClient::form(out(&output).trim_end(), "");
    let url = format!("{}/organizations/token", lab.url());
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let answer = lab.web.send("POST", &url, &[kind], form.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_configured_client_brings_its_own_key() {
    let mut lab = Lab::new(CHANCERY);
    let client = TestClient::new("billing", Algorithm::Es384);
    let clients = vec![ClientText::new(&client, "", &[grant("g", &[AUDIENCE], "")])];
    lab.configure("", &[RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients }]);
    lab.start();
    let key = lab.folder().join("billing.pem").display().to_string();
    client.save(Path::new(&key));
    let ask = ["token", "--realm", "r", "--audience", AUDIENCE, "--client", "billing", "--key"];
    assert_code(&lab.run(&[&ask[..], &[&key]].concat()), 0);
    let missing = lab.run(&[&ask[..], &["/nonexistent.pem"]].concat());
    assert_code(&missing, 2);
    assert!(err(&missing).contains("/nonexistent.pem"), "{}", err(&missing));
    TestClient::new("billing", Algorithm::Es384).save(Path::new(&key));
    let wrong = lab.run(&[&ask[..], &[&key]].concat());
    assert_code(&wrong, 1);
    assert!(err(&wrong).contains("unknown_client_key"), "{}", err(&wrong));
}

#[test]
fn validate_says_yes_no_or_cannot_tell() {
    let lab = lab();
    let token = a_token(&lab);
    assert_code(&validate(&lab, &[], &token), 0);
    let required = validate(&lab, &["--log", "require", "--json"], &token);
    assert_code(&required, 0);
    let report = document(&required);
    assert_eq!(report["valid"], true);
    let steps = report["steps"].as_array().unwrap();
    let log = steps.iter().find(|s| s["check"] == "log").unwrap();
    assert_eq!(log["passed"], true, "{log}");
    assert!(steps.iter().any(|s| s["check"] == "signature"), "{report}");

    let no = |output: &Output, code: &str| {
        assert_code(output, 1);
        let report = document(output);
        assert_eq!((&report["valid"], &report["code"]), (&false.into(), &code.into()), "{report}");
    };
    no(
        &validate(&lab, &["--json", "--audience", "https://other.example"], &token),
        "wrong_audience",
    );
    let late = (now() + 3_700).to_string();
    no(&validate(&lab, &["--json", "--at", &late], &token), "expired");
    no(&validate(&lab, &["--json"], "a.b.c"), "malformed_token");
    let (head, _) = token.rsplit_once('.').unwrap();
    no(&validate(&lab, &["--json"], &format!("{head}.{}", "A".repeat(86))), "bad_signature");
    let words = validate(&lab, &["--at", &late], &token);
    assert_code(&words, 1);
    assert!(out(&words).contains("\nrejected: expired: "), "{}", out(&words));

    let issuer = lab.issuer("consumers");
    let base = ["validate", "--issuer", &issuer, "--audience", AUDIENCE];
    let piped = lab.run_with_input(&[&base[..], &["-"]].concat(), &format!("{token}\n"));
    assert_code(&piped, 0);

    // Offline, by a file, the service gone.
    let file = lab.folder().join("jwks.json").display().to_string();
    let keys = lab.web.get(&format!("{}/consumers/jwks.json", lab.url())).body;
    fs::write(&file, keys).unwrap();
    let mut lab = lab;
    assert_eq!(lab.stop().code, Some(0));
    assert_code(&validate(&lab, &["--jwks", &file], &token), 0);
    let folder = lab.data().join("store/log").join(lab.stored_logs().pop().unwrap());
    let folder = folder.display().to_string();
    let by_folder =
        validate(&lab, &["--jwks", &file, "--log", "require", "--log-at", &folder], &token);
    assert_code(&by_folder, 0);
    assert_code(&validate(&lab, &[], &token), 2);
    assert_code(&validate(&lab, &["--jwks", "/nonexistent"], &token), 2);
    // What the log says is not known: neither yes nor no, as without a key set.
    let nowhere = lab.folder().join("no-log").display().to_string();
    let asked = ["--jwks", &file, "--log-at", &nowhere, "--log"];
    let unknown = validate(&lab, &[&asked[..], &["require", "--json"]].concat(), &token);
    assert_code(&unknown, 2);
    let report = document(&unknown);
    assert_eq!((&report["valid"], &report["code"]), (&Value::Null, &"log_unknown".into()));
    let step = report["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&step["check"], &step["passed"]), (&"log".into(), &false.into()), "{step}");
    assert!(step.get("counts").is_none(), "{step}");
    let unknown = validate(&lab, &[&asked[..], &["require"]].concat(), &token);
    assert!(out(&unknown).contains("\nFAILED log "), "{}", out(&unknown));
    assert!(!out(&unknown).contains("rejected"), "{}", out(&unknown));
    // What was only to be reported is noted, and decides nothing.
    let noted = validate(&lab, &[&asked[..], &["report"]].concat(), &token);
    assert_code(&noted, 0);
    assert!(out(&noted).contains("\nnoted  log "), "{}", out(&noted));
    assert!(!out(&noted).contains("FAILED"), "{}", out(&noted));
    let noted = document(&validate(&lab, &[&asked[..], &["report", "--json"]].concat(), &token));
    let step = noted["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&step["passed"], &step["counts"]), (&false.into(), &false.into()), "{step}");
    let blind = validate(&lab, &["--jwks", &file, "--log", "report"], &token);
    assert_code(&blind, 2);
    assert!(err(&blind).contains("--log-at"), "{}", err(&blind));
}

#[test]
fn validate_takes_issuers_profiles_anchors_and_evidence() {
    let lab = lab();
    let token = a_token(&lab);
    let other = lab.issuer("organizations");
    let code = |output: &Output, status: i32| {
        assert_code(output, status);
        document(output)["code"].clone()
    };
    // Of several issuers and audiences one has to be the token's.
    let several = ["--issuer", &other, "--audience", "https://a.example", "--audience", AUDIENCE];
    assert_code(&validate(&lab, &several, &token), 0);
    let base = ["validate", "--audience", AUDIENCE, "--json"];
    let without = lab.run_plain(&[&base[..], &["--issuer", &other, &token]].concat());
    assert_eq!(code(&without, 1), "unknown_key");
    let oidc = validate(&lab, &["--profile", "oidc", "--json"], &token);
    assert_code(&oidc, 0);
    assert_eq!(document(&oidc)["claims"]["aud"], AUDIENCE);
    assert_code(&validate(&lab, &["--profile", "lax"], &token), 2);

    // The anchor is a log's verifier key; one that did not announce the key is another log's.
    let anchor = lab.folder().join("anchor");
    let with_anchor = |text: &str| {
        fs::write(&anchor, text).unwrap();
        validate(&lab, &["--anchor", &anchor.display().to_string(), "--json"], &token)
    };
    let key = WebLog::new(&lab.web, format!("{}/log/{}", lab.url(), lab.log_id())).key();
    wait_until("the published announcement", Duration::from_secs(20), || {
        with_anchor(&format!("# the deployment's log\n{key}\n")).status.success()
    });
    let foreign = {
        let mut other = Lab::new(CHANCERY);
        other.start();
        WebLog::new(&other.web, format!("{}/log/{}", other.url(), other.log_id())).key()
    };
    assert_eq!(code(&with_anchor(&foreign.to_string()), 1), "key_not_announced");
    let nonsense = with_anchor("nonsense");
    assert_code(&nonsense, 2);
    assert!(err(&nonsense).contains("anchor"), "{}", err(&nonsense));

    let noted = validate(&lab, &["--attestation", "report"], &token);
    assert_code(&noted, 0);
    assert!(out(&noted).contains("\nnoted  attestation "), "{}", out(&noted));
    let required = validate(&lab, &["--attestation", "require", "--json"], &token);
    assert_eq!(code(&required, 1), "attestation_unknown");

    // Without a key set nothing is said about the token, in words or as JSON.
    let mut lab = lab;
    assert_eq!(lab.stop().code, Some(0));
    let unjudged = validate(&lab, &["--json"], &token);
    assert_eq!(code(&unjudged, 2), "keys_unavailable");
    assert_eq!(document(&unjudged)["valid"], Value::Null);
    assert!(err(&unjudged).contains("/consumers"), "{}", err(&unjudged));
    let plain = validate(&lab, &[], &token);
    assert_code(&plain, 2);
    assert!(!out(&plain).contains("rejected"), "{}", out(&plain));
    // What is no token is none, key set or not.
    assert_eq!(code(&validate(&lab, &["--json"], "a.b.c"), 1), "malformed_token");
}

#[test]
fn prove_proves_what_is_there_and_nothing_else() {
    let lab = lab();
    let token = a_token(&lab);
    let id = lab.log_id();
    let key = WebLog::new(&lab.web, format!("{}/log/{id}", lab.url())).key();
    let url = lab.url();
    let by_url = lab.run_plain(&["prove", "--url", &url, &token]);
    let by_data = lab.run(&["prove", &token]);
    for output in [&by_url, &by_data] {
        assert_code(output, 0);
        let proof = TlogProof::parse(out(output)).unwrap();
        assert_eq!(key.name().rsplit('/').next(), Some(id.as_str()));
        assert!(proof.checkpoint.contains(key.name()));
    }
    // Another lifetime at the same address: the log holds another leaf there.
    let parts: Vec<&str> = token.split('.').collect();
    let payload = chancery_token::b64::decode(parts[1]).unwrap();
    let mut claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["exp"] = (claims["exp"].as_u64().unwrap() + 1).into();
    let payload = chancery_token::b64::encode(claims.to_string().as_bytes());
    let forged = format!("{}.{payload}.{}", parts[0], parts[2]);
    let refused = lab.run_plain(&["prove", "--url", &url, &forged]);
    assert_code(&refused, 1);
    assert!(err(&refused).contains("not proved"), "{}", err(&refused));
    // Of a `jti` that is no address the log is asked by digest.
    claims["jti"] = "0d1c6b0e-4c1c-4b26-9d3a-6f4f6a1b2c3d".into();
    let payload = chancery_token::b64::encode(claims.to_string().as_bytes());
    let foreign = format!("{}.{payload}.{}", parts[0], parts[2]);
    for more in [&[][..], &["--log", &id]] {
        let arguments = [&["prove", "--url", &url][..], more, &[&foreign]].concat();
        let absent = lab.run_plain(&arguments);
        assert_code(&absent, 1);
        assert!(err(&absent).contains("not among its first"), "{}", err(&absent));
        assert!(err(&absent).contains("no log that was searched"), "{}", err(&absent));
    }
    // Of a `jti` that is nearly one, too: the signer refuses only what is one.
    claims["jti"] = format!("{id}.0.x").into();
    let payload = chancery_token::b64::encode(claims.to_string().as_bytes());
    let nearly = format!("{}.{payload}.{}", parts[0], parts[2]);
    let absent = lab.run_plain(&["prove", "--url", &url, &nearly]);
    assert_code(&absent, 1);
    assert!(err(&absent).contains("not among its first"), "{}", err(&absent));
    for stranger in ["AAAAAAAAAAAAAAAAAAAAAA", "-AAAAAAAAAAAAAAAAAAAAA"] {
        let asked = lab.run_plain(&["prove", "--url", &url, "--log", stranger, &foreign]);
        assert_code(&asked, 2);
        assert!(!err(&asked).contains("unexpected argument"), "{}", err(&asked));
    }
    for nonsense in ["", "a.b.c", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"] {
        assert_code(&lab.run_plain(&["prove", "--url", &url, nonsense]), 2);
    }
    let piped = lab.run_with_input(&["prove", "--url", &url, "-"], &token);
    assert_code(&piped, 0);
}

/// The service as it is, but for what it says where a leaf stands.
fn lying(lab: &Lab, says: impl Fn() -> (u16, String) + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (web, true_url) = (chancery_testkit::Web::new(), lab.url());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
            let mut header = String::from("-");
            while !header.trim().is_empty() {
                header.clear();
                std::io::BufRead::read_line(&mut reader, &mut header).unwrap();
            }
            let path = line.split(' ').nth(1).unwrap();
            let (status, body) = if path.contains("/by-digest/") {
                says()
            } else {
                let answer = web.get(&format!("{true_url}{path}"));
                (answer.status, answer.text())
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    url
}

/// What was not searched is not found out, and neither is what a lie hides.
#[test]
fn prove_says_no_only_where_the_whole_log_of_the_key_was_searched() {
    let lab = lab();
    let parts: Vec<String> = a_token(&lab).split('.').map(str::to_owned).collect();
    let of = |part: &str| -> Value {
        serde_json::from_slice(&chancery_token::b64::decode(part).unwrap()).unwrap()
    };
    let spelled = |value: &Value| chancery_token::b64::encode(value.to_string().as_bytes());
    let (mut header, mut claims) = (of(&parts[0]), of(&parts[1]));
    claims["jti"] = "0d1c6b0e-4c1c-4b26-9d3a-6f4f6a1b2c3d".into();
    let foreign = format!("{}.{}.{}", parts[0], spelled(&claims), parts[2]);
    for (status, says, code, why) in [
        (404, r#"{"searched":1}"#, 2, "only the first 1 of its"),
        (200, r#"{"index":0}"#, 2, "and it is not"),
        (501, "{}", 2, "HTTP 501"),
        (404, "nothing here", 2, "HTTP 404"),
        (404, r#"{"searched":1000000}"#, 1, "no log that was searched"),
    ] {
        let url = lying(&lab, move || (status, says.to_owned()));
        let refused = lab.run_plain(&["prove", "--url", &url, &foreign]);
        assert_code(&refused, code);
        assert!(err(&refused).contains(why), "{}", err(&refused));
    }
    // In logs of other keys it is not to be expected.
    header["kid"] = chancery_token::b64::encode(&[7; 32]).into();
    let stranger = format!("{}.{}.{}", spelled(&header), spelled(&claims), parts[2]);
    let unknown = lab.run_plain(&["prove", "--url", &lab.url(), &stranger]);
    assert_code(&unknown, 2);
    assert!(err(&unknown).contains("no signer of this service"), "{}", err(&unknown));
    let named = ["prove", "--url", &lab.url(), "--log", &lab.log_id(), &stranger];
    assert_code(&lab.run_plain(&named), 1);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_below(&path)),
            path => files.push(path),
        }
    }
    files
}

#[test]
fn log_check_finds_every_changed_byte() {
    let mut lab = lab();
    let client = lab.demo();
    let many = lab.issue(&client, "consumers", vec![json!({"aud": AUDIENCE}); 250]);
    assert_eq!(many.status, 200);
    let id = lab.log_id();
    let url = format!("{}/log/{id}", lab.url());
    let good = lab.run_plain(&["log", "check", &url, "--json"]);
    assert_code(&good, 0);
    let report = document(&good);
    assert_eq!((&report["ok"], &report["tokens"]), (&true.into(), &250.into()), "{report}");
    assert!(report["size"].as_u64().unwrap() > 256);
    assert_eq!(lab.stop().code, Some(0));

    let original = lab.data().join("store/log").join(&id);
    let copies = lab.folder().join("copies");
    fs::create_dir(&copies).unwrap();
    let copy = copies.join(&id);
    let status = Command::new("cp").arg("-a").arg(&original).arg(&copy).status().unwrap();
    assert!(status.success());
    let check = || lab.run_plain(&["log", "check", &copy.display().to_string()]);
    assert_code(&check(), 0);
    for file in files_below(&copy) {
        let name = file.strip_prefix(&copy).unwrap().display().to_string();
        // Not part of the log: the signer's own key set has its own signature, the log has digests of
        // the evidence and of how it was judged, and the rest are notes of the service.
        let beside =
            ["keys.jwt", "evidence", "attestation-result", "closing.json", "ledger-summary"];
        if beside.contains(&name.as_str()) {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for damaged in [Some(changed), Some(bytes[..middle].to_vec()), None] {
            match &damaged {
                Some(damaged) => fs::write(&file, damaged).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let output = check();
            let code = output.status.code();
            // What is missing altogether leaves it unknown, unless the rest is known to need it.
            // A second signature that was never made is told of, and breaks nothing.
            let may_lack = damaged.is_none() && name == "checkpoint.cosigned";
            let expected = match &damaged {
                Some(_) => &[1][..],
                None if may_lack => &[0],
                None => &[1, 2],
            };
            assert!(code.is_some_and(|c| expected.contains(&c)), "{name}: {code:?}: {output:?}");
        }
        fs::write(&file, &bytes).unwrap();
    }
    assert_code(&check(), 0);
    assert_code(&lab.run_plain(&["log", "check", "/nonexistent"]), 2);
}

#[test]
fn log_check_goes_on_where_it_was() {
    let lab = lab();
    let client = lab.demo();
    let issue = |count: usize| {
        let answer = lab.issue(&client, "consumers", vec![json!({"aud": AUDIENCE}); count]);
        assert_eq!(answer.status, 200);
    };
    issue(250);
    let url = format!("{}/log/{}", lab.url(), lab.log_id());
    let file = lab.folder().join("checked").display().to_string();
    let check =
        |url: &str, file: &str| lab.run_plain(&["log", "check", url, "--json", "--resume", file]);
    let first = check(&url, &file);
    assert_code(&first, 0);
    assert_eq!(document(&first)["checked_before"], 0);
    issue(250);
    let second = check(&url, &file);
    assert_code(&second, 0);
    let report = document(&second);
    assert_eq!((&report["checked_before"], &report["tokens"]), (&256.into(), &500.into()));
    // Read from the store, a second later, it is the same log.
    wait_until("publishing", Duration::from_secs(20), || {
        let size = |text: &str| text.lines().nth(1).and_then(|l| l.parse().ok()).unwrap_or(0_u64);
        let stored = lab.data().join("store/log").join(lab.log_id()).join("checkpoint");
        size(&fs::read_to_string(stored).unwrap_or_default()) >= report["size"].as_u64().unwrap()
    });
    let folder = lab.data().join("store/log").join(lab.log_id()).display().to_string();
    assert_code(&check(&folder, &file), 0);

    let plain = lab.run_plain(&["log", "check", &url, "--resume", &file]);
    assert_code(&plain, 0);
    // Whole bundles of 256; how many entries the start of a signer makes is not counted here.
    let said = out(&plain);
    let before = ["256", "512"].map(|before| format!("of which {before} were checked before"));
    assert!(before.iter().any(|before| said.contains(before)), "{said}");
    let other = self::lab();
    let other_url = format!("{}/log/{}", other.url(), other.log_id());
    let refused = check(&other_url, &file);
    assert_code(&refused, 2);
    assert!(err(&refused).contains("it is about the log"), "{}", err(&refused));
    fs::write(&file, "nonsense").unwrap();
    assert_code(&check(&url, &file), 2);
    assert_eq!(fs::read_to_string(&file).unwrap(), "nonsense");
}

#[test]
fn log_check_of_a_folder_follows_a_log_that_grows() {
    let lab = lab();
    let client = lab.demo();
    let folder = lab.data().join("store/log").join(lab.log_id());
    wait_until("publishing", Duration::from_secs(20), || folder.join("checkpoint").is_file());
    let folder = folder.display().to_string();
    let done = AtomicBool::new(false);
    let outputs = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = lab.issue(&client, "consumers", vec![json!({"aud": AUDIENCE}); 40]);
            }
        });
        // Over some rounds of publishing, each of which deletes the last one's partial tiles.
        let until = Instant::now() + Duration::from_secs(4);
        let mut outputs = Vec::new();
        while Instant::now() < until {
            outputs.push(lab.run_plain(&["log", "check", &folder, "--json"]));
        }
        done.store(true, Ordering::Relaxed);
        outputs
    });
    for output in &outputs {
        assert_code(output, 0);
    }
    let sizes: Vec<u64> = outputs.iter().map(|o| document(o)["size"].as_u64().unwrap()).collect();
    assert!(sizes.is_sorted() && sizes.first() < sizes.last(), "{sizes:?}");
}

#[test]
fn log_check_saves_what_it_checked_on_ctrl_c() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::process::{Pid, Signal, kill_process};
    let mut lab = lab();
    let client = lab.demo();
    for _ in 0..4 {
        let wanted = vec![json!({"aud": AUDIENCE}); 200];
        assert_eq!(lab.issue(&client, "consumers", wanted).status, 200);
    }
    let log = lab.data().join("store/log").join(lab.log_id());
    assert_eq!(lab.stop().code, Some(0));
    // A bundle that lets the reader wait until the test has its way.
    let bundle = log.join("tile/entries/001");
    let bytes = fs::read(&bundle).unwrap();
    fs::remove_file(&bundle).unwrap();
    mknodat(CWD, &bundle, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let file = lab.folder().join("checked");
    let arguments = ["log", "check", &log.display().to_string(), "--resume"].map(str::to_owned);
    let mut command = Command::new(CHANCERY);
    command.args(arguments).arg(&file).stderr(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // The file is written once when the walk begins.
    wait_until("the walk", Duration::from_secs(20), || file.is_file());
    // Opened for writing, it has its reader: the walk is in the middle.
    let mut pipe = File::options().write(true).open(&bundle).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    // The signal is taken by a thread of its own.
    std::thread::sleep(Duration::from_millis(300));
    pipe.write_all(&bytes).unwrap();
    drop(pipe);
    let ended = child.wait_with_output().unwrap();
    assert_code(&ended, 2);
    assert!(err(&ended).contains("interrupted at"), "{}", err(&ended));
    assert!(err(&ended).contains("--resume"), "{}", err(&ended));

    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, &bytes).unwrap();
    let (log, file) = (log.display().to_string(), file.display().to_string());
    let again = lab.run_plain(&["log", "check", &log, "--json", "--resume", &file]);
    assert_code(&again, 0);
    let report = document(&again);
    assert!(report["checked_before"].as_u64().unwrap() >= 256, "{report}");
    assert_eq!(report["tokens"], 800);
}

#[test]
fn keys_are_listed_rotated_and_declared_compromised() {
    let lab = lab();
    let listed = lab.run(&["keys", "list", "--json"]);
    assert_code(&listed, 0);
    let document_of = document(&listed);
    assert_eq!(document_of["log_id"], lab.log_id());
    let keys = document_of["keys"].as_array().unwrap();
    let active = keys
        .iter()
        .find(|k| k["realm"] == "consumers" && k["algorithm"] == "ES256" && k["state"] == "active")
        .unwrap_or_else(|| panic!("{document_of}"));
    let kid = active["kid"].as_str().unwrap();
    let table = out(&lab.run(&["keys", "list"]));
    assert!(table.contains(kid) && table.starts_with("realm"), "{table}");

    let rotated = lab.run(&["keys", "rotate", "consumers", "--json"]);
    assert_code(&rotated, 0);
    let starts = document(&rotated)["rotating"].clone();
    let es256 = starts.as_array().unwrap().iter().find(|s| s["algorithm"] == "ES256").unwrap();
    // After the lead of development mode, counted from the commit of the announcement.
    assert!(es256["active_from"].as_u64().unwrap() >= now() + 295, "{starts}");
    wait_until("the successor", Duration::from_secs(20), || {
        let listed = document(&lab.run(&["keys", "list", "--json"]));
        let pending = |k: &&Value| k["algorithm"] == "ES256" && k["state"] == "pending";
        listed["keys"].as_array().unwrap().iter().any(|k| pending(&k))
    });

    let compromise = |kid: &str, reason: &str| {
        lab.run(&["keys", "compromise", kid, "--reason", reason, "--json"])
    };
    for (kid, reason) in [("nonsense", "x"), (kid, ""), (kid, &"x".repeat(5_000))] {
        let refused = compromise(kid, reason);
        assert_code(&refused, 2);
        assert!(!err(&refused).is_empty());
    }
    let done = compromise(kid, "found in a backup");
    assert_code(&done, 0);
    let answer = document(&done);
    assert_eq!(answer["stored"], true);
    assert!(answer["gone"].as_array().unwrap().iter().any(|k| k == kid), "{answer}");
    let table = out(&lab.run(&["keys", "list"]));
    assert!(!table.contains(kid), "{table}");
    let nobody = lab.run_plain(&["keys", "list", "--data", "/nonexistent"]);
    assert_code(&nobody, 2);
}

#[test]
fn configurations_are_checked_without_starting_anything() {
    let mut lab = Lab::new(CHANCERY);
    let client = TestClient::new("c", Algorithm::Es256);
    let clients = || vec![ClientText::new(&client, "", &[grant("g", &[AUDIENCE], "")])];
    lab.configure(
        "",
        &[RealmText { name: "r", algorithms: &["ES256"], schedule: "", clients: clients() }],
    );
    let file = lab.config_file().display().to_string();
    let check = |more: &[&str]| lab.run_plain(&[&["config", "check", &file][..], more].concat());
    let good = check(&[]);
    assert_code(&good, 0);
    assert!(out(&good).contains("is valid"), "{}", out(&good));
    let report = document(&check(&["--json"]));
    assert_eq!(report["valid"], true);
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|w| w.as_str().unwrap().contains("not https")), "{report}");

    let text = fs::read_to_string(&file).unwrap();
    let wrong = [
        (text.replace("base_url", "base_urll"), "base_url"),
        (text.replace("ES256", "HS256"), "HS256"),
        (text.replace("[realms.schedule]", "[realms.schedule]\nrotate_every_s = 1"), "64"),
        (text.replace("\"r\"", "\"signers\""), "reserved"),
        (text.replace("listen = \"", "listen = \"nowhere"), "listen"),
        (format!("{text}\n[[realms]]\n"), "missing"),
    ];
    for (text, hint) in wrong {
        fs::write(&file, text).unwrap();
        let refused = check(&[]);
        assert_code(&refused, 1);
        assert!(err(&refused).contains(hint), "{hint}: {}", err(&refused));
        let report = check(&["--json"]);
        assert_code(&report, 1);
        let report = document(&report);
        assert_eq!(report["valid"], false);
        assert!(report["error"].as_str().unwrap().contains(hint), "{report}");
    }
    let missing = lab.run_plain(&["config", "check", "/nonexistent.toml"]);
    assert_code(&missing, 2);
    assert!(!lab.data().exists());
}
