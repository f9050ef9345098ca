//! A thousand goim clients under pushes, on a Kafka and a Redis that are not ours, while comets are added and taken
//! away, every image is changed, and a node is drained with nobody to operate.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream;
use e2e::cluster::{NODE, Namespace};
use e2e::crowd::{Crowd, Limits, Plan, Pusher, half_to_keys, judge};
use e2e::eventually;
use serde_json::{Value, json};

use super::external::External;
use super::rig::{READY, Rig, SYSTEM};

/// Clients that come at first, then those that come to three comets, then those that come after the new image: else the
/// comet that is taken away, and the one on the node that is drained, would have none.
const CLIENTS: [u32; 3] = [1000, 200, 200];
/// The phases in which comets go that have clients.
const TAKEN_AWAY: [&str; 3] = ["3 to 2 comets", "another image", "node 2 drained"];
/// Of 50 clients each, when all are there.
const ROOMS: u32 = 28;
/// Pushes a second.
const RATE: f64 = 200.0;
/// How many clients a comet may close in a second.
const CLOSES: usize = 100;
const NODE2: &str = "198.18.0.2";
const HOST: &str = "prod.example.com";
/// How long a node may take to empty.
const EMPTY: Duration = Duration::from_secs(180);
/// Before and after each change the pushes go on for so long.
const CALM: Duration = Duration::from_secs(3);

impl Rig {
    async fn operators(&self, number: u32) -> anyhow::Result<()> {
        let (namespace, replicas) = (format!("--namespace={SYSTEM}"), format!("--replicas={number}"));
        self.cluster.kubectl(&["scale", "deployment/imcluster-operator", &namespace, &replicas]).await?;
        eventually(READY, &format!("{number} operators"), || async {
            let pods =
                self.cluster.get(&["pods", &namespace, "--selector=app.kubernetes.io/name=imcluster-operator"]).await?;
            let there = pods["items"].as_array().context("no list")?.len();
            ensure!(there == number as usize, "{there}");
            anyhow::Ok(())
        })
        .await
    }

    /// `kubectl drain` of node 2 while there is no operator; done when what was on it serves on node 1.
    async fn drain_without_an_operator(&self) -> anyhow::Result<()> {
        self.operators(0).await?;
        let nodes = self.of_comets("prod", ".spec.nodeName").await?;
        ensure!(nodes.iter().any(|node| node == "node2"), "there is no comet on node 2 to be moved: {nodes:?}");
        let timeout = format!("--timeout={}s", EMPTY.as_secs());
        let drain = ["drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", &timeout];
        self.cluster.kubectl_within(EMPTY, &drain).await?;
        for what in ["statefulset/prod-comet", "deployment/prod-logic", "deployment/prod-job"] {
            self.cluster.wait(EMPTY, what, "jsonpath={.status.readyReplicas}=2", &[]).await?;
        }
        let nodes = self.of_comets("prod", ".spec.nodeName").await?;
        ensure!(nodes == ["node1", "node1"], "{nodes:?}");
        self.cluster.kubectl(&["uncordon", "node2"]).await?;
        self.operators(1).await
    }
}

/// Clients `from..to` of the same crowd. They know both nodes, as a load balancer would: a node sends them to its own
/// comets only.
fn plan(port: u16, from: u32, to: u32) -> Plan {
    let targets = [NODE, NODE2].map(|node| format!("ws://{node}:{port}/sub").parse().expect("a target"));
    let mut plan = Plan::new(targets.to_vec(), (to - from) as usize, ROOMS);
    let everybody = stream::members(ROOMS);
    plan.member = std::sync::Arc::new(move |index| everybody(index + from as usize));
    plan
}

fn prod(external: &External) -> Value {
    let mut prod = external.imcluster("prod", 2, None);
    prod["spec"]["comet"]["exposure"] = json!({"type": "NodePort"});
    prod["spec"]["comet"]["drain"]["maxRatePerSecond"] = json!(CLOSES);
    // Who was sent to the node without a comet waits 3 s before the other: in again before the next comet is drained.
    prod["spec"]["comet"]["rollout"]["pauseSeconds"] = json!(8);
    prod
}

/// Nobody loses more than was sent in the own gap.
pub async fn story(rig: &Rig, external: &External) {
    rig.another_version("0.1.1").await.unwrap();
    let began = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    rig.cluster.apply(&prod(external).to_string()).await.unwrap();
    rig.settled("prod").await.unwrap();
    step("Ready");
    let token = rig.push_token("prod").await.unwrap();
    rig.a_push_arrives(HOST, &token).await.unwrap();
    let port = rig.node_port("prod-comet-public", "ws").await.unwrap();
    let node_port = format!("ws://{NODE}:{port}/sub");
    rig.push_through_the_ingress(&node_port, HOST, &token).await.unwrap();

    let inside = Namespace::Cluster.inside().unwrap();
    let threads = inside.threads();
    let [first, second, third] = CLIENTS;
    let (second, all) = (first + second, first + second + third);
    let crowd = Crowd::connect(plan(port, 0, first), threads).await.unwrap();
    step("clients are in");
    let streams = half_to_keys(all, ROOMS);
    let schedule = Schedule { run: 1, streams, rate: RATE, duration: Duration::MAX, body: 64, workers: 100 };
    let address = format!("{NODE}:80").parse().unwrap();
    let entry = Entry::Ingress { address, host: HOST.to_owned(), token };
    let pusher = Pusher::start(schedule, entry, threads);

    crowd.mark("2 to 3 comets");
    tokio::time::sleep(CALM).await;
    rig.cluster.kubectl(&["scale", "imcluster/prod", "--replicas=3"]).await.unwrap();
    rig.settled("prod").await.unwrap();
    let to_three = Crowd::connect(plan(port, first, second), threads).await.unwrap();
    step("three comets, and clients that came to them");
    crowd.mark(TAKEN_AWAY[0]);
    rig.cluster.kubectl(&["scale", "imcluster/prod", "--replicas=2"]).await.unwrap();
    rig.settled("prod").await.unwrap();
    step("two comets");
    tokio::time::sleep(CALM).await;
    crowd.mark(TAKEN_AWAY[1]);
    rig.patch("prod", json!({"spec": {"version": "0.1.1"}})).await.unwrap();
    rig.settled("prod").await.unwrap();
    let to_new = Crowd::connect(plan(port, second, all), threads).await.unwrap();
    step("another image everywhere, and clients that came to it");
    tokio::time::sleep(CALM).await;
    crowd.mark(TAKEN_AWAY[2]);
    rig.drain_without_an_operator().await.unwrap();
    rig.settled("prod").await.unwrap();
    step("node 2 drained without an operator");
    tokio::time::sleep(CALM).await;
    let pushed = pusher.stop().await.unwrap();
    crowd.settle(CALM).await;

    let mut record = crowd.finish(pushed).await.unwrap();
    for later in [to_three, to_new] {
        let later = later.finish(Vec::new()).await.unwrap();
        record.lives.extend(later.lives);
        later.reasons.into_iter().for_each(|(reason, times)| *record.reasons.entry(reason).or_default() += times);
    }
    let report = judge(&record, &Limits::of_rate(CLOSES));
    println!("{report}");
    assert!(report.faults.is_empty() && report.total.pushes.delivered > 0, "{:#?}", report.faults);
    for phase in report.phases.iter().filter(|phase| TAKEN_AWAY.contains(&&*phase.name)) {
        assert!(phase.moves.closes > 0, "{}: nobody was on what was taken away", phase.name);
    }
    rig.cluster.kubectl(&["delete", "imcluster/prod", "--timeout=50s"]).await.unwrap();
    rig.nothing_is_left_of("prod", EMPTY).await.unwrap();
}
