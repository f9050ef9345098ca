//! Redis or Kafka goes away for a while: nobody who is in is disconnected, no process ends, spins or grows, what was
//! acknowledged arrives, and all flows again soon after it is back. `make soak LANE=outages MINUTES=10` makes it longer.

use std::time::{Duration, Instant};

use e2e::bench::cost;
use e2e::bench::push::{Entry, Schedule};
use e2e::bench::stream::Kind;
use e2e::client::{Client, Dial, Received, Target};
use e2e::crowd::{self, Crowd, Limits, Pusher, half_to_keys, judge};
use e2e::eventually;
use e2e::program::{Options, Program, Stack, post};
use e2e::soak;
use http::StatusCode;
use proto::op;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(60);
const CLIENTS: u32 = 100;
const ROOMS: u32 = 10;
/// How long processes are watched, well and during the outage.
const WATCH: Duration = Duration::from_secs(8);
/// What an outage may cost a process beside what it costs when all is well, in cores.
const MORE: f64 = 0.1;
/// How much a process may grow, in bytes.
const GROWTH: u64 = 48 << 20;

struct Outage {
    stack: Stack,
    crowd: Crowd,
    pusher: Pusher,
    reader: Client,
    before: Vec<Spent>,
}

/// What a process needed while it was watched.
#[derive(Debug)]
struct Spent {
    name: &'static str,
    cores: f64,
    bytes: u64,
}

fn target(stack: &Stack) -> Target {
    format!("ws://{}/sub", stack.comet(0).websocket()).parse().unwrap()
}

fn processes(stack: &Stack) -> [(&'static str, &Program); 4] {
    [
        ("logic", &stack.logic),
        ("job", &stack.job),
        ("comet1", &stack.comet(0).program),
        ("comet2", &stack.comet(1).program),
    ]
}

async fn watch(stack: &Stack) -> Vec<Spent> {
    let cpu = |program: &Program| cost::cpu(program.process().pid()).unwrap();
    let before = processes(stack).map(|(_, program)| cpu(program));
    let began = Instant::now();
    tokio::time::sleep(WATCH).await;
    let took = began.elapsed();
    let spent = processes(stack).into_iter().zip(before).map(|((name, program), before)| Spent {
        name,
        cores: (cpu(program) - before).div_duration_f64(took),
        bytes: cost::rss(program.process().pid()).unwrap(),
    });
    spent.collect()
}

impl Outage {
    /// Clients that are pushed to, and how that is when all is well.
    async fn prepare(options: Options, streams: Vec<u32>) -> Self {
        let stack = Stack::start(Options { comets: 2, ..options }).await.unwrap();
        let threads = tokio::runtime::Handle::current();
        let ends = [0, 1].map(|comet| format!("ws://{}/sub", stack.comet(comet).websocket()).parse().unwrap());
        let plan = crowd::Plan::new(ends.to_vec(), CLIENTS as usize, ROOMS);
        let duration = Duration::from_secs(1_000_000);
        let push = Schedule { run: plan.run, streams, rate: 10.0, duration, body: 64, workers: 64 };
        let crowd = Crowd::connect(plan, &threads).await.unwrap();
        let pusher = Pusher::start(push, Entry::Http { address: stack.http(), token: None }, &threads);
        let mut reader = Client::connect(&target(&stack), &Dial::default()).await.unwrap();
        reader.auth(r#"{"mid":7000,"key":"reader","accepts":[1000]}"#).await.unwrap();
        let before = watch(&stack).await;
        Self { stack, crowd, pusher, reader, before }
    }

    /// Watches the processes while the dependency is away, for as long as the soak is.
    async fn lasts(&self) {
        let end = Instant::now() + soak::length(Duration::from_secs(20));
        loop {
            let during = watch(&self.stack).await;
            println!("well {:?}\naway {during:?}", self.before);
            for (before, during) in self.before.iter().zip(during) {
                let name = before.name;
                assert!(during.cores <= before.cores * 3.0 + MORE, "{name} spins: {before:?}, away {during:?}");
                assert!(during.bytes <= before.bytes + GROWTH, "{name} grows: {before:?}, away {during:?}");
            }
            if Instant::now() >= end {
                break;
            }
        }
        for (name, program) in processes(&self.stack) {
            assert_eq!(program.process().exited(), None, "{name}");
        }
    }

    /// Pushes to the reader until one arrives; how long that took.
    async fn flows_again(&mut self) -> Duration {
        let (stack, reader, began) = (&self.stack, &mut self.reader, Instant::now());
        for path in ["/goim/push/keys?operation=1000&keys=reader", "/goim/push/mids?operation=1000&mids=7000"] {
            while began.elapsed() < SOON {
                // One that nobody answered may be answered the next time.
                let is_taken = post(stack.http(), path, path).await.is_ok_and(|(status, _)| status == StatusCode::OK);
                if is_taken && arrives(reader, path).await {
                    break;
                }
            }
        }
        assert!(began.elapsed() < SOON, "nothing flows {:?} after it is back", began.elapsed());
        began.elapsed()
    }

    /// Judges what everybody got.
    async fn judge(self) {
        let Self { stack, crowd, pusher, .. } = self;
        eventually(SOON, "every condition to be met again", || async {
            for (name, program) in processes(&stack) {
                let (_, text) = program.get("/ready").await?;
                anyhow::ensure!(!text.contains("down"), "{name}: {text}");
            }
            Ok(())
        })
        .await
        .unwrap();
        let pushed = pusher.stop().await.unwrap();
        crowd.settle(Duration::from_secs(2)).await;
        let report = judge(&crowd.finish(pushed).await.unwrap(), &Limits::of_rate(1));
        println!("{report}");
        assert!(report.faults.is_empty(), "{report}");
        assert_eq!((report.total.moves.closes, report.reasons.len()), (0, 0), "{report}");
        let pushes = &report.total.pushes;
        assert!(pushes.delivered == pushes.expected && pushes.expected > 0, "{report}");
    }
}

async fn arrives(reader: &mut Client, body: &str) -> bool {
    let end = tokio::time::Instant::now() + Duration::from_secs(1);
    while let Ok(push) = tokio::time::timeout_at(end, reader.push_within(SOON)).await {
        if push.unwrap().1 == body.as_bytes() {
            return true;
        }
    }
    false
}

/// A push, and the head of its answer.
async fn head(stack: &Stack, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(stack.http()).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nhost: logic\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_lowercase()
}

async fn is_told_to_come_again(stack: &Stack, path: &str) {
    let head = head(stack, path).await;
    assert!(head.starts_with("http/1.1 503 ") && head.contains("\r\nretry-after: 1"), "{path}: {head}");
}

/// Sends an auth packet and returns everything until the close.
async fn knock(stack: &Stack, token: &str) -> Vec<Received> {
    let mut client = Client::connect(&target(stack), &Dial::default()).await.unwrap();
    client.send(op::AUTH, token.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !matches!(heard.last(), Some(Received::Closed(_))) {
        heard.push(client.next_within(SOON).await.unwrap());
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_go_and_come_back_with_nothing() {
    let mut outage = Outage::prepare(Options::default(), Kind::Room.streams(CLIENTS, ROOMS)).await;
    let stack = &outage.stack;
    stack.redis.kill();
    is_told_to_come_again(stack, "/goim/push/keys?operation=1000&keys=reader").await;
    is_told_to_come_again(stack, "/goim/push/mids?operation=1000&mids=7000").await;
    let told = knock(stack, r#"{"mid":9,"key":"new","caps":["envelope"]}"#).await;
    let [Received::Packet(problem), Received::Closed(Some(1013))] = &told[..] else { panic!("{told:?}") };
    let body: Value = serde_json::from_slice(&problem.body).unwrap();
    assert_eq!((problem.op, &body["code"]), (op::ERROR, &"logic_away".into()), "{body}");
    assert!(body["retryAfterMs"].as_u64().unwrap() > 0, "{body}");
    assert_eq!(knock(stack, r#"{"mid":9,"key":"new"}"#).await, [Received::Closed(Some(1013))]);
    outage.lasts().await;
    outage.stack.redis.restart().await.unwrap();
    println!("flows again after {:?}", outage.flows_again().await);
    outage.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_hang_and_go_on() {
    let mut outage = Outage::prepare(Options::default(), Kind::Room.streams(CLIENTS, ROOMS)).await;
    outage.stack.redis.stop();
    is_told_to_come_again(&outage.stack, "/goim/push/keys?operation=1000&keys=reader").await;
    outage.lasts().await;
    outage.stack.redis.cont();
    println!("flows again after {:?}", outage.flows_again().await);
    outage.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_may_go_and_come_back() {
    let options = Options { secure: true, ..Options::default() };
    let mut outage = Outage::prepare(options, half_to_keys(CLIENTS, ROOMS)).await;
    let stack = &outage.stack;
    stack.kafka.kill();
    is_told_to_come_again(stack, "/goim/push/keys?operation=1000&keys=reader").await;
    is_told_to_come_again(stack, "/goim/push/all?operation=1000").await;
    // Whoever comes is let in all the same.
    let mut client = Client::connect(&target(stack), &Dial::default()).await.unwrap();
    client.auth(r#"{"mid":9,"key":"new"}"#).await.unwrap();
    outage.lasts().await;
    outage.stack.kafka.restart().await.unwrap();
    println!("flows again after {:?}", outage.flows_again().await);
    outage.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_may_hang_and_go_on() {
    let mut outage = Outage::prepare(Options::default(), half_to_keys(CLIENTS, ROOMS)).await;
    outage.stack.kafka.stop();
    is_told_to_come_again(&outage.stack, "/goim/push/keys?operation=1000&keys=reader").await;
    outage.lasts().await;
    outage.stack.kafka.cont();
    println!("flows again after {:?}", outage.flows_again().await);
    outage.judge().await;
}
