//! Who owns which partition, as jobs claim them, and up to where its owners have vouched that this comet was sent
//! everything. Pure.

use std::collections::HashMap;
use std::ops::Range;

/// What is known of the partitions of every topic, by consumer group.
#[derive(Debug, Default)]
pub struct Owners {
    partitions: HashMap<(String, u32, u32), Partition>,
    /// How many partitions each topic has, as claims of them say.
    topics: HashMap<(String, u32), u32>,
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

    /// The topic has so many partitions, as an owner of some of them says.
    pub fn count(&mut self, group: &str, epoch: u32, partitions: u32) {
        let known = self.topics.entry((group.to_owned(), epoch)).or_default();
        *known = partitions.max(*known);
    }

    /// Whether somebody has vouched for every partition of a topic: whatever this comet is not sent from then on is
    /// found to be missed. Claims alone are not enough: a stream may break between a claim and the first mark.
    pub fn are_complete(&self) -> bool {
        let is_heard = |group: &str, epoch: u32, partition: u32| {
            let known = self.partitions.get(&(group.to_owned(), epoch, partition));
            known.is_some_and(|known| known.heard.is_some())
        };
        self.topics
            .iter()
            .any(|((group, epoch), count)| *count > 0 && (0..*count).all(|number| is_heard(group, *epoch, number)))
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
    fn a_topic_is_complete_once_somebody_vouched_for_each_of_its_partitions() {
        let mut owners = Owners::default();
        owners.count("old", 1, 0);
        assert!(owners.claim("old", 1, 0, 1));
        assert_eq!(owners.hear("old", 1, 0, 1, 0..1), Heard::Whole);
        assert!(!owners.are_complete(), "who does not say how many there are does not have all");
        owners.count("g", 1, 3);
        owners.count("g", 1, 2);
        assert!((0..3).all(|partition| owners.claim("g", 1, partition, 1)));
        assert!(!owners.are_complete(), "claims are not enough");
        for partition in 0..3 {
            assert!(!owners.are_complete(), "{partition}");
            assert_eq!(owners.hear("g", 1, partition, 1, 5..5), Heard::Whole);
        }
        assert!(owners.are_complete());
    }

    #[test]
    fn a_topic_without_an_id_has_no_holes() {
        let mut owners = Owners::default();
        assert_eq!(owners.hear("g", 0, 0, 1, 0..9), Heard::Whole);
        assert_eq!(owners.hear("g", 0, 0, 1, 20..30), Heard::Whole);
    }
}
