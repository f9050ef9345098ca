//! Three clusters whose objects stand in `golden/`, and what must hold for the objects of every cluster.

mod flows;
mod hashes;
mod objects;
mod protected;
mod restricted;

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::crd::ImCluster;
use crate::validate::{Operand, validate};

/// The specs that objects stand in `golden/` for.
const GOLDEN: [&str; 3] = ["dev", "external", "everything"];

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

fn operand() -> Operand {
    Operand { image: "example.com/imcluster".to_owned(), version: "0.1.0".to_owned() }
}

/// The ImCluster of `golden/<name>.spec.yaml`.
fn spec(name: &str) -> ImCluster {
    let text = std::fs::read_to_string(golden(&format!("{name}.spec.yaml"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// The same, changed, as a cluster.
fn changed(name: &str, change: impl FnOnce(&mut ImCluster)) -> Cluster {
    let mut spec = spec(name);
    change(&mut spec);
    validate(&spec, &operand()).unwrap()
}

fn cluster(name: &str) -> Cluster {
    changed(name, |_| {})
}

/// Every cluster there is: those of `golden/` and of `fixtures/accept/`, where one file may hold several.
fn every() -> Vec<(String, Cluster)> {
    let mut all: Vec<_> = GOLDEN.iter().map(|name| ((*name).to_owned(), cluster(name))).collect();
    let newer = Operand { version: "0.2.0".to_owned(), ..operand() };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/accept");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for mut document in documents {
            document["metadata"]["namespace"] = "im".into();
            let spec: ImCluster = serde_json::from_value(set(document)).unwrap();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            all.push((file, validate(&spec, &newer).unwrap_or_else(|invalid| panic!("{}: {invalid}", path.display()))));
        }
    }
    assert!(all.len() > 15, "{}", all.len());
    all
}

/// Without what is null, as the API server stores it.
fn set(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, set(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(set).collect(),
        plain => plain,
    }
}

/// A world with every optional kind in it.
fn facts() -> Facts {
    let owner = OwnerReference {
        api_version: "imcluster.dev/v1alpha1".to_owned(),
        kind: "ImCluster".to_owned(),
        name: "prod".to_owned(),
        uid: "11111111-2222-3333-4444-555555555555".to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    Facts {
        operator_namespace: Some("imcluster-system".to_owned()),
        has_service_monitor: true,
        has_http_route: true,
        ..Facts::new(owner)
    }
}

/// An object as it is sent.
fn sent(child: &Child) -> Value {
    serde_json::to_value(&child.object).unwrap()
}

fn kind(child: &Child) -> &str {
    &child.object.types.as_ref().unwrap().kind
}

fn name(child: &Child) -> &str {
    child.object.metadata.name.as_deref().unwrap()
}

/// The object of this kind and name.
fn find(children: &[Child], wanted: &str, named: &str) -> Value {
    let found = children.iter().find(|child| kind(child) == wanted && name(child) == named);
    sent(found.unwrap_or_else(|| panic!("no {wanted} {named}")))
}

/// Every workload's pod template, with the workload's name.
fn templates(children: &[Child]) -> Vec<(String, Value)> {
    let workloads = children.iter().filter(|child| ["StatefulSet", "Deployment"].contains(&kind(child)));
    workloads.map(|child| (name(child).to_owned(), child.object.data["spec"]["template"].clone())).collect()
}
