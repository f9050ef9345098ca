//! logic: a Deployment, its Services, the ways in from outside, and the autoscaler when asked.

use runtime::pod::{self, Component, port_name};
use serde_json::{Value, json};

use super::meta::{Place, child_name, selector, service_port};
use super::pod::{Mount, Shape, template};
use super::{Child, Facts, Stage, comet, config, shared};
use crate::validate::{Autoscaling, Cluster, HttpRoute, Ingress, LOGIC_PEERS};

/// What the API's paths begin with.
const API: &str = "/goim";

pub(super) fn build(cluster: &Cluster, facts: &Facts, children: &mut Vec<Child>) {
    let place = Place::new(cluster, facts, Stage::Shared, Component::Logic);
    children.extend([service(place), headless(place)]);
    children.extend(ingresses(place));
    if facts.has_http_route {
        children.extend(cluster.logic.http_route.iter().map(|asked| http_route(place, asked)));
    }
    let workload = Place { stage: Stage::Logic, ..place };
    children.push(deployment(workload));
    children.extend(cluster.logic.autoscaling.map(|asked| autoscaler(workload, asked)));
}

/// No `replicas` while an autoscaler says how many.
fn deployment(place: Place<'_>) -> Child {
    let cluster = place.cluster;
    let logic = &cluster.logic;
    let mut spec = shared::deployment_spec(cluster);
    spec["selector"] = json!({"matchLabels": selector(cluster, Component::Logic)});
    spec["template"] = template(cluster, &shape(cluster));
    if logic.autoscaling.is_none() {
        spec["replicas"] = json!(place.facts.logic_replicas.unwrap_or(logic.workload.replicas));
    }
    place.child("apps/v1", "Deployment", &child_name(cluster, Component::Logic), json!({"spec": spec}))
}

pub(super) fn shape(cluster: &Cluster) -> Shape<'_> {
    let mut mounts = vec![
        Mount::config_map("topology", pod::TOPOLOGY_DIR, &config::topology_name(cluster)),
        Mount::push_tokens(&cluster.push_token),
    ];
    mounts.extend(shared::auth_secrets(cluster));
    mounts.extend(shared::internal_tls_secret(cluster));
    mounts.extend(shared::kafka_secrets(cluster));
    mounts.extend(shared::redis_secrets(cluster));
    let ports = vec![(port_name::HTTP, pod::LOGIC_HTTP), (port_name::GRPC, pod::LOGIC_GRPC)];
    Shape { workload: &cluster.logic.workload, ports, env: Vec::new(), mounts, has_token: true }
}

fn service(place: Place<'_>) -> Child {
    let cluster = place.cluster;
    place.child(
        "v1",
        "Service",
        &child_name(cluster, Component::Logic),
        json!({"spec": {
            "type": "ClusterIP",
            "selector": selector(cluster, Component::Logic),
            "ports": [service_port(port_name::HTTP, pod::LOGIC_HTTP), service_port(port_name::GRPC, pod::LOGIC_GRPC)],
        }}),
    )
}

/// The Service whose name has every ready logic for an address.
pub(super) fn headless_name(cluster: &Cluster) -> String {
    format!("{}-{LOGIC_PEERS}", cluster.name)
}

fn headless(place: Place<'_>) -> Child {
    let cluster = place.cluster;
    place.child(
        "v1",
        "Service",
        &headless_name(cluster),
        json!({"spec": {
            "clusterIP": "None",
            "selector": selector(cluster, Component::Logic),
            "ports": [service_port(port_name::GRPC, pod::LOGIC_GRPC), service_port(port_name::ADMIN, pod::ADMIN)],
        }}),
    )
}

/// One Ingress for both when they are to look alike, as a host name can lead to one load balancer only.
fn ingresses(place: Place<'_>) -> Vec<Child> {
    let cluster = place.cluster;
    let path = |path: &str, kind: &str, service: String, port: &str| {
        let backend = json!({"service": {"name": service, "port": {"name": port}}});
        json!({"path": path, "pathType": kind, "backend": backend})
    };
    let api = path(API, "Prefix", child_name(cluster, Component::Logic), port_name::HTTP);
    let clients = path(pod::WEBSOCKET_PATH, "Exact", comet::public_name(cluster), port_name::WEBSOCKET);
    let comet = Place { component: Some(Component::Comet), ..place };
    match (&cluster.logic.ingress, &cluster.comet.ingress) {
        (Some(both), Some(same)) if both == same => vec![ingress(place, both, vec![api, clients])],
        (logic, other) => {
            let logic = logic.iter().map(|asked| ingress(place, asked, vec![api.clone()]));
            logic.chain(other.iter().map(|asked| ingress(comet, asked, vec![clients.clone()]))).collect()
        }
    }
}

fn ingress(place: Place<'_>, asked: &Ingress, paths: Vec<Value>) -> Child {
    let mut spec = json!({"rules": [{"host": asked.host, "http": {"paths": paths}}]});
    if let Some(class) = &asked.class {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(secret) = &asked.tls_secret {
        spec["tls"] = json!([{"hosts": [asked.host], "secretName": secret}]);
    }
    let name = child_name(place.cluster, place.component.unwrap_or(Component::Logic));
    let annotations = Some(asked.annotations.clone());
    place.annotated("networking.k8s.io/v1", "Ingress", &name, annotations, json!({"spec": spec}))
}

fn http_route(place: Place<'_>, asked: &HttpRoute) -> Child {
    let cluster = place.cluster;
    let rule = |kind: &str, path: &str, service: String, port: u16| {
        json!({
            "matches": [{"path": {"type": kind, "value": path}}],
            "backendRefs": [{"name": service, "port": port}],
        })
    };
    let mut rules = vec![rule("PathPrefix", API, child_name(cluster, Component::Logic), pod::LOGIC_HTTP)];
    rules.push(rule("Exact", pod::WEBSOCKET_PATH, comet::public_name(cluster), cluster.comet.websocket_port));
    let mut spec = json!({"parentRefs": asked.parents, "rules": rules});
    if !asked.hostnames.is_empty() {
        spec["hostnames"] = json!(asked.hostnames);
    }
    place.child(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        &child_name(cluster, Component::Logic),
        json!({"spec": spec}),
    )
}

fn autoscaler(place: Place<'_>, asked: Autoscaling) -> Child {
    let name = child_name(place.cluster, Component::Logic);
    let target = json!({"type": "Utilization", "averageUtilization": asked.cpu});
    let metrics: Value = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    place.child(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        &name,
        json!({"spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": asked.min,
            "maxReplicas": asked.max,
            "metrics": metrics,
        }}),
    )
}
