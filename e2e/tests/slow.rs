//! Some of a large room stop reading: it costs the others nothing, comet keeps no more for them than it may, and they are
//! told of every message that they are not given. `make soak LANE=slow` compares three pairs of runs at full size.

use std::time::Duration;

use e2e::bench::logic::StandInLogic;
use e2e::bench::measure::{self, Report, Watched};
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::{cost, stream};
use e2e::client::{Client, Dial, Received, Target};
use e2e::eventually;
use e2e::load::{Farm, Plan};
use e2e::ports::Port;
use e2e::program::{Program, flags};
use e2e::soak;
use e2e::stamp::Stamp;
use proto::envelope::Gap;
use proto::op;

const SOON: Duration = Duration::from_secs(60);
/// The core of comet, and that of the clients.
const GATEWAY: usize = 0;
const CLIENTS: usize = 1;
/// The room of everybody, and the one that only those are in who do not read.
const ROOM: u32 = 0;
const SLOW: u32 = 1;
/// The run in the stamps that are judged; what fills the queues before has lower ones.
const RUN: u32 = 1000;
/// How often they are filled at most.
const FILLS: u32 = 100;
const BODY: usize = 1024;
/// What comet keeps for one connection, and the frame that it has begun to write.
const QUEUE: u64 = (256 << 10) + 2 * BODY as u64;
/// What it may need beside the queues of those who do not read.
const GROWTH: u64 = 32 << 20;

/// What a run is to be.
#[derive(Clone, Copy)]
struct Size {
    /// Everybody in the room.
    members: u32,
    /// How many of them do not read, in every second run.
    slow: u32,
    pairs: usize,
    /// Pushes a second.
    rate: f64,
    window: Duration,
}

struct Scene {
    comet: Program,
    _logic: StandInLogic,
    target: Target,
    entry: Entry,
    _ports: [Port; 3],
}

impl Scene {
    async fn start() -> Self {
        let logic = StandInLogic::start().await.unwrap();
        let [tcp, websocket, grpc] = [(); 3].map(|()| Port::free().unwrap());
        let mut arguments = flags::comet("slow", &tcp, &websocket, &grpc, &logic.port().address().to_string());
        arguments.extend(flags::no_job());
        arguments.extend(["--online-interval", "1s"].map(str::to_owned));
        let comet = Program::start("comet", &arguments).await.unwrap();
        if cost::cores() > 1 {
            cost::pin_process(comet.process().pid(), GATEWAY).unwrap();
        }
        let target = format!("ws://{}/sub", websocket.address()).parse().unwrap();
        let entry = Entry::Grpc { address: grpc.address(), merge: 1 };
        Self { comet, _logic: logic, target, entry, _ports: [tcp, websocket, grpc] }
    }

    /// Members that read.
    async fn readers(&self, count: u32) -> Farm {
        let plan = Plan {
            target: self.target.clone(),
            connections: count as usize,
            stalled: 0,
            sources: 16,
            threads: 1,
            core: (cost::cores() > 1).then_some(CLIENTS),
            heartbeat: None,
            run: RUN,
            member: stream::members(1),
        };
        Farm::connect(plan).await.unwrap()
    }

    /// One that does not, until it is told to.
    async fn slow(&self, number: u32) -> Client {
        let mut client = Client::connect(&self.target, &Dial::default()).await.unwrap();
        let (mid, room, op) = (1_000_000 + number, stream::room(ROOM), stream::OPERATION);
        let token =
            format!(r#"{{"mid":{mid},"key":"slow-{number}","room_id":"{room}","accepts":[{op}],"caps":["rooms"]}}"#);
        client.auth(token).await.unwrap();
        let room = stream::room(SLOW);
        assert_eq!(client.join(&[&room]).await.unwrap().rooms[&room], "ok");
        client
    }

    fn schedule(run: u32, room: u32, rate: f64, duration: Duration) -> Schedule {
        Schedule { run, streams: vec![room], rate, duration, body: BODY, workers: 1 }
    }

    /// Pushes to those who do not read until each has lost some; how many.
    async fn fill(&self, slow: u32) -> u64 {
        let mut pushed = 0;
        for run in 0..FILLS {
            let fill = Self::schedule(run, SLOW, 0.0, Duration::from_millis(500));
            pushed += fill.offer(&self.entry).await.unwrap().accepted_total();
            if self.metric("dropped_total{reason=\"slow\"}").await >= u64::from(slow) * 100 {
                return pushed;
            }
        }
        panic!("{pushed} pushes of {BODY} bytes have not filled the queues of {slow} clients")
    }

    /// One of comet's; 0 when it is not there yet.
    async fn metric(&self, name: &str) -> u64 {
        let (_, page) = self.comet.get("/metrics").await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("imcluster_comet_")?.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    fn memory(&self) -> u64 {
        cost::rss(self.comet.process().pid()).unwrap()
    }
}

/// Reads all that is there for one who did not; returns how many messages it was told it is not given.
async fn read(mut client: Client, due: u64) -> u64 {
    let (mut given, mut told, mut last) = (0, 0, None);
    while given + told < due {
        match client.next_within(SOON).await.unwrap_or_else(|error| panic!("{given} and {told} of {due}: {error:#}")) {
            Received::Message { body, .. } => {
                let stamp = Stamp::decode(&body).unwrap();
                let place = Some((stamp.run, stamp.number));
                assert!(place > last, "{place:?} came after {last:?}");
                (given, last) = (given + 1, place);
            }
            Received::Packet(packet) if packet.op == op::GAP => {
                let gap: Gap = serde_json::from_slice(&packet.body).unwrap();
                assert_eq!(gap.reason, "slow");
                told += gap.dropped;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(given + told, due);
    told
}

/// One run in which so many of the room do not read.
async fn run(size: Size, slow: u32) -> Report {
    let scene = Scene::start().await;
    let farm = scene.readers(size.members - slow).await;
    let mut clients = Vec::new();
    for number in 0..slow {
        clients.push(scene.slow(number).await);
    }
    let before = scene.memory();
    let filled = if slow > 0 { scene.fill(slow).await } else { 0 };
    let watched = [Watched { name: "comet".to_owned(), pid: scene.comet.process().pid() }];
    let schedule = Scene::schedule(RUN, ROOM, size.rate, size.window);
    let report = measure::open_loop(farm, &scene.entry, &schedule, &watched).await.unwrap();
    let verdict = &report.verdict;
    assert_eq!((verdict.lost, verdict.repeats, verdict.inversions), (0, 0, 0), "{report:#?}");
    assert_eq!((verdict.refused, verdict.delivered, report.closed), (0, verdict.expected, 0), "{report:#?}");

    let (memory, queued) = (scene.memory(), scene.metric("queue_bytes").await);
    let allowed = u64::from(slow) * QUEUE;
    assert!(queued <= allowed, "{queued} bytes wait, {allowed} may");
    assert!(memory <= before + allowed + GROWTH, "comet grew from {before} to {memory} bytes");
    let dropped = scene.metric("dropped_total{reason=\"slow\"}").await;
    let mut told = 0;
    for client in clients {
        told += read(client, filled + verdict.accepted).await;
    }
    assert_eq!(dropped, told, "what comet counts is not what clients were told");
    assert!(slow == 0 || told > 0, "nobody was slow");
    eventually(SOON, "nothing to wait any more", || async { scene.metric("queue_bytes").await == 0 }).await.unwrap();
    println!(
        "{slow:3} of {} do not read: {:.2} µs CPU per delivery to the others, p99 {:.1} ms, {} lost; {} MiB more, {} KiB wait, {told} dropped and told",
        size.members,
        report.processes[0].cpu_us_per_delivery,
        verdict.latency.p99_us as f64 / 1000.0,
        verdict.lost,
        memory.saturating_sub(before) >> 20,
        queued >> 10,
    );
    report
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_cost_the_others_nothing_and_are_told_what_they_miss() {
    let small = Size { members: 1000, slow: 10, pairs: 1, rate: 20.0, window: Duration::from_secs(5) };
    let whole = Size { members: 5000, slow: 50, pairs: 3, rate: 10.0, window: Duration::from_secs(20) };
    let size = soak::size(small, whole);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..size.pairs {
        without.push(run(size, 0).await);
        with.push(run(size, size.slow).await);
    }
    let ratio = |of: fn(&Report) -> f64| {
        let median = |runs: &[Report]| median(runs.iter().map(of).collect());
        median(&with) / median(&without)
    };
    let cpu = ratio(|report| report.processes[0].cpu_us_per_delivery);
    let p99 = ratio(|report| report.verdict.latency.p99_us as f64);
    println!("with to without: CPU per delivery {cpu:.2}, p99 {p99:.2}");
    // One small pair says that nothing is out of proportion, no more.
    let (most_cpu, most_p99) = soak::size((2.0, 20.0), (1.1, 2.0));
    assert!(cpu <= most_cpu, "CPU per delivery is {cpu:.2} times what it is without, {most_cpu} are allowed");
    assert!(p99 <= most_p99, "p99 is {p99:.2} times what it is without, {most_p99} are allowed");
}
