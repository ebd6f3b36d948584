//! Keys that sign for longer than their schedule wants: loud lines in the service's log.

use std::collections::BTreeMap;

use crate::ledger::Kid;

/// An active key that is older than its schedule is said at once and then every hour, also under
/// manual rotation.
#[derive(Debug, Default)]
pub struct OverdueKeys(BTreeMap<Kid, u64>);

impl OverdueKeys {
    /// Says which active keys of a report are overdue at `now`, Unix seconds.
    pub fn warn(&mut self, status: &chancery_signer_api::Status, now: u64) {
        let overdue = |k: &&chancery_signer_api::KeyStatus| {
            k.state == "active" && now.saturating_sub(k.nbf) > k.scheduled_s
        };
        let mut warned = BTreeMap::new();
        for key in status.keys.iter().filter(overdue) {
            let last = self.0.get(&*key.kid).copied();
            if last.is_some_and(|at| now.saturating_sub(at) < 3_600) {
                warned.insert(*key.kid, last.unwrap_or(now));
                continue;
            }
            warned.insert(*key.kid, now);
            tracing::error!(
                realm = %key.realm, algorithm = %key.algorithm,
                "the active key is {} s old, its schedule says {} s: rotate it",
                now.saturating_sub(key.nbf), key.scheduled_s
            );
        }
        self.0 = warned;
    }
}
