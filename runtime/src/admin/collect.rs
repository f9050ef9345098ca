//! What `/metrics` shows beside the services' own: dependencies, the version, and the process as `/proc` knows it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;

use crate::Readiness;
use crate::live::Live;

/// `imcluster_dependency_up{dependency}`, `imcluster_config_hash{hash}` and `imcluster_build_info{version}`.
#[derive(Debug)]
pub(super) struct Ours {
    readiness: Readiness,
    live: Live,
}

impl Ours {
    pub(super) fn new(readiness: Readiness, live: Live) -> Self {
        Self { readiness, live }
    }
}

impl Collector for Ours {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut up = encoder.encode_descriptor(
            "dependency_up",
            "Whether the dependency answers now",
            None,
            MetricType::Gauge,
        )?;
        for (name, dependency) in self.readiness.dependencies() {
            ConstGauge::new(i64::from(dependency.up)).encode(up.encode_family(&[("dependency", name)])?)?;
        }
        if let Some(hash) = self.live.hash() {
            let help = "The live settings in force, by their hash";
            let mut family = encoder.encode_descriptor("config_hash", help, None, MetricType::Gauge)?;
            ConstGauge::new(1).encode(family.encode_family(&[("hash", hash.as_str())])?)?;
        }
        let build = Info::new([("version", crate::VERSION)]);
        let encoder = encoder.encode_descriptor("build", "What runs here", None, build.metric_type())?;
        build.encode(encoder)
    }
}

/// `process_*`, as Prometheus' own client libraries call them. What `/proc` does not say is left out.
#[derive(Debug)]
pub(super) struct Proc;

impl Collector for Proc {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauges = [
            ("process_open_fds", "Open file descriptors", open_fds()),
            ("process_max_fds", "The most file descriptors this process may open", max_fds()),
            ("process_resident_memory_bytes", "Resident memory", resident_bytes()),
            ("process_threads", "Threads", status_field("Threads:")),
        ];
        for (name, help, value) in gauges.into_iter().filter_map(|(name, help, value)| Some((name, help, value?))) {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// From Linux 6.2 on the size of `/proc/self/fd` is their number; before, they are counted.
fn open_fds() -> Option<u64> {
    match std::fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

/// The most file descriptors this process may open.
pub fn max_fds() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn resident_bytes() -> Option<u64> {
    Some(status_field("VmRSS:")? * 1024)
}

fn status_field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime` of proc_pid_stat(5), in clock ticks, of which Linux tells programs there are 100 a second.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = after_name.next()?.parse::<u64>().ok()? + after_name.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}
