//! job: one Deployment, or one for each zone, and a Service for who reads its metrics.

use runtime::pod::{self, Component, port_name};
use serde_json::{Value, json};

use super::meta::{Place, child_name, selector, service_port};
use super::pod::{Shape, template};
use super::{Child, Facts, Stage, shared};
use crate::validate::Cluster;

/// On the pods of a zone's Deployment: the zone.
const ZONE_LABEL: &str = "imcluster.dev/zone";

pub(super) fn build(cluster: &Cluster, facts: &Facts, children: &mut Vec<Child>) {
    let place = Place::new(cluster, facts, Stage::Shared, Component::Job);
    children.push(metrics_service(place));
    let workload = Place { stage: Stage::Job, ..place };
    match cluster.job.zones.as_slice() {
        [] => children.push(deployment(workload, None)),
        zones => children.extend(zones.iter().map(|zone| deployment(workload, Some(zone)))),
    }
}

fn deployment(place: Place<'_>, zone: Option<&str>) -> Child {
    let cluster = place.cluster;
    let mut name = child_name(cluster, Component::Job);
    let mut selector = selector(cluster, Component::Job);
    let mut template = template(cluster, &shape(cluster));
    if let Some(zone) = zone {
        name = format!("{name}-{zone}");
        selector.insert(ZONE_LABEL.to_owned(), zone.to_owned());
        at(&mut template, cluster, zone);
    }
    let mut spec = shared::deployment_spec(cluster);
    spec["replicas"] = json!(cluster.job.workload.replicas);
    spec["selector"] = json!({"matchLabels": selector});
    spec["template"] = template;
    place.child("apps/v1", "Deployment", &name, json!({"spec": spec}))
}

pub(super) fn shape(cluster: &Cluster) -> Shape<'_> {
    let mut mounts = shared::kafka_secrets(cluster);
    mounts.extend(shared::internal_tls_secret(cluster));
    Shape { workload: &cluster.job.workload, ports: Vec::new(), env: Vec::new(), mounts, has_token: true }
}

/// Binds a pod template to a zone: it runs there, reads as a group of its own, and serves the comets there.
fn at(template: &mut Value, cluster: &Cluster, zone: &str) {
    template["metadata"]["labels"][ZONE_LABEL] = json!(zone);
    template["spec"]["nodeSelector"]["topology.kubernetes.io/zone"] = json!(zone);
    let group = format!("{}.{zone}", cluster.job.group);
    let containers = template["spec"]["containers"].as_array_mut();
    let ours = containers.and_then(|all| all.iter_mut().find(|container| container["name"] == Component::Job.name()));
    if let Some(env) = ours.and_then(|container| container["env"].as_array_mut()) {
        env.retain(|variable| variable["name"] != "IMCLUSTER_GROUP" && variable["name"] != "ZONE");
        env.extend([json!({"name": "IMCLUSTER_GROUP", "value": group}), json!({"name": "ZONE", "value": zone})]);
    }
}

/// Nobody connects to a job but who reads its metrics.
fn metrics_service(place: Place<'_>) -> Child {
    let cluster = place.cluster;
    place.child(
        "v1",
        "Service",
        &child_name(cluster, Component::Job),
        json!({"spec": {
            "clusterIP": "None",
            "selector": selector(cluster, Component::Job),
            "ports": [service_port(port_name::ADMIN, pod::ADMIN)],
        }}),
    )
}
