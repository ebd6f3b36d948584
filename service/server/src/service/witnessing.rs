//! The directory and its witnesses: submission, cosignatures that come late, and, under
//! `release = "witnessed"`, showing the signer what was cosigned.

use std::pin::Pin;
use std::sync::Arc;

use chancery_signer_api::{Request, Response, Witnessed};
use chancery_tlog::note::{Note, Signature};
use chancery_tlog::{Checkpoint, Hash, LogId};

use super::{Service, ServiceError, lock};
use crate::config::{Config, ConfigError, Release};
use crate::directory::{self, Directory};
use crate::logs::Log;
use crate::metrics::Metrics;
use crate::witnesses::{Proofs, Witnesses};

/// What the attached signer has accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    /// The signer's log.
    log: LogId,
    /// Entries of it that a witnessed root covers.
    covered: u64,
    /// Entries of the directory at the last root that it accepted: where the next proof starts.
    directory: u64,
}

impl directory::Cosigner for Witnesses {
    fn cosign<'a>(
        &'a self,
        log: &'a Log,
        note: &'a str,
    ) -> Pin<Box<dyn Future<Output = Vec<Signature>> + Send + 'a>> {
        Box::pin(async move { self.ask(note, &OfDirectory(log)).await.signatures })
    }
}

/// Proofs from the directory's tiles.
struct OfDirectory<'a>(&'a Log);

impl Proofs for OfDirectory<'_> {
    fn consistency(
        &self,
        old: u64,
        new: u64,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Hash>, String>> + Send + '_>> {
        Box::pin(async move { self.0.consistency(old, new).await.map_err(|e| e.to_string()) })
    }
}

/// The configured witnesses, who see every checkpoint of the directory from now on.
///
/// # Errors
/// [`ServiceError`] when the configuration is wrong.
pub(super) fn open(
    config: &Config,
    directory: Option<&Arc<Directory>>,
    metrics: &Metrics,
) -> Result<Option<Arc<Witnesses>>, ServiceError> {
    let Some(directory) = directory else { return Ok(None) };
    let witnesses = Witnesses::new(&config.witness_settings(), metrics.witnesses.clone());
    let witnesses = witnesses.map_err(ConfigError::Value)?;
    if let Some(witnesses) = &witnesses {
        directory.set_cosigner(witnesses.clone());
    }
    Ok(witnesses)
}

/// What the signer's policy says of witnesses: the directory's key, their keys and the quorum.
///
/// # Errors
/// [`ServiceError`] when the configuration is wrong.
pub(super) fn policy(
    config: &Config,
    directory: Option<&Arc<Directory>>,
) -> Result<Option<String>, ServiceError> {
    match (config.release, directory) {
        (Release::Committed, _) => Ok(None),
        (Release::Witnessed, Some(directory)) => {
            let text = config.witness_settings().policy_text(Some(directory.vkey()));
            Ok(Some(text.map_err(ConfigError::Value)?))
        }
        (Release::Witnessed, None) => {
            let why = "release = \"witnessed\" needs the directory: set directory.write";
            Err(ConfigError::Value(why.into()).into())
        }
    }
}

impl Service {
    /// A signer is attached, which has accepted a directory root of this size.
    pub(super) fn show_from(&self, log: LogId, directory: u64) {
        *lock(&self.shown) = Some(Shown { log, covered: 0, directory });
    }

    /// Asks again where a witness was away, and publishes what came late.
    pub(super) async fn settle_witnesses(&self) -> Result<(), ServiceError> {
        let (Some(directory), Some(witnesses)) = (&self.directory, &self.witnesses) else {
            return Ok(());
        };
        for late in witnesses.take_late() {
            directory.add_cosignatures(late.size, &late.signatures).await?;
        }
        let note = directory.checkpoint();
        let Some(checkpoint) = checkpoint_of(&note) else { return Ok(()) };
        if !witnesses.is_settled(checkpoint.size) {
            let cosigned = witnesses.ask(&note, &OfDirectory(directory.log())).await;
            directory.add_cosignatures(checkpoint.size, &cosigned.signatures).await?;
        }
        Ok(())
    }

    /// Shows the signer a witnessed root that covers more of its log than the last one, if the
    /// published checkpoint is one; its tokens are free then.
    pub(super) async fn show_witnessed(&self) {
        if self.config.release == Release::Committed {
            return;
        }
        match self.show().await {
            Ok(()) => *lock(&self.shown_trouble) = String::new(),
            Err(why) => {
                let mut told = lock(&self.shown_trouble);
                if *told != why {
                    tracing::error!("the signer cannot be shown a witnessed root: {why}");
                }
                *told = why;
            }
        }
    }

    async fn show(&self) -> Result<(), String> {
        let (Some(directory), Some(witnesses)) = (&self.directory, &self.witnesses) else {
            return Ok(());
        };
        let Some(shown) = *lock(&self.shown) else { return Ok(()) };
        let note = directory.checkpoint();
        let (Some(checkpoint), Some(held)) = (checkpoint_of(&note), directory.held(shown.log))
        else {
            return Ok(());
        };
        // The entry may have come after the checkpoint was read; the next round has both.
        if held.size <= shown.covered || held.index >= checkpoint.size {
            return Ok(());
        }
        if !witnesses.accept(&note) {
            return Ok(());
        }
        let failed = |e: crate::logs::LogError| e.to_string();
        let plain = |hashes: Vec<Hash>| hashes.into_iter().map(|hash| hash.0.into()).collect();
        let log = directory.log();
        let inclusion = log.inclusion(held.index, checkpoint.size).await.map_err(failed)?;
        let consistency = match shown.directory {
            0 => Vec::new(),
            before => log.consistency(before, checkpoint.size).await.map_err(failed)?,
        };
        let request = Request::Witnessed(Witnessed {
            checkpoint: note.to_string(),
            consistency: plain(consistency),
            index: held.index,
            entry: held.entry.into(),
            inclusion: plain(inclusion),
        });
        match self.issuer.call(request).await {
            Ok(Response::Covered(covered)) => {
                let (covered, size) = (covered.size, covered.directory_size);
                *lock(&self.shown) = Some(Shown { covered, directory: size, ..shown });
                self.issuer.covered(covered);
                Ok(())
            }
            Ok(Response::Fault(fault)) => Err(fault.detail),
            Ok(_) => Err("it answered out of step".to_owned()),
            // A signer that ended is told of elsewhere.
            Err(_) => Ok(()),
        }
    }

    /// What an operator should look at although tokens are issued, one line each.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        let Some(witnesses) = &self.witnesses else { return Vec::new() };
        let alarms = witnesses.alarms().into_iter();
        alarms.map(|(name, alarm)| format!("ALARM: witness `{name}`: {alarm}")).collect()
    }
}

fn checkpoint_of(note: &str) -> Option<Checkpoint> {
    Checkpoint::parse(&Note::parse(note.as_bytes()).ok()?.text).ok()
}
