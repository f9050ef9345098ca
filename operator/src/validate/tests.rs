//! What a spec leaves open and what is made of it; what cannot be followed and what is said then.

use serde_json::{Value, json};

use super::*;

fn operand() -> Operand {
    Operand { image: "example.com/imcluster".to_owned(), version: "0.3.4".to_owned() }
}

/// The smallest spec with changes merged over it.
fn with(changes: Value) -> Result<Cluster, Invalid> {
    let mut object = json!({
        "apiVersion": "imcluster.dev/v1alpha1",
        "kind": "ImCluster",
        "metadata": {"name": "prod", "namespace": "im"},
        "spec": {"version": "0.3.0", "auth": {"trust": {}}, "kafka": {"dev": {}}, "redis": {"dev": {}}},
    });
    merge(&mut object["spec"], changes);
    validate(&serde_json::from_value(object).unwrap(), &operand())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

fn refused(changes: Value) -> String {
    with(changes).unwrap_err().to_string()
}

fn setting<'a>(workload: &'a Workload, name: &str) -> Option<&'a toml::Value> {
    workload.fixed["imcluster"].get(name)
}

#[test]
fn what_is_left_out_has_a_default() {
    let cluster = with(json!({})).unwrap();
    assert_eq!(cluster.image.reference, "example.com/imcluster:0.3.0");
    assert_eq!(cluster.push_token, PushToken { secret: "prod-push-token".to_owned(), is_ours: true });
    let topic = Topic { name: "im.prod.push".to_owned(), partitions: 9, replication: 1, create: true };
    assert_eq!(cluster.kafka.topic, topic);
    assert_eq!(cluster.kafka.brokers, ["prod-kafka.im.svc:9092"]);
    assert_eq!(cluster.redis.addresses, ["prod-redis.im.svc:6379"]);
    assert_eq!((cluster.redis.prefix.as_str(), cluster.job.group.as_str()), ("im:prod:", "im.prod.job"));
    assert_eq!((cluster.comet.workload.replicas, cluster.logic.workload.replicas), (2, 2));
    assert_eq!(cluster.comet.workload.grace_seconds, 10 + 300 + 15 + 10);
    assert_eq!(cluster.network_policy, Some(vec![]));
    assert_eq!((cluster.comet.ingress, cluster.logic.ingress, cluster.service_monitor), (None, None, None));
    assert!(with(json!({})).unwrap().is_for_development());
}

#[test]
fn external_dependencies_have_three_replicas_and_secrets_as_files() {
    let cluster = with(json!({
        "kafka": {"dev": null, "external": {
            "bootstrapServers": ["k:9093"],
            "tls": {"caSecretRef": {"name": "ca"}},
            "sasl": {"mechanism": "SCRAM-SHA-256", "secretRef": {"name": "login"}},
        }},
        "redis": {"dev": null, "external": {"addresses": ["r:6380"], "credentialsSecretRef": {"name": "acl"}}},
    }))
    .unwrap();
    assert_eq!(cluster.kafka.topic.replication, 3);
    assert!(!cluster.is_for_development());
    for workload in [&cluster.logic.workload, &cluster.job.workload] {
        let text = |name: &str| setting(workload, name).unwrap().as_str().unwrap().to_owned();
        assert_eq!(text("kafkaCaFile"), "/etc/imcluster/secrets/kafka-ca/ca.crt");
        assert_eq!(text("kafkaSasl"), "SCRAM-SHA-256");
        assert_eq!(text("kafkaPasswordFile"), "/etc/imcluster/secrets/kafka-sasl/password");
    }
    let logic = &cluster.logic.workload;
    assert_eq!(
        setting(logic, "redisUsernameFile").unwrap().as_str(),
        Some("/etc/imcluster/secrets/redis-login/username")
    );
    assert_eq!(setting(&cluster.job.workload, "redisAddr"), None, "job does not know Redis");
}

#[test]
fn a_digest_wins_over_the_version() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let cluster = with(json!({"image": {"repository": "mirror.example.com/im", "digest": digest}})).unwrap();
    assert_eq!(cluster.image.reference, format!("mirror.example.com/im@{digest}"));
}

#[test]
fn versions_of_this_minor_and_the_one_before_are_known() {
    for version in ["0.3.0", "0.3.99", "0.2.0", "0.3.0-rc.1"] {
        assert_eq!(with(json!({"version": version})).unwrap().version, version);
    }
    for version in ["0.4.0", "0.1.9", "1.3.0", "0.3", "latest", "0.3.x", "0.3.1.2"] {
        let invalid = with(json!({"version": version})).unwrap_err();
        assert!(matches!(&invalid, Invalid::Version { wanted, .. } if wanted == version), "{invalid}");
    }
    let said = refused(json!({"version": "0.4.0"}));
    assert!(
        said.contains("the operator 0.3.4 runs 0.3.x and 0.2.x") && said.contains("upgrade the operator"),
        "{said}"
    );
}

#[test]
fn what_clients_are_told_follows_the_way_they_come() {
    let told = |changes: Value| {
        let cluster = with(changes).unwrap();
        let of = |name: &str| setting(&cluster.logic.workload, name).cloned();
        let port = |name: &str| of(name).unwrap().as_integer().unwrap();
        let host = of("defaultDomain").map(|host| host.as_str().unwrap().to_owned());
        (host, [port("tcpPort"), port("wsPort"), port("wssPort"), port("tcpsPort")])
    };
    let host = Some("im.example.com".to_owned());
    assert_eq!(told(json!({})), (None, [3101, 3102, 0, 0]));
    let ingress = json!({"logic": {"ingress": {"host": "im.example.com"}}});
    assert_eq!(told(ingress.clone()), (host.clone(), [3101, 80, 0, 0]));
    let secure = json!({"logic": {"ingress": {"host": "im.example.com", "tls": {"secretName": "cert"}}}});
    assert_eq!(told(secure), (host.clone(), [3101, 80, 443, 0]));
    let tls = json!({"comet": {"listeners": {"tls": {"secretName": "cert"}}}});
    assert_eq!(told(tls), (None, [3101, 3102, 3103, 3104]));
    let mut said = ingress;
    merge(&mut said, json!({"comet": {"advertise": {"host": "im.example.com", "tcpPort": 30001, "wsPort": 0}}}));
    assert_eq!(told(said), (host, [30001, 0, 0, 0]));
}

#[test]
fn the_comets_ingress_is_logics_until_it_says_otherwise() {
    let ingress = |comet: Value| {
        let logic = json!({"ingress": {"host": "im.example.com", "className": "web", "tls": {"secretName": "cert"}}});
        with(json!({"logic": logic, "comet": comet})).unwrap().comet.ingress
    };
    let like = ingress(json!({})).unwrap();
    assert_eq!((like.host.as_str(), like.tls_secret.as_deref()), ("im.example.com", Some("cert")));
    assert_eq!(ingress(json!({"ingress": {"enabled": false}})), None);
    let other = ingress(json!({"ingress": {"host": "ws.example.com"}})).unwrap();
    assert_eq!(
        (other.class.as_deref(), other.tls_secret),
        (Some("web"), None),
        "the certificate is for the other name"
    );
    let said = refused(json!({"comet": {"ingress": {"enabled": true}}}));
    assert!(said.starts_with("spec.comet.ingress.host: expected a name"), "{said}");
}

#[test]
fn overrides_come_last_and_what_the_cluster_decides_is_not_theirs() {
    let cluster = with(json!({"job": {
        "config": {"batchCount": 5, "cometStall": "5s"},
        "configOverrides": {"imcluster": {"comet-stall": "7s", "batch_count": 6, "kafkaSet": ["client.rack=a"]}, "room": {"idle": "1m"}},
    }}))
    .unwrap();
    let job = &cluster.job.workload;
    assert_eq!((setting(job, "cometStall"), setting(job, "comet-stall")), (None, Some(&"7s".into())));
    assert_eq!(job.fixed["room"]["idle"].as_str(), Some("1m"));
    assert_eq!(job.live.get("batchCount"), None, "the live file would win over the override");
    for key in ["kafkaTopic", "kafka-topic", "group", "comets", "admin", "live"] {
        let said = refused(json!({"job": {"configOverrides": {"imcluster": {key: "x"}}}}));
        assert!(
            said.starts_with(&format!("spec.job.configOverrides.imcluster.{key}: is decided by the cluster")),
            "{said}"
        );
    }
    for bad in [json!("a = 1"), json!([1]), json!({"imcluster": {"log": [null]}})] {
        let said = refused(json!({"comet": {"configOverrides": bad}}));
        assert!(said.starts_with("spec.comet.configOverrides: "), "{said}");
    }
}

#[test]
fn a_flush_that_is_overridden_must_be_a_duration() {
    let said = refused(json!({"job": {"configOverrides": {"imcluster": {"flush": "soon"}}}}));
    assert!(said.starts_with("spec.job.configOverrides.imcluster.flush: expected a duration"), "{said}");
}

#[test]
fn live_settings_stand_in_the_live_file_alone() {
    let cluster = with(json!({"comet": {"config": {"shards": 3, "maxConnections": 7, "log": "debug"}}})).unwrap();
    let comet = &cluster.comet.workload;
    assert_eq!(setting(comet, "shards").and_then(toml::Value::as_integer), Some(3));
    assert_eq!(setting(comet, "maxConnections"), None);
    assert_eq!(comet.live.to_string(), "log = \"debug\"\nmaxConnections = 7\n");
}

#[test]
fn a_pod_template_of_the_wrong_shape_is_named() {
    for (template, expected) in [
        (
            json!({"spec": {"containers": [{"name": "comet", "env": "x"}]}}),
            "spec.comet.podTemplate: expected a pod template",
        ),
        (
            json!({"spec": {"contaners": []}, "metadata": {"label": {"a": "b"}}}),
            "spec.comet.podTemplate.metadata.label: is no field",
        ),
        (
            json!({"spec": {"containers": [{"name": "comet", "imagePolicy": "Always"}]}}),
            "spec.comet.podTemplate.spec.containers.0.imagePolicy: is no field",
        ),
        (json!({"spec": {"containers": [{"image": "x"}]}}), "spec.comet.podTemplate: every container needs a name"),
        (json!("x"), "spec.comet.podTemplate: expected a pod template"),
    ] {
        let said = refused(json!({"comet": {"podTemplate": template}}));
        assert!(said.starts_with(expected), "{said}");
    }
    assert!(with(json!({"comet": {"podTemplate": null}})).is_ok());
}

#[test]
fn zones_with_jobs_of_their_own_can_name_deployments() {
    let zones = |zones: Value| with(json!({"comet": {"zones": zones}, "job": {"mode": "PerZone"}}));
    let cluster = zones(json!([{"name": "a"}, {"name": "b"}])).unwrap();
    assert_eq!(cluster.job.zones, ["a", "b"]);
    assert_eq!(setting(&cluster.job.workload, "group"), None, "each zone's stands in its environment");
    assert!(zones(json!([])).unwrap_err().to_string().starts_with("spec.comet.zones: expected the zones"));
    assert!(zones(json!([{"name": "Zone.A"}])).unwrap_err().to_string().contains("`Zone.A` names a Deployment"));
    assert!(with(json!({"comet": {"zones": [{"name": "Zone.A"}]}})).is_ok(), "without jobs of its own it may");
}

#[test]
fn what_cel_would_have_refused_is_refused_here_too() {
    assert!(refused(json!({"auth": {"trust": null}})).starts_with("spec.auth: expected one of trust"));
    assert!(
        refused(json!({"auth": {"jwt": {"jwksUrl": "https://id.example"}}})).starts_with("spec.auth: expected one")
    );
    assert!(refused(json!({"auth": {"trust": null, "jwt": {}}})).starts_with("spec.auth.jwt: expected one of"));
    assert!(refused(json!({"kafka": {"dev": null}})).starts_with("spec.kafka: expected exactly one"));
    assert!(refused(json!({"redis": {"dev": null}})).starts_with("spec.redis: expected exactly one"));
    assert!(
        refused(json!({"comet": {"listeners": {"tcp": {"port": 70000}}}})).starts_with("spec.comet.listeners.tcp.port")
    );
    assert!(refused(json!({"logic": {"ingress": {}}})).starts_with("spec.logic.ingress.host"));
}
