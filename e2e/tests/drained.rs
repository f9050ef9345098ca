//! A comet that is told to end under load: clients that can move are elsewhere before they leave and miss nothing, the
//! others are closed at the rate. Small in `make test`; `make soak LANE=drained` drains comets of 6 000 clients, one after
//! the other.

use std::time::{Duration, Instant};

use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream::{Address, Kind};
use e2e::client::Target;
use e2e::crowd::{Crowd, Limits, Plan, Pusher, half, judge};
use e2e::program::{Options, Stack};
use e2e::{eventually, soak};

const COMETS: usize = 3;
/// Members of a room.
const MEMBERS: usize = 50;
const SOON: Duration = Duration::from_secs(120);
/// How long it may take until every client has been in.
const PATIENCE: Duration = Duration::from_secs(300);
const CALM: Duration = Duration::from_secs(2);
/// What a comet is given to end in, in seconds: before its ports close, for its clients at most, for job.
const DRAIN: [u64; 3] = [2, 60, 2];
/// What Kubernetes would give it beyond these.
const SPARE: u64 = 10;

/// How large it is.
struct Size {
    /// Clients of each comet at first.
    clients: usize,
    /// How many a comet may close in a second.
    closes: usize,
    /// Closes and moves that are allowed in any 5 s: a tenth more than that; of the few clients of a short run far from all,
    /// even where this machine is busy elsewhere.
    most: usize,
    /// Pushes a second.
    pushes: f64,
}

const SHORT: Size = Size { clients: 300, closes: 30, most: 225, pushes: 100.0 };
const FULL: Size = Size { clients: 6000, closes: 300, most: 1650, pushes: 100.0 };

/// Half of the pushes go to keys, half to rooms, and one in two hundred to everybody.
fn streams(clients: u32, rooms: u32) -> Vec<u32> {
    let (keys, rooms) = (Kind::Key.streams(clients, rooms), Kind::Room.streams(clients, rooms));
    let pairs = keys.into_iter().zip(rooms.into_iter().cycle());
    let everybody = |turn: usize| (turn % 100 == 99).then_some(Address::All.stream());
    pairs.enumerate().flat_map(|(turn, (key, room))| [Some(key), Some(room), everybody(turn)]).flatten().collect()
}

async fn load(stack: &Stack, size: &Size) -> (Crowd, Pusher) {
    let clients = COMETS * size.clients;
    let rooms = u32::try_from(clients / MEMBERS).unwrap();
    let targets: Vec<Target> =
        stack.comets.iter().map(|comet| format!("ws://{}/sub", comet.websocket()).parse().unwrap()).collect();
    let plan = Plan { movable: half, patience: PATIENCE, ..Plan::new(targets, clients, rooms) };
    let streams = streams(u32::try_from(clients).unwrap(), rooms);
    let push = Schedule { run: plan.run, streams, rate: size.pushes, duration: Duration::MAX, body: 64, workers: 32 };
    let threads = tokio::runtime::Handle::current();
    let crowd = Crowd::connect(plan, &threads).await.unwrap();
    (crowd, Pusher::start(push, Entry::Http { address: stack.http(), token: None }, &threads))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_move_loses_nothing_and_sees_nothing_twice_while_a_comet_is_drained_under_load() {
    let size = soak::size(SHORT, FULL);
    let [delay, most, flush] = DRAIN;
    let comet = [
        format!("--drain-delay={delay}s"),
        "--drain-min=5s".to_owned(),
        format!("--drain-max={most}s"),
        format!("--flush={flush}s"),
        format!("--close-rate={}", size.closes),
    ];
    let stack = Stack::start(Options { comets: COMETS, comet: comet.to_vec(), ..Options::default() }).await.unwrap();
    let (crowd, pusher) = load(&stack, &size).await;
    let end = Instant::now() + soak::length(Duration::ZERO);
    tokio::time::sleep(CALM).await;

    let mut drained = Vec::new();
    for number in (0..COMETS).cycle() {
        let leaving = &stack.comet(number).program;
        let name = format!("comet {} told to end", number + 1);
        crowd.mark(&name);
        drained.push(name);
        let (told, process) = (Instant::now(), leaving.process());
        process.signal(libc::SIGTERM);
        let grace = Duration::from_secs(delay + most + flush + SPARE);
        assert_eq!(process.wait(grace).await.unwrap().code(), Some(0), "{}", process.output());
        println!("comet {} has ended {:.1} s after it was told to", number + 1, told.elapsed().as_secs_f64());
        let inside = || async { crowd.inside() == COMETS * size.clients };
        eventually(SOON, "everybody to be in", inside).await.unwrap();
        if Instant::now() >= end {
            break;
        }
        leaving.restart().await.unwrap();
    }
    tokio::time::sleep(CALM).await;
    let pushed = pusher.stop().await.unwrap();
    crowd.settle(CALM).await;

    let limits = Limits { moves: size.most, ..Limits::of_rate(size.closes) };
    let report = judge(&crowd.finish(pushed).await.unwrap(), &limits);
    println!("{report}");
    assert!(report.faults.is_empty(), "{:#?}", report.faults);
    for phase in report.phases.iter().filter(|phase| drained.contains(&phase.name)) {
        let (moved, closed) = (phase.moves.moved, phase.moves.closes);
        assert!(moved > 0 && closed > 0, "{}: {moved} moved, {closed} were closed", phase.name);
        assert_eq!(phase.moves.reconnects, closed, "{}", phase.name);
    }
    let first = &report.phases[1].moves;
    assert_eq!((first.moved, first.closes), (size.clients / 2, size.clients / 2));
    let pushes = &report.total.pushes;
    assert_eq!((pushes.refused, pushes.delivered + pushes.excused), (0, pushes.expected));
}
