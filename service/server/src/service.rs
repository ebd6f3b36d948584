//! The service put together: recovery, the line to the signer, publishing, the key sets.
//!
//! One supervisor thread owns the write-ahead log and attaches to a signer; when that one ends, its
//! log is closed, its keys leave by their logs, and the next signer starts a log of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chancery_signer_api::{
    Commit, Compromise, CompromisedKey, FaultCode, LoadPolicy, Predecessor, Prepared, Request,
    Response, Resume, Resumed, Start, Welcome,
};
use chancery_tlog::LogId;
use chancery_tlog::note::VerifierKey;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::folder::Paths;
use crate::issue::{Issuer, Unavailable};
use crate::journal::{Journal, Progress};
use crate::keyset::KeySets;
use crate::ledger::{Kid, Ledger, SummaryKey};
use crate::link::{Connection, LinkError};
use crate::logs::{Batch, Log, LogError, Logs};
use crate::metrics::Metrics;
use crate::overdue::OverdueKeys;
use crate::policies::{self, PolicyError, Version};
use crate::signer_process::{self, StartError};
use crate::store::{Store, StoreError};
use crate::wal::{Record, RecordKind, Wal, WalError};

/// How often committed entries go to the store.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// Wait before a failed attempt to reach a signer is repeated; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest such wait: a signer that is back is found within this time.
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// Why the service cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A log is damaged.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The write-ahead log cannot be used.
    #[error("write-ahead log: {0}")]
    Wal(#[from] WalError),
    /// A record of the write-ahead log is not what this version writes.
    #[error("write-ahead record {sequence}: {why}; run the version of chancery that wrote it")]
    Record {
        /// Sequence number.
        sequence: u64,
        /// What is wrong.
        why: String,
    },
    /// The policy cannot be settled.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// No signer can be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The line to the signer broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The running signer cannot follow the configuration.
    #[error(
        "the running signer refuses the configuration: {0}; change it back, or end the signer with \
         `chancery signer end`: its keys end with it"
    )]
    PolicyRefused(String),
    /// The signer keeps what the store lost.
    #[error("STORAGE LOST: {0}")]
    StorageLost(String),
}

/// Where the signer is.
#[derive(Clone, Debug)]
pub enum SignerAt {
    /// Start one beside this binary when none is alive.
    Own,
    /// Somebody else runs it.
    Socket {
        /// Where it listens.
        socket: PathBuf,
        /// The user that it runs as, where that is not the service's own.
        uid: Option<u32>,
    },
}

/// A signer as the service met it, for `/signers`.
#[derive(Clone, Debug, Serialize)]
pub struct SignerInfo {
    /// Its log.
    pub log_id: String,
    /// The log's origin.
    pub origin: String,
    /// The log's verifier key (C2SP signed-note).
    pub vkey: String,
    /// Name and version of the software.
    pub software: String,
    /// Unix seconds.
    pub started_at: u64,
    /// Whether the service is attached to it now.
    pub attached: bool,
    /// Evidence: `software` means that nobody but its own word vouches for it.
    pub evidence: &'static str,
    /// The protections of its process.
    pub sandbox: Vec<ProtectionInfo>,
    /// Version of the policy that it was given.
    pub policy_version: u64,
    /// SHA-256 of that policy, hexadecimal.
    pub policy_digest: String,
}

/// One protection.
#[derive(Clone, Debug, Serialize)]
pub struct ProtectionInfo {
    /// Its name.
    pub name: String,
    /// Whether it is in force.
    pub in_force: bool,
    /// What it covers, or why it is missing.
    pub detail: String,
}

/// A compromise as an operator stated it, stored before anything else happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompromiseFact {
    /// RFC 7638 thumbprint, base64url.
    pub kid: String,
    /// The operator's words.
    pub reason: String,
    /// Unix seconds, by the host's clock.
    pub at: u64,
    /// Whether retired keys of the realm fall too.
    pub include_retired: bool,
}

/// What is left behind by a log whose signer is dead, so that later starts need not read it.
#[derive(Debug, Serialize, Deserialize)]
struct Closing {
    size: u64,
    started_at: u64,
    last_needed: u64,
}

/// The running service.
pub struct Service {
    /// Its configuration at start; realms follow reloads in `policy`.
    pub config: Config,
    /// The data folder's paths.
    pub paths: Paths,
    /// The store.
    pub store: Store,
    /// The logs.
    pub logs: Logs,
    /// The served key sets.
    pub keys: Arc<KeySets>,
    /// The main job.
    pub issuer: Issuer,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    policy: Mutex<Version>,
    signers: Mutex<BTreeMap<String, SignerInfo>>,
    facts: Mutex<Vec<CompromiseFact>>,
    signer_at: SignerAt,
    reloading: tokio::sync::Mutex<()>,
    clock_trusted: AtomicBool,
    runtime: tokio::runtime::Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Recovers what a crash left, and is ready to attach to a signer.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing was changed that a second start would not do again.
    pub async fn open(
        config: Config,
        paths: Paths,
        store: Store,
        signer_at: SignerAt,
    ) -> Result<(Arc<Self>, Wal), ServiceError> {
        let (mut wal, records) = Wal::open(&paths.wal(), config.wal_segment_mib << 20)?;
        let logs = Logs::with_summaries(store.clone(), summary_key(&paths));
        recover(&logs, &store, &records).await?;
        wal.release(wal.last_sequence());
        let version = policies::settle(&store, &config).await?;
        let keys = Arc::new(KeySets::default());
        keys.set_realms(&version.document.realms, crate::now());
        let facts = load_facts(&store).await?;
        keys.add_compromised(facts.iter().filter_map(fact_kid), crate::now());
        let metrics = Arc::new(Metrics::new());
        let service = Arc::new(Self {
            config,
            paths,
            store,
            logs,
            keys,
            issuer: Issuer::new(metrics.clone()),
            metrics,
            progress: Arc::default(),
            policy: Mutex::new(version),
            signers: Mutex::default(),
            facts: Mutex::new(facts),
            signer_at,
            reloading: tokio::sync::Mutex::default(),
            clock_trusted: AtomicBool::new(true),
            runtime: tokio::runtime::Handle::current(),
        });
        service.progress.applied.store(wal.last_sequence(), Ordering::Release);
        service.progress.published.store(wal.last_sequence(), Ordering::Release);
        service.open_past_logs().await?;
        Ok((service, wal))
    }

    /// Opens every log whose keys a live token may still need, and remembers what is closed.
    async fn open_past_logs(&self) -> Result<(), ServiceError> {
        for name in self.store.folders("log").await? {
            let Ok(id) = name.parse::<LogId>() else {
                tracing::warn!("`log/{name}` in the store is not a log of ours; left alone");
                continue;
            };
            if let Ok(bytes) = self.store.get(&format!("log/{name}/closing.json")).await
                && let Ok(closing) = serde_json::from_slice::<Closing>(&bytes)
                && closing.last_needed <= crate::now()
            {
                continue;
            }
            let log = self.logs.open_with_ledger(id).await?;
            let said = log.keys_jwt();
            self.keys.add_uncertain(&name, log.ledger(), said.as_deref(), crate::now());
            self.note_signer(&log, None);
        }
        Ok(())
    }

    /// Whether tokens can be issued now, or why not.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if !self.issuer.is_ready() {
            return Err("no signer is attached, or the disk fails");
        }
        if !self.clock_trusted.load(Ordering::Relaxed) {
            return Err("the signer does not trust the wall clock");
        }
        if !self.keys.are_complete() {
            return Err("a realm has no key in its key set");
        }
        Ok(())
    }

    /// The policy version that the service wants in force.
    #[must_use]
    pub fn policy(&self) -> Version {
        lock(&self.policy).clone()
    }

    /// All signers that the service knows, dead ones included as long as their keys live.
    #[must_use]
    pub fn signers(&self) -> Vec<SignerInfo> {
        lock(&self.signers).values().cloned().collect()
    }

    /// The attached signer.
    #[must_use]
    pub fn attached(&self) -> Option<SignerInfo> {
        lock(&self.signers).values().find(|s| s.attached).cloned()
    }

    fn note_signer(&self, log: &Log, welcome: Option<(&Welcome, u64, [u8; 32])>) {
        let genesis = log.ledger().genesis;
        let mut info = SignerInfo {
            log_id: log.id_text().to_owned(),
            origin: log.vkey().name().to_owned(),
            vkey: log.vkey().to_string(),
            software: genesis.as_ref().map_or(String::new(), |g| g.software.clone()),
            started_at: genesis.as_ref().map_or(0, |g| g.started_at),
            attached: false,
            evidence: "software",
            sandbox: Vec::new(),
            policy_version: 0,
            policy_digest: String::new(),
        };
        if let Some(policy) = log.ledger().policy {
            info.policy_version = policy.version;
            info.policy_digest = hex(&policy.digest);
        }
        if let Some((welcome, version, digest)) = welcome {
            info.attached = true;
            info.policy_version = version;
            info.policy_digest = hex(&digest);
            info.sandbox = welcome
                .sandbox
                .iter()
                .map(|p| ProtectionInfo {
                    name: p.name.clone(),
                    in_force: p.in_force,
                    detail: p.detail.clone(),
                })
                .collect();
        }
        let mut signers = lock(&self.signers);
        if info.attached {
            for other in signers.values_mut() {
                other.attached = false;
            }
        }
        signers.insert(info.log_id.clone(), info);
    }

    /// Attaches to a signer, runs the main job, and starts over when the signer ends; returns when
    /// the service stops.
    ///
    /// # Errors
    /// [`ServiceError`] that no further attempt can mend.
    pub fn supervise(self: &Arc<Self>, mut wal: Wal) -> Result<(), ServiceError> {
        let mut wait = RETRY_FIRST;
        while !self.issuer.is_stopping() {
            let attached = self.attach(&mut wal);
            let (connection, log) = match attached {
                Ok(attached) => attached,
                Err(e) if is_final(&e) => return Err(e),
                Err(e) => {
                    tracing::error!("no signer: {e}; trying again");
                    std::thread::sleep(wait);
                    wait = wait.saturating_mul(2).min(RETRY_LONGEST);
                    continue;
                }
            };
            wait = RETRY_FIRST;
            self.metrics.signer(true);
            let mut journal = self.journal(&mut wal, log.clone());
            let ended = self.issuer.run(connection, &mut journal);
            self.metrics.signer(false);
            for signer in lock(&self.signers).values_mut() {
                signer.attached = false;
            }
            if self.issuer.is_stopping() {
                break;
            }
            let ended = ended.err().map_or(ServiceError::Link(LinkError::Ended), Into::into);
            if is_final(&ended) {
                return Err(ended);
            }
            tracing::error!(log = log.id_text(), "lost the signer: {ended}");
            // A connection that breaks at once, again and again, must not burn a core.
            std::thread::sleep(RETRY_FIRST);
        }
        Ok(())
    }

    fn journal<'a>(&self, wal: &'a mut Wal, log: Arc<Log>) -> Journal<'a> {
        Journal {
            wal,
            log,
            progress: self.progress.clone(),
            keys: self.keys.clone(),
            metrics: self.metrics.clone(),
            store_first: self.config.storage.is_first().then(|| self.runtime.clone()),
        }
    }

    fn attach(&self, wal: &mut Wal) -> Result<(Connection, Arc<Log>), ServiceError> {
        let (socket, own, uid) = match &self.signer_at {
            SignerAt::Own => (self.paths.signer_socket(), true, None),
            SignerAt::Socket { socket, uid } => (socket.clone(), false, *uid),
        };
        if own && !signer_process::is_alive(&socket) {
            signer_process::start(&socket, &self.paths.signer_log())?;
        }
        let (mut connection, welcome) = Connection::open(&socket, uid)?;
        let identity: [u8; 32] = *welcome.identity;
        let id = LogId::of(&identity);
        // First, so that no key set is served without the keys that live tokens need.
        self.rely_on_dead_logs(id);
        let log = if welcome.fresh {
            self.start_log(&mut connection, &welcome, id, wal)?
        } else {
            self.resume_log(&mut connection, &welcome, id, wal)?
        };
        // Last, so that a crash in between leaves them to be named as predecessors.
        self.close_dead_logs(id);
        for protection in welcome.sandbox.iter().filter(|p| !p.in_force) {
            tracing::warn!("signer: `{}` is {}", protection.name, protection.detail);
        }
        tracing::info!(log = log.id_text(), fresh = welcome.fresh, "attached to the signer");
        Ok((connection, log))
    }

    /// A fresh signer gets the policy; its first batch holds genesis and the first keys.
    fn start_log(
        &self,
        connection: &mut Connection,
        welcome: &Welcome,
        id: LogId,
        wal: &mut Wal,
    ) -> Result<Arc<Log>, ServiceError> {
        let version = self.policy();
        let start = Start {
            policy: version.bytes.to_vec().into(),
            predecessor: self.predecessor(id),
            compromised: self.unlogged_compromises(id),
        };
        let prepared = match connection.ask(&Request::Start(start))? {
            Response::Prepared(prepared) => prepared,
            other => return Err(LinkError::out_of_step(&other).into()),
        };
        let origin = format!("{}/{id}", version.document.log_prefix);
        let vkey = vkey_of(&origin, welcome, id)?;
        let log = Arc::new(self.logs.fresh(id, vkey));
        self.logs.insert(log.clone());
        self.commit_directly(connection, &prepared, &log, wal)?;
        let digest = chancery_entry::sha256(&version.bytes);
        self.note_signer(&log, Some((welcome, version.document.version, digest)));
        Ok(log)
    }

    /// A running signer compares what the store holds with what it was told, and repeats what was
    /// not acknowledged; nobody waits for those tokens any more, they are committed and dropped.
    fn resume_log(
        &self,
        connection: &mut Connection,
        welcome: &Welcome,
        id: LogId,
        wal: &mut Wal,
    ) -> Result<Arc<Log>, ServiceError> {
        let vkey = vkey_of(&welcome.origin, welcome, id)?;
        let log = self.runtime.block_on(self.logs.open_or_new(id, vkey))?;
        let (size, root) = log.size_and_root();
        let resume = Resume { size, root: root.0.into() };
        let resumed = match connection.ask(&Request::Resume(resume)) {
            Ok(Response::Resumed(resumed)) => resumed,
            Ok(other) => return Err(LinkError::out_of_step(&other).into()),
            Err(LinkError::Fault(f)) if f.code == FaultCode::StorageLost => {
                return Err(ServiceError::StorageLost(f.detail));
            }
            Err(e) => return Err(e.into()),
        };
        if !resumed.keys_jwt.is_empty() {
            log.set_keys_jwt(&resumed.keys_jwt);
            self.keys.set_live(log.id_text(), &resumed.keys_jwt);
        }
        self.take_over(connection, welcome, &log, resumed, wal)?;
        Ok(log)
    }

    fn take_over(
        &self,
        connection: &mut Connection,
        welcome: &Welcome,
        log: &Arc<Log>,
        resumed: Resumed,
        wal: &mut Wal,
    ) -> Result<(), ServiceError> {
        for prepared in &resumed.open {
            self.commit_directly(connection, prepared, log, wal)?;
        }
        self.tell_unlogged(connection, log)?;
        let version = self.policy();
        let wanted = chancery_entry::sha256(&version.bytes);
        let mut in_force = (resumed.policy_version, *resumed.policy_digest);
        if in_force.1 != wanted {
            let load = LoadPolicy { policy: version.bytes.to_vec().into() };
            match connection.ask(&Request::LoadPolicy(load)) {
                Ok(_) => in_force = (version.document.version, wanted),
                // Two policies at a time would serve one and sign by the other: a person decides.
                Err(LinkError::Fault(f)) if f.code == FaultCode::Policy => {
                    return Err(ServiceError::PolicyRefused(f.detail));
                }
                Err(e) => return Err(e.into()),
            }
        }
        self.note_signer(log, Some((welcome, in_force.0, in_force.1)));
        Ok(())
    }

    fn commit_directly(
        &self,
        connection: &mut Connection,
        prepared: &Prepared,
        log: &Arc<Log>,
        wal: &mut Wal,
    ) -> Result<(), ServiceError> {
        let mut journal = self.journal(wal, log.clone());
        journal.write(prepared, |_| {}, || self.issuer.is_stopping())?;
        match connection.ask(&Request::Commit(Commit { batch: prepared.batch }))? {
            Response::Committed(committed) => {
                if let Some(keys_jwt) = &committed.keys_jwt {
                    journal.publish_keys(keys_jwt);
                }
                Ok(())
            }
            other => Err(LinkError::out_of_step(&other).into()),
        }
    }

    /// Every log but the living signer's: its keys come from its log now.
    fn rely_on_dead_logs(&self, living: LogId) {
        for log in self.logs.all_open().into_iter().filter(|l| l.id() != living) {
            self.keys.add_dead(log.id_text(), log.ledger(), crate::now());
            self.note_signer(&log, None);
        }
    }

    /// Remembers until when dead logs are needed, so that a later start need not read them.
    fn close_dead_logs(&self, living: LogId) {
        let skew = self.policy().document.realms.iter().map(|r| r.schedule.skew_s).max();
        for log in self.logs.all_open().into_iter().filter(|l| l.id() != living) {
            let ledger = log.ledger();
            let closing = Closing {
                size: log.size_and_root().0,
                started_at: ledger.genesis.as_ref().map_or(0, |g| g.started_at),
                last_needed: ledger.last_needed(skew.unwrap_or(0)),
            };
            if let Ok(bytes) = serde_json::to_vec(&closing) {
                let object = format!("log/{}/closing.json", log.id_text());
                // Only a shortcut for later starts: without it the log is read again.
                if let Err(e) = self.runtime.block_on(self.store.put(&object, bytes.into())) {
                    tracing::warn!("{e}");
                }
            }
        }
    }

    /// The log that a new signer continues: of those that no other one continues the latest.
    /// Starts are told in seconds, in which several signers may have come and gone.
    fn predecessor(&self, fresh: LogId) -> Option<Predecessor> {
        let mut logs = self.logs.all_open();
        logs.retain(|l| l.id() != fresh && l.size_and_root().0 > 0);
        let genesis = |log: &Arc<Log>| log.ledger().genesis;
        let continued: Vec<String> =
            logs.iter().filter_map(|l| Some(genesis(l)?.predecessor?.vkey)).collect();
        let heads = logs.iter().filter(|l| !continued.contains(&l.vkey().to_string()));
        let latest = heads.max_by_key(|l| genesis(l).map_or(0, |g| g.started_at))?;
        Some(Predecessor {
            vkey: latest.vkey().to_string(),
            checkpoint: latest.checkpoint().to_string(),
        })
    }

    /// Facts about keys of open logs that no log declares yet.
    fn unlogged_facts(&self) -> Vec<CompromiseFact> {
        let ledgers: Vec<Ledger> = self.logs.all_open().iter().map(|l| l.ledger()).collect();
        let unlogged = |fact: &&CompromiseFact| {
            fact_kid(fact).is_some_and(|kid| {
                // What fell with a key is declared in the batch that declares the key.
                ledgers.iter().any(|l| l.announced(&kid))
                    && !ledgers.iter().any(|l| l.compromised.contains(&kid))
            })
        };
        lock(&self.facts).iter().filter(unlogged).cloned().collect()
    }

    /// What the signer of the log `living` is told of a fact: of its own key only the name, it
    /// knows what falls with it; of a dead signer's key also those that were alive beside it. All
    /// of them leave the key sets here and now.
    fn told_of(&self, fact: &CompromiseFact, kid: Kid, living: &str) -> Compromise {
        let logs = self.logs.all_open();
        let dead = logs.iter().filter(|l| l.id_text() != living).map(|l| l.ledger());
        let owner = dead.into_iter().find(|ledger| ledger.announced(&kid));
        let (kids, include_retired) = match owner {
            Some(ledger) => (ledger.fallen_with(&kid, fact.at, fact.include_retired), false),
            None => (vec![kid], fact.include_retired),
        };
        self.keys.add_compromised(kids.iter().copied(), crate::now());
        let key = |kid: Kid| CompromisedKey { kid: kid.into(), reason: fact.reason.clone() };
        Compromise { keys: kids.into_iter().map(key).collect(), include_retired }
    }

    /// For a fresh signer: every unlogged compromise, each key once.
    fn unlogged_compromises(&self, fresh: LogId) -> Vec<CompromisedKey> {
        let mut missing = BTreeMap::new();
        for fact in self.unlogged_facts() {
            let Some(kid) = fact_kid(&fact) else { continue };
            for key in self.told_of(&fact, kid, &fresh.to_string()).keys {
                missing.insert(*key.kid, key);
            }
        }
        missing.into_values().collect()
    }

    /// For a signer that lived on: the service may have died between storing a fact and telling it.
    fn tell_unlogged(&self, connection: &mut Connection, log: &Log) -> Result<(), ServiceError> {
        for fact in self.unlogged_facts() {
            let Some(kid) = fact_kid(&fact) else { continue };
            let told = self.told_of(&fact, kid, log.id_text());
            match connection.ask(&Request::Compromise(told))? {
                Response::Compromised(gone) => {
                    self.keys.add_compromised(gone.gone.iter().map(|k| **k), crate::now());
                }
                other => return Err(LinkError::out_of_step(&other).into()),
            }
        }
        Ok(())
    }

    /// Whether any log that still counts announced the key.
    #[must_use]
    pub fn is_announced(&self, kid: &Kid) -> bool {
        self.logs.all_open().iter().any(|log| log.ledger().announced(kid))
    }

    /// Declares a key compromised: stored first, then out of every key set, then in the log.
    ///
    /// # Errors
    /// [`ServiceError::Store`] when the fact cannot be stored: nothing happened then.
    pub async fn compromise(
        &self,
        fact: CompromiseFact,
    ) -> Result<Result<Response, Unavailable>, ServiceError> {
        let bytes = serde_json::to_vec(&fact).unwrap_or_default();
        self.store.put_durably(&format!("compromise/{}.json", fact.kid), bytes.into()).await?;
        let Some(kid) = fact_kid(&fact) else { return Ok(Ok(Response::Ending)) };
        let living = self.attached().map(|s| s.log_id).unwrap_or_default();
        let told = self.told_of(&fact, kid, &living);
        lock(&self.facts).push(fact);
        let answer = self.issuer.call(Request::Compromise(told)).await;
        if let Ok(Response::Compromised(gone)) = &answer {
            self.keys.add_compromised(gone.gone.iter().map(|k| **k), crate::now());
        }
        Ok(answer)
    }

    /// Takes over realms, clients and grants of a changed configuration without losing keys.
    ///
    /// # Errors
    /// [`ServiceError`] when the new version cannot be stored.
    pub async fn reload(&self, config: &Config) -> Result<Result<u64, String>, ServiceError> {
        // Two reloads at a time could store two documents under one number.
        let _one_at_a_time = self.reloading.lock().await;
        let version = policies::settle(&self.store, config).await?;
        let number = version.document.version;
        if number == self.policy().document.version {
            return Ok(Ok(number));
        }
        let load = LoadPolicy { policy: version.bytes.to_vec().into() };
        match self.issuer.call(Request::LoadPolicy(load)).await {
            Ok(Response::PolicyLoaded(loaded)) => {
                self.keys.set_realms(&version.document.realms, crate::now());
                *lock(&self.policy) = version;
                if let Some(info) = lock(&self.signers).values_mut().find(|s| s.attached) {
                    info.policy_version = loaded.version;
                    info.policy_digest = hex(&*loaded.digest);
                }
                Ok(Ok(number))
            }
            Ok(Response::Fault(fault)) => Ok(Err(fault.detail)),
            Ok(_) => Ok(Err("the signer answered out of step".into())),
            Err(e) => Ok(Err(e.to_string())),
        }
    }

    /// Publishes what is committed, about once a second; a failing store is tried again. Returns
    /// when the store holds what nobody here wrote: no further attempt can mend that.
    pub async fn publish_forever(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(PUBLISH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        let mut overdue = OverdueKeys::default();
        loop {
            ticks.tick().await;
            let result = self.publish().await;
            if result.as_ref().is_err_and(is_final) {
                return;
            }
            if let Err(e) = &result
                && !failing
            {
                tracing::error!("publishing: {e}; the write-ahead log keeps it, trying again");
            }
            if result.is_ok() && failing {
                tracing::warn!("publishing works again");
            }
            failing = result.is_err();
            self.keys.tick(crate::now());
            if let Ok(Response::Status(status)) = self.issuer.call(Request::Status).await {
                self.clock_trusted.store(status.clock_trusted, Ordering::Relaxed);
                self.metrics.status(&status, crate::now());
                overdue.warn(&status, crate::now());
            }
        }
    }

    /// One round of publishing.
    ///
    /// # Errors
    /// [`ServiceError`]; the next round goes on where this one failed.
    pub async fn publish(&self) -> Result<(), ServiceError> {
        // Read first: everything up to here is in the logs that are published below.
        let applied = self.progress.applied.load(Ordering::Acquire);
        let mut committed = 0;
        let result = publish_all(&self.logs, &mut committed).await;
        self.metrics.published(result.is_ok(), committed);
        result?;
        self.progress.published.store(applied, Ordering::Release);
        Ok(())
    }

    /// At an orderly end, after the last publishing: summaries, so that the next start is quick.
    pub async fn summarise(&self) {
        for log in self.logs.all_open() {
            log.summarise().await;
        }
    }
}

/// Without the key, starts read whole logs.
fn summary_key(paths: &Paths) -> Option<SummaryKey> {
    let file = paths.summary_key();
    let key = SummaryKey::load_or_make(&file);
    key.inspect_err(|e| tracing::warn!("{}: {e}; no ledger summaries", file.display())).ok()
}

async fn publish_all(logs: &Logs, committed: &mut u64) -> Result<(), ServiceError> {
    for log in logs.all_open() {
        *committed = committed.saturating_add(log.size_and_root().0);
        log.publish().await?;
    }
    Ok(())
}

/// Recovery is the normal path: records become batches, batches are applied and published.
async fn recover(logs: &Logs, store: &Store, records: &[Record]) -> Result<(), ServiceError> {
    for record in records.iter().filter(|r| r.kind == RecordKind::Batch) {
        let wrong = |why: String| ServiceError::Record { sequence: record.sequence, why };
        let (batch, vkey) = Batch::decode(record.first_index, &record.payload).map_err(wrong)?;
        let log = logs.open_or_new(LogId::from_bytes(record.log), vkey).await?;
        // The store held everything before this record once: it is not the store that was here.
        log.apply(&batch).map_err(|e| {
            let remedy = "restore the store that belongs to this write-ahead log from a copy";
            ServiceError::StorageLost(format!("{e}: {remedy}"))
        })?;
    }
    if !records.is_empty() {
        tracing::info!(records = records.len(), "recovered from the write-ahead log");
    }
    publish_all(logs, &mut 0).await?;
    // What was there already may have been read from memory that no sync ever carried to the disk.
    Ok(store.make_durable().await?)
}

async fn load_facts(store: &Store) -> Result<Vec<CompromiseFact>, ServiceError> {
    let mut facts = Vec::new();
    for name in store.names("compromise").await? {
        let bytes = store.get(&format!("compromise/{name}")).await?;
        match serde_json::from_slice(&bytes) {
            Ok(fact) => facts.push(fact),
            Err(e) => tracing::error!("`compromise/{name}` cannot be read and is ignored: {e}"),
        }
    }
    Ok(facts)
}

fn fact_kid(fact: &CompromiseFact) -> Option<Kid> {
    fact.kid.parse::<chancery_token::KeyId>().ok().map(|k| *k.as_bytes())
}

/// Errors that a new attempt cannot mend: going on would hide a loss, or needs a person.
fn is_final(e: &ServiceError) -> bool {
    match e {
        ServiceError::StorageLost(_) | ServiceError::PolicyRefused(_) => true,
        ServiceError::Start(e) => matches!(e, StartError::Missing(_)),
        ServiceError::Wal(e) | ServiceError::Link(LinkError::Wal(e)) => !e.is_retryable(),
        ServiceError::Link(LinkError::Fault(f)) => {
            matches!(f.code, FaultCode::Version | FaultCode::Policy | FaultCode::Predecessor)
        }
        ServiceError::Store(e) => e.is_conflict(),
        ServiceError::Log(e) | ServiceError::Link(LinkError::Log(e)) => e.is_final(),
        _ => false,
    }
}

fn vkey_of(origin: &str, welcome: &Welcome, id: LogId) -> Result<VerifierKey, LogError> {
    VerifierKey::new_ed25519(origin, &welcome.identity)
        .map_err(|e| LogError::Damaged { log: id.to_string(), what: e.to_string() })
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
