//! Kafka as a source: one member of a consumer group on one thread of its own, because librdkafka's callbacks block.
//!
//! Classic protocol, cooperative-sticky, no static membership (an heir would share a zombie's generation), short
//! session and heartbeat so that a moving partition pauses for under a second. Offsets are committed only when told.
//! A group that never committed anything first commits the end of every partition, so that nothing between the first
//! start and the first record is skipped by accident; partitions that appear later start at their first record.

mod member;
mod native;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::Context as _;
use async_trait::async_trait;
use parking_lot::Mutex;
use proto::kafka::KafkaConfig;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::{Event, Source};
use member::Member;

/// What delivery rests on; `--kafka-set` cannot touch most of it.
const FIXED: [(&str, &str); 10] = [
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "300"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    // A record is handed over as soon as it is there.
    ("fetch.wait.max.ms", "100"),
    ("fetch.min.bytes", "1"),
    // New partitions are found this soon; they start at their first record, so nothing is missed meanwhile.
    ("topic.metadata.refresh.interval.ms", "10000"),
];
/// Bounds on what is fetched ahead, in KiB and messages of all partitions.
const QUEUED: [(&str, &str); 2] = [("queued.max.messages.kbytes", "16384"), ("queued.min.messages", "10000")];
/// How many events may wait to be taken: beyond that what is read ahead stays within librdkafka's bounds.
const EVENTS: usize = 16;
/// How soon a broker that is away is tried again, and when one that vanished without a word is given up, to be looked
/// for where its name points by then. librdkafka would wait up to 10 s, 60 s and 30 s.
const AGAIN: [(&str, &str); 4] = [
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "8000"),
];

/// A member of a consumer group.
pub struct KafkaSource {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Member>>,
    events: mpsc::Receiver<Event>,
    ended: oneshot::Receiver<()>,
    /// Dropped last: until then the thread lives, so that the last handle, whose end may block, is always its own.
    leave: Leave,
}

/// What the thread and its owner share.
#[derive(Debug)]
pub(crate) struct Shared {
    brokers: Vec<String>,
    topic: String,
    epoch: AtomicU32,
    partitions: AtomicU32,
    closing: AtomicBool,
    commit_failed: AtomicBool,
    /// Partitions to be started anew.
    again: Mutex<Vec<u32>>,
    /// What to commit at the end.
    last: Mutex<Vec<(u32, u64)>>,
}

/// Everything the consumer is told.
fn settings(config: &KafkaConfig, group: &str) -> anyhow::Result<ClientConfig> {
    let mut client = ClientConfig::new();
    for (key, value) in QUEUED.into_iter().chain(AGAIN) {
        client.set(key, value);
    }
    for (key, value) in config.properties()? {
        client.set(key, value);
    }
    client.set("group.id", group);
    for (key, value) in FIXED {
        client.set(key, value);
    }
    client.set_log_level(RDKafkaLogLevel::Warning);
    Ok(client)
}

/// Checks the settings, the files they name and what is passed on to librdkafka, without connecting.
///
/// # Errors
/// When they cannot be used.
pub fn check(config: &KafkaConfig, group: &str) -> anyhow::Result<()> {
    settings(config, group)?.create_native_config().context("Kafka settings that librdkafka does not take")?;
    Ok(())
}

impl KafkaSource {
    /// A member of `group`; joins in the background and keeps trying.
    ///
    /// # Errors
    /// When a file of the settings cannot be read or librdkafka refuses a property.
    pub fn start(config: &KafkaConfig, group: &str) -> anyhow::Result<Self> {
        let client = settings(config, group)?;
        let shared = Arc::new(Shared {
            brokers: config.brokers.clone(),
            topic: config.topic.clone(),
            epoch: AtomicU32::new(0),
            partitions: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            commit_failed: AtomicBool::new(false),
            again: Mutex::default(),
            last: Mutex::default(),
        });
        let (sender, events) = mpsc::channel(EVENTS);
        let member = Member::new(shared.clone(), sender);
        let consumer: BaseConsumer<Member> =
            client.create_with_context(member).context("Kafka settings that librdkafka does not take")?;
        let consumer = Arc::new(consumer);
        let (end, ended) = oneshot::channel::<()>();
        let thread = consumer.clone();
        std::thread::Builder::new().name("kafka-consumer".into()).spawn(move || {
            member::run(&thread);
            // The last owner of the consumer closes it, which may block: not the runtime's threads.
            drop(thread);
            // Closes the channel: that is the news.
            drop(end);
        })?;
        Ok(Self { leave: Leave(shared.clone()), shared, consumer, events, ended })
    }

    fn list(&self, partition: u32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.shared.topic, partition as i32);
        list
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn name(&self) -> &'static str {
        "kafka"
    }

    async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    fn commit(&self, offsets: &[(u32, u64)]) {
        if let Err(error) = self.consumer.commit(&offsets_of(&self.shared.topic, offsets), CommitMode::Async) {
            tracing::debug!(%error, "commit failed, tried again");
            self.shared.commit_failed.store(true, Ordering::Relaxed);
        }
    }

    fn must_commit_again(&self) -> bool {
        self.shared.commit_failed.swap(false, Ordering::Relaxed)
    }

    fn pause(&self, partition: u32) {
        if let Err(error) = self.consumer.pause(&self.list(partition)) {
            tracing::debug!(partition, %error, "partition was not paused");
        }
    }

    fn resume(&self, partition: u32) {
        if let Err(error) = self.consumer.resume(&self.list(partition)) {
            tracing::debug!(partition, %error, "partition was not resumed");
        }
    }

    fn take_over(&self, partition: u32) {
        // By the thread that hears when partitions move.
        self.shared.again.lock().push(partition);
    }

    fn epoch(&self) -> u32 {
        self.shared.epoch.load(Ordering::Relaxed)
    }

    fn partitions(&self) -> u32 {
        self.shared.partitions.load(Ordering::Relaxed)
    }

    fn end(&self, partition: u32) -> Option<u64> {
        native::known_end(&self.consumer, &self.shared.topic, partition)
    }

    async fn close(self: Box<Self>, offsets: Vec<(u32, u64)>) -> anyhow::Result<()> {
        let Self { shared, consumer, mut events, ended, leave } = *self;
        *shared.last.lock() = offsets;
        drop(consumer);
        drop(leave);
        // The thread may be handing something over.
        events.close();
        while events.recv().await.is_some() {}
        // Only ever closed, when the thread is at its end.
        drop(ended.await);
        let failed = std::mem::take(&mut *shared.last.lock());
        anyhow::ensure!(failed.is_empty(), "the last commit to Kafka failed: {failed:?} will be delivered again");
        Ok(())
    }
}

/// Ends the thread when dropped, whichever way the source goes.
struct Leave(Arc<Shared>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
    }
}

/// As librdkafka wants it: the next offset to be read.
fn offsets_of(topic: &str, offsets: &[(u32, u64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition as i32, Offset::Offset(*offset as i64))
            .expect("an offset is in range");
    }
    list
}
