//! Every feature switched on and clients coming and going: for the operator there is nothing to do, and it does nothing.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::certs::Authority;
use e2e::cluster::Entry;
use e2e::eventually;
use e2e::rights::{self, Right};
use serde_json::{Value, json};

use crate::external::External;
use crate::rig::{self, ACCOUNT, READY, Rig};

/// Twenty looks, which the operator is told to take every 5 s.
const TWENTY_LOOKS: Duration = Duration::from_secs(110);
const CLIENTS: u64 = 1000;
/// What the operator makes for an ImCluster, and what it says of it.
const CHILDREN: &str = "imclusters,statefulsets,deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,\
                        poddisruptionbudgets,horizontalpodautoscalers,ingresses,networkpolicies,httproutes,servicemonitors";

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
    async fn versions(&self, name: &str) -> anyhow::Result<String> {
        let each = "--output=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let selector = format!("--selector=app.kubernetes.io/instance={name}");
        let children = self.cluster.kubectl(&["get", CHILDREN, &selector, each]).await?;
        let itself = self.cluster.get(&["imcluster", name]).await?;
        Ok(format!("{children}ImCluster/{name} {}", itself["metadata"]["resourceVersion"]))
    }
}
