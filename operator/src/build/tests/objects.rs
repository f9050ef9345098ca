//! The objects themselves: as they stand in `golden/`, and as the API's types have them.

use std::collections::BTreeSet;

use k8s_openapi::api::{apps, autoscaling, core, networking, policy, rbac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;

/// Compares with a file of `golden/`; a text that differs is left where it can be looked at.
fn same(file: &str, text: &str) {
    let written = std::fs::read_to_string(golden(file)).unwrap_or_default();
    if written != text {
        let now = std::env::temp_dir().join(file);
        std::fs::write(&now, text).unwrap();
        panic!("{} is not what is built now, which is in {}", golden(file).display(), now.display());
    }
}

fn yaml(values: impl IntoIterator<Item = Value>) -> String {
    let documents: Vec<String> = values.into_iter().map(|value| serde_saphyr::to_string(&value).unwrap()).collect();
    documents.join("---\n")
}

#[test]
fn the_objects_are_those_in_the_golden_files() {
    for name in GOLDEN {
        let children = build(&cluster(name), &facts());
        same(&format!("{name}.yaml"), &yaml(children.iter().map(sent)));
    }
}

/// Once 0.1 is out these files stay as they are: an operator that is upgraded must not restart pods of 0.1.
#[test]
fn the_pods_of_a_released_version_never_change() {
    for spec in GOLDEN {
        let children = build(&cluster(spec), &facts());
        let pods = templates(&children).into_iter().map(|(name, template)| json!({"name": name, "template": template}));
        let files = children.iter().filter(|child| child.object.data["immutable"] == true);
        let files = files.map(|child| json!({"name": name(child), "data": child.object.data["data"]}));
        same(&format!("{spec}.pods-0.1.yaml"), &yaml(pods.chain(files)));
    }
}

/// Fields that the API's type does not know are lost on the way through it.
fn through<T: Serialize + DeserializeOwned>(sent: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(sent.clone()).unwrap()).unwrap()
}

#[test]
fn every_field_is_one_of_the_apis() {
    for (name, cluster) in every() {
        for child in build(&cluster, &facts()) {
            let sent = sent(&child);
            let known = match kind(&child) {
                "ConfigMap" => through::<core::v1::ConfigMap>(&sent),
                "Deployment" => through::<apps::v1::Deployment>(&sent),
                "HorizontalPodAutoscaler" => through::<autoscaling::v2::HorizontalPodAutoscaler>(&sent),
                "Ingress" => through::<networking::v1::Ingress>(&sent),
                "NetworkPolicy" => through::<networking::v1::NetworkPolicy>(&sent),
                "PodDisruptionBudget" => through::<policy::v1::PodDisruptionBudget>(&sent),
                "Role" => through::<rbac::v1::Role>(&sent),
                "RoleBinding" => through::<rbac::v1::RoleBinding>(&sent),
                "Service" => through::<core::v1::Service>(&sent),
                "ServiceAccount" => through::<core::v1::ServiceAccount>(&sent),
                "StatefulSet" => through::<apps::v1::StatefulSet>(&sent),
                "HTTPRoute" | "ServiceMonitor" => sent.clone(),
                other => panic!("{other} is not looked at here"),
            };
            assert_eq!(without_nulls(&sent), without_nulls(&known), "{name}");
        }
    }
}

/// `null` would take a field away from whoever else set it.
fn without_nulls(value: &Value) -> Value {
    fn look(value: &Value, path: &str) {
        match value {
            Value::Null => panic!("null at {path}"),
            Value::Array(values) => values.iter().for_each(|value| look(value, path)),
            Value::Object(fields) => fields.iter().for_each(|(key, value)| look(value, &format!("{path}.{key}"))),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    look(value, "");
    value.clone()
}

#[test]
fn every_object_is_ours_by_owner_and_labels_and_named_once() {
    for (_, cluster) in every() {
        let children = build(&cluster, &facts());
        let mut seen = BTreeSet::new();
        for child in &children {
            let meta = &child.object.metadata;
            assert_eq!(meta.owner_references.as_deref(), Some(&[facts().owner][..]));
            assert_eq!(meta.namespace.as_deref(), Some("im"));
            let labels = meta.labels.as_ref().unwrap();
            assert_eq!(labels["app.kubernetes.io/instance"], cluster.name);
            assert_eq!(labels["app.kubernetes.io/managed-by"], "imcluster-operator");
            assert!(name(child).len() <= 63 && name(child).starts_with(&cluster.name));
            assert!(seen.insert((kind(child).to_owned(), name(child).to_owned())), "{} twice", name(child));
        }
        assert!(children.is_sorted_by_key(|child| child.stage));
    }
}

#[test]
fn selectors_are_the_three_labels_that_never_change_and_pods_have_them() {
    for (_, cluster) in every() {
        let children = build(&cluster, &facts());
        for child in children.iter().filter(|child| ["StatefulSet", "Deployment"].contains(&kind(child))) {
            let selector = child.object.data["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let known = ["name", "instance", "component"].map(|label| format!("app.kubernetes.io/{label}"));
            assert!(selector.keys().all(|key| known.contains(key) || key == "imcluster.dev/zone"), "{selector:?}");
            let labels = &child.object.data["spec"]["template"]["metadata"]["labels"];
            assert!(selector.iter().all(|(key, value)| labels[key] == *value), "{}", name(child));
        }
    }
}

#[test]
fn what_others_own_is_not_in_the_bodies() {
    let children = build(&cluster("everything"), &Facts { comet_partition: 1, ..facts() });
    let comets = find(&children, "StatefulSet", "big-comet");
    assert_eq!(comets["spec"].get("replicas"), None);
    assert_eq!(comets["spec"]["updateStrategy"]["rollingUpdate"]["partition"], 1);
    assert_eq!(find(&children, "Deployment", "big-logic")["spec"].get("replicas"), None, "an autoscaler writes it");
    let fixed = build(&cluster("external"), &facts());
    assert_eq!(find(&fixed, "Deployment", "chat-logic")["spec"]["replicas"], 1);
    let after = build(&cluster("external"), &Facts { logic_replicas: Some(7), ..facts() });
    assert_eq!(find(&after, "Deployment", "chat-logic")["spec"]["replicas"], 7, "the number that autoscaling left");
}

#[test]
fn a_pod_may_take_as_long_as_its_drain() {
    let grace = |spec: &str, of: &str| {
        let all = templates(&build(&cluster(spec), &facts()));
        all.into_iter().find(|(name, _)| name == of).unwrap().1["spec"]["terminationGracePeriodSeconds"].clone()
    };
    assert_eq!(grace("dev", "prod-comet"), 10 + 300 + 15 + 10);
    assert_eq!(grace("external", "chat-comet"), 2 + 20 + 2 + 10);
    assert_eq!(grace("dev", "prod-logic"), 30);
    assert_eq!(grace("everything", "big-job-zone-a"), 30 + 10, "its flush is overridden");
}

#[test]
fn each_comet_has_a_service_until_it_is_gone() {
    let services = |comets: i32| {
        let children = build(&cluster("everything"), &Facts { comet_replicas: comets, ..facts() });
        let mine = children.iter().filter(|child| kind(child) == "Service").map(|child| name(child).to_owned());
        mine.filter(|name| name.starts_with("big-comet-")).collect::<Vec<_>>()
    };
    assert_eq!(services(0), ["big-comet-0", "big-comet-1", "big-comet-public"]);
    assert_eq!(services(3), ["big-comet-0", "big-comet-1", "big-comet-2", "big-comet-public"], "one is still leaving");
    let one = find(&build(&cluster("everything"), &facts()), "Service", "big-comet-1");
    assert_eq!(one["spec"]["type"], "LoadBalancer");
    assert_eq!(one["spec"]["externalTrafficPolicy"], "Local");
    assert_eq!(one["spec"]["selector"]["statefulset.kubernetes.io/pod-name"], "big-comet-1");
}

#[test]
fn unready_comets_stay_out_of_dns_and_discovery_finds_its_port_by_name() {
    let service = find(&build(&cluster("dev"), &facts()), "Service", "prod-comet");
    assert_eq!(service["spec"].get("publishNotReadyAddresses"), None);
    assert_eq!(service["spec"]["clusterIP"], "None");
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["name"] == "grpc" && port["port"] == 3109));
}

#[test]
fn one_ingress_leads_to_both_unless_the_comets_have_their_own() {
    let ingresses = |spec: &str| {
        let children = build(&cluster(spec), &facts());
        let of = children.iter().filter(|child| kind(child) == "Ingress").map(|child| {
            let paths = child.object.data["spec"]["rules"][0]["http"]["paths"].as_array().unwrap();
            (name(child).to_owned(), paths.iter().map(|path| path["path"].as_str().unwrap().to_owned()).collect())
        });
        of.collect::<Vec<(String, Vec<String>)>>()
    };
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(ingresses("dev"), [("prod-logic".to_owned(), strings(&["/goim", "/sub"]))]);
    assert_eq!(ingresses("external"), []);
    let two = [("big-logic".to_owned(), strings(&["/goim"])), ("big-comet".to_owned(), strings(&["/sub"]))];
    assert_eq!(ingresses("everything"), two);
}

#[test]
fn kinds_that_the_cluster_lacks_are_left_out() {
    let bare = Facts { has_service_monitor: false, has_http_route: false, ..facts() };
    for spec in GOLDEN {
        let of = |facts: &Facts| {
            let children = build(&cluster(spec), facts);
            children.iter().map(|child| kind(child).to_owned()).collect::<BTreeSet<_>>()
        };
        let optional: BTreeSet<_> = of(&facts()).difference(&of(&bare)).cloned().collect();
        let expected = match spec {
            "external" => ["HTTPRoute".to_owned()].into(),
            "everything" => ["ServiceMonitor".to_owned()].into(),
            _ => BTreeSet::new(),
        };
        assert_eq!(optional, expected, "{spec}");
    }
}

#[test]
fn the_push_tokens_secret_holds_the_token_for_the_user_and_its_hash_for_logic() {
    let secret = push_token_secret(&cluster("dev"), &facts(), "imc_abc");
    let data = secret.string_data.unwrap();
    assert_eq!(secret.metadata.name.as_deref(), Some("prod-push-token"));
    assert_eq!(secret.metadata.owner_references, Some(vec![facts().owner]));
    assert_eq!(data["token"], "imc_abc");
    let sum = "01031273914c4d7191c361dde889661d5cac767f4e29f64771160e17c75ad326";
    assert_eq!(data["tokens.toml"], format!("[[token]]\nname = \"prod\"\nsha256 = \"{sum}\"\nroutes = [\"*\"]\n"));
    let volume = push_volume(&cluster("dev"));
    assert_eq!(volume["secret"]["optional"], true);
    assert_eq!(volume["secret"]["items"], json!([{"key": "tokens.toml", "path": "tokens.toml"}]));
}

#[test]
fn a_users_own_push_tokens_have_to_be_there() {
    let volume = push_volume(&cluster("external"));
    assert_eq!(volume["secret"]["secretName"], "backends");
    assert!(volume["secret"]["optional"].is_null(), "{volume}");
}

#[test]
fn the_keys_of_clients_tokens_are_mounted_alone_and_in_logic_alone() {
    let ca = serde_json::json!({"name": "authority"});
    for (auth, volume, secret, key) in [
        (serde_json::json!({"jwt": {"secretRef": {"name": "mine"}}}), "jwt", "mine", "secret"),
        (serde_json::json!({"jwt": {"keysSecretRef": {"name": "theirs"}}}), "jwt", "theirs", "keys"),
        (serde_json::json!({"jwt": {"jwksUrl": "https://x", "caSecretRef": ca}}), "auth-ca", "authority", "ca.crt"),
        (serde_json::json!({"webhook": {"url": "https://x", "caSecretRef": ca}}), "auth-ca", "authority", "ca.crt"),
    ] {
        let cluster = changed("dev", |it| it.spec.auth = serde_json::from_value(auth).unwrap());
        for (name, template) in templates(&build(&cluster, &facts())) {
            let volumes = template["spec"]["volumes"].as_array().unwrap();
            let found = volumes.iter().find(|found| found["name"] == volume);
            if name != "prod-logic" {
                assert!(found.is_none(), "{name}");
                continue;
            }
            let source = serde_json::json!({"secretName": secret, "items": [{"key": key, "path": key}]});
            assert_eq!(found.unwrap()["secret"], source);
        }
    }
}

#[test]
fn all_pods_know_each_other_by_one_secret_and_the_clusters_own_name() {
    let secret = |name: &str| Some(crate::crd::InternalTls { secret_name: name.to_owned() });
    let cluster = changed("everything", |it| it.spec.internal_tls = secret("ours"));
    let templates = templates(&build(&cluster, &facts()));
    assert!(templates.len() > 3);
    for (name, template) in &templates {
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == "internal-tls").unwrap_or_else(|| panic!("{name}"));
        let items = ["tls.crt", "tls.key", "ca.crt"].map(|key| json!({"key": key, "path": key}));
        assert_eq!(volume["secret"], json!({"secretName": "ours", "items": items}), "{name}");
    }
    for component in runtime::pod::Component::SERVICES {
        let settings = &cluster.workload(component).fixed["imcluster"];
        assert_eq!(settings["internalTlsName"].as_str(), Some("big.imcluster.internal"));
        assert_eq!(settings["internalTlsCa"].as_str(), Some("/etc/imcluster/secrets/internal-tls/ca.crt"));
    }
    let other = changed("everything", |it| it.spec.internal_tls = secret("other"));
    for component in runtime::pod::Component::SERVICES {
        assert_ne!(restart_hash(&cluster, component), restart_hash(&other, component), "{component:?}");
    }
}

fn push_volume(cluster: &Cluster) -> Value {
    let mounted = templates(&build(cluster, &facts()));
    let logic = mounted.iter().find(|(name, _)| name.ends_with("-logic")).unwrap();
    let volumes = logic.1["spec"]["volumes"].as_array().unwrap();
    volumes.iter().find(|volume| volume["name"] == "push").unwrap().clone()
}

#[test]
fn the_topology_names_zones_and_servers_that_are_new() {
    let updated = vec!["big-comet-1.bbbbbbbb".to_owned(), "big-comet-0.aaaaaaaa".to_owned()];
    let children = build(&cluster("everything"), &Facts { updated_servers: updated, ..facts() });
    let text = find(&children, "ConfigMap", "big-topology")["data"]["topology.toml"].as_str().unwrap().to_owned();
    let topology: runtime::pod::Topology = toml::from_str(&text).unwrap();
    assert_eq!(topology.updated, ["big-comet-0.aaaaaaaa", "big-comet-1.bbbbbbbb"], "in an order that stays");
    assert_eq!(topology.zones["zone-a"].region.as_deref(), Some("bj"));
    assert_eq!(topology.zones["zone-b"].weight, Some(10));
}
