//! Holds the connections: what clients reach over TCP and WebSocket, and what job pushes through.
//!
//! A connection comes in through [`listen`], [`transport`] and [`session`], lives on the [`shard`] of its key as a
//! [`channel`], and is pushed to by [`grpc`] through the shard's inbox and a [`fanout`] round.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bucket;
pub mod channel;
pub mod close;
pub mod config;
mod drain;
mod fanout;
mod grpc;
mod input;
pub mod limits;
pub mod listen;
pub mod logic;
pub mod message;
pub mod metrics;
mod online;
pub mod outbound;
mod pace;
mod probe;
pub mod repeats;
mod requests;
pub mod room;
mod session;
mod shard;
mod shared;
#[cfg(test)]
mod testing;
pub mod transport;
mod wheel;
pub mod wire;

use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::Context;
use runtime::Process;
use tokio::runtime::{Builder, LocalOptions};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use listen::Listeners;
pub use logic::{Logic, LogicClient};

use crate::metrics::Metrics;
use crate::probe::Probe;
use crate::shard::{Inbox, Shard};
use crate::shared::Shared;
use crate::transport::{ListenerKind, TransportSettings};

type ShardListeners = Vec<(std::net::TcpListener, ListenerKind)>;

/// Serves until told to stop, then drains and returns.
///
/// # Errors
/// When certificates cannot be read, a thread cannot be started or the gRPC server fails.
pub async fn run(config: Config, listeners: Listeners, logic: Arc<dyn Logic>, process: Process) -> anyhow::Result<()> {
    let metrics = Metrics::register(&process.metrics);
    let transport = TransportSettings::new(&config)?;
    let (handles, inboxes): (Vec<_>, Vec<_>) = (0..listeners.shard_count()).map(|_| shard::handle()).unzip();
    let shared = Arc::new(Shared::new(config, logic, metrics, transport, handles));
    Metrics::register_entrance(&process.metrics, &shared.limits.counts, shared.transport.tls.as_ref());
    let probe = Probe::new(shared.incarnation);
    describe(&process, &shared, &probe);

    let (ports, grpc) = listeners.into_parts();
    let accepting = CancellationToken::new();
    for (index, (inbox, ports)) in inboxes.into_iter().zip(ports).enumerate() {
        start_shard(index, shared.clone(), inbox, ports, accepting.clone())?;
    }
    let serving = CancellationToken::new();
    let grpc = tokio::net::TcpListener::from_std(grpc).context("the gRPC port")?;
    let service = grpc::Service::new(shared.clone(), probe.clone());
    let server = tokio::spawn(
        proto::grpc::server()
            .add_routes(service.routes())
            .serve_with_incoming_shutdown(TcpListenerStream::new(grpc), serving.clone().cancelled_owned()),
    );
    let reports =
        tokio::spawn(online::report(shared.clone(), process.readiness.condition("logic", "the first answer of logic")));
    let probing = tokio::spawn(prove(shared.clone(), probe, process.clone()));
    let reloading = tokio::spawn(reload(shared.clone()));

    process.shutdown.begun().await;
    process.readiness.leave();
    tracing::info!(clients = shared.connections(), "draining");
    if shared.connections() > 0 {
        tokio::time::sleep(shared.settings.drain_delay).await;
    }
    accepting.cancel();
    drain::clients(&shared).await;
    drain::stragglers(&shared, shared.settings.flush).await;
    probing.abort();
    reloading.abort();
    reports.abort();
    serving.cancel();
    server.await.context("the gRPC server panicked")?.context("the gRPC server failed")
}

/// What `GET /status` shows of this comet.
fn describe(process: &Process, shared: &Arc<Shared>, probe: &Probe) {
    let (shared, probe) = (shared.clone(), probe.clone());
    process.status.part("comet", move || {
        serde_json::json!({
            "server": shared.server,
            "incarnation": format!("{:016x}", shared.incarnation),
            "connections": shared.connections(),
            "flow": if probe.is_proven() { "proven" } else { "unproven" },
        })
    });
}

async fn prove(shared: Arc<Shared>, probe: Probe, process: Process) {
    let flow = process.readiness.condition("flow", "a push through logic, queue and job to come back");
    let proven = probe.run(&*shared.logic).await;
    tracing::info!(proven, "ready for clients");
    flow.up();
}

async fn reload(shared: Arc<Shared>) {
    match &shared.transport.tls {
        Some(tls) => tls.follow(transport::tls::LOOK_EVERY).await,
        None => std::future::pending().await,
    }
}

/// Starts the thread of one shard. It lives as long as the process: sessions of one shard hand clients to another.
fn start_shard(
    index: usize,
    shared: Arc<Shared>,
    inbox: Inbox,
    ports: ShardListeners,
    accepting: CancellationToken,
) -> anyhow::Result<()> {
    let (made, started) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            // A reactor of this kind stays on the thread that made it, so the thread says whether it could.
            let reactor = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let reactor = match reactor {
                Ok(reactor) => reactor,
                Err(error) => return made.send(Err(error)),
            };
            made.send(Ok(()))?;
            let _whole = WholeOrNothing;
            reactor.block_on(serve_shard(index, shared, inbox, ports, accepting));
            Ok(())
        })
        .context("cannot start a shard's thread")?;
    started.recv().context("a shard's thread ended at once")?.context("cannot make a shard's reactor")
}

/// Ends the process when a shard's own loop panics: a comet that is deaf to part of its clients must not look alive.
struct WholeOrNothing;

impl Drop for WholeOrNothing {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a shard failed, ending this comet");
            std::process::abort();
        }
    }
}

async fn serve_shard(
    index: usize,
    shared: Arc<Shared>,
    inbox: Inbox,
    ports: ShardListeners,
    accepting: CancellationToken,
) {
    let (commands, count) = inbox.into_parts();
    let shard = Shard::new(index, shared, count);
    tokio::task::spawn_local(shard.clone().tick());
    for (port, kind) in ports {
        let port = tokio::net::TcpListener::from_std(port).expect("the port was bound non-blocking");
        let (shard, stop) = (shard.clone(), accepting.clone());
        tokio::task::spawn_local(async move {
            listen::accept(port, &shard.shared.limits, stop.cancelled_owned(), |socket, peer, place| {
                tokio::task::spawn_local(session::open(shard.clone(), socket, peer, kind, place));
            })
            .await;
        });
    }
    shard.run(commands).await;
}
