//! What a backend was told is stored reaches everybody it names, exactly once and in order, through real Kafka.

use std::time::Duration;

use e2e::bench::measure::{self, Report};
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream::{self, Kind};
use e2e::load::{Farm, Plan};
use e2e::program::{Options, Stack};
use e2e::soak;

const ROOMS: u32 = 200;
const MEMBERS: u32 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pushes_a_second_reach_everybody_once_and_in_order() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let connections = ROOMS * MEMBERS;
    let farm = Farm::connect(plan(&stack, connections, ROOMS)).await.unwrap();
    let schedule = Schedule {
        run: 1,
        streams: Kind::Mixed.streams(connections, ROOMS),
        rate: 1000.0,
        duration: soak::length(Duration::from_secs(60)),
        body: 64,
        workers: 64,
    };
    let entry = Entry::Http { address: stack.http(), token: None };
    let report = measure::open_loop(farm, &entry, &schedule, &[]).await.unwrap();
    assert!(report.pushes_per_s >= 950.0, "{report:#?}");
    // Four pushes in five have 50 receivers, one has one: well above 40 000 deliveries a second.
    assert!(report.verdict.expected > report.verdict.accepted * 40, "{report:#?}");
    assert_faultless(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_into_a_silent_room_leaves_at_once() {
    const SILENT: u32 = 30;
    let stack = Stack::start(Options::default()).await.unwrap();
    let farm = Farm::connect(plan(&stack, SILENT, SILENT)).await.unwrap();
    let schedule = Schedule {
        run: 1,
        streams: Kind::Room.streams(SILENT, SILENT),
        rate: 10.0,
        duration: Duration::from_secs(12),
        body: 64,
        workers: 4,
    };
    let entry = Entry::Http { address: stack.http(), token: None };
    let report = measure::open_loop(farm, &entry, &schedule, &[]).await.unwrap();
    assert_faultless(&report);
    // goim takes a second; a machine with other work takes more than the bench reports. This is far from both.
    assert!(report.verdict.latency.p50_us < 500_000, "{report:#?}");
}

fn plan(stack: &Stack, connections: u32, rooms: u32) -> Plan {
    Plan {
        target: format!("ws://{}/sub", stack.comet(0).websocket()).parse().unwrap(),
        connections: connections as usize,
        stalled: 0,
        sources: 16,
        threads: 1,
        core: None,
        heartbeat: Some(Duration::from_secs(30)),
        run: 1,
        member: stream::members(rooms),
    }
}

/// Every push that was answered with code 0 reached every member, once, in order; nobody was closed or turned away.
fn assert_faultless(report: &Report) {
    let verdict = &report.verdict;
    assert_eq!((verdict.lost, verdict.repeats), (0, 0), "{report:#?}");
    assert_eq!((verdict.inversions, verdict.strays), (0, 0), "{report:#?}");
    assert_eq!((verdict.refused, verdict.delivered), (0, verdict.expected), "{report:#?}");
    assert_eq!((report.closed, report.retries), (0, 0), "{report:#?}");
}
