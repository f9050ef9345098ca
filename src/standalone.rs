//! comet, logic and job in one process: the three services as they are, wired to each other over loopback.
//!
//! Without further settings the store and the queue are in memory; `--kafka` and `--redis` put the real ones in their
//! place, one at a time.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use comet::transport::ListenerKind;
use job::consumer::Source;
use job::consumer::kafka::KafkaSource;
use job::consumer::memory::MemorySource;
use logic::queue::PushQueue;
use logic::queue::kafka::KafkaQueue;
use logic::queue::memory::MemoryQueue;
use logic::store::SessionStore;
use logic::store::memory::MemoryStore;
use logic::store::redis::RedisStore;
use proto::log::MemoryLog;
use runtime::config::{FileKey, FileKeys};
use runtime::{CannotListen, Process};

/// Partitions of the queue in memory, as goim's deployment suggests for the topic.
const PARTITIONS: u32 = 9;
/// Bytes that each of them may hold before pushes are answered 503.
const PARTITION_BYTES: usize = 32 * 1024 * 1024;

/// Settings of all three together; whatever else they take comes from the environment of each.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where to listen. Beyond loopback, pushing needs a token: one is made and printed.
    #[arg(long, value_name = "ADDRESS", env = "IMCLUSTER_BIND", default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Use this Kafka instead of the queue in memory: `host:port`, several comma-separated. The topic must exist.
    #[arg(long, value_name = "BROKERS", env = "IMCLUSTER_KAFKA", value_parser = brokers)]
    pub kafka: Option<String>,
    /// Use this Redis instead of the store in memory: `host:port`.
    #[arg(long, value_name = "ADDRESS", env = "IMCLUSTER_REDIS")]
    pub redis: Option<String>,
    /// The port of the HTTP API and the page.
    #[arg(long, value_name = "PORT", env = "IMCLUSTER_HTTP_PORT", default_value_t = 3111)]
    pub http_port: u16,
    /// The port of clients over TCP.
    #[arg(long, value_name = "PORT", env = "IMCLUSTER_CLIENT_TCP_PORT", default_value_t = 3101)]
    pub client_tcp_port: u16,
    /// The port of clients over WebSocket.
    #[arg(long, value_name = "PORT", env = "IMCLUSTER_CLIENT_WS_PORT", default_value_t = 3102)]
    pub client_ws_port: u16,
}

fn brokers(text: &str) -> Result<String, String> {
    text.split(',').try_for_each(|one| proto::kafka::broker(one).map(drop))?;
    Ok(text.to_owned())
}

impl FileKeys for Config {
    const KEYS: &'static [(&'static str, FileKey)] = &[];
    /// Whoever tries this out on a desk opens no port to the network, the admin port included.
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[("admin", "127.0.0.1:3131")];
}

/// Runs all three until told to stop; then the clients go first, and whoever they need last.
///
/// # Errors
/// [`CannotListen`] when a port cannot be had; when a service fails.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let token = (!config.bind.is_loopback()).then(PushToken::make).transpose()?;

    let logic = logic_config(&config, token.as_ref())?;
    let logic_ports = logic::Listeners::bind(&logic).await.map_err(|error| ours(error, &config))?;
    let (http, logic_grpc) = (logic_ports.http_addr()?, logic_ports.rpc_addr()?);
    let comet = comet_config(&config, logic_grpc)?;
    let comet_ports = comet::Listeners::bind(&comet).map_err(|error| ours(error, &config))?;
    let client = |kind| comet_ports.address(kind).context("both client ports are bound");
    let (web_socket, comet_grpc) = (client(ListenerKind::WebSocket)?, comet_ports.grpc_address());
    let logic = told_about(logic, client(ListenerKind::Tcp)?, web_socket);
    let job = job_config(&config, comet_grpc, logic_grpc)?;

    let log = MemoryLog::new(PARTITIONS, PARTITION_BYTES);
    let queue: Arc<dyn PushQueue> = match config.kafka {
        Some(_) => Arc::new(KafkaQueue::start(&logic.kafka, &logic.topic, &process)?),
        None => Arc::new(MemoryQueue::new(log.clone())),
    };
    let source: Box<dyn Source> = match config.kafka {
        Some(_) => Box::new(KafkaSource::start(&job.kafka, &job.group)?),
        None => Box::new(MemorySource::new(log)),
    };
    let store: Arc<dyn SessionStore> = match config.redis {
        Some(_) => Arc::new(RedisStore::start(&logic.redis, &process)?),
        None => Arc::new(MemoryStore::new()),
    };
    let to_logic = Arc::new(comet::LogicClient::lazy(&comet.logic, comet.server(), comet.incarnation, None)?);

    let stop = process.shutdown.begun();
    let parts = [process.service(), process.service(), process.service()];
    let [of_comet, of_logic, of_job] = parts.clone();
    let comet = tokio::spawn(comet::run(comet, comet_ports, to_logic, None, of_comet));
    let logic = tokio::spawn(logic::run(logic, logic_ports, store, queue, of_logic));
    let job = tokio::spawn(job::run(job, source, of_job));
    print(http, process.admin, token.as_ref());

    let mut services = [("comet", comet), ("logic", logic), ("job", job)];
    let [(_, comet), (_, logic), (_, job)] = &mut services;
    let early = tokio::select! {
        () = stop => None,
        ended = comet => Some(ended),
        ended = logic => Some(ended),
        ended = job => Some(ended),
    };
    if let Some(ended) = early {
        return ended.context("a service panicked")?.context("a service ended by itself");
    }
    for (part, (name, service)) in parts.iter().zip(services) {
        part.shutdown.begin();
        service.await.with_context(|| format!("{name} panicked"))?.with_context(|| format!("{name} failed"))?;
    }
    Ok(())
}

/// A token made for this run, and the file that lets it in.
struct PushToken {
    plain: String,
    file: tempfile::NamedTempFile,
}

impl PushToken {
    fn make() -> anyhow::Result<Self> {
        let (plain, line) = logic::tokens::make("standalone");
        let file = tempfile::NamedTempFile::new().context("a place for the push token's hash")?;
        std::fs::write(file.path(), line).context("a place for the push token's hash")?;
        Ok(Self { plain, file })
    }
}

fn flags(pairs: &[(&str, String)]) -> Vec<OsString> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}").into()).collect()
}

/// Reads a service's settings as its own sub-command would, these flags given.
fn load<C: FileKeys>(name: &'static str, pairs: &[(&str, String)]) -> anyhow::Result<C> {
    let is_theirs = |name: &str| !OURS.contains(&name) && !name.starts_with(BETWEEN);
    let env = |name: &str| std::env::var_os(name).filter(|_| is_theirs(name));
    Ok(runtime::config::load::<C>(name, "", flags(pairs), &env)?.service)
}

/// Variables that mean this process as a whole.
const OURS: [&str; 2] = ["IMCLUSTER_CONFIG", "IMCLUSTER_ADMIN"];
/// How those begin that are about what goes on between processes; here there is one.
const BETWEEN: &str = "IMCLUSTER_INTERNAL_TLS_";

/// The same of our own setting: a service knows only what we told it.
fn ours(error: CannotListen, config: &Config) -> CannotListen {
    if error.is_of_the_address() {
        return error.of("bind", config.bind);
    }
    match error.flag() {
        "http-addr" => error.of("http-port", config.http_port),
        "tcp-bind" => error.of("client-tcp-port", config.client_tcp_port),
        "websocket-bind" => error.of("client-ws-port", config.client_ws_port),
        _ => error,
    }
}

fn on_loopback() -> String {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string()
}

fn logic_config(config: &Config, token: Option<&PushToken>) -> anyhow::Result<logic::Config> {
    let mut pairs = vec![
        ("http-addr", SocketAddr::new(config.bind, config.http_port).to_string()),
        ("rpc-addr", on_loopback()),
        ("auth", "trust".to_owned()),
        ("drain-delay", "0s".to_owned()),
    ];
    pairs.push(match token {
        Some(token) => ("push-tokens", token.file.path().display().to_string()),
        None => ("push-auth", "none".to_owned()),
    });
    pairs.extend(config.kafka.iter().map(|brokers| ("kafka-brokers", brokers.clone())));
    pairs.extend(config.redis.iter().map(|address| ("redis-addr", address.clone())));
    load("logic", &pairs)
}

fn comet_config(config: &Config, logic: SocketAddr) -> anyhow::Result<comet::Config> {
    let pairs = [
        ("tcp-bind", SocketAddr::new(config.bind, config.client_tcp_port).to_string()),
        ("websocket-bind", SocketAddr::new(config.bind, config.client_ws_port).to_string()),
        ("grpc-bind", on_loopback()),
        ("logic", logic.to_string()),
        ("host", "localhost".to_owned()),
        ("addrs", "127.0.0.1".to_owned()),
        ("drain-delay", "0s".to_owned()),
        ("drain-min", "0s".to_owned()),
        ("flush", "0s".to_owned()),
    ];
    load("comet", &pairs)
}

/// Node lists name the ports that were bound.
fn told_about(mut logic: logic::Config, tcp: SocketAddr, web_socket: SocketAddr) -> logic::Config {
    logic.node.tcp_port = tcp.port();
    logic.node.ws_port = web_socket.port();
    logic.node.wss_port = 0;
    logic
}

fn job_config(config: &Config, comet: SocketAddr, logic: SocketAddr) -> anyhow::Result<job::Config> {
    let mut pairs = vec![("comets", comet.to_string()), ("logic", logic.to_string()), ("flush", "2s".to_owned())];
    pairs.extend(config.kafka.iter().map(|brokers| ("kafka-brokers", brokers.clone())));
    load("job", &pairs)
}

/// The three lines that say where to look.
fn print(http: SocketAddr, admin: Option<SocketAddr>, token: Option<&PushToken>) {
    let reached = |address: SocketAddr| match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    };
    let http = reached(http);
    let header = token.map(|token| format!("-H 'Authorization: Bearer {}' ", token.plain)).unwrap_or_default();
    println!("page     http://{http}/");
    println!("push     curl {header}-d 'hello' 'http://{http}/goim/push/room?operation=1000&type=live&room=1000'");
    if let Some(admin) = admin {
        println!("metrics  http://{}/metrics", reached(admin));
    }
}
