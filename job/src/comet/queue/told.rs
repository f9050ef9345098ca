//! What a comet is told besides what it is sent: up to where it was sent everything that is for it. A comet that knows
//! finds out by itself when it was let go, also from a job that has never heard of that; so nothing is committed that a
//! comet which is not let go was not told of.

use std::sync::Arc;

use tokio::time::Instant;

use super::slot::Slot;
use super::{Queue, State};
use crate::push::Partition;
use crate::room::Item;

/// What the comet was told of one partition: that it was sent everything up to there that is for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// It has answered that.
    pub(super) answered: u64,
    /// It was sent that on this stream.
    pub(super) sent: Option<u64>,
    /// Something before this was dropped although it was for this comet.
    pub(super) missed: u64,
    /// Nothing before this is or will be sent to it.
    pub(super) settled: u64,
    /// Everything before was handed to this queue, as far as it is for the comet.
    pub(super) read: u64,
    /// It was told on this stream that everything before was sent or is kept back.
    pub(super) reached: u64,
}

/// A word to the comet: everything in `from..through` was sent to it or is not for it.
#[derive(Clone, Debug)]
pub struct Vouch {
    /// Of this partition.
    pub partition: Arc<Partition>,
    /// What is before may have been missed.
    pub from: u64,
    /// Up to here.
    pub through: u64,
    /// What is before was answered by every comet, or is not sent to this one.
    pub floor: u64,
    /// What is before was sent before this word, or is kept back.
    pub sent: u64,
}

impl Told {
    /// Nothing was told yet; what is before `from` is not for the comet, but for keys that come to it: for them anything
    /// may be sent that is not answered everywhere.
    pub(super) fn new(from: u64) -> Self {
        Self { answered: from, sent: None, missed: from, settled: 0, read: from, reached: 0 }
    }

    /// A record was dropped.
    pub(super) fn miss(&mut self, offset: u64) {
        self.missed = self.missed.max(offset + 1);
        self.settled = self.settled.max(offset + 1);
    }
}

impl Slot {
    /// Everything before was sent, or is kept back.
    fn reach(&self) -> u64 {
        self.unsent().map_or(self.told.read, |unsent| unsent.min(self.told.read))
    }

    /// Whether something is kept back about which the comet was not asked on this stream.
    fn keeps_more_back(&self) -> bool {
        self.withheld.last().is_some_and(|last| self.told.reached <= last) && self.told.reached < self.reach()
    }

    /// Whether it was told something that it has not answered.
    fn is_asked(&self) -> bool {
        self.told.sent.is_some_and(|sent| sent > self.told.answered)
            || self.withheld.first().is_some_and(|first| first < self.told.reached)
    }

    /// Whether there is something to tell: the floor is past what the comet knows, or something is kept back.
    pub(super) fn is_behind(&self) -> bool {
        self.told.answered < self.partition.ledger.lock().committed() || self.keeps_more_back()
    }
}

impl Queue {
    /// Looks whether there is something to tell the comet. Whoever opens records in the ledgers calls this, after it
    /// has handed each to every queue that it is for.
    pub fn tell(&self, now: Instant) {
        let mut inner = self.inner.lock();
        inner.slots.values_mut().for_each(|slot| slot.told.read = slot.partition.ledger.lock().next());
        inner.asked = inner.withheld;
        if inner.is_deaf || inner.state != State::Open || !inner.slots.values().any(Slot::is_behind) {
            return;
        }
        inner.must_tell = true;
        inner.telling_since.get_or_insert(now);
        drop(inner);
        self.wake.notify_one();
    }

    /// This record was for the comet as well, and came before it was known.
    pub fn miss(&self, partition: &Arc<Partition>, offset: u64) {
        let mut inner = self.inner.lock();
        if let Some(slot) = inner.slots.get_mut(&partition.number) {
            slot.told.miss(offset);
            inner.must_tell = true;
        }
    }

    /// What to tell the comet now, before anything else.
    pub fn vouches(&self) -> Vec<Vouch> {
        let mut inner = self.inner.lock();
        if !std::mem::take(&mut inner.must_tell) {
            return vec![];
        }
        let vouch = |slot: &mut Slot| {
            let from = slot.told.answered.max(slot.told.missed);
            let floor = slot.partition.ledger.lock().committed();
            let (through, floor) = (floor.max(from), floor.max(slot.told.settled));
            let is_further = slot.told.sent.is_none_or(|sent| sent < through);
            if !slot.claimed || !(is_further || slot.keeps_more_back()) {
                return None;
            }
            slot.told.sent = slot.told.sent.max(Some(through));
            slot.told.reached = slot.told.reached.max(slot.reach());
            Some(Vouch { partition: slot.partition.clone(), from, through, floor, sent: slot.told.reached })
        };
        inner.slots.values_mut().filter_map(vouch).collect()
    }

    /// The comet has answered it. What was kept back from it until there is not for it.
    pub fn told(&self, vouch: &Vouch, now: Instant) {
        let mut inner = self.inner.lock();
        let slot = inner.slots.get_mut(&vouch.partition.number);
        let mut passed = vec![];
        if let Some(slot) = slot.filter(|slot| Arc::ptr_eq(&slot.partition, &vouch.partition)) {
            slot.told.answered = slot.told.answered.max(vouch.through);
            passed = slot.withheld.before(vouch.sent);
        }
        let bytes = passed.iter().map(Item::size).sum::<usize>();
        inner.bytes -= bytes;
        inner.withheld -= bytes;
        inner.asked = inner.asked.min(inner.withheld);
        // It may be silent from here on about what it was told since.
        let is_asked = inner.must_tell || inner.slots.values().any(Slot::is_asked);
        inner.telling_since = is_asked.then_some(now);
        drop(inner);
        self.metrics.queue_bytes.dec_by(bytes as i64);
        vouch.partition.answer(passed.iter().map(|item| item.push.id.offset));
        vouch.partition.progress.notify_one();
    }

    /// Up to where the comet knows that it was sent everything; `None` = it need not know, because it cannot be told or
    /// was let go.
    pub fn knows(&self, partition: u32) -> Option<u64> {
        let inner = self.inner.lock();
        let slot = inner.slots.get(&partition).filter(|_| inner.state == State::Open && !inner.is_deaf)?;
        Some(slot.told.answered)
    }
}
