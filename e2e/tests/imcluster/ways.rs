//! Other ways in, and other hands on the number of logics.

use std::time::Duration;

use anyhow::ensure;
use e2e::eventually;
use serde_json::{Value, json};

use crate::rig::Rig;

const CHANGE: Duration = Duration::from_secs(90);
/// How long a number is watched that must not change.
const WATCHED: Duration = Duration::from_secs(12);

impl Rig {
    async fn logics(&self) -> Value {
        self.cluster.get(&["deployment/prod-logic"]).await.unwrap()["spec"]["replicas"].clone()
    }

    /// Watches that number while changes settle.
    async fn logics_stay(&self, number: u64) {
        let end = tokio::time::Instant::now() + WATCHED;
        while tokio::time::Instant::now() < end {
            assert_eq!(self.logics().await, number);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A Gateway's route is served, and an autoscaler comes and goes without a change of the number.
pub async fn gateway_and_autoscaler(rig: &Rig, token: &str) {
    let parent = json!({"name": "web", "namespace": "gateway"});
    let route = json!({"parentRefs": [parent], "hostnames": ["route.example.com"]});
    rig.patch("prod", json!({"spec": {"logic": {"httpRoute": route}}})).await.unwrap();
    rig.cluster
        .wait(CHANGE, "httproute/prod-logic", "jsonpath={.status.parents[0].parentRef.name}=web", &[])
        .await
        .unwrap();
    let took = rig.push_through_the_ingress("ws://198.18.0.1:80/sub", "route.example.com", token).await.unwrap();
    println!("a push through the Gateway to a client through the Gateway: {:.1} ms", took.as_secs_f64() * 1e3);

    // By another hand, as an autoscaler's, once the number is left to it.
    let on = json!({"spec": {"logic": {"replicas": null, "autoscaling": {"min": 1, "max": 5}}}});
    rig.patch("prod", on).await.unwrap();
    rig.cluster
        .wait(CHANGE, "horizontalpodautoscaler/prod-logic", "jsonpath={.spec.maxReplicas}=5", &[])
        .await
        .unwrap();
    rig.logics_stay(2).await;
    rig.cluster.kubectl(&["scale", "deployment/prod-logic", "--replicas=3"]).await.unwrap();
    rig.logics_stay(3).await;
    rig.patch("prod", json!({"spec": {"logic": {"autoscaling": null}}})).await.unwrap();
    eventually(CHANGE, "the autoscaler to be gone", || async {
        let left = rig.cluster.kubectl(&["get", "horizontalpodautoscalers", "--output=name"]).await?;
        ensure!(left.trim().is_empty(), "{left}");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    rig.logics_stay(3).await;
}
