//! The comets that are served: those that discovery lists, those it no longer lists but that still answer, and for a
//! while those that only records name.
//!
//! A comet is known by its server id, not by its address: it says the id itself, or the list does (`id=host:port`,
//! for a Go comet). So a new address under an old id is picked up, which goim never does.

mod patience;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use proto::ServerId;
use proto::peers::{Peer, Peers};
use tokio::time::Instant;

use self::patience::Patience;
use crate::comet::queue::{Limits, Pace, Queue};
use crate::comet::{Comet, driver};
use crate::metrics::Metrics;
use crate::push::{Partition, Push};
use crate::room::{Batching, Item};
use crate::seek::Seeker;

/// Makes the client of an address.
pub type Dial = Arc<dyn Fn(&str) -> Result<Arc<dyn Comet>, String> + Send + Sync>;

/// How many server ids that discovery never named are remembered.
const REMEMBERED: usize = 4096;

/// One comet: what is owed to it and how to reach it.
#[derive(Debug)]
pub struct Seat {
    /// What is owed to it.
    pub queue: Queue,
    /// How long the others wait for it.
    patience: Mutex<Patience>,
    link: Mutex<Link>,
}

struct Link {
    name: Option<ServerId>,
    /// `None` while only records name it.
    address: Option<String>,
    client: Option<Arc<dyn Comet>>,
    /// Changes with the client.
    version: u64,
    listed: bool,
    up: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = self.link.lock();
        let name = link.name.as_ref().map_or("?", ServerId::as_str);
        write!(f, "{name} at {}", link.address.as_deref().unwrap_or("no address"))
    }
}

impl Seat {
    /// Its server id, once known.
    pub fn name(&self) -> Option<ServerId> {
        self.link.lock().name.clone()
    }

    pub(crate) fn client(&self) -> (Option<Arc<dyn Comet>>, u64) {
        let link = self.link.lock();
        (link.client.clone(), link.version)
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.link.lock().listed
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.link.lock().up = up;
    }

    fn is_phantom(&self) -> bool {
        self.link.lock().client.is_none()
    }

    fn is_at(&self, address: &str) -> bool {
        self.link.lock().address.as_deref() == Some(address)
    }

    fn attach(&self, address: &str, client: Arc<dyn Comet>) {
        let mut link = self.link.lock();
        link.address = Some(address.to_owned());
        link.client = Some(client);
        link.version += 1;
        link.listed = true;
        drop(link);
        self.queue.wake.notify_one();
    }

    fn report(&self) -> serde_json::Value {
        let (bytes, records, state) = self.queue.size();
        let link = self.link.lock();
        serde_json::json!({
            "server": link.name.as_ref().map(ServerId::as_str), "address": link.address, "listed": link.listed,
            "answers": link.up, "state": format!("{state:?}"), "queueBytes": bytes, "queueRecords": records,
        })
    }
}

/// The comets as the consumer sees them at one moment.
#[derive(Debug, Default)]
pub struct View {
    /// Every comet that rooms and broadcasts go to.
    pub comets: Vec<Arc<Seat>>,
    by_id: HashMap<ServerId, Arc<Seat>>,
}

impl View {
    /// Whether to read on: not when that would only lengthen queues, because nobody who is owed something keeps up, and
    /// those who lag answer, or there is nobody else. So a backlog is read at the pace of the comets instead of being
    /// dropped for them, while one that hangs holds up nobody, and one that is far slower than others holds them up for a
    /// while and no longer.
    pub fn reads_on(&self, now: Instant) -> bool {
        let paces: Vec<Pace> = self.comets.iter().map(|seat| seat.queue.pace(now)).collect();
        let nobody_else = !paces.is_empty() && paces.iter().all(|pace| matches!(pace, Pace::Lags | Pace::Hangs));
        let others_wait = !nobody_else && !paces.contains(&Pace::KeepsUp);
        let mut is_waited_for = false;
        for (seat, pace) in self.comets.iter().zip(paces) {
            let holds_up = others_wait && pace == Pace::Lags;
            let is_out = seat.patience.lock().is_out(holds_up, now);
            is_waited_for |= holds_up && !is_out;
        }
        !nobody_else && !is_waited_for
    }
}

/// All comets.
pub struct Fleet {
    inner: Mutex<Inner>,
    view: RwLock<Arc<View>>,
    dial: Dial,
    limits: Mutex<Limits>,
    seeker: Seeker,
    metrics: Metrics,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("inner", &*self.inner.lock()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Inner {
    seats: Vec<Arc<Seat>>,
    assigned: HashMap<u32, Arc<Partition>>,
    /// Servers that discovery did not name in time, or names no longer: their records are let go at once until it does.
    forgotten: HashSet<ServerId>,
}

impl Fleet {
    /// No comets yet.
    pub fn new(dial: Dial, limits: Limits, metrics: Metrics) -> Arc<Self> {
        let (limits, seeker) = (Mutex::new(limits), Seeker::new(metrics.clone()));
        Arc::new(Self { inner: Mutex::default(), view: RwLock::default(), dial, limits, seeker, metrics })
    }

    /// Follows the list until it ends. Cancel safe.
    pub async fn follow(self: &Arc<Self>, mut peers: Peers) {
        loop {
            let list = peers.borrow_and_update().clone();
            self.update(&list);
            if peers.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes the list as it is now.
    pub fn update(self: &Arc<Self>, peers: &[Peer]) {
        let mut inner = self.inner.lock();
        let mut listed: Vec<Arc<Seat>> = Vec::with_capacity(peers.len());
        for peer in peers {
            let by_id =
                peer.id.as_ref().and_then(|id| inner.seats.iter().find(|seat| seat.name().as_ref() == Some(id)));
            let known = by_id.or_else(|| inner.seats.iter().find(|seat| seat.is_at(&peer.address))).cloned();
            if let Some(seat) = known.as_ref().filter(|seat| seat.is_at(&peer.address)) {
                listed.push(seat.clone());
                continue;
            }
            let client = match (self.dial)(&peer.address) {
                Ok(client) => client,
                Err(error) => {
                    tracing::error!(%error, "cannot use a listed comet");
                    continue;
                }
            };
            let seat = known.unwrap_or_else(|| self.seat(&mut inner, peer.id.clone()));
            seat.attach(&peer.address, client);
            listed.push(seat);
        }
        for id in peers.iter().filter_map(|peer| peer.id.as_ref()) {
            inner.forgotten.remove(id);
        }
        for seat in &inner.seats {
            let is_listed = listed.iter().any(|other| Arc::ptr_eq(seat, other));
            if std::mem::replace(&mut seat.link.lock().listed, is_listed) != is_listed {
                seat.queue.wake.notify_one();
            }
        }
        self.show(&inner);
    }

    /// The comets at this moment.
    pub fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// The comet of this id. One that discovery does not name gets a queue for as long as a comet may be silent;
    /// `None` = it had that already.
    pub fn server(self: &Arc<Self>, view: &View, id: &ServerId) -> Option<Arc<Seat>> {
        if let Some(seat) = view.by_id.get(id) {
            return Some(seat.clone());
        }
        self.unlisted_server(id)
    }

    /// As [`Self::server`], with the comets as they are now.
    pub fn unlisted_server(self: &Arc<Self>, id: &ServerId) -> Option<Arc<Seat>> {
        let mut inner = self.inner.lock();
        if let Some(seat) = self.view.read().by_id.get(id) {
            return Some(seat.clone());
        }
        if inner.forgotten.contains(id) {
            return None;
        }
        let seat = self.seat(&mut inner, Some(id.clone()));
        self.show(&inner);
        Some(seat)
    }

    /// Owes a push to keys to the comet that it names, or drops and answers it when nobody knows that comet.
    pub(crate) fn give(self: &Arc<Self>, view: &View, partition: &Arc<Partition>, push: Push, now: Instant) {
        let item = Item { push: Arc::new(push), speed: 0 };
        let mut seat = self.server(view, &item.push.server);
        // A comet that was just found or lost is looked up anew: its queue here is closed.
        while let Some(found) = seat {
            if found.queue.push(partition, item.clone(), now) {
                return;
            }
            seat = self.unlisted_server(&item.push.server);
        }
        self.metrics.drop_records("unknown_server", 1);
        partition.answer(std::iter::once(item.push.id.offset));
    }

    /// The keys that were not where they should be.
    pub(crate) fn seeker(&self) -> &Seeker {
        &self.seeker
    }

    /// The oldest record to keys that is still owed to this comet.
    pub(crate) fn oldest_key(&self, server: &ServerId, partition: u32) -> Option<u64> {
        self.view().by_id.get(server)?.queue.oldest_key(partition)
    }

    /// Starts a partition at every comet.
    pub fn assign(&self, partition: &Arc<Partition>) {
        self.seeker.assign(partition);
        let mut inner = self.inner.lock();
        inner.assigned.insert(partition.number, partition.clone());
        let from = partition.ledger.lock().next();
        inner.seats.iter().for_each(|seat| seat.queue.assign(partition, from));
    }

    /// Ends a partition at every comet.
    pub fn revoke(&self, partition: &Arc<Partition>) {
        self.seeker.revoke(partition);
        let mut inner = self.inner.lock();
        inner.assigned.remove(&partition.number);
        inner.seats.iter().for_each(|seat| seat.queue.revoke(partition));
    }

    /// Has every comet told what it was sent, if there is news.
    pub fn tell(&self, now: Instant) {
        self.view().comets.iter().for_each(|seat| seat.queue.tell(now));
    }

    /// Up to where every comet knows that it was sent everything.
    pub fn knows(&self, partition: u32) -> Option<u64> {
        self.view().comets.iter().filter_map(|seat| seat.queue.knows(partition)).min()
    }

    /// A record for everybody was handed to the comets of this view: whoever has come since was not given it.
    pub fn given(&self, view: &Arc<View>, partition: &Arc<Partition>, offset: u64) {
        let current = self.view();
        if !Arc::ptr_eq(&current, view) {
            let is_new = |seat: &&Arc<Seat>| !view.comets.iter().any(|other| Arc::ptr_eq(seat, other));
            current.comets.iter().filter(is_new).for_each(|seat| seat.queue.miss(partition, offset));
        }
    }

    /// Lets no room of this partition gather any longer.
    pub fn flush(&self, partition: u32) {
        self.inner.lock().seats.iter().for_each(|seat| seat.queue.flush(partition));
    }

    /// From now on packets of rooms merge so.
    pub fn rebatch(&self, batching: Batching) {
        let inner = self.inner.lock();
        self.limits.lock().batching = batching;
        inner.seats.iter().for_each(|seat| seat.queue.rebatch(batching));
    }

    /// Drops what is owed and ends every comet's task.
    pub fn stop(&self) {
        self.inner.lock().seats.iter().for_each(|seat| seat.queue.close("stopped"));
    }

    /// Every comet, for `/status`.
    pub fn report(&self) -> serde_json::Value {
        self.inner.lock().seats.iter().map(|seat| seat.report()).collect()
    }

    /// A comet said its server id. Returns whether this seat goes on serving it.
    pub(crate) fn named(&self, seat: &Arc<Seat>, server: &str) -> bool {
        if seat.name().is_some_and(|name| name.as_str() == server) {
            return true;
        }
        let mut inner = self.inner.lock();
        let server = ServerId::from(server);
        inner.forgotten.remove(&server);
        let other = inner.seats.iter().find(|other| other.name().as_ref() == Some(&server)).cloned();
        let lives_on = match other {
            // Records were waiting for it.
            Some(other) if other.is_phantom() => {
                inner.seats.retain(|seat| !Arc::ptr_eq(seat, &other));
                other.queue.hand_over(&seat.queue, Instant::now());
                true
            }
            // It moved: the queue it had holds all that this one does and more.
            Some(other) if other.queue.size().2 == crate::comet::queue::State::Open => {
                let (address, client) = {
                    let link = seat.link.lock();
                    (link.address.clone(), link.client.clone())
                };
                tracing::info!(comet = %other, address, "comet has another address");
                if let (Some(address), Some(client)) = (address, client) {
                    other.attach(&address, client);
                }
                inner.seats.retain(|other| !Arc::ptr_eq(seat, other));
                seat.queue.close("moved");
                false
            }
            Some(other) => {
                inner.seats.retain(|seat| !Arc::ptr_eq(seat, &other));
                other.queue.close("gone");
                true
            }
            None => true,
        };
        if lives_on {
            tracing::info!(comet = %seat, %server, "comet found");
            seat.link.lock().name = Some(server);
        }
        self.show(&inner);
        lives_on
    }

    /// An unlisted comet does not answer any more.
    pub(crate) fn gone(&self, seat: &Arc<Seat>) {
        self.end(seat, "gone");
    }

    /// Discovery did not name this server in time.
    pub(crate) fn give_up(&self, seat: &Arc<Seat>) {
        if let Some(server) = seat.name() {
            tracing::warn!(%server, "discovery does not name this server, its records are let go");
        }
        self.end(seat, "unknown_server");
    }

    /// Ends a seat. What is for its server is let go at once from now on, until discovery names it or it says its id.
    fn end(&self, seat: &Arc<Seat>, reason: &'static str) {
        let mut inner = self.inner.lock();
        if let Some(name) = seat.name() {
            if inner.forgotten.len() >= REMEMBERED {
                inner.forgotten.clear();
            }
            inner.forgotten.insert(name);
        }
        inner.seats.retain(|other| !Arc::ptr_eq(seat, other));
        self.show(&inner);
        seat.queue.close(reason);
    }

    fn seat(self: &Arc<Self>, inner: &mut Inner, name: Option<ServerId>) -> Arc<Seat> {
        let link = Link { name, address: None, client: None, version: 0, listed: false, up: false };
        let queue = Queue::new(*self.limits.lock(), self.metrics.clone());
        // What was read before is not sent to it, unless a key is found there later.
        inner.assigned.values().for_each(|partition| queue.assign(partition, partition.ledger.lock().next()));
        let patience = Mutex::new(Patience::new(self.limits.lock().stall));
        let seat = Arc::new(Seat { queue, patience, link: Mutex::new(link) });
        inner.seats.push(seat.clone());
        tokio::spawn(driver::drive(self.clone(), seat.clone(), self.metrics.clone()));
        seat
    }

    fn show(&self, inner: &Inner) {
        let comets = inner.seats.iter().filter(|seat| !seat.is_phantom()).cloned().collect();
        let by_id = inner.seats.iter().filter_map(|seat| Some((seat.name()?, seat.clone()))).collect();
        *self.view.write() = Arc::new(View { comets, by_id });
    }
}

#[cfg(test)]
mod tests;
