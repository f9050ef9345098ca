//! [`Cluster`] → the objects that make it. Pure: the same cluster and facts give the same bytes.
//!
//! Bodies carry only what we own: no `replicas` of a StatefulSet or of an autoscaled Deployment, no status, no defaults
//! of the API server's.

mod comet;
mod config;
mod dev;
mod job;
mod logic;
mod meta;
mod network;
mod pod;
mod shared;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;

pub use config::{live_hash, topology_map};
pub use meta::{child_name, labels, selector};
pub use pod::restart_hash;
pub use shared::push_token_secret;

use crate::validate::Cluster;

/// What building needs of the world besides the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The ImCluster, as every object's owner.
    pub owner: OwnerReference,
    /// Where the operator runs; `None` = outside the cluster.
    pub operator_namespace: Option<String>,
    /// The partition to write into comet's StatefulSet: ordinals below it keep their revision.
    pub comet_partition: i32,
    /// How many comets there are; with the spec's number it says how many Services `PerPod` needs.
    pub comet_replicas: i32,
    /// Written as logic's `replicas` in place of the spec's: the number there is when autoscaling has just ended.
    pub logic_replicas: Option<i32>,
    /// Whether the cluster knows ServiceMonitors.
    pub has_service_monitor: bool,
    /// Whether the cluster knows HTTPRoutes.
    pub has_http_route: bool,
    /// Server ids of comets at the newest revision, while a roll goes on.
    pub updated_servers: Vec<String>,
}

impl Facts {
    /// A world in which nothing is there yet.
    pub fn new(owner: OwnerReference) -> Self {
        Self {
            owner,
            operator_namespace: None,
            comet_partition: AT_REST,
            comet_replicas: 0,
            logic_replicas: None,
            has_service_monitor: false,
            has_http_route: false,
            updated_servers: Vec::new(),
        }
    }
}

/// The partition of comet's StatefulSet while nothing is rolled: above every ordinal.
pub const AT_REST: i32 = 10_000;

/// In which order objects are applied: configuration before who reads it, workloads logic → job → comet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// What several share: accounts, Services, policies, dependencies.
    Shared,
    /// ConfigMaps.
    Config,
    /// logic's workload and its autoscaler.
    Logic,
    /// job's workloads.
    Job,
    /// comet's workload.
    Comet,
}

/// One object of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// When it is applied.
    pub stage: Stage,
    /// What is applied, owner and labels included.
    pub object: DynamicObject,
}

/// Every object of a cluster, in the order in which they are applied.
pub fn build(cluster: &Cluster, facts: &Facts) -> Vec<Child> {
    let mut children = Vec::new();
    shared::build(cluster, facts, &mut children);
    network::build(cluster, facts, &mut children);
    dev::build(cluster, facts, &mut children);
    config::build(cluster, facts, &mut children);
    logic::build(cluster, facts, &mut children);
    job::build(cluster, facts, &mut children);
    comet::build(cluster, facts, &mut children);
    children.sort_by_key(|child| child.stage);
    children
}

#[cfg(test)]
mod tests;
