//! Killed with -9 in the middle of it, a process costs nobody a message and gives nobody one twice.

use std::time::Duration;

use e2e::bench::measure;
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream::{self, Kind};
use e2e::load::{Farm, Plan};
use e2e::program::{Options, Stack};

const CLIENTS: u32 = 200;
const ROOMS: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_killed_under_load_loses_nothing_and_repeats_nothing() {
    let stack = Stack::start(Options { comets: 2, ..Options::default() }).await.unwrap();
    let plan = Plan {
        target: format!("ws://{}/sub", stack.comet(0).websocket()).parse().unwrap(),
        connections: CLIENTS as usize,
        stalled: 0,
        sources: 4,
        threads: 1,
        core: None,
        heartbeat: None,
        run: 1,
        member: stream::members(ROOMS),
    };
    let farm = Farm::connect(plan).await.unwrap();
    let kill = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            stack.job.kill();
            stack.job.restart().await.unwrap();
        }
    };
    let streams = Kind::Mixed.streams(CLIENTS, ROOMS);
    let schedule = Schedule { run: 1, streams, rate: 200.0, duration: Duration::from_secs(40), body: 64, workers: 16 };
    let entry = Entry::Http { address: stack.http(), token: None };
    let (report, ()) = tokio::join!(measure::open_loop(farm, &entry, &schedule, &[]), kill);
    let (report, verdict) = (report.as_ref().unwrap(), &report.as_ref().unwrap().verdict);
    assert_eq!((verdict.lost, verdict.repeats, verdict.inversions), (0, 0, 0), "{report:#?}");
    assert_eq!((verdict.refused, verdict.delivered), (0, verdict.expected), "{report:#?}");
    assert_eq!(report.closed, 0, "nobody was told of a gap: {report:#?}");
    let (_, page) = stack.comet(0).program.get("/metrics").await.unwrap();
    assert!(page.contains("imcluster_comet_holes_total 0"), "nothing was missed");
    let repeats = page.lines().find(|line| line.starts_with("imcluster_comet_dropped_total{reason=\"repeat\"}"));
    println!("{} deliveries, {}", verdict.delivered, repeats.unwrap_or("no record came twice"));
}
