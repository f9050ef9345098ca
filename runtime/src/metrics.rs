//! The metrics registry. Each service registers a struct of handles at start and passes it on.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The registry behind `/metrics`; every name of ours starts with `imcluster_`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    process: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("imcluster"))), process: Arc::default() }
    }
}

impl Metrics {
    /// Registers metrics under `imcluster_<service>_`.
    pub fn register<T>(&self, service: &str, make: impl FnOnce(&mut Registry) -> T) -> T {
        make(self.registry.lock().sub_registry_with_prefix(service))
    }

    /// Adds what is read at every scrape, under `imcluster_`.
    pub fn collect(&self, collector: impl Collector) {
        self.registry.lock().register_collector(Box::new(collector));
    }

    /// Adds what every process has in common, whoever wrote it, such as `process_open_fds`: no prefix.
    pub(crate) fn collect_unprefixed(&self, collector: impl Collector) {
        self.process.lock().register_collector(Box::new(collector));
    }

    /// Everything registered, in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry.lock())
            .and_then(|()| encode_registry(&mut text, &self.process.lock()))
            .and_then(|()| encode_eof(&mut text))
            .expect("a String takes everything");
        text
    }
}

/// A latency histogram from 0.1 ms to about 13 s, in seconds.
pub fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn names_start_with_imcluster_and_the_service() {
        let metrics = Metrics::default();
        let pushes = metrics.register("logic", |registry| {
            let pushes = Counter::<u64>::default();
            registry.register("pushes", "Pushes taken", pushes.clone());
            pushes
        });
        pushes.inc();
        let text = metrics.encode();
        assert!(text.contains("imcluster_logic_pushes_total 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
