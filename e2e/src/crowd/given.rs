//! What a client that can move was given lately: it may come again where it goes on, and is dropped then.

use std::collections::HashSet;

use proto::envelope::PushId;

/// How many ids one generation has: more than any client of a test is given while it moves.
const GENERATION: usize = 1024;

/// The ids of the last pushes, one generation at least and two at most.
#[derive(Debug, Default)]
pub(super) struct Given {
    young: HashSet<PushId>,
    old: HashSet<PushId>,
}

impl Given {
    /// Notes a push; false when it was given before. One without an id never was.
    pub fn note(&mut self, id: PushId) -> bool {
        if id.epoch == 0 {
            return true;
        }
        if self.old.contains(&id) || !self.young.insert(id) {
            return false;
        }
        if self.young.len() == GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(offset: u64) -> PushId {
        PushId { epoch: 1, partition: 0, offset }
    }

    #[test]
    fn a_push_is_known_again_for_a_generation_at_least_and_two_at_most() {
        let (mut given, generation) = (Given::default(), GENERATION as u64);
        for offset in 0..3 * generation {
            assert!(given.note(id(offset)) && !given.note(id(offset)));
            assert!(offset < generation || !given.note(id(offset + 1 - generation)), "{offset}");
        }
        assert!(given.young.len() + given.old.len() <= 2 * GENERATION);
    }

    #[test]
    fn a_push_of_another_partition_or_topic_or_without_an_id_is_another_one() {
        let mut given = Given::default();
        assert!(given.note(id(7)) && given.note(PushId { partition: 1, ..id(7) }));
        assert!(given.note(PushId { epoch: 2, ..id(7) }));
        let nameless = PushId { epoch: 0, ..id(7) };
        assert!(given.note(nameless) && given.note(nameless));
    }
}
