//! Everything is killed and frozen in turn, by a seed, while clients are pushed to: who was in has what was accepted.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::bench::push::{Entry, Schedule};
use e2e::chaos::{Blows, Victim, World};
use e2e::crowd::{Crowd, Limits, Plan, Pusher, half_to_keys, judge};
use e2e::{eventually, os, soak};
use serde_json::Value;

const CLIENTS: u32 = 300;
const ROOMS: u32 = 15;
/// Pushes a second, through all logics together.
const RATE: f64 = 300.0;
/// Unless a soak goes on for longer.
const ENOUGH: Duration = Duration::from_secs(60);
/// Within what everybody is in again, and everything that is owed has come.
const RECOVERY: Duration = Duration::from_secs(60);
/// For how long after a failover of Redis a push may find nobody: what the new primary had not heard of is lost.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Half of the streams for each logic: numbers in a stream are one pusher's.
fn pushers(world: &World, run: u32, rate: f64) -> Vec<Pusher> {
    let threads = tokio::runtime::Handle::current();
    let all = half_to_keys(CLIENTS, ROOMS);
    let ways = World::LOGICS as u32;
    let start = |(way, address)| {
        let streams = all.iter().copied().filter(|stream| stream % ways == way).collect();
        let rate = rate / f64::from(ways);
        let schedule = Schedule { run, streams, rate, duration: Duration::MAX, body: 64, workers: 50 };
        Pusher::start(schedule, Entry::Http { address, token: None }, &threads)
    };
    (0..ways).zip(world.https()).map(start).collect()
}

/// How many connections logic says there are.
async fn counted(world: &World) -> anyhow::Result<u64> {
    let logic = world.https().next().expect("there are logics");
    let (status, body) = e2e::program::get(logic, "/goim/online/total").await?;
    ensure!(status.is_success(), "{status}: {body}");
    let body: Value = serde_json::from_str(&body)?;
    body["data"]["conn_count"].as_u64().ok_or_else(|| anyhow::anyhow!("no count in {body}"))
}

async fn live_through(seed: u64) {
    println!("seed {seed}");
    let world = World::start().await.unwrap();
    let targets = world.websockets().map(|address| format!("ws://{address}/sub").parse().unwrap()).collect();
    let plan = Plan::new(targets, CLIENTS as usize, ROOMS);
    let run = plan.run;
    let crowd = Crowd::connect(plan, &tokio::runtime::Handle::current()).await.unwrap();
    let pushers = pushers(&world, run, RATE);

    let (began, length) = (Instant::now(), soak::length(ENOUGH));
    let (mut blows, mut failovers) = (Blows::new(seed), Vec::new());
    while began.elapsed() < length {
        let blow = blows.next().expect("the series has no end");
        tokio::time::sleep(blow.after).await;
        println!("{:7.1} s  {blow}", began.elapsed().as_secs_f64());
        let from = os::monotonic();
        world.suffer(blow).await.unwrap();
        if blow.victim == Victim::Redis {
            failovers.push(from..os::monotonic() + FORGOTTEN);
        }
    }
    println!("{:7.1} s  peace", began.elapsed().as_secs_f64());
    eventually(RECOVERY, "everybody to be in", || async {
        let inside = crowd.inside();
        ensure!(inside == CLIENTS as usize, "{inside} are");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    eventually(RECOVERY, "the count to be right", || async {
        let counted = counted(&world).await?;
        ensure!(counted == u64::from(CLIENTS), "{counted}");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    world.all_alive().unwrap();

    let mut pushed = Vec::new();
    for pusher in pushers {
        pushed.extend(pusher.stop().await.unwrap());
    }
    let mut to_nobody = 0;
    for push in pushed.iter_mut().filter(|push| push.accepted && push.records == 0) {
        // Nobody was said to have it, so nobody is owed it.
        if failovers.iter().any(|forgotten| forgotten.contains(&push.sent)) {
            push.accepted = false;
            to_nobody += 1;
        }
    }
    crowd.settle(Duration::from_secs(3)).await;
    let limits = Limits {
        window: length,
        moves: usize::MAX,
        closes_each: usize::MAX,
        gap: Duration::from_secs(60),
        on_its_way: Duration::from_secs(30),
    };
    let report = judge(&crowd.finish(pushed).await.unwrap(), &limits);
    println!("{report}\n{to_nobody} pushes found nobody after {} failovers", failovers.len());
    assert!(report.faults.is_empty(), "seed {seed}: {:#?}", report.faults);
    assert!(report.total.pushes.delivered > 0 && report.total.moves.closes > 0, "nothing was tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_in_has_everything_once_and_in_order_whatever_is_killed_or_frozen() {
    live_through(soak::seed()).await;
}
