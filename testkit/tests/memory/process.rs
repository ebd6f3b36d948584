//! The revealing signer as a process, its memory from outside, and the service that drives it.

#![expect(unsafe_code, reason = "process_vm_readv has no safe interface")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chancery_entry::Entry;
use chancery_policy::document::{ClientDocument, GrantDocument};
use chancery_policy::{PolicyDocument, RealmDocument, Schedule};
use chancery_signer_api::*;
use chancery_testkit::{TestClient, wait_until};
use chancery_token::{Algorithm, PublicKey};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::keys::{Found, Public};

const ISSUER: &str = "https://issuer.example/main";
const AUDIENCE: &str = "https://api.example";
/// Every kind of private key; the other algorithms differ in size only.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Es256, Algorithm::Es384, Algorithm::Ed25519, Algorithm::MlDsa44, Algorithm::Rs256];
/// For everything that a busy machine may take long for.
const PATIENCE: Duration = Duration::from_secs(120);
const PAGE: usize = 4_096;
/// No mapping of the signer is larger, but for reserved ones that are empty.
const MAX_RANGE: usize = 64 << 20;

/// What was read of a process.
pub struct Image {
    pub name: &'static str,
    /// Whether the range was writable, and its bytes.
    ranges: Vec<(bool, Vec<u8>)>,
    /// Ranges that could not be read.
    pub refused: usize,
}

impl Image {
    pub fn of(name: &'static str, bytes: &[u8]) -> Self {
        let mut image = Self { name, ranges: Vec::new(), refused: 0 };
        image.add(true, bytes);
        image
    }

    /// Adds a range without its empty pages, of which a core file has many; what stands across the
    /// border of two pages leaves neither of them empty.
    fn add(&mut self, writable: bool, bytes: &[u8]) {
        for run in bytes.chunks(PAGE).collect::<Vec<_>>().split(|page| page.iter().all(|b| *b == 0))
        {
            if !run.is_empty() {
                self.ranges.push((writable, run.concat()));
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.ranges.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    pub fn writable(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().filter(|(writable, _)| *writable).map(|(_, bytes)| bytes.as_slice())
    }

    /// The names of the keys that stand in it, at any place, in either byte order.
    pub fn hits<'a>(&self, found: &'a [Found]) -> Vec<&'a str> {
        let stands = |bytes: &[u8]| self.ranges.iter().any(|(_, range)| holds(range, bytes));
        let turned = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
        let hit = |f: &&Found| stands(&f.bytes) || stands(&turned(&f.bytes));
        found.iter().filter(hit).map(|f| f.name.as_str()).collect()
    }
}

fn holds(range: &[u8], bytes: &[u8]) -> bool {
    memchr::memmem::find(range, bytes).is_some()
}

/// The signer, ended with the test.
pub struct Revealing {
    child: Child,
    dir: PathBuf,
}

impl Revealing {
    pub fn start(name: &str, secret: bool) -> Self {
        let dir = std::env::temp_dir().join(format!("chancery-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_revealing-signer"));
        command.arg(dir.join("signer.sock")).current_dir(&dir);
        if secret {
            command.arg("--secret");
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { child, dir }
    }

    pub fn connect(&self) -> Peer {
        let socket = self.dir.join("signer.sock");
        wait_until("the signer's socket", PATIENCE, || socket.exists());
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = TestClient::new("thief", Algorithm::Es256);
        Peer {
            stream,
            inbox: FrameBuffer::default(),
            client,
            identity: [0; 32],
            log: String::new(),
        }
    }

    /// All that was ever used of its secret memory, by its own word.
    pub fn reveal(&mut self) -> Vec<u8> {
        self.child.stdin.as_mut().unwrap().write_all(&[1]).unwrap();
        let out = self.child.stdout.as_mut().unwrap();
        let mut length = [0; 8];
        out.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::try_from(u64::from_be_bytes(length)).unwrap()];
        out.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn proc_mem(&self) -> Image {
        let memory = File::open(format!("/proc/{}/mem", self.child.id())).unwrap();
        self.image("/proc/PID/mem", |start, bytes| {
            memory.read_exact_at(bytes, u64::try_from(start).unwrap()).is_ok()
        })
    }

    pub fn vm_readv(&self) -> Image {
        let pid = i32::try_from(self.child.id()).unwrap();
        self.image("process_vm_readv", |start, bytes| {
            let here = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let there = libc::iovec { iov_base: start as *mut _, iov_len: bytes.len() };
            // SAFETY: one range of our own that is as long as said; the kernel checks the other.
            let read = unsafe { libc::process_vm_readv(pid, &here, 1, &there, 1, 0) };
            usize::try_from(read).is_ok_and(|read| read == bytes.len())
        })
    }

    fn image(&self, name: &'static str, read: impl Fn(usize, &mut [u8]) -> bool) -> Image {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let mut image = Image { name, ranges: Vec::new(), refused: 0 };
        for line in maps.lines().filter(|l| !l.contains("[vvar") && !l.contains("[vsyscall")) {
            let (range, rest) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let from = usize::from_str_radix(from, 16).unwrap();
            let length = usize::from_str_radix(to, 16).unwrap() - from;
            let secret = line.contains("secretmem");
            let mut bytes = vec![0; if secret { PAGE } else { length.min(MAX_RANGE) }];
            if rest.starts_with('r') && read(from, &mut bytes) {
                image.add(rest.starts_with("rw"), &bytes);
            } else if rest.starts_with('r') {
                image.refused += 1;
            }
        }
        image
    }

    /// A core file that root forces: by the kernel where this root may lift the limit that the signer
    /// set for itself, by a debugger otherwise; `None` where there is neither.
    pub fn core_dump(&mut self) -> Option<Image> {
        let pid = Pid::from_child(&self.child);
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let all = Rlimit { current: None, maximum: None };
        if !pattern.starts_with(['|', '/'])
            && rustix::process::prlimit(Some(pid), Resource::Core, all).is_ok()
        {
            rustix::process::kill_process(pid, Signal::ABORT).unwrap();
            self.child.wait().unwrap();
        } else {
            let mut gcore = Command::new("gcore");
            gcore.arg("-o").arg(self.dir.join("core")).arg(self.child.id().to_string());
            let output = gcore.output();
            if !output.is_ok_and(|o| o.status.success()) {
                eprintln!("skipped: no core dump; the limit cannot be lifted, and no gcore works");
                return None;
            }
        }
        let files = std::fs::read_dir(&self.dir).unwrap().map(|f| f.unwrap().path());
        let core = files.into_iter().find(|f| f.extension().is_none_or(|e| e != "sock"));
        let core = core.expect("a core file was written");
        Some(Image::of("core file", &std::fs::read(core).unwrap()))
    }
}

impl Drop for Revealing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The service's side of the socket.
pub struct Peer {
    stream: UnixStream,
    inbox: FrameBuffer,
    client: TestClient,
    identity: [u8; 32],
    log: String,
}

impl Peer {
    pub fn hello(&mut self) -> Welcome {
        let hello = Hello { versions: vec![PROTOCOL_VERSION], software: "test".into() };
        match self.ask(&Request::Hello(hello)) {
            Response::Welcome(welcome) => {
                self.identity = *welcome.identity;
                self.log = chancery_tlog::LogId::of(&welcome.identity).to_string();
                welcome
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Hands over a policy and waits for a key of every kind; their public halves, identity first.
    pub fn begin(&mut self) -> Vec<Public> {
        let identity = PublicKey::from_raw(Algorithm::Ed25519, &self.identity).unwrap();
        let mut publics = vec![Public { name: "identity".into(), key: identity }];
        let policy = policy(&self.client).to_json().unwrap().into();
        let start = Start { policy, predecessor: None, compromised: Vec::new() };
        let mut request = Request::Start(start);
        wait_until("a key of every kind", PATIENCE, || {
            let next = Request::Prepare(Prepare { requests: Vec::new(), audit: Vec::new() });
            let prepared = self.prepared(&std::mem::replace(&mut request, next));
            for entry in &prepared.entries {
                if let Entry::Announcement(a) = Entry::decode(entry).unwrap() {
                    let jwk = serde_json::from_str(&a.jwk).unwrap();
                    let key = PublicKey::from_jwk(&jwk).unwrap();
                    publics.push(Public { name: a.algorithm, key });
                }
            }
            self.commit(prepared.batch);
            publics.len() > ALGORITHMS.len()
        });
        publics
    }

    /// Tokens of every algorithm.
    pub fn issue(&mut self, of_each: usize) {
        for _ in 0..of_each {
            let requests = ALGORITHMS.iter().map(|algorithm| IssueRequest {
                realm: "main".into(),
                context: Vec::new().into(),
                proof: Proof::Assertion {
                    jws: self.client.assertion(ISSUER, Some(&self.log)),
                    audiences: vec![AUDIENCE.into()],
                    scope: None,
                    lifetime_s: None,
                    subject: None,
                    algorithm: Some(algorithm.as_str().into()),
                    client_id: None,
                },
            });
            let prepare = Prepare { requests: requests.collect(), audit: Vec::new() };
            let prepared = self.prepared(&Request::Prepare(prepare));
            let tokens = self.commit(prepared.batch).tokens;
            assert_eq!(tokens.len(), ALGORITHMS.len(), "{:?}", prepared.decisions);
            assert!(tokens.iter().all(Option::is_some));
        }
    }

    fn prepared(&mut self, request: &Request) -> Prepared {
        match self.ask(request) {
            Response::Prepared(prepared) => prepared,
            other => panic!("not prepared: {other:?}"),
        }
    }

    fn commit(&mut self, batch: u64) -> Committed {
        match self.ask(&Request::Commit(Commit { batch })) {
            Response::Committed(committed) => committed,
            other => panic!("not committed: {other:?}"),
        }
    }

    fn ask(&mut self, request: &Request) -> Response {
        let mut frame = Vec::new();
        encode(request, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
        let mut bytes = vec![0; 65_536];
        loop {
            if let Some(response) = self.inbox.next_message().unwrap() {
                return response;
            }
            match self.stream.read(&mut bytes).expect("an answer") {
                0 => panic!("the connection ended"),
                n => self.inbox.extend(&bytes[..n]),
            }
        }
    }
}

fn policy(client: &TestClient) -> PolicyDocument {
    let grant = GrantDocument {
        name: "api".into(),
        audiences: vec![AUDIENCE.into()],
        subjects: Vec::new(),
        scopes: Vec::new(),
        claims: Vec::new(),
        max_lifetime_s: None,
        algorithms: None,
        require_cnf: false,
        max_audiences: 1,
    };
    let client = ClientDocument {
        id: client.id().into(),
        keys: vec![client.jwk()],
        grants: vec![grant],
        max_tokens_per_s: None,
        replay_capacity: 100_000,
        accept_eddsa: false,
    };
    let realm = RealmDocument {
        name: "main".into(),
        issuer: ISSUER.into(),
        algorithms: ALGORITHMS.to_vec(),
        rsa_bits: 2048,
        schedule: Schedule::default(),
        clients: vec![client],
        kubernetes: None,
    };
    PolicyDocument {
        version: 1,
        log_prefix: "issuer.example/log".into(),
        realms: vec![realm],
        witnessed: None,
        protections: Vec::new(),
    }
}
