//! What a user writes first, twelve lines, every way in to what comes of it, and other hands on the number of logics.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::cluster::NODE;
use e2e::eventually;
use serde_json::{Value, json};

use super::fixtures;
use super::rig::{HOST, READY, Rig};

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

/// Prod is made of twelve lines and takes a push by the Ingress, a NodePort and a Gateway.
pub async fn story(rig: &Rig) {
    let manifest = rig.twelve_lines("prod");
    assert!(manifest.lines().count() <= 12, "{manifest}");
    let began = Instant::now();
    rig.cluster.apply(&manifest).await.unwrap();
    let ready = async {
        rig.cluster.wait(READY, "imcluster/prod", "condition=Ready", &[]).await.unwrap();
        println!("Ready after {:.1} s", began.elapsed().as_secs_f64());
    };
    tokio::join!(ready, fixtures::judge_all(&rig.cluster));

    let token = rig.push_token("prod").await.unwrap();
    let took = rig.a_push_arrives(HOST, &token).await.unwrap();
    println!("a push through the Ingress to a client through the Ingress: {:.1} ms", took.as_secs_f64() * 1e3);

    rig.patch("prod", json!({"spec": {"comet": {"exposure": {"type": "NodePort"}}}})).await.unwrap();
    let port = rig.node_port("prod-comet-public", "ws").await.unwrap();
    let took = rig.push_through_the_ingress(&format!("ws://{NODE}:{port}/sub"), HOST, &token).await.unwrap();
    println!("the same to a client through a NodePort: {:.1} ms", took.as_secs_f64() * 1e3);
    gateway_and_autoscaler(rig, &token).await;
}

/// A Gateway's route is served, and an autoscaler comes and goes without a change of the number.
async fn gateway_and_autoscaler(rig: &Rig, token: &str) {
    let parent = json!({"name": "web", "namespace": "gateway"});
    let route = json!({"parentRefs": [parent], "hostnames": ["route.example.com"]});
    rig.patch("prod", json!({"spec": {"logic": {"httpRoute": route}}})).await.unwrap();
    rig.cluster
        .wait(CHANGE, "httproute/prod-logic", "jsonpath={.status.parents[0].parentRef.name}=web", &[])
        .await
        .unwrap();
    let took = rig.a_push_arrives("route.example.com", token).await.unwrap();
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
