//! What one partition still owes: offset → comets that have not answered. The oldest offset that somebody still owes
//! is what may be committed; nothing before it is asked for again, nothing after it is lost by a crash.
//!
//! Pure: no clock, no I/O. Consumer and comets share one ledger per assigned partition behind a short lock.

use std::collections::VecDeque;

/// No offset this far beyond the oldest unanswered one is handed to a comet, so that a comet can tell repeats apart
/// with a set of bounded size.
pub const WINDOW: u64 = 65_536;

/// The open offsets of one partition.
#[derive(Debug)]
pub struct Ledger {
    /// The first offset not fully answered.
    floor: u64,
    /// How many answers each offset from the floor on still waits for.
    owed: VecDeque<u32>,
}

impl Ledger {
    /// Nothing is owed before `start`.
    pub fn new(start: u64) -> Self {
        Self { floor: start, owed: VecDeque::new() }
    }

    /// Whether this offset may be opened now; if not, wait until the floor moves.
    pub fn has_room(&self, offset: u64) -> bool {
        self.owed.is_empty() || offset < self.floor + WINDOW
    }

    /// Notes that so many comets must answer for this offset; none = it is done. Returns whether that was news: an
    /// offset below one opened before is a repeat and changes nothing.
    pub fn open(&mut self, offset: u64, comets: u32) -> bool {
        if offset < self.next() {
            return false;
        }
        if self.owed.is_empty() {
            self.floor = offset;
        }
        let gap = offset - self.next();
        // A queue without gaps never gets here twice; what Kafka skipped is owed to nobody.
        self.owed.extend((0..gap).map(|_| 0));
        self.owed.push_back(comets);
        self.settle();
        true
    }

    /// Notes that so many more answers are waited for, as long as this offset still waits for one. Returns whether it does.
    pub fn more(&mut self, offset: u64, answers: u32) -> bool {
        let index = offset.checked_sub(self.floor).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.owed.get_mut(index)).filter(|owed| **owed > 0) {
            Some(owed) => {
                *owed += answers;
                true
            }
            None => false,
        }
    }

    /// Notes one comet's answer. Returns whether the floor moved.
    pub fn answer(&mut self, offset: u64) -> bool {
        let Some(index) = offset.checked_sub(self.floor) else {
            return false;
        };
        if let Some(owed) = usize::try_from(index).ok().and_then(|index| self.owed.get_mut(index)) {
            *owed = owed.saturating_sub(1);
        }
        index == 0 && self.settle()
    }

    /// The first offset that a consumer taking over must read: what to commit.
    pub fn committed(&self) -> u64 {
        self.floor
    }

    /// The lowest offset that can still be opened.
    pub fn next(&self) -> u64 {
        self.floor + self.owed.len() as u64
    }

    /// Whether every opened offset was answered.
    pub fn is_settled(&self) -> bool {
        self.owed.is_empty()
    }

    fn settle(&mut self) -> bool {
        let before = self.floor;
        while self.owed.front() == Some(&0) {
            self.owed.pop_front();
            self.floor += 1;
        }
        self.floor != before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_offset_is_committed_only_after_every_comet_it_owed_has_answered() {
        let mut ledger = Ledger::new(7);
        assert!(ledger.open(7, 2));
        assert!(ledger.open(8, 1));
        assert!(!ledger.answer(8));
        assert!(!ledger.answer(7));
        assert_eq!(ledger.committed(), 7);
        assert!(ledger.answer(7));
        assert_eq!(ledger.committed(), 9);
    }

    #[test]
    fn an_offset_owed_to_nobody_is_done_at_once() {
        let mut ledger = Ledger::new(0);
        ledger.open(0, 0);
        assert_eq!(ledger.committed(), 1);
    }

    #[test]
    fn a_repeated_offset_changes_nothing() {
        let mut ledger = Ledger::new(5);
        ledger.open(5, 1);
        assert!(!ledger.open(5, 3) && !ledger.open(4, 3));
        ledger.answer(5);
        assert_eq!(ledger.committed(), 6);
    }

    #[test]
    fn offsets_that_the_queue_skipped_hold_nothing_up() {
        let mut ledger = Ledger::new(0);
        ledger.open(0, 1);
        ledger.open(10, 1);
        ledger.answer(0);
        assert_eq!(ledger.committed(), 10);
        ledger.answer(10);
        assert!(ledger.has_room(10_000_000));
        ledger.open(10_000_000, 1);
        assert_eq!(ledger.committed(), 10_000_000);
    }

    #[test]
    fn there_is_no_room_at_the_window_until_the_oldest_is_answered() {
        let mut ledger = Ledger::new(0);
        ledger.open(0, 1);
        assert!(ledger.has_room(WINDOW - 1));
        assert!(!ledger.has_room(WINDOW));
        ledger.answer(0);
        assert!(ledger.has_room(WINDOW));
    }

    #[test]
    fn an_offset_that_is_owed_once_more_waits_for_that_too_and_one_that_is_done_is_not_opened_again() {
        let mut ledger = Ledger::new(0);
        ledger.open(0, 1);
        ledger.open(1, 1);
        assert!(ledger.more(0, 2));
        ledger.answer(0);
        ledger.answer(0);
        assert_eq!(ledger.committed(), 0);
        ledger.answer(1);
        assert!(!ledger.more(1, 1) && !ledger.more(2, 1));
        ledger.answer(0);
        assert_eq!(ledger.committed(), 2);
        assert!(!ledger.more(0, 1));
    }

    proptest! {
        #[test]
        fn committed_is_always_the_oldest_offset_somebody_still_owes(
            owed in prop::collection::vec((0_u32..4, 0_u64..3), 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut ledger = Ledger::new(100);
            let mut open: Vec<(u64, u32)> = Vec::new();
            let mut offset = 100;
            for (comets, gap) in owed {
                offset += gap;
                prop_assert!(ledger.open(offset, comets));
                open.push((offset, comets));
                offset += 1;
            }
            for pick in order {
                let expected = open.iter().find(|(_, owed)| *owed > 0).map_or(offset, |(oldest, _)| *oldest);
                prop_assert_eq!(ledger.committed(), expected);
                prop_assert_eq!(ledger.is_settled(), expected == offset);
                let waiting: Vec<usize> = (0..open.len()).filter(|i| open[*i].1 > 0).collect();
                if waiting.is_empty() {
                    break;
                }
                let index = waiting[pick.index(waiting.len())];
                open[index].1 -= 1;
                ledger.answer(open[index].0);
            }
        }
    }
}
