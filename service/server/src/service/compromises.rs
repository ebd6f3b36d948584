//! Keys that fell: the facts are stored first, then leave every key set, then stand in a log.

use std::collections::BTreeMap;

use chancery_signer_api::{Compromise, CompromisedKey, Request, Response};
use chancery_tlog::LogId;

use super::{CompromiseFact, Service, ServiceError, lock};
use crate::issue::Unavailable;
use crate::ledger::{Kid, Ledger};
use crate::link::{Connection, LinkError};
use crate::logs::Log;
use crate::store::Store;

impl Service {
    /// Facts about keys of open logs that no log declares yet; and about imported ones those that the
    /// living signer's own log does not: it lists them, so it must know.
    fn unlogged_facts(&self, living: Option<&Log>) -> Vec<CompromiseFact> {
        let its_own = living.map(Log::ledger);
        let ledgers: Vec<Ledger> = self.logs.all_open().iter().map(|l| l.ledger()).collect();
        let unlogged = |fact: &&CompromiseFact| {
            fact_kid(fact).is_some_and(|kid| {
                if self.keys.imports(&kid) {
                    return !its_own.as_ref().is_some_and(|l| l.compromised.contains(&kid));
                }
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
    pub(super) fn unlogged_compromises(&self, fresh: LogId) -> Vec<CompromisedKey> {
        let mut missing = BTreeMap::new();
        for fact in self.unlogged_facts(None) {
            let Some(kid) = fact_kid(&fact) else { continue };
            for key in self.told_of(&fact, kid, &fresh.to_string()).keys {
                missing.insert(*key.kid, key);
            }
        }
        missing.into_values().collect()
    }

    /// For a signer that lived on: the service may have died between storing a fact and telling it.
    pub(super) fn tell_unlogged(
        &self,
        connection: &mut Connection,
        log: &Log,
    ) -> Result<(), ServiceError> {
        for fact in self.unlogged_facts(Some(log)) {
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
}

pub(super) async fn load_facts(store: &Store) -> Result<Vec<CompromiseFact>, ServiceError> {
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

pub(super) fn fact_kid(fact: &CompromiseFact) -> Option<Kid> {
    fact.kid.parse::<chancery_token::KeyId>().ok().map(|k| *k.as_bytes())
}
