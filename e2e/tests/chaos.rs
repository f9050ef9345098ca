//! Everything is killed, frozen, cut off and held up in turn and two at a time, by a seed, while clients are pushed to: who
//! was in has what was accepted, the services know who is where, and nobody is disturbed by what befalls others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream;
use e2e::chaos::{Blows, Journal, Slow, Suffered, Watch, World, verdict};
use e2e::crowd::{Crowd, Limits, Plan, Pusher, judge, to_all_kinds};
use e2e::kafka::Kafka;
use e2e::load::Member;
use e2e::network::Network;
use e2e::{eventually, os, soak};
use serde_json::{Value, json};

const CLIENTS: u32 = 300;
/// No multiple of the number of comets, so that each room has clients at every comet.
const ROOMS: u32 = 20;
/// Pushes a second, through all logics together: a million that are accepted in an hour, with those that are not.
const RATE: f64 = 340.0;
/// With each seed, unless a soak goes on for longer.
const ENOUGH: Duration = Duration::from_secs(120);
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

/// Whether this client can be told that it was not given something. A third of them can, at each comet and on either
/// framing; clients that follow each other are at different ones.
fn has_caps(client: usize) -> bool {
    (client / (2 * World::COMETS)).is_multiple_of(3)
}

fn members() -> Arc<dyn Fn(usize) -> Member + Send + Sync> {
    let plain = stream::members(ROOMS);
    Arc::new(move |client| {
        let mut member = plain(client);
        if has_caps(client) {
            let mut token: Value = serde_json::from_str(&member.token).unwrap();
            token["caps"] = json!(["rooms"]);
            member.token = token.to_string();
        }
        member
    })
}

/// What is at war, and who looks on.
struct Theatre {
    world: World,
    crowd: Crowd,
    watch: Watch,
    journal: Arc<Journal>,
}

/// Deals blows until this time; the rows of the table.
async fn war(theatre: &Theatre, blows: &mut Blows, until: Duration) -> anyhow::Result<Vec<Suffered>> {
    let Theatre { world, crowd, journal, .. } = theatre;
    let mut suffered = Vec::new();
    while os::monotonic() < until {
        let strike = blows.next().context("the series has no end")?;
        tokio::time::sleep(strike.after).await;
        let at = os::monotonic() - crowd.began();
        journal.say(format_args!("| {:6.1} | {strike:60} |", at.as_secs_f64()))?;
        let all = world.suffer(&strike).await.with_context(|| format!("{strike}"))?;
        let (out, before, good) = (CLIENTS as usize - crowd.inside(), crowd.arrivals(), os::monotonic());
        let arrives = || async { crowd.arrivals() > before };
        eventually(FLOWS, "something to arrive again", arrives).await.with_context(|| format!("after {strike}"))?;
        let (lasted, flowed) = (good - crowd.began() - at, os::monotonic() - good);
        journal.say(format_args!(" {:6.1} | {:6.1} | {out:4} |\n", lasted.as_secs_f64(), flowed.as_secs_f64()))?;
        suffered.extend(all);
    }
    Ok(suffered)
}

/// Nobody is struck for a while: then everybody is in, counted and known, and every process lives and holds little.
async fn peace(Theatre { world, crowd, watch, journal }: &Theatre) -> anyhow::Result<()> {
    let began = os::monotonic();
    journal.say(format_args!("| {:6.1} | {:60} |", (began - crowd.began()).as_secs_f64(), "peace"))?;
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
    journal.say(format_args!(" {:6.1} |        |      |\n", (os::monotonic() - began).as_secs_f64()))?;
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

const HEAD: &str = "
|  at, s | what                                                         | took, s | flows | out |
|-------:|--------------------------------------------------------------|--------:|------:|----:|
";

/// Everything of one seed. What is wrong with it, a sentence each.
async fn live_through(seed: u64, network: Arc<Network>, journal: Arc<Journal>) -> anyhow::Result<Vec<String>> {
    let world = World::start(network).await?;
    let plan = Plan { member: members(), ..Plan::new(world.targets(), CLIENTS as usize, ROOMS) };
    let run = plan.run;
    let crowd = Crowd::connect(plan, &tokio::runtime::Handle::current()).await?;
    let pushers = pushers(&world, run);
    let theatre = Theatre { world, crowd, watch: Watch::default(), journal };
    let Theatre { world, crowd, watch, journal } = &theatre;
    watch.look(world);

    journal.say(HEAD)?;
    let (mut blows, mut suffered) = (Blows::new(seed), Vec::new());
    let end = crowd.began() + soak::length(ENOUGH);
    while os::monotonic() < end {
        let until = (os::monotonic() + ROUND).min(end);
        let fought = tokio::select! {
            fought = war(&theatre, &mut blows, until) => fought,
            never = watch.go_on(world) => match never {},
        };
        suffered.extend(fought?);
        peace(&theatre).await.with_context(|| watch.to_string())?;
    }

    let mut pushed = Vec::new();
    for pusher in pushers {
        pushed.extend(pusher.stop().await?);
    }
    let to_nobody = verdict::forgive(&mut pushed, &suffered);
    crowd.settle(Duration::from_secs(3)).await;
    let limits = Limits {
        window: Duration::from_secs(1_000_000),
        moves: usize::MAX,
        closes_each: usize::MAX,
        told: usize::MAX,
        gap: Duration::from_secs(60),
        on_its_way: Duration::from_secs(30),
        ..Limits::of_rate(0)
    };
    let Theatre { world, crowd, watch, journal } = theatre;
    let record = crowd.finish(pushed).await?;
    let report = judge(&record, &limits);
    let explained = verdict::explained(&report);
    journal.say(format_args!("\n{watch}\n\n{report}\n"))?;
    let Slow { cut, told } = world.slow();
    journal.say(format_args!("{cut} slow readers were cut off, {told} were told of a gap\n"))?;
    for gap in verdict::gaps(&record) {
        journal.say(format_args!("{gap}\n"))?;
    }
    let line = "pushes found nobody when Redis had forgotten, as their answers said; at most";
    journal.say(format_args!("{to_nobody} {line} {explained} deliveries may be excused\n"))?;
    let mut faults = report.faults.clone();
    faults.extend(verdict::faults(&record, &report, &suffered));
    let tried = report.total.pushes.delivered > 0 && !suffered.is_empty();
    faults.extend((!tried).then(|| "nothing was tried".to_owned()));
    Ok(faults)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_in_has_everything_once_and_in_order_whatever_is_killed_frozen_or_cut_off() {
    Kafka::download().await.unwrap();
    for seed in soak::seeds() {
        let (network, journal) = (Arc::new(Network::start().await.unwrap()), Arc::new(Journal::begin(seed).unwrap()));
        journal.say(format_args!("seed {seed}: make chaos SEED={seed} deals the same blows\n")).unwrap();
        let lived = live_through(seed, network.clone(), journal.clone());
        let faults = network.run(lived).await.unwrap().unwrap_or_else(|error| vec![format!("{error:#}")]);
        for fault in &faults {
            journal.say(format_args!("FAULT {fault}\n")).unwrap();
        }
        let (count, path) = (faults.len(), journal.path().display());
        assert!(faults.is_empty(), "seed {seed}: {count} faults, see {path}: {faults:#?}");
    }
}
