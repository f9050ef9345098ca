//! One ImCluster through a life: explained, scaled, edited, broken, mended, renewed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::eventually;
use serde_json::json;

use super::rig::{HOST, Rig};

/// How long a change may take to come true.
const CHANGE: Duration = Duration::from_secs(180);
const PODS_OF_JOB: &str = "app.kubernetes.io/component=job";

impl Rig {
    /// The version of each comet, by ordinal.
    async fn versions_of_comets(&self) -> Vec<String> {
        let images = self.of_comets("prod", ".spec.containers[0].image").await.unwrap();
        images.iter().map(|image| image.rsplit(':').next().unwrap_or_default().to_owned()).collect()
    }

    /// As `kubectl drain` does it.
    async fn evict(&self, pod: &str) -> anyhow::Result<()> {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
        let path = format!("/api/v1/namespaces/default/pods/{pod}/eviction");
        self.cluster.kubectl_on(&eviction.to_string(), &["create", "--raw", &path]).await.map(drop)
    }
}

/// What a Kubernetes user does to prod in the course of time, and expects of it.
pub async fn story(rig: &Rig) {
    let kubectl = async |arguments: &[&str]| rig.cluster.kubectl(arguments).await.unwrap();
    let told = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", told.elapsed().as_secs_f64());
    rig.cluster.apply(&rig.quick("prod")).await.unwrap();
    rig.settled("prod").await.unwrap();
    let token = rig.push_token("prod").await.unwrap();

    assert!(kubectl(&["explain", "imcluster.spec.comet.drain"]).await.contains("maxSeconds"));
    assert!(kubectl(&["get", "imc", "prod"]).await.contains("True"));
    assert!(kubectl(&["get", "all"]).await.contains("imcluster.imcluster.dev/prod"));

    kubectl(&["scale", "imcluster/prod", "--replicas=3"]).await;
    rig.settled("prod").await.unwrap();
    step("three comets");
    kubectl(&["scale", "imcluster/prod", "--replicas=2"]).await;
    rig.settled("prod").await.unwrap();
    let drained = kubectl(&["get", "events", "--field-selector=reason=PodDrained", "--output=name"]).await;
    assert!(!drained.trim().is_empty(), "comet 2 was taken away before it had drained");
    step("two comets again, the third after it had drained");
    rig.a_push_arrives(HOST, &token).await.unwrap();

    // Ours is put right, what others add stays.
    kubectl(&["annotate", "deployment/prod-logic", "team=live"]).await;
    kubectl(&["scale", "deployment/prod-job", "--replicas=5"]).await;
    eventually(CHANGE, "job's replicas to be put right", || async {
        let job = rig.cluster.get(&["deployment/prod-job"]).await?;
        ensure!(job["spec"]["replicas"] == 2, "{}", job["spec"]["replicas"]);
        anyhow::Ok(())
    })
    .await
    .unwrap();
    kubectl(&["delete", "service/prod-logic"]).await;
    eventually(CHANGE, "the Service to be back", || async { rig.cluster.get(&["service/prod-logic"]).await })
        .await
        .unwrap();
    kubectl(&["delete", "pod/prod-comet-0"]).await;
    rig.settled("prod").await.unwrap();
    let logic = rig.cluster.get(&["deployment/prod-logic"]).await.unwrap();
    assert_eq!(logic["metadata"]["annotations"]["team"], "live");
    rig.a_push_arrives(HOST, &token).await.unwrap();
    step("edits and deletions of children put right");

    // An image that is not there: named, and the old pods serve on.
    rig.patch("prod", json!({"spec": {"version": "0.1.9"}})).await.unwrap();
    let words = ["prod-logic-", "Image"];
    rig.condition("prod", "Progressing", "Stalled", &words, Duration::from_secs(60)).await.unwrap();
    rig.a_push_arrives(HOST, &token).await.unwrap();
    rig.patch("prod", json!({"spec": {"version": "0.1.0"}})).await.unwrap();
    rig.settled("prod").await.unwrap();
    step("an image that is not there named within 60 s, the spec mended, settled");

    // A reloadable setting reaches the pods without a restart.
    let before = rig.pods(PODS_OF_JOB).await.unwrap();
    rig.patch("prod", json!({"spec": {"job": {"config": {"batchCount": 7}}}})).await.unwrap();
    rig.condition("prod", "ConfigInSync", "InSync", &[], CHANGE).await.unwrap();
    assert_eq!(rig.pods(PODS_OF_JOB).await.unwrap(), before);
    step("a setting reloaded without a restart");

    // A canary: of two comets one is new, and the other one, evicted, comes back as it was until it is its turn.
    rig.another_version("0.1.1").await.unwrap();
    let canary = json!({"spec": {"version": "0.1.1", "comet": {"rollout": {"partition": 1}}}});
    rig.patch("prod", canary).await.unwrap();
    rig.settled("prod").await.unwrap();
    assert_eq!(rig.versions_of_comets().await, ["0.1.0", "0.1.1"]);
    let before = rig.serving("prod", "comet").await.unwrap();
    rig.evict("prod-comet-0").await.unwrap();
    eventually(CHANGE, "comet 0 to be back", || async {
        let serving = rig.serving("prod", "comet").await?;
        ensure!(serving.len() == 2 && serving != before, "{serving:?}");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    assert_eq!(rig.versions_of_comets().await, ["0.1.0", "0.1.1"]);
    rig.patch("prod", json!({"spec": {"comet": {"rollout": {"partition": null}}}})).await.unwrap();
    rig.settled("prod").await.unwrap();
    assert_eq!(rig.versions_of_comets().await, ["0.1.1", "0.1.1"]);
    rig.a_push_arrives(HOST, &token).await.unwrap();
    step("a canary, during which the old comet was evicted and came back old; then the rest");
}
