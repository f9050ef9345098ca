//! Other hands on an ImCluster, its children and its operator, and other ImClusters beside it: everybody keeps what is
//! theirs.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use e2e::smoke::{self, Route};
use e2e::{child, eventually};
use serde_json::{Value, json};

use super::external::External;
use super::rig::{READY, Rig, SYSTEM, root};

/// How long a change may take to come true.
const CHANGE: Duration = Duration::from_secs(120);
/// Two looks of the operator, which it is told to take every 5 s.
const TWO_LOOKS: Duration = Duration::from_secs(11);
/// The pods of both ImClusters.
const OURS: &str = "app.kubernetes.io/instance in (prod,twin)";
const PATIENCE: Duration = Duration::from_secs(30);

impl Rig {
    /// `kubectl apply --server-side` of some fields of prod's spec, by this manager.
    async fn apply_as(&self, manager: &str, spec: Value, more: &[&str]) -> anyhow::Result<String> {
        let fields = json!({"apiVersion": "imcluster.dev/v1alpha1", "kind": "ImCluster", "metadata": {"name": "prod"}, "spec": spec});
        let manager = format!("--field-manager={manager}");
        self.cluster.kubectl_on(&fields.to_string(), &[&["apply", "--server-side", &manager], more].concat()).await
    }

    /// `kubectl edit` by somebody whose editor is sed.
    async fn edit(&self, object: &str, script: &str) -> anyhow::Result<String> {
        let mut command = self.cluster.command("kubectl");
        command.args(["edit", object]).env("KUBE_EDITOR", format!("sed -i -e {script}"));
        child::run("make test installs it", command).await
    }

    /// What of prod's spec the operator says is its own.
    async fn operators_part_of_the_spec(&self) -> anyhow::Result<Vec<Value>> {
        let prod = self.cluster.get(&["imcluster/prod", "--show-managed-fields"]).await?;
        let entries = prod["metadata"]["managedFields"].as_array().context("no managed fields")?.clone();
        let is_the_operators = |entry: &Value| entry["manager"].as_str().is_some_and(|name| name.contains("operator"));
        Ok(entries.into_iter().filter(|entry| is_the_operators(entry) && entry["subresource"] != "status").collect())
    }
}

/// To a client on each of these ImClusters, all of them under the same key: what is pushed to one arrives there alone.
async fn each_hears_its_own(routes: Vec<Route>) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for route in &routes {
        clients.push(eventually(PATIENCE, "a client to be let in", || smoke::connect(route, "same")).await?);
    }
    for to in ["keys?keys=same", "mids?mids=1", "all"] {
        for (route, client) in routes.iter().zip(&mut clients) {
            let body = Bytes::from(format!("{to} of {:?}", route.host));
            smoke::push(route, to, body.clone(), PATIENCE).await?;
            let (_, heard) = client.push_within(PATIENCE).await?;
            ensure!(heard == body, "{:?} heard {heard:?} instead of {body:?}", route.host);
        }
    }
    for (route, client) in routes.iter().zip(&mut clients) {
        let more = client.push_within(Duration::from_secs(1)).await;
        ensure!(more.is_err(), "{:?} heard {more:?} as well", route.host);
    }
    Ok(())
}

/// Applied, edited, upgraded, doubled, deleted and made again.
pub async fn story(rig: &Rig, external: &External) {
    let kubectl = async |arguments: &[&str]| rig.cluster.kubectl(arguments).await.unwrap();
    let told = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", told.elapsed().as_secs_f64());
    let host = |name: &str| format!("{name}.example.com");

    let prod = external.imcluster("prod", 1, None);
    rig.apply_as("owner", prod["spec"].clone(), &[]).await.unwrap();
    // A stranger's object by the name of a child is left alone and named.
    rig.cluster.apply(STRANGER).await.unwrap();
    rig.cluster.apply(&external.imcluster("twin", 1, None).to_string()).await.unwrap();
    rig.condition("twin", "Ready", "ForeignObject", &["twin-job"], READY).await.unwrap();
    let stranger = rig.cluster.get(&["poddisruptionbudget/twin-job"]).await.unwrap();
    assert_eq!(stranger["spec"]["maxUnavailable"], 7, "{stranger}");
    assert!(stranger["metadata"]["ownerReferences"].is_null(), "{stranger}");
    kubectl(&["delete", "poddisruptionbudget/twin-job"]).await;
    rig.settled("prod").await.unwrap();
    rig.settled("twin").await.unwrap();
    step("two of them in one namespace, once the stranger's object is gone");

    // What a user sees of it.
    let listed = kubectl(&["get", "imc", "--output=wide"]).await;
    let columns: Vec<&str> = listed.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "READY", "VERSION", "COMETS", "DESIRED", "CONNECTIONS", "REASON", "AGE"]);
    let row: Vec<&str> = listed.lines().find(|row| row.starts_with("prod ")).unwrap().split_whitespace().collect();
    assert_eq!((&row[..5], row[6]), (&["prod", "True", "0.1.0", "1", "1"][..], "PushesFlow"), "{listed}");
    let described = kubectl(&["describe", "imc", "prod"]).await;
    for said in ["an accepted push reaches connected clients", "RolloutComplete", "prod.example.com", "Created"] {
        assert!(described.contains(said), "no {said} in {described}");
    }
    kubectl(&["wait", "imc/prod", "--for=jsonpath={.status.version.current}=0.1.0", "--timeout=10s"]).await;
    kubectl(&["wait", "imc/prod", "imc/twin", "--for=condition=Progressing=False", "--timeout=10s"]).await;

    // Fields by several managers: a conflict is told, what nobody has is free, nothing is lost, the operator stays out.
    let two = json!({"comet": {"replicas": 2}});
    let conflict = format!("{:#}", rig.apply_as("scaler", two.clone(), &[]).await.unwrap_err());
    assert!(conflict.contains("conflict with \"owner\"") && conflict.contains(".spec.comet.replicas"), "{conflict}");
    rig.apply_as("scaler", two.clone(), &["--force-conflicts"]).await.unwrap();
    rig.settled("prod").await.unwrap();
    assert_eq!(rig.serving("prod", "comet").await.unwrap().len(), 2);
    rig.apply_as("tuner", json!({"job": {"config": {"batchCount": 7}}}), &[]).await.unwrap();
    rig.apply_as("scaler", two, &[]).await.unwrap();
    rig.settled("prod").await.unwrap();
    let before = rig.cluster.get(&["imcluster/prod"]).await.unwrap();
    assert_eq!(before["spec"]["job"]["config"]["batchCount"], 7, "{}", before["spec"]);
    tokio::time::sleep(TWO_LOOKS).await;
    let after = rig.cluster.get(&["imcluster/prod"]).await.unwrap();
    assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"], "somebody else writes the spec");
    let own = rig.operators_part_of_the_spec().await.unwrap();
    assert!(own.is_empty(), "{own:#?}");
    let conflict = format!("{:#}", rig.apply_as("owner", prod["spec"].clone(), &[]).await.unwrap_err());
    assert!(conflict.contains("conflict with \"scaler\""), "{conflict}");
    rig.apply_as("owner", prod["spec"].clone(), &["--force-conflicts"]).await.unwrap();
    rig.settled("prod").await.unwrap();
    let prods = rig.cluster.get(&["imcluster/prod"]).await.unwrap();
    assert_eq!(
        (&prods["spec"]["comet"]["replicas"], &prods["spec"]["job"]["config"]["batchCount"]),
        (&json!(1), &json!(7))
    );
    step("applied by several managers");

    // A child that is edited is put right; a restart that is asked for is none of the operator's business.
    let token = rig.push_token("prod").await.unwrap();
    rig.edit("service/prod-logic", "s/port:.3111/port:\\ 3999/").await.unwrap();
    rig.edit("deployment/prod-job", "s/replicas:.1/replicas:\\ 0/").await.unwrap();
    rig.edit("deployment/prod-logic", "s/terminationGracePeriodSeconds:.*/terminationGracePeriodSeconds:\\ 1/")
        .await
        .unwrap();
    eventually(CHANGE, "the children to be put right", || async {
        let ports = rig.cluster.get(&["service/prod-logic"]).await?["spec"]["ports"].clone();
        let jobs = rig.cluster.get(&["deployment/prod-job"]).await?["spec"]["replicas"].clone();
        let logic = rig.cluster.get(&["deployment/prod-logic"]).await?;
        let grace = logic["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone();
        let http = ports.as_array().context("no ports")?.iter().filter(|port| port["targetPort"] == "http");
        let http: Vec<&Value> = http.map(|port| &port["port"]).collect();
        ensure!(http == [3111] && jobs == 1 && grace != 1, "{ports}, {jobs} jobs, {grace} s");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    rig.settled("prod").await.unwrap();
    let before = rig.serving("prod", "logic").await.unwrap();
    kubectl(&["rollout", "restart", "deployment/prod-logic"]).await;
    kubectl(&["rollout", "status", "deployment/prod-logic", "--timeout=50s"]).await;
    tokio::time::sleep(TWO_LOOKS).await;
    rig.settled("prod").await.unwrap();
    let after = rig.serving("prod", "logic").await.unwrap();
    assert!(before.is_disjoint(&after) && after.len() == 1, "{before:?}, then {after:?}");
    rig.a_push_arrives(&host("prod"), &token).await.unwrap();
    step("children edited, put right, restarted");

    // The operator's chart changes, and looks after another namespace as well: nobody else notices.
    let before = rig.pods(OURS).await.unwrap();
    let chart = root().join("charts/imcluster-operator").display().to_string();
    let values = ["--set=watchNamespaces={default,other}", "--set=log.filter=info\\,operator=debug", "--set=resync=4s"];
    let upgrade = ["upgrade", "imcluster-operator", &chart, "--namespace", SYSTEM, "--reuse-values", "--wait"];
    rig.cluster.helm(&[&upgrade[..], &values].concat()).await.unwrap();
    let mut third = external.imcluster("prod", 1, None);
    third["metadata"]["namespace"] = json!("other");
    third["spec"]["logic"]["ingress"]["host"] = json!(host("third"));
    rig.cluster.apply(&third.to_string()).await.unwrap();
    rig.cluster.wait(READY, "imcluster/prod", "condition=Ready", &["--namespace=other"]).await.unwrap();
    assert_eq!(rig.pods(OURS).await.unwrap(), before, "pods of ImClusters were restarted");
    step("another operator, another namespace, the same pods");

    let template = "--output=go-template={{.data.token | base64decode}}";
    let thirds = kubectl(&["get", "secret", "prod-push-token", "--namespace=other", template]).await;
    let twins = rig.push_token("twin").await.unwrap();
    let routes = [("prod", &token), ("twin", &twins), ("third", &thirds)];
    let routes = routes.map(|(name, token)| Rig::through_the_ingress(&host(name), token)).to_vec();
    rig.client().run(each_hears_its_own(routes)).await.unwrap().unwrap();
    step("three of them, and each hears its own");

    // Gone and there again at once, by the same name.
    let gone = rig.cluster.get(&["imcluster/prod"]).await.unwrap()["metadata"]["uid"].clone();
    kubectl(&["delete", "imcluster/prod", "--wait=false"]).await;
    rig.apply_as("owner", prod["spec"].clone(), &[]).await.unwrap();
    rig.cluster.wait(READY, "imcluster/prod", "condition=Ready", &[]).await.unwrap();
    let fresh = rig.push_token("prod").await.unwrap();
    assert_ne!(fresh, token, "the first one's token");
    rig.a_push_arrives(&host("prod"), &fresh).await.unwrap();
    let now = rig.pods(OURS).await.unwrap();
    let kept: Vec<&String> = now.intersection(&before).filter(|pod| pod.starts_with("prod-")).collect();
    rig.settled("prod").await.unwrap();
    eventually(CHANGE, "nothing of the first one to be left", || async {
        let kinds =
            "all,configmaps,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies,ingresses";
        let left = rig.cluster.get(&[kinds, "--selector=app.kubernetes.io/instance=prod"]).await?;
        let owned = |item: &&Value| item["metadata"]["ownerReferences"][0]["uid"] == gone;
        let left: Vec<&Value> = left["items"].as_array().context("no list")?.iter().filter(owned).collect();
        ensure!(left.is_empty(), "{left:?}");
        let pods = rig.pods(OURS).await?;
        let left: Vec<&String> = pods.intersection(&before).filter(|pod| pod.starts_with("prod-")).collect();
        ensure!(left.is_empty(), "{left:?}, and when it was Ready {kept:?}");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    rig.a_push_arrives(&host("prod"), &fresh).await.unwrap();
    step("deleted and made again at once");
    kubectl(&["delete", "imcluster/prod", "--namespace=other", "--timeout=50s"]).await;
    for name in ["prod", "twin"] {
        kubectl(&["delete", "imcluster", name, "--timeout=50s"]).await;
        rig.nothing_is_left_of(name, CHANGE).await.unwrap();
    }
}

/// By the name of the budget that the operator would make for the twin's job.
const STRANGER: &str = "\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: twin-job}
spec:
  maxUnavailable: 7
  selector: {matchLabels: {app: stranger}}
";
