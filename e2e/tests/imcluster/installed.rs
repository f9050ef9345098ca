//! What the charts put into a cluster, and what is left of it: `helm test`, `helm uninstall`, the plain bundle.

use std::time::Duration;

use e2e::eventually;

use super::rig::{KAFKA, REDIS, Rig, SYSTEM, root};

const SOON: Duration = Duration::from_secs(120);

/// Everything of ours in these namespaces and beside them, by name.
async fn of_ours(rig: &Rig) -> Vec<String> {
    let kinds = "all,imclusters,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,networkpolicies,\
                 clusterroles,clusterrolebindings,customresourcedefinitions";
    let names = rig.cluster.kubectl(&["get", kinds, "--all-namespaces", "--output=name"]).await.unwrap();
    names.lines().filter(|name| name.contains("imcluster")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_pushes_one_message_and_uninstalling_leaves_the_definition_and_the_bundle_installs_the_same() {
    let rig = Rig::start().await.unwrap();
    let chart = root().join("charts/imcluster-operator").display().to_string();
    let images = [format!("--set=helmTest.kafkaImage={KAFKA}"), format!("--set=helmTest.redisImage={REDIS}")];
    let upgrade = ["upgrade", "imcluster-operator", &chart, "--namespace", SYSTEM, "--reuse-values", "--wait"];
    rig.cluster.helm(&[&upgrade[..], &[images[0].as_str(), images[1].as_str()]].concat()).await.unwrap();
    let before = of_ours(&rig).await;

    let told = rig.cluster.helm(&["test", "imcluster-operator", "--namespace", SYSTEM]).await.unwrap();
    assert!(told.contains("Phase:          Succeeded"), "{told}");
    assert_eq!(of_ours(&rig).await, before, "helm test leaves nothing");

    for release in ["imcluster-operator", "imcluster-crds"] {
        rig.cluster.helm(&["uninstall", release, "--namespace", SYSTEM, "--wait"]).await.unwrap();
    }
    let definition = "customresourcedefinition.apiextensions.k8s.io/imclusters.imcluster.dev";
    let left = eventually(SOON, "the definition alone to be left", || async {
        let left = of_ours(&rig).await;
        anyhow::ensure!(left == [definition], "{left:?}");
        anyhow::Ok(())
    });
    left.await.unwrap();

    let bundle = std::fs::read_to_string(root().join("deploy/imcluster.yaml")).unwrap();
    rig.cluster.apply(&bundle).await.unwrap();
    let namespace = format!("--namespace={SYSTEM}");
    rig.cluster.wait(SOON, "deployment/imcluster-operator", "condition=Available", &[&namespace]).await.unwrap();
    rig.end().await.unwrap();
}
