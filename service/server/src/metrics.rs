//! Metrics for Prometheus.

mod exports;
mod kubernetes;

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::issue::Verdict;

pub use exports::ExportCounts;
pub use kubernetes::KubernetesMetrics;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RealmLabel {
    realm: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

/// Labels of one key's gauge.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KeyLabel {
    realm: String,
    algorithm: String,
}

/// What a part of the signer's secret memory is.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MemoryLabel {
    what: &'static str,
}

pub(crate) type Gauge64 = Gauge<i64, AtomicI64>;
pub(crate) type GaugeF64 = Gauge<f64, AtomicU64>;

/// Every metric of the service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Of the Kubernetes socket.
    pub kubernetes: KubernetesMetrics,
    /// Of exports of the audit.
    pub exports: ExportCounts,
    tokens: Family<RealmLabel, Counter>,
    refusals: Family<CodeLabel, Counter>,
    notices: Family<CodeLabel, Counter>,
    limited: Counter,
    wal_seconds: Histogram,
    wal_bytes: Counter,
    wal_failures: Counter,
    wal_utilisation: GaugeF64,
    publish_failures: Counter,
    published_size: Gauge64,
    log_size: Gauge64,
    signer_connected: Gauge64,
    signer_starts: Counter,
    clock_trusted: Gauge64,
    key_age: Family<KeyLabel, Gauge64>,
    key_overdue: Family<KeyLabel, Gauge64>,
    secret_memory: Family<MemoryLabel, Gauge64>,
    /// Files of indexes by digest that were found damaged, and made again.
    pub indexes_damaged: Counter,
    /// What is counted of the directory's witnesses.
    pub witnesses: crate::witnesses::Counts,
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
        // From 50 us, a quiet NVMe disk, to 3 s, where requests begin to give up.
        let buckets = [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2, 1.0, 3.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("chancery"),
            kubernetes: KubernetesMetrics::new(),
            exports: ExportCounts::default(),
            tokens: Family::default(),
            refusals: Family::default(),
            notices: Family::default(),
            limited: Counter::default(),
            wal_seconds: Histogram::new(buckets),
            wal_bytes: Counter::default(),
            wal_failures: Counter::default(),
            wal_utilisation: GaugeF64::default(),
            publish_failures: Counter::default(),
            published_size: Gauge64::default(),
            log_size: Gauge64::default(),
            signer_connected: Gauge64::default(),
            signer_starts: Counter::default(),
            clock_trusted: Gauge64::default(),
            key_age: Family::default(),
            key_overdue: Family::default(),
            secret_memory: Family::default(),
            indexes_damaged: Counter::default(),
            witnesses: crate::witnesses::Counts::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        self.kubernetes.register(r);
        self.exports.register(r);
        self.witnesses.register(r);
        r.register("tokens_released", "Tokens released", self.tokens.clone());
        r.register("refusals", "Requests refused, by reason code", self.refusals.clone());
        r.register("signer_notices", "Loud notices of the signer", self.notices.clone());
        r.register(
            "requests_limited",
            "Requests turned away because of their source's unverified proofs",
            self.limited.clone(),
        );
        r.register_with_unit(
            "wal_append",
            "Time of one durable write",
            Unit::Seconds,
            self.wal_seconds.clone(),
        );
        r.register("wal_bytes", "Bytes of batches made durable", self.wal_bytes.clone());
        r.register(
            "digest_index_damaged",
            "Files of indexes of leaf hashes that were damaged, and are made again",
            self.indexes_damaged.clone(),
        );
        r.register("wal_failures", "Failed durable writes", self.wal_failures.clone());
        r.register(
            "wal_utilisation_ratio",
            "Share of the write-ahead log that waits for the store",
            self.wal_utilisation.clone(),
        );
        r.register("publish_failures", "Failed writes to the store", self.publish_failures.clone());
        r.register("published_entries", "Entries in the store", self.published_size.clone());
        r.register("log_entries", "Entries committed", self.log_size.clone());
        r.register(
            "signer_connected",
            "Whether a signer is attached",
            self.signer_connected.clone(),
        );
        r.register("signer_starts", "Signers started or attached to", self.signer_starts.clone());
        r.register(
            "signer_clock_trusted",
            "Whether the signer believes the wall clock",
            self.clock_trusted.clone(),
        );
        r.register_with_unit(
            "active_key_age",
            "Age of the active key",
            Unit::Seconds,
            self.key_age.clone(),
        );
        r.register(
            "active_key_overdue",
            "Whether the active key is older than its schedule",
            self.key_overdue.clone(),
        );
        r.register_with_unit(
            "signer_secret_memory",
            "Memory of the signer that no process reads; overflow: what had no room in it",
            Unit::Bytes,
            self.secret_memory.clone(),
        );
    }

    /// Counts what became of a request.
    pub fn verdicts(&self, realm: &str, verdicts: &[Verdict]) {
        let mut issued = 0_u64;
        for verdict in verdicts {
            match verdict {
                Verdict::Issued(_) => issued = issued.saturating_add(1),
                Verdict::Refused { code, .. } => {
                    self.refusals.get_or_create(&CodeLabel { code: code.clone() }).inc();
                }
            }
        }
        // Only realms that exist get tokens, so strangers cannot make labels.
        if issued > 0 {
            self.tokens.get_or_create(&RealmLabel { realm: realm.to_owned() }).inc_by(issued);
        }
    }

    /// Counts a notice of the signer.
    pub fn notice(&self, code: &str) {
        self.notices.get_or_create(&CodeLabel { code: code.to_owned() }).inc();
    }

    /// Counts a request that was turned away by its source address.
    pub fn limited(&self) {
        self.limited.inc();
    }

    /// Takes note of a durable write of so many bytes.
    pub fn durable_write(&self, took: Duration, bytes: usize, ok: bool, utilisation: f64) {
        self.wal_seconds.observe(took.as_secs_f64());
        self.wal_utilisation.set(utilisation);
        if ok {
            self.wal_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        } else {
            self.wal_failures.inc();
        }
    }

    /// Takes note of a round of the publisher.
    pub fn published(&self, ok: bool, committed: u64) {
        let size = whole(committed);
        self.log_size.set(size);
        if ok {
            self.published_size.set(size);
        } else {
            self.publish_failures.inc();
        }
    }

    /// A signer is attached, or none.
    pub fn signer(&self, connected: bool) {
        self.signer_connected.set(i64::from(connected));
        if connected {
            self.signer_starts.inc();
        }
    }

    /// Takes note of the signer's report.
    pub fn status(&self, status: &chancery_signer_api::Status, now: u64) {
        self.clock_trusted.set(i64::from(status.clock_trusted));
        let memory = status.secret_memory;
        for (what, bytes) in [
            ("capacity", memory.capacity),
            ("touched", memory.touched),
            ("in_use", memory.in_use),
            ("overflow", memory.overflow),
        ] {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.secret_memory.get_or_create(&MemoryLabel { what }).set(bytes);
        }
        // Lanes without an active key show none, not the age of the last one.
        self.key_age.clear();
        self.key_overdue.clear();
        for key in status.keys.iter().filter(|k| k.state == "active") {
            let label = KeyLabel { realm: key.realm.clone(), algorithm: key.algorithm.clone() };
            let age = now.saturating_sub(key.nbf);
            self.key_age.get_or_create(&label).set(whole(age));
            self.key_overdue.get_or_create(&label).set(i64::from(age > key.scheduled_s));
        }
    }

    /// The exposition text.
    #[must_use]
    pub fn text(&self) -> String {
        exposition(&self.registry)
    }
}

/// A count as a gauge takes it.
pub(crate) fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a registry holds, in the text format of Prometheus.
pub(crate) fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests {
    use chancery_signer_api::{KeyStatus, Status};

    use super::*;

    #[test]
    fn an_active_key_older_than_its_schedule_shows_and_a_lane_without_one_does_not() {
        let status = |state: &str| Status {
            policy_version: 1,
            policy_digest: [0; 32].into(),
            committed_size: 3,
            clock_trusted: true,
            keys: vec![KeyStatus {
                realm: "r".into(),
                algorithm: "ES256".into(),
                kid: [1; 32].into(),
                state: state.into(),
                nbf: 1_000,
                signs_until: 9_000,
                exp: 9_900,
                announced_at: 2,
                scheduled_s: 3_600,
            }],
            secret_memory: chancery_signer_api::SecretMemory::default(),
        };
        let metrics = Metrics::new();
        let overdue = |metrics: &Metrics| {
            let text = metrics.text();
            let line = text.lines().find(|l| l.starts_with("chancery_active_key_overdue{"));
            line.and_then(|l| l.rsplit(' ').next()).map(str::to_owned)
        };
        metrics.status(&status("active"), 4_600);
        assert_eq!(overdue(&metrics).as_deref(), Some("0"));
        metrics.status(&status("active"), 4_601);
        assert_eq!(overdue(&metrics).as_deref(), Some("1"));
        metrics.status(&status("retired"), 9_001);
        assert_eq!(overdue(&metrics), None);
    }
}
