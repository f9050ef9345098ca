//! One ImCluster through a life: explained, scaled, edited, broken, mended, left alone, and removed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::cluster::Entry;
use e2e::eventually;
use serde_json::json;

use crate::rig::{HOST, READY, Rig, SYSTEM};

/// What the operator's account is called in the audit log.
const ACCOUNT: &str = "system:serviceaccount:imcluster-system:imcluster-operator";
/// How long a change may take to come true.
const CHANGE: Duration = Duration::from_secs(180);
/// Twenty looks, which the operator is told to take every 5 s.
const TWENTY_LOOKS: Duration = Duration::from_secs(110);

impl Rig {
    /// What the operator has written since then, leases excluded.
    fn written_since(&self, since: &str) -> Vec<Entry> {
        let entries = self.cluster.audit_log().unwrap();
        let ours = |entry: &Entry| entry.account() == ACCOUNT && entry.request_received_timestamp.as_str() > since;
        entries.into_iter().filter(|entry| ours(entry) && entry.writes() && !entry.is_about("leases")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_scaled_edited_broken_mended_left_alone_and_removed_as_a_kubernetes_user_expects() {
    let rig = Rig::start().await.unwrap();
    let kubectl = async |arguments: &[&str]| rig.cluster.kubectl(arguments).await.unwrap();
    let told = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", told.elapsed().as_secs_f64());

    // A stranger's object by the name of a child is left alone and named.
    rig.cluster.apply(STRANGER).await.unwrap();
    rig.cluster.apply(&rig.quick("prod")).await.unwrap();
    rig.condition("prod", "Ready", "ForeignObject", &["prod-job"], READY).await.unwrap();
    let stranger = rig.cluster.get(&["poddisruptionbudget/prod-job"]).await.unwrap();
    assert_eq!(stranger["spec"]["maxUnavailable"], 7, "{stranger}");
    assert!(stranger["metadata"]["ownerReferences"].is_null(), "{stranger}");
    kubectl(&["delete", "poddisruptionbudget/prod-job"]).await;
    rig.settled("prod").await.unwrap();
    step("Ready once the stranger's object is gone");
    let token = rig.push_token("prod").await.unwrap();
    rig.a_push_arrives(HOST, &token).await.unwrap();

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
    let before = rig.pods_of_job().await.unwrap();
    rig.patch("prod", json!({"spec": {"job": {"config": {"batchCount": 7}}}})).await.unwrap();
    rig.condition("prod", "ConfigInSync", "InSync", &[], CHANGE).await.unwrap();
    assert_eq!(rig.pods_of_job().await.unwrap(), before);
    step("a setting reloaded without a restart");

    // Steady: nothing is written.
    rig.settled("prod").await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let since = rig.cluster.audit_log().unwrap().last().unwrap().request_received_timestamp.clone();
    tokio::time::sleep(TWENTY_LOOKS).await;
    let written = rig.written_since(&since);
    assert!(written.is_empty(), "{written:#?}");
    step("nothing written over twenty looks");

    // What the chart's Role allows is enough.
    let entries = rig.cluster.audit_log().unwrap();
    let denied: Vec<&Entry> = entries.iter().filter(|entry| entry.account() == ACCOUNT && entry.denied()).collect();
    assert!(denied.is_empty(), "{denied:#?}");

    // Without the operator everything serves on; then nothing is left.
    rig.cluster.helm(&["uninstall", "imcluster-operator", "--namespace", SYSTEM, "--wait"]).await.unwrap();
    rig.a_push_arrives(HOST, &token).await.unwrap();
    kubectl(&["delete", "imcluster/prod", "--timeout=50s"]).await;
    rig.nothing_is_left_of("prod", CHANGE).await.unwrap();
    assert!(kubectl(&["get", "crd", "imclusters.imcluster.dev", "--output=name"]).await.contains("imclusters"));
    step("removed");
    rig.end().await.unwrap();
}

/// By the name of the budget that the operator would make for job.
const STRANGER: &str = "\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: prod-job}
spec:
  maxUnavailable: 7
  selector: {matchLabels: {app: stranger}}
";
