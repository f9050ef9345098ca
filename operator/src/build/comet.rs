//! comet: a StatefulSet, the headless Service that discovery reads, the Services that clients use.

use runtime::pod::{self, Component, port_name};
use serde_json::{Value, json};

use super::meta::{Place, child_name, selector, service_port};
use super::pod::{Mount, Shape, template};
use super::{Child, Facts, Stage, shared};
use crate::validate::{CLIENT_TLS, Cluster, Exposure, ServiceType};

pub(super) fn build(cluster: &Cluster, facts: &Facts, children: &mut Vec<Child>) {
    let place = Place::new(cluster, facts, Stage::Shared, Component::Comet);
    children.push(headless(place));
    children.extend(public(place));
    let workload = Place { stage: Stage::Comet, ..place };
    children.push(stateful_set(workload));
}

/// No `replicas`: they are written when it is made, and by `/scale` after that.
fn stateful_set(place: Place<'_>) -> Child {
    let cluster = place.cluster;
    let name = child_name(cluster, Component::Comet);
    place.child(
        "apps/v1",
        "StatefulSet",
        &name,
        json!({"spec": {
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": place.facts.comet_partition}},
            "minReadySeconds": cluster.comet.rollout.min_ready_seconds,
            "selector": {"matchLabels": selector(cluster, Component::Comet)},
            "template": template(cluster, &shape(cluster)),
        }}),
    )
}

pub(super) fn shape(cluster: &Cluster) -> Shape<'_> {
    let comet = &cluster.comet;
    let mut ports = client_ports(cluster);
    ports.push((port_name::GRPC, pod::COMET_GRPC));
    let env = match &comet.exposure {
        // The kubelet fills the name in: every pod tells its own address.
        Exposure::PerPod { domain: Some(domain), .. } => {
            vec![json!({"name": "ADDRS", "value": format!("$({}){domain}", pod::POD_NAME)})]
        }
        Exposure::PerPod { domain: None, .. } | Exposure::Shared(_) => Vec::new(),
    };
    let tls = comet.tls.iter().map(|tls| Mount::secret(CLIENT_TLS, &tls.secret, &["tls.crt", "tls.key"]));
    let mounts = tls.chain(shared::internal_tls_secret(cluster)).collect();
    Shape { workload: &comet.workload, ports, env, mounts, has_token: false }
}

/// The ports that clients use, by name.
pub(super) fn client_ports(cluster: &Cluster) -> Vec<(&'static str, u16)> {
    let comet = &cluster.comet;
    let mut ports = vec![(port_name::TCP, comet.tcp_port), (port_name::WEBSOCKET, comet.websocket_port)];
    if let Some(tls) = &comet.tls {
        ports.extend([(port_name::WEBSOCKET_TLS, tls.websocket_port), (port_name::TCP_TLS, tls.tcp_port)]);
    }
    ports
}

/// The Service for all comets, which Ingress and HTTPRoute use too.
pub(super) fn public_name(cluster: &Cluster) -> String {
    format!("{}-public", child_name(cluster, Component::Comet))
}

/// Only ready pods are addresses of its name; the EndpointSlices tell all of them, with their conditions.
fn headless(place: Place<'_>) -> Child {
    let cluster = place.cluster;
    let mut ports = client_ports(cluster);
    ports.extend([(port_name::GRPC, pod::COMET_GRPC), (port_name::ADMIN, pod::ADMIN)]);
    place.child(
        "v1",
        "Service",
        &child_name(cluster, Component::Comet),
        json!({"spec": {
            "clusterIP": "None",
            "selector": selector(cluster, Component::Comet),
            "ports": service_ports(&ports),
        }}),
    )
}

fn public(place: Place<'_>) -> Vec<Child> {
    let comet = &place.cluster.comet;
    match &comet.exposure {
        Exposure::Shared(service) => vec![for_all(place, *service)],
        Exposure::PerPod { service, .. } => {
            let count = comet.workload.replicas.max(place.facts.comet_replicas);
            let each = (0..count).map(|ordinal| for_one(place, *service, ordinal));
            each.chain(place.cluster.is_routed().then(|| for_all(place, ServiceType::ClusterIp))).collect()
        }
    }
}

fn for_all(place: Place<'_>, service: ServiceType) -> Child {
    let selector = json!(selector(place.cluster, Component::Comet));
    place.child("v1", "Service", &public_name(place.cluster), client_service(place.cluster, service, &selector))
}

fn for_one(place: Place<'_>, service: ServiceType, ordinal: i32) -> Child {
    let name = format!("{}-{ordinal}", child_name(place.cluster, Component::Comet));
    let mut selector = json!(selector(place.cluster, Component::Comet));
    selector["statefulset.kubernetes.io/pod-name"] = json!(name);
    place.child("v1", "Service", &name, client_service(place.cluster, service, &selector))
}

fn client_service(cluster: &Cluster, service: ServiceType, selector: &Value) -> Value {
    let mut spec = json!({
        "type": service.name(),
        "selector": selector,
        "ports": service_ports(&client_ports(cluster)),
    });
    if service != ServiceType::ClusterIp {
        // Keeps the client's address, and a node without a comet out of the way.
        spec["externalTrafficPolicy"] = json!("Local");
    }
    json!({"spec": spec})
}

fn service_ports(ports: &[(&'static str, u16)]) -> Vec<Value> {
    ports.iter().map(|(name, port)| service_port(name, *port)).collect()
}
