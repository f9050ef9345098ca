//! Decides who gets a push: sessions, online counts, node lists, and the HTTP API for backends.
//!
//! Edges: [`http`] for backends and pages, [`grpc`] for comets. Behind them the domain: [`session`], [`push`],
//! [`online`], [`nodes`]. Below that two traits: [`store::SessionStore`] (Redis or memory) and [`queue::PushQueue`]
//! (Kafka or memory).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod auth;
pub mod config;
mod error;
#[cfg(test)]
mod fakes;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod nodes;
pub mod online;
pub mod places;
pub mod push;
pub mod queue;
pub mod receive;
pub mod session;
pub mod store;
pub mod tokens;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use proto::peers::Followed;
use runtime::proxies::TrustedProxies;
use runtime::{CannotListen, Process, Shutdown};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use config::Config;
use nodes::Nodes;
use online::Online;
use places::Places;
use push::Pusher;
use queue::PushQueue;
use session::{SessionMetrics, Sessions};
use store::SessionStore;
use tokens::Tokens;

/// The two ports, bound before anything is served.
#[derive(Debug)]
pub struct Listeners {
    http: TcpListener,
    rpc: TcpListener,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    /// [`CannotListen`] when one cannot be bound.
    pub async fn bind(config: &Config) -> Result<Self, CannotListen> {
        let bind = async |flag: &'static str, address: &str| {
            TcpListener::bind(address).await.map_err(|error| CannotListen::new(flag, address, error))
        };
        Ok(Self { http: bind("http-addr", &config.http_addr).await?, rpc: bind("rpc-addr", &config.rpc_addr).await? })
    }

    /// Where HTTP is served.
    ///
    /// # Errors
    /// When the socket does not say.
    pub fn http_addr(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Where gRPC is served.
    ///
    /// # Errors
    /// When the socket does not say.
    pub fn rpc_addr(&self) -> std::io::Result<SocketAddr> {
        self.rpc.local_addr()
    }
}

/// Serves until told to stop, then ends: unready at once, no new connections after the drain delay, requests in flight
/// finished, the queue flushed.
///
/// # Errors
/// [`ConfigError`](runtime::config::ConfigError) when the keys of tokens or the push tokens cannot be used; when
/// certificates cannot be read or a server cannot go on.
pub async fn run(
    config: Config,
    listeners: Listeners,
    store: Arc<dyn SessionStore>,
    queue: Arc<dyn PushQueue>,
    process: Process,
) -> anyhow::Result<()> {
    let tokens = config.tokens()?;
    let discovery = config.comets.clone().map(proto::peers::watch);
    if tokens.is_none() {
        tracing::warn!("push auth is none: whoever reaches the HTTP port may push");
    }
    report(&config, tokens.clone(), discovery.clone(), &process);
    let online = Online::new(&process.metrics);
    let places = Places::new(online.clone(), discovery);
    let nodes = Nodes::new(config.node.clone(), places.clone());
    // The servers stop later than the process is told to: after the drain delay.
    let stop = Shutdown::new();

    let mut followers = JoinSet::new();
    followers.spawn(online::follow(online.clone(), store.clone(), online::Intervals::default(), stop.clone()));
    followers.spawn(places.follow(config.topology.clone()));
    if let Some(tokens) = tokens.clone() {
        followers.spawn(tokens.follow());
    }
    followers.spawn({
        let readiness = process.readiness.clone();
        let places = [("kafka", config.kafka.brokers.join(",")), ("redis", config.redis.addr.join(","))];
        async move { readiness.tell(&places).await }
    });
    let tls = config.internal_tls.open()?;
    if let Some(tls) = &tls {
        process.metrics.register("internal_tls", |to| tls.register(to));
        let shown = tls.clone();
        process.status.part("internalTls", move || shown.report());
        followers.spawn(tls.clone().follow());
    }
    let counts = SessionMetrics::new(&process.metrics);
    let auth = config.authenticator(&counts.auth)?;
    followers.spawn(auth.clone().follow());
    let sessions = Sessions::new(config.session.clone(), auth, store.clone(), queue.clone(), counts);
    let service = grpc_service(&config, sessions.clone(), &store, online.clone(), nodes.clone(), &process, &stop);
    let api = Arc::new(http::Api {
        pusher: Pusher::new(store, queue.clone()),
        online,
        nodes: nodes.clone(),
        tokens,
        deploy_env: config.deploy_env,
        metrics: metrics::HttpMetrics::register(&process.metrics),
        slots: Arc::new(Semaphore::new(config.http.http_in_flight)),
        trusted: TrustedProxies::new(&config.http.trusted_proxies),
        limits: ArcSwap::from_pointee(config.http),
    });
    process.live.follow({
        let api = api.clone();
        move |settings: Config| {
            nodes.apply(settings.node);
            sessions.apply(settings.session);
            api.limits.store(Arc::new(settings.http));
        }
    });
    let within = config.drain_deadline;
    let http = tokio::spawn(http::serve(listeners.http, api, stop.begun(), within));
    let mut rpc = tokio::spawn(grpc::serve(listeners.rpc, tls, service, stop.begun()));

    tokio::select! {
        () = process.shutdown.begun() => {}
        ended = &mut rpc => {
            ended.context("the gRPC server panicked")?.context("the gRPC server cannot go on")?;
            anyhow::bail!("the gRPC server ended by itself");
        }
    }
    process.readiness.leave();
    tracing::info!(delay = ?config.drain_delay, "leaving: still serving while others take us off their lists");
    sleep(config.drain_delay).await;
    stop.begin();
    let (http, rpc_ended) = tokio::join!(http, timeout(within, &mut rpc));
    http.context("the HTTP server panicked")?;
    match rpc_ended {
        Ok(ended) => ended.context("the gRPC server panicked")?.context("the gRPC server did not end well")?,
        Err(_) => {
            tracing::warn!("gRPC calls did not end in time, cutting them");
            rpc.abort();
        }
    }
    queue.flush(within).await;
    Ok(())
}

/// What `GET /status` says of us.
fn report(config: &Config, tokens: Option<Tokens>, discovery: Option<Followed>, process: &Process) {
    let logic = serde_json::json!({
        "host": config.host,
        "region": config.region,
        "zone": config.zone,
        "deploy_env": config.deploy_env,
        "weight": config.weight,
    });
    process.status.part("logic", move || logic.clone());
    process.status.part("pushTokens", move || tokens.as_ref().map(Tokens::status).into());
    process.status.part("comets", move || {
        discovery.as_ref().map_or(serde_json::Value::Null, |discovery| {
            let (trouble, age) = (discovery.trouble(), discovery.age().as_secs());
            serde_json::json!({"listed": discovery.peers.borrow().len(), "error": trouble.as_deref(), "ageSeconds": age})
        })
    });
}

fn grpc_service(
    config: &Config,
    sessions: Sessions,
    store: &Arc<dyn SessionStore>,
    online: Online,
    nodes: Nodes,
    process: &Process,
    stop: &Shutdown,
) -> grpc::Service {
    grpc::Service {
        sessions,
        store: store.clone(),
        online,
        receive: receive::Receive::start(&config.receive, &process.metrics, stop.clone()),
        heartbeat: Arc::new({
            let nodes = nodes.clone();
            move || nodes.session_timer()
        }),
        nodes: Arc::new(move |platform, client| {
            nodes.weighted(platform, client.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
        }),
    }
}

#[cfg(test)]
mod tests;
