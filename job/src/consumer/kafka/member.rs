//! The consumer's thread: prepares the group's first start, polls, and answers librdkafka when partitions move.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::log::Record;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};

use super::{Shared, native, offsets_of};
use crate::consumer::{Assignment, Event, Revocation};

/// How long one question to the broker may take.
const ASK: Duration = Duration::from_secs(5);
/// How long the thread waits for a record before it looks whether to stop.
const POLL: Duration = Duration::from_millis(100);
/// The pause after an error.
const PAUSE: Duration = Duration::from_millis(500);
/// After how long without an answer the brokers of the settings are asked anew.
const START_OVER: Duration = Duration::from_secs(15);
/// At most so many records in one event, and no more once they are so many bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;

/// What librdkafka calls back, on the consumer's thread.
pub struct Member {
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    /// The offset expected next of each assigned partition.
    expected: Mutex<HashMap<i32, i64>>,
    /// Whether Kafka answered when it was last heard of.
    up: AtomicBool,
    /// The thread that asks while it does not.
    asker: OnceLock<Thread>,
}

impl Member {
    pub(super) fn new(shared: Arc<Shared>, events: mpsc::Sender<Event>) -> Self {
        Self { shared, events, expected: Mutex::default(), up: AtomicBool::new(false), asker: OnceLock::new() }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Hands an event over; nobody takes it when the source was closed.
    fn say(&self, event: Event) {
        drop(self.events.blocking_send(event));
    }

    /// Kafka answered: that is news after it did not.
    fn up(&self) {
        if !self.up.swap(true, Ordering::AcqRel) {
            self.say(Event::Up);
        }
    }

    /// It did not: from now on it is asked until it does.
    fn down(&self, what: &str, error: impl std::fmt::Display) {
        self.say(Event::Down(format!("{what}: {error}")));
        self.up.store(false, Ordering::Release);
        if let Some(asker) = self.asker.get() {
            asker.unpark();
        }
    }

    /// Asks until there is an answer; `None` when the process ends first.
    fn ask<T, E: std::fmt::Display>(
        &self,
        consumer: &BaseConsumer<Self>,
        what: &str,
        mut question: impl FnMut() -> Result<T, E>,
    ) -> Option<T> {
        let mut since = Instant::now();
        while !self.is_closing() {
            match question() {
                Ok(answer) => {
                    self.up();
                    return Some(answer);
                }
                Err(error) => self.down(what, error),
            }
            self.start_over(consumer, &mut since);
            std::thread::sleep(PAUSE);
        }
        None
    }

    /// Without an answer for long the brokers of the settings are asked anew.
    fn start_over(&self, consumer: &BaseConsumer<Self>, since: &mut Instant) {
        if since.elapsed() > START_OVER {
            native::look_at(consumer, &self.shared.brokers);
            *since = Instant::now();
        }
    }

    /// Learns which topic of this name it is, and how large.
    fn read_topic(&self, consumer: &BaseConsumer<Self>) {
        let topic = &self.shared.topic;
        let told = self.ask(consumer, "asking for the topic's id", || native::topic(consumer, topic));
        let Some((id, partitions)) = told else {
            return;
        };
        if id == (0, 0) {
            tracing::error!(%topic, "this broker does not know topic ids: repeats after a restart are not recognised");
        }
        self.shared.epoch.store(epoch(id), Ordering::Relaxed);
        self.shared.partitions.store(partitions, Ordering::Relaxed);
    }

    /// Where each partition starts: what was committed, else its first record.
    fn starts(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Option<Vec<Assignment>> {
        let committed =
            self.ask(consumer, "asking for committed offsets", || consumer.committed_offsets(list.clone(), ASK))?;
        let generation = native::generation(consumer);
        let mut starts = Vec::new();
        for element in committed.elements() {
            let (low, high) = self.ask(consumer, "asking for a partition's bounds", || {
                consumer.fetch_watermarks(element.topic(), element.partition(), ASK)
            })?;
            let (start, out_of_range) = match element.offset() {
                Offset::Offset(offset) if offset < low || offset > high => (low, true),
                Offset::Offset(offset) => (offset, false),
                _ => (low, false),
            };
            let partition = element.partition() as u32;
            let start = start as u64;
            starts.push(Assignment { partition, generation, start, out_of_range, takeover: false });
        }
        Some(starts)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let starts = if list.count() == 0 { vec![] } else { self.starts(consumer, list).unwrap_or_default() };
        let offsets: Vec<(u32, u64)> = starts.iter().map(|start| (start.partition, start.start)).collect();
        self.expected.lock().extend(offsets.iter().map(|(partition, offset)| (*partition as i32, *offset as i64)));
        if !starts.is_empty() {
            self.read_topic(consumer);
            self.say(Event::Assigned(starts));
        }
        if let Err(error) = consumer.incremental_assign(&offsets_of(&self.shared.topic, &offsets)) {
            tracing::error!(%error, "librdkafka refused an assignment");
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let numbers: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        self.expected.lock().retain(|partition, _| !numbers.contains(partition));
        let lost = consumer.assignment_lost();
        if !numbers.is_empty() && !self.is_closing() {
            let (done, answer) = oneshot::channel();
            let partitions = numbers.iter().map(|partition| *partition as u32).collect();
            self.say(Event::Revoked(Revocation { partitions, lost, done }));
            // Dropped instead of answered: the process ends.
            let offsets = answer.blocking_recv().unwrap_or_default();
            if !offsets.is_empty()
                && let Err(error) = consumer.commit(&offsets_of(&self.shared.topic, &offsets), CommitMode::Sync)
            {
                tracing::warn!(%error, "offsets of revoked partitions were not committed, some is delivered again");
            }
        }
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::error!(%error, "librdkafka refused a revocation");
        }
    }

    /// Notices when librdkafka went back to the oldest record because the next one is gone.
    fn follows(&self, consumer: &BaseConsumer<Self>, message: &BorrowedMessage<'_>) -> Option<Event> {
        let (partition, offset) = (message.partition(), message.offset());
        let before = self.expected.lock().insert(partition, offset + 1)?;
        if before == offset {
            return None;
        }
        let low = consumer.fetch_watermarks(&self.shared.topic, partition, ASK).map_or(offset, |(low, _)| low);
        // A broker may skip offsets for purposes of its own; that is no loss.
        let out_of_range = offset < before || low > before;
        let generation = native::generation(consumer);
        let (partition, start) = (partition as u32, offset as u64);
        let again = Assignment { partition, generation, start, out_of_range, takeover: false };
        out_of_range.then(|| Event::Assigned(vec![again]))
    }

    /// Starts partitions anew that comets take for a later owner's, unless Kafka has given them to somebody.
    fn take_over(&self, consumer: &BaseConsumer<Self>) {
        let numbers = std::mem::take(&mut *self.shared.again.lock());
        if numbers.is_empty() || consumer.assignment_lost() {
            return;
        }
        let mut list = TopicPartitionList::new();
        let expected = self.expected.lock();
        for number in numbers.into_iter().map(|number| number as i32).filter(|number| expected.contains_key(number)) {
            list.add_partition(&self.shared.topic, number);
        }
        drop(expected);
        for start in self.starts(consumer, &list).unwrap_or_default() {
            let (number, offset) = (start.partition as i32, start.start as i64);
            match consumer.seek(&self.shared.topic, number, Offset::Offset(offset), ASK) {
                Ok(()) => {
                    self.expected.lock().insert(number, offset);
                    self.say(Event::Assigned(vec![Assignment { takeover: true, ..start }]));
                }
                Err(error) => {
                    tracing::debug!(partition = number, %error, "partition was not started anew, tried again");
                    self.shared.again.lock().push(start.partition);
                }
            }
        }
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info => tracing::trace!(facility, message, "librdkafka"),
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                tracing::debug!(%error, "commit failed, tried again");
                self.shared.commit_failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// The thread's life: prepare, join, poll, commit for the last time.
pub(super) fn run(consumer: &BaseConsumer<Member>) {
    let member = consumer.context().clone();
    let topic = member.shared.topic.clone();
    prepare(consumer, &member);
    if member.ask(consumer, "joining the group", || consumer.subscribe(&[&topic])).is_none() {
        return;
    }
    std::thread::scope(|scope| {
        // A question waits as long as a loaded machine and TLS need; whoever reads must not.
        let asker = scope.spawn(|| ask_whether_up(consumer, &member)).thread().clone();
        let asker = member.asker.get_or_init(|| asker);
        while !member.is_closing() {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    member.up();
                    take(consumer, &member, &message);
                }
                Some(Err(error)) => member.down("reading", error),
            }
            member.take_over(consumer);
        }
        asker.unpark();
        // Not after it has ended: it may be waiting for an answer, and whoever stops us waits for this.
        commit_last(consumer, &member);
    });
}

fn commit_last(consumer: &BaseConsumer<Member>, member: &Member) {
    let offsets = std::mem::take(&mut *member.shared.last.lock());
    if !offsets.is_empty()
        && let Err(error) = consumer.commit(&offsets_of(&member.shared.topic, &offsets), CommitMode::Sync)
    {
        tracing::warn!(%error, "last commit failed");
        *member.shared.last.lock() = offsets;
    }
}

/// Asks Kafka now and then, and while it does not answer until it does: who knows no broker any more is as silent as who
/// has nothing to read.
fn ask_whether_up(consumer: &BaseConsumer<Member>, member: &Member) {
    let mut heard = Instant::now();
    while !member.is_closing() {
        if member.up.load(Ordering::Acquire) {
            std::thread::park_timeout(START_OVER);
            if member.is_closing() {
                return;
            }
        }
        match consumer.fetch_metadata(Some(&member.shared.topic), ASK) {
            Ok(_) => {
                heard = Instant::now();
                member.up();
            }
            Err(error) => {
                if member.up.load(Ordering::Acquire) {
                    member.down("asking for the topic", error);
                }
                member.start_over(consumer, &mut heard);
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Hands over a message and what else is there already.
fn take(consumer: &BaseConsumer<Member>, member: &Member, first: &BorrowedMessage<'_>) {
    let (mut records, mut size) = (Vec::new(), 0);
    // Returns whether there is room for more.
    let mut add = |message: &BorrowedMessage<'_>| {
        if let Some(again) = member.follows(consumer, message) {
            let before = std::mem::take(&mut records);
            if !before.is_empty() {
                member.say(Event::Records(before));
            }
            member.read_topic(consumer);
            member.say(again);
        }
        size += message.payload_len() + message.key_len();
        records.push(record(message));
        records.len() < BATCH && size < BATCH_BYTES
    };
    let mut has_room = add(first);
    while has_room && let Some(Ok(message)) = consumer.poll(Duration::ZERO) {
        has_room = add(&message);
    }
    member.say(Event::Records(records));
}

/// Commits the end of every partition when the group has never committed anything.
fn prepare(consumer: &BaseConsumer<Member>, member: &Member) {
    let topic = &member.shared.topic;
    let words = |error: KafkaError| error.to_string();
    let prepared = member.ask(consumer, "preparing the group's first start", || -> Result<(), String> {
        let metadata = consumer.fetch_metadata(Some(topic), ASK).map_err(words)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let partitions: Vec<i32> = found.map_or(vec![], |found| found.partitions().iter().map(|p| p.id()).collect());
        if partitions.is_empty() {
            return Err(format!("topic {topic} does not exist; create it, or name another with --kafka-topic"));
        }
        let mut list = TopicPartitionList::new();
        partitions.iter().for_each(|partition| {
            list.add_partition(topic, *partition);
        });
        let committed = consumer.committed_offsets(list, ASK).map_err(words)?;
        if committed.elements().iter().any(|element| matches!(element.offset(), Offset::Offset(_))) {
            return Ok(());
        }
        let mut ends = Vec::new();
        for partition in partitions {
            let (_, high) = consumer.fetch_watermarks(topic, partition, ASK).map_err(words)?;
            ends.push((partition as u32, high as u64));
        }
        // Refused when another member got here first: then its offsets are found at the next try.
        consumer.commit(&offsets_of(topic, &ends), CommitMode::Sync).map_err(words)?;
        tracing::info!(%topic, partitions = ends.len(), "first start of this group: begins at the end of the topic");
        Ok(())
    });
    if prepared.is_none() {
        tracing::debug!("stopped before Kafka answered");
    }
}

/// A hash of the topic's id that is never 0, unless the id is.
fn epoch((high, low): (i64, i64)) -> u32 {
    if (high, low) == (0, 0) {
        return 0;
    }
    let bytes = high.to_be_bytes().into_iter().chain(low.to_be_bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).max(1)
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let copy = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), copy(header.value))).collect()
    });
    Record {
        partition: message.partition() as u32,
        offset: message.offset() as u64,
        key: copy(message.key()),
        value: copy(message.payload()),
        headers,
        timestamp_ms: message.timestamp().to_millis().map_or(0, |millis| millis.max(0) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::epoch;

    #[test]
    fn an_epoch_is_0_only_without_a_topic_id() {
        assert_eq!(epoch((0, 0)), 0);
        assert_ne!(epoch((1, 0)), 0);
        assert_ne!(epoch((1, 2)), epoch((2, 1)));
    }
}
