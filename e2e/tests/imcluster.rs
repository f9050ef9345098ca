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

use external::External;
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

/// On a Kafka and a Redis of somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_lose_no_more_than_their_own_gaps_while_everything_is_replaced_and_then_nothing_is_written()
{
    let rig = Rig::start().await.unwrap();
    let external = External::start(&rig).await.unwrap();
    deploys::story(&rig, &external).await;
    steady::story(&rig, &external).await;
    rig.nothing_was_denied();
    rig.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_and_stalled_are_true_to_their_word_and_many_hands_keep_what_is_theirs() {
    let rig = Rig::start().await.unwrap();
    let external = External::start(&rig).await.unwrap();
    tokio::join!(first::story(&rig, &external), broken::story(&rig, &external));
    hands::story(&rig, &external).await;
    rig.nothing_was_denied();
    rig.end().await.unwrap();
}
