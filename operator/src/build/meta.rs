//! What every object has: name, labels, owner.

use std::collections::BTreeMap;

use kube::api::{DynamicObject, ObjectMeta, TypeMeta};
use runtime::pod::Component;
use serde_json::{Value, json};

use super::{Child, Facts, Stage};
use crate::validate::Cluster;

/// `app.kubernetes.io/name` of everything.
const APP: &str = "imcluster";
/// `app.kubernetes.io/managed-by` of everything.
const MANAGED_BY: &str = "imcluster-operator";

/// `<cluster>-<component>`, the name of a component's main objects.
pub fn child_name(cluster: &Cluster, component: Component) -> String {
    component.of(&cluster.name)
}

/// What selects the pods of a component: never more than these three, they can never change.
pub fn selector(cluster: &Cluster, component: Component) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", APP),
        ("app.kubernetes.io/instance", &cluster.name),
        ("app.kubernetes.io/component", component.name()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The labels of a component's objects; of those that belong to none, without `component`.
pub fn labels(cluster: &Cluster, component: Option<Component>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = [
        ("app.kubernetes.io/name", APP),
        ("app.kubernetes.io/instance", cluster.name.as_str()),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
        ("app.kubernetes.io/part-of", APP),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    if let Some(component) = component {
        labels.insert("app.kubernetes.io/component".to_owned(), component.name().to_owned());
    }
    labels
}

/// Where an object belongs: what its metadata is made from.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) facts: &'a Facts,
    pub(super) stage: Stage,
    pub(super) component: Option<Component>,
}

impl<'a> Place<'a> {
    pub(super) fn new(cluster: &'a Cluster, facts: &'a Facts, stage: Stage, component: Component) -> Self {
        Self { cluster, facts, stage, component: Some(component) }
    }

    /// The same for an object that belongs to no component alone.
    pub(super) fn of_all(cluster: &'a Cluster, facts: &'a Facts, stage: Stage) -> Self {
        Self { cluster, facts, stage, component: None }
    }

    /// An object of the kind `api_version kind`; `data` is everything beside its metadata.
    pub(super) fn child(self, api_version: &str, kind: &str, name: &str, data: Value) -> Child {
        self.annotated(api_version, kind, name, None, data)
    }

    /// The same with annotations.
    pub(super) fn annotated(
        self,
        api_version: &str,
        kind: &str,
        name: &str,
        annotations: Option<BTreeMap<String, String>>,
        data: Value,
    ) -> Child {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.cluster.namespace.clone()),
            labels: Some(labels(self.cluster, self.component)),
            annotations: annotations.filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![self.facts.owner.clone()]),
            ..ObjectMeta::default()
        };
        let types = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
        Child { stage: self.stage, object: DynamicObject { types: Some(types), metadata, data } }
    }
}

/// A port of a Service: `name`, `port`, and the container's port of that name behind it.
pub(super) fn service_port(name: &str, port: u16) -> Value {
    json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"})
}
