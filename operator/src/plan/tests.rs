pub(crate) mod world;

use serde_json::json;
use world::{BAD, World, key, seen};

use super::*;
use crate::events::Reason;
use crate::observe::Pod;

fn running() -> World {
    let mut world = World::new(json!({}));
    world.settle();
    world.actions.clear();
    world
}

fn yes(reason: &str) -> (String, String) {
    ("True".to_owned(), reason.to_owned())
}

fn no(reason: &str) -> (String, String) {
    ("False".to_owned(), reason.to_owned())
}

#[test]
fn at_creation_everything_is_applied_at_once_and_ready_comes_last() {
    let mut world = World::new(json!({}));
    let first = world.plan();
    let stages: Vec<_> = first.applies.iter().map(|apply| apply.stage).collect();
    assert!(stages.is_sorted(), "{stages:?}");
    let comet = first.applies.iter().find(|apply| apply.key == key("StatefulSet", "prod-comet")).unwrap();
    assert_eq!(comet.first_replicas, Some(3));
    assert!(first.push_token.is_some() && first.action.is_none() && first.deletes.is_empty());
    world.turn();
    assert_eq!(world.condition("Ready"), no("LogicNotReady"));
    world.settle();
    assert_eq!(world.condition("Ready"), yes("PushesFlow"));
    assert_eq!(world.comets().len(), 3);
    assert!(world.actions.is_empty(), "{:?}", world.actions);
    assert!(world.notes.iter().any(|note| note.reason == Reason::Created));
}

#[test]
fn a_world_that_is_as_it_should_be_is_left_alone() {
    let mut world = running();
    world.turns(3);
    let before = world.changes;
    world.turns(100);
    assert_eq!(world.changes, before);
    let next = world.plan();
    assert!(next.action.is_none() && next.deletes.is_empty() && next.push_token.is_none() && next.requeue == 0);
}

#[test]
fn replicas_are_handed_over_before_the_body_stops_naming_them() {
    let mut world = World::new(json!({}));
    world.turns(2);
    let set = world.set().clone();
    assert_eq!(seen(&set).workload.unwrap().replicas, 3, "dropped without a word, they would be 1");
    assert!(seen(&set).workload.unwrap().others_own_replicas);
}

#[test]
fn a_new_version_goes_logic_then_job_then_one_drained_comet_after_the_other() {
    let mut world = running();
    world.edit(json!({ "version": "0.1.1" }));
    world.turn();
    let image = |world: &World, kind: &str, name: &str| world.objects[&key(kind, name)].data.to_string();
    assert!(image(&world, "Deployment", "prod-logic").contains(":0.1.1"));
    assert!(!image(&world, "Deployment", "prod-job").contains(":0.1.1"), "job waits for logic");
    assert!(!image(&world, "StatefulSet", "prod-comet").contains(":0.1.1"), "comet waits for both");
    assert_eq!(world.condition("Progressing"), yes("RollingLogic"));
    world.settle();
    assert_eq!(world.lowered(), [2, 1, 0]);
    assert_eq!(world.lost, 0, "each was drained first");
    assert_eq!(world.condition("Ready"), yes("PushesFlow"));
    let set = seen(world.set()).workload.unwrap();
    assert_eq!(set.current_revision, set.update_revision);
    world.turns(2);
    assert_eq!(seen(world.set()).workload.unwrap().partition, Some(crate::build::AT_REST));
    let said = |reason| world.notes.iter().filter(|note| note.reason == reason).count();
    assert_eq!((said(Reason::PodDrainStarted), said(Reason::PodDrained)), (3, 3));
    assert_eq!(world.cluster.status.as_ref().unwrap().version.as_ref().unwrap().current.as_deref(), Some("0.1.1"));
}

#[test]
fn new_servers_are_told_first_while_a_roll_goes_on() {
    let mut world = running();
    world.edit(json!({ "version": "0.1.1" }));
    while world.lowered().len() < 2 {
        world.turn();
    }
    let topology = world.objects[&key("ConfigMap", "prod-topology")].data.to_string();
    assert!(topology.contains("prod-comet-2."), "{topology}");
    world.settle();
    world.turns(2);
    let topology = world.objects[&key("ConfigMap", "prod-topology")].data.to_string();
    assert!(!topology.contains("prod-comet-"), "{topology}");
}

#[test]
fn a_drain_is_renewed_and_its_deadline_ends_it() {
    let mut world = running();
    world.edit(
        json!({ "comet": { "drain": { "maxSeconds": 10, "delaySeconds": 0, "minSeconds": 0, "flushSeconds": 0 } } }),
    );
    world.turns(8);
    // The pod goes on saying that it has clients.
    for _ in 0..20 {
        let next = world.plan();
        if let Some(Action::LowerPartition { is_forced, .. }) = &next.action {
            assert!(is_forced);
            let reasons: Vec<_> = next.action_notes.iter().map(|note| note.reason).collect();
            assert_eq!(reasons, [Reason::DrainDeadlineExceeded]);
            return;
        }
        world.carry_out(next);
        world.live();
        for pod in &mut world.pods {
            if let Some(report) = pod.report.as_mut() {
                report.drained = report.drained.map(|_| false);
                report.connections = report.connections.map(|_| 100);
            }
        }
    }
    panic!("the deadline never came: {:?}", world.actions);
}

#[test]
fn a_drained_comet_is_let_go_when_nine_in_ten_of_its_clients_are_on_the_others() {
    for edit in [json!({ "version": "0.1.1" }), json!({ "comet": { "replicas": 2 } })] {
        let mut world = running();
        world.back = 89;
        world.edit(edit);
        let step = |world: &World| world.plan().status.rollout.and_then(|rollout| rollout.step);
        while step(&world).as_deref() != Some("WaitingForClients") {
            world.turn();
        }
        let goes =
            |world: &World| matches!(world.plan().action, Some(Action::LowerPartition { .. } | Action::ScaleIn { .. }));
        world.turn();
        assert!(!goes(&world), "eleven are missing");
        world.back = 90;
        world.live();
        assert!(goes(&world), "{:?}", world.plan().action);
        world.settle();
        assert_eq!(world.lost, 0);
    }
}

#[test]
fn clients_that_never_come_back_are_not_waited_for_beyond_the_deadline_and_are_told() {
    let mut world = running();
    world.back = 0;
    world.edit(json!({ "comet": { "replicas": 2 } }));
    let mut deadline = None;
    world.settle_and(|world| {
        let next = world.plan();
        if let Some(Action::ScaleIn { is_forced, .. }) = &next.action {
            assert!(!is_forced, "it has no clients left");
            let said = [Note::new(
                Reason::PodDrained,
                "prod-comet-2: no clients left, and 100 of them not back elsewhere".to_owned(),
            )];
            assert_eq!(next.action_notes, said);
            assert!(deadline.is_some_and(|deadline| world.now >= deadline), "{deadline:?}");
        }
        deadline = deadline.or(next.status.rollout.and_then(|rollout| rollout.deadline).map(|time| time.0));
    });
    assert_eq!((world.comets().len(), world.lost), (2, 0));
}

#[test]
fn scale_in_takes_one_drained_pod_at_a_time_and_scale_out_all_at_once() {
    let mut world = running();
    world.edit(json!({ "comet": { "replicas": 1 } }));
    world.settle();
    let scaled: Vec<_> = world.actions.iter().filter(|action| matches!(action, Action::ScaleIn { .. })).collect();
    assert!(matches!(scaled.as_slice(), [Action::ScaleIn { to: 2, .. }, Action::ScaleIn { to: 1, .. }]), "{scaled:?}");
    assert_eq!((world.lost, world.comets().len()), (0, 1));
    world.actions.clear();
    world.edit(json!({ "comet": { "replicas": 4 } }));
    world.settle();
    assert!(matches!(world.actions.as_slice(), [Action::ScaleOut { to: 4, .. }]), "{:?}", world.actions);
}

#[test]
fn a_scale_in_that_is_called_off_lets_the_pod_serve_again() {
    let mut world = running();
    world.edit(json!({ "comet": { "replicas": 2 } }));
    world.turns(2);
    assert!(matches!(world.actions.as_slice(), [Action::DrainLease { .. }]), "{:?}", world.actions);
    world.edit(json!({ "comet": { "replicas": 3 } }));
    world.settle();
    assert_eq!(world.comets().len(), 3);
    assert!(!world.actions.iter().any(|action| matches!(action, Action::ScaleIn { .. })));
}

#[test]
fn a_canary_stays_where_it_was_put() {
    let mut world = running();
    world.edit(json!({ "version": "0.1.1", "comet": { "rollout": { "partition": 2 } } }));
    world.settle();
    world.turns(20);
    assert_eq!(world.lowered(), [2]);
    let restarts: Vec<_> = world.comets().iter().map(|pod| pod.restart.clone()).collect();
    assert!(restarts[0] == restarts[1] && restarts[1] != restarts[2]);
    assert_eq!(seen(world.set()).workload.unwrap().partition, Some(2), "a canary that restarts stays one");
    world.edit(json!({ "comet": { "rollout": { "partition": 0 } } }));
    world.settle();
    assert_eq!(world.lowered(), [2, 1, 0]);
}

#[test]
fn paused_means_that_only_the_status_is_written() {
    let mut world = running();
    world.edit(json!({ "version": "0.1.1", "paused": true, "comet": { "replicas": 5 } }));
    let next = world.plan();
    assert!(next.applies.is_empty() && next.deletes.is_empty() && next.action.is_none());
    world.turns(10);
    assert_eq!(world.condition("ReconciliationPaused"), yes("Paused"));
    assert_eq!(world.comets().len(), 3);
    world.edit(json!({ "paused": false }));
    world.settle();
    assert_eq!(world.comets().len(), 5);
}

#[test]
fn a_bad_image_stops_at_logic_and_a_good_one_heals_it() {
    let mut world = running();
    world.edit(json!({ "version": BAD }));
    world.turns(20);
    assert_eq!(world.condition("Progressing"), no("Stalled"));
    assert!(
        world.message("Progressing").contains("ImagePullBackOff: manifest unknown"),
        "{}",
        world.message("Progressing")
    );
    assert!(world.message("Progressing").contains("prod-logic-"));
    assert!(world.actions.is_empty(), "no comet was touched");
    assert_eq!(world.condition("Ready"), yes("PushesFlow"), "the old pods serve on");
    world.edit(json!({ "version": "0.1.0" }));
    world.settle();
    assert!(world.lowered().is_empty());
}

#[test]
fn a_comet_that_the_last_spec_broke_is_let_go_first() {
    let mut world = running();
    world.edit(json!({ "comet": { "podTemplate": { "metadata": { "labels": { "note": BAD } } } } }));
    world.turns(40);
    assert_eq!(world.lowered(), [2], "one is enough to see that it does not work");
    assert_eq!(world.condition("Progressing"), no("Stalled"));
    assert!(world.message("Ready").contains("prod-comet-2: ImagePullBackOff"), "{}", world.message("Ready"));
    world.actions.clear();
    world.edit(json!({ "comet": { "podTemplate": { "metadata": { "labels": { "note": "good" } } } } }));
    world.settle();
    assert_eq!(world.lowered(), [2, 1, 0]);
    assert_eq!(world.lost, 0);
    let drained =
        world.actions.iter().filter(|action| matches!(action, Action::DrainLease { pod, .. } if pod.ends_with("-2")));
    assert_eq!(drained.count(), 0, "nobody was on it");
}

#[test]
fn it_is_not_ready_before_the_nodes_can_know_the_addresses_and_looks_again_soon() {
    let mut world = World::new(json!({}));
    let mut waited = 0;
    world.settle_and(|world| {
        let next = world.plan();
        if status::is_spreading(&next.status) {
            assert!(world.pods.iter().filter(|pod| pod.component.is_some()).all(Pod::is_ready));
            assert!((1..=5).contains(&next.requeue), "{}", next.requeue);
            waited += 1;
        }
    });
    assert!(waited > 0);
    assert_eq!(world.condition("Ready"), yes("PushesFlow"));
}

#[test]
fn comets_that_never_worked_are_all_replaced_without_a_drain() {
    let mut world = World::new(json!({ "version": BAD }));
    world.turns(20);
    assert_eq!(world.condition("Progressing"), no("Stalled"));
    world.edit(json!({ "version": "0.1.0" }));
    world.settle();
    assert!(!world.actions.iter().any(|action| matches!(action, Action::DrainLease { .. })), "{:?}", world.actions);
    assert_eq!(world.condition("Ready"), yes("PushesFlow"));
}

#[test]
fn a_comet_that_is_evicted_in_a_roll_comes_back_old_and_waits_for_its_turn() {
    let mut world = running();
    world.edit(json!({ "version": "0.1.1" }));
    while world.lowered().is_empty() {
        world.turn();
    }
    let old = world.comets()[0].restart.clone();
    world.pods.retain(|pod| pod.name != "prod-comet-0");
    world.turn();
    world.turn();
    assert_eq!(world.comets()[0].restart, old);
    world.settle();
    assert_eq!(world.lowered(), [2, 1, 0]);
    assert_eq!(world.lost, 0);
}

#[test]
fn the_newest_spec_is_the_target_also_in_the_middle_of_a_roll() {
    let mut world = running();
    world.edit(json!({ "version": "0.1.1" }));
    while world.lowered().len() < 2 {
        world.turn();
    }
    world.edit(json!({ "version": "0.1.0" }));
    world.settle();
    assert_eq!(world.lost, 0, "a partition that is low for one revision lets nobody of another through");
    let restarts: std::collections::BTreeSet<_> = world.comets().iter().map(|pod| pod.restart.clone()).collect();
    assert_eq!(restarts.len(), 1);
}

#[test]
fn no_drain_starts_while_the_disruption_budget_is_used_up() {
    let mut world = running();
    let budget = world.objects.get_mut(&key("PodDisruptionBudget", "prod-comet")).unwrap();
    budget.data["status"] = json!({ "disruptionsAllowed": 0 });
    world.edit(json!({ "comet": { "replicas": 2 } }));
    let next = world.plan();
    assert!(next.action.is_none());
    assert_eq!(next.status.rollout.unwrap().step.as_deref(), Some("WaitingForDisruptionBudget"));
}

#[test]
fn no_comet_is_drained_whose_clients_the_others_cannot_take() {
    let spellings = [
        json!({ "comet": { "config": { "maxConnections": 149 } } }),
        json!({ "comet": { "configOverrides": { "imcluster": { "max-connections": 149 } } } }),
    ];
    for (spelling, edit) in spellings.iter().zip([json!({ "version": "0.1.1" }), json!({ "comet": { "replicas": 2 } })])
    {
        let mut world = World::new(spelling.clone());
        world.settle();
        world.edit(edit);
        world.turns(20);
        assert_eq!(world.condition("Progressing"), yes("WaitingForCapacity"));
        let text = "prod-comet-2 is not drained: with maxConnections 149 the other comets cannot take its clients; raise \
                    spec.comet.config.maxConnections or spec.comet.replicas";
        assert_eq!(world.message("Progressing"), text);
        assert_eq!((world.comets().len(), world.actions.len()), (3, 0), "{:?}", world.actions);
        let rollout = world.cluster.status.as_ref().unwrap().rollout.clone().unwrap();
        assert_eq!(rollout.step.as_deref(), Some("WaitingForCapacity"));
        assert_eq!(world.condition("Ready"), yes("PushesFlow"));
        let before = world.changes;
        world.turns(20);
        assert_eq!(world.changes, before, "waiting writes nothing");
    }
}

#[test]
fn room_that_is_made_lets_the_drain_begin() {
    let mut world = World::new(json!({ "comet": { "config": { "maxConnections": 149 } } }));
    world.settle();
    world.edit(json!({ "version": "0.1.1" }));
    world.turns(20);
    assert_eq!(world.condition("Progressing"), yes("WaitingForCapacity"));
    world.edit(json!({ "comet": { "config": { "maxConnections": 150 } } }));
    world.settle();
    assert_eq!((world.lowered(), world.lost), (vec![2, 1, 0], 0));
}

#[test]
fn a_comet_that_does_not_serve_and_one_that_is_alone_are_not_kept_for_their_clients() {
    let mut world = World::new(json!({ "comet": { "config": { "maxConnections": 100 } } }));
    world.settle();
    world.edit(json!({ "comet": { "replicas": 2 } }));
    assert!(world.plan().action.is_none());
    world.pods.iter_mut().find(|pod| pod.name == "prod-comet-2").unwrap().ready_since = None;
    assert!(matches!(world.plan().action, Some(Action::DrainLease { pod, .. }) if pod == "prod-comet-2"));
    let mut alone = World::new(json!({ "comet": { "replicas": 1, "config": { "maxConnections": 100 } } }));
    alone.settle();
    alone.edit(json!({ "version": "0.1.1" }));
    alone.settle();
    assert_eq!(alone.lowered(), [0]);
}

#[test]
fn an_autoscaler_comes_and_goes_without_a_change_of_how_many_run() {
    let mut world = running();
    let replicas = |world: &World| seen(&world.objects[&key("Deployment", "prod-logic")]).workload.unwrap().replicas;
    world.edit(json!({ "logic": { "autoscaling": { "min": 2, "max": 9, "cpu": 80 } } }));
    world.turns(3);
    assert_eq!(replicas(&world), 2);
    let logic = world.objects.get_mut(&key("Deployment", "prod-logic")).unwrap();
    logic.data["spec"]["replicas"] = json!(7);
    world.turns(5);
    assert_eq!(replicas(&world), 7, "the autoscaler's number stays");
    world.cluster.spec.logic.autoscaling = None;
    world.edit(json!({}));
    world.turns(5);
    assert_eq!(replicas(&world), 7);
    assert!(!world.objects.contains_key(&key("HorizontalPodAutoscaler", "prod-logic")));
    world.edit(json!({ "logic": { "replicas": 3 } }));
    world.turns(5);
    assert_eq!(replicas(&world), 3);
}

#[test]
fn a_strangers_object_is_named_and_left_alone() {
    let mut world = running();
    let foreign = key("Service", "prod-logic");
    let stranger = world.objects.get_mut(&foreign).unwrap();
    stranger.metadata.owner_references = None;
    stranger.data["spec"]["ports"] = json!([]);
    let before = stranger.clone();
    world.turns(3);
    assert_eq!(world.objects[&foreign], before);
    assert_eq!(world.condition("Progressing"), no("ForeignObject"));
    assert!(world.message("Progressing").contains("Service prod-logic"));
    assert!(!world.plan().deletes.iter().any(|delete| delete.key == foreign));
}

#[test]
fn orphans_are_deleted_by_their_uid_and_configuration_only_when_nobody_reads_it() {
    let mut world = running();
    world.edit(json!({ "version": "0.1.1", "comet": { "config": { "heartbeat": null } } }));
    world.settle();
    let mut orphan = world.objects[&key("ConfigMap", "prod-topology")].clone();
    orphan.metadata.name = Some("prod-comet-0000000000".into());
    orphan.metadata.uid = Some("orphan".into());
    world.objects.insert(key("ConfigMap", "prod-comet-0000000000"), orphan.clone());
    let mut strangers = orphan.clone();
    strangers.metadata.owner_references = None;
    world.objects.insert(key("ConfigMap", "prod-comet-1111111111"), strangers);
    world.pods[0].config_maps = ["prod-comet-0000000000".to_owned()].into();
    assert!(world.plan().deletes.is_empty(), "a pod still reads it");
    world.pods[0].config_maps.clear();
    let deletes = world.plan().deletes;
    assert_eq!(deletes.len(), 1);
    assert_eq!(deletes[0].uid, "orphan");
    world.edit(json!({ "version": "0.1.2" }));
    assert!(world.plan().deletes.is_empty(), "while anything changes every configuration stays");
}

#[test]
fn a_version_that_another_operator_would_run_changes_nothing() {
    let mut world = running();
    world.edit(json!({ "version": "0.9.0" }));
    let next = world.plan();
    assert!(next.applies.is_empty() && next.deletes.is_empty() && next.action.is_none());
    world.turns(3);
    assert_eq!(world.condition("VersionSupported"), no("VersionNotSupported"));
    assert_eq!(world.condition("Ready"), no("VersionNotSupported"));
    world.edit(json!({ "version": "0.1.0" }));
    world.settle();
    assert_eq!(world.condition("VersionSupported"), yes("Supported"));
}

#[test]
fn pods_are_told_once_about_settings_that_they_have_not_read() {
    let mut world = running();
    let hash = world.plan().applies.iter().find_map(|apply| {
        let text = apply.object.data.pointer("/data/live.toml").filter(|_| apply.key.name == "prod-comet-live")?;
        Some(runtime::pod::live_hash(text.as_str()?.as_bytes()))
    });
    let comet = world.pods.iter_mut().find(|pod| pod.name == "prod-comet-0").unwrap();
    comet.report.as_mut().unwrap().config_hash = Some("old".into());
    let reloads = world.plan().reloads;
    assert_eq!(reloads.len(), 1);
    assert_eq!((Some(&reloads[0].hash), reloads[0].pod.as_str()), (hash.as_ref(), "prod-comet-0"));
    assert_eq!(
        world.plan().status.conditions.iter().find(|held| held.type_ == "ConfigInSync").unwrap().reason,
        "Reloading"
    );
    world.pods.iter_mut().find(|pod| pod.name == "prod-comet-0").unwrap().config = hash;
    assert!(world.plan().reloads.is_empty());
}

#[test]
fn a_pod_on_a_lost_node_is_deleted_only_when_its_time_is_over() {
    let mut world = running();
    let later = Timestamp::from_second(world.now.as_second() + 60).unwrap();
    let pod = world.pods.iter_mut().find(|pod| pod.name == "prod-comet-1").unwrap();
    (pod.is_node_lost, pod.dies) = (true, Some(later));
    assert!(world.plan().action.is_none());
    world.now = Timestamp::from_second(later.as_second() + 1).unwrap();
    assert!(matches!(world.plan().action, Some(Action::ForceDelete { pod, .. }) if pod == "prod-comet-1"));
}

#[test]
fn dependencies_that_fail_are_named_by_pod_and_cause() {
    let mut world = running();
    let logic = world.pods.iter_mut().find(|pod| pod.name.starts_with("prod-logic")).unwrap();
    let kafka = logic.report.as_mut().unwrap().dependencies.get_mut("kafka").unwrap();
    (kafka.up, kafka.error) = (false, Some("SASL authentication error".into()));
    let next = world.plan();
    let held = |kind: &str| next.status.conditions.iter().find(|held| held.type_ == kind).unwrap().clone();
    assert_eq!(held("DependenciesReady").reason, "KafkaAuthFailed");
    assert_eq!((held("Ready").status.as_str(), held("Degraded").status.as_str()), ("False", "True"));
    assert!(next.notes.iter().any(|note| note.reason == Reason::DependencyMissing));
}

#[test]
fn a_logic_that_lets_nobody_push_makes_nothing_ready() {
    let mut world = running();
    let logic = world.pods.iter_mut().find(|pod| pod.name.starts_with("prod-logic")).unwrap();
    logic.report.as_mut().unwrap().push_tokens = Some("missing".into());
    let next = world.plan();
    let ready = next.status.conditions.iter().find(|held| held.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "SecretNotFound"));
    assert!(ready.message.contains("prod-push-token"), "{}", ready.message);
    assert!(next.push_token.is_some(), "it is made again");
}

#[test]
fn a_setting_that_a_pod_refuses_is_named_at_its_first_end_and_again_when_it_is_another() {
    for (component, reason) in [("logic", "RollingLogic"), ("job", "RollingJob"), ("comet", "RollingComet")] {
        let mut world = running();
        let before: Vec<String> = world.pods.iter().map(|pod| pod.uid.clone()).collect();
        let overrides = json!({ "imcluster": { "what": 1 } });
        world.edit(json!({ component: { "configOverrides": overrides } }));
        let is_new = |pod: &Pod| pod.component.unwrap().name() == component && !before.contains(&pod.uid);
        while !world.pods.iter().any(is_new) {
            world.turn();
        }
        world.turn();
        assert_eq!(world.condition("Progressing"), yes(reason));
        let refuses = |world: &mut World, what: &str| {
            let pod = world.pods.iter_mut().find(|pod| is_new(pod)).unwrap();
            (pod.ready_since, pod.created) = (None, world.now);
            let message =
                format!("imcluster: /etc/{component}.toml: imcluster.{what} is not a setting of {component}\n");
            let ended = json!({ "exitCode": 64, "reason": "Error", "message": message });
            let container = json!({
                "name": component, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": ended },
            });
            let status = json!({ "metadata": {}, "status": { "containerStatuses": [container] } });
            pod.trouble = Pod::of(&serde_json::from_value(status).unwrap()).trouble;
            let name = pod.name.clone();
            let next = world.plan();
            world.cluster.status = Some(next.status);
            let said = format!(
                "{name}: CrashLoopBackOff: imcluster: /etc/{component}.toml: imcluster.{what} is not a setting of \
                 {component} (exit code 64)"
            );
            assert_eq!((world.condition("Progressing"), world.message("Progressing")), (no("Stalled"), said));
            assert_eq!(world.condition("Degraded"), yes("PodsNotReady"));
        };
        refuses(&mut world, "what");
        refuses(&mut world, "other");
    }
}

/// A new version, one comet fewer, an object more and one less: everything that is written at all.
fn change(world: &mut World) {
    world.edit(json!({
        "version": "0.1.1",
        "comet": { "replicas": 2, "podDisruptionBudget": { "enabled": false } },
        "logic": { "ingress": { "host": "im.example.com" } },
    }));
}

fn small() -> World {
    let mut world = World::new(json!({ "comet": { "replicas": 3 } }));
    world.settle();
    world
}

/// Dead of each of its writes, one run each: nothing depends on what an operator remembers. Until it dies, each run is the
/// same, so it begins with the turn in which that is.
#[test]
fn an_operator_that_dies_after_any_write_is_followed_by_one_that_ends_where_it_would_have() {
    let mut whole = small();
    let before = whole.changes;
    change(&mut whole);
    let mut turns = Vec::new();
    whole.settle_and(|world| turns.push(world.clone()));
    for _ in 0..2 {
        turns.push(whole.clone());
        whole.turn();
    }
    let (end, writes) = (whole.shape(), whole.changes);
    for dies_at in before + 1..=writes {
        let mut world = turns.iter().rfind(|world| world.changes < dies_at).unwrap().clone();
        world.dies_at = Some(dies_at);
        world.settle();
        world.turns(2);
        assert_eq!(world.shape(), end, "dead at write {dies_at}");
        assert!(world.changes <= writes + 20, "{} writes instead of {writes}", world.changes);
    }
    println!("{} writes, one death each", writes - before);
}

#[test]
fn a_second_operator_that_is_always_behind_costs_no_client() {
    let mut world = small();
    change(&mut world);
    let mut old = (world.observed(), world.now);
    for _ in 0..120 {
        let now = (world.observed(), world.now);
        world.turn();
        let late = plan(&old.0, old.1);
        if let Some(action) = late.action {
            world.carry_out(Plan {
                action: Some(action),
                status: world.cluster.status.clone().unwrap(),
                ..Plan::default()
            });
        }
        world.check();
        old = now;
    }
    assert_eq!(world.condition("Progressing"), no("RolloutComplete"));
    assert_eq!(world.comets().len(), 2);
}
