//! What authz counts, for Prometheus.

use std::time::Duration;

use chancery_relying_party::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::decide::Proxy;
use crate::metrics::{Gauge64, GaugeF64, exposition, whole};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Decision {
    proxy: &'static str,
    /// `allowed`, or the code of a denial: a closed set, so strangers cannot make labels.
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Issuer {
    issuer: String,
}

/// Every metric of authz.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decisions: Family<Decision, Counter>,
    seconds: Histogram,
    key_set_age: Family<Issuer, GaugeF64>,
    distrusts_within: Family<Issuer, GaugeF64>,
    keys: Family<Issuer, Gauge64>,
    fetches: Family<Issuer, Gauge64>,
    failures: Family<Issuer, Gauge64>,
    log_requests: Gauge64,
    log_failures: Gauge64,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        // From a remembered token, some microseconds, to what waits for a key set or a log.
        let buckets = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 0.1, 1.0, 5.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("chancery_authz"),
            decisions: Family::default(),
            seconds: Histogram::new(buckets),
            key_set_age: Family::default(),
            distrusts_within: Family::default(),
            keys: Family::default(),
            fetches: Family::default(),
            failures: Family::default(),
            log_requests: Gauge64::default(),
            log_failures: Gauge64::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("decisions", "Requests decided, by outcome", self.decisions.clone());
        r.register_with_unit(
            "decision",
            "Time of one decision",
            Unit::Seconds,
            self.seconds.clone(),
        );
        r.register_with_unit(
            "key_set_age",
            "Age of an issuer's key set",
            Unit::Seconds,
            self.key_set_age.clone(),
        );
        r.register_with_unit(
            "distrusts_within",
            "Time within which a key that its publisher withdrew is distrusted",
            Unit::Seconds,
            self.distrusts_within.clone(),
        );
        r.register("keys", "Keys of an issuer that are believed", self.keys.clone());
        r.register("key_set_fetches", "Fetches of an issuer's key set", self.fetches.clone());
        r.register("key_set_failures", "Those of them that failed", self.failures.clone());
        r.register("log_requests", "Requests for objects of logs", self.log_requests.clone());
        r.register("log_failures", "Those of them that failed", self.log_failures.clone());
    }

    /// Counts a decision.
    pub fn decided(&self, proxy: Proxy, outcome: &'static str, took: Duration) {
        let label = Decision { proxy: proxy.name(), outcome };
        self.decisions.get_or_create(&label).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The exposition text, with the relying party's state as it is now.
    pub fn text(&self, status: &Status) -> String {
        for issuer in &status.issuers {
            let label = Issuer { issuer: issuer.issuer.clone() };
            let keys = u64::try_from(issuer.keys).unwrap_or(u64::MAX);
            self.keys.get_or_create(&label).set(whole(keys));
            self.fetches.get_or_create(&label).set(whole(issuer.fetches));
            self.failures.get_or_create(&label).set(whole(issuer.failures));
            // A set that was given, or is not there yet, has neither.
            for (family, ms) in [
                (&self.key_set_age, issuer.age_ms),
                (&self.distrusts_within, issuer.distrusts_within_ms),
            ] {
                if let Some(ms) = ms {
                    family.get_or_create(&label).set(Duration::from_millis(ms).as_secs_f64());
                }
            }
        }
        self.log_requests.set(whole(status.logs.requests));
        self.log_failures.set(whole(status.logs.failures));
        exposition(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.decided(Proxy::Nginx, "expired", Duration::from_micros(80));
        metrics.decided(Proxy::Nginx, "expired", Duration::from_micros(80));
        let status = Status { issuers: Vec::new(), logs: Default::default() };
        let text = metrics.text(&status);
        let line = r#"chancery_authz_decisions_total{proxy="nginx",outcome="expired"} 2"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains("chancery_authz_decision_seconds_count 2"), "{text}");
    }
}
