//! Attaching to a signer: a fresh one starts a log, a living one goes on with its own, and the logs
//! of dead ones are closed.

use std::sync::Arc;

use chancery_signer_api::{
    Commit, FaultCode, LoadPolicy, Predecessor, Prepared, Request, Response, Resume, Resumed,
    Start, Welcome,
};
use chancery_tlog::LogId;
use chancery_tlog::note::VerifierKey;
use chancery_token::b64;
use serde::{Deserialize, Serialize};

use super::{Service, ServiceError, SignerAt};
use crate::directory::Directory;
use crate::ledger::Kid;
use crate::link::{Connection, LinkError};
use crate::logs::{Log, LogError};
use crate::signer_process;
use crate::wal::Wal;

/// What is left behind by a log whose signer is dead, so that later starts need not read it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Closing {
    pub(super) size: u64,
    pub(super) started_at: u64,
    pub(super) last_needed: u64,
    /// Thumbprints of the keys that it announced: none of them is ever imported.
    #[serde(default)]
    keys: Vec<String>,
}

impl Closing {
    /// The keys that its log announced.
    pub(super) fn thumbprints(&self) -> impl Iterator<Item = Kid> {
        self.keys.iter().filter_map(|kid| b64::decode_array(kid).ok())
    }
}

impl Service {
    pub(super) fn attach(&self, wal: &mut Wal) -> Result<(Connection, Arc<Log>), ServiceError> {
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
        let is_closed = |d: &Directory| d.reading().log(id).is_some_and(|l| l.closing().is_some());
        if self.directory.as_ref().is_some_and(|d| is_closed(d)) {
            return Err(ServiceError::Closed(id.to_string()));
        }
        // First, so that no key set is served without the keys that live tokens need.
        self.rely_on_dead_logs(id);
        self.audit.continue_log(*id.as_bytes(), &self.logs);
        let log = if welcome.fresh {
            self.start_log(&mut connection, &welcome, id, wal)?
        } else {
            self.resume_log(&mut connection, &welcome, id, wal)?
        };
        // Before any token: who demands both signatures finds the first keys announced under both.
        self.cosign_first(&mut connection, &log)?;
        // Last, so that a crash in between leaves them to be named as predecessors.
        self.close_dead_logs(id);
        if let Some(directory) = &self.directory {
            directory.set_living(id);
            // Before any token: relying parties that start from the directory know the log then.
            if welcome.fresh
                && let Err(e) = self.runtime.block_on(self.publish())
            {
                tracing::warn!("publishing: {e}; trying again");
            }
        }
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
        let judged = self.take_evidence(connection, welcome)?;
        let origin = format!("{}/{id}", version.document.log_prefix);
        let vkey = vkey_of(&origin, welcome, id)?;
        let log = Arc::new(self.logs.fresh(id, vkey));
        self.logs.insert(log.clone());
        self.commit_directly(connection, &prepared, &log, wal)?;
        let digest = chancery_entry::sha256(&version.bytes);
        self.note_signer(&log, Some((welcome, version.document.version, digest)));
        self.publish_evidence(connection, &log, &judged)?;
        self.show_from(id, 0);
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
        let judged = self.take_evidence(connection, welcome)?;
        self.show_from(id, resumed.directory_size);
        if !resumed.keys_jwt.is_empty() {
            log.set_keys_jwt(&resumed.keys_jwt);
            self.keys.set_live(log.id_text(), &resumed.keys_jwt);
        }
        self.take_over(connection, welcome, &log, resumed, wal)?;
        self.publish_evidence(connection, &log, &judged)?;
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
                keys: ledger.announced_keys().map(|kid| b64::encode(&kid)).collect(),
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
        // A log has one successor, for ever.
        if let Some(directory) = &self.directory {
            logs.retain(|l| !directory.has_ended(l.id()));
        }
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
}

fn vkey_of(origin: &str, welcome: &Welcome, id: LogId) -> Result<VerifierKey, LogError> {
    VerifierKey::new_ed25519(origin, &welcome.identity)
        .map_err(|e| LogError::Damaged { log: id.to_string(), what: e.to_string() })
}
