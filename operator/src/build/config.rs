//! What the processes read: per service an immutable ConfigMap (`<component>.toml`, read once) and a live one
//! (`live.toml`, read again), and the topology for logic.
//!
//! Only what the spec sets and what the cluster decides stands there; all else is as the service has it.

use runtime::pod::{self, Component, Topology};
use serde_json::json;

use super::meta::{Place, child_name};
use super::{Child, Facts, Stage, restart_hash};
use crate::validate::Cluster;

pub(super) fn build(cluster: &Cluster, facts: &Facts, children: &mut Vec<Child>) {
    for component in Component::SERVICES {
        let place = Place::new(cluster, facts, Stage::Config, component);
        let name = fixed_name(cluster, component, &restart_hash(cluster, component));
        let data = json!({component.config_file(): fixed(cluster, component)});
        // Never changed, because a pod of the old revision that starts again must read the old file.
        children.push(place.child("v1", "ConfigMap", &name, json!({"immutable": true, "data": data})));
        let data = json!({pod::LIVE_FILE: live(cluster, component)});
        children.push(place.child("v1", "ConfigMap", &live_name(cluster, component), json!({"data": data})));
    }
    children.push(topology_map(cluster, facts));
}

/// The one object in which `facts.updated_servers` are.
pub fn topology_map(cluster: &Cluster, facts: &Facts) -> Child {
    let place = Place::new(cluster, facts, Stage::Config, Component::Logic);
    let data = json!({pod::TOPOLOGY_FILE: topology(cluster, facts)});
    place.child("v1", "ConfigMap", &topology_name(cluster), json!({"data": data}))
}

/// `<cluster>-<component>-<restart hash>`.
pub(super) fn fixed_name(cluster: &Cluster, component: Component, hash: &str) -> String {
    format!("{}-{hash}", child_name(cluster, component))
}

/// `<cluster>-<component>-live`.
pub(super) fn live_name(cluster: &Cluster, component: Component) -> String {
    format!("{}-live", child_name(cluster, component))
}

/// `<cluster>-topology`.
pub(super) fn topology_name(cluster: &Cluster) -> String {
    format!("{}-topology", cluster.name)
}

/// The file that a service reads once.
pub(super) fn fixed(cluster: &Cluster, component: Component) -> String {
    text(&cluster.workload(component).fixed)
}

/// The file that a service reads again.
fn live(cluster: &Cluster, component: Component) -> String {
    text(&cluster.workload(component).live)
}

/// What names the live settings: pods report it once they are in force.
///
/// # Panics
/// For a component that is no service of ours.
pub fn live_hash(cluster: &Cluster, component: Component) -> String {
    pod::live_hash(live(cluster, component).as_bytes())
}

fn topology(cluster: &Cluster, facts: &Facts) -> String {
    let mut updated = facts.updated_servers.clone();
    updated.sort();
    let topology = Topology { updated, ..cluster.comet.topology.clone() };
    toml::to_string(&topology).expect("a topology is plain text and numbers")
}

fn text(table: &toml::Table) -> String {
    toml::to_string(table).expect("a table that was checked has a text")
}
