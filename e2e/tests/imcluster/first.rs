//! Ready is true to its word: at the first Ready a client connects and one push arrives, with nothing tried again.

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::cluster::{Inside, Namespace};
use e2e::smoke::{Route, one_push_at_once};
use e2e::{eventually, soak};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::external::External;
use super::rig::{READY, Rig};

/// So many at a time.
const BATCH: usize = 4;
/// So many in all, unless a soak goes on for longer.
const ENOUGH: usize = 20;
/// After how long Kafka and Redis may come within reach, in milliseconds.
const GATE: u64 = 20_000;
/// How long the one connection and the one push may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a pod or a process on a node reaches them: by the addresses of their Services.
async fn by_the_services(rig: &Rig, name: &str) -> anyhow::Result<Route> {
    let address = async |service: String| {
        let service = rig.cluster.get(&["service", &service]).await?;
        anyhow::Ok(service["spec"]["clusterIP"].as_str().context("no address")?.to_owned())
    };
    let comet = address(format!("{name}-comet-public")).await?;
    let logic = address(format!("{name}-logic")).await?;
    let token = rig.push_token(name).await?;
    Ok(Route { clients: format!("ws://{comet}:3102/sub"), backends: format!("{logic}:3111"), host: None, token })
}

/// Makes one, lets it reach Kafka and Redis after this delay, and pushes once when it says for the first time that it
/// is Ready.
async fn first_push(
    rig: &Rig,
    external: &External,
    on_the_node: &Inside,
    name: &str,
    delay: Duration,
) -> anyhow::Result<()> {
    external.close_gate(rig, name).await?;
    rig.cluster.apply(&external.imcluster(name, 1, Some(name)).to_string()).await?;
    let began = Instant::now();
    let gate = async {
        tokio::time::sleep(delay).await;
        external.open_gate(rig, name).await
    };
    let pushed = async {
        // Looked up before it is Ready, so that nothing lies between its word and the push.
        let route = eventually(READY, "Services and the token", || by_the_services(rig, name)).await?;
        rig.cluster.wait(READY, &format!("imcluster/{name}"), "condition=Ready", &[]).await?;
        let ready = began.elapsed();
        let took = on_the_node.run(async move { one_push_at_once(&route, PATIENCE).await }).await?;
        let took = took.with_context(|| format!("Ready after {:.1} s", ready.as_secs_f64()))?;
        anyhow::Ok((ready, took))
    };
    let ((), (ready, took)) = tokio::try_join!(gate, pushed)?;
    let (delay, ready, took) = (delay.as_secs_f64(), ready.as_secs_f64(), took.as_secs_f64() * 1e3);
    println!("{name}: Kafka and Redis after {delay:4.1} s, Ready after {ready:4.1} s, the push took {took:5.1} ms");
    let gone = [format!("imcluster/{name}"), format!("service/{name}-kafka"), format!("service/{name}-redis")];
    rig.cluster.kubectl(&["delete", "--wait=false", &gone[0], &gone[1], &gone[2]]).await?;
    Ok(())
}

/// Again and again.
pub async fn story(rig: &Rig, external: &External) {
    let on_the_node = Namespace::Cluster.inside().unwrap();
    let mut random = StdRng::seed_from_u64(soak::seed());
    let (began, length) = (Instant::now(), soak::length(Duration::ZERO));
    let (mut made, mut wrong) = (0, Vec::new());
    while made < ENOUGH || began.elapsed() < length {
        let batch: Vec<(String, Duration)> = (made..made + BATCH)
            .map(|number| (format!("first-{number}"), Duration::from_millis(random.random_range(0..=GATE))))
            .collect();
        let pushes = batch.iter().map(async |(name, delay)| {
            let end = first_push(rig, external, &on_the_node, name, *delay).await;
            end.err().map(|error| format!("{name}, Kafka and Redis after {delay:?}: {error:#}"))
        });
        wrong.extend(join_all(pushes).await.into_iter().flatten());
        made += BATCH;
    }
    assert!(wrong.is_empty(), "{} of {made}:\n{}", wrong.len(), wrong.join("\n"));
    println!("{made} times");
}
