//! Which records this shard has already enqueued, so that one sent twice is delivered once.
//!
//! A watermark is not enough: batching and resends bring lower offsets after higher ones. Per consumer group and
//! partition there are the floor that job told, below which every comet has answered, and the exact set of what was
//! enqueued above it: a bit for each record to a room or to all, and the keys that got it for each record to keys, so
//! that one of which some keys were not here may come back for those. Whatever is below the floor is a repeat.
//!
//! Bounded: job never has an offset in flight [`WINDOW`] above the floor, and what the floor passes is forgotten, so
//! that a partition at rest costs next to nothing. A job that tells no floor keeps the same distance from its oldest
//! unanswered offset, which is where its floor must be at least.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use ahash::AHashSet;
use proto::Key;
use proto::envelope::PushId;

/// How far above the floor an offset must not be.
pub const WINDOW: u64 = 65_536;

/// Who sent a record, and what it told of the record's partition.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The consumer group.
    pub group: Arc<str>,
    /// Every comet has answered what is below; `None` = not told.
    pub floor: Option<u64>,
}

impl Sender {
    /// Whether a record may be in flight: one at the window's end or beyond is an error of the sender.
    pub fn may_send(&self, offset: u64) -> bool {
        self.floor.is_none_or(|floor| offset < floor.saturating_add(WINDOW))
    }
}

/// The keys that go without a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Without<'a> {
    /// They were not here.
    pub missing: Vec<&'a Key>,
    /// They had a later one.
    pub overtaken: Vec<&'a Key>,
}

/// What one shard has enqueued, by consumer group and partition.
#[derive(Debug, Default)]
pub struct Repeats {
    partitions: HashMap<(Arc<str>, u32), Partition>,
}

#[derive(Debug)]
struct Partition {
    epoch: u32,
    floor: u64,
    whole: Offsets,
    keys: BTreeMap<u64, Vec<Key>>,
}

impl Repeats {
    /// Whether this record is new here; from now on it is not. Records without an id are always new.
    pub fn first(&mut self, sender: &Sender, id: PushId) -> bool {
        if id.epoch == 0 {
            return true;
        }
        let partition = self.partition(sender, id);
        id.offset >= partition.floor && partition.whole.insert(id.offset)
    }

    /// Delivers a record for `keys` to those that have not had it, nor anything later: order is worth more than what comes
    /// too late, as when a stream broke or the key was looked for. `enqueue` says whether the key was here.
    /// Returns the keys that go without. Exact while the record is not answered, because the floor is below it then.
    pub fn deliver<'a>(
        &mut self,
        sender: &Sender,
        id: PushId,
        keys: &'a [Key],
        mut enqueue: impl FnMut(&Key) -> bool,
    ) -> Without<'a> {
        let mut without = Without::default();
        if id.epoch == 0 {
            without.missing = keys.iter().filter(|key| !enqueue(key)).collect();
            return without;
        }
        let partition = self.partition(sender, id);
        if id.offset < partition.floor {
            return without;
        }
        let before = partition.keys.remove(&id.offset).unwrap_or_default();
        let had: AHashSet<&Key> = before.iter().collect();
        let later = partition.keys.range(id.offset + 1..);
        let mut have = Vec::new();
        for key in keys.iter().filter(|key| !had.contains(key)) {
            if later.clone().any(|(_, had)| had.contains(key)) {
                without.overtaken.push(key);
            } else if enqueue(key) {
                have.push(key.clone());
            } else {
                without.missing.push(key);
            }
        }
        drop(had);
        have.extend(before);
        if !have.is_empty() {
            partition.keys.insert(id.offset, have);
        }
        without
    }

    /// Job told that every comet has answered what is below: it need not be remembered.
    pub fn settle(&mut self, group: &Arc<str>, epoch: u32, partition: u32, floor: u64) {
        let known = self.partitions.entry((group.clone(), partition)).or_insert_with(|| Partition::new(epoch));
        if known.epoch == epoch {
            known.raise(floor);
        }
    }

    fn partition(&mut self, sender: &Sender, id: PushId) -> &mut Partition {
        let partition =
            self.partitions.entry((sender.group.clone(), id.partition)).or_insert_with(|| Partition::new(id.epoch));
        if partition.epoch != id.epoch {
            *partition = Partition::new(id.epoch);
        }
        partition.raise(sender.floor.unwrap_or(0).max(id.offset.saturating_sub(WINDOW - 1)));
        partition
    }
}

impl Partition {
    fn new(epoch: u32) -> Self {
        Self { epoch, floor: 0, whole: Offsets::default(), keys: BTreeMap::new() }
    }

    /// Forgets what is below the floor; one that a new owner tells anew from further back changes nothing.
    fn raise(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.whole.forget_below(floor);
            if self.keys.first_key_value().is_some_and(|(offset, _)| *offset < floor) {
                self.keys = self.keys.split_off(&floor);
            }
        }
    }
}

/// A set of offsets that lie close together, 64 to a word.
#[derive(Debug, Default)]
struct Offsets {
    /// Which 64 offsets the first word stands for.
    first: u64,
    words: VecDeque<u64>,
}

impl Offsets {
    /// Adds an offset that is not below what was forgotten; returns whether it is new.
    fn insert(&mut self, offset: u64) -> bool {
        let index = (offset / 64 - self.first) as usize;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let bit = 1 << (offset % 64);
        let is_new = self.words[index] & bit == 0;
        self.words[index] |= bit;
        is_new
    }

    fn forget_below(&mut self, floor: u64) {
        let first = floor / 64;
        let gone = usize::try_from(first - self.first).unwrap_or(usize::MAX).min(self.words.len());
        self.words.drain(..gone);
        self.first = first;
        if self.words.len() * 4 < self.words.capacity() {
            self.words.shrink_to(self.words.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests;
