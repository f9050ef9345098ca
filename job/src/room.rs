//! What one comet is still to be sent of one partition: one ordered queue, in which the packets of a room may be
//! merged but never change places.
//!
//! The oldest record that may leave goes first and takes later packets of its room with it. A quiet room's first
//! packet may leave at once; while a room sent less than a window ago its packets gather, until they are enough or the
//! window has passed. goim lets every first packet wait a second, loses what comes while a room's task ends, and drops
//! what does not fit its 40 slots; here nothing ends, nothing is dropped, and a lone message does not wait.
//!
//! Pure: the caller brings the clock and does the sending.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::push::{Push, Target};

/// When packets of a room are sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// At most so many packets in one call.
    pub count: usize,
    /// At most so many bytes in one call, unless a single packet is larger.
    pub bytes: usize,
    /// How long a room that has just sent gathers.
    pub window: Duration,
}

/// One record for one comet.
#[derive(Clone, Debug)]
pub struct Item {
    /// What to send.
    pub push: Arc<Push>,
    /// This comet's share of a broadcast's speed.
    pub speed: i32,
}

impl Item {
    /// What it counts for in the queue's bounds, in bytes: the packet, and about what keeping it costs.
    pub fn size(&self) -> usize {
        let keys = match &self.push.target {
            Target::Keys(keys) | Target::Kick(keys) => keys.iter().map(|key| key.len() + 24).sum(),
            Target::Room(room) => room.len(),
            Target::All => 0,
        };
        self.push.packet.len() + keys + 64
    }

    /// Whether it is a push to keys.
    pub fn is_for_keys(&self) -> bool {
        matches!(self.push.target, Target::Keys(_))
    }

    fn offset(&self) -> u64 {
        self.push.id.offset
    }
}

/// What keeps its order among itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Order {
    /// Pushes to keys, and kicks.
    Keys,
    /// Broadcasts.
    All,
    /// One room.
    Room(Arc<str>),
}

#[derive(Debug, Default)]
struct Group {
    items: VecDeque<Item>,
    bytes: usize,
    /// A room that sent gathers until then.
    quiet_at: Option<Instant>,
}

/// The queue of one comet for one partition.
#[derive(Debug)]
pub struct Lane {
    batching: Batching,
    groups: HashMap<Order, Group>,
    /// What may leave now, by the offset of its oldest item.
    ready: BTreeMap<u64, Order>,
    /// Rooms that gather, by the end of their window.
    gathering: BTreeSet<(Instant, Order)>,
    /// Rooms that sent, in that order, to be forgotten once quiet.
    sent: VecDeque<(Instant, Order)>,
    flushing: bool,
    bytes: usize,
}

impl Lane {
    /// An empty one.
    pub fn new(batching: Batching) -> Self {
        Self {
            batching,
            groups: HashMap::new(),
            ready: BTreeMap::new(),
            gathering: BTreeSet::new(),
            sent: VecDeque::new(),
            flushing: false,
            bytes: 0,
        }
    }

    /// From now on packets merge so.
    pub fn rebatch(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// Appends a record. Those of a room come in the order of their offsets; what a key is sent that was sought comes
    /// later than its offset says, and is sent in the order in which it came.
    pub fn push(&mut self, item: Item, now: Instant) {
        let order = match &item.push.target {
            Target::Keys(_) | Target::Kick(_) => Order::Keys,
            Target::All => Order::All,
            Target::Room(room) => Order::Room(room.clone()),
        };
        let (offset, size) = (item.offset(), item.size());
        self.bytes += size;
        let group = self.groups.entry(order.clone()).or_default();
        group.items.push_back(item);
        group.bytes += size;
        let first = group.items.len() == 1;
        let enough = group.items.len() >= self.batching.count || group.bytes >= self.batching.bytes;
        let head = group.items[0].offset();
        match group.quiet_at.filter(|until| *until > now && !self.flushing) {
            None if first => {
                self.ready.insert(offset, order);
            }
            Some(until) if first && !enough => {
                self.gathering.insert((until, order));
            }
            Some(until) if enough && (self.gathering.remove(&(until, order.clone())) || first) => {
                self.ready.insert(head, order);
            }
            // It is in its place already.
            _ => {}
        }
    }

    /// Takes what one call is to carry: the oldest record that may leave, and what merges with it.
    pub fn take(&mut self, now: Instant) -> Option<Vec<Item>> {
        self.ripen(now);
        let (_, order) = self.ready.pop_first()?;
        let group = self.groups.get_mut(&order).expect("what is ready has a group");
        let mut items = Vec::new();
        let mut size = 0;
        while let Some(next) = group.items.front() {
            let fits = match items.first() {
                None => true,
                Some(first) => {
                    items.len() < self.batching.count
                        && size + next.push.packet.len() <= self.batching.bytes
                        && merges(first, next)
                }
            };
            if !fits {
                break;
            }
            size += next.push.packet.len();
            group.bytes -= next.size();
            self.bytes -= next.size();
            items.extend(group.items.pop_front());
        }
        self.rest(order, now);
        Some(items)
    }

    /// When a gathering room may leave, if nothing may before.
    pub fn due(&self) -> Option<Instant> {
        self.gathering.first().map(|(due, _)| *due)
    }

    /// The lowest offset that waits.
    pub fn oldest(&self) -> Option<u64> {
        let gathering = self.gathering.iter().map(|(_, order)| self.groups[order].items[0].offset());
        self.ready.keys().next().copied().into_iter().chain(gathering).min()
    }

    /// From now on nothing gathers: the partition is to be given away or the process ends.
    pub fn flush(&mut self) {
        self.flushing = true;
        for (_, order) in std::mem::take(&mut self.gathering) {
            let offset = self.groups[&order].items[0].offset();
            self.ready.insert(offset, order);
        }
    }

    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest record to keys that waits.
    pub fn oldest_key(&self) -> Option<u64> {
        let waiting = self.groups.get(&Order::Keys)?.items.iter();
        waiting.filter(|item| item.is_for_keys()).map(Item::offset).min()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.gathering.is_empty()
    }

    /// Takes everything, each room and the keys in their order.
    pub fn drain(&mut self) -> Vec<Item> {
        self.ready.clear();
        self.gathering.clear();
        self.sent.clear();
        self.bytes = 0;
        self.groups.drain().flat_map(|(_, group)| group.items).collect()
    }

    /// Puts a group that has just sent where it belongs.
    fn rest(&mut self, order: Order, now: Instant) {
        let group = self.groups.get_mut(&order).expect("it has just sent");
        let head = group.items.front().map(Item::offset);
        if matches!(order, Order::Room(_)) {
            let until = now + self.batching.window;
            group.quiet_at = Some(until);
            self.sent.push_back((until, order.clone()));
            let enough = group.items.len() >= self.batching.count || group.bytes >= self.batching.bytes;
            if head.is_some() && !enough && !self.flushing {
                self.gathering.insert((until, order));
                return;
            }
        } else if head.is_none() {
            self.groups.remove(&order);
            return;
        }
        if let Some(offset) = head {
            self.ready.insert(offset, order);
        }
    }

    fn ripen(&mut self, now: Instant) {
        while let Some((due, _)) = self.gathering.first()
            && *due <= now
            && let Some((_, order)) = self.gathering.pop_first()
        {
            let offset = self.groups[&order].items[0].offset();
            self.ready.insert(offset, order);
        }
        while let Some((quiet_at, _)) = self.sent.front()
            && *quiet_at <= now
            && let Some((quiet_at, order)) = self.sent.pop_front()
        {
            let quiet = |group: &Group| group.items.is_empty() && group.quiet_at == Some(quiet_at);
            if self.groups.get(&order).is_some_and(quiet) {
                self.groups.remove(&order);
            }
        }
    }
}

/// Whether `next` may share a call with `first`, both of one order. Only packets of a room do: what a comet answers of keys
/// is of a whole call.
fn merges(first: &Item, next: &Item) -> bool {
    matches!((&first.push.target, &next.push.target), (Target::Room(_), Target::Room(_)))
}

#[cfg(test)]
mod tests;
