//! What every shard, the gRPC service and the loops of one comet share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use proto::id::city32;
use proto::logic::CometInfo;
use proto::{Key, ServerId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::channel::QueueLimits;
use crate::config::{Config, Live};
use crate::interest::Interest;
use crate::limits::Limits;
use crate::logic::{Logic, LogicError};
use crate::metrics::Metrics;
use crate::shard::Handle;
use crate::transport::TransportSettings;

/// Bytes of pushes that may wait in the shards' inboxes: what makes job wait when the sockets are the bottleneck.
const INBOX_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of broadcasts with a speed that may be on their way to connections. They take as long as they take, so they have
/// no part in what job waits for.
const PACED_BYTES: usize = 32 * 1024 * 1024;

/// What a comet does with clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Takes them.
    Serving,
    /// Sends them elsewhere.
    Draining,
    /// Has sent them elsewhere.
    Drained,
}

/// A [`Phase`] that everybody sees.
#[derive(Debug, Default)]
pub struct PhaseCell(AtomicU8);

impl PhaseCell {
    /// The phase now.
    pub fn get(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Drained,
        }
    }

    /// From now on it is this one.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }
}

/// One comet.
#[derive(Debug)]
pub struct Shared {
    /// What it was told when it started.
    pub settings: Config,
    /// What it was told last.
    pub live: ArcSwap<Live>,
    /// Its name in sessions.
    pub server: ServerId,
    /// Drawn anew at every start.
    pub incarnation: u64,
    /// Who decides about sessions.
    pub logic: Arc<dyn Logic>,
    /// What it counts.
    pub metrics: Metrics,
    /// How many may connect.
    pub limits: Limits,
    /// How transports are opened.
    pub transport: TransportSettings,
    /// How much may wait for sockets.
    pub queue: Arc<QueueLimits>,
    /// Room → how many are in it in the whole cluster, as logic last said.
    pub cluster: ArcSwap<HashMap<String, i32>>,
    /// In which rooms somebody is, and what jobs vouched for.
    pub interest: Arc<Interest>,
    /// The ways into the shards.
    pub shards: Vec<Handle>,
    /// Whether it takes clients.
    pub phase: PhaseCell,
    /// When whom a drain told to move is to be elsewhere.
    pub leave_by: Mutex<Option<Instant>>,
    /// Told when logic may have noted a session that nobody knows of here.
    pub doubt: Notify,
    inboxes: Arc<Semaphore>,
    paced: Arc<Semaphore>,
    departing: Arc<AtomicUsize>,
}

/// A session whose end is being told to logic.
#[derive(Debug)]
pub struct Departing(Arc<AtomicUsize>);

impl Drop for Departing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Puts a comet together.
    pub fn new(
        settings: Config,
        logic: Arc<dyn Logic>,
        metrics: Metrics,
        transport: TransportSettings,
        shards: Vec<Handle>,
    ) -> Self {
        let queue = QueueLimits {
            connection: settings.queue_bytes.into(),
            total: settings.queue_bytes_total.into(),
            used: Default::default(),
        };
        Self {
            server: settings.server(),
            incarnation: settings.incarnation,
            live: ArcSwap::from_pointee(Live::from(&settings)),
            limits: Limits::new(&settings),
            queue: Arc::new(queue),
            cluster: ArcSwap::default(),
            interest: Arc::default(),
            phase: PhaseCell::default(),
            leave_by: Mutex::default(),
            doubt: Notify::new(),
            inboxes: Arc::new(Semaphore::new(INBOX_BYTES)),
            paced: Arc::new(Semaphore::new(PACED_BYTES)),
            departing: Arc::default(),
            settings,
            logic,
            metrics,
            transport,
            shards,
        }
    }

    /// How long whom a drain tells to move now may take.
    pub fn leave_within(&self) -> Duration {
        self.leave_by.lock().map(|leave_by| leave_by.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// Takes up what may change while it runs.
    pub fn apply(&self, settings: &Config) {
        self.live.store(Arc::new(Live::from(settings)));
        self.limits.apply(settings);
        self.queue.connection.store(settings.queue_bytes, Ordering::Relaxed);
        self.queue.total.store(settings.queue_bytes_total, Ordering::Relaxed);
    }

    /// The shard a key lives in.
    pub fn home(&self, key: &Key) -> usize {
        city32(key.as_str().as_bytes()) as usize % self.shards.len()
    }

    /// Connections in all shards.
    pub fn connections(&self) -> usize {
        self.shards.iter().map(Handle::connections).sum()
    }

    /// Counts a call about a session that failed. One that was not answered may have been carried out, or may still be.
    pub fn logic_failed(&self, call: &'static str, error: &LogicError) {
        self.metrics.logic_error(call);
        if matches!(error, LogicError::Unavailable(_)) {
            self.doubt.notify_one();
        }
    }

    /// Counts a session whose end is being told to logic.
    pub fn departing(&self) -> Departing {
        self.departing.fetch_add(1, Ordering::Relaxed);
        Departing(self.departing.clone())
    }

    /// Whether anybody is here, or still to be signed off at logic.
    pub fn is_busy(&self) -> bool {
        self.connections() > 0 || self.departing.load(Ordering::Relaxed) > 0
    }

    /// Waits for so much room in the inboxes. Cancel safe.
    pub async fn room_for(&self, bytes: usize) -> Arc<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.clamp(1, INBOX_BYTES)).expect("64 MiB fit");
        let permit = self.inboxes.clone().acquire_many_owned(permits).await;
        Arc::new(permit.expect("the inboxes' budget is never closed"))
    }

    /// Room for a broadcast of this size, and for the list of whom it is for, among those that take their time; `None` =
    /// there is none now.
    pub fn room_to_pace(&self, bytes: usize) -> Option<Arc<OwnedSemaphorePermit>> {
        let bytes = bytes + self.connections() * size_of::<usize>();
        let permits = u32::try_from(bytes.clamp(1, PACED_BYTES)).expect("32 MiB fit");
        self.paced.clone().try_acquire_many_owned(permits).ok().map(Arc::new)
    }

    /// What this comet says of itself, the counts as they are now.
    pub fn info(&self) -> CometInfo {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        CometInfo {
            incarnation: self.incarnation,
            host: self.settings.public_host().to_owned(),
            addrs: self.settings.public_addresses(),
            region: self.settings.region.clone(),
            zone: self.settings.zone.clone(),
            weight: self.settings.weight,
            offline: self.settings.offline,
            conn_count: count(self.connections()),
            ip_count: count(self.limits.addresses()),
            draining: self.phase.get() != Phase::Serving,
        }
    }
}
