//! What is owed to one comet: per assigned partition a lane of what waits and the batches that are out, bounded in
//! bytes and in time.
//!
//! The consumer appends, the comet's task takes and answers; both only for moments, so one lock is enough. What leaves
//! this queue in any way is answered in its partition's ledger, except when the partition itself is taken from us.

mod interest;
mod kept;
mod pace;
mod slot;
mod told;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use pace::Pace;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
pub use told::Vouch;

use self::interest::Rooms;
use self::slot::Slot;
use crate::metrics::Metrics;
use crate::push::Partition;
use crate::room::{Batching, Item};

/// A comet that owes an answer for so long is silent.
const SILENT: Duration = Duration::from_millis(500);
/// How often it is looked whether a comet answers what it is owed.
const LOOK: Duration = Duration::from_secs(1);
/// What is kept back for rooms that nobody is in may be so many times as much as what is owed: other comets are owed it,
/// so it is in memory anyhow.
const KEPT_BACK: usize = 4;

/// When packets merge and when a comet is let go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// When packets of a room are sent together.
    pub batching: Batching,
    /// A comet that is owed more bytes than this, or of which [`KEPT_BACK`] times as many are kept back, is let go.
    pub backlog: usize,
    /// A comet that is owed something and has not answered for this long is let go.
    pub stall: Duration,
}

/// Whether a comet is owed what is pushed to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It is.
    #[default]
    Open,
    /// It lagged too far: nothing is kept for it until it answers again.
    LetGo,
    /// It is gone for good.
    Closed,
}

/// One call's or frame's worth of one partition.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where it comes from.
    pub partition: Arc<Partition>,
    /// What it carries, never empty.
    pub items: Arc<Vec<Item>>,
}

impl Batch {
    /// The trace of its first record that has one.
    pub fn trace(&self) -> Option<&str> {
        self.items.iter().find_map(|item| item.push.trace.as_ref()).map(|(_, parent)| parent.as_str())
    }
}

/// The queue of one comet.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    /// Locked only under the lock of what is owed.
    batching: Mutex<Batching>,
    metrics: Metrics,
    inner: Mutex<Inner>,
    /// Wakes the comet's task.
    pub wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    slots: HashMap<u32, Slot>,
    /// Partitions whose lane may have something to take.
    poked: VecDeque<u32>,
    /// When a gathering room of a partition may leave.
    timers: BTreeSet<(Instant, u32)>,
    /// In which rooms somebody is there.
    rooms: Rooms,
    /// Bytes of all, those of what is kept back included.
    bytes: usize,
    /// Bytes of what is kept back, for rooms that nobody is in there.
    withheld: usize,
    /// Of so many kept back bytes the comet was asked already, or need not be: another [`interest::ASK`] are asked about at
    /// once, fewer with the next word to all comets.
    asked: usize,
    /// Records, those that are kept back not counted.
    items: usize,
    /// Whether the comet may not have been told of some partition.
    unclaimed: bool,
    /// Since when it is owed something without having answered.
    waiting_since: Option<Instant>,
    /// It is made calls and cannot be told what it was sent.
    is_deaf: bool,
    /// It may have to be told something.
    must_tell: bool,
    /// Since when it has not answered what it was or is to be told.
    telling_since: Option<Instant>,
    /// When it was last looked whether it owes an answer for too long.
    looked_at: Option<Instant>,
}

/// How many batches of a partition may be out at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One: calls overtake one another.
    Calls,
    /// Any number: a stream keeps their order.
    Stream,
}

impl Queue {
    /// An empty one that owes nothing for any partition yet.
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        Self { batching: Mutex::new(limits.batching), limits, metrics, inner: Mutex::default(), wake: Notify::new() }
    }

    /// From now on packets of rooms merge so; what gathers already does for as long as it was to.
    pub fn rebatch(&self, batching: Batching) {
        let mut inner = self.inner.lock();
        *self.batching.lock() = batching;
        inner.slots.values_mut().for_each(|slot| slot.lane.rebatch(batching));
    }

    /// Starts a partition; what is before `from` is not for this comet, but for keys that come to it. What is left of an
    /// earlier assignment of it is forgotten without an answer.
    pub fn assign(&self, partition: &Arc<Partition>, from: u64) {
        let mut inner = self.inner.lock();
        self.forget(&mut inner, partition.number);
        let slot = Slot::new(partition.clone(), *self.batching.lock(), from);
        inner.slots.insert(partition.number, slot);
        inner.unclaimed = true;
        drop(inner);
        self.wake.notify_one();
    }

    /// Ends a partition: what is left of it is somebody else's now.
    pub fn revoke(&self, partition: &Arc<Partition>) {
        let mut inner = self.inner.lock();
        if inner.slots.get(&partition.number).is_some_and(|slot| Arc::ptr_eq(&slot.partition, partition)) {
            self.forget(&mut inner, partition.number);
        }
    }

    /// From now on no room of this partition gathers.
    pub fn flush(&self, partition: u32) {
        let mut inner = self.inner.lock();
        if let Some(slot) = inner.slots.get_mut(&partition) {
            slot.lane.flush();
        }
        inner.poke(partition);
        drop(inner);
        self.wake.notify_one();
    }

    /// Owes the comet a record, or keeps it back when nobody is in its room there, or answers it at once when the comet
    /// was let go. Returns whether the comet is still served from here: if not, nothing was done.
    pub fn push(&self, partition: &Arc<Partition>, item: Item, now: Instant) -> bool {
        let offset = item.push.id.offset;
        let mut inner = self.inner.lock();
        let Inner { state, slots, rooms, bytes, withheld, asked, items, waiting_since, .. } = &mut *inner;
        let slot = slots.get_mut(&partition.number).filter(|slot| Arc::ptr_eq(&slot.partition, partition));
        let slot = match (*state, slot) {
            (State::Closed, _) => return false,
            (State::Open, Some(slot)) => slot,
            (State::LetGo, Some(slot)) => {
                slot.told.miss(offset);
                drop(inner);
                self.metrics.drop_records("let_go", 1);
                partition.answer(std::iter::once(offset));
                return true;
            }
            // Not for a partition that was taken from us meanwhile: its ledger counts for nobody.
            (_, None) => {
                drop(inner);
                self.metrics.drop_records("revoked", 1);
                partition.answer(std::iter::once(offset));
                return true;
            }
        };
        let size = item.size();
        *bytes += size;
        let wakes = if let Some(room) = rooms.lacked(&item.push.target) {
            slot.withheld.push(room, item);
            *withheld += size;
            let is_much = *withheld > *asked + interest::ASK;
            if is_much {
                slot.told.read = slot.told.read.max(offset + 1);
                *asked = *withheld;
                inner.must_tell = true;
                inner.telling_since.get_or_insert(now);
            }
            is_much
        } else {
            slot.lane.push(item, now);
            // What waited for a comet before it was known comes now.
            slot.told.settled = slot.told.settled.min(offset);
            *items += 1;
            waiting_since.get_or_insert(now);
            inner.poke(partition.number);
            true
        };
        self.metrics.queue_bytes.inc_by(size as i64);
        let Limits { backlog, .. } = self.limits;
        let is_over = inner.bytes - inner.withheld > backlog || inner.withheld > backlog.saturating_mul(KEPT_BACK);
        if is_over {
            self.empty(&mut inner, State::LetGo, "backlog");
        }
        drop(inner);
        if wakes || is_over {
            self.wake.notify_one();
        }
        true
    }

    /// Takes the next batch to send, of each partition in turn. `None` = nothing before [`Self::due`].
    pub fn next(&self, now: Instant, way: Way) -> Option<Batch> {
        let mut inner = self.inner.lock();
        while let Some((due, number)) = inner.timers.first().copied()
            && due <= now
        {
            inner.timers.pop_first();
            inner.poke(number);
        }
        let Inner { slots, poked, timers, .. } = &mut *inner;
        while let Some(number) = poked.pop_front() {
            let Some(slot) = slots.get_mut(&number) else {
                continue;
            };
            slot.poked = false;
            if !slot.claimed || slot.partition.is_fenced() || (way == Way::Calls && slot.out > 0) {
                continue;
            }
            let Some((items, again)) = slot.next(now) else {
                timers.extend(slot.lane.due().map(|due| (due, number)));
                continue;
            };
            if again {
                self.metrics.retries.inc();
            }
            let batch = Batch { partition: slot.partition.clone(), items };
            inner.poke(number);
            return Some(batch);
        }
        None
    }

    /// When [`Self::next`] may have something although nobody pushed.
    pub fn due(&self) -> Option<Instant> {
        self.inner.lock().timers.first().map(|(due, _)| *due)
    }

    /// The oldest record to keys that the comet is still owed of a partition.
    pub fn oldest_key(&self, partition: u32) -> Option<u64> {
        self.inner.lock().slots.get(&partition)?.oldest_key()
    }

    /// The comet answered this batch.
    pub fn answered(&self, batch: &Batch, now: Instant) {
        let mut inner = self.inner.lock();
        let Some((slot, index)) = inner.flying(batch) else {
            return;
        };
        slot.flights.remove(index);
        slot.out -= usize::from(index < slot.out);
        let size = batch.items.iter().map(Item::size).sum::<usize>();
        inner.bytes -= size;
        inner.items -= batch.items.len();
        inner.waiting_since = (inner.items > 0).then_some(now);
        inner.poke(batch.partition.number);
        drop(inner);
        self.metrics.queue_bytes.dec_by(size as i64);
        batch.partition.answer(batch.items.iter().map(|item| item.push.id.offset));
    }

    /// The comet did not answer this batch: from it on all go out again after [`Self::retry`].
    pub fn away(&self, batch: &Batch) {
        if let Some((slot, index)) = self.inner.lock().flying(batch) {
            slot.out = slot.out.min(index);
        }
    }

    /// Nothing is out any more: all goes out again, and what the comet said of its rooms is void.
    pub fn all_away(&self, now: Instant) {
        let mut inner = self.inner.lock();
        inner.slots.values_mut().for_each(|slot| slot.out = 0);
        inner.forget_rooms(now);
    }

    /// The comet can be called: what failed is made again, and what it was let go with is over.
    pub fn retry(&self) {
        let mut inner = self.inner.lock();
        if inner.state == State::LetGo {
            inner.state = State::Open;
            // What was dropped is not waited for: it is told of that when it is told anything.
            inner.slots.values_mut().for_each(|slot| slot.told.answered = slot.told.answered.max(slot.told.missed));
        }
        let numbers: Vec<u32> = inner.slots.keys().copied().collect();
        numbers.into_iter().for_each(|number| inner.poke(number));
    }

    /// Assigned partitions that this comet has not been told of.
    pub fn unclaimed(&self) -> Vec<Arc<Partition>> {
        let inner = self.inner.lock();
        if !inner.unclaimed {
            return vec![];
        }
        inner.slots.values().filter(|slot| !slot.claimed).map(|slot| slot.partition.clone()).collect()
    }

    /// It was told of these.
    pub fn claimed(&self, partitions: &[Arc<Partition>]) {
        let mut inner = self.inner.lock();
        inner.must_tell = true;
        for partition in partitions {
            if let Some(slot) = inner.slots.get_mut(&partition.number)
                && Arc::ptr_eq(&slot.partition, partition)
            {
                slot.claimed = true;
                inner.poke(partition.number);
            }
        }
        inner.unclaimed = inner.slots.values().any(|slot| !slot.claimed);
    }

    /// It may have forgotten what it was told.
    pub fn unclaim(&self) {
        let mut inner = self.inner.lock();
        inner.slots.values_mut().for_each(|slot| (slot.claimed, slot.told.sent, slot.told.reached) = (false, None, 0));
        inner.unclaimed = true;
    }

    /// Lets the comet go if it owes an answer for too long. Returns its state, and when to look again.
    ///
    /// Time in which nobody looked does not count: this process stood still, and the answers may be here already.
    pub fn check(&self, now: Instant) -> (State, Option<Instant>) {
        let mut inner = self.inner.lock();
        let unseen = now - inner.looked_at.replace(now).unwrap_or(now);
        if unseen >= 2 * LOOK {
            let later = |since: Instant| (since + unseen).min(now);
            inner.waiting_since = inner.waiting_since.map(later);
            inner.telling_since = inner.telling_since.map(later);
        }
        let since = [inner.waiting_since, inner.telling_since].into_iter().flatten().min();
        let until = since.map(|since| since + self.limits.stall);
        if until.is_some_and(|until| until <= now) && inner.state == State::Open {
            self.empty(&mut inner, State::LetGo, "stall");
            return (inner.state, None);
        }
        (inner.state, until.map(|until| until.min(now + LOOK)))
    }

    /// From now on it is sent things this way.
    pub fn goes_by(&self, way: Way) {
        let mut inner = self.inner.lock();
        inner.is_deaf = way == Way::Calls;
        if inner.is_deaf {
            inner.telling_since = None;
        }
    }

    /// The comet is gone: what it is owed is dropped and counted.
    pub fn close(&self, reason: &'static str) {
        self.empty(&mut self.inner.lock(), State::Closed, reason);
        self.wake.notify_one();
    }

    /// Moves everything owed here to another queue, which keeps the order of rooms and keys. Then this one is closed.
    pub fn hand_over(&self, to: &Self, now: Instant) {
        let mut inner = self.inner.lock();
        inner.state = State::Closed;
        let taken: Vec<(Arc<Partition>, Vec<Item>)> =
            inner.slots.drain().map(|(_, slot)| (slot.partition.clone(), slot.everything())).collect();
        self.metrics.queue_bytes.dec_by(inner.bytes as i64);
        *inner = Inner { state: State::Closed, ..Inner::default() };
        drop(inner);
        for (partition, items) in taken {
            for item in items {
                if !to.push(&partition, item.clone(), now) {
                    self.metrics.drop_records("gone", 1);
                    partition.answer(std::iter::once(item.push.id.offset));
                }
            }
        }
        self.wake.notify_one();
    }

    /// How it keeps up. What is kept back counts as well: it waits for answers behind what is owed.
    pub fn pace(&self, now: Instant) -> Pace {
        let inner = self.inner.lock();
        let is_much = inner.bytes > self.limits.backlog / 4;
        // An answer to what it is owed shows that it is alive, however much of that stands before a question. A little that
        // is kept back is no reason to read on.
        let since = inner.waiting_since.or(inner.telling_since.filter(|_| is_much));
        let is_silent = since.map_or(!is_much, |since| now >= since + SILENT);
        match (is_much, is_silent) {
            (true, true) => Pace::Hangs,
            (true, false) => Pace::Lags,
            (false, true) => Pace::Idle,
            (false, false) => Pace::KeepsUp,
        }
    }

    /// Bytes and records owed, and the state.
    pub fn size(&self) -> (usize, usize, State) {
        let inner = self.inner.lock();
        (inner.bytes, inner.items, inner.state)
    }

    fn empty(&self, inner: &mut Inner, state: State, reason: &'static str) {
        if state == State::LetGo {
            self.metrics.let_go.inc();
        }
        inner.state = state;
        let mut dropped = 0;
        for slot in inner.slots.values_mut() {
            slot.poked = false;
            // What is kept back is for nobody there, as far as is known.
            let (kept, _) = slot.withheld.size();
            let items = slot.clear();
            dropped += items.len() - kept;
            items.iter().for_each(|item| slot.told.miss(item.push.id.offset));
            slot.partition.answer(items.iter().map(|item| item.push.id.offset));
        }
        self.metrics.drop_records(reason, dropped);
        self.metrics.queue_bytes.dec_by(inner.bytes as i64);
        (inner.bytes, inner.withheld, inner.asked, inner.items) = (0, 0, 0, 0);
        (inner.waiting_since, inner.telling_since) = (None, None);
        inner.poked.clear();
        inner.timers.clear();
    }

    fn forget(&self, inner: &mut Inner, partition: u32) {
        let Some(slot) = inner.slots.remove(&partition) else {
            return;
        };
        let (kept, withheld) = slot.withheld.size();
        let items = slot.everything();
        let size = items.iter().map(Item::size).sum::<usize>();
        self.metrics.queue_bytes.dec_by(size as i64);
        inner.bytes -= size;
        inner.withheld -= withheld;
        inner.items -= items.len() - kept;
        if inner.items == 0 {
            inner.waiting_since = None;
        }
        if !inner.slots.values().any(Slot::is_behind) {
            // Nobody is left who would be answered.
            inner.telling_since = None;
        }
    }
}

impl Inner {
    /// The slot whose batch this is, and where it stands in it; none when the comet was let go or the partition was
    /// taken meanwhile.
    fn flying(&mut self, batch: &Batch) -> Option<(&mut Slot, usize)> {
        let slot = self.slots.get_mut(&batch.partition.number)?;
        // Answers come in order, so it is the first or close to it.
        let index = slot.flights.iter().position(|items| Arc::ptr_eq(items, &batch.items))?;
        Some((slot, index))
    }

    /// The partition may have something to take.
    fn poke(&mut self, number: u32) {
        if let Some(slot) = self.slots.get_mut(&number)
            && !std::mem::replace(&mut slot.poked, true)
        {
            self.poked.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests;
