//! Redis or Kafka comes back under another address of the same name, as in a cluster a pod does: everything flows again
//! soon, and nobody who is in notices.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::child::Child;
use e2e::client::{Client, Dial};
use e2e::eventually;
use e2e::kafka::{Kafka, Named};
use e2e::names::{self, Names};
use e2e::ports::Port;
use e2e::program::{self, Comet, flags, post};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(60);
/// Promised are 10 s, on a machine that does nothing else.
const FLOWS: Duration = Duration::from_secs(30);
const TOPIC: &str = "elsewhere";
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A Redis at this address.
struct Redis(Child);

impl Redis {
    async fn start(address: SocketAddr) -> Self {
        let child = Child::start("redis-elsewhere", "apt-get install redis-server", move || {
            let mut command = std::process::Command::new("redis-server");
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            command.args(["--bind", &host, "--port", &port, "--save", "", "--appendonly", "no"]);
            command
        });
        let redis = Self(child.unwrap());
        eventually(SOON, "Redis to answer", || async {
            let mut socket = TcpStream::connect(address).await?;
            socket.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            socket.read_exact(&mut answer).await?;
            anyhow::ensure!(answer == *b"+PONG\r\n", "{answer:?}");
            Ok(())
        })
        .await
        .unwrap();
        redis
    }
}

/// A stack that knows Redis and Kafka by name alone.
struct Rig {
    names: Arc<Names>,
    reader: Client,
    comet: Comet,
    job: Child,
    logic: Child,
    kafka: Named,
    redis: Redis,
    redis_port: Port,
    http: Port,
}

impl Rig {
    async fn start() -> Self {
        let names = Arc::new(Names::new().unwrap());
        names.lead("redis.test", HERE).unwrap();
        names.lead("kafka.test", HERE).unwrap();
        let redis_port = Port::free().unwrap();
        let redis = Redis::start(redis_port.address()).await;
        let kafka = Named::new(Kafka::start().await.unwrap(), "kafka.test").await.unwrap();
        kafka.kafka().create_topic(TOPIC, 3).await.unwrap();
        let queue = flags::kafka(&kafka.brokers(), TOPIC);
        let store = flags::redis(&format!("redis.test:{}", redis_port.number()));
        let (http, grpc) = (Port::free().unwrap(), Port::free().unwrap());
        let logic = named(&names, "logic", [flags::logic(&http, &grpc), flags::trust(), queue.clone(), store].concat());
        let logic_address = grpc.address().to_string();
        let comet = Comet::spawn("comet1", &logic_address, &[]).unwrap();
        let comets = ["--comets".to_owned(), comet.grpc().to_string(), "--logic".to_owned(), logic_address];
        let job = named(&names, "job", [comets.to_vec(), queue].concat());
        comet.program.ready().await.unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", logic.output(), job.output()));
        let target = format!("ws://{}/sub", comet.websocket()).parse().unwrap();
        let mut reader = Client::connect(&target, &Dial::default()).await.unwrap();
        reader.auth(r#"{"mid":7,"key":"reader","room_id":"a://1","accepts":[1000]}"#).await.unwrap();
        let mut rig = Self { names, reader, comet, job, logic, kafka, redis, redis_port, http };
        rig.flows().await;
        rig
    }

    /// Pushes to the reader by key, member and room until each has arrived; how long that took.
    async fn flows(&mut self) -> Duration {
        let began = Instant::now();
        for target in
            ["keys?operation=1000&keys=reader", "mids?operation=1000&mids=7", "room?operation=1000&type=a&room=1"]
        {
            let mut number = 0;
            loop {
                number += 1;
                let (path, body) = (format!("/goim/push/{target}"), format!("{target} {number}"));
                let is_stored =
                    post(self.http.address(), &path, body.clone()).await.is_ok_and(|(code, _)| code == StatusCode::OK);
                if is_stored && self.arrives(&body).await {
                    break;
                }
                assert!(began.elapsed() < SOON, "{target}: nothing arrives {:?} after it is back", began.elapsed());
            }
        }
        began.elapsed()
    }

    async fn arrives(&mut self, body: &str) -> bool {
        let end = tokio::time::Instant::now() + Duration::from_secs(1);
        while let Ok(push) = tokio::time::timeout_at(end, self.reader.push_within(SOON)).await {
            if push.unwrap().1 == body.as_bytes() {
                return true;
            }
        }
        false
    }

    /// It flows again soon, and nobody ended on the way.
    async fn goes_on(mut self, what: &str) {
        let took = self.flows().await;
        println!("{what}: flows again after {took:?}");
        assert!(took < FLOWS, "{took:?}");
        for process in [&self.logic, &self.job, self.comet.program.process()] {
            assert_eq!(process.exited(), None, "{process:?}");
        }
    }

    async fn refuses(&self, target: &str) {
        let path = format!("/goim/push/{target}");
        eventually(SOON, "a push to be refused", || async {
            let (status, text) = post(self.http.address(), &path, "x").await?;
            anyhow::ensure!(status == StatusCode::SERVICE_UNAVAILABLE, "{status} {text}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// A service that knows these names.
fn named(names: &Arc<Names>, service: &str, arguments: Vec<String>) -> Child {
    let (binary, admin, names) = (program::binary().unwrap(), Port::free().unwrap(), names.clone());
    let line = [vec![service.to_owned()], flags::admin(&admin), arguments].concat();
    Child::start(service, names::INSTALL, move || {
        // Held for as long as the process may be started again.
        let _ours = &admin;
        let mut command = names.command(&binary);
        command.args(&line).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_found_where_its_name_leads_when_its_node_is_gone_without_a_word() {
    let mut rig = Rig::start().await;
    // Nothing answers there any more, and nothing is closed either.
    rig.redis.0.stop();
    rig.refuses("keys?operation=1000&keys=reader").await;
    let there = Redis::start((ELSEWHERE, rig.redis_port.number()).into()).await;
    rig.names.lead("redis.test", ELSEWHERE).unwrap();
    let before = std::mem::replace(&mut rig.redis, there);
    rig.goes_on("Redis elsewhere, its node gone").await;
    drop(before);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_found_where_its_name_leads_when_it_was_started_anew() {
    let mut rig = Rig::start().await;
    rig.redis.0.kill();
    rig.refuses("keys?operation=1000&keys=reader").await;
    rig.redis = Redis::start((ELSEWHERE, rig.redis_port.number()).into()).await;
    rig.names.lead("redis.test", ELSEWHERE).unwrap();
    rig.goes_on("Redis elsewhere").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_found_where_its_name_leads_when_it_was_started_anew() {
    let rig = Rig::start().await;
    rig.kafka.kafka().kill();
    rig.refuses("all?operation=1000").await;
    rig.names.lead("kafka.test", ELSEWHERE).unwrap();
    rig.kafka.move_to(ELSEWHERE).await.unwrap();
    rig.goes_on("Kafka elsewhere").await;
}
