//! An ImCluster on a real Kubernetes, as its user has it: the charts installed with helm, the rest by kubectl.
//!
//! Every test has a cluster of its own with the images of this tree; what it does to it is one story.

#![allow(clippy::unwrap_used)]

#[path = "imcluster/broken.rs"]
mod broken;
#[path = "imcluster/deploys.rs"]
mod deploys;
#[path = "imcluster/external.rs"]
mod external;
#[path = "imcluster/first.rs"]
mod first;
#[path = "imcluster/fixtures.rs"]
mod fixtures;
#[path = "imcluster/hands.rs"]
mod hands;
#[path = "imcluster/installed.rs"]
mod installed;
#[path = "imcluster/life.rs"]
mod life;
#[path = "imcluster/rig.rs"]
mod rig;
#[path = "imcluster/steady.rs"]
mod steady;
#[path = "imcluster/ways.rs"]
mod ways;

use std::time::{Duration, Instant};

use rig::{HOST, READY, Rig};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn twelve_lines_make_a_cluster_that_takes_a_push_by_every_way_and_all_of_it_can_be_removed() {
    let rig = Rig::start().await.unwrap();
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
    let took = rig.push_through_the_ingress("ws://198.18.0.1:80/sub", HOST, &token).await.unwrap();
    println!("a push through the Ingress to a client through the Ingress: {:.1} ms", took.as_secs_f64() * 1e3);

    rig.patch("prod", json!({"spec": {"comet": {"exposure": {"type": "NodePort"}}}})).await.unwrap();
    let port = rig.node_port("prod-comet-public", "ws").await.unwrap();
    let took = rig.push_through_the_ingress(&format!("ws://198.18.0.1:{port}/sub"), HOST, &token).await.unwrap();
    println!("the same to a client through a NodePort: {:.1} ms", took.as_secs_f64() * 1e3);
    ways::gateway_and_autoscaler(&rig, &token).await;

    rig.cluster.kubectl(&["delete", "imcluster/prod", "--timeout=50s"]).await.unwrap();
    rig.nothing_is_left_of("prod", Duration::from_secs(120)).await.unwrap();
    installed::test_and_remove(&rig).await;
    rig.end().await.unwrap();
}
