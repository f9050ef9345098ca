//! The pods that take pushes over HTTP and keep the sessions.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use runtime::settings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds;
use super::pods::PodDisruptionBudget;

/// The pods that take pushes over HTTP and keep the sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.replicas) && has(self.autoscaling))",
    "message": "logic.replicas and logic.autoscaling both set the number of pods: leave one of them out",
}]))]
pub struct LogicSpec {
    /// How many logics there are. Default: 2. Leave it out with `autoscaling`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,
    /// Let a HorizontalPodAutoscaler choose the number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How backends and clients reach logic's HTTP API through an Ingress. With it, clients reach the comets through
    /// the same host at `/sub`, unless `comet.ingress` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// The same through the Gateway API: one HTTPRoute for logic and, at `/sub`, the comets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// Regions and the provinces that belong to each: clients that a geolocation places in a province are sent to
    /// comets of its region first. A change restarts logic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub regions: Vec<Region>,
    /// Settings of the logics. What is not set has logic's own default. Each says whether a change restarts pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<LogicConfig>,
    /// Further settings as the configuration file has them, merged over everything else. A name under
    /// `imcluster` that logic does not know keeps it from starting. A change restarts logic.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::free_form")]
    pub config_overrides: Option<Value>,
    /// A pod template merged into that of the logics; containers and volumes are matched by name (logic's container is
    /// `logic`). Command, ports, probes, security context, selector labels and our own volumes stay as they are. A
    /// change restarts logic.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::free_form")]
    pub pod_template: Option<Value>,
    /// What each logic may use. `autoscaling` measures against the CPU request. A change restarts logic.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::resources")]
    pub resources: Option<ResourceRequirements>,
    /// How many logics may be evicted at a time.
    #[schemars(extend("default" = {}))]
    pub pod_disruption_budget: PodDisruptionBudget,
}

/// Bounds of a HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.min <= self.max",
    "message": "autoscaling.min is above autoscaling.max: lower min or raise max",
}]))]
pub struct Autoscaling {
    /// The fewest pods.
    #[serde(default = "fewest")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: i32,
    /// The most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
    /// How much of its CPU request a pod should use on average, in percent.
    #[serde(default = "cpu")]
    #[schemars(range(min = 1, max = 1000))]
    pub cpu: i32,
}

fn fewest() -> i32 {
    2
}

fn cpu() -> i32 {
    70
}

/// How backends and clients reach logic through an Ingress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!self.enabled || has(self.host)",
    "message": "logic.ingress has no host: set logic.ingress.host, or logic.ingress.enabled to false",
}]))]
pub struct Ingress {
    /// Make an Ingress.
    pub enabled: bool,
    /// The IngressClass. Default: the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub class_name: Option<String>,
    /// The name under which it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub host: Option<String>,
    /// The certificate for `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTls>,
    /// Annotations on it, for its controller.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounds::annotations")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self { enabled: true, class_name: None, host: None, tls: None, annotations: BTreeMap::new() }
    }
}

/// The certificate of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    /// A Secret of type `kubernetes.io/tls`.
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub secret_name: String,
}

/// An HTTPRoute of the Gateway API. Without that kind in the cluster nothing is made until it appears.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The Gateways that it attaches to.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,
    /// The names under which it is reached, such as `im.example.com` or `*.example.com`. None: all names of the
    /// Gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        ),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,
}

/// A Gateway, and which of its listeners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The name of the Gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub name: String,
    /// Its namespace. Default: that of the ImCluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = bounds::LABEL))]
    pub namespace: Option<String>,
    /// The listener of the Gateway. Default: all that take the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub section_name: Option<String>,
    /// The port of the Gateway. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// A region and its provinces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Region {
    /// As `comet.zones` names it, such as `sh`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[0-9A-Za-z]([-._0-9A-Za-z]*[0-9A-Za-z])?$"))]
    pub name: String,
    /// Its provinces as the geolocation names them, such as `上海`.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64), regex(pattern = r"^[^,=\s]+$")))]
    pub provinces: Vec<String>,
}

/// Settings of the logics. What is not set has logic's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogicConfig {
    /// A change restarts logic.
    #[serde(flatten)]
    pub fixed: settings::logic::Fixed,
    /// A change is taken up without a restart.
    #[serde(flatten)]
    pub live: settings::logic::Live,
}
