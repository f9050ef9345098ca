//! What restarts which pods, what is only read again, and what neither.

use runtime::pod::Component;

use super::*;

/// Of comet, logic and job: the restart hash and the hash of the live settings.
fn hashes(cluster: &Cluster) -> [(String, String); 3] {
    Component::SERVICES.map(|component| (restart_hash(cluster, component), live_hash(cluster, component)))
}

/// Which of comet, logic and job a change restarts, and which read something again.
fn moved(spec: &str, change: impl FnOnce(&mut ImCluster)) -> ([bool; 3], [bool; 3]) {
    let (before, after) = (hashes(&cluster(spec)), hashes(&changed(spec, change)));
    let differ = |of: fn(&(String, String)) -> &String| [0, 1, 2].map(|at: usize| of(&before[at]) != of(&after[at]));
    (differ(|pair| &pair.0), differ(|pair| &pair.1))
}

const NONE: [bool; 3] = [false; 3];
const COMET: [bool; 3] = [true, false, false];
const LOGIC: [bool; 3] = [false, true, false];

#[test]
fn a_new_image_restarts_all() {
    assert_eq!(moved("dev", |it| it.spec.version = "0.1.1".to_owned()), ([true; 3], NONE));
}

#[test]
fn a_new_topic_restarts_logic_and_job() {
    let change = |it: &mut ImCluster| it.spec.kafka.topic.name = Some("another".to_owned());
    assert_eq!(moved("dev", change), ([false, true, true], NONE));
}

#[test]
fn drain_and_template_of_the_comets_restart_comets_only() {
    assert_eq!(moved("dev", |it| it.spec.comet.drain.max_seconds = 60), (COMET, NONE));
    let template = serde_json::json!({"metadata": {"labels": {"team": "im"}}});
    assert_eq!(moved("dev", |it| it.spec.comet.pod_template = Some(template)), (COMET, NONE));
}

#[test]
fn what_clients_are_told_restarts_logic_only() {
    let advertise = crate::crd::Advertise { host: Some("else.example.com".to_owned()), ..Default::default() };
    assert_eq!(moved("dev", |it| it.spec.comet.advertise = Some(advertise)), (LOGIC, NONE));
}

#[test]
fn a_live_setting_restarts_nobody() {
    let config = |it: &mut ImCluster| {
        it.spec.comet.config = Some(serde_json::from_value(serde_json::json!({"log": "debug"})).unwrap());
    };
    assert_eq!(moved("dev", config), (NONE, COMET));
}

#[test]
fn numbers_policies_and_zones_restart_nobody() {
    assert_eq!(moved("dev", |it| it.spec.comet.replicas = 9), (NONE, NONE));
    assert_eq!(moved("dev", |it| it.spec.comet.rollout.pause_seconds = 1), (NONE, NONE));
    assert_eq!(moved("dev", |it| it.spec.network_policy.enabled = false), (NONE, NONE));
    assert_eq!(moved("dev", |it| it.spec.paused = true), (NONE, NONE));
    let budget = crate::crd::PodDisruptionBudget { enabled: false, max_unavailable: 1 };
    assert_eq!(moved("dev", |it| it.spec.comet.pod_disruption_budget = budget), (NONE, NONE));
    let zone = crate::crd::Zone { name: "a".to_owned(), region: Some("bj".to_owned()), weight: 1 };
    assert_eq!(moved("dev", |it| it.spec.comet.zones = vec![zone]), (NONE, NONE));
}

#[test]
fn facts_never_change_a_pod() {
    let other = Facts {
        comet_partition: 0,
        comet_replicas: 40,
        operator_namespace: None,
        updated_servers: vec!["big-comet-0.aaaaaaaa".to_owned()],
        ..facts()
    };
    for spec in GOLDEN {
        let cluster = cluster(spec);
        assert_eq!(templates(&build(&cluster, &facts())), templates(&build(&cluster, &other)), "{spec}");
    }
}

#[test]
fn the_operators_own_version_never_changes_a_pod() {
    let newer = Operand { version: "0.2.7".to_owned(), ..operand() };
    for name in GOLDEN {
        let (now, then) = (cluster(name), validate(&spec(name), &newer).unwrap());
        assert_eq!(templates(&build(&now, &facts())), templates(&build(&then, &facts())), "{name}");
    }
}

#[test]
fn the_restart_hash_stands_on_the_pod_and_in_the_name_of_the_file_it_reads() {
    let cluster = cluster("dev");
    let children = build(&cluster, &facts());
    for component in Component::SERVICES {
        let hash = restart_hash(&cluster, component);
        let name = format!("prod-{}", component.name());
        let (_, template) = templates(&children).into_iter().find(|(of, _)| *of == name).unwrap();
        assert_eq!(template["metadata"]["annotations"]["imcluster.dev/restart"], hash);
        assert_eq!(template["spec"]["volumes"][0]["configMap"]["name"], format!("{name}-{hash}"));
        assert_eq!(find(&children, "ConfigMap", &format!("{name}-{hash}"))["immutable"], true);
        let live = find(&children, "ConfigMap", &format!("{name}-live"))["data"]["live.toml"].clone();
        assert_eq!(runtime::pod::live_hash(live.as_str().unwrap().as_bytes()), live_hash(&cluster, component));
    }
}

#[test]
fn development_servers_restart_for_their_settings_and_image_only() {
    let of = |cluster: &Cluster| [Component::Kafka, Component::Redis].map(|it| restart_hash(cluster, it));
    let before = of(&cluster("dev"));
    assert_eq!(before, of(&changed("dev", |it| it.spec.version = "0.1.1".to_owned())));
    let image = |it: &mut ImCluster| it.spec.redis.dev.as_mut().unwrap().image = Some("redis:8".to_owned());
    let after = of(&changed("dev", image));
    assert_eq!((before[0] == after[0], before[1] == after[1]), (true, false));
}
