//! A thousand goim clients, and some that can move, under pushes, on a Kafka and a Redis that are not ours, while comets
//! are added and taken away, every image is changed, and a node is drained with nobody to operate. Who can move misses
//! nothing, the others what was sent while they were out themselves.
//!
//! `make soak LANE=imcluster` is larger: three thousand clients, half of which can move, 500 pushes a second, and before
//! a comet is taken away the image of all three is changed three times in a row.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream;
use e2e::cluster::{NODE, NODE2, Namespace};
use e2e::crowd::{self, Crowd, Limits, Plan, Pusher, half_to_keys, judge};
use e2e::{eventually, soak};
use serde_json::{Value, json};

use super::external::External;
use super::rig::{READY, Rig, SYSTEM};

/// How large it is.
struct Size {
    /// Clients that come at first.
    clients: u32,
    /// Which of them can move.
    movable: fn(usize) -> bool,
    /// How often the image of three comets is changed.
    rolls: usize,
    /// Pushes a second.
    rate: f64,
    /// How often a goim client may be closed while every comet is replaced: each time it may meet one whose turn is next.
    closes_each: usize,
}

const SHORT: Size = Size { clients: 1200, movable: one_in_six, rolls: 0, rate: 200.0, closes_each: 2 };
const FULL: Size = Size { clients: 3000, movable: crowd::half, rolls: 3, rate: 500.0, closes_each: 3 };

/// Clients that come to three comets, and again as many after the new image, half of which can move: else the comet that is
/// taken away, and the one on the node that is drained, would have none.
const LATER: u32 = 200;
/// Clients of a room, when all are there.
const MEMBERS: u32 = 50;
/// The phase in which nobody leaves.
const ADDED: &str = "2 to 3 comets";
/// How many clients a comet may close in a second.
const CLOSES: usize = 100;
const HOST: &str = "prod.example.com";
/// How long it may take until every comet is another.
const ROLLED: Duration = Duration::from_secs(600);
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

/// As [`crowd::half`], but fewer.
fn one_in_six(index: usize) -> bool {
    index / 50 % 6 == 5
}

impl Size {
    /// Of everybody who comes.
    fn rooms(&self) -> u32 {
        (self.clients + 2 * LATER) / MEMBERS
    }

    /// So many clients of the same crowd, from this one on. They know both nodes, as a load balancer would: a node sends
    /// them to its own comets only.
    fn plan(&self, port: u16, from: u32, clients: u32) -> Plan {
        let targets = [NODE, NODE2].map(|node| format!("ws://{node}:{port}/sub").parse().expect("a target"));
        let mut plan = Plan::new(targets.to_vec(), clients as usize, self.rooms());
        let everybody = stream::members(self.rooms());
        plan.member = std::sync::Arc::new(move |index| everybody(index + from as usize));
        plan.movable = if from == 0 { self.movable } else { crowd::half };
        plan
    }
}

fn prod(external: &External) -> Value {
    let mut prod = external.imcluster("prod", 2, None);
    prod["spec"]["comet"]["exposure"] = json!({"type": "NodePort"});
    prod["spec"]["comet"]["drain"]["maxRatePerSecond"] = json!(CLOSES);
    // Everybody may be on one comet.
    prod["spec"]["comet"]["drain"]["maxSeconds"] = json!(60);
    // Who is told to move last has 4 s more than that, while two nodes, their comets and everybody's clients share two cores.
    prod["spec"]["comet"]["drain"]["flushSeconds"] = json!(6);
    prod
}

/// Who can move loses nothing, the others no more than was sent in the own gap.
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

    let size = soak::size(SHORT, FULL);
    let inside = Namespace::Client.inside().unwrap();
    let threads = inside.threads();
    let crowd = Crowd::connect(size.plan(port, 0, size.clients), threads).await.unwrap();
    step("clients are in");
    let streams = half_to_keys(size.clients + 2 * LATER, size.rooms());
    let schedule = Schedule { run: 1, streams, rate: size.rate, duration: Duration::MAX, body: 64, workers: 100 };
    let address = format!("{NODE}:80").parse().unwrap();
    let entry = Entry::Ingress { address, host: HOST.to_owned(), token };
    let pusher = Pusher::start(schedule, entry, threads);

    crowd.mark(ADDED);
    tokio::time::sleep(CALM).await;
    rig.cluster.kubectl(&["scale", "imcluster/prod", "--replicas=3"]).await.unwrap();
    rig.settled("prod").await.unwrap();
    let to_three = Crowd::connect(size.plan(port, size.clients, LATER), threads).await.unwrap();
    step("three comets, and clients that came to them");
    let mut images = ["0.1.1", "0.1.0"].into_iter().cycle();
    for number in 1..=size.rolls {
        crowd.mark(&format!("another image, {number}"));
        rig.patch("prod", json!({"spec": {"version": images.next()}})).await.unwrap();
        rig.settled_within(ROLLED, "prod").await.unwrap();
        step("another image everywhere, on three comets");
        tokio::time::sleep(CALM).await;
    }
    crowd.mark("3 to 2 comets");
    rig.cluster.kubectl(&["scale", "imcluster/prod", "--replicas=2"]).await.unwrap();
    rig.settled("prod").await.unwrap();
    step("two comets");
    tokio::time::sleep(CALM).await;
    crowd.mark("another image");
    rig.patch("prod", json!({"spec": {"version": images.next()}})).await.unwrap();
    rig.settled_within(ROLLED, "prod").await.unwrap();
    let to_new = Crowd::connect(size.plan(port, size.clients + LATER, LATER), threads).await.unwrap();
    step("another image everywhere, and clients that came to it");
    tokio::time::sleep(CALM).await;
    crowd.mark("node 2 drained");
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
    let limits = Limits { closes_each: size.closes_each, ..Limits::of_rate(CLOSES) };
    let report = judge(&record, &limits);
    println!("{report}");
    assert!(report.faults.is_empty() && report.total.pushes.delivered > 0, "{:#?}", report.faults);
    let leaving = report.phases.iter().skip_while(|phase| phase.name != ADDED).skip(1);
    for phase in leaving {
        let (moved, closed) = (phase.moves.moved, phase.moves.closes);
        assert!(moved > 0 && closed > 0, "{}: {moved} moved, {closed} were closed", phase.name);
    }
    rig.cluster.kubectl(&["delete", "imcluster/prod", "--timeout=50s"]).await.unwrap();
    rig.nothing_is_left_of("prod", EMPTY).await.unwrap();
}
