//! Which records this shard has already enqueued, so that one sent twice is delivered once.
//!
//! A watermark is not enough: batching and resends bring lower offsets after higher ones. Per consumer group and
//! partition there is one bit for each of the last 65 536 offsets; job never has an offset in flight that far above
//! the oldest unanswered one, so whatever is below the window was answered and is a repeat. A record for keys of which
//! some were not here may come back for those: the keys that did get it are noted beside the bits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::Key;
use proto::envelope::PushId;

/// How far above the oldest unanswered offset job may be.
pub const WINDOW: u64 = 65_536;
const WORDS: usize = (WINDOW / 64) as usize;

/// What one shard has enqueued, by consumer group and partition.
#[derive(Debug, Default)]
pub struct Repeats {
    partitions: HashMap<(Arc<str>, u32), Partition>,
}

#[derive(Debug)]
struct Partition {
    epoch: u32,
    top: u64,
    bits: Box<[u64; WORDS]>,
    partial: BTreeMap<u64, Vec<Key>>,
}

impl Repeats {
    /// Whether this record is new here; from now on it is not. Records without an id are always new.
    pub fn first(&mut self, group: &Arc<str>, id: PushId) -> bool {
        if id.epoch == 0 {
            return true;
        }
        let partition = self.partition(group, id);
        let new = !partition.has(id.offset);
        partition.note(id.offset);
        new
    }

    /// Delivers a record for `keys` to those that have not had it. `enqueue` says whether the key was here.
    /// Returns the keys that were not.
    pub fn deliver<'a>(
        &mut self,
        group: &Arc<str>,
        id: PushId,
        keys: &'a [Key],
        mut enqueue: impl FnMut(&Key) -> bool,
    ) -> Vec<&'a Key> {
        if id.epoch == 0 {
            return keys.iter().filter(|key| !enqueue(key)).collect();
        }
        let partition = self.partition(group, id);
        if partition.has(id.offset) {
            return Vec::new();
        }
        let mut had = partition.partial.remove(&id.offset).unwrap_or_default();
        let before = had.len();
        let mut missing = Vec::new();
        for key in keys {
            if had[..before].contains(key) {
                continue;
            }
            if enqueue(key) {
                had.push(key.clone());
            } else {
                missing.push(key);
            }
        }
        if missing.is_empty() {
            partition.note(id.offset);
        } else if !had.is_empty() {
            partition.partial.insert(id.offset, had);
        }
        missing
    }

    fn partition(&mut self, group: &Arc<str>, id: PushId) -> &mut Partition {
        let partition =
            self.partitions.entry((group.clone(), id.partition)).or_insert_with(|| Partition::new(id.epoch));
        if partition.epoch != id.epoch {
            *partition = Partition::new(id.epoch);
        }
        partition
    }
}

impl Partition {
    fn new(epoch: u32) -> Self {
        Self { epoch, top: 0, bits: Box::new([0; WORDS]), partial: BTreeMap::new() }
    }

    fn has(&self, offset: u64) -> bool {
        if offset > self.top {
            return false;
        }
        let (word, bit) = position(offset);
        self.top - offset >= WINDOW || self.bits[word] & bit != 0
    }

    fn note(&mut self, offset: u64) {
        if offset > self.top {
            self.advance(offset);
        }
        if self.top - offset < WINDOW {
            let (word, bit) = position(offset);
            self.bits[word] |= bit;
        }
    }

    /// Forgets what falls out of the window below the new `top`.
    fn advance(&mut self, top: u64) {
        if top - self.top >= WINDOW {
            self.bits.fill(0);
        } else {
            for offset in self.top + 1..=top {
                let (word, bit) = position(offset);
                self.bits[word] &= !bit;
            }
        }
        self.top = top;
        if let Some(floor) = top.checked_sub(WINDOW - 1) {
            self.partial = self.partial.split_off(&floor);
        }
    }
}

fn position(offset: u64) -> (usize, u64) {
    let at = offset % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64) -> PushId {
        PushId { epoch: 1, partition: 0, offset }
    }

    #[test]
    fn a_record_is_new_once_also_below_the_highest_seen() {
        let group = Arc::from("g");
        let mut repeats = Repeats::default();
        assert!([5, 3, 0, 4].iter().all(|offset| repeats.first(&group, at(*offset))));
        assert!([3, 5, 0, 4].iter().all(|offset| !repeats.first(&group, at(*offset))));
        assert!(repeats.first(&group, at(1)));
    }

    #[test]
    fn records_without_an_id_are_never_repeats() {
        let mut repeats = Repeats::default();
        let id = PushId { epoch: 0, partition: 0, offset: 9 };
        assert!(repeats.first(&Arc::from("g"), id) && repeats.first(&Arc::from("g"), id));
    }

    #[test]
    fn another_group_and_a_new_epoch_start_afresh() {
        let mut repeats = Repeats::default();
        let group = Arc::from("g");
        assert!(repeats.first(&group, at(9)));
        assert!(repeats.first(&Arc::from("h"), at(9)));
        assert!(repeats.first(&group, PushId { epoch: 2, ..at(9) }));
        assert!(!repeats.first(&group, PushId { epoch: 2, ..at(9) }));
    }

    #[test]
    fn below_the_window_everything_is_a_repeat() {
        let mut repeats = Repeats::default();
        let group = Arc::from("g");
        assert!(repeats.first(&group, at(WINDOW + 10)));
        assert!(!repeats.first(&group, at(10)));
        assert!(repeats.first(&group, at(11)));
    }

    #[test]
    fn only_keys_that_were_not_here_may_get_it_again() {
        let mut repeats = Repeats::default();
        let group = Arc::from("g");
        let keys = [Key::from("a"), Key::from("b")];
        let missing = repeats.deliver(&group, at(1), &keys, |key| key.as_str() == "a");
        assert_eq!(missing, [&keys[1]]);
        let mut given = Vec::new();
        let missing = repeats.deliver(&group, at(1), &keys, |key| {
            given.push(key.clone());
            true
        });
        assert!(missing.is_empty());
        assert_eq!(given, [keys[1].clone()]);
        assert!(repeats.deliver(&group, at(1), &keys, |_| panic!("a repeat")).is_empty());
    }

    proptest! {
        #[test]
        fn within_the_window_it_is_an_exact_set(steps in proptest::collection::vec((0u64..400, 0u64..300), 1..300)) {
            let group = Arc::from("g");
            let mut repeats = Repeats::default();
            let mut model = HashSet::new();
            let mut base = WINDOW - 200;
            for (forward, back) in steps {
                base += forward;
                let offset = base - back;
                prop_assert_eq!(repeats.first(&group, at(offset)), model.insert(offset), "offset {}", offset);
            }
        }
    }
}
