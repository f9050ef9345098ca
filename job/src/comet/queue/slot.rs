//! What one comet is owed of one partition: what waits, what was taken and is not answered, and what is kept back.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::kept::Kept;
use super::told::Told;
use crate::push::Partition;
use crate::room::{Batching, Item, Lane};

/// What is owed of one partition.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) partition: Arc<Partition>,
    pub(super) lane: Lane,
    pub(super) claimed: bool,
    pub(super) told: Told,
    /// Whether it is among the poked.
    pub(super) poked: bool,
    /// What was taken and is not answered, in the order in which it goes out.
    pub(super) flights: VecDeque<Arc<Vec<Item>>>,
    /// How many of them are out; the others failed and go out again before anything else.
    pub(super) out: usize,
    /// What is for rooms that nobody is in there, as far as is known.
    pub(super) withheld: Kept,
}

impl Slot {
    /// Nothing is owed yet; what is before `from` is not for this comet, but for keys that come to it.
    pub(super) fn new(partition: Arc<Partition>, batching: Batching, from: u64) -> Self {
        let (lane, told) = (Lane::new(batching), Told::new(from));
        let (flights, withheld) = (VecDeque::new(), Kept::default());
        Self { partition, lane, claimed: false, told, poked: false, flights, out: 0, withheld }
    }

    /// The next batch to send, and whether it was out before.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Arc<Vec<Item>>, bool)> {
        let again = self.out < self.flights.len();
        if !again {
            self.flights.push_back(Arc::new(self.lane.take(now)?));
        }
        self.out += 1;
        Some((self.flights[self.out - 1].clone(), again))
    }

    /// The lowest offset that is still to be sent, or to be sent again.
    pub(super) fn unsent(&self) -> Option<u64> {
        let again = self.flights.iter().skip(self.out).flat_map(|items| items.iter());
        again.map(|item| item.push.id.offset).chain(self.lane.oldest()).min()
    }

    /// The oldest record to keys that is here.
    pub(super) fn oldest_key(&self) -> Option<u64> {
        let flying = self.flights.iter().flat_map(|items| items.iter()).filter(|item| item.is_for_keys());
        flying.map(|item| item.push.id.offset).chain(self.lane.oldest_key()).min()
    }

    /// What was taken and is not answered, then what waits, then what is kept back: rooms and keys in their order.
    pub(super) fn clear(&mut self) -> Vec<Item> {
        self.out = 0;
        let mut items: Vec<Item> = self.flights.drain(..).flat_map(|items| items.to_vec()).collect();
        items.extend(self.lane.drain());
        items.extend(self.withheld.drain());
        items
    }

    /// As [`Self::clear`], for good.
    pub(super) fn everything(mut self) -> Vec<Item> {
        self.clear()
    }
}
