use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::*;
use crate::plan::tests::world::World;
use crate::scripted::{Asked, Log, refusal, scripted};

/// What the API server has, by path.
type Stored = Arc<Mutex<BTreeMap<String, Value>>>;

/// A server that stores what is applied, as server-side apply does for one manager.
fn server() -> (Client, Log, Stored) {
    let stored = Stored::default();
    let kept = stored.clone();
    let answer = move |asked: &Asked| {
        let mut stored = kept.lock();
        match asked.method {
            Method::GET => {
                stored.get(&asked.path).map_or_else(|| refusal(404, "NotFound"), |found| (200, found.clone()))
            }
            Method::PATCH if !asked.query.ends_with("fieldManager=imcluster-operator") => (200, asked.body.clone()),
            Method::PATCH => {
                let mut body = asked.body.clone();
                let uid = stored.get(&asked.path).map_or_else(
                    || Value::from(format!("uid {}", asked.path)),
                    |found| found["metadata"]["uid"].clone(),
                );
                if asked.body["metadata"]["uid"].as_str().is_some_and(|sent| Some(sent) != uid.as_str()) {
                    return refusal(409, "Conflict");
                }
                body["metadata"]["uid"] = uid;
                body["metadata"]["resourceVersion"] = "7".into();
                stored.insert(asked.path.clone(), body.clone());
                (200, body)
            }
            _ => refusal(405, "MethodNotAllowed"),
        }
    };
    let (client, log) = scripted(answer);
    (client, log, stored)
}

/// The children as a cache would have them.
fn cached(stored: &Stored) -> Vec<Seen> {
    let objects = stored.lock();
    let seen = objects.values().map(|object| {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let types = object.types.clone().unwrap();
        Seen::of(&object, &resource(&types.api_version, &types.kind))
    });
    seen.collect()
}

fn writes(log: &Log) -> Vec<Asked> {
    log.lock().iter().filter(|asked| asked.method != Method::GET).cloned().collect()
}

#[tokio::test]
async fn what_is_absent_is_asked_for_and_then_applied_with_our_name_and_force() {
    let (client, log, _) = server();
    let world = World::new(json!({}));
    let outcome = Hands::new(client, Leadership::always()).apply(&world.plan(), &world.observed()).await;
    assert!(outcome.foreign.is_empty() && outcome.refused.is_empty() && outcome.failed.is_none(), "{outcome:?}");
    let log = log.lock();
    assert_eq!(log.len(), world.plan().applies.len() * 2);
    for pair in log.chunks(2) {
        assert_eq!((&pair[0].method, &pair[1].method), (&Method::GET, &Method::PATCH));
        assert_eq!(pair[0].path, pair[1].path);
        assert!(pair[1].query.contains("force=true") && pair[1].query.contains("fieldManager=imcluster-operator"));
    }
    let comet = log.iter().rfind(|asked| asked.path.ends_with("/statefulsets/prod-comet")).unwrap();
    assert_eq!(comet.body["spec"]["replicas"], 3, "at creation and never again");
}

#[tokio::test]
async fn what_has_been_applied_is_not_applied_again_until_somebody_changes_it() {
    let (client, log, stored) = server();
    let hands = Hands::new(client, Leadership::always());
    let world = World::new(json!({}));
    hands.apply(&world.plan(), &world.observed()).await;
    log.lock().clear();
    let see = |world: &World| {
        let mut observed = world.observed();
        observed.children = cached(&stored);
        let next = crate::plan::plan(&observed, world.now);
        (observed, next)
    };
    let (observed, next) = see(&world);
    hands.apply(&next, &observed).await;
    assert!(log.lock().is_empty(), "{:?}", log.lock());
    let path = stored.lock().keys().find(|path| path.ends_with("/services/prod-logic")).cloned().unwrap();
    {
        let mut stored = stored.lock();
        let service = stored.get_mut(&path).unwrap();
        service["metadata"]["resourceVersion"] = "8".into();
        service["spec"]["selector"] = json!({ "somebody": "else" });
    }
    let (observed, next) = see(&world);
    hands.apply(&next, &observed).await;
    let writes = writes(&log);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(writes[0].path, path);
    assert_eq!(writes[0].body["metadata"]["uid"], format!("uid {path}"), "another object of that name is refused");
}

#[tokio::test]
async fn an_edit_that_an_apply_cannot_take_back_is_patched_away_and_holds_up_nothing() {
    let world = World::new(json!({}));
    let edited = "/services/prod-logic";
    let (client, log) = scripted(move |asked| match asked.method {
        Method::GET => {
            let kind = if asked.path.ends_with(edited) { "Service" } else { return refusal(404, "NotFound") };
            let owner = json!([{ "apiVersion": "imcluster.dev/v1alpha1", "kind": "ImCluster", "name": "prod",
                "uid": "cr-uid", "controller": true }]);
            let meta = json!({ "name": "prod-logic", "uid": "u", "resourceVersion": "3", "ownerReferences": owner });
            (200, json!({ "apiVersion": "v1", "kind": kind, "metadata": meta, "spec": {} }))
        }
        Method::PATCH if asked.path.ends_with(edited) && asked.query.contains("force=true") => refusal(422, "Invalid"),
        _ => (200, asked.body.clone()),
    });
    let outcome = Hands::new(client, Leadership::always()).apply(&world.plan(), &world.observed()).await;
    assert!(outcome.refused.is_empty() && outcome.failed.is_none(), "{outcome:?}");
    let tried: Vec<Asked> = writes(&log).into_iter().filter(|asked| asked.path.ends_with(edited)).collect();
    assert_eq!(tried.len(), 2, "{tried:?}");
    assert_eq!(
        (&tried[1].body["spec"]["ports"], &tried[1].body["metadata"]["uid"]),
        (&tried[0].body["spec"]["ports"], &json!("u"))
    );
}

#[tokio::test]
async fn a_strangers_object_is_never_written() {
    let (client, log, stored) = server();
    let path = "/api/v1/namespaces/im/services/prod-logic".to_owned();
    let stranger = json!({
        "apiVersion": "v1", "kind": "Service", "spec": {},
        "metadata": { "name": "prod-logic", "namespace": "im", "uid": "theirs", "resourceVersion": "3" },
    });
    stored.lock().insert(path.clone(), stranger.clone());
    let world = World::new(json!({}));
    let outcome = Hands::new(client, Leadership::always()).apply(&world.plan(), &world.observed()).await;
    assert_eq!(outcome.foreign, [Key { kind: "Service".into(), name: "prod-logic".into() }]);
    assert!(writes(&log).iter().all(|asked| asked.path != path));
    assert_eq!(stored.lock()[&path], stranger);
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let (client, log, _) = server();
    let world = World::new(json!({}));
    let hands = Hands::new(client, Leadership::default());
    let outcome = hands.apply(&world.plan(), &world.observed()).await;
    assert!(matches!(outcome.failed, Some(Error::NotLeading)), "{outcome:?}");
    assert!(hands.report(&world.observed(), &world.plan().status).await.is_err());
    assert!(log.lock().is_empty());
}

#[tokio::test]
async fn what_the_server_refuses_holds_up_later_stages_only_and_is_named() {
    let (client, log) = scripted(|asked| match asked.method {
        Method::GET => refusal(404, "NotFound"),
        _ if asked.path.ends_with("/deployments/prod-logic") => refusal(422, "spec.template: Invalid value"),
        _ => (200, asked.body.clone()),
    });
    let world = World::new(json!({}));
    let outcome = Hands::new(client, Leadership::always()).apply(&world.plan(), &world.observed()).await;
    assert_eq!(outcome.refused.len(), 1);
    assert!(outcome.refused[0].1.contains("Invalid value"), "{outcome:?}");
    assert!(!log.lock().iter().any(|asked| asked.path.contains("/statefulsets/prod-comet")));
}

#[tokio::test]
async fn a_disruption_decided_on_an_older_world_is_not_done() {
    let (client, log) = scripted(|_| refusal(409, "Conflict"));
    let mut world = World::new(json!({}));
    world.settle();
    world.edit(json!({ "comet": { "replicas": 2 } }));
    let mut next = world.plan();
    next.action = Some(Action::ScaleIn { to: 2, resource_version: "41".into(), drained_since: None, is_forced: false });
    let hands = Hands::new(client, Leadership::always());
    assert!(!hands.act(&next, &world.observed()).await.unwrap());
    let asked = log.lock()[0].clone();
    assert_eq!(asked.path, "/apis/apps/v1/namespaces/im/statefulsets/prod-comet/scale");
    assert_eq!(asked.body, json!({ "metadata": { "resourceVersion": "41" }, "spec": { "replicas": 2 } }));
}

#[tokio::test]
async fn a_secret_that_is_there_is_left_as_it_is() {
    let (client, log) = scripted(|_| refusal(409, "AlreadyExists"));
    let world = World::new(json!({}));
    let hands = Hands::new(client, Leadership::always());
    hands.make_push_token(&world.plan(), &world.observed()).await.unwrap();
    let asked = log.lock()[0].clone();
    assert_eq!((asked.method, asked.path.as_str()), (Method::POST, "/api/v1/namespaces/im/secrets"));
    assert_eq!(asked.body["stringData"]["token"].as_str().unwrap().len(), 64);
}
