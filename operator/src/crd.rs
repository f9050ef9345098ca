//! `ImCluster`: what a user asks for and what is reported back. The comments on the fields are the manual: `kubectl
//! explain imcluster` and the reference page print them.
//!
//! What a single field or several together may be is said here too, as bounds and CEL rules, so that the API server
//! refuses at once what could never run. What it takes a cluster to know is `validate`'s.

mod auth;
mod bounds;
mod comet;
mod job;
mod kafka;
mod logic;
mod pods;
mod redis;
mod status;

use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use auth::{Auth, AuthWebhook, Claims, Jwt, Trust};
pub use comet::{
    Advertise, CometConfig, CometIngress, CometSpec, Drain, Exposure, ExposureType, Listeners, PodServiceType, Rollout,
    TcpListener, TlsListener, WebSocketListener, Zone,
};
pub use job::{JobConfig, JobMode, JobSpec};
pub use kafka::{ExternalKafka, KafkaSasl, KafkaSpec, KafkaTls, ManageTopic, SaslMechanism, Topic};
pub use logic::{Autoscaling, HttpRoute, Ingress, IngressTls, LogicConfig, LogicSpec, ParentRef, Region};
pub use pods::{DevServer, Image, NameRef, PodDisruptionBudget, PullPolicy};
pub use redis::{ExternalRedis, RedisMode, RedisSpec, RedisTls};
pub use status::{CometStatus, Endpoints, ImClusterStatus, JobStatus, LogicStatus, RolloutStatus, VersionStatus};

/// An ImCluster is one push service: comets that hold the connections of clients, logics that take pushes over HTTP,
/// and jobs that carry them from Kafka to the comets.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "imcluster.dev",
    version = "v1alpha1",
    kind = "ImCluster",
    plural = "imclusters",
    shortname = "imc",
    category = "all",
    namespaced,
    status = "ImClusterStatus",
    derive = "PartialEq",
    doc = "One push service: comets that hold the connections of clients, logics that take pushes over HTTP, and jobs that carry them from Kafka to the comets.",
    scale(
        spec_replicas_path = ".spec.comet.replicas",
        status_replicas_path = ".status.comet.replicas",
        label_selector_path = ".status.comet.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether an accepted push reaches connected clients"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version.current",
        description = "The version that all pods run"
    ),
    printcolumn(
        name = "Comets",
        type_ = "integer",
        json_path = ".status.comet.readyReplicas",
        description = "Comet pods that are ready"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".spec.comet.replicas",
        description = "Comet pods that are asked for"
    ),
    printcolumn(
        name = "Connections",
        type_ = "integer",
        json_path = ".status.comet.connections",
        description = "Clients connected now, about"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is ready or not",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40").message(
        "metadata.name is too long: use at most 40 characters, so that the names of pods and other children fit into 63"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name begins the names of Services: use lower-case letters, digits and '-', beginning with a letter, without dots"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.job.mode != 'PerZone' || (has(self.comet.zones) && self.comet.zones.size() > 0)",
        "message": "job.mode PerZone runs one job per zone: name the zones in comet.zones, or set job.mode to Global",
    },
    {
        "rule": "!has(self.comet.ingress) || !has(self.comet.ingress.enabled) || !self.comet.ingress.enabled || has(self.comet.ingress.host) || (has(self.logic.ingress) && has(self.logic.ingress.host))",
        "message": "comet.ingress has no host: set comet.ingress.host or logic.ingress.host, or comet.ingress.enabled to false",
    },
    {
        "rule": "has(self.internalTLS) == has(oldSelf.internalTLS)",
        "message": "internalTLS cannot be added or taken away, pods that have it and pods that do not could not reach each other while they are replaced: make a new ImCluster",
    },
]))]
pub struct ImClusterSpec {
    /// The version of ImCluster to run, such as `0.1.0`; it is also the tag of the image. Accepted are the patch
    /// releases of the operator's own minor version and of the one before; others show in the condition
    /// `VersionSupported` and change nothing. A change updates logic, then job, then the comets one by one.
    #[schemars(
        length(min = 5, max = 64),
        regex(pattern = r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$")
    )]
    pub version: String,
    /// Where the image comes from. Unset, it is the operator's own repository with `version` as its tag. A change
    /// restarts all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Stop changing anything: the operator goes on observing and reporting and writes nothing but the status. Pods
    /// serve on.
    #[serde(default)]
    pub paused: bool,
    /// How clients prove who they are. There is no default: say it.
    pub auth: Auth,
    /// Who may push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// Have the pods know each other by certificate and speak TLS among themselves. Unset, they speak in the clear, and
    /// only `networkPolicy` says who reaches their inner ports. It cannot be added or taken away later.
    #[serde(rename = "internalTLS", skip_serializing_if = "Option::is_none")]
    pub internal_tls: Option<InternalTls>,
    /// The Kafka that carries pushes from logic to job: `external` or `dev`.
    pub kafka: KafkaSpec,
    /// The Redis that holds the sessions: `external` or `dev`.
    pub redis: RedisSpec,
    /// The pods that hold the connections of clients.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub comet: CometSpec,
    /// The pods that take pushes over HTTP and keep the sessions.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub logic: LogicSpec,
    /// The pods that carry pushes from Kafka to the comets.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub job: JobSpec,
    /// Who may reach the pods.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub network_policy: NetworkPolicy,
    /// What monitoring systems are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
}

/// Who may push.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// A Secret with the key `tokens.toml`: the bearer tokens that may push, in the format of `--push-tokens`. Unset,
    /// the operator makes the Secret `<name>-push-token` once, with a random token in its key `token`. A change of its
    /// content is taken up without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_secret_ref: Option<NameRef>,
}

/// How the pods know each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InternalTls {
    /// A Secret with the keys `tls.crt`, `tls.key` and `ca.crt`, as cert-manager makes it: a certificate for servers and
    /// clients with the DNS name `<name>.imcluster.internal`, its key, and the authorities that such certificates are by.
    /// A change of its content is taken up without a restart; another Secret restarts all pods.
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub secret_name: String,
}

/// Who may reach the pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Make NetworkPolicies that let in only what the pods need: clients to the listeners, backends to logic's HTTP
    /// port, the pods to each other, and the operator and `monitoringNamespaces` to the admin port 3131. Traffic out
    /// of the pods is not restricted. They take effect where the cluster's network enforces NetworkPolicies.
    pub enabled: bool,
    /// Namespaces whose pods may read metrics from the admin port, such as that of Prometheus.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 63), regex(pattern = bounds::LABEL)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub monitoring_namespaces: Vec<String>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true, monitoring_namespaces: Vec::new() }
    }
}

/// What monitoring systems are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// A ServiceMonitor for the Prometheus operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_monitor: Option<ServiceMonitor>,
}

/// A ServiceMonitor for the Prometheus operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceMonitor {
    /// Make it. Without the ServiceMonitor kind in the cluster nothing is made until it appears.
    pub enabled: bool,
    /// Labels on it, such as those that the Prometheus selects by.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(schema_with = "bounds::labels")]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// The CustomResourceDefinition as YAML: what `imcluster crd` prints.
pub fn yaml() -> String {
    let mut crd = serde_json::to_value(ImCluster::crd()).expect("a CRD is maps with string keys");
    tidy(&mut crd);
    let yaml = serde_saphyr::to_string(&crd).expect("JSON is YAML");
    format!("# Made by `imcluster crd`.\n{}\n", yaml.trim_end())
}

/// Writes whole numbers without a fraction, and descriptions in one line that ends with the default.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // `kubectl explain` shows no defaults but those that are told.
            let default = fields.get("default").filter(|default| !default.is_object() && !default.is_array());
            let default = default.map(|default| format!(" Default: {}.", default.to_string().trim_matches('"')));
            if let Some(Value::String(description)) = fields.get_mut("description") {
                *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
                description.push_str(&default.unwrap_or_default());
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
            }
        }
        _ => {}
    }
}

/// The schema of an ImCluster as the API server has it.
pub(crate) fn schema() -> Value {
    let crd = ImCluster::crd();
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    serde_json::to_value(schema.and_then(|schema| schema.open_api_v3_schema.as_ref()))
        .expect("a schema is maps with string keys")
}

#[cfg(test)]
mod tests;
