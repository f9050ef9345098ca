//! Everything is killed and frozen in turn and two at a time, by a seed, while clients are pushed to: who was in has what was accepted, the
//! services know who is where, and nobody is disturbed by what befalls others.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::bench::push::{Entry, Pushed, Schedule};
use e2e::bench::stream;
use e2e::chaos::{Blows, Suffered, Watch, World};
use e2e::crowd::{Crowd, Limits, Plan, Pusher, Record, Report, judge, to_all_kinds};
use e2e::{eventually, os, soak};
use serde_json::Value;

const CLIENTS: u32 = 300;
/// No multiple of the number of comets, so that each room has clients at every comet.
const ROOMS: u32 = 20;
/// Pushes a second, through all logics together.
const RATE: f64 = 300.0;
/// With each seed, unless a soak goes on for longer.
const ENOUGH: Duration = Duration::from_secs(60);
/// After so much of it there is peace for a moment, in which everything must be right.
const ROUND: Duration = Duration::from_secs(60);
/// Within what something arrives again after a blow; 10 s are promised.
const FLOWS: Duration = Duration::from_secs(20);
/// Within what everybody is in again.
const RECOVERY: Duration = Duration::from_secs(60);
/// Within what a count is right, 20 s after a comet was killed.
const COUNTED: Duration = Duration::from_secs(20);
/// Within what every session is registered where it is.
const KNOWN: Duration = Duration::from_secs(20);
/// How long a push may have been on its way to a client whose connection ended meanwhile, on the average.
const IN_FLIGHT: Duration = Duration::from_secs(5);

/// Some of the streams for each logic: numbers in a stream are one pusher's.
fn pushers(world: &World, run: u32) -> Vec<Pusher> {
    let threads = tokio::runtime::Handle::current();
    let all = to_all_kinds(CLIENTS, ROOMS);
    let ways = World::LOGICS as u32;
    let start = |(way, address)| {
        let streams = all.iter().copied().filter(|stream| stream % ways == way).collect();
        let rate = RATE / f64::from(ways);
        let schedule = Schedule { run, streams, rate, duration: Duration::MAX, body: 64, workers: 50 };
        Pusher::start(schedule, Entry::Http { address, token: None }, &threads)
    };
    (0..ways).zip(world.https()).map(start).collect()
}

/// Deals blows until this time; the rows of the table.
async fn war(world: &World, crowd: &Crowd, blows: &mut Blows, until: Duration) -> anyhow::Result<Vec<Suffered>> {
    let mut suffered = Vec::new();
    while os::monotonic() < until {
        let strike = blows.next().context("the series has no end")?;
        tokio::time::sleep(strike.after).await;
        let at = os::monotonic() - crowd.began();
        // What was begun is seen also when it has no end.
        print!("| {:6.1} | {strike:60} |", at.as_secs_f64());
        std::io::stdout().flush()?;
        let all = world.suffer(&strike).await.with_context(|| format!("{strike}"))?;
        let (out, before, good) = (CLIENTS as usize - crowd.inside(), crowd.arrivals(), os::monotonic());
        let arrives = || async { crowd.arrivals() > before };
        eventually(FLOWS, "something to arrive again", arrives).await.with_context(|| format!("after {strike}"))?;
        let (lasted, flowed) = (good - crowd.began() - at, os::monotonic() - good);
        println!(" {:6.1} | {:6.1} | {out:4} |", lasted.as_secs_f64(), flowed.as_secs_f64());
        suffered.extend(all);
    }
    Ok(suffered)
}

/// Nobody is struck for a while: then everybody is in, counted and known, and every process lives and holds little.
async fn peace(world: &World, crowd: &Crowd, watch: &Watch) -> anyhow::Result<()> {
    let began = os::monotonic();
    print!("| {:6.1} | {:60} |", (began - crowd.began()).as_secs_f64(), "peace");
    eventually(RECOVERY, "everybody to be in", || async {
        let inside = crowd.inside();
        ensure!(inside == CLIENTS as usize, "{inside} are");
        Ok(())
    })
    .await?;
    for logic in world.https() {
        eventually(COUNTED, &format!("the count of {logic} to be right"), || async {
            let (status, body) = e2e::program::get(logic, "/goim/online/total").await?;
            let counted = &serde_json::from_str::<Value>(&body)?["data"]["conn_count"];
            ensure!(status.is_success() && *counted == CLIENTS, "{status}: {body}");
            Ok(())
        })
        .await?;
    }
    eventually(KNOWN, "Redis to know where everybody is", || all_known(world, crowd)).await?;
    watch.look(world);
    let faults = watch.faults(u64::from(CLIENTS));
    ensure!(faults.is_empty(), "{faults:#?}");
    println!(" {:6.1} |        |      |", (os::monotonic() - began).as_secs_f64());
    world.all_alive()
}

/// Every session in Redis is a client's that is in, and names the comet that he is at; and none is missing.
async fn all_known(world: &World, crowd: &Crowd) -> anyhow::Result<()> {
    let store = world.store().await?;
    let (sessions, members) = (store.sessions().await?, store.members().await?);
    let (mut keys, mut mids) = (BTreeMap::new(), BTreeMap::new());
    for (client, target) in crowd.whereabouts() {
        let (key, comet) = (stream::key(client as u32), World::name_of(World::comet_of(target)));
        mids.insert(format!("mid_{} {key}", client + 1), comet.clone());
        keys.insert(format!("key_{key}"), comet);
    }
    for (found, wanted) in [(sessions, keys), (members, mids)] {
        let missing: Vec<_> = wanted.iter().filter(|(name, at)| found.get(*name) != Some(at)).take(5).collect();
        let wrong: Vec<_> = found.iter().filter(|(name, at)| wanted.get(*name) != Some(at)).take(5).collect();
        ensure!(found == wanted, "{} of {}: wanted {missing:?}, found {wrong:?}", found.len(), wanted.len());
    }
    Ok(())
}

/// Pushes that found nobody while Redis did not know who is where: nobody was said to have them, so nobody is owed them.
fn forgive(pushed: &mut [Pushed], suffered: &[Suffered]) -> usize {
    let forgets = |at| suffered.iter().filter_map(|one| one.forgets.as_ref()).any(|time| time.contains(&at));
    let to_nobody = pushed.iter_mut().filter(|push| push.accepted && push.records == 0 && forgets(push.sent));
    to_nobody.map(|push| push.accepted = false).count()
}

/// Connections that ended though nothing had befallen their own comet.
fn disturbed(record: &Record, suffered: &[Suffered]) -> Vec<String> {
    let gaps =
        record.lives.iter().enumerate().flat_map(|(client, life)| life.gaps().into_iter().map(move |g| (client, g)));
    let without_reason = gaps.filter(|(_, gap)| {
        let comet = World::comet_of(gap.server);
        !suffered.iter().any(|one| one.ends(comet, gap.from))
    });
    let sentence = |(client, gap): (usize, e2e::crowd::Gap)| {
        let (comet, at) = (World::name_of(World::comet_of(gap.server)), gap.from.saturating_sub(record.began));
        format!("client {client} lost its connection to {comet} at {:.1} s: {:?}", at.as_secs_f64(), gap.after)
    };
    without_reason.map(sentence).collect()
}

/// How many deliveries may be excused: what is sent to a client while it is out, and before each of its ends.
fn explained(report: &Report) -> u64 {
    let all = &report.total;
    let rate = all.pushes.expected as f64 / (f64::from(CLIENTS) * all.took.as_secs_f64());
    (rate * (all.moves.out + IN_FLIGHT * all.moves.closes as u32).as_secs_f64()) as u64
}

async fn live_through(seed: u64) {
    println!("seed {seed}: make chaos SEED={seed} deals the same blows\n");
    let world = World::start().await.unwrap();
    let plan = Plan::new(world.targets(), CLIENTS as usize, ROOMS);
    let run = plan.run;
    let crowd = Crowd::connect(plan, &tokio::runtime::Handle::current()).await.unwrap();
    let (pushers, watch) = (pushers(&world, run), Watch::default());
    watch.look(&world);

    let (mut blows, mut suffered) = (Blows::new(seed), Vec::new());
    println!("|  at, s | what                                                         | took, s | flows | out |");
    println!("|-------:|--------------------------------------------------------------|--------:|------:|----:|");
    let end = crowd.began() + soak::length(ENOUGH);
    while os::monotonic() < end {
        let until = (os::monotonic() + ROUND).min(end);
        let fought = tokio::select! {
            fought = war(&world, &crowd, &mut blows, until) => fought,
            never = watch.go_on(&world) => match never {},
        };
        suffered.extend(fought.unwrap_or_else(|error| panic!("seed {seed}: {error:#}")));
        peace(&world, &crowd, &watch).await.unwrap_or_else(|error| panic!("seed {seed}: {error:#}\n{watch}"));
    }

    let mut pushed = Vec::new();
    for pusher in pushers {
        pushed.extend(pusher.stop().await.unwrap());
    }
    let to_nobody = forgive(&mut pushed, &suffered);
    crowd.settle(Duration::from_secs(3)).await;
    let limits = Limits {
        window: Duration::from_secs(1_000_000),
        moves: usize::MAX,
        closes_each: usize::MAX,
        gap: Duration::from_secs(60),
        on_its_way: Duration::from_secs(30),
        ..Limits::of_rate(0)
    };
    let record = crowd.finish(pushed).await.unwrap();
    let report = judge(&record, &limits);
    let (disturbed, explained) = (disturbed(&record, &suffered), explained(&report));
    println!("\n{watch}\n\n{report}");
    println!("{} slow readers were cut off", world.cut());
    println!("{to_nobody} pushes found nobody when Redis had forgotten; at most {explained} deliveries may be excused");
    assert!(report.faults.is_empty(), "seed {seed}: {:#?}", report.faults);
    assert!(disturbed.is_empty(), "seed {seed}: {disturbed:#?}");
    let all = &report.total;
    assert!(all.pushes.excused <= explained, "seed {seed}: {} are excused, {explained} may be", all.pushes.excused);
    assert!(all.pushes.delivered > 0 && all.moves.closes > 0, "seed {seed}: nothing was tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_in_has_everything_once_and_in_order_whatever_is_killed_or_frozen() {
    for seed in soak::seeds() {
        live_through(seed).await;
    }
}
