//! The metrics registry. Each service registers a struct of handles at start and passes it on.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The registry behind `/metrics`; every name starts with `imcluster_`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("imcluster"))) }
    }
}

impl Metrics {
    /// Registers metrics under `imcluster_<service>_`.
    pub fn register<T>(&self, service: &str, make: impl FnOnce(&mut Registry) -> T) -> T {
        make(self.registry.lock().sub_registry_with_prefix(service))
    }

    /// Everything registered, in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())
            .expect("a String takes everything");
        text
    }
}

/// A latency histogram from 0.1 ms to about 13 s, in seconds.
pub fn latency() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0001, 2.0, 18))
}
