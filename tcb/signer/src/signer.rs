//! The signer's state, and the one place where requests are dispatched.

use std::collections::{HashMap, VecDeque};

use chancery_entry::{Entry, Genesis, PolicyVersion, Predecessor, Void, VoidReason};
use chancery_policy::Policy;
use chancery_policy::replay::{ClientMemory, ProofId};
use chancery_signer_api::{
    Appraised, AuditStatement, Committed, Compromise, Compromised, CompromisedKey, Cosign,
    Cosigned, Fault, FaultCode, Hello, LoadPolicy, MAX_AUDIT_STATEMENTS, MAX_OPEN_BATCHES,
    MAX_TOKENS_PER_FRAME, Notice, PROTOCOL_VERSION, Phase, PolicyLoaded, Prepare, Prepared,
    Protection, Request, Response, Resume, Resumed, Rotate, Rotating, Start, Status, Welcome,
    Witnessed,
};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Checkpoint, Hash, LogId, empty_root};

use crate::SOFTWARE;
use crate::clock::{Clock, Now, Watch};
use crate::evidence::Evidence;
use crate::imports::{self, Imports};
use crate::issue::{self, Desk};
use crate::keys::Keys;
use crate::log::{self, Log};
use crate::memory;
use crate::open::OpenBatch;
use crate::publish::KeySetPublisher;
use crate::witnessed::Witnessing;

/// The most compromised keys in one message: all live keys of a hundred lanes.
const MAX_COMPROMISED: usize = 8_192;
/// The most entries that a service may have made the signer add since its last `Prepare`: two
/// messages of [`MAX_COMPROMISED`] keys. Memory must not grow with a service that never collects.
const MAX_WAITING_FOR_SERVICE: usize = 2 * MAX_COMPROMISED;
/// A notice is a line for an operator; the log has all of them.
const MAX_INDEXES_IN_NOTICE: usize = 8;

/// How long is signed without a sweep, in milliseconds.
const SIGN_SLICE_MS: u64 = 100;
/// The most notices that wait for a service: more tell nothing new.
const MAX_NOTICES: usize = 1_024;
/// How often expired proofs of all clients are forgotten, in milliseconds.
const TIDY_EVERY_MS: u64 = 60_000;

/// Everything that a signer is.
#[derive(Debug)]
pub struct Signer<C> {
    watch: Watch<C>,
    started_at: u64,
    sandbox: Vec<Protection>,
    phase: Phase,
    log: Log,
    keys: Keys,
    imports: Imports,
    publisher: KeySetPublisher,
    evidence: Evidence,
    policy: Option<Policy>,
    /// Accepted, its entry not yet in a batch.
    next_policy: Option<Policy>,
    memories: Memories,
    open: VecDeque<OpenBatch>,
    batches: u64,
    /// Size and root of what the service acknowledged.
    committed: (u64, [u8; 32]),
    /// Where signatures wait for witnesses too.
    witnessing: Option<Witnessing>,
    notices: Vec<Notice>,
    clock_was_trusted: bool,
    tidied_boot_ms: u64,
    overflow: memory::Overflow,
}

/// What is remembered of each client, across policy versions, by issuer: a proof names the issuer,
/// and would come back under another realm name after a policy that renames the realm.
#[derive(Debug, Default)]
pub struct Memories(HashMap<String, HashMap<String, ClientMemory>>);

impl Memories {
    /// Whether a client's proof was used already.
    pub(crate) fn was_used(&self, issuer: &str, client: &str, proof: &ProofId) -> bool {
        let memory = self.0.get(issuer).and_then(|clients| clients.get(client));
        memory.is_some_and(|memory| memory.was_used(proof))
    }

    fn forget(&mut self, now: u64) {
        for memory in self.0.values_mut().flat_map(|clients| clients.values_mut()) {
            memory.forget(now);
        }
    }

    /// The memory of a client that the policy knows.
    pub(crate) fn of(&mut self, issuer: &str, client: &str) -> &mut ClientMemory {
        let clients = self.0.entry(issuer.to_owned()).or_default();
        clients.entry(client.to_owned()).or_default()
    }
}

/// Why a signer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log failed.
    #[error("signer log: {0}")]
    Log(#[from] log::Error),
    /// The worker thread for RSA keys cannot be started.
    #[error("thread for RSA keys: {0}")]
    Thread(#[from] std::io::Error),
}

type Answer = Result<Response, Fault>;

fn fault(code: FaultCode, detail: impl Into<String>) -> Fault {
    Fault { code, detail: detail.into() }
}

fn internal(e: log::Error) -> Fault {
    fault(FaultCode::Internal, format!("{e}; end this signer, a new one starts a new log"))
}

impl<C: Clock> Signer<C> {
    /// A fresh signer with a new identity.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(clock: C) -> Result<Self, Error> {
        let mut watch = Watch::new(clock);
        let started_at = watch.now().seconds();
        Ok(Self {
            watch,
            started_at,
            sandbox: Vec::new(),
            phase: Phase::Hello,
            log: Log::new()?,
            keys: Keys::new()?,
            imports: Imports::default(),
            publisher: KeySetPublisher::default(),
            evidence: Evidence::software(),
            policy: None,
            next_policy: None,
            memories: Memories::default(),
            open: VecDeque::new(),
            batches: 0,
            committed: (0, empty_root().0),
            witnessing: None,
            notices: Vec::new(),
            clock_was_trusted: true,
            tidied_boot_ms: 0,
            overflow: memory::Overflow::default(),
        })
    }

    /// Says what the sandbox holds, for greetings.
    pub fn set_sandbox(&mut self, sandbox: Vec<Protection>) {
        self.sandbox = sandbox;
    }

    /// A new peer connected: it starts with a greeting.
    pub fn connected(&mut self) {
        self.phase = Phase::Hello;
    }

    /// The clock, for tests that move it.
    pub fn clock_mut(&mut self) -> &mut C {
        self.watch.clock_mut()
    }

    /// The log's id.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.log.id()
    }

    /// Answers one request. The caller ends the connection after a fault of code
    /// [`FaultCode::Phase`] or [`FaultCode::Version`].
    pub fn handle(&mut self, request: Request) -> Response {
        if !self.phase.accepts(&request) {
            let detail = format!("phase `{:?}` does not accept this message", self.phase);
            return Response::Fault(fault(FaultCode::Phase, detail));
        }
        let now = self.watch.now();
        let answer = match request {
            Request::Hello(hello) => self.hello(hello),
            Request::Start(start) => self.start(start, now),
            Request::Resume(resume) => self.resume(resume),
            Request::Prepare(prepare) => self.prepare(prepare, now),
            Request::Commit(commit) => self.commit(commit.batch, now),
            Request::LoadPolicy(load) => self.load_policy(load),
            Request::Rotate(rotate) => self.rotate(rotate, now),
            Request::Compromise(compromise) => self.compromise(compromise, now),
            Request::Witnessed(witnessed) => self.witnessed(&witnessed),
            Request::Cosign(cosign) => self.cosign(&cosign),
            Request::Evidence(asked) => self.make_evidence(asked.nonce.into()),
            Request::Appraised(appraised) => self.note_appraised(&appraised),
            Request::Status => Ok(self.status(now)),
            Request::End => Ok(Response::Ending),
        };
        answer.unwrap_or_else(Response::Fault)
    }

    /// Step 5, after the answer to `Prepare` left: overlaps with the service's disk.
    ///
    /// Slow algorithms are signed in slices with a sweep after each, so that a full frame of RSA-4096
    /// keeps no key alive past its window (INVARIANT I4).
    pub fn sign_open(&mut self) {
        while !self.sign_slice() {
            if self.tick().is_err() {
                // The log cannot be extended: the next tick of the loop ends the signer.
                return;
            }
        }
    }

    /// Signs for a while; `true` when nothing is left to sign.
    fn sign_slice(&mut self) -> bool {
        let until = self.watch.now().boot_ms.saturating_add(SIGN_SLICE_MS);
        for batch in &mut self.open {
            if !batch.sign(&self.keys, until, || self.watch.now()) {
                return false;
            }
        }
        true
    }

    /// What time brings: destroyed keys, announcements, voided batches. Needs nobody.
    ///
    /// # Errors
    /// Fatal errors of the log.
    pub fn tick(&mut self) -> Result<(), Error> {
        let now = self.watch.now();
        Ok(self.tick_at(now)?)
    }

    fn tick_at(&mut self, now: Now) -> Result<(), log::Error> {
        self.note_clock(now);
        self.expire_open(now)?;
        if self.policy.is_some() {
            self.keys.sweep(now, &mut self.log, &mut self.notices)?;
        }
        self.tidy(now);
        Ok(())
    }

    fn expire_open(&mut self, now: Now) -> Result<(), log::Error> {
        let mut voided = Vec::new();
        for batch in &mut self.open {
            voided.extend(batch.expire(now));
        }
        self.note_voids(&voided)
    }

    fn note_clock(&mut self, now: Now) {
        if now.is_trusted() == self.clock_was_trusted {
            return;
        }
        self.clock_was_trusted = now.is_trusted();
        let (code, text) = match now.untrusted_by_ms {
            Some(off) => (
                "clock_untrusted",
                format!(
                    "the wall clock is off by {off} ms against the boot-time clock: nothing is \
                     signed until it is right again, or until the signer is restarted"
                ),
            ),
            None => ("clock_trusted", "the wall clock is right again".to_owned()),
        };
        self.notices.push(Notice { code: code.into(), text });
    }

    /// Memory that nobody collects stays bounded: of notices the first ones tell most, and expired
    /// proofs of idle clients are forgotten about once a minute.
    fn tidy(&mut self, now: Now) {
        self.overflow.note(&mut self.notices);
        self.notices.truncate(MAX_NOTICES);
        if now.boot_ms.saturating_sub(self.tidied_boot_ms) >= TIDY_EVERY_MS {
            self.tidied_boot_ms = now.boot_ms;
            self.memories.forget(now.seconds());
        }
    }

    fn note_voids(&mut self, voided: &[(u64, VoidReason)]) -> Result<(), log::Error> {
        for (index, reason) in voided {
            self.log.append(&Entry::Void(Void { index: *index, reason: *reason }))?;
        }
        if !voided.is_empty() {
            let indexes: Vec<String> =
                voided.iter().take(MAX_INDEXES_IN_NOTICE).map(|(i, _)| i.to_string()).collect();
            let text = format!(
                "{} signatures were voided and never left, the entries `{}` among them; their \
                 reasons are in the log",
                voided.len(),
                indexes.join(", ")
            );
            self.notices.push(Notice { code: "voided".into(), text });
        }
        Ok(())
    }

    fn hello(&mut self, hello: Hello) -> Answer {
        if !hello.versions.contains(&PROTOCOL_VERSION) {
            let detail = format!(
                "this signer speaks version `{PROTOCOL_VERSION}`, the service `{:?}`; install \
                 matching versions",
                hello.versions
            );
            return Err(fault(FaultCode::Version, detail));
        }
        let fresh = self.policy.is_none();
        self.phase = if fresh { Phase::Start } else { Phase::Resume };
        Ok(Response::Welcome(Welcome {
            version: PROTOCOL_VERSION,
            software: SOFTWARE.to_owned(),
            identity: self.log.public().into(),
            fresh,
            origin: self.log.origin().to_owned(),
            started_at: self.started_at,
            sandbox: memory::amended(self.sandbox.clone()),
        }))
    }

    fn start(&mut self, start: Start, now: Now) -> Answer {
        let policy =
            Policy::parse(&start.policy).map_err(|e| fault(FaultCode::Policy, e.to_string()))?;
        memory::demand(&policy, &self.sandbox).map_err(|e| fault(FaultCode::Policy, e))?;
        let witnessing = witnessing(&policy)?;
        let predecessor = start.predecessor.map(verify_predecessor).transpose()?;
        check_compromised(&start.compromised)?;
        self.log.open(policy.log_prefix()).map_err(internal)?;
        let evidence = self.evidence.at_start(&self.log, policy.digest());
        let evidence = evidence.map_err(|e| fault(FaultCode::Evidence, e.to_string()))?;
        let genesis = Genesis {
            software: SOFTWARE.to_owned(),
            started_at: self.started_at,
            policy_digest: policy.digest(),
            evidence_digest: Some(evidence),
            predecessor,
            cosigning_key: Some(self.log.cosigning_public().to_vec()),
        };
        self.log.append(&Entry::Genesis(genesis)).map_err(internal)?;
        self.append_policy(&policy).map_err(internal)?;
        for key in start.compromised {
            self.imports.note_fallen(*key.kid);
            self.keys
                .compromise(*key.kid, &key.reason, false, now, &mut self.log)
                .map_err(internal)?;
        }
        self.imports.note_names(&policy);
        self.follow(&policy, now).map_err(internal)?;
        self.keys.sweep(now, &mut self.log, &mut self.notices).map_err(internal)?;
        self.policy = Some(policy);
        self.witnessing = witnessing;
        self.phase = Phase::Serving;
        self.close_batch(Vec::new(), Vec::new(), None, now)
    }

    fn follow(&mut self, policy: &Policy, now: Now) -> Result<(), log::Error> {
        self.keys.follow(policy, now, &mut self.log)?;
        self.imports.follow(policy, now.seconds(), &mut self.log)
    }

    fn append_policy(&mut self, policy: &Policy) -> Result<(), log::Error> {
        let entry = PolicyVersion { version: policy.version(), digest: policy.digest() };
        self.log.append(&Entry::Policy(entry))?;
        Ok(())
    }

    /// INVARIANT I9: a service that lost or rewrote what it acknowledged is found out here.
    fn resume(&mut self, resume: Resume) -> Answer {
        let held = (resume.size, *resume.root);
        let open = self.open.iter().map(|b| (b.size, b.root.0));
        if held != self.committed && !open.into_iter().any(|state| state == held) {
            let detail = format!(
                "the store holds `{}` entries of this signer's log, or others than it \
                 acknowledged (`{}` entries): restore the data folder, or end the signer and let \
                 a new one start a new log",
                resume.size, self.committed.0
            );
            return Err(fault(FaultCode::StorageLost, detail));
        }
        self.void_unwitnessed().map_err(internal)?;
        self.phase = Phase::Serving;
        Ok(Response::Resumed(Resumed {
            open: self.open.iter().map(|b| b.prepared.clone()).collect(),
            keys_jwt: self.publisher.latest().to_owned(),
            policy_version: self.policy.as_ref().map_or(0, Policy::version),
            policy_digest: self.policy.as_ref().map_or([0; 32], Policy::digest).into(),
            directory_size: self.witnessing.as_ref().map_or(0, Witnessing::directory_size),
        }))
    }

    /// A service that comes back commits what is open before anything else, and nobody waits for the
    /// tokens in it: they need no witness to be dropped.
    fn void_unwitnessed(&mut self) -> Result<(), log::Error> {
        let Some(witnessing) = &self.witnessing else { return Ok(()) };
        let mut voided = Vec::new();
        for batch in self.open.iter_mut().filter(|batch| !witnessing.covers(batch.size)) {
            voided.extend(batch.void());
        }
        self.note_voids(&voided)
    }

    fn prepare(&mut self, prepare: Prepare, now: Now) -> Answer {
        if self.open.len() >= MAX_OPEN_BATCHES {
            return Err(fault(FaultCode::TooManyOpen, "commit the oldest batch first"));
        }
        if prepare.requests.len() > MAX_TOKENS_PER_FRAME {
            let detail = format!("more than `{MAX_TOKENS_PER_FRAME}` requests in a frame");
            return Err(fault(FaultCode::Malformed, detail));
        }
        if prepare.audit.len() > MAX_AUDIT_STATEMENTS {
            let detail = format!("more than `{MAX_AUDIT_STATEMENTS}` statements in a frame");
            return Err(fault(FaultCode::Malformed, detail));
        }
        // The sweep and `iat` share one reading, so that no key is destroyed in between.
        self.tick_at(now).map_err(internal)?;
        for statement in prepare.audit {
            self.log.append(&audit_entry(&statement, now)).map_err(internal)?;
        }
        let next_policy = self.next_policy.take();
        if let Some(policy) = &next_policy {
            self.append_policy(policy).map_err(internal)?;
        }
        let Some(policy) = &self.policy else {
            return Err(fault(FaultCode::Phase, "no policy"));
        };
        let mut desk = Desk {
            full: false,
            policy,
            memories: &mut self.memories,
            keys: &mut self.keys,
            log: &mut self.log,
            now,
            started_at: self.started_at,
            appended: Vec::new(),
            outcomes: 0,
            bytes: 0,
            random: issue::Random::new(),
        };
        let mut decisions = Vec::with_capacity(prepare.requests.len());
        for request in prepare.requests {
            decisions.push(issue::prepare(&mut desk, request).map_err(internal)?);
        }
        let appended = desk.appended;
        self.close_batch(decisions, appended, next_policy, now)
    }

    /// One checkpoint closes the batch.
    fn close_batch(
        &mut self,
        decisions: Vec<chancery_signer_api::Decision>,
        appended: Vec<crate::open::Appended>,
        policy: Option<Policy>,
        now: Now,
    ) -> Answer {
        let segment = self.log.close_segment().map_err(internal)?;
        self.batches = self.batches.saturating_add(1);
        let prepared = Prepared {
            batch: self.batches,
            first_index: segment.first_index,
            entries: segment.entries.into_iter().map(Into::into).collect(),
            checkpoint: segment.checkpoint,
            decisions,
            notices: std::mem::take(&mut self.notices),
        };
        // A service that restarts before its commit gets all of this again.
        self.open.push_back(OpenBatch::new(
            prepared.clone(),
            segment.size,
            segment.root,
            policy,
            appended,
            now,
        ));
        Ok(Response::Prepared(prepared))
    }

    /// Step 6: the service says that the batch is durable. INVARIANT I2.
    fn commit(&mut self, batch: u64, now: Now) -> Answer {
        if self.open.front().is_none_or(|b| b.prepared.batch != batch) {
            let detail = format!("batch `{batch}` is not the oldest open one");
            return Err(fault(FaultCode::NotOpen, detail));
        }
        // The sweep does this too; a commit between two sweeps is judged by the same bound.
        self.expire_open(now).map_err(internal)?;
        if let (Some(witnessing), Some(open)) = (&self.witnessing, self.open.front())
            && open.holds_tokens()
            && !witnessing.covers(open.size)
        {
            let detail = format!("no witnessed root covers the `{}` entries of it yet", open.size);
            return Err(fault(FaultCode::NotWitnessed, detail));
        }
        self.sign_open();
        let Some(mut open) = self.open.pop_front() else {
            return Err(fault(FaultCode::NotOpen, "no batch is open"));
        };
        self.committed = (open.size, open.root.0);
        self.keys.committed(open.size, now);
        if let Some(policy) = open.policy.take() {
            self.follow(&policy, now).map_err(internal)?;
            self.policy = Some(policy);
        }
        let released = open.release(&self.keys);
        self.note_voids(&released.voided).map_err(internal)?;
        let keys_jwt = self.publisher.update(&mut self.keys, &self.log, now).map_err(internal)?;
        Ok(Response::Committed(Committed { batch, tokens: released.tokens, keys_jwt }))
    }

    /// INVARIANT I2: the service shows that witnesses cosigned what covers this signer's entries.
    fn witnessed(&mut self, shown: &Witnessed) -> Answer {
        let refused = |why: String| fault(FaultCode::NotWitnessed, why);
        let Some(witnessing) = &mut self.witnessing else {
            return Err(refused("the policy asks for no witnesses".into()));
        };
        let Some(key) = self.log.key() else {
            return Err(fault(FaultCode::Phase, "the log is not open"));
        };
        witnessing.accept(shown, key, self.log.id()).map(Response::Covered).map_err(refused)
    }

    /// The second signature of a checkpoint that this signer signed lately.
    fn cosign(&self, asked: &Cosign) -> Answer {
        match self.log.cosign(asked.size, Hash(*asked.root)).map_err(internal)? {
            Some(signature) => Ok(Response::Cosigned(Cosigned { signature: signature.into() })),
            None => {
                let detail =
                    format!("no tree of `{}` entries with that root was signed lately", asked.size);
                Err(fault(FaultCode::UnknownTree, detail))
            }
        }
    }

    fn load_policy(&mut self, load: LoadPolicy) -> Answer {
        let policy =
            Policy::parse(&load.policy).map_err(|e| fault(FaultCode::Policy, e.to_string()))?;
        let known = [self.policy.as_ref(), self.next_policy.as_ref()];
        let open = self.open.iter().map(|b| b.policy.as_ref());
        let newest = known.into_iter().chain(open).flatten().max_by_key(|p| p.version());
        if let Some(newest) = newest
            && newest.version() == policy.version()
            && newest.digest() == policy.digest()
        {
            // A service that does not know whether it was heard asks again, and changes nothing.
            let (version, digest) = (policy.version(), policy.digest().into());
            return Ok(Response::PolicyLoaded(PolicyLoaded { version, digest }));
        }
        if newest.is_some_and(|n| policy.version() <= n.version()) {
            let detail = format!("policy version `{}` is not newer", policy.version());
            return Err(fault(FaultCode::Policy, detail));
        }
        let open = self.open.iter().filter_map(|b| b.policy.as_ref());
        for earlier in self.policy.iter().chain(open) {
            check_succession(earlier, &policy)?;
        }
        self.check_issuers(&policy)?;
        memory::demand(&policy, &self.sandbox).map_err(|e| fault(FaultCode::Policy, e))?;
        imports::check(&policy, &self.keys, &self.imports)
            .map_err(|e| fault(FaultCode::Policy, e))?;
        // A host that could drop the witnesses would have what it wants by a reload.
        let same = match (&self.witnessing, policy.witnessed()) {
            (Some(witnessing), Some(text)) => witnessing.is(text),
            (None, None) => true,
            _ => false,
        };
        if !same {
            let detail = "what is released under cannot change while a signer lives; restart it";
            return Err(fault(FaultCode::Policy, detail));
        }
        let (version, digest) = (policy.version(), policy.digest().into());
        self.imports.note_names(&policy);
        self.next_policy = Some(policy);
        Ok(Response::PolicyLoaded(PolicyLoaded { version, digest }))
    }

    /// INVARIANT I3: a realm that left the policy and comes back finds its own keys, so it must
    /// come back with its own issuer.
    fn check_issuers(&self, policy: &Policy) -> Result<(), Fault> {
        for lane in self.keys.lanes() {
            let realm = policy.realm(lane.realm()).ok();
            if realm.is_some_and(|r| r.issuer != lane.issuer) {
                return Err(issuer_changed(lane.realm()));
            }
            if realm.is_some_and(|r| r.kubernetes.is_some() != lane.is_kubernetes()) {
                return Err(kind_changed(lane.realm()));
            }
        }
        Ok(())
    }

    fn rotate(&mut self, rotate: Rotate, now: Now) -> Answer {
        let known = self.policy.as_ref().is_some_and(|p| p.realm(&rotate.realm).is_ok());
        if !known {
            return Err(fault(FaultCode::UnknownRealm, format!("no realm `{}`", rotate.realm)));
        }
        let active_from = self.keys.rotate(&rotate.realm, now, &mut self.log).map_err(internal)?;
        Ok(Response::Rotating(Rotating { active_from }))
    }

    fn compromise(&mut self, compromise: Compromise, now: Now) -> Answer {
        check_compromised(&compromise.keys)?;
        self.check_waiting()?;
        let mut gone = Vec::new();
        for key in compromise.keys {
            self.imports.note_fallen(*key.kid);
            let fell = self
                .keys
                .compromise(*key.kid, &key.reason, compromise.include_retired, now, &mut self.log)
                .map_err(internal)?;
            gone.extend(fell.into_iter().map(minicbor::bytes::ByteArray::from));
        }
        // A fresh key signs at once, announced before the next token.
        self.keys.sweep(now, &mut self.log, &mut self.notices).map_err(internal)?;
        Ok(Response::Compromised(Compromised { gone }))
    }

    fn check_waiting(&self) -> Result<(), Fault> {
        if self.log.waiting() < MAX_WAITING_FOR_SERVICE {
            return Ok(());
        }
        let detail = "too many entries wait to be collected; send a `Prepare` first";
        Err(fault(FaultCode::TooManyOpen, detail))
    }

    /// The service's word, in an entry kind that nothing else has.
    fn note_appraised(&mut self, appraised: &Appraised) -> Answer {
        self.check_waiting()?;
        self.log.append(&appraised_entry(appraised)).map_err(internal)?;
        Ok(Response::Noted)
    }

    fn make_evidence(&mut self, nonce: Vec<u8>) -> Answer {
        let policy = self.policy.as_ref().map_or([0; 32], Policy::digest);
        let made = self.evidence.answer(&self.log, policy, nonce);
        made.map(Response::Evidence).map_err(|e| fault(FaultCode::Evidence, e.to_string()))
    }

    fn status(&mut self, now: Now) -> Response {
        Response::Status(Status {
            policy_version: self.policy.as_ref().map_or(0, Policy::version),
            policy_digest: self.policy.as_ref().map_or([0; 32], Policy::digest).into(),
            committed_size: self.committed.0,
            clock_trusted: now.is_trusted(),
            keys: self.keys.status(now),
            secret_memory: memory::status(),
        })
    }
}

fn witnessing(policy: &Policy) -> Result<Option<Witnessing>, Fault> {
    let Some(text) = policy.witnessed() else { return Ok(None) };
    let parsed = chancery_policy::witnessed::parse(text);
    let parsed = parsed.map_err(|e| fault(FaultCode::Policy, e.to_string()))?;
    Ok(Some(Witnessing::new(parsed, text.to_owned())))
}

/// The service's word, in entry kinds that nothing else has.
fn audit_entry(statement: &AuditStatement, now: Now) -> Entry {
    match statement {
        AuditStatement::Stored(segment) => Entry::AuditSegment(chancery_entry::AuditSegment {
            log: *segment.log,
            number: segment.number,
            first: segment.first,
            records: segment.records,
            hour: segment.hour,
            digest: *segment.digest,
        }),
        AuditStatement::Removed(removal) => Entry::AuditRemoval(chancery_entry::AuditRemoval {
            log: *removal.log,
            first: removal.first,
            segments: removal.segments,
            before: removal.before,
            at: now.seconds(),
        }),
    }
}

fn appraised_entry(appraised: &Appraised) -> Entry {
    Entry::Appraised(chancery_entry::Appraised {
        at: appraised.at,
        evidence: *appraised.evidence,
        policy: *appraised.policy,
        accepted: appraised.accepted,
        result: *appraised.result,
    })
}

/// The predecessor's checkpoint goes into genesis only after this signer verified it.
fn verify_predecessor(named: chancery_signer_api::Predecessor) -> Result<Predecessor, Fault> {
    let refused = |e: String| fault(FaultCode::Predecessor, e);
    let key = VerifierKey::parse(&named.vkey).map_err(|e| refused(e.to_string()))?;
    let public: [u8; 32] = key
        .public_key()
        .try_into()
        .map_err(|_| refused("the predecessor's key is not an Ed25519 key".into()))?;
    let id = LogId::of(&public).to_string();
    if key.name().rsplit('/').next() != Some(id.as_str()) {
        return Err(refused(format!("origin `{}` does not end in log id `{id}`", key.name())));
    }
    Checkpoint::open(named.checkpoint.as_bytes(), &[key]).map_err(|e| refused(e.to_string()))?;
    Ok(Predecessor { vkey: named.vkey, checkpoint: named.checkpoint })
}

fn check_compromised(keys: &[CompromisedKey]) -> Result<(), Fault> {
    if keys.len() > MAX_COMPROMISED {
        return Err(fault(FaultCode::Malformed, format!("more than `{MAX_COMPROMISED}` keys")));
    }
    let limit = chancery_entry::MAX_REASON_BYTES;
    if keys.iter().any(|k| k.reason.len() > limit) {
        return Err(fault(FaultCode::Malformed, format!("a reason has at most `{limit}` bytes")));
    }
    Ok(())
}

/// What a living signer cannot change: the log's origin and a realm's issuer.
fn check_succession(current: &Policy, next: &Policy) -> Result<(), Fault> {
    if current.log_prefix() != next.log_prefix() {
        let detail = "log_prefix cannot change while a signer lives; restart the signer";
        return Err(fault(FaultCode::Policy, detail));
    }
    for realm in next.realms() {
        let before = current.realm(&realm.name).ok();
        // INVARIANT I3: a key speaks for one issuer only.
        if before.is_some_and(|b| b.issuer != realm.issuer) {
            return Err(issuer_changed(&realm.name));
        }
        if before.is_some_and(|b| b.kubernetes.is_some() != realm.kubernetes.is_some()) {
            return Err(kind_changed(&realm.name));
        }
    }
    Ok(())
}

fn kind_changed(realm: &str) -> Fault {
    let detail = format!(
        "realm `{realm}` cannot become or cease to be one of Kubernetes while its keys live; use a \
         new realm"
    );
    fault(FaultCode::Policy, detail)
}

fn issuer_changed(realm: &str) -> Fault {
    let detail =
        format!("realm `{realm}` cannot change its issuer while its keys live; use a new realm");
    fault(FaultCode::Policy, detail)
}
