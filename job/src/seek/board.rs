//! The keys that are sought and what waits for each, oldest first.
//!
//! Pure: the caller brings the clock, asks logic and does the sending.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proto::{Key, ServerId};
use tokio::time::Instant;

use crate::ledger::WINDOW;
use crate::push::{Late, Partition, Push};

/// When logic is asked, counted from when the key was not where it should be.
pub const TRIES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(8)];
/// After this long nothing is sought any more.
const LIMIT: Duration = Duration::from_secs(10);
/// At most so many keys are sought at a time …
const KEYS: usize = 10_000;
/// … for which at most so many bytes wait.
const BYTES: usize = 16 << 20;
/// About what keeping a push costs, beside its packet.
const OVERHEAD: usize = 256;

/// Where a key was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The comet that said so.
    pub server: ServerId,
    /// Records before this offset may still be on their way there.
    pub before: u64,
}

/// A key that is sought.
#[derive(Debug)]
pub struct Sought {
    /// The partition of its records.
    pub partition: Arc<Partition>,
    /// What it is to be sent, by offset.
    pub pushes: BTreeMap<u64, Push>,
    /// Since when, and how often logic was asked.
    pub late: Late,
    left: Left,
    next_at: Instant,
}

/// What became of a push that was to wait.
#[derive(Debug)]
pub enum Put {
    /// It waits.
    Kept,
    /// It waited already.
    Twice,
    /// The partition is not ours any more: whoever has it reads the record again.
    NotOurs,
    /// It cannot be delivered, for this reason.
    Refused(&'static str, Box<Push>),
}

/// Where logic says that a key is.
#[derive(Debug)]
pub enum Place {
    /// On this comet.
    At(ServerId),
    /// It is nowhere, or logic does not answer: the reason for giving up after the last try.
    Unknown(&'static str),
}

/// What is to be done about a key.
#[derive(Debug)]
pub enum Next {
    /// Send it there.
    Send(Sought, ServerId),
    /// Nobody knows where it is: give up, for this reason.
    GiveUp(Sought, &'static str),
    /// Ask again later.
    Wait,
}

/// All keys that are sought, by the partitions that are ours.
#[derive(Debug, Default)]
pub struct Board {
    partitions: HashMap<u32, (Arc<Partition>, HashMap<Key, Sought>)>,
    keys: usize,
    bytes: usize,
}

impl Board {
    /// From now on keys of this partition may be sought. What was sought of an earlier assignment is forgotten.
    pub fn assign(&mut self, partition: &Arc<Partition>) {
        self.forget(partition.number);
        self.partitions.insert(partition.number, (partition.clone(), HashMap::new()));
    }

    /// Forgets what is sought of a partition, without an answer: who has it next reads the records again.
    pub fn revoke(&mut self, partition: &Arc<Partition>) {
        if self.is_ours(partition) {
            self.forget(partition.number);
        }
    }

    fn is_ours(&self, partition: &Arc<Partition>) -> bool {
        self.partitions.get(&partition.number).is_some_and(|(ours, _)| Arc::ptr_eq(ours, partition))
    }

    fn forget(&mut self, number: u32) {
        let (_, keys) = self.partitions.remove(&number).unzip();
        for sought in keys.into_iter().flat_map(HashMap::into_values) {
            self.less(&sought);
        }
    }

    /// Whether no key is sought.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Whether this key is sought.
    pub fn seeks(&self, partition: &Arc<Partition>, key: &str) -> bool {
        self.partitions.get(&partition.number).is_some_and(|(_, keys)| keys.contains_key(key))
    }

    /// Has a push wait for its key; `left` says where the key was not, if it is not sought already.
    pub fn put(&mut self, partition: &Arc<Partition>, key: &str, push: Push, left: Option<Left>, now: Instant) -> Put {
        if !self.is_ours(partition) {
            return Put::NotOurs;
        }
        let late = push.late.unwrap_or(Late { since: now, tries: 0 });
        if late.tries >= TRIES.len() || now >= late.since + LIMIT {
            return Put::Refused("not_here", push.into());
        }
        let (is_new, size) = (!self.seeks(partition, key), size(&push));
        if self.bytes + size > BYTES || (is_new && self.keys >= KEYS) {
            return Put::Refused("full", push.into());
        }
        let (_, keys) = self.partitions.get_mut(&partition.number).expect("it is ours");
        let sought = match left {
            Some(left) if is_new => {
                let next_at = late.since + TRIES[late.tries];
                let sought = Sought { partition: partition.clone(), pushes: BTreeMap::new(), late, left, next_at };
                self.keys += 1;
                keys.entry(key.into()).or_insert(sought)
            }
            left => {
                let Some(sought) = keys.get_mut(key) else {
                    return Put::Refused("not_here", push.into());
                };
                if let Some(left) = left {
                    sought.left = left;
                }
                if late.since < sought.late.since {
                    // What is sought longest says for how long.
                    sought.late = late;
                }
                sought
            }
        };
        match sought.pushes.insert(push.id.offset, push) {
            // Of the same size.
            Some(_) => Put::Twice,
            None => {
                self.bytes += size;
                Put::Kept
            }
        }
    }

    /// Keys of which it is time to ask logic: those of which nothing is under way any more to where they were not, where
    /// `oldest` says which is the oldest record to keys that is still owed to a comet.
    pub fn due(&self, now: Instant, mut oldest: impl FnMut(&ServerId, u32) -> Option<u64>) -> Vec<(u32, Key)> {
        let mut due = Vec::new();
        let mut known: HashMap<(ServerId, u32), Option<u64>> = HashMap::new();
        for (number, (_, keys)) in &self.partitions {
            for (key, sought) in keys.iter().filter(|(_, sought)| sought.next_at <= now) {
                let Left { server, before } = &sought.left;
                let oldest = *known.entry((server.clone(), *number)).or_insert_with(|| oldest(server, *number));
                let is_last = now >= sought.late.since + LIMIT;
                if is_last || oldest.is_none_or(|oldest| oldest >= *before) {
                    due.push((*number, key.clone()));
                }
            }
        }
        due
    }

    /// Takes away the keys whose oldest push is half a window behind: soon nothing of their partition could be sent to
    /// anybody.
    pub fn in_the_way(&mut self) -> Vec<Sought> {
        let mut taken = Vec::new();
        for (partition, keys) in self.partitions.values_mut().filter(|(_, keys)| !keys.is_empty()) {
            let next = partition.ledger.lock().next();
            let is_far = |sought: &Sought| {
                let oldest = sought.pushes.first_key_value();
                oldest.is_some_and(|(oldest, _)| oldest + WINDOW / 2 <= next)
            };
            taken.extend(keys.extract_if(|_, sought| is_far(sought)).map(|(_, sought)| sought));
        }
        taken.iter().for_each(|sought| self.less(sought));
        taken
    }

    /// Logic was asked.
    pub fn located(&mut self, number: u32, key: &Key, place: Place, now: Instant) -> Next {
        let Some((_, keys)) = self.partitions.get_mut(&number) else {
            return Next::Wait;
        };
        let Some(sought) = keys.get_mut(key) else {
            return Next::Wait;
        };
        sought.late.tries += 1;
        let tries = sought.late.tries;
        let next = match place {
            Place::Unknown(_) if tries < TRIES.len() => {
                sought.next_at = now.max(sought.late.since + TRIES[tries]);
                return Next::Wait;
            }
            place => (keys.remove(key).expect("it is there"), place),
        };
        self.less(&next.0);
        match next {
            (sought, Place::At(server)) => Next::Send(sought, server),
            (sought, Place::Unknown(reason)) => Next::GiveUp(sought, reason),
        }
    }

    fn less(&mut self, sought: &Sought) {
        self.keys -= 1;
        self.bytes -= sought.pushes.values().map(size).sum::<usize>();
    }
}

fn size(push: &Push) -> usize {
    push.packet.len() + OVERHEAD
}

#[cfg(test)]
mod tests;
