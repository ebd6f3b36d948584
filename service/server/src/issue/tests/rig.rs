//! An issuer with its journal, and a peer that plays the signer over a real socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;

use chancery_signer_api::{
    Fault, FaultCode, FrameBuffer, GrantedToken, IssueRequest, Proof, Status, Welcome,
};
use object_store::memory::InMemory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::audit::Audit;
use crate::journal::Progress;
use crate::keyset::KeySets;
use crate::logs::Log;
use crate::logs::tests::support::TestLog;
use crate::store::Store;
use crate::wal::{MIN_SEGMENT_BYTES, Record, RecordKind, Wal};

/// Room for some hundred requests in tests that do not want it full.
const SEGMENT_BYTES: u64 = 4 * MIN_SEGMENT_BYTES;
/// How long a signer may say nothing in tests.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A run that takes longer hangs.
const BOUND: Duration = Duration::from_secs(20);

type Answer = oneshot::Receiver<Result<Vec<Verdict>, Unavailable>>;

/// What the peer does with a request.
pub enum Act {
    Say(Response),
    Raw(Vec<u8>),
    RawAndClose(Vec<u8>),
    /// Reads on and says nothing, whatever comes.
    Nothing,
    /// Neither reads nor says anything any more.
    Deaf,
}

pub struct Rig {
    pub issuer: Issuer,
    pub log: Arc<Log>,
    pub progress: Arc<Progress>,
    folder: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(self.folder.with_extension("key"));
    }
}

impl Rig {
    pub fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("chancery-issue-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let mut issuer = Issuer::new(Arc::new(Metrics::new()));
        issuer.patience = PATIENCE;
        let store = Store::new(Arc::new(InMemory::new()));
        Self {
            issuer,
            log: Arc::new(TestLog::of(0).empty(store)),
            progress: Arc::default(),
            folder,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    pub fn reopen_wal(&self) -> (Wal, Vec<Record>) {
        Wal::open(&self.folder, SEGMENT_BYTES).unwrap()
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn block_on_within<F: Future>(&self, future: F, limit: Duration) -> Option<F::Output> {
        self.runtime.block_on(async { tokio::time::timeout(limit, future).await.ok() })
    }

    /// Queues requests.
    pub fn ask(&self, count: usize) -> Vec<Answer> {
        self.ask_with(count, 10)
    }

    /// Queues requests with proofs of so many bytes.
    pub fn ask_with(&self, count: usize, bytes: usize) -> Vec<Answer> {
        (0..count).map(|nth| self.issuer.enqueue(request(nth, bytes)).unwrap()).collect()
    }

    /// Leaves no room for any record; returns the sequence number of the last one.
    pub fn fill_wal(&self) -> u64 {
        let mut wal = self.reopen_wal().0;
        for payload in [vec![0; 3_000], vec![0]] {
            while wal.append(RecordKind::Batch, [0; 16], 0, &payload).is_ok() {}
        }
        wal.last_sequence()
    }

    pub fn wait_until(&self, is_so: impl Fn(&Issuer) -> bool) {
        let started = Instant::now();
        while !is_so(&self.issuer) {
            assert!(started.elapsed() < BOUND, "it never happens");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs the main job against a peer, and beside it what the test does meanwhile.
    pub fn run(
        &self,
        act: impl FnMut(Request) -> Act + Send,
        meanwhile: impl FnOnce(&Self),
    ) -> Result<(), LinkError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            let peer = scope.spawn(|| play(theirs, act));
            let (connection, _) = Connection::greet(ours).unwrap();
            let (done, ended) = mpsc::channel();
            let (issuer, log, progress) = (&self.issuer, self.log.clone(), self.progress.clone());
            let mut wal = self.reopen_wal().0;
            let audit = Audit::open(&self.folder.with_extension("key"), &[]).unwrap();
            scope.spawn(move || {
                let mut journal = Journal {
                    wal: &mut wal,
                    log,
                    progress,
                    keys: Arc::new(KeySets::default()),
                    metrics: Arc::new(Metrics::new()),
                    audit: Arc::new(audit),
                    store_first: None,
                };
                let result = issuer.run(connection, &mut journal);
                drop(wal);
                done.send(result).unwrap();
            });
            let _guard = StopOnPanic(&self.issuer);
            meanwhile(self);
            let result = ended.recv_timeout(BOUND).expect("the main job hangs");
            peer.join().unwrap();
            result
        })
    }
}

/// A failed assertion ends the main job, which would otherwise keep the test from failing.
struct StopOnPanic<'a>(&'a Issuer);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// A request that can be told from others.
pub fn request(nth: usize, bytes: usize) -> IssueRequest {
    let jws = format!("{nth} {}", "x".repeat(bytes));
    IssueRequest { realm: "r".into(), context: vec![].into(), proof: Proof::Signed { jws } }
}

/// Whether a frame asks for a token: empty frames come by themselves.
pub fn asked(request: &Request) -> bool {
    matches!(request, Request::Prepare(p) if !p.requests.is_empty())
}

pub fn fault() -> Response {
    Response::Fault(Fault { code: FaultCode::Internal, detail: "the test says so".into() })
}

pub fn frame(response: &Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    chancery_signer_api::encode(response, &mut bytes).unwrap();
    bytes
}

/// Reads requests and acts, until the other side closes or an act ends it.
fn play(mut stream: UnixStream, mut act: impl FnMut(Request) -> Act) {
    let mut frames = FrameBuffer::default();
    let mut scratch = vec![0; 64 * 1024];
    let mut silent = false;
    loop {
        while let Some(request) = frames.next_message::<Request>().unwrap() {
            let what = match request {
                Request::Hello(_) => Act::Say(Response::Welcome(welcome())),
                _ if silent => Act::Nothing,
                request => act(request),
            };
            // The other side may have closed already.
            match what {
                Act::Say(response) => drop(stream.write_all(&frame(&response))),
                Act::Raw(bytes) => drop(stream.write_all(&bytes)),
                Act::RawAndClose(bytes) => return drop(stream.write_all(&bytes)),
                Act::Nothing => silent = true,
                Act::Deaf => return wait_for_hang_up(&stream),
            }
        }
        match stream.read(&mut scratch) {
            Ok(0) | Err(_) => return,
            Ok(n) => frames.extend(&scratch[..n]),
        }
    }
}

/// Reads nothing until the other side closes.
fn wait_for_hang_up(stream: &UnixStream) {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let limit = Timespec { tv_sec: BOUND.as_secs() as i64, tv_nsec: 0 };
    poll(&mut polled, Some(&limit)).unwrap();
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        software: "test".into(),
        identity: [0; 32].into(),
        fresh: true,
        origin: String::new(),
        started_at: 0,
        sandbox: vec![],
    }
}

/// A signer that grants everything: each token is one entry.
pub struct FakeSigner {
    log: TestLog,
    pub prepared: usize,
    batch: u64,
    /// Tokens of the batches that are open.
    pub tokens: VecDeque<Vec<Option<String>>>,
}

impl FakeSigner {
    pub fn new() -> Self {
        Self { log: TestLog::of(400), prepared: 0, batch: 0, tokens: VecDeque::new() }
    }

    pub fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Prepare(prepare) => Response::Prepared(self.prepare(prepare)),
            Request::Commit(commit) => Response::Committed(Committed {
                batch: commit.batch,
                tokens: self.tokens.pop_front().unwrap(),
                keys_jwt: None,
            }),
            _ => Response::Status(Status {
                policy_version: 1,
                policy_digest: [0; 32].into(),
                committed_size: 0,
                clock_trusted: true,
                keys: vec![],
                secret_memory: chancery_signer_api::SecretMemory::default(),
            }),
        }
    }

    fn prepare(&mut self, prepare: Prepare) -> Prepared {
        self.batch += 1;
        let from = self.prepared;
        self.prepared += prepare.requests.len();
        let batch = self.log.batch(from, self.prepared);
        let names = prepare.requests.iter().map(|r| match &r.proof {
            Proof::Signed { jws } => jws.split(' ').next().unwrap().to_owned(),
            Proof::Assertion { .. } | Proof::Kubernetes { .. } => {
                panic!("the tests send signed requests")
            }
        });
        self.tokens.push_back(names.map(|n| Some(format!("token of request {n}"))).collect());
        Prepared {
            batch: self.batch,
            first_index: from as u64,
            entries: batch.entries.into_iter().map(Into::into).collect(),
            checkpoint: batch.checkpoint,
            decisions: (from..self.prepared).map(|index| decision(index as u64)).collect(),
            notices: vec![],
        }
    }
}

fn decision(index: u64) -> Decision {
    let granted = GrantedToken {
        index,
        subject: "s".into(),
        audiences: vec!["a".into()],
        scope: "read".into(),
        grant: "g".into(),
        policy_version: 1,
        kid: TestLog::kid().into(),
        jti: "j".into(),
        iat: 1,
        lifetime_s: 60,
    };
    Decision {
        context: vec![].into(),
        client: "c".into(),
        outcomes: vec![Outcome::Granted(granted)],
    }
}
