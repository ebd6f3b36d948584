//! What is counted of each witness. Names come from the configuration.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Alarm;
use crate::metrics::{Gauge64, whole};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Witness {
    witness: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    witness: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Raised {
    witness: String,
    kind: &'static str,
}

/// Counters; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    requests: Family<Asked, Counter>,
    size: Family<Witness, Gauge64>,
    alarms: Family<Raised, Gauge64>,
}

impl Counts {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "witness_requests",
            "Answers of witnesses, by what they meant",
            self.requests.clone(),
        );
        registry.register(
            "witness_cosigned_size",
            "Entries of the directory that a witness cosigned last",
            self.size.clone(),
        );
        registry.register(
            "witness_alarm",
            "Whether a witness says what must not be: look at once",
            self.alarms.clone(),
        );
    }

    /// A witness exists: its alarms show as 0.
    pub(super) fn add(&self, witness: &str) {
        self.alarm(witness, None);
    }

    pub(super) fn asked(&self, witness: &str, outcome: &'static str) {
        self.requests.get_or_create(&Asked { witness: witness.to_owned(), outcome }).inc();
    }

    pub(super) fn cosigned(&self, witness: &str, size: u64) {
        let label = Witness { witness: witness.to_owned() };
        self.size.get_or_create(&label).set(whole(size));
    }

    /// The alarm that stands, if one does.
    pub(super) fn alarm(&self, witness: &str, alarm: Option<Alarm>) {
        for kind in Alarm::KINDS {
            let label = Raised { witness: witness.to_owned(), kind };
            let stands = alarm.is_some_and(|alarm| alarm.kind() == kind);
            self.alarms.get_or_create(&label).set(i64::from(stands));
        }
    }
}
