//! Every feature switched on and clients coming and going: for the operator there is nothing to do, and it does nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::certs::Authority;
use e2e::cluster::{Entry, NODE};
use e2e::crowd::{Crowd, Plan};
use e2e::eventually;
use e2e::rights::{self, Right};
use serde_json::{Value, json};

use super::external::External;
use super::rig::{READY, Rig, root};

/// Twenty looks, which the operator is told to take every 5 s.
const TWENTY_LOOKS: Duration = Duration::from_secs(110);
const CLIENTS: usize = 1000;
/// How long each of them stays before it leaves and comes back.
const STAY: std::ops::Range<Duration> = Duration::from_secs(10)..Duration::from_secs(30);
const HOST: &str = "full.example.com";
/// What the operator makes for an ImCluster.
const CHILDREN: &str = "statefulsets,deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,\
                        poddisruptionbudgets,horizontalpodautoscalers,ingresses,networkpolicies,httproutes,servicemonitors";

/// The certificate that comets show, as a Secret.
fn certificate() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let issued = Authority::new(folder.path()).unwrap().issue("comet", &["*.im.example.com"]).unwrap();
    let file = |path| std::fs::read_to_string(path).unwrap();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "clients"},
        "stringData": {"tls.crt": file(&issued.cert), "tls.key": file(&issued.key)},
    })
}

/// An ImCluster with all that can be switched on at once.
fn everything(external: &External) -> Value {
    let mut cluster = external.imcluster("full", 2, None);
    let gateway = json!({"name": "web", "namespace": "gateway"});
    let comet = json!({
        "listeners": {"tls": {"secretName": "clients"}},
        "exposure": {"type": "PerPod", "serviceType": "NodePort", "hostDomain": ".im.example.com"},
        "advertise": {"host": "full.example.com", "wsPort": 80},
        "zones": [{"name": "zone-1", "region": "north", "weight": 20}, {"name": "zone-2"}],
        "config": {"log": "info"},
        "configOverrides": {"imcluster": {"max-connections": 5000}},
        "podTemplate": {"metadata": {"labels": {"team": "im"}}, "spec": {"tolerations": [{"key": "im", "operator": "Exists"}]}},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "podDisruptionBudget": {"maxUnavailable": 1},
    });
    let logic = json!({
        "replicas": null,
        "autoscaling": {"min": 2, "max": 4, "cpu": 80},
        "regions": [{"name": "north", "provinces": ["北京", "天津"]}],
        "httpRoute": {"parentRefs": [gateway], "hostnames": ["route.full.example.com"]},
        "config": {"midConnections": 5},
    });
    let job = json!({"mode": "PerZone", "replicas": 1, "config": {"batchCount": 40}});
    for (component, more) in [("comet", comet), ("logic", logic), ("job", job)] {
        for (key, value) in more.as_object().into_iter().flatten() {
            cluster["spec"][component][key] = value.clone();
        }
    }
    cluster["spec"]["networkPolicy"] = json!({"monitoringNamespaces": ["monitoring"]});
    cluster["spec"]["monitoring"] = json!({"serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}}});
    cluster
}

impl Rig {
    /// The resource version of everything of an ImCluster, itself included.
    async fn versions(&self) -> anyhow::Result<BTreeSet<String>> {
        let each =
            "--output=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let children =
            self.cluster.kubectl(&["get", CHILDREN, "--selector=app.kubernetes.io/instance=full", each]).await?;
        let itself = self.cluster.get(&["imcluster/full"]).await?;
        let itself = format!("ImCluster/full {}", itself["metadata"]["resourceVersion"]);
        Ok(children.lines().map(str::to_owned).chain([itself]).collect())
    }

    /// Waits until the number of connections that the status shows is one that will not be written again.
    async fn connections_are_told(&self) {
        eventually(READY, "the connections to be told", || async {
            let told = self.cluster.get(&["imcluster/full"]).await?["status"]["comet"]["connections"].as_u64();
            let most = CLIENTS as u64;
            ensure!(told.is_some_and(|told| (most * 95 / 100..=most).contains(&told)), "{told:?}");
            anyhow::Ok(())
        })
        .await
        .unwrap();
    }
}

/// Makes it, and has clients come and go.
pub async fn begin(rig: &Rig, external: &External) -> Crowd {
    let began = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    rig.cluster.apply(include_str!("../../cluster/servicemonitor.yaml")).await.unwrap();
    rig.cluster.apply(&certificate().to_string()).await.unwrap();
    rig.cluster.apply(&everything(external).to_string()).await.unwrap();
    rig.settled("full").await.unwrap();
    step("Ready with every feature on");
    for child in [
        "horizontalpodautoscaler/full-logic",
        "httproute/full-logic",
        "servicemonitor/full",
        "networkpolicy/full-comet",
    ] {
        rig.cluster.get(&[child]).await.unwrap();
    }
    rig.a_push_arrives(HOST, &rig.push_token("full").await.unwrap()).await.unwrap();
    rig.cluster.kubectl(&["scale", "imcluster/full", "--replicas=3"]).await.unwrap();
    rig.settled("full").await.unwrap();
    rig.cluster.kubectl(&["scale", "imcluster/full", "--replicas=2"]).await.unwrap();
    rig.settled("full").await.unwrap();
    step("one comet more, and one less");

    let mut target: e2e::client::Target = format!("ws://{NODE}:80/sub").parse().unwrap();
    HOST.clone_into(&mut target.host);
    let plan = Plan { stay: Some(STAY), ..Plan::new(vec![target], CLIENTS, 20) };
    let crowd = Crowd::connect(plan, rig.client().threads()).await.unwrap();
    rig.connections_are_told().await;
    step("a thousand clients come and go");
    crowd
}

/// Nothing is written, and of the operator's rights none is idle.
pub async fn watch(rig: &Rig, crowd: Crowd) {
    let before = rig.versions().await.unwrap();
    let since = rig.requests_of_the_operator().last().unwrap().request_received_timestamp.clone();
    tokio::time::sleep(TWENTY_LOOKS).await;
    let requests = rig.requests_of_the_operator();
    let written = requests.iter().filter(|entry| entry.request_received_timestamp > since && entry.writes());
    let written: Vec<&Entry> = written.filter(|entry| !entry.is_about("leases")).collect();
    assert!(written.is_empty(), "{written:#?}");
    assert_eq!(rig.versions().await.unwrap(), before);
    let record = crowd.finish(Vec::new()).await.unwrap();
    let visits: usize = record.lives.iter().map(|life| life.stays.len()).sum();
    assert!(visits > 4 * CLIENTS, "{visits} visits");
    println!("nothing written over twenty looks; {visits} visits by {CLIENTS} clients");

    rig.nothing_was_denied();
    let page = std::fs::read_to_string(root().join("charts/imcluster-operator/RBAC.md")).unwrap();
    let used: BTreeSet<Right> = requests.iter().filter_map(Right::of).collect();
    for heading in ["In a watched namespace", "In the release's namespace"] {
        let granted = rights::explained(&page, heading).unwrap();
        let idle: Vec<&Right> =
            granted.iter().filter(|(right, rare)| !**rare && !used.contains(right)).map(|(right, _)| right).collect();
        assert!(idle.is_empty(), "granted, not called rare, and not used: {idle:#?}");
    }
}
