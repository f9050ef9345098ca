//! The whole service on its two ports.

use std::time::{Duration, Instant};

use clap::Parser;
use proto::logic::logic_client::LogicClient;
use proto::logic::{ConnectReq, NodesReq};
use runtime::config::ConfigError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::fakes::{FakeQueue, pair};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    config: Config,
}

fn config(flags: &str) -> Config {
    let fixed = "logic --auth trust --http-addr 127.0.0.1:0 --rpc-addr 127.0.0.1:0 --default-domain conn.example.org";
    Program::parse_from(fixed.split(' ').chain(flags.split_whitespace())).config
}

struct Running {
    http: SocketAddr,
    rpc: SocketAddr,
    queue: Arc<FakeQueue>,
    process: Process,
    task: JoinHandle<anyhow::Result<()>>,
}

async fn start(flags: &str) -> Running {
    let config = config(flags);
    let listeners = Listeners::bind(&config).await.unwrap();
    let (http, rpc) = (listeners.http_addr().unwrap(), listeners.rpc_addr().unwrap());
    let (store, queue) = pair();
    let process = Process::quiet();
    // What the real store and queue name for themselves.
    process.readiness.condition("store", "its first answer").up();
    let task = tokio::spawn(run(config, listeners, store, queue.clone(), process.clone()));
    Running { http, rpc, queue, process, task }
}

async fn ask(address: SocketAddr, method: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: l\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_session_made_over_grpc_is_pushed_to_over_http() {
    let running = start("--push-auth none --drain-delay 0 --heartbeat 1m --heartbeat-max 3").await;
    let mut logic = LogicClient::new(proto::grpc::channel(&running.rpc.to_string(), Duration::from_secs(60)).unwrap());
    let token = br#"{"mid":7,"key":"k1","accepts":[1000]}"#;
    let request = ConnectReq { server: "h1".into(), token: token.to_vec().into(), ..ConnectReq::default() };
    let reply = logic.connect(request).await.unwrap().into_inner();
    assert_eq!((reply.mid, reply.key.as_str(), reply.heartbeat), (7, "k1", 180_000_000_000));
    let answer = ask(running.http, "POST", "/goim/push/mids?operation=1000&mids=7").await;
    assert!(answer.ends_with(r#"{"code":0,"message":"","data":{"records":1}}"#), "{answer}");
    let record = &running.queue.pushed()[0];
    assert_eq!((record.server.as_str(), &record.keys[..]), ("h1", &["k1".to_owned()][..]));

    let request = NodesReq { platform: "web".into(), client_ip: "192.0.2.1".into() };
    assert_eq!(logic.nodes(request).await.unwrap().into_inner().nodes, ["conn.example.org"]);
    drop(logic);
    running.process.shutdown.begin();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn told_to_stop_it_is_unready_still_serves_for_the_delay_and_flushes_the_queue_last() {
    let running = start("--push-auth none --drain-delay 4s").await;
    assert!(running.process.readiness.is_ready());
    running.process.shutdown.begin();
    let deadline = Instant::now() + Duration::from_secs(60);
    while running.process.readiness.is_ready() {
        assert!(Instant::now() < deadline, "it never became unready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(ask(running.http, "POST", "/goim/push/all?operation=1").await.starts_with("HTTP/1.1 200"));
    assert!(!*running.queue.flushed.lock());
    running.task.await.unwrap().unwrap();
    assert!(*running.queue.flushed.lock());
    assert!(TcpStream::connect(running.http).await.is_err() && TcpStream::connect(running.rpc).await.is_err());
    assert_eq!(running.queue.pushed().len(), 1);
}

#[tokio::test]
async fn a_comet_that_stays_connected_does_not_hold_up_the_end() {
    let running = start("--push-auth none --drain-delay 0 --drain-deadline 200ms").await;
    let mut silent = TcpStream::connect(running.rpc).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    running.process.shutdown.begin();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tokens_file_that_is_missing_shows_in_the_status_until_it_is_there_and_a_bad_one_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    let flags = format!("--push-tokens {} --drain-delay 0", path.display());
    let running = start(&flags).await;
    let push = "/goim/push/all?operation=1";
    assert!(ask(running.http, "POST", push).await.starts_with("HTTP/1.1 401"), "who brings no token gets no hope");
    let (token, lines) = tokens::make("backend");
    let with_token = format!("{push} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nX: ");
    let answer = ask(running.http, "POST", &with_token).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After"), "{answer}");
    assert_eq!(running.process.status.report()["pushTokens"], "missing");
    std::fs::write(&path, lines).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ask(running.http, "POST", &with_token).await.starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "the file is never read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(running.process.status.report()["pushTokens"], "present");
    running.process.shutdown.begin();
    running.task.await.unwrap().unwrap();

    std::fs::write(&path, "tokens = 1").unwrap();
    let error = start(&flags).await.task.await.unwrap().unwrap_err();
    assert!(matches!(error.downcast_ref::<ConfigError>(), Some(ConfigError::Invalid(_))), "{error}");
    assert!(error.to_string().starts_with("--push-tokens is `"), "{error}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let flags = format!("--push-auth none --rpc-addr {}", taken.local_addr().unwrap());
    let fixed = "logic --auth trust --http-addr 127.0.0.1:0";
    let config = Program::parse_from(fixed.split(' ').chain(flags.split(' '))).config;
    let error = Listeners::bind(&config).await.unwrap_err().to_string();
    assert!(error.starts_with("--rpc-addr is `127.0.0.1:") && error.contains("`: address in use: "), "{error}");
}
