//! On a Kafka and a Redis that are not ours: two ImClusters that do not meet, then one of them through deploys.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use e2e::bench::push;
use e2e::client::{Client, Dial, Target};
use e2e::cluster::NODE;

use crate::external::External;
use crate::rig::{READY, Rig};

const PATIENCE: Duration = Duration::from_secs(30);
const OPERATION: i32 = 1000;
/// Who is the same at both: what keeps them apart is not what clients say.
const KEY: &str = "the-same-key";

/// One side: a client in room 1, and the way to push.
struct Side {
    client: Client,
    host: String,
    token: String,
}

impl Side {
    async fn enter(host: String, token: String) -> anyhow::Result<Self> {
        let mut target: Target = format!("ws://{NODE}:80/sub").parse()?;
        target.host.clone_from(&host);
        let mut client = Client::connect(&target, &Dial::default()).await?;
        let auth = serde_json::json!({
            "mid": 1, "key": KEY, "room_id": "live://1", "platform": "web", "accepts": [OPERATION],
        });
        client.auth(auth.to_string()).await?;
        Ok(Self { client, host, token })
    }

    async fn push(&mut self, what: &str, body: &str) -> anyhow::Result<()> {
        let mut logic = push::http(format!("{NODE}:80").parse()?).await?;
        let path = format!("/goim/push/{what}&operation={OPERATION}");
        push::post(&mut logic, &self.host, Some(&self.token), &path, Bytes::from(body.to_owned())).await
    }

    async fn receives(&mut self, body: &str) -> anyhow::Result<()> {
        let (_, received) = self.client.push_within(PATIENCE).await?;
        ensure!(received == body, "{}: {received:?} arrived before {body:?}", self.host);
        Ok(())
    }
}

/// What is pushed to one side never arrives at the other: there, the next thing to arrive is what was pushed there.
async fn apart(mut one: Side, mut other: Side) -> anyhow::Result<()> {
    for what in ["room?type=live&room=1", &format!("keys?keys={KEY}"), "mids?mids=1", "all?"] {
        one.push(what, &format!("to one: {what}")).await?;
        one.receives(&format!("to one: {what}")).await?;
        other.push(what, &format!("to the other: {what}")).await?;
        other.receives(&format!("to the other: {what}")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_on_one_kafka_and_redis_do_not_meet_and_a_deploy_goes_by() {
    let rig = Rig::start().await.unwrap();
    let began = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    let external = External::start(&rig).await.unwrap();
    step("three brokers over SASL and TLS, and a Redis with TLS");
    for (name, replicas) in [("prod", 2), ("beside", 1)] {
        rig.cluster.apply(&external.imcluster(name, replicas, None).to_string()).await.unwrap();
    }
    let mut sides = Vec::new();
    for name in ["prod", "beside"] {
        rig.cluster.wait(READY, &format!("imcluster/{name}"), "condition=Ready", &[]).await.unwrap();
        step(&format!("{name} is Ready"));
        let (host, token) = (format!("{name}.example.com"), rig.push_token(name).await.unwrap());
        let took = rig.push_through_the_ingress(&format!("ws://{NODE}:80/sub"), &host, &token).await.unwrap();
        println!(
            "          a push through the Ingress to a client through the Ingress: {:.1} ms",
            took.as_secs_f64() * 1e3
        );
        sides.push(rig.client.run(Side::enter(host, token)).await.unwrap().unwrap());
    }
    let (other, one) = (sides.pop().unwrap(), sides.pop().unwrap());
    rig.client.run(apart(one, other)).await.unwrap().unwrap();
    step("what is pushed to one of them never arrives at the other");
    rig.end().await.unwrap();
}
