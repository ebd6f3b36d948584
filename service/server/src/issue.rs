//! The life of a token in the service: the page to open first.
//!
//! ```text
//!   1 request   Issuer::issue        an HTTP handler hands over a strictly parsed request
//!   2-4         Writer: Prepare      the signer decides, sequences, appends; its answer carries
//!                                    the decisions, the entries and one checkpoint for the batch
//!   5           (signer)             it signs, and holds the tokens back, while we write
//!   6 commit    Reader: Prepared     entries and checkpoint go to the write-ahead log, one
//!                                    fdatasync (or to the store, if `durability` says so); only
//!                                    then the acknowledgement frees the tokens
//!   7 release   Reader: Committed    token bytes arrive here for the first time, and leave
//! ```
//!
//! Requests that arrive while the signer decides on a frame, or while two frames are in flight, form
//! the next one; a lone request never waits. Nothing waits without bound: a full queue or a stuck
//! disk answers `Unavailable`, and what cannot be made durable is never acknowledged (INVARIANT I2).
//! One thread writes to the signer and one reads, so that neither side can block the other.

mod held;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chancery_signer_api::{
    AuditStatement, Commit, Committed, Decision, GrantedToken, IssueRequest, MAX_OPEN_BATCHES,
    MAX_TOKENS_PER_FRAME, Outcome, Prepare, Prepared, Request, Response,
};
use tokio::sync::oneshot;

use crate::journal::Journal;
use crate::link::{Connection, Incoming, LinkError, Outgoing};
use crate::metrics::Metrics;

/// Requests that may wait for a frame: a second of work at full load. More are told to come back.
pub const MAX_QUEUED: usize = 8_192;
/// Bytes of queued proofs: a full queue of the largest requests would otherwise be gigabytes.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of proofs in one frame: below the frame limit with room for everything else.
const MAX_FRAME_PROOF_BYTES: usize = 4 * 1024 * 1024;
/// How long a request waits for its token before it is told to come back.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// An empty frame is sent at least this often, to collect what the signer made itself.
const IDLE_FRAME_EVERY: Duration = Duration::from_secs(1);

/// A signer that says nothing for so long is stuck: it gets at least an empty frame every second,
/// and whatever it prepared is void by then.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// What came of one token of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token, released.
    Issued(Issued),
    /// The policy said no.
    Refused {
        /// Stable reason code.
        code: String,
        /// Explanation.
        detail: String,
    },
}

/// A released token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The JWS.
    pub token: String,
    /// Lifetime in seconds.
    pub lifetime_s: u64,
    /// Scope values, separated by spaces.
    pub scope: String,
    /// Index of its entry in the log that `jti` names.
    pub index: u64,
    /// Its address: `<log id>.<index>.<randomness>`.
    pub jti: String,
}

/// The service cannot issue now; the client should come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unavailable {
    /// What is the matter.
    pub why: &'static str,
    /// Seconds after which to try again.
    pub retry_after_s: u32,
}

/// Where a request's handler waits.
type Reply = oneshot::Sender<Result<Vec<Verdict>, Unavailable>>;

/// A request on its way.
struct Job {
    request: IssueRequest,
    bytes: usize,
    reply: Reply,
}

/// What waits to be written to the signer.
#[derive(Default)]
struct Queue {
    commits: VecDeque<(u64, Batch)>,
    /// Under `release = "witnessed"`: durable, and not yet to be committed.
    held: held::Held,
    calls: VecDeque<(Request, oneshot::Sender<Response>)>,
    /// What is to be logged of the audit with the next frame.
    audit: Vec<AuditStatement>,
    jobs: VecDeque<Job>,
    job_bytes: usize,
    /// Frames sent and not yet committed.
    in_flight: usize,
    /// The signer works on a frame: another one would only lie in its socket, and be small.
    preparing: bool,
    /// The write-ahead log or the signer is in trouble: new requests are told so at once.
    trouble: Option<&'static str>,
    connected: bool,
    stopping: bool,
}

/// What the reader expects next, in the order of the requests written.
enum Expected {
    Prepared(Vec<Job>),
    Committed(Batch),
    Call(oneshot::Sender<Response>),
}

struct Batch {
    jobs: Vec<Job>,
    decisions: Vec<Decision>,
}

/// Hands requests to the signer and tokens to the handlers.
pub struct Issuer {
    queue: Mutex<Queue>,
    changed: Condvar,
    metrics: Arc<Metrics>,
    patience: Duration,
    /// Whether tokens wait for witnesses.
    witnessed: bool,
    /// A batch began to wait for them.
    unwitnessed: tokio::sync::Notify,
    /// Where the waiting handlers run; none in tests without one.
    runtime: Option<tokio::runtime::Handle>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Issuer {
    /// An issuer without a signer yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let runtime = tokio::runtime::Handle::try_current().ok();
        Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            metrics,
            patience: SILENT_AFTER,
            witnessed: false,
            unwitnessed: tokio::sync::Notify::new(),
            runtime,
        }
    }

    /// Step 1 to 7 for one request: one verdict for each token asked for, or a single refusal.
    ///
    /// # Errors
    /// [`Unavailable`] when the queue is full, the disk or the signer is in trouble, or it takes
    /// longer than [`ANSWER_WITHIN`].
    pub async fn issue(&self, request: IssueRequest) -> Result<Vec<Verdict>, Unavailable> {
        let answer = self.enqueue(request)?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(verdicts)) => verdicts,
            Ok(Err(_)) => Err(Unavailable { why: "the signer ended", retry_after_s: 1 }),
            Err(_) => Err(Unavailable { why: "the token took too long", retry_after_s: 5 }),
        }
    }

    fn enqueue(
        &self,
        request: IssueRequest,
    ) -> Result<oneshot::Receiver<Result<Vec<Verdict>, Unavailable>>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let bytes = request_bytes(&request);
        let mut queue = lock(&self.queue);
        if queue.stopping {
            return Err(Unavailable { why: "the service is stopping", retry_after_s: 5 });
        }
        if let Some(why) = queue.trouble {
            return Err(Unavailable { why, retry_after_s: 5 });
        }
        if let Some(away) = queue.witnesses_away() {
            return Err(away);
        }
        let total = queue.job_bytes.saturating_add(bytes);
        if queue.jobs.len() >= MAX_QUEUED || total > MAX_QUEUED_BYTES {
            return Err(Unavailable { why: "too many requests are waiting", retry_after_s: 1 });
        }
        queue.job_bytes = total;
        // The writer sleeps only while nothing waits or no frame may go: under load, where requests
        // outnumber frames, waking it for each of them would cost more than writing them.
        let wake = queue.jobs.is_empty() && queue.has_room();
        queue.jobs.push_back(Job { request, bytes, reply });
        drop(queue);
        if wake {
            self.changed.notify_one();
        }
        Ok(answer)
    }

    /// Asks the signer something beside the main job.
    ///
    /// # Errors
    /// [`Unavailable`] when no signer is connected or it does not answer in time.
    pub async fn call(&self, request: Request) -> Result<Response, Unavailable> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = lock(&self.queue);
            if !queue.connected {
                return Err(Unavailable { why: "no signer is connected", retry_after_s: 1 });
            }
            queue.calls.push_back((request, reply));
        }
        self.changed.notify_one();
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(response)) => Ok(response),
            _ => Err(Unavailable { why: "the signer did not answer", retry_after_s: 1 }),
        }
    }

    /// Has statements about the audit logged with the next frame, which goes within a second; those
    /// that were made before and did not go yet are made again later.
    pub fn state_audit(&self, statements: Vec<AuditStatement>) {
        lock(&self.queue).audit = statements;
    }

    /// Whether a signer is connected and nothing is in trouble.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let queue = lock(&self.queue);
        let away = queue.witnesses_away().is_some();
        queue.connected && queue.trouble.is_none() && !queue.stopping && !away
    }

    /// Requests that wait for a frame.
    #[must_use]
    pub fn queued(&self) -> usize {
        lock(&self.queue).jobs.len()
    }

    /// No new requests; [`Issuer::run`] returns when everything in flight is answered.
    pub fn stop(&self) {
        lock(&self.queue).stopping = true;
        self.changed.notify_all();
    }

    /// Whether [`Issuer::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        lock(&self.queue).stopping
    }

    /// Runs the main job over one connection, until it breaks or the service stops.
    ///
    /// # Errors
    /// [`LinkError`] when the connection broke; requests in flight were told to come back.
    pub fn run(&self, connection: Connection, journal: &mut Journal<'_>) -> Result<(), LinkError> {
        let expected = Mutex::new(VecDeque::new());
        let Connection { outgoing, incoming } = connection;
        let closer = outgoing.closer()?;
        incoming.wait_at_most(self.patience)?;
        lock(&self.queue).connected = true;
        let result = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let result = self.write(outgoing, &expected);
                // The reader learns of it by the end of the stream.
                closer.close();
                result
            });
            let read = self.read(incoming, &expected, journal);
            self.disconnect();
            // A writer may be blocked on a signer that no longer reads.
            closer.close();
            let written = writer.join().unwrap_or(Ok(()));
            read.and(written)
        });
        self.fail_expected(&mut lock(&expected));
        result
    }

    /// Writes commits first, then calls, then frames of requests.
    fn write(
        &self,
        mut outgoing: Outgoing,
        expected: &Mutex<VecDeque<Expected>>,
    ) -> Result<(), LinkError> {
        let mut last_frame = Instant::now();
        while let Some(step) = self.next_step(&mut last_frame) {
            let expect = match step {
                Step::Commit(number, batch) => {
                    outgoing.encode(&Request::Commit(Commit { batch: number }))?;
                    Expected::Committed(batch)
                }
                Step::Call(request, reply) => {
                    outgoing.encode(&request)?;
                    Expected::Call(reply)
                }
                Step::Frame(jobs, audit) => {
                    Expected::Prepared(encode_frame(jobs, audit, &mut outgoing)?)
                }
            };
            // One writer: what is expected stands in the order of what is written.
            lock(expected).push_back(expect);
            outgoing.write()?;
        }
        Ok(())
    }

    /// Waits for the next thing to write; `None` when the connection is over or all is done.
    fn next_step(&self, last_frame: &mut Instant) -> Option<Step> {
        let mut queue = lock(&self.queue);
        loop {
            queue.free_held();
            if let Some((number, batch)) = queue.commits.pop_front() {
                return Some(Step::Commit(number, batch));
            }
            if !queue.connected {
                return None;
            }
            if let Some((request, reply)) = queue.calls.pop_front() {
                return Some(Step::Call(request, reply));
            }
            let idle = last_frame.elapsed();
            let room = queue.has_room();
            // An empty frame never takes the second place, so that a request finds it free.
            let due = queue.in_flight == 0 && idle >= IDLE_FRAME_EVERY;
            if room && (!queue.jobs.is_empty() || due) {
                *last_frame = Instant::now();
                queue.in_flight = queue.in_flight.saturating_add(1);
                queue.preparing = true;
                let audit = std::mem::take(&mut queue.audit);
                return Some(Step::Frame(queue.take_frame(), audit));
            }
            if queue.stopping && queue.in_flight == 0 && queue.jobs.is_empty() {
                return None;
            }
            let patience = IDLE_FRAME_EVERY.saturating_sub(idle).max(Duration::from_millis(1));
            let waited = self.changed.wait_timeout(queue, patience);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads answers in the order of the requests.
    fn read(
        &self,
        mut incoming: Incoming,
        expected: &Mutex<VecDeque<Expected>>,
        journal: &mut Journal<'_>,
    ) -> Result<(), LinkError> {
        while let Some(response) = incoming.receive()? {
            let next = lock(expected).pop_front();
            match (next, response) {
                (Some(Expected::Call(reply)), response) => drop(reply.send(response)),
                (Some(Expected::Prepared(jobs)), Response::Prepared(prepared)) => {
                    self.prepared();
                    let (number, size) = (prepared.batch, size_after(&prepared));
                    let batch = self.commit(prepared, jobs, journal)?;
                    self.hold(size, number, batch);
                }
                (Some(Expected::Committed(batch)), Response::Committed(committed)) => {
                    self.release(batch, committed, journal);
                }
                (_, Response::Fault(fault)) => return Err(LinkError::Fault(fault)),
                (_, response) => return Err(LinkError::out_of_step(&response)),
            }
        }
        Ok(())
    }

    /// The signer is free for the next frame, while it signs this one and the disk writes it.
    fn prepared(&self) {
        let mut queue = lock(&self.queue);
        queue.preparing = false;
        let wake = !queue.jobs.is_empty() && queue.has_room();
        drop(queue);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Step 6: the batch becomes durable. Returns only when it is; until then nothing of it is
    /// acknowledged, new requests are told to come back, and the same write is tried again.
    fn commit(
        &self,
        prepared: Prepared,
        jobs: Vec<Job>,
        journal: &mut Journal<'_>,
    ) -> Result<Batch, LinkError> {
        for notice in &prepared.notices {
            tracing::warn!(code = %notice.code, "signer: {}", notice.text);
            self.metrics.notice(&notice.code);
        }
        let trouble = |why| lock(&self.queue).trouble = why;
        journal.write(&prepared, trouble, || self.is_stopping())?;
        Ok(Batch { jobs, decisions: prepared.decisions })
    }

    /// Step 7: the batch's tokens leave. Keys that are new with it are in the key set first, so
    /// that no relying party sees a token before its key.
    fn release(&self, batch: Batch, committed: Committed, journal: &mut Journal<'_>) {
        if let Some(keys_jwt) = &committed.keys_jwt {
            journal.publish_keys(keys_jwt);
        }
        let mut tokens = committed.tokens.into_iter();
        let mut again = Vec::new();
        let mut replies = Vec::with_capacity(batch.jobs.len());
        for (job, decision) in batch.jobs.into_iter().zip(batch.decisions) {
            let context = decision.context;
            let voided = |granted: &GrantedToken| journal.audit.note_voided(granted, &context);
            let outcomes = decision.outcomes.into_iter();
            let verdicts: Vec<Verdict> =
                outcomes.map(|o| verdict(o, &mut tokens, voided)).collect();
            if is_deferred(&verdicts) {
                again.push(job);
                continue;
            }
            self.metrics.verdicts(&job.request.realm, &verdicts);
            replies.push((job.reply, verdicts));
        }
        self.reply(replies);
        let mut queue = lock(&self.queue);
        queue.in_flight = queue.in_flight.saturating_sub(1);
        for job in again.into_iter().rev() {
            queue.job_bytes = queue.job_bytes.saturating_add(job.bytes);
            queue.jobs.push_front(job);
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Wakes the handlers from within their runtime: from a thread outside of it, each of them would
    /// be woken by a system call of its own.
    fn reply(&self, replies: Vec<(Reply, Vec<Verdict>)>) {
        let send = move || {
            for (reply, verdicts) in replies {
                // The handler may have given up; its token was logged, and dies here.
                let _ = reply.send(Ok(verdicts));
            }
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { send() })),
            None => send(),
        }
    }

    fn disconnect(&self) {
        let mut queue = lock(&self.queue);
        queue.connected = false;
        queue.in_flight = 0;
        queue.preparing = false;
        queue.trouble = None;
        let gone = Unavailable { why: "the signer ended", retry_after_s: 1 };
        let held = queue.held.clear();
        for batch in queue.commits.drain(..).map(|(_, batch)| batch).chain(held) {
            fail(batch.jobs, &gone);
        }
        queue.calls.clear();
        drop(queue);
        self.changed.notify_all();
    }

    fn fail_expected(&self, expected: &mut VecDeque<Expected>) {
        let gone = Unavailable { why: "the signer ended", retry_after_s: 1 };
        for expect in expected.drain(..) {
            match expect {
                Expected::Prepared(jobs) | Expected::Committed(Batch { jobs, .. }) => {
                    fail(jobs, &gone);
                }
                Expected::Call(_) => {}
            }
        }
    }
}

/// The next thing to write.
enum Step {
    Commit(u64, Batch),
    Call(Request, oneshot::Sender<Response>),
    Frame(Vec<Job>, Vec<AuditStatement>),
}

impl Queue {
    /// Whether a frame may go to the signer now.
    fn has_room(&self) -> bool {
        !self.preparing && self.in_flight < MAX_OPEN_BATCHES
    }

    /// As many requests as one frame takes, oldest first, without those whose client gave up.
    fn take_frame(&mut self) -> Vec<Job> {
        let mut frame = Vec::new();
        let mut bytes = 0_usize;
        while frame.len() < MAX_TOKENS_PER_FRAME {
            let Some(next) = self.jobs.front() else { break };
            bytes = bytes.saturating_add(next.bytes);
            if bytes > MAX_FRAME_PROOF_BYTES && !frame.is_empty() {
                break;
            }
            let Some(job) = self.jobs.pop_front() else { break };
            self.job_bytes = self.job_bytes.saturating_sub(job.bytes);
            if !job.reply.is_closed() {
                frame.push(job);
            }
        }
        frame
    }
}

/// Entries of the signer's log with a batch.
fn size_after(prepared: &Prepared) -> u64 {
    let entries = u64::try_from(prepared.entries.len()).unwrap_or(u64::MAX);
    prepared.first_index.saturating_add(entries)
}

/// The requests go into the frame and back to their jobs: a full frame may return them.
fn encode_frame(
    jobs: Vec<Job>,
    audit: Vec<AuditStatement>,
    outgoing: &mut Outgoing,
) -> Result<Vec<Job>, LinkError> {
    let (requests, rest): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|job| (job.request, (job.bytes, job.reply))).unzip();
    let request = Request::Prepare(Prepare { requests, audit });
    outgoing.encode(&request)?;
    let Request::Prepare(Prepare { requests, .. }) = request else { return Ok(Vec::new()) };
    let jobs = requests.into_iter().zip(rest);
    Ok(jobs.map(|(request, (bytes, reply))| Job { request, bytes, reply }).collect())
}

/// What a request takes in a frame, at most: every string that a stranger may have filled.
fn request_bytes(request: &IssueRequest) -> usize {
    use chancery_signer_api::Proof;
    let some = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let proof = match &request.proof {
        Proof::Signed { jws } => jws.len(),
        Proof::Kubernetes { claims } => claims.len(),
        Proof::Assertion { jws, audiences, scope, subject, algorithm, client_id, .. } => audiences
            .iter()
            .map(|a| a.len().saturating_add(8))
            .chain([jws.len(), some(scope), some(subject), some(algorithm), some(client_id)])
            .fold(0, usize::saturating_add),
    };
    let fixed = request.realm.len().saturating_add(request.context.len()).saturating_add(256);
    proof.saturating_add(fixed)
}

fn verdict(
    outcome: Outcome,
    tokens: &mut impl Iterator<Item = Option<String>>,
    voided: impl Fn(&GrantedToken),
) -> Verdict {
    match outcome {
        Outcome::Refused { code, detail } => Verdict::Refused { code, detail },
        Outcome::Granted(granted) => match tokens.next().flatten() {
            Some(token) => Verdict::Issued(Issued {
                token,
                lifetime_s: granted.lifetime_s,
                scope: granted.scope,
                index: granted.index,
                jti: granted.jti,
            }),
            None => {
                voided(&granted);
                let detail = "the signature came too late or its key is gone; ask again".into();
                Verdict::Refused { code: "voided".into(), detail }
            }
        },
    }
}

fn is_deferred(verdicts: &[Verdict]) -> bool {
    matches!(verdicts, [Verdict::Refused { code, .. }] if code == "deferred")
}

fn fail(jobs: Vec<Job>, why: &Unavailable) {
    for job in jobs {
        let _ = job.reply.send(Err(why.clone()));
    }
}

#[cfg(test)]
mod tests;
