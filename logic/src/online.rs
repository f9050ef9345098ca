//! Room counts over all comets, and what every comet says of itself: read from the store every 3 s, kept in memory.
//!
//! A server counts while its renewals go on: what matters is that its entry *changes*, watched by our own monotonic
//! clock, so that no logic's wall clock can delete what another has just written (goim's D29). A read that fails
//! changes nothing and excuses every server, because it could not have been heard (goim's D20). The sessions of an
//! incarnation that is gone are purged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::{self, StreamExt, TryStreamExt};
use prometheus_client::metrics::counter::Counter;
use proto::ServerId;
use proto::logic::CometInfo;
use runtime::{Metrics, Shutdown};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::store::{Seen, ServerOnline, SessionStore, StoreResult};

/// After how many intervals without a renewal a server is stale.
const MISSED: u32 = 3;
/// How many servers' counts are read at a time (goim reads 64 shards of each, one after the other).
const READS: usize = 16;

/// Room → connections.
type Counts = Arc<HashMap<String, i32>>;

/// How often things happen.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// We read.
    pub merge: Duration,
    /// Our comets renew.
    pub ours: Duration,
    /// Go comets renew.
    pub theirs: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        let three = Duration::from_secs(3);
        Self { merge: three, ours: three, theirs: Duration::from_secs(10) }
    }
}

/// What the last reading found. Cheap to clone; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Online {
    state: Arc<ArcSwap<State>>,
    purged: Counter,
}

#[derive(Debug, Default)]
struct State {
    rooms: Counts,
    servers: BTreeMap<ServerId, Counts>,
    comets: Arc<Vec<(ServerId, CometInfo)>>,
}

impl Online {
    /// Nothing read yet; counts purged sessions under `imcluster_logic_`.
    pub fn new(metrics: &Metrics) -> Self {
        let online = Self::default();
        metrics.register("logic", |registry| {
            registry.register("purged_sessions", "Sessions of dead comets that were removed", online.purged.clone());
        });
        online
    }

    /// Connections in the room, over all usable comets; 0 when nobody knows it.
    pub fn room_count(&self, room: &str) -> i32 {
        self.state.load().rooms.get(room).copied().unwrap_or(0)
    }

    /// Every room's connections, over all usable comets.
    pub fn rooms(&self) -> Counts {
        self.state.load().rooms.clone()
    }

    /// Every comet that keeps telling of itself, offline ones included, by id. Go comets tell logic nothing.
    pub fn comets(&self) -> Arc<Vec<(ServerId, CometInfo)>> {
        self.state.load().comets.clone()
    }

    /// Addresses and connections over all comets that are not offline.
    pub fn totals(&self) -> (i64, i64) {
        let comets = self.comets();
        let usable = comets.iter().filter(|(_, info)| !info.offline);
        usable.fold((0, 0), |(ips, conns), (_, info)| {
            (ips + i64::from(info.ip_count), conns + i64::from(info.conn_count))
        })
    }

    /// One usable server's rooms.
    pub fn server_rooms(&self, server: &str) -> Option<Counts> {
        self.state.load().servers.get(server).cloned()
    }

    /// What a reading of these would leave behind.
    pub fn set(&self, rooms: HashMap<String, i32>, comets: Vec<(ServerId, CometInfo)>) {
        let state = State { rooms: Arc::new(rooms), servers: BTreeMap::new(), comets: Arc::new(comets) };
        self.state.store(Arc::new(state));
    }

    fn read(&self, counts: Vec<(ServerId, ServerOnline)>, comets: Vec<(ServerId, CometInfo)>) {
        let mut rooms: HashMap<String, i32> = HashMap::new();
        let mut servers = BTreeMap::new();
        for (server, online) in counts {
            let counts: HashMap<String, i32> =
                online.rooms.into_iter().map(|(room, count)| (room.as_str().to_owned(), count)).collect();
            for (room, count) in &counts {
                let sum = rooms.entry(room.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
            servers.insert(server, Arc::new(counts));
        }
        self.state.store(Arc::new(State { rooms: Arc::new(rooms), servers, comets: Arc::new(comets) }));
    }
}

/// Reads again and again until the shutdown, and purges what has died.
pub async fn follow(online: Online, store: Arc<dyn SessionStore>, intervals: Intervals, shutdown: Shutdown) {
    let mut watch = Watch::default();
    let mut purges = JoinSet::new();
    let mut under_way = BTreeSet::new();
    loop {
        while let Some(done) = purges.try_join_next() {
            match done {
                Ok(seen) => drop(under_way.remove(&seen)),
                Err(error) => tracing::error!(%error, "a purge ended badly"),
            }
        }
        match watch.round(&online, &*store, &intervals).await {
            Ok(dead) => {
                for seen in dead {
                    if under_way.insert((seen.server.clone(), seen.incarnation)) {
                        purges.spawn(purge(store.clone(), seen, intervals.merge, online.purged.clone()));
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "online counts stay as they were");
                watch.excuse();
            }
        }
        tokio::select! {
            () = shutdown.begun() => return,
            () = sleep(intervals.merge) => {}
        }
    }
}

/// When each incarnation's entry last changed, by our clock.
#[derive(Debug, Default)]
struct Watch {
    changed: HashMap<(ServerId, u64), (i64, Instant)>,
    last: Option<Instant>,
}

impl Watch {
    /// Whatever was not heard of lately may have been there: it gets its whole time again.
    fn excuse(&mut self) {
        let now = Instant::now();
        self.changed.values_mut().for_each(|(_, at)| *at = now);
    }

    /// Reads once. Returns the incarnations that are gone.
    async fn round(
        &mut self,
        online: &Online,
        store: &dyn SessionStore,
        intervals: &Intervals,
    ) -> StoreResult<Vec<Seen>> {
        let now = Instant::now();
        if self.last.replace(now).is_some_and(|last| now - last > intervals.merge * MISSED) {
            // We were not running, or the store was slow: silence means nothing.
            self.excuse();
        }
        let seen = store.servers().await?;
        let infos: BTreeMap<ServerId, CometInfo> = store.comets().await?.into_iter().collect();
        self.note(&seen);

        let mut usable = BTreeSet::new();
        let mut comets = BTreeMap::new();
        let mut gone = Vec::new();
        for seen in seen {
            let info = infos.get(&seen.server);
            let current = info.map_or(0, |info| info.incarnation) == seen.incarnation;
            match (self.is_fresh(&seen, intervals), current) {
                (true, true) => {
                    if info.is_none_or(|info| !info.offline) {
                        usable.insert(seen.server.clone());
                    }
                    comets.extend(info.map(|info| (seen.server, info.clone())));
                }
                // What it said of itself is still kept: it may only be late.
                (false, true) if seen.incarnation != 0 => {}
                (false, _) => gone.push(seen),
                (true, false) => {}
            }
        }
        let counts: Vec<(ServerId, ServerOnline)> = stream::iter(usable)
            .map(|server| async move {
                let online = store.online(&server).await?;
                StoreResult::Ok((server, online.unwrap_or_default()))
            })
            .buffer_unordered(READS)
            .try_collect()
            .await?;
        online.read(counts, comets.into_iter().collect());
        Ok(gone)
    }

    fn note(&mut self, seen: &[Seen]) {
        let now = Instant::now();
        let mut changed = HashMap::with_capacity(seen.len());
        for Seen { server, incarnation, renewal } in seen {
            let id = (server.clone(), *incarnation);
            let at = match self.changed.get(&id) {
                Some((before, at)) if before == renewal => *at,
                _ => now,
            };
            changed.insert(id, (*renewal, at));
        }
        self.changed = changed;
    }

    fn is_fresh(&self, seen: &Seen, intervals: &Intervals) -> bool {
        let interval = if seen.incarnation == 0 { intervals.theirs } else { intervals.ours };
        let changed = self.changed.get(&(seen.server.clone(), seen.incarnation));
        changed.is_some_and(|(_, at)| at.elapsed() < interval * MISSED)
    }
}

/// Removes what a dead incarnation left. Every logic finds it dead at about the same time: whoever comes first does
/// the work, the others find it done.
async fn purge(store: Arc<dyn SessionStore>, seen: Seen, spread: Duration, purged: Counter) -> (ServerId, u64) {
    sleep(spread.mul_f64(rand::random())).await;
    let Seen { server, incarnation, .. } = &seen;
    let work = async {
        let now = store.servers().await?;
        if !now.contains(&seen) {
            return Ok(None);
        }
        let alone = now.iter().filter(|other| other.server == *server).count() == 1;
        if alone && let Some(counts) = store.online(server).await? {
            store.purge_online(server, counts.updated).await?;
        }
        store.purge_server(server, *incarnation).await.map(Some)
    };
    match work.await {
        Ok(Some(sessions)) => {
            purged.inc_by(sessions);
            tracing::info!(%server, incarnation, sessions, "a comet is gone, its sessions are purged");
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%server, incarnation, %error, "a dead comet's sessions are not purged yet"),
    }
    (seen.server, seen.incarnation)
}

#[cfg(test)]
mod tests;
