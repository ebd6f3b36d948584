//! Metrics of the Kubernetes socket.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Gauge64, whole};

/// Labels of a request: both come from closed lists.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabel {
    method: &'static str,
    code: &'static str,
}

/// The socket's health.
#[derive(Debug)]
pub struct KubernetesMetrics {
    requests: Family<RequestLabel, Counter>,
    sign_seconds: Histogram,
    last_fetch: Gauge64,
    listening: Gauge64,
    /// Connections of users who may not connect.
    pub peers_refused: Counter,
}

impl KubernetesMetrics {
    pub(super) fn new() -> Self {
        // From half a millisecond, an idle machine with a quick disk, to where a request is given up.
        let buckets = [5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        Self {
            requests: Family::default(),
            sign_seconds: Histogram::new(buckets),
            last_fetch: Gauge64::default(),
            listening: Gauge64::default(),
            peers_refused: Counter::default(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "kubernetes_requests",
            "Requests of kube-apiserver, by method and gRPC status",
            self.requests.clone(),
        );
        r.register_with_unit(
            "kubernetes_sign",
            "Time to answer Sign, refusals included",
            Unit::Seconds,
            self.sign_seconds.clone(),
        );
        r.register_with_unit(
            "kubernetes_last_fetch_timestamp",
            "Unix time at which keys were last handed out; an old one says that nobody refreshes",
            Unit::Seconds,
            self.last_fetch.clone(),
        );
        r.register(
            "kubernetes_listening",
            "Whether the socket for kube-apiserver is open",
            self.listening.clone(),
        );
        r.register(
            "kubernetes_peers_refused",
            "Connections of users who may not connect",
            self.peers_refused.clone(),
        );
    }

    /// The socket is open, or closed.
    pub fn listening(&self, open: bool) {
        self.listening.set(i64::from(open));
    }

    /// Takes note of an answer.
    pub fn answered(&self, method: &'static str, code: &'static str) {
        self.requests.get_or_create(&RequestLabel { method, code }).inc();
    }

    /// Takes note of how long Sign took.
    pub fn signed(&self, took: Duration) {
        self.sign_seconds.observe(took.as_secs_f64());
    }

    /// Keys were handed out at `now`, Unix seconds.
    pub fn fetched(&self, now: u64) {
        self.last_fetch.set(whole(now));
    }
}
