//! A cluster as it is to be, nothing left to decide: what [`validate`](super::validate) makes of a spec.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::pod::{Component, Topology};

use crate::crd::{AuthWebhook, Jwt};

/// One cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The ImCluster's name; every child's begins with it.
    pub name: String,
    /// Where it and its children are.
    pub namespace: String,
    /// Whether the operator only looks on.
    pub paused: bool,
    /// The version of our program in its pods.
    pub version: String,
    /// What our pods run.
    pub image: Image,
    /// How clients prove who they are.
    pub auth: Auth,
    /// The Secret of those who may push.
    pub push_token: PushToken,
    /// The Secret by which our pods know each other; `None` = they speak in the clear.
    pub internal_tls: Option<String>,
    /// Where push records are.
    pub kafka: Kafka,
    /// Where sessions are.
    pub redis: Redis,
    /// Who holds the connections.
    pub comet: Comet,
    /// Who decides who gets a push.
    pub logic: Logic,
    /// Who carries pushes to comets.
    pub job: Job,
    /// Namespaces that may reach the admin ports; `None` = no NetworkPolicies.
    pub network_policy: Option<Vec<String>>,
    /// Labels of the ServiceMonitor; `None` = no ServiceMonitor.
    pub service_monitor: Option<BTreeMap<String, String>>,
}

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// They are believed.
    Trust,
    /// By a token, signed with a key from there.
    Jwt(KeysOf, Box<Jwt>),
    /// By what a backend says.
    Webhook(AuthWebhook),
}

/// Where the keys of tokens are.
#[derive(Clone, Debug, PartialEq)]
pub enum KeysOf {
    /// The Secret with `secret`.
    Secret(String),
    /// The Secret with `keys`.
    Keys(String),
    /// A JWKS there.
    Url(String),
}

/// What our pods run.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// `repository:version` or `repository@digest`.
    pub reference: String,
    /// `Always`, `IfNotPresent` or `Never`; `None` = Kubernetes decides by the tag.
    pub pull_policy: Option<String>,
    /// Secrets to pull with.
    pub pull_secrets: Vec<String>,
}

/// The Secret of those who may push.
#[derive(Clone, Debug, PartialEq)]
pub struct PushToken {
    /// Its name.
    pub secret: String,
    /// Whether the operator makes it, once.
    pub is_ours: bool,
}

/// Where push records are.
#[derive(Clone, Debug, PartialEq)]
pub struct Kafka {
    /// Brokers to ask first.
    pub brokers: Vec<String>,
    /// `Some` = we run it.
    pub dev: Option<Dev>,
    /// `Some` = over TLS.
    pub tls: Option<ClientTls>,
    /// `Some` = log in.
    pub sasl: Option<Sasl>,
    /// The topic of push records.
    pub topic: Topic,
}

/// A dependency that the operator runs, for development.
#[derive(Clone, Debug, PartialEq)]
pub struct Dev {
    /// What it runs.
    pub image: String,
    /// What it gets.
    pub resources: Option<ResourceRequirements>,
}

/// How to speak TLS to a dependency.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTls {
    /// Secret with `ca.crt`; `None` = the authorities in our image.
    pub ca: Option<String>,
    /// Secret with `tls.crt` and `tls.key`, for servers that want to know us by certificate.
    pub certificate: Option<String>,
}

/// How to log in to Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct Sasl {
    /// As Kafka spells it.
    pub mechanism: String,
    /// Secret with `username` and `password`.
    pub secret: String,
}

/// The topic of push records.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has or gets.
    pub partitions: i32,
    /// How many copies of each it gets.
    pub replication: i32,
    /// Whether logic makes it when it is missing.
    pub create: bool,
}

/// Where sessions are.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// Servers, Sentinels or nodes to ask first.
    pub addresses: Vec<String>,
    /// `Some` = we run it.
    pub dev: Option<Dev>,
    /// Whether the addresses are a Redis Cluster's.
    pub is_cluster: bool,
    /// The primary's name, when the addresses are Sentinels.
    pub sentinel_master: Option<String>,
    /// The database.
    pub database: Option<i32>,
    /// `Some` = over TLS.
    pub tls: Option<ClientTls>,
    /// Secret with `username` and `password`.
    pub credentials: Option<String>,
    /// The same for the Sentinels.
    pub sentinel_credentials: Option<String>,
    /// Put before every key.
    pub prefix: String,
}

/// What every one of our three workloads has.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Which.
    pub component: Component,
    /// How many pods.
    pub replicas: i32,
    /// What each gets.
    pub resources: Option<ResourceRequirements>,
    /// `maxUnavailable` of its PodDisruptionBudget; `None` = no budget.
    pub budget: Option<IntOrString>,
    /// What the user lays over the pods.
    pub template: PodTemplateSpec,
    /// The settings a process reads once, as they stand in its file.
    pub fixed: toml::Table,
    /// The settings it reads again, as they stand in the live file.
    pub live: toml::Table,
    /// How long the kubelet waits for it to end.
    pub grace_seconds: i64,
}

/// Who holds the connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Comet {
    /// Its pods.
    pub workload: Workload,
    /// Where clients connect over TCP.
    pub tcp_port: u16,
    /// Where clients connect over WebSocket.
    pub websocket_port: u16,
    /// TLS for clients.
    pub tls: Option<ListenerTls>,
    /// How clients from outside get to it.
    pub exposure: Exposure,
    /// `Some` = an Ingress leads to the WebSocket; the same as logic's = one Ingress for both.
    pub ingress: Option<Ingress>,
    /// How it is rolled.
    pub rollout: Rollout,
    /// How many connections each of its pods takes; `None` = as many as come.
    pub max_connections: Option<i64>,
    /// Region and weight of each zone.
    pub topology: Topology,
}

/// TLS for clients, on ports of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// Secret with `tls.crt` and `tls.key`.
    pub secret: String,
    /// Where clients connect over TCP with TLS.
    pub tcp_port: u16,
    /// Where clients connect over WebSocket with TLS.
    pub websocket_port: u16,
}

/// How clients from outside get to comets.
#[derive(Clone, Debug, PartialEq)]
pub enum Exposure {
    /// One Service for all, of this type.
    Shared(ServiceType),
    /// One Service of this type for each pod.
    PerPod {
        /// Of each.
        service: ServiceType,
        /// What follows the pod's name in its public name, such as `.im.example.com`.
        domain: Option<String>,
    },
}

/// A Service's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Inside the cluster only.
    ClusterIp,
    /// On a port of each node.
    NodePort,
    /// With a load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// As Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// How comets are rolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// How long a pod is Ready before it counts.
    pub min_ready_seconds: i32,
    /// How long to wait after each pod.
    pub pause_seconds: i32,
    /// Ordinals below it keep the old revision.
    pub partition: i32,
}

/// Who decides who gets a push.
#[derive(Clone, Debug, PartialEq)]
pub struct Logic {
    /// Its pods.
    pub workload: Workload,
    /// `Some` = a HorizontalPodAutoscaler says how many.
    pub autoscaling: Option<Autoscaling>,
    /// `Some` = an Ingress.
    pub ingress: Option<Ingress>,
    /// `Some` = an HTTPRoute.
    pub http_route: Option<HttpRoute>,
}

/// Between how many pods an autoscaler chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoscaling {
    /// The fewest.
    pub min: i32,
    /// The most.
    pub max: i32,
    /// The processor use to keep, in percent of the request.
    pub cpu: i32,
}

/// An Ingress.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// `None` = the cluster's default class.
    pub class: Option<String>,
    /// The host name.
    pub host: String,
    /// Secret with its certificate.
    pub tls_secret: Option<String>,
    /// What the controller is told besides.
    pub annotations: BTreeMap<String, String>,
}

/// An HTTPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// The Gateways, as `spec.parentRefs` takes them.
    pub parents: Vec<serde_json::Value>,
    /// The host names.
    pub hostnames: Vec<String>,
}

/// Who carries pushes to comets.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its pods; of each zone's Deployment when there are several.
    pub workload: Workload,
    /// The consumer group, or how each zone's begins.
    pub group: String,
    /// Zones with a Deployment and a group of their own; empty = one for all.
    pub zones: Vec<String>,
}

impl Cluster {
    /// The pods of one of our three services.
    ///
    /// # Panics
    /// For a component that is no service of ours.
    pub fn workload(&self, component: Component) -> &Workload {
        match component {
            Component::Comet => &self.comet.workload,
            Component::Logic => &self.logic.workload,
            Component::Job => &self.job.workload,
            Component::Kafka | Component::Redis => panic!("{} is no service of ours", component.name()),
        }
    }

    /// Whether an Ingress or an HTTPRoute leads to the comets' WebSocket.
    pub fn is_routed(&self) -> bool {
        self.comet.ingress.is_some() || self.logic.http_route.is_some()
    }

    /// Whether a part of it is made for development only.
    pub fn is_for_development(&self) -> bool {
        self.kafka.dev.is_some() || self.redis.dev.is_some()
    }
}
