//! What logic counts at its HTTP edge. Labels are route, code, kind and reason, never who a push is for.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Metrics;
use runtime::metrics::latency;

/// Which route, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Path without `/goim/`; `page` and `none` for what is no route.
    pub route: &'static str,
    /// HTTP status.
    pub code: u16,
}

/// What was pushed to, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PushLabels {
    /// `keys`, `mids`, `room` or `all`.
    pub kind: &'static str,
    /// `ok`, `too_large`, `store_away`, `queue_away`, `invalid`, `deadline`.
    pub result: &'static str,
}

/// Why a request was turned away before it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// `unauthorized`, `forbidden`, `rate`, `in_flight`, `body`, `keys`, `slow_body`, `deadline`.
    pub reason: &'static str,
}

/// Handles of everything the HTTP edge counts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Answers by route and status.
    pub requests: Family<RequestLabels, Counter>,
    /// From the request's head to its answer, in seconds.
    pub request_seconds: Histogram,
    /// Pushes being handled.
    pub in_flight: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Requests turned away.
    pub refused: Family<RefusedLabels, Counter>,
    /// Handlers that panicked.
    pub panics: Counter,
    /// Pushes by kind and result.
    pub pushes: Family<PushLabels, Counter>,
    /// Records acknowledged by the queue.
    pub records: Counter,
    /// From the request's head to the queue's last acknowledgement, in seconds.
    pub push_ack_seconds: Histogram,
}

impl HttpMetrics {
    /// Registers them under `imcluster_logic_`.
    pub fn register(metrics: &Metrics) -> Self {
        let handles = Self {
            requests: Family::default(),
            request_seconds: latency(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            refused: Family::default(),
            panics: Counter::default(),
            pushes: Family::default(),
            records: Counter::default(),
            push_ack_seconds: latency(),
        };
        metrics.register("logic", |registry| {
            registry.register("http_requests", "HTTP answers by route and status", handles.requests.clone());
            registry.register(
                "http_request_seconds",
                "From the head of an HTTP request to its answer",
                handles.request_seconds.clone(),
            );
            registry.register("http_in_flight", "Pushes being handled", handles.in_flight.clone());
            registry.register("http_connections", "Open HTTP connections", handles.connections.clone());
            registry.register("http_refused", "HTTP requests turned away, by reason", handles.refused.clone());
            registry.register("http_panics", "HTTP handlers that panicked", handles.panics.clone());
            registry.register("pushes", "Pushes by kind and result", handles.pushes.clone());
            registry.register("push_records", "Push records the queue acknowledged", handles.records.clone());
            registry.register(
                "push_ack_seconds",
                "From the head of a push request to the queue's last acknowledgement",
                handles.push_ack_seconds.clone(),
            );
        });
        handles
    }

    /// Counts a request that was turned away.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }
}
