//! A child as it was seen, pruned to what is decided by.

use std::collections::BTreeSet;

use kube::api::{ApiResource, DynamicObject};
use runtime::pod::RESTART_ANNOTATION;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The name under which everything of ours is applied.
pub const MANAGER: &str = "imcluster-operator";
/// What Kubernetes writes on objects while it works; none of our business.
const NOISE: [&str; 3] =
    ["deployment.kubernetes.io/revision", "autoscaling.alpha.kubernetes.io/", "kubectl.kubernetes.io/"];

/// Which object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Which.
    pub key: Key,
    /// Where.
    pub namespace: String,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// The UID of its controller.
    pub owner: Option<String>,
    /// `app.kubernetes.io/instance`.
    pub instance: Option<String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// What names its content: everything but its status, its version and its `replicas`.
    pub fingerprint: String,
    /// Of a StatefulSet or Deployment.
    pub workload: Option<Workload>,
    /// `disruptionsAllowed` of a PodDisruptionBudget.
    pub disruptions_allowed: Option<i64>,
    /// Whether an Ingress has an address, or a Gateway accepted an HTTPRoute.
    pub has_address: bool,
    /// ConfigMaps that its pod template names.
    pub config_maps: BTreeSet<String>,
}

/// A StatefulSet or Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// `metadata.generation`.
    pub generation: i64,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// How many pods it is to have.
    pub replicas: i32,
    /// How many there are.
    pub present: i32,
    /// How many are Ready.
    pub ready: i32,
    /// How many are Ready for `minReadySeconds`.
    pub available: i32,
    /// How many are of the newest revision.
    pub updated: i32,
    /// The restart hash in its pod template.
    pub restart: Option<String>,
    /// Its partition.
    pub partition: Option<i32>,
    /// The revision that pods below the partition have.
    pub current_revision: Option<String>,
    /// The revision of the template.
    pub update_revision: Option<String>,
    /// Whether our applied body owns `replicas`.
    pub we_own_replicas: bool,
    /// Whether anybody else owns `replicas`.
    pub others_own_replicas: bool,
}

impl Workload {
    /// Whether every pod runs this template and is available.
    pub fn is_settled(&self, restart: Option<&str>) -> bool {
        self.restart.as_deref() == restart
            && self.observed_generation >= self.generation
            && self.updated >= self.replicas
            && self.present <= self.replicas
            && self.available >= self.replicas
    }
}

impl Seen {
    /// What is worth knowing of an object of this kind. Objects in lists do not say their kind themselves.
    pub fn of(object: &DynamicObject, kind: &ApiResource) -> Self {
        let meta = &object.metadata;
        let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
        let data = &object.data;
        let template = data.pointer("/spec/template");
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            api_version: kind.api_version.clone(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owner: owner.map(|owner| owner.uid.clone()),
            instance: label("app.kubernetes.io/instance"),
            is_deleting: meta.deletion_timestamp.is_some(),
            fingerprint: fingerprint(object),
            workload: matches!(kind.kind.as_str(), "StatefulSet" | "Deployment").then(|| workload(object)),
            disruptions_allowed: data.pointer("/status/disruptionsAllowed").and_then(Value::as_i64),
            has_address: has_address(&kind.kind, data),
            config_maps: template.map(config_maps).unwrap_or_default(),
            key: Key { kind: kind.kind.clone(), name: meta.name.clone().unwrap_or_default() },
        }
    }
}

fn workload(object: &DynamicObject) -> Workload {
    let number = |path: &str| object.data.pointer(path).and_then(Value::as_i64);
    let count = |path: &str| number(path).and_then(|count| i32::try_from(count).ok());
    let text = |path: &str| object.data.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let restart = object.data.pointer("/spec/template/metadata/annotations");
    let (mut we_own, mut others_own) = (false, false);
    for entry in object.metadata.managed_fields.iter().flatten() {
        let owns = entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some());
        let is_ours = entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply");
        we_own |= owns && is_ours;
        others_own |= owns && !is_ours;
    }
    Workload {
        generation: object.metadata.generation.unwrap_or(0),
        observed_generation: number("/status/observedGeneration").unwrap_or(0),
        replicas: count("/spec/replicas").unwrap_or(1),
        present: count("/status/replicas").unwrap_or(0),
        ready: count("/status/readyReplicas").unwrap_or(0),
        available: count("/status/availableReplicas").unwrap_or(0),
        updated: count("/status/updatedReplicas").unwrap_or(0),
        restart: restart.and_then(|all| all.get(RESTART_ANNOTATION)?.as_str()).map(str::to_owned),
        partition: count("/spec/updateStrategy/rollingUpdate/partition"),
        current_revision: text("/status/currentRevision"),
        update_revision: text("/status/updateRevision"),
        we_own_replicas: we_own,
        others_own_replicas: others_own,
    }
}

/// The ConfigMaps that the volumes of a pod template, or of a pod, name.
pub fn config_maps(template: &Value) -> BTreeSet<String> {
    let volumes = template.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let mut names = BTreeSet::new();
    for volume in volumes {
        let projected = volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten();
        let direct = std::iter::once(volume);
        names.extend(
            direct.chain(projected).filter_map(|source| source.pointer("/configMap/name")?.as_str()).map(str::to_owned),
        );
    }
    names
}

fn has_address(kind: &str, data: &Value) -> bool {
    match kind {
        "Ingress" => {
            let addresses = data.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
            addresses.is_some_and(|addresses| !addresses.is_empty())
        }
        "HTTPRoute" => {
            let parents = data.pointer("/status/parents").and_then(Value::as_array).into_iter().flatten();
            let mut conditions = parents.filter_map(|parent| parent.get("conditions")?.as_array()).flatten();
            conditions.any(|condition| condition["type"] == "Accepted" && condition["status"] == "True")
        }
        _ => false,
    }
}

/// Names what somebody may have changed and we would put right. `replicas` is compared by itself.
fn fingerprint(object: &DynamicObject) -> String {
    let mut data = object.data.clone();
    if let Some(fields) = data.as_object_mut() {
        fields.remove("status");
        if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("replicas");
        }
    }
    let meta = &object.metadata;
    let annotations: Vec<_> = meta
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !NOISE.iter().any(|noise| key.starts_with(noise)))
        .collect();
    let whole = serde_json::json!({
        "data": data,
        "labels": meta.labels,
        "annotations": annotations,
        "owners": meta.owner_references,
        "finalizers": meta.finalizers,
    });
    hash(&whole)
}

/// A short name of a JSON value.
pub fn hash(value: &Value) -> String {
    Sha256::digest(value.to_string().as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
