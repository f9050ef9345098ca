//! The topic as it should be: made when it is missing, if we are told to, and compared with what is there. A topic that
//! is other than expected is used all the same: what is in it was accepted.

use std::time::Duration;

use proto::kafka::KafkaConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::KafkaQueueError;

/// How long Kafka may take to make it.
const WITHIN: Duration = Duration::from_secs(10);
/// As many partitions as goim's deployment suggests.
const PARTITIONS: u16 = 9;

/// How the topic should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct TopicConfig {
    /// Create the topic when it is missing. Needs the right to, and several logics may do it at once.
    #[arg(long = "kafka-create-topic", env = "IMCLUSTER_KAFKA_CREATE_TOPIC")]
    pub kafka_create_topic: bool,
    /// How many partitions the topic should have; one that has others is used, and named in /status. A topic that is
    /// created has 9 when this is not said.
    #[arg(long = "kafka-partitions", value_name = "COUNT", env = "IMCLUSTER_KAFKA_PARTITIONS", value_parser = clap::value_parser!(u16).range(1..))]
    pub kafka_partitions: Option<u16>,
    /// How many replicas of each partition there should be, alike. A topic that is created has the brokers' default
    /// when this is not said.
    #[arg(long = "kafka-replication", value_name = "COUNT", env = "IMCLUSTER_KAFKA_REPLICATION", value_parser = clap::value_parser!(u16).range(1..))]
    pub kafka_replication: Option<u16>,
}

/// A topic as Kafka has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its partitions.
    pub(super) partitions: u32,
    /// The replicas of the partition that has the fewest.
    pub(super) replicas: u32,
}

impl Found {
    /// What metadata says; `None` for a topic that is not there.
    pub(super) fn new(topic: &MetadataTopic) -> Option<Self> {
        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len() as u32).min()?;
        Some(Self { partitions: topic.partitions().len() as u32, replicas })
    }
}

impl TopicConfig {
    /// What is other than it should be, and what to do about it.
    pub(super) fn mismatch(&self, name: &str, found: Found) -> Option<String> {
        let other = |what, has: u32, wanted: Option<u16>| {
            let wanted = u32::from(wanted?);
            (has != wanted).then(|| format!("{has} {what}, not {wanted}"))
        };
        let partitions = other("partitions", found.partitions, self.kafka_partitions);
        let replicas = other("replicas", found.replicas, self.kafka_replication);
        let wrong: Vec<String> = partitions.into_iter().chain(replicas).collect();
        (!wrong.is_empty()).then(|| {
            let wrong = wrong.join(" and ");
            format!("topic `{name}` has {wrong}: change the topic, or what is expected of it")
        })
    }

    /// Makes the topic. One that somebody else has just made is as good.
    pub(super) async fn create(&self, name: &str, admin: &AdminClient<DefaultClientContext>) -> Result<(), String> {
        let partitions = i32::from(self.kafka_partitions.unwrap_or(PARTITIONS));
        let replication = TopicReplication::Fixed(self.kafka_replication.map_or(-1, i32::from));
        let topic = NewTopic::new(name, partitions, replication);
        let options = AdminOptions::new().operation_timeout(Some(WITHIN)).request_timeout(Some(WITHIN));
        let failed = |why: String| format!("topic `{name}` does not exist and cannot be created: {why}");
        let made = admin.create_topics([&topic], &options).await.map_err(|error| failed(error.to_string()))?;
        match made.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => Ok(()),
            Some(Err((_, code))) => Err(failed(code.to_string())),
            Some(Ok(_)) => {
                tracing::info!(topic = name, partitions, replication = self.kafka_replication, "topic created");
                Ok(())
            }
        }
    }
}

/// A client that may make topics.
pub(super) fn admin(config: &KafkaConfig) -> Result<AdminClient<DefaultClientContext>, KafkaQueueError> {
    let mut client = ClientConfig::new();
    for (key, value) in config.properties()? {
        client.set(key, value);
    }
    // What goes wrong is answered to who asks.
    client.set_log_level(RDKafkaLogLevel::Emerg);
    Ok(client.create()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_compared_with_what_was_said_and_nothing_else() {
        let found = Found { partitions: 3, replicas: 1 };
        assert_eq!(TopicConfig::default().mismatch("t", found), None);
        let expected = |partitions, replicas| TopicConfig {
            kafka_create_topic: true,
            kafka_partitions: partitions,
            kafka_replication: replicas,
        };
        assert_eq!(expected(Some(3), Some(1)).mismatch("t", found), None);
        for (config, has) in [
            (expected(Some(9), None), "3 partitions, not 9"),
            (expected(Some(3), Some(3)), "1 replicas, not 3"),
            (expected(Some(9), Some(3)), "3 partitions, not 9 and 1 replicas, not 3"),
        ] {
            let text = format!("topic `t` has {has}: change the topic, or what is expected of it");
            assert_eq!(config.mismatch("t", found), Some(text));
        }
    }
}
