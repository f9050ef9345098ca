//! Who owns which partition, as jobs claim them, and up to where its owners have vouched that this comet was sent
//! everything. Pure.

use std::collections::HashMap;
use std::ops::Range;

/// What is known of the partitions of every topic, by consumer group.
#[derive(Debug, Default)]
pub struct Owners {
    partitions: HashMap<(String, u32, u32), Partition>,
}

#[derive(Debug)]
struct Partition {
    /// The highest generation that claimed it or sent for it.
    generation: i32,
    /// This comet was sent everything before; `None` until somebody vouched for anything.
    heard: Option<u64>,
}

/// What a mark turned out to mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A later generation owns the partition.
    Fenced,
    /// Nothing was missed.
    Whole,
    /// These offsets were not sent to this comet, whoever they were for, and will not be.
    Missed(Range<u64>),
}

impl Owners {
    /// Notes the owner unless a later generation is. Returns whether it is the owner.
    pub fn claim(&mut self, group: &str, epoch: u32, partition: u32, generation: i32) -> bool {
        self.admit(group, epoch, partition, generation).is_some()
    }

    /// The owner vouches that everything in `from..through` was sent to this comet or is not for it. What is between
    /// what was vouched for before and `from` was missed. With epoch 0 offsets cannot be compared.
    pub fn hear(&mut self, group: &str, epoch: u32, partition: u32, generation: i32, vouched: Range<u64>) -> Heard {
        let Some(known) = self.admit(group, epoch, partition, generation) else {
            return Heard::Fenced;
        };
        let before = known.heard.filter(|_| epoch != 0).unwrap_or(vouched.start);
        known.heard = Some(before.max(vouched.start).max(vouched.end));
        if before < vouched.start { Heard::Missed(before..vouched.start) } else { Heard::Whole }
    }

    fn admit(&mut self, group: &str, epoch: u32, partition: u32, generation: i32) -> Option<&mut Partition> {
        let key = (group.to_owned(), epoch, partition);
        let known = self.partitions.entry(key).or_insert(Partition { generation, heard: None });
        known.generation = known.generation.max(generation);
        (known.generation == generation).then_some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(owners: &mut Owners, generation: i32, vouched: Range<u64>) -> Heard {
        owners.hear("g", 1, 0, generation, vouched)
    }

    #[test]
    fn a_partition_has_the_owner_of_the_highest_generation() {
        let mut owners = Owners::default();
        assert!(owners.claim("g", 1, 0, 5) && owners.claim("g", 1, 0, 5));
        assert!(!owners.claim("g", 1, 0, 4) && owners.claim("g", 1, 0, 6) && !owners.claim("g", 1, 0, 5));
        assert!(owners.claim("h", 1, 0, 1) && owners.claim("g", 2, 0, 1) && owners.claim("g", 1, 1, 1));
        assert_eq!(hear(&mut owners, 5, 0..9), Heard::Fenced);
    }

    #[test]
    fn what_nobody_vouched_for_was_missed_and_is_told_once() {
        let mut owners = Owners::default();
        assert_eq!(hear(&mut owners, 1, 100..120), Heard::Whole, "nobody was here before");
        assert_eq!(hear(&mut owners, 1, 120..130), Heard::Whole);
        assert_eq!(hear(&mut owners, 1, 110..125), Heard::Whole, "an older mark takes nothing back");
        assert_eq!(hear(&mut owners, 2, 140..140), Heard::Missed(130..140));
        assert_eq!(hear(&mut owners, 2, 140..150), Heard::Whole);
        assert_eq!(hear(&mut owners, 3, 145..150), Heard::Whole, "a new owner begins where was committed");
    }

    #[test]
    fn a_topic_without_an_id_has_no_holes() {
        let mut owners = Owners::default();
        assert_eq!(owners.hear("g", 0, 0, 1, 0..9), Heard::Whole);
        assert_eq!(owners.hear("g", 0, 0, 1, 20..30), Heard::Whole);
    }
}
