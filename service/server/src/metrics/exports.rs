//! What is counted of each export. Names come from the configuration.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Export {
    export: String,
}

/// Counters; clones share them.
#[derive(Clone, Debug, Default)]
pub struct ExportCounts {
    lag: Family<Export, Gauge<i64, AtomicI64>>,
    delivered: Family<Export, Counter>,
    failures: Family<Export, Counter>,
}

fn label(export: &str) -> Export {
    Export { export: export.to_owned() }
}

impl ExportCounts {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "audit_export_lag_records",
            "Audit records that an export has not delivered yet",
            self.lag.clone(),
        );
        registry.register(
            "audit_exported_records",
            "Audit records that an export delivered",
            self.delivered.clone(),
        );
        registry.register(
            "audit_export_failures",
            "Deliveries of an export that failed and are tried again",
            self.failures.clone(),
        );
    }

    /// An export exists: its lag shows.
    pub fn add(&self, export: &str) {
        self.lag(export, 0);
        let _ = self.failures.get_or_create(&label(export));
    }

    /// How many records it is behind.
    pub fn lag(&self, export: &str, records: u64) {
        self.lag.get_or_create(&label(export)).set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Records were delivered.
    pub fn delivered(&self, export: &str, records: u64) {
        self.delivered.get_or_create(&label(export)).inc_by(records);
    }

    /// A delivery failed.
    pub fn failed(&self, export: &str) {
        self.failures.get_or_create(&label(export)).inc();
    }
}
