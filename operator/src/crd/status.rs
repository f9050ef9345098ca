//! What is reported back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;

/// What is reported back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImClusterStatus {
    /// The generation of the spec that all of this was said of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Which version runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// The comets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comet: Option<CometStatus>,
    /// The logics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logic: Option<LogicStatus>,
    /// The jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// The comet that is being updated or taken away now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Where to push and to connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// What holds: `Ready`, `Progressing`, `Degraded`, `DependenciesReady`, `RouteReady`, `Draining`,
    /// `ReconciliationPaused`, `VersionSupported`, `ConfigInSync`, `NonProduction`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::conditions")]
    pub conditions: Vec<Condition>,
}

/// Which version runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionStatus {
    /// The version that all pods run; during an update the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub current: Option<String>,
    /// The version that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub target: Option<String>,
}

/// The comets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CometStatus {
    /// How many there are.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How many are ready.
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// How many have the newest revision.
    #[schemars(range(min = 0))]
    pub updated_replicas: i32,
    /// How many are moving their clients away.
    #[schemars(range(min = 0))]
    pub draining_replicas: i32,
    /// Clients connected, renewed at most once a minute and when it changed by a tenth.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub connections: Option<i64>,
    /// The labels of the comet pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// The hash of the configuration that all comets run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub current_hash: Option<String>,
    /// The hash of the configuration that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub target_hash: Option<String>,
}

/// The logics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LogicStatus {
    /// How many there are.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How many are ready.
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// How many have the newest revision.
    #[schemars(range(min = 0))]
    pub updated_replicas: i32,
}

/// The jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// How many there are.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How many are ready.
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// How many have the newest revision.
    #[schemars(range(min = 0))]
    pub updated_replicas: i32,
    /// Records of Kafka not yet delivered, renewed at most once a minute and when it changed by a tenth.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub lag: Option<i64>,
}

/// The comet that is being updated or taken away now. For people: nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// Its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,
    /// The uid of its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,
    /// What happens to it, such as `Draining`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub step: Option<String>,
    /// When the rest of its clients will be closed, or when the update counts as stalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

/// Where to push and to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// Where backends push, such as `https://im.example.com/goim/push`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub push: Option<String>,
    /// Where clients ask what to connect to, such as `https://im.example.com/goim/nodes/weighted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub nodes: Option<String>,
    /// Where clients connect, such as `wss://im.example.com/sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub websocket: Option<String>,
}
