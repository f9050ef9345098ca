//! The pods that hold the connections of clients.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use runtime::settings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds;
use super::logic::IngressTls;
use super::pods::PodDisruptionBudget;

/// The pods that hold the connections of clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CometSpec {
    /// How many comets there are. Fewer: they leave one at a time, each after its clients were moved away. `kubectl
    /// scale` and a HorizontalPodAutoscaler write it through the scale subresource.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// Where clients connect, in the pods and on their Services. A change restarts the comets.
    pub listeners: Listeners,
    /// How clients reach the WebSocket listener through an Ingress, at the path `/sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<CometIngress>,
    /// How clients reach the comets directly.
    pub exposure: Exposure,
    /// What clients are told to connect to when they ask `/goim/nodes/weighted`. A change restarts logic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<Advertise>,
    /// How a comet that is to go moves its clients away. A change restarts the comets.
    pub drain: Drain,
    /// How a change reaches the comets, one at a time.
    #[schemars(extend("default" = {}))]
    pub rollout: Rollout,
    /// The zones that comets run in, and where each zone lies. A comet learns its zone from the label
    /// `topology.kubernetes.io/zone` of its node. Zones that are not named have weight 10 and no region.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub zones: Vec<Zone>,
    /// Settings of the comets. What is not set has comet's own default. Each says whether a change restarts pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<CometConfig>,
    /// Further settings as the configuration file has them, merged over everything else. A name under
    /// `imcluster` that comet does not know keeps it from starting. A change restarts the comets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::free_form")]
    pub config_overrides: Option<Value>,
    /// A pod template merged into that of the comets, such as tolerations, a priority class, labels or a sidecar;
    /// containers and volumes are matched by name (the comet's container is `comet`). Command, ports, probes, security
    /// context, selector labels and our own volumes stay as they are. A change restarts the comets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::free_form")]
    pub pod_template: Option<Value>,
    /// What each comet may use. A change restarts the comets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::resources")]
    pub resources: Option<ResourceRequirements>,
    /// How many comets may be evicted at a time.
    #[schemars(extend("default" = {}))]
    pub pod_disruption_budget: PodDisruptionBudget,
}

impl Default for CometSpec {
    fn default() -> Self {
        Self {
            replicas: 2,
            listeners: Listeners::default(),
            ingress: None,
            exposure: Exposure::default(),
            advertise: None,
            drain: Drain::default(),
            rollout: Rollout::default(),
            zones: Vec::new(),
            config: None,
            config_overrides: None,
            pod_template: None,
            resources: None,
            pod_disruption_budget: PodDisruptionBudget::default(),
        }
    }
}

/// Where clients connect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.tcp.port != self.websocket.port && (!has(self.tls) || (self.tls.tcpPort != self.tls.websocketPort && self.tls.tcpPort != self.tcp.port && self.tls.tcpPort != self.websocket.port && self.tls.websocketPort != self.tcp.port && self.tls.websocketPort != self.websocket.port))",
        "message": "listeners share a port: give tcp, websocket and tls different ports",
    },
    {
        "rule": "!(self.tcp.port in [3109, 3131]) && !(self.websocket.port in [3109, 3131]) && (!has(self.tls) || (!(self.tls.tcpPort in [3109, 3131]) && !(self.tls.websocketPort in [3109, 3131])))",
        "message": "ports 3109 and 3131 are the comet's own (gRPC, admin): choose other ports for the listeners",
    },
]))]
pub struct Listeners {
    /// Clients over TCP.
    #[schemars(extend("default" = {}))]
    pub tcp: TcpListener,
    /// Clients over WebSocket, at `/sub`.
    #[schemars(extend("default" = {}))]
    pub websocket: WebSocketListener,
    /// Also listen with TLS, on ports of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsListener>,
}

/// Clients over TCP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpListener {
    /// The port, in the pods and on the Services.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
}

impl Default for TcpListener {
    fn default() -> Self {
        Self { port: 3101 }
    }
}

/// Clients over WebSocket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WebSocketListener {
    /// The port, in the pods and on the Services.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
}

impl Default for WebSocketListener {
    fn default() -> Self {
        Self { port: 3102 }
    }
}

/// Listeners with TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsListener {
    /// A Secret of type `kubernetes.io/tls` (keys `tls.crt`, `tls.key`). A change of its content is taken up without a
    /// restart.
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub secret_name: String,
    /// The port of clients over TCP with TLS.
    #[serde(default = "tcp_tls_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub tcp_port: i32,
    /// The port of clients over WebSocket with TLS.
    #[serde(default = "websocket_tls_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub websocket_port: i32,
}

fn tcp_tls_port() -> i32 {
    3104
}

fn websocket_tls_port() -> i32 {
    3103
}

/// How clients reach the WebSocket listener through an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CometIngress {
    /// Make an Ingress. Default: true when `logic.ingress` is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The IngressClass. Default: that of `logic.ingress`, or the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub class_name: Option<String>,
    /// The name clients connect to. Default: that of `logic.ingress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub host: Option<String>,
    /// The certificate for `host`. Default: that of `logic.ingress`, if the host is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTls>,
    /// Annotations on it, such as time limits of its controller: connections stay open for long. Default: those of
    /// `logic.ingress`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounds::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// How clients reach the comets directly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.type == 'PerPod' || !has(self.serviceType)",
        "message": "exposure.serviceType is that of each pod's Service: leave it out, or set exposure.type to PerPod",
    },
    {
        "rule": "has(self.hostDomain) == has(oldSelf.hostDomain) && (!has(self.hostDomain) || self.hostDomain == oldSelf.hostDomain)",
        "message": "exposure.hostDomain cannot change, clients have names under it: make a new ImCluster",
    },
]))]
pub struct Exposure {
    /// `ClusterIP`, `LoadBalancer` and `NodePort` make one Service of that type for all comets; `PerPod` makes one for
    /// each comet and tells clients its name.
    pub r#type: ExposureType,
    /// With `PerPod`: the type of each pod's Service. Default: `LoadBalancer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_type: Option<PodServiceType>,
    /// What follows a comet's name in the names that clients are told, such as `.im.example.com`. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 190), regex(pattern = r"^(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$"))]
    pub host_domain: Option<String>,
}

/// How clients reach the comets directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposureType {
    /// One Service, inside the cluster.
    #[default]
    ClusterIP,
    /// One Service with a load balancer.
    LoadBalancer,
    /// One Service with a port on every node.
    NodePort,
    /// One Service for each comet.
    PerPod,
}

/// The type of the Service of each comet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = bounds::described_by_its_field)]
pub enum PodServiceType {
    /// Inside the cluster.
    ClusterIP,
    /// With a load balancer.
    #[default]
    LoadBalancer,
    /// With a port on every node.
    NodePort,
}

/// What clients are told to connect to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advertise {
    /// The name that clients are told, and their only node while no comet is known. Default: the host of the comets'
    /// Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = bounds::SUBDOMAIN))]
    pub host: Option<String>,
    /// The port for TCP; 0 tells none. Default: the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub tcp_port: Option<i32>,
    /// The port for WebSocket; 0 tells none. Default: the listener's, or 80 behind an Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub ws_port: Option<i32>,
    /// The port for WebSocket over TLS; 0 tells none. Default: 443 behind an Ingress with TLS, else the listener's if
    /// there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub wss_port: Option<i32>,
}

/// How a comet that is to go moves its clients away: when it is updated, scaled in or evicted. The pods' grace period
/// is `delaySeconds + maxSeconds + flushSeconds + 10`; the Cluster Autoscaler honours at most 600 seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minSeconds <= self.maxSeconds",
    "message": "drain.minSeconds is above drain.maxSeconds: lower minSeconds or raise maxSeconds",
}]))]
pub struct Drain {
    /// Seconds to go on accepting while load balancers and node lists forget the comet.
    #[schemars(range(min = 0, max = 600))]
    pub delay_seconds: i32,
    /// The least time, in seconds, over which clients are moved, however few.
    #[schemars(range(min = 0, max = 3600))]
    pub min_seconds: i32,
    /// The most time, in seconds, over which clients are moved, even if that exceeds the rate.
    #[schemars(range(min = 1, max = 3600))]
    pub max_seconds: i32,
    /// How many clients are moved per second at most.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rate_per_second: i32,
    /// Seconds in which pushes may still arrive after the last client left.
    #[schemars(range(min = 0, max = 600))]
    pub flush_seconds: i32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay_seconds: 10, min_seconds: 30, max_seconds: 300, max_rate_per_second: 1000, flush_seconds: 15 }
    }
}

/// How a change reaches the comets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Seconds that a new pod must be ready before it counts.
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: i32,
    /// Seconds between a comet that was updated and the next.
    #[schemars(range(min = 0, max = 86400))]
    pub pause_seconds: i32,
    /// Comets whose number is below this keep the old revision: with 4 comets, 3 makes a canary of the last one. 0
    /// updates all.
    #[schemars(range(min = 0, max = 1000))]
    pub partition: i32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { min_ready_seconds: 10, pause_seconds: 30, partition: 0 }
    }
}

/// A zone that comets run in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// As the label `topology.kubernetes.io/zone` of its nodes says.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[0-9A-Za-z]([-._0-9A-Za-z]*[0-9A-Za-z])?$"))]
    pub name: String,
    /// The region that the zone is in; clients of the same region are sent here first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[0-9A-Za-z]([-._0-9A-Za-z]*[0-9A-Za-z])?$"))]
    pub region: Option<String>,
    /// The share of new clients that each comet of this zone gets, against the weights of others.
    #[serde(default = "zone_weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: i32,
}

fn zone_weight() -> i32 {
    10
}

/// Settings of the comets. What is not set has the comet's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CometConfig {
    /// A change restarts the comets.
    #[serde(flatten)]
    pub fixed: settings::comet::Fixed,
    /// A change is taken up without a restart.
    #[serde(flatten)]
    pub live: settings::comet::Live,
}
