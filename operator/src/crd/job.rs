//! The pods that carry pushes from Kafka to the comets.

use k8s_openapi::api::core::v1::ResourceRequirements;
use runtime::settings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds;
use super::pods::PodDisruptionBudget;

/// The pods that carry pushes from Kafka to the comets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.consumerGroup) == has(oldSelf.consumerGroup) && (!has(self.consumerGroup) || self.consumerGroup == oldSelf.consumerGroup)",
    "message": "job.consumerGroup cannot change, pushes not yet delivered would be lost or sent again: make a new ImCluster",
}]))]
pub struct JobSpec {
    /// How many jobs there are; with `mode: PerZone` in each zone. More than the topic has partitions are idle.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// The consumer group in Kafka. Default: `<namespace>.<name>.job`. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = bounds::KAFKA_NAME))]
    pub consumer_group: Option<String>,
    /// `Global`: all jobs share one consumer group and each pushes to the comets of all zones. `PerZone`: every zone
    /// of `comet.zones` has its own jobs and consumer group (`<consumerGroup>.<zone>`), which run there and push to its
    /// comets only; the names of zones are then of lower-case letters, digits and `-`.
    pub mode: JobMode,
    /// Settings of the jobs. What is not set has job's own default. Each says whether a change restarts pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<JobConfig>,
    /// Further settings as the configuration file has them, merged over everything else. A name under
    /// `imcluster` that job does not know keeps it from starting. A change restarts the jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::free_form")]
    pub config_overrides: Option<Value>,
    /// A pod template merged into that of the jobs; containers and volumes are matched by name (job's container is
    /// `job`). Command, ports, probes, security context, selector labels and our own volumes stay as they are. A change
    /// restarts the jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::free_form")]
    pub pod_template: Option<Value>,
    /// What each job may use. A change restarts the jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::resources")]
    pub resources: Option<ResourceRequirements>,
    /// How many jobs may be evicted at a time.
    #[schemars(extend("default" = {}))]
    pub pod_disruption_budget: PodDisruptionBudget,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            replicas: 2,
            consumer_group: None,
            mode: JobMode::default(),
            config: None,
            config_overrides: None,
            pod_template: None,
            resources: None,
            pod_disruption_budget: PodDisruptionBudget::default(),
        }
    }
}

/// Which comets a job pushes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobMode {
    /// Those of all zones.
    #[default]
    Global,
    /// Those of its own zone.
    PerZone,
}

/// Settings of the jobs. What is not set has job's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobConfig {
    /// A change restarts the jobs.
    #[serde(flatten)]
    pub fixed: settings::job::Fixed,
    /// A change is taken up without a restart.
    #[serde(flatten)]
    pub live: settings::job::Live,
}
