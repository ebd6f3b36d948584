//! What a witness counts, for Prometheus.

use chancery_tlog::witness::Refusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::{Known, No};
use crate::metrics::{Gauge64, exposition, whole};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    /// A closed set, so strangers cannot make labels.
    outcome: &'static str,
}

/// Origins are the configured ones.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Origin {
    origin: String,
}

/// Every metric of a witness.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    limited: Counter,
    storage_failures: Counter,
    size: Family<Origin, Gauge64>,
    time: Family<Origin, Gauge64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("chancery_witness"),
            requests: Family::default(),
            limited: Counter::default(),
            storage_failures: Counter::default(),
            size: Family::default(),
            time: Family::default(),
        };
        let r = &mut metrics.registry;
        r.register("requests", "Requests judged, by outcome", metrics.requests.clone());
        r.register("limited", "Requests turned away by their source", metrics.limited.clone());
        r.register(
            "storage_failures",
            "Checkpoints that could not be stored",
            metrics.storage_failures.clone(),
        );
        r.register("cosigned_size", "Size of a log's latest cosigned tree", metrics.size.clone());
        r.register_with_unit(
            "cosigned_timestamp",
            "When a log was cosigned last, Unix time",
            Unit::Seconds,
            metrics.time.clone(),
        );
        metrics
    }

    pub(super) fn answered(&self, result: &Result<String, No>) {
        let outcome = match result {
            Ok(_) => "cosigned",
            Err(No::Refused(refusal)) => match refusal {
                Refusal::Malformed(_) => "malformed",
                Refusal::UnknownOrigin => "unknown_origin",
                Refusal::Untrusted(_) => "untrusted",
                Refusal::OldSize { .. } => "old_size",
                Refusal::Conflict { .. } => "conflict",
                Refusal::Inconsistent(_) => "inconsistent",
            },
            Err(No::Storage) => "storage",
            Err(No::Clock) => "clock",
            Err(No::Signing) => "signing",
        };
        self.requests.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn limited(&self) {
        self.limited.inc();
    }

    pub(super) fn storage_failed(&self) {
        self.storage_failures.inc();
    }

    pub(super) fn latest(&self, origin: &str, known: &Known) {
        let label = Origin { origin: origin.to_owned() };
        self.size.get_or_create(&label).set(whole(known.size));
        self.time.get_or_create(&label).set(whole(known.at));
    }

    /// The exposition text.
    #[must_use]
    pub fn text(&self) -> String {
        exposition(&self.registry)
    }
}
