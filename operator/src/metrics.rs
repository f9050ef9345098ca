//! What the operator counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::watches::Watches;

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `ok`, `error` or `deadline`.
    pub result: &'static str,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// One word, such as a kind whose watch failed.
    pub reason: String,
}

/// One call to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// As RBAC says it, and `apply`.
    pub verb: &'static str,
    /// The resource, with its subresource.
    pub kind: String,
    /// The HTTP status; 0 when there was no answer.
    pub code: u16,
}

/// A condition of one ImCluster.
type ConditionKey = (String, String, String);

/// Every handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Time of one reconcile.
    pub reconcile: Family<Outcome, Histogram, fn() -> Histogram>,
    /// Failures by reason.
    pub errors: Family<Reason, Counter>,
    /// Calls to the API server.
    pub calls: Family<Call, Counter>,
    /// ImClusters that are looked at now or wait for their turn.
    pub queue: Gauge,
    /// Whether this operator holds the Lease.
    pub leader: Gauge,
    /// Fields of ours that the cluster's definition of `ImCluster` lacks.
    pub lacking: Gauge,
    /// From a pod's first drain lease to its going on.
    pub drain: Histogram,
    /// Drains ended by their deadline.
    pub forced: Counter,
    /// Read at every scrape.
    pub read: Read,
}

/// What is worked out at every scrape: ages of failing watches and the conditions of every ImCluster.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Every watch.
    pub watches: Watches,
    conditions: Arc<Mutex<BTreeMap<ConditionKey, bool>>>,
}

impl Metrics {
    /// Registers everything.
    pub fn register(metrics: &runtime::Metrics) -> Self {
        let made = Self {
            reconcile: Family::new_with_constructor(runtime::metrics::latency as fn() -> Histogram),
            errors: Family::default(),
            calls: Family::default(),
            queue: Gauge::default(),
            leader: Gauge::default(),
            lacking: Gauge::default(),
            drain: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            forced: Counter::default(),
            read: Read::default(),
        };
        metrics.register("operator", |registry| {
            registry.register("reconcile_seconds", "Time of one reconcile, by result", made.reconcile.clone());
            registry.register("errors", "Failures, by reason", made.errors.clone());
            registry.register("api_calls", "Calls to the API server, by verb, kind and code", made.calls.clone());
            registry.register("queue_depth", "ImClusters looked at now or waiting for it", made.queue.clone());
            registry.register("leader", "1 while this operator holds the Lease", made.leader.clone());
            let help = "Fields that the cluster's definition of ImCluster lacks: upgrade imcluster-crds";
            registry.register("definition_lacks_fields", help, made.lacking.clone());
        });
        metrics.register("drain", |registry| {
            registry.register("seconds", "From a comet's first drain lease to its going on", made.drain.clone());
            registry.register("forced", "Drains that their deadline ended", made.forced.clone());
        });
        metrics.collect(made.read.clone());
        made
    }

    /// Counts a failure.
    pub fn error(&self, reason: &str) {
        self.errors.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }
}

impl Read {
    /// The conditions of one ImCluster; none of them when it is gone.
    pub fn conditions(&self, namespace: &str, name: &str, held: impl IntoIterator<Item = (String, bool)>) {
        let mut conditions = self.conditions.lock();
        conditions.retain(|key, _| (key.0.as_str(), key.1.as_str()) != (namespace, name));
        conditions.extend(held.into_iter().map(|(kind, held)| ((namespace.to_owned(), name.to_owned(), kind), held)));
    }
}

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        {
            let help = "How long the watch of a kind has been failing";
            let mut ages = encoder.encode_descriptor("operator_watch_age_seconds", help, None, MetricType::Gauge)?;
            for (kind, age) in self.watches.ages() {
                ConstGauge::new(age.as_secs_f64()).encode(ages.encode_family(&[("kind", kind)])?)?;
            }
        }
        let help = "1 while the condition of the ImCluster is True";
        let mut conditions = encoder.encode_descriptor("condition", help, None, MetricType::Gauge)?;
        for ((namespace, name, kind), held) in self.conditions.lock().iter() {
            let labels = [("namespace", namespace.as_str()), ("name", name), ("type", kind)];
            ConstGauge::new(i64::from(*held)).encode(conditions.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_watch_and_a_condition_show_in_the_text() {
        let process = runtime::Metrics::default();
        let metrics = Metrics::register(&process);
        metrics.read.watches.begin("pods", true);
        metrics.read.conditions("ns", "prod", [("Ready".to_owned(), true)]);
        metrics.forced.inc();
        let text = process.encode();
        for line in [
            "imcluster_operator_watch_age_seconds{kind=\"pods\"} 0.0\n",
            "imcluster_condition{namespace=\"ns\",name=\"prod\",type=\"Ready\"} 1\n",
            "imcluster_drain_forced_total 1\n",
            "imcluster_operator_leader 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        metrics.read.conditions("ns", "prod", []);
        assert!(!process.encode().contains("prod"));
    }
}
