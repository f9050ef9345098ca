//! Watches, and looks at one ImCluster at a time: fetch → validate → build → plan → apply → status.

mod malformed;
mod reconcile;
mod scope;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::Process;
use tokio::sync::Semaphore;

use crate::apply::Hands;
use crate::config::Config;
use crate::definition;
use crate::events::Events;
use crate::lease::{Election, Leadership};
use crate::metrics::Metrics;
use crate::observe::live::Warnings;
use crate::observe::report::Reports;
use crate::retry;
use crate::validate::Operand;
use crate::watches;

/// What every look needs. One per process.
pub struct Context {
    pub(crate) client: Client,
    pub(crate) config: Config,
    /// The operator's own namespace.
    pub(crate) namespace: String,
    pub(crate) operand: Operand,
    pub(crate) leadership: Leadership,
    pub(crate) hands: Hands,
    pub(crate) events: Events,
    pub(crate) reports: Reports,
    pub(crate) warnings: Warnings,
    pub(crate) metrics: Metrics,
    /// How many are looked at at a time, over all scopes.
    pub(crate) turns: Semaphore,
    /// UID → what is remembered of a cluster.
    pub(crate) memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of a cluster; losing it costs a look, never a wrong one.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Its namespace and name.
    pub(crate) place: (String, String),
    /// Looks in a row that failed.
    pub(crate) failures: u32,
    /// When connections and lag were last reported, in Unix seconds.
    pub(crate) counted: Option<i64>,
    /// What was found to be somebody else's or refused at the last look.
    pub(crate) foreign: Vec<crate::observe::Key>,
    pub(crate) refused: Vec<(crate::observe::Key, String)>,
    /// Of an object that cannot be read: the version that was last reported on.
    pub(crate) malformed: Option<String>,
}

impl Context {
    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        self.metrics.read.conditions(namespace, name, []);
        self.memory.lock().retain(|uid, memory| {
            let is_gone = (memory.place.0.as_str(), memory.place.1.as_str()) == (namespace, name);
            if is_gone {
                self.hands.forget(uid);
            }
            !is_gone
        });
    }
}

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When there is no API server to talk to, or no namespace to watch.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let metrics = Metrics::register(&process.metrics);
    let client = retry::client(&metrics).await?;
    let namespace = config.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let identity = format!("{}_{:08x}", config.identity, rand::random::<u32>());
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    let election = Election::new(leases, &config.lease_name, identity, metrics.leader.clone());
    let leadership = election.leadership();
    let scopes = config.scopes(&namespace);
    tracing::info!(version = runtime::VERSION, namespace, watching = ?scopes, "operator starts");
    let context = Arc::new(Context {
        operand: Operand { image: config.operand_image.clone(), version: runtime::VERSION.to_owned() },
        hands: Hands::new(client.clone(), leadership.clone()),
        events: Events::new(client.clone(), &config.identity, metrics.clone()),
        reports: Reports::default(),
        warnings: Warnings::default(),
        turns: Semaphore::new(usize::from(config.concurrency)),
        memory: Mutex::default(),
        client,
        config,
        namespace,
        leadership,
        metrics,
    });
    let pause = context.config.resync;
    let definition = tokio::spawn(definition::follow(context.client.clone(), context.metrics.lacking.clone(), pause));
    let watches = context.metrics.read.watches.clone();
    let guard = tokio::spawn(watches::guard(context.client.clone(), watches, process.liveness.clone()));
    // The lease is given back when the last look has ended, not before.
    let stop_election = runtime::Shutdown::new();
    let election = tokio::spawn(election.run(stop_election.clone()));
    let listed = process.readiness.condition("api server", "the first list of every kind");
    let mut running: Vec<_> = scopes
        .into_iter()
        .map(|namespace| scope::Scope::start(context.clone(), namespace, process.shutdown.clone()))
        .collect();
    let filled: Vec<_> = running.iter().map(scope::Scope::filled).collect();
    let ready = tokio::spawn(async move {
        futures::future::join_all(filled).await;
        listed.up();
    });
    futures::future::join_all(running.drain(..).map(scope::Scope::ended)).await;
    ready.abort();
    definition.abort();
    guard.abort();
    stop_election.begin();
    tokio::time::timeout(Duration::from_secs(5), election).await.ok().transpose().context("the election broke")?;
    Ok(())
}
