//! The real process: its sandbox, its socket, and peers that misbehave.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{AUDIENCE, Client, assertion_of, codes, request};
use chancery_entry::Entry;
use chancery_policy::PolicyDocument;
use chancery_signer_api::*;
use chancery_token::{Algorithm, PublicKey, jws};
use serde_json::{Value, json};

/// Long enough for a loaded machine, short enough not to hang a suite.
const PATIENCE: Duration = Duration::from_secs(20);

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chancery-signer"))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A signer process, ended with the test.
struct Process {
    child: Child,
    dir: PathBuf,
}

impl Process {
    fn start(name: &str, alone_s: u64) -> Self {
        Self::start_by(binary(), name, alone_s)
    }

    /// By a command that ends with the signer's binary.
    fn start_by(mut command: Command, name: &str, alone_s: u64) -> Self {
        let dir =
            std::env::temp_dir().join(format!("chancery-signer-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let child = command
            .arg("--socket")
            .arg(dir.join("signer.sock"))
            .args(["--alone-seconds", &alone_s.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, dir };
        let begun = Instant::now();
        while !process.socket().exists() {
            assert!(begun.elapsed() < PATIENCE, "no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        process
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("signer.sock")
    }

    fn connect(&self) -> Peer {
        // The socket's file is there a moment before the signer listens.
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(self.socket()) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    assert!(begun.elapsed() < PATIENCE, "{e}");
                    std::thread::sleep(Duration::from_millis(5));
                }
                connected => break connected.unwrap(),
            }
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        Peer { stream, inbox: FrameBuffer::default() }
    }

    fn exit(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the signer does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A line of the kernel's report on the process.
    fn proc_line(&self, file: &str, start: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().find(|l| l.starts_with(start)).unwrap_or_default().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Peer {
    stream: UnixStream,
    inbox: FrameBuffer,
}

impl Peer {
    fn send(&mut self, request: &Request) {
        let mut frame = Vec::new();
        encode(request, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    /// The next answer, or `None` when the signer closed the connection.
    fn receive(&mut self) -> Option<Response> {
        let mut bytes = vec![0; 65_536];
        loop {
            if let Some(response) = self.inbox.next_message().unwrap() {
                return Some(response);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.inbox.extend(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no answer: {e}"),
            }
        }
    }

    fn ask(&mut self, request: &Request) -> Response {
        self.send(request);
        self.receive().expect("the connection ended")
    }

    fn hello(&mut self) -> Welcome {
        let hello = Hello { versions: vec![PROTOCOL_VERSION], software: "test".into() };
        match self.ask(&Request::Hello(hello)) {
            Response::Welcome(welcome) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    fn start(&mut self, policy: &PolicyDocument) -> Prepared {
        let policy = policy.to_json().unwrap().into();
        self.prepared(&Request::Start(Start { policy, predecessor: None, compromised: Vec::new() }))
    }

    fn prepared(&mut self, request: &Request) -> Prepared {
        match self.ask(request) {
            Response::Prepared(prepared) => prepared,
            other => panic!("not prepared: {other:?}"),
        }
    }

    fn prepare(&mut self, requests: Vec<IssueRequest>) -> Prepared {
        self.prepared(&Request::Prepare(Prepare { requests, audit: vec![] }))
    }

    fn commit(&mut self, batch: u64) -> Committed {
        match self.ask(&Request::Commit(Commit { batch })) {
            Response::Committed(committed) => committed,
            other => panic!("not committed: {other:?}"),
        }
    }

    fn faulted(&mut self) -> FaultCode {
        match self.receive() {
            Some(Response::Fault(fault)) => fault.code,
            other => panic!("no fault: {other:?}"),
        }
    }
}

fn policy(client: &Client) -> PolicyDocument {
    crate::support::policy(1, &[Algorithm::Es256], &[client])
}

/// A request that names the log, so that a signer which has just started takes it.
fn proof(client: &mut Client, welcome_log: &str) -> IssueRequest {
    let mut payload = client.proof(now_s());
    payload["log"] = json!(welcome_log);
    request(assertion_of(client.sign("JWT", &payload)))
}

fn log_id(welcome: &Welcome) -> String {
    chancery_tlog::LogId::of(&welcome.identity).to_string()
}

#[test]
fn the_sandbox_denies_what_works_without_it() {
    let output = binary().arg("self-test").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let protections = report["protections"].as_array().unwrap();
    let in_force =
        |name: &str| protections.iter().any(|p| p["name"] == name && p["in_force"] == json!(true));
    for name in ["no_new_privs", "not_dumpable", "no_core_dump"] {
        assert!(in_force(name), "{name}: {report:#}");
    }
    let attempts = report["attempts"].as_array().unwrap();
    assert!(attempts.len() >= 10);
    for attempt in attempts {
        assert_eq!(attempt["worked_before"], true, "{attempt}");
    }
    if !in_force("landlock") || !in_force("seccomp") {
        assert!(!output.status.success(), "what is missing is said by the exit status");
        eprintln!("skipped: this kernel has no Landlock or no seccomp");
        return;
    }
    for attempt in attempts {
        assert_eq!(attempt["denied_within"], true, "{attempt}");
    }
    assert!(output.status.success(), "{report:#}");
}

#[test]
fn the_kernel_confirms_what_the_signer_reports() {
    let process = Process::start("kernel", 60);
    let welcome = process.connect().hello();
    let reported = |name: &str| welcome.sandbox.iter().any(|p| p.name == name && p.in_force);
    let expect = |name: &str, holds: bool| assert_eq!(reported(name), holds, "{name}");
    expect("no_new_privs", process.proc_line("status", "NoNewPrivs:").ends_with('1'));
    expect("seccomp", process.proc_line("status", "Seccomp:").ends_with('2'));
    for entry in std::fs::read_dir(format!("/proc/{}/task", process.child.id())).unwrap() {
        let thread = entry.unwrap().file_name().into_string().unwrap();
        let line = process.proc_line(&format!("task/{thread}/status"), "Seccomp:");
        assert_eq!(line.ends_with('2'), reported("seccomp"), "thread {thread}");
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.child.id())).unwrap();
    expect("secret_memory", maps.contains("secretmem"));
    let names: Vec<&str> = welcome.sandbox.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, chancery_policy::document::PROTECTIONS);
    assert!(welcome.sandbox.iter().all(|p| !p.detail.is_empty()));
}

#[test]
fn a_signer_without_room_for_secret_memory_says_so_and_keeps_to_a_policy_that_demands_it() {
    // Root may lock what it likes, unless it gave that right up.
    let mut command = Command::new("prlimit");
    command.args(["--memlock=0:0", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]);
    let tools = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !(tools("prlimit") && tools("setpriv") && rustix::process::geteuid().is_root()) {
        eprintln!("skipped: needs root, prlimit and setpriv");
        return;
    }
    command.arg(env!("CARGO_BIN_EXE_chancery-signer"));
    let process = Process::start_by(command, "no-room", 60);
    let client = Client::new("shop");
    let mut peer = process.connect();
    let welcome = peer.hello();
    let memory = welcome.sandbox.iter().find(|p| p.name == "secret_memory").unwrap();
    assert!(!memory.in_force && memory.detail.contains("ordinary memory"), "{memory:?}");
    let mut document = policy(&client);
    document.protections = vec!["no_new_privs".into(), "secret_memory".into()];
    let start = Start {
        policy: document.to_json().unwrap().into(),
        predecessor: None,
        compromised: Vec::new(),
    };
    match peer.ask(&Request::Start(start)) {
        Response::Fault(fault) => {
            assert_eq!(fault.code, FaultCode::Policy);
            assert!(fault.detail.contains("demands `secret_memory`"), "{fault:?}");
        }
        other => panic!("{other:?}"),
    }
    document.protections.pop();
    let first = peer.start(&document);
    peer.commit(first.batch);
    document.version = 2;
    document.protections.push("secret_memory".into());
    let load = LoadPolicy { policy: document.to_json().unwrap().into() };
    match peer.ask(&Request::LoadPolicy(load)) {
        Response::Fault(fault) => assert_eq!(fault.code, FaultCode::Policy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_from_end_to_end_over_the_socket() {
    let mut process = Process::start("token", 60);
    let mode = std::fs::metadata(process.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::new("shop");
    let mut peer = process.connect();
    let welcome = peer.hello();
    assert!(welcome.fresh && welcome.origin.is_empty());
    assert!(now_s().abs_diff(welcome.started_at) < 30);
    let first = peer.start(&policy(&client));
    let committed = peer.commit(first.batch);
    assert!(committed.keys_jwt.is_some());
    let announced = first.entries.iter().find_map(|e| match Entry::decode(e).unwrap() {
        Entry::Announcement(a) => Some(a),
        _ => None,
    });
    let jwk = serde_json::from_str(&announced.unwrap().jwk).unwrap();
    let key = PublicKey::from_jwk(&jwk).unwrap();
    let prepared = peer.prepare(vec![proof(&mut client, &log_id(&welcome))]);
    assert_eq!(codes(&prepared), ["granted"]);
    let token = peer.commit(prepared.batch).tokens.remove(0).unwrap();
    let compact = jws::parse(&token, jws::MAX_TOKEN_BYTES).unwrap();
    jws::verify(&compact, &key, false).unwrap();
    let claims: Value = serde_json::from_slice(&compact.payload).unwrap();
    assert_eq!(claims["aud"], AUDIENCE);
    assert_eq!(peer.ask(&Request::End), Response::Ending);
    assert!(peer.receive().is_none());
    assert!(process.exit().success());
}

#[test]
fn every_algorithm_works_inside_the_sandbox() {
    let process = Process::start("algorithms", 60);
    let mut client = Client::new("shop");
    let mut peer = process.connect();
    let welcome = peer.hello();
    let mut document = policy(&client);
    document.realms[0].algorithms = Algorithm::ALL.to_vec();
    let first = peer.start(&document);
    peer.commit(first.batch);
    let begun = Instant::now();
    for algorithm in Algorithm::ALL {
        loop {
            let mut ask = proof(&mut client, &log_id(&welcome));
            let Proof::Assertion { algorithm: wanted, .. } = &mut ask.proof else { panic!() };
            *wanted = Some(algorithm.as_str().into());
            let prepared = peer.prepare(vec![ask]);
            let tokens = peer.commit(prepared.batch).tokens;
            if let [Some(token)] = tokens.as_slice() {
                let compact = jws::parse(token, jws::MAX_TOKEN_BYTES).unwrap();
                assert_eq!(compact.header.alg, algorithm.as_str());
                break;
            }
            assert_eq!(codes(&prepared), ["no_active_key"], "{algorithm}");
            assert!(begun.elapsed() < 3 * PATIENCE, "no {algorithm} key");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_second_peer_waits_for_the_first_to_leave() {
    let process = Process::start("second", 60);
    let mut first = process.connect();
    first.hello();
    let mut second = process.connect();
    let hello = Hello { versions: vec![PROTOCOL_VERSION], software: "second".into() };
    second.send(&Request::Hello(hello));
    second.stream.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
    let waits = second.stream.read(&mut [0; 16]).unwrap_err().kind();
    assert!(matches!(waits, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waits}");
    drop(first);
    second.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(second.receive(), Some(Response::Welcome(_))));
}

#[test]
fn a_peer_that_says_nothing_does_not_keep_the_place() {
    let process = Process::start("silent", 60);
    let _silent = process.connect();
    let mut second = process.connect();
    let hello = Hello { versions: vec![PROTOCOL_VERSION], software: "second".into() };
    second.send(&Request::Hello(hello));
    second.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(second.receive(), Some(Response::Welcome(_))));
}

#[test]
fn broken_and_hostile_peers_lose_their_connection_and_nothing_else() {
    let mut process = Process::start("hostile", 60);
    let client = Client::new("shop");
    // Out of its phase.
    let mut peer = process.connect();
    peer.send(&Request::Status);
    assert_eq!(peer.faulted(), FaultCode::Phase);
    assert!(peer.receive().is_none(), "the connection ends");
    // A version that nobody speaks.
    let mut peer = process.connect();
    peer.send(&Request::Hello(Hello { versions: vec![999], software: "x".into() }));
    assert_eq!(peer.faulted(), FaultCode::Version);
    assert!(peer.receive().is_none());
    let mut hello = Vec::new();
    let greeting = Hello { versions: vec![PROTOCOL_VERSION], software: "x".into() };
    encode(&Request::Hello(greeting), &mut hello).unwrap();
    let mut trailing = hello.clone();
    trailing[3] += 1;
    trailing.push(0);
    let garbage: [&[u8]; 6] = [
        &[0xff; 4],
        &(MAX_FRAME_BYTES as u32 + 1).to_be_bytes(),
        &[0, 0, 0, 3, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
        &trailing,
    ];
    for bytes in garbage {
        let mut peer = process.connect();
        peer.stream.write_all(bytes).unwrap();
        assert_eq!(peer.faulted(), FaultCode::Malformed, "{bytes:?}");
        assert!(peer.receive().is_none(), "{bytes:?}");
    }
    // Half a frame, and then nobody.
    let mut peer = process.connect();
    peer.stream.write_all(&hello[..hello.len() - 1]).unwrap();
    drop(peer);
    // A greeting byte by byte is a greeting.
    let mut peer = process.connect();
    for byte in &hello {
        peer.stream.write_all(&[*byte]).unwrap();
    }
    assert!(matches!(peer.receive(), Some(Response::Welcome(w)) if w.fresh));
    // The connection ends in the middle of the work; the log does not.
    let first = peer.start(&policy(&client));
    peer.commit(first.batch);
    let open = peer.prepare(Vec::new());
    peer.stream.write_all(&[0xff; 64]).unwrap();
    assert_eq!(peer.faulted(), FaultCode::Malformed);
    let mut peer = process.connect();
    assert!(!peer.hello().fresh);
    let mut tree = chancery_tlog::Frontier::new();
    for entry in &first.entries {
        tree.append(chancery_tlog::leaf_hash(entry));
    }
    let resume = Resume { size: tree.size(), root: tree.root().0.into() };
    match peer.ask(&Request::Resume(resume)) {
        Response::Resumed(resumed) => assert_eq!(resumed.open, [open]),
        other => panic!("not resumed: {other:?}"),
    }
    assert!(process.is_alive());
}

#[test]
fn a_peer_that_never_reads_stops_no_sweep_and_costs_no_memory() {
    let process = Process::start("deaf", 60);
    let client = Client::new("shop");
    let mut document = policy(&client);
    let schedule = &mut document.realms[0].schedule;
    (schedule.rotate_every_s, schedule.publish_lead_s) = (4, 1);
    (schedule.max_lifetime_s, schedule.skew_s) = (1, 0);
    // Many keys, so that a status of a few bytes is answered by many.
    for i in 0..200 {
        let mut realm = document.realms[0].clone();
        realm.name = format!("r{i}");
        realm.issuer = format!("https://issuer.example/r{i}");
        realm.clients.clear();
        realm.schedule = chancery_policy::Schedule::default();
        document.realms.push(realm);
    }
    let mut peer = process.connect();
    peer.hello();
    let first = peer.start(&document);
    peer.commit(first.batch);
    let windows = first.entries.iter().filter_map(|e| match Entry::decode(e).unwrap() {
        Entry::Announcement(a) if a.realm == "consumers" => Some(a.signs_until),
        _ => None,
    });
    let end = windows.max().unwrap();
    let mut frames = Vec::new();
    for _ in 0..100_000 {
        encode(&Request::Status, &mut frames).unwrap();
    }
    // Blocks at some point: the signer stops reading while its answers are not taken.
    let error = peer.stream.write_all(&frames).expect_err("somebody reads without end");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    while now_s() < end + 3 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let resident = process.proc_line("status", "VmRSS:");
    let kib: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 100_000, "{resident}");
    // It reads again, and every answer is there and in order.
    let mut answers = 0;
    while answers < 1_000 {
        assert!(matches!(peer.receive(), Some(Response::Status(_))));
        answers += 1;
    }
    drop(peer);
    let mut peer = process.connect();
    peer.hello();
    let mut tree = chancery_tlog::Frontier::new();
    for entry in &first.entries {
        tree.append(chancery_tlog::leaf_hash(entry));
    }
    let resume = Resume { size: tree.size(), root: tree.root().0.into() };
    assert!(matches!(peer.ask(&Request::Resume(resume)), Response::Resumed(_)));
    let prepared = peer.prepare(Vec::new());
    // The sweep that found the window over came in time, with nobody reading.
    let text = &prepared.notices.iter().find(|n| n.code == "signing_stopped").unwrap().text;
    let since = text.split("since ").nth(1).unwrap().split(';').next().unwrap();
    let since: u64 = since.parse().unwrap();
    assert!(since <= end + 2, "swept at {since}, the window ended at {end}");
}

#[test]
fn a_signer_that_is_alone_ends() {
    let mut process = Process::start("alone", 1);
    let mut peer = process.connect();
    peer.hello();
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(process.is_alive(), "with a peer it is not alone");
    drop(peer);
    assert!(process.exit().success());
}

#[test]
fn the_command_line_is_strict() {
    let output = |arguments: &[&str]| binary().args(arguments).output().unwrap();
    for wrong in [&[][..], &["--socket"], &["--sock", "x"], &["--socket", "/nonexistent/x/y"]] {
        let output = output(wrong);
        assert!(!output.status.success(), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?} says nothing");
    }
    let wrong = output(&["--socket", "x", "--alone-seconds", "soon"]);
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("`soon` is not a number"));
    let version = output(&["--version"]);
    assert!(version.status.success() && version.stdout.starts_with(b"chancery-signer "));
    let help = output(&["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"usage: chancery-signer"));
    // A socket that exists is somebody's.
    let process = Process::start("taken", 60);
    let taken = binary().arg("--socket").arg(process.socket()).output().unwrap();
    assert!(!taken.status.success());
    assert!(String::from_utf8(taken.stderr).unwrap().contains("is another signer there?"));
}
