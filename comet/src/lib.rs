//! Holds the connections: what clients reach over TCP and WebSocket, and what job pushes through.
//!
//! A connection comes in through [`listen`], [`transport`] and [`session`], lives on the [`shard`] of its key as a
//! [`channel`], and is pushed to by [`grpc`] through the shard's inbox and a [`fanout`] round.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bucket;
pub mod channel;
mod claims;
pub mod close;
pub mod config;
mod drain;
mod fanout;
mod grpc;
mod input;
pub mod interest;
mod lease;
pub mod limits;
pub mod listen;
pub mod logic;
pub mod message;
pub mod metrics;
pub mod moving;
mod online;
pub mod outbound;
pub mod owners;
mod pace;
mod probe;
mod register;
pub mod repeats;
mod requests;
pub mod room;
mod session;
mod shard;
mod shared;
mod sweep;
#[cfg(test)]
mod testing;
pub mod transport;
mod wheel;
pub mod wire;

use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::Context;
use proto::grpc::tls::Tls;
use runtime::Process;
use tokio::runtime::{Builder, LocalOptions};
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use listen::Listeners;
pub use logic::{Logic, LogicClient};

use crate::claims::Claims;
use crate::metrics::Metrics;
use crate::probe::Probe;
use crate::shard::{Inbox, Shard};
use crate::shared::{Phase, Shared};
use crate::transport::TransportSettings;

/// Serves until told to stop, then drains and returns. With `tls`, which `logic` may share, job is known by its
/// certificate.
///
/// # Errors
/// When certificates cannot be read, a thread cannot be started or the gRPC server fails.
pub async fn run(
    config: Config,
    listeners: Listeners,
    logic: Arc<dyn Logic>,
    tls: Option<Tls>,
    process: Process,
) -> anyhow::Result<()> {
    let metrics = Metrics::register(&process.metrics);
    let transport = TransportSettings::new(&config)?;
    let (handles, inboxes): (Vec<_>, Vec<_>) = (0..listeners.shard_count()).map(|_| shard::handle()).unzip();
    let shared = Arc::new(Shared::new(config, logic, metrics, transport, handles));
    Metrics::register_entrance(&process.metrics, &shared.limits.counts, shared.transport.tls.as_ref());
    process.live.follow({
        let shared = shared.clone();
        move |settings: Config| shared.apply(&settings)
    });
    let (probe, claims) = (Probe::new(shared.incarnation), Claims::default());
    describe(&process, &shared, &probe);

    let (mut gate, grpc) = listeners.into_gate();
    for (index, inbox) in inboxes.into_iter().enumerate() {
        start_shard(index, shared.clone(), inbox)?;
    }
    let serving = CancellationToken::new();
    let grpc = tokio::net::TcpListener::from_std(grpc).context("the gRPC port")?;
    let service = grpc::Service::new(shared.clone(), probe.clone(), claims.clone(), serving.clone());
    let server = tokio::spawn(
        proto::grpc::server()
            .add_routes(service.routes())
            .serve_with_incoming_shutdown(proto::grpc::incoming(grpc, tls.clone()), serving.clone().cancelled_owned()),
    );
    let lost = Arc::new(tokio::sync::Notify::new());
    let logic = process.readiness.condition("logic", "the first answer of logic");
    let reports = tokio::spawn(online::report(shared.clone(), logic, lost.clone()));
    let registering = tokio::spawn(register::follow(shared.clone(), lost));
    let sweeping = tokio::spawn(sweep::follow(shared.clone()));
    let probing = tokio::spawn(prove(shared.clone(), probe, process.clone()));
    if let Some(tls) = &tls {
        process.metrics.register("internal_tls", |to| tls.register(to));
        let shown = tls.clone();
        process.status.part("internalTls", move || shown.report());
    }
    let reloading = tokio::spawn(reload(shared.clone(), tls));

    let claimed = process.readiness.step("claims", "every partition of the topic to be claimed here");
    tokio::select! {
        () = process.shutdown.begun() => {}
        () = claims.wait(shared.settings.claim_wait) => {
            gate.open(&shared)?;
            claimed.up();
        }
    }
    drain::until_stopped(&shared, gate, &process).await;
    probing.abort();
    reloading.abort();
    reports.abort();
    registering.abort();
    sweeping.abort();
    serving.cancel();
    server.await.context("the gRPC server panicked")?.context("the gRPC server failed")
}

/// What `GET /status` shows of this comet.
fn describe(process: &Process, shared: &Arc<Shared>, probe: &Probe) {
    let status = &process.status;
    let part = |name, report: fn(&Shared) -> serde_json::Value| {
        let shared = shared.clone();
        status.part(name, move || report(&shared));
    };
    part("server", |shared| shared.server.as_str().into());
    part("incarnation", |shared| format!("{:016x}", shared.incarnation).into());
    part("connections", |shared| shared.connections().into());
    part("draining", |shared| (shared.phase.get() != Phase::Serving).into());
    part("drained", |shared| (shared.phase.get() == Phase::Drained).into());
    let probe = probe.clone();
    status.part("flow", move || probe.flow().name().into());
}

async fn prove(shared: Arc<Shared>, probe: Probe, process: Process) {
    let flow = process.readiness.step("flow", "a push through logic, queue and job to come back");
    let settled = async {
        let found = probe.settled().await;
        tracing::info!(flow = found.name(), "ready for clients");
        flow.up();
    };
    tokio::join!(settled, probe.run(&*shared.logic));
}

/// Follows the certificates for clients and those between our processes.
async fn reload(shared: Arc<Shared>, internal: Option<Tls>) {
    let for_clients = async {
        if let Some(tls) = &shared.transport.tls {
            tls.certificates.clone().follow(proto::certs::LOOK_EVERY).await;
        }
    };
    let between_us = async {
        if let Some(tls) = internal {
            tls.follow().await;
        }
    };
    tokio::join!(for_clients, between_us);
}

/// Starts the thread of one shard. It lives as long as the process: sessions of one shard hand clients to another.
fn start_shard(index: usize, shared: Arc<Shared>, inbox: Inbox) -> anyhow::Result<()> {
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
            reactor.block_on(serve_shard(index, shared, inbox));
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

async fn serve_shard(index: usize, shared: Arc<Shared>, inbox: Inbox) {
    let (commands, count) = inbox.into_parts();
    let shard = Shard::new(index, shared, count);
    tokio::task::spawn_local(shard.clone().tick());
    shard.run(commands).await;
}
