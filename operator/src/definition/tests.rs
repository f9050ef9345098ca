use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::scripted::{refusal, scripted};

const PATH: &str = "/openapi/v3/apis/imcluster.dev/v1alpha1";

/// Our schema as the API server publishes it, without these fields.
fn published(without: &[&str]) -> Value {
    let mut schema = crd::schema();
    for pointer in without {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let fields = schema.pointer_mut(parent).and_then(Value::as_object_mut);
        assert!(fields.is_some_and(|fields| fields.remove(name).is_some()), "{pointer} is a field");
    }
    schema["properties"]["metadata"] =
        json!({ "allOf": [{ "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" }] });
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": "imcluster.dev", "kind": "ImCluster", "version": "v1alpha1" }]);
    schema
}

/// What the API server answers.
fn document(schema: &Value) -> Value {
    let list = json!({
        "properties": { "items": { "type": "array" } },
        "x-kubernetes-group-version-kind":
            [{ "group": "imcluster.dev", "kind": "ImClusterList", "version": "v1alpha1" }],
    });
    let schemas = json!({ "dev.imcluster.v1alpha1.ImClusterList": list, "dev.imcluster.v1alpha1.ImCluster": schema });
    json!({ "openapi": "3.0.0", "components": { "schemas": schemas } })
}

#[test]
fn the_definition_of_this_operator_lacks_nothing_and_a_newer_one_neither() {
    let mut theirs = published(&[]);
    assert_eq!(missing(&crd::schema(), &theirs), [] as [String; 0]);
    theirs["properties"]["spec"]["properties"]["tomorrow"] = json!({ "type": "string" });
    assert_eq!(missing(&crd::schema(), &theirs), [] as [String; 0]);
}

#[test]
fn fields_that_an_older_definition_lacks_are_named_by_their_paths() {
    let theirs = published(&[
        "/properties/spec/properties/comet/properties/rollout/properties/partition",
        "/properties/spec/properties/comet/properties/zones/items/properties/weight",
        "/properties/spec/properties/monitoring",
        "/properties/status/properties/rollout",
    ]);
    let expected = ["spec.comet.rollout.partition", "spec.comet.zones[].weight", "spec.monitoring", "status.rollout"];
    assert_eq!(missing(&crd::schema(), &theirs), expected);
}

#[test]
fn where_the_definition_keeps_whatever_is_written_nothing_is_lacking() {
    let ours = json!({ "properties": { "spec": { "properties": { "a": {}, "b": { "properties": { "c": {} } } } } } });
    let theirs = json!({ "properties": { "spec": { "properties": { "b": { "x-kubernetes-preserve-unknown-fields": true } } } } });
    assert_eq!(missing(&ours, &theirs), ["spec.a"]);
    let ours = json!({ "properties": { "spec": { "additionalProperties": { "properties": { "c": {} } } } } });
    let theirs = json!({ "properties": { "spec": { "additionalProperties": { "properties": {} } } } });
    assert_eq!(missing(&ours, &theirs), ["spec.*.c"]);
}

#[tokio::test(start_paused = true)]
async fn the_definition_is_compared_at_the_start_and_at_every_resync_whatever_the_api_server_answers() {
    let answer = Arc::new(Mutex::new(refusal(503, "ServiceUnavailable")));
    let (client, log) = scripted({
        let answer = answer.clone();
        move |_| answer.lock().clone()
    });
    let lacking = Gauge::default();
    let resync = Duration::from_secs(300);
    let following = tokio::spawn(follow(client, lacking.clone(), resync));
    // Between two looks, so that each sees what was said before it.
    tokio::time::sleep(resync / 2).await;
    assert_eq!(lacking.get(), 0, "nobody knows yet");
    let after = async |next: (u16, Value)| {
        *answer.lock() = next;
        tokio::time::sleep(resync).await;
        lacking.get()
    };
    let old = published(&["/properties/spec/properties/monitoring", "/properties/spec/properties/paused"]);
    assert_eq!(after((200, document(&old))).await, 2, "as long as it is so");
    assert_eq!(after(refusal(404, "NotFound")).await, 2, "no answer is none");
    assert_eq!(after((200, json!({ "openapi": "3.0.0" }))).await, 2);
    assert_eq!(after((200, document(&published(&[])))).await, 0);
    assert!(!following.is_finished());
    let asked = log.lock();
    assert!(asked.len() >= 4 && asked.iter().all(|asked| asked.path == PATH), "{asked:?}");
}
