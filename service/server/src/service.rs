//! The service put together: recovery, the line to the signer, publishing, the key sets.
//!
//! One supervisor thread owns the write-ahead log and attaches to a signer; when that one ends, its
//! log is closed, its keys leave by their logs, and the next signer starts a log of its own.

mod attach;
mod attesting;
mod compromises;
mod cosigning;
mod witnessing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chancery_policy::RealmDocument;
use chancery_signer_api::{FaultCode, LoadPolicy, Request, Response, Welcome};
use chancery_tlog::LogId;
use serde::{Deserialize, Serialize};

use crate::audit::{self, Audit, AuditError, Place};
use crate::config::{Config, ConfigError, Release};
use crate::digests::Digests;
use crate::directory::{Directory, DirectoryError};
use crate::evidence::Appraiser;
use crate::folder::Paths;
use crate::inception::{Heads, Seen};
use crate::issue::Issuer;
use crate::journal::{Journal, Progress};
use crate::keyset::KeySets;
use crate::kubernetes;
use crate::ledger::{Kid, SummaryKey};
use crate::link::LinkError;
use crate::logs::{Batch, Log, LogError, Logs};
use crate::metrics::Metrics;
use crate::overdue::OverdueKeys;
use crate::policies::{self, PolicyError, Version};
use crate::signer_process::StartError;
use crate::store::{Store, StoreError};
use crate::wal::{Record, Wal, WalError};
use crate::witnesses::Witnesses;

use self::attach::Closing;
use self::compromises::{fact_kid, load_facts};
use self::witnessing::Shown;

/// How often committed entries go to the store.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How long a reload waits for the commit that puts it in force: less than whoever asked waits.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);
const IN_FORCE_POLL: Duration = Duration::from_millis(20);
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
    /// The directory cannot be opened or extended.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The signer's log was closed in the directory.
    #[error(
        "the signer's log `{0}` was closed when another signer took over, and a closed log never \
         grows again; end that signer: a new one starts a new log"
    )]
    Closed(String),
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
    /// The audit cannot be kept.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The policy cannot be settled.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The configuration of the audit or of witnesses is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
    /// The signer's evidence is not accepted.
    #[error(
        "the signer's evidence is not accepted, and none of its keys is published: {0}; \
         `[attestation]` names the policy, docs/attestation.md says how it is written"
    )]
    Evidence(String),
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
    /// The second one, ML-DSA-44, which cosigns its checkpoints; none in logs of older signers.
    pub cosigning_vkey: Option<String>,
    /// Name and version of the software.
    pub software: String,
    /// Unix seconds.
    pub started_at: u64,
    /// Whether the service is attached to it now.
    pub attached: bool,
    /// Kind of its evidence, where this service appraised it: `software` means that nobody but its own
    /// word vouches for it.
    pub evidence: Option<&'static str>,
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
    seen: Seen,
    /// The directory log, where this service writes it.
    pub directory: Option<Arc<Directory>>,
    /// Entries by their leaf hashes.
    pub digests: Digests,
    /// The directory's witnesses, where there are any.
    pub witnesses: Option<Arc<Witnesses>>,
    /// The served key sets.
    pub keys: Arc<KeySets>,
    /// The main job.
    pub issuer: Issuer,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Signers' evidence.
    pub appraiser: Appraiser,
    /// Every decision.
    pub audit: Arc<Audit>,
    progress: Arc<Progress>,
    policy: Mutex<Version>,
    signers: Mutex<BTreeMap<String, SignerInfo>>,
    facts: Mutex<Vec<CompromiseFact>>,
    /// What the attached signer accepted of the directory, and what it did not, for the operator.
    shown: Mutex<Option<Shown>>,
    shown_trouble: Mutex<String>,
    cosign_trouble: Mutex<String>,
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
        mut config: Config,
        paths: Paths,
        store: Store,
        signer_at: SignerAt,
    ) -> Result<(Arc<Self>, Wal), ServiceError> {
        let (mut wal, records) = Wal::open(&paths.wal(), config.wal_segment_mib << 20)?;
        let logs = Logs::with_summaries(store.clone(), summary_key(&paths));
        let appraiser = Appraiser::open(&config.attestation).map_err(ConfigError::Value)?;
        let audit = Audit::open(&paths.audit_key(), &config.audit.recipients()?)?;
        recover(&logs, &store, &records).await?;
        let directory = open_directory(&config, &store, &paths).await?;
        config.witnessed = witnessing::policy(&config, directory.as_ref())?;
        let seen = Seen::new(paths.logs_seen());
        seen.check(&logs, directory.as_deref()).await?;
        let version = policies::settle(&store, &config).await?;
        let keys = Arc::new(KeySets::default());
        keys.set_realms(&version.document.realms, crate::now());
        let facts = load_facts(&store).await?;
        keys.add_compromised(facts.iter().filter_map(fact_kid), crate::now());
        let metrics = Arc::new(Metrics::new());
        let digests = Digests::new(paths.digests(), config.wants_digests(&version.document))
            .counting(metrics.indexes_damaged.clone());
        let witnesses = witnessing::open(&config, directory.as_ref(), &metrics)?;
        let mut issuer = Issuer::new(metrics.clone());
        if config.release == Release::Witnessed {
            issuer.wait_for_witnesses();
        }
        let service = Arc::new(Self {
            config,
            paths,
            store,
            logs,
            seen,
            directory,
            digests,
            keys,
            issuer,
            witnesses,
            shown: Mutex::default(),
            shown_trouble: Mutex::default(),
            cosign_trouble: Mutex::default(),
            metrics,
            appraiser,
            audit: Arc::new(audit),
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
        if let Err(why) = service.keys.check_imports(&service.policy().document.realms) {
            tracing::warn!("{why}; it is not listed");
        }
        service.recover_audit(&records).await?;
        wal.release(wal.last_sequence().min(service.audit.floor()));
        if let Some(directory) = &service.directory {
            directory.catch_up(&service.logs).await?;
        }
        Ok((service, wal))
    }

    /// Once the ledgers are known, which say what is in segments already.
    async fn recover_audit(&self, records: &[Record]) -> Result<(), ServiceError> {
        let left = audit::load_left(&self.store, &self.logs).await?;
        self.audit.recover_flights(left.unstated);
        let mut sections = Vec::new();
        for record in records {
            if let (Some(section), _) = split(record)? {
                sections.push((Place::Wal(record.sequence), section));
            }
        }
        let stored = left.sections.iter();
        let stored = stored.map(|(object, b)| (Place::Object(object.clone()), b.as_slice()));
        Ok(self.audit.recover(sections.into_iter().chain(stored), &self.logs)?)
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
                self.keys.add_own(closing.thumbprints(), crate::now());
                continue;
            }
            let log = match self.logs.open_with_ledger(id).await {
                Err(LogError::Unknown(_)) if self.is_nameless_remnant(&name).await? => {
                    tracing::warn!("`log/{name}` has no key and no checkpoint: a crash left it");
                    continue;
                }
                other => other?,
            };
            let said = log.keys_jwt();
            self.keys.add_uncertain(&name, log.ledger(), said.as_deref(), crate::now());
            self.note_signer(&log, None);
        }
        Ok(())
    }

    /// Whether a log's folder is what a crash leaves that comes before its first object, its key: then
    /// nothing of the log was ever acknowledged.
    async fn is_nameless_remnant(&self, name: &str) -> Result<bool, ServiceError> {
        match self.store.get(&format!("log/{name}/checkpoint")).await {
            Err(StoreError::Missing(_)) => Ok(true),
            Err(e) => Err(e.into()),
            Ok(_) => Ok(false),
        }
    }

    /// Whether tokens can be issued now, or why not.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.issuer.waits_in_vain() {
            return Err("the witnesses do not cosign the directory, and tokens wait for them");
        }
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

    /// Whether entries are to be found by their leaf hash.
    #[must_use]
    pub fn wants_digests(&self) -> bool {
        self.config.wants_digests(&lock(&self.policy).document)
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
            cosigning_vkey: log.cosigning_key().map(|key| key.to_string()),
            software: genesis.as_ref().map_or(String::new(), |g| g.software.clone()),
            started_at: genesis.as_ref().map_or(0, |g| g.started_at),
            attached: false,
            evidence: self.appraiser.kind(log.id_text()),
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
            audit: self.audit.clone(),
            store_first: self.config.storage.is_first().then(|| self.runtime.clone()),
        }
    }

    /// Whether any log that still counts announced the key.
    #[must_use]
    pub fn is_announced(&self, kid: &Kid) -> bool {
        self.logs.all_open().iter().any(|log| log.ledger().announced(kid))
    }

    /// The longest lifetime that every key of a realm signs which signs now or will, as far as it is
    /// known: the policy's may be raised sooner.
    #[must_use]
    pub fn ceiling(&self, realm: &RealmDocument) -> u64 {
        let living = self.attached().map(|signer| signer.log_id);
        let logs = self.logs.all_open().into_iter();
        let mut living = logs.filter(|log| Some(log.id_text()) == living.as_deref());
        let lowest =
            living.next().and_then(|l| l.ledger().lowest_ceiling(&realm.name, crate::now()));
        realm.schedule.max_lifetime_s.min(lowest.unwrap_or(u64::MAX))
    }

    /// Takes over realms, clients and grants of a changed configuration without losing keys. Answers
    /// when the signer decides by it, or why not.
    ///
    /// # Errors
    /// [`ServiceError`] when the new version cannot be stored.
    pub async fn reload(&self, config: &Config) -> Result<Result<u64, String>, ServiceError> {
        // Two reloads at a time could store two documents under one number.
        let _one_at_a_time = self.reloading.lock().await;
        let mut config = config.clone();
        config.witnessed = witnessing::policy(&config, self.directory.as_ref())?;
        let running = self.config.kubernetes.as_ref();
        let imports = self.keys.check_imports(&config.realms);
        if let Err(why) = imports.and(kubernetes::reload::check(running, &config)) {
            return Ok(Err(why));
        }
        if let Some(lowered) =
            kubernetes::reload::lowers_ceiling(running, &self.policy().document, &config)
        {
            tracing::warn!("{lowered}");
        }
        for name in kubernetes::reload::in_vain(running, &config) {
            tracing::warn!("`{name}` changed; that takes a restart of the service");
        }
        let version = policies::settle(&self.store, &config).await?;
        let number = version.document.version;
        if number == self.policy().document.version {
            return Ok(self.await_policy(number).await);
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
                Ok(self.await_policy(number).await)
            }
            Ok(Response::Fault(fault)) => Ok(Err(fault.detail)),
            Ok(_) => Ok(Err("the signer answered out of step".into())),
            Err(e) => Ok(Err(e.to_string())),
        }
    }

    /// Waits until the signer decides by this version: it was accepted, and is in force once its entry
    /// is committed, with a frame that goes within a second.
    async fn await_policy(&self, number: u64) -> Result<u64, String> {
        let begun = Instant::now();
        while begun.elapsed() < IN_FORCE_WITHIN {
            match self.issuer.call(Request::Status).await {
                Ok(Response::Status(status)) if status.policy_version >= number => {
                    return Ok(number);
                }
                Ok(Response::Status(_)) => tokio::time::sleep(IN_FORCE_POLL).await,
                Ok(_) => return Err("the signer answered out of step".into()),
                Err(e) => return Err(e.to_string()),
            }
        }
        Err(format!(
            "policy version `{number}` is accepted and comes into force with the next commit, which \
             did not come within {} s; `/readyz` says why",
            IN_FORCE_WITHIN.as_secs()
        ))
    }

    /// Publishes what is committed, about once a second; a failing store is tried again. Returns
    /// when the store holds what nobody here wrote: no further attempt can mend that.
    pub async fn publish_forever(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(PUBLISH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        let mut overdue = OverdueKeys::default();
        loop {
            // Tokens that wait for witnesses wait for this.
            let is_tick = tokio::select! {
                _ = ticks.tick() => true,
                () = self.issuer.waits() => false,
            };
            if is_tick {
                self.cosign().await;
            }
            let result = self.publish().await;
            self.show_witnessed().await;
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
            if !is_tick {
                continue;
            }
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
        let directory = self.directory.as_ref().map(|d| (d, d.heads(&self.logs)));
        let heads = Heads::of(&self.logs);
        let mut committed = 0;
        let result = publish_all(&self.logs, &mut committed).await;
        self.metrics.published(result.is_ok(), committed);
        result?;
        self.appraiser.store(&self.store).await?;
        self.progress.published.store(applied, Ordering::Release);
        self.seen.remember(heads);
        // Last: it names nothing that the store does not hold, and keeps nothing of a token waiting.
        if let Some((directory, heads)) = directory {
            directory.follow(&heads).await?;
        }
        self.settle_witnesses().await?;
        Ok(())
    }

    /// At an orderly end, after the last publishing: summaries, so that the next start is quick.
    pub async fn summarise(&self) {
        for log in self.logs.all_open() {
            log.summarise().await;
        }
        if let Some(directory) = &self.directory {
            directory.remember().await;
        }
    }
}

/// The deployment's directory, unless another service writes it.
async fn open_directory(
    config: &Config,
    store: &Store,
    paths: &Paths,
) -> Result<Option<Arc<Directory>>, ServiceError> {
    if !config.directory.write {
        return Ok(None);
    }
    let (origin, default) = (config.directory.origin.as_deref(), config.default_directory());
    let opened = Directory::open(store.clone(), paths.directory(), origin, &default).await?;
    Ok(Some(Arc::new(opened)))
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
    for record in records {
        let (_, Some(batch)) = split(record)? else { continue };
        let wrong = |why: String| ServiceError::Record { sequence: record.sequence, why };
        let (batch, vkey) = Batch::decode(record.first_index, batch).map_err(wrong)?;
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

/// A record's audit section and its batch.
fn split(record: &Record) -> Result<audit::Parts<'_>, ServiceError> {
    let wrong = |why| ServiceError::Record { sequence: record.sequence, why };
    audit::split_payload(record).map_err(wrong)
}

/// Errors that a new attempt cannot mend: going on would hide a loss, or needs a person.
fn is_final(e: &ServiceError) -> bool {
    match e {
        ServiceError::StorageLost(_)
        | ServiceError::PolicyRefused(_)
        | ServiceError::Closed(_)
        | ServiceError::Evidence(_) => true,
        ServiceError::Directory(e) => e.is_final(),
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

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
