//! Finds records that the queue holds twice.
//!
//! librdkafka numbers what it produces, so that a broker keeps a record once however often it is sent. But when a record
//! runs out of time, as while a broker stands still, it starts numbering anew, and what was under way then may be kept
//! twice. Both copies are the same to the byte, and no two records are that carry an id.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// How many records back a copy is found: more than a producer has under way to a partition.
const REACH: usize = 32 * 1024;

/// The last records of one partition, as hashes.
#[derive(Debug, Default)]
pub(super) struct Copies {
    hasher: RandomState,
    seen: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Copies {
    /// Whether this record, which carries an id, was here before; from now on it was.
    pub fn is_one(&mut self, value: &[u8]) -> bool {
        let hash = self.hasher.hash_one(value);
        if !self.seen.insert(hash) {
            return true;
        }
        self.order.push_back(hash);
        if self.order.len() > REACH
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_found_as_far_back_as_the_reach_and_memory_stays_bounded() {
        let mut copies = Copies::default();
        for number in 0..REACH as u64 {
            assert!(!copies.is_one(&number.to_be_bytes()));
        }
        assert!(copies.is_one(&0_u64.to_be_bytes()));
        assert!(!copies.is_one(&u64::MAX.to_be_bytes()));
        assert!(!copies.is_one(&0_u64.to_be_bytes()), "forgotten by now");
        assert_eq!((copies.seen.len(), copies.order.len()), (REACH, REACH));
    }
}
