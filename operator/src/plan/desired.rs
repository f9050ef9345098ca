//! The objects that are to be, and the hashes by which pods are told from one another.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use runtime::pod::{Component, LIVE_FILE, RESTART_ANNOTATION, live_hash, server_id};
use serde_json::Value;

use super::Reload;
use crate::build::{Child, Facts, Stage, build, child_name, topology_map};
use crate::crd::ImCluster;
use crate::observe::{Key, Observed, Pod};
use crate::validate::Cluster;

/// What a cluster is to be made of.
#[derive(Clone, Debug)]
pub struct Desired {
    /// What it was built with.
    pub facts: Facts,
    /// Every object, in the order in which they are applied.
    pub children: Vec<Child>,
    /// The restart hash of comet's template.
    pub comet_restart: String,
    /// The name of comet's StatefulSet.
    pub comet_name: String,
    /// The name of logic's Deployment.
    pub logic_name: String,
    /// The live hash of each service.
    pub live: BTreeMap<&'static str, String>,
}

impl Desired {
    /// Builds it. Which comets are new is known only when the template is, so their list comes last.
    pub fn of(cluster: &Cluster, observed: &Observed) -> Self {
        let comet_name = child_name(cluster, Component::Comet);
        let logic_name = child_name(cluster, Component::Logic);
        let mut facts = Facts::new(owner(&observed.cluster));
        facts.operator_namespace = Some(observed.operator_namespace.clone());
        facts.has_http_route = observed.kinds.http_route;
        facts.has_service_monitor = observed.kinds.service_monitor;
        let comet = observed.ours("StatefulSet", &comet_name).and_then(|set| set.workload.as_ref());
        facts.comet_replicas = comet.map_or(0, |set| set.replicas);
        let logic = observed.ours("Deployment", &logic_name).and_then(|logic| logic.workload.as_ref());
        let spec_says = observed.cluster.spec.logic.replicas.is_some();
        // A number that nobody asks for any more stays; one that an autoscaler left is taken over before it changes.
        facts.logic_replicas = logic.filter(|logic| !spec_says || !logic.we_own_replicas).map(|logic| logic.replicas);
        let mut children = build(cluster, &facts);
        let comet_restart = restart_hash(&children, "StatefulSet", &comet_name).unwrap_or_default();
        facts.updated_servers = updated_servers(&comet_restart, cluster, observed);
        let topology = topology_map(cluster, &facts);
        children.iter_mut().filter(|child| key(child) == key(&topology)).for_each(|child| child.clone_from(&topology));
        let live = Component::SERVICES.into_iter().filter_map(|component| {
            let name = format!("{}-live", child_name(cluster, component));
            let object = &find(&children, "ConfigMap", &name)?.object;
            let text = object.data.pointer(&format!("/data/{LIVE_FILE}"))?.as_str()?;
            Some((component.name(), live_hash(text.as_bytes())))
        });
        let live = live.collect();
        Self { facts, comet_restart, comet_name, logic_name, live, children }
    }

    /// The restart hash in the template of this workload.
    pub fn restart(&self, key: &Key) -> Option<String> {
        restart_hash(&self.children, &key.kind, &key.name)
    }

    /// The names of the workloads of a stage.
    pub fn workloads(&self, stage: Stage) -> impl Iterator<Item = Key> {
        let of_stage = self.children.iter().filter(move |child| child.stage == stage);
        of_stage.map(key).filter(|key| matches!(key.kind.as_str(), "StatefulSet" | "Deployment"))
    }

    /// Whether a logic says that it has no tokens, though the Secret is ours to make.
    pub fn lacks_push_tokens(&self, observed: &Observed) -> bool {
        observed.pods.iter().any(|pod| {
            let report = pod.report.as_ref().filter(|_| pod.component == Some(Component::Logic));
            report.is_some_and(|report| report.push_tokens.as_deref() == Some("missing"))
        })
    }

    /// Pods that run with other live settings than they should, and have not been told.
    pub fn reloads(&self, observed: &Observed) -> Vec<Reload> {
        let behind = observed.pods.iter().filter_map(|pod| {
            let hash = self.live.get(pod.component?.name())?;
            let told = pod.config.as_ref() == Some(hash) || pod.dies.is_some();
            let has = pod.report.as_ref()?.config_hash.as_ref()?;
            (has != hash && !told).then(|| Reload { pod: pod.name.clone(), uid: pod.uid.clone(), hash: hash.clone() })
        });
        behind.collect()
    }
}

/// Kind and name of a child.
pub fn key(child: &Child) -> Key {
    Key {
        kind: child.object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default(),
        name: child.object.metadata.name.clone().unwrap_or_default(),
    }
}

fn find<'a>(children: &'a [Child], kind: &str, name: &str) -> Option<&'a Child> {
    children.iter().find(|child| {
        let key = key(child);
        (key.kind.as_str(), key.name.as_str()) == (kind, name)
    })
}

fn restart_hash(children: &[Child], kind: &str, name: &str) -> Option<String> {
    let annotations = find(children, kind, name)?.object.data.pointer("/spec/template/metadata/annotations")?;
    annotations.get(RESTART_ANNOTATION).and_then(Value::as_str).map(str::to_owned)
}

/// The ImCluster as its children's owner.
pub fn owner(cluster: &ImCluster) -> OwnerReference {
    OwnerReference {
        api_version: ImCluster::api_version(&()).into_owned(),
        kind: ImCluster::kind(&()).into_owned(),
        name: cluster.metadata.name.clone().unwrap_or_default(),
        uid: cluster.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Comets of the newest revision that serve, while others are still to be replaced.
fn updated_servers(restart: &str, cluster: &Cluster, observed: &Observed) -> Vec<String> {
    let comets = || observed.pods.iter().filter(|pod| pod.component == Some(Component::Comet));
    let is_old = |pod: &&Pod| {
        let first = cluster.comet.rollout.partition;
        pod.restart.as_deref() != Some(restart) && pod.ordinal.is_some_and(|ordinal| ordinal >= first)
    };
    if !comets().any(|pod| is_old(&pod)) {
        return Vec::new();
    }
    let new = comets().filter(|pod| pod.restart.as_deref() == Some(restart) && pod.is_ready());
    let mut servers: Vec<String> = new.map(|pod| server_id(&pod.name, &pod.uid)).collect();
    servers.sort();
    servers
}
