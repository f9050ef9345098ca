//! Carries pushes from the queue to the comets: in order, merged where a room is busy, and committed only when every
//! comet that is owed a push has answered.
//!
//! Edges: [`consumer`] reads the queue (Kafka or memory), [`comet`] sends (gRPC or memory). Between them [`dispatch`]
//! decides who is owed a record, [`room`] keeps each comet's order, [`ledger`] knows what may be committed,
//! [`fleet`] which comets there are, and [`seek`] finds keys that are not where they were.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod comet;
pub mod config;
pub mod consumer;
pub mod dispatch;
pub mod fleet;
pub mod ledger;
pub mod metrics;
pub mod push;
pub mod room;
pub mod seek;
pub mod webhook;

#[cfg(test)]
mod rig;

use std::sync::Arc;
use std::time::Duration;

pub use config::Config;
use proto::peers::{Peer, Peers};
use runtime::Process;
use url::Url;

use crate::comet::Comet;
use crate::comet::grpc::GrpcComet;
use crate::comet::queue::Limits;
use crate::consumer::Source;
use crate::dispatch::Dispatcher;
use crate::fleet::{Dial, Fleet};
use crate::metrics::Metrics;
use crate::seek::logic::{Locate, LogicClient};

/// How long the first list of comets is waited for.
const LIST: Duration = Duration::from_secs(10);

/// Carries records from the source to the comets that `config` names, until the process is told to stop and what was
/// owed is delivered.
///
/// # Errors
/// When an address of logic is not one; when certificates cannot be read; when the last commit fails: what it named is
/// delivered again.
pub async fn run(config: Config, source: Box<dyn Source>, process: Process) -> anyhow::Result<()> {
    let followed = proto::peers::watch(config.comets.clone());
    let zone = config.zone.clone().filter(|zone| !zone.is_empty());
    let peers = match (&config.comets, zone) {
        (proto::peers::Source::EndpointSlices { .. }, Some(zone)) => of_zone(followed.peers.clone(), zone),
        _ => followed.peers.clone(),
    };
    // goim's rule: ten seconds without a list, then start with no comets.
    if tokio::time::timeout(LIST, followed.known()).await.is_err() {
        tracing::warn!("no list of comets yet, starting without");
    }
    let tls = config.internal_tls.open()?;
    if let Some(tls) = &tls {
        process.metrics.register("internal_tls", |to| tls.register(to));
        let shown = tls.clone();
        process.status.part("internalTls", move || shown.report());
        tokio::spawn(tls.clone().follow());
    }
    let logic = match &config.logic {
        Some(logic) => Some(Arc::new(LogicClient::lazy(logic.clone(), tls.clone())?) as Arc<dyn Locate>),
        None => None,
    };
    let dial: Dial = Arc::new(move |address| Ok(Arc::new(GrpcComet::over(address, tls.as_ref())?) as Arc<dyn Comet>));
    let settings = Settings {
        group: config.group.clone(),
        limits: config.limits(),
        flush: config.flush,
        webhook: config.undeliverable_webhook.clone(),
    };
    serve(settings, source, peers, dial, logic, process).await
}

/// The comets of one zone alone. goim's job knows no others; there each zone has a consumer group of its own.
fn of_zone(mut all: Peers, zone: String) -> Peers {
    let ours = move |all: &[Peer]| -> Arc<[Peer]> {
        all.iter().filter(|peer| peer.zone.as_deref() == Some(zone.as_str())).cloned().collect()
    };
    let (sender, peers) = tokio::sync::watch::channel(ours(&all.borrow_and_update()));
    tokio::spawn(async move {
        let follow = async {
            while all.changed().await.is_ok() {
                let listed = ours(&all.borrow_and_update());
                sender.send_if_modified(|known| std::mem::replace(known, listed.clone()) != listed);
            }
        };
        tokio::select! {
            () = follow => {}
            () = sender.closed() => {}
        }
    });
    peers
}

/// What [`serve`] needs to know of [`Config`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The consumer group.
    pub group: String,
    /// When packets merge and when a comet is let go.
    pub limits: Limits,
    /// How long to finish what is owed at the end.
    pub flush: Duration,
    /// Who is told of what cannot be delivered.
    pub webhook: Option<Url>,
}

/// As [`run`], with the list of comets, the way to reach them and whom to ask where keys are given.
///
/// # Errors
/// When the last commit fails.
pub async fn serve(
    settings: Settings,
    source: Box<dyn Source>,
    peers: Peers,
    dial: Dial,
    logic: Option<Arc<dyn Locate>>,
    process: Process,
) -> anyhow::Result<()> {
    let metrics = Metrics::register(&process.metrics);
    let queue = process.readiness.condition(source.name(), "the first answer");
    let fleet = Fleet::new(dial, settings.limits, metrics.clone());
    let told = settings.webhook.map(|url| {
        let (outbox, told) = webhook::start(&url, metrics.untold.clone());
        fleet.seeker().tell(Some(outbox));
        told
    });
    fleet.update(&peers.borrow().clone());
    process.status.part("comets", {
        let fleet = fleet.clone();
        move || fleet.report()
    });
    let follower = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.follow(peers).await }
    });
    let seeking = logic.map(|logic| tokio::spawn(seek::run(fleet.clone(), logic)));
    process.live.follow({
        let fleet = fleet.clone();
        move |config: Config| fleet.rebatch(config.limits().batching)
    });
    let dispatcher = Dispatcher::new(source, fleet.clone(), &settings.group, metrics);
    let lag = dispatcher.lag();
    process.status.part("lag", move || lag.get().into());
    let result = dispatcher.run(process.shutdown.begun(), settings.flush, queue).await;
    follower.abort();
    seeking.iter().for_each(tokio::task::JoinHandle::abort);
    fleet.stop();
    fleet.seeker().tell(None);
    if let Some(told) = told {
        // What does not end in its own time is not waited for; it cannot have panicked.
        let _late = tokio::time::timeout(webhook::LAST, told).await;
    }
    tracing::info!("job has stopped");
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8, zone: Option<&str>) -> Peer {
        Peer { zone: zone.map(str::to_owned), ..Peer::at(format!("10.0.0.{number}:3109")) }
    }

    #[tokio::test]
    async fn a_job_of_a_zone_knows_the_comets_of_that_zone_alone() {
        let all = [peer(1, Some("a")), peer(2, Some("b")), peer(3, None)];
        let (sender, peers) = tokio::sync::watch::channel(Arc::from(all));
        let mut ours = of_zone(peers, "a".to_owned());
        assert_eq!(**ours.borrow(), [peer(1, Some("a"))]);
        sender.send_replace(Arc::from([peer(2, Some("b")), peer(4, Some("a"))]));
        let changed = ours.wait_for(|list| **list == [peer(4, Some("a"))]);
        tokio::time::timeout(Duration::from_secs(30), changed).await.expect("the change is passed on").unwrap();
    }
}
