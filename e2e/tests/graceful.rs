//! Told to end, each service first finishes what it has begun, and ends with 0.

use std::time::Duration;

use e2e::bench::measure;
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream::{self, Kind};
use e2e::client::{Client, Dial, Target};
use e2e::crowd::{self, Crowd, Limits, Pusher, half_to_keys, judge};
use e2e::eventually;
use e2e::load::{Farm, Plan};
use e2e::program::{Options, Stack};

const SOON: Duration = Duration::from_secs(60);
const ROOMS: u32 = 10;

fn target(stack: &Stack) -> Target {
    target_of(stack, 0)
}

fn target_of(stack: &Stack, comet: usize) -> Target {
    format!("ws://{}/sub", stack.comet(comet).websocket()).parse().unwrap()
}

async fn farm(stack: &Stack, run: u32) -> Farm {
    let plan = Plan {
        target: target(stack),
        connections: 200,
        stalled: 0,
        sources: 4,
        threads: 1,
        core: None,
        heartbeat: None,
        run,
        member: stream::members(ROOMS),
    };
    Farm::connect(plan).await.unwrap()
}

fn schedule(run: u32, seconds: u64) -> Schedule {
    let duration = Duration::from_secs(seconds);
    Schedule { run, streams: Kind::Mixed.streams(200, ROOMS), rate: 200.0, duration, body: 64, workers: 16 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comet_told_to_end_still_delivers_and_closes_everybody_with_a_reason() {
    let comet = ["--drain-delay", "3s", "--drain-min", "2s", "--drain-max", "10s"].map(str::to_owned).to_vec();
    let stack = Stack::start(Options { comet, ..Options::default() }).await.unwrap();
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = Client::connect(&target(&stack), &Dial::default()).await.unwrap();
        client.auth((stream::members(1))(n).token).await.unwrap();
        clients.push(client);
    }
    let process = stack.comet(0).program.process();
    process.signal(libc::SIGTERM);
    eventually(SOON, "comet to be unready", || async {
        stack.comet(0).program.get("/ready").await.is_ok_and(|(status, _)| !status.is_success())
    })
    .await
    .unwrap();
    let push = Schedule { streams: Kind::Room.streams(20, 1), rate: 1.0, ..schedule(1, 1) };
    let offered = push.offer(&Entry::Http { address: stack.http(), token: None }).await.unwrap();
    assert_eq!(offered.accepted_total(), 1);
    for client in &mut clients {
        client.push_within(SOON).await.unwrap();
        assert_eq!(client.closed_within(SOON).await.unwrap(), Some(1012));
    }
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(0), "{}", process.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_comet_is_replaced_each_client_loses_only_what_was_sent_while_it_was_out_itself() {
    let drain = ["--drain-delay=1s", "--drain-min=1s", "--close-rate=10", "--flush=1s"].map(str::to_owned).to_vec();
    let stack = Stack::start(Options { comets: 2, comet: drain, ..Options::default() }).await.unwrap();
    let threads = tokio::runtime::Handle::current();
    let plan = crowd::Plan::new(vec![target_of(&stack, 0), target_of(&stack, 1)], 100, ROOMS);
    let push = Schedule { streams: half_to_keys(100, ROOMS), rate: 100.0, ..schedule(plan.run, 600) };
    let crowd = Crowd::connect(plan, &threads).await.unwrap();
    let pusher = Pusher::start(push, Entry::Http { address: stack.http(), token: None }, &threads);
    tokio::time::sleep(Duration::from_secs(1)).await;

    crowd.mark("comet told to end");
    let leaving = &stack.comet(0).program;
    assert_eq!(leaving.terminate().await.unwrap().code(), Some(0), "{}", leaving.process().output());
    crowd.mark("comet started");
    leaving.restart().await.unwrap();
    eventually(SOON, "everybody to be in", || async { crowd.inside() == 100 }).await.unwrap();
    let pushed = pusher.stop().await.unwrap();
    crowd.settle(Duration::from_secs(1)).await;

    // Its 50 clients were closed over 5 s: far from all within 3 s, even where this machine was busy elsewhere.
    let limits = Limits { window: Duration::from_secs(3), moves: 45, closes_each: 1, ..Limits::of_rate(10) };
    let report = judge(&crowd.finish(pushed).await.unwrap(), &limits);
    println!("{report}");
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!((report.total.moves.closes, report.total.moves.reconnects), (50, 50), "{report}");
    assert_eq!(report.reasons.get("closed with 1012"), Some(&50), "{report}");
    let pushes = &report.total.pushes;
    assert_eq!((pushes.refused, pushes.delivered + pushes.excused), (0, pushes.expected), "{report}");
    assert!(pushes.delivered > 1000 && pushes.excused > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_told_to_end_hands_over_without_loss_or_repeat() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let farm = farm(&stack, 2).await;
    let entry = Entry::Http { address: stack.http(), token: None };
    let restart = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let status = stack.job.terminate().await.unwrap();
        stack.job.restart().await.unwrap();
        status
    };
    let schedule = schedule(2, 20);
    let (report, status) = tokio::join!(measure::open_loop(farm, &entry, &schedule, &[]), restart);
    let (report, verdict) = (report.as_ref().unwrap(), &report.as_ref().unwrap().verdict);
    assert_eq!(status.code(), Some(0), "{}", stack.job.process().output());
    assert_eq!((verdict.lost, verdict.repeats, verdict.inversions), (0, 0, 0), "{report:#?}");
    assert_eq!((verdict.refused, verdict.delivered), (0, verdict.expected), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logic_told_to_end_answers_what_it_has_taken() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let farm = farm(&stack, 3).await;
    let entry = Entry::Http { address: stack.http(), token: None };
    let end = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        stack.logic.terminate().await.unwrap()
    };
    let schedule = schedule(3, 10);
    let (report, status) = tokio::join!(measure::open_loop(farm, &entry, &schedule, &[]), end);
    let report = report.unwrap();
    assert_eq!(status.code(), Some(0), "{}", stack.logic.process().output());
    // Refused were the pushes after its end; each one it said yes to arrived.
    assert!(report.verdict.accepted >= 400 && report.verdict.refused > 0, "{report:#?}");
    assert_eq!((report.verdict.lost, report.verdict.repeats), (0, 0), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let comet = ["--drain-delay", "600s"].map(str::to_owned).to_vec();
    let stack = Stack::start(Options { comet, ..Options::default() }).await.unwrap();
    let process = stack.comet(0).program.process();
    process.signal(libc::SIGTERM);
    eventually(SOON, "comet to be unready", || async {
        stack.comet(0).program.get("/ready").await.is_ok_and(|(status, _)| !status.is_success())
    })
    .await
    .unwrap();
    process.signal(libc::SIGTERM);
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(130));
}
