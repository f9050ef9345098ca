//! What the charts put into a cluster, and what is left of it: `helm test`, `helm uninstall` with pods that serve on, the
//! plain bundle.

use std::time::Duration;

use e2e::eventually;

use super::rig::{HOST, Rig, SYSTEM, root};

const SOON: Duration = Duration::from_secs(120);

/// Everything of ours in these namespaces and beside them, by name.
async fn of_ours(rig: &Rig) -> Vec<String> {
    let kinds = "all,imclusters,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,networkpolicies,\
                 clusterroles,clusterrolebindings,customresourcedefinitions";
    let names = rig.cluster.kubectl(&["get", kinds, "--all-namespaces", "--output=name"]).await.unwrap();
    names.lines().filter(|name| name.contains("imcluster")).map(str::to_owned).collect()
}

/// `helm test` pushes one message; without the operator prod serves on; when all is removed the definition is left; the
/// bundle installs the same.
pub async fn story(rig: &Rig) {
    let before = of_ours(rig).await;

    let told = rig.cluster.helm(&["test", "imcluster-operator", "--namespace", SYSTEM]).await.unwrap();
    assert!(told.contains("Phase:          Succeeded"), "{told}");
    assert_eq!(of_ours(rig).await, before, "helm test leaves nothing");

    rig.cluster.helm(&["uninstall", "imcluster-operator", "--namespace", SYSTEM, "--wait"]).await.unwrap();
    rig.a_push_arrives(HOST, &rig.push_token("prod").await.unwrap()).await.unwrap();
    rig.cluster.kubectl(&["delete", "imcluster/prod", "--timeout=50s"]).await.unwrap();
    rig.nothing_is_left_of("prod", SOON).await.unwrap();
    rig.cluster.helm(&["uninstall", "imcluster-crds", "--namespace", SYSTEM, "--wait"]).await.unwrap();
    let definition = "customresourcedefinition.apiextensions.k8s.io/imclusters.imcluster.dev";
    let left = eventually(SOON, "the definition alone to be left", || async {
        let left = of_ours(rig).await;
        anyhow::ensure!(left == [definition], "{left:?}");
        anyhow::Ok(())
    });
    left.await.unwrap();

    let bundle = std::fs::read_to_string(root().join("deploy/imcluster.yaml")).unwrap();
    rig.cluster.apply(&bundle).await.unwrap();
    let namespace = format!("--namespace={SYSTEM}");
    rig.cluster.wait(SOON, "deployment/imcluster-operator", "condition=Available", &[&namespace]).await.unwrap();
}
