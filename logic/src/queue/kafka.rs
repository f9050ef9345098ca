//! The queue in Kafka: idempotent, acknowledged by every in-sync replica, partitioned as goim partitions.
//!
//! Nothing here blocks a worker thread: librdkafka takes a record at once or says that its buffer is full, and the
//! answer is awaited. What was not acknowledged within [`GIVE_UP`] is answered as unavailable and may have been kept.

mod native;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::kafka::{KafkaConfig, KafkaConfigError};
use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use runtime::config::FileKey;
use runtime::{Condition, Process, Shutdown};

use super::{NewRecord, PushQueue, QueueError};
use topic::Found;
pub use topic::TopicConfig;

/// goim's keys for Kafka and what they mean here.
pub const FILE_KEYS: &[(&str, FileKey)] =
    &[("kafka.topic", FileKey::Arg("kafka_topic")), ("kafka.brokers", FileKey::Arg("kafka_brokers"))];

/// How long a record may wait for its acknowledgement.
const GIVE_UP: Duration = Duration::from_secs(4);
/// How often the topic is looked at, while it answers and while it does not; and how long a look may take.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// After how long without an answer the brokers of the settings are asked anew.
const START_OVER: Duration = Duration::from_secs(15);

/// The queue cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum KafkaQueueError {
    /// A file of the settings.
    #[error(transparent)]
    Config(#[from] KafkaConfigError),
    /// librdkafka refuses a property; its text names it.
    #[error("--kafka-set: expected properties that librdkafka takes: {0}")]
    Client(#[from] KafkaError),
}

/// Writes to a topic. Cheap to clone.
#[derive(Clone)]
pub struct KafkaQueue {
    producer: FutureProducer<Context>,
    brokers: Arc<[String]>,
    topic: Arc<str>,
    partitions: Arc<AtomicU32>,
    refusal: Arc<Mutex<Option<String>>>,
    /// What is other with the topic than it should be; `None` before it was looked at.
    state: Arc<Mutex<Option<Result<(), String>>>>,
}

impl std::fmt::Debug for KafkaQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaQueue").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Hears what librdkafka has to say.
struct Context {
    condition: Condition,
    /// Why a broker would not have us. Asking for metadata says only that nobody answered in time.
    refusal: Arc<Mutex<Option<String>>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "librdkafka");
            }
            // Lost connections are reported as readiness, once; here they repeat for every broker and attempt.
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                let refusal = self.refusal.lock().clone();
                self.condition.down(refusal.as_deref().unwrap_or(reason));
            }
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => {
                self.condition.down(reason);
                if self.refusal.lock().replace(reason.to_owned()).is_none() {
                    tracing::error!(reason, "kafka refuses us");
                }
            }
            Some(RDKafkaErrorCode::Fatal) => tracing::error!(reason, "the kafka producer cannot go on"),
            _ => tracing::debug!(%error, reason, "kafka"),
        }
    }
}

/// Everything the producer is told.
fn settings(config: &KafkaConfig) -> Result<ClientConfig, KafkaQueueError> {
    let mut client = ClientConfig::new();
    client
        // What has gathered while earlier requests are under way leaves together; a lone record leaves at once.
        .set("linger.ms", "0")
        .set("compression.type", "none")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("socket.timeout.ms", "10000")
        // A broker may be back where its name points by now, and not where we still knock.
        .set("socket.connection.setup.timeout.ms", "8000")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "30000");
    for (key, value) in config.properties()? {
        client.set(key, value);
    }
    client
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "fnv1a")
        // Nor does looking at it make it: its partitions are a decision.
        .set("allow.auto.create.topics", "false")
        .set("message.timeout.ms", GIVE_UP.as_millis().to_string())
        .set("message.max.bytes", "1048588")
        .set_log_level(RDKafkaLogLevel::Info);
    Ok(client)
}

/// Checks the settings, the files they name and what is passed on to librdkafka, without connecting.
///
/// # Errors
/// When they cannot be used.
pub fn check(config: &KafkaConfig) -> Result<(), KafkaQueueError> {
    settings(config)?.create_native_config()?;
    Ok(())
}

impl KafkaQueue {
    /// Begins to connect and returns at once; Kafka need not be there yet. Whether the topic answers shows in the
    /// readiness condition `kafka`, and whether it is as `expected` in the status part `topic`.
    ///
    /// # Errors
    /// When the settings or the files they name cannot be used.
    pub fn start(config: &KafkaConfig, expected: &TopicConfig, process: &Process) -> Result<Self, KafkaQueueError> {
        let client = settings(config)?;
        let condition = process.readiness.condition("kafka", "first answer");
        let refusal = Arc::default();
        let context = Context { condition: condition.clone(), refusal: Arc::clone(&refusal) };
        let producer = client.create_with_context(context)?;
        let (topic, state) = (config.topic.as_str().into(), Arc::<Mutex<_>>::default());
        let brokers = config.brokers.clone().into();
        let queue = Self { producer, brokers, topic, partitions: Arc::default(), refusal, state: state.clone() };
        process.status.part("topic", move || match &*state.lock() {
            None => serde_json::Value::Null,
            Some(Ok(())) => serde_json::json!({"ok": true}),
            Some(Err(why)) => serde_json::json!({"ok": false, "error": why}),
        });
        let admin = expected.kafka_create_topic.then(|| topic::admin(config)).transpose()?;
        tokio::spawn(queue.clone().watch(*expected, admin, condition, process.shutdown.clone()));
        Ok(queue)
    }

    /// Looks at the topic again and again until the process ends.
    async fn watch(
        self,
        expected: TopicConfig,
        admin: Option<AdminClient<DefaultClientContext>>,
        condition: Condition,
        shutdown: Shutdown,
    ) {
        let mut answered = Instant::now();
        loop {
            let queue = self.clone();
            let Ok(seen) = tokio::task::spawn_blocking(move || queue.look()).await else {
                return;
            };
            if seen.is_ok() {
                answered = Instant::now();
            } else if answered.elapsed() > START_OVER {
                native::look_at(self.producer.client(), &self.brokers);
                answered = Instant::now();
            }
            let seen = match (seen, &admin) {
                (Ok(None), Some(admin)) => match expected.create(&self.topic, admin).await {
                    // It is looked at again at once, until every broker knows of it.
                    Ok(()) => Err("the topic was just created".to_owned()),
                    Err(why) => {
                        self.note(Err(why.clone()));
                        Err(why)
                    }
                },
                (Ok(None), None) => {
                    self.note(Err(self.missing()));
                    Err(self.missing())
                }
                (Ok(Some(found)), _) => Ok(found),
                (Err(why), _) => Err(why),
            };
            let pause = match seen {
                Ok(found) => {
                    self.note(expected.mismatch(&self.topic, found).map_or(Ok(()), Err));
                    let partitions = found.partitions;
                    let before = self.partitions.swap(partitions, Ordering::Relaxed);
                    if before != 0 && before != partitions {
                        tracing::warn!(before, partitions, "the topic has another number of partitions now");
                    }
                    *self.refusal.lock() = None;
                    condition.up();
                    LOOK
                }
                Err(why) => {
                    let refusal = self.refusal.lock().clone();
                    condition.down(&refusal.unwrap_or(why));
                    LOOK_AGAIN
                }
            };
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Notes how the topic is; says it when that is news and not good.
    fn note(&self, how: Result<(), String>) {
        let mut state = self.state.lock();
        if let (Err(why), true) = (&how, state.as_ref() != Some(&how)) {
            tracing::error!(why, "the topic is not as it should be");
        }
        *state = Some(how);
    }

    /// The topic as it is, if there is one. Blocks.
    fn look(&self) -> Result<Option<Found>, String> {
        let metadata =
            self.producer.client().fetch_metadata(Some(&self.topic), LOOK_WITHIN).map_err(|error| error.to_string())?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == &*self.topic);
        match topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable) => {
                Ok(topic.and_then(Found::new))
            }
            Some(code) => Err(format!("topic `{}`: {code}", self.topic)),
        }
    }

    fn missing(&self) -> String {
        format!(
            "topic `{}` does not exist: create it, have it created with --kafka-create-topic, or name another with \
             --kafka-topic",
            self.topic
        )
    }

    fn failed(&self, error: &KafkaError) -> QueueError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => QueueError::TooLarge,
            Some(RDKafkaErrorCode::QueueFull) => {
                QueueError::Unavailable("too many records wait for an acknowledgement".to_owned())
            }
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition,
            ) => QueueError::Unavailable(self.missing()),
            _ => QueueError::Unavailable(error.to_string()),
        }
    }
}

#[async_trait]
impl PushQueue for KafkaQueue {
    fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Relaxed)
    }

    async fn send(&self, record: NewRecord) -> Result<(u32, u64), QueueError> {
        let mut message = FutureRecord::to(&self.topic).key(&record.key[..]).payload(&record.value[..]);
        if let Some(trace) = &record.traceparent {
            let header = Header { key: runtime::trace::HEADER, value: Some(trace) };
            message = message.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        let answer = self.producer.send_result(message).map_err(|(error, _)| self.failed(&error))?;
        match answer.await {
            Ok(Ok(delivery)) => Ok((delivery.partition as u32, delivery.offset as u64)),
            Ok(Err((error, _))) => Err(self.failed(&error)),
            Err(_) => Err(QueueError::Unavailable("the producer has ended".to_owned())),
        }
    }

    async fn flush(&self, within: Duration) {
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(within)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "records were not acknowledged in time");
        }
    }
}

#[cfg(test)]
mod tests;
