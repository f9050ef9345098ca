//! A pod of ours as both sides know it: the operator writes these names, numbers and files, the services read them.
//!
//! Nothing here does anything; what two crates must agree on stands here once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Environment variable that holds the pod's name (downward API).
pub const POD_NAME: &str = "POD_NAME";
/// Environment variable that holds the pod's UID (downward API).
pub const POD_UID: &str = "POD_UID";
/// Environment variable that holds the pod's namespace (downward API).
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// Environment variable that holds the pod's address (downward API).
pub const POD_IP: &str = "POD_IP";
/// Environment variable that holds the name of the pod's node (downward API).
pub const NODE_NAME: &str = "NODE_NAME";
/// Each variable and the field of the pod it comes from.
pub const ENV: [(&str, &str); 5] = [
    (POD_NAME, "metadata.name"),
    (POD_UID, "metadata.uid"),
    (POD_NAMESPACE, "metadata.namespace"),
    (POD_IP, "status.podIP"),
    (NODE_NAME, "spec.nodeName"),
];

/// Clients over TCP, at comet.
pub const TCP: u16 = 3101;
/// Clients over WebSocket, at comet.
pub const WEBSOCKET: u16 = 3102;
/// Clients over WebSocket with TLS, at comet.
pub const WEBSOCKET_TLS: u16 = 3103;
/// Clients over TCP with TLS, at comet.
pub const TCP_TLS: u16 = 3104;
/// comet's gRPC, for job and logic.
pub const COMET_GRPC: u16 = 3109;
/// logic's HTTP API, for backends and clients.
pub const LOGIC_HTTP: u16 = 3111;
/// logic's gRPC, for comet and job.
pub const LOGIC_GRPC: u16 = 3119;
/// The admin port of every process: GET only.
pub const ADMIN: u16 = 3131;
/// A development Kafka's plain port.
pub const KAFKA: u16 = 9092;
/// A development Redis.
pub const REDIS: u16 = 6379;

/// The name of a port in containers and Services.
pub mod port_name {
    /// [`super::TCP`].
    pub const TCP: &str = "tcp";
    /// [`super::WEBSOCKET`].
    pub const WEBSOCKET: &str = "ws";
    /// [`super::WEBSOCKET_TLS`].
    pub const WEBSOCKET_TLS: &str = "wss";
    /// [`super::TCP_TLS`].
    pub const TCP_TLS: &str = "tcps";
    /// [`super::COMET_GRPC`] and [`super::LOGIC_GRPC`]; discovery looks for it by this name.
    pub const GRPC: &str = "grpc";
    /// [`super::LOGIC_HTTP`].
    pub const HTTP: &str = "http";
    /// [`super::ADMIN`].
    pub const ADMIN: &str = "admin";
    /// [`super::KAFKA`].
    pub const KAFKA: &str = "kafka";
    /// [`super::REDIS`].
    pub const REDIS: &str = "redis";
}

/// Asked by the kubelet: does the process turn?
pub const LIVE_PATH: &str = "/live";
/// Asked by the kubelet: may it be sent work?
pub const READY_PATH: &str = "/ready";
/// Asked by Prometheus.
pub const METRICS_PATH: &str = "/metrics";
/// Asked by the operator.
pub const STATUS_PATH: &str = "/status";
/// Where clients upgrade to WebSocket.
pub const WEBSOCKET_PATH: &str = "/sub";

/// Where the immutable ConfigMap is: `<component>.toml`.
pub const CONFIG_DIR: &str = "/etc/imcluster/config";
/// Where the ConfigMap of reloadable settings is: [`LIVE_FILE`].
pub const LIVE_DIR: &str = "/etc/imcluster/live";
/// Where the pod sees itself (downward API): [`ANNOTATIONS_FILE`], [`LABELS_FILE`].
pub const POD_DIR: &str = "/etc/imcluster/pod";
/// Where logic finds the topology: [`TOPOLOGY_FILE`].
pub const TOPOLOGY_DIR: &str = "/etc/imcluster/topology";
/// Where Secrets are, each in a folder of its own.
pub const SECRETS_DIR: &str = "/etc/imcluster/secrets";
/// The reloadable settings, in [`LIVE_DIR`].
pub const LIVE_FILE: &str = "live.toml";
/// The pod's annotations, one `key="value"` a line, in [`POD_DIR`].
pub const ANNOTATIONS_FILE: &str = "annotations";
/// The pod's labels, one `key="value"` a line, in [`POD_DIR`].
pub const LABELS_FILE: &str = "labels";
/// Zone → region and weight, and the servers that run the newest revision, in [`TOPOLOGY_DIR`].
pub const TOPOLOGY_FILE: &str = "topology.toml";
/// The push tokens as hashes, under [`SECRETS_DIR`]`/push` and in the Secret beside [`TOKEN_KEY`].
pub const TOKENS_FILE: &str = "tokens.toml";
/// The push token in clear, in its Secret: for the user, never mounted.
pub const TOKEN_KEY: &str = "token";

/// On a comet pod: a number that is raised while the pod is to drain. See [`DRAIN_LEASE`].
pub const DRAIN_ANNOTATION: &str = "imcluster.dev/drain";
/// On any pod: the hash of the live settings it should have read. See [`live_hash`].
pub const CONFIG_ANNOTATION: &str = "imcluster.dev/config";
/// In a pod template: the hash of everything whose change restarts the pod.
pub const RESTART_ANNOTATION: &str = "imcluster.dev/restart";
/// comet drains while [`DRAIN_ANNOTATION`] changed within this time by its own clock, else it serves again.
pub const DRAIN_LEASE: Duration = Duration::from_secs(60);
/// How often the operator raises [`DRAIN_ANNOTATION`].
pub const DRAIN_RENEW: Duration = Duration::from_secs(20);

/// The folder of one Secret, such as `kafka-sasl`.
pub fn secret_dir(what: &str) -> String {
    format!("{SECRETS_DIR}/{what}")
}

/// A comet's server id in Kubernetes: `<pod name>.<first 8 of the pod's UID>`, so that a pod that comes back under its
/// old name inherits nobody's sessions.
pub fn server_id(pod_name: &str, pod_uid: &str) -> String {
    let short: String = pod_uid.chars().take(8).collect();
    format!("{pod_name}.{short}")
}

/// What names a file's content: the first 10 hex digits of its SHA-256. Pods report it for [`LIVE_FILE`].
pub fn live_hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// What logic reads in [`TOPOLOGY_FILE`]; read again when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topology {
    /// Servers that run the newest revision while a roll goes on: told to clients first. Empty otherwise.
    pub updated: Vec<String>,
    /// Zone, as nodes are labelled with it → what comets there are to clients.
    pub zones: BTreeMap<String, Zone>,
}

/// One zone of a [`Topology`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its region; clients of the same region are sent there first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The share of new clients of each comet there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
}

/// Who runs in a pod of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Holds the connections.
    Comet,
    /// Decides who gets a push.
    Logic,
    /// Carries pushes to comets.
    Job,
    /// A Kafka for development.
    Kafka,
    /// A Redis for development.
    Redis,
}

impl Component {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Comet, Self::Logic, Self::Job, Self::Kafka, Self::Redis];
    /// Those that are a sub-command of ours.
    pub const SERVICES: [Self; 3] = [Self::Comet, Self::Logic, Self::Job];

    /// As in names, labels and sub-commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Comet => "comet",
            Self::Logic => "logic",
            Self::Job => "job",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
        }
    }

    /// `<cluster>-<component>`, the name of its main objects.
    pub fn of(self, cluster: &str) -> String {
        format!("{cluster}-{}", self.name())
    }

    /// The file with its settings, in [`CONFIG_DIR`].
    pub fn config_file(self) -> String {
        format!("{}.toml", self.name())
    }
}

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Anybody, also from outside the cluster.
    Anyone,
    /// Pods of this component of the same cluster.
    Pods(Component),
    /// Pods in the operator's namespace.
    Operator,
    /// Pods in the namespaces that watch it (`networkPolicy.monitoringNamespaces`).
    Monitoring,
}

/// One line of the flow table: who may reach which port of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Whose port it is.
    pub to: Component,
    /// The port's name in the pod.
    pub name: &'static str,
    /// Its number, unless the cluster's listeners say another.
    pub port: u16,
    /// Who may open it; nobody else.
    pub from: &'static [Origin],
}

const ANYONE: &[Origin] = &[Origin::Anyone];
const WATCHERS: &[Origin] = &[Origin::Operator, Origin::Monitoring];

/// Every connection that a cluster needs from pod to pod or from outside. What is not in it is not let through. The
/// kubelet's probes come from the node and need no line.
pub const FLOWS: &[Flow] = &[
    Flow { to: Component::Comet, name: port_name::TCP, port: TCP, from: ANYONE },
    Flow { to: Component::Comet, name: port_name::WEBSOCKET, port: WEBSOCKET, from: ANYONE },
    Flow { to: Component::Comet, name: port_name::WEBSOCKET_TLS, port: WEBSOCKET_TLS, from: ANYONE },
    Flow { to: Component::Comet, name: port_name::TCP_TLS, port: TCP_TLS, from: ANYONE },
    Flow {
        to: Component::Comet,
        name: port_name::GRPC,
        port: COMET_GRPC,
        from: &[Origin::Pods(Component::Job), Origin::Pods(Component::Logic)],
    },
    Flow { to: Component::Comet, name: port_name::ADMIN, port: ADMIN, from: WATCHERS },
    Flow { to: Component::Logic, name: port_name::HTTP, port: LOGIC_HTTP, from: ANYONE },
    Flow {
        to: Component::Logic,
        name: port_name::GRPC,
        port: LOGIC_GRPC,
        from: &[Origin::Pods(Component::Comet), Origin::Pods(Component::Job)],
    },
    Flow { to: Component::Logic, name: port_name::ADMIN, port: ADMIN, from: WATCHERS },
    Flow { to: Component::Job, name: port_name::ADMIN, port: ADMIN, from: WATCHERS },
    Flow {
        to: Component::Kafka,
        name: port_name::KAFKA,
        port: KAFKA,
        from: &[Origin::Pods(Component::Logic), Origin::Pods(Component::Job)],
    },
    Flow { to: Component::Redis, name: port_name::REDIS, port: REDIS, from: &[Origin::Pods(Component::Logic)] },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_id_is_the_pods_name_and_the_start_of_its_uid() {
        assert_eq!(server_id("prod-comet-0", "1f0c2d3e-aaaa-bbbb-cccc-000000000000"), "prod-comet-0.1f0c2d3e");
        assert_eq!(server_id("prod-comet-0", "short"), "prod-comet-0.short");
    }

    #[test]
    fn a_live_hash_is_what_sha256sum_begins_with() {
        assert_eq!(live_hash(b""), "e3b0c44298");
        assert_eq!(live_hash(b"test"), "9f86d08188");
    }

    #[test]
    fn a_topology_is_read_as_it_was_written() {
        let zone = Zone { region: Some("bj".into()), weight: Some(10) };
        let topology = Topology { updated: vec!["prod-comet-1.1f0c2d3e".into()], zones: [("a".into(), zone)].into() };
        let text = toml::to_string(&topology).unwrap();
        assert_eq!(text, "updated = [\"prod-comet-1.1f0c2d3e\"]\n\n[zones.a]\nregion = \"bj\"\nweight = 10\n");
        assert_eq!(toml::from_str::<Topology>(&text).unwrap(), topology);
        assert_eq!(toml::from_str::<Topology>("").unwrap(), Topology::default());
    }

    #[test]
    fn no_port_of_a_component_stands_in_the_table_twice() {
        for (at, flow) in FLOWS.iter().enumerate() {
            let again = FLOWS[..at].iter().any(|other| (other.to, other.port) == (flow.to, flow.port));
            assert!(!again && !flow.from.is_empty(), "{flow:?}");
        }
    }
}
