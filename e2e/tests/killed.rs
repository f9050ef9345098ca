//! Jobs are killed with -9, and come and go, under load: nobody loses a message or is given one twice, what was theirs goes
//! on within seconds, and what is the others' does not stop. `make soak LANE=killed MINUTES=5` is the whole of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream::{self, Kind};
use e2e::crowd::{self, Crowd, Limits, Pusher, judge, silences};
use e2e::program::{Options, Program, Stack};
use e2e::{eventually, os, soak};

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 9;
/// Clients of a room.
const MEMBERS: u32 = 10;
/// One of the two jobs is killed so often, in turn.
const EVERY: Duration = Duration::from_secs(15);
/// How long it stays dead: not at all, or for so long that the other has taken over and hands back.
const DEAD: [Duration; 2] = [Duration::ZERO, Duration::from_secs(8)];
/// Within what a killed one's partitions go on. The broker takes it for dead after 6 s.
const RESUMES: Duration = Duration::from_secs(10);
/// For how long a partition pauses that is handed over.
const HANDED_OVER: Duration = Duration::from_secs(2);
/// How long it is looked at after that.
const AFTER: Duration = Duration::from_secs(1);

/// What is no pause, but a machine with few cores that starts and ends processes; in `make test` perhaps busy elsewhere.
fn never() -> Duration {
    soak::size(Duration::from_secs(3), Duration::from_secs(1))
}

/// A time, and how long the rooms of which partitions may be silent in it.
struct Watched {
    what: String,
    during: Range<Duration>,
    allowed: Vec<(&'static str, BTreeSet<u32>, Duration)>,
}

fn all() -> BTreeSet<u32> {
    (0..PARTITIONS).collect()
}

/// The partitions that a job says are its own.
async fn owned(job: &Program) -> anyhow::Result<BTreeSet<u32>> {
    let (_, page) = job.get("/metrics").await?;
    let partitions = page.lines().filter_map(|line| {
        let (number, _) = line.strip_prefix("imcluster_job_lag_records{partition=\"")?.split_once('"')?;
        number.parse().ok()
    });
    Ok(partitions.collect())
}

/// Waits until each partition is one job's and each job has some; returns whose they are.
async fn settled(jobs: &[&Program]) -> Vec<BTreeSet<u32>> {
    eventually(SOON, "each partition to be one job's", || async {
        let mut each = Vec::new();
        for job in jobs {
            each.push(owned(job).await?);
        }
        let together: BTreeSet<u32> = each.iter().flatten().copied().collect();
        let none_twice = each.iter().map(BTreeSet::len).sum::<usize>() == together.len();
        anyhow::ensure!(together == all() && none_twice && each.iter().all(|own| !own.is_empty()), "{each:?}");
        Ok(each)
    })
    .await
    .unwrap()
}

/// Kills one of the two and waits until both are at work again.
async fn kill(jobs: [&Program; 2], round: usize) -> Watched {
    let (victim, dead) = (round % 2, DEAD[(round + round / 2) % 2]);
    let before = settled(&jobs).await;
    let began = os::monotonic();
    jobs[victim].kill();
    tokio::time::sleep(dead).await;
    jobs[victim].restart().await.unwrap();
    tokio::time::sleep(EVERY.saturating_sub(os::monotonic() - began)).await;
    let (before_of_other, after) = (&before[1 - victim], settled(&jobs).await);
    let stayed = before_of_other & &after[1 - victim];
    let handed_over = before_of_other - &after[1 - victim];
    Watched {
        what: format!("job {} killed, dead for {dead:?}", victim + 1),
        during: began..os::monotonic(),
        allowed: vec![
            ("its own", before[victim].clone(), RESUMES),
            ("the other's", stayed, never()),
            ("handed over", handed_over, HANDED_OVER),
        ],
    }
}

/// Watches from `began` until these are the jobs, and for a while longer.
async fn scaled(jobs: &[&Program], began: Duration) -> Watched {
    settled(jobs).await;
    tokio::time::sleep(HANDED_OVER + AFTER).await;
    let what = format!("jobs now: {}", jobs.len());
    Watched { what, during: began..os::monotonic(), allowed: vec![("all", all(), HANDED_OVER)] }
}

/// The rooms of each partition, as streams.
fn rooms_of_partitions(rooms: u32) -> BTreeMap<u32, Vec<u32>> {
    let mut of = BTreeMap::<u32, Vec<u32>>::new();
    for room in 0..rooms {
        of.entry(proto::push::partition(stream::room(room).as_bytes(), PARTITIONS)).or_default().push(room);
    }
    of
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_killed_or_come_and_go_lose_nothing_repeat_nothing_and_hold_up_only_their_own() {
    // Four in five pushes go to rooms, each about ten times a second; an odd number of rooms has members at both comets.
    let (rooms, rate) = soak::size((33, 400.0), (201, 2500.0));
    let rooms_of = rooms_of_partitions(rooms);
    assert_eq!(rooms_of.keys().copied().collect::<BTreeSet<_>>(), all(), "a partition without a room shows no silence");
    let stack = Stack::start(Options { comets: 2, ..Options::default() }).await.unwrap();
    let second = stack.another_job().await.unwrap();
    let jobs = [&stack.job, &second];
    let targets = vec![
        format!("ws://{}/sub", stack.comet(0).websocket()).parse().unwrap(),
        format!("tcp://{}", stack.comet(1).tcp()).parse().unwrap(),
    ];
    let (clients, threads) = (rooms * MEMBERS, tokio::runtime::Handle::current());
    let plan = crowd::Plan::new(targets, clients as usize, rooms);
    let streams = Kind::Mixed.streams(clients, rooms);
    let schedule = Schedule { run: plan.run, streams, rate, duration: Duration::MAX, body: 64, workers: 64 };
    let crowd = Crowd::connect(plan, &threads).await.unwrap();
    settled(&jobs).await;
    let pusher = Pusher::start(schedule, Entry::Http { address: stack.http(), token: None }, &threads);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let mut watched = Vec::new();
    let calm = os::monotonic();
    tokio::time::sleep(Duration::from_secs(4)).await;
    watched.push(Watched {
        what: "calm".into(),
        during: calm..os::monotonic(),
        allowed: vec![("all", all(), never())],
    });
    crowd.mark("jobs killed");
    let end = os::monotonic() + soak::length(2 * EVERY - AFTER);
    for round in 0.. {
        if os::monotonic() >= end {
            break;
        }
        watched.push(kill(jobs, round).await);
    }
    crowd.mark("jobs come and go");
    let began = os::monotonic();
    assert_eq!(second.terminate().await.unwrap().code(), Some(0), "{}", second.process().output());
    watched.push(scaled(&[&stack.job], began).await);
    let began = os::monotonic();
    let (second, third) = tokio::try_join!(stack.another_job(), stack.another_job()).unwrap();
    watched.push(scaled(&[&stack.job, &second, &third], began).await);
    let began = os::monotonic();
    let ends = tokio::try_join!(second.terminate(), third.terminate()).unwrap();
    assert_eq!((ends.0.code(), ends.1.code()), (Some(0), Some(0)));
    watched.push(scaled(&[&stack.job], began).await);

    let pushed = pusher.stop().await.unwrap();
    crowd.settle(Duration::from_secs(2)).await;
    let record = crowd.finish(pushed).await.unwrap();
    let report = judge(&record, &Limits::of_rate(1));
    println!("{report}\n");
    let times: Vec<_> = watched.iter().map(|watched| watched.during.clone()).collect();
    let mut too_long = Vec::new();
    for (Watched { what, during, allowed }, silent) in watched.iter().zip(silences(&record, &times)) {
        println!("{:6.1} s  {what}", (during.start - record.began).as_secs_f64());
        for (whose, partitions, most) in allowed.iter().filter(|(_, partitions, _)| !partitions.is_empty()) {
            let rooms = partitions.iter().flat_map(|partition| &rooms_of[partition]);
            let longest = rooms.map(|room| silent[room]).max().unwrap();
            let line = format!("{whose} partitions {partitions:?} were silent for {longest:.2?} at most");
            println!("          {line}");
            if longest > *most {
                too_long.push(format!("{what}: {line}, {most:?} are allowed"));
            }
        }
    }
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!((report.total.moves.closes, report.reasons.len()), (0, 0), "somebody was closed: {report}");
    let pushes = &report.total.pushes;
    assert_eq!((pushes.refused, pushes.delivered), (0, pushes.expected), "{report}");
    assert!(too_long.is_empty(), "{too_long:#?}");
    for comet in &stack.comets {
        let (_, page) = comet.program.get("/metrics").await.unwrap();
        assert!(page.contains("imcluster_comet_holes_total 0"), "{} missed something", comet.name);
        let repeats = page.lines().find(|line| line.starts_with("imcluster_comet_dropped_total{reason=\"repeat\"}"));
        println!("{}: {}", comet.name, repeats.unwrap_or("no record came twice"));
    }
}
