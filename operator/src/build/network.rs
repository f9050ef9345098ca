//! Who may connect to whom: the flow table of `runtime::pod` as NetworkPolicies. Ingress only: where the API server,
//! Kafka and Redis are cannot be said by pod.

use runtime::pod::{Component, FLOWS, Flow, Origin};
use serde_json::{Value, json};

use super::meta::{Place, child_name, selector};
use super::{Child, Facts, Stage, comet};
use crate::validate::Cluster;

pub(super) fn build(cluster: &Cluster, facts: &Facts, children: &mut Vec<Child>) {
    let Some(monitoring) = &cluster.network_policy else {
        return;
    };
    for component in Component::ALL {
        let has_pods = match component {
            Component::Comet | Component::Logic | Component::Job => true,
            Component::Kafka => cluster.kafka.dev.is_some(),
            Component::Redis => cluster.redis.dev.is_some(),
        };
        if has_pods {
            children.push(policy(Place::new(cluster, facts, Stage::Shared, component), component, monitoring));
        }
    }
}

fn policy(place: Place<'_>, component: Component, monitoring: &[String]) -> Child {
    let rules: Vec<Value> = FLOWS
        .iter()
        .filter(|flow| flow.to == component)
        .filter_map(|flow| rule(place, flow, port(place.cluster, flow)?, monitoring))
        .collect();
    place.child(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        &child_name(place.cluster, component),
        json!({"spec": {
            "podSelector": {"matchLabels": selector(place.cluster, component)},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        }}),
    )
}

/// The number of a flow's port in this cluster; `None` when nobody listens there.
fn port(cluster: &Cluster, flow: &Flow) -> Option<u16> {
    if flow.to != Component::Comet || !flow.from.contains(&Origin::Anyone) {
        return Some(flow.port);
    }
    comet::client_ports(cluster).into_iter().find(|(name, _)| *name == flow.name).map(|(_, port)| port)
}

/// `None` when nobody of those who may is there: a rule without `from` would let everybody in.
fn rule(place: Place<'_>, flow: &Flow, port: u16, monitoring: &[String]) -> Option<Value> {
    let ports = json!([{"port": port, "protocol": "TCP"}]);
    if flow.from.contains(&Origin::Anyone) {
        return Some(json!({"ports": ports}));
    }
    let namespace =
        |name: &String| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let from: Vec<Value> = flow
        .from
        .iter()
        .flat_map(|origin| match origin {
            Origin::Anyone => Vec::new(),
            Origin::Pods(of) => vec![json!({"podSelector": {"matchLabels": selector(place.cluster, *of)}})],
            Origin::Operator => place.facts.operator_namespace.iter().map(namespace).collect(),
            Origin::Monitoring => monitoring.iter().map(namespace).collect(),
        })
        .collect();
    (!from.is_empty()).then(|| json!({"ports": ports, "from": from}))
}
