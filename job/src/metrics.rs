//! What job counts. Every record that is not delivered is counted with its reason.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::push::Target;

/// A record's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// `push`, `room`, `broadcast`, `kick` or `undecodable`.
    pub kind: &'static str,
}

/// Why something did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// One word.
    pub reason: &'static str,
}

/// A partition's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    /// Its number.
    pub partition: u32,
}

/// Every handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records taken from the queue, by type.
    pub records: Family<Kind, Counter>,
    /// From logic taking a push to job having it.
    pub queue_to_job: Histogram,
    /// From job having a push to a comet's answer.
    pub job_to_comet: Histogram,
    /// Packets in one batch.
    pub batch: Histogram,
    /// Batches answered, whatever the answer.
    pub calls: Counter,
    /// Batches that are sent again.
    pub retries: Counter,
    /// Records dropped for one comet or for good, by reason.
    pub dropped: Family<Reason, Counter>,
    /// Keys, or whole records of a refused call, that could not be delivered, by reason.
    pub undeliverable: Family<Reason, Counter>,
    /// Undeliverable keys that nobody was told of.
    pub untold: Counter,
    /// High watermark less committed, by partition.
    pub lag: Family<PartitionLabel, Gauge>,
    /// Bytes owed to all comets.
    pub queue_bytes: Gauge,
    /// Comets that answer.
    pub comets: Gauge,
    /// Comets let go.
    pub let_go: Counter,
    /// Partitions found to have a later owner.
    pub fenced: Counter,
    /// 1 for each partition that is given to us although a comet has heard of a later owner.
    pub partitions_fenced: Family<PartitionLabel, Gauge>,
    /// Starts from the oldest record because the committed one is gone.
    pub out_of_range: Counter,
    /// Errors of a dependency, by its name.
    pub errors: Family<Reason, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn register(metrics: &runtime::Metrics) -> Self {
        let this = Self {
            records: Family::default(),
            queue_to_job: runtime::metrics::latency(),
            job_to_comet: runtime::metrics::latency(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            calls: Counter::default(),
            retries: Counter::default(),
            dropped: Family::default(),
            undeliverable: Family::default(),
            untold: Counter::default(),
            lag: Family::default(),
            queue_bytes: Gauge::default(),
            comets: Gauge::default(),
            let_go: Counter::default(),
            fenced: Counter::default(),
            partitions_fenced: Family::default(),
            out_of_range: Counter::default(),
            errors: Family::default(),
        };
        metrics.register("job", |to| {
            to.register("records", "Records taken from the queue", this.records.clone());
            to.register("queue_seconds", "From logic taking a push to job having it", this.queue_to_job.clone());
            to.register("comet_ack_seconds", "From job having a push to a comet's answer", this.job_to_comet.clone());
            to.register("batch_packets", "Packets in one batch", this.batch.clone());
            to.register("calls", "Batches that a comet answered", this.calls.clone());
            to.register("retries", "Batches sent again", this.retries.clone());
            to.register("dropped", "Records dropped for a comet", this.dropped.clone());
            to.register("undeliverable", "Keys or records that could not be delivered", this.undeliverable.clone());
            to.register("undeliverable_untold", "Keys that the webhook was not told of", this.untold.clone());
            to.register("lag_records", "Records not committed yet", this.lag.clone());
            to.register("comet_queue_bytes", "Bytes owed to comets", this.queue_bytes.clone());
            to.register("comets", "Comets that answer", this.comets.clone());
            to.register("comets_let_go", "Comets that were let go", this.let_go.clone());
            to.register("fenced", "Partitions found to have a later owner", this.fenced.clone());
            to.register("partitions_fenced", "Partitions of ours that stand still", this.partitions_fenced.clone());
            to.register("out_of_range", "Partitions restarted at their oldest record", this.out_of_range.clone());
            to.register("dependency_errors", "Errors of a dependency", this.errors.clone());
        });
        this
    }

    /// Counts a record by its target.
    pub fn record(&self, target: &Target) {
        let kind = match target {
            Target::Keys(_) => "push",
            Target::Kick(_) => "kick",
            Target::Room(_) => "room",
            Target::All => "broadcast",
        };
        self.records.get_or_create(&Kind { kind }).inc();
    }

    /// Counts dropped records.
    pub fn drop_records(&self, reason: &'static str, count: usize) {
        self.dropped.get_or_create(&Reason { reason }).inc_by(count as u64);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::register(&runtime::Metrics::default())
    }
}
