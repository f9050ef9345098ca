//! The NetworkPolicies as a network would apply them, against the table they are made from.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::pod::{Component, FLOWS, Origin, port_name};

use super::*;

/// Who opens a connection; `None` = from outside the cluster.
struct Caller {
    what: String,
    pod: Option<(&'static str, BTreeMap<String, String>)>,
    is: Vec<Origin>,
}

fn callers(cluster: &Cluster) -> Vec<Caller> {
    let pod = |what: &str, namespace, labels, is| Caller { what: what.to_owned(), pod: Some((namespace, labels)), is };
    let mut other = cluster.clone();
    other.name = "other".to_owned();
    let mut callers = vec![
        Caller { what: "the internet".to_owned(), pod: None, is: vec![] },
        pod("the operator", "imcluster-system", BTreeMap::new(), vec![Origin::Operator]),
        pod("Prometheus", "monitoring", BTreeMap::new(), vec![Origin::Monitoring]),
        pod("a stranger beside us", "im", BTreeMap::new(), vec![]),
        pod("a job elsewhere", "elsewhere", selector(cluster, Component::Job), vec![]),
        pod("a job of another cluster", "im", selector(&other, Component::Job), vec![]),
    ];
    for component in Component::ALL {
        let labels = selector(cluster, component);
        callers.push(pod(component.name(), "im", labels, vec![Origin::Pods(component)]));
    }
    callers
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    assert_eq!(selector.match_expressions, None, "not evaluated here");
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_peer(peer: &NetworkPolicyPeer, caller: &Caller) -> bool {
    assert_eq!(peer.ip_block, None, "not evaluated here");
    let Some((namespace, labels)) = &caller.pod else {
        return false;
    };
    let its = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), (*namespace).to_owned())]);
    let in_namespace = peer.namespace_selector.as_ref().map_or(*namespace == "im", |wanted| matches(wanted, &its));
    in_namespace && peer.pod_selector.as_ref().is_none_or(|wanted| matches(wanted, labels))
}

/// Whether a network lets `caller` open `port` of the pods of `to`: what no policy selects is open, what one selects
/// needs a rule.
fn is_open(policies: &[NetworkPolicy], caller: &Caller, to: &BTreeMap<String, String>, port: u16) -> bool {
    let specs = policies.iter().map(|policy| policy.spec.clone().unwrap());
    let mine: Vec<_> = specs.filter(|spec| matches(spec.pod_selector.as_ref().unwrap(), to)).collect();
    mine.is_empty()
        || mine.iter().flat_map(|spec| spec.ingress.iter().flatten()).any(|rule| {
            let of_port = rule.ports.iter().flatten().any(|open| open.port == Some(IntOrString::Int(i32::from(port))));
            let from = rule.from.as_deref().unwrap_or_default();
            of_port && (from.is_empty() || from.iter().any(|peer| is_peer(peer, caller)))
        })
}

#[test]
fn the_policies_let_through_what_the_table_says_and_nothing_else() {
    let mut open = 0;
    for spec in GOLDEN {
        let cluster = changed(spec, |it| it.spec.network_policy.monitoring_namespaces = vec!["monitoring".to_owned()]);
        let children = build(&cluster, &facts());
        let policies: Vec<NetworkPolicy> = children
            .iter()
            .filter(|child| kind(child) == "NetworkPolicy")
            .map(|child| serde_json::from_value(sent(child)).unwrap())
            .collect();
        let listens = |to: Component, name: &str| match to {
            Component::Kafka => cluster.kafka.dev.is_some(),
            Component::Redis => cluster.redis.dev.is_some(),
            Component::Comet => {
                ![port_name::WEBSOCKET_TLS, port_name::TCP_TLS].contains(&name) || cluster.comet.tls.is_some()
            }
            Component::Logic | Component::Job => true,
        };
        let number = |to: Component, name: &str, usual: u16| match (to, name, &cluster.comet.tls) {
            (Component::Comet, port_name::TCP, _) => cluster.comet.tcp_port,
            (Component::Comet, port_name::WEBSOCKET, _) => cluster.comet.websocket_port,
            (Component::Comet, port_name::TCP_TLS, Some(tls)) => tls.tcp_port,
            (Component::Comet, port_name::WEBSOCKET_TLS, Some(tls)) => tls.websocket_port,
            _ => usual,
        };
        for caller in callers(&cluster) {
            for flow in FLOWS.iter().filter(|flow| listens(flow.to, flow.name)) {
                let may = flow.from.contains(&Origin::Anyone) || flow.from.iter().any(|from| caller.is.contains(from));
                let port = number(flow.to, flow.name, flow.port);
                let found = is_open(&policies, &caller, &selector(&cluster, flow.to), port);
                assert_eq!(found, may, "{spec}: {} to {} of {}", caller.what, flow.name, flow.to.name());
                open += usize::from(found);
            }
            for component in Component::SERVICES {
                let stray = is_open(&policies, &caller, &selector(&cluster, component), 22);
                assert!(!stray, "{spec}: {} to port 22 of {}", caller.what, component.name());
            }
        }
    }
    assert!(open > 50, "{open} connections let through");
}

#[test]
fn every_port_of_a_pod_of_ours_is_in_the_table() {
    for spec in GOLDEN {
        let cluster = cluster(spec);
        for component in Component::SERVICES {
            let children = build(&cluster, &facts());
            let is_mine = |labels: &Value| labels["app.kubernetes.io/component"] == component.name();
            let mine = templates(&children).into_iter().find(|(_, pod)| is_mine(&pod["metadata"]["labels"])).unwrap();
            let containers = mine.1["spec"]["containers"].as_array().unwrap();
            let ours = containers.iter().find(|container| container["name"] == component.name()).unwrap();
            for port in ours["ports"].as_array().unwrap() {
                let named = FLOWS.iter().any(|flow| flow.to == component && flow.name == port["name"]);
                assert!(named, "{spec}: {port} of {}", component.name());
            }
        }
    }
}

#[test]
fn without_network_policies_there_are_none() {
    let cluster = changed("dev", |it| it.spec.network_policy.enabled = false);
    assert!(build(&cluster, &facts()).iter().all(|child| kind(child) != "NetworkPolicy"));
}

#[test]
fn when_nobody_may_reach_the_admin_port_no_rule_opens_it_to_all() {
    let alone = Facts { operator_namespace: None, ..facts() };
    let policy = find(&build(&cluster("dev"), &alone), "NetworkPolicy", "prod-job");
    assert_eq!(policy["spec"]["ingress"], serde_json::json!([]));
    assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress"]));
}
