//! The Kafka between logic and job.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;
use super::pods::{DevServer, NameRef};

/// The Kafka that carries pushes from logic to job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.external) != has(self.dev)",
        "message": "kafka needs exactly one of external and dev: set kafka.external to use your Kafka, or kafka.dev to {} to try things out",
    },
    {
        "rule": "has(self.dev) == has(oldSelf.dev)",
        "message": "kafka.external and kafka.dev cannot replace each other, pushes not yet delivered would be lost: make a new ImCluster",
    },
    {
        "rule": "!has(self.dev) || !has(self.topic.replicationFactor) || self.topic.replicationFactor == 1",
        "message": "kafka.dev is a single broker: leave kafka.topic.replicationFactor out, or set it to 1",
    },
]))]
pub struct KafkaSpec {
    /// A Kafka that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalKafka>,
    /// A single Kafka server run beside the pods, for trying things out: a restart loses what is not delivered. Shown
    /// by the condition `NonProduction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<DevServer>,
    /// The topic of pushes.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub topic: Topic,
}

/// A Kafka that is there already.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalKafka {
    /// Brokers to ask first, as `host:port`; the others are learnt from them. A change restarts logic and job.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 3, max = 261), regex(pattern = bounds::ADDRESS)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub bootstrap_servers: Vec<String>,
    /// Speak TLS to the brokers; `{}` trusts the certificate authorities of the image. A change restarts logic and job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// Log in to the brokers. A change restarts logic and job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
}

/// TLS to the brokers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTls {
    /// A Secret with the key `ca.crt`: the certificate authorities (PEM) that brokers are checked against. Unset, those
    /// of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<NameRef>,
    /// A Secret of type `kubernetes.io/tls` (keys `tls.crt`, `tls.key`), for brokers that want a certificate of their
    /// clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<NameRef>,
}

/// How to log in to the brokers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaSasl {
    /// The mechanism. `PLAIN` sends the password as it is: use TLS with it.
    pub mechanism: SaslMechanism,
    /// A Secret with the keys `username` and `password`. Read when a logic or job starts.
    pub secret_ref: NameRef,
}

/// A mechanism of SASL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// The password itself.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof of the password, by SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof of the password, by SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// The topic of pushes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
    "message": "kafka.topic.name cannot change, pushes not yet delivered would be lost: make a new ImCluster",
}]))]
pub struct Topic {
    /// Its name. Default: `<namespace>.<name>.push`. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = bounds::KAFKA_NAME))]
    pub name: Option<String>,
    /// How many partitions it has when it is made. More let more jobs share the work. A topic with another number is
    /// reported as `TopicMismatch`, never changed.
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: i32,
    /// On how many brokers each partition is kept when it is made. Default: 3, or 1 with `kafka.dev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub replication_factor: Option<i32>,
    /// Who makes the topic: logic when it is missing, or nobody here.
    pub manage: ManageTopic,
}

impl Default for Topic {
    fn default() -> Self {
        Self { name: None, partitions: 9, replication_factor: None, manage: ManageTopic::default() }
    }
}

/// Who makes the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManageTopic {
    /// Nobody here: it must exist.
    None,
    /// logic, when it does not exist.
    #[default]
    CreateIfMissing,
}
