//! Kafka and Redis for development: one pod each, nothing kept. What runs in the images is said here, so any image
//! with `java` and the jars in `/opt/kafka/libs`, or with `redis-server`, will do.

use runtime::pod::{self, Component, port_name};
use serde_json::{Value, json};

use super::meta::{Place, child_name, labels, selector, service_port};
use super::pod::{container_security, pod_security, short_hash};
use super::{Child, Facts, Stage};
use crate::validate::{Cluster, Dev};

/// Where the settings are in the pod.
const CONFIG: &str = "/config";
/// Where the data is in the pod.
const DATA: &str = "/data";
/// Any 16 bytes in base64url do: the storage must be formatted with some.
const KAFKA_ID: &str = "aW1jbHVzdGVyLWRldi0wMQ";
/// Where a Kafka's controller listens, for itself alone.
const CONTROLLER: u16 = 9093;
/// Whom `apache/kafka` runs as.
const KAFKA_USER: i64 = 1000;
/// Whom `redis` runs as.
const REDIS_USER: i64 = 999;
/// Without these a JVM takes what the node has, and writes beside its data.
const JVM: [&str; 8] = [
    "-Xms128m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MaxDirectMemorySize=128m",
    "-XX:-UsePerfData",
    "-Dlog4j2.level=WARN",
    "-Djava.io.tmpdir=/tmp",
];

pub(super) fn build(cluster: &Cluster, facts: &Facts, children: &mut Vec<Child>) {
    if let Some(dev) = &cluster.kafka.dev {
        server(Place::new(cluster, facts, Stage::Shared, Component::Kafka), &kafka(cluster, dev), children);
    }
    if let Some(dev) = &cluster.redis.dev {
        server(Place::new(cluster, facts, Stage::Shared, Component::Redis), &redis(dev), children);
    }
}

/// One of the two.
struct Server {
    port: (&'static str, u16),
    user: i64,
    file: &'static str,
    settings: String,
    containers: Value,
    init: Option<Value>,
}

/// What its pod's annotation says: a change of settings or template restarts it.
pub(super) fn restart_hash(cluster: &Cluster, component: Component) -> String {
    let hash = |server: &Server| short_hash(&[server.settings.as_bytes(), server.containers.to_string().as_bytes()]);
    let dev = match component {
        Component::Kafka => cluster.kafka.dev.as_ref().map(|dev| hash(&kafka(cluster, dev))),
        _ => cluster.redis.dev.as_ref().map(|dev| hash(&redis(dev))),
    };
    dev.unwrap_or_default()
}

fn server(place: Place<'_>, server: &Server, children: &mut Vec<Child>) {
    let Some(component) = place.component else {
        return;
    };
    let cluster = place.cluster;
    let name = child_name(cluster, component);
    let data = json!({server.file: server.settings});
    children.push(place.child("v1", "ConfigMap", &name, json!({"data": data})));
    children.push(place.child(
        "v1",
        "Service",
        &name,
        json!({"spec": {
            "type": "ClusterIP",
            "selector": selector(cluster, component),
            "ports": [service_port(server.port.0, server.port.1)],
        }}),
    ));
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 10,
        "securityContext": pod_security(server.user),
        "containers": server.containers,
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    });
    if let Some(init) = &server.init {
        spec["initContainers"] = init.clone();
    }
    let annotations = json!({pod::RESTART_ANNOTATION: restart_hash(cluster, component)});
    children.push(place.child(
        "apps/v1",
        "StatefulSet",
        &name,
        json!({"spec": {
            "serviceName": name,
            "replicas": 1,
            // In order, a pod that never gets ready would keep its successor from coming.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector(cluster, component)},
            "template": {
                "metadata": {"labels": labels(cluster, Some(component)), "annotations": annotations},
                "spec": spec,
            },
        }}),
    ));
}

/// Where its clients find it: the name that it tells them itself.
pub(super) fn address(cluster: &Cluster, component: Component, port: u16) -> String {
    format!("{}.{}.svc:{port}", child_name(cluster, component), cluster.namespace)
}

fn kafka(cluster: &Cluster, dev: &Dev) -> Server {
    let java = |class: &str, rest: &[&str]| -> Vec<String> {
        let command = ["java"].into_iter().chain(JVM).chain(["-cp", "/opt/kafka/libs/*", class]);
        command.chain(rest.iter().copied()).map(str::to_owned).collect()
    };
    let file = format!("{CONFIG}/server.properties");
    let format = java("kafka.tools.StorageTool", &["format", "--ignore-formatted", "-t", KAFKA_ID, "-c", &file]);
    let run = java("kafka.Kafka", &[&file]);
    let probe = json!({"tcpSocket": {"port": port_name::KAFKA}, "periodSeconds": 2, "timeoutSeconds": 3});
    Server {
        port: (port_name::KAFKA, pod::KAFKA),
        user: KAFKA_USER,
        file: "server.properties",
        settings: properties(&address(cluster, Component::Kafka, pod::KAFKA)),
        init: Some(json!([container("format", &format, dev)])),
        containers: serving("kafka", &run, dev, pod::KAFKA, &probe),
    }
}

fn properties(advertised: &str) -> String {
    let port = pod::KAFKA;
    [
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{CONTROLLER}"),
        format!("listeners=PLAINTEXT://:{port},CONTROLLER://127.0.0.1:{CONTROLLER}"),
        format!("advertised.listeners=PLAINTEXT://{advertised}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        "inter.broker.listener.name=PLAINTEXT".to_owned(),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        format!("log.dirs={DATA}/kafka"),
        "num.partitions=9".to_owned(),
        "default.replication.factor=1".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "offsets.topic.num.partitions=4".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "transaction.state.log.num.partitions=4".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        "auto.create.topics.enable=false".to_owned(),
        "log.segment.bytes=67108864".to_owned(),
        "log.retention.bytes=268435456".to_owned(),
        "log.cleaner.dedupe.buffer.size=16777216".to_owned(),
        "num.network.threads=2".to_owned(),
        "num.io.threads=4".to_owned(),
    ]
    .map(|line| line + "\n")
    .concat()
}

fn redis(dev: &Dev) -> Server {
    let command = ["redis-server".to_owned(), format!("{CONFIG}/redis.conf")];
    let probe = json!({"tcpSocket": {"port": port_name::REDIS}, "periodSeconds": 1, "timeoutSeconds": 3});
    let settings = [
        "bind * -::*".to_owned(),
        format!("port {}", pod::REDIS),
        "protected-mode no".to_owned(),
        "save \"\"".to_owned(),
        "appendonly no".to_owned(),
        format!("dir {DATA}"),
    ];
    Server {
        port: (port_name::REDIS, pod::REDIS),
        user: REDIS_USER,
        file: "redis.conf",
        settings: settings.map(|line| line + "\n").concat(),
        init: None,
        containers: serving("redis", &command, dev, pod::REDIS, &probe),
    }
}

fn serving(name: &str, command: &[String], dev: &Dev, port: u16, probe: &Value) -> Value {
    let mut container = container(name, command, dev);
    container["ports"] = json!([{"name": name, "containerPort": port, "protocol": "TCP"}]);
    container["readinessProbe"] = probe.clone();
    json!([container])
}

fn container(name: &str, command: &[String], dev: &Dev) -> Value {
    let mut container = json!({
        "name": name,
        "image": dev.image,
        "command": command,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG, "readOnly": true},
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    });
    if let Some(resources) = &dev.resources {
        container["resources"] = json!(resources);
    }
    container
}
